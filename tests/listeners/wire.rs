//! MQTT over whatever can be read and written, packet by packet.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use support::{Broker, Connect, TIMEOUT, Version, raw};

/// A connection.
pub struct Wire<S>(pub S);

pub type TlsWire = Wire<StreamOwned<ClientConnection, TcpStream>>;

/// Where the broker's listener of this protocol is: the first `scheme://` in what it printed.
pub fn place(broker: &Broker, scheme: &str) -> SocketAddr {
    let mark = format!("{scheme}://");
    let words = broker
        .banner()
        .iter()
        .flat_map(|line| line.split_whitespace());
    let url = words
        .filter_map(|word| word.strip_prefix(&mark))
        .next()
        .unwrap_or_else(|| panic!("no {mark} in {:?}", broker.banner()));
    let address = url.split('/').next().expect("an address");
    address.parse().expect("an address and a port")
}

/// A TCP connection that does not wait for ever.
pub fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("somebody listens");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a time-out");
    stream.set_nodelay(true).expect("a socket option");
    stream
}

/// A TLS connection, its handshake done: by the server, too, as it has answered a CONNECT.
pub fn tls(address: SocketAddr, config: &Arc<ClientConfig>, id: &str) -> io::Result<TlsWire> {
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    let mut wire = Wire(StreamOwned::new(connection, dial(address)));
    let code = wire.connect(id)?;
    assert_eq!(code, 0, "refused");
    Ok(wire)
}

impl<S: Read + Write> Wire<S> {
    /// Sends a CONNECT of MQTT 5, and gives the reason code of the CONNACK.
    pub fn connect(&mut self, id: &str) -> io::Result<u8> {
        self.send(&Connect::new(Version::V5, id).bytes())?;
        let connack = self.receive()?;
        if connack[0] != 0x20 {
            return Err(io::Error::other(format!(
                "{connack:?} instead of a CONNACK"
            )));
        }
        Ok(connack[3])
    }

    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all(bytes)?;
        self.0.flush()
    }

    /// Publishes at QoS 1 and waits for the PUBACK.
    pub fn publish(&mut self, topic: &str, id: u16) -> io::Result<()> {
        self.send(&raw::publish5(0x32, topic.as_bytes(), Some(id), &[], b"x"))?;
        let puback = self.receive()?;
        assert_eq!(puback[0], 0x40, "{puback:?} instead of a PUBACK");
        assert_eq!(puback[2..4], id.to_be_bytes());
        Ok(())
    }

    pub fn ping(&mut self) -> io::Result<()> {
        self.send(&[0xC0, 0])?;
        assert_eq!(self.receive()?, [0xD0, 0]);
        Ok(())
    }

    /// The next packet. All here are shorter than 128 bytes.
    pub fn receive(&mut self) -> io::Result<Vec<u8>> {
        let mut packet = vec![0; 2];
        self.0.read_exact(&mut packet)?;
        packet.resize(2 + usize::from(packet[1]), 0);
        self.0.read_exact(&mut packet[2..])?;
        Ok(packet)
    }

    /// Reads up to the end, which must come.
    pub fn read_to_end(&mut self) -> Vec<u8> {
        let mut all = Vec::new();
        match self.0.read_to_end(&mut all) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => panic!("it stays open"),
            _ => all,
        }
    }
}
