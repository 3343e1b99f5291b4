//! Walks: what concerns all sessions or all connections is done in slices.

use std::sync::Arc;

use crate::broker::Broker;
use crate::broker::model::access::{Access, Admission};
use crate::broker::model::ids::{ConnectionId, SessionIndex};
use crate::broker::model::work::OPERATION;
use crate::broker::state::connection::State;
use crate::broker::state::timers::Timer;
use crate::broker::state::walks::Walk;
use crate::clock::Now;
use crate::wire::ReasonCode;

/// Work of a slice: about a millisecond's. Most places cost no more than [`OPERATION`].
pub(in crate::broker) const AT_ONCE: u64 = OPERATION * if cfg!(test) { 256 } else { 1024 };

/// When the next ones follow, in milliseconds.
const PAUSE_MS: u64 = 1;

impl Broker {
    /// Sends away who has come through a listener: it is gone, or lets in others from now on.
    pub fn send_away(&mut self, access: &Arc<Access>, now: Now) {
        self.now = now;
        self.begin_walk(Walk::SendAway(Arc::clone(access)));
    }

    /// Sends away who has come through a listener that would not let it in now.
    pub fn send_away_unless(&mut self, access: &Arc<Access>, admission: Admission, now: Now) {
        self.now = now;
        self.begin_walk(Walk::Admit(Arc::clone(access), admission));
    }

    /// Begins a walk: few places are passed at once.
    pub(in crate::broker) fn begin_walk(&mut self, walk: Walk) {
        self.upkeep.walks.begin(walk);
        self.walk();
    }

    /// Goes on with the walks.
    pub(in crate::broker) fn walk(&mut self) {
        let slice = self.pace.slice(AT_ONCE);
        while !self.pace.is_over(slice)
            && let Some((walk, mut at)) = self.upkeep.walks.take()
        {
            let places = match walk {
                Walk::Rights => self.sessions.places(),
                Walk::SendAway(_) | Walk::Admit(..) | Walk::ShutDown => self.connections.places(),
            };
            while at < places && !self.pace.is_over(slice) {
                self.pace.spend(OPERATION);
                self.pass(&walk, at);
                at += 1;
            }
            if at < places {
                self.upkeep.walks.put_back(walk, at);
            }
        }
        if !self.upkeep.walks.is_empty() {
            self.timers.set(self.now.uptime + PAUSE_MS, Timer::Walk);
        }
    }

    fn pass(&mut self, walk: &Walk, at: u32) {
        let id = ConnectionId(at);
        let connection = self.connections.get(id);
        match walk {
            Walk::Rights => self.renew_rights(SessionIndex(at)),
            Walk::SendAway(access) => {
                if connection.is_some_and(|it| Arc::ptr_eq(&it.arrival().access, access)) {
                    let what = Some("the listener was changed");
                    self.dismiss(id, ReasonCode::AdministrativeAction, what);
                }
            }
            Walk::Admit(access, admission) => {
                let gone = connection.is_some_and(|it| {
                    Arc::ptr_eq(&it.arrival().access, access)
                        && !admission.lets_in(it.arrival().peer.address)
                });
                if gone {
                    let what = Some("its address is not allowed here any more");
                    self.dismiss(id, ReasonCode::AdministrativeAction, what);
                }
            }
            Walk::ShutDown => self.dismiss(id, ReasonCode::ServerShuttingDown, None),
        }
    }

    /// Ends a connection from this side, however far it has come.
    fn dismiss(&mut self, id: ConnectionId, reason: ReasonCode, what: Option<&str>) {
        let connection = self.connections.get_mut(id);
        match connection.map(|connection| connection.state()) {
            Some(State::New) => {
                self.connections[id].close();
                self.touch(id);
            }
            Some(State::Open) => self.disconnect(id, reason, what),
            Some(State::Closing) | None => {}
        }
    }
}
