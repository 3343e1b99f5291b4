//! Quality of service.

/// Quality of service (MQTT 5 section 4.3). Ordered: the lower of two is their minimum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QoS {
    /// At most once: sent once, never acknowledged.
    AtMostOnce = 0,
    /// At least once: sent until it is acknowledged.
    AtLeastOnce = 1,
    /// Exactly once: acknowledged and released by its packet identifier.
    ExactlyOnce = 2,
}

impl QoS {
    /// Converts a number to a QoS. Returns `None` for 3 and above [MQTT-3.3.1-4].
    pub const fn new(number: u8) -> Option<QoS> {
        match number {
            0 => Some(QoS::AtMostOnce),
            1 => Some(QoS::AtLeastOnce),
            2 => Some(QoS::ExactlyOnce),
            _ => None,
        }
    }
}
