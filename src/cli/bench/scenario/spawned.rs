//! Brokers started by the benchmark.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use crate::cli::bench::generator::{Client, Generator};
use crate::cli::bench::model::{Load, Target};
use crate::cli::exit::{self, Failure};
use crate::clock::Stopwatch;

/// Time limit until a broker accepts a client.
const START: Duration = Duration::from_secs(120);

/// A broker process. It is killed when this is dropped.
pub struct Spawned(Child);

impl Spawned {
    /// Starts a broker and waits until it accepts a client at `target`. Errors call it `name`.
    /// Returns how long that took.
    ///
    /// # Errors
    /// Fails if it cannot be started, ends, or accepts no client.
    pub fn start(
        mut command: Command,
        name: &str,
        target: &Target,
        load: &Load,
    ) -> Result<(Spawned, Duration), Failure> {
        let watch = Stopwatch::start();
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| Failure::new(exit::FAILED, format!("{name}: {error}")))?;
        let mut spawned = Spawned(child);
        loop {
            let mut generator = Generator::new(target, load)?;
            let asked = generator.connect([Client::new(format!("tgq-{}", generator.name()))]);
            if asked.is_ok() {
                generator.disconnect(0..1);
                return Ok((spawned, watch.elapsed()));
            }
            if let Ok(Some(status)) = spawned.0.try_wait() {
                let message = format!("{name}: it ended with {status}");
                return Err(Failure::new(exit::FAILED, message));
            }
            if watch.elapsed() > START {
                return Err(Failure::new(exit::TIMEOUT, "the broker lets nobody in"));
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Returns its process identifier.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Spawned {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
