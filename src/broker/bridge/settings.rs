//! What a bridge does once it is connected.

use crate::broker::bridge::notifications::Notifications;
use crate::broker::bridge::rules::Rule;
use crate::broker::model::topics::CLIENT_PREFIX;
use crate::broker::state::backlog::QueuePolicy;
use crate::broker::state::quota::Rates;
use crate::wire::ProtocolVersion;

/// What a bridge does once it is connected.
#[derive(Clone, Debug, PartialEq)]
pub struct Bridge {
    /// Its name, which its session is known by.
    pub name: Box<str>,
    /// What crosses it; the first rule that fits a message decides.
    pub rules: Vec<Rule>,
    /// The client identifier at the upstream.
    pub remote_clientid: Box<str>,
    /// QoS 1 and 2 messages under way at once, each way; the upstream's receive maximum applies as
    /// well. `None` for the default, see [`Bridge::window`].
    pub max_inflight_messages: Option<u16>,
    /// Seconds without a packet after which a PINGREQ is sent; the upstream may set another value.
    pub keepalive_interval: u16,
    /// Milliseconds within which the upstream must answer.
    pub response_timeout_ms: u64,
    /// How long the upstream keeps the session of a bridge that does not come back, in seconds
    /// (MQTT 5); `u32::MAX` for ever.
    pub session_expiry: u32,
    /// Topic aliases set towards the upstream at most; its own maximum applies as well.
    pub max_topic_alias_out: u16,
    /// Messages carry their identity and their path over MQTT 5, both ways (`broker::marks`).
    pub marks: bool,
    /// User properties added to each message that goes out (MQTT 5).
    pub user_properties: Vec<(Box<str>, Box<str>)>,
    /// What comes in over it in a second; the limits on clients do not hold for it.
    pub rates_in: Rates,
    /// What goes out over it in a second.
    pub rates_out: Rates,
    /// Where messages go that the upstream will never take; without it they are dropped, and
    /// counted all the same.
    pub dead_letter_topic: Option<Box<str>>,
    /// How messages wait for the upstream.
    pub queue: QueuePolicy,
    /// Where it is told whether the bridge is connected, if it is.
    pub notifications: Option<Notifications>,
    /// Its sessions, here and at the upstream, end with each connection: nothing waits for the next
    /// one.
    pub clean_session: bool,
}

impl Bridge {
    /// The client identifier of its session at this broker.
    pub fn local_clientid(&self) -> String {
        format!("{CLIENT_PREFIX}{}", self.name)
    }

    /// Messages under way at once. An upstream cannot say in MQTT 3.1.1 how many it takes, and
    /// Mosquitto 2.0 loses what is more than 20 at QoS 2.
    pub fn window(&self, version: ProtocolVersion) -> u16 {
        let default = match version {
            ProtocolVersion::V5 => 1000,
            ProtocolVersion::V311 | ProtocolVersion::V31 => 20,
        };
        self.max_inflight_messages.unwrap_or(default).max(1)
    }
}
