//! What clients may do, asked of the rights of their sessions.

use crate::broker::Broker;
use crate::broker::model::access::Identity;
use crate::broker::model::acl::Acls;
use crate::broker::model::ids::{ConnectionId, SessionIndex};
use crate::broker::state::queued::Queued;
use crate::broker::state::rights::Rights;
use crate::broker::state::session::Session;
use crate::broker::state::walks::Walk;
use crate::clock::Now;
use crate::wire::topic::Filter;
use crate::wire::{Fault, ReasonCode};

impl Broker {
    /// The rights of a client that connects; `None` for all.
    pub(in crate::broker) fn rights_of(
        &mut self,
        id: ConnectionId,
        identity: &Identity,
        client_id: &str,
    ) -> Option<Box<Rights>> {
        let access = &self.connections[id].arrival().access;
        let (list, mount_point) = (access.acl.as_deref(), &*access.mount_point);
        let rights = Rights::new(&self.settings.acl, list, identity, client_id, mount_point);
        self.sessions.restricted |= rights.is_some();
        rights
    }

    /// Gives a session that is being connected the rights of its client. Its subscriptions stay, whatever they are: what its client may not have is held
    /// back, and comes when it may.
    pub(in crate::broker) fn give_rights(
        &mut self,
        index: SessionIndex,
        identity: Identity,
        rights: Option<Box<Rights>>,
    ) {
        let before = self.sessions[index].own_bytes();
        self.sessions.identify(index, identity);
        self.sessions[index].rights = rights;
        self.recount_session(index, before);
        self.recheck_held(index);
    }

    /// Replaces the lists of what clients may do, for all of them: at once for those who connect, and a slice at a time for those who
    /// have. Subscriptions stay: what is not allowed any more is not delivered while that is so. What waits for a client is checked when it is sent.
    pub fn set_acl(&mut self, acls: impl Into<Acls>, now: Now) {
        self.now = now;
        self.settings.acl = acls.into();
        self.retained.ask_sources_again();
        self.begin_walk(Walk::Rights);
    }

    /// Gives a session the rights it has by the present rules.
    pub(in crate::broker) fn renew_rights(&mut self, index: SessionIndex) {
        let Some(session) = self.sessions.get_mut(index) else {
            return;
        };
        // Of a session whose client has not connected to this process it is not known whose it is: it gets its rights when it does.
        let Some(identity) = &session.identity else {
            return;
        };
        let old = session.rights.as_ref();
        let mount_point = old.map_or("", |it| &it.mount_point);
        let list = old.and_then(|it| it.list.as_deref());
        let acls = &self.settings.acl;
        session.rights = Rights::new(acls, list, identity, &session.client_id, mount_point);
        self.sessions.restricted |= session.rights.is_some();
        self.recheck_held(index);
    }

    /// Whether a client may have the session of its client identifier: one that a user has had is that user's. One without a user name is nobody's.
    pub(in crate::broker) fn check_owner(
        &mut self,
        identity: &Identity,
        client_id: &str,
    ) -> Result<(), Fault> {
        let Some(index) = self.sessions.find(client_id) else {
            return Ok(());
        };
        let owner = self.sessions[index].user();
        let is_own = owner.is_none() || owner == identity.user.as_deref();
        if is_own || self.settings.allow_other_users {
            return Ok(());
        }
        self.counters.connects_not_owner += 1;
        Err(Fault {
            reason: ReasonCode::NotAuthorized,
            what: "the session of this client identifier is another user's",
        })
    }

    /// Sets whether clients may have sessions of other users, as [`crate::broker::Settings::allow_other_users`] says at the start.
    pub fn allow_other_users(&mut self, allowed: bool) {
        self.settings.allow_other_users = allowed;
    }

    /// Sends away all clients whose credential `stands` no more, by user name and [`Identity::credential`].
    pub fn withdraw_logins(&mut self, stands: impl Fn(&str, u64) -> bool, now: Now) {
        self.now = now;
        let withdrawn = |session: &Session| {
            let identity = session.identity.as_ref()?;
            let (user, credential) = (identity.user.as_deref()?, identity.credential?);
            let id = session.connection?;
            (!stands(user, credential)).then_some(id)
        };
        let ids: Vec<ConnectionId> = self
            .sessions
            .iter()
            .filter_map(|(_, it)| withdrawn(it))
            .collect();
        for id in ids {
            let what = "the login is not valid any more";
            self.disconnect(id, ReasonCode::AdministrativeAction, Some(what));
        }
    }

    /// Whether a session's client may be given messages of a topic; counts it if not.
    pub(in crate::broker) fn may_read(&mut self, index: SessionIndex, topic: &str) -> bool {
        let may = self.is_readable(index, topic);
        self.counters.dropped_not_authorized += u64::from(!may);
        may
    }

    /// As [`Broker::may_read`], without counting: another session may be asked instead.
    pub(in crate::broker) fn is_readable(&mut self, index: SessionIndex, topic: &str) -> bool {
        let rights = self.sessions[index].rights.as_mut();
        rights.is_none_or(|rights| rights.may_read(topic))
    }

    /// As [`Broker::is_readable`], for a message that has waited. Without its body it is not going to be sent yet.
    pub(in crate::broker) fn may_have(&mut self, index: SessionIndex, item: &Queued) -> bool {
        match &item.body {
            Some(body) if self.sessions.restricted => self.is_readable(index, body.topic()),
            _ => true,
        }
    }

    /// Whether a session's client may publish to a topic, which has the mount point before it.
    pub(in crate::broker) fn may_write(&mut self, index: SessionIndex, topic: &str) -> bool {
        let rights = self.sessions[index].rights.as_mut();
        rights.is_none_or(|rights| rights.may_write(topic))
    }

    /// Whether a session's client may subscribe to a filter, without its share name and with the mount point before it.
    pub(in crate::broker) fn grants(&self, index: SessionIndex, filter: &str) -> bool {
        let rights = self.sessions[index].rights.as_ref();
        rights.is_none_or(|rights| rights.grants(filter))
    }

    /// A topic as the broker calls it; `None` if its client calls it the same.
    pub(in crate::broker) fn mounted_topic(
        &self,
        index: SessionIndex,
        topic: &str,
    ) -> Option<Box<str>> {
        self.sessions[index].rights.as_ref()?.mount(topic)
    }

    /// A filter, perhaps with its share name, as the broker calls it; `None` if its client calls it the same, or if it is none.
    pub(in crate::broker) fn mounted_filter(
        &self,
        index: SessionIndex,
        text: &str,
    ) -> Option<Box<str>> {
        let rights = self.sessions[index].rights.as_ref()?;
        let parsed = Filter::parse(text)?;
        let mounted = rights.mount(parsed.filter)?;
        match parsed.share {
            Some(share) => Some(format!("$share/{share}/{mounted}").into()),
            None => Some(mounted),
        }
    }
}
