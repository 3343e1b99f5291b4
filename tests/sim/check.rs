//! The checkers: one function a promise. What the simulator cannot know (a request whose answer was
//! lost, a crash before the answer) is left open.

use std::collections::{BTreeMap, BTreeSet};

use super::client::Client;
use super::expected::{Expected, Fate, SLACK_MS};
use super::history::{Delivery, History, Life, Message, Subscribed, Violation};
use super::plan::{Plan, Role, SubscriptionPlan};
use super::replay;
use crate::broker::record::Durability;
use crate::wire::topic;

const SHARED: &str = "$share/";

/// All that is judged.
pub struct Evidence<'a> {
    pub plan: &'a Plan,
    pub history: &'a History,
    pub clients: &'a [Client],
    pub expected: &'a [Expected],
    /// When it ended, in broker time.
    pub ms: u64,
    /// Deliveries the broker says it dropped because a queue was full; counted since its last
    /// start.
    pub dropped: u64,
}

type Checked = Result<(), Violation>;

/// All of them.
pub fn all(evidence: &Evidence<'_>) -> Checked {
    at_least_once(evidence)?;
    exactly_once(evidence)?;
    in_order(evidence)?;
    only_to_subscribers(evidence)?;
    subscription_ids(evidence)?;
    shared_groups(evidence)?;
    wills(evidence)?;
    replay::at_least_once(evidence)?;
    replay::exact(evidence)?;
    retained_is_last(evidence)
}

impl Evidence<'_> {
    /// Clients with the session they have at the end.
    fn sessions(&self) -> impl Iterator<Item = (&Client, &Life, usize)> {
        self.clients.iter().filter_map(|client| {
            let life = &self.history.lives[client.number];
            Some((client, life, life.session()?))
        })
    }

    /// How often a message of QoS 2 may come.
    fn most_times(&self, number: usize) -> usize {
        let message = &self.history.messages[number];
        match self.plan.level(&message.topic) {
            Durability::Memory => message.lives().max(1),
            _ => 1,
        }
    }

    /// Messages that can be told apart and that clients published.
    fn messages(&self) -> impl Iterator<Item = (usize, &Message)> {
        let all = self.history.messages.iter().enumerate();
        all.filter(|(_, message)| !message.empty && !message.will && !message.handled.is_empty())
    }
}

/// The QoS a client must get a message with, if it must get it: it was subscribed each time the
/// broker was handed it, in this session.
fn owed(client: &Client, life: &Life, session: usize, message: &Message) -> Option<u8> {
    let began = life.sessions[session].began;
    let own = client.plan.no_local;
    let fits = client.plan.takes(message.size);
    if own || !fits || message.handled.iter().any(|moment| moment.order < began) {
        return None;
    }
    let subscribed = |plan: &&SubscriptionPlan| {
        topic::matches(&plan.filter, &message.topic)
            && message
                .handled
                .iter()
                .all(|moment| life.subscribed(&plan.filter, moment.order) == Subscribed::Yes)
    };
    let granted = client.plan.subscriptions.iter().filter(subscribed);
    granted.map(|plan| plan.qos.min(message.qos)).max()
}

/// Whether a client asks for messages of this topic at all.
fn may_match(client: &Client, message: &Message) -> bool {
    let mut plans = client.plan.subscriptions.iter();
    plans.any(|plan| topic::matches(&plan.filter, &message.topic))
}

fn deliveries(life: &Life, session: usize) -> impl Iterator<Item = &Delivery> {
    let all = life.deliveries.iter();
    all.filter(move |delivery| delivery.session == session && !delivery.retain)
}

/// QoS 1 and 2: what was acknowledged to its publisher reaches every subscriber, through any crash
/// [MQTT-4.3.2, MQTT-4.3.3]. Where queues are short, as many are missing as the broker says it
/// dropped.
fn at_least_once(evidence: &Evidence<'_>) -> Checked {
    let limited = evidence.plan.limits.max_queued_messages < 1000;
    let (mut missing, mut unknown) = (0, 0);
    for (client, life, session) in evidence.sessions() {
        let mut got: BTreeMap<usize, usize> = BTreeMap::new();
        for delivery in deliveries(life, session) {
            *got.entry(delivery.message).or_default() += 1;
        }
        for (number, message) in evidence.messages() {
            let qos = owed(client, life, session, message).unwrap_or(0);
            let count = got.get(&number).copied().unwrap_or(0);
            unknown += u64::from(count == 0 && may_match(client, message));
            if qos == 0 || message.acknowledged.is_none() || message.expiry.is_some() {
                continue;
            }
            if message.lost {
                continue; // Its level allows that.
            }
            missing += u64::from(count == 0);
            let wrong = count == 0 && !limited || count > 1 && evidence.plan.calm;
            if wrong {
                let what = format!(
                    "{} got message {number} to {} {count} times",
                    client.plan.name, message.topic
                );
                return Err(Violation::new("QoS 1: at least once", what));
            }
        }
    }
    let mut clients = evidence.clients.iter();
    if clients.any(|client| client.plan.role == Role::Breaker) {
        unknown = u64::MAX; // What is dropped from its queue nobody can tell but the broker.
    }
    if limited && !(missing..=unknown).contains(&evidence.dropped) {
        let what = format!(
            "{missing} to {unknown} are missing; the broker counted {}",
            evidence.dropped
        );
        return Err(Violation::new("what is dropped is counted", what));
    }
    Ok(())
}

/// QoS 2: never twice in a session [MQTT-4.3.3]. A broker that keeps a topic in memory may be
/// handed a message of it once in each of its lives.
fn exactly_once(evidence: &Evidence<'_>) -> Checked {
    for client in evidence.clients {
        let mut seen: BTreeMap<(usize, usize), usize> = BTreeMap::new();
        let life = &evidence.history.lives[client.number];
        let exact = life.deliveries.iter().filter(|delivery| {
            delivery.qos == 2
                && !delivery.retain
                && !evidence.history.messages[delivery.message].will
        });
        for delivery in exact {
            let count = seen.entry((delivery.session, delivery.message));
            let count = count.or_default();
            *count += 1;
            if *count > evidence.most_times(delivery.message) {
                let what = format!(
                    "{} got message {} twice",
                    client.plan.name, delivery.message
                );
                return Err(Violation::new("QoS 2: exactly once", what));
            }
        }
    }
    Ok(())
}

/// Messages of a topic come in the order in which the broker was handed them, and those of one
/// publisher in the order in which it sent them [MQTT-4.6.0]; a repetition does not count.
fn in_order(evidence: &Evidence<'_>) -> Checked {
    for client in evidence.clients {
        let life = &evidence.history.lives[client.number];
        let mut seen = BTreeSet::new();
        let mut last_handled = BTreeMap::new();
        let mut last_published = BTreeMap::new();
        for delivery in life.deliveries.iter().filter(|delivery| !delivery.retain) {
            let message = &evidence.history.messages[delivery.message];
            if message.will
                || message.topic.starts_with("s/")
                || !seen.insert((delivery.session, delivery.message))
            {
                continue;
            }
            let lane = (delivery.session, message.topic.as_str(), delivery.qos == 0);
            let mut wrong = None;
            if let [moment] = message.handled.as_slice() {
                wrong = last_handled
                    .insert(lane, (moment.order, delivery.message))
                    .filter(|(before, _)| *before > moment.order);
            }
            // Of what was handed over twice the second may come first, unless the first time the
            // client was subscribed and it could not expire.
            let owed = owed(client, life, delivery.session, message).unwrap_or(0);
            let before = (owed > 0 && delivery.qos > 0 && message.expiry.is_none())
                .then(|| last_published.insert((lane, message.publisher), delivery.message))
                .flatten()
                .filter(|before| *before > delivery.message);
            if let Some(before) = wrong.map(|(_, before)| before).or(before) {
                let what = format!(
                    "{} got message {} after {before}",
                    client.plan.name, delivery.message
                );
                return Err(Violation::new("order per topic", what));
            }
        }
    }
    Ok(())
}

/// Nobody gets what it was not subscribed to at any time the broker was handed it.
fn only_to_subscribers(evidence: &Evidence<'_>) -> Checked {
    for client in evidence.clients {
        let life = &evidence.history.lives[client.number];
        for delivery in life.deliveries.iter().filter(|delivery| !delivery.retain) {
            let message = &evidence.history.messages[delivery.message];
            let own = client.plan.no_local && message.publisher == client.number;
            let allowed = message.will
                || client.plan.subscriptions.iter().any(|plan| {
                    let shared = plan.filter.starts_with(SHARED) && message.topic.starts_with("s/");
                    let matching = shared || topic::matches(&plan.filter, &message.topic);
                    let subscribed = |order| life.subscribed(&plan.filter, order);
                    matching
                        && message
                            .handled
                            .iter()
                            // What waits in a group is for members that come later, too.
                            .any(|at| shared || subscribed(at.order) != Subscribed::No)
                });
            if !allowed || own {
                let what = format!(
                    "{} got message {} to {}",
                    client.plan.name, delivery.message, message.topic
                );
                return Err(Violation::new("only to subscribers", what));
            }
        }
    }
    Ok(())
}

/// A delivery names each matching subscription that has an identifier, once [MQTT-3.3.4-3,
/// MQTT-3.3.4-4, MQTT-3.3.4-5].
fn subscription_ids(evidence: &Evidence<'_>) -> Checked {
    for client in evidence.clients {
        let life = &evidence.history.lives[client.number];
        for delivery in life.deliveries.iter().filter(|delivery| !delivery.retain) {
            let message = &evidence.history.messages[delivery.message];
            if message.will || message.topic.starts_with("s/") {
                continue;
            }
            let mut wanted = Vec::new();
            let mut known = true;
            for plan in &client.plan.subscriptions {
                if !topic::matches(&plan.filter, &message.topic) {
                    continue;
                }
                let mut states = message
                    .handled
                    .iter()
                    .map(|moment| life.subscribed(&plan.filter, moment.order));
                let first = states.next().unwrap_or(Subscribed::Unknown);
                known &= first != Subscribed::Unknown && states.all(|state| state == first);
                wanted.extend(plan.id.filter(|_| first == Subscribed::Yes));
            }
            let mut got = delivery.ids.clone();
            got.sort_unstable();
            wanted.sort_unstable();
            if known && got != wanted {
                let what = format!(
                    "{}: message {} names {got:?}, not {wanted:?}",
                    client.plan.name, delivery.message
                );
                return Err(Violation::new("subscription identifiers", what));
            }
        }
    }
    Ok(())
}

/// Acknowledged messages to a shared group that no member got.
fn lost_by_groups(evidence: &Evidence<'_>) -> Vec<usize> {
    let members: Vec<&Client> = evidence
        .clients
        .iter()
        .filter(|client| shared_plan(client).is_some())
        .collect();
    // The group lives as long as this member, and that is for ever.
    let Some((anchor, plan)) = members
        .iter()
        .find_map(|client| Some((client.number, shared_plan(client)?)))
        .filter(|(_, plan)| !plan.toggles)
    else {
        return Vec::new();
    };
    let got: BTreeSet<usize> = members
        .iter()
        .flat_map(|client| &evidence.history.lives[client.number].deliveries)
        .map(|delivery| delivery.message)
        .collect();
    let life = &evidence.history.lives[anchor];
    let owed = evidence.messages().filter(|(_, message)| {
        message.topic.starts_with("s/")
            && message.qos > 0
            && message.expiry.is_none()
            && message.acknowledged.is_some()
            && !message.lost
            && message
                .handled
                .iter()
                .all(|moment| life.subscribed(&plan.filter, moment.order) == Subscribed::Yes)
    });
    owed.map(|(number, _)| number)
        .filter(|number| !got.contains(number))
        .collect()
}

fn shared_plan(client: &Client) -> Option<&SubscriptionPlan> {
    let mut plans = client.plan.subscriptions.iter();
    plans.find(|plan| plan.filter.starts_with(SHARED))
}

/// A shared group loses nothing, and gives each QoS 2 message to one member, once; QoS 1 messages
/// too where nothing goes wrong.
fn shared_groups(evidence: &Evidence<'_>) -> Checked {
    let limited = evidence.plan.limits.max_queued_messages < 1000;
    if let Some(number) = lost_by_groups(evidence).first().filter(|_| !limited) {
        return Err(Violation::new(
            "a shared group loses none",
            format!("message {number}"),
        ));
    }
    let mut seen = BTreeMap::new();
    for client in evidence.clients {
        for delivery in &evidence.history.lives[client.number].deliveries {
            let message = &evidence.history.messages[delivery.message];
            let exact = delivery.qos == 2 || evidence.plan.calm;
            if !message.topic.starts_with("s/") || !exact {
                continue;
            }
            let (count, other) = seen.entry(delivery.message).or_insert((0, ""));
            *count += 1;
            let other = std::mem::replace(other, &client.plan.name);
            if *count > evidence.most_times(delivery.message) {
                let what = format!(
                    "message {} to {other} and {}",
                    delivery.message, client.plan.name
                );
                return Err(Violation::new(
                    "a shared group delivers to one member",
                    what,
                ));
            }
        }
    }
    Ok(())
}

/// A will comes exactly once when it must, and never when it must not [MQTT-3.1.2-8, MQTT-3.1.2-10,
/// MQTT-3.1.3-9].
fn wills(evidence: &Evidence<'_>) -> Checked {
    let witness = &evidence.history.lives[0];
    let mut got: BTreeMap<usize, usize> = BTreeMap::new();
    for delivery in &witness.deliveries {
        *got.entry(delivery.message).or_default() += 1;
    }
    for (number, fate) in evidence.expected.iter().flat_map(Expected::fates) {
        let count = got.get(&number).copied().unwrap_or(0);
        let once = evidence.history.messages[number].qos == 2;
        let right = match fate {
            Fate::Never | Fate::Armed => count == 0,
            Fate::Open => count <= 1 || !once,
            Fate::Due(due) if due.high.saturating_add(SLACK_MS) < evidence.ms => {
                count == 1 || count > 1 && !once
            }
            Fate::Due(_) => count <= 1 || !once,
        };
        if !right {
            let message = &evidence.history.messages[number];
            let what = format!(
                "{}: will {number} came {count} times, {fate:?}",
                message.topic
            );
            return Err(Violation::new("a will is published once or never", what));
        }
    }
    Ok(())
}

/// What a last look at retained messages shows is the last write of each topic. That nothing older
/// is shown is checked on arrival.
fn retained_is_last(evidence: &Evidence<'_>) -> Checked {
    for client in evidence.clients {
        let missing = client.missing_retained(evidence.history);
        if let Some(missing) = missing.filter(|_| client.plan.name == "last") {
            return Err(missing);
        }
    }
    Ok(())
}
