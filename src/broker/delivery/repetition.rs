//! Messages that come over a bridge again under a new packet identifier.
//!
//! A session was lost, or there is more than one way to this broker. Such a message is known by its
//! identity ([`marks`](crate::broker::model::marks)). What is remembered is one number made of
//! identity, topic and payload. So a client can hold back no message but one that it has published
//! itself.

use crate::broker::Broker;
use crate::broker::model::ids::SessionIndex;
use crate::broker::model::marks::{Marks, digest};
use crate::broker::model::message::Parts;
use crate::broker::model::record::{MessageId, Seq, Write};
use crate::broker::state::offer::Published;
use crate::wire::{QoS, ReasonCode};

impl Broker {
    /// Publishes a message of a client, unless it has come before or goes in a circle: then it is
    /// only acknowledged, in the first case when the one that came first would be.
    pub(in crate::broker) fn publish_once(
        &mut self,
        parts: &Parts<'_>,
        from: SessionIndex,
        marks: &Marks,
    ) -> Published {
        if marks.is_circling() {
            self.drop_circling(parts.topic, from);
            return Published::nothing(ReasonCode::Success);
        }
        // At QoS 0 nothing is sent again.
        let Some(id) = marks.id.filter(|_| parts.qos != QoS::AtMostOnce) else {
            return self.publish_or_refuse(parts, Some(from));
        };
        let broker = self.settings.identity;
        let client_id = self.sessions[from].client_id.as_bytes();
        let publisher = digest(broker, &[client_id]);
        // Only a broker gives an identity that is one on every way.
        let scope = if marks.is_bridged() { 0 } else { publisher };
        let named = [
            &scope.to_le_bytes()[..],
            &id.get().to_le_bytes(),
            parts.topic.as_bytes(),
            parts.payload,
        ];
        let id = digest(broker, &named);
        if let Some(first) = self.bridges.message_ids.find(id) {
            self.counters.repetitions_suppressed += 1;
            let level = self.durability_of(parts.topic);
            let mut published = Published::nothing(ReasonCode::Success);
            published.stamp =
                first.map_or(published.stamp, |first| self.gate.stamp_of(first, level));
            return published;
        }
        let published = self.publish_or_refuse(parts, Some(from));
        if !published.refused && !published.reason.is_error() {
            if let Some(seq) = published.seq {
                self.write(Write::PutMessageId(seq, MessageId { publisher, id }));
            }
            self.remember_message(MessageId { publisher, id }, published.seq);
        }
        published
    }

    /// Counts a message that goes in a circle, and says so once a minute.
    fn drop_circling(&mut self, topic: &str, from: SessionIndex) {
        self.counters.bridge_loops_dropped += 1;
        let session = &mut self.sessions[from];
        if let Some(backlog) = &mut session.backlog {
            backlog.loops += 1;
        }
        let Some(count) = self.bridges.message_ids.note_circle(self.now.uptime) else {
            return;
        };
        tracing::warn!(
            client = &*session.client_id,
            topic,
            count,
            "a message that has come through this broker before is acknowledged and dropped: bridges lead in a circle, or another broker has this one's \
             identity; said once a minute, with how many there were"
        );
    }

    /// Remembers that a message was accepted: it has a row if it has a `Seq` here.
    pub(in crate::broker) fn remember_message(&mut self, message: MessageId, seq: Option<Seq>) {
        let (gate, uptime) = (&mut self.gate, self.now.uptime);
        let limits = &self.settings.limits;
        self.bridges
            .message_ids
            .remember(message, seq, limits, |seq| {
                gate.write(Write::RemoveMessageId(seq), uptime)
            });
    }
}
