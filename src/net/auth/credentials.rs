//! The credentials of a client.

use std::net::IpAddr;

use crate::broker::Arrival;
use crate::wire::packet::Connect;

/// The credentials in a CONNECT, and where it comes from.
#[derive(Clone)]
pub struct Credentials {
    /// The user name.
    pub username: Option<Box<str>>,
    /// The password.
    pub password: Option<Box<[u8]>>,
    /// The client identifier. May be empty.
    pub client_id: Box<str>,
    /// The client's IP address. `None` on a Unix socket.
    pub address: Option<IpAddr>,
}

impl Credentials {
    /// Returns the credentials of a CONNECT. `None` if it has neither user name nor password. If
    /// anonymous clients are allowed, empty ones do not count.
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
