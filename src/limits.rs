//! All limits of the broker. Each is a field, documented with what happens when it is reached.
//!
//! Names are Mosquitto's where it has one. All refusals and drops are counted: see
//! `broker::Counters`.

use crate::wire::QoS;

/// The limits of a broker. `Default` has the values of a broker without a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// Connections at once, with those that have not sent CONNECT. Reached: a new one is closed at
    /// once.
    pub max_connections: usize,
    /// Outgoing QoS 1 and 2 messages in flight to one client. The client's Receive Maximum applies
    /// as well. Reached: messages wait in the queue. As many again are kept while the client lacks
    /// the right to have them sent again. Reached: more are dropped and counted.
    pub max_inflight_messages: u16,
    /// Bytes (topic, properties and payload) of outgoing QoS 1 and 2 messages in flight to one
    /// client. 0 for no limit. The message that reaches the limit is still sent, so a larger one
    /// goes alone. Reached: as `max_inflight_messages`.
    pub max_inflight_bytes: u64,
    /// Incoming QoS 1 and 2 messages of one client that are not acknowledged yet. Sent as Receive
    /// Maximum. Exceeded: DISCONNECT 0x93.
    pub receive_maximum: u16,
    /// QoS 1 and 2 messages in the queue of one session. Reached: the newest message is dropped for
    /// that session and counted. If no other session takes it, the publisher gets 0x97. MQTT 3 has
    /// no such code: the message is acknowledged.
    pub max_queued_messages: u64,
    /// Bytes (topic, properties and payload) in the queue of one session. Reached: as
    /// `max_queued_messages`.
    pub max_queued_bytes: u64,
    /// Bytes in the queues of all sessions. Reached: as `max_queued_messages`.
    pub max_queued_bytes_total: u64,
    /// Bytes of queued message bodies in memory, for messages that are not on disk: their session
    /// ends with its connection, or their durability is `memory`. Reached: as
    /// `max_queued_messages`.
    pub max_queued_memory_bytes: u64,
    /// Bytes of queued message bodies in memory for connected clients, for messages that are on
    /// disk. Reached: further bodies are read from disk when they are needed. Nothing is lost,
    /// reads get slower.
    pub max_hot_bytes: u64,
    /// Bytes of a whole packet from a client. Sent as Maximum Packet Size. Exceeded: DISCONNECT
    /// 0x95.
    pub max_packet_size: u32,
    /// Bytes that wait to be written to one connection. Reached: QoS 0 messages for it are dropped
    /// and counted, QoS 1 and 2 wait in the queue, and nothing more is read from it.
    pub max_outgoing_bytes: usize,
    /// Bytes that wait to be written to all connections. Reached: QoS 0 messages are dropped and
    /// counted, QoS 1 and 2 wait in the queue until there is room. This also holds for connections
    /// for which nothing waits. So that clients which take their messages go on, each connection
    /// may have 4 KiB more, and one connection after the other gets one message beyond the limit.
    pub max_outgoing_bytes_total: usize,
    /// Bytes of partial packets of all connections, and of CONNECTs whose client is being
    /// authenticated. Exceeded: the connection with the oldest partial packet is closed with 0x97.
    /// Connections that have not sent CONNECT are closed first, and get no answer. The last one is
    /// never closed.
    pub max_incoming_bytes: usize,
    /// Bytes of writes that wait for the disk. Reached: nothing is read from publishers until the
    /// disk has caught up.
    pub max_pending_write_bytes: usize,
    /// Topic aliases a client may set. Sent as Topic Alias Maximum. Exceeded: DISCONNECT 0x94.
    pub max_topic_alias: u16,
    /// Topic aliases the broker sets for a client that allows them. 0 for none.
    pub max_topic_alias_out: u16,
    /// Longest keep alive in seconds, 0 for no limit. A longer one, or none, is lowered for MQTT 5
    /// (Server Keep Alive). MQTT 3 has no such property: CONNECT is refused with "identifier
    /// rejected".
    pub max_keepalive: u16,
    /// Highest QoS of a client's messages. Sent as Maximum QoS. Exceeded: DISCONNECT 0x9B.
    /// Subscriptions are granted at most this QoS.
    pub maximum_qos: QoS,
    /// Whether messages may be retained. Sent as Retain Available. Violated: DISCONNECT 0x9A.
    pub retain_available: bool,
    /// Retained messages. Reached: a message for a new topic is not retained, and MQTT 5 publishers
    /// get 0x97. Retained messages can still be replaced.
    pub max_retained_messages: u64,
    /// Bytes (topic, properties and payload) of all retained messages, and of the names of their
    /// publishers, each counted once. Reached: as `max_retained_messages`.
    pub max_retained_bytes: u64,
    /// Longest session expiry in seconds, `u32::MAX` for no limit. A longer one is lowered, and
    /// MQTT 5 clients are told. Applies also to MQTT 3 sessions without clean session.
    pub persistent_client_expiration: u32,
    /// Sessions, connected or not. Reached: a CONNECT that needs a new one is refused with 0x97
    /// (MQTT 3: server unavailable).
    pub max_sessions: usize,
    /// Bytes of one session without its messages: client identifier and user name (each counted
    /// twice), will, subscriptions (text, 64 bytes, and 64 per level) and topic aliases. All share
    /// one limit, so what a client does not need for one it may use for another. Reached: a CONNECT
    /// that needs more is refused with 0x97 (MQTT 3: server unavailable), and a SUBSCRIBE with 0x97
    /// (MQTT 3: 0x80). A client that sets a topic alias is disconnected with 0x97, and the broker
    /// sets no more aliases for it.
    pub max_session_bytes: u64,
    /// The same of all sessions, connected or not. Reached: as `max_session_bytes`.
    pub max_session_bytes_total: u64,
    /// Subscriptions of one session. Reached: the SUBACK code is 0x97 (MQTT 3: 0x80).
    pub max_subscriptions: usize,
    /// Filters of one SUBSCRIBE or UNSUBSCRIBE. The packet is handled as a whole. Exceeded:
    /// DISCONNECT 0x97 (MQTT 3: the connection is closed).
    pub max_filters_per_packet: usize,
    /// Shared groups of all sessions: pairs of share name and filter. A message may have to be
    /// offered to all of them. Reached: the SUBACK code for a new one is 0x97 (MQTT 3: 0x80).
    pub max_shared_groups: usize,
    /// Members of one shared group. A message may have to be offered to all of them. Reached: as
    /// `max_shared_groups`, for a new member.
    pub max_group_members: usize,
    /// Subscription identifiers in one PUBLISH. Reached: the others that match are left out and
    /// counted.
    pub max_subscription_ids: usize,
    /// Levels of a topic name or filter. Exceeded: 0x90 for a name (MQTT 3: the connection is
    /// closed), 0x8F for a filter.
    pub max_topic_levels: usize,
    /// Bytes of a topic name or filter. Exceeded: as `max_topic_levels`.
    pub max_topic_length: usize,
    /// Messages per second that one client may publish. After a pause, that many may come at once.
    /// 0 for no limit. Reached: nothing is read from the client until it may go on.
    pub max_message_rate_in: u64,
    /// Bytes (topic, properties and payload) per second that one client may publish. As
    /// `max_message_rate_in`.
    pub max_byte_rate_in: u64,
    /// Messages per second that are sent to one client. After a pause, that many are sent at once.
    /// 0 for no limit. Reached: QoS 1 and 2 wait in the queue, QoS 0 is dropped and counted.
    pub max_message_rate_out: u64,
    /// Bytes (topic, properties and payload) per second that are sent to one client. As
    /// `max_message_rate_out`.
    pub max_byte_rate_out: u64,
    /// Connections at once with one user name; 0 for no limit. Reached: CONNECT is refused with
    /// 0x97 (MQTT 3: server unavailable).
    pub max_connections_per_user: usize,
    /// Connections at once from one IP address; 0 for no limit. Reached: a new one is closed at
    /// once.
    pub max_connections_per_address: usize,
    /// Message identities that are remembered for one client that sends them, as bridges of this
    /// kind do. They detect messages that come again. Must be at least `receive_maximum`, or more
    /// messages can come again than are remembered. Reached: the oldest is forgotten.
    pub max_message_ids: usize,
    /// Message identities that are remembered for all such clients together. Each client counts as
    /// 16. Reached: the client that is idle longest is forgotten.
    pub max_message_ids_total: usize,
    /// Milliseconds that a new connection has to send CONNECT. Exceeded: it is closed.
    pub connect_timeout_ms: u64,
    /// Milliseconds in which a client without keep alive must take some of what is sent to it. 0
    /// for no limit. A client with keep alive has 1.5 times its keep alive. Exceeded: it is closed,
    /// and its will published.
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
