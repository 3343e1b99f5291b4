//! A run: virtual time, one queue of events, and what each of them does. The broker and the store are the real ones.

use std::collections::BTreeMap;

use super::Planted;
use super::breaker;
use super::brief::Brief;
use super::client::{Client, Move};
use super::clocks::Clocks;
use super::disk::SimDisk;
use super::expected::Expected;
use super::history::{History, Life, Violation};
use super::lie::Lie;
use super::link::{Link, decode_next};
use super::plan::{Plan, Role};
use super::process::Process;
use super::rng::Rng;
use super::trace::{Telling, Trace};
use crate::broker::SHARED_FROM;
use crate::clock::Now;
use crate::wire::{Packet, codec};

/// Milliseconds since 1970 when a run begins.
pub const EPOCH: u64 = 1_700_000_000_000;
/// How long after healing all must be done, in milliseconds.
const DRAIN_MS: u64 = 120_000;
/// How long nothing may come any more before a run is judged, in microseconds.
const QUIET_US: u64 = 3_000_000;

/// What can happen. Numbers name a client, a link, or the life of the broker in which it was set off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Step(usize),
    Up(usize),
    Down(usize),
    /// A connection that the client has left without a trace ends for the broker too.
    Noticed(usize),
    Service(usize),
    Take(u64),
    Apply(u64),
    Written(u64),
    Durable(u64),
    Read(u64),
    Fetched(u64),
    Tick(u64),
    Crash,
    Boot,
    DiskFault,
    DiskHeals,
    Cut,
    ClockSet,
    Heal,
    Check,
}

impl Event {
    /// Whether the broker may have been called. What a client does reaches it later, but for a connection that is opened; those are most events.
    fn reaches_broker(self) -> bool {
        !matches!(self, Event::Step(_) | Event::Down(_))
    }
}

/// What a run counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    pub kills: u64,
    pub power_cuts: u64,
    pub failed_starts: u64,
    pub disk_faults: u64,
    pub cuts: u64,
    pub clocks_set: u64,
    pub published: u64,
    pub delivered: u64,
    pub commits: u64,
    /// Connections that still had something unread when a newer one of their client came.
    pub read_last: u64,
    /// Packets that came to clients with a payload that deliveries share.
    pub large: u64,
    /// Times a slow link carried a few bytes.
    pub slow: u64,
    /// Clients given up because they said nothing, or took nothing, for too long.
    pub given_up: u64,
}

pub struct World {
    pub plan: Plan,
    pub rng: Rng,
    pub trace: Trace,
    pub history: History,
    pub clients: Vec<Client>,
    pub expected: Vec<Expected>,
    pub links: Vec<Link>,
    pub disk: SimDisk,
    pub process: Option<Process>,
    /// Which life of the broker this is.
    pub life: u64,
    /// The disk has been told to fail, or is full.
    pub disk_is_bad: bool,
    pub healed: bool,
    pub stats: Stats,
    pub planted: Planted,
    pub clocks: Clocks,
    events: BTreeMap<(u64, u64), Event>,
    time: u64,
    next_event: u64,
    quiet_since: u64,
    /// How far the history had come when the last batch was taken, and what of it is on disk.
    pub taken_at: u64,
    pub safe: u64,
    /// The witness has subscribed.
    admitted: bool,
    finished: bool,
}

impl World {
    pub fn new(seed: u64, plan: Plan, telling: Telling, planted: Planted) -> World {
        let mut world = World {
            rng: Rng::new(seed ^ 0x5EED),
            trace: Trace::new(telling),
            history: History::default(),
            clients: Vec::new(),
            expected: Vec::new(),
            links: Vec::new(),
            disk: SimDisk::default(),
            process: None,
            life: 0,
            disk_is_bad: false,
            healed: false,
            stats: Stats::default(),
            planted,
            clocks: Clocks::default(),
            events: BTreeMap::new(),
            time: 0,
            next_event: 0,
            quiet_since: 0,
            taken_at: 0,
            safe: 0,
            admitted: false,
            finished: false,
            plan,
        };
        for plan in world.plan.clients.clone() {
            let client = Client::new(world.clients.len(), plan);
            world.add_client(client);
        }
        if world.planted == Planted::Told(Lie::Unsynced) {
            world.disk.lie();
        }
        world.at(0, Event::Boot);
        let heal_at = world.plan.heal_at * 1000;
        world.at(heal_at, Event::Heal);
        world.plan_next(Event::Crash, world.plan.crash_every);
        world.plan_next(Event::DiskFault, world.plan.disk_faults_every);
        world.plan_next(Event::ClockSet, world.plan.clock_set_every);
        if !world.plan.calm {
            world.plan_next(Event::Cut, 5_000);
        }
        world
    }

    /// Runs to the end, where everything has healed and been taken.
    pub fn run(&mut self) -> Result<(), Violation> {
        while !self.finished {
            let Some(((time, _), event)) = self.events.pop_first() else {
                break;
            };
            self.time = time;
            let now = self.unix();
            self.history.set_now(now);
            self.happen(event)?;
            if event.reaches_broker() {
                self.after_event()?;
            }
        }
        Ok(())
    }

    pub fn ms(&self) -> u64 {
        self.time / 1000
    }

    pub fn time(&self) -> u64 {
        self.time
    }

    /// The moment as a broker sees it that was started at a time in microseconds with a broker time in milliseconds.
    pub fn now(&self, started: u64, unix: u64) -> Now {
        let stands = self.planted == Planted::Told(Lie::StoppedClock);
        let uptime = (self.time - started) / 1000;
        Now {
            uptime,
            unix: if stands { EPOCH } else { unix + uptime },
        }
    }

    /// Lets an event happen so many microseconds from now.
    pub fn at(&mut self, after: u64, event: Event) {
        self.events
            .insert((self.time + after, self.next_event), event);
        self.next_event += 1;
    }

    /// Lets an event happen within so many microseconds.
    pub fn soon(&mut self, most: u64, event: Event) {
        let after = self.rng.below(most + 1);
        self.at(after, event);
    }

    fn plan_next(&mut self, event: Event, every_ms: u64) {
        if every_ms > 0 && !self.healed {
            let after = self.rng.between(1, 2 * every_ms) * 1000;
            self.at(after, event);
        }
    }

    fn happen(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Step(client) => self.step(client)?,
            Event::Up(link) => self.arrive_up(link)?,
            Event::Down(link) => self.arrive_down(link)?,
            Event::Noticed(link) => {
                self.links[link].up_ends = true;
                self.arrive_up(link)?;
            }
            Event::Service(link) => self.service(link)?,
            Event::Take(life) if life == self.life => self.take_batch(),
            Event::Apply(life) if life == self.life => self.apply()?,
            Event::Written(life) if life == self.life => self.written(),
            Event::Durable(life) if life == self.life => self.durable(),
            Event::Read(life) if life == self.life => self.read_bodies()?,
            Event::Fetched(life) if life == self.life => self.fetched(),
            Event::Tick(life) if life == self.life => self.tick(),
            Event::Boot => self.boot()?,
            Event::Crash if !self.healed => {
                self.crash_somehow();
                self.plan_next(Event::Crash, self.plan.crash_every);
            }
            Event::DiskFault if !self.healed => {
                self.break_disk();
                self.plan_next(Event::DiskFault, self.plan.disk_faults_every);
            }
            Event::DiskHeals => {
                self.disk.heal();
                self.disk_is_bad = false;
            }
            Event::Cut if !self.healed => {
                self.cut_some_link();
                self.plan_next(Event::Cut, 5_000);
            }
            Event::ClockSet if !self.healed => {
                self.set_clock();
                self.plan_next(Event::ClockSet, self.plan.clock_set_every);
            }
            Event::Heal => self.heal(),
            Event::Check => self.check_drained()?,
            _ => {}
        }
        Ok(())
    }

    pub fn add_client(&mut self, client: Client) {
        let number = client.number;
        self.expected.push(Expected::new());
        self.history.lives.push(Life::default());
        self.clients.push(client);
        self.soon(5_000, Event::Step(number));
    }

    fn step(&mut self, number: usize) -> Result<(), Violation> {
        let ms = self.ms();
        let pace = self.clients[number].plan.pace_ms * 1000;
        self.soon(pace, Event::Step(number));
        // What the witness sees is what others are judged by: nobody comes before it has subscribed.
        self.admitted = self.admitted || self.clients[0].is_done(&self.history);
        if number > 0 && !self.admitted {
            return Ok(());
        }
        if self.clients[number].plan.role == Role::Breaker {
            self.step_breaker(number);
            return Ok(());
        }
        let mut out = Vec::new();
        let client = &mut self.clients[number];
        let step = client.step(&mut self.rng, &mut self.history, ms, &mut out);
        if let Some(fault) = client.fault.take() {
            return Err(fault);
        }
        let link = client.link;
        if let Some(link) = link {
            self.send_up(link, &out);
        }
        self.make_move(number, step);
        Ok(())
    }

    fn step_breaker(&mut self, number: usize) {
        if self.healed {
            return self.make_move(number, Move::Reset);
        }
        let Some(link) = self.clients[number].link else {
            return self.open(number);
        };
        let mut out = Vec::new();
        let step = breaker::step(&mut self.rng, &mut out);
        self.send_up(link, &out);
        self.make_move(number, step);
    }

    fn make_move(&mut self, number: usize, step: Move) {
        if step == Move::Stay {
            return;
        }
        if step == Move::Open {
            return self.open(number);
        }
        let Some(link) = self.clients[number].link else {
            return;
        };
        self.trace.say(
            self.time,
            format_args!("client {number}: {step:?} link {link}"),
        );
        let ms = self.ms();
        self.clients[number].lost(ms);
        self.links[link].is_read = false;
        self.links[link].is_open = false;
        match step {
            Move::Close => self.links[link].up_ends = true,
            Move::Reset => {
                self.links[link].cut_up(&mut self.rng);
                self.links[link].up_ends = true;
            }
            _ => {
                self.links[link].cut_up(&mut self.rng);
                if self.rng.chance(40) {
                    self.soon(20_000_000, Event::Noticed(link));
                }
            }
        }
        self.hurry_up(link);
    }

    fn open(&mut self, number: usize) {
        let (ms, link) = (self.ms(), self.links.len());
        let Some(id) = self.accept(link) else {
            self.clients[number].lost(ms);
            return;
        };
        let is_large = self.clients.iter().any(|client| client.plan.large > 0);
        let smallest = if is_large { 4096 } else { 64 };
        let capacity = *self.rng.pick(&[smallest, smallest.max(1024), 1 << 20]);
        self.links.push(Link::new(number, id, capacity));
        self.trace.say(
            self.time,
            format_args!("client {number}: opens link {link}"),
        );
        self.soon(0, Event::Service(link)); // The broker was called.
        let mut out = Vec::new();
        if self.clients[number].plan.role == Role::Breaker {
            self.clients[number].link = Some(link);
        } else {
            let asked =
                self.clients[number].connect(&mut self.rng, &mut self.history, link, ms, &mut out);
            self.links[link].asked = Some(asked);
        }
        self.send_up(link, &out);
    }

    /// Puts a client's bytes on their way.
    fn send_up(&mut self, link: usize, bytes: &[u8]) {
        if self.links[link].is_open && !bytes.is_empty() {
            if bytes != [0xC0, 0] {
                self.quiet_since = self.time;
            }
            self.links[link].up.extend(bytes);
            self.hurry_up(link);
        }
    }

    pub fn hurry_up(&mut self, link: usize) {
        let waits = !self.links[link].up.is_empty() || self.links[link].up_ends;
        if waits && !std::mem::replace(&mut self.links[link].up_due, true) {
            self.delay(link, Event::Up(link));
        }
    }

    pub fn hurry_down(&mut self, link: usize) {
        let waits = !self.links[link].down.is_empty() || self.links[link].down_ends;
        if waits && !std::mem::replace(&mut self.links[link].down_due, true) {
            self.delay(link, Event::Down(link));
        }
    }

    /// Whether a link carries only a few bytes at a time: a slow one does once CONNACK is on its way.
    fn is_slow(&self, link: usize) -> bool {
        let server = self.links[link].server.as_ref();
        let is_slow = self.clients[self.links[link].client].plan.slow && !self.healed;
        is_slow && server.is_some_and(|server| server.answered)
    }

    /// How many of `len` bytes come through at once.
    pub fn part(&mut self, link: usize, len: usize) -> usize {
        match self.is_slow(link) {
            true => (self.rng.between(1, 4) as usize).min(len),
            false => self.rng.part(len),
        }
    }

    fn delay(&mut self, link: usize, event: Event) {
        if self.is_slow(link) {
            let after = self.rng.between(100_000, 2_000_000);
            self.stats.slow += 1;
            return self.at(after, event);
        }
        let slow = !self.healed && !self.plan.calm && self.rng.chance(2);
        let most = if slow {
            1_000_000
        } else {
            self.plan.latency_us
        };
        self.soon(most, event);
    }

    /// Bytes come to a client.
    fn arrive_down(&mut self, link: usize) -> Result<(), Violation> {
        self.links[link].down_due = false;
        if !self.links[link].is_read {
            return Ok(());
        }
        let number = self.links[link].client;
        let stalls = self.clients[number].plan.stalls_once_in;
        if !self.healed && self.rng.once_in(stalls) {
            self.links[link].down_due = true;
            let after = self.rng.between(1_000_000, 10_000_000);
            self.at(after, Event::Down(link));
            return Ok(());
        }
        let len = self.links[link].down.len();
        let part = if len == 0 { 0 } else { self.part(link, len) };
        let bytes: Vec<u8> = self.links[link].down.drain(..part).collect();
        self.links[link].received.extend(bytes);
        if part > 0 {
            (self.links[link].took, self.links[link].moved) = (self.time, true);
            self.client_reads(link)?;
        }
        if self.links[link].server.is_some() {
            self.soon(0, Event::Service(link));
        }
        if self.links[link].down.is_empty() && self.links[link].down_ends {
            let ms = self.ms();
            self.links[link].is_read = false;
            self.links[link].is_open = false;
            self.links[link].up_ends = true;
            if self.clients[number].link == Some(link) {
                self.trace.say(
                    self.time,
                    format_args!("client {number}: link {link} ended"),
                );
                self.clients[number].lost(ms);
            }
            self.hurry_up(link);
        } else {
            self.hurry_down(link);
        }
        Ok(())
    }

    /// A client takes the whole packets that have come.
    fn client_reads(&mut self, link: usize) -> Result<(), Violation> {
        let number = self.links[link].client;
        let mut bytes = std::mem::take(&mut self.links[link].received);
        if self.clients[number].plan.role == Role::Breaker {
            return Ok(());
        }
        let mut used = 0;
        let mut out = Vec::new();
        let mut version = Some(self.clients[number].plan.version);
        loop {
            let next = decode_next(&bytes[used..], &mut version, codec::MAX_PACKET_SIZE);
            let next = next.map_err(|fault| {
                Violation::new(
                    "the broker sends packets",
                    format!("{fault} on link {link}"),
                )
            })?;
            let Some((packet, len)) = next else { break };
            if packet != Packet::PingResp {
                self.quiet_since = self.time;
            }
            self.stats.large += u64::from(len > SHARED_FROM);
            self.trace.say(
                self.time,
                format_args!("client {number} < {}", Brief(&packet)),
            );
            self.clients[number].receive(&packet, len, &mut self.history, &mut out)?;
            used += len;
        }
        bytes.drain(..used);
        self.links[link].received = bytes;
        let client = &mut self.clients[number];
        if client.healing || self.rng.chance(client.plan.eager) {
            client.send_acks(usize::MAX, &mut out);
        }
        self.send_up(link, &out);
        Ok(())
    }

    /// The network loses a connection: each side finds out for itself.
    fn cut_some_link(&mut self) {
        let up: Vec<usize> = (0..self.links.len())
            .filter(|link| self.links[*link].is_open)
            .collect();
        if up.is_empty() {
            return;
        }
        let link = *self.rng.pick(&up);
        self.stats.cuts += 1;
        self.trace
            .say(self.time, format_args!("link {link} is cut"));
        self.links[link].cut_up(&mut self.rng);
        self.links[link].cut_down(&mut self.rng);
        if self.rng.chance(50) {
            self.links[link].up_ends = true;
            self.hurry_up(link);
        } else {
            self.soon(20_000_000, Event::Noticed(link));
        }
        self.hurry_down(link);
    }

    fn heal(&mut self) {
        self.trace.say(self.time, format_args!("everything heals"));
        self.healed = true;
        self.clocks.error = 0;
        self.disk.heal();
        self.disk_is_bad = false;
        for client in &mut self.clients {
            client.healing = true;
            client.plan.pace_ms = client.plan.pace_ms.min(50);
        }
        // Who has stalled reads again, or a run would be judged before it has been told everything.
        for link in 0..self.links.len() {
            if self.links[link].is_read {
                self.soon(self.plan.latency_us, Event::Down(link));
            }
        }
        self.at(1_000_000, Event::Check);
    }

    /// Looks whether everything has been taken; then lets one last client look at what is retained, and then ends the run.
    fn check_drained(&mut self) -> Result<(), Violation> {
        let waiting: Vec<String> = self
            .clients
            .iter()
            .filter(|client| client.plan.role != Role::Breaker && !client.is_done(&self.history))
            .map(Client::waits_for)
            .collect();
        let settled = self.process.as_ref().is_some_and(Process::is_settled);
        let done = waiting.is_empty() && settled;
        if !done {
            self.quiet_since = self.time;
        }
        if self.ms() > self.plan.heal_at + 2 * DRAIN_MS {
            let audit = self.process.as_ref().map(|process| process.broker.audit());
            let what = format!("waiting {waiting:?}, settled {settled}, {audit:?}");
            return Err(Violation::new("everything is delivered in the end", what));
        }
        if done && self.time >= self.quiet_since + QUIET_US {
            if self
                .clients
                .last()
                .is_some_and(|last| last.plan.name == "last")
            {
                self.finished = true;
                return Ok(());
            }
            self.add_last_look();
        }
        self.at(200_000, Event::Check);
        Ok(())
    }

    fn add_last_look(&mut self) {
        self.quiet_since = self.time;
        let mut plan = self.clients[0].plan.clone();
        plan.name = "last".to_owned();
        plan.role = Role::Probe;
        (plan.clean, plan.expiry) = (true, 0);
        plan.subscriptions.retain(|plan| plan.filter == "r/#");
        let lowest = u64::from(self.plan.drops_qos0);
        plan.subscriptions[0].qos = self.rng.between(lowest, 2) as u8;
        let mut client = Client::new(self.clients.len(), plan);
        client.healing = true;
        self.add_client(client);
    }
}
