//! `tidegate bench` against the built broker, and against one that loses messages.

mod lossy;

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::Output;

use serde_json::Value;
use support::{Broker, tidegate};

/// Runs the bench to its end.
fn bench(arguments: &[&str]) -> Output {
    tidegate(&[&["bench"], arguments].concat())
        .output()
        .expect("the binary has been built")
}

/// Runs a scenario briefly, and gives what it wrote as JSON: the records, one a scenario, broker
/// and round.
fn records(arguments: &[&str]) -> Vec<Value> {
    let scratch = tempfile::tempdir().expect("a directory");
    let file = scratch.path().join("bench.json");
    let brief = ["-d", "0.3", "--warm-up", "0.1"];
    let json = ["--json", text(&file)];
    let output = bench(&[arguments, &brief, &json].concat());
    assert!(output.status.success(), "{arguments:?}: {}", told(&output));
    read(&file)
}

fn read(file: &Path) -> Vec<Value> {
    let json = std::fs::read_to_string(file).expect("it was written");
    match serde_json::from_str(&json).expect("JSON") {
        Value::Array(records) => records,
        other => panic!("not a list: {other}"),
    }
}

fn told(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    String::from_utf8_lossy(&[&out[..], &err[..]].concat()).into_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a temporary path is UTF-8")
}

fn port(addr: SocketAddr) -> String {
    addr.port().to_string()
}

/// A figure of a record.
fn figure(record: &Value, name: &str) -> f64 {
    let value = &record["metrics"][name]["value"];
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{name} is not in {record}"))
}

#[test]
fn every_scenario_of_the_closed_loop_delivers_everything_in_every_version_and_qos() {
    let broker = Broker::start();
    let port = port(broker.addr());
    for version in ["31", "311", "5"] {
        let tasks = [
            "pairs:0",
            "pairs:1",
            "pairs:2",
            "fan-in:1",
            "fan-out:2",
            "shared:1",
        ];
        let flags = ["-p", &port, "-V", version, "-c", "4", "-w", "10"];
        // MQTT 3 has shared subscriptions only where a broker adds them, as this one does.
        let found = records(&[&tasks[..], &flags].concat());
        assert_eq!(found.len(), tasks.len());
        for record in found {
            assert!(figure(&record, "delivered") > 0.0, "{record}");
            assert_eq!(record["clean"], true, "{record}");
        }
    }
}

#[test]
fn a_process_is_measured() {
    let broker = Broker::start();
    let pid = broker.pid().to_string();
    let found = records(&[
        "pairs",
        "-p",
        &port(broker.addr()),
        "--pid",
        &pid,
        "-c",
        "4",
    ]);
    assert!(figure(&found[0], "broker memory") > 1.0);
    assert!(figure(&found[0], "broker cpu") > 0.0);
    assert!(!found[0]["samples"].as_array().expect("a list").is_empty());
}

#[test]
fn connections_filters_and_retained_messages_are_counted() {
    let broker = Broker::start();
    let pid = broker.pid().to_string();
    let tasks = ["conn", "idle", "subscribe", "retained"];
    let flags = [
        "-p",
        &port(broker.addr()),
        "--pid",
        &pid,
        "-c",
        "20",
        "-m",
        "200",
    ];
    let found = records(&[&tasks[..], &flags].concat());
    assert!(figure(&found[0], "connected") > 0.0);
    for record in found {
        assert_eq!(record["clean"], true, "{record}");
    }
}

#[test]
fn a_backlog_is_acknowledged_and_drained() {
    let broker = Broker::start();
    let flags = ["-p", &port(broker.addr()), "-m", "2000"];
    for record in records(&[&["durable:1", "durable:2"][..], &flags].concat()) {
        assert!(figure(&record, "acknowledged") > 0.0, "{record}");
        assert!(figure(&record, "drained") > 0.0, "{record}");
    }
}

#[test]
fn a_broker_that_is_killed_with_a_backlog_has_it_when_it_is_back() {
    let folder = tempfile::tempdir().expect("a directory");
    // Nothing else takes this port between here and there, in all likelihood.
    let probe = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = probe.local_addr().expect("it has one");
    drop(probe);
    let spawn = format!(
        "{} run --bind {addr} --data-dir {}",
        env!("CARGO_BIN_EXE_tidegate"),
        text(folder.path())
    );
    let found = records(&[
        "restart:2",
        "-p",
        &port(addr),
        "-m",
        "2000",
        "--spawn",
        &spawn,
    ]);
    assert_eq!(found[0]["clean"], true, "{}", found[0]);
}

#[test]
fn what_is_published_while_an_upstream_is_away_is_there_once_and_in_order_when_it_is_back() {
    for record in records(&["outage:1", "outage:2", "-m", "2000"]) {
        assert_eq!(record["clean"], true, "{record}");
        assert_eq!(figure(&record, "backlog"), 2000.0, "{record}");
        assert_eq!(figure(&record, "lost"), 0.0, "{record}");
        // What subscribers of QoS 1 had acknowledged within 5 seconds of the kill may come again.
        if record["scenario"] == "outage qos2" {
            assert_eq!(figure(&record, "repeated"), 0.0, "{record}");
        }
        assert!(figure(&record, "replayed") > 0.0, "{record}");
        assert!(figure(&record, "published directly") > 0.0, "{record}");
    }
}

#[test]
fn outage_says_what_it_cannot_do() {
    let broker = Broker::start();
    let (one, other) = (
        format!("one={}", broker.addr()),
        format!("other={}", broker.addr()),
    );
    let cases: [(&[&str], &str); 3] = [
        (&["outage:0"], "give -q 1 or -q 2"),
        (&["outage", "--ws"], "TCP"),
        (
            &["compare", &one, &other, "--scenarios", "outage"],
            "itself",
        ),
    ];
    for (arguments, why) in cases {
        let output = bench(arguments);
        assert!(!output.status.success(), "{arguments:?}");
        assert!(told(&output).contains(why), "{}", told(&output));
    }
}

#[test]
fn a_rate_is_kept_and_latency_counts_from_when_a_message_was_due() {
    let broker = Broker::start();
    let flags = ["-p", &port(broker.addr()), "-c", "10", "-r", "2000"];
    let found = records(&[&["sparse"][..], &flags].concat());
    let rate = figure(&found[0], "delivered");
    // A busy machine delivers late what was due near the end; it never makes more.
    assert!((1000.0..2600.0).contains(&rate), "{rate}");
    assert!(found[0]["latency_ns"]["count"].as_u64() > Some(100));
}

#[test]
fn others_are_watched_while_a_broker_is_busy_and_its_lock_is_told() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let metrics = port(free.local_addr().expect("bound"));
    drop(free);
    let config = format!("[metrics]\nbind = \"127.0.0.1:{metrics}\"\n");
    let Some(broker) = Broker::with(&config) else {
        return;
    };
    let (port, pid) = (port(broker.addr()), broker.pid().to_string());
    let which = ["--metrics-port", &metrics, "-p", &port, "--pid", &pid];
    let sizes = ["-c", "100", "-m", "1000"];
    let found = records(&[&["stall", "stall:2"][..], &which, &sizes].concat());
    for record in &found {
        assert_eq!(record["clean"], true, "{record}");
        for what in ["nothing", "commits", "retained", "storm", "fan-out", "end"] {
            assert!(figure(record, &format!("{what} p99.9")) > 0.0, "{record}");
            let held = figure(record, &format!("{what} lock held"));
            assert!(
                held > 0.0 && held <= figure(record, "lock held longest"),
                "{record}"
            );
        }
        assert!(figure(record, "lock held") > 0.0, "{record}");
    }
    // One of them alone, without a place to ask for the lock.
    let found = records(&["stall", "--disturb", "storm", "-c", "20", "-p", &port]);
    assert!(figure(&found[0], "storm longest") > 0.0);
    assert!(found[0]["metrics"]["nothing p50"].is_null());
    assert!(found[0]["metrics"]["storm lock held"].is_null());
    for (flags, needle) in [
        (["stall:0", "-p", &port], "QoS 1 and 2"),
        (["stall", "--metrics-port", &port], "/metrics: "),
    ] {
        let output = bench(&flags);
        assert!(!output.status.success());
        assert!(told(&output).contains(needle), "{}", told(&output));
    }
}

#[test]
fn brokers_are_compared_and_the_ratio_is_told() {
    let (one, other) = (Broker::start(), Broker::start());
    let name = |name: &str, broker: &Broker| format!("{name}={},{}", broker.addr(), broker.pid());
    let scratch = tempfile::tempdir().expect("a directory");
    let (json, page) = (scratch.path().join("a.json"), scratch.path().join("a.html"));
    let output = bench(&[
        "compare",
        &name("one", &one),
        &name("other", &other),
        "--scenarios",
        "pairs,pairs:1",
        "--rounds",
        "2",
        "-c",
        "4",
        "-d",
        "0.2",
        "--warm-up",
        "0.1",
        "--json",
        text(&json),
        "--report",
        text(&page),
    ]);
    let told = told(&output);
    assert!(output.status.success(), "{told}");
    assert!(told.contains("one") && told.contains("other"), "{told}");
    assert_eq!(read(&json).len(), 2 * 2 * 2);
    let page = std::fs::read_to_string(&page).expect("it was written");
    assert!(page.contains("<svg") && !page.contains("http://") && !page.contains("src="));
}

#[test]
fn tls_and_websocket_carry_the_same_load() {
    let folder = tempfile::tempdir().expect("a directory");
    let made = tidegate(&["certs", "--dir", text(folder.path())])
        .output()
        .expect("the binary has been built");
    assert!(made.status.success(), "{}", told(&made));
    let file = |name: &str| text(&folder.path().join(name)).to_owned();
    let files = format!(
        "certfile = {:?}\nkeyfile = {:?}",
        file("server.pem"),
        file("server.key")
    );
    for (protocol, flags) in [
        ("mqtts", ["--cafile", &file("ca.pem")].to_vec()),
        ("ws", ["--ws"].to_vec()),
        ("wss", ["--ws", "--insecure"].to_vec()),
    ] {
        let files = if protocol == "ws" { "" } else { &files };
        let listener = format!(
            "[[listeners]]\nprotocol = \"{protocol}\"\nbind = \"127.0.0.1:0\"\nallow_anonymous = true\n{files}\n"
        );
        let broker = Broker::with(&listener).expect("these tests are for Tidegate");
        let port = layered_port(&broker, protocol);
        let tasks = ["conn", "pairs:0", "pairs:2"];
        for record in records(&[&tasks[..], &["-p", &port, "-c", "4"], &flags].concat()) {
            assert_eq!(record["clean"], true, "{protocol}: {record}");
        }
    }
}

/// Where a broker listens for this protocol, as its banner tells.
fn layered_port(broker: &Broker, protocol: &str) -> String {
    let banner = broker.banner().join("\n");
    let start = format!("{protocol}://127.0.0.1:");
    let (_, rest) = banner
        .split_once(&start)
        .unwrap_or_else(|| panic!("{start} is not in {banner}"));
    rest.chars().take_while(char::is_ascii_digit).collect()
}

#[test]
fn what_a_broker_loses_is_told_and_makes_the_command_fail() {
    let addr = lossy::start();
    let output = bench(&[
        "pairs",
        "-p",
        &port(addr),
        "-c",
        "1",
        "-d",
        "0.2",
        "--warm-up",
        "0",
    ]);
    let told = told(&output);
    assert!(!output.status.success(), "{told}");
    assert!(told.contains("lost"), "{told}");
}

#[test]
fn a_broker_that_is_not_there_or_not_one_is_told() {
    let probe = TcpListener::bind("127.0.0.1:0").expect("a port");
    let addr = probe.local_addr().expect("it has one");
    drop(probe);
    let output = bench(&["pairs", "-p", &port(addr)]);
    assert!(told(&output).contains("refused"), "{}", told(&output));
    assert!(!output.status.success());
    let broker = Broker::start();
    let output = bench(&["pairs", "-p", &port(broker.addr()), "--insecure"]);
    assert!(
        told(&output).contains("lost before its CONNACK"),
        "{}",
        told(&output)
    );
    assert!(!output.status.success());
}

#[test]
fn what_was_found_before_a_failure_is_kept() {
    let broker = Broker::start();
    let scratch = tempfile::tempdir().expect("a directory");
    let json = scratch.path().join("a.json");
    let port = port(broker.addr());
    let brief = ["-c", "2", "-d", "0.2", "--warm-up", "0"];
    // The second scenario needs a backlog, for which there is no broker to be started.
    let tasks = ["pairs", "restart", "-p", &port, "--json", text(&json)];
    let output = bench(&[&tasks[..], &brief].concat());
    assert!(!output.status.success(), "{}", told(&output));
    let kept = read(&json);
    assert_eq!(kept.len(), 1, "{}", told(&output));
    assert_eq!(kept[0]["clean"], true);

    let output = bench(
        &[
            &["pairs", "restart", "-p", &port, "--json", "-"],
            &brief[..],
        ]
        .concat(),
    );
    assert!(!output.status.success());
    let records: Value = serde_json::from_slice(&output.stdout).expect("stdout is JSON alone");
    assert_eq!(records.as_array().map(Vec::len), Some(1));
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("delivered"), "{err}");

    let output = bench(
        &[
            &["pairs", "-p", &port, "--json", "/nowhere/at/all"],
            &brief[..],
        ]
        .concat(),
    );
    assert!(
        told(&output).contains("/nowhere/at/all"),
        "{}",
        told(&output)
    );
    assert!(
        !told(&output).contains("delivered"),
        "before anything is measured"
    );
}

#[test]
fn figures_that_mean_something_else_are_void_and_there_is_no_ratio() {
    let broker = Broker::start();
    let addr = broker.addr();
    let port = port(addr);
    let brief = ["-c", "2", "-d", "0.3", "--warm-up", "0"];
    let own = std::process::id().to_string();
    for (flags, needle) in [
        (vec!["--pid", own.as_str()], "does not listen at port"),
        (
            vec!["--rate", "50000000"],
            "50000000 messages a second were asked for",
        ),
    ] {
        let output = bench(&[&["pairs", "-p", &port], &flags[..], &brief[..]].concat());
        let told = told(&output);
        assert!(told.contains("VOID") && told.contains(needle), "{told}");
    }
    let gone = bench(&[&["pairs", "-p", &port, "--pid", "4000000000"], &brief[..]].concat());
    assert!(
        told(&gone).contains("there is no such process"),
        "{}",
        told(&gone)
    );
    assert!(!gone.status.success());

    let names = [
        format!("a={addr},{own}"),
        format!("b={addr},{}", broker.pid()),
    ];
    let line = [
        "compare",
        &names[0],
        &names[1],
        "--scenarios",
        "sparse",
        "--rounds",
        "1",
    ];
    let slow = ["--rate", "200"];
    let output = bench(&[&line[..], &slow, &brief].concat());
    let told = told(&output);
    let cpu = told.lines().find(|line| line.contains("broker cpu"));
    assert!(cpu.is_some_and(|line| line.ends_with("void")), "{told}");
    assert!(told.contains("at a, round 1: process"), "{told}");
    assert!(!told.contains("at b, round 1: process"), "{told}");
}
