//! What is logged of a client: an end each, and what goes wrong once a minute.

use std::cell::RefCell;
use std::fmt::{Debug, Write};
use std::sync::OnceLock;

use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::acl::{acl, world};
use super::*;
use crate::broker::Traffic;

thread_local! {
    /// What this thread has logged, while it keeps that.
    static LINES: RefCell<Option<Vec<String>>> = const { RefCell::new(None) };
}

/// Keeps what threads log that have a [`Logged`], a line each: the level, what is said, and the
/// fields.
///
/// It is there for all threads and for good. A subscriber of one thread only would lose lines now
/// and then: where it is the only one, tracing asks the thread that comes by a line first whether
/// anybody wants that line, and remembers the answer for all.
struct Keep;

#[derive(Default)]
struct Line {
    said: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = match field.name() {
            "message" => write!(self.said, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

impl Subscriber for Keep {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        LINES.with_borrow_mut(|lines| {
            let Some(lines) = lines else { return };
            let mut line = Line::default();
            event.record(&mut line);
            let level = event.metadata().level();
            lines.push(format!("{level} {}{}", line.said, line.fields));
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// What is logged by this thread while it lives.
struct Logged;

impl Logged {
    fn begin() -> Logged {
        static KEEP: OnceLock<()> = OnceLock::new();
        KEEP.get_or_init(|| {
            tracing::subscriber::set_global_default(Keep).expect("no test sets another");
        });
        LINES.set(Some(Vec::new()));
        Logged
    }

    /// The lines that were logged since this was last asked and contain this.
    fn lines(&self, with: &str) -> Vec<String> {
        let mut lines = LINES.replace(Some(Vec::new())).unwrap_or_default();
        lines.retain(|line| line.contains(with));
        lines
    }
}

impl Drop for Logged {
    fn drop(&mut self) {
        LINES.set(None);
    }
}

#[test]
fn every_end_is_a_line_with_its_reason_its_duration_and_its_bytes() {
    let logged = Logged::begin();
    let mut world = World::new();
    let traffic = |error: Option<&str>| Traffic {
        received: 11,
        sent: 22,
        error: error.map(Into::into),
    };
    type End = fn(&mut World, Peer);
    let ends: [(End, Option<&str>, &str); 6] = [
        (
            |world, peer| world.leave_with(peer, ReasonCode::Success, &[]),
            None,
            "DISCONNECT: Success (0x00)",
        ),
        (
            |world, peer| world.leave_with(peer, ReasonCode::DisconnectWithWill, &[]),
            Some("reset"),
            "DISCONNECT: DisconnectWithWill (0x04)",
        ),
        (|_, _| (), Some("Connection reset"), "Connection reset"),
        (|_, _| (), None, "the connection was lost"),
        (
            |world, peer| world.send(peer, Packet::PingResp),
            None,
            "ProtocolError (0x82): a packet that only servers send",
        ),
        (
            |world, _| {
                let other = world.connect(&client("c"));
                world.lose(other);
            },
            None,
            "session taken over from local",
        ),
    ];
    for (end, error, why) in ends {
        let peer = world.connect(&client("c"));
        world.wait(1234);
        logged.lines("");
        end(&mut world, peer);
        world.broker.lost_after(peer.id, &traffic(error), world.now);
        let lines = logged.lines("connection ended");
        let line = lines.last().expect("a line");
        for part in [
            "INFO connection ended client=\"c\" peer=local",
            why,
            "seconds=1.234 received=11 sent=22",
        ] {
            assert!(line.contains(part), "{part}: {lines:?}");
        }
    }
    // Silence.
    let peer = world.connect(&client("silent").keep_alive(10));
    world.wait(20_000);
    world.lose(peer);
    let lines = logged.lines("connection ended");
    assert_eq!(lines.len(), 1);
    assert!(lines[0].contains("KeepAliveTimeout (0x8D)"), "{lines:?}");
    // Who was never let in has no end.
    let peer = world.accept(ProtocolVersion::V5);
    world.ping(peer);
    world.lose(peer);
    assert_eq!(logged.lines("connection ended"), [""; 0]);
}

#[test]
fn what_is_denied_is_said_at_once_and_then_once_a_minute_with_how_many() {
    let logged = Logged::begin();
    let mut world = world(&["- write ok"]);
    let old = world.connect(&publisher());
    for id in 1..=3 {
        world.publish(old, message(1, id, "not/ok", "x"));
    }
    world.publish(old, message(0, 0, "not/ok", "x"));
    world.publish(old, message(1, 4, "$SYS/x", "x"));
    world.ask(old, 1, &[("a", options(0)), ("b", options(0))]);
    world.settle();
    let at_once = logged.lines("WARN");
    assert_eq!(at_once.len(), 1, "{at_once:?}");
    let expected = "WARN a message is refused: the client may not publish to its topic client=\"pub\" topic=\"not/ok\"";
    assert_eq!(at_once[0], expected);
    let counters = world.broker.counters();
    assert_eq!(counters.publishes_not_authorized, 5);
    assert_eq!(counters.publishes_not_authorized_acknowledged, 4);
    world.wait(59_000);
    assert_eq!(logged.lines("WARN"), [""; 0]);
    world.wait(12_000);
    let expected =
        "WARN since it was said last: 4 publishes denied, 2 subscriptions denied client=\"pub\"";
    assert_eq!(logged.lines("WARN"), [expected]);
    world.publish(old, message(1, 5, "not/ok", "x"));
    assert_eq!(logged.lines("WARN"), [""; 0], "not a minute has gone");
    world.wait(71_000);
    let expected = "WARN since it was said last: 1 publishes denied client=\"pub\"";
    assert_eq!(logged.lines("WARN"), [expected]);
    // Nothing more happens: there is nothing to say, and nothing is kept.
    world.wait(200_000);
    assert_eq!(logged.lines("WARN"), [""; 0]);
    world.publish(old, message(1, 6, "not/ok", "x"));
    assert_eq!(logged.lines("WARN").len(), 1, "at once again");
}

#[test]
fn a_will_that_is_not_allowed_and_a_queue_that_drops_are_said() {
    let logged = Logged::begin();
    let mut world = World::with(Settings {
        acl: acl(&["- readwrite t", "- read s"]).into(),
        ..limited(Limits {
            max_queued_messages: 1,
            ..Limits::default()
        })
    });
    let peer = world.connect(&durable("c").will(0, "other", "x"));
    let lines = logged.lines("WARN");
    assert!(lines[0].contains("a will is not taken"), "{lines:?}");
    assert!(lines[0].contains("topic=\"other\""), "{lines:?}");
    world.lose(peer);
    let peer = world.connect(&durable("full"));
    world.subscribe(peer, "t", 1);
    world.lose(peer);
    let publisher = world.connect(&publisher());
    for id in 1..=3 {
        world.publish(publisher, message(1, id, "t", "x"));
    }
    world.settle();
    let lines = logged.lines("WARN");
    assert_eq!(
        lines,
        ["WARN a message is dropped: the queue is full client=\"full\""]
    );
    world.wait(75_000);
    let lines = logged.lines("WARN");
    let expected = "1 messages dropped because the queue is full client=\"full\"";
    assert!(
        lines.iter().any(|line| line.contains(expected)),
        "{lines:?}"
    );
}

#[test]
fn no_more_clients_are_named_than_there_is_room_for() {
    let logged = Logged::begin();
    let mut world = world(&[]);
    for id in ["a", "b", "c", "d", "e", "f", "g"] {
        let peer = world.connect(&client(id));
        world.publish(peer, message(0, 0, &"long".repeat(100), "x"));
        world.lose(peer);
    }
    let lines = logged.lines("WARN");
    assert_eq!(lines.len(), 4, "{lines:?}");
    assert!(lines.iter().all(|line| line.len() < 400), "{lines:?}");
    world.wait(75_000);
    let expected = "WARN of other clients, which are too many to name: 3 publishes denied";
    assert_eq!(logged.lines("WARN"), [expected]);
}
