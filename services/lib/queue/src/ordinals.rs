//! Recipients of deliveries, by their ordinals in the envelope.

use crate::arena::Arena;

/// No list.
const ALONE: u32 = u32::MAX;

/// The recipients of a delivery: one, which is the usual case and needs no memory beside the delivery's, or a list.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ordinals {
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

/// The lists.
#[derive(Debug, Default)]
pub(crate) struct OrdinalLists {
    lists: Arena<Box<[u16]>>,
}

impl OrdinalLists {
    /// Notes recipients; to be given to [`OrdinalLists::forget`] in the end.
    pub(crate) fn keep(&mut self, ordinals: &[u16]) -> Ordinals {
        let list = match ordinals {
            [_] => ALONE,
            others => self.lists.insert(others.into()),
        };
        let first = ordinals.first().copied().unwrap_or(0);
        Ordinals { first, list }
    }

    pub(crate) fn get<'a>(&'a self, ordinals: &'a Ordinals) -> &'a [u16] {
        match ordinals.list {
            ALONE => std::slice::from_ref(&ordinals.first),
            list => self.lists.get(list).map_or(&[], |list| list),
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
    fn keeps_one_without_a_list_and_forgets_lists() {
        let mut lists = OrdinalLists::default();
        let one = lists.keep(&[7]);
        let many = lists.keep(&[3, 1, 65_535]);
        let none = lists.keep(&[]);
        assert_eq!(lists.get(&one), [7]);
        assert_eq!(lists.get(&many), [3, 1, 65_535]);
        assert_eq!(lists.get(&none), [0; 0]);
        assert_eq!((one.first(), many.first()), (7, 3));
        assert!(lists.contains(&many, 1) && !lists.contains(&many, 7));
        assert_eq!(lists.lists.len(), 2);
        for ordinals in [one, many, none] {
            lists.forget(ordinals);
        }
        assert_eq!(lists.lists.len(), 0);
    }
}
