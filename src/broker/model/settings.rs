//! What a broker is told once, at its start.

use crate::broker::model::acl::Acls;
use crate::broker::model::record::DurabilityRules;
use crate::limits::Limits;

/// What the driver draws for a broker once, at its start: the broker itself has no source of
/// chance.
#[derive(Clone, Copy)]
pub struct Chance {
    /// Decides how tables are hashed, so that peers cannot choose what collides.
    pub seed: u64,
    /// The key of assigned client identifiers: who does not know it cannot guess them. From the
    /// operating system's randomness.
    pub client_ids: [u8; 32],
}

impl Chance {
    /// For tests and measurements: the same each time, and known to everybody.
    pub fn fixed(seed: u64) -> Chance {
        Chance {
            seed,
            client_ids: [7; 32],
        }
    }
}

/// What a broker is told once, at its start.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// What names this broker among those that bridges lead to: that of its store.
    pub identity: u64,
    /// All limits.
    pub limits: Limits,
    /// How far acknowledgements wait.
    pub durability: DurabilityRules,
    /// How often `$SYS` topics are published, in milliseconds; 0 for never.
    pub sys_interval_ms: u64,
    /// What clients may do. [`Broker::set_acl`](crate::broker::Broker::set_acl) replaces it.
    pub acl: Acls,
    /// Clients may have sessions that other users have had, and connections with them.
    /// [`Broker::allow_other_users`](crate::broker::Broker::allow_other_users) replaces it.
    pub allow_other_users: bool,
    /// Deliveries go out at the QoS that was granted, also those of messages that were published at
    /// a lower one. Against \[MQTT-3.8.4-8\].
    /// [`Broker::upgrade_outgoing_qos`](crate::broker::Broker::upgrade_outgoing_qos) replaces it.
    pub upgrade_outgoing_qos: bool,
}
