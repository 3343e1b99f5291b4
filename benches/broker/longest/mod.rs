//! The longest call of each operation. While one caller uses the broker, all others wait, so the
//! time of the longest call matters and not that of the whole operation.
//!
//! Each case prepares a state that a user may have, does one thing, and then drives the broker
//! until nothing is left to do. The result is the time of the longest call.

mod queues;
mod sessions;
mod timed;
mod topics;

use std::time::Duration;

use criterion::{Criterion, SamplingMode};

use tidegate::broker::Settings;

use queues::*;
use sessions::*;
use timed::{Prepared, in_memory};
use topics::*;

const MANY: u32 = 100_000;

fn topic_t(_: u32) -> String {
    "t".into()
}

fn numbered(n: u32) -> String {
    format!("plant/{}/{n}", n % 100)
}

/// A name, and the function that prepares the case.
type Case = (&'static str, fn() -> Prepared);

const CASES: [Case; 31] = [
    ("end of a session, 1,000,000 queued", || {
        end_queued(Settings::default())
    }),
    ("end of a session, 1,000,000 queued in memory", || {
        end_queued(in_memory())
    }),
    ("end of a session, 200,000 subscriptions", end_subscriptions),
    ("end of a session, member of 10,000 groups", end_groups),
    ("end of a session, 65,535 in flight", end_inflight),
    ("connection lost, 65,535 in flight", close_inflight),
    ("connection resumed, 65,535 in flight", resume_inflight),
    ("member lost, 65,535 in flight", close_member_inflight),
    ("100,000 sessions expire", expire_sessions),
    ("100,000 keep alives", keep_alives),
    ("100,000 wills are due", wills),
    ("1,000,000 queued messages expire", expire_queued),
    (
        "client comes back for 1,000,000 expired messages",
        reconnect_after_expiry,
    ),
    ("$SYS with 100,000 sessions", sys_topics),
    ("gauges with 100,000 sessions", gauges),
    ("a commit releases 100,000 connections", release),
    ("a batch with 50,000 changed sessions", changed),
    ("SUBSCRIBE with 10,000 filters", subscribe_many),
    ("UNSUBSCRIBE with 10,000 filters", unsubscribe_many),
    ("end of a group, 1,000,000 queued in memory", end_group),
    ("a member takes 100,000 at QoS 0", group_to_member),
    (
        "a member of a group of 10,000 comes and goes",
        member_of_large_group,
    ),
    ("100,000 retained messages expire", expire_retained),
    ("replay of 100,000 retained messages", retained_replay),
    ("new rights for 100,000 sessions", set_acl),
    ("100,000 connections closed by the broker", disconnect_all),
    ("1,000,000 sessions are made", grow),
    ("PUBLISH past 65,536 filters of a and +", || {
        match_filters(15)
    }),
    ("PUBLISH that 65,536 filters of one client match", || {
        match_filters(16)
    }),
    (
        "PUBLISH past 1,500,000 nodes, as many as one client may make",
        match_deep_filters,
    ),
    ("PUBLISH to 10,000 shared groups", offer_to_groups),
];

/// The longest call in each case.
pub fn longest(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("longest calls");
    group.sample_size(10);
    // Preparation takes far longer than the measurement.
    group.sampling_mode(SamplingMode::Flat);
    group.warm_up_time(Duration::from_nanos(1));
    group.measurement_time(Duration::from_nanos(1));
    for (name, prepare) in CASES {
        let mut worst = (Duration::ZERO, "");
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let mut sum = Duration::ZERO;
                for _ in 0..rounds {
                    let (mut timed, action) = prepare();
                    timed.longest = (Duration::ZERO, "");
                    action(&mut timed);
                    timed.advance(1600);
                    sum += timed.longest.0;
                    worst = worst.max(timed.longest);
                }
                sum
            });
        });
        if worst.0 > Duration::ZERO {
            println!("{name}: {:?} in {}", worst.0, worst.1);
        }
    }
    group.finish();
}
