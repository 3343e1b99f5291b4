//! MQTT over WebSocket, with tungstenite as the client.

use std::net::TcpStream;

use support::{Broker, Connect, Version, raw, wait_until};
use tungstenite::client::IntoClientRequest;
use tungstenite::http::HeaderValue;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Error, Message, WebSocket};

use super::authority::Authority;
use super::wire::{dial, place};
use super::{broker, run};

const OPEN: &str =
    "[[listeners]]\nprotocol = \"ws\"\nbind = \"127.0.0.1:0\"\nallow_anonymous = true\n";

/// Asks for a WebSocket; the status of HTTP if it is refused.
fn ask(
    broker: &Broker,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<WebSocket<TcpStream>, u16> {
    let address = place(broker, "ws");
    let mut request = format!("ws://{address}{path}")
        .into_client_request()
        .expect("a URL");
    for (name, value) in headers {
        let value = HeaderValue::from_str(value).expect("a value");
        request.headers_mut().insert(*name, value);
    }
    match tungstenite::client(request, dial(address)) {
        Ok((socket, response)) => {
            let chosen = &response.headers()["sec-websocket-protocol"];
            assert!(chosen == "mqtt" || chosen == "mqttv3.1", "{chosen:?}");
            Ok(socket)
        }
        Err(tungstenite::HandshakeError::Failure(Error::Http(response))) => {
            Err(response.status().as_u16())
        }
        Err(error) => panic!("{error}"),
    }
}

const MQTT: (&str, &str) = ("sec-websocket-protocol", "mqtt");

fn open(broker: &Broker) -> WebSocket<TcpStream> {
    ask(broker, "/mqtt", &[MQTT]).expect("accepted")
}

/// Bytes of binary messages, until there are so many.
fn receive(socket: &mut WebSocket<TcpStream>, count: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < count {
        match socket.read().expect("a message") {
            Message::Binary(more) => bytes.extend_from_slice(&more),
            other => panic!("{other:?} instead of binary data [MQTT-6.0.0-1]"),
        }
    }
    bytes
}

fn close_code(socket: &mut WebSocket<TcpStream>) -> Option<CloseCode> {
    loop {
        match socket.read() {
            Ok(Message::Close(frame)) => return frame.map(|frame| frame.code),
            Ok(_) => {}
            Err(error) => panic!("{error} instead of a Close frame"),
        }
    }
}

#[test]
fn packets_may_be_split_at_every_byte_and_joined_in_one_frame() {
    // [MQTT-6.0.0-2]
    let broker = broker(OPEN);
    let session = [
        Connect::new(Version::V311, "c").bytes(),
        raw::subscribe3(0x82, 1, b"a", 1),
        raw::frame(0x32, b"\0\x01a\0\x02payload"),
    ]
    .concat();
    // CONNACK, SUBACK, PUBACK and the PUBLISH that comes back.
    let expected = 4 + 5 + 4 + 14;
    for cut in 0..=session.len() {
        let mut socket = open(&broker);
        for part in [&session[..cut], &session[cut..]] {
            socket.send(Message::binary(part.to_vec())).expect("sent");
        }
        let got = receive(&mut socket, expected);
        assert_eq!(got.len(), expected, "cut at {cut}: {got:?}");
        assert_eq!(got[..4], [0x20, 2, 0, 0]);
    }
    let mut socket = open(&broker);
    for byte in &session {
        socket.send(Message::binary(vec![*byte])).expect("sent");
    }
    assert_eq!(receive(&mut socket, expected).len(), expected);
}

#[test]
fn each_packet_comes_in_a_frame_of_its_own() {
    // Paho C 1.3 takes the first packet of a frame, and loses the others.
    let broker = broker(OPEN);
    let mut socket = open(&broker);
    let large = raw::frame(0x30, &[&b"\0\x01a"[..], &[7; 300_000]].concat());
    let mut session = [
        Connect::new(Version::V311, "c").bytes(),
        raw::subscribe3(0x82, 1, b"a", 0),
    ]
    .concat();
    for _ in 0..3 {
        session.extend(raw::frame(0x32, b"\0\x01b\0\x02payload"));
        session.extend(raw::frame(0x30, b"\0\x01asmall"));
        session.extend(&large);
        session.extend([0xC0, 0]);
    }
    socket.send(Message::binary(session)).expect("sent");
    let mut kinds = Vec::new();
    while kinds.len() < 2 + 3 * 4 {
        let Message::Binary(packet) = socket.read().expect("a message") else {
            panic!("no binary data [MQTT-6.0.0-1]");
        };
        let head = packet[1..].iter().position(|byte| byte & 0x80 == 0);
        let head = head.expect("a Remaining Length");
        let length = (0..=head).map(|at| usize::from(packet[1 + at] & 0x7F) << (7 * at));
        assert_eq!(packet.len(), 2 + head + length.sum::<usize>());
        kinds.push(packet[0] >> 4);
    }
    kinds[2..].sort_unstable();
    assert_eq!(kinds, [2, 9, 3, 3, 3, 3, 3, 3, 4, 4, 4, 13, 13, 13]);
}

#[test]
fn a_large_packet_comes_and_goes() {
    let broker = broker(OPEN);
    let mut socket = open(&broker);
    let payload: Vec<u8> = (0..900_000u32).map(|n| (n % 251) as u8).collect();
    let publish = raw::frame(0x30, &[&b"\0\x01a"[..], &payload].concat());
    let session = [
        Connect::new(Version::V311, "c").bytes(),
        raw::subscribe3(0x82, 1, b"a", 0),
        publish.clone(),
    ]
    .concat();
    socket.send(Message::binary(session)).expect("sent");
    let got = receive(&mut socket, 4 + 5 + publish.len());
    assert!(got[9..] == publish, "it came back changed");
}

#[test]
fn a_text_frame_is_closed_with_1003() {
    // [MQTT-6.0.0-1]
    let broker = broker(OPEN);
    let mut socket = open(&broker);
    let connect = Connect::new(Version::V5, "c").bytes();
    socket.send(Message::binary(connect)).expect("sent");
    socket.read().expect("a CONNACK");
    socket.send(Message::text("hello")).expect("sent");
    assert_eq!(close_code(&mut socket), Some(CloseCode::Unsupported));
}

#[test]
fn a_ping_is_answered_and_a_close_is_returned() {
    let broker = broker(OPEN);
    let mut socket = open(&broker);
    socket
        .send(Message::Ping(b"x".to_vec().into()))
        .expect("sent");
    assert_eq!(
        socket.read().expect("a Pong"),
        Message::Pong(b"x".to_vec().into())
    );
    socket.close(None).expect("sent");
    assert_eq!(close_code(&mut socket), Some(CloseCode::Normal));
    // The end of MQTT closes the WebSocket, too.
    let mut socket = open(&broker);
    let session = [Connect::new(Version::V311, "c").bytes(), vec![0xE0, 0]].concat();
    socket.send(Message::binary(session)).expect("sent");
    assert_eq!(close_code(&mut socket), Some(CloseCode::Normal));
}

#[test]
fn path_subprotocol_and_origin_are_checked() {
    let limited =
        format!("{OPEN}websocket_path = \"/x\"\nwebsocket_origins = [\"https://a.example\"]\n");
    let broker = broker(&limited);
    let status = |path: &str, headers: &[(&'static str, &str)]| match ask(&broker, path, headers) {
        Ok(_) => 101,
        Err(status) => status,
    };
    let old = ("sec-websocket-protocol", "mqttv3.1");
    assert_eq!(status("/x", &[MQTT]), 101);
    assert_eq!(status("/x?token=1", &[old]), 101);
    assert_eq!(status("/mqtt", &[MQTT]), 404);
    assert_eq!(status("/x", &[]), 400);
    assert_eq!(status("/x", &[("sec-websocket-protocol", "chat")]), 400);
    assert_eq!(status("/x", &[MQTT, ("origin", "https://a.example")]), 101);
    assert_eq!(status("/x", &[MQTT, ("origin", "https://b.example")]), 403);
    let said = "it asked for \"/mqtt\", and websocket_path has /x";
    wait_until("the path in the log", || {
        broker.log().replace("\\\"", "\"").contains(said)
    });
}

#[test]
fn both_usual_paths_lead_to_mqtt_and_several_or_all_may() {
    let by_default = broker(OPEN);
    for path in ["/", "/mqtt", "/?a=b"] {
        assert!(ask(&by_default, path, &[MQTT]).is_ok(), "{path}");
    }
    assert_eq!(ask(&by_default, "/ws", &[MQTT]).err(), Some(404));
    let any = broker(&format!("{OPEN}websocket_path = \"*\"\n"));
    assert!(ask(&any, "/what/ever", &[MQTT]).is_ok());
}

#[test]
fn a_page_of_the_web_does_not_reach_a_broker_that_is_open_to_this_machine() {
    let broker = broker(OPEN);
    let here = place(&broker, "ws");
    let status = |origin: &str| match ask(&broker, "/mqtt", &[MQTT, ("origin", origin)]) {
        Ok(_) => 101,
        Err(status) => status,
    };
    assert_eq!(status("https://a.example"), 403);
    assert_eq!(status("http://127.0.0.1:1"), 403);
    assert_eq!(status(&format!("http://{here}")), 101);
    open(&broker);
}

#[test]
fn our_own_client_speaks_it_with_and_without_tls() {
    let authority = Authority::new();
    authority.issue("server", &["localhost"], 1, 2090);
    let wss = authority.listener("wss", "server", "allow_anonymous = true");
    let broker = broker(&format!("{OPEN}{wss}"));
    let ca = authority.file("ca.pem").display().to_string();
    let ws = place(&broker, "ws").port().to_string();
    let url = format!("wss://localhost:{}/mqtt", place(&broker, "wss").port());
    let plain = ["--ws", "-h", "127.0.0.1", "-p", &ws];
    let secure = ["-L", &url, "--cafile", &ca];
    for (flags, text) in [(&plain[..], "over ws"), (&secure[..], "over wss")] {
        let to = [&["pub", "-t", "a", "-r", "-q", "2", "-m", text][..], flags].concat();
        let output = run(&to);
        assert!(output.status.success(), "{output:?}");
        let from = [
            &["sub", "-t", "a", "-q", "2", "-C", "1", "-W", "10"][..],
            flags,
        ]
        .concat();
        let output = run(&from);
        assert_eq!(
            String::from_utf8_lossy(&output.stdout),
            format!("{text}\n"),
            "{output:?}"
        );
    }
    let output = run(&[
        "pub",
        "-L",
        &url.replace("/mqtt", "/no"),
        "--cafile",
        &ca,
        "-t",
        "a",
        "-m",
        "b",
    ]);
    assert!(
        String::from_utf8_lossy(&output.stderr).contains("404"),
        "{output:?}"
    );
}
