//! Every limit of the broker, each a named field with one documented answer when it is reached.
//!
//! Names are Mosquitto's where it has a name. All answers are counted (see `broker::Counters`).

use crate::wire::QoS;

/// The limits of a broker. `Default` is what a broker without a configuration has.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Connections at once, those that have not sent CONNECT included. Reached: a new one is closed at once.
    pub max_connections: usize,
    /// Outgoing QoS 1 and 2 messages on their way to one client; the client's receive maximum applies as well. Reached: messages wait in the queue.
    /// As many again are held whose client may not have them sent again at present. Reached: more are dropped and counted.
    pub max_inflight_messages: u16,
    /// Bytes (topic, properties and payload) of outgoing QoS 1 and 2 messages on their way to one client; the message that reaches it is still sent, so one that
    /// is larger goes alone. 0 for no limit. Reached: as `max_inflight_messages`.
    pub max_inflight_bytes: u64,
    /// Incoming QoS 1 and 2 messages of one client that are not acknowledged yet; sent as Receive Maximum. Exceeded: disconnect 0x93.
    pub receive_maximum: u16,
    /// QoS 1 and 2 messages waiting in one session's queue. Reached: the newest message is dropped for that session and counted; if nothing
    /// else takes it, its publisher is answered with 0x97 (MQTT 3, which cannot be told: acknowledged).
    pub max_queued_messages: u64,
    /// Bytes (topic, properties and payload) waiting in one session's queue. Reached: as `max_queued_messages`.
    pub max_queued_bytes: u64,
    /// Bytes waiting in the queues of all sessions. Reached: as `max_queued_messages`.
    pub max_queued_bytes_total: u64,
    /// Bytes of queued message bodies in memory beyond which a message that is not on disk (its session ends with its connection, or
    /// its durability is `memory`) is not queued. Reached: as `max_queued_messages`.
    pub max_queued_memory_bytes: u64,
    /// Bytes of queued message bodies kept in memory for connected clients; beyond it bodies are read from disk when they are needed.
    /// Reached: nothing is lost, reads get slower. Applies to messages that are on disk.
    pub max_hot_bytes: u64,
    /// Bytes of a whole packet from a client; sent as Maximum Packet Size. Exceeded: disconnect 0x95.
    pub max_packet_size: u32,
    /// Bytes waiting to be written to one connection. Reached: QoS 0 messages for it are dropped and counted, QoS 1 and 2 wait in the queue,
    /// and nothing more is read from it.
    pub max_outgoing_bytes: usize,
    /// Bytes waiting to be written to all connections together, those included for which nothing waits yet. Reached: QoS 0 messages are dropped and counted, QoS 1
    /// and 2 wait in the queue until there is room. So that those go on who take what they are sent, each connection may have 4 KiB more, and one after the
    /// other is sent one message beyond it.
    pub max_outgoing_bytes_total: usize,
    /// Bytes of packets that have begun and not ended, or whose login is being checked, of all connections together. Exceeded: the connection whose packet has been unfinished
    /// longest is closed with 0x97, those that have not sent CONNECT (which get no answer) before all others; never the last one left.
    pub max_incoming_bytes: usize,
    /// Bytes of writes waiting for the disk. Reached: nothing is read from publishers until the disk has caught up.
    pub max_pending_write_bytes: usize,
    /// Topic aliases a client may set; sent as Topic Alias Maximum. Exceeded: disconnect 0x94.
    pub max_topic_alias: u16,
    /// Topic aliases the broker sets towards a client that allows them; 0 sends none.
    pub max_topic_alias_out: u16,
    /// Longest keep alive in seconds, 0 for no limit. A longer one (or none) is lowered for MQTT 5 (Server Keep Alive), and refused with
    /// "identifier rejected" for MQTT 3, which cannot be told.
    pub max_keepalive: u16,
    /// Highest QoS a client may publish with; sent as Maximum QoS. Exceeded: disconnect 0x9B. Subscriptions are granted this QoS at most.
    pub maximum_qos: QoS,
    /// Whether messages may be retained; sent as Retain Available. Violated: disconnect 0x9A.
    pub retain_available: bool,
    /// Retained messages. Reached: a new one is not retained, and answered with 0x97 where the client can be told; replacing goes on.
    pub max_retained_messages: u64,
    /// Bytes (topic, properties and payload) of all retained messages, and of the names of those who published them, once each. Reached: as `max_retained_messages`.
    pub max_retained_bytes: u64,
    /// Longest session expiry in seconds, `u32::MAX` for none; a longer one is lowered and the client told. Applies to MQTT 3 sessions without
    /// clean session too.
    pub persistent_client_expiration: u32,
    /// Sessions, connected or not. Reached: a CONNECT that needs a new one is refused with 0x97 (MQTT 3: server unavailable).
    pub max_sessions: usize,
    /// Bytes that one session takes beside its messages: client identifier and user name (twice), will, subscriptions (text, 64 bytes, and 64 for each
    /// level) and topic aliases. One account rather than a limit for each: what a client does not need for one it may use for another. Reached: a CONNECT
    /// that brings more than its session has is refused with 0x97 (MQTT 3: server unavailable), a SUBSCRIBE with 0x97 (MQTT 3: 0x80), a client that sets a topic alias is
    /// disconnected with 0x97; the broker sets no more aliases towards it.
    pub max_session_bytes: u64,
    /// The same of all sessions, connected or not. Reached: as `max_session_bytes`.
    pub max_session_bytes_total: u64,
    /// Subscriptions of one session. Reached: the SUBACK code is 0x97 (MQTT 3: 0x80).
    pub max_subscriptions: usize,
    /// Filters of one SUBSCRIBE or UNSUBSCRIBE, which is handled in one go. Exceeded: disconnect 0x97 (MQTT 3: closed).
    pub max_filters_per_packet: usize,
    /// Shared groups, which a message may all have to be offered to: pairs of share name and filter, of all sessions. Reached: the SUBACK code for a new one is
    /// 0x97 (MQTT 3: 0x80).
    pub max_shared_groups: usize,
    /// Members of a shared group, who may all have to be looked at for a message. Reached: as `max_shared_groups`, for a new member.
    pub max_group_members: usize,
    /// Subscription identifiers that one delivery carries. Reached: the others that match are left out and counted.
    pub max_subscription_ids: usize,
    /// Levels of a topic name or filter. Exceeded: 0x90 for a name (MQTT 3: the connection is closed), 0x8F for a filter.
    pub max_topic_levels: usize,
    /// Bytes of a topic name or filter. Exceeded: as `max_topic_levels`.
    pub max_topic_length: usize,
    /// Messages one client may publish in a second, and at once after a pause; 0 for no limit. Reached: nothing is read from it until it may go on.
    pub max_message_rate_in: u64,
    /// Bytes (topic, properties and payload) one client may publish in a second; as `max_message_rate_in`.
    pub max_byte_rate_in: u64,
    /// Messages one client is sent in a second, and at once after a pause; 0 for no limit. Reached: QoS 1 and 2 wait in its queue, QoS 0 is dropped
    /// and counted.
    pub max_message_rate_out: u64,
    /// Bytes (topic, properties and payload) one client is sent in a second; as `max_message_rate_out`.
    pub max_byte_rate_out: u64,
    /// Connections at once with one user name; 0 for no limit. Reached: CONNECT is refused with 0x97 (MQTT 3: server unavailable).
    pub max_connections_per_user: usize,
    /// Connections at once from one IP address; 0 for no limit. Reached: a new one is closed at once.
    pub max_connections_per_address: usize,
    /// Messages remembered of one client that tells their identities, as bridges of this kind do, to know them when they come again; at least
    /// `receive_maximum`, or more can come again than are remembered. Reached: the oldest is forgotten.
    pub max_message_ids: usize,
    /// Messages remembered of all such clients together; each client counts 16. Reached: the client that is idle longest is forgotten.
    pub max_message_ids_total: usize,
    /// Milliseconds a new connection has for its CONNECT. Exceeded: it is closed.
    pub connect_timeout_ms: u64,
    /// Milliseconds in which a client without keep alive must take something of what is sent to it, 0 for no limit; one with a keep alive has 1.5 times
    /// that. Exceeded: it is closed, and its will published.
    pub write_timeout_ms: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_connections: 1_000_000,
            max_inflight_messages: 100,
            max_inflight_bytes: 0,
            receive_maximum: 1000,
            max_queued_messages: 1_000_000,
            max_queued_bytes: 1_000_000_000,
            max_queued_bytes_total: 10_000_000_000,
            max_queued_memory_bytes: 256_000_000,
            max_hot_bytes: 32_000_000,
            max_packet_size: 2_000_000,
            max_outgoing_bytes: 1_048_576,
            max_outgoing_bytes_total: 256_000_000,
            max_incoming_bytes: 64_000_000,
            max_pending_write_bytes: 64_000_000,
            max_topic_alias: 100,
            max_topic_alias_out: 20,
            max_keepalive: 0,
            maximum_qos: QoS::ExactlyOnce,
            retain_available: true,
            max_retained_messages: 1_000_000,
            max_retained_bytes: 500_000_000,
            persistent_client_expiration: u32::MAX,
            max_sessions: 1_000_000,
            max_session_bytes: 128_000_000,
            max_session_bytes_total: 512_000_000,
            max_subscriptions: 1_000_000,
            max_filters_per_packet: 10_000,
            max_shared_groups: 10_000,
            max_group_members: 10_000,
            max_subscription_ids: 100,
            max_topic_levels: 200,
            max_topic_length: 65_535,
            max_message_rate_in: 0,
            max_byte_rate_in: 0,
            max_message_rate_out: 0,
            max_byte_rate_out: 0,
            max_connections_per_user: 0,
            max_connections_per_address: 0,
            max_message_ids: 2000,
            max_message_ids_total: 1_000_000,
            connect_timeout_ms: 10_000,
            write_timeout_ms: 60_000,
        }
    }
}
