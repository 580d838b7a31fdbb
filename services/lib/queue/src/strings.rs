//! Names that many deliveries share, each held once and counted.

use std::sync::Arc;

use hashbrown::HashMap;

/// Number of a name.
pub(crate) type Name = u32;

#[derive(Debug, Default)]
pub(crate) struct Strings {
    numbers: HashMap<Arc<str>, Name>,
    entries: Vec<Option<(Arc<str>, u32)>>,
    free: Vec<Name>,
}

impl Strings {
    /// The number of a name, with one more use counted.
    pub(crate) fn acquire(&mut self, text: &str) -> Name {
        if let Some(&name) = self.numbers.get(text) {
            self.share(name);
            return name;
        }
        let shared: Arc<str> = text.into();
        let entry = Some((shared.clone(), 1));
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
        self.numbers.insert(shared, name);
        name
    }

    /// The number of a name that is in use.
    pub(crate) fn find(&self, text: &str) -> Option<Name> {
        self.numbers.get(text).copied()
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
            self.numbers.remove(text);
            *entry = None;
            self.free.push(name);
        }
    }

    pub(crate) fn get(&self, name: Name) -> &str {
        self.entries
            .get(name as usize)
            .and_then(Option::as_ref)
            .map_or("", |(text, _)| text)
    }

    /// The name, to be kept beyond the borrow.
    pub(crate) fn shared(&self, name: Name) -> Arc<str> {
        match self.entries.get(name as usize) {
            Some(Some((text, _))) => text.clone(),
            _ => "".into(),
        }
    }
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
