//! All entries in memory, 16 octets each.
//!
//! The table is 65,536 small lists, each in the order of its keys. So it grows by a little at a time, wherever an entry
//! goes, and never has to be doubled; who asks waits for nobody but the writer of one list. Of an address 64 bits of its
//! key are kept: with ten million entries, an address that has none is taken for one of them with a probability of
//! 5 in 10^13, and only if that one is of the same tenant and stream.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use proto::suppression::change::Kind;
use proto::suppression::{Change, Reason};

use crate::keys::{AddressKey, Keys, short};
use crate::scope::Scope;

/// Lists, by the first 16 bits of the keys.
const LISTS: usize = 1 << 16;
const LIST_SHIFT: u32 = 48;
/// Scopes have numbers below this; the reason is beside them.
const REASON_SHIFT: u32 = 28;
const MOST_SCOPES: u32 = 1 << REASON_SHIFT;
const GLOBAL: u32 = 0;
/// Steps from a guessed place before it is given up.
const STEPS: usize = 64;
const MINUTE_MS: u64 = 60_000;

/// Why nothing is sent, and for which mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hit {
    /// Why.
    pub reason: Reason,
    /// For which mail the entry holds.
    pub reach: Reach,
}

/// How far an entry reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// All mail.
    Global,
    /// The tenant's.
    Tenant,
    /// The stream's.
    Stream,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    key: u64,
    /// Number of the scope, and the reason above [`REASON_SHIFT`].
    scope_and_reason: u32,
    /// Minutes since 1970, rounded up; 0 = it has no end.
    expires_min: u32,
}

impl Slot {
    fn scope(self) -> u32 {
        self.scope_and_reason & (MOST_SCOPES - 1)
    }

    fn reason(self) -> Reason {
        let number = i32::try_from(self.scope_and_reason >> REASON_SHIFT).unwrap_or(0);
        Reason::try_from(number).unwrap_or_default()
    }

    fn is_over(self, now_ms: u64) -> bool {
        self.expires_min != 0 && u64::from(self.expires_min) * MINUTE_MS <= now_ms
    }

    fn place(self) -> (u64, u32) {
        (self.key, self.scope())
    }
}

#[derive(Debug, Default)]
struct OfTenant {
    /// 0 = no entry was ever of the whole tenant.
    own: u32,
    streams: HashMap<Box<str>, u32>,
}

#[derive(Debug, Default)]
struct Scopes {
    tenants: HashMap<Box<str>, OfTenant>,
    /// The last number given.
    last: u32,
}

impl Scopes {
    /// The number of a scope, a new one where it has none. `None` when there are too many.
    fn number(&mut self, tenant: &str, stream: &str) -> Option<u32> {
        if tenant.is_empty() {
            return Some(GLOBAL);
        }
        if let Some(known) = self.find(tenant, stream) {
            return Some(known);
        }
        if self.last + 1 >= MOST_SCOPES {
            return None;
        }
        self.last += 1;
        let of_tenant = self.tenants.entry(tenant.into()).or_default();
        if stream.is_empty() {
            of_tenant.own = self.last;
        } else {
            of_tenant.streams.insert(stream.into(), self.last);
        }
        Some(self.last)
    }

    fn find(&self, tenant: &str, stream: &str) -> Option<u32> {
        if tenant.is_empty() {
            return Some(GLOBAL);
        }
        let of_tenant = self.tenants.get(tenant)?;
        match stream {
            "" => Some(of_tenant.own).filter(|number| *number != 0),
            stream => of_tenant.streams.get(stream).copied(),
        }
    }

    /// How far an entry of this scope reaches for mail of a stream; `None`: not that far.
    fn reach(&self, scope: u32, tenant: &str, stream: &str) -> Option<Reach> {
        if scope == GLOBAL {
            return Some(Reach::Global);
        }
        let of_tenant = self.tenants.get(tenant)?;
        if of_tenant.own == scope {
            return Some(Reach::Tenant);
        }
        (of_tenant.streams.get(stream) == Some(&scope)).then_some(Reach::Stream)
    }
}

/// See the module. Shared by who asks and who follows the changes.
#[derive(Debug)]
pub struct Table {
    keys: Keys,
    lists: Box<[RwLock<Vec<Slot>>]>,
    scopes: RwLock<Scopes>,
    entries: AtomicUsize,
}

impl Table {
    /// An empty one.
    pub fn new(keys: Keys) -> Self {
        Self {
            keys,
            lists: (0..LISTS).map(|_| RwLock::default()).collect(),
            scopes: RwLock::default(),
            entries: AtomicUsize::new(0),
        }
    }

    /// What makes keys of addresses here.
    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Whether nothing is sent to an address by a stream, and why. To a transactional one what complaints and
    /// unsubscriptions brought about means nothing.
    pub fn lookup(
        &self,
        tenant: &str,
        stream: &str,
        is_transactional: bool,
        address: &str,
        now_ms: u64,
    ) -> Option<Hit> {
        let key = self.keys.short_of(address)?;
        self.lookup_key(tenant, stream, is_transactional, key, now_ms)
    }

    /// As [`Table::lookup`], by as much of a key as [`Keys::short_of`] gives.
    pub fn lookup_key(
        &self,
        tenant: &str,
        stream: &str,
        is_transactional: bool,
        key: u64,
        now_ms: u64,
    ) -> Option<Hit> {
        if key == 0 {
            return None;
        }
        let list = read(self.list(key));
        let first = first_of(&list, key);
        let of_key = list.get(first..)?.iter().take_while(|slot| slot.key == key);
        let holds = |slot: &&Slot| {
            let by_choice = matches!(slot.reason(), Reason::Complaint | Reason::Unsubscribe);
            let counts = !is_transactional || !by_choice;
            counts && !slot.is_over(now_ms)
        };
        let mut scopes = None;
        for slot in of_key.filter(holds) {
            let scopes = scopes.get_or_insert_with(|| read(&self.scopes));
            if let Some(reach) = scopes.reach(slot.scope(), tenant, stream) {
                let reason = slot.reason();
                return Some(Hit { reason, reach });
            }
        }
        None
    }

    /// Whether there is any entry of an address, whatever its scope and end, by as much of a key as [`Keys::short_of`] gives.
    pub fn knows(&self, key: u64) -> bool {
        let list = read(self.list(key));
        let first = first_of(&list, key);
        list.get(first).is_some_and(|slot| slot.key == key)
    }

    /// The entry of exactly this scope: its reason, and its end in Unix milliseconds, 0 = none.
    pub fn entry(&self, scope: &Scope, key: &AddressKey, now_ms: u64) -> Option<(Reason, u64)> {
        let number = read(&self.scopes).find(scope.tenant(), scope.stream())?;
        let key = short(key);
        let list = read(self.list(key));
        let found = list.binary_search_by_key(&(key, number), |slot| slot.place());
        let slot = found.ok().and_then(|at| list.get(at))?;
        let expires_ms = u64::from(slot.expires_min) * MINUTE_MS;
        (!slot.is_over(now_ms)).then_some((slot.reason(), expires_ms))
    }

    /// Takes a change of the log. Changes of an address come in order.
    pub fn apply(&self, change: &Change, now_ms: u64) {
        let Ok(key) = AddressKey::try_from(&change.key[..]) else {
            return;
        };
        let key = short(&key);
        match &change.kind {
            Some(Kind::Entry(entry)) => {
                let known = read(&self.scopes).find(&change.tenant, &change.stream);
                let number = || write(&self.scopes).number(&change.tenant, &change.stream);
                let Some(scope) = known.or_else(number) else {
                    return;
                };
                let reason = u32::try_from(entry.reason).unwrap_or(0) & 0xf;
                let expires_min = entry.expires_ms.div_ceil(MINUTE_MS);
                let slot = Slot {
                    key,
                    scope_and_reason: scope | (reason << REASON_SHIFT),
                    expires_min: u32::try_from(expires_min).unwrap_or(u32::MAX),
                };
                if slot.is_over(now_ms) {
                    self.remove(key, scope);
                } else {
                    self.insert(slot, now_ms);
                }
            }
            Some(Kind::Removal(_)) => {
                let scope = read(&self.scopes).find(&change.tenant, &change.stream);
                if let Some(scope) = scope {
                    self.remove(key, scope);
                }
            }
            Some(Kind::Strikes(_)) | None => {}
        }
    }

    /// Entries, some of which may be over.
    pub fn len(&self) -> usize {
        self.entries.load(Relaxed)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn list(&self, key: u64) -> &RwLock<Vec<Slot>> {
        let at = usize::try_from(key >> LIST_SHIFT).unwrap_or(0);
        &self.lists[at]
    }

    fn insert(&self, slot: Slot, now_ms: u64) {
        let mut list = write(self.list(slot.key));
        let found = list.binary_search_by_key(&slot.place(), |slot| slot.place());
        match found {
            Ok(at) => list[at] = slot,
            Err(mut at) => {
                if list.len() == list.capacity() {
                    let before = list.len();
                    list.retain(|slot| !slot.is_over(now_ms));
                    let over = before - list.len();
                    if over > 0 {
                        self.entries.fetch_sub(over, Relaxed);
                        at = list.partition_point(|other| other.place() < slot.place());
                    } else {
                        list.reserve_exact(before / 8 + 2);
                    }
                }
                list.insert(at, slot);
                self.entries.fetch_add(1, Relaxed);
            }
        }
    }

    fn remove(&self, key: u64, scope: u32) {
        let mut list = write(self.list(key));
        if let Ok(at) = list.binary_search_by_key(&(key, scope), |slot| slot.place()) {
            list.remove(at);
            self.entries.fetch_sub(1, Relaxed);
        }
    }
}

/// Where the slots of a key begin, or would. Keys are evenly spread: the place is guessed, and a few steps from there; so an
/// answer takes two or three lines of memory out of the hundred thousands that are in no cache.
fn first_of(list: &[Slot], key: u64) -> usize {
    let len = u64::try_from(list.len()).unwrap_or(u64::MAX);
    let within = u128::from(key << (u64::BITS - LIST_SHIFT)) * u128::from(len);
    let mut at = usize::try_from(within >> u64::BITS).unwrap_or(0);
    for _ in 0..STEPS {
        let before = at.checked_sub(1).and_then(|before| list.get(before));
        if before.is_some_and(|slot| slot.key >= key) {
            at -= 1;
        } else if list.get(at).is_some_and(|slot| slot.key < key) {
            at += 1;
        } else {
            return at;
        }
    }
    list.partition_point(|slot| slot.key < key)
}

/// A list is whole after every step: one that panicked elsewhere leaves nothing broken.
fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::suppression::{Entry, Removal};

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn table() -> Table {
        Table::new(Keys::new(&[7; 32]))
    }

    fn change(table: &Table, tenant: &str, stream: &str, address: &str, kind: Kind) -> Change {
        Change {
            key: table.keys().of(address).unwrap().to_vec().into(),
            tenant: tenant.to_owned(),
            stream: stream.to_owned(),
            kind: Some(kind),
            ..Change::default()
        }
    }

    fn add(table: &Table, tenant: &str, stream: &str, address: &str, reason: Reason, until: u64) {
        let entry = Entry {
            reason: reason.into(),
            expires_ms: until,
            ..Entry::default()
        };
        let change = change(table, tenant, stream, address, Kind::Entry(entry));
        table.apply(&change, NOW_MS);
    }

    #[test]
    fn an_entry_holds_for_its_scope_and_no_further() {
        let table = table();
        add(&table, "acme", "bulk", "s@x.example", Reason::Hard, 0);
        add(&table, "acme", "", "t@x.example", Reason::Manual, 0);
        add(&table, "", "", "g@x.example", Reason::Manual, 0);
        let hit = |tenant: &str, stream: &str, address: &str| {
            let hit = table.lookup(tenant, stream, false, address, NOW_MS);
            hit.map(|hit| hit.reach)
        };
        assert_eq!(hit("acme", "bulk", "S@x.example"), Some(Reach::Stream));
        assert_eq!(hit("acme", "other", "s@x.example"), None);
        assert_eq!(hit("bravo", "bulk", "s@x.example"), None);
        assert_eq!(hit("acme", "other", "t@x.example"), Some(Reach::Tenant));
        assert_eq!(hit("bravo", "bulk", "t@x.example"), None);
        assert_eq!(hit("bravo", "bulk", "g@x.example"), Some(Reach::Global));
        assert_eq!(hit("acme", "bulk", "other@x.example"), None);
        assert_eq!(hit("acme", "bulk", "no address"), None);
        assert_eq!(table.len(), 3);
    }

    #[test]
    fn transactional_mail_is_not_stopped_by_complaints_and_unsubscriptions() {
        let table = table();
        for (reason, stops) in [
            (Reason::Complaint, false),
            (Reason::Unsubscribe, false),
            (Reason::Hard, true),
            (Reason::Soft, true),
            (Reason::Manual, true),
            (Reason::Import, true),
        ] {
            add(&table, "acme", "", "a@x.example", reason, 0);
            let hit = |is| table.lookup("acme", "any", is, "a@x.example", NOW_MS);
            assert_eq!(hit(true).is_some(), stops, "{reason:?}");
            assert_eq!(hit(false).map(|hit| hit.reason), Some(reason));
        }
        // What does not count must not hide what does.
        add(&table, "", "", "b@x.example", Reason::Complaint, 0);
        add(&table, "acme", "any", "b@x.example", Reason::Hard, 0);
        let hit = table.lookup("acme", "any", true, "b@x.example", NOW_MS);
        assert_eq!(hit.map(|hit| hit.reason), Some(Reason::Hard));
    }

    #[test]
    fn an_entry_ends_by_itself_or_by_a_removal() {
        let table = table();
        let until = NOW_MS + 10 * MINUTE_MS;
        add(&table, "acme", "bulk", "a@x.example", Reason::Soft, until);
        let is_hit = |now_ms| {
            table
                .lookup("acme", "bulk", false, "a@x.example", now_ms)
                .is_some()
        };
        assert!(is_hit(until - MINUTE_MS) && !is_hit(until + MINUTE_MS));
        let key = table.keys().of("a@x.example").unwrap();
        let scope = Scope::new("acme", "bulk");
        assert_eq!(
            table.entry(&scope, &key, NOW_MS),
            Some((Reason::Soft, until))
        );
        let removal = Kind::Removal(Removal::default());
        table.apply(
            &change(&table, "acme", "bulk", "a@x.example", removal),
            NOW_MS,
        );
        assert!(!is_hit(NOW_MS) && table.is_empty());
        assert_eq!(table.entry(&scope, &key, NOW_MS), None);
        // It was over before it was read.
        add(
            &table,
            "acme",
            "bulk",
            "a@x.example",
            Reason::Soft,
            NOW_MS - MINUTE_MS,
        );
        assert!(table.is_empty());
    }

    #[test]
    fn what_is_over_makes_room() {
        let table = table();
        let until = NOW_MS + MINUTE_MS;
        let key = |number: u64| (0xabcd << LIST_SHIFT) | number;
        let slot = |number, expires_min| Slot {
            key: key(number),
            scope_and_reason: 1 << REASON_SHIFT,
            expires_min,
        };
        let soon = u32::try_from(until / MINUTE_MS).unwrap();
        for number in 0..1000 {
            table.insert(slot(number, soon), NOW_MS);
        }
        for number in 1000..3000 {
            table.insert(slot(number, 0), until + MINUTE_MS);
        }
        assert!(table.len() < 2_100, "{}", table.len());
        assert!((1000..3000).all(|number| {
            table
                .lookup_key("acme", "bulk", false, key(number), until)
                .is_some()
        }));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn is_what_a_map_would_be(steps in prop::collection::vec((0..40_u8, 0..4_u8, any::<bool>()), 1..300)) {
            let table = table();
            let mut map = std::collections::HashMap::new();
            let scopes = [("", ""), ("acme", ""), ("acme", "bulk"), ("bravo", "bulk")];
            for (who, scope, adds) in steps {
                let (tenant, stream) = scopes[usize::from(scope)];
                let address = format!("a{who}@x.example");
                if adds {
                    add(&table, tenant, stream, &address, Reason::Hard, 0);
                    map.insert((who, scope), ());
                } else {
                    let removal = Kind::Removal(Removal::default());
                    table.apply(&change(&table, tenant, stream, &address, removal), NOW_MS);
                    map.remove(&(who, scope));
                }
            }
            prop_assert_eq!(table.len(), map.len());
            for who in 0..40_u8 {
                let address = format!("a{who}@x.example");
                let reaches = |scopes: &[u8]| scopes.iter().any(|scope| map.contains_key(&(who, *scope)));
                let hit = |tenant, stream| table.lookup(tenant, stream, false, &address, NOW_MS).is_some();
                prop_assert_eq!(hit("acme", "bulk"), reaches(&[0, 1, 2]));
                prop_assert_eq!(hit("acme", "other"), reaches(&[0, 1]));
                prop_assert_eq!(hit("bravo", "bulk"), reaches(&[0, 3]));
            }
        }
    }
}
