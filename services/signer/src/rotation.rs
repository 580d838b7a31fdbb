//! Which keys of a domain sign: those whose time has come, and whose successor's has not.

use std::time::Duration;

use config::DkimKey;

/// What one key signed is checked by receivers for so long at most: its record must stay in the DNS after it was replaced.
pub(crate) const KEEP_PUBLISHED: Duration = Duration::from_secs(7 * 86_400);

/// What the DNS says of a key; the last answer that says anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Publication {
    /// There was no answer yet.
    #[default]
    Unknown,
    /// It shows the key, as was first seen at this time (Unix milliseconds) and ever since.
    Shown(u64),
    /// There is no such record.
    Absent,
    /// There is another key, or more than one, or none that can be read.
    Other,
}

/// What is done with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// It signs.
    Active,
    /// It waits for its record.
    Pending,
    /// It was replaced; its record must be kept until then (Unix milliseconds).
    Retiring(u64),
    /// It was never read.
    Missing,
}

/// The use of each key of a domain. `facts` says whether a key is loaded, and what the DNS says of it.
///
/// A key is replaced once one that replaces it can sign, or was replaced itself: of `s1`, `s2`, `s3`, each replacing the
/// one before, the last one signs whose record is there. One that nothing is known of yet also takes the place of a key
/// whose record is gone.
pub(crate) fn uses(keys: &[DkimKey], facts: impl Fn(&DkimKey) -> (bool, Publication)) -> Vec<Use> {
    // Selectors of keys that are replaced, and since when. A key stands below the one that it replaces.
    let mut replaced: Vec<(&str, u64)> = Vec::new();
    let mut uses: Vec<Use> = keys
        .iter()
        .rev()
        .map(|key| {
            let (loaded, publication) = facts(key);
            let own = replaced
                .iter()
                .find(|(selector, _)| *selector == key.selector);
            let own = own.map(|(_, since)| *since);
            let ready_since = match publication {
                Publication::Shown(since) if loaded => Some(since),
                // There is no record that had to be kept.
                Publication::Unknown if loaded && is_replaced_one_gone(keys, key, &facts) => {
                    Some(0)
                }
                _ => None,
            };
            if let Some(before) = &key.replaces
                && let Some(since) = ready_since.or(own)
            {
                replaced.push((before, since));
            }
            let keep = u64::try_from(KEEP_PUBLISHED.as_millis()).unwrap_or(u64::MAX);
            match own {
                Some(since) => Use::Retiring(since.saturating_add(keep)),
                None if !loaded => Use::Missing,
                None if key.when_published && ready_since.is_none() => Use::Pending,
                None => Use::Active,
            }
        })
        .collect();
    uses.reverse();
    uses
}

/// Whether the key that would sign in the place of this one has no record of its own in the DNS, nor have those between.
fn is_replaced_one_gone(
    keys: &[DkimKey],
    key: &DkimKey,
    facts: &impl Fn(&DkimKey) -> (bool, Publication),
) -> bool {
    let mut row = keys.iter().rev();
    let mut after = key;
    // A key stands below the one that it replaces.
    while let Some(selector) = &after.replaces
        && let Some(before) = row.find(|key| key.selector == *selector)
        && matches!(facts(before).1, Publication::Absent | Publication::Other)
    {
        if !before.when_published {
            return true;
        }
        after = before;
    }
    false
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use config::DkimAlgorithm;

    use super::*;

    fn key(selector: &str, replaces: Option<&str>) -> DkimKey {
        DkimKey {
            selector: selector.to_owned(),
            algorithm: DkimAlgorithm::RsaSha256,
            key: PathBuf::from("/none"),
            when_published: replaces.is_some(),
            replaces: replaces.map(str::to_owned),
        }
    }

    #[test]
    fn the_last_key_signs_whose_record_is_there() {
        use Publication::{Absent, Other, Shown, Unknown};
        use Use::{Active, Missing, Pending, Retiring};
        let keys = [
            key("s1", None),
            key("s2", Some("s1")),
            key("s3", Some("s2")),
            key("e1", None),
        ];
        let keep = |since: u64| Retiring(since + 7 * 86_400_000);
        // Of s1, s2, s3 (e1 stands beside them): loaded, and what the DNS says; then what is done.
        for (facts, expected) in [
            (
                [(true, Unknown), (true, Unknown), (true, Unknown)],
                [Active, Pending, Pending],
            ),
            (
                [(true, Absent), (true, Absent), (true, Other)],
                [Active, Pending, Pending],
            ),
            (
                [(true, Shown(1)), (true, Shown(5)), (true, Absent)],
                [keep(5), Active, Pending],
            ),
            (
                [(true, Shown(1)), (true, Shown(5)), (true, Shown(9))],
                [keep(5), keep(9), Active],
            ),
            // The one between was never published.
            (
                [(true, Shown(1)), (true, Absent), (true, Shown(9))],
                [keep(9), keep(9), Active],
            ),
            // A key that can't be read takes no one's place.
            (
                [(true, Shown(1)), (false, Shown(5)), (true, Unknown)],
                [Active, Missing, Pending],
            ),
            // After a start: the record of the one that was replaced is gone, and nothing is known of its successor.
            (
                [(true, Absent), (true, Unknown), (true, Absent)],
                [keep(0), Active, Pending],
            ),
            (
                [(true, Other), (true, Absent), (true, Unknown)],
                [keep(0), keep(0), Active],
            ),
            (
                [(true, Absent), (false, Unknown), (true, Absent)],
                [Active, Missing, Pending],
            ),
            // What was never published takes no place of one that is.
            (
                [(true, Shown(1)), (true, Absent), (true, Unknown)],
                [Active, Pending, Pending],
            ),
            (
                [(true, Unknown), (true, Absent), (true, Unknown)],
                [Active, Pending, Pending],
            ),
            // And one that is replaced need not be read.
            (
                [(false, Unknown), (true, Shown(5)), (true, Unknown)],
                [keep(5), Active, Pending],
            ),
        ] {
            let found = uses(&keys, |key| match key.selector.as_str() {
                "s1" => facts[0],
                "s2" => facts[1],
                "s3" => facts[2],
                _ => (true, Unknown),
            });
            assert_eq!(found[..3], expected, "{facts:?}");
            assert_eq!(found[3], Active);
        }
    }

    #[test]
    fn a_first_key_may_wait_for_its_record_too() {
        let first = DkimKey {
            when_published: true,
            ..key("s1", None)
        };
        let keys = [first];
        let of = |publication| uses(&keys, |_| (true, publication));
        assert_eq!(of(Publication::Unknown), [Use::Pending]);
        assert_eq!(of(Publication::Shown(3)), [Use::Active]);
        assert_eq!(of(Publication::Absent), [Use::Pending]);
    }
}
