//! What is counted. Every limit that answers somebody, and everything that is dropped, has a
//! counter here.

macro_rules! counters {
    ($($(#[doc = $doc:literal])* $name:ident,)*) => {
        /// Counts since the process started.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $($(#[doc = $doc])* pub $name: u64,)*
        }

        impl Counters {
            /// Every counter: its name, what it counts, and how far it is.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), concat!($($doc),*), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Connections accepted by listeners.
    connections_accepted,
    /// Connections closed at once because `max_connections` was reached.
    connections_refused,
    /// Connections that did not send CONNECT in time.
    connect_timeouts,
    /// CONNECTs answered with success.
    connects,
    /// CONNECTs refused.
    connects_refused,
    /// CONNECTs refused because the user name or the password is wrong.
    bad_user_names_or_passwords,
    /// CONNECTs refused unseen, after too many with a wrong user name or password from the same
    /// address (`max_failed_logins`).
    logins_throttled,
    /// CONNECTs refused because the session of the client identifier is another user's
    /// (`allow_other_users`).
    connects_not_owner,
    /// Sessions taken over by another connection with the same client identifier.
    takeovers,
    /// Connections closed because nothing was heard for 1.5 times the keep alive.
    keep_alive_timeouts,
    /// Connections closed because the client took nothing of what was sent to it (`write_timeout`).
    write_timeouts,
    /// Connections closed because the peer broke the protocol.
    protocol_faults,
    /// Sessions that have ended because they expired.
    sessions_expired,
    /// CONNECTs refused because `max_sessions` was reached.
    sessions_refused,
    /// CONNECTs refused, and clients disconnected that set a topic alias, because
    /// `max_session_bytes` or `max_session_bytes_total` was reached.
    refused_session_bytes,
    /// PUBLISH packets received.
    publishes_received,
    /// PUBLISH packets sent.
    publishes_sent,
    /// Payload bytes received.
    payload_bytes_received,
    /// Payload bytes sent.
    payload_bytes_sent,
    /// Messages nobody subscribed to.
    publishes_unmatched,
    /// QoS 2 messages received again and not delivered again.
    duplicates_suppressed,
    /// Connections closed because unfinished packets took too much memory (`max_incoming_bytes`).
    connections_shed,
    /// QoS 0 deliveries dropped because too much waits for a connection, or for all
    /// (`max_outgoing_bytes`, `max_outgoing_bytes_total`).
    dropped_outgoing_full,
    /// QoS 0 deliveries dropped because the client has had as much as it may
    /// (`max_message_rate_out`, `max_byte_rate_out`).
    dropped_quota,
    /// Deliveries dropped because a queue is full (`max_queued_messages`, `max_queued_bytes`,
    /// `max_queued_bytes_total`, `max_queued_memory_bytes`).
    dropped_queue_full,
    /// Publishes refused because the queue of a bridge is full that has `queue_full = "refuse"`.
    refused_queue_full,
    /// Deliveries to bridges replaced by a newer message of their topic (`keep_latest`).
    superseded,
    /// Deliveries dropped because they are larger than the client's maximum packet size.
    dropped_too_large,
    /// Deliveries dropped because the message expired.
    dropped_expired,
    /// Deliveries of a QoS 2 message of a shared group dropped because its receiver's session ended
    /// before it was complete [MQTT-4.8.2-5].
    dropped_shared_incomplete,
    /// Publishes, CONNECTs that need a row, and subscriptions refused because the store has no
    /// room.
    refused_store_full,
    /// Messages not retained because `max_retained_messages` or `max_retained_bytes` was reached.
    refused_retained,
    /// Subscriptions refused because a limit was reached: `max_subscriptions`, `max_session_bytes`,
    /// `max_session_bytes_total`, `max_shared_groups` or `max_group_members`.
    subscriptions_refused,
    /// Clients disconnected because a SUBSCRIBE or UNSUBSCRIBE had more filters than
    /// `max_filters_per_packet`.
    filters_refused,
    /// Matching subscriptions whose identifiers were not added to a delivery because it carried
    /// `max_subscription_ids` already.
    subscription_ids_left_out,
    /// Publishes refused because the client may not publish to the topic.
    publishes_not_authorized,
    /// Those of them that were acknowledged all the same: a MQTT 3 client cannot be told.
    publishes_not_authorized_acknowledged,
    /// Wills not taken, or not published, because the client may not publish to the topic.
    wills_not_authorized,
    /// Subscriptions refused because the client may not subscribe to the filter.
    subscriptions_not_authorized,
    /// Deliveries dropped because the client may not have messages of the topic.
    dropped_not_authorized,
    /// Times what is retained was not shown because its publisher may not publish to the topic any
    /// more (`check_retain_source`).
    retained_source_not_authorized,
    /// Times a message that waited was held back because its client may not have it at present.
    held_not_authorized,
    /// Publishes and subscriptions refused because the topic is longer or deeper than allowed.
    topics_refused,
    /// Wills published.
    wills_published,
    /// Messages the upstream of a bridge will never take, which were set aside.
    bridge_messages_set_aside,
    /// Messages of an upstream that no rule of its bridge lets in, or that this broker does not
    /// take.
    bridge_messages_refused,
    /// Messages that came again, as their identity says, and were not delivered again.
    repetitions_suppressed,
    /// Times a bridge came from a broker that has the identity of another one.
    copied_identities,
    /// Messages not delivered because they go in circles over bridges.
    bridge_loops_dropped,
    /// Messages read from the store because their bodies were not in memory.
    bodies_fetched,
    /// Batches committed.
    commits,
    /// Times it was waited for a client that had sent, or been sent, more than it may
    /// (`max_message_rate_in` and the like).
    slowed_down,
    /// Times reading from publishers was paused because the disk was behind
    /// (`max_pending_write_bytes`).
    reading_paused,
}
