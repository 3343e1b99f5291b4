//! What a client's CONNECT says of its connection.

use crate::broker::model::marks::BRIDGE;
use crate::wire::ProtocolVersion;
use crate::wire::packet::Connect;

/// What a client's CONNECT says of its connection. The default holds until the CONNECT comes.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Protocol version.
    pub version: ProtocolVersion,
    /// It has the bridge bit (MQTT 3): the client gets nothing that it has published, and retain
    /// flags as they were published.
    pub is_bridge: bool,
    /// The client wants reasons with acknowledgements \[MQTT-3.1.2-29\].
    pub wants_reasons: bool,
    /// It says that the client is a bridge (MQTT 5): messages to it carry marks.
    pub marked: bool,
    /// The largest packet that the client takes, in bytes.
    pub maximum_packet_size: u32,
}

impl Default for ConnectOptions {
    fn default() -> ConnectOptions {
        ConnectOptions {
            version: ProtocolVersion::V5,
            is_bridge: false,
            wants_reasons: true,
            marked: false,
            maximum_packet_size: u32::MAX,
        }
    }
}

impl ConnectOptions {
    /// Reads a CONNECT.
    pub fn of(connect: &Connect<'_>) -> ConnectOptions {
        let properties = &connect.properties;
        ConnectOptions {
            version: connect.version,
            is_bridge: connect.bridge,
            wants_reasons: properties.request_problem_information() != Some(0),
            marked: ConnectOptions::bridge_mark(connect).is_some(),
            maximum_packet_size: properties.maximum_packet_size().unwrap_or(u32::MAX),
        }
    }

    /// What a bridge says of itself in its CONNECT (MQTT 5).
    pub fn bridge_mark<'a>(connect: &Connect<'a>) -> Option<&'a str> {
        if connect.version != ProtocolVersion::V5 {
            return None;
        }
        let mut said = connect.properties.user_properties();
        said.find(|(name, _)| *name == BRIDGE)
            .map(|(_, value)| value)
    }
}
