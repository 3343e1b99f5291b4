//! The addresses of a bridge: their order, their states, and failback to a preferred one.
//!
//! An address is preferred to those behind it in the configuration.

use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::exchange::DISCONNECT_TIMEOUT;
use super::settings::BridgeSettings;
use crate::broker::bridge::AddressState;
use crate::clock::Stopwatch;
use crate::net::lock_stats::Purpose;
use crate::net::shared_broker::SharedBroker;
use crate::wire::ProtocolVersion;

/// How long the first probes wait for the first connection, at most.
const MAX_FIRST_WAIT: Duration = Duration::from_secs(1);

/// The states of all addresses, in the order of the configuration.
#[derive(Debug)]
pub(super) struct Addresses {
    broker: Arc<SharedBroker>,
    settings: BridgeSettings,
    infos: Mutex<Vec<AddressInfo>>,
    changed: Notify,
}

#[derive(Clone, Debug)]
struct AddressInfo {
    state: AddressState,
    /// Since when all probes have succeeded.
    reachable_since: Option<Stopwatch>,
}

impl Addresses {
    pub fn new(broker: Arc<SharedBroker>, settings: BridgeSettings) -> Addresses {
        let unknown = AddressInfo {
            state: AddressState::Unknown,
            reachable_since: None,
        };
        let addresses = Addresses {
            infos: Mutex::new(vec![unknown; settings.addresses.len()]),
            changed: Notify::new(),
            broker,
            settings,
        };
        addresses.publish();
        addresses
    }

    /// Returns the order in which addresses are tried: as configured, or, with `round_robin`, from
    /// the one after the last connected address.
    pub fn order(&self) -> Vec<usize> {
        let all = &self.settings.addresses;
        let mut order: Vec<usize> = (0..all.len()).collect();
        if self.settings.round_robin {
            let mut guard = self.broker.lock(Purpose::Other, None);
            let record = guard.broker().bridge_record(&self.settings.bridge.name);
            let last = record.and_then(|record| {
                all.iter()
                    .position(|address| *address.to_string() == *record.address)
            });
            order.rotate_left(last.map_or(0, |last| (last + 1) % all.len()));
        }
        order
    }

    /// Sets the state of an address. Logs and publishes a change.
    pub fn set_state(&self, at: usize, state: AddressState) {
        {
            let mut known = self.infos();
            let known = &mut known[at];
            known.reachable_since = match state {
                AddressState::Reachable => known
                    .reachable_since
                    .take()
                    .or_else(|| Some(Stopwatch::start())),
                AddressState::Unknown | AddressState::Connected | AddressState::Unreachable(_) => {
                    None
                }
            };
            if known.state == state {
                return;
            }
            let bridge = &*self.settings.bridge.name;
            let address = &self.settings.addresses[at];
            match &state {
                AddressState::Unreachable(why) => {
                    tracing::warn!(bridge, %address, why, "bridge address unreachable");
                }
                state => tracing::info!(bridge, %address, "bridge address {state}"),
            }
            known.state = state;
        }
        self.publish();
        self.changed.notify_one();
    }

    /// Waits until a preferred address has answered all probes for `hold_down`. Returns its index.
    /// Never returns with `round_robin`.
    pub async fn wait_for_preferred(&self, at: usize) -> usize {
        if self.settings.round_robin {
            return pending().await;
        }
        loop {
            let hold_down = self.settings.hold_down;
            let mut next = Duration::from_secs(3600);
            let waits: Vec<Option<Duration>> = {
                let known = self.infos();
                let reachable_since = known[..at]
                    .iter()
                    .map(|known| known.reachable_since.as_ref());
                reachable_since
                    .map(|reachable_since| {
                        Some(hold_down.saturating_sub(reachable_since?.elapsed()))
                    })
                    .collect()
            };
            for (preferred, wait) in waits.into_iter().enumerate() {
                match wait {
                    Some(Duration::ZERO) => return preferred,
                    Some(wait) => next = next.min(wait),
                    None => {}
                }
            }
            tokio::select! {
                () = sleep(next) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    /// Probes each address that is not connected, again and again. A probe connects and closes
    /// without CONNECT, which would take over the session. Never returns.
    pub async fn probe(&self) {
        let interval = self.settings.probe_interval;
        if interval.is_zero() || self.settings.addresses.len() == 1 {
            return pending().await;
        }
        sleep(interval.min(MAX_FIRST_WAIT)).await;
        loop {
            let mut probes = JoinSet::new();
            for (at, address) in self.settings.addresses.iter().enumerate() {
                if self.infos()[at].state == AddressState::Connected {
                    continue;
                }
                let transport = self.settings.transport.clone();
                let (address, limit) = (address.clone(), self.settings.connect_timeout);
                let version = self.settings.version.unwrap_or(ProtocolVersion::V5);
                probes.spawn(async move {
                    let dialed = transport.dial(&address, version, limit).await;
                    let answered = match dialed {
                        Ok(mut stream) => {
                            let _ = timeout(DISCONNECT_TIMEOUT, stream.shutdown()).await;
                            AddressState::Reachable
                        }
                        Err(error) => AddressState::Unreachable(error.to_string()),
                    };
                    (at, answered)
                });
            }
            while let Some(probed) = probes.join_next().await {
                // A probe that panicked tells nothing.
                let Ok((at, state)) = probed else { continue };
                if self.infos()[at].state != AddressState::Connected {
                    self.set_state(at, state);
                }
            }
            sleep(interval).await;
        }
    }

    fn infos(&self) -> MutexGuard<'_, Vec<AddressInfo>> {
        self.infos.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn publish(&self) {
        let states = self
            .infos()
            .iter()
            .map(|it| it.state.clone())
            .collect::<Vec<_>>();
        let names = self.settings.addresses.iter().map(ToString::to_string);
        let all = names.zip(states).collect();
        let mut guard = self.broker.lock(Purpose::Other, None);
        let now = guard.now();
        let bridge = &self.settings.bridge;
        guard.broker().set_bridge_addresses(bridge, all, now);
    }
}
