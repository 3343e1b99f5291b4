//! A server for tests: accepts one connection on loopback and runs a script.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::wire::packet::{Ack, ConnAck};
use crate::wire::{Packet, PacketId, PropertiesBuf, Property, ProtocolVersion, ReasonCode, codec};

/// The server side of the connection.
pub struct TestServer {
    stream: TcpStream,
    bytes: Vec<u8>,
    version: ProtocolVersion,
}

/// Starts a server that runs `script`. Returns its port.
pub fn serve(script: impl FnOnce(&mut TestServer) + Send + 'static) -> (String, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port().to_string();
    let server = thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        let timeout = Some(Duration::from_secs(10));
        stream.set_read_timeout(timeout).expect("a time-out");
        script(&mut TestServer {
            stream,
            bytes: Vec::new(),
            version: ProtocolVersion::V5,
        });
    });
    (port, server)
}

impl TestServer {
    /// Receives the CONNECT and accepts the connection with these properties.
    pub fn accept(&mut self, properties: &[Property<'_>]) {
        self.receive(|packet| assert!(matches!(packet, Packet::Connect(_)), "{packet:?}"));
        let mut block = PropertiesBuf::new();
        properties.iter().for_each(|property| block.push(*property));
        self.send(&Packet::ConnAck(ConnAck {
            session_present: false,
            reason: ReasonCode::Success,
            properties: block.as_properties(),
        }));
    }

    /// Sends a packet.
    pub fn send(&mut self, packet: &Packet<'_>) {
        let mut out = Vec::new();
        codec::encode(packet, self.version, &mut out);
        self.stream.write_all(&out).expect("the client reads");
    }

    /// Receives a packet and passes it to `read`.
    pub fn receive<T>(&mut self, read: impl FnOnce(&Packet<'_>) -> T) -> T {
        loop {
            let len = codec::frame_len(&self.bytes, u32::MAX).expect("a good client");
            if let Some(len) = len.filter(|len| *len <= self.bytes.len()) {
                let rest = self.bytes.split_off(len);
                let frame = std::mem::replace(&mut self.bytes, rest);
                let packet = codec::decode(&frame, self.version).expect("a good client");
                return read(&packet);
            }
            let mut scratch = [0; 1024];
            let count = self.stream.read(&mut scratch).expect("the client writes");
            assert!(count > 0, "the client has closed");
            self.bytes.extend_from_slice(&scratch[..count]);
        }
    }

    /// Returns whether no unread byte from the client arrives for a short time.
    pub fn is_quiet(&mut self) -> bool {
        let moment = Some(Duration::from_millis(50));
        self.stream.set_read_timeout(moment).expect("a time-out");
        let mut scratch = [0; 1024];
        let read = self.stream.read(&mut scratch);
        let timeout = Some(Duration::from_secs(10));
        self.stream.set_read_timeout(timeout).expect("a time-out");
        if let Ok(count) = read {
            self.bytes.extend_from_slice(&scratch[..count]);
        }
        self.bytes.is_empty()
    }
}

/// A successful acknowledgement.
pub fn ack(id: u16) -> Ack<'static> {
    Ack {
        packet_id: PacketId::new(id).expect("not zero"),
        reason: ReasonCode::Success,
        properties: Default::default(),
    }
}
