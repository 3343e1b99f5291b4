//! Connections and sessions that are opened, lost, resumed, expired and ended, and the figures
//! about them.

use tidegate::broker::{ConnectionId, Settings};
use tidegate::wire::QoS;

use super::queues::queued;
use super::timed::{Client, Prepared, TimedBroker, durable, in_memory, prepared, wide_limits};
use super::{MANY, numbered, topic_t};

pub fn end_queued(settings: Settings) -> Prepared {
    prepared(queued(settings, 10 * MANY, 0), clean_start)
}

pub fn end_subscriptions() -> Prepared {
    let mut timed = TimedBroker::new(Settings::default());
    let id = timed.connect(&durable("client"));
    for chunk in (0..2 * MANY).collect::<Vec<u32>>().chunks(1000) {
        let filters: Vec<String> = chunk.iter().map(|n| numbered(*n)).collect();
        timed.subscribe(id, &filters, QoS::AtLeastOnce);
        timed.serve();
    }
    timed.close(id);
    prepared(timed, clean_start)
}

pub fn end_groups() -> Prepared {
    let mut timed = TimedBroker::new(Settings::default());
    let id = timed.connect(&durable("client"));
    for chunk in (0..MANY / 10).collect::<Vec<u32>>().chunks(1000) {
        let name = |n: &u32| format!("$share/group/{}", numbered(*n));
        let filters: Vec<String> = chunk.iter().map(name).collect();
        timed.subscribe(id, &filters, QoS::AtLeastOnce);
        timed.serve();
    }
    timed.close(id);
    prepared(timed, clean_start)
}

/// A connected client with as many messages in flight as there are packet identifiers.
pub fn inflight(qos: QoS, filter: &str) -> (TimedBroker, ConnectionId) {
    let mut timed = TimedBroker::new(wide_limits());
    let id = timed.connect(&durable("client"));
    timed.subscribe(id, &[filter.into()], qos);
    timed.serve();
    timed.publish_many(u16::MAX.into(), qos, 0, topic_t);
    (timed, id)
}

pub fn end_inflight() -> Prepared {
    let (timed, id) = inflight(QoS::ExactlyOnce, "t");
    prepared(timed, move |timed| timed.disconnect(id, 0))
}

pub fn close_inflight() -> Prepared {
    let (timed, id) = inflight(QoS::ExactlyOnce, "t");
    prepared(timed, move |timed| timed.close(id))
}

pub fn resume_inflight() -> Prepared {
    let (mut timed, id) = inflight(QoS::ExactlyOnce, "t");
    timed.close(id);
    timed.serve();
    prepared(timed, |timed| {
        timed.connect(&durable("client"));
    })
}

pub fn close_member_inflight() -> Prepared {
    let (mut timed, id) = inflight(QoS::AtLeastOnce, "$share/g/t");
    let other = timed.connect(&durable("other"));
    timed.subscribe(other, &["$share/g/t".into()], QoS::AtLeastOnce);
    timed.serve();
    prepared(timed, move |timed| timed.close(id))
}

pub fn expire_sessions() -> Prepared {
    let mut timed = TimedBroker::new(Settings::default());
    let ids = timed.connect_many(MANY, |id| Client {
        expiry: 1,
        ..durable(id)
    });
    for (n, id) in ids.iter().enumerate() {
        timed.subscribe(*id, &[numbered(n as u32), "all".into()], QoS::AtLeastOnce);
        timed.serve();
    }
    ids.into_iter().for_each(|id| timed.close(id));
    prepared(timed, |_| ())
}

pub fn keep_alives() -> Prepared {
    let mut timed = TimedBroker::new(Settings::default());
    timed.connect_many(MANY, |id| Client {
        keep_alive: 1,
        ..durable(id)
    });
    prepared(timed, |_| ())
}

pub fn wills() -> Prepared {
    let mut timed = TimedBroker::new(Settings::default());
    for n in 0..10 {
        let id = timed.connect(&durable(&format!("watcher {n}")));
        timed.subscribe(id, &["will".into()], QoS::AtMostOnce);
    }
    let will = Some(("will", 1));
    for id in timed.connect_many(MANY, |id| Client {
        will,
        ..durable(id)
    }) {
        timed.close(id);
    }
    timed.serve();
    prepared(timed, |_| ())
}

/// The tables of sessions, names and subscriptions double several times.
pub fn grow() -> Prepared {
    prepared(TimedBroker::new(in_memory()), |timed| {
        for n in 0..10 * MANY {
            let id = timed.connect(&durable(&format!("client {n}")));
            timed.subscribe(id, &[numbered(n)], QoS::AtMostOnce);
            timed.serve_once();
            timed.close(id);
        }
    })
}

pub fn disconnect_all() -> Prepared {
    let mut timed = TimedBroker::new(Settings::default());
    timed.connect_many(MANY, durable);
    prepared(timed, |timed| {
        let access = timed.arrival.access.clone();
        timed.call("send_away", |broker, now| broker.send_away(&access, now));
    })
}

pub fn clean_start(timed: &mut TimedBroker) {
    timed.connect(&Client {
        clean: true,
        ..durable("client")
    });
}

pub fn sys_topics() -> Prepared {
    let mut timed = TimedBroker::new(Settings {
        sys_interval_ms: 1000,
        ..Settings::default()
    });
    for (n, id) in { timed.connect_many(MANY, durable) }
        .into_iter()
        .enumerate()
    {
        timed.subscribe(id, &[numbered(n as u32)], QoS::AtLeastOnce);
    }
    timed.serve();
    prepared(timed, |_| ())
}

pub fn gauges() -> Prepared {
    let mut timed = TimedBroker::new(Settings::default());
    timed.connect_many(MANY, durable);
    prepared(timed, |timed| {
        timed.call("gauges", |broker, _| broker.gauges());
    })
}
