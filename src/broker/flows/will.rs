//! Wills: published on every end of a connection but a clean one (MQTT 5 sections 3.1.2.5 and
//! 3.1.3.2).

use crate::broker::Broker;
use crate::broker::model::ids::{ConnectionId, SessionIndex};
use crate::broker::model::marks;
use crate::broker::model::message::{Message, Parts};
use crate::broker::model::record::{WillRecord, Write};
use crate::broker::model::topics::{SYS_PREFIX, is_state_topic_of};
use crate::broker::state::notices::Notice;
use crate::broker::state::rights::Rights;
use crate::wire::packet::Will;
use crate::wire::{Fault, PropertiesBuf, Property, ReasonCode};

impl Broker {
    /// Checks a will as a PUBLISH would be, and takes it. `None` if the client may not publish to
    /// its topic: then it has none.
    pub(in crate::broker) fn will_record(
        &mut self,
        id: ConnectionId,
        client_id: &str,
        will: &Will<'_>,
        rights: Option<&mut Rights>,
    ) -> Result<Option<WillRecord>, Fault> {
        if will.topic.starts_with(SYS_PREFIX) && !is_state_topic_of(client_id, will.topic) {
            return Err(Fault {
                reason: ReasonCode::NotAuthorized,
                what: "only the broker publishes to $SYS, and a bridge its own state",
            });
        }
        let mounted = rights
            .as_deref()
            .and_then(|rights| rights.mount(will.topic));
        let topic = mounted.as_deref().unwrap_or(will.topic);
        self.check_message(id, topic, will.qos, will.retain)?;
        if rights.is_some_and(|rights| !rights.may_write(topic)) {
            return Ok(None);
        }
        let (mut delay, mut expiry, mut utf8) = (0, None, false);
        for property in will.properties.iter() {
            match property {
                Property::WillDelayInterval(seconds) => delay = seconds,
                Property::MessageExpiryInterval(seconds) => expiry = Some(seconds),
                Property::PayloadFormatIndicator(format) => utf8 = format == 1,
                _ => {}
            }
        }
        if utf8 && std::str::from_utf8(will.payload).is_err() {
            return Err(Fault {
                reason: ReasonCode::PayloadFormatInvalid,
                what: "the will's payload is not UTF-8",
            });
        }
        let (mut properties, mut unmarked) = (PropertiesBuf::new(), PropertiesBuf::new());
        let forwarded = will.properties.forwardable(&mut properties);
        let message = Message::new(&Parts {
            topic,
            properties: marks::without(forwarded, &mut unmarked),
            payload: will.payload,
            qos: will.qos,
            retain: will.retain,
            expires: None,
            id: None,
        });
        Ok(Some(WillRecord {
            message,
            expiry,
            delay,
            due: None,
        }))
    }

    /// Gives a session that is being connected the will of its new connection. One that was still
    /// to be published is not any more \[MQTT-3.1.3-9\].
    pub(in crate::broker) fn replace_will(
        &mut self,
        index: SessionIndex,
        will: Option<WillRecord>,
    ) {
        let none = will.is_none();
        if self.set_will(index, will.map(Box::new)).is_some() && none {
            self.remove_will_row(index);
        }
    }

    /// The client has taken its leave: its will is forgotten \[MQTT-3.14.4-3\].
    pub(in crate::broker) fn discard_will(&mut self, index: SessionIndex) {
        if self.set_will(index, None).is_some() {
            self.remove_will_row(index);
            // Nothing waits for it, but while it is not on disk a crash would publish the will.
            self.gate.flush();
        }
    }

    /// The connection has ended without leave: the will is published, now or after its delay. It
    /// never outlasts the session \[MQTT-3.1.3-9\].
    pub(in crate::broker) fn start_will(&mut self, index: SessionIndex) {
        let unix = self.now.unix;
        let session = &mut self.sessions[index];
        let (expiry, stored, key) = (session.expiry, session.stored, session.key());
        let Some(will) = session.will.as_mut() else {
            return;
        };
        if will.delay == 0 || expiry == 0 {
            return self.publish_will(index);
        }
        will.due = Some(unix + u64::from(will.delay) * 1000);
        if stored {
            let record = WillRecord::clone(will);
            self.write(Write::PutWill(key, record));
        }
    }

    /// Publishes a session's will, if it has one. In the same batch its row goes, so that it is
    /// published once.
    pub(in crate::broker) fn publish_will(&mut self, index: SessionIndex) {
        let Some(will) = self.set_will(index, None) else {
            return;
        };
        self.remove_will_row(index);
        // It could when it gave its will; the list may have changed since.
        if !self.may_write(index, will.message.topic()) {
            self.counters.wills_not_authorized += 1;
            self.notice(index, Notice::WillDenied, will.message.topic());
            return;
        }
        self.counters.wills_published += 1;
        let expires = will
            .expiry
            .map(|seconds| self.now.unix + u64::from(seconds) * 1000);
        self.publish(
            &Parts {
                expires,
                ..will.message.parts()
            },
            Some(index),
        );
    }

    fn remove_will_row(&mut self, index: SessionIndex) {
        let session = &self.sessions[index];
        if session.stored {
            let key = session.key();
            self.write(Write::RemoveWill(key));
        }
    }
}
