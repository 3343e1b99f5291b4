//! Topics that have a meaning for the broker itself.

/// Topics only the broker publishes to.
pub const SYS_PREFIX: &str = "$SYS/";

/// How the client identifiers of bridges begin; no other client may use one.
pub const CLIENT_PREFIX: &str = "$bridge/";

/// Whether a topic is that of the state of the bridge with this client identifier: the one topic
/// under `$SYS/` that a client may publish to.
pub fn is_state_topic_of(client_id: &str, topic: &str) -> bool {
    let id = topic.strip_prefix("$SYS/broker/connection/");
    id.and_then(|rest| rest.strip_suffix("/state")) == Some(client_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_one_topic_for_its_state() {
        assert!(is_state_topic_of(
            "edge1",
            "$SYS/broker/connection/edge1/state"
        ));
        assert!(is_state_topic_of("a/b", "$SYS/broker/connection/a/b/state"));
        for topic in [
            "$SYS/broker/connection/edge2/state",
            "$SYS/broker/connection/edge1/states",
            "$SYS/broker/connection//state",
            "$SYS/broker/uptime",
            "edge1",
        ] {
            assert!(!is_state_topic_of("edge1", topic), "{topic}");
        }
    }
}
