//! Tidegate: an MQTT broker for the edge, MQTT 3.1, 3.1.1 and 5.0, whose acknowledgements mean "on disk".
//!
//! # The map
//!
//! Folders are floors; a floor imports only from floors below it, and files import each other in no circle. `tests/tidy` sees to both.
//!
//! | floor | says | never sees |
//! |---|---|---|
//! | [`wire`] | what is said: packets, properties, reason codes, topics, the codec | sessions, IO, time |
//! | [`broker`] | what is decided: sessions, QoS flows, subscriptions, retained messages, wills, expiry, the gate | sockets, files, clocks, chance, locks |
//! | [`store`] | what is remembered: one redb database, the record layouts, the committer thread | sockets |
//! | [`net`] | what touches the world: listeners (TCP, TLS, WebSocket, Unix sockets), connections, bridges, the broker behind one lock, figures over HTTP, a control socket | MQTT rules |
//! | [`server`], [`config`], [`cli`] | assembly and stop, the configuration, the subcommands | |
//!
//! Beside them, [`limits`] names every limit and its one answer, and [`clock`] is the only place that reads a clock or a source of chance.
//!
//! # The way of a PUBLISH
//!
//! 1. `net::connection`: `poll_read` reads what there is into a buffer of the thread; `handle_packets` decodes all whole packets; `visit` locks
//!    the broker once for all of them.
//! 2. [`broker::Broker::receive`] hands it to `receive_publish` (broker/publish.rs), which checks it against the limits and, at QoS 2, against
//!    the identifiers it has received before.
//! 3. `publish` (broker/route.rs) finds the receivers in the subscription tree, each session once, and offers it to them.
//! 4. `offer` (broker/route.rs) sends it at once if the client's window is open (`send`, broker/deliver.rs), and queues it otherwise. What
//!    must be remembered becomes a [`broker::record::Write`] in the open batch (broker/gate.rs).
//! 5. The PUBACK or PUBREC, and each delivery, is pushed to its connection's one outgoing FIFO with the stamp of that batch.
//! 6. [`store::Committer`] takes the whole batch, applies it in one redb transaction with one fsync ([`store::Store::apply`]), and
//!    [`broker::Broker::durable`] opens the gate for all stamps up to it. While one fsync runs, the next batch grows: group commit without a timer.
//! 7. The connections concerned are woken once each; [`broker::Broker::take_output`] moves what is released to the task, which writes it at once:
//!    bytes, and payloads of large messages, which all connections share (broker/outbox.rs).
//!
//! A message that no durable session wants and that is not retained is never written and waits for nothing: steps 4 and 6 fall away.
//!
//! # The way of a CONNECT
//!
//! `net::connection` decodes it. Where the listener has methods of authentication and the client sends a user name or a password, the CONNECT waits in the
//! connection's task while [`net::auth`] asks the methods in turn; passwords are hashed on threads of their own. What was proved goes to
//! [`broker::Broker::connect`] with the CONNECT, and `admit` (broker/access.rs) decides with what the listener allows and the certificate says.
//! Where an older connection has its client identifier, the CONNECT waits once more: that one's task first reads what its socket still holds, so that a
//! client that leaves and comes back at once loses nothing (broker/takeover.rs).
//!
//! # What is promised, and where it is kept
//!
//! - An acknowledgement leaves after the fsync that makes it true: each packet that promises or reveals a write carries a stamp (broker/gate.rs).
//!   The arrows are PUBACK, PUBREC, PUBREL, PUBCOMP, the outgoing QoS 2 PUBLISH to a durable session (its packet identifier must be known after a
//!   crash), and SUBACK, UNSUBACK and CONNACK of durable sessions. How far PUBACK and PUBREC wait is a matter of the topic; the others are about
//!   sessions and packet identifiers, and always wait for the disk: the next message with an identifier may be of another topic.
//! - Order per topic: one broker decides, every connection has one FIFO, queues are in the order of [`broker::record::Seq`].
//! - Exactly once at QoS 2: both hand-shakes' states are rows of the store, changed in the same batch as the message they belong to.
//! - Nothing a peer sends panics, hangs or takes memory without a limit: faults are values ([`wire::Fault`]), limits have names.
//! - A failed commit ends the process with its error: memory may be ahead of disk, and what was not acknowledged will be sent again.
//!
//! # Decisions
//!
//! - The broker is driven by method calls, not by an event enum: a driver needs no dispatch, and what may be called when is in the table of [`broker`].
//!   What comes out are three polls: output, batches, fetches.
//! - A session's queue in memory is an index; bodies beyond the first 512 of a connected client's queue are read back from the store in runs.
//!   An offline session holds no bodies at all.
//! - A message needed by one session only has no reference count; shared ones are counted in memory and counted again at recovery.
//! - Small packets are copied into each connection's outbox: that costs less than to count references. Payloads of 16 KiB and more are not: a large
//!   message for a thousand clients takes the memory of one, and the lock no longer for it than for a small one.
//! - A shared group is a queue of its own from which members pull; so a slow or absent member holds nothing back.
//! - A retained message sent for a new subscription is a message of its own, with its own place in the order. It comes from the broker and from no
//!   connection, and whose it was is not kept: No Local (\[MQTT-3.8.3-3\]) holds back what its client publishes, not what is retained of it. A client
//!   that does not want to be told what it has said itself asks for that with Retain Handling.
//! - `durability = "os"` is not a missing fsync (after a power cut the database could be damaged) but an earlier release: acknowledgements leave
//!   when the transaction has been handed to the operating system, just before its fsync.
//! - What a client may do (broker/acl.rs) is asked when it publishes or subscribes and again when a message is sent to it: rights may change while a
//!   message waits. A mount point is part of it: topics are whole within the broker, and change at its edges only.
//! - A reload (server/reload.rs) prepares everything that can fail, and then puts it in force in one visit to the broker.
//! - Within a process, time only goes on with the monotonic clock: a gateway whose wall clock jumps at its first NTP answer expires nothing.
//!   Deadlines on disk are in this broker time, and the store keeps what it and the wall clock showed last ([`clock::Reading`]): the difference tells
//!   the next start how long the broker was stopped. A wall clock that is behind that, or 400 days ahead, is not believed and nothing is counted: what
//!   remains of an interval may stop passing for a while, but never is more than was asked for (broker/wall.rs).
//! - What is known of QoS 2 messages on their way to a client is one row for 128 packet identifiers, made when a batch is taken: a run of messages from
//!   a queue costs a write, not one each. A message leaves that row in the batch that removes its delivery, or it would be sent again.
//! - A message for thousands is handed out in slices, a millisecond apart (broker/spread.rs). At QoS 1 and 2, whom it is still to be given to is
//!   written with it, so its acknowledgement waits for that and not for all deliveries, and a crash in between loses and repeats nothing. A slice is
//!   one of receivers, who get all there is for them: by messages, a burst for ten thousand would wake each of them once a message.
//! - Nobody keeps the lock for long: what may be very much is done in slices with others in between. A session ends at once, and what is left of it is
//!   removed bit by bit (broker/end.rs); a tick does so much and no more (broker/timer.rs); a commit lets so many go on at a time (broker/release.rs);
//!   what concerns all sessions or connections is a walk past them (broker/walk.rs). Slices are bounded by what they count, for no clock is seen here;
//!   `cargo bench --bench broker -- longest` measures the longest call of each.
//! - How long the lock is held and waited for is counted under the lock itself (net/visits.rs): figures tell what for (docs/proof.md). Not
//!   only the lock makes others wait: where a visit has something for thousands of connections, they are woken 64 at a time.
//! - QoS 1 packet identifiers are written only with rows that are written anyway; after a crash a message may go out again under a new one. Those of
//!   messages that a connection leaves unacknowledged are written when it ends: DUP must be known after a restart, too (\[MQTT-3.3.1-1\]).
//! - Identifiers of QoS 2 messages that have no row (durability `memory`) are set aside by blocks of 128: a row says that the client may hold any of
//!   them. After a crash they are not used until the client releases them; nothing else could tell whether it holds one.
//! - That retained messages are still to be sent for a subscription is in its row; how far that has come is not. After a crash they are sent from
//!   the first again: SUBACK has promised them, and none is missing.
//! - Removals that nobody waits for go with the next batch, or after 5 seconds: a message a second costs one commit, not two.
//! - A bridge is a client of both sides: a relay hands packets from its durable session to the upstream under the same identifiers, and back. So the state
//!   of its exchanges is that of sessions, and nothing else has to be remembered (broker/bridge), but of upstreams it has left for another address: there,
//!   packet identifiers may mean something still (broker/bridge/addresses.rs).
//! - Messages to bridges carry their identity and their path as user properties (broker/marks.rs); what has come before is known by one number made of
//!   identity, topic and payload (broker/repetition.rs). The identity is that of the message, not of its delivery, so it holds on every way; and as the
//!   content is in the number, no client can hold back what another one publishes, whatever identities it makes up.
//! - Of each topic a bridge may keep only the newest waiting message (broker/bridge/backlog.rs). Topics are in the bodies; after a restart they are read
//!   once in the background, rather than written into each row a second time.
//!
//! # Deliberately absent
//!
//! Clustering, plugins, a storage trait, feature flags.
#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod broker;
pub mod cli;
pub mod clock;
pub mod config;
pub mod limits;
pub mod net;
pub mod server;
pub mod store;
pub mod wire;

// Under its own name for what unit tests share with the tests outside.
#[cfg(test)]
extern crate self as tidegate;

#[cfg(test)]
#[path = "../tests/sim/mod.rs"]
mod sim;
