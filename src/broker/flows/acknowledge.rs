//! What clients answer to deliveries: PUBACK, PUBREC and PUBCOMP (MQTT 5 section 4.3).

use crate::broker::Broker;
use crate::broker::model::ack::ack;
use crate::broker::model::ids::{ConnectionId, SessionIndex};
use crate::broker::model::record::Block;
use crate::broker::state::gate::{Arrow, SESSION, Stamp};
use crate::broker::state::inflight::InflightMessage;
use crate::wire::packet::Ack;
use crate::wire::{Fault, Packet, PacketId, QoS, ReasonCode};

/// Sessions whose blocks may wait for the end of a batch to be written.
const MOST_CHANGED: usize = if cfg!(test) { 4 } else { 2048 };

impl Broker {
    /// QoS 1 is done, whatever the reason code \[MQTT-4.3.2-3\].
    pub(in crate::broker) fn receive_puback(
        &mut self,
        id: ConnectionId,
        session: SessionIndex,
        puback: &Ack<'_>,
    ) -> Result<(), Fault> {
        let inflight = &mut self.sessions[session].inflight;
        // An identifier that is not known may be that of an acknowledgement lost with an earlier broker process.
        let Some(message) = inflight.get(puback.packet_id) else {
            return Ok(());
        };
        if message.item.qos != QoS::AtLeastOnce {
            return Err(Fault::protocol(
                "PUBACK for a message that was sent with QoS 2",
            ));
        }
        self.complete(id, session, puback);
        Ok(())
    }

    /// QoS 2, first half: the client has the message and will not take it again; PUBREL waits until that is kept, or a crash would send the
    /// message once more.
    pub(in crate::broker) fn receive_pubrec(
        &mut self,
        id: ConnectionId,
        session: SessionIndex,
        pubrec: &Ack<'_>,
    ) -> Result<(), Fault> {
        let packet_id = pubrec.packet_id;
        let state = &mut self.sessions[session];
        let Some(message) = state.inflight.get_mut(packet_id) else {
            if pubrec.reason.is_error() {
                self.release_held(session, packet_id);
            } else {
                let answer = ack(packet_id, ReasonCode::PacketIdentifierNotFound);
                self.push(id, Default::default(), &Packet::PubRel(answer));
            }
            return Ok(());
        };
        if message.item.qos != QoS::ExactlyOnce {
            return Err(Fault::protocol(
                "PUBREC for a message that was sent with QoS 1",
            ));
        }
        if pubrec.reason.is_error() {
            self.complete(id, session, pubrec); // [MQTT-4.3.3-4]: the exchange ends here.
            return Ok(());
        }
        let mut stamp = Default::default();
        if !std::mem::replace(&mut message.released, true) {
            message.item.body = None;
            if message.item.is_stored() && message.queue == state.queue.key {
                stamp = self.gate.require(SESSION);
                self.note(session, packet_id);
            }
        }
        self.push(
            id,
            self.gated(Arrow::PubRel, stamp),
            &Packet::PubRel(ack(packet_id, ReasonCode::Success)),
        );
        Ok(())
    }

    /// QoS 2 is done.
    pub(in crate::broker) fn receive_pubcomp(
        &mut self,
        id: ConnectionId,
        session: SessionIndex,
        pubcomp: &Ack<'_>,
    ) -> Result<(), Fault> {
        let inflight = &self.sessions[session].inflight;
        let Some(message) = inflight.get(pubcomp.packet_id) else {
            self.release_held(session, pubcomp.packet_id);
            return Ok(());
        };
        if !message.released {
            return Err(Fault::protocol(
                "PUBCOMP for a message that was not released",
            ));
        }
        self.complete(id, session, pubcomp);
        Ok(())
    }

    /// The client does not hold this identifier any more, if it did.
    fn release_held(&mut self, index: SessionIndex, packet_id: PacketId) {
        let inflight = &mut self.sessions[index].inflight;
        if inflight.release_held(packet_id) && inflight.change(Block::of(packet_id), true) {
            self.note_changed(index);
        }
    }

    /// A QoS 2 message that has no row is about to go to the client of a durable session. What it waits for: until a block of identifiers is known on
    /// disk to be in use, and nothing from then on.
    pub(in crate::broker) fn open_block(
        &mut self,
        index: SessionIndex,
        packet_id: PacketId,
    ) -> Stamp {
        let inflight = &mut self.sessions[index].inflight;
        if inflight.is_open(packet_id) {
            return Stamp::NONE;
        }
        if inflight.open(packet_id) {
            self.note_changed(index);
        }
        self.gate.require(SESSION)
    }

    /// The delivery is over and its packet identifier free; the next message may go out.
    fn complete(&mut self, id: ConnectionId, session: SessionIndex, last: &Ack<'_>) {
        if let Some(message) = self.take_inflight(session, last.packet_id) {
            self.forget(&message.item, message.queue);
        }
        self.touch(id);
    }

    /// The state of a message on its way goes into the row of its block when the open batch is taken. So whatever changes in a block while a batch
    /// is open is written once.
    pub(in crate::broker) fn note(&mut self, index: SessionIndex, packet_id: PacketId) {
        if self.sessions[index].inflight.note(packet_id) {
            self.note_changed(index);
        }
    }

    /// Takes out a message that was on its way to a client. Its delivery must be removed with the open batch: so is what its block says of it.
    pub(in crate::broker) fn take_inflight(
        &mut self,
        index: SessionIndex,
        packet_id: PacketId,
    ) -> Option<InflightMessage> {
        let inflight = &mut self.sessions[index].inflight;
        let message = inflight.remove(packet_id)?;
        if message.noted && inflight.change(Block::of(packet_id), true) {
            self.note_changed(index);
        }
        Some(message)
    }

    /// A session has blocks or replays that have changed. If they are very many, those of the first are written now: a batch is taken in one go.
    pub(in crate::broker) fn note_changed(&mut self, index: SessionIndex) {
        self.gate.expect_removal(self.now.uptime);
        self.sessions.changed.push_back(index);
        if self.sessions.changed.len() > MOST_CHANGED
            && let Some(first) = self.sessions.changed.pop_front()
        {
            self.write_changes(first);
        }
    }

    /// Makes everything commit that was written, whether somebody waits for it or not.
    pub fn flush(&mut self) {
        self.write_reading();
        self.hurry();
    }

    /// As [`Broker::flush`], but for what the clocks show, which is another thing at each call: until [`Broker::is_settled`], this may be called over and
    /// over.
    pub fn hurry(&mut self) {
        self.write_changed();
        self.gate.flush();
    }

    /// Whether all that was written is durable.
    pub fn is_settled(&self) -> bool {
        self.gate.is_idle() && !self.has_changed()
    }

    /// Whether all that was written is durable, but for messages that are done with.
    #[cfg(test)]
    pub(crate) fn only_removals_wait(&self) -> bool {
        self.gate.only_removals_wait()
    }

    /// Whether [`Broker::write_changed`] has something.
    pub(in crate::broker) fn has_changed(&self) -> bool {
        !self.sessions.changed.is_empty() || self.spreads_changed()
    }

    /// Writes the rows that are written once a batch, where they have changed.
    pub(in crate::broker) fn write_changed(&mut self) {
        self.write_spreads();
        for index in std::mem::take(&mut self.sessions.changed) {
            self.write_changes(index);
        }
    }

    fn write_changes(&mut self, index: SessionIndex) {
        // The session may have ended, and another one have its place.
        if let Some(session) = self.sessions.get_mut(index) {
            for write in session.inflight.changes(session.queue.key) {
                self.gate.write(write, self.now.uptime);
            }
            self.write_replays(index);
        }
    }
}
