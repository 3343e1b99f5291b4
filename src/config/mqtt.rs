//! Values that are MQTT's own: what lies under it, its versions, QoS, packet sizes and session
//! expiry.

use super::tree::{Section, Value};
use crate::net::listener::Protocol;
use crate::wire::{ProtocolVersion, QoS};

/// The largest MQTT packet there can be: a fixed header of five bytes and 268,435,455 bytes after
/// it.
pub(super) const LARGEST_PACKET: u64 = 268_435_460;

pub(super) fn protocol(s: &mut Section<'_, '_>) -> Protocol {
    let expected = "\"mqtt\", \"mqtts\" (TLS), \"ws\" (WebSocket) or \"wss\" (WebSocket over TLS)";
    s.get("protocol", Protocol::Mqtt, expected, |value| {
        Some(match value.as_text()? {
            "mqtt" => Protocol::Mqtt,
            "mqtts" => Protocol::Mqtts,
            "ws" => Protocol::Ws,
            "wss" => Protocol::Wss,
            _ => return None,
        })
    })
}

pub(super) fn version(text: &str) -> Option<ProtocolVersion> {
    match text {
        "3.1" => Some(ProtocolVersion::V31),
        "3.1.1" => Some(ProtocolVersion::V311),
        "5" | "5.0" => Some(ProtocolVersion::V5),
        _ => None,
    }
}

pub(super) fn maximum_qos(s: &mut Section<'_, '_>, default: QoS) -> QoS {
    qos(s, "maximum_qos", default)
}

pub(super) fn qos(s: &mut Section<'_, '_>, key: &'static str, default: QoS) -> QoS {
    s.get(key, default, "0, 1 or 2", |value| {
        QoS::new(u8::try_from(value.as_u64()?).ok()?)
    })
}

pub(super) fn session_expiry(s: &mut Section<'_, '_>, key: &'static str, default: u32) -> u32 {
    let expected =
        "\"never\", or a duration in whole seconds such as \"7d\", shorter than 136 years";
    s.get(key, default, expected, |value| {
        if value.as_text()? == "never" {
            return Some(u32::MAX);
        }
        u32::try_from(whole_seconds(value)?)
            .ok()
            .filter(|seconds| *seconds < u32::MAX)
    })
}

pub(super) fn whole_seconds(value: &Value) -> Option<u64> {
    let duration = value.as_duration()?;
    (duration.subsec_millis() == 0).then_some(duration.as_secs())
}
