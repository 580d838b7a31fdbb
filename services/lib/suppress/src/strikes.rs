//! Addresses that failed for a while, and on which days.

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::keys::AddressKey;
use crate::scope::Scope;

/// Addresses that are known at most; then the half that failed longest ago is forgotten.
const MOST: usize = 500_000;
const DAY_MS: u64 = 86_400_000;

/// How often an address may fail for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// From so many days on it is suppressed; 0: never.
    pub days: u32,
    /// In which they lie, days.
    pub within: u32,
}

type Days = SmallVec<[u32; 4]>;

/// The day of a time (Unix milliseconds), counted from 1970-01-01 (UTC).
pub fn day_of(unix_ms: u64) -> u32 {
    u32::try_from(unix_ms / DAY_MS).unwrap_or(u32::MAX)
}

/// On which days addresses failed for a while, since they were last delivered to. Several failures on one day are one:
/// a campaign of three messages says no more of a mailbox than one.
#[derive(Debug, Default)]
pub struct Strikes {
    /// Streams have one map each, so that the names are not kept with each address.
    scopes: HashMap<Scope, HashMap<AddressKey, Days>>,
    len: usize,
}

/// What a failure comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Struck {
    /// It was counted before.
    Known,
    /// It is counted; these are the days.
    Counted(Vec<u32>),
    /// That was one too many: the address is forgotten here, and to be suppressed.
    Out,
}

impl Strikes {
    /// Takes what the log says.
    pub fn restore(&mut self, scope: Scope, key: AddressKey, days: &[u32]) {
        if days.is_empty() {
            self.forget(&scope, &key);
            return;
        }
        let of_scope = self.scopes.entry(scope).or_default();
        if of_scope.insert(key, Days::from_slice(days)).is_none() {
            self.len += 1;
        }
        self.bound();
    }

    /// An address failed for a while.
    pub fn strike(&mut self, scope: &Scope, key: AddressKey, at_ms: u64, limit: Limit) -> Struck {
        if limit.days == 0 {
            return Struck::Known;
        }
        let day = day_of(at_ms);
        let of_scope = match self.scopes.get_mut(scope) {
            Some(of_scope) => of_scope,
            None => self.scopes.entry(scope.clone()).or_default(),
        };
        let before = of_scope.len();
        let days = of_scope.entry(key).or_default();
        let is_known = days.contains(&day);
        days.retain(|past| past.saturating_add(limit.within) > day);
        if !days.contains(&day) {
            days.push(day);
            days.sort_unstable();
        }
        let struck = if days.len() >= usize::try_from(limit.days).unwrap_or(usize::MAX) {
            Struck::Out
        } else if is_known {
            Struck::Known
        } else {
            Struck::Counted(days.to_vec())
        };
        self.len += of_scope.len() - before;
        if struck == Struck::Out {
            self.forget(scope, &key);
        }
        self.bound();
        struck
    }

    /// An address was delivered to, or is suppressed. True when it had failed before.
    pub fn forget(&mut self, scope: &Scope, key: &AddressKey) -> bool {
        let Some(of_scope) = self.scopes.get_mut(scope) else {
            return false;
        };
        let was = of_scope.remove(key).is_some();
        self.len -= usize::from(was);
        if of_scope.is_empty() {
            self.scopes.remove(scope);
        }
        was
    }

    /// Whether any address of a scope is known: nothing need be looked up where none is.
    pub fn concerns(&self, scope: &Scope) -> bool {
        self.scopes.contains_key(scope)
    }

    /// Addresses that are known.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn bound(&mut self) {
        if self.len <= MOST {
            return;
        }
        let last_of = |days: &Days| days.last().copied().unwrap_or(0);
        let all = self.scopes.values().flat_map(HashMap::values);
        let mut lasts: Vec<u32> = all.map(last_of).collect();
        let middle = lasts.len() / 2;
        let (_, oldest, _) = lasts.select_nth_unstable(middle);
        let oldest = *oldest;
        // All of one day go when all are of one day.
        for of_scope in self.scopes.values_mut() {
            of_scope.retain(|_, days| last_of(days) > oldest);
        }
        self.scopes.retain(|_, of_scope| !of_scope.is_empty());
        self.len = self.scopes.values().map(HashMap::len).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 20_000 * DAY_MS;
    const LIMIT: Limit = Limit {
        days: 3,
        within: 10,
    };

    fn key(number: u32) -> AddressKey {
        let mut key = AddressKey::default();
        key[..4].copy_from_slice(&number.to_be_bytes());
        key
    }

    #[test]
    fn so_many_days_within_the_time_are_too_many() {
        let mut strikes = Strikes::default();
        let scope = Scope::new("acme", "bulk");
        let mut strike = |day: u64| strikes.strike(&scope, key(1), NOW_MS + day * DAY_MS, LIMIT);
        assert_eq!(strike(0), Struck::Counted(vec![20_000]));
        assert_eq!(strike(0), Struck::Known);
        assert_eq!(strike(1), Struck::Counted(vec![20_000, 20_001]));
        // The first two are too long ago by then.
        assert_eq!(strike(11), Struck::Counted(vec![20_011]));
        assert_eq!(strike(12), Struck::Counted(vec![20_011, 20_012]));
        assert_eq!(strike(20), Struck::Out);
        // And from the beginning.
        assert_eq!(strike(20), Struck::Counted(vec![20_020]));
        assert_eq!(strikes.len(), 1);
    }

    #[test]
    fn a_delivery_makes_good_and_scopes_are_apart() {
        let mut strikes = Strikes::default();
        let (bulk, news) = (Scope::new("acme", "bulk"), Scope::new("acme", "news"));
        strikes.strike(&bulk, key(1), NOW_MS, LIMIT);
        strikes.strike(&news, key(1), NOW_MS, LIMIT);
        assert!(strikes.concerns(&bulk) && strikes.forget(&bulk, &key(1)));
        assert!(!strikes.concerns(&bulk) && !strikes.forget(&bulk, &key(1)));
        assert_eq!(strikes.len(), 1);
        strikes.restore(bulk.clone(), key(1), &[19_998, 19_999]);
        assert_eq!(strikes.strike(&bulk, key(1), NOW_MS, LIMIT), Struck::Out);
        strikes.restore(news, key(1), &[]);
        assert!(strikes.is_empty());
        let off = Limit { days: 0, ..LIMIT };
        assert_eq!(strikes.strike(&bulk, key(1), NOW_MS, off), Struck::Known);
    }

    #[test]
    fn knows_only_so_many_and_forgets_the_oldest() {
        let mut strikes = Strikes::default();
        let scope = Scope::new("acme", "bulk");
        for number in 0..u32::try_from(MOST + 1).unwrap() {
            let day = u64::from(number >= u32::try_from(MOST / 2 + 2).unwrap());
            strikes.strike(&scope, key(number), NOW_MS + day * DAY_MS, LIMIT);
        }
        assert!(strikes.len() < MOST / 2 + 1, "{}", strikes.len());
        let last = key(u32::try_from(MOST).unwrap());
        assert!(strikes.forget(&scope, &last));
        assert!(!strikes.forget(&scope, &key(0)));
    }
}
