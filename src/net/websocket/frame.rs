//! WebSocket frames (RFC 6455 section 5), without IO. Payload is moved inside the buffer it was
//! read into, so no frame is ever kept.

use std::mem;

/// Bytes of the longest frame header: 2, then 8 of length and 4 of mask.
pub const MAX_HEADER: usize = 14;
/// Bytes of the longest payload whose length fits into the second byte of the header.
pub const MAX_SHORT: usize = 125;
/// Bytes of the longest payload of a control frame.
const MAX_CONTROL: usize = 125;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;

/// The side of a connection. A client masks what it sends, a server does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Expects masked frames and sends unmasked ones.
    Server,
    /// Expects unmasked frames and sends masked ones.
    Client,
}

/// Why no more payload comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer has sent a Close frame.
    Closed,
    /// The peer broke the protocol. Holds the status code for the Close frame, and the error text.
    Fault(u16, &'static str),
}

/// Decodes frames that come in pieces of any size.
#[derive(Debug)]
pub struct Decoder {
    role: Role,
    header: [u8; MAX_HEADER],
    have: u8,
    opcode: u8,
    /// Payload bytes of the current frame that have not come.
    remaining: u64,
    mask: [u8; 4],
    /// The last frame of the current message has not begun.
    fragmented: bool,
    /// Payload of the current control frame.
    control: Vec<u8>,
    pong: Option<Vec<u8>>,
    end: Option<End>,
}

impl Decoder {
    /// Creates a decoder for this side of a connection.
    pub fn new(role: Role) -> Decoder {
        Decoder {
            role,
            header: [0; MAX_HEADER],
            have: 0,
            opcode: CONTINUATION,
            remaining: 0,
            mask: [0; 4],
            fragmented: false,
            control: Vec::new(),
            pong: None,
            end: None,
        }
    }

    /// Moves the payload of all data frames in `bytes` to the front. Returns its length. After the
    /// end, there is no payload.
    pub fn decode(&mut self, bytes: &mut [u8]) -> usize {
        let (mut at, mut payload) = (0, 0);
        while self.end.is_none() {
            if self.remaining == 0 {
                let Some(length) = self.read_header(&bytes[at..]) else {
                    break;
                };
                at += length;
            }
            let count = usize::try_from(self.remaining)
                .unwrap_or(usize::MAX)
                .min(bytes.len() - at);
            let part = at..at + count;
            unmask(&mut bytes[part.clone()], &mut self.mask);
            if self.opcode < CLOSE {
                bytes.copy_within(part, payload);
                payload += count;
            } else {
                self.control.extend_from_slice(&bytes[part]);
            }
            at += count;
            self.remaining -= count as u64;
            if self.remaining == 0 && self.opcode >= CLOSE {
                self.receive_control();
            }
            if at == bytes.len() {
                break;
            }
        }
        payload
    }

    /// Returns the payload for a Pong that answers the peer's newest Ping. Older ones need no
    /// answer.
    pub fn take_pong(&mut self) -> Option<Vec<u8>> {
        self.pong.take()
    }

    /// Returns why no more payload comes. `None` if more may come.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// Reads a frame header. Returns how many of these bytes belong to it. `None` if more are
    /// needed, or if the header is wrong.
    fn read_header(&mut self, bytes: &[u8]) -> Option<usize> {
        for (index, byte) in bytes.iter().enumerate() {
            self.header[usize::from(self.have)] = *byte;
            self.have += 1;
            if self.have >= 2 && usize::from(self.have) == self.header_length() {
                self.have = 0;
                return match self.begin() {
                    Ok(()) => Some(index + 1),
                    Err(end) => {
                        self.end = Some(end);
                        None
                    }
                };
            }
        }
        None
    }

    fn header_length(&self) -> usize {
        let length = match self.header[1] & 0x7F {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        length + if self.header[1] & 0x80 != 0 { 4 } else { 0 }
    }

    fn begin(&mut self) -> Result<(), End> {
        let fault = |what| Err(End::Fault(1002, what));
        let header = self.header;
        let (last, opcode) = (header[0] & 0x80 != 0, header[0] & 0x0F);
        if header[0] & 0x70 != 0 {
            return fault("a reserved bit in a frame");
        }
        let masked = header[1] & 0x80 != 0;
        if masked != (self.role == Role::Server) {
            return fault("a frame that is not masked as its sender's must be");
        }
        let (length, mask_at) = match header[1] & 0x7F {
            126 => (u64::from(u16::from_be_bytes([header[2], header[3]])), 4),
            127 => {
                let bytes: [u8; 8] = header[2..10].try_into().unwrap_or_default();
                (u64::from_be_bytes(bytes), 10)
            }
            short => (u64::from(short), 2),
        };
        if length > i64::MAX as u64 {
            return fault("a frame length beyond 63 bits");
        }
        match (opcode, self.fragmented) {
            (BINARY, false) | (CONTINUATION, true) => self.fragmented = !last,
            // [MQTT-6.0.0-1]
            (TEXT, _) => return Err(End::Fault(1003, "a text frame")),
            (BINARY | CONTINUATION, _) => return fault("a message in the wrong order of frames"),
            (CLOSE | PING | PONG, _) if last && length <= MAX_CONTROL as u64 => {}
            (CLOSE | PING | PONG, _) => return fault("a control frame that is split or too long"),
            _ => return fault("an unknown kind of frame"),
        }
        self.opcode = opcode;
        self.remaining = length;
        self.mask = match masked {
            true => header[mask_at..mask_at + 4].try_into().unwrap_or_default(),
            false => [0; 4],
        };
        Ok(())
    }

    fn receive_control(&mut self) {
        let payload = mem::take(&mut self.control);
        match self.opcode {
            PING => self.pong = Some(payload),
            CLOSE => {
                self.end = Some(match payload.len() {
                    1 => End::Fault(1002, "a Close frame with half a status code"),
                    _ => End::Closed,
                });
            }
            _ => {}
        }
        self.opcode = CONTINUATION;
    }
}

/// Appends a Pong frame.
pub fn encode_pong(payload: &[u8], mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    encode(PONG, payload, mask, out);
}

/// Appends a Close frame with this status code.
pub fn encode_close(status: u16, mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    encode(CLOSE, &status.to_be_bytes(), mask, out);
}

/// Appends a whole binary message.
pub fn encode_binary(payload: &[u8], mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    encode(BINARY, payload, mask, out);
}

/// Returns the header of an unmasked binary message of this length, and the length of the header.
pub fn binary_header(length: usize) -> ([u8; MAX_HEADER], usize) {
    header(BINARY, length, None)
}

/// Returns the header of an unmasked binary message of at most [`MAX_SHORT`] bytes.
pub fn short_binary_header(length: u8) -> [u8; 2] {
    [0x80 | BINARY, length]
}

fn encode(opcode: u8, payload: &[u8], mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    let (header, length) = header(opcode, payload.len(), mask);
    out.extend_from_slice(&header[..length]);
    let from = out.len();
    out.extend_from_slice(payload);
    unmask(&mut out[from..], &mut mask.unwrap_or_default());
}

fn header(opcode: u8, length: usize, mask: Option<[u8; 4]>) -> ([u8; MAX_HEADER], usize) {
    let mut header = [0; MAX_HEADER];
    header[0] = 0x80 | opcode;
    let mut at = 2;
    match length {
        0..=MAX_SHORT => header[1] = length as u8,
        126..=0xFFFF => {
            header[1] = 126;
            header[2..4].copy_from_slice(&(length as u16).to_be_bytes());
            at = 4;
        }
        _ => {
            header[1] = 127;
            header[2..10].copy_from_slice(&(length as u64).to_be_bytes());
            at = 10;
        }
    }
    if let Some(mask) = mask {
        header[1] |= 0x80;
        header[at..at + 4].copy_from_slice(&mask);
        at += 4;
    }
    (header, at)
}

/// Masks or unmasks bytes, and rotates the mask for the bytes that follow.
fn unmask(bytes: &mut [u8], mask: &mut [u8; 4]) {
    let [a, b, c, d] = *mask;
    if *mask == [0; 4] {
        return;
    }
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let mut chunks = bytes.chunks_exact_mut(8);
    for chunk in &mut chunks {
        if let Ok(eight) = <[u8; 8]>::try_from(&*chunk) {
            chunk.copy_from_slice(&(u64::from_ne_bytes(eight) ^ wide).to_ne_bytes());
        }
    }
    let rest = chunks.into_remainder();
    for (index, byte) in rest.iter_mut().enumerate() {
        *byte ^= mask[index % 4];
    }
    let turn = rest.len() % 4;
    mask.rotate_left(turn);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MASK: Option<[u8; 4]> = Some([0x12, 0x34, 0x56, 0x78]);

    fn decode(decoder: &mut Decoder, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        let count = decoder.decode(&mut bytes);
        bytes.truncate(count);
        bytes
    }

    fn binary(payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_binary(payload, MASK, &mut out);
        out
    }

    /// A message in three frames with a Ping between them, then a whole message.
    fn several() -> (Vec<u8>, Vec<u8>) {
        let payload: Vec<u8> = (0..400u16).map(|n| n as u8).collect();
        let mut bytes = Vec::new();
        let mut parts = [&payload[..7], &payload[7..140], &payload[140..300]].map(binary);
        parts[0][0] = BINARY;
        parts[1][0] = CONTINUATION;
        parts[2][0] = 0x80 | CONTINUATION;
        bytes.extend(&parts[0]);
        encode(PING, b"are you there", MASK, &mut bytes);
        bytes.extend(&parts[1]);
        bytes.extend(&parts[2]);
        bytes.extend(binary(&[]));
        bytes.extend(binary(&payload[300..]));
        encode_close(1000, MASK, &mut bytes);
        (bytes, payload)
    }

    #[test]
    fn frames_may_be_cut_at_every_byte() {
        let (bytes, payload) = several();
        for cut in 0..=bytes.len() {
            let mut decoder = Decoder::new(Role::Server);
            let mut got = decode(&mut decoder, &bytes[..cut]);
            got.extend(decode(&mut decoder, &bytes[cut..]));
            assert_eq!(got, payload, "cut at {cut}");
            assert_eq!(decoder.take_pong().as_deref(), Some(&b"are you there"[..]));
            assert_eq!(decoder.end(), Some(End::Closed));
        }
        let mut decoder = Decoder::new(Role::Server);
        let got: Vec<u8> = bytes
            .iter()
            .flat_map(|byte| decode(&mut decoder, &[*byte]))
            .collect();
        assert_eq!(got, payload);
    }

    #[test]
    fn long_frames_have_long_lengths() {
        for length in [125, 126, 65_535, 65_536, 70_001] {
            let payload = vec![7; length];
            let mut decoder = Decoder::new(Role::Server);
            assert_eq!(decode(&mut decoder, &binary(&payload)), payload);
            let (header, count) = binary_header(length);
            let mut bytes = header[..count].to_vec();
            bytes.extend(&payload);
            assert_eq!(decode(&mut Decoder::new(Role::Client), &bytes), payload);
        }
    }

    #[test]
    fn what_a_peer_must_not_send_ends_the_connection_with_its_status() {
        let mut text = binary(b"x");
        text[0] = 0x80 | TEXT;
        let mut reserved = binary(b"x");
        reserved[0] |= 0x40;
        let mut unknown = binary(b"x");
        unknown[0] = 0x83;
        let mut lone = binary(b"x");
        lone[0] = 0x80;
        let mut split_ping = binary(b"x");
        split_ping[0] = PING;
        let mut long_ping = binary(&[0; 126]);
        long_ping[0] = 0x80 | PING;
        let mut endless = vec![0x82, 0xFF];
        endless.extend([0xFF; 12]);
        let mut half = Vec::new();
        encode(CLOSE, &[3], MASK, &mut half);
        let twice = [&binary(b"x")[..], &binary(b"y")]
            .concat()
            .iter()
            .enumerate()
            .map(|(at, byte)| if at == 0 { BINARY } else { *byte })
            .collect();
        for (bytes, status, payload) in [
            (text, 1003, ""),
            (reserved, 1002, ""),
            (unknown, 1002, ""),
            (lone, 1002, ""),
            (split_ping, 1002, ""),
            (long_ping, 1002, ""),
            (endless, 1002, ""),
            (half, 1002, ""),
            (twice, 1002, "x"),
            (vec![0x82, 1, b'x'], 1002, ""),
        ] {
            let mut decoder = Decoder::new(Role::Server);
            assert_eq!(decode(&mut decoder, &bytes), payload.as_bytes());
            match decoder.end() {
                Some(End::Fault(found, _)) => assert_eq!(found, status, "{bytes:?}"),
                other => panic!("{other:?} for {bytes:?}"),
            }
            assert_eq!(decode(&mut decoder, &binary(b"more")), b"");
        }
    }

    #[test]
    fn only_the_newest_ping_waits_for_an_answer() {
        let mut bytes = Vec::new();
        for n in 0..1000u16 {
            encode(PING, &n.to_be_bytes(), MASK, &mut bytes);
        }
        let mut decoder = Decoder::new(Role::Server);
        assert_eq!(decode(&mut decoder, &bytes), b"");
        assert_eq!(decoder.take_pong(), Some(999u16.to_be_bytes().to_vec()));
        assert_eq!(decoder.take_pong(), None);
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in proptest::collection::vec(0u8..=255, 0..300), cut in 0usize..300) {
            for role in [Role::Server, Role::Client] {
                let mut decoder = Decoder::new(role);
                let (mut first, mut rest) = (bytes.clone(), Vec::new());
                if cut < first.len() {
                    rest = first.split_off(cut);
                }
                let count = decoder.decode(&mut first) + decoder.decode(&mut rest);
                proptest::prop_assert!(count <= bytes.len());
                proptest::prop_assert!(decoder.control.len() <= MAX_CONTROL);
            }
        }

        #[test]
        fn pieces_of_any_size_give_the_same_payload(pieces in proptest::collection::vec(1usize..50, 1..200)) {
            let (bytes, payload) = several();
            let mut decoder = Decoder::new(Role::Server);
            let (mut at, mut got) = (0, Vec::new());
            for piece in pieces.iter().cycle() {
                let end = (at + piece).min(bytes.len());
                got.extend(decode(&mut decoder, &bytes[at..end]));
                at = end;
                if at == bytes.len() { break; }
            }
            proptest::prop_assert_eq!(got, payload);
        }
    }
}
