//! What a listener allows, and what is known of a peer before and after its CONNECT.

use core::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::broker::model::acl::Rules;
use crate::wire::{ProtocolVersion, QoS};

/// Who may connect through a listener, and what connections through it may do. `Default` lets in
/// nobody, and limits nothing else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    /// Clients need not say who they are.
    pub allow_anonymous: bool,
    /// The protocol versions that may be spoken; empty allows all. Another one: CONNACK 0x84 (MQTT
    /// 3: unacceptable protocol version).
    pub versions: Vec<ProtocolVersion>,
    /// As [`crate::limits::Limits::maximum_qos`], for this listener; the lower of both holds.
    pub maximum_qos: QoS,
    /// As [`crate::limits::Limits::max_packet_size`], for this listener; the lower of both holds.
    /// It is the driver that enforces it.
    pub max_packet_size: u32,
    /// The name in a client's certificate that is its identity.
    pub identity: IdentityKind,
    /// The identity is the user name; such a client is not anonymous. A certificate without one is
    /// refused: 0x87 (MQTT 3: not authorized).
    pub use_identity_as_username: bool,
    /// What stands before all topics of clients that come this way, and is taken off what they get;
    /// empty for nothing, otherwise it ends with `/`.
    pub mount_point: Box<str>,
    /// Names the list of what clients that come this way may do, among those of
    /// [`crate::broker::Acls::own`]; `None` for the common one.
    pub acl: Option<Box<str>>,
    /// The identity is the client identifier: a client may leave its own empty, and another one is
    /// refused: 0x85 (MQTT 3: identifier rejected).
    pub use_identity_as_clientid: bool,
    /// The user name is the client identifier, whatever the client calls itself: so nobody takes
    /// over a connection of another user. A client without a user name is refused: 0x87 (MQTT 3:
    /// not authorized).
    pub use_username_as_clientid: bool,
    /// What client identifiers may begin with; empty allows all. `%u` stands for the user name: a
    /// client without one, or in whose name is what follows `%u`, has no such identifier. Another
    /// one is refused: 0x85 (MQTT 3: identifier rejected), and so is an empty one.
    pub clientid_prefixes: Vec<Box<str>>,
    /// A client may leave its client identifier empty, and is given one. If not: 0x85 (MQTT 3:
    /// identifier rejected).
    pub allow_zero_length_clientid: bool,
}

/// Which name in a certificate is the identity; the first one of its kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum IdentityKind {
    /// The subject's common name.
    #[default]
    CommonName,
    /// A DNS name among the subject's alternative names.
    Dns,
    /// A mail address among them.
    Email,
    /// A URI among them.
    Uri,
    /// The whole subject.
    Subject,
}

/// One of a certificate's subject alternative names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateName {
    /// A DNS name.
    Dns(Box<str>),
    /// A mail address.
    Email(Box<str>),
    /// A URI.
    Uri(Box<str>),
}

/// Whom a certificate names. None of the names has a control character.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CertificateNames {
    /// The subject's common name.
    pub common_name: Option<Box<str>>,
    /// The subject's alternative names, in order.
    pub alternatives: Vec<CertificateName>,
    /// The whole subject, as RFC 2253 writes it: `CN=sensor 7,O=Example`.
    pub subject: Option<Box<str>>,
}

impl CertificateNames {
    /// The first name of this kind.
    pub fn identity(&self, kind: IdentityKind) -> Option<&str> {
        self.alternatives
            .iter()
            .find_map(|name| match (kind, name) {
                (IdentityKind::Dns, CertificateName::Dns(name))
                | (IdentityKind::Email, CertificateName::Email(name))
                | (IdentityKind::Uri, CertificateName::Uri(name)) => Some(&**name),
                _ => None,
            })
            .or(match kind {
                IdentityKind::CommonName => self.common_name.as_deref(),
                IdentityKind::Subject => self.subject.as_deref(),
                _ => None,
            })
    }
}

/// Which addresses a listener lets in, as its driver knows.
pub struct Admission(Box<dyn Fn(Option<SocketAddr>) -> bool + Send>);

impl Admission {
    /// Asks this; `None` is a Unix socket.
    pub fn new(lets_in: impl Fn(Option<SocketAddr>) -> bool + Send + 'static) -> Admission {
        Admission(Box::new(lets_in))
    }

    pub(in crate::broker) fn lets_in(&self, address: Option<SocketAddr>) -> bool {
        (self.0)(address)
    }
}

impl std::fmt::Debug for Admission {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Admission")
    }
}

/// What is known of a peer before it has said anything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Where it connects from; `None` on a Unix socket.
    pub address: Option<SocketAddr>,
    /// Whom its certificate names, which has been verified.
    pub certificate: Option<Box<CertificateNames>>,
}

impl Peer {
    /// The address it connects from, without the port.
    pub fn ip(&self) -> Option<IpAddr> {
        self.address.map(|address| address.ip().to_canonical())
    }
}

impl std::fmt::Display for Peer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.address {
            Some(address) => address.fmt(f),
            None => f.write_str("local"),
        }
    }
}

/// A connection that asks to be taken in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// What its listener allows; one value for all connections of a listener.
    pub access: Arc<Access>,
    /// Who is there.
    pub peer: Peer,
    /// It is the broker's own end of a bridge: it needs no permission, and no limit on clients
    /// holds for it.
    pub bridge: bool,
}

impl Arrival {
    /// The broker's own end of a bridge.
    pub fn bridge() -> Arrival {
        Arrival {
            bridge: true,
            ..Arrival::from(Access::default())
        }
    }

    /// The user name that the peer's certificate has proved, where that is what proves it: its user
    /// name and password are not looked at then.
    pub fn certified_user(&self) -> Option<&str> {
        let names = self.peer.certificate.as_deref()?;
        let identity = names.identity(self.access.identity);
        identity.filter(|_| self.access.use_identity_as_username)
    }
}

impl From<Access> for Arrival {
    fn from(access: Access) -> Arrival {
        Arrival {
            access: Arc::new(access),
            peer: Peer::default(),
            bridge: false,
        }
    }
}

impl Default for Access {
    fn default() -> Access {
        Access {
            allow_anonymous: false,
            versions: Vec::new(),
            maximum_qos: QoS::ExactlyOnce,
            max_packet_size: u32::MAX,
            identity: IdentityKind::default(),
            mount_point: "".into(),
            acl: None,
            use_identity_as_username: false,
            use_identity_as_clientid: false,
            use_username_as_clientid: false,
            clientid_prefixes: Vec::new(),
            allow_zero_length_clientid: true,
        }
    }
}

/// Who a client has proved to be. `Default` is a client that has proved nothing: it is anonymous.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Its user name; without control characters.
    pub user: Option<Box<str>>,
    /// What it may do, if its credentials say so: that stands instead of the broker's list.
    pub rules: Option<Arc<Rules>>,
    /// A number of what it has proved that with, if that can be withdrawn while it is connected:
    /// see [`Broker::withdraw_logins`](crate::broker::Broker::withdraw_logins).
    pub credential: Option<u64>,
    /// For how long what it has proved that with is good, from its CONNECT on, in milliseconds:
    /// then the connection ends (0xA0). `None` for ever.
    pub expires_in: Option<u64>,
}

impl Access {
    /// Whether a client identifier begins as it should, for this user.
    pub(in crate::broker) fn lets_begin(&self, client_id: &str, user: Option<&str>) -> bool {
        let begins = |prefix: &str| match prefix.split_once("%u") {
            None => client_id.starts_with(prefix),
            Some((before, behind)) => {
                // Where the name goes on behind itself, it would be the beginning of another
                // user's.
                let user = user.filter(|user| !user.contains(behind));
                let rest = client_id.strip_prefix(before).zip(user);
                let rest = rest.and_then(|(rest, user)| rest.strip_prefix(user));
                rest.is_some_and(|rest| rest.starts_with(behind))
            }
        };
        let prefixes = &self.clientid_prefixes;
        prefixes.is_empty() || prefixes.iter().any(|prefix| begins(prefix))
    }

    /// Whether the identity of a client's certificate decides anything.
    pub fn uses_identity(&self) -> bool {
        self.use_identity_as_username || self.use_identity_as_clientid
    }
}
