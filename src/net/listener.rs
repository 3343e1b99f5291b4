//! Accepts TCP connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::connection::serve;
use super::core::Core;
use crate::broker::Access;

/// Connections the operating system holds until they are accepted.
const BACKLOG: i32 = 1024;

/// Opens a listening socket.
///
/// # Errors
/// The address cannot be used.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM,
        None,
    )?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts connections for ever.
pub async fn accept(core: Arc<Core>, listener: TcpListener, access: Access, max_packet_size: u32) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => take_in(&core, stream, peer, access, max_packet_size),
            Err(error) => {
                // Out of file descriptors, most likely: those that are waiting may find room a moment later.
                tracing::warn!(%error, "cannot accept a connection");
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

fn take_in(
    core: &Arc<Core>,
    stream: TcpStream,
    peer: SocketAddr,
    access: Access,
    max_packet_size: u32,
) {
    if let Err(error) = stream.set_nodelay(true) {
        return tracing::debug!(%peer, %error, "connection is gone already");
    }
    let mut entered = core.enter(None);
    let now = entered.now();
    match entered.broker().accept(access, now) {
        Some(id) => {
            tracing::debug!(%peer, connection = id.0, "connection accepted");
            drop(entered);
            tokio::spawn(serve(Arc::clone(core), stream, id, max_packet_size));
        }
        None => {
            tracing::warn!(%peer, "connection refused: max_connections is reached, or the broker is stopping")
        }
    }
}
