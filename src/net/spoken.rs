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
}

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
                let is_http = METHODS.iter().any(|method| bytes.starts_with(method));
                is_http.then_some(Spoken::Http)
            }
        }
    }

    /// Says what is wrong with that where MQTT is spoken and nothing lies between; `None` for MQTT.
    pub fn on_mqtt(self) -> Option<&'static str> {
        match self {
            Spoken::Mqtt => None,
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
            (b"GETTING", None),
            (b"\x16", None),
            (b"\x20\x02\0\0", None),
            (b"", None),
        ] {
            assert_eq!(Spoken::of(bytes), spoken, "{bytes:?}");
        }
    }
}
