//! Scenarios over real sockets, each named after what it shows, with the statements of the standard
//! beside it.
//!
//! Statement numbers are those of MQTT 5.0 unless they say 3.1.1. With
//! `TIDEGATE_TEST_BROKER="mosquitto -p {port}"` in the environment those that need no configuration
//! and no restart run against another broker; it is how errors in the tests themselves are found.

mod acknowledge;
mod alias;
mod auth;
mod connect;
mod connect_illegal;
mod durable;
mod expiry;
mod fair;
mod illegal;
mod illegal_mqtt3;
mod keep_alive;
mod limits;
mod order;
mod publish;
mod retain;
mod session;
mod shared;
mod stop;
mod subscribe;
mod takeover;
mod unsubscribe;
mod will;
mod window;

use support::{Broker, Version};

/// Runs a scenario in each protocol version, with a broker of its own each.
fn each_version(scenario: impl Fn(&Broker, Version)) {
    in_versions(&Version::ALL, scenario);
}

/// Runs a scenario in these protocol versions, with a broker of its own each.
fn in_versions(versions: &[Version], scenario: impl Fn(&Broker, Version)) {
    for &version in versions {
        println!("in MQTT {version}");
        scenario(&Broker::start(), version);
    }
}

/// Runs a scenario in each protocol version, with a broker that it may kill and restart.
fn each_version_durable(scenario: impl Fn(&mut Broker, Version)) {
    for version in Version::ALL {
        println!("in MQTT {version}");
        let Some(mut broker) = Broker::durable() else {
            return;
        };
        scenario(&mut broker, version);
    }
}
