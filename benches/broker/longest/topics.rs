//! Subscriptions, filters, retained messages and rights.

use std::sync::Arc;

use tidegate::broker::{Acl, ConnectionId, Permission, Settings};
use tidegate::wire::packet::{Subscribe, SubscribeOptions, Unsubscribe};
use tidegate::wire::{Packet, PacketId, Properties, PropertiesBuf, Property, QoS};

use super::timed::{Prepared, TimedBroker, durable, in_memory, prepared};
use super::{MANY, numbered};

pub fn subscribe_many() -> Prepared {
    let mut timed = TimedBroker::new(Settings::default());
    let id = timed.connect(&durable("client"));
    timed.serve();
    prepared(timed, move |timed| {
        let filters: Vec<String> = (0..MANY / 10).map(numbered).collect();
        timed.subscribe(id, &filters, QoS::AtLeastOnce);
    })
}

pub fn unsubscribe_many() -> Prepared {
    let mut timed = TimedBroker::new(Settings::default());
    let id = timed.connect(&durable("client"));
    let filters: Vec<String> = (0..MANY / 10).map(numbered).collect();
    timed.subscribe(id, &filters, QoS::AtLeastOnce);
    timed.serve();
    prepared(timed, move |timed| {
        let packet = Packet::Unsubscribe(Unsubscribe {
            packet_id: PacketId::FIRST,
            properties: Properties::EMPTY,
            filters: filters.iter().map(String::as_str).collect(),
        });
        timed.receive(id, packet);
    })
}

pub fn retained(expiry: u32) -> TimedBroker {
    let mut timed = TimedBroker::new(Settings::default());
    let publisher = timed.connect(&durable("publisher"));
    for n in 0..MANY {
        timed.publish(publisher, QoS::AtLeastOnce, &numbered(n), true, expiry);
        if n % 1000 == 0 {
            timed.serve();
        }
    }
    timed.serve();
    timed
}

pub fn expire_retained() -> Prepared {
    prepared(retained(1), |timed| timed.advance(20_000))
}

pub fn retained_replay() -> Prepared {
    prepared(retained(0), |timed| {
        let id = timed.connect(&durable("client"));
        timed.subscribe(id, &["#".into()], QoS::AtMostOnce);
    })
}

pub fn set_acl() -> Prepared {
    let mut timed = TimedBroker::new(Settings::default());
    for (n, id) in { timed.connect_many(MANY, durable) }
        .into_iter()
        .enumerate()
    {
        timed.subscribe(id, &[numbered(n as u32)], QoS::AtLeastOnce);
        timed.serve();
    }
    prepared(timed, |timed| {
        let mut acl = Acl::default();
        for n in 0..10 {
            let filter = format!("plant/{n}/#");
            let added = acl.patterns().add_topic(Permission::ReadWrite, &filter);
            added.expect("a filter");
        }
        let acl = Arc::new(acl);
        timed.call("set_acl", |broker, now| broker.set_acl(Some(acl), now));
    })
}

/// A client with all filters of `a` and `+` over 16 levels, each with its own subscription
/// identifier, and a publisher.
pub fn wildcards() -> (TimedBroker, ConnectionId) {
    let mut timed = TimedBroker::new(in_memory());
    let id = timed.connect(&durable("client"));
    for bits in 0..1_u32 << 16 {
        let level = |at: u32| if bits >> at & 1 == 0 { "a" } else { "+" };
        let filter = (0..16).map(level).collect::<Vec<&str>>().join("/");
        let mut properties = PropertiesBuf::new();
        properties.push(Property::SubscriptionIdentifier(bits + 1));
        let packet = Packet::Subscribe(Subscribe {
            packet_id: PacketId::FIRST,
            properties: properties.as_properties(),
            filters: vec![(&filter, SubscribeOptions::with_qos(QoS::AtMostOnce))],
        });
        timed.receive(id, packet);
        timed.serve_once();
    }
    timed.serve();
    let publisher = timed.connect(&durable("publisher"));
    (timed, publisher)
}

/// A message that is matched against all of them.
pub fn match_filters(levels: usize) -> Prepared {
    let (timed, publisher) = wildcards();
    prepared(timed, move |timed| {
        let topic = vec!["a"; levels].join("/");
        timed.publish(publisher, QoS::AtMostOnce, &topic, false, 0);
    })
}

/// A message that is matched against as many nodes as one client may create with default limits:
/// filters of `a` and `+` with the maximum number of levels, until `max_session_bytes` is reached.
pub fn match_deep_filters() -> Prepared {
    let mut timed = TimedBroker::new(in_memory());
    let id = timed.connect(&durable("client"));
    for bits in 0..1_u32 << 13 {
        let level = |at: u32| if bits >> at & 1 == 0 { "a" } else { "+" };
        let wild = (0..13).map(level);
        let tail = std::iter::repeat_n("a", 186);
        let filter = wild.chain(tail).collect::<Vec<&str>>().join("/");
        timed.subscribe(id, &[filter], QoS::AtMostOnce);
        timed.serve_once();
    }
    timed.serve();
    let publisher = timed.connect(&durable("publisher"));
    prepared(timed, move |timed| {
        let topic = ["a"; 199].join("/");
        timed.publish(publisher, QoS::AtMostOnce, &topic, false, 0);
    })
}

pub fn offer_to_groups() -> Prepared {
    let mut timed = TimedBroker::new(Settings::default());
    let id = timed.connect(&durable("client"));
    for n in 0..MANY / 10 {
        timed.subscribe(id, &[format!("$share/{n}/t")], QoS::AtLeastOnce);
        timed.serve_once();
    }
    timed.close(id);
    timed.serve();
    let publisher = timed.connect(&durable("publisher"));
    prepared(timed, move |timed| {
        timed.publish(publisher, QoS::AtLeastOnce, "t", false, 0);
    })
}
