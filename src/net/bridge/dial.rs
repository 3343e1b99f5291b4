//! Connects to an address, through all layers below MQTT.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::address::Address;
use super::proxy::Proxy;
use crate::net::socket::{Socket, Stream};
use crate::net::tls::client::ClientTls;
use crate::net::tls::with_hint;
use crate::net::websocket;
use crate::wire::ProtocolVersion;

/// The layers below MQTT.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// The proxy, if there is one.
    pub proxy: Option<Proxy>,
    /// TLS, and the server name for SNI and the certificate if it is not the host.
    pub tls: Option<(ClientTls, Option<String>)>,
    /// The path, for WebSocket.
    pub websocket: Option<String>,
}

impl Transport {
    /// Connects. Tries each IP address of the name in turn. With a proxy, it is the proxy's name.
    /// `limit` is the time for each, with TLS and WebSocket.
    ///
    /// # Errors
    /// The error of the last IP address; or certificate files cannot be used.
    pub async fn dial(
        &self,
        address: &Address,
        version: ProtocolVersion,
        limit: Duration,
    ) -> io::Result<Box<dyn Stream>> {
        let timed_out = |what: &str| io::Error::new(io::ErrorKind::TimedOut, what.to_owned());
        let first = self.proxy.as_ref().map_or(address, |proxy| &proxy.address);
        let resolved = lookup_host((first.host.as_str(), first.port));
        let resolved = timeout(limit, resolved)
            .await
            .map_err(|_| timed_out("the name was not resolved in time"))??;
        let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for to in resolved {
            let attempt = async {
                let mut stream = TcpStream::connect(to).await?;
                stream.set_nodelay(true)?;
                if let Some(proxy) = &self.proxy {
                    proxy.connect(&mut stream, address).await?;
                }
                self.wrap(stream.into(), address, version).await
            };
            match timeout(limit, attempt).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => failure = io::Error::new(error.kind(), format!("{to}: {error}")),
                Err(_) => failure = timed_out(&format!("{to}: no connection in time")),
            }
        }
        Err(failure)
    }

    async fn wrap(
        &self,
        stream: Socket,
        address: &Address,
        version: ProtocolVersion,
    ) -> io::Result<Box<dyn Stream>> {
        let secured: Box<dyn Stream> = match &self.tls {
            None => Box::new(stream),
            Some((tls, name)) => {
                // The files are read for each connection, so a renewed certificate is used by the
                // next one.
                let config = tls.config().map_err(io::Error::other)?;
                let name = name.as_ref().unwrap_or(&address.host).clone();
                let name = ServerName::try_from(name)
                    .map_err(|_| io::Error::other("the host is neither name nor address"))?;
                let connector = TlsConnector::from(Arc::new(config));
                Box::new(connector.connect(name, stream).await.map_err(with_hint)?)
            }
        };
        let Some(path) = &self.websocket else {
            return Ok(secured);
        };
        let subprotocol = match version {
            ProtocolVersion::V31 => "mqttv3.1",
            _ => "mqtt",
        };
        let stream = websocket::connect(secured, &address.to_string(), path, subprotocol).await?;
        Ok(Box::new(stream))
    }
}
