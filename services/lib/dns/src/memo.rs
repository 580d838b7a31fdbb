//! What was found lately, ready to use.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Mutex;
use std::time::Instant;

/// A bounded map of answers with an end each. The resolver's own cache holds records; this one spares
/// the hot path their conversion, and keeps failures for a moment too.
pub(crate) struct Memo<K, V> {
    entries: Mutex<HashMap<K, (Instant, V)>>,
    capacity: usize,
}

impl<K: Eq + Hash + Clone, V: Clone> Memo<K, V> {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            entries: Mutex::new(HashMap::new()),
            capacity,
        }
    }

    pub(crate) fn get<Q>(&self, key: &Q, now: Instant) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        let entries = self
            .entries
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        entries
            .get(key)
            .filter(|(until, _)| now < *until)
            .map(|(_, value)| value.clone())
    }

    /// When full, what has ended goes; when that is not enough, everything: a miss costs a question
    /// to a resolver that has the answer in its cache.
    pub(crate) fn put(&self, key: K, value: V, until: Instant, now: Instant) {
        let mut entries = self
            .entries
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if entries.len() >= self.capacity && !entries.contains_key(&key) {
            entries.retain(|_, (until, _)| now < *until);
            if entries.len() >= self.capacity {
                entries.clear();
            }
        }
        entries.insert(key, (until, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn forgets_what_has_ended_and_never_grows_beyond_its_capacity() {
        let memo = Memo::new(3);
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        memo.put(1, "one", after(1), start);
        memo.put(2, "two", after(10), start);
        assert_eq!(memo.get(&1, start), Some("one"));
        assert_eq!(memo.get(&1, after(1)), None);
        memo.put(3, "three", after(10), after(1));
        memo.put(4, "four", after(10), after(1));
        assert_eq!(memo.get(&2, after(1)), Some("two"));
        assert_eq!(memo.get(&4, after(1)), Some("four"));
        memo.put(5, "five", after(10), after(1));
        assert_eq!(memo.get(&2, after(1)), None);
        assert_eq!(memo.get(&5, after(1)), Some("five"));
    }
}
