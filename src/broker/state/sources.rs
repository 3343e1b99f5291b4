//! Who published what is retained: each publisher once, however many messages it has.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;

use crate::broker::model::record::Source;

/// Bytes a publisher takes beside its names.
const OVERHEAD: u64 = 64;

/// The publishers of retained messages.
#[derive(Debug, Default)]
pub struct Sources {
    /// How many messages each has.
    known: BTreeMap<Arc<Source>, u32>,
    /// Bytes of all of them.
    bytes: u64,
    /// How often the rules have changed.
    changes: u32,
}

/// Whether a publisher may publish what is retained of it, and after which change of the rules that
/// was so; `None` if it was not asked.
#[derive(Clone, Copy, Debug, Default)]
pub struct Verdict(Option<(u32, bool)>);

impl Sources {
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The same publisher, if it is known already.
    pub fn find(&self, source: Source) -> Arc<Source> {
        match self.known.get_key_value(&source) {
            Some((known, _)) => known.clone(),
            None => Arc::new(source),
        }
    }

    /// Bytes that come to [`Sources::bytes`] if a publisher has another message.
    pub fn more(&self, source: &Source) -> u64 {
        match self.known.contains_key(source) {
            true => 0,
            false => size(source),
        }
    }

    /// A publisher has one message more.
    pub fn hold(&mut self, source: Arc<Source>) -> Arc<Source> {
        match self.known.entry(source) {
            Entry::Occupied(mut known) => {
                *known.get_mut() += 1;
                known.key().clone()
            }
            Entry::Vacant(place) => {
                self.bytes += size(place.key());
                let source = place.key().clone();
                place.insert(1);
                source
            }
        }
    }

    /// A message is gone, or another has its place.
    pub fn release(&mut self, source: Option<Arc<Source>>) {
        let Some(source) = source else {
            return;
        };
        if let Entry::Occupied(mut known) = self.known.entry(source) {
            *known.get_mut() -= 1;
            if *known.get() == 0 {
                self.bytes -= size(known.key());
                known.remove();
            }
        }
    }

    /// The rules have changed: no verdict holds any more.
    pub fn ask_again(&mut self) {
        self.changes = self.changes.wrapping_add(1);
    }

    /// What a verdict says, if it still holds; otherwise `asked` says it.
    pub fn ask(&self, verdict: &mut Verdict, asked: impl FnOnce() -> bool) -> bool {
        match verdict.0 {
            Some((changes, may)) if changes == self.changes => may,
            _ => {
                let may = asked();
                verdict.0 = Some((self.changes, may));
                may
            }
        }
    }
}

fn size(source: &Source) -> u64 {
    let texts = [
        Some(&source.client_id),
        source.user.as_ref(),
        source.acl.as_ref(),
    ];
    let texts = texts.into_iter().flatten().map(|text| text.len() as u64);
    OVERHEAD + texts.sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(client_id: &str) -> Source {
        Source {
            client_id: client_id.into(),
            user: Some("user".into()),
            acl: None,
        }
    }

    #[test]
    fn a_publisher_is_there_once_while_it_has_a_message() {
        let mut sources = Sources::default();
        let one = sources.hold(Arc::new(source("a")));
        let other = sources.hold(sources.find(source("a")));
        assert!(Arc::ptr_eq(&one, &other));
        // As from the store, where each row has its own.
        let third = sources.hold(Arc::new(source("a")));
        assert!(Arc::ptr_eq(&one, &third));
        assert_eq!(sources.more(&source("a")), 0);
        assert_eq!(sources.more(&source("bc")), OVERHEAD + 6);
        assert_eq!(sources.bytes(), OVERHEAD + 5);
        for held in [one, other, third] {
            assert_eq!(sources.known.len(), 1);
            sources.release(Some(held));
        }
        sources.release(None);
        assert_eq!((sources.known.len(), sources.bytes()), (0, 0));
    }

    #[test]
    fn a_verdict_holds_until_the_rules_change() {
        let mut sources = Sources::default();
        let mut verdict = Verdict::default();
        assert!(sources.ask(&mut verdict, || true));
        assert!(sources.ask(&mut verdict, || panic!("asked again")));
        sources.ask_again();
        assert!(!sources.ask(&mut verdict, || false));
        assert!(!sources.ask(&mut verdict, || panic!("asked again")));
    }
}
