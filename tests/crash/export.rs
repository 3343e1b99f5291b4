//! `tidegate export`: all of a store that is whole, and of a damaged one nothing that was not in
//! it.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use support::{
    Broker, Client, Connect, Message, Properties, Random, Subscription, Version, Will, tidegate,
    wait_until,
};

use crate::number;

/// The code for a store of which only a part can be read.
const PARTLY: i32 = 4;

/// Messages that wait for the subscriber that is away.
const WAITING: usize = 600;
/// Bytes of a payload that is kept in several parts.
const LARGE: usize = 20_000;

/// Runs `tidegate export` to its end, which it must reach soon.
fn export(arguments: &[&str]) -> Output {
    let mut child = tidegate(&["export"])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it has been built");
    // Read while it runs: a pipe holds less than an export.
    let mut out = child.stdout.take().expect("a pipe");
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        std::io::Read::read_to_end(&mut out, &mut text).expect("it can be read");
        text
    });
    wait_until("the export ends", || {
        child.try_wait().expect("a child").is_some()
    });
    let mut output = child.wait_with_output().expect("its output");
    output.stdout = reader.join().expect("no panic");
    output
}

fn rows(output: &Output) -> Vec<Value> {
    let text = std::str::from_utf8(&output.stdout).expect("JSON is UTF-8");
    let rows = text.lines().map(serde_json::from_str);
    rows.collect::<Result<_, _>>().expect("JSON lines")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn path_text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn payload(number: usize) -> String {
    format!("{number:0300}")
}

/// Fills a store with a row of every kind. The clients returned are still connected.
fn fill(broker: &Broker) -> Vec<Client> {
    let addr = broker.addr();
    let mut away = Connect::durable(Version::V5, "away").open(addr);
    let filters = [
        Subscription::new("waiting/#", 2),
        Subscription::new("$share/pump/waiting/9", 1),
    ];
    away.subscribe_to(&filters, &Properties::new().subscription_id(7));
    away.disconnect();
    let will = Will::new(Message::new("gone", "the will", 1)).delay(60);
    let mut publisher = Connect::durable(Version::V5, "publisher")
        .will(will)
        .open(addr);
    for number in 0..WAITING {
        let topic = format!("waiting/{}", number % 10);
        let message = Message::new(&topic, payload(number), 1 + (number % 2) as u8);
        assert_eq!(publisher.publish(&message), 0);
    }
    let large = "ü".repeat(LARGE / 2);
    let message = Message::new("waiting/large", &large, 1)
        .with(|properties| properties.text(0x03, "text/plain").user("a", "b"));
    assert_eq!(publisher.publish(&message), 0);
    let binary = Message::new("state/é", [0xff, 0, 1], 1).retained();
    assert_eq!(publisher.publish(&binary), 0x10, "nobody wants it now");
    let message = Message::new("waiting/half", "half", 2);
    let half = publisher.send_publish(&message);
    publisher.pubrec_for(half);
    vec![publisher]
}

/// The rows of a table.
fn of<'r>(rows: &'r [Value], table: &str) -> Vec<&'r Value> {
    rows.iter().filter(|row| row["table"] == table).collect()
}

fn check_whole(rows: &[Value], killed: bool) {
    let clients: BTreeSet<_> = of(rows, "sessions")
        .iter()
        .filter_map(|row| row["client_id"].as_str())
        .collect();
    assert_eq!(clients, BTreeSet::from(["away", "publisher"]));
    let filters: BTreeSet<_> = of(rows, "subscriptions")
        .iter()
        .filter_map(|row| row["filter"].as_str())
        .collect();
    assert_eq!(
        filters,
        BTreeSet::from(["waiting/#", "$share/pump/waiting/9"])
    );
    assert_eq!(of(rows, "groups")[0]["group"], "$share/pump/waiting/9");
    assert_eq!(of(rows, "received")[0]["client_id"], "publisher");
    let retained = of(rows, "retained");
    assert_eq!(retained.len(), 1);
    assert_eq!(retained[0]["message"]["topic"], "state/é");
    assert_eq!(retained[0]["message"]["payload_base64"], "/wAB");
    assert_eq!(retained[0]["client_id"], "publisher");
    assert_eq!(retained[0]["user"], Value::Null);
    let wills = of(rows, "wills");
    if killed {
        assert_eq!(wills[0]["message"]["payload"], "the will");
        assert_eq!(wills[0]["will_delay_interval"], 60);
    }
    let mut expected: BTreeSet<(String, String)> = (0..WAITING)
        .map(|number| (format!("waiting/{}", number % 10), payload(number)))
        .collect();
    expected.insert(("waiting/large".to_owned(), "ü".repeat(LARGE / 2)));
    expected.insert(("waiting/half".to_owned(), "half".to_owned()));
    let mut found = BTreeSet::new();
    let mut shared = 0;
    for row in of(rows, "deliveries") {
        let text = |key: &str| row["message"][key].as_str().expect("text").to_owned();
        if row["client_id"] == "away" {
            assert_eq!(row["subscription_identifiers"], json!([7]));
            assert!(found.insert((text("topic"), text("payload"))));
        } else {
            assert_eq!(row["group"], "$share/pump/waiting/9");
            shared += 1;
        }
        if text("topic") == "waiting/large" {
            assert_eq!(row["message"]["content_type"], "text/plain");
            assert_eq!(row["message"]["user_properties"], json!([["a", "b"]]));
        }
    }
    assert_eq!(shared, WAITING / 10);
    assert!(found == expected, "{} of {}", found.len(), expected.len());
    assert!(of(rows, "messages").is_empty(), "bodies without deliveries");
}

#[test]
fn a_whole_store_is_exported_completely() {
    for killed in [false, true] {
        let Some(mut broker) = Broker::durable() else {
            return;
        };
        let clients = fill(&broker);
        let data_dir = broker.data_dir();
        let running = export(&["--data-dir", path_text(&data_dir)]);
        assert_eq!(running.status.code(), Some(1));
        assert!(said(&running).contains("in use"), "{}", said(&running));
        assert!(running.stdout.is_empty());
        match killed {
            true => broker.kill(),
            false => broker.stop(),
        }
        drop(clients);
        let config = broker.config_file();
        let output = export(&["--config", path_text(&config)]);
        assert_eq!(output.status.code(), Some(0), "{}", said(&output));
        check_whole(&rows(&output), killed);
        assert!(said(&output).contains("retained: 1 rows, all there are"));

        // Into a file, which only its owner may read and which is not written over.
        let file = data_dir.join("export.jsonl");
        let arguments = [
            "--data-dir",
            path_text(&data_dir),
            "--output",
            path_text(&file),
        ];
        let into = export(&arguments);
        assert_eq!(into.status.code(), Some(0), "{}", said(&into));
        assert!(into.stdout.is_empty());
        assert!(std::fs::read(&file).expect("it is there") == output.stdout);
        let mode = std::fs::metadata(&file).expect("it is there").permissions();
        assert_eq!(mode.mode() & 0o777, 0o600);
        assert_eq!(export(&arguments).status.code(), Some(1));
        assert!(std::fs::read(&file).expect("it is there") == output.stdout);
        // The broker is none the worse for it.
        broker.start_again();
    }
}

/// What rows of damaged files are held against.
struct Known {
    /// Rows without what damage elsewhere may hide.
    rows: BTreeSet<String>,
    /// Messages by their place in the order.
    messages: BTreeMap<u64, Value>,
    /// When clients left.
    moments: BTreeSet<u64>,
}

/// When the clients of the sessions left.
fn moments(rows: &[Value]) -> BTreeSet<u64> {
    let sessions = of(rows, "sessions").into_iter();
    sessions
        .filter_map(|row| row["disconnected_at"].as_u64())
        .collect()
}

/// A row without the name of its queue's owner, which is in another row, and without moments: they
/// are told by a clock's reading.
fn on_its_own(row: &Value) -> Value {
    let mut row = row.clone();
    let fields = row.as_object_mut().expect("an object");
    if fields["table"] != "sessions" {
        fields.remove("client_id");
    }
    if fields["table"] != "groups" {
        fields.remove("group");
    }
    if fields["table"] == "deliveries" {
        fields.remove("message");
    }
    for moment in ["disconnected_at", "due", "expires"] {
        if fields.get(moment).is_some_and(Value::is_number) {
            fields[moment] = json!("a moment");
        }
    }
    row
}

impl Known {
    fn of(rows: &[Value]) -> Known {
        let messages = of(rows, "deliveries").into_iter();
        Known {
            rows: rows.iter().map(|row| on_its_own(row).to_string()).collect(),
            messages: messages
                .map(|row| {
                    (
                        row["seq"].as_u64().expect("a number"),
                        row["message"].clone(),
                    )
                })
                .collect(),
            moments: moments(rows),
        }
    }

    /// Every row was in the whole store, and its message is that message.
    fn check(&self, rows: &[Value], older: bool) {
        let mut seen = BTreeSet::new();
        for row in rows {
            let known = self.rows.contains(&on_its_own(row).to_string());
            // In the commit before the last one, a session may still have been connected.
            assert!(known || row["table"] == "messages" || older, "{row}");
            assert!(seen.insert(row.to_string()), "twice: {row}");
            if let Some(seq) = row["seq"].as_u64()
                && !row["message"].is_null()
            {
                assert_eq!(Some(&row["message"]), self.messages.get(&seq), "{row}");
            }
        }
    }
}

#[test]
fn of_a_damaged_store_what_can_be_read_is_exported() {
    let rounds = 4 * number("TIDEGATE_CRASH_ROUNDS", 10);
    let mut random = Random::new(number("TIDEGATE_CRASH_SEED", 1));
    let mut tally = BTreeMap::new();
    let (mut read, mut had, mut most) = (0, 0, 0);
    for killed in [false, true] {
        let Some(mut broker) = Broker::durable() else {
            return;
        };
        let clients = fill(&broker);
        match killed {
            true => broker.kill(),
            false => broker.stop(),
        }
        drop(clients);
        let database = broker.data_dir().join("tidegate.redb");
        let moved = broker.data_dir().join("moved");
        let whole = std::fs::read(&database).expect("it can be read");
        let all = rows(&export(&["--file", path_text(&database)]));
        let known = Known::of(&all);
        let used: Vec<usize> = (0..whole.len() / 4096)
            .filter(|page| whole[page * 4096..][..4096].iter().any(|byte| *byte != 0))
            .collect();
        for round in 0..rounds {
            let mut damaged = whole.clone();
            match round % 4 {
                0 => damaged.truncate(random.below(whole.len() as u64) as usize),
                pages => {
                    for _ in 0..pages {
                        let page = used[random.below(used.len() as u64) as usize] * 4096;
                        match random.one_in(4) {
                            // A page of nothing, or a bit that has turned.
                            false => damaged[page..page + 4096].fill(0),
                            true => {
                                damaged[page + random.below(4096) as usize] ^= 1 << random.below(8)
                            }
                        }
                    }
                }
            }
            std::fs::write(&moved, &damaged).expect("it can be written");
            let output = export(&["--file", path_text(&moved)]);
            let after = std::fs::read(&moved).expect("it is still there");
            assert!(after == damaged, "the file was changed");
            let (said, some) = (said(&output), rows(&output));
            let older = said.contains("the last commit is damaged");
            // A reading of the clocks belongs to its commit.
            let no_reading = said.contains("what the clocks showed last cannot be read");
            let exact = moments(&some).is_subset(&known.moments);
            assert!(exact || older || no_reading, "{said}");
            known.check(&some, older);
            let code = output.status.code();
            match code {
                // Damage to the last commit of a file that was not closed looks like a commit that
                // was cut short.
                Some(0) if older => assert!(killed && some.len() + 10 > all.len(), "{said}"),
                Some(0) => assert_eq!(some.len(), all.len(), "{said}"),
                Some(PARTLY) => assert!(said.contains(path_text(&moved)), "{said}"),
                Some(1) => {
                    assert!(said.contains(path_text(&moved)), "{said}");
                    assert!(some.is_empty());
                }
                _ => panic!("{code:?}: {said}"),
            }
            *tally.entry(code).or_insert(0) += 1;
            read += some.len();
            had += all.len();
            most = most.max(if code == Some(PARTLY) { some.len() } else { 0 });
        }
        assert!(most > all.len() / 2, "{most} of {}", all.len());
    }
    println!("exit codes {tally:?}; {read} rows of {had} read");
    assert!(tally.contains_key(&Some(PARTLY)));
}

#[test]
fn a_file_without_a_header_is_no_empty_success() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("store");
    for bytes in [&b""[..], b"redb", &[0; 9000], &[0xff; 9000]] {
        std::fs::write(&file, bytes).expect("it can be written");
        let output = export(&["--file", path_text(&file)]);
        assert_eq!(output.status.code(), Some(1));
        assert!(said(&output).contains(path_text(&file)));
        assert!(output.stdout.is_empty());
    }
    let nothing = export(&["--file", path_text(&dir.path().join("none"))]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(said(&nothing).contains("none"));
}
