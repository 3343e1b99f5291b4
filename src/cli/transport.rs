//! The transports of `pub`, `sub` and `bench`: TCP, a Unix socket, a proxy, TLS, WebSocket.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Args, ValueEnum};
use rustls::CipherSuite;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use super::exit::{self, Failure};
use super::url::Url;
use crate::config::parse_proxy;
use crate::net::bridge::{Address, Proxy};
use crate::net::listener::Protocol as Mqtt;
use crate::net::tls::client::ClientTls;
use crate::net::tls::{CertificateFiles, TlsVersion, cipher};
use crate::net::websocket;
use crate::wire::ProtocolVersion;

/// The flags that choose a transport.
#[derive(Args, Clone, Debug, Default)]
pub struct TransportFlags {
    /// Server as a URL: mqtt:// or mqtts://, then [user[:password]@]host[:port][/topic]; or ws://
    /// or wss://, where a path follows the host
    #[arg(short = 'L', long, value_name = "URL", conflicts_with_all = ["host", "port", "unix"])]
    pub url: Option<String>,
    /// Connect to this Unix socket
    #[arg(long, value_name = "PATH", conflicts_with_all = ["host", "port", "proxy"])]
    pub unix: Option<PathBuf>,
    /// Connect through this proxy: socks5h:// or http://, then [user:password@]host[:port]
    #[arg(long, value_name = "URL", value_parser = parse_proxy)]
    pub proxy: Option<Proxy>,
    /// Send small packets without delay; this is always so, the flag is known for the sake of
    /// scripts
    #[arg(long)]
    pub nodelay: bool,
    #[command(flatten)]
    pub layers: LayerFlags,
}

/// The flags of the layers between TCP and MQTT.
#[derive(Args, Clone, Debug, Default)]
pub struct LayerFlags {
    /// TLS: trust the authorities whose certificates are in this file
    #[arg(long, value_name = "FILE")]
    pub cafile: Option<PathBuf>,
    /// TLS: trust the authorities whose certificates are in the files of this directory
    #[arg(long, value_name = "DIRECTORY")]
    pub capath: Option<PathBuf>,
    /// TLS: without --cafile and --capath, the authorities this system trusts are trusted
    #[arg(long, visible_alias = "tls-use-os-certs")]
    pub tls: bool,
    /// TLS: show this certificate (needs --key)
    #[arg(long, value_name = "FILE", requires = "key")]
    pub cert: Option<PathBuf>,
    /// TLS: the key of --cert
    #[arg(long, value_name = "FILE", requires = "cert")]
    pub key: Option<PathBuf>,
    /// TLS: do not check whose certificate the server shows; for tests only
    #[arg(long)]
    pub insecure: bool,
    /// TLS: the oldest version
    #[arg(long, value_name = "VERSION")]
    pub tls_version: Option<VersionFlag>,
    /// TLS: offer these cipher suites only, by their OpenSSL names with colons between them
    #[arg(long, value_name = "NAMES", value_parser = ciphers)]
    pub ciphers: Option<Ciphers>,
    /// TLS: what to ask for by ALPN
    #[arg(long, value_name = "NAME")]
    pub tls_alpn: Option<String>,
    /// WebSocket, at the path /mqtt
    #[arg(long)]
    pub ws: bool,
}

/// A version of TLS, as Mosquitto writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VersionFlag {
    /// TLS 1.2
    #[value(name = "tlsv1.2")]
    Tls12,
    /// TLS 1.3
    #[value(name = "tlsv1.3")]
    Tls13,
}

/// Cipher suites as the flag names them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ciphers(Vec<CipherSuite>);

fn ciphers(text: &str) -> Result<Ciphers, String> {
    let find = |name: &str| cipher::find(cipher::TLS12, name).or(cipher::find(cipher::TLS13, name));
    let suites = text.split(':').map(|name| {
        find(name.trim()).ok_or_else(|| {
            let (tls12, tls13) = (cipher::names(cipher::TLS12), cipher::names(cipher::TLS13));
            format!("{name:?} is not known; expected names with colons between them, of {tls12}, {tls13}")
        })
    });
    suites.collect::<Result<_, _>>().map(Ciphers)
}

/// A transport.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transport {
    /// Unix socket. Replaces host and port.
    pub unix: Option<PathBuf>,
    /// Proxy that connects to host and port.
    pub proxy: Option<Proxy>,
    /// TLS, if used.
    pub tls: Option<ClientTls>,
    /// Path, if WebSocket is used.
    pub websocket: Option<String>,
}

impl TransportFlags {
    /// Returns the transport, and the URL if there is one.
    ///
    /// # Errors
    /// A usage failure that names the flag.
    pub fn transport(&self) -> Result<(Transport, Option<Url>), Failure> {
        let url = self.url.as_deref().map(Url::parse).transpose()?;
        let scheme = url.as_ref().map(|url| url.protocol);
        let secured = match scheme {
            Some(Mqtt::Mqtts | Mqtt::Wss) => true,
            Some(plain) if self.layers.asks_for_tls() => {
                let what = format!("{plain}:// has no TLS, but there are flags for it");
                return Err(Failure::usage(what));
            }
            Some(plain) if self.layers.ws && plain == Mqtt::Mqtt => {
                return Err(Failure::usage("mqtt:// is no WebSocket, but there is --ws"));
            }
            _ => self.layers.asks_for_tls(),
        };
        let path = url.as_ref().and_then(|url| url.path.clone());
        let is_ws = self.layers.ws || matches!(scheme, Some(Mqtt::Ws | Mqtt::Wss));
        let transport = Transport {
            unix: self.unix.clone(),
            proxy: self.proxy.clone(),
            ..self.layers.transport(secured, is_ws, path)
        };
        Ok((transport, url))
    }
}

impl LayerFlags {
    /// Returns the transport of the layers over TCP.
    pub fn over_tcp(&self) -> Transport {
        self.transport(self.asks_for_tls(), self.ws, None)
    }

    fn asks_for_tls(&self) -> bool {
        self.cafile.is_some()
            || self.capath.is_some()
            || self.ciphers.is_some()
            || self.tls
            || self.cert.is_some()
            || self.insecure
            || self.tls_version.is_some()
            || self.tls_alpn.is_some()
    }

    fn transport(&self, secured: bool, is_ws: bool, path: Option<String>) -> Transport {
        let usual = if is_ws { "http/1.1" } else { "mqtt" };
        let identity = self.cert.clone().zip(self.key.clone());
        let tls = secured.then(|| ClientTls {
            cafile: self.cafile.clone(),
            capath: self.capath.clone(),
            ciphers: self.ciphers.clone().map(|Ciphers(suites)| suites),
            identity: identity.map(|(certfile, keyfile)| CertificateFiles { certfile, keyfile }),
            insecure: self.insecure,
            insecure_server_name: false,
            allow_x509_v1: false,
            pinned_keys: Vec::new(),
            minimum: match self.tls_version {
                Some(VersionFlag::Tls13) => TlsVersion::Tls13,
                _ => TlsVersion::Tls12,
            },
            alpn: self.tls_alpn.clone().unwrap_or_else(|| usual.to_owned()),
        });
        Transport {
            unix: None,
            proxy: None,
            tls,
            websocket: is_ws.then(|| path.unwrap_or_else(|| "/mqtt".to_owned())),
        }
    }
}

impl Transport {
    /// Returns the default port of a server.
    pub fn default_port(&self) -> u16 {
        let protocol = match (&self.websocket, &self.tls) {
            (None, None) => Mqtt::Mqtt,
            (None, Some(_)) => Mqtt::Mqtts,
            (Some(_), None) => Mqtt::Ws,
            (Some(_), Some(_)) => Mqtt::Wss,
        };
        protocol.default_port()
    }

    /// Prepares the layers between TCP and MQTT for any number of connections to this host. Returns
    /// `None` if there are none.
    ///
    /// # Errors
    /// Fails if a file cannot be used, or the host is not a valid name for TLS.
    pub fn layers(
        &self,
        host: &str,
        port: u16,
        version: ProtocolVersion,
    ) -> Result<Option<Layers>, Failure> {
        if self.tls.is_none() && self.websocket.is_none() && self.proxy.is_none() {
            return Ok(None);
        }
        let tls = match &self.tls {
            None => None,
            Some(choice) => {
                let what = "the host is neither name nor address";
                let name = ServerName::try_from(host.to_owned())
                    .map_err(|_| Failure::new(exit::FAILED, what))?;
                let config = choice.config();
                let config =
                    config.map_err(|error| Failure::new(exit::FAILED, error.to_string()))?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
        };
        Ok(Some(Layers {
            proxy: self.proxy.clone(),
            tls,
            websocket: self.websocket.clone(),
            server: Address {
                host: host.to_owned(),
                port,
            },
            subprotocol: match version {
                ProtocolVersion::V31 => "mqttv3.1",
                _ => "mqtt",
            },
        }))
    }
}

/// The layers between TCP and MQTT: a proxy, TLS, WebSocket.
#[derive(Clone)]
pub struct Layers {
    proxy: Option<Proxy>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    websocket: Option<String>,
    server: Address,
    subprotocol: &'static str,
}

impl std::fmt::Debug for Layers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layers")
            .field("tls", &self.tls.is_some())
            .field("websocket", &self.websocket)
            .field("server", &self.server)
            .finish_non_exhaustive()
    }
}

impl Layers {
    /// Does the handshakes over a connection. The returned stream carries MQTT.
    ///
    /// # Errors
    /// Fails if the proxy refuses, the server refuses or has the wrong certificate, or the
    /// connection is lost.
    pub async fn open(
        self,
        mut stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    ) -> io::Result<Box<dyn Layered>> {
        if let Some(proxy) = &self.proxy {
            proxy.connect(&mut stream, &self.server).await?;
        }
        let secured: Box<dyn Layered> = match self.tls {
            None => Box::new(stream),
            Some((connector, name)) => Box::new(connector.connect(name, stream).await?),
        };
        let Some(path) = &self.websocket else {
            return Ok(secured);
        };
        let stream =
            websocket::connect(secured, &self.server.to_string(), path, self.subprotocol).await?;
        Ok(Box::new(stream))
    }
}

/// A connection with layers.
pub trait Layered: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Layered for S {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_for_tls_mean_tls_and_the_port_follows() {
        let transport = |flags: TransportFlags| flags.transport().expect("good").0;
        assert_eq!(transport(TransportFlags::default()).default_port(), 1883);
        let insecure = TransportFlags {
            layers: LayerFlags {
                insecure: true,
                ..LayerFlags::default()
            },
            ..TransportFlags::default()
        };
        assert_eq!(transport(insecure.clone()).default_port(), 8883);
        let mut ws = insecure.clone();
        ws.layers.ws = true;
        assert_eq!(transport(ws).default_port(), 8084);
        let plain = TransportFlags {
            url: Some("ws://a".to_owned()),
            ..insecure
        };
        let failure = plain.transport().expect_err("no TLS");
        assert!(failure.message.contains("ws:// has no TLS"));
    }
}
