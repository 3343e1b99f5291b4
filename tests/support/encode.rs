//! Encodes the packets of a client with the packet types of mqttbytes. Packets that it cannot
//! encode are in `raw`.

use bytes::{Bytes, BytesMut};
use mqttbytes::{Protocol, QoS, v4, v5};

use crate::client::Connect;
use crate::packet::{Properties, Value, Version, property};
use crate::raw;
use crate::request::{Message, Subscription, Will};

const WRITES: &str = "mqttbytes writes a packet that is right";

/// Converts a QoS to that of mqttbytes.
pub fn qos(value: u8) -> QoS {
    mqttbytes::qos(value).expect("a test asks for QoS 0, 1 or 2 here")
}

/// CONNECT.
pub fn connect(connect: &Connect) -> Vec<u8> {
    let binary_password = matches!(&connect.login, Some((_, Some(password))) if std::str::from_utf8(password).is_err());
    let half_login = matches!(&connect.login, Some((_, None)));
    if connect.version == Version::V31 || binary_password || half_login {
        return connect_by_hand(connect);
    }
    let login = connect.login.as_ref().map(|(user, password)| {
        let password = password.clone().unwrap_or_default();
        let password = String::from_utf8(password).expect("checked above");
        (user.clone(), password)
    });
    let mut out = BytesMut::new();
    if connect.version.is5() {
        let mut packet = v5::Connect::new(connect.client_id.as_str());
        packet.protocol = Protocol::V5;
        packet.keep_alive = connect.keep_alive;
        packet.clean_session = connect.clean;
        packet.properties = connect_properties(&connect.properties);
        packet.last_will = connect.will.as_ref().map(will5);
        if let Some((user, password)) = login {
            packet.set_login(user, password);
        }
        packet.write(&mut out).expect(WRITES);
    } else {
        let mut packet = v4::Connect::new(connect.client_id.as_str());
        packet.keep_alive = connect.keep_alive;
        packet.clean_session = connect.clean;
        packet.last_will = connect.will.as_ref().map(|will| {
            v4::LastWill::new(
                will.message.topic.as_str(),
                will.message.payload.clone(),
                qos(will.message.qos),
                will.message.retain,
            )
        });
        if let Some((user, password)) = login {
            packet.set_login(user, password);
        }
        packet.write(&mut out).expect(WRITES);
    }
    out.to_vec()
}

fn connect_by_hand(connect: &Connect) -> Vec<u8> {
    let mut flags = if connect.clean { 2 } else { 0 };
    let mut rest = Vec::new();
    if connect.version.is5() {
        rest.extend(raw::properties(&connect.properties));
    }
    rest.extend(raw::string(&connect.client_id));
    if let Some(will) = &connect.will {
        flags |= 4 | (will.message.qos << 3) | (u8::from(will.message.retain) << 5);
        if connect.version.is5() {
            rest.extend(raw::properties(&will.message.properties));
        }
        rest.extend(raw::string(&will.message.topic));
        rest.extend(raw::string(&will.message.payload));
    }
    if let Some((user, password)) = &connect.login {
        flags |= 0x80;
        rest.extend(raw::string(user));
        if let Some(password) = password {
            flags |= 0x40;
            rest.extend(raw::string(password));
        }
    }
    let name = match connect.version {
        Version::V31 => "MQIsdp",
        _ => "MQTT",
    };
    let mut out = raw::connect(name, connect.version.level(), flags, &rest);
    let keep_alive = out.len() - rest.len() - 2;
    out[keep_alive..keep_alive + 2].copy_from_slice(&connect.keep_alive.to_be_bytes());
    out
}

/// PUBLISH. The packet identifier is not used at QoS 0.
pub fn publish(version: Version, message: &Message, id: u16, dup: bool) -> Vec<u8> {
    let mut out = BytesMut::new();
    let payload = Bytes::from(message.payload.clone());
    if version.is5() {
        let mut packet = v5::Publish::from_bytes(&message.topic, qos(message.qos), payload);
        packet.dup = dup;
        packet.retain = message.retain;
        packet.pkid = if message.qos > 0 { id } else { 0 };
        packet.properties = publish_properties(&message.properties);
        packet.write(&mut out).expect(WRITES);
    } else {
        let mut packet = v4::Publish::from_bytes(&message.topic, qos(message.qos), payload);
        packet.dup = dup;
        packet.retain = message.retain;
        packet.pkid = if message.qos > 0 { id } else { 0 };
        packet.write(&mut out).expect(WRITES);
    }
    out.to_vec()
}

/// SUBSCRIBE.
pub fn subscribe(
    version: Version,
    id: u16,
    subscriptions: &[Subscription],
    properties: &Properties,
) -> Vec<u8> {
    let mut out = BytesMut::new();
    if version.is5() {
        let filters = subscriptions.iter().map(|subscription| {
            let mut filter =
                v5::SubscribeFilter::new(subscription.filter.clone(), qos(subscription.qos));
            filter.set_nolocal(subscription.no_local);
            filter.set_preserve_retain(subscription.retain_as_published);
            filter.set_retain_forward_rule(match subscription.retain_handling {
                0 => v5::RetainForwardRule::OnEverySubscribe,
                1 => v5::RetainForwardRule::OnNewSubscribe,
                _ => v5::RetainForwardRule::Never,
            });
            filter
        });
        let mut packet = v5::Subscribe::new_many(filters);
        packet.pkid = id;
        if !properties.0.is_empty() {
            packet.properties = Some(v5::SubscribeProperties {
                id: properties
                    .number(property::SUBSCRIPTION_ID)
                    .map(|id| id as usize),
                user_properties: users(properties),
            });
        }
        packet.write(&mut out).expect(WRITES);
    } else {
        let filters = subscriptions.iter().map(|subscription| {
            v4::SubscribeFilter::new(subscription.filter.clone(), qos(subscription.qos))
        });
        let mut packet = v4::Subscribe::new_many(filters);
        packet.pkid = id;
        packet.write(&mut out).expect(WRITES);
    }
    out.to_vec()
}

/// UNSUBSCRIBE.
pub fn unsubscribe(version: Version, id: u16, filters: &[&str]) -> Vec<u8> {
    let mut out = BytesMut::new();
    let filters: Vec<String> = filters.iter().map(|&filter| filter.to_owned()).collect();
    if version.is5() {
        let packet = v5::Unsubscribe {
            pkid: id,
            filters,
            properties: None,
        };
        packet.write(&mut out).expect(WRITES);
    } else {
        let packet = v4::Unsubscribe {
            pkid: id,
            topics: filters,
        };
        packet.write(&mut out).expect(WRITES);
    }
    out.to_vec()
}

/// PUBACK (0x40), PUBREC (0x50), PUBREL (0x62) or PUBCOMP (0x70) with success.
pub fn ack(first: u8, id: u16) -> Vec<u8> {
    let mut out = BytesMut::new();
    // A success without properties has the same four bytes in all versions.
    let written = match first {
        0x40 => v4::PubAck::new(id).write(&mut out),
        0x50 => v4::PubRec::new(id).write(&mut out),
        0x62 => v4::PubRel::new(id).write(&mut out),
        _ => v4::PubComp::new(id).write(&mut out),
    };
    written.expect(WRITES);
    out.to_vec()
}

fn will5(will: &Will) -> v5::LastWill {
    let p = &will.message.properties;
    let mut last_will = v5::LastWill::new(
        will.message.topic.as_str(),
        will.message.payload.clone(),
        qos(will.message.qos),
        will.message.retain,
    );
    if !p.0.is_empty() {
        last_will.properties = Some(v5::WillProperties {
            delay_interval: p.number(property::WILL_DELAY),
            payload_format_indicator: p.number(property::PAYLOAD_FORMAT).map(|v| v as u8),
            message_expiry_interval: p.number(property::MESSAGE_EXPIRY),
            content_type: p.string(property::CONTENT_TYPE).map(str::to_owned),
            response_topic: p.string(property::RESPONSE_TOPIC).map(str::to_owned),
            correlation_data: p
                .bytes(property::CORRELATION_DATA)
                .map(Bytes::copy_from_slice),
            user_properties: users(p),
        });
    }
    last_will
}

fn connect_properties(p: &Properties) -> Option<v5::ConnectProperties> {
    if p.0.is_empty() {
        return None;
    }
    Some(v5::ConnectProperties {
        session_expiry_interval: p.number(property::SESSION_EXPIRY),
        receive_maximum: p.number(property::RECEIVE_MAXIMUM).map(|v| v as u16),
        max_packet_size: p.number(property::MAXIMUM_PACKET_SIZE),
        topic_alias_max: p.number(property::TOPIC_ALIAS_MAXIMUM).map(|v| v as u16),
        request_response_info: p.number(property::REQUEST_RESPONSE).map(|v| v as u8),
        request_problem_info: p.number(property::REQUEST_PROBLEM).map(|v| v as u8),
        user_properties: users(p),
        authentication_method: p.string(property::AUTH_METHOD).map(str::to_owned),
        authentication_data: p.bytes(property::AUTH_DATA).map(Bytes::copy_from_slice),
    })
}

fn publish_properties(p: &Properties) -> Option<v5::PublishProperties> {
    if p.0.is_empty() {
        return None;
    }
    Some(v5::PublishProperties {
        payload_format_indicator: p.number(property::PAYLOAD_FORMAT).map(|v| v as u8),
        message_expiry_interval: p.number(property::MESSAGE_EXPIRY),
        topic_alias: p.number(property::TOPIC_ALIAS).map(|v| v as u16),
        response_topic: p.string(property::RESPONSE_TOPIC).map(str::to_owned),
        correlation_data: p
            .bytes(property::CORRELATION_DATA)
            .map(Bytes::copy_from_slice),
        user_properties: users(p),
        subscription_identifiers: Vec::new(),
        content_type: p.string(property::CONTENT_TYPE).map(str::to_owned),
    })
}

fn users(properties: &Properties) -> Vec<(String, String)> {
    let pairs = properties.0.iter().filter_map(|(_, value)| match value {
        Value::Pair(name, value) => Some((name.clone(), value.clone())),
        _ => None,
    });
    pairs.collect()
}
