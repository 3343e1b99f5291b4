//! A simulated connection: a pipe of bytes each way, in order, that may be slow, and may be cut at any byte. The broker's end of it does what
//! the connection task of `net` does, with the same codec.

use std::collections::VecDeque;

use super::expected::Asked;
use super::rng::Rng;
use crate::broker::{ConnectionId, Output, Segments};
use crate::wire::{Fault, Packet, ProtocolVersion, ReasonCode, codec};

#[derive(Debug)]
pub struct Link {
    pub client: usize,
    /// The client still reads from it.
    pub is_read: bool,
    /// The client's bytes still get into it.
    pub is_open: bool,
    /// Bytes on their way to the broker.
    pub up: VecDeque<u8>,
    /// When they are through, the broker sees the end.
    pub up_ends: bool,
    pub up_due: bool,
    /// Bytes on their way to the client.
    pub down: VecDeque<u8>,
    /// When they are through, the client sees the end.
    pub down_ends: bool,
    pub down_due: bool,
    /// The most bytes that wait for a client that does not read.
    pub capacity: usize,
    pub server: Option<Server>,
    /// What has come to the client and is no whole packet yet.
    pub received: Vec<u8>,
    /// What its CONNECT asks for, and what the broker is expected to answer about the session.
    pub asked: Option<Asked>,
    pub present: Option<bool>,
    /// The client has not read for a while: what comes next may have waited long in the broker.
    pub was_full: bool,
    /// The DISCONNECT the broker was handed.
    pub leave: Option<Leave>,
    /// When bytes last came to the broker, and were last taken by the client, in microseconds.
    pub heard: u64,
    pub took: u64,
    /// The client has taken something since the broker last asked.
    pub moved: bool,
}

/// A DISCONNECT of the client.
#[derive(Clone, Copy, Debug)]
pub struct Leave {
    pub reason: ReasonCode,
    /// The session expiry interval that is to hold from now on, in seconds.
    pub expiry: Option<u32>,
}

/// The broker's end.
#[derive(Debug)]
pub struct Server {
    pub id: ConnectionId,
    pub version: Option<ProtocolVersion>,
    pub partial: Vec<u8>,
    pub writing: Writing,
    pub output: Output,
    /// Its CONNECT, which `partial` begins with, waits for an older connection.
    pub connect_waits: bool,
    /// CONNACK has left.
    pub answered: bool,
}

/// What was taken from the broker and is not on its way yet.
#[derive(Debug)]
pub enum Writing {
    /// As it was taken: payloads may be shared.
    Shared(Segments),
    /// Bytes that a lie may have changed.
    Copied(Vec<u8>),
}

impl Writing {
    pub fn is_empty(&self) -> bool {
        match self {
            Writing::Shared(segments) => segments.is_empty(),
            Writing::Copied(bytes) => bytes.is_empty(),
        }
    }

    pub fn clear(&mut self) {
        *self = Writing::Copied(Vec::new());
    }

    /// Moves the first bytes to the end of `to`, as far as there is room.
    fn move_to(&mut self, to: &mut VecDeque<u8>, mut room: usize) {
        match self {
            Writing::Copied(bytes) => to.extend(bytes.drain(..room.min(bytes.len()))),
            Writing::Shared(segments) => {
                while room > 0 && !segments.is_empty() {
                    let mut slices = [&[][..]; 3];
                    let filled = segments.slices(&mut slices);
                    let mut count = 0;
                    for slice in &slices[..filled] {
                        let step = slice.len().min(room - count);
                        to.extend(&slice[..step]);
                        count += step;
                    }
                    segments.advance(count);
                    room -= count;
                }
            }
        }
    }
}

/// All bytes of segments.
pub fn bytes_of(segments: &Segments) -> Vec<u8> {
    let mut slices = vec![&[][..]; 2 * segments.messages().count() + 1];
    let filled = segments.slices(&mut slices);
    slices[..filled].concat()
}

impl Link {
    pub fn new(client: usize, id: ConnectionId, capacity: usize) -> Link {
        Link {
            client,
            is_read: true,
            is_open: true,
            up: VecDeque::new(),
            up_ends: false,
            up_due: false,
            down: VecDeque::new(),
            down_ends: false,
            down_due: false,
            capacity,
            server: Some(Server {
                id,
                version: None,
                partial: Vec::new(),
                writing: Writing::Copied(Vec::new()),
                output: Output {
                    close: false,
                    pause: false,
                    waits: false,
                    yields: false,
                    ask_progress: false,
                },
                connect_waits: false,
                answered: false,
            }),
            received: Vec::new(),
            asked: None,
            present: None,
            was_full: false,
            leave: None,
            heard: 0,
            took: 0,
            moved: false,
        }
    }

    /// Loses the last part of what is on its way to the broker, from any byte on.
    pub fn cut_up(&mut self, rng: &mut Rng) {
        self.is_open = false;
        self.up
            .truncate(rng.below(self.up.len() as u64 + 1) as usize);
    }

    /// Loses the last part of what is on its way to the client.
    pub fn cut_down(&mut self, rng: &mut Rng) {
        self.down
            .truncate(rng.below(self.down.len() as u64 + 1) as usize);
        self.down_ends = true;
    }

    /// The broker's end is gone, with everything that was on its way to it.
    pub fn server_died(&mut self, rng: &mut Rng) {
        self.server = None;
        self.up.clear();
        self.is_open = false;
        self.cut_down(rng);
    }
}

impl Server {
    /// Moves what was taken from the broker towards the client, as far as there is room.
    pub fn write(&mut self, down: &mut VecDeque<u8>, capacity: usize) {
        let room = capacity.saturating_sub(down.len());
        self.writing.move_to(down, room);
    }

    /// Whether it would read now.
    pub fn reads(&self) -> bool {
        !self.output.close && !self.output.pause && !self.connect_waits
    }
}

/// The next whole packet of `bytes` and its length, as a connection task decodes it.
pub fn decode_next<'a>(
    bytes: &'a [u8],
    version: &mut Option<ProtocolVersion>,
    most: u32,
) -> Result<Option<(Packet<'a>, usize)>, Fault> {
    let Some(len) = codec::frame_len(bytes, most)? else {
        return Ok(None);
    };
    let frame = &bytes[..len];
    if version.is_none() {
        *version = codec::version_of_connect(frame);
    }
    let packet = codec::decode(frame, version.unwrap_or(ProtocolVersion::V5))?;
    Ok(Some((packet, len)))
}
