//! What a test asks a client to send: messages, wills, subscriptions.

use crate::encode;
use crate::packet::{Properties, Version, property};

/// A will.
#[derive(Clone, Debug)]
pub struct Will {
    pub(crate) message: Message,
}

impl Will {
    /// A will that is this message.
    pub fn new(message: Message) -> Will {
        Will { message }
    }

    /// Will delay interval in seconds.
    pub fn delay(mut self, seconds: u32) -> Will {
        self.message = self.message.with(|p| p.four(property::WILL_DELAY, seconds));
        self
    }
}

/// A message to be published.
#[derive(Clone, Debug)]
pub struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) properties: Properties,
}

impl Message {
    /// A message, not retained, without properties.
    pub fn new(topic: &str, payload: impl AsRef<[u8]>, qos: u8) -> Message {
        Message {
            topic: topic.to_owned(),
            payload: payload.as_ref().to_vec(),
            qos,
            retain: false,
            properties: Properties::new(),
        }
    }

    /// The PUBLISH, without a packet identifier: for QoS 0.
    pub fn bytes(&self, version: Version) -> Vec<u8> {
        encode::publish(version, self, 0, false)
    }

    /// With the retain flag.
    pub fn retained(mut self) -> Message {
        self.retain = true;
        self
    }

    /// With more properties.
    pub fn with(mut self, change: impl FnOnce(Properties) -> Properties) -> Message {
        self.properties = change(self.properties);
        self
    }
}

/// A subscription to ask for.
#[derive(Clone, Debug)]
pub struct Subscription {
    pub(crate) filter: String,
    pub(crate) qos: u8,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) retain_handling: u8,
}

impl Subscription {
    /// A subscription with the options that MQTT 3 has.
    pub fn new(filter: &str, qos: u8) -> Subscription {
        Subscription {
            filter: filter.to_owned(),
            qos,
            no_local: false,
            retain_as_published: false,
            retain_handling: 0,
        }
    }

    /// Without what this client publishes itself.
    pub fn no_local(mut self) -> Subscription {
        self.no_local = true;
        self
    }

    /// With the retain flag as it was published.
    pub fn retain_as_published(mut self) -> Subscription {
        self.retain_as_published = true;
        self
    }

    /// Retain handling: 0, 1 or 2.
    pub fn retain_handling(mut self, value: u8) -> Subscription {
        self.retain_handling = value;
        self
    }
}
