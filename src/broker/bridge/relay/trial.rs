//! One message or filter at a time, when connections have died on something: see
//! [`suspicion`](crate::broker::state::suspicion).

use crate::broker::Broker;
use crate::broker::bridge::relay::Relay;
use crate::broker::bridge::rules::Rule;
use crate::broker::model::ids::ConnectionId;
use crate::broker::model::leave::Leave;
use crate::broker::model::local::LocalDelivery;
use crate::broker::model::record::Seq;
use crate::broker::state::suspicion::{End, PINGS, Suspect, Suspicion};
use crate::clock::Now;
use crate::wire::PacketId;
use crate::wire::packet::SubscribeOptions;

impl Relay {
    /// Begins a connection as what is known of those before it asks for.
    pub(in crate::broker) fn begin_trials(&mut self, broker: &mut Broker) {
        let rules = self.bridge.rules.iter().filter(|rule| rule.goes_in());
        let filters: Vec<&str> = rules.map(Rule::remote_filter).collect();
        let seqs = broker.seqs_of_bridge(self.id);
        let suspicion = broker.suspicion(&self.bridge.name);
        suspicion.keep(|suspect| match suspect {
            Suspect::Message(seq) => seqs.contains(seq),
            Suspect::Filter(filter) => filters.contains(&&**filter),
        });
        self.trial.careful = suspicion.is_careful();
        self.limit_window(broker);
    }

    fn limit_window(&self, broker: &mut Broker) {
        let window = if self.trial.careful { 1 } else { self.window };
        broker.connections[self.id].set_receive_maximum(window);
        broker.touch(self.id);
    }

    /// Keeps a message of this broker's, while one at a time goes out, until its turn comes.
    pub(in crate::broker) fn hold(
        &mut self,
        delivery: LocalDelivery,
        broker: &mut Broker,
        out: &mut Vec<u8>,
        now: Now,
    ) -> Result<(), Leave> {
        let Some(packet_id) = delivery.packet_id else {
            return Ok(());
        };
        let seq = broker.seq_of_delivery(self.id, packet_id);
        let suspicion = broker.suspicion(&self.bridge.name);
        let sentence = seq.and_then(|seq| suspicion.sentence(seq));
        if let Some(why) = sentence.map(str::to_owned) {
            self.set_aside(packet_id, &why, broker, now)?;
            self.acquit_message(seq, broker);
            return Ok(());
        }
        let length = delivery.message.size() as usize;
        self.trial.held = Some(delivery);
        self.begin_probation(length, broker, out, now);
        Ok(())
    }

    /// The connection must show that it works before something of this length is tried on it.
    fn begin_probation(&mut self, length: usize, broker: &mut Broker, out: &mut Vec<u8>, now: Now) {
        let probation = broker.suspicion(&self.bridge.name).probation();
        self.trial.until = Some(now.uptime + probation);
        for _ in 0..length.div_ceil(2).clamp(1, PINGS) {
            self.ping(out, now);
        }
    }

    /// Tries what is next, when the connection has shown that it works.
    pub(in crate::broker) fn go_on_trying(
        &mut self,
        broker: &mut Broker,
        out: &mut Vec<u8>,
        now: Now,
    ) -> Result<(), Leave> {
        if self.trial.retry.is_some_and(|at| now.uptime >= at) && !self.finishing {
            self.trial.retry = None;
            let bridge = std::sync::Arc::clone(&self.bridge);
            let filters = self.filters_of(&bridge);
            let missed = |it: &(&str, SubscribeOptions)| {
                let mut refused = self.refused.iter();
                refused.any(|(refused, _)| refused == it.0)
            };
            let filters = filters.into_iter().filter(missed).collect();
            // What was refused in so many words is asked for again with the next connection.
            let _ = self.sort_out_filters(filters, broker, now);
        }
        let is_idle = self.subscribes.is_empty() && self.awaiting.is_empty();
        if is_idle
            && self.trial.until.is_none()
            && let Some((filter, _)) = self.trial.filters.front()
        {
            self.begin_probation(filter.len(), broker, out, now);
        }
        let passed = self.trial.until.is_some_and(|until| now.uptime >= until) && self.pings == 0;
        if !passed || !is_idle {
            return Ok(());
        }
        self.trial.until = None;
        if let Some((filter, options)) = self.trial.filters.pop_front() {
            self.trial.on = Some((Suspect::Filter(filter.as_str().into()), now.uptime));
            self.subscribe(&[(filter.as_str(), options)], broker, out, now);
        } else if let Some(delivery) = self.trial.held.take() {
            let packet_id = delivery.packet_id;
            let seq = packet_id.and_then(|id| broker.seq_of_delivery(self.id, id));
            self.trial.on = seq.map(|seq| (Suspect::Message(seq), now.uptime));
            self.send_publish(&delivery, broker, out, now)?;
            if packet_id.is_none_or(|id| !self.awaiting.contains(&id)) {
                self.acquit_message(seq, broker);
            }
        }
        Ok(())
    }

    /// Whether filters are still to be tried: nothing of the broker is handed on meanwhile.
    pub(in crate::broker) fn is_trying_filters(&self) -> bool {
        !self.trial.filters.is_empty()
    }

    /// Sorts out what is to be subscribed to: what is left goes at once, what is suspect is tried, and what is set aside is not asked for.
    pub(in crate::broker) fn sort_out_filters<'r>(
        &mut self,
        filters: Vec<(&'r str, SubscribeOptions)>,
        broker: &mut Broker,
        now: Now,
    ) -> Vec<(&'r str, SubscribeOptions)> {
        let mut at_once = Vec::with_capacity(filters.len());
        for (filter, options) in filters {
            let suspicion = broker.suspicion(&self.bridge.name);
            match suspicion.shunned_until(filter) {
                Some(until) if until > now.uptime => {
                    let retry = self.trial.retry.unwrap_or(u64::MAX);
                    self.trial.retry = Some(until.min(retry));
                    let why = "it closes the connection when it is asked for it, and is asked again later";
                    self.refused.retain(|(refused, _)| refused != filter);
                    self.refused.push((filter.to_owned(), why.to_owned()));
                }
                None if !suspicion.suspects_filter(filter) => at_once.push((filter, options)),
                _ => self.trial.filters.push_back((filter.to_owned(), options)),
            }
        }
        at_once
    }

    /// When [`Relay::go_on_trying`] has something to do.
    pub(in crate::broker) fn next_trial(&self) -> u64 {
        let retry = self.trial.retry.unwrap_or(u64::MAX);
        let until = self.trial.until.filter(|_| self.pings == 0);
        until.unwrap_or(u64::MAX).min(retry)
    }

    /// The upstream has answered a message. Call it while the delivery is known.
    pub(in crate::broker) fn answered(&mut self, packet_id: PacketId, broker: &mut Broker) {
        if self.trial.careful {
            let seq = broker.seq_of_delivery(self.id, packet_id);
            self.acquit_message(seq, broker);
        }
    }

    fn acquit_message(&mut self, seq: Option<Seq>, broker: &mut Broker) {
        if let Some(seq) = seq {
            self.acquit(&Suspect::Message(seq), broker);
        }
    }

    /// The upstream has answered for a filter.
    pub(in crate::broker) fn answered_filter(&mut self, filter: &str, broker: &mut Broker) {
        self.acquit(&Suspect::Filter(filter.into()), broker);
    }

    fn acquit(&mut self, suspect: &Suspect, broker: &mut Broker) {
        if self.trial.on.as_ref().is_some_and(|(it, _)| it == suspect) {
            self.trial.on = None;
        }
        let suspicion = broker.suspicion(&self.bridge.name);
        suspicion.acquit(suspect);
        let careful = suspicion.is_careful();
        if self.trial.careful && !careful && self.trial.held.is_none() {
            self.trial.careful = false;
            self.limit_window(broker);
        }
    }

    /// Notes how the connection has ended. Call it before [`Relay::close`].
    pub fn ended(&mut self, end: &End, broker: &mut Broker, now: Now) {
        let unanswered: Vec<Suspect> = if self.subscribes.is_empty() {
            let sent = self.awaiting.difference(&self.received);
            let seqs = sent.filter_map(|id| broker.seq_of_delivery(self.id, *id));
            let mut seqs: Vec<Seq> = seqs.collect();
            seqs.sort_unstable();
            seqs.into_iter().map(Suspect::Message).collect()
        } else {
            let mut asked: Vec<_> = self.subscribes.iter().collect();
            asked.sort_unstable_by_key(|(id, _)| std::cmp::Reverse(**id));
            let filters = asked.into_iter().flat_map(|(_, filters)| filters);
            filters
                .map(|filter| Suspect::Filter(filter.as_str().into()))
                .collect()
        };
        let trial = self.trial.on.take();
        let trial = trial.map(|(it, since)| (it, now.uptime.saturating_sub(since)));
        let name = &self.bridge.name;
        let suspicion = broker.suspicion(name);
        suspicion.ended(name, end, unanswered, trial, now.uptime);
    }
}

impl Broker {
    fn suspicion(&mut self, name: &str) -> &mut Suspicion {
        let state = self.bridges.states.entry(name.into()).or_default();
        &mut state.suspicion
    }

    /// The messages on their way to a bridge.
    fn seqs_of_bridge(&self, id: ConnectionId) -> Vec<Seq> {
        let session = self.connections[id].session();
        session.map_or_else(Vec::new, |session| self.sessions[session].inflight.seqs())
    }

    fn seq_of_delivery(&self, id: ConnectionId, packet_id: PacketId) -> Option<Seq> {
        let session = self.connections[id].session()?;
        let inflight = &self.sessions[session].inflight;
        inflight.get(packet_id).map(|it| it.item.seq)
    }
}
