//! Clients that look on: they exchange messages while something else goes on, and how long those take tells how long it stops others.

use std::thread;
use std::time::Duration;

use crate::cli::bench::histogram::Histogram;
use crate::cli::bench::model::{Load, PATIENCE, Target};
use crate::cli::bench::outcome::Faults;
use crate::cli::bench::rig::{Client, Rig, Shape};
use crate::cli::exit::{self, Failure};
use crate::wire::QoS;

/// Who looks on.
#[derive(Clone, Copy, Debug)]
pub struct Probes {
    /// Pairs of clients, each with a topic of its own.
    pub pairs: usize,
    /// Messages a second of them all: 64 bytes, QoS 0, each sent at its time whatever has become of those before.
    pub rate: f64,
}

impl Probes {
    /// Does something in a thread of its own and looks on from before its beginning until it has ended and every message of the probes has
    /// arrived, or will not. Returns how long they took in nanoseconds, and what was wrong with them.
    ///
    /// # Errors
    /// Those of the work, or a connection of the probes is lost.
    pub fn watch(
        self,
        target: &Target,
        load: &Load,
        work: impl FnOnce() -> Result<(), Failure> + Send,
    ) -> Result<(Histogram, Faults), Failure> {
        let mut rig = Rig::new(target, load)?;
        self.connect(&mut rig)?;
        rig.publish_at(self.rate);
        rig.run_for(Duration::from_millis(100))?;
        rig.latency.clear();
        thread::scope(|scope| {
            let working = scope.spawn(work);
            while !working.is_finished() {
                rig.run_for(Duration::from_millis(5))?;
            }
            let worked = working.join();
            worked.unwrap_or_else(|_| Err(Failure::new(exit::FAILED, "the load has failed")))
        })?;
        rig.drain(PATIENCE)?;
        rig.disconnect(0..rig.peer_count());
        let faults = rig.faults();
        Ok((rig.latency, faults))
    }

    fn connect(self, rig: &mut Rig) -> Result<(), Failure> {
        let run = rig.name();
        let topic = |n: usize| format!("tgb/{run}/probe/{n}");
        let receiver = |n: usize| {
            let client = Client::new(format!("tgs-{run}-{n}"));
            client.subscribed(topic(n), QoS::AtMostOnce, n as u32..n as u32 + 1)
        };
        rig.connect((0..self.pairs).map(receiver))?;
        let publishers = (0..self.pairs).map(|n| Client::new(format!("tgp-{run}-{n}")));
        let first = rig.connect(publishers)?;
        let shape = Shape {
            qos: QoS::AtMostOnce,
            size: 64,
            retain: false,
            window: 1,
            receivers: 0,
        };
        for n in 0..self.pairs {
            rig.publish_from(first + n, &[topic(n)], &shape);
        }
        Ok(())
    }
}
