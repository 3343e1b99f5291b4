//! The broker process: the real broker and store, driven as `net` and the committer drive them, until it dies.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use super::Planted;
use super::brief::Brief;
use super::disk::Fault;
use super::expected::Asked;
use super::history::{Violation, number_of};
use super::lie::Lie;
use super::link::{Leave, Writing, bytes_of, decode_next};
use super::plan::Role;
use super::world::{Event, World};
use crate::broker::record::{Batch, BatchId};
use crate::broker::{Access, Broker, Chance, ConnectionId, Fetch, Message, Segments, Settings};
use crate::clock::Reading;
use crate::store::{Store, StoreOptions};
use crate::wire::{Packet, PropertiesBuf, ProtocolVersion};

/// Packets handled in one visit to the broker.
const VISIT_PACKETS: usize = 256;
/// One event in so many has the broker's accounts audited.
const AUDIT_ONCE_IN: u64 = 200;

pub struct Process {
    pub broker: Broker,
    pub store: Store,
    /// When it started, in microseconds.
    pub started: u64,
    /// Broker time at its start, in milliseconds.
    pub unix: u64,
    pub committing: bool,
    pub batch: Option<Batch>,
    pub taken: BatchId,
    tick_at: u64,
    /// Links by connection.
    links: BTreeMap<ConnectionId, usize>,
    /// By client: the link that has its session.
    attached: BTreeMap<usize, usize>,
    pub fetches: VecDeque<Fetch>,
    pub bodies: Option<(Fetch, Bodies)>,
}

/// What a read of bodies brought.
pub type Bodies = Vec<Option<Message>>;

impl Process {
    pub fn is_settled(&self) -> bool {
        self.broker.is_settled() && self.fetches.is_empty() && self.bodies.is_none()
    }
}

/// What the simulated broker's store is named.
pub const IDENTITY: u64 = 7;

pub fn store_options() -> StoreOptions {
    StoreOptions {
        path: PathBuf::from("simulated"),
        max_bytes: 1 << 30,
        min_free_bytes: 0,
        cache_bytes: 1 << 20,
        move_corrupt_aside: false,
    }
}

impl World {
    /// Starts the broker on what the disk has.
    pub fn boot(&mut self) -> Result<(), Violation> {
        let mounted = self.disk.mount();
        if self.disk_is_bad {
            self.disk.fill();
        }
        let fails = !self.healed && self.plan.crash_every > 0 && self.rng.chance(25);
        if fails {
            let after = self.rng.below(30);
            self.disk.inject(Fault::StopAfter(after));
        }
        if self.plan.clock_set_every > 0 && !self.healed {
            self.set_clock();
        }
        let opened = Store::open_with_backend(mounted, &store_options(), IDENTITY);
        let stored = opened.as_ref().map_or(None, |(store, _)| store.clock());
        let unix = match self.planted {
            Planted::Told(Lie::TrustedClock) => self.wall(),
            _ => Reading::resume(stored, self.wall()).0,
        };
        let settings = Settings {
            identity: IDENTITY,
            limits: self.plan.limits.clone(),
            durability: self.plan.durability.clone(),
            sys_interval_ms: 0,
            acl: Default::default(),
            allow_other_users: false,
            upgrade_outgoing_qos: false,
        };
        let started = self.ms() * 1000;
        let now = self.now(started, unix);
        let mut broker = Broker::new(settings, Chance::fixed(7), now);
        broker.set_slice(self.plan.slice as u64);
        broker.set_release(self.plan.slice as u64);
        match self.planted {
            Planted::Open(arrow) => broker.open_arrow(arrow),
            Planted::Told(Lie::Miscounted) => broker.miscount(),
            _ => {}
        }
        let recovered = opened.and_then(|(store, opened)| {
            let recovery = store.recover(&mut |row| broker.restore(row))?;
            Ok((store, opened, recovery))
        });
        let (store, opened, recovery) = match recovered {
            Ok(recovered) => recovered,
            Err(error) if fails || self.disk_is_bad => {
                self.stats.failed_starts += 1;
                self.say(format_args!("the start fails: {error}"));
                self.crash();
                return Ok(());
            }
            Err(error) => {
                return Err(Violation::new(
                    "the store opens after any crash",
                    error.to_string(),
                ));
            }
        };
        self.check_clock(unix, stored)?;
        broker.set_room(store.room(), store.may_have_more_room());
        let restored = broker.finish_restore(&recovery.resume, now);
        broker.set_wall(self.wall(), now);
        self.say(format_args!(
            "started: {:?}, {} rows, {} orphans, {restored:?}",
            opened.start, recovery.rows, recovery.orphans
        ));
        self.process = Some(Process {
            broker,
            store,
            started,
            unix,
            committing: false,
            batch: None,
            taken: BatchId(0),
            tick_at: u64::MAX,
            links: BTreeMap::new(),
            attached: BTreeMap::new(),
            fetches: VecDeque::new(),
            bodies: None,
        });
        let ms = self.unix();
        for expected in &mut self.expected {
            expected.recovered(ms);
        }
        Ok(())
    }

    /// The process, and where it stands in time.
    pub fn process(&mut self) -> Option<(&mut Process, crate::clock::Now)> {
        let process = self.process.as_ref()?;
        let now = self.now(process.started, process.unix);
        self.process.as_mut().map(|process| (process, now))
    }

    pub fn lie(&self) -> Option<Lie> {
        match self.planted {
            Planted::Told(lie) => Some(lie),
            _ => None,
        }
    }

    pub fn accept(&mut self, link: usize) -> Option<ConnectionId> {
        let (process, now) = self.process()?;
        let access = Access {
            allow_anonymous: true,
            ..Access::default()
        };
        let id = process.broker.accept(access, now)?;
        process.links.insert(id, link);
        Some(id)
    }

    /// Bytes of a client come to the broker.
    pub fn arrive_up(&mut self, link: usize) -> Result<(), Violation> {
        self.links[link].up_due = false;
        let state = &mut self.links[link];
        let Some(server) = state.server.as_mut() else {
            state.up.clear();
            return Ok(());
        };
        if server.output.close || state.up.is_empty() && !state.up_ends {
            state.up.clear();
            return Ok(());
        }
        if !server.reads() {
            return Ok(()); // Until the broker says so.
        }
        if state.up.is_empty() {
            return self.close_server(link, false);
        }
        let part = state.up.len();
        let part = self.part(link, part);
        self.links[link].heard = self.time();
        let state = &mut self.links[link];
        let Some(server) = state.server.as_mut() else {
            return Ok(());
        };
        let mut bytes = std::mem::take(&mut server.partial);
        bytes.extend(state.up.drain(..part));
        let used = self.handle(link, &bytes)?;
        if let Some(server) = self.links[link].server.as_mut() {
            bytes.drain(..used);
            server.partial = bytes;
            let (id, is_partial) = (server.id, !server.partial.is_empty());
            let is_told = is_partial && !server.connect_waits && server.version.is_some();
            if is_told
                && self.lie() != Some(Lie::UnheardParts)
                && let Some((process, now)) = self.process()
            {
                process.broker.heard(id, now);
            }
        }
        self.service(link)?;
        self.hurry_up(link);
        Ok(())
    }

    /// Hands all whole packets to the broker; how many bytes they were.
    fn handle(&mut self, link: usize, bytes: &[u8]) -> Result<usize, Violation> {
        let mut used = 0;
        for _ in 0..VISIT_PACKETS {
            let most = self.plan.limits.max_packet_size;
            let Some(server) = self.links[link].server.as_mut() else {
                break;
            };
            let (id, mut version) = (server.id, server.version);
            let next = decode_next(&bytes[used..], &mut version, most);
            server.version = version;
            match next {
                Ok(Some((packet, len))) => {
                    self.hand_over(link, id, packet)?;
                    if let Some(server) = self.links[link].server.as_mut()
                        && server.connect_waits
                    {
                        break;
                    }
                    used += len;
                }
                Ok(None) => break,
                Err(fault) => {
                    used = bytes.len();
                    self.say(format_args!("link {link}: {fault}"));
                    if let Some((process, now)) = self.process() {
                        process.broker.fault(id, fault, version, now);
                    }
                    self.observe();
                    break;
                }
            }
        }
        Ok(used)
    }

    /// Hands one packet to the broker, noting what it means to the model.
    fn hand_over(
        &mut self,
        link: usize,
        id: ConnectionId,
        packet: Packet<'_>,
    ) -> Result<(), Violation> {
        self.say(format_args!("broker < link {link} {}", Brief(&packet)));
        let client = self.links[link].client;
        let honest = self.clients[client].plan.role != Role::Breaker;
        let mut asked: Option<Asked> = None;
        let mut present = None;
        let is_connect = matches!(packet, Packet::Connect(_));
        match &packet {
            Packet::Connect(_) if honest => {
                asked = self.links[link].asked;
                let ms = self.unix();
                let clean = asked.is_some_and(|asked| asked.clean_start);
                present = match clean {
                    true => Some(false),
                    false => self.expected[client].session_present(ms),
                };
            }
            Packet::Publish(publish) if honest => {
                let number = number_of(publish.payload);
                let moment = match number {
                    Some(number) => self.history.handle(number),
                    None => self.history.moment(),
                };
                // What clears a topic has no number in it, but its identifier tells.
                let clears = || self.clients[client].sent_as(publish.packet_id);
                if let Some(number) = number.or_else(clears) {
                    self.history.handed(number, moment);
                }
            }
            Packet::Disconnect(disconnect) => {
                self.links[link].leave = Some(Leave {
                    reason: disconnect.reason,
                    expiry: disconnect.properties.session_expiry(),
                });
            }
            _ => {}
        }
        let mut scratch = PropertiesBuf::new();
        let packet = match self.lie() {
            Some(lie) if honest => lie.hand_over(packet, &mut self.rng, &mut scratch),
            _ => Some(packet),
        };
        if let Some((packet, (process, now))) = packet.zip(self.process()) {
            process.broker.receive(id, packet, now);
        }
        self.observe();
        let process = self.process.as_ref();
        let waits = is_connect && process.is_some_and(|process| process.broker.is_waiting(id));
        if let Some(server) = self.links[link].server.as_mut() {
            server.connect_waits = waits;
        }
        if waits {
            self.say(format_args!("link {link} waits for an older one"));
            return Ok(());
        }
        if let Some(asked) = asked {
            self.links[link].present = present;
            if present != Some(true) && self.history.lives[client].session().is_some() {
                self.clients[client].must_clean = true;
            }
            let ms = self.unix();
            let process = self.process.as_mut();
            let Some(process) = process.filter(|process| process.broker.is_attached(id)) else {
                return Err(Violation::new(
                    "a client that keeps the rules is let in",
                    self.clients[client].plan.name.clone(),
                ));
            };
            process.attached.insert(client, link);
            self.expected[client].connected(asked, ms);
        }
        Ok(())
    }

    /// Notes which sessions have lost their connection.
    fn observe(&mut self) {
        let ms = self.unix();
        let Some(process) = self.process.as_mut() else {
            return;
        };
        let links = &self.links;
        let is_gone = |link: usize| {
            let id = links[link].server.as_ref().map(|server| server.id);
            !id.is_some_and(|id| process.broker.is_attached(id))
        };
        let mut attached = process.attached.iter();
        if !attached.any(|(_, link)| is_gone(*link)) {
            return; // Mostly.
        }
        let attached = process.attached.iter();
        let gone: Vec<(usize, usize)> = attached
            .filter(|(_, link)| is_gone(**link))
            .map(|(client, link)| (*client, *link))
            .collect();
        for (client, link) in gone {
            process.attached.remove(&client);
            self.expected[client].ended(links[link].leave, ms);
        }
    }

    /// Writes to a connection what the broker has for it, as far as it can be written.
    pub fn service(&mut self, link: usize) -> Result<(), Violation> {
        loop {
            let state = &mut self.links[link];
            let Some(server) = state.server.as_mut() else {
                return Ok(());
            };
            if state.down_ends {
                server.writing.clear(); // Nobody gets it any more.
            }
            server.write(&mut state.down, state.capacity);
            let full = !server.writing.is_empty();
            let (close, id) = (server.output.close, server.id);
            self.hurry_down(link);
            if full {
                self.links[link].was_full = true;
                self.answer_look(link, id);
                let process = self.process.as_ref();
                if process.is_some_and(|process| process.broker.is_closing(id)) {
                    self.check_given_up(link, id)?;
                    return self.close_server(link, true);
                }
                return Ok(());
            }
            if close {
                self.check_given_up(link, id)?;
                return self.close_server(link, true);
            }
            self.answer_look(link, id);
            let mut taken = Segments::default();
            let Some((process, now)) = self.process() else {
                return Ok(());
            };
            let output = process.broker.take_output(id, &mut taken, now);
            let mut nothing = taken.is_empty() && !output.close;
            let mut out = bytes_of(&taken);
            self.check_connack(link, &out)?;
            self.check_expiry(link, &out)?;
            let lie = self.lie();
            if let Some(server) = self.links[link].server.as_mut() {
                server.output = output;
                server.writing = Writing::Shared(taken);
                if let Some(lie) = lie {
                    lie.write(&mut out, server.version);
                    server.writing = Writing::Copied(out);
                }
                if server.connect_waits && !output.waits && !output.close {
                    self.present_again(link)?;
                    nothing = false;
                } else if output.yields && !output.pause && !output.close {
                    nothing &= !self.read_last(link)?;
                }
            }
            if nothing {
                self.links[link].was_full = false;
                self.hurry_up(link);
                return Ok(());
            }
        }
    }

    /// Hands over a CONNECT that had to wait, and what came with it.
    fn present_again(&mut self, link: usize) -> Result<(), Violation> {
        let Some(server) = self.links[link].server.as_mut() else {
            return Ok(());
        };
        let mut bytes = std::mem::take(&mut server.partial);
        let used = self.handle(link, &bytes)?;
        if let Some(server) = self.links[link].server.as_mut() {
            bytes.drain(..used);
            server.partial = bytes;
        }
        self.hurry_up(link);
        Ok(())
    }

    /// Another connection waits to take the place of this one: what has come of its client is handed over, and then it ends. Some do not come to it.
    /// Whether anything was done.
    fn read_last(&mut self, link: usize) -> Result<bool, Violation> {
        if self.rng.chance(10) {
            return Ok(false);
        }
        let state = &mut self.links[link];
        let Some(server) = state.server.as_mut() else {
            return Ok(false);
        };
        let all = state.up.len();
        let part = match self.rng.chance(70) || all == 0 {
            true => all,
            false => self.rng.part(all),
        };
        self.stats.read_last += u64::from(part > 0);
        let mut bytes = std::mem::take(&mut server.partial);
        bytes.extend(state.up.drain(..part));
        let mut used = 0;
        loop {
            let step = self.handle(link, &bytes[used..])?;
            used += step;
            if step == 0 {
                break;
            }
        }
        let Some(server) = self.links[link].server.as_mut() else {
            return Ok(true);
        };
        bytes.drain(..used);
        server.partial = bytes;
        let id = server.id;
        if let Some((process, now)) = self.process() {
            process.broker.drained(id, now);
        }
        self.observe();
        Ok(true)
    }

    /// The first packet to a client is CONNACK: what it says is a promise from the moment it leaves.
    fn check_connack(&mut self, link: usize, out: &[u8]) -> Result<(), Violation> {
        let state = &mut self.links[link];
        let Some(server) = state.server.as_mut() else {
            return Ok(());
        };
        if out.is_empty() || std::mem::replace(&mut server.answered, true) || state.asked.is_none()
        {
            return Ok(());
        }
        let (client, expected) = (state.client, state.present);
        let v31 = self.clients[client].plan.version == ProtocolVersion::V31;
        let [0x20, _, present, 0, ..] = out else {
            return Ok(());
        };
        let present = *present == 1;
        if expected.is_some_and(|expected| expected != present) && !v31 {
            let what = format!(
                "{}: session present is {present}, link {link}",
                self.clients[client].plan.name
            );
            return Err(Violation::new("sessions are kept and expire on time", what));
        }
        let promises = self.links[link]
            .asked
            .is_some_and(|asked| asked.expiry > 0 || asked.will.is_some());
        let process = self.process.as_ref();
        if promises && process.is_some_and(|one| one.attached.get(&client) == Some(&link)) {
            self.expected[client].settle();
        }
        Ok(())
    }

    /// The broker's end of a connection is closed: by the broker, or because the client's end was seen.
    fn close_server(&mut self, link: usize, by_broker: bool) -> Result<(), Violation> {
        let Some(server) = self.links[link].server.take() else {
            return Ok(());
        };
        self.say(format_args!("link {link}: closed, by broker {by_broker}"));
        if let Some((process, now)) = self.process() {
            process.links.remove(&server.id);
            process.broker.lost(server.id, now);
        }
        self.observe();
        self.links[link].up.clear();
        self.links[link].is_open = false;
        self.links[link].down_ends = true;
        self.hurry_down(link);
        Ok(())
    }

    /// What a driver does after each visit to the broker.
    pub fn after_event(&mut self) -> Result<(), Violation> {
        self.observe();
        let life = self.life;
        let Some((process, now)) = self.process() else {
            return Ok(());
        };
        let mut touched = Vec::new();
        process.broker.take_touched(&mut touched);
        let links: Vec<usize> = touched
            .iter()
            .filter_map(|id| process.links.get(id).copied())
            .collect();
        let fetches = process.broker.take_fetches();
        let reads = !fetches.is_empty() && process.fetches.is_empty() && process.bodies.is_none();
        process.fetches.extend(fetches);
        let commits = !process.committing && process.broker.wants_commit(now);
        process.committing |= commits;
        let due = process.broker.next_timeout().saturating_mul(1000);
        let due = process.started.saturating_add(due);
        let earlier = due < process.tick_at;
        if earlier {
            process.tick_at = due;
        }
        let settled = process.broker.only_removals_wait();
        for link in links {
            self.soon(20, Event::Service(link));
        }
        if reads {
            self.soon(self.plan.commit_us, Event::Read(life));
        }
        if commits {
            self.soon(100, Event::Take(life));
        }
        if earlier {
            let late = self.rng.below(2_000);
            self.at(due.saturating_sub(self.time()) + late, Event::Tick(life));
        }
        if settled {
            self.expected.iter_mut().for_each(|one| one.settle());
        }
        if self.rng.once_in(AUDIT_ONCE_IN) {
            self.audit()?;
        }
        Ok(())
    }

    fn audit(&mut self) -> Result<(), Violation> {
        let audit = self.process.as_ref().map(|process| process.broker.audit());
        let wrong = audit.and_then(Result::err);
        wrong.map_or(Ok(()), |what| {
            Err(Violation::new("memory is accounted for", what))
        })
    }

    pub fn tick(&mut self) {
        let wall = self.wall();
        if let Some((process, now)) = self.process() {
            process.broker.set_wall(wall, now);
            if now.uptime >= process.broker.next_timeout() {
                process.broker.tick(now);
            }
            process.tick_at = u64::MAX;
        }
    }

    pub fn say(&mut self, what: std::fmt::Arguments<'_>) {
        let time = self.time();
        self.trace.say(time, what);
    }
}
