//! The PROXY protocol, versions 1 and 2: what a load balancer says about the client before the client's own bytes.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::broker::{CertificateNames, Peer};

/// What a header of version 2 begins with.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of the longest header of version 1, with its line end.
const MAX_LINE: usize = 107;
/// Bytes of the shortest: `PROXY UNKNOWN` and a line end.
const MIN_LINE: usize = 15;
/// Bytes after the fixed part of a header of version 2; a balancer's own notes may be long.
const MAX_BLOCK: usize = 4096;

const TLV_SSL: u8 = 0x20;
const TLV_SSL_CN: u8 = 0x22;
/// Bit in the first byte of [`TLV_SSL`]: the client has shown a certificate on this connection.
const CERTIFICATE_SHOWN: u8 = 0x02;

/// Reads a header, and nothing beyond it; `None` for a connection the balancer itself has made, to see whether the broker is there.
///
/// # Errors
/// There is no header, or it is wrong, or the connection failed.
pub async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Peer>> {
    let mut start = [0; MIN_LINE];
    stream.read_exact(&mut start).await?;
    if start.starts_with(b"PROXY ") {
        return read_line(stream, start.to_vec()).await;
    }
    if !start.starts_with(&SIGNATURE) {
        return Err(wrong("no PROXY protocol header"));
    }
    let [.., command, family, high] = start;
    let length = usize::from(u16::from_be_bytes([high, stream.read_u8().await?]));
    if length > MAX_BLOCK {
        return Err(wrong("the PROXY protocol header is too long"));
    }
    let mut block = vec![0; length];
    stream.read_exact(&mut block).await?;
    match command {
        0x20 => Ok(None),
        0x21 => parse_block(family, &block).map(Some),
        _ => Err(wrong("the PROXY protocol version or command is unknown")),
    }
}

async fn read_line(
    stream: &mut (impl AsyncRead + Unpin),
    mut line: Vec<u8>,
) -> io::Result<Option<Peer>> {
    while !line.ends_with(b"\r\n") {
        if line.len() == MAX_LINE {
            return Err(wrong("the PROXY protocol line has no end"));
        }
        line.push(stream.read_u8().await?);
    }
    let line = std::str::from_utf8(&line[..line.len() - 2])
        .map_err(|_| wrong("the PROXY protocol line is not text"))?;
    let mut words = line.split(' ').skip(1);
    let family = words.next();
    if family == Some("UNKNOWN") {
        return Ok(None);
    }
    let source: Option<IpAddr> = words.next().and_then(|word| word.parse().ok());
    let port = words.nth(1).and_then(|word| word.parse().ok());
    match (family, source, port) {
        (Some("TCP4"), Some(ip @ IpAddr::V4(_)), Some(port))
        | (Some("TCP6"), Some(ip @ IpAddr::V6(_)), Some(port)) => Ok(Some(Peer {
            address: Some(SocketAddr::new(ip, port)),
            certificate: None,
        })),
        _ => Err(wrong("the PROXY protocol line is wrong")),
    }
}

fn parse_block(family: u8, block: &[u8]) -> io::Result<Peer> {
    let short = || wrong("the PROXY protocol header is too short");
    // Addresses of source and destination, then their ports.
    let (source, length) = match family >> 4 {
        1 => {
            let ip: [u8; 4] = *block.first_chunk().ok_or_else(short)?;
            (Some(IpAddr::from(Ipv4Addr::from(ip))), 12)
        }
        2 => {
            let ip: [u8; 16] = *block.first_chunk().ok_or_else(short)?;
            (Some(IpAddr::from(Ipv6Addr::from(ip))), 36)
        }
        3 => (None, 216),
        0 => (None, 0),
        _ => return Err(wrong("the PROXY protocol address family is unknown")),
    };
    let (addresses, extensions) = block.split_at_checked(length).ok_or_else(short)?;
    let address = source.map(|ip| {
        let port = [addresses[length - 4], addresses[length - 3]];
        SocketAddr::new(ip, u16::from_be_bytes(port))
    });
    Ok(Peer {
        address,
        certificate: certificate(extensions).map(Box::new),
    })
}

/// The common name of the client's certificate, if the balancer has verified one.
fn certificate(extensions: &[u8]) -> Option<CertificateNames> {
    let ssl = tlv(extensions, TLV_SSL)?;
    let (head, inner) = ssl.split_at_checked(5)?;
    let verified = head[1..] == [0; 4];
    let shown = head[0] & CERTIFICATE_SHOWN != 0;
    if !shown || !verified {
        return None;
    }
    let name = std::str::from_utf8(tlv(inner, TLV_SSL_CN)?).ok()?;
    let is_good = !name.is_empty() && !name.chars().any(char::is_control);
    is_good.then(|| CertificateNames {
        common_name: Some(name.into()),
        alternatives: Vec::new(),
    })
}

/// The value of the first entry of this type.
fn tlv(mut block: &[u8], wanted: u8) -> Option<&[u8]> {
    loop {
        let (&[kind, high, low], rest) = block.split_first_chunk()?;
        let (value, rest) = rest.split_at_checked(u16::from_be_bytes([high, low]).into())?;
        if kind == wanted {
            return Some(value);
        }
        block = rest;
    }
}

fn wrong(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<(Option<Peer>, usize), String> {
        let mut rest = bytes;
        let peer = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime")
            .block_on(read_header(&mut rest))
            .map_err(|error| error.to_string())?;
        Ok((peer, rest.len()))
    }

    fn address(bytes: &[u8]) -> String {
        let (peer, rest) = read(bytes).expect("a header");
        assert_eq!(rest, 4, "nothing beyond the header is read");
        peer.map_or("the balancer".to_owned(), |peer| peer.to_string())
    }

    fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((block.len() as u16).to_be_bytes());
        bytes.extend(block);
        bytes
    }

    #[test]
    fn version_1_tells_the_address() {
        let four = b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 1883\r\nMQTT";
        assert_eq!(address(four), "192.0.2.7:4711");
        let six = b"PROXY TCP6 2001:db8::7 2001:db8::1 4711 1883\r\nMQTT";
        assert_eq!(address(six), "[2001:db8::7]:4711");
        assert_eq!(address(b"PROXY UNKNOWN\r\nMQTT"), "the balancer");
    }

    #[test]
    fn version_2_tells_the_address_and_the_name_in_the_certificate() {
        let mut block = vec![192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 0x07, 0x5B];
        let plain = [v2(0x21, 0x11, &block), b"MQTT".to_vec()].concat();
        assert_eq!(address(&plain), "192.0.2.7:4711");
        let local = [v2(0x20, 0x00, &[]), b"MQTT".to_vec()].concat();
        assert_eq!(address(&local), "the balancer");
        let ssl = [
            &[CERTIFICATE_SHOWN | 1, 0, 0, 0, 0, TLV_SSL_CN, 0, 3][..],
            b"dev",
        ]
        .concat();
        block.extend([0x05, 0, 1, 9, TLV_SSL, 0, ssl.len() as u8]);
        block.extend(&ssl);
        let (peer, _) = read(&v2(0x21, 0x11, &block)).expect("a header");
        let names = peer.and_then(|peer| peer.certificate).expect("names");
        assert_eq!(names.common_name.as_deref(), Some("dev"));
        // Not verified by the balancer.
        let at = block.len() - ssl.len() + 4;
        block[at] = 1;
        let (peer, _) = read(&v2(0x21, 0x11, &block)).expect("a header");
        assert_eq!(peer.and_then(|peer| peer.certificate), None);
    }

    #[test]
    fn what_is_no_header_is_an_error() {
        for bad in [
            &b"\x10\x0f\0\x04MQTT\x04\x02\0\x3c\0\x03abc"[..],
            b"PROXY TCP4 192.0.2.7\r\n",
            b"PROXY TCP4 2001:db8::7 2001:db8::1 4711 1883\r\n",
            b"PROXY TCP5 192.0.2.7 198.51.100.1 4711 1883\r\n",
            &[&b"PROXY TCP4 "[..], &[b'1'; 200]].concat(),
            &v2(0x31, 0x11, &[0; 12]),
            &v2(0x22, 0x11, &[0; 12]),
            &v2(0x21, 0x51, &[0; 12]),
            &v2(0x21, 0x11, &[0; 11]),
            &v2(0x21, 0x11, &[0; MAX_BLOCK + 1]),
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_do_harm(family in 0u8..=255, block in proptest::collection::vec(0u8..=255, 0..300)) {
            let _ = parse_block(family, &block);
            let _ = read(&v2(0x21, family, &block));
        }
    }
}
