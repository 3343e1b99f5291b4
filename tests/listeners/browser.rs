//! MQTT.js in a real browser, from a web page.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rcgen::{KeyPair, PublicKeyData};
use support::{Broker, Connect, Message, Version, is_installed};
use tempfile::TempDir;

use super::authority::Authority;
use super::broker;
use super::wire::place;

/// A browser that has just been installed takes its time.
const TIMEOUT: Duration = Duration::from_secs(90);

/// Subscribes, publishes, and tells the web server what happens.
const PAGE: &str = "<!doctype html><title>MQTT</title><script src='/mqtt.js'></script><script>\n\
    const tell = text => fetch('/told?' + encodeURIComponent(text));\n\
    const broker = new URLSearchParams(location.search).get('broker');\n\
    const client = mqtt.connect(broker, { reconnectPeriod: 0, protocolVersion: 5 });\n\
    client.on('error', error => tell('error: ' + error));\n\
    client.on('close', () => tell('closed'));\n\
    client.on('connect', () => client.subscribe('to/browser', { qos: 2 }, () => client.publish('from/browser', 'hi', { qos: 2 })));\n\
    client.on('message', (topic, payload) => tell('received ' + payload));\n\
    </script>";

/// A browser without a window; it is killed when it goes out of scope.
struct Browser {
    child: Child,
    _profile: TempDir,
}

impl Browser {
    fn program() -> Option<&'static str> {
        let known = ["chromium", "chromium-browser", "google-chrome"];
        known.into_iter().find(|program| {
            let mut command = Command::new(program);
            let command = command.arg("--version").stdin(Stdio::null());
            command.output().is_ok_and(|output| output.status.success())
        })
    }

    fn open(program: &str, url: &str, flags: &[String]) -> Browser {
        let profile = TempDir::new().expect("there is a directory for temporary files");
        let child = Command::new(program)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                "--remote-debugging-port=0",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .args(flags)
            .arg(url)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("it can be run");
        Browser {
            child,
            _profile: profile,
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// MQTT.js as web pages load it.
fn bundle() -> Option<PathBuf> {
    let script =
        "require('path').join(require.resolve('mqtt/package.json'), '../dist/mqtt.min.js')";
    let output = Command::new("node")
        .args(["-p", script])
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let path = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    path.is_file().then_some(path)
}

/// Serves the page and the bundle; what the page tells is received.
fn serve(bundle: &PathBuf) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("bound");
    let (sender, told) = channel();
    let bundle = std::fs::read(bundle).expect("it can be read");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (sender, bundle) = (sender.clone(), bundle.clone());
            std::thread::spawn(move || answer(&stream, &bundle, &sender));
        }
    });
    (format!("http://{address}"), told)
}

fn answer(mut stream: &TcpStream, bundle: &[u8], told: &Sender<String>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    // The rest of the head.
    lines.by_ref().find(String::is_empty);
    let path = first.split(' ').nth(1).unwrap_or_default();
    let (kind, body) = match path {
        "/mqtt.js" => ("text/javascript", bundle),
        _ if path.starts_with("/?") => ("text/html", PAGE.as_bytes()),
        _ => ("text/plain", &b""[..]),
    };
    if let Some(text) = path.strip_prefix("/told?") {
        let _ = told.send(text.replace("%20", " "));
    }
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body));
}

fn talks(broker: &Broker, url: &str, flags: &[String]) {
    let program = Browser::program();
    let advice =
        "Debian: apt-get install chromium; npm install mqtt, and name its directory in NODE_PATH";
    let bundle = bundle();
    if !is_installed(
        "Chromium, or MQTT.js,",
        advice,
        program.is_some() && bundle.is_some(),
    ) {
        return;
    }
    let (page, told) = serve(&bundle.expect("it is there"));
    let mut peer = Connect::new(Version::V5, "peer").open(broker.addr());
    peer.subscribe("from/browser", 2);
    let browser = Browser::open(
        program.expect("it is there"),
        &format!("{page}/?broker={url}"),
        flags,
    );
    // Whatever goes wrong, the page tells it.
    let hears = || {
        told.recv_timeout(TIMEOUT)
            .expect("the page tells something")
    };
    match peer.try_receive(TIMEOUT) {
        Ok(Some(support::Packet::Publish(publish))) => {
            assert_eq!((publish.topic.as_str(), publish.qos), ("from/browser", 2));
            peer.acknowledge(&publish);
        }
        other => panic!("{other:?}; the page says {:?}", told.try_recv()),
    }
    peer.publish(&Message::new("to/browser", "there", 2));
    assert_eq!(hears(), "received there");
    drop(browser);
}

#[test]
fn a_web_page_talks_over_websocket() {
    let broker = broker(
        "[[listeners]]\nprotocol = \"ws\"\nbind = \"127.0.0.1:0\"\nallow_anonymous = true\nwebsocket_origins = \"*\"\n",
    );
    talks(&broker, &format!("ws://{}/mqtt", place(&broker, "ws")), &[]);
}

#[test]
fn a_web_page_talks_over_websocket_and_tls() {
    let authority = Authority::new();
    authority.issue("server", &["localhost"], 1, 2090);
    let broker = broker(&authority.listener(
        "wss",
        "server",
        "allow_anonymous = true\nwebsocket_origins = \"*\"",
    ));
    let url = format!("wss://localhost:{}/mqtt", place(&broker, "wss").port());
    // The browser trusts no authority of a test: it is told to trust this one key.
    let key = std::fs::read_to_string(authority.file("server.key")).expect("a key");
    let key = KeyPair::from_pem(&key).expect("a key");
    let hash = BASE64_STANDARD.encode(digest(&SHA256, &key.subject_public_key_info()));
    let flag = format!("--ignore-certificate-errors-spki-list={hash}");
    talks(&broker, &url, &[flag]);
}
