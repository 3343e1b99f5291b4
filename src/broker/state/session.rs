//! A session: what the broker keeps for a client, connected or not (MQTT 5 section 4.1).

use std::collections::VecDeque;

use hashbrown::{HashMap, HashSet};
use rustc_hash::FxBuildHasher;

use crate::broker::model::access::Identity;
use crate::broker::model::ids::{ConnectionId, GroupIndex};
use crate::broker::model::message::Message;
use crate::broker::model::record::{
    NEVER_EXPIRES, QueueKey, SessionRecord, SubscriptionRecord, WillRecord,
};
use crate::broker::state::backlog::Backlog;
use crate::broker::state::gate::Stamp;
use crate::broker::state::inflight::Inflight;
use crate::broker::state::queue::Queue;
use crate::broker::state::rights::Rights;
use crate::broker::state::tree::{NodeId, Subscriber};
use crate::wire::{PacketId, ProtocolVersion};

/// What the broker keeps for a client.
#[derive(Debug)]
pub struct Session {
    /// Client identifier.
    pub client_id: Box<str>,
    /// Protocol version of the last CONNECT.
    pub version: ProtocolVersion,
    /// Subscription options apply: the client speaks MQTT 5, or is a bridge. Options from an
    /// earlier MQTT 5 connection are kept meanwhile.
    pub has_options: bool,
    /// Its messages and subscriptions are on disk.
    pub durable: bool,
    /// It has a row in the store: a durable session, or one that has or had a will.
    pub stored: bool,
    /// Session expiry interval in seconds; 0 ends it with its connection.
    pub expiry: u32,
    /// The connection of its client.
    pub connection: Option<ConnectionId>,
    /// What its client had proved when it last connected. `None` if that was to an earlier process.
    pub identity: Option<Identity>,
    /// The user name of its client, if that was to an earlier process.
    pub restored_user: Option<Box<str>>,
    /// What its client may do. `None` for everything.
    pub rights: Option<Box<Rights>>,
    /// When its last connection ended, in broker time. `None` while it is connected.
    pub disconnected_at: Option<u64>,
    /// Its will, until that is published or discarded.
    pub will: Option<Box<WillRecord>>,
    /// Its subscriptions in the tree, shared ones aside.
    pub subscriptions: HashSet<NodeId, FxBuildHasher>,
    /// Memory that its subscriptions take, shared ones included, in bytes.
    pub subscription_bytes: u64,
    /// Its shared groups.
    pub groups: Vec<GroupIndex>,
    /// Messages that wait for its client.
    pub queue: Queue,
    /// Messages that are sent and not acknowledged.
    pub inflight: Inflight,
    /// How messages wait, if the client is a bridge.
    pub backlog: Option<Box<Backlog>>,
    /// QoS 2 messages that its client has published and not released.
    pub received: HashMap<PacketId, Received, FxBuildHasher>,
    /// A replay has moved on since the last batch was taken.
    pub replays_moved: bool,
    /// Retained messages still to be sent for new subscriptions.
    pub replays: VecDeque<Replay>,
    /// The session has ended. This holds its place until no subscription leads here.
    pub is_placeholder: bool,
}

/// A QoS 2 message that the client has published and not released.
#[derive(Clone, Copy, Debug)]
pub struct Received {
    /// What its PUBREC waits for.
    pub stamp: Stamp,
    /// It has a row in the store.
    pub stored: bool,
    /// It counts against the receive maximum of the present connection.
    pub counted: bool,
}

/// Retained messages on their way to a new subscription.
#[derive(Debug)]
pub struct Replay {
    /// Filter of the subscription.
    pub filter: Box<str>,
    /// Options of the subscription.
    pub subscriber: Subscriber,
    /// The row of the subscription.
    pub record: SubscriptionRecord,
    /// The last topic that was looked at.
    pub after: Option<Message>,
    /// That has changed since it was written.
    pub moved: bool,
}

impl Replay {
    /// Whether its subscription's row says how far it has come.
    pub fn is_stored(&self) -> bool {
        self.record.replaying.is_some()
    }

    /// Notes the last topic that was looked at, if there was another.
    pub fn advance(&mut self, last: Option<Message>) {
        self.moved |= last.is_some();
        self.after = last.or(self.after.take());
    }

    /// The last topic that was looked at; empty if there was none.
    pub fn after(&self) -> &str {
        self.after.as_ref().map_or("", |after| after.topic())
    }
}

impl Session {
    pub fn new(key: QueueKey, client_id: Box<str>, version: ProtocolVersion) -> Session {
        Session {
            client_id,
            version,
            has_options: true,
            durable: false,
            stored: false,
            expiry: 0,
            connection: None,
            identity: None,
            restored_user: None,
            rights: None,
            disconnected_at: None,
            will: None,
            subscriptions: HashSet::default(),
            subscription_bytes: 0,
            groups: Vec::new(),
            queue: Queue::new(key),
            inflight: Inflight::default(),
            backlog: None,
            received: HashMap::default(),
            replays: VecDeque::new(),
            replays_moved: false,
            is_placeholder: false,
        }
    }

    /// What stands in the place of a session that has ended. Nothing finds it by its key.
    pub fn placeholder(durable: bool) -> Session {
        Session {
            durable,
            is_placeholder: true,
            ..Session::new(QueueKey(0), "".into(), ProtocolVersion::V5)
        }
    }

    /// Whose it is: the user name of the client that had it last. `None` if that had none: then it
    /// is nobody's.
    pub fn user(&self) -> Option<&str> {
        match &self.identity {
            Some(identity) => identity.user.as_deref(),
            None => self.restored_user.as_deref(),
        }
    }

    pub fn key(&self) -> QueueKey {
        self.queue.key
    }

    /// Whether nothing that waits may be sent yet.
    pub fn is_held(&self) -> bool {
        self.backlog
            .as_ref()
            .is_some_and(|backlog| backlog.is_held())
    }

    /// Whether what it gets now goes before what has waited longer.
    pub fn is_live_first(&self) -> bool {
        let backlog = self.backlog.as_ref();
        self.connection.is_some() && backlog.is_some_and(|it| it.policy.live_first)
    }

    pub fn record(&self) -> SessionRecord {
        SessionRecord {
            client_id: self.client_id.clone(),
            version: self.version,
            expiry: self.expiry,
            disconnected_at: self.disconnected_at,
            user: self.user().map(Into::into),
        }
    }

    /// When it ends if its client does not come back, in broker time.
    pub fn expires_at(&self) -> Option<u64> {
        match (self.disconnected_at, self.expiry) {
            (None, _) | (_, NEVER_EXPIRES) => None,
            (Some(since), expiry) => Some(since + u64::from(expiry) * 1000),
        }
    }
}
