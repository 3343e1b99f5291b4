//! Requests of a client in a test: messages, wills, subscriptions.

use crate::encode;
use crate::packet::{Properties, Version, property};

/// A will.
#[derive(Clone, Debug)]
pub struct Will {
    pub(crate) message: Message,
}

impl Will {
    /// Creates a will with this message.
    pub fn new(message: Message) -> Will {
        Will { message }
    }

    /// Sets the will delay interval in seconds.
    pub fn delay(mut self, seconds: u32) -> Will {
        self.message = self.message.with(|p| p.four(property::WILL_DELAY, seconds));
        self
    }
}

/// A message to publish.
#[derive(Clone, Debug)]
pub struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) properties: Properties,
}

impl Message {
    /// Creates a message that is not retained and has no properties.
    pub fn new(topic: &str, payload: impl AsRef<[u8]>, qos: u8) -> Message {
        Message {
            topic: topic.to_owned(),
            payload: payload.as_ref().to_vec(),
            qos,
            retain: false,
            properties: Properties::new(),
        }
    }

    /// Encodes a QoS 0 PUBLISH.
    pub fn bytes(&self, version: Version) -> Vec<u8> {
        encode::publish(version, self, 0, false)
    }

    /// Sets the retain flag.
    pub fn retained(mut self) -> Message {
        self.retain = true;
        self
    }

    /// Changes the properties.
    pub fn with(mut self, change: impl FnOnce(Properties) -> Properties) -> Message {
        self.properties = change(self.properties);
        self
    }
}

/// A subscription to request.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub(crate) filter: String,
    pub(crate) qos: u8,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) retain_handling: u8,
}

impl Subscription {
    /// Creates a subscription with the options of MQTT 3.
    pub fn new(filter: &str, qos: u8) -> Subscription {
        Subscription {
            filter: filter.to_owned(),
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
        }
    }

    /// Sets no local: without messages that this client published.
    pub fn no_local(mut self) -> Subscription {
        self.no_local = true;
        self
    }

    /// Sets retain as published.
    pub fn retain_as_published(mut self) -> Subscription {
        self.retain_as_published = true;
        self
    }

    /// Sets the retain handling: 0, 1 or 2.
    pub fn retain_handling(mut self, value: u8) -> Subscription {
        self.retain_handling = value;
        self
    }
}
