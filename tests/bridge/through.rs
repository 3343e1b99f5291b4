//! Through a proxy, to an upstream with a known key, and what comes too large.

use std::io::{Read, Write, copy};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use support::{Broker, Connect, Message, Version, tidegate, wait_until};

use super::LONG;
use super::secure::{certificates, place};
use super::side::*;

/// What a proxy speaks, and the login that it wants.
#[derive(Clone, Copy)]
enum ProxyProtocol {
    /// With the value of Proxy-Authorization.
    Http(Option<&'static str>),
    /// With user name and password.
    Socks5(Option<(&'static str, &'static str)>),
}

/// A proxy that leads to one place, whatever it is asked for. It lives as long as the process.
struct Proxy {
    addr: SocketAddr,
    /// What it was asked for.
    asked: Arc<Mutex<Vec<String>>>,
}

impl Proxy {
    fn to(target: SocketAddr, protocol: ProxyProtocol) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let addr = listener.local_addr().expect("it is bound");
        let asked = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&asked);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let asked = Arc::clone(&shared);
                thread::spawn(move || {
                    let mut client = client;
                    let wanted = match protocol {
                        ProxyProtocol::Http(login) => http(&mut client, login),
                        ProxyProtocol::Socks5(login) => socks(&mut client, login),
                    };
                    if let Some(wanted) = wanted {
                        asked.lock().expect("no thread panics with it").push(wanted);
                        pipe(client, target);
                    }
                });
            }
        });
        Proxy { addr, asked }
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no thread panics with it").clone()
    }
}

fn pipe(client: TcpStream, target: SocketAddr) {
    let Ok(server) = TcpStream::connect(target) else {
        return;
    };
    let (mut from, mut to) = (
        client.try_clone().expect("a socket"),
        server.try_clone().expect("a socket"),
    );
    thread::spawn(move || {
        let _ = copy(&mut from, &mut to);
        let _ = to.shutdown(Shutdown::Both);
    });
    let (mut from, mut to) = (server, client);
    let _ = copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}

fn http(client: &mut TcpStream, login: Option<&str>) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        client.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?;
    let shown = head
        .lines()
        .find_map(|line| line.strip_prefix("Proxy-Authorization: "));
    if login.is_some() && shown != login {
        let refusal = "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n";
        client.write_all(refusal.as_bytes()).ok()?;
        return None;
    }
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").ok()?;
    head.split(' ').nth(1).map(str::to_owned)
}

fn socks(client: &mut TcpStream, login: Option<(&str, &str)>) -> Option<String> {
    let read = |client: &mut TcpStream, length: u8| {
        let mut bytes = vec![0; usize::from(length)];
        client.read_exact(&mut bytes).ok()?;
        Some(bytes)
    };
    let text = |client: &mut TcpStream| {
        let length = read(client, 1)?[0];
        String::from_utf8(read(client, length)?).ok()
    };
    let offered = read(client, 2)?[1];
    let offered = read(client, offered)?;
    let wanted = if login.is_some() { 2 } else { 0 };
    if !offered.contains(&wanted) {
        client.write_all(&[5, 0xFF]).ok()?;
        return None;
    }
    client.write_all(&[5, wanted]).ok()?;
    if let Some((user, password)) = login {
        read(client, 1)?;
        let shown = (text(client)?, text(client)?);
        let good = shown == (user.to_owned(), password.to_owned());
        client.write_all(&[1, u8::from(!good)]).ok()?;
        if !good {
            return None;
        }
    }
    assert_eq!(read(client, 4)?, [5, 1, 0, 3], "CONNECT, by name");
    let host = text(client)?;
    let port = read(client, 2)?;
    client.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0]).ok()?;
    Some(format!("{host}:{}", u16::from_be_bytes([port[0], port[1]])))
}

/// An edge broker whose upstream has a name that only the proxy knows.
fn config(port: u16, more: &str) -> String {
    let placeholder: SocketAddr = "192.0.2.1:1883".parse().expect("an address");
    bridge_to(placeholder, more).replace("192.0.2.1:1883", &format!("upstream.invalid:{port}"))
}

fn edge_with(config: &str) -> Broker {
    Broker::with(config).expect("these tests are for Tidegate")
}

#[test]
fn a_proxy_is_asked_for_the_upstream_by_its_name() {
    let cloud = cloud("");
    let basic = "Basic bWU6cGFzczp3b3Jk";
    let cases = [
        (ProxyProtocol::Http(None), "http://"),
        (ProxyProtocol::Http(Some(basic)), "http://me:pass%3aword@"),
        (ProxyProtocol::Socks5(None), "socks5://"),
        (
            ProxyProtocol::Socks5(Some(("me", "pass:word"))),
            "socks5://me:pass%3Aword@",
        ),
    ];
    for (round, (speech, prefix)) in cases.into_iter().enumerate() {
        let proxy = Proxy::to(cloud.addr(), speech);
        let consumer = format!("consumer{round}");
        expect_at(cloud.addr(), Version::V5, &consumer, "site/up/#");
        let edge = edge_with(&config(
            1883,
            &format!("proxy = \"{prefix}{}\"", proxy.addr),
        ));
        wait_for_state(edge.addr(), "connected");
        assert_eq!(proxy.asked(), ["upstream.invalid:1883"], "{prefix}");
        publish(edge.addr(), "up/a", 2, 0..20);
        let got = collect(cloud.addr(), Version::V5, &consumer, "site/up/a", 20, LONG);
        assert_exactly_once(&got, 20, prefix);
    }
}

#[test]
fn what_a_proxy_refuses_is_told_and_a_reload_of_its_password_connects() {
    let cloud = cloud("");
    let dir = tempfile::TempDir::new().expect("a directory");
    let file = dir.path().join("password");
    std::fs::write(&file, "wrong\n").expect("written");
    let cases = [
        (
            ProxyProtocol::Http(Some("Basic bWU6aHVzaA==")),
            "http",
            "the proxy refuses: 407 Proxy Authentication Required",
        ),
        (
            ProxyProtocol::Socks5(Some(("me", "hush"))),
            "socks5",
            "the proxy refuses the login: status 1",
        ),
    ];
    for (speech, scheme, why) in cases {
        std::fs::write(&file, "wrong\n").expect("written");
        let proxy = Proxy::to(cloud.addr(), speech);
        let more = format!(
            "proxy = \"{scheme}://me@{}\"\nproxy_password_file = {file:?}",
            proxy.addr
        );
        let edge = edge_with(&config(1883, &more));
        wait_until(why, || edge.log().contains(why));
        assert!(proxy.asked().is_empty());
        // The file is read at each attempt.
        std::fs::write(&file, "hush\n").expect("written");
        wait_for_state(edge.addr(), "connected");
        assert!(!edge.log().contains("hush"));
    }
}

#[test]
fn tls_goes_through_a_proxy_and_only_to_a_pinned_key() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let dir = dir.path();
    certificates(dir);
    let file = |name: &str| dir.join(name);
    let cloud = cloud(&format!(
        "[[listeners]]\nprotocol = \"mqtts\"\nbind = \"127.0.0.1:0\"\nallow_anonymous = true\ncertfile = {:?}\nkeyfile = {:?}\n",
        file("server.pem"),
        file("server.key")
    ));
    let proxy = Proxy::to(place(&cloud, "mqtts"), ProxyProtocol::Http(None));
    let configured = |pin: &str| {
        let more = format!(
            "protocol = \"mqtts\"\nserver_name = \"localhost\"\ncafile = {:?}\nproxy = \"http://{}\"\npinned_keys = [\"{pin}\"]",
            file("ca.pem"),
            proxy.addr
        );
        config(8883, &more)
    };
    let unknown = format!("sha256/{}=", "A".repeat(43));
    let mut edge = edge_with(&configured(&unknown));
    let told = "no key of the server's certificates is pinned; they have ";
    wait_until("the pins are told", || edge.log().contains(told));
    assert!(!edge.log().contains("bridge connected"));
    let log = edge.log();
    let after = log.split(told).nth(1).expect("it is there");
    let pin: String = after.chars().take("sha256/".len() + 44).collect();
    edge.configure(&configured(&pin));
    let mut reload = tidegate(&["reload"]);
    let output = reload.arg("--config").arg(edge.config_file()).output();
    assert!(output.expect("it runs").status.success());
    wait_for_state(edge.addr(), "connected");
    expect_at(cloud.addr(), Version::V5, "consumer", "site/up/#");
    publish(edge.addr(), "up/a", 1, 0..5);
    let got = collect(cloud.addr(), Version::V5, "consumer", "site/up/a", 5, LONG);
    assert_exactly_once(&got, 5, "through TLS through a proxy");
}

#[test]
fn a_message_of_the_upstream_that_is_too_large_is_left_out_and_the_bridge_stays() {
    let cloud = cloud("");
    let limits = "[limits]\nmax_packet_size = \"2KB\"\n";
    let bridge = bridge_to(cloud.addr(), "protocol_version = \"3.1.1\"");
    let edge = edge_with(&format!("{limits}{bridge}"));
    wait_for_state(edge.addr(), "connected");
    expect_at(edge.addr(), Version::V5, "consumer", "down/#");
    let mut device = Connect::new(Version::V5, "device").open(cloud.addr());
    for qos in 0..=2 {
        let large = "x".repeat(300_000);
        device.publish(&Message::new("site/down/large", large, qos));
        let number = qos.to_string();
        device.publish(&Message::new("site/down/a", number, 2));
    }
    let got = collect(edge.addr(), Version::V5, "consumer", "down/a", 3, LONG);
    assert_exactly_once(&got, 3, "around what is too large");
    wait_until("all three are told of", || {
        edge.log().matches("is larger than max_packet_size").count() == 3
    });
    edge.expect_log("site/down/large");
    assert_eq!(edge.log().matches("bridge connected").count(), 1);
    // They are done with, and the exchanges around them go on.
    publish(cloud.addr(), "site/down/a", 2, 3..4);
    let got = collect(edge.addr(), Version::V5, "consumer", "down/a", 1, LONG);
    assert_eq!(got, [3]);
}
