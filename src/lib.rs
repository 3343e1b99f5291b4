//! Tidegate: an MQTT broker for the edge. It speaks MQTT 3.1, 3.1.1 and 5.0, and its acknowledgements mean "on disk".
//!
//! # The map
//!
//! Folders are floors. A floor imports only from floors below it, and no files import each other in a circle; `tests/tidy` checks both.
//!
//! | floor | owns | knows nothing of |
//! |---|---|---|
//! | [`cli`] | the subcommands | |
//! | [`server`] | assembly, reload and stop | |
//! | [`config`] | the configuration file | sockets that are open, the store |
//! | [`net`] | listeners, connections, TLS, WebSocket, bridges' sockets, logins, the broker behind one lock | MQTT's rules |
//! | [`store`] | the redb database, its rows, the committer thread | sockets |
//! | [`broker`] | sessions, QoS flows, subscriptions, retained messages, wills, expiry, the gate | sockets, files, clocks, chance, locks |
//! | [`wire`] | packets, properties, reason codes, topics, the codec | sessions, IO, time |
//!
//! [`limits`] names every limit and the one answer when it is reached. [`clock`] is the only place that reads a clock or a source of chance.
//!
//! # The rooms of the broker
//!
//! | room | what is in it |
//! |---|---|
//! | `broker/model/` | plain data: messages, records of the store, identities, rules |
//! | `broker/state/` | what a broker consists of. Each file owns one kind of state and keeps its invariants; none knows the `Broker` |
//! | `broker/mod.rs` | [`broker::Broker`], which composes that state, and the table of calls for drivers |
//! | `broker/flows/` | what packets do: CONNECT, PUBLISH, acknowledgements, SUBSCRIBE, DISCONNECT, wills, keep alive |
//! | `broker/delivery/` | from an accepted message to outboxes: routing, sending, shared groups, fan-out in slices |
//! | `broker/access/` | admission, rights, quotas |
//! | `broker/upkeep/` | timers, expiry, the end of sessions, recovery at a start |
//! | `broker/bridge/` | the bridges' side of the broker |
//! | `broker/observe/` | `$SYS`, warnings about clients, the audit of the tests |
//!
//! The rooms above `mod.rs` add methods to `Broker`. They know one another only by these methods.
//!
//! # The life of a PUBLISH
//!
//! 1. `net/connection.rs`: `poll_read` reads what there is. `handle_packets` decodes all whole packets. `with_broker` takes the broker's lock once for
//!    all of them.
//! 2. `broker/mod.rs`: [`broker::Broker::receive`] hands the packet to its flow.
//! 3. `broker/flows/publish.rs`: `receive_publish` checks limits, rights and, at QoS 2, whether the identifier is known.
//! 4. `broker/delivery/route.rs`: `publish` finds the receivers in the subscription tree, each session once. `offer` either sends the message now or
//!    puts it into the session's queue. What must be stored becomes a [`broker::record::Write`] in the open batch (`broker/state/gate.rs`).
//! 5. `broker/delivery/send.rs`: `send` takes a packet identifier and pushes the PUBLISH to the connection's outbox with a stamp. The PUBACK or
//!    PUBREC to the publisher gets a stamp, too.
//! 6. [`store::Committer`] applies the batch in one redb transaction with one fsync. Meanwhile the next batch grows: a group commit without a timer.
//! 7. `broker/upkeep/resume.rs`: [`broker::Broker::durable`] opens the gate for all stamps of the batch.
//! 8. `broker/driver.rs`: [`broker::Broker::take_output`] moves what is released to the connection's task, which writes it. A bridge takes values
//!    with [`broker::Broker::take_deliveries`] and encodes them for its upstream.
//!
//! A message that no durable session gets and that is not retained is never stored. It skips steps 6 and 7.
//!
//! # The life of a CONNECT
//!
//! 1. `net/connection.rs` decodes it. If it carries a user name or a password and the listener has methods of authentication, [`net::auth`] asks them
//!    in turn. Passwords are hashed on threads of their own.
//! 2. `broker/flows/connect.rs`: [`broker::Broker::connect`] gets the packet and what was proved.
//! 3. `broker/access/admit.rs`: `admit` compares that with the listener and the certificate.
//! 4. `broker/flows/take_over.rs`: if another connection has the client identifier, that one first hands over what its peer had already sent. So a
//!    client that leaves and comes back at once loses nothing.
//! 5. `broker/flows/connect.rs`: `open_session` finds or makes the session, `attach` ties the connection to it. CONNACK waits for the disk if the
//!    session is durable.
//!
//! # The life of a restart
//!
//! 1. [`store::Store`] opens the file, checks it, and brings an older layout up to date.
//! 2. It reads the rows in a fixed order. `broker/upkeep/restore.rs`: [`broker::Broker::restore`] takes each of them.
//! 3. [`broker::Broker::finish_restore`] disconnects the sessions whose connections died with the process, and starts their wills.
//! 4. Listeners open after that. Bodies of queued messages stay on disk until a client takes them.
//!
//! # What is promised, and where it is kept
//!
//! - **An acknowledgement leaves after the fsync that makes it true.** Each packet that promises or reveals a write carries a stamp
//!   (`broker/state/gate.rs`). These packets are PUBACK, PUBREC, PUBREL and PUBCOMP; the outgoing QoS 2 PUBLISH to a durable session; and SUBACK,
//!   UNSUBACK and CONNACK of durable sessions. The topic decides how far PUBACK and PUBREC wait. All others always wait for the disk, because
//!   sessions and packet identifiers outlast a topic.
//! - **Order per topic.** One broker decides, each connection has one FIFO, and queues are in the order of [`broker::record::Seq`].
//! - **Exactly once at QoS 2.** Both handshakes are rows of the store, changed in the same batch as their message.
//! - **No input panics, hangs or takes memory without a limit.** Faults are values ([`wire::Fault`]), limits have names.
//! - **A failed commit ends the process.** Memory may be ahead of the disk then. Nothing unacknowledged is lost: its sender has it still.
//!
//! # Glossary
//!
//! Words that are ours. All others are those of the MQTT standard.
//!
//! - **Batch**: the writes that commit together. One is open, at most one is on its way to the disk.
//! - **Stamp**: names the batch that a packet waits for.
//! - **Gate**: collects the open batch, and knows which stamps are durable.
//! - **Arrow**: a kind of packet that must not pass the gate early. Tests open one on purpose.
//! - **Seq**: the place of a message in the order in which messages were accepted.
//! - **Body**: topic, properties and payload of a message. A queue entry may lack its body; then it is read from the store (a *fetch*).
//! - **Hot**: in memory. The bytes of hot bodies are limited over all queues.
//! - **Held**: waits for rights that its client lacks at present (`broker/delivery/hold.rs`).
//! - **Spread**: a message for thousands of receivers that is handed out in slices (`broker/delivery/spread.rs`).
//! - **Removal**: what is left of an ended session or group. It is removed in slices.
//! - **Walk**: a pass over all sessions or connections, in slices.
//! - **Relay**: one connection of a bridge to its upstream.
//! - **Mark**: a user property with which bridges tell where a message has been.
//! - **Origin**: names the broker, and the run of it, that a bridge comes from.
//!
//! `docs/decisions.md` says why things are as they are.
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
