//! Topic aliases, both ways (MQTT 5 section 3.3.2.3.4).

use foldhash::fast::FixedState;
use hashbrown::HashMap;

use crate::broker::model::alias::Alias;

/// Topic aliases, both ways (MQTT 5 section 3.3.2.3.4).
#[derive(Debug)]
pub struct Aliases {
    /// Set by the client: the alias is the place, minus one.
    pub inbound: Vec<Option<Box<str>>>,
    pub outbound: OutboundAliases,
}

/// Topic aliases set towards a peer, in the order topics come, and kept: topics beyond the maximum go by name.
#[derive(Debug)]
pub struct OutboundAliases {
    names: HashMap<Box<str>, u16, FixedState>,
    pub max: u16,
}

impl OutboundAliases {
    /// None yet, and at most `max`; `seed` keeps peers from choosing topics that collide.
    pub fn new(max: u16, seed: u64) -> OutboundAliases {
        let names = HashMap::with_hasher(FixedState::with_seed(seed));
        OutboundAliases { names, max }
    }

    /// How to name a topic if no alias is set for it.
    pub fn known(&self, topic: &str) -> Alias {
        let alias = self.names.get(topic);
        alias.map_or(Alias::None, |alias| Alias::Use(*alias))
    }

    /// How to name a topic.
    pub fn name(&mut self, topic: &str) -> Alias {
        if let Some(alias) = self.names.get(topic) {
            return Alias::Use(*alias);
        }
        let next = self.names.len() as u16 + 1;
        if next > self.max {
            return Alias::None;
        }
        self.names.insert(topic.into(), next);
        Alias::Set(next)
    }
}
