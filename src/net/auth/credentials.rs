//! What a client shows to prove who it is.

use std::net::IpAddr;

use crate::broker::Arrival;
use crate::wire::packet::Connect;

/// What a CONNECT is checked by.
#[derive(Clone)]
pub struct Credentials {
    /// The user name.
    pub username: Option<Box<str>>,
    /// The password.
    pub password: Option<Box<[u8]>>,
    /// The client identifier; may be empty.
    pub client_id: Box<str>,
    /// Where the client connects from; `None` on a Unix socket.
    pub address: Option<IpAddr>,
}

impl Credentials {
    /// Those of a CONNECT; `None` if it has neither a user name nor a password. Where anonymous clients are allowed, an empty one is none.
    pub fn from_connect(connect: &Connect<'_>, arrival: &Arrival) -> Option<Credentials> {
        let lenient = arrival.access.allow_anonymous;
        let is_name = |name: &&str| !lenient || !name.is_empty();
        let is_password = |password: &&[u8]| !lenient || !password.is_empty();
        let name = connect.username.filter(is_name);
        if name.is_none() && connect.password.filter(is_password).is_none() {
            return None;
        }
        Some(Credentials {
            username: connect.username.map(Into::into),
            password: connect.password.map(Into::into),
            client_id: connect.client_id.into(),
            address: arrival.peer.address.map(|address| address.ip()),
        })
    }
}
