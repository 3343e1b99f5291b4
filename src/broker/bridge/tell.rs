//! What a bridge tells of its addresses, under `$SYS`.

use crate::broker::Broker;
use crate::broker::bridge::settings::Bridge;
use crate::broker::state::address_state::AddressState;
use crate::clock::Now;

impl Broker {
    /// Notes what is known of each of a bridge's addresses, in the order of the configuration, and
    /// publishes what has changed of that at once.
    pub fn set_bridge_addresses(
        &mut self,
        bridge: &Bridge,
        addresses: Vec<(String, AddressState)>,
        now: Now,
    ) {
        self.now = now;
        let Some(state) = self.bridges.states.get_mut(&bridge.name) else {
            return;
        };
        let before = std::mem::replace(&mut state.addresses, addresses.clone());
        let name = &bridge.name;
        let connected = addresses
            .iter()
            .find(|(_, standing)| *standing == AddressState::Connected);
        let connected = connected.map_or("", |(address, _)| address);
        self.publish_or_withdraw(&format!("$SYS/bridge/{name}/address"), connected);
        for place in 0..before.len().max(addresses.len()) {
            let told = addresses.get(place);
            let told = told.map(|(address, standing)| format!("{address} {standing}"));
            let topic = address_topic(name, place);
            self.publish_or_withdraw(&topic, told.as_deref().unwrap_or_default());
        }
    }

    /// An empty payload takes away what is retained, and is not published where nothing is.
    pub(in crate::broker) fn publish_or_withdraw(&mut self, topic: &str, payload: &str) {
        if !payload.is_empty() || self.retained.get(topic).is_some() {
            self.publish_sys_topic(topic, payload);
        }
    }
}

/// Where what is known of an address is published: they are counted from 1, in the order of the
/// configuration.
pub(in crate::broker) fn address_topic(name: &str, place: usize) -> String {
    format!("$SYS/bridge/{name}/addresses/{}", place + 1)
}
