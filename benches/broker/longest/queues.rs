//! Queues and shared groups with many messages, and commits that many connections wait for.

use tidegate::broker::Settings;
use tidegate::wire::packet::Ack;
use tidegate::wire::{Packet, PacketId, Properties, QoS, ReasonCode};

use super::timed::{Client, Prepared, TimedBroker, durable, in_memory, prepared};
use super::{MANY, numbered, topic_t};

/// A disconnected session with this many queued messages.
pub fn queued(settings: Settings, count: u32, expiry: u32) -> TimedBroker {
    let mut timed = TimedBroker::new(settings);
    let id = timed.connect(&durable("client"));
    timed.subscribe(id, &["t".into()], QoS::AtLeastOnce);
    timed.serve();
    timed.close(id);
    timed.publish_many(count, QoS::AtLeastOnce, expiry, topic_t);
    timed
}

pub fn expire_queued() -> Prepared {
    prepared(queued(Settings::default(), 10 * MANY, 1), |timed| {
        timed.advance(30_000)
    })
}

pub fn reconnect_after_expiry() -> Prepared {
    let mut timed = queued(Settings::default(), 10 * MANY, 1);
    timed.advance_clock(1000);
    prepared(timed, |timed| {
        timed.connect(&durable("client"));
    })
}

/// A shared group with disconnected members and queued messages.
pub fn group(members: u32, messages: u32, qos: QoS, settings: Settings) -> TimedBroker {
    let mut timed = TimedBroker::new(settings);
    for id in timed.connect_many(members, durable) {
        timed.subscribe(id, &["$share/g/t".into()], qos);
        timed.serve();
        timed.close(id);
    }
    timed.serve();
    timed.publish_many(messages, QoS::AtLeastOnce, 0, topic_t);
    timed
}

pub fn end_group() -> Prepared {
    let timed = group(1, 10 * MANY, QoS::AtLeastOnce, in_memory());
    prepared(timed, |timed| {
        timed.connect(&Client {
            clean: true,
            ..durable("client 0")
        });
    })
}

pub fn group_to_member() -> Prepared {
    let timed = group(1, MANY, QoS::AtLeastOnce, in_memory());
    prepared(timed, |timed| {
        let id = timed.connect(&durable("client 0"));
        timed.subscribe(id, &["$share/g/t".into()], QoS::AtMostOnce);
    })
}

pub fn member_of_large_group() -> Prepared {
    let timed = group(MANY / 10, 1, QoS::AtLeastOnce, Settings::default());
    prepared(timed, |timed| {
        let id = timed.connect(&durable("client 7"));
        timed.serve();
        timed.close(id);
    })
}

/// All SUBACKs wait for one commit.
pub fn release() -> Prepared {
    let mut timed = TimedBroker::new(Settings::default());
    for id in timed.connect_many(MANY, durable) {
        timed.subscribe(id, &["t".into()], QoS::AtLeastOnce);
    }
    prepared(timed, |_| ())
}

pub fn changed() -> Prepared {
    let mut timed = TimedBroker::new(Settings::default());
    let ids = timed.connect_many(MANY / 2, durable);
    for (n, id) in ids.iter().enumerate() {
        timed.subscribe(*id, &[numbered(n as u32)], QoS::ExactlyOnce);
    }
    timed.serve();
    timed.publish_many(MANY / 2, QoS::ExactlyOnce, 0, numbered);
    timed.serve();
    for id in ids {
        let packet_id = PacketId::FIRST;
        let (reason, properties) = (ReasonCode::Success, Properties::EMPTY);
        timed.receive(
            id,
            Packet::PubRec(Ack {
                packet_id,
                reason,
                properties,
            }),
        );
    }
    prepared(timed, |_| ())
}
