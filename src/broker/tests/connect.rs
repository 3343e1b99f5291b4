//! CONNECT: who gets in, and with which session.

use std::sync::Arc;

use super::super::{Identity, IdentityKind};
use super::*;
use crate::wire::Fault;

#[test]
fn a_session_is_present_if_it_was_kept_and_no_clean_start_was_asked_for() {
    let mut world = World::new();
    let steps = [
        (durable("a"), "CONNACK Success"),
        (durable("a"), "CONNACK present Success"),
        (durable("a").clean(), "CONNACK Success"), // [MQTT-3.2.2-2]
        (client("a"), "CONNACK present Success"),
        (client("a"), "CONNACK Success"), // The last one's interval was 0.
    ];
    for (client, expected) in steps {
        let peer = world.open(&client);
        world.settle();
        assert_eq!(world.got(peer), [expected]);
        world.lose(peer);
    }
    world.flush();
    assert!(world.disk.rows().is_empty());
}

#[test]
fn a_session_goes_from_one_protocol_version_to_another() {
    let mut world = World::new();
    let old = client("a").version(ProtocolVersion::V311);
    let peer = world.connect(&old);
    world.subscribe(peer, "t", 1);
    let published = world.connect(&publisher());
    world.publish(published, message(1, 1, "t", "m"));
    world.settle();
    assert_eq!(world.got(peer), ["PUBLISH #1 q1 t=m"]);
    world.lose(peer);
    let peer = world.connect(&durable("a"));
    assert_eq!(world.drain(peer), ["PUBLISH q1 dup t=m"]);
    world.lose(peer);
    let peer = world.open(&client("a").version(ProtocolVersion::V31));
    world.settle();
    // MQTT 3.1 has no session present flag.
    assert_eq!(world.got(peer), ["CONNACK Success"]);
    world.publish(published, message(1, 1, "t", "n"));
    assert_eq!(world.drain(peer), ["PUBLISH q1 t=n"]);
}

#[test]
fn a_disconnect_may_set_an_expiry_if_connect_asked_for_one_whatever_was_granted() {
    for (asked, ends) in [(Some(100), false), (Some(0), true), (None, true)] {
        let mut world = World::with(limited(Limits {
            persistent_client_expiration: 0,
            ..Limits::default()
        }));
        let mut five = client("a");
        five.properties
            .extend(asked.map(Property::SessionExpiryInterval));
        let peer = world.connect(&five);
        let expiry = [Property::SessionExpiryInterval(50)];
        world.leave_with(peer, ReasonCode::Success, &expiry);
        let told = world.got(peer) == ["DISCONNECT ProtocolError"];
        assert_eq!(told, ends, "{asked:?}"); // [MQTT-3.14.2-2]
    }
}

#[test]
fn a_client_identifier_names_one_client() {
    let mut world = World::new();
    let first = world.connect(&durable("a"));
    world.subscribe(first, "t", 1);
    let second = world.open(&durable("a"));
    assert_eq!(world.got(first), ["DISCONNECT SessionTakenOver"]); // [MQTT-3.1.4-3]
    assert!(world.closes(first));
    world.settle();
    assert_eq!(world.got(second), ["CONNACK present Success"]);
    world.lose(first); // After the fact; the session is not its own any more.
    let peer = world.connect(&publisher());
    world.publish(peer, message(0, 0, "t", "m"));
    assert_eq!(world.got(second), ["PUBLISH t=m"]);
    assert_eq!(world.broker.counters().takeovers, 1);
}

#[test]
fn what_a_taken_over_connection_still_sends_is_not_heard() {
    let mut world = World::new();
    let first = world.connect(&durable("a"));
    let second = world.connect(&durable("a"));
    world.subscribe(second, "t", 1);
    world.publish(first, message(0, 0, "t", "late"));
    world.send(first, Packet::Connect(Box::new(plain_connect("a"))));
    assert_eq!(world.got(second), [""; 0]);
    assert_eq!(world.broker.gauges().connected, 1);
}

fn plain_connect(id: &str) -> Connect<'_> {
    Connect {
        version: ProtocolVersion::V5,
        bridge: false,
        clean_start: true,
        keep_alive: 0,
        client_id: id,
        will: None,
        username: None,
        password: None,
        properties: Properties::EMPTY,
    }
}

#[test]
fn a_client_without_an_identifier_is_given_one() {
    let mut world = World::new();
    let mut names = Vec::new();
    for _ in 0..3 {
        let peer = world.connect(&client(""));
        names.push(world.session(peer).client_id.clone());
    }
    names.dedup();
    assert_eq!(names.len(), 3);
    let clean = client("").version(ProtocolVersion::V311).clean();
    world.connect(&clean);
    for version in [ProtocolVersion::V31, ProtocolVersion::V311] {
        let peer = world.open(&client("").version(version));
        assert_eq!(world.got(peer), ["CONNACK ClientIdentifierNotValid"]); // [MQTT-3.1.3-8]
        assert!(world.closes(peer));
    }
}

#[test]
fn an_assigned_identifier_tells_nothing_of_others_or_of_the_hash_seed() {
    let assigned = |chance: Chance| {
        let mut world = World::new();
        world.broker = Broker::new(Settings::default(), chance, world.now);
        let ids: Vec<Box<str>> = (0..100)
            .map(|_| {
                let peer = world.connect(&client(""));
                world.session(peer).client_id.clone()
            })
            .collect();
        ids
    };
    let with_key = |seed, byte| Chance {
        seed,
        client_ids: [byte; 32],
    };
    let ids = assigned(with_key(1, 1));
    for id in &ids {
        assert_eq!(id.len(), 23, "{id}: 3.1.1 allows no more to be expected");
        assert!(id.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{id}");
    }
    // The same seed with another key: nothing is the same.
    let mut all = [ids.clone(), assigned(with_key(1, 2))].concat();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 200);
    // The seed does not show in them.
    assert_eq!(ids, assigned(with_key(2, 1)));
    // Every digit in every place, about: the characters are spread over all of them.
    for place in 4..23 {
        let seen: std::collections::BTreeSet<u8> =
            all.iter().map(|id| id.as_bytes()[place]).collect();
        assert!(seen.len() > 40, "place {place}: {}", seen.len());
    }
}

/// A connection of a user to a listener with this access.
fn by(name: Option<&str>, access: Access) -> Arrival {
    let mut arrival = user(name.unwrap_or_default());
    if name.is_none() {
        arrival.peer.certificate = None;
    }
    arrival.access = std::sync::Arc::new(Access {
        use_identity_as_username: true,
        allow_anonymous: true,
        ..access
    });
    arrival
}

/// What a client of a user is answered, and the client identifier it has got.
fn answer(arrival: &Arrival, client: &Client) -> (String, String) {
    let mut world = World::new();
    world.arrival = arrival.clone();
    let peer = world.open(client);
    world.settle();
    let got = world.got(peer);
    let session = world.broker.connections[peer.id].session();
    let id = session.map(|it| world.broker.sessions[it].client_id.to_string());
    (got[0].clone(), id.unwrap_or_default())
}

#[test]
fn an_empty_identifier_may_not_be_allowed() {
    let arrival = by(
        None,
        Access {
            allow_zero_length_clientid: false,
            ..Access::default()
        },
    );
    for version in [ProtocolVersion::V5, ProtocolVersion::V311] {
        let empty = client("").version(version).clean();
        let (got, id) = answer(&arrival, &empty);
        assert!(got.starts_with("CONNACK ClientIdentifierNotValid"), "{got}");
        assert_eq!(id, "");
    }
    let (got, id) = answer(&arrival, &client("a"));
    assert_eq!((got.as_str(), id.as_str()), ("CONNACK Success", "a"));
}

#[test]
fn a_user_name_may_be_the_client_identifier() {
    let access = || Access {
        use_username_as_clientid: true,
        ..Access::default()
    };
    for named in ["a", "ann", ""] {
        let client = client(named).version(ProtocolVersion::V311).clean();
        let (got, id) = answer(&by(Some("ann"), access()), &client);
        assert_eq!((got.as_str(), id.as_str()), ("CONNACK Success", "ann"));
    }
    let (got, _) = answer(&by(None, access()), &client("a"));
    assert!(got.starts_with("CONNACK NotAuthorized"), "{got}");
    let (got, _) = answer(&by(Some("$bridge/x"), access()), &client("a"));
    assert!(got.starts_with("CONNACK ClientIdentifierNotValid"), "{got}");
    // Nobody is taken over by another user.
    let mut world = World::new();
    world.arrival = by(Some("ann"), access());
    let ann = world.connect(&client("x"));
    world.arrival = by(Some("bob"), access());
    world.connect(&client("x"));
    world.connect(&client("ann"));
    assert!(!world.closes(ann));
    assert_eq!(world.broker.counters().takeovers, 1, "bob, by himself");
}

#[test]
fn an_identifier_may_have_to_begin_as_the_user_name_says() {
    let access = || Access {
        clientid_prefixes: vec!["%u-".into(), "gw/".into()],
        ..Access::default()
    };
    for (name, id, is_good) in [
        (Some("ann"), "ann-1", true),
        (Some("ann"), "ann", false),
        (Some("ann"), "anna-1", false),
        (Some("ann"), "bob-1", false),
        (Some("ann"), "gw/ann", true),
        (Some("ann"), "", false),
        (None, "gw/1", true),
        (None, "-1", false),
        (None, "%u-1", false),
        // It would be an identifier of "ann", too.
        (Some("ann-1"), "ann-1-x", false),
        (Some("ann-1"), "gw/ann-1", true),
    ] {
        let (got, _) = answer(&by(name, access()), &client(id));
        let expected = match is_good {
            true => "CONNACK Success",
            false => "CONNACK ClientIdentifierNotValid",
        };
        assert!(got.starts_with(expected), "{name:?} {id}: {got}");
    }
}

#[test]
fn a_client_that_cannot_take_its_connack_is_not_connected() {
    // [MQTT-3.2.0-1], [MQTT-3.1.2-24]
    for (largest, expected) in [
        (4, None),
        (5, Some("PacketTooLarge")),
        (200, Some("Success")),
    ] {
        let mut world = World::new();
        let client = client("a").with(Property::MaximumPacketSize(largest));
        let peer = world.open(&client.will(0, "w", "gone"));
        world.settle();
        let got = world.got(peer);
        let told = got
            .first()
            .map(|line| line.contains(expected.unwrap_or("nothing")));
        assert_eq!(told, expected.map(|_| true), "{largest}: {got:?}");
        let is_in = expected == Some("Success");
        assert_eq!(world.closes(peer), !is_in);
        assert_eq!(world.broker.gauges().sessions, u64::from(is_in));
    }
}

#[test]
fn an_authentication_method_is_not_offered() {
    let mut world = World::new();
    let peer = world.open(&client("a").with(Property::AuthenticationMethod("SCRAM")));
    assert_eq!(world.got(peer), ["CONNACK BadAuthenticationMethod"]);
    assert!(world.closes(peer));
    assert_eq!(world.broker.counters().connects_refused, 1);
}

#[test]
fn a_listener_may_refuse_those_who_do_not_say_who_they_are() {
    let mut world = World::new();
    let access = Access {
        allow_anonymous: false,
        ..Access::default()
    };
    let id = world
        .broker
        .accept(access, world.now)
        .expect("there is room");
    let peer = Peer {
        id,
        version: ProtocolVersion::V5,
    };
    world.send(peer, Packet::Connect(Box::new(plain_connect("a"))));
    assert_eq!(world.got(peer), ["CONNACK NotAuthorized"]);
    assert!(world.closes(peer));
    assert_eq!(world.broker.gauges().sessions, 0);
}

#[test]
fn the_first_packet_is_connect_and_the_second_is_not() {
    let mut world = World::new();
    let peer = world.accept(ProtocolVersion::V5);
    world.ping(peer);
    assert_eq!(world.got(peer), [""; 0]); // [MQTT-3.1.0-1]
    assert!(world.closes(peer));
    let peer = world.connect(&client("a"));
    world.send(peer, Packet::Connect(Box::new(plain_connect("a"))));
    assert_eq!(world.got(peer), ["DISCONNECT ProtocolError"]); // [MQTT-3.1.0-2]
    assert!(world.closes(peer));
    assert_eq!(world.broker.gauges().sessions, 0);
}

#[test]
fn packets_only_servers_send_and_auth_are_protocol_errors() {
    let mut world = World::new();
    let end = Disconnect {
        reason: ReasonCode::ContinueAuthentication,
        properties: Properties::EMPTY,
    };
    for packet in [Packet::PingResp, Packet::Auth(end)] {
        let peer = world.connect(&client("a"));
        world.send(peer, packet);
        assert_eq!(world.got(peer), ["DISCONNECT ProtocolError"]);
        world.lose(peer);
    }
}

/// A connection through a listener that is not for everybody; its certificate may prove a user
/// name.
fn accept_known(world: &mut World, certificate: Option<&str>) -> Peer {
    world.arrival = user(certificate.unwrap_or_default());
    if certificate.is_none() {
        world.arrival.peer.certificate = None;
    }
    world.accept(ProtocolVersion::V5)
}

#[test]
fn the_whole_subject_of_a_certificate_may_be_the_user_name() {
    let mut arrival = Arrival::from(Access {
        use_identity_as_username: true,
        identity: IdentityKind::Subject,
        ..Access::default()
    });
    arrival.peer.certificate = Some(Box::new(CertificateNames {
        common_name: Some("pump".into()),
        subject: Some("CN=pump,O=Example".into()),
        ..CertificateNames::default()
    }));
    let mut world = World::new();
    world.arrival = arrival;
    let peer = world.connect(&client("a"));
    assert_eq!(world.session(peer).user(), Some("CN=pump,O=Example"));
}

#[test]
fn a_client_is_who_it_has_proved_to_be() {
    let mut world = World::new();
    let peer = accept_known(&mut world, None);
    let identity = Identity {
        user: Some("ann".into()),
        rules: Some(Arc::default()),
        credential: None,
        expires_in: None,
    };
    let connect = plain_connect("a");
    let now = world.now;
    world
        .broker
        .connect(peer.id, &connect, Ok(identity.clone()), now);
    world.settle();
    assert_eq!(world.got(peer), ["CONNACK Success"]);
    assert_eq!(world.session(peer).identity.as_ref(), Some(&identity));
    // A second CONNECT proves nothing to a session that is open.
    world.broker.connect(peer.id, &connect, Ok(identity), now);
    assert_eq!(world.got(peer), [""; 0]);
}

#[test]
fn a_client_whose_proof_fails_is_told_and_counted() {
    for (reason, counted) in [
        (ReasonCode::BadUserNameOrPassword, (1, 0)),
        (ReasonCode::ConnectionRateExceeded, (0, 1)),
        (ReasonCode::ServerUnavailable, (0, 0)),
    ] {
        let mut world = World::new();
        let peer = accept_known(&mut world, None);
        let fault = Fault::new(reason, "refused");
        let now = world.now;
        world
            .broker
            .connect(peer.id, &plain_connect("a"), Err(fault), now);
        assert_eq!(world.got(peer), [format!("CONNACK {reason:?}")]);
        assert!(world.closes(peer));
        let counters = world.broker.counters();
        let failed = (
            counters.bad_user_names_or_passwords,
            counters.logins_throttled,
        );
        assert_eq!((counters.connects_refused, failed), (1, counted));
        assert_eq!(world.broker.gauges().connected, 0);
    }
}

#[test]
fn a_certificate_alone_is_proof_enough() {
    let mut world = World::new();
    let peer = accept_known(&mut world, Some("device"));
    let arrival = world.broker.arrival(peer.id);
    assert_eq!(arrival.certified_user(), Some("device"));
    world.send(peer, Packet::Connect(Box::new(plain_connect("a"))));
    world.settle();
    assert_eq!(world.got(peer), ["CONNACK Success"]);
    let known = world.session(peer).identity.as_ref();
    let name = known.and_then(|identity| identity.user.as_deref());
    assert_eq!(name, Some("device"));
}

#[test]
fn a_connection_ends_when_what_it_was_proved_with_expires() {
    let mut world = World::new();
    let identity = |expires_in| Identity {
        user: Some("ann".into()),
        expires_in,
        ..Identity::default()
    };
    let open = |world: &mut World, id, expires_in| {
        let peer = accept_known(world, None);
        let (connect, now) = (plain_connect(id), world.now);
        world
            .broker
            .connect(peer.id, &connect, Ok(identity(expires_in)), now);
        world.settle();
        assert_eq!(world.got(peer), ["CONNACK Success"]);
        peer
    };
    // Longer than a timer is set for at once.
    let short = open(&mut world, "a", Some(150_000));
    let long = open(&mut world, "b", Some(u64::MAX));
    let lasting = open(&mut world, "c", None);
    world.wait(149_999);
    assert_eq!(world.got(short), [""; 0]);
    world.wait(1);
    assert_eq!(world.got(short), ["DISCONNECT MaximumConnectTime"]);
    assert!(world.closes(short));
    world.wait(1_000_000);
    assert!(!world.closes(long) && !world.closes(lasting));
}

#[test]
fn a_proof_that_comes_too_late_is_of_no_use() {
    let mut world = World::new();
    let peer = accept_known(&mut world, None);
    let timeout = world.broker.settings.limits.connect_timeout_ms;
    world.wait(timeout + 1);
    assert!(world.closes(peer));
    let identity = Identity {
        user: Some("ann".into()),
        rules: None,
        credential: None,
        expires_in: None,
    };
    let now = world.now;
    world
        .broker
        .connect(peer.id, &plain_connect("a"), Ok(identity), now);
    assert_eq!(world.got(peer), [""; 0]);
    assert_eq!(world.broker.gauges().connected, 0);
    assert_eq!(world.broker.counters().connect_timeouts, 1);
}

/// Whether a CONNACK waits for the disk that says there is no session, and comes after it.
fn waits_for_an_end(world: &mut World) {
    let peer = world.open(&client("a").clean());
    assert_eq!(world.got(peer), [""; 0], "the end may not be on disk");
    assert!(world.take());
    assert_eq!(world.got(peer), [""; 0]);
    // One more that comes while the disk is at it.
    let again = world.open(&client("a"));
    assert_eq!(world.got(again), [""; 0]);
    world.durable();
    world.settle();
    let got = world.got(again);
    assert!(got.len() == 1 && got[0].starts_with("CONNACK") && !got[0].contains("present"));
    world.crash();
    let peer = world.connect(&durable("a"));
    assert_eq!(world.session(peer).subscriptions.len(), 0);
}

/// A session on disk, and its client's connection.
fn stored(world: &mut World) -> Peer {
    let peer = world.connect(&durable("a"));
    world.subscribe(peer, "t", 1);
    world.flush();
    peer
}

#[test]
fn a_client_is_not_told_that_it_has_no_session_before_its_end_is_on_disk() {
    let mut world = World::new();
    let peer = stored(&mut world);
    let now = [Property::SessionExpiryInterval(0)];
    world.leave_with(peer, ReasonCode::Success, &now);
    world.lose(peer);
    waits_for_an_end(&mut world);

    // By a clean start.
    let mut world = World::new();
    let peer = stored(&mut world);
    world.lose(peer);
    world.flush();
    waits_for_an_end(&mut world);

    // By its expiry.
    let mut world = World::new();
    let peer = world.connect(&client("a").with(Property::SessionExpiryInterval(1)));
    world.subscribe(peer, "t", 1);
    world.lose(peer);
    world.flush();
    world.wait(1001);
    assert_eq!(world.broker.session_count(), 0);
    waits_for_an_end(&mut world);
}

#[test]
fn who_has_no_session_that_ends_does_not_wait() {
    let mut world = World::new();
    let peer = stored(&mut world);
    let now = [Property::SessionExpiryInterval(0)];
    world.leave_with(peer, ReasonCode::Success, &now);
    world.lose(peer);
    let other = world.open(&client("b").clean());
    assert_eq!(world.got(other).len(), 1);
    world.flush();
    let peer = world.open(&client("a"));
    assert_eq!(world.got(peer).len(), 1);
}
