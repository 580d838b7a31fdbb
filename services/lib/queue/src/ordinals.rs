//! Recipients of deliveries, by their ordinals in the envelope, with the keys of their addresses.

use crate::arena::Arena;

/// No list.
const ALONE: u32 = u32::MAX;

/// The recipients of a delivery: one, which is the usual case and needs no memory beside the delivery's, or a list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ordinals {
    /// Of one that is alone; 0 = not known.
    key: u64,
    first: u16,
    /// Slot of the list, or [`ALONE`].
    list: u32,
}

impl Ordinals {
    /// The first of them; 0 when there are none.
    pub(crate) fn first(self) -> u16 {
        self.first
    }
}

#[derive(Debug)]
struct List {
    ordinals: Vec<u16>,
    /// Of their addresses, in their order; none where they are not known.
    keys: Vec<u64>,
}

/// The lists.
#[derive(Debug, Default)]
pub(crate) struct OrdinalLists {
    lists: Arena<List>,
}

impl OrdinalLists {
    /// Notes recipients and the keys of their addresses, as many or none; to be given to [`OrdinalLists::forget`] in the end.
    pub(crate) fn keep(&mut self, ordinals: &[u16], keys: &[u64]) -> Ordinals {
        let keys = if keys.len() == ordinals.len() {
            keys
        } else {
            &[]
        };
        let (list, key) = match ordinals {
            [_] => (ALONE, keys.first().copied().unwrap_or(0)),
            others => {
                let list = List {
                    ordinals: others.into(),
                    keys: keys.into(),
                };
                (self.lists.insert(list), 0)
            }
        };
        let first = ordinals.first().copied().unwrap_or(0);
        Ordinals { key, first, list }
    }

    pub(crate) fn get<'a>(&'a self, ordinals: &'a Ordinals) -> &'a [u16] {
        match ordinals.list {
            ALONE => std::slice::from_ref(&ordinals.first),
            list => self.lists.get(list).map_or(&[], |list| &list.ordinals),
        }
    }

    /// The keys of their addresses, in the same order; none where they are not known.
    pub(crate) fn keys<'a>(&'a self, ordinals: &'a Ordinals) -> &'a [u64] {
        match ordinals.list {
            ALONE if ordinals.key == 0 => &[],
            ALONE => std::slice::from_ref(&ordinals.key),
            list => self.lists.get(list).map_or(&[], |list| &list.keys),
        }
    }

    /// Each with the key of its address, or 0.
    pub(crate) fn with_keys(&self, ordinals: &Ordinals) -> Vec<(u16, u64)> {
        let keys = self.keys(ordinals).iter().copied();
        let keys = keys.chain(std::iter::repeat(0));
        self.get(ordinals).iter().copied().zip(keys).collect()
    }

    /// As [`OrdinalLists::keep`], of pairs.
    pub(crate) fn keep_pairs(&mut self, recipients: &[(u16, u64)]) -> Ordinals {
        let (ordinals, keys): (Vec<u16>, Vec<u64>) = recipients.iter().copied().unzip();
        let is_known = keys.iter().any(|key| *key != 0);
        self.keep(&ordinals, if is_known { &keys } else { &[] })
    }

    /// Takes one out, which is there with others.
    pub(crate) fn take_out(&mut self, ordinals: &mut Ordinals, ordinal: u16) {
        let Some(list) = self.lists.get_mut(ordinals.list) else {
            return;
        };
        let Some(at) = list.ordinals.iter().position(|of| *of == ordinal) else {
            return;
        };
        list.ordinals.remove(at);
        if !list.keys.is_empty() {
            list.keys.remove(at);
        }
        if let [first, others @ ..] = list.ordinals.as_slice() {
            ordinals.first = *first;
            if others.is_empty() {
                ordinals.key = list.keys.first().copied().unwrap_or(0);
                self.lists
                    .remove(std::mem::replace(&mut ordinals.list, ALONE));
            }
        }
    }

    pub(crate) fn contains(&self, ordinals: &Ordinals, ordinal: u16) -> bool {
        self.get(ordinals).contains(&ordinal)
    }

    pub(crate) fn forget(&mut self, ordinals: Ordinals) {
        self.lists.remove(ordinals.list);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_taken_out_is_gone_and_the_last_needs_no_list() {
        let mut lists = OrdinalLists::default();
        let mut named = lists.keep(&[3, 1, 9], &[30, 10, 90]);
        let mut nameless = lists.keep(&[3, 1], &[]);
        lists.take_out(&mut named, 7);
        lists.take_out(&mut named, 3);
        assert_eq!(named.first(), 1);
        assert_eq!(lists.with_keys(&named), [(1, 10), (9, 90)]);
        lists.take_out(&mut named, 1);
        assert_eq!(lists.with_keys(&named), [(9, 90)]);
        lists.take_out(&mut nameless, 1);
        assert_eq!(lists.with_keys(&nameless), [(3, 0)]);
        assert_eq!(lists.lists.len(), 0);
        lists.take_out(&mut named, 9);
        assert_eq!(lists.get(&named), [9]);
    }

    #[test]
    fn keeps_one_without_a_list_and_forgets_lists() {
        let mut lists = OrdinalLists::default();
        let one = lists.keep(&[7], &[70]);
        let many = lists.keep(&[3, 1, 65_535], &[30, 10, 0]);
        let nameless = lists.keep(&[3, 1], &[]);
        let none = lists.keep(&[], &[]);
        assert_eq!(lists.get(&one), [7]);
        assert_eq!(lists.get(&many), [3, 1, 65_535]);
        assert_eq!(lists.get(&none), [0; 0]);
        assert_eq!(lists.with_keys(&one), [(7, 70)]);
        assert_eq!(lists.with_keys(&many), [(3, 30), (1, 10), (65_535, 0)]);
        assert_eq!(lists.with_keys(&nameless), [(3, 0), (1, 0)]);
        assert_eq!(lists.keys(&nameless), [0; 0]);
        assert_eq!((one.first(), many.first()), (7, 3));
        assert!(lists.contains(&many, 1) && !lists.contains(&many, 7));
        assert_eq!(lists.lists.len(), 3);
        for ordinals in [one, many, nameless, none] {
            lists.forget(ordinals);
        }
        assert_eq!(lists.lists.len(), 0);
    }
}
