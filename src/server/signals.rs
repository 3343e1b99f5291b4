//! The signals the process answers, from its first moment on. A thread of its own waits for them, so that
//! none has to wait for a slow start, for a reload that hangs on a disk, or for a broker that is stuck.

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
/// Threads for what blocks and must not hold up the answer to a signal.
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
    /// The broker serves: it stops in good order.
    started: AtomicBool,
    stop: watch::Sender<bool>,
    reload: Notify,
}

impl Signals {
    /// Starts the thread "signals". From now on SIGHUP is remembered until somebody asks for it, and
    /// SIGTERM and SIGINT end the process at once until [`Signals::started`].
    ///
    /// # Errors
    /// The operating system gives no thread, or no signals.
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

    /// The runtime of the thread: what runs there goes on when the broker is stuck.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// The broker serves: SIGTERM and SIGINT now stop it in good order, and a second one at once.
    pub fn started(&self) {
        self.state.started.store(true, Ordering::Relaxed);
    }

    /// Waits until the process is told to stop.
    pub async fn stop(&self) {
        let mut stop = self.state.stop.subscribe();
        // The sender is here.
        let _ = stop.wait_for(|stop| *stop).await;
    }

    /// Waits until a SIGHUP has come that was not asked for yet. Several count as one.
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

    /// `code` is the exit code of a process that does not stop in good order.
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
