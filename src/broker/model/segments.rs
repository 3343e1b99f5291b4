//! What a driver takes to write: bytes, and payloads that connections share.

use std::collections::VecDeque;

use crate::broker::model::message::Message;

/// Payloads of so many bytes are shared, smaller ones are copied.
pub const SHARED_FROM: usize = 16 * 1024;

impl Message {
    /// The message, if deliveries share its payload and do not copy it.
    pub fn shared(&self) -> Option<&Message> {
        (self.payload().len() >= SHARED_FROM).then_some(self)
    }
}

/// Bytes to be written to a connection, some of which are payloads of messages that others are sent
/// too.
#[derive(Debug, Default)]
pub struct Segments {
    pub(in crate::broker) bytes: Vec<u8>,
    /// How many of `bytes` have been written.
    gone: usize,
    /// Bytes of all payloads.
    payload_bytes: usize,
    /// How many bytes of the first payload have been written.
    gone_of_first: usize,
    pub(in crate::broker) payloads: VecDeque<Payload>,
}

/// A payload that is written after so many of the bytes.
#[derive(Debug)]
pub struct Payload {
    at: usize,
    pub message: Message,
}

impl Segments {
    /// How many bytes there are to write.
    pub fn len(&self) -> usize {
        self.bytes.len() - self.gone + self.payload_bytes - self.gone_of_first
    }

    /// Whether all has been written.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Fills `slices` with what is to be written next, in order. Returns how many of them it has
    /// filled; not all there is needs to fit.
    pub fn slices<'a>(&'a self, slices: &mut [&'a [u8]]) -> usize {
        let (mut filled, mut from, mut skip) = (0, self.gone, self.gone_of_first);
        let mut put = |part: &'a [u8]| {
            if !part.is_empty() && filled < slices.len() {
                slices[filled] = part;
                filled += 1;
            }
            filled < slices.len()
        };
        for payload in &self.payloads {
            if !put(&self.bytes[from..payload.at]) || !put(&payload.message.payload()[skip..]) {
                return filled;
            }
            (from, skip) = (payload.at, 0);
        }
        put(&self.bytes[from..]);
        filled
    }

    /// Says that so many bytes have been written. Payloads that have been written whole are let go.
    pub fn advance(&mut self, mut count: usize) {
        while let Some(first) = self.payloads.front() {
            let before = count.min(first.at - self.gone);
            self.gone += before;
            count -= before;
            let left = first.message.payload().len() - self.gone_of_first;
            if count < left {
                self.gone_of_first += count;
                return;
            }
            count -= left;
            self.gone_of_first = 0;
            self.payload_bytes -= first.message.payload().len();
            self.payloads.pop_front();
        }
        self.gone += count;
        debug_assert!(self.gone <= self.bytes.len(), "more than there was");
    }

    /// Messages whose payloads are shared, in order.
    pub(crate) fn messages(&self) -> impl Iterator<Item = &Message> {
        self.payloads.iter().map(|payload| &payload.message)
    }

    pub(in crate::broker) fn push_payload(&mut self, message: Message) {
        self.payload_bytes += message.payload().len();
        let at = self.bytes.len();
        self.payloads.push_back(Payload { at, message });
    }

    /// Splits off what stands before this place in `bytes`: the payloads that belong there, too.
    /// Nothing has been written of it.
    pub(in crate::broker) fn split_before(&mut self, place: usize) -> Segments {
        let payloads = self.payloads.partition_point(|it| it.at <= place);
        let mut first = Segments {
            bytes: self.bytes[..place].to_vec(),
            payloads: self.payloads.drain(..payloads).collect(),
            ..Segments::default()
        };
        self.bytes.drain(..place);
        self.payloads.iter_mut().for_each(|it| it.at -= place);
        first.payload_bytes = first.payloads.iter().map(Payload::len).sum();
        self.payload_bytes -= first.payload_bytes;
        first
    }
}

impl Payload {
    fn len(&self) -> usize {
        self.message.payload().len()
    }
}

/// What [`Broker::take_output`](crate::broker::Broker::take_output) appends to: [`Segments`] share
/// the payloads of large messages, a `Vec<u8>` copies them.
pub trait Taken {
    /// Whether it shares payloads.
    const SHARES: bool;

    /// Bytes of its own: all but shared payloads.
    fn own_len(&self) -> usize;

    /// Whether there is nothing in it.
    fn is_empty(&self) -> bool;

    /// Appends what was released.
    fn append(&mut self, released: Segments);

    /// Appends bytes.
    fn append_bytes(&mut self, bytes: &mut Vec<u8>, count: usize);
}

impl Taken for Vec<u8> {
    const SHARES: bool = false;

    fn own_len(&self) -> usize {
        self.len()
    }

    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn append(&mut self, released: Segments) {
        let mut from = released.gone;
        for Payload { at, message } in &released.payloads {
            self.extend_from_slice(&released.bytes[from..*at]);
            self.extend_from_slice(message.payload());
            from = *at;
        }
        self.extend_from_slice(&released.bytes[from..]);
    }

    fn append_bytes(&mut self, bytes: &mut Vec<u8>, count: usize) {
        move_bytes(bytes, count, self);
    }
}

impl Taken for Segments {
    const SHARES: bool = true;

    fn own_len(&self) -> usize {
        self.bytes.len() - self.gone
    }

    fn is_empty(&self) -> bool {
        self.is_empty()
    }

    fn append(&mut self, released: Segments) {
        if self.is_empty() {
            *self = released;
            return;
        }
        let place = self.bytes.len();
        self.bytes.extend_from_slice(&released.bytes);
        self.payload_bytes += released.payload_bytes;
        let moved = released.payloads.into_iter().map(|payload| Payload {
            at: place + payload.at,
            ..payload
        });
        self.payloads.extend(moved);
    }

    fn append_bytes(&mut self, bytes: &mut Vec<u8>, count: usize) {
        move_bytes(bytes, count, &mut self.bytes);
    }
}

/// Moves the first bytes to the end of others.
fn move_bytes(from: &mut Vec<u8>, count: usize, to: &mut Vec<u8>) {
    if count < from.len() {
        to.extend_from_slice(&from[..count]);
        from.drain(..count);
    } else if to.is_empty() {
        *to = std::mem::take(from);
    } else {
        to.append(from);
    }
}
