//! What waits to be written to one connection: a FIFO of packets.
//!
//! A packet leaves when its stamp is durable and all packets before it have left. Small packets are bytes.
//! The payload of a large PUBLISH is shared by all connections that are sent it. So the memory and the time
//! of a fan-out do not depend on the size of its payload.

use std::collections::VecDeque;

use crate::broker::model::message::Message;
use crate::broker::model::segments::{Segments, Taken};
use crate::broker::state::gate::{Gate, Stamp};

/// What waits to be written to one connection.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: Segments,
    holds: VecDeque<Hold>,
    held_acks: u32,
    /// Something has been taken out.
    taken: bool,
}

/// The bytes from `start` on wait for `stamp`, and the payloads after them.
#[derive(Debug)]
struct Hold {
    start: usize,
    stamp: Stamp,
    acks: u32,
}

impl Outbox {
    /// Bytes waiting, released or not.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Bytes waiting, without payloads that are shared.
    pub fn own_len(&self) -> usize {
        self.waiting.own_len()
    }

    /// Messages waiting whose payloads are shared.
    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        self.waiting.messages()
    }

    /// What the first packet waits for that waits for the disk.
    pub fn holds_for(&self) -> Option<Stamp> {
        self.holds.front().map(|hold| hold.stamp)
    }

    /// Acknowledgements of incoming messages that wait for the disk.
    pub fn held_acks(&self) -> u32 {
        self.held_acks
    }

    /// Appends a packet by letting `encode` write it.
    pub fn push(&mut self, stamp: Stamp, gate: &Gate, encode: impl FnOnce(&mut Vec<u8>)) {
        let newer = self.holds.back().is_none_or(|last| last.stamp < stamp);
        if newer && !gate.is_open(stamp) {
            self.holds.push_back(Hold {
                start: self.waiting.bytes.len(),
                stamp,
                acks: 0,
            });
        }
        encode(&mut self.waiting.bytes);
    }

    /// Ends the PUBLISH just pushed with the payload of a message, which is not copied.
    pub fn push_payload(&mut self, message: Message) {
        self.waiting.push_payload(message);
    }

    /// Says that the packet just pushed acknowledges an incoming message for good: it counts against the receive maximum until it leaves.
    pub fn count_ack(&mut self) {
        if let Some(hold) = self.holds.back_mut() {
            hold.acks += 1;
            self.held_acks += 1;
        }
    }

    /// Lets go what the gate has let pass; whether that was anything.
    pub fn release(&mut self, gate: &Gate) -> bool {
        let mut released = false;
        while let Some(hold) = self.holds.front().filter(|hold| gate.is_open(hold.stamp)) {
            self.held_acks -= hold.acks;
            self.holds.pop_front();
            released = true;
        }
        released
    }

    /// Whether the client has been sent anything, or will be.
    pub fn has_begun(&self) -> bool {
        self.taken || self.len() > 0
    }

    /// Moves what is released to the end of `out`.
    pub fn take(&mut self, out: &mut impl Taken) {
        let all = self.waiting.bytes.len();
        let released = self.holds.front().map_or(all, |hold| hold.start);
        if released == 0 {
            return;
        }
        self.taken = true;
        if self.waiting.payloads.is_empty() {
            out.append_bytes(&mut self.waiting.bytes, released);
        } else if self.holds.is_empty() {
            out.append(std::mem::take(&mut self.waiting));
        } else {
            out.append(self.waiting.split_before(released));
        }
        for hold in &mut self.holds {
            hold.start -= released;
        }
    }

    /// Drops what waits for the disk: the connection ends and must not promise it. Returns the messages whose payloads are dropped with it.
    pub fn drop_held(&mut self) -> Vec<Message> {
        let Some(first) = self.holds.front() else {
            return Vec::new();
        };
        let kept = self.waiting.split_before(first.start);
        let dropped = std::mem::replace(&mut self.waiting, kept).payloads;
        self.holds.clear();
        self.held_acks = 0;
        dropped.into_iter().map(|it| it.message).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::model::message::Parts;
    use crate::broker::model::record::{BodyId, Durability, Write};
    use crate::wire::{Properties, QoS};

    fn message(byte: u8, length: usize) -> Message {
        Message::new(&Parts {
            topic: "t",
            properties: Properties::EMPTY,
            payload: &vec![byte; length],
            qos: QoS::AtMostOnce,
            retain: false,
            expires: None,
            id: None,
        })
    }

    /// Pushes a head and a payload.
    fn push(outbox: &mut Outbox, gate: &Gate, stamp: Stamp, head: &str, payload: Option<Message>) {
        outbox.push(stamp, gate, |out| out.extend_from_slice(head.as_bytes()));
        if let Some(message) = payload {
            outbox.push_payload(message);
        }
    }

    fn bytes_of(segments: &Segments) -> Vec<u8> {
        let mut slices = [&[][..]; 16];
        let filled = segments.slices(&mut slices);
        slices[..filled].concat()
    }

    #[test]
    fn what_is_shared_is_written_where_it_belongs_however_little_is_taken_at_a_time() {
        let gate = Gate::new(1000);
        let (a, b) = (message(b'a', 5), message(b'b', 3));
        let expected = b"<h1>aaaaa<h2>bbbaaaaa<h3>";
        for step in 1..=expected.len() {
            let mut outbox = Outbox::default();
            push(&mut outbox, &gate, Stamp::NONE, "<h1>", Some(a.clone()));
            push(&mut outbox, &gate, Stamp::NONE, "<h2>", Some(b.clone()));
            push(&mut outbox, &gate, Stamp::NONE, "", Some(a.clone()));
            push(&mut outbox, &gate, Stamp::NONE, "<h3>", None);
            assert_eq!((outbox.len(), outbox.own_len()), (expected.len(), 12));
            let mut copied = b"before".to_vec();
            let mut segments = Segments::default();
            outbox.take(&mut segments);
            let mut written = Vec::new();
            while !segments.is_empty() {
                assert_eq!(segments.len(), expected.len() - written.len());
                let next = bytes_of(&segments);
                let count = step.min(next.len());
                written.extend_from_slice(&next[..count]);
                segments.advance(count);
            }
            assert_eq!(written, expected, "{step} bytes at a time");
            assert_eq!(segments.messages().count(), 0);
            push(&mut outbox, &gate, Stamp::NONE, "<h1>", Some(a.clone()));
            outbox.take(&mut copied);
            assert_eq!(copied, b"before<h1>aaaaa");
        }
    }

    #[test]
    fn a_payload_waits_with_the_packet_it_ends() {
        let mut gate = Gate::new(1000);
        let stamp = gate.require(Durability::Fsync);
        let mut outbox = Outbox::default();
        push(
            &mut outbox,
            &gate,
            Stamp::NONE,
            "<1>",
            Some(message(b'a', 2)),
        );
        push(&mut outbox, &gate, stamp, "<2>", Some(message(b'b', 2)));
        push(
            &mut outbox,
            &gate,
            Stamp::NONE,
            "<3>",
            Some(message(b'c', 2)),
        );
        let mut out = Segments::default();
        outbox.take(&mut out);
        assert_eq!(bytes_of(&out), b"<1>aa");
        outbox.take(&mut out);
        assert_eq!(bytes_of(&out), b"<1>aa");
        gate.write(Write::RemoveMessage(BodyId(1)), 0);
        let batch = gate.take_batch(0).expect("somebody waits");
        gate.durable(batch.id);
        assert!(outbox.release(&gate));
        outbox.take(&mut out);
        assert_eq!(bytes_of(&out), b"<1>aa<2>bb<3>cc");
        assert_eq!((outbox.len(), out.len()), (0, 15));
    }

    #[test]
    fn what_is_dropped_takes_its_payloads_along() {
        let mut gate = Gate::new(1000);
        let stamp = gate.require(Durability::Fsync);
        let mut outbox = Outbox::default();
        push(
            &mut outbox,
            &gate,
            Stamp::NONE,
            "<1>",
            Some(message(b'a', 2)),
        );
        push(&mut outbox, &gate, stamp, "<2>", Some(message(b'b', 2)));
        push(
            &mut outbox,
            &gate,
            Stamp::NONE,
            "<3>",
            Some(message(b'c', 2)),
        );
        let dropped = outbox.drop_held();
        let payloads: Vec<&[u8]> = dropped.iter().map(Message::payload).collect();
        assert_eq!(payloads, [b"bb", b"cc"]);
        let mut out = Vec::new();
        outbox.take(&mut out);
        assert_eq!(out, b"<1>aa");
        assert!(outbox.drop_held().is_empty());
    }
}
