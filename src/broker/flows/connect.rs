//! CONNECT: which session a client gets, and what CONNACK says (MQTT 5 sections 3.1 and 3.2).

use crate::broker::Broker;
use crate::broker::model::access::{Arrival, Identity};
use crate::broker::model::connect_options::ConnectOptions;
use crate::broker::model::ids::{ConnectionId, SessionIndex};
use crate::broker::model::record::{NEVER_EXPIRES, Write};
use crate::broker::state::connection::State;
use crate::broker::state::gate::{Arrow, SESSION, Stamp};
use crate::broker::state::notices::Notice;
use crate::broker::state::origins::Origin;
use crate::broker::state::session::Session;
use crate::broker::state::timers::Timer;
use crate::clock::Now;
use crate::wire::packet::{ConnAck, Connect};
use crate::wire::{
    Fault, Packet, PropertiesBuf, Property, ProtocolVersion, QoS, ReasonCode, codec,
};

/// The largest packet there can be, in bytes: five of header, and a remaining length of four groups
/// of seven bits.
const LARGEST_PACKET: u32 = 5 + 0x0FFF_FFFF;

/// What a CONNECT asks for, with the broker's limits applied.
struct Terms {
    client_id: Box<str>,
    /// The client identifier was assigned by the broker.
    assigned: bool,
    keep_alive: u16,
    /// The keep alive is not what the client asked for.
    server_keep_alive: bool,
    expiry: u32,
    /// The client has asked for a session that outlasts its connection, so its DISCONNECT may
    /// change how long \[MQTT-3.14.2-2\].
    may_set_expiry: bool,
    /// The session expiry interval is not what the client asked for.
    server_expiry: bool,
    receive_maximum: u16,
    topic_alias_maximum: u16,
}

impl Broker {
    /// Handles a CONNECT: `proved` says what its user name and password prove, or why it is
    /// refused. Given to [`Broker::receive`], it proves nothing. If
    /// [`Output::waits`](crate::broker::Output::waits) is true afterwards, it is to be presented
    /// again when that has changed.
    pub fn connect(
        &mut self,
        id: ConnectionId,
        connect: &Connect<'_>,
        proved: Result<Identity, Fault>,
        now: Now,
    ) {
        self.now = now;
        let connection = &mut self.connections[id];
        connection.heard(now.uptime);
        // It may have been closed meanwhile: the CONNECT came in time, its proof did not.
        if connection.state() == State::New
            && let Err(fault) = self.receive_connect(id, connect, proved)
        {
            self.fault(id, fault, Some(connect.version), now);
        }
    }

    /// How a connection came in.
    pub fn arrival(&self, id: ConnectionId) -> &Arrival {
        self.connections[id].arrival()
    }

    pub(in crate::broker) fn receive_connect(
        &mut self,
        id: ConnectionId,
        connect: &Connect<'_>,
        proved: Result<Identity, Fault>,
    ) -> Result<(), Fault> {
        let connection = &mut self.connections[id];
        connection.set_options(ConnectOptions::of(connect));
        let bridge = connection.is_own_bridge();
        if !bridge {
            connect.check_texts()?;
        }
        let admitted = self.admit(id, connect, proved)?;
        let mut terms = self.terms(connect, admitted.client_id)?;
        if bridge {
            // A bridge waits for its upstream as long as it takes, and says nothing while its
            // upstream does not.
            terms.expiry = NEVER_EXPIRES;
            terms.keep_alive = 0;
        }
        // It is the rules of a bridge that say what it may do; no access list is asked.
        let mut rights = match bridge {
            true => None,
            false => self.rights_of(id, &admitted.identity, &terms.client_id),
        };
        let will = connect.will.as_ref();
        let will = will
            .map(|will| self.will_record(id, &terms.client_id, will, rights.as_deref_mut()))
            .transpose()?
            .flatten();
        let will_denied = connect.will.as_ref().filter(|_| will.is_none());
        if !bridge {
            self.check_owner(&admitted.identity, &terms.client_id)?;
        }
        self.check_user(&admitted.identity, &terms.client_id)?;
        if !bridge {
            self.check_memory(&terms.client_id, &admitted.identity, will.as_ref())?;
            self.check_room(&terms, connect.clean_start, will.is_some())?;
        }
        self.check_connack(id, &terms)?;
        // A bridge has no socket of its own, so its older connection holds nothing unread.
        if !bridge && self.must_wait(id, &terms.client_id) {
            return Ok(());
        }
        let (session, present, ended) = self.open_session(&terms, connect)?;
        let accepted = self.attach(id, session, &terms, connect.version);
        let expires_at = admitted
            .identity
            .expires_in
            .map(|left| self.now.uptime.saturating_add(left));
        self.connections[id].set_expires_at(expires_at.unwrap_or(u64::MAX));
        if !bridge {
            self.give_rights(session, admitted.identity, rights);
        }
        self.replace_will(session, will);
        let stamp = self.remember_connected(session).max(ended);
        let packet = ConnAck {
            session_present: present,
            reason: ReasonCode::Success,
            properties: accepted.as_properties(),
        };
        self.push(id, stamp, &Packet::ConnAck(packet));
        self.counters.connects += 1;
        if let Some(will) = will_denied {
            self.counters.wills_not_authorized += 1;
            self.notice(session, Notice::WillDenied, will.topic);
        }
        let peer = &self.connections[id].arrival().peer;
        let shown = &self.sessions[session];
        let user = shown.identity.as_ref().and_then(|it| it.user.as_deref());
        tracing::info!(client = &*shown.client_id, %peer, user, version = ?connect.version, present, expiry = shown.expiry, "connected");
        self.set_keep_alive_timer(id);
        self.set_credential_timer(id);
        self.member_connected(session);
        self.give_way(id, &terms.client_id);
        let said = ConnectOptions::bridge_mark(connect);
        if let Some(origin) = said.and_then(Origin::parse) {
            self.see_origin(id, origin);
        }
        Ok(())
    }

    /// Checks what needs no session, and applies the limits.
    fn terms(&mut self, connect: &Connect<'_>, own_id: Option<Box<str>>) -> Result<Terms, Fault> {
        let limits = &self.settings.limits;
        let refuse = |reason, what| Err(Fault { reason, what });
        if self.connections.is_closed() {
            return refuse(
                ReasonCode::ServerShuttingDown,
                "the server is shutting down",
            );
        }
        let v5 = connect.version == ProtocolVersion::V5;
        let asked = &connect.properties;
        if asked.authentication_method().is_some() {
            // The seam for enhanced authentication: no method is offered yet, so every one is
            // answered as unknown [MQTT-4.12.0-1].
            return refuse(
                ReasonCode::BadAuthenticationMethod,
                "the authentication method is not offered",
            );
        }
        let forever = if v5 || connect.clean_start {
            0
        } else {
            NEVER_EXPIRES
        };
        let expiry = asked.session_expiry().unwrap_or(forever);
        let mut terms = Terms {
            client_id: connect.client_id.into(),
            assigned: false,
            keep_alive: connect.keep_alive,
            server_keep_alive: false,
            expiry,
            may_set_expiry: expiry > 0,
            server_expiry: false,
            receive_maximum: asked.receive_maximum().unwrap_or(u16::MAX),
            topic_alias_maximum: asked
                .topic_alias_maximum()
                .unwrap_or(0)
                .min(limits.max_topic_alias_out),
        };
        if terms.expiry > limits.persistent_client_expiration {
            terms.expiry = limits.persistent_client_expiration;
            terms.server_expiry = true;
        }
        let longest = limits.max_keepalive;
        if longest > 0 && (terms.keep_alive == 0 || terms.keep_alive > longest) {
            if !v5 {
                return refuse(
                    ReasonCode::ClientIdentifierNotValid,
                    "the keep alive is longer than max_keepalive",
                );
            }
            terms.keep_alive = longest;
            terms.server_keep_alive = true;
        }
        if terms.client_id.is_empty() {
            // [MQTT-3.1.3-8]: a MQTT 3.1.1 client without an identifier must ask for a clean
            // session; MQTT 3.1 always names itself.
            if connect.version == ProtocolVersion::V31 || (!v5 && !connect.clean_start) {
                return refuse(
                    ReasonCode::ClientIdentifierNotValid,
                    "an empty client identifier needs a clean session",
                );
            }
            terms.client_id = match &own_id {
                Some(own) => own.clone(),
                None => self.assign_client_id(),
            };
            terms.assigned = true;
        } else if let Some(own) = own_id {
            terms.client_id = own;
        }
        Ok(terms)
    }

    /// A client that cannot take its CONNACK would wait for it for ever \[MQTT-3.2.0-1,
    /// MQTT-3.1.2-24\].
    fn check_connack(&self, id: ConnectionId, terms: &Terms) -> Result<(), Fault> {
        let largest = self.connections[id].options().maximum_packet_size;
        if largest == u32::MAX {
            return Ok(());
        }
        let properties = self.capabilities(id, terms);
        let packet = Packet::ConnAck(ConnAck {
            session_present: false,
            reason: ReasonCode::Success,
            properties: properties.as_properties(),
        });
        match codec::encode_within(&packet, ProtocolVersion::V5, largest, &mut Vec::new()) {
            true => Ok(()),
            false => Err(Fault::new(
                ReasonCode::PacketTooLarge,
                "Maximum Packet Size is less than CONNACK needs",
            )),
        }
    }

    /// A client identifier nobody uses.
    fn assign_client_id(&mut self) -> Box<str> {
        loop {
            let id = self.sessions.client_ids.next();
            if self.sessions.find(&id).is_none() {
                return id;
            }
        }
    }

    /// The client's session, old or new; whether it is an old one; and what CONNACK waits for if an
    /// old one has just ended.
    fn open_session(
        &mut self,
        terms: &Terms,
        connect: &Connect<'_>,
    ) -> Result<(SessionIndex, bool, Stamp), Fault> {
        let known = self.sessions.find(&terms.client_id);
        if let Some(other) = known.and_then(|index| self.sessions[index].connection) {
            self.take_over(other);
        }
        // A session that ends with its connection has ended with the one just taken over.
        if let Some(index) = self.sessions.find(&terms.client_id) {
            let is_over = self.has_expired(index);
            if !connect.clean_start && !is_over {
                return Ok((index, true, Stamp::NONE));
            }
            self.counters.sessions_expired += u64::from(is_over);
            self.end_session(index); // [MQTT-3.1.2-4, MQTT-3.1.2-23]
        }
        let ended = self.stamp_of_end(&terms.client_id);
        if self.session_count() >= self.settings.limits.max_sessions {
            self.counters.sessions_refused += 1;
            return Err(Fault {
                reason: ReasonCode::QuotaExceeded,
                what: "max_sessions is reached",
            });
        }
        let key = self.messages.take_key();
        let session = Session::new(key, terms.client_id.clone(), connect.version);
        let index = self.sessions.add(session);
        self.recount_session(index, 0);
        Ok((index, false, ended))
    }

    /// Whether the store can take what a CONNECT asks to be kept. Who comes back to a session that
    /// is kept may do so whatever room there is: how else should it take what waits for it.
    fn check_room(
        &mut self,
        terms: &Terms,
        clean_start: bool,
        with_will: bool,
    ) -> Result<(), Fault> {
        let known = self.sessions.find(&terms.client_id);
        let kept = known.is_some_and(|index| self.sessions[index].stored);
        let is_new = terms.expiry > 0 && (clean_start || !kept);
        if !self.sessions.are_kept || !(is_new || with_will) || self.has_session_room() {
            return Ok(());
        }
        self.counters.refused_store_full += 1;
        Err(Fault {
            reason: ReasonCode::QuotaExceeded,
            what: "the store has no room for the session or its will",
        })
    }

    /// Ties connection and session together.
    fn attach(
        &mut self,
        id: ConnectionId,
        index: SessionIndex,
        terms: &Terms,
        version: ProtocolVersion,
    ) -> PropertiesBuf {
        let seed = self.connections.seed;
        let connection = &mut self.connections[id];
        connection.open(
            index,
            terms.keep_alive,
            terms.receive_maximum,
            terms.may_set_expiry,
        );
        connection.allow_aliases(terms.topic_alias_maximum, seed);
        let is_bridge = connection.options().is_bridge || connection.is_own_bridge();
        self.timers.stop(Timer::Connect(id));
        self.sessions.connect(index, id);
        let are_kept = self.sessions.are_kept;
        let session = &mut self.sessions[index];
        for group in &session.groups {
            self.groups[*group].connect();
        }
        session.version = version;
        session.has_options = version == ProtocolVersion::V5 || is_bridge;
        session.expiry = terms.expiry;
        // Once it has rows in the store a session keeps them until it ends, even if it now ends
        // with its connection.
        session.durable |= terms.expiry > 0 && are_kept;
        for received in session.received.values_mut() {
            received.counted = false;
        }
        self.capabilities(id, terms)
    }

    /// What CONNACK says in MQTT 5: only what is limited or was changed.
    fn capabilities(&self, id: ConnectionId, terms: &Terms) -> PropertiesBuf {
        let limits = &self.settings.limits;
        let mut properties = PropertiesBuf::new();
        if terms.server_expiry {
            properties.push(Property::SessionExpiryInterval(terms.expiry));
        }
        if limits.receive_maximum < u16::MAX {
            properties.push(Property::ReceiveMaximum(limits.receive_maximum));
        }
        let maximum_qos = self.maximum_qos(id);
        if maximum_qos != QoS::ExactlyOnce {
            properties.push(Property::MaximumQos(maximum_qos as u8));
        }
        if !limits.retain_available {
            properties.push(Property::RetainAvailable(0));
        }
        let max_packet_size = self.max_packet_size(id);
        if max_packet_size < LARGEST_PACKET {
            properties.push(Property::MaximumPacketSize(max_packet_size));
        }
        if terms.assigned {
            properties.push(Property::AssignedClientIdentifier(&terms.client_id)); // [MQTT-3.2.2-16]
        }
        if limits.max_topic_alias > 0 {
            properties.push(Property::TopicAliasMaximum(limits.max_topic_alias));
        }
        if terms.server_keep_alive {
            properties.push(Property::ServerKeepAlive(terms.keep_alive)); // [MQTT-3.2.2-21]
        }
        properties
    }

    /// Writes down that the session is connected, and its will. CONNACK waits for it where there is
    /// something to lose.
    fn remember_connected(&mut self, index: SessionIndex) -> Stamp {
        let are_kept = self.sessions.are_kept;
        let session = &mut self.sessions[index];
        if !(session.durable || session.will.is_some() && are_kept) {
            return Stamp::NONE;
        }
        session.stored = true;
        let key = session.key();
        let record = session.record();
        let will = session.will.as_deref().cloned();
        self.write(Write::PutSession(key, record));
        if let Some(will) = will {
            self.write(Write::PutWill(key, will));
        }
        let stamp = self.gate.require(SESSION);
        self.gated(Arrow::ConnAck, stamp)
    }

    /// Closes a connection that is not accepted, with a CONNACK if the client can be told: MQTT 3
    /// has return codes for a few reasons only, and a peer that did not send a CONNECT is not
    /// answered.
    pub(in crate::broker) fn refuse_connect(
        &mut self,
        id: ConnectionId,
        fault: Fault,
        version: Option<ProtocolVersion>,
    ) {
        self.counters.connects_refused += 1;
        match fault.reason {
            ReasonCode::BadUserNameOrPassword => self.counters.bad_user_names_or_passwords += 1,
            ReasonCode::ConnectionRateExceeded => self.counters.logins_throttled += 1,
            _ => {}
        }
        self.connections[id].close();
        self.touch(id);
        let malformed = matches!(
            fault.reason,
            ReasonCode::MalformedPacket | ReasonCode::ProtocolError | ReasonCode::PacketTooLarge
        );
        match version {
            Some(version) if version == ProtocolVersion::V5 || !malformed => {
                self.connections[id].set_version(version)
            }
            None if fault.reason == ReasonCode::UnsupportedProtocolVersion => {}
            _ => return,
        }
        let mut properties = PropertiesBuf::new();
        if version.is_some() {
            properties.push(Property::ReasonString(fault.what));
        }
        let packet = ConnAck {
            session_present: false,
            reason: fault.reason,
            properties: properties.as_properties(),
        };
        self.push(id, Stamp::NONE, &Packet::ConnAck(packet));
    }
}
