//! How commands end: the message on stderr and the exit code.
//!
//! Where mosquitto_pub and mosquitto_sub have a code, `pub` and `sub` use the same.

use crate::wire::{ProtocolVersion, ReasonCode};

/// Success.
pub const SUCCESS: u8 = 0;
/// The broker could not start or had to stop. `pub` and `sub`: no connection, a file that cannot be
/// read, or a wrong command line.
pub const FAILED: u8 = 1;
/// `run`, `check`, `reload`, `drop-bridge` and `export`: the configuration or the command line is
/// wrong, or there is no such queue. `pub` and `sub`: the server violated the protocol.
pub const WRONG: u8 = 2;
/// `reload`: some changes took effect, others need a restart.
pub const RESTART: u8 = 3;
/// `export`: the store is damaged, and only a part of it was exported.
pub const INCOMPLETE: u8 = 4;
/// The connection was lost.
pub const LOST: u8 = 7;
/// The time limit `-W` was reached.
pub const TIMEOUT: u8 = 27;

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// Exit code.
    pub code: u8,
    /// One sentence for stderr.
    pub message: String,
}

impl Failure {
    /// Creates a failure with this exit code.
    pub fn new(code: u8, message: impl Into<String>) -> Failure {
        Failure {
            code,
            message: message.into(),
        }
    }

    /// Creates a failure for flags that contradict each other.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure::new(FAILED, message)
    }

    /// Creates the failure for a request `what` that the server refused. The exit code is its
    /// reason code.
    pub fn refused(what: &str, reason: ReasonCode, explained: Option<&str>) -> Failure {
        let mut message = format!("{what}: {}", words(reason));
        if let Some(explained) = explained {
            message += &format!(" ({explained:?})");
        }
        Failure::new(reason.as_u8(), message)
    }

    /// Creates the failure for a refused connection. The exit code is what the server sent: a
    /// reason code, or a return code of MQTT 3.
    pub fn not_connected(
        version: ProtocolVersion,
        reason: ReasonCode,
        explained: Option<&str>,
    ) -> Failure {
        let refused = Failure::refused("the server refused the connection", reason, explained);
        let code = match (version, reason) {
            (ProtocolVersion::V5, _) => reason.as_u8(),
            (_, ReasonCode::UnsupportedProtocolVersion) => 1,
            (_, ReasonCode::ClientIdentifierNotValid) => 2,
            (_, ReasonCode::BadUserNameOrPassword) => 4,
            (_, ReasonCode::NotAuthorized) => 5,
            _ => 3,
        };
        Failure { code, ..refused }
    }
}

/// Returns a reason code as words and number: `keep alive timeout (0x8D)`.
pub fn words(reason: ReasonCode) -> String {
    let mut words = String::new();
    for c in format!("{reason:?}").chars() {
        if c.is_ascii_uppercase() && !words.is_empty() {
            words.push(' ');
        }
        words.push(c.to_ascii_lowercase());
    }
    format!("{words} (0x{:02X})", reason.as_u8())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_code_is_told_in_words() {
        assert_eq!(
            words(ReasonCode::KeepAliveTimeout),
            "keep alive timeout (0x8D)"
        );
        assert_eq!(words(ReasonCode::Success), "success (0x00)");
    }

    #[test]
    fn a_refused_connection_exits_with_the_code_the_server_sent() {
        let code = |version, reason| Failure::not_connected(version, reason, None).code;
        assert_eq!(code(ProtocolVersion::V5, ReasonCode::NotAuthorized), 0x87);
        assert_eq!(code(ProtocolVersion::V311, ReasonCode::NotAuthorized), 5);
        assert_eq!(
            code(
                ProtocolVersion::V311,
                ReasonCode::UnsupportedProtocolVersion
            ),
            1
        );
        assert_eq!(
            code(ProtocolVersion::V31, ReasonCode::ClientIdentifierNotValid),
            2
        );
        assert_eq!(code(ProtocolVersion::V31, ReasonCode::ServerUnavailable), 3);
        assert_eq!(
            code(ProtocolVersion::V31, ReasonCode::BadUserNameOrPassword),
            4
        );
    }
}
