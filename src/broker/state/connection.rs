//! A connection as the broker sees it: how far it has come, and what is known of its client.

use crate::broker::model::access::Arrival;
use crate::broker::model::alias::Alias;
use crate::broker::model::connect_options::ConnectOptions;
use crate::broker::model::cost::ALIAS;
use crate::broker::model::ids::SessionIndex;
use crate::broker::state::aliases::{Aliases, OutboundAliases};
use crate::broker::state::outbox::Outbox;
use crate::broker::state::quota::{Quota, Rates};
use crate::broker::state::write_progress::WriteProgress;
use crate::wire::ProtocolVersion;

/// A connection. What each delivery looks at stands together, at the beginning: a message for
/// hundreds of connections finds little of them in the processor's cache.
#[derive(Debug)]
#[repr(C)]
pub struct Connection {
    options: ConnectOptions,
    /// From CONNACK on, until it ends.
    session: Option<SessionIndex>,
    /// QoS 1 and 2 messages that the client takes without acknowledging one.
    receive_maximum: u16,
    state: State,
    /// The driver has been asked to serve it.
    touched: bool,
    /// No new message is sent: what is under way is finished first.
    finishing: bool,
    /// Its arrival is that of a bridge.
    is_own_bridge: bool,
    /// Its listener has a mount point.
    is_mounted: bool,
    /// Its rates, if they are limited.
    quota: Option<Box<Quota>>,
    aliases: Option<Box<Aliases>>,
    outbox: Outbox,
    arrival: Arrival,
    progress: WriteProgress,
    /// When bytes last came in, in milliseconds of uptime.
    last_received: u64,
    /// 1.5 times the keep alive, in milliseconds; 0 for none \[MQTT-3.1.2-22\].
    keep_alive: u64,
    /// Never given twice, unlike its [`ConnectionId`](crate::broker::ConnectionId).
    serial: u64,
    /// When it was accepted, in milliseconds of uptime.
    since: u64,
    /// When its credential expires, in milliseconds of uptime. `u64::MAX` for never.
    expires_at: u64,
    /// Memory that topic aliases take, in bytes.
    alias_bytes: u64,
    /// The client identifier that its CONNECT waits for.
    waits_for: Option<Box<str>>,
    end: Option<Box<End>>,
    /// QoS 2 messages that the client has sent on this connection and not released.
    unreleased: u32,
    /// The session expiry interval of its CONNECT is not 0. So a DISCONNECT may change it.
    may_set_expiry: bool,
    /// Another connection waits for its client identifier.
    yields: bool,
    /// Taking its output stopped early, so that others have their turn.
    has_more: bool,
    /// Nothing is read from it.
    paused: bool,
}

/// How a client's connection ended.
#[derive(Debug, Default)]
struct End {
    /// The client identifier; empty if its CONNECT was not accepted.
    client: Box<str>,
    /// Why. Empty if the connection was lost.
    why: Box<str>,
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
    /// A connection that was accepted at this time, in milliseconds of uptime.
    pub fn new(serial: u64, arrival: Arrival, outbox: Outbox, uptime: u64) -> Connection {
        Connection {
            is_own_bridge: arrival.bridge,
            is_mounted: !arrival.access.mount_point.is_empty(),
            serial,
            state: State::New,
            arrival,
            since: uptime,
            options: ConnectOptions::default(),
            session: None,
            outbox,
            progress: WriteProgress::default(),
            keep_alive: 0,
            last_received: uptime,
            expires_at: u64::MAX,
            receive_maximum: u16::MAX,
            unreleased: 0,
            may_set_expiry: false,
            aliases: None,
            alias_bytes: 0,
            quota: None,
            waits_for: None,
            yields: false,
            finishing: false,
            touched: false,
            has_more: false,
            paused: false,
            end: None,
        }
    }

    /// Never given twice, unlike its [`ConnectionId`](crate::broker::ConnectionId).
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Its listener and its peer.
    #[inline]
    pub fn arrival(&self) -> &Arrival {
        &self.arrival
    }

    /// Whether it is the broker's own end of a bridge.
    #[inline]
    pub fn is_own_bridge(&self) -> bool {
        self.is_own_bridge
    }

    /// When it was accepted, in milliseconds of uptime.
    pub fn since(&self) -> u64 {
        self.since
    }

    /// How far it has come.
    #[inline]
    pub fn state(&self) -> State {
        self.state
    }

    /// Its session, from CONNACK on.
    #[inline]
    pub fn session(&self) -> Option<SessionIndex> {
        self.session
    }

    /// What its CONNECT says.
    #[inline]
    pub fn options(&self) -> &ConnectOptions {
        &self.options
    }

    /// Protocol version of its CONNECT.
    #[inline]
    pub fn version(&self) -> ProtocolVersion {
        self.options.version
    }

    /// Notes what its CONNECT says.
    pub fn set_options(&mut self, options: ConnectOptions) {
        self.options = options;
    }

    /// Notes what its peer speaks, if that is all that is known of its CONNECT.
    pub fn set_version(&mut self, version: ProtocolVersion) {
        self.options.version = version;
    }

    /// Opens it: its CONNECT is accepted. `keep_alive` is in seconds, 0 for none.
    pub fn open(
        &mut self,
        session: SessionIndex,
        keep_alive: u16,
        receive_maximum: u16,
        may_set_expiry: bool,
    ) {
        debug_assert_eq!(self.state, State::New);
        self.state = State::Open;
        self.session = Some(session);
        self.keep_alive = u64::from(keep_alive) * 1500;
        self.receive_maximum = receive_maximum;
        self.may_set_expiry = may_set_expiry;
    }

    /// Takes its session from it. Nobody waits for its client identifier any more.
    pub fn leave_session(&mut self) -> Option<SessionIndex> {
        let session = self.session.take()?;
        self.yields = false;
        Some(session)
    }

    /// Has it closed once its outbox is written.
    pub fn close(&mut self) {
        self.state = State::Closing;
    }

    /// Packets for its client.
    #[inline]
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Packets for its client.
    #[inline]
    pub fn outbox_mut(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    /// Whether its client takes what is written to it.
    #[inline]
    pub fn progress(&self) -> &WriteProgress {
        &self.progress
    }

    /// Whether its client takes what is written to it.
    #[inline]
    pub fn progress_mut(&mut self) -> &mut WriteProgress {
        &mut self.progress
    }

    /// Notes that bytes have come from its client, or that they are not read.
    #[inline]
    pub fn heard(&mut self, uptime: u64) {
        self.last_received = uptime;
    }

    /// When bytes last came in, in milliseconds of uptime.
    pub fn last_received(&self) -> u64 {
        self.last_received
    }

    /// 1.5 times the keep alive, in milliseconds; 0 for none \[MQTT-3.1.2-22\].
    pub fn keep_alive(&self) -> u64 {
        self.keep_alive
    }

    /// When its client has been silent for too long, in milliseconds of uptime. It has a keep alive.
    pub fn silent_at(&self) -> u64 {
        self.last_received + self.keep_alive
    }

    /// When its credential expires, in milliseconds of uptime. `u64::MAX` for never.
    pub fn expires_at(&self) -> u64 {
        self.expires_at
    }

    /// Sets when its credential expires, in milliseconds of uptime.
    pub fn set_expires_at(&mut self, uptime: u64) {
        self.expires_at = uptime;
    }

    /// QoS 1 and 2 messages that the client takes without acknowledging one.
    #[inline]
    pub fn receive_maximum(&self) -> u16 {
        self.receive_maximum
    }

    /// Changes how many messages the client takes without acknowledging one.
    pub fn set_receive_maximum(&mut self, receive_maximum: u16) {
        self.receive_maximum = receive_maximum;
    }

    /// Whether a DISCONNECT may change the session expiry interval \[MQTT-3.14.2-2\].
    pub fn may_set_expiry(&self) -> bool {
        self.may_set_expiry
    }

    /// Counts a QoS 2 message of the client that it has not released.
    pub fn count_unreleased(&mut self) {
        self.unreleased += 1;
    }

    /// Notes that the client has released a QoS 2 message that was counted.
    pub fn release(&mut self) {
        self.unreleased = self.unreleased.saturating_sub(1);
    }

    /// Messages of the client that count against the broker's receive maximum.
    pub fn underway(&self) -> u32 {
        self.unreleased + self.outbox.held_acks()
    }

    /// Whether no new message is sent to it.
    pub fn is_finishing(&self) -> bool {
        self.finishing
    }

    /// Sets whether no new message is sent to it: what is under way is finished first.
    pub fn set_finishing(&mut self, finishing: bool) {
        self.finishing = finishing;
    }

    /// Notes that the driver should serve it. Returns false if that was known.
    #[inline]
    pub fn touch(&mut self) -> bool {
        !std::mem::replace(&mut self.touched, true)
    }

    /// Notes that the driver is told to serve it.
    pub fn untouch(&mut self) {
        self.touched = false;
    }

    /// Whether taking its output stopped early.
    pub fn has_more(&self) -> bool {
        self.has_more
    }

    /// Sets whether taking its output stopped early, so that others have their turn.
    pub fn set_has_more(&mut self, has_more: bool) {
        self.has_more = has_more;
    }

    /// Whether nothing is read from it.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Stops reading from it. Returns false if nothing was read before.
    pub fn pause(&mut self) -> bool {
        !std::mem::replace(&mut self.paused, true)
    }

    /// Reads from it again. Its client could not be heard meanwhile.
    pub fn resume(&mut self, uptime: u64) {
        self.paused = false;
        self.last_received = uptime;
    }
}

/// Take-overs.
impl Connection {
    /// The client identifier that its CONNECT waits for.
    pub fn waits_for(&self) -> Option<&str> {
        self.waits_for.as_deref()
    }

    /// Has its CONNECT wait for a client identifier.
    pub fn wait_for(&mut self, client_id: &str) {
        self.waits_for = Some(client_id.into());
    }

    /// Ends its waiting. Returns what it has waited for.
    pub fn stop_waiting(&mut self) -> Option<Box<str>> {
        self.waits_for.take()
    }

    /// Whether another connection waits for its client identifier.
    pub fn yields(&self) -> bool {
        self.yields
    }

    /// Sets whether another connection waits for its client identifier. Returns whether that is new.
    pub fn set_yields(&mut self, yields: bool) -> bool {
        std::mem::replace(&mut self.yields, yields) != yields
    }
}

/// How it ended, for the log.
impl Connection {
    /// Notes why it ends, if its CONNECT was accepted. Of several reasons the first one counts.
    pub fn say_end(&mut self, why: impl FnOnce() -> Box<str>) {
        if self.session.is_some() {
            let end = self.end.get_or_insert_default();
            if end.why.is_empty() {
                end.why = why();
            }
        }
    }

    /// Notes whose it was.
    pub fn name_end(&mut self, client_id: &str) {
        self.end.get_or_insert_default().client = client_id.into();
    }

    /// Whose it was, and why it ended: empty if it was lost. `None` if its CONNECT was not accepted.
    pub fn end(&self) -> Option<(&str, &str)> {
        let end = self.end.as_ref()?;
        Some((&end.client, &end.why))
    }
}

/// Topics, and aliases for them.
impl Connection {
    /// What the client calls a topic: it does not see its listener's mount point.
    pub fn topic_for_client<'a>(&self, topic: &'a str) -> &'a str {
        if !self.is_mounted {
            return topic;
        }
        let mount_point = &*self.arrival.access.mount_point;
        topic.strip_prefix(mount_point).unwrap_or(topic)
    }

    /// Allows topic aliases: the highest that the broker may set.
    pub fn allow_aliases(&mut self, outbound_max: u16, seed: u64) {
        if outbound_max > 0 {
            self.aliases(seed).outbound.max = outbound_max;
        }
    }

    /// Whether topics may be named by aliases to this client.
    #[inline]
    pub fn uses_aliases(&self) -> bool {
        let aliases = self.aliases.as_ref();
        aliases.is_some_and(|aliases| aliases.outbound.max > 0)
    }

    fn aliases(&mut self, seed: u64) -> &mut Aliases {
        self.aliases.get_or_insert_with(|| {
            Box::new(Aliases {
                inbound: Vec::new(),
                outbound: OutboundAliases::new(0, seed),
            })
        })
    }

    /// Memory that topic aliases take, in bytes.
    pub fn alias_bytes(&self) -> u64 {
        self.alias_bytes
    }

    /// The client sets an alias, which is within its maximum and takes `taken` bytes in place of
    /// `freed` bytes.
    pub fn set_alias(&mut self, alias: u16, topic: &str, seed: u64, freed: u64, taken: u64) {
        let inbound = &mut self.aliases(seed).inbound;
        let at = usize::from(alias) - 1;
        if inbound.len() <= at {
            inbound.resize_with(at + 1, || None);
        }
        if inbound[at].as_deref() != Some(topic) {
            inbound[at] = Some(topic.into());
        }
        self.alias_bytes = self.alias_bytes + taken - freed;
    }

    /// The topic of an alias that the client has set.
    pub fn resolve_alias(&self, alias: u16) -> Option<&str> {
        let at = usize::from(alias).checked_sub(1)?;
        self.aliases.as_ref()?.inbound.get(at)?.as_deref()
    }

    /// How to name a topic to the client. `may_set` says that it may get an alias, which takes
    /// [`ALIAS`] and its own bytes.
    pub fn alias_for(&mut self, topic: &str, may_set: bool) -> Alias {
        let alias = match &mut self.aliases {
            Some(aliases) if may_set => aliases.outbound.name(topic),
            Some(aliases) => aliases.outbound.known(topic),
            None => Alias::None,
        };
        if let Alias::Set(_) = alias {
            self.alias_bytes += ALIAS + topic.len() as u64;
        }
        alias
    }

    /// The connection ends: nothing is named by an alias any more. Returns how many bytes they took.
    pub fn forget_aliases(&mut self) -> u64 {
        self.aliases = None;
        std::mem::take(&mut self.alias_bytes)
    }
}

/// Rates.
impl Connection {
    /// Gives it rates of its own, in and out.
    pub fn limit_rates(&mut self, rates: (Rates, Rates)) {
        self.quota.get_or_insert_default().own = Some(rates);
    }

    /// Its own rates, in and out.
    pub fn own_rates(&self) -> Option<(Rates, Rates)> {
        self.quota.as_ref().and_then(|quota| quota.own)
    }

    /// Counts a message from its client.
    pub fn count_received(&mut self, rates: Rates, bytes: usize, uptime: u64) {
        let quota = self.quota.get_or_insert_default();
        quota.received.take(rates, bytes, uptime);
    }

    /// Counts a message to its client.
    pub fn count_sent(&mut self, rates: Rates, bytes: usize, uptime: u64) {
        let quota = self.quota.get_or_insert_default();
        quota.sent.take(rates, bytes, uptime);
    }

    /// Whether its client has sent more than it may, for now.
    #[inline]
    pub fn has_sent_too_much(&self, uptime: u64) -> bool {
        let quota = self.quota.as_ref();
        quota.is_some_and(|quota| quota.received.level_at() > uptime)
    }

    /// Whether its client has been sent as much as it may be, for now.
    #[inline]
    pub fn has_had_enough(&self, uptime: u64) -> bool {
        let quota = self.quota.as_ref();
        quota.is_some_and(|quota| quota.sent.level_at() > uptime)
    }

    /// When one of its rates is kept again that is exceeded now, in milliseconds of uptime.
    pub fn rates_kept_at(&self, uptime: u64) -> Option<u64> {
        let quota = self.quota.as_ref()?;
        let times = [quota.received.level_at(), quota.sent.level_at()];
        times.into_iter().filter(|at| *at > uptime).min()
    }

    /// Whether a rate was exceeded and is kept again.
    pub fn has_recovered(&self, uptime: u64) -> bool {
        let quota = self.quota.as_ref();
        quota.is_some_and(|quota| {
            quota.received.has_recovered(uptime) || quota.sent.has_recovered(uptime)
        })
    }

    /// Forgets what was counted: the rates have changed. Returns whether there was anything.
    pub fn forget_rates(&mut self) -> bool {
        self.quota.take().is_some()
    }
}
