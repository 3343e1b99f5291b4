//! Plain data: no state of a broker, and no Broker.

pub mod access;
pub mod ack;
pub mod acl;
pub mod alias;
pub mod connect_options;
pub mod cost;
pub mod counters;
pub mod delivery;
pub mod fetch;
pub mod gauges;
pub mod ids;
pub mod leave;
pub mod local;
pub mod marks;
pub mod message;
pub mod output;
pub mod record;
pub mod restored;
pub mod segments;
pub mod settings;
pub mod topics;
pub mod traffic;
pub mod work;
