//! The broker as a process: assembly, start, and stop.

mod bridges;
mod descriptors;
mod error;
mod listeners;
mod reload;
mod signals;
mod store_full;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::mpsc::{self, UnboundedReceiver, unbounded_channel};
use tokio::time::{sleep, timeout};

use crate::broker::record::{DurabilityRules, Resume, Seq};
use crate::broker::{Acls, Broker, Chance, Restored, Settings};
use crate::clock::{self, Clock, Resumed, Stopwatch};
use crate::config::{Config, ConfigError};
use crate::net::auth::Authentication;
use crate::net::control::{Command, Request};
use crate::net::lock_stats::Purpose;
use crate::net::log::Log;
use crate::net::shared_broker::SharedBroker;
use crate::net::{admin, control};
use crate::store::{Committer, Opened, Start, Store, StoreError};

use bridges::{BridgeChange, Bridges};
pub use descriptors::Descriptors;
pub use error::Error;
use listeners::Listeners;
pub use listeners::{Endpoint, load_authenticator, load_tls};
use reload::{RunningBroker, warn};
use signals::Signals;

/// How long clients have to take their DISCONNECT when the broker stops.
const DISCONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the stop waits for the disk before it logs a warning.
const SLOW_STOP_WARNING: Duration = Duration::from_secs(10);

/// What a broker reports when it has started.
#[derive(Clone, Debug)]
pub struct Ready {
    /// The endpoints, with the ports that were really bound.
    pub listeners: Vec<Endpoint>,
    /// The data directory.
    pub data_dir: PathBuf,
    /// What acknowledgements wait for.
    pub durability: DurabilityRules,
    /// What recovery found, in one sentence.
    pub recovered: String,
    /// Duration of the start.
    pub took: Duration,
}

/// Runs a broker until SIGINT or SIGTERM. Blocks.
///
/// `read_config` reads the configuration again: at SIGHUP and for `tidegate reload`. `on_ready` is
/// called when clients can connect. `log` is the process' log, for the metric of lost lines.
///
/// # Errors
/// The broker could not start, or the disk failed.
pub fn run(
    config: Config,
    descriptors: Descriptors,
    log: Arc<Log>,
    read_config: impl Fn() -> Result<Config, ConfigError> + Send + Sync + 'static,
    on_ready: impl FnOnce(&Ready) + Send + 'static,
) -> Result<(), Error> {
    let watch = Stopwatch::start();
    let signals = Signals::listen(Arc::clone(&log)).map_err(Error::Start)?;
    descriptors.log(&config);
    let chance = draw_random().map_err(Error::Start)?;
    let tls = load_tls(&config).map_err(Error::Tls)?;
    let acls = config.load_acls()?;
    warn(&config, &acls);
    config.try_bridge_passwords()?;
    let authenticator = load_authenticator(&config).map_err(Error::Authentication)?;
    let authentication =
        Authentication::start(authenticator, config.throttle).map_err(Error::Start)?;
    let (store, opened) = Store::open(&config.store)?;
    let store = Arc::new(store);
    let clock = resume_clock(&store);
    let (mut broker, restored, orphans) = recover(&config, &store, &clock, acls, chance)?;
    let recovered = describe(&opened, restored, orphans);
    let opened_bridges = BridgeChange::at_start(&config.bridges, &mut broker, clock.now());

    let (broker, fetches) = SharedBroker::new(broker, clock);
    let (failed, failure) = unbounded_channel();
    let committer = start_committer(&broker, &store, failed.clone(), config.commit_delay)?;
    let reader = Arc::clone(&broker);
    let reader_store = Arc::clone(&store);
    std::thread::Builder::new()
        .name("reader".to_owned())
        .spawn(move || {
            if let Err(error) = reader.read_bodies(&fetches, &reader_store) {
                let _ = failed.send(error);
            }
        })
        .map_err(Error::Start)?;

    let runtime = runtime(&config)?;
    let outcome = runtime.block_on(async {
        let mut listeners = Listeners::new(
            Arc::clone(&broker),
            Arc::clone(&authentication),
            &config.limits,
        );
        listeners.set_max_connections(descriptors.connections(&config));
        let metrics = admin::MetricsSources {
            broker: Arc::clone(&broker),
            store: Arc::clone(&store),
            tls: Arc::clone(&listeners.tls),
            log: Arc::clone(&log),
        };
        serve_metrics(&config, metrics, &signals)?;
        let prepared = listeners.prepare(&config, tls)?;
        listeners.apply(prepared, |_, _| {});
        tokio::spawn(listeners::watch_files(Arc::clone(&listeners.tls)));
        let mut bridges = Bridges::default();
        bridges.start(opened_bridges, &broker);
        let ticking = Arc::clone(&broker);
        tokio::spawn(async move { ticking.run_timer().await });
        let watched = (broker.clone(), store.clone(), config.store.clone());
        tokio::spawn(store_full::watch(watched.0, watched.1, watched.2));
        let waking = Arc::clone(&broker);
        tokio::spawn(async move { waking.run_wake_queue().await });
        let requests = open_control(&config);
        signals.started();
        on_ready(&Ready {
            listeners: listeners.endpoints()?,
            data_dir: config.data_dir.clone(),
            durability: config.durability.clone(),
            recovered,
            took: watch.elapsed(),
        });
        let running = RunningBroker {
            config,
            descriptors,
            read_config: Arc::new(read_config),
            broker: Arc::clone(&broker),
            listeners,
            bridges,
            authentication,
        };
        serve(&broker, running, requests, signals, failure).await
    });
    if outcome.is_ok() {
        // Commits the open batch, then closes the file.
        committer.stop();
        store.close()?;
    } else {
        std::mem::forget(committer);
    }
    runtime.shutdown_background();
    outcome
}

/// Draws the random numbers that a broker needs.
fn draw_random() -> io::Result<Chance> {
    let mut client_ids = [0; 32];
    clock::fill_random(&mut client_ids).map_err(io::Error::other)?;
    Ok(Chance {
        seed: clock::seed(),
        client_ids,
    })
}

/// Resumes broker time from the store. Logs if the wall clock is not believed.
fn resume_clock(store: &Store) -> Clock {
    let (clock, resumed) = Clock::resume(store.clock());
    match resumed {
        Resumed::Begun | Resumed::Passed(_) => {}
        Resumed::Behind(ms) => tracing::warn!(
            behind_seconds = ms / 1000,
            "the system's clock stands before the last time this broker has seen, and is not believed: \
             the time it was stopped is not counted for what expires"
        ),
        Resumed::FarAhead(ms) => tracing::warn!(
            ahead_days = ms / 86_400_000,
            "the system's clock is more than 400 days ahead of the last time this broker has seen, and is not believed: \
             the time it was stopped is not counted for what expires"
        ),
    }
    clock
}

/// Builds the broker from the store.
fn recover(
    config: &Config,
    store: &Store,
    clock: &Clock,
    acl: Acls,
    chance: Chance,
) -> Result<(Broker, Restored, u64), StoreError> {
    let settings = Settings {
        identity: store.identity(),
        limits: config.limits.clone(),
        durability: config.durability.clone(),
        acl,
        allow_other_users: config.allow_other_users,
        upgrade_outgoing_qos: config.upgrade_outgoing_qos,
        sys_interval_ms: config
            .sys_interval
            .map_or(0, |interval| interval.as_millis() as u64),
    };
    let mut broker = Broker::new(settings, chance, clock.now());
    let recovery = store.recover(&mut |row| broker.restore(row))?;
    broker.set_room(store.room(), store.may_have_more_room());
    // Message identities contain the sequence number. If this store is an older copy, the next
    // numbers may have been used already.
    let skipped = clock::seed() >> 32;
    let resume = Resume {
        seq: Seq(recovery.resume.seq.0 + skipped),
        ..recovery.resume
    };
    let now = clock.now();
    let restored = broker.finish_restore(&resume, now);
    broker.set_wall(clock::wall_ms(), now);
    Ok((broker, restored, recovery.orphans))
}

fn describe(opened: &Opened, restored: Restored, orphans: u64) -> String {
    let Restored {
        sessions,
        messages,
        retained,
    } = restored;
    let found =
        format!("{sessions} sessions, {messages} queued messages, {retained} retained messages");
    let mut text = match opened.start {
        Start::Created => "nothing: the store is new".to_owned(),
        Start::Clean => format!("after a clean stop: {found}"),
        Start::Recovered => format!("after a crash: {found}"),
    };
    if orphans > 0 {
        text += &format!(" ({orphans} rows of ended sessions removed)");
    }
    if let Some(aside) = &opened.moved_aside {
        text += &format!(
            "; a store that could not be read was moved to {}",
            aside.display()
        );
    }
    text
}

fn start_committer(
    broker: &Arc<SharedBroker>,
    store: &Arc<Store>,
    failed: tokio::sync::mpsc::UnboundedSender<StoreError>,
    delay: Duration,
) -> Result<Committer, Error> {
    let (source, told, room) = (Arc::clone(broker), Arc::clone(broker), Arc::clone(store));
    let done = move |progress| {
        told.committed(&progress, &room);
        if let crate::store::Progress::Failed(error) = progress {
            let _ = failed.send(error);
        }
    };
    let committer = Committer::spawn(Arc::clone(store), move || source.next_batch(), done, delay)
        .map_err(Error::Start)?;
    broker.set_committer(committer.notifier());
    Ok(committer)
}

/// Opens the addresses of `[metrics]`, on the runtime of the signals.
fn serve_metrics(
    config: &Config,
    from: admin::MetricsSources,
    signals: &Signals,
) -> Result<(), Error> {
    for bind in config.metrics.iter().filter(|bind| !bind.is_loopback()) {
        tracing::warn!(%bind, "[metrics]: everybody who reaches this address can read figures and names of bridges and files, without a login");
    }
    let opened = {
        let _context = signals.handle().enter();
        listeners::bind_metrics(&config.metrics)?
    };
    signals.handle().spawn(admin::serve(opened, from));
    Ok(())
}

fn runtime(config: &Config) -> Result<Runtime, Error> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = config.worker_threads {
        builder.worker_threads(threads);
    }
    builder
        .thread_name("worker")
        .enable_all()
        .build()
        .map_err(Error::Start)
}

/// Opens the control socket. If that fails, the broker runs without one: its path may be too long.
fn open_control(config: &Config) -> mpsc::Receiver<Request> {
    let (requests, receiver) = mpsc::channel(1);
    match control::bind(&config.data_dir) {
        Ok(listening) => {
            tokio::spawn(control::serve(listening, requests));
        }
        Err(error) => {
            let path = control::path(&config.data_dir);
            tracing::warn!(path = %path.display(), %error, "no control socket: `tidegate reload` will not reach this broker, SIGHUP will");
        }
    }
    receiver
}

/// Serves until a signal comes or the store fails. Then closes the listeners and disconnects the
/// clients.
async fn serve(
    broker: &Arc<SharedBroker>,
    mut running: RunningBroker,
    mut requests: mpsc::Receiver<Request>,
    signals: Signals,
    mut failure: UnboundedReceiver<StoreError>,
) -> Result<(), Error> {
    let serving = async {
        loop {
            tokio::select! {
                () = signals.reload() => {
                    tracing::info!("SIGHUP: reading the configuration again");
                    running.reload().await;
                }
                Some(Request { command, reply }) = requests.recv() => match command {
                    Command::Reload => {
                        tracing::info!("tidegate reload: reading the configuration again");
                        // The client may be gone.
                        let _ = reply.send(running.reload().await);
                    }
                    Command::DropBridge(name) => bridges::drop_queue(broker, &name, reply),
                },
            }
        }
    };
    // A reload may wait for a disk. It is cancelled when the broker stops.
    tokio::select! {
        () = signals.stop() => {}
        error = failure.recv() => return match error {
            Some(error) => Err(error.into()),
            None => Ok(()),
        },
        () = serving => {}
    }
    running.listeners.shut_down().await;
    {
        let mut guard = broker.lock(Purpose::Other, None);
        let now = guard.now();
        guard.broker().shut_down(now);
    }
    let gone = async {
        while broker
            .lock(Purpose::Other, None)
            .broker()
            .connection_count()
            > 0
        {
            sleep(Duration::from_millis(5)).await;
        }
    };
    if timeout(DISCONNECT_TIMEOUT, gone).await.is_err() {
        tracing::warn!("some clients did not take their leave in time");
    }
    broker.lock(Purpose::Other, None).broker().flush();
    let settled = async {
        let (watch, mut is_warned) = (Stopwatch::start(), false);
        loop {
            // Repeated, because clients that are still connected may write more. That is not waited
            // for.
            let mut guard = broker.lock(Purpose::Other, None);
            guard.broker().hurry();
            if guard.broker().is_settled() {
                return;
            }
            let bytes = guard.broker().gauges().pending_write_bytes;
            drop(guard);
            if !is_warned && watch.elapsed() >= SLOW_STOP_WARNING {
                is_warned = true;
                tracing::warn!(
                    bytes,
                    "still waiting for the disk to take what is not written yet; what was acknowledged is safe, and a second signal ends at once"
                );
            }
            sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::select! {
        () = settled => Ok(()),
        error = failure.recv() => Err(error.map_or_else(|| Error::Start(io::ErrorKind::BrokenPipe.into()), Error::Store)),
    }
}
