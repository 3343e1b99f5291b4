//! What clients make the broker keep beside messages has one account a session and one for all, and
//! room in the store is asked for before it is used.

use super::*;

/// A world with so much memory for all sessions, and for each.
fn world(total: u64, each: u64) -> World {
    World::with(limited(Limits {
        max_session_bytes: each,
        max_session_bytes_total: total,
        ..Limits::default()
    }))
}

fn text(length: usize) -> &'static str {
    "x".repeat(length).leak()
}

fn refused(world: &World) -> u64 {
    world.broker.counters().refused_session_bytes
}

#[test]
fn wills_that_are_too_much_together_are_refused_and_what_is_known_may_come_back() {
    let mut world = world(10_000, 5_000);
    let with_will = |id, length| durable(id).will(1, "w", text(length));
    let a = world.connect(&with_will("a", 4_000));
    world.connect(&with_will("b", 4_000));
    let c = world.open(&with_will("c", 4_000));
    assert_eq!(world.got(c), ["CONNACK QuotaExceeded"]);
    let old = with_will("c", 4_000).version(ProtocolVersion::V311).clean();
    let c = world.open(&old);
    assert_eq!(world.got(c), ["CONNACK ServerUnavailable"]);
    let too_much = world.open(&with_will("d", 5_001));
    assert_eq!(world.got(too_much), ["CONNACK QuotaExceeded"]);
    assert_eq!(refused(&world), 3);
    assert_eq!(world.broker.gauges().sessions, 2);
    // Who brings no more than its session has already comes back, even if the limit is lower now.
    let late = with_will("b", 4_000).will_with(Property::WillDelayInterval(1_000));
    let b = world.connect(&late);
    world.lose(b);
    world.broker.settings.limits.max_session_bytes_total = 1_000;
    let b = world.open(&late);
    world.settle();
    assert_eq!(world.got(b), ["CONNACK present Success"]);
    world.broker.settings.limits.max_session_bytes_total = 10_000;
    // A will that is forgotten leaves room.
    world.leave(a);
    world.connect(&with_will("c", 4_000));
    world.broker.audit().expect("the accounts agree");
    world.crash();
    world.broker.audit().expect("the accounts agree");
}

#[test]
fn long_client_identifiers_take_memory_as_wills_do() {
    let mut world = world(10_000, 5_000);
    for n in 0..2 {
        let id = format!("{n}{}", text(2_000)).leak();
        world.connect(&client(id));
    }
    let peer = world.open(&client(text(2_000)));
    assert_eq!(world.got(peer), ["CONNACK QuotaExceeded"]);
    let peer = world.open(&client(text(3_000)));
    assert_eq!(world.got(peer), ["CONNACK QuotaExceeded"]);
    world.connect(&client("short"));
}

#[test]
fn filters_take_memory_by_their_text_and_their_levels() {
    for filter in [text(200), "a/b/c/d", "$share/g/a/b/c"] {
        let mut world = world(100_000, 2_000);
        let peer = world.connect(&durable("a"));
        let mut granted = 0;
        let filters: Vec<String> = (0..20).map(|n| format!("{filter}{n:02}")).collect();
        for filter in &filters {
            match world.subscribe(peer, filter, 1).concat().as_str() {
                "SUBACK [GrantedQos1]" => granted += 1,
                answer => assert_eq!(answer, "SUBACK [QuotaExceeded]"),
            }
        }
        assert!((3..9).contains(&granted), "{granted} {filter}");
        let left = 20 - granted as u64;
        assert_eq!(world.broker.counters().subscriptions_refused, left);
        // What there is may be replaced, and what is gone leaves room.
        assert_eq!(
            world.subscribe(peer, &filters[0], 2),
            ["SUBACK [GrantedQos2]"]
        );
        world.unsubscribe(peer, &filters[0]);
        world.settle();
        world.got(peer);
        assert_eq!(
            world.subscribe(peer, &filters[19], 1),
            ["SUBACK [GrantedQos1]"]
        );
        world.broker.audit().expect("the accounts agree");
        world.crash();
        world.broker.audit().expect("the accounts agree");
        world.connect(&client("a").clean());
        world.wait(1_000);
        world.broker.audit().expect("the accounts agree");
        assert_eq!(
            world.broker.accounts.session_bytes(),
            2,
            "what is left is its name"
        );
    }
}

#[test]
fn topic_aliases_take_memory_while_their_client_is_connected() {
    let mut world = world(10_000, 5_000);
    let set = |world: &mut World, peer, alias, length| {
        let alias = [Property::TopicAlias(alias)];
        world.publish_with(peer, message(0, 0, text(length), "m"), &alias);
    };
    let a = world.connect(&durable("a"));
    set(&mut world, a, 1, 2_000);
    set(&mut world, a, 2, 2_000);
    set(&mut world, a, 2, 2_000);
    set(&mut world, a, 1, 1_900);
    assert_eq!(world.got(a), [""; 0]);
    set(&mut world, a, 3, 2_000);
    assert_eq!(world.got(a), ["DISCONNECT QuotaExceeded"]);
    assert_eq!(refused(&world), 1);
    world.broker.audit().expect("the accounts agree");
    assert_eq!(
        world.broker.accounts.session_bytes(),
        2,
        "what is left is its name"
    );
    for n in 0..3 {
        let peer = world.connect(&client(format!("c{n}").leak()));
        set(&mut world, peer, 1, 4_000);
        let answer = if n < 2 {
            ""
        } else {
            "DISCONNECT QuotaExceeded"
        };
        assert_eq!(world.got(peer).concat(), answer);
    }
}

#[test]
fn without_memory_for_an_alias_topics_go_by_name() {
    let mut world = world(100_000, 1_000);
    let a = world.connect(&client("a").with(Property::TopicAliasMaximum(10)));
    world.subscribe(a, "#", 0);
    let peer = world.connect(&publisher());
    for _ in 0..2 {
        for topic in ["short", text(900)] {
            world.publish(peer, message(0, 0, topic, "m"));
        }
    }
    let got = world.got(a);
    assert_eq!(got.iter().filter(|line| line.contains("short")).count(), 1);
    assert_eq!(got.iter().filter(|line| line.contains("xxx")).count(), 2);
    world.broker.audit().expect("the accounts agree");
}

#[test]
fn a_packet_with_too_many_filters_ends_the_connection() {
    let mut world = World::with(limited(Limits {
        max_filters_per_packet: 3,
        ..Limits::default()
    }));
    for version in [ProtocolVersion::V5, ProtocolVersion::V311] {
        for unsubscribes in [false, true] {
            let peer = world.connect(&client("a").version(version).clean());
            let filters = ["a", "b", "c", "d"];
            world.ask(peer, 1, &filters.map(|filter| (filter, options(0)))[..3]);
            assert_eq!(world.got(peer), ["SUBACK [Success, Success, Success]"]);
            if unsubscribes {
                let unsubscribe = Unsubscribe {
                    packet_id: packet_id(1),
                    properties: Properties::EMPTY,
                    filters: filters.to_vec(),
                };
                world.send(peer, Packet::Unsubscribe(unsubscribe));
            } else {
                world.ask(peer, 1, &filters.map(|filter| (filter, options(0))));
            }
            let told = version == ProtocolVersion::V5;
            let answer = if told { "DISCONNECT QuotaExceeded" } else { "" };
            assert_eq!(world.got(peer).concat(), answer);
            assert!(world.closes(peer));
        }
    }
    assert_eq!(world.broker.counters().filters_refused, 4);
}

#[test]
fn shared_groups_and_their_members_have_limits() {
    let mut world = World::with(limited(Limits {
        max_shared_groups: 2,
        max_group_members: 2,
        ..Limits::default()
    }));
    let [a, b, c] = ["a", "b", "c"].map(|id| world.connect(&durable(id)));
    let granted = ["SUBACK [GrantedQos1]"];
    let full = ["SUBACK [QuotaExceeded]"];
    assert_eq!(world.subscribe(a, "$share/g/t", 1), granted);
    assert_eq!(world.subscribe(a, "$share/h/t", 1), granted);
    assert_eq!(world.subscribe(a, "$share/i/t", 1), full);
    assert_eq!(world.subscribe(b, "$share/g/t", 1), granted);
    assert_eq!(world.subscribe(c, "$share/g/t", 1), full);
    assert_eq!(
        world.subscribe(a, "$share/g/t", 1),
        granted,
        "it is one already"
    );
    assert_eq!(world.broker.counters().subscriptions_refused, 2);
    world.unsubscribe(a, "$share/h/t");
    world.settle();
    world.got(a);
    assert_eq!(world.subscribe(c, "$share/i/t", 1), granted);
}

#[test]
fn a_delivery_carries_no_more_subscription_identifiers_than_it_may() {
    let mut world = World::with(limited(Limits {
        max_subscription_ids: 2,
        ..Limits::default()
    }));
    let a = world.connect(&durable("a"));
    for (id, filter) in ["t", "+", "#", "t/#"].into_iter().enumerate() {
        // The last two have the same.
        let id = (id as u32 + 1).min(3);
        world.subscribe_as(a, filter, options(1), id);
    }
    let peer = world.connect(&publisher());
    world.publish(peer, message(1, 1, "t", "m"));
    world.settle();
    let got = world.got(a).concat();
    let ids = got.split("id ").count() + got.split("ids ").count() - 2;
    assert!(ids >= 1, "{got}");
    assert!(world.broker.counters().subscription_ids_left_out >= 1);
}

/// Work that something makes.
fn work(world: &mut World, act: impl FnOnce(&mut World)) -> u64 {
    let before = world.broker.work();
    act(world);
    world.broker.work() - before
}

#[test]
fn what_a_publish_walks_past_is_work() {
    let mut world = World::new();
    let a = world.connect(&client("a"));
    let levels = 10;
    for bits in 0..1_u32 << levels {
        let level = |at| if bits >> at & 1 == 0 { "a" } else { "+" };
        let filter: Vec<&str> = (0..levels).map(level).collect();
        world.subscribe(a, &filter.join("/"), 0);
    }
    let peer = world.connect(&publisher());
    // It matches none of them, for it ends before they do.
    let topic = vec!["a"; levels - 1].join("/");
    let walked = work(&mut world, |world| {
        world.publish(peer, message(0, 0, &topic, "m"));
    });
    assert!(walked >= 64 + (1 << levels) - 1, "{walked}");
    let nothing = work(&mut world, |world| {
        world.publish(peer, message(0, 0, "b", "m"));
    });
    assert!(nothing < 80, "{nothing}");
}

#[test]
fn groups_and_members_that_a_publish_looks_at_are_work() {
    let mut world = World::new();
    let peer = world.connect(&publisher());
    let a = world.connect(&client("a"));
    for n in 0..500 {
        world.subscribe(a, &format!("$share/{n}/t"), 0);
    }
    let offered = work(&mut world, |world| {
        world.publish(peer, message(0, 0, "t", "m"));
    });
    assert!(offered > 2_000, "{offered}");
    // Members that are connected and can take nothing more.
    let members: Vec<Peer> = (0..300)
        .map(|n| {
            let one = client(format!("m{n:03}").leak()).with(Property::ReceiveMaximum(1));
            let member = world.connect(&one);
            world.subscribe(member, "$share/g/u", 1);
            member
        })
        .collect();
    for id in 1..=300 {
        world.publish(peer, message(1, id, "u", "m"));
    }
    let looked = work(&mut world, |world| {
        world.publish(peer, message(1, 400, "u", "m"));
    });
    assert!(looked > 300, "{looked}");
    // None of them is connected: nobody is looked at.
    members.into_iter().for_each(|member| world.lose(member));
}

#[test]
fn the_filters_of_a_packet_are_work() {
    let mut world = World::new();
    let a = world.connect(&durable("a"));
    let filters: Vec<String> = (0..1_000).map(|n| format!("a/b/{n}")).collect();
    let asked: Vec<(&str, SubscribeOptions)> = filters
        .iter()
        .map(|filter| (filter.as_str(), options(1)))
        .collect();
    let subscribed = work(&mut world, |world| world.ask(a, 1, &asked));
    assert!(subscribed > 5_000, "{subscribed}");
    let unsubscribed = work(&mut world, |world| {
        let unsubscribe = Unsubscribe {
            packet_id: packet_id(1),
            properties: Properties::EMPTY,
            filters: filters.iter().map(String::as_str).collect(),
        };
        world.send(a, Packet::Unsubscribe(unsubscribe));
    });
    assert!(unsubscribed > 5_000, "{unsubscribed}");
}

#[test]
fn without_room_in_the_store_nothing_new_is_kept_and_nobody_is_kept_away() {
    let mut world = World::new();
    let known = world.connect(&durable("known").will(1, "w", "gone"));
    world.subscribe(known, "t", 1);
    let peer = world.connect(&durable("pub"));
    world.publish(peer, retained(1, 1, "r", "m"));
    world.settle();
    world.got(peer);
    world.leave(known);
    world.flush();
    world.disk.room = 0;
    world.broker.set_room(0, false);
    world.writes();
    let refused = |world: &mut World, client: Client| {
        let peer = world.open(&client);
        world.settle();
        assert_eq!(world.got(peer), ["CONNACK QuotaExceeded"]);
    };
    refused(&mut world, durable("new"));
    refused(&mut world, client("new").will(0, "w", "gone"));
    refused(&mut world, durable("known").will(1, "w", "gone"));
    refused(&mut world, durable("known").clean());
    // What ends with its connection needs no room, and who is known may come for what waits.
    let transient = world.connect(&client("transient"));
    assert_eq!(world.subscribe(transient, "x", 1), ["SUBACK [GrantedQos1]"]);
    let known = world.connect(&durable("known"));
    assert_eq!(world.subscribe(known, "u", 1), ["SUBACK [QuotaExceeded]"]);
    assert_eq!(
        world.subscribe(known, "$share/g/u", 1),
        ["SUBACK [QuotaExceeded]"]
    );
    assert_eq!(world.subscribe(known, "t", 0), ["SUBACK [Success]"]);
    // An identifier that must be kept, even if the message is for nobody who is.
    world.publish(peer, message(2, 7, "x", "m"));
    assert_eq!(world.got(peer), ["PUBREC #7 QuotaExceeded"]);
    assert!(world.broker.counters().refused_store_full >= 7);
    world.flush();
    let written = world.writes();
    let puts = written.iter().filter(|write| {
        write.starts_with("Put") && !write.starts_with("PutSession") && !write.ends_with(" t")
    });
    assert_eq!(puts.count(), 0, "{written:?}");
}

#[test]
fn what_is_retained_is_shown_from_memory_where_the_store_has_no_room() {
    let mut world = World::new();
    let known = world.connect(&durable("known"));
    let peer = world.connect(&publisher());
    for n in 0..5 {
        world.publish(peer, retained(1, 1, &format!("r/{n}"), "m"));
    }
    world.flush();
    world.writes();
    world.ask(known, 1, &[("r/#", options(1))]);
    world.disk.room = 0;
    world.broker.set_room(0, false);
    let got = world.drain(known);
    assert_eq!(got.len(), 5, "{got:?}");
    let written = world.writes();
    let rows = written
        .iter()
        .filter(|write| write.contains("PutMessage") || write.contains("PutDelivery"));
    assert_eq!(rows.count(), 0, "{written:?}");
    world.assert_nothing_left();
}

#[test]
fn a_message_for_many_needs_room_for_all_of_its_rows() {
    let mut world = World::new();
    let peer = world.connect(&client("pub"));
    for n in 0..2_000 {
        let keeper = world.connect(&durable(format!("k{n:04}").leak()));
        world.subscribe(keeper, "t", 1);
        if n == 0 {
            world.subscribe(keeper, "one", 1);
        }
        world.lose(keeper);
    }
    world.flush();
    // Enough for a message, not for its two thousand deliveries.
    world.disk.room = 200_000;
    world.broker.set_room(world.disk.room, false);
    world.publish(peer, message(1, 1, "one", "m"));
    world.publish(peer, message(1, 2, "t", "m"));
    world.settle();
    assert_eq!(world.got(peer), ["PUBACK #1", "PUBACK #2 QuotaExceeded"]);
    // What is promised and not written yet counts.
    world.disk.room = 290_000;
    world.broker.set_slice(50);
    world.broker.set_room(world.disk.room, false);
    world.publish(peer, message(1, 3, "t", "m"));
    world.settle();
    assert_eq!(world.got(peer), ["PUBACK #3"]);
    world.publish(peer, message(1, 4, "t", "m"));
    world.settle();
    assert_eq!(world.got(peer), ["PUBACK #4 QuotaExceeded"]);
}
