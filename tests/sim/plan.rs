//! What a seed decides before a run begins: who takes part, how they behave, and what goes wrong how often.

use super::rng::Rng;
use crate::broker::SHARED_FROM;
use crate::broker::record::{Durability, DurabilityRules};
use crate::limits::Limits;
use crate::wire::{ProtocolVersion, topic};

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    pub clients: Vec<ClientPlan>,
    pub limits: Limits,
    pub durability: DurabilityRules,
    /// When everything heals, in milliseconds.
    pub heal_at: u64,
    /// Crashes, on average one in so many milliseconds; 0 for none.
    pub crash_every: u64,
    /// Of a hundred crashes, how many are power cuts.
    pub power_cuts: u64,
    /// Disk faults, on average one in so many milliseconds; 0 for none.
    pub disk_faults_every: u64,
    /// The wall clock is set, right or wrong, on average one in so many milliseconds, and at each start; 0 for never.
    pub clock_set_every: u64,
    /// The longest a commit takes mostly, in microseconds.
    pub commit_us: u64,
    /// One commit in so many takes seconds.
    pub slow_sync_once_in: u64,
    /// The longest bytes are on their way mostly, in microseconds.
    pub latency_us: u64,
    /// What a message for many may cost before others get their turn; a delivery at QoS 1 or 2 costs 3.
    pub slice: usize,
    /// Nothing is cut and nothing crashes: every delivery must come exactly once.
    pub calm: bool,
    /// So little may wait for clients that messages of QoS 0 are dropped.
    pub drops_qos0: bool,
}

/// What a client is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Subscribes to everything with QoS 2 and is never in trouble on purpose: what it sees is what the broker decided.
    Witness,
    /// Publishes, subscribes, comes and goes.
    Device,
    /// Looks at retained messages with a clean session, again and again.
    Probe,
    /// Breaks the rules.
    Breaker,
}

#[derive(Clone, Debug)]
pub struct ClientPlan {
    pub name: String,
    pub role: Role,
    pub version: ProtocolVersion,
    /// Every session begins anew, and ends with its connection.
    pub clean: bool,
    /// Session expiry interval, seconds; `u32::MAX` for ever.
    pub expiry: u32,
    pub keep_alive: u16,
    pub receive_maximum: u16,
    pub maximum_packet_size: Option<u32>,
    pub aliases: u16,
    pub no_local: bool,
    /// QoS 1 and 2 messages under way at once.
    pub window: usize,
    /// Packet identifiers it uses for them: 1 to this.
    pub packet_ids: u16,
    pub subscriptions: Vec<SubscriptionPlan>,
    pub topics: Vec<String>,
    pub qos: Vec<u8>,
    pub retained_topics: Vec<String>,
    /// Of a hundred publishes to them, how many clear the topic.
    pub clears: u64,
    /// Of a hundred publishes, how many have a message expiry interval.
    pub expiring: u64,
    /// Of a hundred connections, how many have a will.
    pub wills: u64,
    /// Publishes this many messages at most.
    pub messages: usize,
    /// Of a hundred publishes, how many have a payload that deliveries share.
    pub large: u64,
    /// Milliseconds between two things it does, at most.
    pub pace_ms: u64,
    /// Milliseconds it stays away, at most.
    pub away_ms: u64,
    /// Leaves, or is cut off, at one in so many steps; 0 for never.
    pub leaves_once_in: u64,
    /// Of a hundred steps and arrivals, how many send what acknowledgements wait.
    pub eager: u64,
    /// Does not read for seconds, once in so many arrivals.
    pub stalls_once_in: u64,
    /// Its link carries a few bytes at a time: a packet is on its way for longer than 1.5 times the keep alive.
    pub slow: bool,
}

#[derive(Clone, Debug)]
pub struct SubscriptionPlan {
    pub filter: String,
    pub qos: u8,
    pub id: Option<u32>,
    /// Unsubscribes and subscribes again now and then.
    pub toggles: bool,
    /// Messages come with the retain flag they were published with.
    pub as_published: bool,
    /// When it is first made, in milliseconds; 0 for at once.
    pub since_ms: u64,
}

/// A maximum packet size between two sizes of large messages.
const MIDDLE_SIZE: usize = 25_000;

/// A message's packet is larger than its payload by no more than this, in bytes.
const AROUND: usize = 70;

impl ClientPlan {
    /// Whether its client takes a message with so many bytes of payload. No payload is so large
    /// that this depends on its topic and its properties.
    pub fn takes(&self, size: usize) -> bool {
        let largest = self.maximum_packet_size;
        largest.is_none_or(|largest| size + AROUND <= largest as usize)
    }

    /// Draws how many bytes of payload its next message has.
    pub fn size(&self, rng: &mut Rng) -> usize {
        if rng.chance(self.large) {
            let smallest = *rng.pick(&[SHARED_FROM, SHARED_FROM, MIDDLE_SIZE]);
            return smallest + rng.below(5_000) as usize;
        }
        match rng.chance(10) {
            true => 200,
            false => rng.between(12, 40) as usize,
        }
    }
}

const FLOWS: [&str; 3] = ["q/0", "q/1", "q/deep/er"];
const FLOW_FILTERS: [&str; 5] = ["q/#", "q/0", "q/+", "+/1", "q/deep/#"];
const SHARED: [&str; 2] = ["s/x/0", "s/x/1"];

impl Plan {
    pub fn new(seed: u64) -> Plan {
        let mut rng = Rng::new(seed);
        let rng = &mut rng;
        let calm = rng.chance(8);
        let mut limits = Limits {
            receive_maximum: *rng.pick(&[8, 20, 1000]),
            max_inflight_messages: *rng.pick(&[1, 3, 20, 100]),
            max_hot_bytes: *rng.pick(&[0, 200, 32_000_000]),
            max_topic_alias_out: *rng.pick(&[0, 2, 20]),
            ..Limits::default()
        };
        if calm && rng.chance(50) {
            limits.max_queued_messages = rng.between(1, 10);
            limits.max_inflight_messages = rng.between(1, 3) as u16;
        }
        if rng.chance(10) {
            limits.max_pending_write_bytes = 2000;
        }
        let mut plan = Plan {
            clients: Vec::new(),
            limits,
            durability: levels(rng),
            heal_at: rng.between(5_000, 40_000),
            crash_every: *rng.pick(&[0, 3_000, 8_000, 20_000]),
            power_cuts: *rng.pick(&[0, 50, 100]),
            disk_faults_every: *rng.pick(&[0, 0, 0, 15_000]),
            clock_set_every: 0,
            commit_us: *rng.pick(&[300, 5_000, 50_000]),
            slow_sync_once_in: *rng.pick(&[0, 30, 200]),
            latency_us: *rng.pick(&[300, 5_000, 100_000]),
            slice: 0,
            calm,
            drops_qos0: false,
        };
        if calm {
            plan.crash_every = 0;
            plan.disk_faults_every = 0;
        }
        let mut witness = witness(rng);
        if calm {
            witness.leaves_once_in = 0;
            witness.stalls_once_in = 0;
        }
        plan.clients.push(witness);
        let limited = plan.limits.max_queued_messages < 1000;
        for number in 0..rng.between(2, 5) {
            let client = device(rng, number, &plan);
            plan.clients.push(client);
        }
        if rng.chance(40) && !limited {
            share(rng, &mut plan);
        }
        if rng.chance(30) && !limited {
            let (keeper, viewer) = (keeper(rng, &plan), viewer(rng, &plan));
            plan.clients.extend([keeper, viewer]);
        }
        if rng.chance(50) {
            plan.clients.push(probe(rng));
        }
        if rng.chance(20) {
            plan.clients.push(breaker(rng));
        }
        plan.slice = *rng.pick(&[1, 4, 8, 8192]);
        if !calm {
            plan.clock_set_every = *rng.pick(&[0, 3_000, 15_000]);
        }
        if rng.chance(20) {
            enlarge(rng, &mut plan);
        }
        plan
    }

    /// How far acknowledgements wait for messages of a topic.
    pub fn level(&self, name: &str) -> Durability {
        let mut rules = self.durability.topics.iter();
        let rule = rules.find(|(filter, _)| topic::matches(filter, name));
        rule.map_or(self.durability.default, |(_, level)| *level)
    }
}

/// One level for all topics, or several. What is retained and what are wills is always stored: so it can be told what must become of it.
fn levels(rng: &mut Rng) -> DurabilityRules {
    let mut rules = DurabilityRules::default();
    match rng.below(10) {
        0 => rules.default = Durability::Os,
        1..=5 => {
            let lowest = *rng.pick(&[Durability::Os, Durability::Memory, Durability::Memory]);
            rules.default = *rng.pick(&[Durability::Fsync, Durability::Fsync, Durability::Os]);
            for filter in ["q/0", "q/1", "q/deep/#", "s/x/0", "s/#"] {
                let level = *rng.pick(&[Durability::Fsync, Durability::Os, lowest, lowest]);
                if rng.chance(60) {
                    rules.topics.push((filter.into(), level));
                }
            }
            for filter in ["r/#", "w/#"] {
                if rng.chance(30) {
                    rules.topics.push((filter.into(), Durability::Os));
                }
            }
        }
        _ => {}
    }
    rules
}

fn base(rng: &mut Rng, name: String, role: Role) -> ClientPlan {
    ClientPlan {
        name,
        role,
        version: *rng.pick(&[ProtocolVersion::V311, ProtocolVersion::V5]),
        clean: false,
        expiry: u32::MAX,
        keep_alive: *rng.pick(&[0, 5, 30]),
        receive_maximum: u16::MAX,
        maximum_packet_size: None,
        aliases: 0,
        no_local: false,
        window: rng.between(1, 8) as usize,
        packet_ids: rng.between(8, 12) as u16,
        subscriptions: Vec::new(),
        topics: Vec::new(),
        qos: Vec::new(),
        retained_topics: Vec::new(),
        clears: 20,
        expiring: 0,
        wills: 0,
        messages: 0,
        large: 0,
        pace_ms: *rng.pick(&[5, 50, 300]),
        away_ms: *rng.pick(&[200, 3_000, 15_000]),
        leaves_once_in: *rng.pick(&[5, 20, 100]),
        eager: *rng.pick(&[10, 50, 100]),
        stalls_once_in: *rng.pick(&[0, 100]),
        slow: false,
    }
}

fn subscription(filter: &str, qos: u8, id: Option<u32>, toggles: bool) -> SubscriptionPlan {
    SubscriptionPlan {
        filter: filter.to_owned(),
        qos,
        id,
        toggles,
        as_published: false,
        since_ms: 0,
    }
}

fn witness(rng: &mut Rng) -> ClientPlan {
    let mut plan = base(rng, "witness".to_owned(), Role::Witness);
    plan.subscriptions = ["q/#", "w/#", "r/#"]
        .map(|filter| subscription(filter, 2, None, false))
        .to_vec();
    plan.leaves_once_in = *rng.pick(&[0, 50]);
    plan
}

fn device(rng: &mut Rng, number: u64, whole: &Plan) -> ClientPlan {
    let mut plan = base(rng, format!("device{number}"), Role::Device);
    let v5 = plan.version == ProtocolVersion::V5;
    match rng.below(10) {
        0..2 => {
            plan.clean = true;
            plan.expiry = 0;
            if !v5 && rng.chance(50) {
                plan.version = ProtocolVersion::V31;
            }
        }
        2..4 if v5 => plan.expiry = rng.between(1, 20) as u32,
        _ => {}
    }
    if v5 {
        plan.receive_maximum = *rng.pick(&[1, 3, 100, u16::MAX]);
        plan.maximum_packet_size = rng.chance(15).then_some(120);
        plan.aliases = *rng.pick(&[0, 1, 30]);
        plan.no_local = rng.chance(15);
        plan.expiring = *rng.pick(&[0, 0, 30]);
    }
    if rng.chance(75) {
        plan.topics = some(rng, &FLOWS);
        plan.qos = rng
            .pick(&[vec![2], vec![1], vec![1, 2], vec![0, 1, 2], vec![2, 2, 1]])
            .clone();
        plan.messages = rng.between(5, 120) as usize;
        if rng.chance(40) {
            // The last level is the QoS.
            plan.retained_topics = some(rng, &["2", "1", "0"])
                .iter()
                .map(|qos| format!("r/{number}/{qos}"))
                .collect();
        }
    }
    if rng.chance(60) {
        let mut id = 0;
        for filter in some(rng, &FLOW_FILTERS) {
            id += 1;
            let id = (v5 && rng.chance(60)).then_some(id);
            let toggles = rng.chance(25);
            plan.subscriptions
                .push(subscription(&filter, *rng.pick(&[0, 1, 2, 2]), id, toggles));
        }
        if rng.chance(30) {
            plan.subscriptions
                .push(subscription("r/#", *rng.pick(&[0, 1, 2]), None, true));
        }
    }
    plan.wills = *rng.pick(&[0, 50, 100]);
    if whole.calm {
        plan.expiring = 0;
        plan.maximum_packet_size = None;
        if whole.limits.max_queued_messages < 1000 {
            // What may be dropped uncounted by anybody but the broker is left out.
            plan.wills = 0;
            plan.retained_topics.clear();
        }
        plan.leaves_once_in = 0;
        plan.stalls_once_in = 0;
    } else if rng.chance(15) {
        plan.slow = true;
        plan.stalls_once_in = 0;
        plan.keep_alive = 5;
    }
    plan
}

/// Makes some of the devices, whose sessions never end, members of a shared group, and some publish
/// to it. Members come and go: what one was offered goes to another one, which may be granted
/// another QoS, or the retain flag.
fn share(rng: &mut Rng, plan: &mut Plan) {
    let mut first = true;
    for client in plan
        .clients
        .iter_mut()
        .filter(|client| client.role == Role::Device)
    {
        if client.expiry == u32::MAX && !client.no_local && client.maximum_packet_size.is_none() {
            let qos = *rng.pick(&[1, 2]);
            let toggles = !first && rng.chance(30);
            let mut shared = subscription("$share/group/s/#", qos, None, toggles);
            shared.as_published = client.version == ProtocolVersion::V5 && rng.chance(50);
            client.subscriptions.push(shared);
            first = false;
        }
        if !client.topics.is_empty() {
            client.topics.extend(some(rng, &SHARED));
        }
    }
}

/// Has some messages be large. Limits on bytes are such that they are reached.
fn enlarge(rng: &mut Rng, plan: &mut Plan) {
    for client in &mut plan.clients {
        if !plan.calm {
            client
                .retained_topics
                .retain(|topic| !topic.ends_with("/0"));
        }
        if client.role == Role::Device && !client.slow {
            client.large = *rng.pick(&[0, 5, 20]);
            if client.maximum_packet_size.is_some() && rng.chance(70) {
                client.maximum_packet_size = Some(MIDDLE_SIZE as u32);
            }
        }
    }
    let limits = &mut plan.limits;
    limits.max_hot_bytes = *rng.pick(&[0, 40_000, 32_000_000]);
    if !plan.calm {
        plan.drops_qos0 = true;
        let probes = plan.clients.iter_mut();
        for probe in probes.filter(|client| client.role == Role::Probe) {
            probe.subscriptions[0].qos = probe.subscriptions[0].qos.max(1);
        }
        limits.max_inflight_bytes = *rng.pick(&[0, 30_000]);
        limits.max_outgoing_bytes = *rng.pick(&[10_000, limits.max_outgoing_bytes]);
        limits.max_outgoing_bytes_total =
            *rng.pick(&[10_000, 60_000, limits.max_outgoing_bytes_total]);
    }
}

/// A device that keeps many messages retained.
fn keeper(rng: &mut Rng, whole: &Plan) -> ClientPlan {
    let mut plan = base(rng, "keeper".to_owned(), Role::Device);
    plan.retained_topics = (0..rng.between(10, 60))
        .map(|number| {
            let qos = *rng.pick(&[1, 1, 1, 2]);
            format!("r/keep/{}/{number}/{qos}", number % 2)
        })
        .collect();
    plan.clears = *rng.pick(&[0, 10]);
    plan.messages = plan.retained_topics.len() * 2;
    plan.pace_ms = *rng.pick(&[5, 50]);
    if whole.calm {
        plan.leaves_once_in = 0;
        plan.stalls_once_in = 0;
    }
    plan
}

/// A device that subscribes to many retained messages and takes a few of them at a time: crashes
/// and cuts come in between.
fn viewer(rng: &mut Rng, whole: &Plan) -> ClientPlan {
    let mut plan = base(rng, "viewer".to_owned(), Role::Device);
    if plan.version == ProtocolVersion::V5 {
        plan.receive_maximum = *rng.pick(&[1, 2, 5]);
        if rng.chance(20) {
            plan.expiry = rng.between(5, 30) as u32;
        }
    }
    for filter in some(rng, &["r/keep/#", "r/keep/0/#", "r/keep/+/+/1", "r/#"]) {
        let mut subscription = subscription(&filter, *rng.pick(&[1, 1, 2]), None, false);
        subscription.since_ms = rng.between(1, whole.heal_at);
        subscription.toggles = rng.chance(10);
        plan.subscriptions.push(subscription);
    }
    if whole.calm {
        plan.leaves_once_in = 0;
        plan.stalls_once_in = 0;
    }
    plan
}

fn probe(rng: &mut Rng) -> ClientPlan {
    let mut plan = base(rng, "probe".to_owned(), Role::Probe);
    plan.clean = true;
    plan.expiry = 0;
    plan.leaves_once_in = 0;
    plan.stalls_once_in = 0;
    plan.pace_ms = 300;
    plan.subscriptions = vec![subscription("r/#", *rng.pick(&[0, 1, 2]), None, false)];
    plan
}

fn breaker(rng: &mut Rng) -> ClientPlan {
    let mut plan = base(rng, "breaker".to_owned(), Role::Breaker);
    plan.clean = true;
    plan.expiry = 0;
    plan.pace_ms = *rng.pick(&[20, 100, 300]);
    plan
}

/// Some of these, at least one, in their order.
fn some(rng: &mut Rng, from: &[&str]) -> Vec<String> {
    let mut picked: Vec<String> = from
        .iter()
        .filter(|_| rng.chance(50))
        .map(|one| (*one).to_owned())
        .collect();
    if picked.is_empty() {
        picked.push((*rng.pick(from)).to_owned());
    }
    picked
}
