//! CONNECT and CONNACK, as they should be.

use support::{Broker, Client, Connect, Message, Version, property};

use crate::{each_version, in_versions};

#[test]
fn all_three_versions_connect_on_one_port_and_talk_to_each_other() {
    let broker = Broker::start();
    let mut clients: Vec<Client> = Version::ALL
        .iter()
        .map(|&v| Connect::new(v, &format!("client-{v}")).open(broker.addr()))
        .collect();
    for client in &mut clients {
        client.subscribe("greeting", 2);
    }
    for sender in 0..clients.len() {
        for qos in 0..=2 {
            let payload = format!("{sender} at {qos}");
            clients[sender].publish(&Message::new("greeting", &payload, qos));
            for client in &mut clients {
                client.expect("greeting", &payload, qos);
            }
        }
    }
}

#[test]
fn a_first_connack_says_that_no_session_is_present() {
    // [MQTT-3.2.2-3], 3.1.1: [MQTT-3.2.2-1]
    each_version(|broker, v| {
        for clean in [true, false] {
            let connect = Connect::new(v, &format!("new-{clean}")).clean(clean);
            let (_, connack) = connect.open_with_answer(broker.addr());
            assert!(!connack.session_present);
        }
    });
}

#[test]
fn an_empty_client_id_is_given_one_in_mqtt_5() {
    // [MQTT-3.1.3-6], [MQTT-3.1.3-7]: the server assigns a unique one and returns it.
    let broker = Broker::start();
    let mut ids = Vec::new();
    for clean in [true, false] {
        let connect = Connect::new(Version::V5, "").clean(clean).expiry(60);
        let (client, connack) = connect.open_with_answer(broker.addr());
        let id = connack.properties.string(property::ASSIGNED_CLIENT_ID);
        let id = id.expect("an assigned client identifier").to_owned();
        assert!(!id.is_empty() && !ids.contains(&id), "{id} is not unique");
        client.drop_connection();
        // The assigned identifier is as good as any other: the session is found again by it.
        let again = Connect::new(Version::V5, &id).clean(false).expiry(60);
        assert!(again.open_with_answer(broker.addr()).1.session_present);
        ids.push(id);
    }
}

#[test]
fn a_client_id_that_was_sent_is_not_assigned() {
    let broker = Broker::start();
    let (_, connack) = Connect::new(Version::V5, "mine").open_with_answer(broker.addr());
    assert_eq!(
        connack.properties.string(property::ASSIGNED_CLIENT_ID),
        None
    );
}

#[test]
fn an_empty_client_id_with_clean_session_is_accepted_in_mqtt_3_1_1() {
    // 3.1.1: [MQTT-3.1.3-6], [MQTT-3.1.3-7]
    let broker = Broker::start();
    let mut one = Connect::new(Version::V311, "").open(broker.addr());
    let mut two = Connect::new(Version::V311, "").open(broker.addr());
    one.ping();
    two.ping();
}

#[test]
fn an_empty_client_id_without_clean_session_is_refused_in_mqtt_3_1_1() {
    // 3.1.1: [MQTT-3.1.3-8]: return code 2 and close.
    let broker = Broker::start();
    let connect = Connect::new(Version::V311, "").clean(false);
    let (mut client, connack) = connect.try_open(broker.addr());
    assert_eq!(connack.code, 2);
    client.expect_closed();
}

#[test]
fn an_empty_client_id_is_refused_in_mqtt_3_1() {
    // MQTT 3.1: between 1 and 23 characters, otherwise return code 2.
    let Some(broker) = Broker::with("") else {
        return;
    };
    let connect = Connect::new(Version::V31, "").clean(false);
    let (mut client, connack) = connect.try_open(broker.addr());
    assert_eq!(connack.code, 2);
    client.expect_closed();
}

#[test]
fn long_client_ids_and_all_of_unicode_are_accepted() {
    // [MQTT-3.1.3-5] asks for 23 bytes; more is allowed.
    in_versions(&[Version::V311, Version::V5], |broker, v| {
        for id in ["é-ключ-鍵-🔑", "a b/c#+$", &"x".repeat(200)] {
            Connect::new(v, id).open(broker.addr()).ping();
        }
    });
}

#[test]
fn a_bridge_bit_in_the_protocol_level_is_accepted_in_mqtt_3() {
    // Mosquitto and others set bit 7 of the level when they connect as a bridge.
    let broker = Broker::start();
    for (name, level, version) in [
        ("MQIsdp", 0x83, Version::V31),
        ("MQTT", 0x84, Version::V311),
    ] {
        let mut client = Client::dial(broker.addr(), version);
        let connect =
            support::raw::connect(name, level, 2, &support::raw::string(format!("b{level}")));
        client.send(&connect);
        match client.receive() {
            support::Packet::ConnAck(connack) => assert_eq!(connack.code, 0),
            other => panic!("{other:?}"),
        }
        client.ping();
    }
}

#[test]
fn a_user_name_and_a_binary_password_are_taken() {
    each_version(|broker, v| {
        let connect = Connect::new(v, "login").login("user", Some(&[0xff, 0x00, 0xfe]));
        connect.open(broker.addr()).ping();
        Connect::new(v, "half")
            .login("user", None)
            .open(broker.addr())
            .ping();
    });
}

#[test]
fn a_password_without_a_user_name_is_allowed_in_mqtt_5() {
    // MQTT 5 section 3.1.2.9: unlike 3.1.1.
    let broker = Broker::start();
    let rest = [
        &[0][..],
        &support::raw::string("only-password"),
        &support::raw::string([1, 2]),
    ];
    let mut client = Client::dial(broker.addr(), Version::V5);
    client.send(&support::raw::connect("MQTT", 5, 0x42, &rest.concat()));
    match client.receive() {
        support::Packet::ConnAck(connack) => assert_eq!(connack.code, 0),
        other => panic!("{other:?}"),
    }
}

#[test]
fn packets_behind_a_connect_are_handled_without_waiting_for_the_connack() {
    // MQTT 5 section 3.1.4: clients may send at once.
    each_version(|broker, v| {
        let mut client = Client::dial(broker.addr(), v);
        let mut bytes = Connect::new(v, "eager").bytes();
        bytes.extend([0xc0, 0, 0xc0, 0]);
        client.send(&bytes);
        assert!(matches!(client.receive(), support::Packet::ConnAck(_)));
        client.ping();
        client.ping();
    });
}

#[test]
fn packets_may_come_a_byte_at_a_time() {
    each_version(|broker, v| {
        let mut client = Client::dial(broker.addr(), v);
        for byte in Connect::new(v, "slow").bytes() {
            client.send(&[byte]);
        }
        assert!(matches!(client.receive(), support::Packet::ConnAck(_)));
        client.subscribe("a", 0);
        let payload = [b'x'; 300];
        let mut body = support::raw::string("a");
        if v.is5() {
            body.push(0);
        }
        body.extend(payload);
        for byte in support::raw::frame(0x30, &body) {
            client.send(&[byte]);
        }
        client.expect("a", payload, 0);
    });
}

#[test]
fn capabilities_without_a_limit_are_not_mentioned() {
    // MQTT 5 section 3.2.2.3: absent means available.
    let broker = Broker::start();
    let (_, connack) = Connect::new(Version::V5, "capable").open_with_answer(broker.addr());
    for id in [
        property::MAXIMUM_QOS,
        property::RETAIN_AVAILABLE,
        property::WILDCARD_AVAILABLE,
        property::SUBSCRIPTION_ID_AVAILABLE,
        property::SHARED_AVAILABLE,
        property::SERVER_KEEP_ALIVE,
        property::SESSION_EXPIRY,
        property::AUTH_METHOD,
    ] {
        let value = connack.properties.get(id);
        assert!(value.is_none(), "property {id:#04x} is {value:?}");
    }
}

#[test]
fn the_connack_names_the_limits_of_the_server() {
    let Some(broker) = Broker::with(
        "[limits]\nreceive_maximum = 7\nmax_packet_size = \"5000\"\nmax_topic_alias = 3\nmax_keepalive = \"30s\"\n\
         maximum_qos = 1\nretain_available = false\npersistent_client_expiration = \"100s\"\n",
    ) else {
        return;
    };
    let connect = Connect::new(Version::V5, "limited").expiry(1000);
    let (_, connack) = connect.keep_alive(60).open_with_answer(broker.addr());
    let number = |id| connack.properties.number(id);
    assert_eq!(number(property::RECEIVE_MAXIMUM), Some(7));
    assert_eq!(number(property::MAXIMUM_PACKET_SIZE), Some(5000));
    assert_eq!(number(property::TOPIC_ALIAS_MAXIMUM), Some(3));
    assert_eq!(number(property::SERVER_KEEP_ALIVE), Some(30));
    assert_eq!(number(property::MAXIMUM_QOS), Some(1));
    assert_eq!(number(property::RETAIN_AVAILABLE), Some(0));
    assert_eq!(number(property::SESSION_EXPIRY), Some(100));
}

#[test]
fn without_problem_information_only_some_packets_carry_reason_strings_and_user_properties() {
    // [MQTT-3.1.2-29]: not on packets other than PUBLISH, CONNACK and DISCONNECT.
    let broker = Broker::start();
    let connect = Connect::new(Version::V5, "terse");
    let mut client = connect
        .with(|p| p.byte(property::REQUEST_PROBLEM, 0))
        .open(broker.addr());
    let id = client.send_publish(&Message::new("nobody/subscribes", "", 1));
    assert_eq!(client.puback_for(id).properties.0, []);
    client.send_ack(0x62, 999);
    let pubcomp = client.wait_for("PUBCOMP", |packet| match packet {
        support::Packet::PubComp(ack) => Some(ack.clone()),
        _ => None,
    });
    assert_eq!(pubcomp.properties.0, []);
}

#[test]
fn response_information_is_only_sent_on_request() {
    // [MQTT-3.1.2-28]
    let broker = Broker::start();
    for value in [None, Some(0)] {
        let connect = Connect::new(Version::V5, "r").with(|p| match value {
            Some(value) => p.byte(property::REQUEST_RESPONSE, value),
            None => p,
        });
        let (_, connack) = connect.open_with_answer(broker.addr());
        assert!(
            connack
                .properties
                .get(property::RESPONSE_INFORMATION)
                .is_none()
        );
    }
}

#[test]
fn user_properties_of_a_connect_are_accepted_and_not_echoed() {
    let broker = Broker::start();
    let connect = Connect::new(Version::V5, "u").with(|p| p.user("a", "1").user("a", "2"));
    let (mut client, connack) = connect.open_with_answer(broker.addr());
    assert!(connack.properties.users().is_empty());
    client.ping();
}

#[test]
fn a_disconnect_ends_the_connection_from_the_servers_side() {
    // [MQTT-3.14.4-3], 3.1.1: [MQTT-3.14.4-1]
    each_version(|broker, v| {
        Connect::new(v, "bye").open(broker.addr()).disconnect();
    });
    let broker = Broker::start();
    // MQTT 5 allows the reason code and the property length to be left out.
    for bytes in [
        &[0xe0, 0][..],
        &[0xe0, 1, 0],
        &[0xe0, 2, 0, 0],
        &[0xe0, 1, 4],
    ] {
        let mut client = Connect::new(Version::V5, "bye").open(broker.addr());
        client.send(bytes);
        client.expect_closed();
    }
}

#[test]
fn nothing_that_follows_a_disconnect_is_handled() {
    // [MQTT-3.14.4-1]: a client sends nothing after it.
    each_version(|broker, v| {
        let mut watcher = Connect::new(v, "watcher").open(broker.addr());
        watcher.subscribe("late", 0);
        let mut client = Connect::new(v, "leaving").open(broker.addr());
        let mut bytes = vec![0xe0, 0, 0x30];
        bytes.extend(match v.is5() {
            true => vec![7, 0, 4, b'l', b'a', b't', b'e', 0],
            false => vec![6, 0, 4, b'l', b'a', b't', b'e'],
        });
        client.send(&bytes);
        client.expect_closed();
        watcher.expect_nothing();
    });
}
