use super::*;
use crate::cli::test_server::{TestServer, ack, serve};
use clap::Parser;
use std::sync::mpsc::{Sender, channel};

#[derive(Parser)]
#[command(disable_help_flag = true)]
struct Only {
    #[command(flatten)]
    flags: SubscribeFlags,
}

/// A stdout that reports what was written at each flush.
struct Stdout(Vec<u8>, Sender<String>);

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        let text = String::from_utf8_lossy(&self.0).into_owned();
        self.0.clear();
        self.1.send(text).map_err(io::Error::other)
    }
}

fn subscribe(port: &str, line: &str, stdout: impl Write) -> Result<(), Failure> {
    let words = ["x", "-h", "127.0.0.1", "-V", "5", "-p", port];
    let words = words.into_iter().chain(line.split_whitespace());
    run_to(Only::try_parse_from(words).expect(line).flags, stdout)
}

fn publish(id: u16, qos: QoS, payload: &'static str) -> Packet<'static> {
    Packet::Publish(Publish {
        dup: false,
        qos,
        retain: false,
        topic: "a",
        packet_id: PacketId::new(id),
        properties: Default::default(),
        payload: payload.as_bytes(),
    })
}

fn grant(peer: &mut TestServer, codes: &[ReasonCode]) {
    peer.accept(&[]);
    peer.receive(|packet| assert!(matches!(packet, Packet::Subscribe(_)), "{packet:?}"));
    peer.send(&Packet::SubAck(SubAck {
        packet_id: SUBSCRIBE_ID,
        properties: Default::default(),
        codes: codes.to_vec(),
    }));
}

fn expect(peer: &mut TestServer, expected: &Packet<'_>) {
    peer.receive(|packet| assert_eq!(packet, expected));
}

fn disconnected(peer: &mut TestServer) {
    peer.receive(|packet| assert!(matches!(packet, Packet::Disconnect(_)), "{packet:?}"));
}

#[test]
fn a_message_is_acknowledged_after_it_has_been_printed() {
    let (printed, seen) = channel::<String>();
    let (port, server) = serve(move |peer| {
        grant(peer, &[ReasonCode::GrantedQos1]);
        peer.send(&publish(7, QoS::AtLeastOnce, "hello"));
        expect(peer, &Packet::PubAck(ack(7)));
        let left: String = seen.try_iter().collect();
        assert_eq!(left, "hello\n", "what had left stdout when PUBACK came");
        disconnected(peer);
    });
    let stdout = Stdout(Vec::new(), printed);
    assert_eq!(subscribe(&port, "-t a -q 1 -C 1", stdout), Ok(()));
    server.join().expect("as scripted");
}

/// As in mosquitto_sub: the message counts and is acknowledged, but nothing is printed.
#[test]
fn a_message_that_does_not_fit_the_format_counts() {
    let (port, server) = serve(|peer| {
        grant(peer, &[ReasonCode::GrantedQos1]);
        peer.send(&publish(7, QoS::AtLeastOnce, "not JSON"));
        expect(peer, &Packet::PubAck(ack(7)));
        disconnected(peer);
    });
    let mut printed = Vec::new();
    let ended = subscribe(&port, "-t a -q 1 -C 1 -F %J", &mut printed);
    assert_eq!((ended, printed), (Ok(()), Vec::new()));
    server.join().expect("as scripted");
}

#[test]
fn a_message_that_cannot_be_printed_is_not_acknowledged() {
    let (port, server) = serve(|peer| {
        grant(peer, &[ReasonCode::GrantedQos1]);
        peer.send(&publish(7, QoS::AtLeastOnce, "hello"));
        disconnected(peer);
    });
    let full: &mut [u8] = &mut [0; 3];
    let failure = subscribe(&port, "-t a -q 1", full).expect_err("no room");
    assert!(
        failure.message.contains("cannot write to standard output"),
        "{failure}"
    );
    server.join().expect("as scripted");
}

#[test]
fn a_repeated_qos_2_message_is_printed_once_and_a_reused_identifier_again() {
    let (port, server) = serve(|peer| {
        grant(peer, &[ReasonCode::GrantedQos2]);
        for _ in 0..2 {
            peer.send(&publish(7, QoS::ExactlyOnce, "one"));
            expect(peer, &Packet::PubRec(ack(7)));
        }
        peer.send(&Packet::PubRel(ack(7)));
        expect(peer, &Packet::PubComp(ack(7)));
        peer.send(&publish(7, QoS::ExactlyOnce, "two"));
        expect(peer, &Packet::PubRec(ack(7)));
        assert!(peer.is_quiet(), "it ends before the exchange is complete");
        peer.send(&Packet::PubRel(ack(7)));
        expect(peer, &Packet::PubComp(ack(7)));
        disconnected(peer);
    });
    let mut out = Vec::new();
    assert_eq!(subscribe(&port, "-t a -q 2 -C 2 -v", &mut out), Ok(()));
    assert_eq!(String::from_utf8_lossy(&out), "a one\na two\n");
    server.join().expect("as scripted");
}

#[test]
fn what_comes_after_the_last_wanted_message_stays_with_the_server() {
    let (port, server) = serve(|peer| {
        grant(peer, &[ReasonCode::GrantedQos1]);
        for (id, payload) in [(1, "one"), (2, "two"), (3, "three")] {
            peer.send(&publish(id, QoS::AtLeastOnce, payload));
        }
        expect(peer, &Packet::PubAck(ack(1)));
        expect(peer, &Packet::PubAck(ack(2)));
        disconnected(peer);
    });
    let mut out = Vec::new();
    assert_eq!(subscribe(&port, "-t a -q 1 -C 2", &mut out), Ok(()));
    assert_eq!(String::from_utf8_lossy(&out), "one\ntwo\n");
    server.join().expect("as scripted");
}

#[test]
fn without_any_subscription_it_fails_and_with_one_it_goes_on() {
    let denied = ReasonCode::NotAuthorized;
    let (port, server) = serve(move |peer| {
        grant(peer, &[denied]);
        disconnected(peer);
    });
    let failure = subscribe(&port, "-t a", io::sink()).expect_err("refused");
    assert_eq!(failure.code, 0x87);
    assert_eq!(
        failure.message,
        "the subscription to a was refused: not authorized (0x87)"
    );
    server.join().expect("as scripted");

    let (port, server) = serve(move |peer| {
        grant(peer, &[denied, ReasonCode::Success]);
        peer.send(&publish(0, QoS::AtMostOnce, "x"));
        disconnected(peer);
    });
    assert_eq!(
        subscribe(&port, "-t b -t a -C 1 --quiet", io::sink()),
        Ok(())
    );
    server.join().expect("as scripted");
}

#[test]
fn filters_and_flags_choose_what_is_printed_but_all_is_acknowledged() {
    let (port, server) = serve(|peer| {
        grant(peer, &[ReasonCode::GrantedQos1]);
        peer.send(&publish(1, QoS::AtLeastOnce, "filtered"));
        expect(peer, &Packet::PubAck(ack(1)));
    });
    let mut out = Vec::new();
    let failure = subscribe(&port, "-t # -T a -q 1", &mut out).expect_err("closed");
    assert_eq!(failure.code, exit::LOST);
    assert!(out.is_empty());
    server.join().expect("as scripted");
}

#[test]
fn a_server_that_breaks_the_protocol_is_told_so() {
    let (port, server) = serve(|peer| {
        grant(peer, &[ReasonCode::Success]);
        peer.send(&Packet::PubAck(ack(1)));
        peer.receive(|packet| match packet {
            Packet::Disconnect(p) => assert_eq!(p.reason, ReasonCode::ProtocolError),
            other => panic!("{other:?}"),
        });
    });
    let failure = subscribe(&port, "-t a", io::sink()).expect_err("a protocol error");
    assert_eq!(failure.code, exit::WRONG);
    server.join().expect("as scripted");
}

#[test]
fn a_server_that_says_goodbye_is_quoted() {
    let (port, server) = serve(|peer| {
        grant(peer, &[ReasonCode::Success]);
        peer.send(&Packet::Disconnect(crate::wire::packet::Disconnect {
            reason: ReasonCode::ServerShuttingDown,
            properties: Default::default(),
        }));
    });
    let failure = subscribe(&port, "-t a", io::sink()).expect_err("disconnected");
    assert_eq!(failure.code, 0x8b);
    assert_eq!(
        failure.message,
        "the server disconnected: server shutting down (0x8B)"
    );
    server.join().expect("as scripted");
}

#[test]
fn an_alias_stands_for_a_topic_only_if_it_was_allowed_and_set() {
    for (allowed, aliases, good) in [
        ("2", [("t", 2), ("", 2)], true),
        ("2", [("t", 2), ("", 1)], false),
        ("1", [("t", 2), ("", 2)], false),
    ] {
        let (port, server) = serve(move |peer| {
            grant(peer, &[ReasonCode::Success]);
            for (topic, alias) in aliases {
                let mut properties = crate::wire::PropertiesBuf::new();
                properties.push(Property::TopicAlias(alias));
                peer.send(&Packet::Publish(Publish {
                    dup: false,
                    qos: QoS::AtMostOnce,
                    retain: false,
                    topic,
                    packet_id: None,
                    properties: properties.as_properties(),
                    payload: b"x",
                }));
            }
            peer.receive(|packet| match packet {
                Packet::Disconnect(p) => assert_eq!(p.reason == ReasonCode::Success, good),
                other => panic!("{other:?}"),
            });
        });
        let line = format!("-t # -v -C 2 -D connect topic-alias-maximum {allowed}");
        let mut out = Vec::new();
        assert_eq!(subscribe(&port, &line, &mut out).is_ok(), good, "{line}");
        if good {
            assert_eq!(String::from_utf8_lossy(&out), "t x\nt x\n");
        }
        server.join().expect("as scripted");
    }
}

#[test]
fn the_url_has_the_topic_and_retained_messages_are_sent_when_asked_for() {
    let (port, server) = serve(|peer| {
        peer.accept(&[]);
        peer.receive(|packet| match packet {
            Packet::Subscribe(subscribe) => {
                let filters = subscribe.filters.iter();
                let filters: Vec<_> = filters
                    .map(|(filter, options)| (*filter, options.retain_handling))
                    .collect();
                let handling = RetainHandling::IfNew;
                assert_eq!(filters, [("b", handling), ("a/+", handling)]);
            }
            other => panic!("{other:?}"),
        });
        peer.send(&Packet::SubAck(SubAck {
            packet_id: SUBSCRIBE_ID,
            properties: Default::default(),
            codes: vec![ReasonCode::Success; 2],
        }));
        disconnected(peer);
    });
    let line = format!("x -V 5 -L mqtt://127.0.0.1:{port}/a/+ -t b --retain-handling new -E");
    let flags = Only::try_parse_from(line.split_whitespace()).expect("good flags");
    assert_eq!(run_to(flags.flags, io::sink()), Ok(()));
    server.join().expect("as scripted");
    for (line, needle) in [
        ("x -L mqtt://127.0.0.1", "there is no topic"),
        ("x -L mqtt://127.0.0.1/a/#/b", "the topic \"a/#/b\""),
        ("x -t a --retain-handling never", "are for MQTT 5"),
    ] {
        let flags = Only::try_parse_from(line.split_whitespace()).expect(line);
        let failure = run_to(flags.flags, io::sink()).expect_err(line);
        assert!(failure.message.contains(needle), "{line}: {failure}");
    }
}

#[test]
fn retained_messages_that_were_printed_are_removed_before_it_ends() {
    let (port, server) = serve(|peer| {
        peer.accept(&[Property::ReceiveMaximum(1)]);
        peer.receive(|packet| assert!(matches!(packet, Packet::Subscribe(_)), "{packet:?}"));
        peer.send(&Packet::SubAck(SubAck {
            packet_id: SUBSCRIBE_ID,
            properties: Default::default(),
            codes: vec![ReasonCode::Success],
        }));
        for (topic, retain) in [("a", true), ("out", true), ("b", true), ("c", false)] {
            peer.send(&Packet::Publish(Publish {
                dup: false,
                qos: QoS::AtMostOnce,
                retain,
                topic,
                packet_id: None,
                properties: Default::default(),
                payload: b"x",
            }));
        }
        for expected in ["a", "b"] {
            let id = peer.receive(|packet| match packet {
                Packet::Publish(publish) => {
                    assert_eq!((publish.topic, publish.payload), (expected, &b""[..]));
                    assert!(publish.retain);
                    publish.packet_id.expect("acknowledged").get()
                }
                other => panic!("{other:?}"),
            });
            assert!(peer.is_quiet(), "the server takes one at a time");
            peer.send(&Packet::PubAck(ack(id)));
        }
        disconnected(peer);
    });
    let mut out = Vec::new();
    let line = "-t # -T out -v --remove-retained -C 3";
    assert_eq!(subscribe(&port, line, &mut out), Ok(()));
    assert_eq!(String::from_utf8_lossy(&out), "a x\nb x\nc x\n");
    server.join().expect("as scripted");
}

#[test]
fn a_part_of_the_messages_is_chosen_at_random() {
    let (port, server) = serve(|peer| {
        grant(peer, &[ReasonCode::Success]);
        for _ in 0..2000 {
            peer.send(&publish(0, QoS::AtMostOnce, "x"));
        }
    });
    let mut out = Vec::new();
    let line = "-t a --random-filter 25";
    let failure = subscribe(&port, line, &mut out).expect_err("closed");
    assert_eq!(failure.code, exit::LOST);
    // Twelve standard deviations in each direction.
    let printed = out.len() / 2;
    assert!((270..730).contains(&printed), "{printed}");
    server.join().expect("as scripted");
}

#[test]
fn it_ends_after_a_part_of_a_second() {
    let (port, server) = serve(|peer| {
        grant(peer, &[ReasonCode::Success]);
        disconnected(peer);
    });
    let failure = subscribe(&port, "-t a -W 0.3", io::sink()).expect_err("timed out");
    assert_eq!(failure.code, exit::TIMEOUT);
    server.join().expect("as scripted");
    for bad in ["0", "-1", "x", "1e9"] {
        let words = ["x", "-t", "a", "-W", bad];
        assert!(Only::try_parse_from(words).is_err(), "{bad}");
    }
}
