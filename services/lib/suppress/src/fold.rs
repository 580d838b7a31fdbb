//! What the changes of a shard come to.

use std::collections::HashMap;

use proto::suppression::Change;
use proto::suppression::change::Kind;

use crate::keys::AddressKey;
use crate::scope::Scope;

/// So long it is repeated that an entry was removed, milliseconds: 7 days. Who follows the log and was away for less
/// misses nothing, though the log was written anew meanwhile.
pub const KEPT_MS: u64 = 7 * 86_400_000;

/// What holds, by address and scope, with all that is stored of it. Changes come in the order of the log.
#[derive(Debug, Default)]
pub struct Fold {
    entries: HashMap<(AddressKey, Scope), Slots>,
}

/// What is known of an address in a scope.
#[derive(Debug, Default)]
struct Slots {
    /// The entry, or its removal.
    entry: Option<Box<Change>>,
    /// It came after another entry, which readers may know still.
    replaces: bool,
    strikes: Option<Box<Change>>,
}

impl Fold {
    /// Takes a change of the log.
    pub fn apply(&mut self, change: Change) {
        let Ok(key) = AddressKey::try_from(&change.key[..]) else {
            return;
        };
        let slots = self.entries.entry((key, Scope::of(&change)));
        let slots = slots.or_default();
        match &change.kind {
            // From then on failures are counted anew.
            Some(Kind::Entry(_) | Kind::Removal(_)) => {
                let before = slots.entry.as_ref().and_then(|before| before.kind.as_ref());
                slots.replaces |= matches!(before, Some(Kind::Entry(_)));
                slots.entry = Some(Box::new(change));
                slots.strikes = None;
            }
            Some(Kind::Strikes(_)) => slots.strikes = Some(Box::new(change)),
            // Of a later release, which raises the format when it matters.
            None => {}
        }
    }

    /// The entries that hold, in no order.
    pub fn entries(&self, now_ms: u64) -> impl Iterator<Item = &Change> {
        let entries = self
            .entries
            .values()
            .filter_map(|slots| slots.entry.as_deref());
        entries.filter(move |change| match &change.kind {
            Some(Kind::Entry(entry)) => entry.expires_ms == 0 || entry.expires_ms > now_ms,
            _ => false,
        })
    }

    /// Everything that is worth repeating: what holds, and what ended lately. A removal whose entry goes now is repeated once,
    /// however old it says that it is; an entry that is over is as good as a removal.
    pub fn worth_keeping(&self, now_ms: u64) -> impl Iterator<Item = &Change> {
        let all = self.entries.values();
        let all = all.flat_map(|slots| {
            let entry = slots.entry.as_deref().map(|entry| (entry, slots.replaces));
            let strikes = slots.strikes.as_deref().map(|strikes| (strikes, false));
            [entry, strikes]
        });
        let all = all.flatten().filter(move |(change, replaces)| {
            let is_recent = change.at_ms.saturating_add(KEPT_MS) > now_ms;
            match &change.kind {
                Some(Kind::Entry(entry)) if entry.expires_ms == 0 || entry.expires_ms > now_ms => {
                    true
                }
                Some(Kind::Entry(_) | Kind::Removal(_)) => is_recent || *replaces,
                None => is_recent,
                Some(Kind::Strikes(strikes)) => {
                    let last = strikes.days.last().copied().unwrap_or(0);
                    is_recent || crate::day_of(now_ms).saturating_sub(last) < LONGEST_DAYS
                }
            }
        });
        all.map(|(change, _)| change)
    }
}

/// Strikes are not counted for longer, days.
pub(crate) const LONGEST_DAYS: u32 = 366;

#[cfg(test)]
mod tests {
    use proto::suppression::{Entry, Reason, Removal, Strikes};

    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn change(who: u8, stream: &str, at_ms: u64, kind: Kind) -> Change {
        Change {
            key: vec![who; 16].into(),
            tenant: "acme".to_owned(),
            stream: stream.to_owned(),
            at_ms,
            kind: Some(kind),
            ..Change::default()
        }
    }

    fn entry(expires_ms: u64) -> Kind {
        Kind::Entry(Entry {
            reason: Reason::Hard.into(),
            expires_ms,
            ..Entry::default()
        })
    }

    #[test]
    fn the_last_change_of_an_address_and_scope_counts() {
        let mut fold = Fold::default();
        let removal = Kind::Removal(Removal::default());
        fold.apply(change(1, "bulk", NOW_MS, entry(0)));
        fold.apply(change(1, "bulk", NOW_MS, removal.clone()));
        fold.apply(change(1, "news", NOW_MS, entry(0)));
        fold.apply(change(2, "bulk", NOW_MS, removal));
        fold.apply(change(2, "bulk", NOW_MS, entry(NOW_MS + 1)));
        fold.apply(change(3, "bulk", NOW_MS, entry(NOW_MS)));
        let mut streams: Vec<(u8, &str)> = fold
            .entries(NOW_MS)
            .map(|of| (of.key[0], of.stream.as_str()))
            .collect();
        streams.sort_unstable();
        assert_eq!(streams, [(1, "news"), (2, "bulk")]);
    }

    #[test]
    fn what_ends_an_entry_is_repeated_once_however_old_it_is() {
        let old = NOW_MS - 2 * KEPT_MS;
        let removal = || Kind::Removal(Removal::default());
        let mut fold = Fold::default();
        fold.apply(change(1, "bulk", old, entry(0)));
        fold.apply(change(1, "bulk", old, removal()));
        // As it was followed, it has no end.
        fold.apply(change(2, "bulk", old, entry(0)));
        fold.apply(change(2, "bulk", old, entry(NOW_MS - 1)));
        // Nobody knows it longer than it says.
        fold.apply(change(3, "bulk", old, entry(NOW_MS - 1)));
        fold.apply(change(4, "bulk", old, removal()));
        let kept = |fold: &Fold| {
            let mut kept: Vec<Change> = fold.worth_keeping(NOW_MS).cloned().collect();
            kept.sort_unstable_by(|a, b| a.key.cmp(&b.key));
            kept
        };
        let repeated = kept(&fold);
        let who: Vec<u8> = repeated.iter().map(|change| change.key[0]).collect();
        assert_eq!(who, [1, 2]);
        let mut anew = Fold::default();
        repeated.into_iter().for_each(|change| anew.apply(change));
        assert_eq!(kept(&anew), []);
    }

    #[test]
    fn removals_are_repeated_for_a_while_and_strikes_as_long_as_they_count() {
        let mut fold = Fold::default();
        let removal = || Kind::Removal(Removal::default());
        let strikes = |day| Kind::Strikes(Strikes { days: vec![day] });
        let old = NOW_MS - KEPT_MS;
        let today = crate::day_of(NOW_MS);
        fold.apply(change(1, "bulk", old + 1, removal()));
        fold.apply(change(2, "bulk", old, removal()));
        fold.apply(change(3, "bulk", old, strikes(1)));
        fold.apply(change(3, "bulk", old, entry(0)));
        fold.apply(change(3, "bulk", old, strikes(today - LONGEST_DAYS + 1)));
        fold.apply(change(4, "bulk", old, strikes(today - LONGEST_DAYS)));
        fold.apply(change(5, "bulk", old, Kind::Strikes(Strikes::default())));
        fold.apply(change(
            6,
            "bulk",
            old + 1,
            Kind::Strikes(Strikes::default()),
        ));
        let mut kept: Vec<u8> = fold.worth_keeping(NOW_MS).map(|of| of.key[0]).collect();
        kept.sort_unstable();
        assert_eq!(kept, [1, 3, 3, 6]);
    }
}
