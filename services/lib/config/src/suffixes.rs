//! Values by domains and by what is below them.

use std::collections::HashMap;

use crate::DomainMatch;

/// Looks up by hash: the cost grows with the labels of a name, not with the number of entries.
#[derive(Debug, Clone)]
pub(crate) struct Suffixes<T> {
    exact: HashMap<Box<str>, T>,
    below: HashMap<Box<str>, T>,
}

impl<T> Default for Suffixes<T> {
    fn default() -> Self {
        Self {
            exact: HashMap::new(),
            below: HashMap::new(),
        }
    }
}

impl<T> Suffixes<T> {
    pub(crate) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.below.is_empty()
    }

    /// The place of an entry.
    pub(crate) fn entry(
        &mut self,
        of: &DomainMatch,
    ) -> std::collections::hash_map::Entry<'_, Box<str>, T> {
        let (map, name) = match of {
            DomainMatch::Exact(name) => (&mut self.exact, name),
            DomainMatch::Below(name) => (&mut self.below, name),
        };
        map.entry(name.as_str().into())
    }

    /// The values that fit a name, the most specific first, each with its [`DomainMatch::specificity`].
    pub(crate) fn fitting<'t, 'n>(
        &'t self,
        name: &'n str,
    ) -> impl Iterator<Item = (usize, &'t T)> + use<'t, 'n, T> {
        let exact = self.exact.get(name).map(|value| (usize::MAX, value));
        // Names of most configurations are exact, if there are any.
        let below = (!self.below.is_empty()).then(|| parents(name)).into_iter();
        exact.into_iter().chain(
            below
                .flatten()
                .filter_map(|parent| Some((parent.len(), self.below.get(parent)?))),
        )
    }
}

/// `b.example`, `example` of `a.b.example`.
pub(crate) fn parents(domain: &str) -> impl Iterator<Item = &str> {
    domain
        .match_indices('.')
        .map(|(position, _)| &domain[position + 1..])
}
