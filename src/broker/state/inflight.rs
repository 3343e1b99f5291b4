//! In-flight messages of a session: sent to its client and not completely acknowledged.
//!
//! Here are their packet identifiers, what must be sent again, and the rows that the store has of them.

use std::collections::VecDeque;

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

use crate::broker::model::ids::GroupIndex;
use crate::broker::model::message::Message;
use crate::broker::model::record::{Block, InflightRecord, QueueKey, Seq, Write};
use crate::broker::state::queued::Queued;
use crate::wire::{PacketId, QoS};

/// A message that is sent and not completely acknowledged.
#[derive(Debug)]
pub struct InflightMessage {
    pub item: Queued,
    /// The queue that has its row: the session's own, or a shared group's.
    pub queue: QueueKey,
    /// The group it came from.
    pub group: Option<GroupIndex>,
    /// QoS and retain flag of the publish. Another member of the group gets the message with these.
    pub published: (QoS, bool),
    /// QoS 2: the client has sent PUBREC. PUBREL and PUBCOMP are left.
    pub released: bool,
    /// It has been sent on the present connection.
    pub on_wire: bool,
    /// It is not sent again while its client lacks the right to read it.
    withheld: bool,
    /// Its state is in the row of its block.
    pub noted: bool,
    /// Its place in the order of sending.
    order: (Seq, u64),
}

/// In-flight messages by packet identifier.
#[derive(Debug, Default)]
pub struct Inflight {
    messages: HashMap<PacketId, InflightMessage, FxBuildHasher>,
    /// What is still to be sent again on a new connection, in the original order.
    resend: VecDeque<PacketId>,
    last_id: Option<PacketId>,
    /// Identifiers that an address may hold as received which a bridge has left. They are not given to messages.
    /// In ascending order.
    reserved: Vec<PacketId>,
    /// Identifiers that the client may hold as received, of QoS 2 messages without rows that were lost with an
    /// earlier process. They are not given to messages. In ascending order.
    held: Vec<PacketId>,
    sent: u64,
    /// The youngest message sent.
    last_seq: Seq,
    on_wire: usize,
    /// Bytes of all messages, those aside that are withheld.
    bytes: u64,
    /// Messages that are withheld.
    withheld: usize,
    blocks: Vec<BlockRow>,
    /// A fetch of bodies to be sent again is under way.
    pub fetching: bool,
    /// Messages are sent again in the order in which they were sent, not in that in which they were accepted.
    pub as_sent: bool,
}

/// The row of a block of packet identifiers.
#[derive(Debug)]
struct BlockRow {
    block: Block,
    /// The store has one.
    stored: bool,
    /// It is to be written with the next batch.
    changed: bool,
    /// Messages without rows use identifiers of the block. Its row then says that the client may hold any of
    /// them.
    open: bool,
}

/// The most identifiers of a session that its client may hold from earlier processes. Beyond it, the oldest are
/// let go.
const MOST_HELD: usize = 32_768;

impl Inflight {
    /// Messages sent on the present connection. The client's receive maximum bounds them.
    pub fn on_wire(&self) -> usize {
        self.on_wire
    }

    /// All messages, in no order.
    pub fn seqs(&self) -> Vec<Seq> {
        let seqs = self.messages.values().map(|message| message.item.seq);
        seqs.collect()
    }

    /// All messages, in no order.
    pub fn items(&self) -> impl Iterator<Item = &Queued> {
        self.messages.values().map(|message| &message.item)
    }

    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Bytes of all messages, those aside that are withheld.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether another message may be sent where `most` may be in flight. Those that are withheld do not count.
    pub fn has_room(&self, most: usize) -> bool {
        self.messages.len() - self.withheld < most && self.has_free_id()
    }

    /// How many messages are withheld.
    pub fn withheld(&self) -> usize {
        self.withheld
    }

    /// Withholds a message until [`Inflight::release_withheld`], or until its session is connected again.
    pub fn withhold(&mut self, id: PacketId) {
        if let Some(message) = self.messages.get_mut(&id)
            && !std::mem::replace(&mut message.withheld, true)
        {
            self.withheld += 1;
            self.bytes -= u64::from(message.item.size);
        }
    }

    /// Lets messages that were withheld be sent again, in the original order. Returns whether there were any.
    pub fn release_withheld(&mut self) -> bool {
        if std::mem::take(&mut self.withheld) == 0 {
            return false;
        }
        for id in self.in_order(|message| message.withheld) {
            if let Some(message) = self.messages.get_mut(&id) {
                message.withheld = false;
                self.bytes += u64::from(message.item.size);
                self.resend.push_back(id);
            }
        }
        true
    }

    /// Whether there is a packet identifier that is not in use.
    pub fn has_free_id(&self) -> bool {
        let taken = self.messages.len() + self.reserved.len() + self.held.len();
        taken < usize::from(u16::MAX)
    }

    /// The oldest message. Looks at all of them.
    pub fn oldest(&self) -> Option<Seq> {
        let seqs = self.messages.values().map(|message| message.item.seq);
        seqs.min()
    }

    /// The message that must be sent again before anything new.
    pub fn resend(&self) -> Option<PacketId> {
        self.resend.front().copied()
    }

    /// The first message to be sent again is sent, or gone.
    pub fn resent(&mut self) {
        self.resend.pop_front();
    }

    /// Of the next `most` messages to be sent again, those whose bodies must be fetched and are `readable`. In
    /// ascending order.
    pub fn cold_resends(&self, most: usize, readable: impl Fn(Seq) -> bool) -> Vec<Seq> {
        let messages = self.resend.iter().take(most).filter_map(|id| self.get(*id));
        let cold = messages.filter(|message| {
            !message.released && message.item.body.is_none() && readable(message.item.seq)
        });
        let mut seqs: Vec<Seq> = cold.map(|message| message.item.seq).collect();
        seqs.sort_unstable();
        seqs
    }

    pub fn get_mut(&mut self, id: PacketId) -> Option<&mut InflightMessage> {
        self.messages.get_mut(&id)
    }

    pub fn get(&self, id: PacketId) -> Option<&InflightMessage> {
        self.messages.get(&id)
    }

    /// Reserves these identifiers, and no others.
    pub fn reserve(&mut self, mut ids: Vec<PacketId>) {
        ids.sort_unstable();
        ids.dedup();
        self.reserved = ids;
    }

    /// Whether an identifier is reserved.
    pub fn is_reserved(&self, id: PacketId) -> bool {
        self.reserved.binary_search(&id).is_ok()
    }

    /// The identifiers of QoS 2 messages, in ascending order.
    pub fn exact(&self) -> Vec<PacketId> {
        let all = self.messages.iter();
        let exact = all.filter(|(_, message)| message.item.qos == QoS::ExactlyOnce);
        let mut ids: Vec<PacketId> = exact.map(|(id, _)| *id).collect();
        ids.sort_unstable();
        ids
    }

    /// Takes a packet identifier that is not in use \[MQTT-2.2.1-3\]. `None` if all are.
    pub fn free_id(&mut self) -> Option<PacketId> {
        if !self.has_free_id() {
            return None;
        }
        let mut id = self.last_id.map_or(PacketId::FIRST, PacketId::next);
        while self.messages.contains_key(&id) || self.is_reserved(id) || self.is_held(id) {
            id = id.next();
        }
        self.last_id = Some(id);
        Some(id)
    }

    /// Notes an identifier that the client may hold, while rows are recovered.
    pub fn hold(&mut self, id: PacketId) {
        self.held.push(id);
    }

    /// All rows are recovered: identifiers of in-flight messages are no longer merely held.
    pub fn settle_held(&mut self) {
        let messages = &self.messages;
        self.held.retain(|id| !messages.contains_key(id));
        self.held.sort_unstable();
        self.held.dedup();
        // Each process begins with the lowest that is free, so the lowest were held first.
        let excess = self.held.len().saturating_sub(MOST_HELD);
        self.held.drain(..excess);
    }

    /// Whether the client may hold an identifier as received that no message has.
    pub fn is_held(&self, id: PacketId) -> bool {
        self.held.binary_search(&id).is_ok()
    }

    /// The client does not hold an identifier. Returns whether it was held.
    pub fn release_held(&mut self, id: PacketId) -> bool {
        let at = self.held.binary_search(&id);
        at.map(|at| self.held.remove(at)).is_ok()
    }

    /// Whether the block of an identifier is open on disk, or will be with the open batch.
    pub fn is_open(&self, id: PacketId) -> bool {
        let block = Block::of(id);
        self.blocks.iter().any(|row| row.open && row.block == block)
    }

    /// Opens the block of an identifier for messages without rows, and closes the one that was open: its
    /// identifiers in use are written one by one. Returns whether no block had changed before.
    pub fn open(&mut self, id: PacketId) -> bool {
        let first = self.change(Block::of(id), false);
        for row in &mut self.blocks {
            let was_open = std::mem::replace(&mut row.open, row.block == Block::of(id));
            if !was_open || row.open {
                continue;
            }
            row.changed = true;
            for id in row.block.ids() {
                let message = self.messages.get_mut(&id);
                if let Some(message) = message.filter(|it| it.item.qos == QoS::ExactlyOnce) {
                    message.noted |= !message.item.is_stored();
                }
            }
        }
        first
    }

    /// Adds a message that is sent for the first time.
    pub fn insert_sent(
        &mut self,
        id: PacketId,
        item: Queued,
        queue: QueueKey,
        group: Option<GroupIndex>,
    ) {
        self.on_wire += 1;
        let as_it_is = (item.qos, item.retain);
        let body = item.body.as_ref();
        let published = body.map_or(as_it_is, |body| (body.qos(), body.retain()));
        self.insert(
            id,
            InflightMessage {
                item,
                queue,
                group,
                published,
                released: false,
                on_wire: true,
                withheld: false,
                noted: false,
                order: (Seq(0), 0),
            },
        );
    }

    /// Adds a message that an earlier process had sent.
    pub fn insert_recovered(
        &mut self,
        id: PacketId,
        item: Queued,
        queue: QueueKey,
        published: (QoS, bool),
        released: bool,
    ) {
        self.insert(
            id,
            InflightMessage {
                item,
                queue,
                group: None,
                published,
                released,
                on_wire: false,
                withheld: false,
                noted: false,
                order: (Seq(0), 0),
            },
        );
    }

    fn insert(&mut self, id: PacketId, mut message: InflightMessage) {
        // What was under way before a crash is not sent in one go again, but its order is that of the messages. A shared group's message is sent
        // when its turn comes, which may be late.
        let seq = message.item.seq;
        self.last_seq = self.last_seq.max(seq);
        let place = if message.group.is_some() || self.as_sent {
            self.last_seq
        } else {
            seq
        };
        self.sent += 1;
        message.order = (place, self.sent);
        self.bytes += u64::from(message.item.size);
        if let Some(replaced) = self.messages.insert(id, message) {
            self.discount(&replaced);
        }
    }

    /// A message was taken out.
    fn discount(&mut self, gone: &InflightMessage) {
        self.on_wire -= usize::from(gone.on_wire);
        match gone.withheld {
            true => self.withheld -= 1,
            false => self.bytes -= u64::from(gone.item.size),
        }
    }

    pub fn remove(&mut self, id: PacketId) -> Option<InflightMessage> {
        let message = self.messages.remove(&id)?;
        self.discount(&message);
        if self.messages.is_empty() && self.messages.capacity() > 256 {
            self.messages = HashMap::default();
        }
        Some(message)
    }

    /// Keeps the state of a message in the row of its block from now on. Returns whether no block had changed
    /// before.
    pub fn note(&mut self, id: PacketId) -> bool {
        if let Some(message) = self.messages.get_mut(&id) {
            message.noted = true;
        }
        self.change(Block::of(id), false)
    }

    /// The stored QoS 1 messages of a queue whose packet identifiers are in no row.
    pub fn unsaid(&self, queue: QueueKey) -> Vec<PacketId> {
        let unsaid = |message: &InflightMessage| {
            let item = &message.item;
            let own = message.queue == queue && item.is_stored();
            own && !message.noted && item.qos == QoS::AtLeastOnce
        };
        self.in_order(unsaid)
    }

    /// Has the row of a block written with the next batch. `stored` says that there is one. Returns whether no
    /// block had changed before.
    pub fn change(&mut self, block: Block, stored: bool) -> bool {
        let first = self.blocks.iter().all(|row| !row.changed);
        match self.blocks.iter_mut().find(|row| row.block == block) {
            Some(row) => row.changed = true,
            None => self.blocks.push(BlockRow {
                block,
                stored,
                changed: true,
                open: false,
            }),
        }
        first
    }

    /// Notes that the store has the row of a block.
    pub fn recovered(&mut self, block: Block) {
        self.blocks.push(BlockRow {
            block,
            stored: true,
            changed: false,
            open: false,
        });
    }

    /// Compares a row of a block with the messages. Returns whether this message has this identifier.
    pub fn recovered_note(&mut self, id: PacketId, seq: Seq) -> bool {
        let message = self.messages.get_mut(&id);
        let message = message.filter(|message| message.item.seq == seq);
        message.map(|message| message.noted = true).is_some()
    }

    /// The writes for all blocks that have changed.
    pub fn changes(&mut self, key: QueueKey) -> Vec<Write> {
        let mut writes = Vec::new();
        let mut blocks = std::mem::take(&mut self.blocks);
        blocks.retain_mut(|row| {
            if std::mem::take(&mut row.changed) {
                let noted = self.noted(row);
                let was_stored = std::mem::replace(&mut row.stored, !noted.is_empty());
                if row.stored {
                    writes.push(Write::PutInflight(key, row.block, noted));
                } else if was_stored {
                    writes.push(Write::RemoveInflight(key, row.block));
                }
            }
            row.stored
        });
        self.blocks = blocks;
        writes
    }

    /// The writes that remove all rows of blocks.
    pub fn end(&mut self, key: QueueKey) -> impl Iterator<Item = Write> {
        let blocks = std::mem::take(&mut self.blocks).into_iter();
        let stored = blocks.filter(|row| row.stored);
        stored.map(move |row| Write::RemoveInflight(key, row.block))
    }

    fn noted(&self, row: &BlockRow) -> Vec<InflightRecord> {
        let block = row.block;
        let record = |(id, message): (PacketId, &InflightMessage)| {
            message.noted.then_some(InflightRecord {
                packet_id: id,
                seq: match message.item.is_stored() {
                    true => message.item.seq,
                    false => InflightRecord::NO_ROW,
                },
                released: message.released,
            })
        };
        if row.open || !self.held.is_empty() {
            let all = block.ids().filter_map(|id| {
                let known = self.get(id).and_then(|message| record((id, message)));
                let held = || InflightRecord {
                    packet_id: id,
                    seq: InflightRecord::NO_ROW,
                    released: false,
                };
                known.or_else(|| (row.open || self.is_held(id)).then(held))
            });
            return all.collect();
        }
        if self.messages.len() > usize::from(Block::IDS) {
            let known = block.ids().filter_map(|id| Some((id, self.get(id)?)));
            return known.filter_map(record).collect();
        }
        let all = self.messages.iter().map(|(id, message)| (*id, message));
        let in_block = all.filter(|(id, _)| Block::of(*id) == block);
        let mut records: Vec<InflightRecord> = in_block.filter_map(record).collect();
        records.sort_unstable_by_key(|record| record.packet_id);
        records
    }

    /// Notes that a message has been sent again.
    pub fn mark_on_wire(&mut self, id: PacketId) {
        if let Some(message) = self
            .messages
            .get_mut(&id)
            .filter(|message| !message.on_wire)
        {
            message.on_wire = true;
            self.on_wire += 1;
        }
    }

    /// The connection has ended: all messages must be sent again, in the original order. Returns the bodies that
    /// the store has as well, to be dropped.
    pub fn disconnected(&mut self) -> Vec<Message> {
        self.on_wire = 0;
        self.withheld = 0;
        self.fetching = false;
        self.resend = self.in_order(|_| true).into();
        let mut bodies = Vec::new();
        for message in self.messages.values_mut() {
            message.on_wire = false;
            if std::mem::take(&mut message.withheld) {
                self.bytes += u64::from(message.item.size);
            }
            message.item.dup = true;
            if message.item.is_stored() {
                bodies.extend(message.item.body.take());
            }
        }
        bodies
    }

    /// The messages for which `which` holds, in the order in which they were sent.
    fn in_order(&self, which: impl Fn(&InflightMessage) -> bool) -> Vec<PacketId> {
        let mut order: Vec<((Seq, u64), PacketId)> = Vec::new();
        let mut look = |id: PacketId, message: &InflightMessage| {
            if which(message) {
                order.push((message.order, id));
            }
        };
        if self.messages.len() > usize::from(u16::MAX / 8) {
            // Identifiers are given one after the other: this is nearly the order already, and that is sorted far faster.
            let mut id = self.last_id.unwrap_or(PacketId::FIRST);
            for _ in 0..u16::MAX {
                id = id.next();
                if let Some(message) = self.messages.get(&id) {
                    look(id, message);
                }
            }
        } else {
            self.messages.iter().for_each(|(id, it)| look(*id, it));
        }
        order.sort();
        order.into_iter().map(|(_, id)| id).collect()
    }

    /// Gives messages the bodies that were fetched. Returns those that have no body in the store.
    pub fn warm(&mut self, bodies: &[(Seq, Option<Message>)]) -> Vec<(PacketId, Seq)> {
        let mut missing = Vec::new();
        for (id, message) in &mut self.messages {
            let item = &mut message.item;
            if message.released || item.body.is_some() {
                continue;
            }
            match bodies
                .binary_search_by_key(&item.seq, |(seq, _)| *seq)
                .map(|at| &bodies[at].1)
            {
                Ok(Some(body)) => item.body = Some(body.clone()),
                Ok(None) => missing.push((*id, item.seq)),
                Err(_) => {}
            }
        }
        missing
    }

    /// All messages, in no order.
    pub fn into_all(self) -> impl Iterator<Item = InflightMessage> {
        self.messages.into_values()
    }

    /// All messages on their way.
    #[cfg(test)]
    pub fn all(&self) -> impl Iterator<Item = &InflightMessage> {
        self.messages.values()
    }

    /// The messages that came from a group, with their packet identifiers.
    pub fn of_group(
        &mut self,
        group: GroupIndex,
    ) -> impl Iterator<Item = (PacketId, &mut InflightMessage)> {
        let all = self.messages.iter_mut();
        all.filter(move |(_, message)| message.group == Some(group))
            .map(|(id, message)| (*id, message))
    }

    /// Takes out the messages for which `which` holds, in the order in which they were sent.
    pub fn extract(&mut self, which: impl Fn(&InflightMessage) -> bool) -> Vec<InflightMessage> {
        let ids = self.in_order(which).into_iter();
        ids.filter_map(|id| self.remove(id)).collect()
    }
}
