//! Several methods in a chain: a password file, tokens and a callout.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use support::{Client, Connect, Message, Properties, Subscription, Version, wait_until};

use super::{THROTTLED, WRONG, broker, login, password_file, refused};

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// Somebody who is asked about logins: knows `web` with the password `page`, refuses `bad`, breaks
/// down for `odd`, says yes to `slow` once it may, and does not know others.
struct Callout {
    url: String,
    asked: Arc<AtomicUsize>,
    last: Arc<Mutex<Value>>,
    /// Lets the answer to `slow` go.
    release: Sender<()>,
}

impl Callout {
    fn start() -> Callout {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let url = format!("http://{}/login", listener.local_addr().expect("bound"));
        let (asked, last) = (
            Arc::new(AtomicUsize::new(0)),
            Arc::new(Mutex::new(Value::Null)),
        );
        let (release, released) = channel();
        let callout = Callout {
            release,
            url,
            asked: Arc::clone(&asked),
            last: Arc::clone(&last),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                asked.fetch_add(1, Ordering::SeqCst);
                let question = question(&stream);
                let status = match (question["username"].as_str(), question["password"].as_str()) {
                    (Some("web"), Some("page")) => "204 No Content",
                    (Some("web" | "bad"), _) => "403 Forbidden",
                    (Some("odd"), _) => "500 Internal Server Error",
                    (Some("slow"), _) => {
                        let timeout = Duration::from_secs(60);
                        released.recv_timeout(timeout).expect("it is released");
                        "204 No Content"
                    }
                    _ => "404 Not Found",
                };
                *last.lock().expect("no thread panics with it") = question;
                let answer =
                    format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
                let _ = (&stream).write_all(answer.as_bytes());
            }
        });
        callout
    }
}

/// The JSON of a request.
fn question(stream: &TcpStream) -> Value {
    let mut reader = BufReader::new(stream);
    let mut length = 0;
    for line in reader.by_ref().lines().map_while(Result::ok) {
        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
            length = value.trim().parse().expect("a length");
        }
        if line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    serde_json::from_slice(&body).expect("JSON")
}

fn token(user: &str, exp: i64) -> String {
    signed(json!({"sub": user, "exp": exp}))
}

fn signed(claims: Value) -> String {
    let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(json!({"alg": "HS256"})), part(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
}

#[test]
fn the_first_method_that_knows_a_client_decides() {
    let (dir, file) = password_file(&[("ann", "secret"), ("bad", "good")], "sha512");
    let key = dir.path().join("jwt.key");
    std::fs::write(&key, format!("{SECRET}\n")).expect("written");
    let callout = Callout::start();
    let broker = broker(&format!(
        "password_file = {file:?}\nmax_failed_logins = 0\n[[authentication.jwt]]\nalgorithm = \"HS256\"\nkeyfile = {key:?}\n\
         [authentication.http]\nurl = {:?}",
        callout.url
    ));
    let asked = || callout.asked.load(Ordering::SeqCst);
    let far = 4_000_000_000;
    // The password file knows these two, so nobody else is asked.
    assert_eq!(login(&broker, Version::V5, "ann", "secret"), 0);
    refused(&broker, "ann", &token("ann", far), WRONG);
    assert_eq!(login(&broker, Version::V5, "bad", "good"), 0);
    // A token, good or not, is an answer.
    for version in [Version::V31, Version::V311, Version::V5] {
        assert_eq!(login(&broker, version, "whoever", &token("tom", far)), 0);
    }
    wait_until("the log tells who", || {
        broker.log().contains("user=\"tom\"")
    });
    refused(&broker, "whoever", &token("tom", 1_000_000_000), WRONG);
    assert_eq!(asked(), 0);
    // The rest is asked about, once each as long as answers are remembered.
    for _ in 0..3 {
        assert_eq!(login(&broker, Version::V5, "web", "page"), 0);
    }
    assert_eq!(asked(), 1);
    let last = callout
        .last
        .lock()
        .expect("no thread panics with it")
        .clone();
    let expected =
        json!({"username": "web", "password": "page", "clientid": "c-web", "address": "127.0.0.1"});
    assert_eq!(last, expected);
    refused(&broker, "web", "wrong", WRONG);
    refused(&broker, "nobody", "knows", WRONG);
    // Without an answer nobody comes in, and it is not the client's fault.
    refused(&broker, "odd", "x", (0x88, 3));
    for why in [
        "why=\"the token has expired\"",
        "why=\"the authentication callout refuses it\"",
        "why=\"no method knows the user\"",
        "the answer is 500 Internal Server Error",
    ] {
        wait_until(why, || broker.log().contains(why));
    }
    let log = broker.log();
    assert!(
        !log.contains("page") && !log.contains(&token("tom", far)),
        "{log}"
    );
}

#[test]
fn a_token_says_what_its_client_may_do() {
    let dir = tempfile::tempdir().expect("a directory");
    let key = dir.path().join("jwt.key");
    std::fs::write(&key, SECRET).expect("written");
    let broker = broker(&format!(
        "[[authentication.jwt]]\nalgorithm = \"HS256\"\nkeyfile = {key:?}"
    ));
    let claims =
        json!({"sub": "tom", "exp": 4_000_000_000_i64, "publish": ["a/+"], "subscribe": ["b"]});
    let token = signed(claims);
    let connect = Connect::new(Version::V5, "tom").login("", Some(token.as_bytes()));
    let mut client = connect.open(broker.addr());
    assert_eq!(client.publish(&Message::new("a/b", "m", 1)), 0x10);
    assert_eq!(client.publish(&Message::new("b", "m", 1)), 0x87);
    let wanted = [Subscription::new("b", 1), Subscription::new("a/b", 1)];
    let granted = client.subscribe_to(&wanted, &Properties::new());
    assert_eq!(granted, [1, 0x87]);
}

#[test]
fn a_packet_before_a_connect_with_a_login_ends_the_connection() {
    // [MQTT-3.1.0-1]: both in one read; the CONNECT was lost and the connection stayed.
    let (_dir, file) = password_file(&[("ann", "secret")], "argon2id");
    let broker = broker(&format!("password_file = {file:?}"));
    for v in Version::ALL {
        let connect = Connect::new(v, "a").login("ann", Some(b"secret"));
        let mut client = Client::dial(broker.addr(), v);
        client.send(&[vec![0xc0, 0], connect.bytes()].concat());
        client.expect_closed();
        connect.open(broker.addr()).ping();
    }
}

#[test]
fn a_login_that_is_checked_while_a_reload_withdraws_it_fails() {
    let (old, new) = (Callout::start(), Callout::start());
    let config = |callout: &Callout| {
        format!(
            "[limits]\nconnect_timeout = \"60s\"\n[authentication.http]\nurl = {:?}\ntimeout = \"60s\"\n[[listeners]]\nbind = \"127.0.0.1:0\"\n",
            callout.url
        )
    };
    let mut broker = support::Broker::with(&config(&old)).expect("Tidegate");
    let web = Connect::new(Version::V5, "web").login("web", Some(b"page"));
    let mut web = web.open(broker.addr());
    let slow = Connect::new(Version::V5, "slow").login("slow", Some(b"x"));
    let mut client = support::Client::dial(broker.addr(), Version::V5);
    client.send(&slow.bytes());
    wait_until("it is asked about", || {
        old.asked.load(Ordering::SeqCst) == 2
    });
    broker.configure(&config(&new));
    broker.signal("HUP");
    // Who came in by the callout that is asked no more has to come in again.
    web.expect_disconnect(&[0x98]);
    old.release.send(()).expect("it waits");
    match client.receive() {
        support::Packet::ConnAck(connack) => assert_eq!(connack.code, WRONG.0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn guesses_at_the_same_time_are_no_more_than_guesses_one_after_the_other() {
    let callout = Callout::start();
    let broker = broker(&format!(
        "max_failed_logins = 5\nfailed_logins_interval = \"1h\"\n[authentication.http]\nurl = {:?}\nmax_requests = 2\ncache_time = \"0s\"\ntimeout = \"30s\"",
        callout.url
    ));
    let addr = broker.addr();
    let codes: Vec<u8> = std::thread::scope(|scope| {
        let guess = |n: usize| {
            move || {
                let password = format!("guess {n}");
                let connect = Connect::new(Version::V5, &format!("c{n}"))
                    .login("bad", Some(password.as_bytes()));
                connect.try_open(addr).1.code
            }
        };
        let guesses: Vec<_> = (0..60).map(|n| scope.spawn(guess(n))).collect();
        let codes = guesses.into_iter().map(|it| it.join().expect("an answer"));
        codes.collect()
    });
    let asked = callout.asked.load(Ordering::SeqCst);
    // Those under way when the last failure is counted may be more.
    assert!((5..=6).contains(&asked), "{asked}");
    let count = |code: u8| codes.iter().filter(|it| **it == code).count();
    assert_eq!((count(WRONG.0), count(THROTTLED.0)), (asked, 60 - asked));
    // A neighbour comes in.
    assert_eq!(login(&broker, Version::V5, "web", "page"), 0);
}
