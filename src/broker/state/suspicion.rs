//! What connections to an upstream die on, and when a bridge gives it up.
//!
//! An upstream that closes the connection on one message gets it again with the next connection,
//! and nothing behind it is ever delivered. The same goes for a SUBSCRIBE. The rule:
//!
//! 1. An end counts if it came from the upstream: it closed the connection without a word, broke
//!    the protocol, or sent a DISCONNECT whose reason can mean a packet. A DISCONNECT with 0x81,
//!    0x87, 0x90, 0x95, 0x99, 0x9A or 0x9B surely does (it *tells*), and counts as [`CLOSES`] of
//!    the others. An upstream that is silent, full, busy, restarting or taken over, and whatever
//!    this broker ends itself, does not count.
//! 2. When [`CLOSES`] ends in a row had the same message (or filter) unanswered first, all that was
//!    unanswered at the last one is suspect. From then on, one message at a time goes out, and one
//!    filter at a time is subscribed to; QoS 0 is not sent meanwhile.
//! 3. Each suspect is tried alone: nothing else is unanswered, and the connection has shown that it
//!    carries as many bytes (PINGREQs, up to [`PINGS`] of them) and stays up for twice as long as
//!    the suspect took to end one. Only an end during such a trial is held against the suspect; an
//!    end before it begins is the link's, and takes back what was held against it. An answer
//!    acquits it.
//! 4. What has [`CLOSES`] held against it is set aside. A message becomes a dead letter. A filter
//!    is not subscribed to for a minute; then it is tried again, alone, and each time it ends a
//!    connection the wait doubles, up to an hour.
//!
//! So a link that is cut at random, or after so many seconds or bytes, ends connections while
//! nothing is on trial as well. All of this is forgotten when the process ends.

use std::collections::VecDeque;

use crate::broker::model::leave::Leave;
use crate::broker::model::record::Seq;
use crate::wire::ReasonCode;

/// Ends that make what was unanswered suspect, and that a suspect may have on trial before it is
/// set aside.
const CLOSES: u32 = 3;

/// PINGREQs a connection has to answer before a trial, at most; two bytes each.
pub const PINGS: usize = 128;

/// How long a filter is not subscribed to, at first and at most, in milliseconds.
const SHUN_MS: (u64, u64) = (60_000, 3_600_000);

/// What a connection may have died on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suspect {
    Message(Seq),
    /// A filter at the upstream.
    Filter(Box<str>),
}

/// How a connection to an upstream has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The upstream closed it, and did not say why.
    Closed,
    /// The upstream said that it does not take a packet, in these words.
    Told(String),
    /// In any other way.
    Other,
}

impl From<&Leave> for End {
    fn from(leave: &Leave) -> End {
        match leave {
            Leave::Fault(_) => End::Closed,
            Leave::Disconnected(reason, why) => match reason {
                ReasonCode::MalformedPacket
                | ReasonCode::NotAuthorized
                | ReasonCode::TopicNameInvalid
                | ReasonCode::PacketTooLarge
                | ReasonCode::PayloadFormatInvalid
                | ReasonCode::RetainNotSupported
                | ReasonCode::QosNotSupported => End::Told(why.clone()),
                ReasonCode::UnspecifiedError
                | ReasonCode::ProtocolError
                | ReasonCode::ImplementationSpecificError
                | ReasonCode::TopicFilterInvalid
                | ReasonCode::TopicAliasInvalid
                | ReasonCode::SharedSubscriptionsNotSupported
                | ReasonCode::SubscriptionIdentifiersNotSupported
                | ReasonCode::WildcardSubscriptionsNotSupported => End::Closed,
                _ => End::Other,
            },
            _ => End::Other,
        }
    }
}

/// A filter that is set aside.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Shunned {
    filter: Box<str>,
    /// When it is tried again, in milliseconds of uptime.
    until: u64,
    wait: u64,
}

/// What is known of a bridge's connections that have ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Suspicion {
    /// What was unanswered first when connections ended, and how much that counts.
    first: Option<(Suspect, u32)>,
    suspects: VecDeque<Suspect>,
    /// What was on trial last, and what is held against it.
    tried: Option<(Suspect, u32)>,
    /// The longest it took to end a connection, in milliseconds.
    lasted: u64,
    /// A message that is to be set aside, and why.
    condemned: Option<(Seq, String)>,
    shunned: Vec<Shunned>,
}

impl Suspicion {
    /// Whether things must be tried one at a time.
    pub(in crate::broker) fn is_careful(&self) -> bool {
        !self.suspects.is_empty()
    }

    /// Forgets suspects that are not there any more.
    pub(in crate::broker) fn keep(&mut self, is_there: impl Fn(&Suspect) -> bool) {
        self.suspects.retain(|suspect| is_there(suspect));
        self.shunned
            .retain(|it| is_there(&Suspect::Filter(it.filter.clone())));
    }

    pub(in crate::broker) fn suspects_filter(&self, filter: &str) -> bool {
        let mut suspects = self.suspects.iter();
        suspects.any(|it| matches!(it, Suspect::Filter(it) if **it == *filter))
    }

    /// How long a connection must stay up before a trial, in milliseconds.
    pub(in crate::broker) fn probation(&self) -> u64 {
        2 * self.lasted
    }

    /// Why a message is to be set aside, if it is.
    pub(in crate::broker) fn sentence(&self, seq: Seq) -> Option<&str> {
        let condemned = self.condemned.as_ref();
        condemned.and_then(|(it, why)| (*it == seq).then_some(&**why))
    }

    /// When a filter that is set aside is tried again; `None` if it is not set aside.
    pub(in crate::broker) fn shunned_until(&self, filter: &str) -> Option<u64> {
        let mut shunned = self.shunned.iter();
        shunned.find(|it| *it.filter == *filter).map(|it| it.until)
    }

    /// The upstream has answered it, or it is not to be sent any more.
    pub(in crate::broker) fn acquit(&mut self, suspect: &Suspect) {
        self.suspects.retain(|it| it != suspect);
        if self.tried.as_ref().is_some_and(|(it, _)| it == suspect) {
            self.tried = None;
            self.lasted = 0;
        }
        match suspect {
            Suspect::Filter(filter) => self.shunned.retain(|it| it.filter != *filter),
            Suspect::Message(seq) => {
                if self.condemned.as_ref().is_some_and(|(it, _)| it == seq) {
                    self.condemned = None;
                }
            }
        }
    }

    /// A connection has ended. `unanswered` is what was under way, in the order in which it was
    /// sent; `trial` what was on trial, and for how many milliseconds.
    pub(in crate::broker) fn ended(
        &mut self,
        bridge: &str,
        end: &End,
        unanswered: Vec<Suspect>,
        trial: Option<(Suspect, u64)>,
        uptime: u64,
    ) {
        let weight = match end {
            End::Closed => 1,
            End::Told(_) => CLOSES,
            End::Other => return,
        };
        if let Some((suspect, lasted)) = trial {
            let before = match self.tried.take() {
                Some((it, against)) if it == suspect => against,
                _ => {
                    self.lasted = 0;
                    0
                }
            };
            self.lasted = self.lasted.max(lasted);
            self.tried = Some((suspect.clone(), before + weight));
            let again = matches!(&suspect, Suspect::Filter(it) if self.shunned_until(it).is_some());
            if before + weight >= CLOSES || again {
                self.condemn(bridge, suspect, end, uptime);
            }
            return;
        }
        if self.is_careful() {
            // Nothing was on trial: the link is bad.
            self.tried = None;
            return;
        }
        let counted = match (self.first.take(), unanswered.first()) {
            (Some((first, counted)), Some(now)) if first == *now => counted + weight,
            _ => weight,
        };
        if counted >= CLOSES {
            self.suspects = unanswered.into();
        } else {
            let first = unanswered.into_iter().next();
            self.first = first.map(|first| (first, counted));
        }
    }

    fn condemn(&mut self, bridge: &str, suspect: Suspect, end: &End, uptime: u64) {
        let why = match end {
            End::Told(why) => format!("the upstream disconnects when it is sent: {why}"),
            _ => "the upstream closes the connection each time it is sent".to_owned(),
        };
        self.tried = None;
        match suspect {
            Suspect::Message(seq) => self.condemned = Some((seq, why)),
            Suspect::Filter(filter) => {
                self.suspects
                    .retain(|it| *it != Suspect::Filter(filter.clone()));
                let known = self.shunned.iter_mut().find(|it| it.filter == filter);
                if let Some(known) = known {
                    known.wait = (2 * known.wait).min(SHUN_MS.1);
                    known.until = uptime + known.wait;
                    return;
                }
                tracing::warn!(
                    bridge,
                    filter = &*filter,
                    why,
                    "a subscription is set aside: it is tried again from time to time"
                );
                self.shunned.push(Shunned {
                    filter,
                    until: uptime + SHUN_MS.0,
                    wait: SHUN_MS.0,
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(seq: u64) -> Suspect {
        Suspect::Message(Seq(seq))
    }

    fn all(seqs: &[u64]) -> Vec<Suspect> {
        seqs.iter().map(|seq| message(*seq)).collect()
    }

    #[test]
    fn three_ends_with_the_same_first_make_suspect_and_three_on_trial_condemn() {
        let mut it = Suspicion::default();
        for (seqs, careful) in [
            (&[1, 2][..], false),
            (&[1, 2], false),
            (&[2, 3], false),
            (&[2], false),
            (&[], false),
            (&[2], false),
            (&[2, 3], false),
            (&[2, 3, 4], true),
        ] {
            it.ended("b", &End::Other, all(seqs), None, 0);
            it.ended("b", &End::Closed, all(seqs), None, 0);
            assert_eq!(it.is_careful(), careful, "{seqs:?}");
        }
        assert_eq!(it.suspects, all(&[2, 3, 4]));
        let trial = |ms| Some((message(2), ms));
        it.ended("b", &End::Closed, all(&[2]), trial(40), 0);
        it.ended("b", &End::Closed, all(&[2]), trial(10), 0);
        assert_eq!(it.probation(), 80);
        // The link fails with nothing on trial: what was held against it is taken back.
        it.ended("b", &End::Closed, Vec::new(), None, 0);
        for _ in 0..2 {
            it.ended("b", &End::Closed, all(&[2]), trial(10), 0);
        }
        assert_eq!(it.sentence(Seq(2)), None);
        it.ended("b", &End::Closed, all(&[2]), trial(10), 0);
        assert!(it.sentence(Seq(2)).is_some());
        it.acquit(&message(2));
        assert_eq!(it.sentence(Seq(2)), None);
        assert!(it.is_careful());
        [3, 4].iter().for_each(|seq| it.acquit(&message(*seq)));
        assert!(!it.is_careful());
    }

    #[test]
    fn a_telling_reason_is_enough_once_and_on_trial_once_more() {
        let told = |reason| End::from(&Leave::Disconnected(reason, "why".to_owned()));
        let codes = [0x81, 0x87, 0x90, 0x95, 0x99, 0x9a, 0x9b];
        let telling = [
            ReasonCode::MalformedPacket,
            ReasonCode::NotAuthorized,
            ReasonCode::TopicNameInvalid,
            ReasonCode::PacketTooLarge,
            ReasonCode::PayloadFormatInvalid,
            ReasonCode::RetainNotSupported,
            ReasonCode::QosNotSupported,
        ];
        for (reason, code) in telling.into_iter().zip(codes) {
            assert_eq!(reason as u8, code);
            let mut it = Suspicion::default();
            it.ended("b", &told(reason), all(&[5, 6]), None, 0);
            assert!(it.is_careful());
            it.ended("b", &told(reason), all(&[5]), Some((message(5), 1)), 0);
            assert!(it.sentence(Seq(5)).is_some_and(|why| why.ends_with("why")));
        }
        for reason in [
            ReasonCode::ServerShuttingDown,
            ReasonCode::SessionTakenOver,
            ReasonCode::QuotaExceeded,
            ReasonCode::KeepAliveTimeout,
        ] {
            assert_eq!(told(reason), End::Other);
        }
    }

    #[test]
    fn a_filter_is_shunned_for_longer_each_time() {
        let mut it = Suspicion::default();
        let filter = Suspect::Filter("a/#".into());
        it.ended(
            "b",
            &End::Told(String::new()),
            vec![filter.clone()],
            None,
            0,
        );
        assert!(it.suspects_filter("a/#"));
        let mut now = 0;
        for wait in [60_000, 120_000, 240_000] {
            let trial = Some((filter.clone(), 5));
            let end = if now == 0 {
                End::Told(String::new())
            } else {
                End::Closed
            };
            it.ended("b", &end, vec![filter.clone()], trial, now);
            assert!(!it.is_careful());
            assert_eq!(it.shunned_until("a/#"), Some(now + wait));
            now += wait;
        }
        it.acquit(&filter);
        assert_eq!(it.shunned_until("a/#"), None);
    }
}
