//! What is around MQTT: the configuration, WebSocket frames, and what comes before MQTT begins.

use std::path::Path;

use tidegate::config::{Config, Overrides};
use tidegate::net::auth::hash::PasswordHash;
use tidegate::net::auth::password_file::{Line, PasswordFile, parse_line};
use tidegate::net::proxy_protocol::read_header;
use tidegate::net::websocket::frame::{Decoder, End, Role, encode_binary};
use tidegate::net::websocket::{Origins, WebSocketSettings, accept};

/// A configuration file: what is wrong with it is said with its place and never twice.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let name = Path::new("fuzz.toml");
    let read = || Config::parse(text, name, [], &Overrides::default());
    let Err(error) = read() else { return };
    assert!(!error.problems.is_empty());
    let lines = text.lines().count().max(1);
    for problem in &error.problems {
        let place = problem.place.strip_prefix("fuzz.toml");
        let place = place.unwrap_or_else(|| panic!("{problem:?} names the file"));
        let line = place
            .split(':')
            .nth(1)
            .and_then(|line| line.parse::<usize>().ok());
        assert!(line.is_none_or(|line| line <= lines + 1), "{problem:?}");
        assert!(!problem.what.is_empty());
    }
    assert_eq!(read().expect_err("as before"), error);
}

/// A password file: what is wrong with it is said with its line; what is good has hashes that are
/// written as they are read.
pub fn password_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let lines = text.lines().count();
    if let Err(problems) = PasswordFile::parse(Path::new("fuzz"), text) {
        assert!(!problems.is_empty() && problems.len() <= lines);
        for problem in &problems {
            let told = problem.to_string();
            assert!(told.starts_with("fuzz:"), "{told}");
        }
    }
    for line in text.lines() {
        if let Ok(Line::User(_, hash)) = parse_line(line)
            && let Ok(hash) = PasswordHash::parse(hash)
        {
            let again = PasswordHash::parse(&hash.to_string());
            assert!(again == Ok(hash));
        }
    }
}

/// A server's and a client's decoder: however the bytes are split, the same comes of them.
pub fn websocket(data: &[u8]) {
    let Some((first, data)) = data.split_first() else {
        return;
    };
    let (role, mask) = match first % 2 {
        0 => (Role::Server, Some([*first, 1, 2, 3])),
        _ => (Role::Client, None),
    };
    let whole = decode(role, data, data.len().max(1));
    for size in [1, 2, usize::from(*first).max(3)] {
        assert_eq!(decode(role, data, size), whole, "in pieces of {size}");
    }
    let mut frame = Vec::new();
    encode_binary(data, mask, &mut frame);
    let (payload, _, end) = decode(role, &frame, frame.len());
    assert_eq!((payload.as_slice(), end), (data, None));
}

/// Payload, the newest Ping's, and the end.
fn decode(role: Role, data: &[u8], size: usize) -> (Vec<u8>, Option<Vec<u8>>, Option<End>) {
    let mut decoder = Decoder::new(role);
    let mut payload = Vec::new();
    for piece in data.chunks(size) {
        let mut piece = piece.to_vec();
        let count = decoder.decode(&mut piece);
        payload.extend_from_slice(&piece[..count]);
    }
    let pong = decoder.take_pong();
    assert!(pong.as_ref().is_none_or(|pong| pong.len() <= 125));
    (payload, pong, decoder.end())
}

/// A PROXY protocol header, and a WebSocket handshake: read whole, never beyond what is there.
pub fn before_mqtt(data: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.expect("a runtime").block_on(async {
        let mut rest = data;
        let _ = read_header(&mut rest).await;
        let settings = WebSocketSettings {
            paths: Default::default(),
            origins: Origins::Listed(vec!["https://example.org".to_owned()]),
            frame_per_packet: true,
        };
        let mut answer = Vec::new();
        let stream = tokio::io::join(data, &mut answer);
        let accepted = accept(stream, &settings).await.is_ok();
        let said = String::from_utf8(answer).expect("HTTP in ASCII");
        if accepted {
            assert!(said.starts_with("HTTP/1.1 101 ") && said.ends_with("\r\n\r\n"));
        } else {
            assert!(
                said.is_empty() || said.starts_with("HTTP/1.1 4"),
                "{said:?}"
            );
        }
    });
}
