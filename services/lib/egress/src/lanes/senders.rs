//! The attached senders, and what each can take.

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::SenderId;

/// Number of an egress source, for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct SourceId(pub(super) u32);

#[derive(Debug)]
struct Sender {
    id: SenderId,
    credit: u32,
    draining: bool,
    /// `None` = every source.
    names: Option<HashSet<Arc<str>>>,
    /// Those that it could not use lately.
    lacks: HashSet<Arc<str>>,
    /// The same by the sources' numbers.
    has: Vec<bool>,
}

impl Sender {
    fn is_able(&self, source: SourceId) -> bool {
        let has = || self.has.get(source.0 as usize).is_some_and(|has| *has);
        self.credit > 0 && !self.draining && has()
    }

    fn has(&self, name: &str) -> bool {
        let named = self.names.as_ref().is_none_or(|names| names.contains(name));
        named && !self.lacks.contains(name)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Senders {
    senders: Vec<Sender>,
    positions: HashMap<SenderId, u32>,
    sources: Vec<Arc<str>>,
    source_numbers: HashMap<Arc<str>, SourceId>,
    /// Credit of those that are not draining.
    credit: u64,
    /// So much of it is kept for lanes that wait for an answer: who asked can use what it is given.
    kept: u64,
    /// Where the last able one was found when the preferred one was not able.
    found: usize,
}

impl Senders {
    /// The number of a source.
    pub(super) fn source(&mut self, name: &Arc<str>) -> SourceId {
        if let Some(&source) = self.source_numbers.get(&**name) {
            return source;
        }
        let source = SourceId(self.sources.len() as u32);
        self.sources.push(name.clone());
        self.source_numbers.insert(name.clone(), source);
        for sender in &mut self.senders {
            sender.has.push(sender.has(name));
        }
        source
    }

    /// The number of a source that has one.
    pub(super) fn number(&self, name: &str) -> Option<SourceId> {
        self.source_numbers.get(name).copied()
    }

    /// The name of a source.
    pub(super) fn name(&self, source: SourceId) -> Option<&Arc<str>> {
        self.sources.get(source.0 as usize)
    }

    /// A sender is attached. Without names it can use every source.
    pub(super) fn up(&mut self, id: SenderId, credit: u32, names: HashSet<Arc<str>>) {
        let mut sender = Sender {
            id,
            credit,
            draining: false,
            has: Vec::new(),
            lacks: HashSet::new(),
            names: (!names.is_empty()).then_some(names),
        };
        let has = self.sources.iter().map(|name| sender.has(name));
        sender.has = has.collect();
        match self.positions.get(&id) {
            Some(&position) => self.senders[position as usize] = sender,
            None => {
                self.positions.insert(id, self.senders.len() as u32);
                self.senders.push(sender);
            }
        }
        self.count_credit();
    }

    pub(super) fn drains(&mut self, id: SenderId) {
        if let Some(sender) = self.get_mut(id) {
            sender.draining = true;
        }
        self.count_credit();
    }

    pub(super) fn gone(&mut self, id: SenderId) {
        self.senders.retain(|sender| sender.id != id);
        let positions = self.senders.iter().zip(0..);
        self.positions = positions.map(|(sender, at)| (sender.id, at)).collect();
        self.count_credit();
    }

    fn count_credit(&mut self) {
        let usable = self.senders.iter().filter(|sender| !sender.draining);
        self.credit = usable.map(|sender| u64::from(sender.credit)).sum();
    }

    /// Whether there is credit that is not kept.
    pub(super) fn has_credit(&self) -> bool {
        self.credit > self.kept
    }

    /// Keeps one credit.
    pub(super) fn keep(&mut self) {
        self.kept += 1;
    }

    /// Keeps one credit less.
    pub(super) fn let_go(&mut self) {
        self.kept -= 1;
    }

    /// Gives one credit back.
    pub(super) fn give(&mut self, id: SenderId) {
        let Some(sender) = self.get_mut(id) else {
            return;
        };
        if sender.credit == u32::MAX {
            return;
        }
        sender.credit += 1;
        self.credit += u64::from(!sender.draining);
    }

    /// Takes one credit.
    pub(super) fn take(&mut self, id: SenderId) {
        let Some(sender) = self.get_mut(id).filter(|sender| sender.credit > 0) else {
            return;
        };
        sender.credit -= 1;
        self.credit -= u64::from(!sender.draining);
    }

    pub(super) fn is_able(&self, id: SenderId, source: SourceId) -> bool {
        self.positions
            .get(&id)
            .and_then(|&position| self.senders.get(position as usize))
            .is_some_and(|sender| sender.is_able(source))
    }

    /// Whether any attached sender has the source, able or not.
    pub(super) fn serve(&self, source: SourceId) -> bool {
        let has = |sender: &Sender| sender.has.get(source.0 as usize).is_some_and(|has| *has);
        self.senders.iter().any(|s| !s.draining && has(s))
    }

    /// As [`Senders::serve`], by name.
    pub(super) fn serve_name(&self, name: &str) -> bool {
        self.senders.iter().any(|s| !s.draining && s.has(name))
    }

    /// Whether a sender is attached and not about to go.
    pub(super) fn any(&self) -> bool {
        self.senders.iter().any(|sender| !sender.draining)
    }

    /// A sender could not use a source, or may try again.
    pub(super) fn lacks(&mut self, id: SenderId, name: &Arc<str>, lacks: bool) {
        let number = self.number(name);
        let Some(sender) = self.get_mut(id) else {
            return;
        };
        if lacks {
            sender.lacks.insert(name.clone());
        } else {
            sender.lacks.remove(name);
        }
        let has = sender.has(name);
        let entry = number.and_then(|number| sender.has.get_mut(number.0 as usize));
        if let Some(entry) = entry {
            *entry = has;
        }
    }

    /// Whether a sender can take a delivery of this source.
    pub(super) fn any_able(&self, source: SourceId) -> bool {
        self.senders.iter().any(|sender| sender.is_able(source))
    }

    /// A sender that can take a delivery of this source: the one that its affinity prefers, or another.
    pub(super) fn choose(&mut self, affinity: u32, source: SourceId) -> Option<SenderId> {
        let count = self.senders.len();
        if count == 0 || !self.has_credit() {
            return None;
        }
        let preferred = &self.senders[affinity as usize % count];
        if preferred.is_able(source) {
            return Some(preferred.id);
        }
        let found = (0..count)
            .map(|step| (self.found + step) % count)
            .find(|&position| self.senders[position].is_able(source))?;
        self.found = found;
        Some(self.senders[found].id)
    }

    fn get_mut(&mut self, id: SenderId) -> Option<&mut Sender> {
        let position = *self.positions.get(&id)?;
        self.senders.get_mut(position as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_and_gives_credit_of_who_has_it() {
        let id = SenderId(1);
        let mut senders = Senders::default();
        let source = senders.source(&"source".into());
        let state = |senders: &Senders| (senders.credit, senders.is_able(id, source));
        senders.up(id, 2, HashSet::new());
        assert_eq!(state(&senders), (2, true));
        senders.take(id);
        senders.take(id);
        assert_eq!(state(&senders), (0, false));
        senders.take(id);
        assert_eq!(state(&senders), (0, false));
        senders.give(id);
        assert_eq!(state(&senders), (1, true));
        // Who drains has none for others.
        senders.drains(id);
        assert_eq!(state(&senders), (0, false));
        senders.take(id);
        senders.give(id);
        senders.give(id);
        assert_eq!(state(&senders), (0, false));
        senders.gone(id);
        senders.give(id);
        assert_eq!(state(&senders), (0, false));
    }
}
