//! What the first bytes of a connection speak: enough to name a client that has taken the wrong port.

/// A protocol that begins in a way of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// A CONNECT packet.
    Mqtt,
    /// A ClientHello.
    Tls,
    /// A request line.
    Http,
    /// A header of the PROXY protocol, version 1 or 2.
    Proxy,
}

/// Says what is wrong with a PROXY header where it is not expected.
const PROXY: &str = "a PROXY protocol header where none is expected: name the balancer in proxy_protocol_from, or let it send none";

/// What PROXY headers of version 1 and 2 begin with; as much of the signature of version 2 as nothing else begins with.
const PROXY_HEADERS: [&[u8]; 2] = [b"PROXY ", b"\r\n\r\n\0\r\nQUI"];

/// The methods of HTTP, and what HTTP/2 begins with.
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

impl Spoken {
    /// Recognises a protocol by its first bytes; `None` if it is none of these.
    pub fn of(bytes: &[u8]) -> Option<Spoken> {
        match bytes {
            [0x16, 0x03, ..] => Some(Spoken::Tls),
            [0x10, ..] => Some(Spoken::Mqtt),
            _ => {
                let begins = |with: &&[u8]| bytes.starts_with(with);
                if METHODS.iter().any(begins) {
                    Some(Spoken::Http)
                } else if PROXY_HEADERS.iter().any(begins) {
                    Some(Spoken::Proxy)
                } else {
                    None
                }
            }
        }
    }

    /// Says what is wrong with that where MQTT is spoken and nothing lies between; `None` for MQTT.
    pub fn on_mqtt(self) -> Option<&'static str> {
        match self {
            Spoken::Mqtt => None,
            Spoken::Proxy => Some(PROXY),
            Spoken::Tls => Some(
                "TLS where MQTT without TLS is spoken: connect without TLS, or to a listener with protocol = \"mqtts\"",
            ),
            Spoken::Http => Some(
                "HTTP where MQTT is spoken: for WebSocket connect to a listener with protocol = \"ws\" or \"wss\"",
            ),
        }
    }

    /// Says what is wrong with that where TLS is spoken; `None` for TLS.
    pub fn on_tls(self) -> Option<&'static str> {
        match self {
            Spoken::Tls => None,
            Spoken::Proxy => Some(PROXY),
            Spoken::Mqtt => Some(
                "MQTT without TLS where TLS is spoken: connect with TLS, or to a listener with protocol = \"mqtt\"",
            ),
            Spoken::Http => Some("HTTP without TLS where TLS is spoken: connect with https or wss"),
        }
    }

    /// Says what is wrong with that where WebSocket is spoken; `None` for HTTP.
    pub fn on_websocket(self) -> Option<&'static str> {
        match self {
            Spoken::Http => None,
            Spoken::Proxy => Some(PROXY),
            Spoken::Mqtt => Some(
                "MQTT without WebSocket where WebSocket is spoken: connect over WebSocket, or to a listener with protocol = \"mqtt\" or \"mqtts\"",
            ),
            Spoken::Tls => Some(
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
        for (bytes, spoken) in [
            (&b"\x16\x03\x01\x02\x00\x01"[..], Some(Spoken::Tls)),
            (b"\x10\x0c\0\x04MQTT", Some(Spoken::Mqtt)),
            (b"GET / HTTP/1.1\r\n", Some(Spoken::Http)),
            (b"PRI * HTTP/2.0\r\n", Some(Spoken::Http)),
            (b"PROXY TCP4 192.0.2.1 ", Some(Spoken::Proxy)),
            (b"\r\n\r\n\0\r\nQUIT\n\x21\x11", Some(Spoken::Proxy)),
            // What is seen of it before a TLS handshake.
            (b"\r\n\r\n\0\r\nQUIT", Some(Spoken::Proxy)),
            (b"PROXYING", None),
            (b"GETTING", None),
            (b"\x16", None),
            (b"\x20\x02\0\0", None),
            (b"", None),
        ] {
            assert_eq!(Spoken::of(bytes), spoken, "{bytes:?}");
        }
    }
}
