//! Detects the protocol of a connection by its first bytes, to name the error of a client that uses
//! the wrong port.

/// A protocol that its first bytes identify.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SniffedProtocol {
    /// A CONNECT packet.
    Mqtt,
    /// A ClientHello.
    Tls,
    /// A request line.
    Http,
    /// A header of the PROXY protocol, version 1 or 2.
    Proxy,
}

/// The error text for an unexpected PROXY protocol header.
const PROXY: &str = "a PROXY protocol header where none is expected: name the balancer in proxy_protocol_from, or let it send none";

/// The first bytes of PROXY protocol headers of version 1 and 2. Of the signature of version 2, as
/// many bytes as nothing else begins with.
const PROXY_HEADERS: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUI"];

/// The methods of HTTP, and the first bytes of HTTP/2.
const METHODS: [&[u8]; 10] = [
    b"GET ",
    b"HEAD ",
    b"POST ",
    b"PUT ",
    b"PATCH ",
    b"DELETE ",
    b"OPTIONS ",
    b"CONNECT ",
    b"TRACE ",
    b"PRI * ",
];

impl SniffedProtocol {
    /// Detects a protocol. Returns `None` if it is none of these.
    pub fn detect(bytes: &[u8]) -> Option<SniffedProtocol> {
        match bytes {
            [0x16, 0x03, ..] => Some(SniffedProtocol::Tls),
            [0x10, ..] => Some(SniffedProtocol::Mqtt),
            _ => {
                let begins = |with: &&[u8]| bytes.starts_with(with);
                if METHODS.iter().any(begins) {
                    Some(SniffedProtocol::Http)
                } else if PROXY_HEADERS.iter().any(begins) {
                    Some(SniffedProtocol::Proxy)
                } else {
                    None
                }
            }
        }
    }

    /// Returns the error text for this protocol on a listener for plain MQTT. `None` for MQTT.
    pub fn mismatch_on_mqtt(self) -> Option<&'static str> {
        match self {
            SniffedProtocol::Mqtt => None,
            SniffedProtocol::Proxy => Some(PROXY),
            SniffedProtocol::Tls => Some(
                "TLS where MQTT without TLS is spoken: connect without TLS, or to a listener with protocol = \"mqtts\"",
            ),
            SniffedProtocol::Http => Some(
                "HTTP where MQTT is spoken: for WebSocket connect to a listener with protocol = \"ws\" or \"wss\"",
            ),
        }
    }

    /// Returns the error text for this protocol on a listener with TLS. `None` for TLS.
    pub fn mismatch_on_tls(self) -> Option<&'static str> {
        match self {
            SniffedProtocol::Tls => None,
            SniffedProtocol::Proxy => Some(PROXY),
            SniffedProtocol::Mqtt => Some(
                "MQTT without TLS where TLS is spoken: connect with TLS, or to a listener with protocol = \"mqtt\"",
            ),
            SniffedProtocol::Http => {
                Some("HTTP without TLS where TLS is spoken: connect with https or wss")
            }
        }
    }

    /// Returns the error text for this protocol on a listener with WebSocket. `None` for HTTP.
    pub fn mismatch_on_websocket(self) -> Option<&'static str> {
        match self {
            SniffedProtocol::Http => None,
            SniffedProtocol::Proxy => Some(PROXY),
            SniffedProtocol::Mqtt => Some(
                "MQTT without WebSocket where WebSocket is spoken: connect over WebSocket, or to a listener with protocol = \"mqtt\" or \"mqtts\"",
            ),
            SniffedProtocol::Tls => Some(
                "TLS where WebSocket without TLS is spoken: connect with ws instead of wss, or to a listener with protocol = \"wss\"",
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocols_are_known_by_their_first_bytes() {
        for (bytes, protocol) in [
            (&b"\x16\x03\x01\x02\x00\x01"[..], Some(SniffedProtocol::Tls)),
            (b"\x10\x0c\0\x04MQTT", Some(SniffedProtocol::Mqtt)),
            (b"GET / HTTP/1.1\r\n", Some(SniffedProtocol::Http)),
            (b"PRI * HTTP/2.0\r\n", Some(SniffedProtocol::Http)),
            (b"PROXY TCP4 192.0.2.1 ", Some(SniffedProtocol::Proxy)),
            (
                b"\r\n\r\n\0\r\nQUIT\n\x21\x11",
                Some(SniffedProtocol::Proxy),
            ),
            // What TLS listeners see of it.
            (b"\r\n\r\n\0\r\nQUIT", Some(SniffedProtocol::Proxy)),
            (b"PROXYING", None),
            (b"GETTING", None),
            (b"\x16", None),
            (b"\x20\x02\0\0", None),
            (b"", None),
        ] {
            assert_eq!(SniffedProtocol::detect(bytes), protocol, "{bytes:?}");
        }
    }
}
