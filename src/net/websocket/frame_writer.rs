//! Writes the data frames of a server. If the settings ask for it, each MQTT packet is one frame.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::AsyncWrite;

use super::frame::{self, MAX_HEADER, MAX_SHORT};

/// Bytes of frames that are copied together for one system call, at most.
const MAX_COALESCED: usize = 32 * 1024;
/// Bytes of the largest frame that is copied. Larger ones are written alone.
const MAX_COPIED: usize = 4 * 1024;

thread_local! {
    /// Frames that are written with one system call.
    static COALESCED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The frame that is being written.
#[derive(Debug)]
pub(super) struct FrameWriter {
    frame: Frame,
    /// `None` if frames need not start and end with packets.
    packets: Option<Packets>,
}

/// A frame, and what is not written of it yet.
#[derive(Clone, Copy, Debug, Default)]
struct Frame {
    header: [u8; MAX_HEADER],
    header_len: u8,
    /// Bytes of the header that are written.
    header_at: u8,
    /// Payload bytes that the frame still needs.
    remaining: usize,
}

impl Frame {
    fn begin(payload: usize) -> Frame {
        let (header, length) = frame::binary_header(payload);
        Frame {
            header,
            header_len: length as u8,
            header_at: 0,
            remaining: payload,
        }
    }

    fn is_over(&self) -> bool {
        self.remaining == 0 && self.header_at == self.header_len
    }

    fn header(&self) -> &[u8] {
        &self.header[usize::from(self.header_at)..usize::from(self.header_len)]
    }

    /// Returns the bytes that belong to the frame.
    fn payload<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[..bytes.len().min(self.remaining)]
    }

    /// Counts written bytes of header and payload. Returns how many were payload.
    fn sent(&mut self, count: usize) -> usize {
        let header = count.min(self.header().len());
        self.header_at += header as u8;
        self.remaining -= count - header;
        count - header
    }
}

/// Finds the boundaries of MQTT packets in a stream. Holds a fixed header that is not whole yet.
#[derive(Clone, Copy, Debug, Default)]
struct Packets {
    /// Bytes of the fixed header that have come.
    have: u8,
    /// Remaining Length, as far as it has come.
    length: usize,
}

impl Packets {
    /// Returns the length of the next frame, if the stream goes on with these bytes: the whole
    /// packet, even if not all of it is here. If the fixed header is not whole, the frame is what
    /// is here of it.
    fn next(&mut self, bytes: &[u8]) -> usize {
        for (at, byte) in bytes.iter().enumerate() {
            self.have += 1;
            if self.have == 1 {
                continue; // The packet's type and flags.
            }
            self.length |= usize::from(byte & 0x7F) << (7 * (self.have - 2));
            if byte & 0x80 == 0 || self.have == 5 {
                let packet = at + 1 + self.length;
                *self = Packets::default();
                return packet;
            }
        }
        bytes.len()
    }
}

impl FrameWriter {
    /// Creates a writer. `by_packet` asks for one frame per packet. Otherwise a frame is what is to
    /// be written when it starts.
    pub fn new(by_packet: bool) -> FrameWriter {
        FrameWriter {
            frame: Frame::default(),
            packets: by_packet.then(Packets::default),
        }
    }

    /// Returns whether a frame is not whole yet. No other frame may be written before it is.
    pub fn is_inside_frame(&self) -> bool {
        !self.frame.is_over()
    }

    /// Writes some of these bytes in frames. Returns how many. A frame may be longer than `bytes`:
    /// later writes belong to it until it is whole.
    pub fn poll_write<S: AsyncWrite + Unpin>(
        &mut self,
        inner: &mut S,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            if !self.is_inside_frame() {
                self.frame = Frame::begin(frame_length(&mut self.packets, bytes));
            }
            let is_alone = bytes.len() <= self.frame.remaining || self.frame.remaining > MAX_COPIED;
            let sent = if is_alone {
                let both = [
                    IoSlice::new(self.frame.header()),
                    IoSlice::new(self.frame.payload(bytes)),
                ];
                let count = ready!(Pin::new(&mut *inner).poll_write_vectored(cx, &both))?;
                (count > 0).then(|| self.frame.sent(count))
            } else {
                ready!(self.poll_write_several(inner, cx, bytes))?
            };
            match sent {
                None => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Some(0) => {} // Not even the first header has gone.
                Some(payload) => return Poll::Ready(Ok(payload)),
            }
        }
    }

    /// Writes the current frame and those behind it with one system call. Small frames are copied
    /// together, which is faster than a list of slices. Returns how many payload bytes were
    /// written. `None` if nothing was.
    fn poll_write_several<S: AsyncWrite + Unpin>(
        &mut self,
        inner: &mut S,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<Option<usize>>> {
        COALESCED.with_borrow_mut(|coalesced| {
            coalesced.clear();
            let (mut frame, mut packets) = (self.frame, self.packets);
            let (payload, mut rest) = bytes.split_at(frame.payload(bytes).len());
            coalesced.extend_from_slice(frame.header());
            coalesced.extend_from_slice(payload);
            let _ = frame.sent(frame.header().len() + payload.len());
            while !rest.is_empty() {
                let mut after = packets;
                let length = frame_length(&mut after, rest);
                if length > MAX_COPIED || coalesced.len() + length > MAX_COALESCED {
                    break;
                }
                packets = after;
                if length <= MAX_SHORT && length <= rest.len() {
                    let (payload, later) = rest.split_at(length);
                    coalesced.extend_from_slice(&frame::short_binary_header(length as u8));
                    coalesced.extend_from_slice(payload);
                    frame = Frame::default();
                    rest = later;
                    continue;
                }
                frame = Frame::begin(length);
                let (payload, later) = rest.split_at(frame.payload(rest).len());
                coalesced.extend_from_slice(frame.header());
                coalesced.extend_from_slice(payload);
                let _ = frame.sent(frame.header().len() + payload.len());
                rest = later;
            }
            let written = ready!(Pin::new(inner).poll_write(cx, coalesced))?;
            if written == coalesced.len() {
                (self.frame, self.packets) = (frame, packets);
                return Poll::Ready(Ok(Some(bytes.len() - rest.len())));
            }
            Poll::Ready(Ok((written > 0).then(|| self.sent(written, bytes))))
        })
    }

    /// Counts written bytes of frames with these payloads. Returns how many were payload.
    fn sent(&mut self, mut written: usize, bytes: &[u8]) -> usize {
        let mut sent = 0;
        loop {
            let whole = self.frame.header().len() + self.frame.remaining;
            let part = written.min(whole);
            sent += self.frame.sent(part);
            written -= part;
            if written == 0 {
                return sent;
            }
            self.frame = Frame::begin(frame_length(&mut self.packets, &bytes[sent..]));
        }
    }
}

/// Returns the length of the frame that starts with these bytes.
fn frame_length(packets: &mut Option<Packets>, bytes: &[u8]) -> usize {
    match packets {
        Some(packets) => packets.next(bytes),
        None => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes at most `width` bytes with each write, and is not ready before each.
    struct Narrow {
        width: usize,
        ready: bool,
        taken: Vec<u8>,
        calls: usize,
    }

    impl Narrow {
        fn of(width: usize) -> Narrow {
            Narrow {
                width,
                ready: false,
                taken: Vec::new(),
                calls: 0,
            }
        }
    }

    impl AsyncWrite for Narrow {
        fn poll_write(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
        }

        fn poll_write_vectored(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            parts: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            let this = self.get_mut();
            this.ready = !this.ready;
            if this.ready {
                return Poll::Pending;
            }
            this.calls += 1;
            let before = this.taken.len();
            for part in parts {
                let room = this.width - (this.taken.len() - before);
                this.taken.extend(&part[..part.len().min(room)]);
            }
            Poll::Ready(Ok(this.taken.len() - before))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    /// Writes all bytes, as a connection does.
    fn write_all(writer: &mut FrameWriter, to: &mut Narrow, bytes: &[u8]) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut at = 0;
        while at < bytes.len() {
            if let Poll::Ready(count) = writer.poll_write(to, &mut cx, &bytes[at..]) {
                at += count.expect("written");
            }
        }
    }

    /// The payloads of whole binary messages.
    fn frames(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            assert_eq!(bytes[0], 0x82, "a whole binary message");
            let (head, length) = match bytes[1] {
                126 => (4, usize::from(u16::from_be_bytes([bytes[2], bytes[3]]))),
                127 => (
                    10,
                    u64::from_be_bytes(bytes[2..10].try_into().expect("eight")) as usize,
                ),
                short => (2, usize::from(short)),
            };
            frames.push(bytes[head..head + length].to_vec());
            bytes = &bytes[head + length..];
        }
        frames
    }

    /// Packets with a Remaining Length of one, two and three bytes, and packets of two bytes.
    fn packets() -> Vec<Vec<u8>> {
        let mut packets = vec![
            vec![0x20, 2, 0, 0],
            vec![0xD0, 0],
            vec![0x40, 2, 0, 1],
            [&[0x30, 0xC8, 0x01][..], &[7; 200]].concat(),
            vec![0x40, 2, 0, 2],
        ];
        packets.push([&[0x30, 0x80, 0x80, 0x01][..], &[8; 16_384]].concat());
        packets.push(vec![0xD0, 0]);
        packets
    }

    #[test]
    fn each_packet_is_a_frame_of_its_own_however_little_the_socket_takes() {
        let (packets, stream) = (packets(), packets().concat());
        for width in [1, 2, 3, 5, 64, 1000, usize::MAX] {
            let (mut writer, mut to) = (FrameWriter::new(true), Narrow::of(width));
            write_all(&mut writer, &mut to, &stream);
            assert_eq!(frames(&to.taken), packets, "{width} bytes at a time");
            assert!(!writer.is_inside_frame());
            if width == usize::MAX {
                // The small ones together, the large one, and the last.
                assert_eq!(to.calls, 3, "system calls");
            }
        }
    }

    #[test]
    fn a_stream_that_is_cut_at_any_byte_begins_no_packet_in_anothers_frame() {
        let (packets, stream) = (packets(), packets().concat());
        let mut starts = vec![0];
        for packet in &packets {
            starts.push(starts.last().expect("one") + packet.len());
        }
        for cut in 0..=stream.len() {
            let (mut writer, mut to) = (FrameWriter::new(true), Narrow::of(7000));
            write_all(&mut writer, &mut to, &stream[..cut]);
            write_all(&mut writer, &mut to, &stream[cut..]);
            let found = frames(&to.taken);
            assert!(!writer.is_inside_frame(), "cut at {cut}");
            assert!(found.concat() == stream, "cut at {cut}");
            // Only a cut inside a fixed header makes one frame more.
            let inside_header = starts.iter().any(|start| {
                let head = stream[*start..]
                    .iter()
                    .skip(1)
                    .position(|it| it & 0x80 == 0);
                let head = head.map_or(0, |at| at + 2);
                (start + 1..start + head).contains(&cut)
            });
            assert_eq!(
                found.len(),
                packets.len() + usize::from(inside_header),
                "cut at {cut}"
            );
        }
    }

    #[test]
    fn more_packets_than_go_with_one_call_go_with_as_few_as_possible() {
        let count = 2 * MAX_COALESCED; // Two bytes each, and a header of two.
        let stream = [0xD0, 0].repeat(count);
        let (mut writer, mut to) = (FrameWriter::new(true), Narrow::of(usize::MAX));
        write_all(&mut writer, &mut to, &stream);
        assert!(frames(&to.taken) == vec![vec![0xD0, 0]; count]);
        assert!((8..=9).contains(&to.calls), "{}", to.calls);
    }

    #[test]
    fn where_it_is_not_asked_for_a_frame_is_what_is_there() {
        let stream = packets().concat();
        for width in [1, 3, 1000, usize::MAX] {
            let (mut writer, mut to) = (FrameWriter::new(false), Narrow::of(width));
            write_all(&mut writer, &mut to, &stream);
            assert_eq!(frames(&to.taken), std::slice::from_ref(&stream));
        }
    }
}
