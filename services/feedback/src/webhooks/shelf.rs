//! How far the webhooks are in one source, kept together in one value.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use proto::webhook::{Position, Positions};

/// The place of one webhook.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// The last record that is settled.
    pub(crate) sequence: u64,
    /// Unix milliseconds; 0 = it accepts.
    pub(crate) failing_since_ms: u64,
}

/// The places of all webhooks in a source.
#[derive(Debug, Default)]
pub(crate) struct Shelf {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    places: BTreeMap<String, Place>,
    is_changed: bool,
}

impl Inner {
    fn positions(&self) -> Positions {
        let position = |(webhook, place): (&String, &Place)| Position {
            webhook: webhook.clone(),
            sequence: place.sequence,
            failing_since_ms: place.failing_since_ms,
        };
        Positions {
            positions: self.places.iter().map(position).collect(),
            ..Positions::default()
        }
    }
}

impl Shelf {
    /// As they were kept.
    pub(crate) fn of(positions: Positions) -> Self {
        let places = positions.positions.into_iter().map(|position| {
            let place = Place {
                sequence: position.sequence,
                failing_since_ms: position.failing_since_ms,
            };
            (position.webhook, place)
        });
        Self {
            inner: Mutex::new(Inner {
                places: places.collect(),
                is_changed: false,
            }),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn get(&self, webhook: &str) -> Option<Place> {
        self.inner().places.get(webhook).copied()
    }

    pub(crate) fn set(&self, webhook: &str, place: Place) {
        let mut inner = self.inner();
        inner.places.insert(webhook.to_owned(), place);
        inner.is_changed = true;
    }

    /// Everything up to a record is settled.
    pub(crate) fn advance(&self, webhook: &str, through: u64) {
        let mut inner = self.inner();
        if let Some(place) = inner.places.get_mut(webhook)
            && place.sequence < through
        {
            place.sequence = through;
            inner.is_changed = true;
        }
    }

    /// Since when nothing is accepted, Unix milliseconds; 0 = it is.
    pub(crate) fn failing(&self, webhook: &str, since_ms: u64) {
        let mut inner = self.inner();
        if let Some(place) = inner.places.get_mut(webhook)
            && place.failing_since_ms != since_ms
        {
            place.failing_since_ms = since_ms;
            inner.is_changed = true;
        }
    }

    /// Names of webhooks other than these.
    pub(crate) fn others(&self, webhooks: &BTreeSet<String>) -> Vec<String> {
        let inner = self.inner();
        let others = inner.places.keys().filter(|name| !webhooks.contains(*name));
        others.cloned().collect()
    }

    /// Forgets a webhook.
    pub(crate) fn remove(&self, webhook: &str) {
        let mut inner = self.inner();
        if inner.places.remove(webhook).is_some() {
            inner.is_changed = true;
        }
    }

    /// What is to be kept, if it has changed since it was asked for last.
    pub(crate) fn take_changed(&self) -> Option<Positions> {
        let mut inner = self.inner();
        if !std::mem::take(&mut inner.is_changed) {
            return None;
        }
        Some(inner.positions())
    }

    /// What was taken is not kept yet.
    pub(crate) fn put_back(&self) {
        self.inner().is_changed = true;
    }

    /// What was taken is kept; it may have changed since.
    pub(crate) fn kept(&self, positions: &Positions) {
        let mut inner = self.inner();
        inner.is_changed = inner.positions() != *positions;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_only_go_forward_and_are_kept_when_they_change() {
        let shelf = Shelf::default();
        shelf.advance("a", 9);
        assert_eq!((shelf.get("a"), shelf.take_changed()), (None, None));
        let place = Place {
            sequence: 5,
            failing_since_ms: 0,
        };
        shelf.set("a", place);
        shelf.set("b", place);
        shelf.advance("a", 9);
        shelf.advance("a", 7);
        shelf.failing("b", 100);
        let positions = shelf.take_changed().unwrap();
        assert_eq!(shelf.take_changed(), None);
        shelf.advance("a", 9);
        shelf.failing("b", 100);
        assert_eq!(shelf.take_changed(), None);
        shelf.put_back();
        assert_eq!(shelf.take_changed().as_ref(), Some(&positions));
        shelf.put_back();
        shelf.kept(&positions);
        assert_eq!(shelf.take_changed(), None);
        shelf.kept(&Positions::default());
        assert_eq!(shelf.take_changed().as_ref(), Some(&positions));

        let again = Shelf::of(positions);
        assert_eq!(again.get("a").unwrap().sequence, 9);
        assert_eq!(again.get("b").unwrap().failing_since_ms, 100);
        assert_eq!(again.take_changed(), None);
        let gone = again.others(&BTreeSet::from(["b".to_owned()]));
        assert_eq!(gone, ["a"]);
        again.remove("a");
        assert_eq!(again.get("a"), None);
        assert_eq!(again.take_changed().unwrap().positions.len(), 1);
    }
}
