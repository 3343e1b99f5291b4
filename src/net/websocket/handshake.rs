//! The HTTP request and response that open a WebSocket connection (RFC 6455 section 4).

use std::fmt::Write as _;
use std::io;

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::WebSocket;
use super::frame::Role;
use crate::clock;
use crate::net::sniff::SniffedProtocol;

/// Bytes of a request or response up to its empty line.
const MAX_HEAD: usize = 8 * 1024;
pub(in crate::net) const MAX_HEADERS: usize = 100;
/// Characters of a path that are logged.
const MAX_PATH_LOGGED: usize = 100;
/// Is appended to a key before it is hashed (RFC 6455 section 1.3).
const ACCEPT_GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The WebSocket settings of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebSocketSettings {
    /// The allowed paths. A request for another one is answered with 404.
    pub paths: Paths,
    /// The web pages that may connect. Others are answered with 403. A request without Origin does
    /// not come from a browser: it is always allowed.
    pub origins: Origins,
    /// Each packet is sent as a frame of its own. Some clients lose the second packet of a frame.
    /// MQTT 5 section 6 allows both.
    pub frame_per_packet: bool,
}

/// Paths of the request's URL that lead to MQTT, without a `?` and what follows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Paths {
    /// All paths.
    All,
    /// These paths.
    Listed(Vec<String>),
}

/// The web pages that may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origins {
    /// All web pages.
    All,
    /// Web pages from this machine: host and port of the Origin are those of the request, and name
    /// this machine. So a web page from elsewhere cannot reach a broker that listens on this
    /// machine only, even if its own name resolves to this machine.
    Local,
    /// These origins, such as `https://example.org`.
    Listed(Vec<String>),
}

impl Default for Paths {
    /// `/mqtt`, the usual path, and `/`, which clients without a path ask for.
    fn default() -> Paths {
        Paths::Listed(vec!["/mqtt".to_owned(), "/".to_owned()])
    }
}

impl Paths {
    /// Returns a path that leads to MQTT.
    pub fn first(&self) -> &str {
        match self {
            Paths::Listed(known) => known.first().map_or("/", String::as_str),
            Paths::All => "/mqtt",
        }
    }

    /// Returns the log text for a path that does not lead to MQTT. `None` if it does.
    fn refusal(&self, path: &str) -> Option<String> {
        let Paths::Listed(known) = self else {
            return None;
        };
        if known.iter().any(|known| known == path) {
            return None;
        }
        let asked: String = path.chars().take(MAX_PATH_LOGGED).collect();
        let cut = if asked.len() < path.len() { "..." } else { "" };
        let known = known.join(", ");
        Some(format!(
            ": it asked for {asked:?}{cut}, and websocket_path has {known}"
        ))
    }
}

impl Origins {
    fn allow(&self, origin: &str, host: Option<&str>) -> bool {
        match self {
            Origins::All => true,
            Origins::Listed(known) => known.iter().any(|known| known.eq_ignore_ascii_case(origin)),
            Origins::Local => {
                let (scheme, authority) = origin.split_once("://").unwrap_or_default();
                let port = match scheme {
                    "https" => 443,
                    _ => 80,
                };
                let (page, here) = (
                    host_and_port(authority, port),
                    host_and_port(host.unwrap_or_default(), port),
                );
                page == here && is_this_machine(&page.0)
            }
        }
    }
}

/// Returns the host, in lower case, and the port of an authority such as `localhost:8083` or
/// `[::1]`.
fn host_and_port(authority: &str, default_port: u16) -> (String, Option<u16>) {
    let end_of_host = authority.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match authority[end_of_host..].rfind(':') {
        Some(at) => (
            &authority[..end_of_host + at],
            authority[end_of_host + at + 1..].parse().ok(),
        ),
        None => (authority, Some(default_port)),
    };
    (host.to_ascii_lowercase(), port)
}

fn is_this_machine(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let is_loopback = |address: std::net::IpAddr| address.is_loopback();
    host == "localhost" || host.ends_with(".localhost") || bare.parse().is_ok_and(is_loopback)
}

/// A refusal: HTTP status and reason, a sentence for the client, and an addition for the log.
struct Refusal(&'static str, &'static str, String);

impl Refusal {
    fn new(status: &'static str, what: &'static str) -> Refusal {
        Refusal(status, what, String::new())
    }
}

/// Reads a client's request and answers it.
///
/// # Errors
/// The request was refused, and answered with the HTTP status; or the connection failed.
pub async fn accept<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    settings: &WebSocketSettings,
) -> io::Result<WebSocket<S>> {
    let (head, early) = match read_head(&mut stream).await {
        Ok(read) => read,
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            let refusal = Refusal::new(
                "431 Request Header Fields Too Large",
                "the request is too long",
            );
            return Err(refuse(&mut stream, &refusal).await);
        }
        Err(error) => return Err(error),
    };
    match answer(&head, settings) {
        Ok(response) => {
            stream.write_all(response.as_bytes()).await?;
            stream.flush().await?;
            let by_packet = settings.frame_per_packet;
            Ok(WebSocket::new(stream, Role::Server, early, by_packet))
        }
        Err(refusal) => Err(refuse(&mut stream, &refusal).await),
    }
}

/// Asks a server for MQTT over WebSocket.
///
/// # Errors
/// The server refuses, is not a WebSocket server, or the connection failed.
pub async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    host: &str,
    path: &str,
    subprotocol: &str,
) -> io::Result<WebSocket<S>> {
    let key = STANDARD.encode([clock::seed().to_be_bytes(), clock::seed().to_be_bytes()].concat());
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Protocol: {subprotocol}\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let (head, early) = read_head(&mut stream).await?;
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    if !matches!(response.parse(&head), Ok(status) if status.is_complete()) {
        return Err(io::Error::other("the server does not speak HTTP"));
    }
    if response.code != Some(101) {
        let (code, reason) = (
            response.code.unwrap_or(0),
            response.reason.unwrap_or_default(),
        );
        return Err(io::Error::other(format!(
            "the server refuses WebSocket: {code} {reason}"
        )));
    }
    if header(response.headers, "sec-websocket-accept") != Some(&accept_key(&key)) {
        return Err(io::Error::other(
            "the server's WebSocket handshake is wrong",
        ));
    }
    Ok(WebSocket::new(stream, Role::Client, early, false))
}

/// Reads a request or response up to its empty line. Also returns the bytes that came behind it.
pub(in crate::net) async fn read_head(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut head = Vec::with_capacity(1024);
    loop {
        let from = head.len().saturating_sub(3);
        if stream.read_buf(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if let Some(wrong) =
            SniffedProtocol::detect(&head).and_then(SniffedProtocol::mismatch_on_websocket)
        {
            return Err(io::Error::other(wrong));
        }
        if let Some(at) = head[from..].windows(4).position(|four| four == b"\r\n\r\n") {
            let early = head.split_off(from + at + 4);
            return Ok((head, early));
        }
        if head.len() > MAX_HEAD {
            return Err(io::ErrorKind::InvalidData.into());
        }
        head.reserve(1024);
    }
}

fn answer(head: &[u8], settings: &WebSocketSettings) -> Result<String, Refusal> {
    let bad = |what| Err(Refusal::new("400 Bad Request", what));
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    if !matches!(request.parse(head), Ok(status) if status.is_complete()) {
        return bad("not an HTTP request");
    }
    let headers = &*request.headers;
    let path = request.path.unwrap_or_default();
    let path = path.split('?').next().unwrap_or_default();
    if let Some(detail) = settings.paths.refusal(path) {
        return Err(Refusal("404 Not Found", "no such path", detail));
    }
    if request.method != Some("GET") || request.version != Some(1) {
        return bad("expected GET and HTTP/1.1");
    }
    if !has_word(headers, "upgrade", "websocket") || !has_word(headers, "connection", "upgrade") {
        return Err(Refusal::new(
            "426 Upgrade Required",
            "here is MQTT over WebSocket",
        ));
    }
    if header(headers, "sec-websocket-version") != Some("13") {
        return Err(Refusal::new(
            "426 Upgrade Required",
            "the WebSocket version is 13",
        ));
    }
    let Some(key) = header(headers, "sec-websocket-key")
        .filter(|key| STANDARD.decode(key).is_ok_and(|key| key.len() == 16))
    else {
        return bad("Sec-WebSocket-Key is missing or wrong");
    };
    if let Some(origin) = header(headers, "origin")
        && !settings.origins.allow(origin, header(headers, "host"))
    {
        return Err(Refusal::new(
            "403 Forbidden",
            "this web page may not connect here: websocket_origins says which may",
        ));
    }
    // [MQTT-6.0.0-3], [MQTT-6.0.0-4]. MQTT 3.1 clients send mqttv3.1.
    let Some(subprotocol) = ["mqtt", "mqttv3.1"]
        .into_iter()
        .find(|name| has_word(headers, "sec-websocket-protocol", name))
    else {
        return bad("the subprotocol is mqtt");
    };
    Ok(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\
         Sec-WebSocket-Protocol: {subprotocol}\r\n\r\n",
        accept_key(key)
    ))
}

async fn refuse(stream: &mut (impl AsyncWrite + Unpin), refusal: &Refusal) -> io::Error {
    let Refusal(status, what, detail) = refusal;
    let mut response = format!("HTTP/1.1 {status}\r\nConnection: close\r\n");
    if status.starts_with("426") {
        response += "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    }
    let _ = write!(
        response,
        "Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{what}\n",
        what.len() + 1
    );
    // The connection ends here, whether this succeeds or not.
    let _ = stream.write_all(response.as_bytes()).await;
    let _ = stream.shutdown().await;
    io::Error::other(format!("answered {status}: {what}{detail}"))
}

fn header<'h>(headers: &[httparse::Header<'h>], name: &str) -> Option<&'h str> {
    let found = headers
        .iter()
        .find(|header| header.name.eq_ignore_ascii_case(name))?;
    std::str::from_utf8(found.value).ok().map(str::trim)
}

/// Returns whether a word is in a header's list. The header may occur several times.
fn has_word(headers: &[httparse::Header<'_>], name: &str, word: &str) -> bool {
    headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case(name))
        .filter_map(|header| std::str::from_utf8(header.value).ok())
        .flat_map(|value| value.split(','))
        .any(|part| part.trim().eq_ignore_ascii_case(word))
}

fn accept_key(key: &str) -> String {
    let hash = digest(
        &SHA1_FOR_LEGACY_USE_ONLY,
        format!("{key}{ACCEPT_GUID}").as_bytes(),
    );
    STANDARD.encode(hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "GET /mqtt?x=1 HTTP/1.1\r\nHost: h\r\nUpgrade: WebSocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: other, mqtt\r\n\
        Origin: https://a.example\r\n\r\n";

    fn settings(origins: &[&str]) -> WebSocketSettings {
        WebSocketSettings {
            paths: Paths::default(),
            origins: match origins {
                [] => Origins::All,
                ["local"] => Origins::Local,
                listed => Origins::Listed(listed.iter().map(|&origin| origin.to_owned()).collect()),
            },
            frame_per_packet: true,
        }
    }

    fn status(request: &str, origins: &[&str]) -> String {
        match answer(request.as_bytes(), &settings(origins)) {
            Ok(response) => response[9..12].to_owned(),
            Err(Refusal(status, ..)) => status[..3].to_owned(),
        }
    }

    #[test]
    fn a_good_request_is_answered_with_the_hash_of_its_key_and_mqtt() {
        let Ok(response) = answer(GOOD.as_bytes(), &settings(&[])) else {
            panic!("refused");
        };
        // The example of RFC 6455 section 1.3.
        assert!(response.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"));
        assert!(response.contains("Sec-WebSocket-Protocol: mqtt\r\n"));
        let old = GOOD.replace("other, mqtt", "mqttv3.1");
        assert!(
            answer(old.as_bytes(), &settings(&[])).is_ok_and(|it| it.contains(": mqttv3.1\r\n"))
        );
    }

    #[test]
    fn each_wrong_request_has_its_status() {
        for (from, to, expected) in [
            ("/mqtt?x=1", "/MQTT", "404"),
            ("GET", "POST", "400"),
            ("HTTP/1.1", "HTTP/1.0", "400"),
            ("Upgrade: WebSocket", "Upgrade: h2c", "426"),
            ("keep-alive, Upgrade", "keep-alive", "426"),
            ("Version: 13", "Version: 8", "426"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "short", "400"),
            ("other, mqtt", "other", "400"),
            ("Sec-WebSocket-Protocol: other, mqtt\r\n", "", "400"),
            ("GET", "G\0T", "400"),
        ] {
            assert_eq!(
                status(&GOOD.replacen(from, to, 1), &[]),
                expected,
                "{from} as {to}"
            );
        }
    }

    #[test]
    fn every_path_of_the_list_leads_to_mqtt_and_the_log_names_another() {
        let asked = |path: &str, paths: Paths| {
            let settings = WebSocketSettings {
                paths,
                ..settings(&[])
            };
            match answer(GOOD.replace("/mqtt?x=1", path).as_bytes(), &settings) {
                Ok(_) => String::new(),
                Err(Refusal(status, what, detail)) => format!("{status}: {what}{detail}"),
            }
        };
        for path in ["/mqtt", "/", "/?token=x", "/mqtt?token=x"] {
            assert_eq!(asked(path, Paths::default()), "", "{path}");
        }
        assert_eq!(
            asked("/ws?token=secret", Paths::default()),
            "404 Not Found: no such path: it asked for \"/ws\", and websocket_path has /mqtt, /"
        );
        let long = format!("/{}", "x".repeat(4000));
        assert!(asked(&long, Paths::default()).len() < 250);
        assert_eq!(asked(&long, Paths::All), "");
        let one = Paths::Listed(vec!["/x".to_owned()]);
        assert!(asked("/", one).starts_with("404"));
    }

    #[test]
    fn only_pages_that_are_allowed_may_connect() {
        assert_eq!(status(GOOD, &["https://b.example"]), "403");
        assert_eq!(
            status(GOOD, &["https://b.example", "https://A.example"]),
            "101"
        );
        let no_browser = GOOD.replace("Origin: https://a.example\r\n", "");
        assert_eq!(status(&no_browser, &["https://b.example"]), "101");
        assert_eq!(status(&no_browser, &["local"]), "101");
    }

    #[test]
    fn on_this_machine_only_pages_from_the_same_place_may_connect() {
        for (origin, host, expected) in [
            ("http://localhost:8083", "localhost:8083", "101"),
            ("http://LOCALHOST:8083", "localhost:8083", "101"),
            ("http://127.0.0.1:8083", "127.0.0.1:8083", "101"),
            ("http://[::1]:8083", "[::1]:8083", "101"),
            ("https://localhost", "localhost:443", "101"),
            ("https://evil.example", "127.0.0.1:8083", "403"),
            ("http://localhost:3000", "localhost:8083", "403"),
            ("http://localhost:8083", "127.0.0.1:8083", "403"),
            // A name from elsewhere that resolves to this machine.
            ("http://evil.example:8083", "evil.example:8083", "403"),
            (
                "http://localhost.evil.example:1",
                "localhost.evil.example:1",
                "403",
            ),
            ("null", "127.0.0.1:8083", "403"),
            ("", "", "403"),
        ] {
            let request = GOOD
                .replace("https://a.example", origin)
                .replace("Host: h", &format!("Host: {host}"));
            assert_eq!(status(&request, &["local"]), expected, "{origin} {host}");
        }
    }
}
