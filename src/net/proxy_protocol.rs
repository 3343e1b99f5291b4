//! The PROXY protocol, versions 1 and 2. With it a load balancer tells the address of the client
//! before the client's own bytes.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::broker::{CertificateNames, Peer};

/// The first bytes of a header of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Bytes of the longest header of version 1, with its line end.
const MAX_LINE: usize = 107;
/// Bytes of the shortest header of version 1: `PROXY UNKNOWN` with its line end.
const MIN_LINE: usize = 15;
/// Bytes of a header of version 2 after its fixed part. Balancers may add long entries.
const MAX_BODY: usize = 4096;

const TLV_SSL: u8 = 0x20;
const TLV_SSL_CN: u8 = 0x22;
/// Bits in the first byte of [`TLV_SSL`]. The client uses TLS; it has shown a certificate on this
/// connection, or on an earlier one whose TLS session it has resumed.
const TLS: u8 = 0x01;
const CERTIFICATE_SHOWN: u8 = 0x02 | 0x04;

/// What a header says about the client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProxyHeader {
    /// The client's address, and the names in its verified certificate.
    pub peer: Peer,
    /// The client uses TLS towards the balancer.
    pub tls: bool,
    /// The balancer has verified the client's certificate.
    pub verified: bool,
}

/// What a header must say about the client's connection to the balancer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Required {
    /// Nothing.
    #[default]
    Nothing,
    /// The client uses TLS.
    Tls,
    /// The client uses TLS and has a certificate that the balancer has verified.
    Certificate,
}

impl Required {
    /// Checks what a header says. `None` stands for a header without a client, which is an error if
    /// anything is required. Version 1 never says that the client uses TLS.
    ///
    /// # Errors
    /// The header does not say what is required.
    pub fn check(self, header: Option<&ProxyHeader>) -> io::Result<()> {
        match self {
            Required::Tls if !header.is_some_and(|header| header.tls) => Err(wrong(
                "the PROXY protocol header does not say that the client uses TLS",
            )),
            Required::Certificate
                if !header.is_some_and(|header| header.tls && header.verified) =>
            {
                Err(wrong(
                    "the PROXY protocol header does not say that the client has a verified certificate",
                ))
            }
            _ => Ok(()),
        }
    }
}

/// Reads a header, and no byte beyond it. Returns `None` for a connection of the balancer itself,
/// such as a health check.
///
/// # Errors
/// There is no header, or it is malformed, or the connection failed.
pub async fn read_header(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<ProxyHeader>> {
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
    if length > MAX_BODY {
        return Err(wrong("the PROXY protocol header is too long"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    match command {
        0x20 => Ok(None),
        0x21 => parse_body(family, &body).map(Some),
        _ => Err(wrong("the PROXY protocol version or command is unknown")),
    }
}

async fn read_line(
    stream: &mut (impl AsyncRead + Unpin),
    mut line: Vec<u8>,
) -> io::Result<Option<ProxyHeader>> {
    while !line.ends_with(b"\r\n") {
        if line.len() == MAX_LINE {
            return Err(wrong("the PROXY protocol line has no end"));
        }
        line.push(stream.read_u8().await?);
    }
    let line = std::str::from_utf8(&line[..line.len() - 2])
        .map_err(|_| wrong("the PROXY protocol line is not text"))?;
    let words: Vec<&str> = line.split(' ').skip(1).collect();
    if words[0] == "UNKNOWN" {
        return Ok(None);
    }
    let source = parse_line(&words).ok_or_else(|| wrong("the PROXY protocol line is wrong"))?;
    Ok(Some(ProxyHeader {
        peer: Peer {
            address: Some(source),
            certificate: None,
        },
        ..ProxyHeader::default()
    }))
}

/// Returns the source of a line: family, source, destination, and their ports. Both ends are
/// checked: if one is wrong, the other is not trusted either.
fn parse_line(words: &[&str]) -> Option<SocketAddr> {
    let [family, source, destination, source_port, destination_port] = words else {
        return None;
    };
    let ip = |text: &str| -> Option<IpAddr> {
        match *family {
            "TCP4" => text.parse().ok().map(IpAddr::V4),
            "TCP6" => text.parse().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let port = |text: &str| -> Option<u16> {
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
        let is_plain = is_plain && (text == "0" || !text.starts_with('0'));
        text.parse().ok().filter(|_| is_plain)
    };
    ip(destination)?;
    port(destination_port)?;
    Some(SocketAddr::new(ip(source)?, port(source_port)?))
}

fn parse_body(family: u8, body: &[u8]) -> io::Result<ProxyHeader> {
    let short = || wrong("the PROXY protocol header is too short");
    // Source address, destination address, then their ports.
    let (source, length) = match family >> 4 {
        1 => {
            let ip: [u8; 4] = *body.first_chunk().ok_or_else(short)?;
            (Some(IpAddr::from(Ipv4Addr::from(ip))), 12)
        }
        2 => {
            let ip: [u8; 16] = *body.first_chunk().ok_or_else(short)?;
            (Some(IpAddr::from(Ipv6Addr::from(ip))), 36)
        }
        3 => (None, 216),
        0 => (None, 0),
        _ => return Err(wrong("the PROXY protocol address family is unknown")),
    };
    let (addresses, extensions) = body.split_at_checked(length).ok_or_else(short)?;
    let address = source.map(|ip| {
        let port = [addresses[length - 4], addresses[length - 3]];
        SocketAddr::new(ip, u16::from_be_bytes(port))
    });
    let mut header = ProxyHeader {
        peer: Peer {
            address,
            certificate: None,
        },
        ..ProxyHeader::default()
    };
    let Some(ssl) = find(extensions, TLV_SSL)? else {
        return Ok(header);
    };
    let (head, inner) = ssl.split_at_checked(5).ok_or_else(short)?;
    // The entry must be well-formed even if it is not used.
    let name = find(inner, TLV_SSL_CN)?;
    header.tls = head[0] & TLS != 0;
    // The result 0 also stands for a client without a certificate.
    header.verified = head[0] & CERTIFICATE_SHOWN != 0 && head[1..] == [0; 4];
    if header.verified {
        header.peer.certificate = name.and_then(named).map(Box::new);
    }
    Ok(header)
}

/// Returns the names of a certificate with this common name.
fn named(name: &[u8]) -> Option<CertificateNames> {
    let name = std::str::from_utf8(name).ok()?;
    let is_good = !name.is_empty() && !name.chars().any(char::is_control);
    is_good.then(|| CertificateNames {
        common_name: Some(name.into()),
        ..CertificateNames::default()
    })
}

/// Returns the value of the first entry of this type. All entries must be whole.
fn find(mut body: &[u8], wanted: u8) -> io::Result<Option<&[u8]>> {
    let cut = || wrong("an entry of the PROXY protocol header is longer than the header");
    let mut found = None;
    while !body.is_empty() {
        let (&[kind, high, low], rest) = body.split_first_chunk().ok_or_else(cut)?;
        let length = u16::from_be_bytes([high, low]).into();
        let (value, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
        if kind == wanted && found.is_none() {
            found = Some(value);
        }
        body = rest;
    }
    Ok(found)
}

fn wrong(what: &'static str) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<(Option<ProxyHeader>, usize), String> {
        let mut rest = bytes;
        let header = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime")
            .block_on(read_header(&mut rest))
            .map_err(|error| error.to_string())?;
        Ok((header, rest.len()))
    }

    fn address(bytes: &[u8]) -> String {
        let (told, rest) = read(bytes).expect("a header");
        assert_eq!(rest, 4, "nothing beyond the header is read");
        told.map_or("the balancer".to_owned(), |told| told.peer.to_string())
    }

    fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut bytes = SIGNATURE.to_vec();
        bytes.extend([command, family]);
        bytes.extend((body.len() as u16).to_be_bytes());
        bytes.extend(body);
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
        let body = vec![192, 0, 2, 7, 198, 51, 100, 1, 0x12, 0x67, 0x07, 0x5B];
        let plain = [v2(0x21, 0x11, &body), b"MQTT".to_vec()].concat();
        assert_eq!(address(&plain), "192.0.2.7:4711");
        let local = [v2(0x20, 0x00, &[]), b"MQTT".to_vec()].concat();
        assert_eq!(address(&local), "the balancer");
        let addresses = body;
        let with = |flags: u8, result: u8| {
            let ssl = [&[flags, 0, 0, 0, result, TLV_SSL_CN, 0, 3][..], b"dev"].concat();
            let mut body = addresses.clone();
            body.extend([0x05, 0, 1, 9, TLV_SSL, 0, ssl.len() as u8]);
            body.extend(&ssl);
            let (header, _) = read(&v2(0x21, 0x11, &body)).expect("a header");
            header.expect("not the balancer")
        };
        let name = |header: &ProxyHeader| {
            let names = header.peer.certificate.as_deref();
            names.and_then(|names| names.common_name.clone())
        };
        let allowed = |header: &ProxyHeader| {
            [Required::Nothing, Required::Tls, Required::Certificate]
                .map(|required| required.check(Some(header)).is_ok())
        };
        // Shown on this connection, or in the resumed TLS session.
        for flags in [0b011, 0b101, 0b111] {
            let header = with(flags, 0);
            assert_eq!(name(&header).as_deref(), Some("dev"), "{flags:b}");
            assert_eq!(allowed(&header), [true; 3]);
        }
        // Not shown, or not verified by the balancer, or without TLS.
        for (flags, result, expected) in [
            (0b001, 0, [true, true, false]),
            (0b011, 1, [true, true, false]),
            (0b101, 1, [true, true, false]),
            (0b000, 0, [true, false, false]),
        ] {
            let header = with(flags, result);
            assert_eq!(name(&header), None, "{flags:b}");
            assert_eq!(allowed(&header), expected, "{flags:b}");
        }
        assert!(Required::Tls.check(None).is_err() && Required::Nothing.check(None).is_ok());
    }

    #[test]
    fn what_is_no_header_is_an_error() {
        for bad in [
            &b"\x10\x0f\0\x04MQTT\x04\x02\0\x3c\0\x03abc"[..],
            b"PROXY TCP4 192.0.2.7\r\n",
            b"PROXY TCP4 2001:db8::7 2001:db8::1 4711 1883\r\n",
            b"PROXY TCP5 192.0.2.7 198.51.100.1 4711 1883\r\n",
            &[&b"PROXY TCP4 "[..], &[b'1'; 200]].concat(),
            // Missing or impossible ports and addresses at either end, and extra words.
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 \r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 65536\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 1883\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 +1883\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 04711 1883\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 -1 1883\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.999 4711 1883\r\n",
            b"PROXY TCP4 192.0.2.7 2001:db8::1 4711 1883\r\n",
            b"PROXY TCP4 192.0.2.256 198.51.100.1 4711 1883\r\n",
            b"PROXY TCP4 192.0.2.7  198.51.100.1 4711 1883\r\n",
            b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 1883 1\r\n",
            b"PROXY TCP6 2001:db8::7 192.0.2.1 4711 1883\r\n",
            // Entries that are longer than the header, or than the entry around them.
            &v2(0x21, 0x11, &[&[0; 12][..], &[0x05, 0, 9, 1]].concat()),
            &v2(0x21, 0x11, &[&[0; 12][..], &[0x05, 0]].concat()),
            &v2(0x21, 0x11, &[&[0; 12][..], &[TLV_SSL, 0, 2, 1, 0]].concat()),
            &v2(
                0x21,
                0x11,
                &[
                    &[0; 12][..],
                    &[TLV_SSL, 0, 8, 3, 0, 0, 0, 0, TLV_SSL_CN, 0, 9],
                ]
                .concat(),
            ),
            &v2(0x31, 0x11, &[0; 12]),
            &v2(0x22, 0x11, &[0; 12]),
            &v2(0x21, 0x51, &[0; 12]),
            &v2(0x21, 0x11, &[0; 11]),
            &v2(0x21, 0x11, &[0; MAX_BODY + 1]),
        ] {
            assert!(read(bad).is_err(), "{bad:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_do_harm(family in 0u8..=255, body in proptest::collection::vec(0u8..=255, 0..300)) {
            let _ = parse_body(family, &body);
            let _ = read(&v2(0x21, family, &body));
        }
    }
}
