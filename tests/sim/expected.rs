//! What must become of sessions and wills, told from what the broker was handed and when. After a crash it knows everything that was settled
//! (durable before the crash, or promised by a CONNACK), and as much of what came after that as had reached the disk: any of the states since may
//! be the one that is there. What that leaves open is left open here. All times are broker time.

use std::collections::BTreeMap;

use super::link::Leave;
use crate::wire::ReasonCode;

/// How late, in milliseconds, something may happen that is due at a time: timers are looked at now and then.
pub const SLACK_MS: u64 = 300;

/// Times from the earliest to the latest, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub low: u64,
    pub high: u64,
}

impl Span {
    pub fn at(at: u64) -> Span {
        Span { low: at, high: at }
    }

    fn plus(self, other: Span) -> Span {
        Span {
            low: self.low.saturating_add(other.low),
            high: self.high.saturating_add(other.high),
        }
    }

    fn or(self, other: Span) -> Span {
        Span {
            low: self.low.min(other.low),
            high: self.high.max(other.high),
        }
    }
}

/// What must become of a will.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Its connection is up.
    Armed,
    /// It is to be published at this time, or has been.
    Due(Span),
    /// Never to be published.
    Never,
    /// Published once or never.
    Open,
}

/// A session as far as it can be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Session {
    /// `None`: it may exist or not.
    exists: Option<bool>,
    attached: bool,
    detached: Span,
    /// Session expiry interval in milliseconds.
    expiry: Span,
}

const NO_SESSION: Session = Session {
    exists: Some(false),
    attached: false,
    detached: Span { low: 0, high: 0 },
    expiry: Span { low: 0, high: 0 },
};

#[derive(Clone, Debug)]
struct State {
    session: Session,
    /// By message number: fate and delay in milliseconds.
    wills: BTreeMap<usize, (Fate, u64)>,
    /// The will of the connection that is up, or of the last one.
    will: Option<usize>,
}

/// What is expected of a client's session and wills.
#[derive(Clone, Debug)]
pub struct Expected {
    now: State,
    /// What the disk may have: the settled state, and all since but the present one.
    before: Vec<State>,
    /// When the broker last started.
    started: u64,
    /// What the last start found has not been written down since.
    fresh: bool,
}

/// What a CONNECT asks for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub clean_start: bool,
    /// Milliseconds; `u64::MAX` for ever.
    pub expiry: u64,
    /// Message number and delay in milliseconds.
    pub will: Option<(usize, u64)>,
}

impl Expected {
    pub fn new() -> Expected {
        let state = State {
            session: NO_SESSION,
            wills: BTreeMap::new(),
            will: None,
        };
        Expected {
            now: state,
            before: Vec::new(),
            started: 0,
            fresh: false,
        }
    }

    /// Whether a CONNECT without clean start finds a session; `None` if either will do.
    pub fn session_present(&self, at: u64) -> Option<bool> {
        let session = &self.now.session;
        if session.exists != Some(true) {
            return session.exists;
        }
        let ends = match session.attached {
            true => Span::at(at).plus(session.expiry),
            false => session.detached.plus(session.expiry),
        };
        if session.attached {
            return match (session.expiry.low, session.expiry.high) {
                (0, 0) => Some(false),
                (0, _) => None,
                _ => Some(true),
            };
        }
        if ends.low > at.saturating_add(SLACK_MS) {
            Some(true)
        } else if ends.high.max(self.started).saturating_add(SLACK_MS) < at {
            Some(false)
        } else {
            None
        }
    }

    /// The broker has accepted a CONNECT.
    pub fn connected(&mut self, asked: Asked, at: u64) {
        if self.now.session.attached {
            self.ended(None, at);
        }
        self.before.push(self.now.clone());
        if let Some((Fate::Due(due), _)) = self.waiting() {
            let continues = match asked.clean_start {
                true => Some(false),
                false => self.session_present(at),
            };
            let latest = due.high.max(self.started).saturating_add(SLACK_MS);
            let fate = match continues {
                _ if latest < at => Fate::Due(due),
                Some(false) => Fate::Due(due.or(Span::at(at))),
                Some(true) if due.low > at.saturating_add(SLACK_MS) => Fate::Never,
                _ => Fate::Open,
            };
            self.set_fate(fate);
        }
        self.now.session = Session {
            exists: Some(true),
            attached: true,
            detached: Span::at(at),
            expiry: Span::at(asked.expiry),
        };
        self.now.will = asked.will.map(|(number, delay)| {
            self.now.wills.insert(number, (Fate::Armed, delay));
            number
        });
    }

    /// The connection has ended. A client that takes its leave may say that its will is forgotten,
    /// and how long its session goes on [MQTT-3.1.2-10, MQTT-3.14.2-2].
    pub fn ended(&mut self, leave: Option<Leave>, at: u64) {
        self.before.push(self.now.clone());
        if let Some(expiry) = leave.and_then(|leave| leave.expiry) {
            self.now.session.expiry = Span::at(in_ms(expiry));
        }
        let expiry = self.now.session.expiry;
        if let Some((Fate::Armed, delay)) = self.waiting() {
            let wait = Span {
                low: delay.min(expiry.low),
                high: delay.min(expiry.high),
            };
            let forgotten = leave.is_some_and(|leave| leave.reason == ReasonCode::Success);
            self.set_fate(match forgotten {
                true => Fate::Never,
                false => Fate::Due(Span::at(at).plus(wait)),
            });
        }
        let session = &mut self.now.session;
        session.attached = false;
        session.detached = Span::at(at);
        if expiry.high == 0 {
            session.exists = Some(false);
        }
    }

    /// All that the broker knows of this client is durable, or it has promised that.
    pub fn settle(&mut self) {
        self.fresh = false;
        self.before.clear();
    }

    /// The broker has started again after a crash.
    pub fn recovered(&mut self, at: u64) {
        self.started = at;
        let mut states = std::mem::take(&mut self.before);
        states.push(self.now.clone());
        let mut wills = BTreeMap::new();
        for (number, (_, delay)) in &self.now.wills {
            let fates = states.iter().map(|state| state.fate_after(*number, at));
            let merged = fates.reduce(|a, b| match (a, b) {
                _ if a == b => a,
                (Fate::Due(a), Fate::Due(b)) => Fate::Due(a.or(b)),
                _ => Fate::Open,
            });
            wills.insert(*number, (merged.unwrap_or(Fate::Open), *delay));
        }
        // The will that may still be cancelled by a CONNECT.
        let will = states.iter().filter_map(|state| state.will);
        let will = will
            .filter(|number| matches!(wills.get(number), Some((Fate::Due(_), _))))
            .max();
        let sessions = states.iter().map(|state| recovered(state.session, at));
        let session = sessions.reduce(|a, b| Session {
            exists: a.exists.filter(|_| a.exists == b.exists),
            attached: false,
            detached: a.detached.or(b.detached),
            expiry: a.expiry.or(b.expiry),
        });
        let session = session.unwrap_or(NO_SESSION);
        self.now = State {
            session,
            wills,
            will,
        };
        if self.fresh {
            self.begin_again(at);
        }
        self.fresh = true;
    }

    /// The start before this one had not been written down: what it began with its own time, which may have been later, may begin with this one's.
    fn begin_again(&mut self, at: u64) {
        let state = &mut self.now;
        state.session.detached = state.session.detached.or(Span::at(at));
        let expiry = state.session.expiry;
        for (fate, delay) in state.wills.values_mut() {
            if let Fate::Due(due) = fate {
                due.low = due.low.min(at.saturating_add(expiry.low.min(*delay)));
                due.high = due.high.max(at.saturating_add(expiry.high.min(*delay)));
            }
        }
    }

    /// What must have become of each will by a time.
    pub fn fates(&self) -> impl Iterator<Item = (usize, Fate)> {
        self.now
            .wills
            .iter()
            .map(|(number, (fate, _))| (*number, *fate))
    }

    fn waiting(&self) -> Option<(Fate, u64)> {
        self.now.wills.get(&self.now.will?).copied()
    }

    fn set_fate(&mut self, fate: Fate) {
        if let Some(will) = self.now.will.and_then(|will| self.now.wills.get_mut(&will)) {
            will.0 = fate;
        }
    }
}

/// A session expiry interval in milliseconds; `u64::MAX` for ever.
pub fn in_ms(expiry: u32) -> u64 {
    match expiry {
        u32::MAX => u64::MAX,
        seconds => u64::from(seconds) * 1000,
    }
}

impl State {
    /// What must become of a will if a broker starts from this state.
    fn fate_after(&self, will: usize, at: u64) -> Fate {
        match self.wills.get(&will) {
            None => Fate::Never,
            Some((Fate::Armed, delay)) => Fate::Due(Span::at(at).plus(Span {
                low: (*delay).min(self.session.expiry.low),
                high: (*delay).min(self.session.expiry.high),
            })),
            Some((fate, _)) => *fate,
        }
    }
}

fn recovered(session: Session, at: u64) -> Session {
    if session.exists == Some(false) || !session.attached {
        return session;
    }
    let exists = match (session.expiry.low, session.expiry.high) {
        (_, 0) => Some(false),
        (0, _) => None,
        _ => session.exists,
    };
    Session {
        exists,
        attached: false,
        detached: Span::at(at),
        ..session
    }
}
