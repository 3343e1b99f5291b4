//! Why a bridge leaves a connection.

use crate::wire::{Fault, ReasonCode};

/// Why a connection of a bridge ends, unless it is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leave {
    /// This broker shuts down.
    ShuttingDown,
    /// What was under way is finished, as [`crate::broker::bridge::Relay::finish`] has asked.
    Finished,
    /// There was nothing to do for as long as the bridge stays connected without.
    Idle,
    /// This broker has ended it.
    Ended(ReasonCode),
    /// The upstream has taken its leave: the reason, and that with all it says about it.
    Disconnected(ReasonCode, String),
    /// The upstream broke the protocol.
    Fault(Fault),
    /// The upstream does not take messages for now, and says why.
    Refused(String),
    /// The upstream did not answer in time.
    Silent(&'static str),
    /// A message could not be set aside, because the store has no room.
    NoRoom,
}

impl std::fmt::Display for Leave {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Leave::ShuttingDown => f.write_str("this broker shuts down"),
            Leave::Finished => f.write_str("what was under way is finished"),
            Leave::Idle => f.write_str("there was nothing to do for idle_timeout"),
            Leave::Ended(reason) => write!(f, "this broker has ended the connection: {reason}"),
            Leave::Disconnected(reason, why) => {
                write!(f, "the upstream has disconnected: {why}{}", hint(*reason))
            }
            Leave::Fault(fault) => write!(f, "the upstream broke the protocol: {fault}"),
            Leave::Refused(why) => write!(f, "the upstream takes no messages for now: {why}"),
            Leave::Silent(what) => write!(f, "the upstream has not answered in time: {what}"),
            Leave::NoRoom => f.write_str("the store has no room for a message to be set aside"),
        }
    }
}

impl From<Fault> for Leave {
    fn from(fault: Fault) -> Leave {
        Leave::Fault(fault)
    }
}

/// What may help with a reason the upstream has given for not having the bridge; begins with a
/// separator, if there is anything.
pub fn hint(reason: ReasonCode) -> &'static str {
    match reason {
        ReasonCode::SessionTakenOver => {
            "; another client uses this remote_clientid at the upstream: each needs its own"
        }
        ReasonCode::NotAuthorized => {
            "; see remote_username, remote_password and certfile, and what the upstream lets remote_clientid do (its topics included)"
        }
        ReasonCode::BadUserNameOrPassword => "; see remote_username and remote_password",
        ReasonCode::ClientIdentifierNotValid => "; see remote_clientid",
        ReasonCode::RetainNotSupported | ReasonCode::QosNotSupported => {
            "; see notifications: its will is retained and of QoS 1"
        }
        _ => "",
    }
}
