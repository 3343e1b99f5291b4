//! What a broker is made of: each file owns its state and keeps its invariants, and none of them
//! knows the [`Broker`](super::Broker).

// Connections: what comes from and goes to one peer, and what all peers share.
pub mod aliases;
pub mod connection;
pub mod connections;
pub mod outbox;
pub mod outgoing;
pub mod quota;
pub mod take_overs;
pub mod tally;

// Sessions: what is kept for a client.
pub mod backlog;
pub mod client_ids;
pub mod inflight;
pub mod queue;
pub mod queued;
pub mod rights;
pub mod session;
pub mod sessions;

// Subscriptions, shared groups and retained messages.
pub mod group;
pub mod groups;
pub mod offer;
pub mod retained;
pub mod sources;
pub mod tree;

// Durability: what is to be written, and who waits for it.
pub mod gate;
pub mod messages;
pub mod restoring;
pub mod waiting;

// Accounts and time.
pub mod accounts;
pub mod pace;
pub mod timers;
pub mod wall;
pub mod write_progress;

// Work in slices.
pub mod removals;
pub mod spreads;
pub mod upkeep;
pub mod walks;

// Bridges.
pub mod address_state;
pub mod bridge;
pub mod bridges;
pub mod message_ids;
pub mod origins;
pub mod suspicion;

// What an operator is told.
pub mod notices;
pub mod observed;
pub mod sys;

// Containers.
pub mod slots;
pub mod table;
