//! Metrics for Prometheus and a health check, over HTTP.
//!
//! The broker counts in a plain struct: an addition each time. The counts go to a recorder when
//! they are asked for. Each response has its own recorder, so that a bridge or certificate that is
//! gone does not appear.
//!
//! This runs on a thread that nothing else keeps busy, so it can report a broker that is stuck.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use metrics::{counter, describe_counter, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use super::lock_stats::{LockStats, Purpose};
use super::log::Log;
use super::log_limit::LogLimit;
use super::shared_broker::SharedBroker;
use super::tls::TlsListeners;
use crate::broker::bridge::AddressState;
use crate::clock;
use crate::store::Store;

/// Connections at once. Reached: others wait until they are accepted.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection has for its request line and headers. Exceeded: it is closed.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection may last, with its response. Exceeded: it is closed.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the metrics may take. Exceeded: the response is 503.
const METRICS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a health check waits for the broker's lock. Exceeded: the broker is stuck.
const LOCK_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a commit may take. Exceeded: the disk is stuck.
const MAX_COMMIT_TIME: Duration = Duration::from_secs(10);

/// The sources of the metrics.
#[derive(Clone)]
pub struct MetricsSources {
    /// The broker.
    pub broker: Arc<SharedBroker>,
    /// The store.
    pub store: Arc<Store>,
    /// The TLS of all listeners.
    pub tls: Arc<TlsListeners>,
    /// The log.
    pub log: Arc<Log>,
}

/// Serves `/metrics` (text format of Prometheus) and `/health` until the process ends.
pub async fn serve(listeners: Vec<TcpListener>, sources: MetricsSources) {
    let routes = Router::new()
        .route("/metrics", get(metrics))
        .route("/health", get(health))
        .with_state(Arc::new(sources.clone()));
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    for listener in listeners {
        let (broker, routes) = (Arc::clone(&sources.broker), routes.clone());
        tokio::spawn(accept(listener, broker, routes, Arc::clone(&permits)));
    }
}

/// Accepts connections. Each has one request, so idle ones do not block others. Never returns.
async fn accept(
    listener: TcpListener,
    broker: Arc<SharedBroker>,
    routes: Router,
    permits: Arc<Semaphore>,
) -> io::Result<()> {
    let log_limit = LogLimit::new(1);
    loop {
        let permit = Arc::clone(&permits).acquire_owned().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                if let Some(unlogged) = log_limit.admit(broker.now().uptime) {
                    tracing::warn!(%error, unlogged, "cannot accept a connection for /metrics and /health");
                }
                sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let service = TowerToHyperService::new(routes.clone());
        tokio::spawn(async move {
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // The client may be gone.
            let _ = timeout(CONNECTION_TIMEOUT, served).await;
            drop(permit);
        });
    }
}

async fn metrics(State(sources): State<Arc<MetricsSources>>) -> Response {
    // Waiting for the broker's lock must not block this thread.
    let text = spawn_blocking(move || sources.text());
    match timeout(METRICS_TIMEOUT, text).await {
        Ok(Ok(text)) => ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        _ => unavailable("the broker has no time for its figures"),
    }
}

async fn health(State(sources): State<Arc<MetricsSources>>) -> Response {
    match sources.health_problem().await {
        None => "ok\n".into_response(),
        Some(health_problem) => unavailable(&health_problem),
    }
}

fn unavailable(why: &str) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response()
}

impl MetricsSources {
    /// Returns what is wrong with the broker. `None` if it is healthy.
    async fn health_problem(&self) -> Option<String> {
        let broker = Arc::clone(&self.broker);
        let checked = spawn_blocking(move || {
            let mut guard = broker.lock(Purpose::Other, None);
            (guard.commit_under_way(), guard.broker().is_shutting_down())
        });
        let Ok(Ok((commit, stopping))) = timeout(LOCK_TIMEOUT, checked).await else {
            return Some(format!(
                "the broker is stuck: its lock was not had within {LOCK_TIMEOUT:?}"
            ));
        };
        self.find_problem(commit, stopping)
    }

    /// As [`MetricsSources::health_problem`]. `commit` is how long a commit is under way.
    fn find_problem(&self, commit: Option<Duration>, stopping: bool) -> Option<String> {
        if stopping {
            return Some("the broker is stopping".to_owned());
        }
        if let Some(since) = commit.filter(|since| *since > MAX_COMMIT_TIME) {
            return Some(format!(
                "the disk is stuck: a commit is under way for {} s, and acknowledgements wait for it",
                since.as_secs()
            ));
        }
        if self.store.room() == 0 {
            return Some(
                "the store has no room: messages for durable sessions are refused".to_owned(),
            );
        }
        None
    }

    /// Returns all metrics in the text format.
    fn text(&self) -> String {
        let recorder = PrometheusBuilder::new().build_recorder();
        let lock_stats = with_local_recorder(&recorder, || self.record());
        let mut text = recorder.handle().render();
        // The recorder's histograms take single values, but these are counted already.
        lock_stats.render(&mut text);
        text
    }

    /// Puts all metrics into the recorder, except the lock statistics, which it returns.
    fn record(&self) -> LockStats {
        let (bridges, lock_stats);
        let (counters, gauges) = {
            let mut guard = self.broker.lock(Purpose::Other, None);
            lock_stats = guard.lock_stats();
            let broker = guard.broker();
            bridges = broker.bridge_figures();
            (broker.counters().clone(), broker.gauges())
        };
        for (name, what, value) in counters.iter() {
            let name = format!("tidegate_{name}");
            describe_counter!(name.clone(), what.trim());
            counter!(name).absolute(value);
        }
        let usage = self.store.usage();
        counter!("tidegate_store_written_bytes").absolute(usage.written_bytes);
        counter!("tidegate_store_syncs").absolute(usage.syncs);
        counter!("tidegate_log_lines_lost").absolute(self.log.lost());
        let set = |name: &'static str, value: u64| gauge!(name).set(value as f64);
        set("tidegate_clients_connected", gauges.connected);
        set("tidegate_sessions", gauges.sessions);
        set("tidegate_subscriptions", gauges.subscriptions);
        set("tidegate_retained_messages", gauges.retained);
        set("tidegate_retained_bytes", gauges.retained_bytes);
        set("tidegate_queued_messages", gauges.queued);
        set("tidegate_queued_bytes", gauges.queued_bytes);
        set("tidegate_pending_write_bytes", gauges.pending_write_bytes);
        set("tidegate_store_file_bytes", usage.file_bytes);
        set("tidegate_store_live_bytes", usage.live_bytes);
        set("tidegate_store_room_bytes", usage.room_bytes);
        for bridge in bridges {
            let label = || [("bridge", bridge.name.to_string())];
            gauge!("tidegate_bridge_connected", &label()).set(f64::from(bridge.connected));
            counter!("tidegate_bridge_connects", &label()).absolute(bridge.connects);
            gauge!("tidegate_bridge_queued_messages", &label()).set(bridge.queued as f64);
            gauge!("tidegate_bridge_queued_bytes", &label()).set(bridge.queued_bytes as f64);
            gauge!("tidegate_bridge_oldest_seconds", &label()).set(bridge.oldest_seconds as f64);
            counter!("tidegate_bridge_dropped_messages", &label()).absolute(bridge.dropped);
            counter!("tidegate_bridge_refused_messages", &label()).absolute(bridge.refused);
            counter!("tidegate_bridge_superseded_messages", &label()).absolute(bridge.superseded);
            counter!("tidegate_bridge_expired_messages", &label()).absolute(bridge.expired);
            counter!("tidegate_bridge_loops_dropped_messages", &label())
                .absolute(bridge.loops_dropped);
            counter!("tidegate_bridge_set_aside_messages", &label()).absolute(bridge.set_aside);
            for (address, state) in &bridge.addresses {
                let labels = [
                    ("bridge", bridge.name.to_string()),
                    ("address", address.clone()),
                ];
                let connected = *state == AddressState::Connected;
                let reachable = connected || *state == AddressState::Reachable;
                gauge!("tidegate_bridge_address_connected", &labels).set(f64::from(connected));
                gauge!("tidegate_bridge_address_reachable", &labels).set(f64::from(reachable));
            }
        }
        // Prometheus' convention: seconds since 1970. A query subtracts the present time.
        let now = clock::wall_seconds();
        for (listener, tls) in self.tls.all() {
            for (file, not_after) in tls.expiries() {
                let labels = [
                    ("listener", listener.clone()),
                    ("file", file.display().to_string()),
                ];
                gauge!("tidegate_certificate_not_after_seconds", &labels).set(not_after as f64);
                gauge!("tidegate_certificate_expired", &labels).set(f64::from(not_after < now));
            }
            if let Some((file, next_update)) = tls.next_update() {
                let labels = [
                    ("listener", listener.clone()),
                    ("file", file.display().to_string()),
                ];
                gauge!("tidegate_crl_next_update_seconds", &labels).set(next_update as f64);
                gauge!("tidegate_crl_expired", &labels).set(f64::from(next_update < now));
            }
        }
        gauge!("tidegate_store_last_commit_seconds").set(usage.last_commit.as_secs_f64());
        gauge!("tidegate_store_longest_commit_seconds").set(usage.longest_commit.as_secs_f64());
        lock_stats
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{Access, Arrival, Broker, Chance, Settings};
    use crate::clock::Clock;
    use crate::store::{Progress, StoreOptions};
    use crate::wire::{ProtocolVersion, codec};

    fn sources(dir: &std::path::Path) -> MetricsSources {
        let clock = Clock::start();
        let mut broker = Broker::new(Settings::default(), Chance::fixed(7), clock.now());
        let options = StoreOptions {
            path: dir.join("store"),
            max_bytes: 10_000_000,
            min_free_bytes: 0,
            cache_bytes: 1_000_000,
            move_corrupt_aside: false,
        };
        let (store, _) = Store::open(&options).expect("a store");
        broker.set_room(store.room(), store.may_have_more_room());
        MetricsSources {
            broker: SharedBroker::new(broker, clock).0,
            store: Arc::new(store),
            tls: Arc::default(),
            log: Log::start(io::sink()).expect("a thread"),
        }
    }

    fn health_problem(sources: &MetricsSources) -> Option<String> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let health_problem = runtime.block_on(sources.health_problem());
        runtime.shutdown_background();
        health_problem
    }

    #[test]
    fn a_broker_whose_lock_is_not_had_is_not_healthy_and_then_is_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let sources = sources(dir.path());
        assert_eq!(health_problem(&sources), None);
        let broker = Arc::clone(&sources.broker);
        let guard = broker.lock(Purpose::Other, None);
        let problem = health_problem(&sources).expect("stuck");
        assert!(
            problem.contains("its lock was not had within 1s"),
            "{problem}"
        );
        drop(guard);
        assert_eq!(health_problem(&sources), None);
    }

    #[test]
    fn a_broker_that_stops_is_not_healthy() {
        let dir = tempfile::tempdir().expect("a directory");
        let sources = sources(dir.path());
        {
            let mut guard = sources.broker.lock(Purpose::Other, None);
            let now = guard.now();
            guard.broker().shut_down(now);
        }
        let problem = health_problem(&sources).expect("stopping");
        assert_eq!(problem, "the broker is stopping");
    }

    #[test]
    fn a_commit_under_way_is_seen_and_one_that_takes_too_long_is_not_healthy() {
        let dir = tempfile::tempdir().expect("a directory");
        let sources = sources(dir.path());
        let under_way = || sources.broker.lock(Purpose::Other, None).commit_under_way();
        {
            let mut guard = sources.broker.lock(Purpose::Connect, None);
            let now = guard.now();
            let access = Access {
                allow_anonymous: true,
                ..Access::default()
            };
            let broker = guard.broker();
            let id = broker.accept(Arrival::from(access), now).expect("room");
            // A session that outlasts its connection.
            let bytes = b"\x10\x0d\0\x04MQTT\x04\0\0\0\0\x01c";
            let packet = codec::decode(bytes, ProtocolVersion::V311).expect("CONNECT");
            broker.receive(id, packet, now);
        }
        assert_eq!(under_way(), None);
        let batch = sources.broker.next_batch().expect("a session to write");
        assert!(under_way().is_some());
        assert_eq!(sources.find_problem(under_way(), false), None);
        let problem = sources.find_problem(Some(MAX_COMMIT_TIME + Duration::from_secs(1)), false);
        assert!(problem.expect("stuck").contains("under way for 11 s"));
        sources
            .broker
            .committed(&Progress::Durable(batch.id), &sources.store);
        assert_eq!(under_way(), None);
    }
}
