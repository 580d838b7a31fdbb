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

    /// Everything that is worth repeating: what holds, and what ended lately.
    pub fn worth_keeping(&self, now_ms: u64) -> impl Iterator<Item = &Change> {
        let all = self.entries.values();
        let all = all.flat_map(|slots| [slots.entry.as_deref(), slots.strikes.as_deref()]);
        all.flatten().filter(move |change| {
            let is_recent = change.at_ms.saturating_add(KEPT_MS) > now_ms;
            match &change.kind {
                Some(Kind::Entry(entry)) => entry.expires_ms == 0 || entry.expires_ms > now_ms,
                Some(Kind::Removal(_)) | None => is_recent,
                Some(Kind::Strikes(strikes)) => {
                    let last = strikes.days.last().copied().unwrap_or(0);
                    is_recent || crate::day_of(now_ms).saturating_sub(last) < LONGEST_DAYS
                }
            }
        })
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
