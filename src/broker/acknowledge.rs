//! What clients answer to deliveries: PUBACK, PUBREC and PUBCOMP (MQTT 5 section 4.3).

use super::gate::Arrow;
use super::record::Write;
use super::{Broker, ConnectionId, SessionIndex, ack};
use crate::wire::packet::Ack;
use crate::wire::{Fault, Packet, QoS, ReasonCode};

impl Broker {
    /// QoS 1 is done, whatever the reason code \[MQTT-4.3.2-3\].
    pub(super) fn receive_puback(
        &mut self,
        id: ConnectionId,
        session: SessionIndex,
        puback: &Ack<'_>,
    ) -> Result<(), Fault> {
        let outgoing = &mut self.sessions[session.0 as usize].outgoing;
        // An identifier that is not known may be that of an acknowledgement lost with an earlier broker process.
        let Some(inflight) = outgoing.get(puback.packet_id) else {
            return Ok(());
        };
        if inflight.item.qos != QoS::AtLeastOnce {
            return Err(Fault::protocol(
                "PUBACK for a message that was sent with QoS 2",
            ));
        }
        self.complete(id, session, puback);
        Ok(())
    }

    /// QoS 2, first half: the client has the message and will not take it again; PUBREL waits until that is kept, or a crash would send the
    /// message once more.
    pub(super) fn receive_pubrec(
        &mut self,
        id: ConnectionId,
        session: SessionIndex,
        pubrec: &Ack<'_>,
    ) -> Result<(), Fault> {
        let packet_id = pubrec.packet_id;
        let state = &mut self.sessions[session.0 as usize];
        let Some(inflight) = state.outgoing.get_mut(packet_id) else {
            if !pubrec.reason.is_error() {
                let answer = ack(packet_id, ReasonCode::PacketIdentifierNotFound);
                self.push(id, Default::default(), &Packet::PubRel(answer));
            }
            return Ok(());
        };
        if inflight.item.qos != QoS::ExactlyOnce {
            return Err(Fault::protocol(
                "PUBREC for a message that was sent with QoS 1",
            ));
        }
        if pubrec.reason.is_error() {
            self.complete(id, session, pubrec); // [MQTT-4.3.3-4]: the exchange ends here.
            return Ok(());
        }
        let mut stamp = Default::default();
        if !std::mem::replace(&mut inflight.released, true) {
            inflight.item.body = None;
            if inflight.item.is_stored() {
                let (seq, queue, level) = (inflight.item.seq, inflight.queue, inflight.item.level);
                let row =
                    (queue == state.queue.key).then(|| inflight.item.record(Some(packet_id), true));
                if let Some(row) = row {
                    self.write(Write::PutDelivery(seq, queue, row));
                    stamp = self.gate.require(level);
                }
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
    pub(super) fn receive_pubcomp(
        &mut self,
        id: ConnectionId,
        session: SessionIndex,
        pubcomp: &Ack<'_>,
    ) -> Result<(), Fault> {
        let outgoing = &self.sessions[session.0 as usize].outgoing;
        let Some(inflight) = outgoing.get(pubcomp.packet_id) else {
            return Ok(());
        };
        if !inflight.released {
            return Err(Fault::protocol(
                "PUBCOMP for a message that was not released",
            ));
        }
        self.complete(id, session, pubcomp);
        Ok(())
    }

    /// The delivery is over and its packet identifier free; the next message may go out.
    fn complete(&mut self, id: ConnectionId, session: SessionIndex, last: &Ack<'_>) {
        let outgoing = &mut self.sessions[session.0 as usize].outgoing;
        if let Some(inflight) = outgoing.remove(last.packet_id) {
            self.forget(&inflight.item, inflight.queue);
        }
        self.touch(id);
    }
}
