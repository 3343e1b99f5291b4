//! How messages wait for a bridge: caps and what happens beyond them, the newest of each topic only, live messages first, and expiry.

use std::sync::Arc;

use super::bridge::{Bridged, bridge, rule, upstream};
use super::*;
use crate::broker::bridge::{
    Bridge, BridgeFigures, Direction, Leave, QueueFull, QueuePolicy, Relay,
};

/// A bridge that is not connected, for all topics, whose queue is as the policy says.
fn waiting(policy: QueuePolicy) -> Bridged {
    Bridged::of(all(policy))
}

fn all(queue: QueuePolicy) -> Bridge {
    Bridge {
        queue,
        max_inflight_messages: Some(2),
        ..bridge(vec![rule("#", Direction::Out, 2)])
    }
}

fn at_most(messages: u64, queue_full: QueueFull) -> QueuePolicy {
    QueuePolicy {
        max_queued_messages: Some(messages),
        queue_full,
        ..QueuePolicy::default()
    }
}

fn latest(live_first: bool) -> Bridged {
    let rules = vec![
        rule("all/#", Direction::Out, 2),
        rule("#", Direction::Out, 2),
    ];
    let [first, second] = <[_; 2]>::try_from(rules).expect("two");
    Bridged::of(Bridge {
        queue: QueuePolicy {
            live_first,
            ..QueuePolicy::default()
        },
        max_inflight_messages: Some(2),
        ..bridge(vec![first, second.keeping_latest(true)])
    })
}

impl Bridged {
    fn figures(&self) -> BridgeFigures {
        self.world.broker.bridge_figures()[0].clone()
    }

    fn publish_all(&mut self, all: &[(u8, &str, &str)]) {
        for (qos, topic, payload) in all {
            self.publish(message(*qos, 1, topic, payload));
        }
    }

    /// What the upstream takes until nothing more comes, as `TOPIC=PAYLOAD`.
    fn drain(&mut self) -> Vec<String> {
        let mut taken = Vec::new();
        loop {
            let got = self.got();
            let relay = self.relay.as_ref();
            let has_more = relay.is_some_and(|it| self.world.broker.has_more(it.connection()));
            if got.is_empty() && self.world.is_quiet() && !has_more {
                return taken;
            }
            for line in got {
                self.take(&line, &mut taken);
            }
        }
    }

    /// The upstream answers a packet.
    fn take(&mut self, line: &str, taken: &mut Vec<String>) {
        let words: Vec<&str> = line.split(' ').collect();
        let id = words[1].trim_start_matches('#').parse().expect("an id");
        let answer = match (words[0], words[2..].contains(&"q2")) {
            ("PUBREL", _) => Packet::PubComp(success(id)),
            (_, true) => Packet::PubRec(success(id)),
            (_, false) => Packet::PubAck(success(id)),
        };
        if words[0] == "PUBLISH" {
            taken.push(words[words.len() - 1].to_owned());
        }
        self.hears(answer).expect("taken");
    }

    fn connect_again(&mut self) {
        self.connect(upstream(ProtocolVersion::V5));
    }

    fn change(&mut self, bridge: Bridge) {
        self.bridge = Arc::new(bridge);
        let now = self.world.now;
        self.world.broker.open_bridge(&self.bridge, now);
        self.world.settle();
    }
}

#[test]
fn a_full_queue_drops_the_oldest_that_wait_and_not_those_on_their_way() {
    let mut b = waiting(at_most(3, QueueFull::DropOldest));
    b.connect_again();
    for n in ["1", "2", "3", "4", "5", "6", "7"] {
        b.publish(message(1, 1, "a", n));
    }
    // Two are on their way, three wait.
    let figures = b.figures();
    assert_eq!((figures.queued, figures.dropped), (5, 2));
    assert_eq!(b.world.broker.counters().dropped_queue_full, 2);
    assert_eq!(b.drain(), ["a=1", "a=2", "a=5", "a=6", "a=7"]);
    b.world.assert_nothing_left();
}

#[test]
fn a_message_larger_than_the_cap_empties_no_queue() {
    for queue_full in [QueueFull::DropOldest, QueueFull::Refuse] {
        let mut b = waiting(QueuePolicy {
            max_queued_bytes: Some(6),
            queue_full,
            ..QueuePolicy::default()
        });
        b.publish_all(&[(1, "a", "1"), (2, "a", "2"), (1, "a", "too large")]);
        let figures = b.figures();
        assert_eq!((figures.queued, figures.queued_bytes), (2, 4));
        assert_eq!((figures.dropped, figures.refused), (1, 0));
        b.connect_again();
        assert_eq!(b.drain(), ["a=1", "a=2"]);
        b.world.assert_nothing_left();
    }
}

#[test]
fn a_full_queue_refuses_a_message_before_anybody_is_given_it() {
    let mut b = waiting(at_most(2, QueueFull::Refuse));
    let reader = b.world.connect(&client("reader"));
    b.world.subscribe(reader, "#", 1);
    let device = b
        .world
        .connect(&client("device").version(ProtocolVersion::V5));
    b.world.publish(device, message(1, 1, "a", "1"));
    b.world.publish(device, message(2, 2, "a", "2"));
    b.world.settle();
    assert_eq!(b.world.got(device), ["PUBACK #1", "PUBREC #2"]);
    b.world.got(reader);
    b.world.publish(device, message(1, 3, "a", "3"));
    b.world.publish(device, message(2, 4, "a", "4"));
    b.world.publish(device, retained(1, 5, "a", "5"));
    b.world.publish(device, message(0, 0, "a", "6"));
    b.world.settle();
    let refused = [
        "PUBACK #3 QuotaExceeded",
        "PUBREC #4 QuotaExceeded",
        "PUBACK #5 QuotaExceeded",
    ];
    assert_eq!(b.world.got(device), refused);
    assert_eq!(b.world.got(reader), ["PUBLISH a=6"]);
    // One that cannot be told is sent away.
    let old = b.world.connect(&publisher());
    b.world.publish(old, message(1, 1, "a", "7"));
    assert!(b.world.closes(old));
    assert_eq!(b.figures().refused, 4);
    assert_eq!(b.world.broker.counters().refused_queue_full, 4);
    // A will has nobody to be refused to.
    let dying = b.world.connect(&client("dying").will(1, "a", "will"));
    b.world.lose(dying);
    b.world.settle();
    assert_eq!(b.world.got(reader), ["PUBLISH #3 q1 a=will"]);
    assert_eq!((b.figures().dropped, b.figures().refused), (1, 4));
    // When there is room, messages are taken again.
    b.connect_again();
    assert_eq!(b.drain(), ["a=1", "a=2"]);
    b.world.publish(device, message(1, 3, "a", "8"));
    b.world.settle();
    assert_eq!(b.world.got(device), ["PUBACK #3"]);
    assert_eq!(b.drain(), ["a=8"]);
}

#[test]
fn what_another_bridge_brings_is_left_to_its_upstream_when_it_is_refused() {
    let mut b = waiting(at_most(1, QueueFull::Refuse));
    b.publish(message(1, 1, "a", "1"));
    let other = Arc::new(Bridge {
        name: "other".into(),
        ..bridge(vec![rule("#", Direction::In, 2)])
    });
    let now = b.world.now;
    b.world.broker.open_bridge(&other, now);
    let broker = &mut b.world.broker;
    let up = upstream(ProtocolVersion::V5);
    let mut relay = Relay::open(other, up, "b:1883", true, broker, now).expect("open");
    let mut out = Vec::new();
    let packet = Packet::Publish(message(1, 1, "a", "2"));
    relay.receive(packet, broker, &mut out, now).expect("taken");
    b.world.settle();
    let left = relay.take_output(&mut b.world.broker, &mut out, now);
    assert!(matches!(left, Err(Leave::Ended(_))), "{left:?}");
    assert!(
        show(&out, ProtocolVersion::V5).is_empty(),
        "no acknowledgement"
    );
    relay.close(&mut b.world.broker, now);
    b.connect_again();
    assert_eq!(b.drain(), ["a=1"]);
}

#[test]
fn a_changed_cap_holds_at_once() {
    let mut b = waiting(QueuePolicy::default());
    b.publish_all(&[(1, "a", "1"), (1, "a", "2"), (2, "a", "3"), (1, "a", "4")]);
    b.change(all(at_most(3, QueueFull::DropNewest)));
    b.publish_all(&[(1, "a", "5")]);
    assert_eq!((b.figures().queued, b.figures().dropped), (4, 1));
    b.change(all(at_most(2, QueueFull::DropOldest)));
    assert_eq!((b.figures().queued, b.figures().dropped), (2, 3));
    b.world.wait(100);
    b.world.flush();
    assert_eq!(b.world.disk.deliveries.len(), 2);
    b.change(all(at_most(3, QueueFull::DropOldest)));
    b.publish_all(&[(1, "a", "6"), (1, "a", "7")]);
    // A cap may be larger than the limit of all sessions, too; and it holds after a restart.
    b.crash();
    b.publish_all(&[(1, "a", "8")]);
    b.connect_again();
    assert_eq!(b.drain(), ["a=6", "a=7", "a=8"]);
    b.world.assert_nothing_left();
}

#[test]
fn a_newer_message_takes_the_place_of_the_one_of_its_topic_that_waits() {
    let mut b = latest(false);
    b.publish_all(&[
        (1, "x", "1"),
        (2, "y", "1"),
        (1, "all/x", "1"),
        (2, "x", "2"),
        (1, "all/x", "2"),
        (1, "y", "2"),
        (1, "x", "3"),
    ]);
    let figures = b.figures();
    assert_eq!((figures.queued, figures.superseded), (4, 3));
    assert_eq!(figures.queued_bytes, 6 + 6 + 2 + 2);
    assert_eq!(b.world.broker.counters().superseded, 3);
    b.world.flush();
    assert_eq!(b.world.disk.messages.len(), 4, "rows and bodies are gone");
    b.connect_again();
    // Two on their way are not touched; what waits is.
    assert_eq!(b.got(), ["PUBLISH #1 q1 all/x=1", "PUBLISH #2 q1 all/x=2"]);
    b.publish_all(&[(1, "y", "3")]);
    for id in [1, 2] {
        b.hears(Packet::PubAck(success(id))).expect("taken");
    }
    assert_eq!(b.drain(), ["x=3", "y=3"]);
    b.world.assert_nothing_left();
}

#[test]
fn topics_of_what_waited_before_a_restart_are_known_and_no_bodies_are_read() {
    let mut b = latest(false);
    b.publish_all(&[(1, "x", "1"), (2, "y", "1"), (1, "z", "1")]);
    b.crash();
    let device = b.world.connect(&publisher());
    b.world.publish(device, message(1, 1, "x", "2"));
    assert_eq!((b.figures().queued, b.figures().superseded), (3, 1));
    b.publish_all(&[(2, "y", "2")]);
    assert_eq!((b.figures().queued, b.figures().superseded), (3, 2));
    assert_eq!(b.world.broker.counters().bodies_fetched, 0);
    b.connect_again();
    assert_eq!(b.drain(), ["z=1", "x=2", "y=2"]);
    b.world.assert_nothing_left();
}

/// Nothing was superseded before the restart: a rule that came with it thins what waits. Of each topic that waits
/// more than once, all but the newest message must be read.
#[test]
fn a_rule_that_comes_with_a_restart_thins_what_waits() {
    let mut b = waiting(QueuePolicy::default());
    b.publish_all(&[(1, "x", "1"), (1, "y", "1"), (1, "x", "2"), (1, "x", "3")]);
    b.bridge = Arc::new(Bridge {
        rules: vec![rule("#", Direction::Out, 2).keeping_latest(true)],
        ..all(QueuePolicy::default())
    });
    b.crash();
    b.world.settle();
    assert_eq!((b.figures().queued, b.figures().superseded), (2, 2));
    assert_eq!(b.world.broker.counters().bodies_fetched, 2);
    b.connect_again();
    assert_eq!(b.drain(), ["y=1", "x=3"]);
    b.world.assert_nothing_left();
}

/// Rows of layouts before 4 do not know the topic: it is read.
#[test]
fn topics_that_rows_do_not_know_are_read_after_a_restart() {
    let mut b = latest(false);
    b.publish_all(&[(1, "x", "1"), (2, "y", "1"), (1, "z", "1")]);
    for record in b.world.disk.deliveries.values_mut() {
        record.message.topic = None;
    }
    b.crash();
    // Before they are read, a newer message cannot know of an older one.
    let device = b.world.connect(&publisher());
    b.world.publish(device, message(1, 1, "x", "2"));
    assert_eq!(b.figures().queued, 4);
    b.world.settle();
    assert_eq!((b.figures().queued, b.figures().superseded), (3, 1));
    b.publish_all(&[(2, "y", "2")]);
    assert_eq!((b.figures().queued, b.figures().superseded), (3, 2));
    b.connect_again();
    assert_eq!(b.drain(), ["z=1", "x=2", "y=2"]);
    b.world.assert_nothing_left();
}

#[test]
fn a_rule_that_is_new_thins_what_waits_already() {
    let mut b = waiting(QueuePolicy::default());
    for n in 0..2000 {
        let topic = format!("t/{}", n % 10);
        b.publish(message(1, 1, &topic, &n.to_string()));
    }
    let rules = vec![rule("#", Direction::Out, 2).keeping_latest(true)];
    b.change(Bridge {
        rules,
        ..all(QueuePolicy::default())
    });
    b.world.wait(1000);
    b.world.flush();
    assert_eq!((b.figures().queued, b.figures().superseded), (10, 1990));
    b.connect_again();
    let wanted: Vec<String> = (1990..2000).map(|n| format!("t/{}={n}", n % 10)).collect();
    assert_eq!(b.drain(), wanted);
    b.world.assert_nothing_left();
}

#[test]
fn a_full_queue_has_room_for_a_newer_message_of_a_topic() {
    let mut b = latest(false);
    let bridge = Bridge {
        queue: at_most(2, QueueFull::DropNewest),
        ..(*b.bridge).clone()
    };
    b.change(bridge);
    b.publish_all(&[(1, "x", "1"), (1, "y", "1"), (1, "z", "1"), (1, "x", "2")]);
    assert_eq!((b.figures().dropped, b.figures().superseded), (1, 1));
    b.connect_again();
    assert_eq!(b.drain(), ["y=1", "x=2"]);
}

#[test]
fn live_messages_go_first_and_the_backlog_has_its_share() {
    let mut b = waiting(QueuePolicy {
        live_first: true,
        ..QueuePolicy::default()
    });
    for n in 0..1000 {
        b.publish(message(1, 1, "old", &n.to_string()));
    }
    b.connect_again();
    // The first window is the backlog's: nothing else is there.
    let got = b.got();
    assert_eq!(got, ["PUBLISH #1 q1 old=0", "PUBLISH #2 q1 old=1"]);
    let mut order = Vec::new();
    for line in got {
        b.take(&line, &mut order);
    }
    // A heavy flow of live messages: three arrive where two are taken.
    let mut live = 0;
    for _ in 0..300 {
        for _ in 0..3 {
            b.publish(message(1, 1, "new", &live.to_string()));
            live += 1;
        }
        for line in b.got() {
            b.take(&line, &mut order);
        }
    }
    let sent: Vec<&str> = order.iter().map(|line| &line[..3]).collect();
    let longest = sent.split(|kind| *kind == "old").map(<[&str]>::len).max();
    assert!(longest <= Some(8), "{longest:?} live ones in a row");
    assert!(sent.iter().filter(|kind| **kind == "old").count() >= 20);
    assert!(sent.iter().filter(|kind| **kind == "new").count() >= 200);
    order.extend(b.drain());
    for kind in ["old", "new"] {
        let numbers = order.iter().filter_map(|line| line.strip_prefix(kind));
        let numbers: Vec<usize> = numbers.map(|n| n[1..].parse().expect("n")).collect();
        let wanted = if kind == "old" { 1000 } else { live };
        assert_eq!(numbers, (0..wanted).collect::<Vec<_>>(), "{kind}");
    }
    b.world.assert_nothing_left();
}

#[test]
fn light_live_traffic_overtakes_a_cold_backlog_at_once() {
    let mut b = waiting(QueuePolicy {
        live_first: true,
        ..QueuePolicy::default()
    });
    for n in 0..50 {
        b.publish(message(2, 1, "old", &n.to_string()));
    }
    b.crash();
    b.connect_again();
    b.world.settle_disk();
    let mut out = Vec::new();
    let now = b.world.now;
    let (relay, broker, _) = b.relay();
    relay.take_output(broker, &mut out, now).expect("stays");
    // No body of the backlog is there yet; the live message does not wait for them.
    let device = b.world.connect(&publisher());
    b.world.publish(device, message(1, 1, "new", "x"));
    b.world.settle_disk();
    let (relay, broker, _) = b.relay();
    relay.take_output(broker, &mut out, now).expect("stays");
    assert_eq!(show(&out, ProtocolVersion::V5), ["PUBLISH #1 q1 new=x"]);
    b.hears(Packet::PubAck(success(1))).expect("taken");
    assert_eq!(b.drain().len(), 50);
    b.world.settle();
    b.world.assert_nothing_left();
}

#[test]
fn a_cold_backlog_has_its_share_although_a_live_message_is_always_there() {
    let mut b = Bridged::of(Bridge {
        max_inflight_messages: Some(1),
        ..all(QueuePolicy {
            live_first: true,
            ..QueuePolicy::default()
        })
    });
    for n in 0..50 {
        b.publish(message(1, 1, "old", &n.to_string()));
    }
    b.crash();
    b.connect_again();
    b.publish(message(1, 1, "new", "x"));
    let mut taken = Vec::new();
    for _ in 0..100 {
        // One is on its way, and one waits whenever the window opens.
        b.publish(message(1, 1, "new", "x"));
        for line in b.got() {
            b.take(&line, &mut taken);
        }
    }
    let old = taken.iter().filter(|line| line.starts_with("old"));
    assert_eq!(old.count(), 100 / 9, "{taken:?}");
    assert_eq!(b.drain().len(), 50 + 101 - taken.len());
    b.world.assert_nothing_left();
}

#[test]
fn what_was_on_its_way_is_not_held_up_by_the_backlog_after_a_crash() {
    let mut b = waiting(QueuePolicy {
        live_first: true,
        ..QueuePolicy::default()
    });
    for n in 0..10 {
        b.publish(message(1, 1, "old", &n.to_string()));
    }
    b.connect_again();
    for line in b.got() {
        b.take(&line, &mut Vec::new());
    }
    b.publish(message(2, 1, "new", "x"));
    b.got();
    b.world.settle();
    b.crash();
    b.connect_again();
    let got = b.got();
    assert!(got[0].ends_with("q2 dup new=x"), "{got:?}");
    let mut taken = Vec::new();
    for line in &got {
        b.take(line, &mut taken);
    }
    taken.extend(b.drain());
    taken.sort_unstable();
    taken.dedup();
    assert!(taken.len() >= 9, "{taken:?}");
    b.world.assert_nothing_left();
}

#[test]
fn the_newest_of_a_topic_is_not_followed_by_an_older_one_after_a_crash() {
    let mut b = latest(true);
    // Under way at QoS 1, the older one loses its identifier in the crash; the newer one at QoS 2 keeps its own, and is sent again first.
    b.publish_all(&[(1, "x", "1")]);
    b.connect_again();
    assert_eq!(b.got(), ["PUBLISH #1 q1 x=1"]);
    b.publish_all(&[(2, "x", "2")]);
    assert_eq!(b.got(), ["PUBLISH #2 q2 x=2"]);
    b.crash();
    b.connect_again();
    assert_eq!(b.drain(), ["x=2"]);
    assert_eq!(b.figures().superseded, 1);
    b.world.assert_nothing_left();
}

#[test]
fn what_has_expired_makes_room() {
    for queue_full in [
        QueueFull::DropNewest,
        QueueFull::DropOldest,
        QueueFull::Refuse,
    ] {
        let mut b = waiting(at_most(2, queue_full));
        let device = b.world.connect(&client("device"));
        for id in [1, 2] {
            let expiry = Property::MessageExpiryInterval(5);
            b.world
                .publish_with(device, message(1, id, "a", "old"), &[expiry]);
        }
        b.world.jump(5000);
        b.publish_all(&[(1, "a", "1"), (1, "a", "2")]);
        let figures = b.figures();
        assert_eq!((figures.queued, figures.expired), (2, 2), "{queue_full:?}");
        assert_eq!((figures.dropped, figures.refused), (0, 0), "{queue_full:?}");
        b.connect_again();
        assert_eq!(b.drain(), ["a=1", "a=2"]);
        b.world.assert_nothing_left();
    }
}

#[test]
fn what_expires_while_it_waits_is_not_sent_and_counted() {
    let mut b = waiting(QueuePolicy::default());
    let device = b.world.connect(&client("device"));
    for n in 0..3000_u32 {
        let seconds = if n % 3 == 0 { 5 } else { 5000 };
        let expiry = Property::MessageExpiryInterval(seconds);
        let id = u16::try_from(n + 1).expect("few");
        let publish = message(1, id, "a", "x");
        b.world.publish_with(device, publish, &[expiry]);
        b.world.settle();
        b.world.got(device);
    }
    b.world.jump(2000);
    assert_eq!((b.figures().queued, b.figures().expired), (3000, 0));
    b.world.jump(4000);
    b.world.wait(4000);
    let figures = b.figures();
    assert_eq!((figures.queued, figures.expired), (2000, 1000));
    assert_eq!(figures.queued_bytes, 4000);
    b.world.broker.audit().expect("the accounts agree");
    b.world.crash();
    let now = b.world.now;
    b.world.broker.open_bridge(&b.bridge, now);
    b.connect_again();
    assert_eq!(b.got()[0], "PUBLISH #1 q1 a=x expiry 4990");
    b.world.jump(6_000_000);
    b.hears(Packet::PubAck(success(1))).expect("taken");
    assert_eq!(b.drain().len(), 0, "all others have expired");
    b.hears(Packet::PubAck(success(2))).expect("taken");
    assert_eq!(b.figures().queued, 0);
    b.world.assert_nothing_left();
}
