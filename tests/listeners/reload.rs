//! Reading the configuration again: all of it takes effect, or nothing, and who is not concerned
//! does not notice.

use std::os::unix::fs::PermissionsExt;
use std::process::Output;

use support::{
    Broker, Client, Connect, Message, Packet, Properties, Subscription, Version, wait_until,
};

use super::authority::Authority;
use super::wire::{dial, place};
use super::{broker, run};

fn reload(broker: &Broker) -> Output {
    run(&[
        "reload",
        "--config",
        broker.config_file().to_str().expect("text"),
    ])
}

/// Reloads; it must end with this code. What was told.
fn reload_with(broker: &Broker, code: i32) -> String {
    let output = reload(broker);
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8(told).expect("text");
    assert_eq!(output.status.code(), Some(code), "{told}");
    told
}

fn rules(lines: &[(&str, &str)]) -> String {
    let tables = lines.iter().map(|(topic, access)| {
        format!("[[acl_rules]]\ntopic = \"{topic}\"\naccess = \"{access}\"\n")
    });
    tables.collect()
}

fn connect(broker: &Broker, id: &str) -> Client {
    Connect::new(Version::V5, id).open(broker.addr())
}

#[test]
fn rights_are_withdrawn_at_once_and_nobody_else_notices() {
    let mut broker = broker(&rules(&[("a/#", "readwrite"), ("b/#", "readwrite")]));
    let (mut loser, mut keeper) = (connect(&broker, "loser"), connect(&broker, "keeper"));
    loser.subscribe("a/1", 1);
    keeper.subscribe("b/1", 1);
    broker.configure(&rules(&[("b/#", "readwrite"), ("a/#", "write")]));
    let told = reload_with(&broker, 0);
    assert!(told.contains("access rules"), "{told}");
    assert_eq!(keeper.publish(&Message::new("a/1", "unseen", 1)), 0x10);
    broker.configure(&rules(&[("a/#", "readwrite")]));
    reload_with(&broker, 0);
    // The subscription has stayed.
    assert_eq!(keeper.publish(&Message::new("a/1", "seen", 1)), 0);
    loser.expect("a/1", "seen", 1);
    broker.configure(&rules(&[("b/#", "readwrite")]));
    reload_with(&broker, 0);
    assert_eq!(keeper.publish(&Message::new("b/1", "x", 1)), 0);
    keeper.expect("b/1", "x", 1);
    assert_eq!(keeper.publish(&Message::new("a/1", "x", 1)), 0x87);
    let wanted = [Subscription::new("a/1", 1)];
    assert_eq!(keeper.subscribe_to(&wanted, &Properties::new()), [0x87]);
    loser.ping();
    loser.expect_nothing();
}

#[test]
fn who_is_denied_is_sent_away_and_nobody_else() {
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        free.local_addr().expect("bound").port()
    };
    let listener = |keys: &str| {
        format!(
            "[[listeners]]\nbind = \"127.0.0.1:{port}\"\nallow_anonymous = true\n\
             proxy_protocol_from = [\"127.0.0.1\"]\n{keys}\n"
        )
    };
    let mut broker = broker(&listener(""));
    let address = ([127, 0, 0, 1], port).into();
    let from = |source: &str, id: &str| {
        let mut client = Client::dial(address, Version::V5);
        let header = format!("PROXY TCP4 {source} 198.51.100.1 4711 1883\r\n");
        client.send(header.as_bytes());
        client.send(&Connect::new(Version::V5, id).bytes());
        assert!(matches!(client.receive(), Packet::ConnAck(connack) if connack.code == 0));
        client
    };
    let (mut stays, mut goes) = (from("192.0.2.7", "stays"), from("192.0.2.66", "goes"));
    stays.subscribe("t", 1);
    broker.configure(&listener("deny = [\"192.0.2.66\"]"));
    let told = reload_with(&broker, 0);
    assert!(
        told.contains("but for addresses it does not let in"),
        "{told}"
    );
    goes.expect_disconnect(&[0x98]);
    stays.publish(&Message::new("t", "1", 1));
    stays.expect("t", "1", 1);
    // Who is not on a list of those that may is denied as well.
    let mut other = from("192.0.2.8", "other");
    broker.configure(&listener("allow = [\"192.0.2.7\"]"));
    reload_with(&broker, 0);
    other.expect_disconnect(&[0x98]);
    stays.ping();
}

#[test]
fn a_wrong_configuration_changes_nothing_and_says_why() {
    let mut broker = broker(&rules(&[("a", "readwrite")]));
    let mut client = connect(&broker, "c");
    client.subscribe("a", 1);
    for (wrong, needle) in [
        ("max_packet_size = 1\n", "unknown key"),
        (
            "acl_file = \"/nowhere/acl\"\n",
            "/nowhere/acl: cannot be read",
        ),
        (
            "[[listeners]]\nprotocol = \"mqtts\"\nbind = \"127.0.0.1:0\"\nallow_anonymous = true\n\
             certfile = \"/nowhere/c\"\nkeyfile = \"/nowhere/k\"\n",
            "/nowhere/c",
        ),
    ] {
        broker.configure(wrong);
        let told = reload_with(&broker, 2);
        assert!(told.contains("nothing took effect"), "{told}");
        assert!(told.contains(needle), "{told}");
        // By signal, too.
        let before = broker.log().matches("nothing took effect").count();
        broker.signal("HUP");
        wait_until("the log says why", || {
            broker.log().matches("nothing took effect").count() > before
        });
    }
    assert_eq!(client.publish(&Message::new("a", "x", 1)), 0);
    client.expect("a", "x", 1);
    // A listener that cannot be opened: somebody else has the port.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port();
    broker.configure(&format!(
        "{}[[listeners]]\nbind = \"127.0.0.1:{port}\"\nallow_anonymous = true\n",
        rules(&[("b", "readwrite")])
    ));
    let told = reload_with(&broker, 2);
    assert!(
        told.contains(&format!("cannot listen on 127.0.0.1:{port}")),
        "{told}"
    );
    assert_eq!(client.publish(&Message::new("a", "x", 1)), 0);
    assert_eq!(client.publish(&Message::new("b", "x", 1)), 0x87);
}

#[test]
fn what_takes_a_restart_is_named_and_the_rest_takes_effect() {
    let mut broker = broker("");
    let mut client = connect(&broker, "c");
    broker.configure(&format!(
        "worker_threads = 1\n{}[limits]\nreceive_maximum = 7\nmax_connections_per_address = 1\n",
        rules(&[("a", "read")])
    ));
    let told = reload_with(&broker, 3);
    assert!(
        told.contains("takes a restart: worker_threads, limits.receive_maximum"),
        "{told}"
    );
    assert_eq!(client.publish(&Message::new("a", "x", 1)), 0x87);
    assert!(told.contains("[limits]: changed"), "{told}");
    assert!(
        super::wire::Wire(dial(broker.addr()))
            .connect("second")
            .is_err()
    );
}

#[test]
fn listeners_come_change_and_go_while_others_go_on() {
    let listener = |port: u16, keys: &str| {
        format!("[[listeners]]\nbind = \"127.0.0.1:{port}\"\nallow_anonymous = true\n{keys}\n")
    };
    let mut broker = broker("");
    let mut steady = connect(&broker, "steady");
    steady.subscribe("t", 1);
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        free.local_addr().expect("bound").port()
    };
    let address = ([127, 0, 0, 1], port).into();
    // It comes.
    broker.configure(&listener(port, ""));
    let told = reload_with(&broker, 0);
    assert!(
        told.contains(&format!("mqtt://127.0.0.1:{port}: opened")),
        "{told}"
    );
    let mut guest = Connect::new(Version::V5, "guest").open(address);
    guest.publish(&Message::new("t", "1", 1));
    // Only how many there may be changes: the guest stays.
    broker.configure(&listener(port, "max_connections = 1"));
    let told = reload_with(&broker, 0);
    assert!(told.contains("changed; its connections stay"), "{told}");
    guest.publish(&Message::new("t", "2", 1));
    assert!(super::wire::Wire(dial(address)).connect("second").is_err());
    // What it allows changes: the guest comes again.
    broker.configure(&listener(port, "mount_point = \"m/\""));
    reload_with(&broker, 0);
    guest.expect_disconnect(&[0x98]);
    let mut guest = Connect::new(Version::V5, "guest").open(address);
    guest.publish(&Message::new("t", "3", 1));
    // It goes.
    broker.configure("");
    let told = reload_with(&broker, 0);
    assert!(told.contains("closed"), "{told}");
    guest.expect_disconnect(&[0x98]);
    assert!(Client::try_dial(address, Version::V5).is_none());
    for payload in ["1", "2"] {
        let message = steady.expect("t", payload, 1);
        steady.acknowledge(&message);
    }
    steady.ping();
    steady.expect_nothing();
    // Nothing is new.
    let told = reload_with(&broker, 0);
    assert_eq!(told, "nothing has changed\n");
}

#[test]
fn certificates_are_read_again_and_their_expiry_is_a_figure() {
    let authority = Authority::new();
    authority.issue("server", &["localhost"], 1, 2090);
    let port = {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        free.local_addr().expect("bound").port()
    };
    let keys = authority.listener("mqtts", "server", "allow_anonymous = true");
    let config = format!("[metrics]\nbind = \"127.0.0.1:{port}\"\n{keys}");
    let broker = broker(&config);
    let figure = || {
        use std::io::{Read, Write};
        let mut stream = dial(([127, 0, 0, 1], port).into());
        write!(stream, "GET /metrics HTTP/1.0\r\n\r\n").expect("written");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("answered");
        let line = text
            .lines()
            .find(|line| line.starts_with("tidegate_certificate_not_after_seconds{"))
            .unwrap_or_else(|| panic!("no expiry in {text}"))
            .to_owned();
        assert!(line.contains(&format!("listener=\"mqtts://{}\"", place(&broker, "mqtts"))));
        assert!(line.contains("server.pem"), "{line}");
        let value: f64 = line
            .rsplit(' ')
            .next()
            .and_then(|it| it.parse().ok())
            .expect("a number");
        value
    };
    let before = figure();
    // The first seconds of 2090 and 2091.
    assert!((3.7e9..3.9e9).contains(&before), "{before}");
    authority.issue("server", &["localhost"], 2, 2091);
    let told = reload_with(&broker, 0);
    assert!(told.contains("certificates were read again"), "{told}");
    let more = figure() - before;
    assert!((364.0..367.0).contains(&(more / 86_400.0)), "{more}");
}

#[test]
fn a_bind_can_be_tightened_and_widened() {
    let port = {
        let free = std::net::TcpListener::bind("0.0.0.0:0").expect("a port");
        free.local_addr().expect("bound").port()
    };
    let on = |address: &str| {
        format!("[[listeners]]\nbind = \"{address}:{port}\"\nallow_anonymous = true\n")
    };
    let mut broker = broker(&on("0.0.0.0"));
    let reaches = |host: [u8; 4]| {
        std::net::TcpStream::connect(std::net::SocketAddr::from((host, port))).is_ok()
    };
    // Both are this machine, and only one is the address that is left.
    assert!(reaches([127, 0, 0, 1]) && reaches([127, 0, 0, 2]));
    let mut client = Connect::new(Version::V5, "c").open(([127, 0, 0, 1], port).into());
    for round in 0..3 {
        broker.configure(&on("127.0.0.1"));
        let told = reload_with(&broker, 0);
        assert!(
            told.contains(&format!("mqtt://127.0.0.1:{port}: opened")),
            "{told}"
        );
        if round == 0 {
            client.expect_disconnect(&[0x98]);
        }
        wait_until("the wide one is closed", || !reaches([127, 0, 0, 2]));
        Connect::new(Version::V5, "tight")
            .open(([127, 0, 0, 1], port).into())
            .ping();
        broker.configure(&on("0.0.0.0"));
        let told = reload_with(&broker, 0);
        assert!(
            told.contains(&format!("mqtt://0.0.0.0:{port}: opened")),
            "{told}"
        );
        Connect::new(Version::V5, "wide")
            .open(([127, 0, 0, 2], port).into())
            .ping();
    }
    // Nobody else can have the port.
    let taken = std::net::TcpListener::bind(("127.0.0.1", port));
    assert!(taken.is_err());
}

#[test]
fn the_mode_of_a_unix_socket_can_be_changed_and_a_wrong_owner_changes_nothing() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let path = dir.path().join("s");
    let keys =
        |more: &str| format!("[[listeners]]\nsocket = {path:?}\nallow_anonymous = true\n{more}\n");
    let mode = || {
        let metadata = std::fs::metadata(&path).expect("it is there");
        metadata.permissions().mode() & 0o777
    };
    let connects = || std::os::unix::net::UnixStream::connect(&path).is_ok();
    let mut broker = broker(&keys(""));
    assert_eq!(mode(), 0o660);
    broker.configure(&keys("socket_mode = \"0600\""));
    let told = reload_with(&broker, 0);
    assert!(told.contains("opened"), "{told}");
    assert!(mode() == 0o600 && connects());
    broker.configure(&keys(
        "socket_mode = \"0666\"\nsocket_owner = \"no such user\"",
    ));
    let told = reload_with(&broker, 2);
    assert!(told.contains("no such user"), "{told}");
    assert!(mode() == 0o600 && connects());
    assert_eq!(std::fs::read_dir(dir.path()).expect("readable").count(), 1);
    broker.stop();
    assert!(!path.exists());
}

#[test]
fn only_the_owner_reaches_the_control_socket_and_nobody_a_broker_that_is_gone() {
    let mut broker = broker("");
    let socket = broker.data_dir().join("control.sock");
    let mode = std::fs::metadata(&socket)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let data_dir = broker.data_dir();
    let output = run(&["reload", "--data-dir", data_dir.to_str().expect("text")]);
    assert!(output.status.success(), "{output:?}");
    // What is no command is answered.
    {
        use std::io::{Read, Write};
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).expect("open");
        stream.write_all(b"format c:\n").expect("written");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("answered");
        assert!(text.starts_with("failed\n"), "{text}");
    }
    // A broker that was killed leaves its socket; the next one replaces it.
    broker.crash();
    reload_with(&broker, 0);
    broker.stop();
    let told = reload_with(&broker, 1);
    assert!(told.contains("no broker answers at"), "{told}");
}

#[test]
fn who_has_gone_from_the_password_file_is_sent_away() {
    let dir = tempfile::TempDir::new().expect("a directory");
    let file = dir.path().join("passwords");
    let file = file.to_str().expect("text");
    std::fs::write(file, "").expect("written");
    let passwd = |arguments: &[&str]| {
        let output = run(&[&["passwd"], arguments].concat());
        assert!(output.status.success(), "{output:?}");
    };
    for user in ["ann", "bob"] {
        passwd(&["-H", "sha512", "-b", file, user, "secret"]);
    }
    let broker = broker(&format!(
        "[authentication]\npassword_file = {file:?}\n[[listeners]]\nbind = \"127.0.0.1:0\"\n"
    ));
    let login = |user: &str| {
        Connect::new(Version::V5, user)
            .login(user, Some(b"secret"))
            .open(place(&broker, "mqtt"))
    };
    let (mut ann, mut bob) = (login("ann"), login("bob"));
    passwd(&["-D", file, "ann"]);
    let told = reload_with(&broker, 0);
    assert!(told.contains("was read again"), "{told}");
    ann.expect_disconnect(&[0x98]);
    bob.ping();
}
