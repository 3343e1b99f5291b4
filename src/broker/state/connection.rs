//! A network connection as the broker sees it.

use crate::broker::model::access::Arrival;
use crate::broker::model::alias::Alias;
use crate::broker::model::ids::SessionIndex;
use crate::broker::model::message::Message;
use crate::broker::state::aliases::{Aliases, OutboundAliases};
use crate::broker::state::outbox::Outbox;
use crate::broker::state::quota::Quota;
use crate::wire::ProtocolVersion;

/// A network connection.
#[derive(Debug)]
pub struct Connection {
    /// Never given twice, unlike its [`ConnectionId`](crate::broker::ConnectionId).
    pub serial: u64,
    /// How far it has come.
    pub state: State,
    /// Its listener and its peer.
    pub arrival: Arrival,
    /// Protocol version of its CONNECT.
    pub version: ProtocolVersion,
    /// Its CONNECT has the bridge bit (MQTT 3): it gets nothing that it has published, and retain flags
    /// as they were published.
    pub is_bridge: bool,
    /// Its client wants reasons with acknowledgements \[MQTT-3.1.2-29\].
    pub wants_reasons: bool,
    /// Its CONNECT says that it is a bridge (MQTT 5): messages to it carry marks.
    pub marked: bool,
    /// Its session, from CONNACK on.
    pub session: Option<SessionIndex>,
    /// Packets that wait to be taken by the driver.
    pub outbox: Outbox,
    /// Bytes that the driver has taken and is writing.
    pub taken: usize,
    /// Messages among them whose payloads are shared.
    pub taken_messages: Vec<Message>,
    /// Bytes of both that [`OutgoingAccount`](crate::broker::state::outgoing::OutgoingAccount) has counted, shared payloads aside.
    pub counted: usize,
    /// 1.5 times the keep alive, in milliseconds; 0 for none \[MQTT-3.1.2-22\].
    pub keep_alive: u64,
    /// When its credential expires, in milliseconds of uptime. `u64::MAX` for never.
    pub expires_at: u64,
    /// When it was accepted, in milliseconds of uptime.
    pub since: u64,
    /// How it ended.
    pub end: Option<Box<End>>,
    /// When bytes last came in, in milliseconds of uptime.
    pub last_received: u64,
    /// Whether the client takes what is written to it.
    pub progress: WriteProgress,
    /// QoS 1 and 2 messages that the client takes without acknowledging one.
    pub receive_maximum: u16,
    /// The largest packet that the client takes, in bytes.
    pub maximum_packet_size: u32,
    /// QoS 2 messages that the client has sent on this connection and not released.
    pub unreleased: u32,
    /// The session expiry interval of its CONNECT is not 0. So a DISCONNECT may change it.
    pub may_set_expiry: bool,
    aliases: Option<Box<Aliases>>,
    /// Memory that topic aliases take, in bytes.
    pub alias_bytes: u64,
    /// Its place among the connections that wait for a turn.
    pub ticket: Option<u64>,
    /// Its rates, if they are limited.
    pub quota: Option<Box<Quota>>,
    /// No new message is sent: what is under way is finished first.
    pub finishing: bool,
    /// The client identifier that its CONNECT waits for.
    pub waits_for: Option<Box<str>>,
    /// Another connection waits for its client identifier.
    pub yields: bool,
    /// The driver has been asked to serve it.
    pub touched: bool,
    /// Taking its output stopped early, so that others have their turn.
    pub has_more: bool,
    /// Its outbox has a packet that waits for the disk.
    pub holding: bool,
    /// Nothing is read from it.
    pub paused: bool,
}

/// Whether a client takes what is written to it.
#[derive(Debug, Default)]
pub struct WriteProgress {
    /// Something was sent that it may not have taken.
    pub waits: bool,
    /// When it last took something, or something was first sent, in milliseconds of uptime.
    pub last: u64,
    /// The driver is asked whether it has taken something.
    pub ask: bool,
}

/// How a client's connection ended.
#[derive(Debug, Default)]
pub struct End {
    /// The client identifier; empty if its CONNECT was not accepted.
    pub client: Box<str>,
    /// Why. Empty if the connection was lost.
    pub why: Box<str>,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its CONNECT has not been accepted.
    New,
    /// Its CONNECT was accepted.
    Open,
    /// It is closed once its outbox is written.
    Closing,
}

impl Connection {
    pub fn new(serial: u64, arrival: Arrival, outbox: Outbox, uptime: u64) -> Connection {
        Connection {
            serial,
            state: State::New,
            arrival,
            version: ProtocolVersion::V5,
            is_bridge: false,
            wants_reasons: true,
            marked: false,
            session: None,
            outbox,
            taken: 0,
            taken_messages: Vec::new(),
            counted: 0,
            keep_alive: 0,
            expires_at: u64::MAX,
            since: uptime,
            end: None,
            last_received: uptime,
            progress: WriteProgress::default(),
            receive_maximum: u16::MAX,
            maximum_packet_size: u32::MAX,
            unreleased: 0,
            may_set_expiry: false,
            aliases: None,
            alias_bytes: 0,
            ticket: None,
            quota: None,
            finishing: false,
            waits_for: None,
            yields: false,
            touched: false,
            has_more: false,
            holding: false,
            paused: false,
        }
    }

    /// Allows topic aliases: the highest the broker may set.
    pub fn allow_aliases(&mut self, outbound_max: u16, seed: u64) {
        if outbound_max > 0 {
            self.aliases(seed).outbound.max = outbound_max;
        }
    }

    /// Whether topics may be named by aliases to this client.
    pub fn uses_aliases(&self) -> bool {
        self.aliases
            .as_ref()
            .is_some_and(|aliases| aliases.outbound.max > 0)
    }

    fn aliases(&mut self, seed: u64) -> &mut Aliases {
        self.aliases.get_or_insert_with(|| {
            Box::new(Aliases {
                inbound: Vec::new(),
                outbound: OutboundAliases::new(0, seed),
            })
        })
    }

    /// What the client calls a topic: it does not see its listener's mount point.
    pub fn topic_for_client<'a>(&self, topic: &'a str) -> &'a str {
        let mount_point = &*self.arrival.access.mount_point;
        topic.strip_prefix(mount_point).unwrap_or(topic)
    }

    /// The client sets an alias; it is within its maximum.
    pub fn set_alias(&mut self, alias: u16, topic: &str, seed: u64) {
        let inbound = &mut self.aliases(seed).inbound;
        let at = usize::from(alias) - 1;
        if inbound.len() <= at {
            inbound.resize_with(at + 1, || None);
        }
        if inbound[at].as_deref() != Some(topic) {
            inbound[at] = Some(topic.into());
        }
    }

    /// The topic of an alias the client has set.
    pub fn resolve_alias(&self, alias: u16) -> Option<&str> {
        self.aliases
            .as_ref()?
            .inbound
            .get(usize::from(alias).checked_sub(1)?)?
            .as_deref()
    }

    /// How to name a topic to the client; `may_set` says that it may get an alias.
    pub fn alias_for(&mut self, topic: &str, may_set: bool) -> Alias {
        match &mut self.aliases {
            Some(aliases) if may_set => aliases.outbound.name(topic),
            Some(aliases) => aliases.outbound.known(topic),
            None => Alias::None,
        }
    }

    /// The connection ends: nothing is named by an alias any more.
    pub fn forget_aliases(&mut self) {
        self.aliases = None;
    }

    /// Whether its client has sent more than it may, for now.
    pub fn has_sent_too_much(&self, uptime: u64) -> bool {
        let quota = self.quota.as_ref();
        quota.is_some_and(|quota| quota.received.level_at() > uptime)
    }

    /// Whether its client has been sent as much as it may be, for now.
    pub fn has_had_enough(&self, uptime: u64) -> bool {
        let quota = self.quota.as_ref();
        quota.is_some_and(|quota| quota.sent.level_at() > uptime)
    }
}
