//! What waits to be written to one connection: a FIFO of packets.
//!
//! A packet leaves when its stamp is durable and all packets before it have left. For a socket, small
//! packets are bytes, and the payload of a large PUBLISH is shared by all connections that are sent
//! it. So the memory and the time of a fan-out do not depend on the size of its payload. A local
//! consumer takes packets as values.

use std::collections::VecDeque;

use crate::broker::model::local::{LocalPacket, LocalPackets};
use crate::broker::model::message::Message;
use crate::broker::model::segments::{Segments, Taken};
use crate::broker::state::gate::{Gate, Stamp};

/// What waits to be written to one connection.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Outbox {
    waiting: Waiting,
    /// Bytes that the driver has taken and is writing, without payloads that are shared.
    writing: usize,
    /// Bytes of both that are counted for all connections, without payloads that are shared.
    counted: usize,
    holds: VecDeque<Hold>,
    held_acks: u32,
    /// Its connection is among those that wait for the disk.
    is_holding: bool,
    /// Something has been taken out.
    taken: bool,
    /// Messages that the driver is writing whose payloads are shared.
    writing_messages: Vec<Message>,
    /// Its place among the connections that wait until less waits for all.
    ticket: Option<u64>,
}

/// Where packets go decides how they wait.
#[derive(Debug)]
enum Waiting {
    Socket(Segments),
    Local(LocalPackets),
}

/// What stands from `start` on waits for `stamp`. For a socket, `start` counts bytes, and payloads
/// after them belong to it; for a local consumer it counts packets.
#[derive(Debug)]
struct Hold {
    start: usize,
    stamp: Stamp,
    acks: u32,
}

impl Default for Waiting {
    fn default() -> Waiting {
        Waiting::Socket(Segments::default())
    }
}

impl Waiting {
    /// Where the next packet will stand.
    fn end(&self) -> usize {
        match self {
            Waiting::Socket(segments) => segments.bytes.len(),
            Waiting::Local(packets) => packets.count(),
        }
    }
}

impl Outbox {
    /// An outbox for a local consumer: [`Outbox::push_local`] fills it.
    pub fn local() -> Outbox {
        Outbox {
            waiting: Waiting::Local(LocalPackets::default()),
            ..Outbox::default()
        }
    }

    /// Whether it is one for a local consumer.
    pub fn is_local(&self) -> bool {
        matches!(self.waiting, Waiting::Local(_))
    }

    /// Bytes waiting, released or not.
    pub fn len(&self) -> usize {
        match &self.waiting {
            Waiting::Socket(segments) => segments.len(),
            Waiting::Local(packets) => packets.len(),
        }
    }

    /// Bytes waiting, without payloads that are shared.
    pub fn own_len(&self) -> usize {
        match &self.waiting {
            Waiting::Socket(segments) => segments.own_len(),
            Waiting::Local(packets) => packets.own_len(),
        }
    }

    /// Messages waiting whose payloads are shared.
    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        let (segments, packets) = match &self.waiting {
            Waiting::Socket(segments) => (Some(segments), None),
            Waiting::Local(packets) => (None, Some(packets)),
        };
        let segments = segments.into_iter().flat_map(Segments::messages);
        segments.chain(packets.into_iter().flat_map(LocalPackets::messages))
    }

    /// Messages waiting or being written whose payloads are shared.
    pub fn all_messages(&self) -> impl Iterator<Item = &Message> {
        self.messages().chain(&self.writing_messages)
    }

    /// Bytes waiting or being written, without payloads that are shared.
    pub fn all_own_len(&self) -> usize {
        self.own_len() + self.writing
    }

    /// Counts the bytes that wait or are being written, without payloads that are shared. Returns
    /// how many were counted before, and how many now.
    #[inline]
    pub fn count(&mut self) -> (usize, usize) {
        let bytes = self.all_own_len();
        (std::mem::replace(&mut self.counted, bytes), bytes)
    }

    /// Bytes that were counted last.
    pub fn counted(&self) -> usize {
        self.counted
    }

    /// Its place among the connections that wait until less waits for all.
    pub fn ticket(&self) -> Option<u64> {
        self.ticket
    }

    /// Sets its place among the connections that wait until less waits for all.
    pub fn set_ticket(&mut self, ticket: Option<u64>) {
        self.ticket = ticket;
    }

    /// What the first packet waits for, if its connection was not yet among those that wait for the
    /// disk. From now on it is.
    #[inline]
    pub fn begin_holding(&mut self) -> Option<Stamp> {
        if self.is_holding {
            return None;
        }
        let stamp = self.holds_for()?;
        self.is_holding = true;
        Some(stamp)
    }

    /// What the first packet waits for that waits for the disk.
    pub fn holds_for(&self) -> Option<Stamp> {
        self.holds.front().map(|hold| hold.stamp)
    }

    /// Acknowledgements of incoming messages that wait for the disk.
    pub fn held_acks(&self) -> u32 {
        self.held_acks
    }

    /// Appends a packet for a socket by letting `encode` write it.
    pub fn push(&mut self, stamp: Stamp, gate: &Gate, encode: impl FnOnce(&mut Vec<u8>)) {
        self.hold(stamp, gate);
        match &mut self.waiting {
            Waiting::Socket(segments) => encode(&mut segments.bytes),
            Waiting::Local(_) => debug_assert!(false, "bytes for a local consumer"),
        }
    }

    /// Appends a packet for a local consumer.
    pub fn push_local(&mut self, stamp: Stamp, gate: &Gate, packet: LocalPacket) {
        self.hold(stamp, gate);
        match &mut self.waiting {
            Waiting::Local(packets) => packets.push(packet),
            Waiting::Socket(_) => debug_assert!(false, "a value for a socket"),
        }
    }

    /// Has the packet that is pushed next wait for `stamp`.
    #[inline]
    fn hold(&mut self, stamp: Stamp, gate: &Gate) {
        let newer = self.holds.back().is_none_or(|last| last.stamp < stamp);
        if newer && !gate.is_open(stamp) {
            self.holds.push_back(Hold {
                start: self.waiting.end(),
                stamp,
                acks: 0,
            });
        }
    }

    /// Ends the PUBLISH just pushed for a socket with the payload of a message, which is not copied.
    pub fn push_payload(&mut self, message: Message) {
        match &mut self.waiting {
            Waiting::Socket(segments) => segments.push_payload(message),
            Waiting::Local(_) => debug_assert!(false, "a payload for a local consumer"),
        }
    }

    /// Says that the packet just pushed acknowledges an incoming message for good: it counts against
    /// the receive maximum until it leaves.
    pub fn count_ack(&mut self) {
        if let Some(hold) = self.holds.back_mut() {
            hold.acks += 1;
            self.held_acks += 1;
        }
    }

    /// Lets go what the gate has let pass. Returns whether that was anything.
    pub fn release(&mut self, gate: &Gate) -> bool {
        let mut released = false;
        while let Some(hold) = self.holds.front().filter(|hold| gate.is_open(hold.stamp)) {
            self.held_acks -= hold.acks;
            self.holds.pop_front();
            released = true;
        }
        self.is_holding &= !self.holds.is_empty();
        released
    }

    /// Whether the client has been sent anything, or will be.
    pub fn has_begun(&self) -> bool {
        self.taken || self.len() > 0
    }

    /// What was taken before has been written, but for `left` bytes. Returns the messages whose
    /// payloads were shared until now.
    pub fn written(&mut self, left: usize) -> Vec<Message> {
        self.writing = left;
        match left {
            0 => std::mem::take(&mut self.writing_messages),
            _ => Vec::new(),
        }
    }

    /// Lets `take` move out what is released: from then on it is being written. `take` returns how
    /// many bytes of its own the driver has now. `shares` says that the driver keeps payloads that
    /// are shared. If not, the messages are returned whose payloads it has copied.
    pub fn begin_writing(
        &mut self,
        shares: bool,
        take: impl FnOnce(&mut Outbox) -> usize,
    ) -> Vec<Message> {
        let mut taken = Vec::new();
        if self.own_len() < self.len() {
            taken.extend(self.messages().cloned());
        }
        self.writing = take(self);
        if !taken.is_empty() {
            taken.truncate(taken.len() - self.messages().count());
        }
        if shares {
            self.writing_messages.append(&mut taken);
        }
        taken
    }

    /// Moves what is released for a socket to the end of `out`.
    pub fn take(&mut self, out: &mut impl Taken) {
        let Some(released) = self.begin_take() else {
            return;
        };
        let Waiting::Socket(segments) = &mut self.waiting else {
            return debug_assert!(false, "a local consumer takes values");
        };
        if segments.payloads.is_empty() {
            out.append_bytes(&mut segments.bytes, released);
        } else if self.holds.is_empty() {
            out.append(std::mem::take(segments));
        } else {
            out.append(segments.split_before(released));
        }
    }

    /// Moves what is released for a local consumer to the end of `out`.
    pub fn take_local(&mut self, out: &mut LocalPackets) {
        let Some(released) = self.begin_take() else {
            return;
        };
        match &mut self.waiting {
            Waiting::Local(packets) => packets.move_to(released, out),
            Waiting::Socket(_) => debug_assert!(false, "a socket takes bytes"),
        }
    }

    /// How much is released, if anything. The caller takes it out.
    fn begin_take(&mut self) -> Option<usize> {
        let end = self.waiting.end();
        let released = self.holds.front().map_or(end, |hold| hold.start);
        if released == 0 {
            return None;
        }
        self.taken = true;
        for hold in &mut self.holds {
            hold.start -= released;
        }
        Some(released)
    }

    /// Drops what waits for the disk: the connection ends and must not promise it. Returns the
    /// messages whose payloads are dropped with it.
    pub fn drop_held(&mut self) -> Vec<Message> {
        let Some(first) = self.holds.front() else {
            return Vec::new();
        };
        let dropped = match &mut self.waiting {
            Waiting::Socket(segments) => {
                let kept = segments.split_before(first.start);
                let dropped = std::mem::replace(segments, kept);
                dropped.messages().cloned().collect()
            }
            Waiting::Local(packets) => {
                let mut kept = LocalPackets::default();
                packets.move_to(first.start, &mut kept);
                let dropped = std::mem::replace(packets, kept);
                dropped.messages().cloned().collect()
            }
        };
        self.holds.clear();
        self.held_acks = 0;
        dropped
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
