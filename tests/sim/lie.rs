//! Lies told between the broker and the world: a checker that has never been seen to fail proves nothing. Each breaks one promise in a way a
//! faulty broker would, so the checker of that promise must find it; `tests` says which. What was told to the history is the truth.

use super::link::decode_next;
use super::rng::Rng;
use crate::broker::SHARED_FROM;
use crate::broker::message::{Message, Parts};
use crate::broker::record::Write;
use crate::wire::packet::{Connect, Publish};
use crate::wire::{
    Packet, PacketId, Properties, PropertiesBuf, Property, ProtocolVersion, QoS, ReasonCode, codec,
};

/// One packet in so many is lied about, where it need not be each.
const ONCE_IN: u64 = 10;

/// What is wrong in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// Some messages to plain topics come to the broker under a topic nobody subscribes to.
    Astray,
    /// The same for messages to a shared group.
    AstrayToGroup,
    /// Retained messages come without their flag.
    NotRetained,
    /// Some wills are left out of their CONNECT.
    NoWill,
    /// Clients that take their leave are said to have left their will.
    LeaveWithWill,
    /// DISCONNECT comes without its session expiry interval.
    NoLeaveExpiry,
    /// The receive maximum is left out of CONNECT.
    NoReceiveMaximum,
    /// Subscriptions come without their identifier.
    NoSubscriptionId,
    /// Subscriptions come with another filter.
    OtherFilter,
    /// Members of a shared group join one of two.
    OtherGroup,
    /// Some PUBACKs of clients are lost on a connection that goes on.
    LostPubAck,
    /// Some PUBRECs of clients are.
    LostPubRec,
    /// Some PUBRELs of clients come with another packet identifier.
    OtherPubRel,
    /// CONNECT is lost.
    LostConnect,
    /// PINGREQ comes as a second CONNECT.
    SecondConnect,
    /// Two neighbouring messages of a topic leave in the wrong order.
    Swapped,
    /// Packets leave with a flag that is not theirs.
    Garbled,
    /// Large packets end with another byte.
    OtherPayload,
    /// The maximum packet size is left out of CONNECT.
    NoMaximumPacketSize,
    /// Received packet identifiers of QoS 2 are not written.
    UnwrittenReceived,
    /// Rows of deliveries are not removed.
    UnremovedDelivery,
    /// Subscriptions are written as if all retained messages had been sent for them.
    ForgottenReplay,
    /// Retained messages are written with QoS 1.
    LoweredRetained,
    /// Deliveries are.
    LoweredDelivery,
    /// Deliveries are written without their retain flag.
    NotRetainedDelivery,
    /// The wall clock stands still.
    StoppedClock,
    /// The wall clock is believed at each start.
    TrustedClock,
    /// The disk says that it has synced and has not.
    Unsynced,
    /// The broker counts a byte too much.
    Miscounted,
    /// The broker is not told that parts of packets have come.
    UnheardParts,
    /// The broker is told that clients take nothing.
    UnseenProgress,
}

impl Lie {
    /// What the broker is handed instead of a packet; `None` for nothing. `scratch` is for properties that are put together anew.
    pub fn hand_over<'a>(
        self,
        packet: Packet<'a>,
        rng: &mut Rng,
        scratch: &'a mut PropertiesBuf,
    ) -> Option<Packet<'a>> {
        let now_and_then = rng.once_in(ONCE_IN);
        Some(match (self, packet) {
            (Lie::LostConnect, Packet::Connect(_)) => return None,
            (Lie::LostPubAck, Packet::PubAck(_)) if now_and_then => return None,
            (Lie::LostPubRec, Packet::PubRec(_)) if now_and_then => return None,
            (Lie::OtherPubRel, Packet::PubRel(mut ack)) if now_and_then => {
                ack.packet_id = PacketId::new(999).unwrap_or(ack.packet_id);
                Packet::PubRel(ack)
            }
            (Lie::SecondConnect, Packet::PingReq) => Packet::Connect(Box::new(second_connect())),
            (Lie::NoWill, Packet::Connect(mut connect)) => {
                connect.will = None;
                Packet::Connect(connect)
            }
            (Lie::LeaveWithWill, Packet::Disconnect(mut disconnect)) => {
                disconnect.reason = ReasonCode::DisconnectWithWill;
                Packet::Disconnect(disconnect)
            }
            (Lie::NoLeaveExpiry, Packet::Disconnect(mut disconnect)) => {
                disconnect.properties = Properties::EMPTY;
                Packet::Disconnect(disconnect)
            }
            (Lie::NoReceiveMaximum, Packet::Connect(mut connect)) => {
                let all = connect.properties.iter();
                all.filter(|one| !matches!(one, Property::ReceiveMaximum(_)))
                    .for_each(|one| scratch.push(one));
                connect.properties = scratch.as_properties();
                Packet::Connect(connect)
            }
            (Lie::NoMaximumPacketSize, Packet::Connect(mut connect)) => {
                let all = connect.properties.iter();
                all.filter(|one| !matches!(one, Property::MaximumPacketSize(_)))
                    .for_each(|one| scratch.push(one));
                connect.properties = scratch.as_properties();
                Packet::Connect(connect)
            }
            (Lie::NoSubscriptionId, Packet::Subscribe(mut subscribe)) => {
                subscribe.properties = Properties::EMPTY;
                Packet::Subscribe(subscribe)
            }
            (Lie::OtherFilter, Packet::Subscribe(mut subscribe)) => {
                for (filter, _) in &mut subscribe.filters {
                    *filter = "#";
                }
                Packet::Subscribe(subscribe)
            }
            (Lie::OtherGroup, Packet::Subscribe(mut subscribe)) => {
                for (filter, _) in &mut subscribe.filters {
                    if filter.starts_with("$share/") {
                        *filter = *rng.pick(&["$share/one/s/#", "$share/two/s/#"]);
                    }
                }
                Packet::Subscribe(subscribe)
            }
            (_, Packet::Publish(publish)) => Packet::Publish(self.publish(publish, now_and_then)),
            (_, packet) => packet,
        })
    }

    fn publish<'a>(self, mut publish: Publish<'a>, now_and_then: bool) -> Publish<'a> {
        let prefix = match self {
            Lie::Astray => "q/",
            Lie::AstrayToGroup => "s/",
            Lie::NotRetained => {
                publish.retain = false;
                return publish;
            }
            _ => return publish,
        };
        if now_and_then && publish.topic.starts_with(prefix) && publish.qos != QoS::AtMostOnce {
            publish.topic = "nowhere";
        }
        publish
    }

    /// Changes what is about to be written to a client; `out` is whole packets.
    pub fn write(self, out: &mut [u8], version: Option<ProtocolVersion>) {
        match self {
            Lie::Garbled => out.iter_mut().take(1).for_each(|first| *first |= 0x0F),
            Lie::Swapped => swap(out, version),
            Lie::OtherPayload => spoil(out, version),
            _ => {}
        }
    }

    /// Changes what is about to be written to the store.
    pub fn store(self, writes: &mut Vec<Write>) {
        writes.retain(|write| !self.withholds(write));
        for write in writes {
            match (self, write) {
                (Lie::ForgottenReplay, Write::PutSubscription(_, _, record)) => {
                    record.replaying = None;
                }
                (Lie::LoweredDelivery, Write::PutDelivery(_, _, record)) => {
                    record.qos = QoS::AtLeastOnce;
                }
                (Lie::NotRetainedDelivery, Write::PutDelivery(_, _, record)) => {
                    record.retain = false;
                }
                (Lie::LoweredRetained, Write::PutRetained(message, _)) => {
                    *message = lowered(message);
                }
                _ => {}
            }
        }
    }

    /// Whether a write is kept from the store.
    fn withholds(self, write: &Write) -> bool {
        match self {
            Lie::UnwrittenReceived => matches!(write, Write::PutReceived(..)),
            Lie::UnremovedDelivery => matches!(write, Write::RemoveDelivery(..)),
            _ => false,
        }
    }
}

/// The message as if it had been published with QoS 1.
fn lowered(message: &Message) -> Message {
    Message::new(&Parts {
        qos: QoS::AtLeastOnce.min(message.qos()),
        ..message.parts()
    })
}

fn second_connect() -> Connect<'static> {
    Connect {
        version: ProtocolVersion::V5,
        bridge: false,
        clean_start: true,
        keep_alive: 0,
        client_id: "second",
        will: None,
        username: None,
        password: None,
        properties: Properties::EMPTY,
    }
}

/// Changes the last byte of each packet whose payload is shared.
fn spoil(out: &mut [u8], mut version: Option<ProtocolVersion>) {
    let mut start = 0;
    while let Ok(Some((_, len))) = decode_next(&out[start..], &mut version, codec::MAX_PACKET_SIZE)
    {
        start += len;
        if len > SHARED_FROM {
            out[start - 1] ^= 1;
        }
    }
}

/// Swaps the first two packets that follow each other and are messages of one topic.
fn swap(out: &mut [u8], mut version: Option<ProtocolVersion>) {
    let mut before: Option<(usize, String)> = None;
    let mut start = 0;
    while let Ok(Some((packet, len))) =
        decode_next(&out[start..], &mut version, codec::MAX_PACKET_SIZE)
    {
        let message = match packet {
            Packet::Publish(publish) if publish.qos != QoS::AtMostOnce => {
                Some(publish.topic.to_owned()).filter(|topic| !topic.is_empty())
            }
            _ => None,
        };
        match (before, &message) {
            (Some((first, topic)), Some(this)) if topic == *this => {
                return out[first..start + len].rotate_left(start - first);
            }
            _ => {}
        }
        before = message.map(|topic| (start, topic));
        start += len;
    }
}
