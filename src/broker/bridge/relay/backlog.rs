//! Retained messages that go both ways: an old value of the upstream must not replace a newer one
//! that waits here.
//!
//! The upstream shows what it retains when it is subscribed to. While messages from before the
//! connection wait, that may be older than what they will make of it. So it is asked for behind
//! them. In MQTT 5, the subscription is made at once without retained messages, and made again when
//! the backlog is acknowledged. In MQTT 3.1.1, it is made only then. While a retained message waits
//! to go out, one that comes in for its topic is not taken: the upstream will have the one that
//! waits.

use crate::broker::Broker;
use crate::broker::bridge::relay::Relay;
use crate::broker::bridge::rules::Rule;
use crate::broker::model::ids::ConnectionId;
use crate::broker::model::record::Seq;
use crate::clock::Now;
use crate::wire::ProtocolVersion;
use crate::wire::packet::{RetainHandling, SubscribeOptions};

impl Relay {
    /// Keeps back, of what is to be subscribed to, what has to follow the messages that wait; what
    /// is left goes at once.
    pub(in crate::broker) fn keep_behind_backlog<'r>(
        &mut self,
        filters: Vec<(&'r str, SubscribeOptions)>,
        broker: &Broker,
    ) -> Vec<(&'r str, SubscribeOptions)> {
        self.behind.end = broker.messages.next_seq();
        self.behind.filters.clear();
        if !broker.waits_before(self.id, self.behind.end) {
            return filters;
        }
        let mut at_once = Vec::with_capacity(filters.len());
        for (filter, options) in filters {
            let shows = options.retain_handling != RetainHandling::Never;
            if !shows || !self.goes_both_ways(filter) {
                at_once.push((filter, options));
                continue;
            }
            let mut later = options;
            if self.upstream.version == ProtocolVersion::V5 && !self.upstream.session_present {
                let quiet = SubscribeOptions {
                    retain_handling: RetainHandling::Never,
                    ..options
                };
                at_once.push((filter, quiet));
                // By then the subscription is not new.
                later.retain_handling = RetainHandling::OnSubscribe;
            }
            self.behind.filters.push((filter.to_owned(), later));
        }
        at_once
    }

    fn goes_both_ways(&self, remote_filter: &str) -> bool {
        let rules = &self.bridge.rules;
        let mut same = rules
            .iter()
            .filter(|rule| rule.goes_in() && rule.remote_filter() == remote_filter);
        same.any(|rule| rule.meets_what_goes_out(rules))
    }

    /// Whether all subscriptions have been asked for.
    pub(in crate::broker) fn has_followed_backlog(&self) -> bool {
        self.behind.filters.is_empty()
    }

    /// Subscribes to what was kept back, when the messages that waited have been acknowledged.
    pub(in crate::broker) fn follow_backlog(
        &mut self,
        broker: &mut Broker,
        out: &mut Vec<u8>,
        now: Now,
    ) {
        if self.behind.filters.is_empty()
            || !self.subscribes.is_empty()
            || self.is_trying_filters()
            || self.finishing
            || broker.waits_before(self.id, self.behind.end)
        {
            return;
        }
        let filters = std::mem::take(&mut self.behind.filters);
        let filters: Vec<(&str, SubscribeOptions)> = filters
            .iter()
            .map(|(filter, options)| (filter.as_str(), *options))
            .collect();
        self.subscribe_all(&filters, broker, out, now);
    }

    /// Whether a retained message of the upstream is older than one that waits to go there.
    pub(in crate::broker) fn is_overtaken(&self, rule: &Rule, broker: &Broker) -> bool {
        rule.meets_what_goes_out(&self.bridge.rules) && broker.retained_waits(self.id, &self.name)
    }
}

impl Broker {
    /// Whether a message of before this one waits for a bridge, or is not acknowledged completely.
    fn waits_before(&self, id: ConnectionId, end: Seq) -> bool {
        let Some(session) = self.connections[id].session() else {
            return false;
        };
        let session = &self.sessions[session];
        let waiting = session.queue.front().map(|item| item.seq);
        let oldest = session.inflight.oldest().into_iter().chain(waiting).min();
        oldest.is_some_and(|seq| seq < end)
    }

    /// Whether a retained message to this topic waits for a bridge or is on its way, as far as
    /// bodies are in memory.
    fn retained_waits(&self, id: ConnectionId, topic: &str) -> bool {
        let Some(session) = self.connections[id].session() else {
            return false;
        };
        let session = &self.sessions[session];
        let mut items = session
            .inflight
            .items()
            .chain(session.queue.messages_from(Seq(0)).take(WAITING));
        items.any(|item| {
            let body = item.body.as_ref();
            item.retain && body.is_some_and(|body| body.topic() == topic)
        })
    }
}

/// Messages that wait that are looked at for each retained one that comes in.
const WAITING: usize = 1024;
