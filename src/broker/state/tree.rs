//! The subscription tree: which subscriptions match a topic name.
//!
//! Filters stand in a tree of levels. Level texts are interned, so a topic name is hashed once a
//! level however many branches are followed, and all edges stand in one table: a node costs a few
//! words and a match costs what matches, whatever else is subscribed.

use std::hash::BuildHasher;

use foldhash::fast::FixedState;
use hashbrown::HashTable;
use rustc_hash::FxBuildHasher;

use crate::broker::model::ids::{GroupIndex, SessionIndex};
use crate::broker::state::table::{PARTS, Table, part_of};
use crate::wire::packet::SubscribeOptions;
use crate::wire::{QoS, topic};

/// A node: one filter, or the way to longer ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(u32);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct LevelId(u32);

const ROOT: NodeId = NodeId(0);

/// Stands for "no node": the root is nobody's child.
const NONE: NodeId = ROOT;

const PLUS: LevelId = LevelId(0);

const HASH: LevelId = LevelId(1);

/// A session's subscription to a node's filter.
#[derive(Clone, Copy, Debug)]
pub struct Subscriber {
    pub session: SessionIndex,
    /// Subscription identifier; 0 for none, which is not a valid one.
    pub id: u32,
    packed: u8,
}

impl Subscriber {
    pub fn new(session: SessionIndex, options: SubscribeOptions, id: Option<u32>) -> Subscriber {
        let packed = options.qos as u8
            | u8::from(options.no_local) << 2
            | u8::from(options.retain_as_published) << 3;
        Subscriber {
            session,
            id: id.unwrap_or(0),
            packed,
        }
    }

    pub fn qos(self) -> QoS {
        QoS::new(self.packed & 3).expect("packed from a QoS")
    }

    pub fn no_local(self) -> bool {
        self.packed & 4 != 0
    }

    pub fn retain_as_published(self) -> bool {
        self.packed & 8 != 0
    }

    /// One delivery for two subscriptions of one session: the higher QoS, and the retain flag kept
    /// if either wants it.
    pub fn merge(&mut self, other: Subscriber) {
        let qos = (self.packed & 3).max(other.packed & 3);
        self.packed = qos | ((self.packed | other.packed) & 8);
    }
}

#[derive(Debug)]
struct Node {
    parent: NodeId,
    level: LevelId,
    plus: NodeId,
    hash: NodeId,
    /// One of the children that are no wildcards. Where there is no other, a match needs no look
    /// into the table of edges.
    literal: NodeId,
    children: u32,
    subscribers: Subscribers,
    groups: Vec<GroupIndex>,
}

/// The subscribers of a node, sorted by session; most nodes have one. Many stand in runs, so that
/// one who comes or goes moves few others.
#[derive(Debug, Default)]
enum Subscribers {
    #[default]
    None,
    One(Subscriber),
    Many(Vec<Vec<Subscriber>>),
}

/// The longest run of subscribers.
const RUN: usize = if cfg!(test) { 8 } else { 1024 };

impl Subscribers {
    /// All of them, run by run; no run is empty.
    fn runs(&self) -> impl Iterator<Item = &[Subscriber]> {
        let (one, many): (&[Subscriber], &[Vec<Subscriber>]) = match self {
            Subscribers::None => (&[], &[]),
            Subscribers::One(one) => (std::slice::from_ref(one), &[]),
            Subscribers::Many(many) => (&[], many),
        };
        let one = Some(one).filter(|one| !one.is_empty());
        one.into_iter().chain(many.iter().map(Vec::as_slice))
    }

    fn is_empty(&self) -> bool {
        matches!(self, Subscribers::None)
    }

    fn find(&self, session: SessionIndex) -> Option<Subscriber> {
        match self {
            Subscribers::None => None,
            Subscribers::One(one) => Some(*one).filter(|one| one.session == session),
            Subscribers::Many(many) => {
                let run = &many[run_of(many, session)];
                let at = run.binary_search_by_key(&session, |subscriber| subscriber.session);
                at.ok().map(|at| run[at])
            }
        }
    }

    fn insert(&mut self, new: Subscriber) -> Option<Subscriber> {
        match self {
            Subscribers::None => {
                *self = Subscribers::One(new);
                None
            }
            Subscribers::One(one) if one.session == new.session => {
                Some(std::mem::replace(one, new))
            }
            Subscribers::One(one) => {
                let mut many = vec![*one, new];
                many.sort_unstable_by_key(|subscriber| subscriber.session);
                *self = Subscribers::Many(vec![many]);
                None
            }
            Subscribers::Many(many) => {
                let place = run_of(many, new.session);
                let run = &mut many[place];
                match run.binary_search_by_key(&new.session, |subscriber| subscriber.session) {
                    Ok(at) => Some(std::mem::replace(&mut run[at], new)),
                    Err(at) => {
                        run.insert(at, new);
                        if run.len() > RUN {
                            // Mostly sessions are subscribed in their order: then runs get nearly
                            // full.
                            let half = if at == RUN { at } else { RUN / 2 };
                            let rest = run.split_off(half);
                            many.insert(place + 1, rest);
                        }
                        None
                    }
                }
            }
        }
    }

    fn remove(&mut self, session: SessionIndex) -> bool {
        match self {
            Subscribers::One(one) if one.session == session => {
                *self = Subscribers::None;
                true
            }
            Subscribers::Many(many) => {
                let place = run_of(many, session);
                let run = &mut many[place];
                let at = run.binary_search_by_key(&session, |subscriber| subscriber.session);
                let Ok(at) = at else { return false };
                run.remove(at);
                if run.len() < run.capacity() / 4 {
                    run.shrink_to(run.len() * 2);
                }
                if run.is_empty() {
                    many.remove(place);
                }
                match &many[..] {
                    [] => *self = Subscribers::None,
                    [run] if run.len() == 1 => *self = Subscribers::One(run[0]),
                    _ => {}
                }
                true
            }
            _ => false,
        }
    }
}

/// The run in which a session stands, or would.
fn run_of(many: &[Vec<Subscriber>], session: SessionIndex) -> usize {
    let begun = many.partition_point(|run| run[0].session <= session);
    begun.saturating_sub(1)
}

/// All subscriptions.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    free: Vec<NodeId>,
    edges: Table<(NodeId, LevelId), NodeId, FxBuildHasher>,
    levels: Levels,
    path: Vec<Option<LevelId>>,
}

impl Tree {
    /// An empty tree; `seed` keeps peers from choosing level texts that collide.
    pub fn new(seed: u64) -> Tree {
        let root = Node {
            parent: NONE,
            level: PLUS,
            plus: NONE,
            hash: NONE,
            literal: NONE,
            children: 0,
            subscribers: Subscribers::None,
            groups: Vec::new(),
        };
        Tree {
            nodes: vec![root],
            free: Vec::new(),
            edges: Table::default(),
            levels: Levels::new(seed),
            path: Vec::new(),
        }
    }

    /// Adds or replaces a session's subscription; the subscription it replaces, if any.
    pub fn subscribe(
        &mut self,
        filter: &str,
        subscriber: Subscriber,
    ) -> (NodeId, Option<Subscriber>) {
        let node = self.make(filter);
        let old = self.nodes[node.0 as usize].subscribers.insert(subscriber);
        (node, old)
    }

    /// Removes a session's subscription to a node's filter; whether there was one.
    pub fn unsubscribe(&mut self, node: NodeId, session: SessionIndex) -> bool {
        let removed = self.nodes[node.0 as usize].subscribers.remove(session);
        self.prune(node);
        removed
    }

    /// Adds a shared group to a node.
    pub fn add_group(&mut self, node: NodeId, group: GroupIndex) {
        self.nodes[node.0 as usize].groups.push(group);
    }

    /// Removes a shared group from a node's filter.
    pub fn remove_group(&mut self, node: NodeId, group: GroupIndex) {
        self.nodes[node.0 as usize]
            .groups
            .retain(|other| *other != group);
        self.prune(node);
    }

    /// The node of a filter that is in the tree.
    pub fn find(&self, filter: &str) -> Option<NodeId> {
        let mut node = ROOT;
        for text in topic::levels(filter) {
            node = *self.edges.get(&(node, self.levels.find(text)?))?;
        }
        Some(node)
    }

    /// A session's subscription to a node's filter.
    pub fn subscriber(&self, node: NodeId, session: SessionIndex) -> Option<Subscriber> {
        self.nodes[node.0 as usize].subscribers.find(session)
    }

    /// The filter of a node.
    pub fn filter(&self, mut node: NodeId) -> String {
        let mut texts = Vec::new();
        while node != ROOT {
            let at = &self.nodes[node.0 as usize];
            texts.push(self.levels.text(at.level));
            node = at.parent;
        }
        texts.reverse();
        texts.join("/")
    }

    /// Collects all subscribers and groups whose filter matches a topic name; a session once for
    /// each of its filters that match.
    pub fn matches(
        &mut self,
        name: &str,
        subscribers: &mut Vec<Subscriber>,
        groups: &mut Vec<GroupIndex>,
    ) -> Matched {
        let mut path = std::mem::take(&mut self.path);
        path.clear();
        path.extend(topic::levels(name).map(|text| self.levels.find_name(text)));
        let mut found = Found {
            subscribers,
            groups,
            matched: Matched::default(),
        };
        // [MQTT-4.7.2-1]: a wildcard in the first level does not match a name that begins with `$`.
        self.walk(ROOT, &path, !name.starts_with('$'), &mut found);
        self.path = path;
        found.matched
    }

    fn walk(&self, node: NodeId, path: &[Option<LevelId>], wildcards: bool, found: &mut Found<'_>) {
        let at = &self.nodes[node.0 as usize];
        found.matched.visited += 1;
        if at.hash != NONE && wildcards {
            // `#` matches the parent level as well, so it is taken before the path is seen to be at
            // its end.
            found.take(&self.nodes[at.hash.0 as usize]);
        }
        let Some((level, rest)) = path.split_first() else {
            return found.take(at);
        };
        if at.plus != NONE && wildcards {
            self.walk(at.plus, rest, true, found);
        }
        if let Some(child) = level.and_then(|level| self.literal(node, level)) {
            self.walk(child, rest, true, found);
        }
    }

    /// The child for a level of a topic name.
    fn literal(&self, node: NodeId, level: LevelId) -> Option<NodeId> {
        let at = &self.nodes[node.0 as usize];
        if at.literal != NONE && self.nodes[at.literal.0 as usize].level == level {
            return Some(at.literal);
        }
        let known = [at.plus, at.hash, at.literal];
        let known = known.iter().filter(|child| **child != NONE).count();
        match at.children as usize == known {
            true => None,
            false => self.edges.get(&(node, level)).copied(),
        }
    }

    /// The node of a filter, which is added if it is not there.
    pub fn make(&mut self, filter: &str) -> NodeId {
        let mut node = ROOT;
        for text in topic::levels(filter) {
            node = match self
                .levels
                .find(text)
                .and_then(|level| self.edges.get(&(node, level)))
            {
                Some(child) => *child,
                None => self.add_child(node, text),
            };
        }
        node
    }

    fn add_child(&mut self, parent: NodeId, text: &str) -> NodeId {
        let level = self.levels.intern(text);
        let node = Node {
            parent,
            level,
            plus: NONE,
            hash: NONE,
            literal: NONE,
            children: 0,
            subscribers: Subscribers::None,
            groups: Vec::new(),
        };
        let child = match self.free.pop() {
            Some(free) => {
                self.nodes[free.0 as usize] = node;
                free
            }
            None => {
                self.nodes.push(node);
                NodeId(self.nodes.len() as u32 - 1)
            }
        };
        self.edges.insert((parent, level), child);
        self.link(parent, level, child);
        self.nodes[parent.0 as usize].children += 1;
        child
    }

    fn link(&mut self, parent: NodeId, level: LevelId, child: NodeId) {
        match level {
            PLUS => self.nodes[parent.0 as usize].plus = child,
            HASH => self.nodes[parent.0 as usize].hash = child,
            _ => {
                let at = &mut self.nodes[parent.0 as usize];
                if at.literal == NONE {
                    at.literal = child;
                }
            }
        }
    }

    fn unlink(&mut self, parent: NodeId, child: NodeId) {
        let at = &mut self.nodes[parent.0 as usize];
        for known in [&mut at.plus, &mut at.hash, &mut at.literal] {
            if *known == child {
                *known = NONE;
            }
        }
    }

    /// Removes a node that nobody needs any more, and its parents likewise.
    fn prune(&mut self, mut node: NodeId) {
        while node != ROOT {
            let at = &mut self.nodes[node.0 as usize];
            if at.children > 0 || !at.groups.is_empty() || !at.subscribers.is_empty() {
                return;
            }
            at.groups = Vec::new();
            let (parent, level) = (at.parent, at.level);
            self.edges.remove(&(parent, level));
            self.unlink(parent, node);
            self.levels.release(level);
            self.free.push(node);
            self.nodes[parent.0 as usize].children -= 1;
            node = parent;
        }
    }
}

/// How much was found, and what that has cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Matched {
    /// Filters with subscribers: with fewer than two there is nothing to merge.
    pub filters: usize,
    /// Nodes of the tree that were looked at.
    pub visited: usize,
}

struct Found<'a> {
    subscribers: &'a mut Vec<Subscriber>,
    groups: &'a mut Vec<GroupIndex>,
    matched: Matched,
}

impl Found<'_> {
    fn take(&mut self, node: &Node) {
        self.matched.filters += usize::from(!node.subscribers.is_empty());
        for run in node.subscribers.runs() {
            self.subscribers.extend_from_slice(run);
        }
        self.groups.extend_from_slice(&node.groups);
    }
}

/// The interned texts of levels, counted by the nodes that use them.
#[derive(Debug)]
struct Levels {
    hasher: FixedState,
    /// In parts, as those of a [`Table`].
    ids: [HashTable<LevelId>; PARTS],
    texts: Vec<(Box<str>, u32)>,
    free: Vec<LevelId>,
}

impl Levels {
    fn new(seed: u64) -> Levels {
        let mut levels = Levels {
            hasher: FixedState::with_seed(seed),
            ids: [const { HashTable::new() }; PARTS],
            texts: Vec::new(),
            free: Vec::new(),
        };
        assert_eq!(
            (levels.intern("+"), levels.intern("#")),
            (PLUS, HASH),
            "the wildcards come first"
        );
        levels
    }

    fn text(&self, level: LevelId) -> &str {
        &self.texts[level.0 as usize].0
    }

    fn find(&self, text: &str) -> Option<LevelId> {
        let hash = self.hasher.hash_one(text);
        self.ids[part_of(hash)]
            .find(hash, |id| self.text(*id) == text)
            .copied()
    }

    /// The level of a topic name, in which the wildcards' texts cannot stand.
    fn find_name(&self, text: &str) -> Option<LevelId> {
        self.find(text).filter(|id| *id != PLUS && *id != HASH)
    }

    fn intern(&mut self, text: &str) -> LevelId {
        if let Some(id) = self.find(text) {
            self.texts[id.0 as usize].1 += 1;
            return id;
        }
        let entry = (Box::from(text), 1);
        let id = match self.free.pop() {
            Some(free) => {
                self.texts[free.0 as usize] = entry;
                free
            }
            None => {
                self.texts.push(entry);
                LevelId(self.texts.len() as u32 - 1)
            }
        };
        let (hasher, texts) = (&self.hasher, &self.texts);
        let hash = hasher.hash_one(text);
        self.ids[part_of(hash)]
            .insert_unique(hash, id, |id| hasher.hash_one(&*texts[id.0 as usize].0));
        id
    }

    fn release(&mut self, level: LevelId) {
        let entry = &mut self.texts[level.0 as usize];
        entry.1 -= 1;
        if entry.1 == 0 {
            let text = std::mem::take(&mut entry.0);
            let hash = self.hasher.hash_one(&*text);
            if let Ok(entry) = self.ids[part_of(hash)].find_entry(hash, |id| *id == level) {
                entry.remove();
            }
            self.free.push(level);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matching(tree: &mut Tree, topic: &str) -> Vec<u32> {
        let (mut subscribers, mut groups) = (Vec::new(), Vec::new());
        tree.matches(topic, &mut subscribers, &mut groups);
        let mut sessions: Vec<u32> = subscribers
            .iter()
            .map(|subscriber| subscriber.session.0)
            .collect();
        sessions.sort_unstable();
        sessions
    }

    fn subscriber(session: u32) -> Subscriber {
        Subscriber::new(
            SessionIndex(session),
            SubscribeOptions::with_qos(QoS::AtLeastOnce),
            None,
        )
    }

    #[test]
    fn finds_what_the_standard_says_matches() {
        let mut tree = Tree::new(7);
        for (session, filter) in [
            "#",
            "+/tennis/#",
            "sport/+",
            "sport/#",
            "/+",
            "+/+",
            "sport",
            "$SYS/#",
            "+",
            "a//b",
        ]
        .iter()
        .enumerate()
        {
            tree.subscribe(filter, subscriber(session as u32));
        }
        assert_eq!(matching(&mut tree, "sport"), [0, 3, 6, 9 - 1]);
        assert_eq!(matching(&mut tree, "sport/tennis"), [0, 1, 2, 3, 5]);
        assert_eq!(matching(&mut tree, "/finance"), [0, 4, 5]);
        assert_eq!(matching(&mut tree, "$SYS/uptime"), [7]);
        assert_eq!(matching(&mut tree, "$SYS"), [7]);
        assert_eq!(matching(&mut tree, "a//b"), [0, 9]);
        assert_eq!(matching(&mut tree, "x/tennis/y/z"), [0, 1]);
    }

    #[test]
    fn forgets_nodes_and_levels_that_nobody_uses() {
        let mut tree = Tree::new(7);
        let (node, _) = tree.subscribe("a/+/c/#", subscriber(1));
        assert_eq!(tree.filter(node), "a/+/c/#");
        let (again, old) = tree.subscribe("a/+/c/#", subscriber(2));
        assert!(again == node && old.is_none());
        assert!(tree.unsubscribe(node, SessionIndex(1)));
        assert!(!tree.unsubscribe(node, SessionIndex(1)));
        assert_eq!(matching(&mut tree, "a/b/c/d"), [2]);
        assert!(tree.unsubscribe(node, SessionIndex(2)));
        assert_eq!(matching(&mut tree, "a/b/c/d"), [0; 0]);
        assert_eq!(tree.edges.len(), 0);
        let levels: usize = tree.levels.ids.iter().map(HashTable::len).sum();
        assert_eq!(levels, 2);
        assert_eq!(tree.find("a/+/c/#"), None);
    }

    #[test]
    fn many_subscribers_of_one_filter_are_told_apart() {
        let mut tree = Tree::new(7);
        for session in (0..100).rev() {
            tree.subscribe("t", subscriber(session));
        }
        let node = tree.find("t").expect("subscribed");
        for session in (0..100).step_by(2) {
            assert!(tree.unsubscribe(node, SessionIndex(session)));
        }
        assert_eq!(
            matching(&mut tree, "t"),
            (0..100)
                .filter(|session| session % 2 == 1)
                .collect::<Vec<_>>()
        );
        assert!(tree.subscriber(node, SessionIndex(51)).is_some());
        assert!(tree.subscriber(node, SessionIndex(50)).is_none());
    }

    #[test]
    fn subscribers_that_come_and_go_are_those_of_a_plain_list() {
        let mut state = 1_u64;
        let mut below = |most: u32| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as u32 % most
        };
        let mut tree = Tree::new(7);
        let mut model = std::collections::BTreeSet::new();
        for step in 0..20_000 {
            let session = below(200);
            if below(10) < if (step / 2000) % 2 == 0 { 7 } else { 2 } {
                let (_, old) = tree.subscribe("t", subscriber(session));
                assert_eq!(old.is_none(), model.insert(session));
            } else if let Some(node) = tree.find("t") {
                let gone = tree.unsubscribe(node, SessionIndex(session));
                assert_eq!(gone, model.remove(&session));
            }
            let asked = SessionIndex(below(200));
            let found = tree.find("t").and_then(|node| tree.subscriber(node, asked));
            assert_eq!(found.is_some(), model.contains(&asked.0));
            if step % 16 == 0 {
                let mut found = (Vec::new(), Vec::new());
                tree.matches("t", &mut found.0, &mut found.1);
                let found: Vec<u32> = found.0.iter().map(|it| it.session.0).collect();
                assert_eq!(found, Vec::from_iter(model.iter().copied()));
            }
        }
    }

    #[test]
    fn agrees_with_matching_one_filter_at_a_time() {
        use crate::wire::topic::matches;
        let levels = ["a", "b", "", "é", "$x"];
        let mut filters = Vec::new();
        for first in levels.iter().chain(&["+", "#"]) {
            filters.push((*first).to_string());
            if *first != "#" {
                for second in levels.iter().chain(&["+", "#"]) {
                    filters.push(format!("{first}/{second}"));
                    if *second != "#" {
                        filters.extend(
                            levels
                                .iter()
                                .chain(&["+", "#"])
                                .map(|third| format!("{first}/{second}/{third}")),
                        );
                    }
                }
            }
        }
        filters.retain(|filter| !filter.is_empty());
        let mut tree = Tree::new(7);
        for (session, filter) in filters.iter().enumerate() {
            tree.subscribe(filter, subscriber(session as u32));
        }
        for first in levels {
            for second in levels {
                for topic in [
                    first.to_string(),
                    format!("{first}/{second}"),
                    format!("{first}/{second}/a"),
                ] {
                    let expected: Vec<u32> = (0..filters.len())
                        .filter(|at| matches(&filters[*at], &topic))
                        .map(|at| at as u32)
                        .collect();
                    assert_eq!(matching(&mut tree, &topic), expected, "topic {topic:?}");
                }
            }
        }
    }
}
