//! Names that many deliveries share, each held once and counted.

use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

/// Number of a name.
pub(crate) type Name = u32;

#[derive(Debug, Default)]
pub(crate) struct Strings {
    /// By the hashes of the texts, which are in the entries.
    numbers: HashTable<Name>,
    hasher: DefaultHashBuilder,
    entries: Vec<Option<(Arc<str>, u32)>>,
    free: Vec<Name>,
}

impl Strings {
    /// The number of a name, with one more use counted.
    pub(crate) fn acquire(&mut self, text: &str) -> Name {
        if let Some(name) = self.find(text) {
            self.share(name);
            return name;
        }
        let shared: Arc<str> = text.into();
        let entry = Some((shared, 1));
        let name = match self.free.pop() {
            Some(name) => {
                self.entries[name as usize] = entry;
                name
            }
            None => {
                self.entries.push(entry);
                (self.entries.len() - 1) as Name
            }
        };
        let (hasher, entries) = (&self.hasher, &self.entries);
        let hash_of = |&name: &Name| hasher.hash_one(text_of(entries, name));
        self.numbers
            .insert_unique(hasher.hash_one(text), name, hash_of);
        name
    }

    /// The number of a name that is in use.
    pub(crate) fn find(&self, text: &str) -> Option<Name> {
        let is_it = |&name: &Name| text_of(&self.entries, name) == text;
        self.numbers
            .find(self.hasher.hash_one(text), is_it)
            .copied()
    }

    /// Counts one more use.
    pub(crate) fn share(&mut self, name: Name) {
        if let Some(Some((_, uses))) = self.entries.get_mut(name as usize) {
            *uses += 1;
        }
    }

    /// Counts one use less; an unused name is forgotten.
    pub(crate) fn release(&mut self, name: Name) {
        let Some(entry) = self.entries.get_mut(name as usize) else {
            return;
        };
        let Some((text, uses)) = entry else { return };
        *uses -= 1;
        if *uses == 0 {
            let hash = self.hasher.hash_one(&**text);
            if let Ok(number) = self.numbers.find_entry(hash, |&number| number == name) {
                number.remove();
            }
            *entry = None;
            self.free.push(name);
        }
    }

    pub(crate) fn get(&self, name: Name) -> &str {
        text_of(&self.entries, name)
    }

    /// The name, to be kept beyond the borrow.
    pub(crate) fn shared(&self, name: Name) -> Arc<str> {
        match self.entries.get(name as usize) {
            Some(Some((text, _))) => text.clone(),
            _ => "".into(),
        }
    }
}

fn text_of(entries: &[Option<(Arc<str>, u32)>], name: Name) -> &str {
    entries
        .get(name as usize)
        .and_then(Option::as_ref)
        .map_or("", |(text, _)| text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holds_a_name_once_and_forgets_it_with_its_last_use() {
        let mut strings = Strings::default();
        let a = strings.acquire("a.example");
        assert_eq!(strings.acquire("a.example"), a);
        let b = strings.acquire("b.example");
        assert_ne!(a, b);
        strings.release(a);
        assert_eq!(strings.get(a), "a.example");
        strings.release(a);
        assert_eq!(strings.get(a), "");
        assert_eq!(strings.acquire("c.example"), a);
        assert_eq!(strings.get(b), "b.example");
    }
}
