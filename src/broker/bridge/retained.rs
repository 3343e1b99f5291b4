//! Retained messages of this broker towards the upstream: which there are beside those that are
//! published, and when.

use crate::broker::Broker;
use crate::broker::bridge::rules::{Rule, SendRetained};
use crate::broker::bridge::settings::Bridge;
use crate::broker::model::ids::ConnectionId;
use crate::broker::model::record::SubscriptionRecord;
use crate::wire::QoS;
use crate::wire::packet::{RetainHandling, SubscribeOptions};
use crate::wire::topic::Filter;

/// How a local filter is subscribed to: there is one subscription for all rules that go out with
/// it, at the highest QoS of them; the first says whether it shows what is retained. What came over
/// the bridge does not go back, and retain flags stay.
pub(in crate::broker) fn subscribe_options(rules: &[Rule], local_filter: &str) -> SubscribeOptions {
    let same = rules
        .iter()
        .filter(|rule| rule.goes_out() && rule.local_filter() == local_filter);
    let first = same.clone().next();
    let qos = same.map(Rule::qos).max();
    SubscribeOptions {
        qos: qos.unwrap_or(QoS::AtMostOnce),
        no_local: true,
        retain_as_published: true,
        retain_handling: match first.map(Rule::send_retained) {
            Some(SendRetained::IfNew) => RetainHandling::IfNew,
            // With every connection, and so not now.
            Some(SendRetained::Always | SendRetained::Never) | None => RetainHandling::Never,
        },
    }
}

/// The local filters that are shown what is retained with every connection.
fn shown_always(bridge: &Bridge) -> Vec<&str> {
    let mut seen: Vec<&str> = Vec::new();
    let mut always = Vec::new();
    for rule in bridge.rules.iter().filter(|rule| rule.goes_out()) {
        if seen.contains(&rule.local_filter()) {
            continue;
        }
        seen.push(rule.local_filter());
        if rule.send_retained() == SendRetained::Always {
            always.push(rule.local_filter());
        }
    }
    always
}

impl Broker {
    /// A bridge has connected: what is retained goes out by the rules that always send it.
    pub(in crate::broker) fn replay_to_bridge(&mut self, id: ConnectionId, bridge: &Bridge) {
        let Some(session) = self.connections[id].session() else {
            return;
        };
        for text in shown_always(bridge) {
            let filter = Filter::parse(text).map_or(text, |filter| filter.filter);
            let node = self.tree.find(filter);
            let subscriber = node.and_then(|node| self.tree.subscriber(node, session));
            if let Some(subscriber) = subscriber {
                // The next connection begins it anew, whatever ends this one.
                let options = SubscribeOptions::with_qos(subscriber.qos());
                let record = SubscriptionRecord {
                    options,
                    id: None,
                    replaying: None,
                };
                self.begin_replay(session, filter, subscriber, record);
            }
        }
    }

    /// The connection of a bridge ends: what it had not been shown by then it is shown by the next
    /// one, and so it must not wait in its queue as well.
    pub(in crate::broker) fn end_replays_to_bridge(&mut self, id: ConnectionId, bridge: &Bridge) {
        if let Some(session) = self.connections[id].session() {
            let always = shown_always(bridge);
            let replays = &mut self.sessions[session].replays;
            replays.retain(|replay| !always.contains(&&*replay.filter));
        }
    }
}
