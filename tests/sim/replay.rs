//! Retained messages for a SUBSCRIBE: what it must be shown, and whether it was.
//!
//! A SUBSCRIBE that was acknowledged is shown what is retained at that time, through any crash, at
//! QoS 1 and 2 at least once [MQTT-3.3.1-9]. A message that is replaced meanwhile may be shown in
//! its new form; one that is cleared need not be shown.

use std::collections::BTreeMap;

use super::check::Evidence;
use super::client::Client;
use super::history::{History, Violation};
use crate::wire::topic;

/// What one SUBSCRIBE must be shown.
#[derive(Clone, Debug)]
pub struct Replay {
    pub filter: String,
    /// The QoS it asks for.
    qos: u8,
    /// The client's session.
    session: usize,
    /// How many deliveries the client had before.
    before: usize,
    /// By topic, the oldest retained write that may be shown.
    pub floors: BTreeMap<String, usize>,
    /// SUBACK has come.
    pub answered: bool,
    /// The client has unsubscribed since.
    pub dropped: bool,
}

impl History {
    /// A client sends SUBSCRIBE.
    pub fn asks_for_retained(&mut self, client: usize, filter: &str, qos: u8) {
        let floors = self.retained_floors();
        let life = &mut self.lives[client];
        let Some(session) = life.session() else {
            return;
        };
        life.replays.push(Replay {
            filter: filter.to_owned(),
            qos,
            session,
            before: life.deliveries.len(),
            floors,
            answered: false,
            dropped: false,
        });
    }

    /// A client gets SUBACK for its last SUBSCRIBE with this filter.
    pub fn subscribed_to_retained(&mut self, client: usize, filter: &str) {
        let mut replays = self.lives[client].replays.iter_mut().rev();
        if let Some(replay) = replays.find(|replay| replay.filter == filter) {
            replay.answered = true;
        }
    }

    /// A client sends UNSUBSCRIBE: nothing more need be shown.
    pub fn drops_retained(&mut self, client: usize, filter: &str) {
        let replays = self.lives[client].replays.iter_mut();
        let of_filter = replays.filter(|replay| replay.filter == filter);
        of_filter.for_each(|replay| replay.dropped = true);
    }

    /// A crash may have made older retained messages the last ones again.
    pub fn lower_replays(&mut self, now: &BTreeMap<String, usize>) {
        let lives = self.lives.iter_mut();
        for replay in lives.flat_map(|life| &mut life.replays) {
            lower(&mut replay.floors, now);
        }
    }
}

/// Lowers floors to what they would be now.
pub fn lower(floors: &mut BTreeMap<String, usize>, now: &BTreeMap<String, usize>) {
    floors.retain(|topic, floor| match now.get(topic) {
        Some(now) => {
            *floor = (*now).min(*floor);
            true
        }
        None => false,
    });
}

/// Each SUBSCRIBE is shown what it must be shown.
pub fn at_least_once(evidence: &Evidence<'_>) -> Result<(), Violation> {
    for client in evidence.clients {
        let life = &evidence.history.lives[client.number];
        let due = life.replays.iter().filter(|replay| {
            let goes_on = Some(replay.session) == life.session();
            replay.qos > 0 && replay.answered && !replay.dropped && goes_on
        });
        for replay in due {
            if let Some(topic) = missing(evidence.history, client, replay) {
                let what = format!(
                    "{} subscribed to {}: {topic} is missing, write {} was known before",
                    client.plan.name, replay.filter, replay.floors[topic]
                );
                return Err(Violation::new("retained: at least once", what));
            }
        }
    }
    Ok(())
}

/// The first topic that a client was not shown and had to be.
fn missing<'a>(history: &History, client: &Client, replay: &'a Replay) -> Option<&'a str> {
    let life = &history.lives[client.number];
    let shown: Vec<usize> = life.deliveries[replay.before..]
        .iter()
        .filter(|delivery| delivery.retain)
        .map(|delivery| delivery.message)
        .collect();
    let wanted = replay.floors.iter().find(|(topic, floor)| {
        let mut writes = history.retained[*topic][**floor..].iter();
        let is_due = topic::matches(&replay.filter, topic)
            && writes.clone().all(|write| {
                let message = &history.messages[write.message];
                let own = client.plan.no_local && message.publisher == client.number;
                let fits = client.plan.takes(message.size);
                message.qos > 0 && !message.empty && fits && !own
            });
        is_due && !writes.any(|write| shown.contains(&write.message))
    });
    wanted.map(|(topic, _)| topic.as_str())
}

/// What is retained comes with the lower one of the QoS it was published with and the QoS that was
/// granted [MQTT-3.8.4-8], and where nothing goes wrong once for each SUBSCRIBE.
pub fn exact(evidence: &Evidence<'_>) -> Result<(), Violation> {
    for client in evidence.clients {
        let life = &evidence.history.lives[client.number];
        let mut shown: BTreeMap<usize, usize> = BTreeMap::new();
        for delivery in life.deliveries.iter().filter(|delivery| delivery.retain) {
            let message = &evidence.history.messages[delivery.message];
            let matching = || {
                let replays = life.replays.iter();
                replays.filter(|replay| topic::matches(&replay.filter, &message.topic))
            };
            let count = shown.entry(delivery.message).or_default();
            *count += 1;
            let right = matching().any(|replay| replay.qos.min(message.qos) == delivery.qos);
            if !right || evidence.plan.calm && *count > matching().count() {
                let what = format!(
                    "{} got {} with QoS {}, {count} times: published with {}, subscribed to {} times",
                    client.plan.name,
                    message.topic,
                    delivery.qos,
                    message.qos,
                    matching().count()
                );
                return Err(Violation::new("retained: as published and granted", what));
            }
        }
    }
    Ok(())
}
