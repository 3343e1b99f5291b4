//! Signal handling, on a thread of its own from the start of the process. So a signal never waits
//! for a slow start, a reload that hangs on a disk, or a broker that is stuck.

use std::io;
use std::process::exit;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, watch};

use crate::net::log::Log;

/// How long the log has for its last lines when the process ends at once.
const LOG_FLUSH_TIMEOUT: Duration = Duration::from_millis(200);
/// Threads for blocking work on this runtime.
const BLOCKING_THREADS: usize = 4;

/// What signals have asked for.
#[derive(Debug)]
pub(super) struct Signals {
    state: Arc<SignalState>,
    handle: Handle,
}

#[derive(Debug)]
struct SignalState {
    log: Arc<Log>,
    /// The broker serves. SIGTERM and SIGINT stop it gracefully.
    started: AtomicBool,
    stop: watch::Sender<bool>,
    reload: Notify,
}

impl Signals {
    /// Starts the thread "signals". From now on SIGHUP is remembered for [`Signals::reload`].
    /// SIGTERM and SIGINT end the process at once until [`Signals::started`].
    ///
    /// # Errors
    /// The operating system gives no thread or no signals.
    pub fn listen(log: Arc<Log>) -> io::Result<Signals> {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .max_blocking_threads(BLOCKING_THREADS)
            .build()?;
        let handle = runtime.handle().clone();
        let (hangup, terminate, interrupt) = {
            let _context = runtime.enter();
            (
                signal(SignalKind::hangup())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
            )
        };
        let state = Arc::new(SignalState {
            log,
            started: AtomicBool::new(false),
            stop: watch::Sender::new(false),
            reload: Notify::new(),
        });
        let watcher = Arc::clone(&state);
        std::thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || runtime.block_on(watcher.watch(hangup, terminate, interrupt)))?;
        Ok(Signals { state, handle })
    }

    /// Returns the runtime of the thread. Its tasks go on when the broker is stuck.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Says that the broker serves. From now on SIGTERM and SIGINT stop it gracefully, and a second
    /// one ends the process at once.
    pub fn started(&self) {
        self.state.started.store(true, Ordering::Relaxed);
    }

    /// Waits until a signal asks to stop.
    pub async fn stop(&self) {
        let mut stop = self.state.stop.subscribe();
        // `self` keeps the sender alive.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    /// Waits for a SIGHUP since the last call. Several count as one.
    pub async fn reload(&self) {
        self.state.reload.notified().await;
    }
}

impl SignalState {
    async fn watch(&self, mut hangup: Signal, mut terminate: Signal, mut interrupt: Signal) {
        loop {
            tokio::select! {
                _ = terminate.recv() => self.stop("SIGTERM", 128 + 15),
                _ = interrupt.recv() => self.stop("SIGINT", 128 + 2),
                _ = hangup.recv() => self.reload.notify_one(),
            }
        }
    }

    /// Handles a signal to stop. `code` is the exit code if the process ends at once.
    fn stop(&self, signal: &str, code: i32) {
        if !self.started.load(Ordering::Relaxed) {
            tracing::info!(signal, "stopping before the start is done");
            self.end(0);
        }
        if self.stop.send_replace(true) {
            tracing::warn!(
                signal,
                "stopping at once, with clients that have not been told"
            );
            self.end(code);
        }
        tracing::info!(signal, "stopping");
    }

    fn end(&self, code: i32) -> ! {
        self.log.flush(LOG_FLUSH_TIMEOUT);
        exit(code)
    }
}
