//! Who may come in: connections that are accepted, and CONNECTs that are admitted.

use crate::broker::Broker;
use crate::broker::model::access::{Arrival, Identity};
use crate::broker::model::ids::ConnectionId;
use crate::broker::model::topics::CLIENT_PREFIX;
use crate::broker::state::outbox::Outbox;
use crate::broker::state::timers::Timer;
use crate::clock::Now;
use crate::wire::packet::Connect;
use crate::wire::{Fault, QoS, ReasonCode};

/// Why a client may not use some client identifiers.
const OWN_CLIENT_IDS: &str = "client identifiers that begin with $bridge/ are the broker's own";

/// Who a client is, once its CONNECT has been admitted.
#[derive(Debug)]
pub(in crate::broker) struct Admitted {
    /// Who it has proved to be.
    pub identity: Identity,
    /// The client identifier that its certificate or its user name gives it.
    pub client_id: Option<Box<str>>,
}

impl Broker {
    /// Takes in a connection. `None` if there are too many or the broker is shutting down: close it.
    /// What is sent to it comes from [`Broker::take_output`].
    pub fn accept(&mut self, arrival: impl Into<Arrival>, now: Now) -> Option<ConnectionId> {
        self.accept_into(arrival.into(), Outbox::default(), now)
    }

    /// Takes in a local consumer, as [`Broker::accept`] takes in a connection. What is sent to it
    /// comes from [`Broker::take_deliveries`]. It has no listener's mount point, its CONNECT says
    /// MQTT 5, and its SUBSCRIBEs have no identifiers.
    pub fn accept_local(&mut self, arrival: Arrival, now: Now) -> Option<ConnectionId> {
        self.accept_into(arrival, Outbox::local(), now)
    }

    fn accept_into(&mut self, arrival: Arrival, outbox: Outbox, now: Now) -> Option<ConnectionId> {
        self.now = now;
        let limits = &self.settings.limits;
        let address = arrival.peer.ip();
        let crowded = address.is_some_and(|address| {
            let most = limits.max_connections_per_address;
            most > 0 && self.connections.count_from(&address) >= most
        });
        let full = self.connections.len() >= limits.max_connections;
        if self.connections.is_closed() || crowded || (full && !arrival.bridge) {
            self.refused();
            return None;
        }
        self.counters.connections_accepted += 1;
        let id = self.connections.add(arrival, outbox, now.uptime);
        let due = now.uptime + self.settings.limits.connect_timeout_ms;
        self.timers.set(due, Timer::Connect(id));
        Some(id)
    }

    /// Counts a connection that was closed before it came this far.
    pub fn refused(&mut self) {
        self.counters.connections_refused += 1;
    }

    /// Whether a client may come in through its listener, and as whom; `proved` is what its user name and password were found to prove.
    pub(in crate::broker) fn admit(
        &self,
        id: ConnectionId,
        connect: &Connect<'_>,
        proved: Result<Identity, Fault>,
    ) -> Result<Admitted, Fault> {
        let arrival = self.connections[id].arrival();
        let Arrival { access, peer, .. } = arrival;
        let refuse = |reason, what| Err(Fault { reason, what });
        if arrival.bridge {
            return Ok(Admitted {
                identity: Identity::default(),
                client_id: None,
            });
        }
        if connect.client_id.starts_with(CLIENT_PREFIX) {
            return refuse(ReasonCode::ClientIdentifierNotValid, OWN_CLIENT_IDS);
        }
        if !access.versions.is_empty() && !access.versions.contains(&connect.version) {
            return refuse(
                ReasonCode::UnsupportedProtocolVersion,
                "this listener does not take this protocol version",
            );
        }
        let certificate = peer.certificate.as_deref();
        let certified = certificate.and_then(|names| names.identity(access.identity));
        if certificate.is_some() && certified.is_none() && access.uses_identity() {
            return refuse(
                ReasonCode::NotAuthorized,
                "the certificate has no name of the kind that is the identity here",
            );
        }
        let identity = match arrival.certified_user() {
            Some(name) => Identity {
                user: Some(name.into()),
                rules: None,
                credential: None,
                expires_in: None,
            },
            None => proved?,
        };
        if identity.user.is_none() && !access.allow_anonymous {
            return refuse(
                ReasonCode::NotAuthorized,
                "anonymous access is not allowed on this listener",
            );
        }
        let client_id = certified.filter(|_| access.use_identity_as_clientid);
        if client_id.is_some_and(|own| !connect.client_id.is_empty() && connect.client_id != own) {
            return refuse(
                ReasonCode::ClientIdentifierNotValid,
                "the client identifier is not the certificate's identity",
            );
        }
        let client_id = match &identity.user {
            Some(user) if access.use_username_as_clientid => Some(&**user),
            None if access.use_username_as_clientid => {
                return refuse(
                    ReasonCode::NotAuthorized,
                    "the user name is the client identifier here, and there is none",
                );
            }
            _ => client_id,
        };
        let shown = client_id.unwrap_or(connect.client_id);
        if shown.starts_with(CLIENT_PREFIX) {
            return refuse(ReasonCode::ClientIdentifierNotValid, OWN_CLIENT_IDS);
        }
        if shown.is_empty() && !access.allow_zero_length_clientid {
            return refuse(
                ReasonCode::ClientIdentifierNotValid,
                "an empty client identifier is not allowed on this listener",
            );
        }
        if !access.lets_begin(shown, identity.user.as_deref()) {
            return refuse(
                ReasonCode::ClientIdentifierNotValid,
                "the client identifier does not begin as this listener wants it",
            );
        }
        let client_id = client_id.map(Into::into);
        Ok(Admitted {
            identity,
            client_id,
        })
    }

    /// The highest QoS on a connection.
    pub(in crate::broker) fn maximum_qos(&self, id: ConnectionId) -> QoS {
        let access = &self.connections[id].arrival().access;
        access.maximum_qos.min(self.settings.limits.maximum_qos)
    }

    /// The largest packet a connection takes, in bytes.
    pub(in crate::broker) fn max_packet_size(&self, id: ConnectionId) -> u32 {
        let access = &self.connections[id].arrival().access;
        access
            .max_packet_size
            .min(self.settings.limits.max_packet_size)
    }
}
