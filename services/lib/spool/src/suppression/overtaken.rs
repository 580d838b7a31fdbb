//! What others write into a shard while it is written anew.

use std::collections::{HashMap, HashSet};

use bytes::Bytes;
use proto::suppression::Change;
use proto::suppression::change::Kind;
use suppress::Scope;

/// Their records come after what was read, and stay.
#[derive(Debug, Default)]
pub(super) struct Overtaken {
    /// Entries and removals: ours of these addresses and scopes hold no more.
    changed: HashSet<(Bytes, Scope)>,
    /// Strikes since then. They take nothing from an entry or a removal, which still must be repeated.
    struck: HashMap<(Bytes, Scope), Change>,
}

impl Overtaken {
    /// Takes what another wrote, in the order of the log.
    pub(super) fn note(&mut self, change: Change) {
        let name = name_of(&change);
        match change.kind {
            Some(Kind::Entry(_) | Kind::Removal(_)) => {
                self.struck.remove(&name);
                self.changed.insert(name);
            }
            Some(Kind::Strikes(_)) => {
                self.struck.insert(name, change);
            }
            None => {}
        }
    }

    /// What of ours is still to be repeated. An entry and a removal begin the strikes anew: theirs are said again after it.
    pub(super) fn left(&self, ours: Vec<Change>) -> Vec<Change> {
        if self.changed.is_empty() && self.struck.is_empty() {
            return ours;
        }
        let mut left = Vec::with_capacity(ours.len());
        for change in ours {
            let name = name_of(&change);
            let struck = self.struck.get(&name);
            let is_strikes = matches!(change.kind, Some(Kind::Strikes(_)));
            if self.changed.contains(&name) || (is_strikes && struck.is_some()) {
                continue;
            }
            left.push(change);
            left.extend(struck.cloned());
        }
        left
    }
}

fn name_of(change: &Change) -> (Bytes, Scope) {
    (change.key.clone(), Scope::of(change))
}

#[cfg(test)]
mod tests {
    use proto::suppression::{Entry, Removal, Strikes};

    use super::*;

    fn change(who: u8, kind: Kind) -> Change {
        Change {
            key: vec![who; 16].into(),
            tenant: "acme".to_owned(),
            kind: Some(kind),
            ..Change::default()
        }
    }

    fn entry(who: u8) -> Change {
        change(who, Kind::Entry(Entry::default()))
    }

    fn removal(who: u8) -> Change {
        change(who, Kind::Removal(Removal::default()))
    }

    fn strikes(who: u8, day: u32) -> Change {
        change(who, Kind::Strikes(Strikes { days: vec![day] }))
    }

    #[test]
    fn strikes_of_others_take_no_entry_away() {
        let mut others = Overtaken::default();
        let ours = vec![entry(1), removal(2), entry(3), strikes(3, 7), strikes(4, 7)];
        assert_eq!(others.left(ours.clone()), ours);
        for who in 1..=4 {
            others.note(strikes(who, 8));
        }
        let left = others.left(ours);
        let repeated = [
            entry(1),
            strikes(1, 8),
            removal(2),
            strikes(2, 8),
            entry(3),
            strikes(3, 8),
        ];
        assert_eq!(left, repeated);
        // Overtaken once more, before it could be written.
        others.note(strikes(1, 9));
        let repeated = [entry(1), strikes(1, 9)];
        assert_eq!(others.left(left)[..2], repeated);
    }

    #[test]
    fn what_others_say_of_an_entry_holds() {
        let mut others = Overtaken::default();
        others.note(strikes(1, 8));
        others.note(removal(1));
        others.note(entry(2));
        others.note(strikes(2, 8));
        let ours = vec![entry(1), removal(2), strikes(2, 7), entry(3)];
        assert_eq!(others.left(ours), [entry(3)]);
        let mut elsewhere = entry(1);
        elsewhere.stream = "bulk".to_owned();
        let ours = vec![elsewhere];
        assert_eq!(others.left(ours.clone()), ours);
    }
}
