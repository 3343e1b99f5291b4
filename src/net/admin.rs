//! Figures for Prometheus and a health check, over HTTP.
//!
//! Counting costs the broker an addition: it counts in a plain struct, and the figures are put into the recorder when somebody asks for them.

use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use metrics::{counter, describe_counter, gauge, with_local_recorder};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use tokio::net::TcpListener;

use super::core::Core;
use super::log::Log;
use super::tls::TlsListeners;
use super::visits::{Purpose, Visits};
use crate::broker::bridge::Standing;
use crate::store::Store;

/// Where figures come from.
#[derive(Clone)]
pub struct Sources {
    /// The broker.
    pub core: Arc<Core>,
    /// The store.
    pub store: Arc<Store>,
    /// The TLS of all listeners.
    pub tls: Arc<TlsListeners>,
    /// The log lines on their way.
    pub log: Arc<Log>,
}

/// What answers requests.
struct Admin {
    from: Sources,
    recorder: PrometheusRecorder,
    handle: PrometheusHandle,
}

/// Serves `/metrics` (Prometheus' text format) and `/health` until the process ends.
///
/// # Errors
/// The socket fails.
pub async fn serve(listener: TcpListener, from: Sources) -> io::Result<()> {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let admin = Arc::new(Admin {
        from,
        recorder,
        handle,
    });
    let routes = Router::new()
        .route("/metrics", get(figures))
        .route("/health", get(|| async { "ok\n" }));
    axum::serve(listener, routes.with_state(admin)).await
}

async fn figures(State(admin): State<Arc<Admin>>) -> impl IntoResponse {
    let visits = with_local_recorder(&admin.recorder, || admin.record());
    let mut text = admin.handle.render();
    // The recorder's histograms take one value at a time, and these were counted elsewhere.
    visits.render(&mut text);
    ([(CONTENT_TYPE, "text/plain; version=0.0.4")], text)
}

impl Admin {
    /// Puts all figures into the recorder, but for the visits, which it returns.
    fn record(&self) -> Visits {
        let (bridges, visits);
        let (counters, gauges) = {
            let mut entered = self.from.core.enter(Purpose::Other, None);
            visits = entered.visits();
            let broker = entered.broker();
            bridges = broker.bridge_figures();
            (broker.counters().clone(), broker.gauges())
        };
        for (name, what, value) in counters.iter() {
            let name = format!("tidegate_{name}");
            describe_counter!(name.clone(), what.trim());
            counter!(name).absolute(value);
        }
        let usage = self.from.store.usage();
        counter!("tidegate_store_written_bytes").absolute(usage.written_bytes);
        counter!("tidegate_store_syncs").absolute(usage.syncs);
        counter!("tidegate_log_lines_lost").absolute(self.from.log.lost());
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
            for (address, standing) in &bridge.addresses {
                let labels = [
                    ("bridge", bridge.name.to_string()),
                    ("address", address.clone()),
                ];
                let connected = *standing == Standing::Connected;
                let reachable = connected || *standing == Standing::Reachable;
                gauge!("tidegate_bridge_address_connected", &labels).set(f64::from(connected));
                gauge!("tidegate_bridge_address_reachable", &labels).set(f64::from(reachable));
            }
        }
        // Prometheus' way of a moment: seconds since 1970, so that what is left is a subtraction there.
        for (listener, tls) in self.from.tls.all() {
            for (file, not_after) in tls.expiries() {
                let labels = [
                    ("listener", listener.clone()),
                    ("file", file.display().to_string()),
                ];
                gauge!("tidegate_certificate_not_after_seconds", &labels).set(not_after as f64);
            }
        }
        gauge!("tidegate_store_last_commit_seconds").set(usage.last_commit.as_secs_f64());
        gauge!("tidegate_store_longest_commit_seconds").set(usage.longest_commit.as_secs_f64());
        visits
    }
}
