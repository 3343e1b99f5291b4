//! Probes: clients that exchange messages while something else happens. Their latency shows how
//! long the broker blocks others.

use std::thread;
use std::time::Duration;

use crate::cli::bench::generator::{Client, Generator, Shape};
use crate::cli::bench::histogram::Histogram;
use crate::cli::bench::model::{IDLE_TIMEOUT, Load, Target};
use crate::cli::bench::outcome::Faults;
use crate::cli::exit::{self, Failure};
use crate::wire::QoS;

/// The probes.
#[derive(Clone, Copy, Debug)]
pub struct Probes {
    /// Pairs of clients, each with its own topic.
    pub pairs: usize,
    /// Total messages per second: 64 bytes, QoS 0, each sent at its scheduled time.
    pub rate: f64,
}

impl Probes {
    /// Does something on another thread and runs the probes meanwhile. They begin before it and end
    /// when it has ended and all their messages have arrived or count as lost. Returns their
    /// latencies in nanoseconds, and their errors.
    ///
    /// # Errors
    /// Fails if the work fails, or a connection of the probes is lost.
    pub fn watch(
        self,
        target: &Target,
        load: &Load,
        work: impl FnOnce() -> Result<(), Failure> + Send,
    ) -> Result<(Histogram, Faults), Failure> {
        let mut generator = Generator::new(target, load)?;
        self.connect(&mut generator)?;
        generator.publish_at(self.rate);
        generator.run_for(Duration::from_millis(100))?;
        generator.latency.clear();
        thread::scope(|scope| {
            let working = scope.spawn(work);
            while !working.is_finished() {
                generator.run_for(Duration::from_millis(5))?;
            }
            let worked = working.join();
            worked.unwrap_or_else(|_| Err(Failure::new(exit::FAILED, "the load has failed")))
        })?;
        generator.drain(IDLE_TIMEOUT)?;
        generator.disconnect(0..generator.peer_count());
        let faults = generator.faults();
        Ok((generator.latency, faults))
    }

    fn connect(self, generator: &mut Generator) -> Result<(), Failure> {
        let run = generator.name();
        let topic = |n: usize| format!("tgb/{run}/probe/{n}");
        let receiver = |n: usize| {
            let client = Client::new(format!("tgs-{run}-{n}"));
            client.subscribed(topic(n), QoS::AtMostOnce, n as u32..n as u32 + 1)
        };
        generator.connect((0..self.pairs).map(receiver))?;
        let publishers = (0..self.pairs).map(|n| Client::new(format!("tgp-{run}-{n}")));
        let first = generator.connect(publishers)?;
        let shape = Shape {
            qos: QoS::AtMostOnce,
            size: 64,
            retain: false,
            window: 1,
            receivers: 0,
        };
        for n in 0..self.pairs {
            generator.publish_from(first + n, &[topic(n)], &shape);
        }
        Ok(())
    }
}
