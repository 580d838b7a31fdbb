//! Finds phrases in a text, all of them in one pass.
//!
//! A phrase is made of words, of groups `{name}` that stand for any of their alternatives, and of `...`, which passes over up to
//! [`GAP`] words. A word that ends with `*` stands for all that begin so.

use std::collections::{BTreeMap, HashMap};

use crate::words::{STOP, words_of};

/// Words that `...` passes over.
pub(crate) const GAP: usize = 5;
/// Occurrences of one atom that are looked at.
const MOST_HITS: usize = 16;
/// Words of one phrase or alternative.
const LONGEST: usize = 16;

/// Names of groups, and their alternatives.
pub(crate) type Groups = BTreeMap<String, Vec<String>>;

/// What cannot be a phrase.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PhraseError {
    /// It has no words, or more than 16.
    #[error("{0:?}: 1 to 16 words are expected")]
    Length(String),
    /// The name stands nowhere.
    #[error("{0:?}: there are no words {1:?}")]
    NoGroup(String, String),
    /// `...` stands at an end, or twice.
    #[error("{0:?}: `...` stands between words")]
    Gap(String),
    /// The star stands elsewhere.
    #[error("{0:?}: `*` stands at the end of a word; of the first, after two letters or more")]
    Star(String),
}

/// A row of words.
#[derive(Debug)]
struct Row {
    atom: usize,
    /// After the first.
    rest: Vec<Word>,
}

#[derive(Debug)]
struct Word {
    text: String,
    is_stem: bool,
}

#[derive(Debug)]
struct Phrase {
    /// The first of them is in [`Finder::by_first`].
    atoms: Vec<(usize, usize)>,
    rule: usize,
}

/// All phrases of some rules.
#[derive(Debug, Default)]
pub(crate) struct Finder {
    /// By first word.
    exact: HashMap<String, Vec<Row>>,
    stems: HashMap<String, Vec<Row>>,
    /// Lengths of stems in octets.
    stem_lengths: Vec<usize>,
    phrases: Vec<Phrase>,
    /// Phrases by their first atom.
    by_first: Vec<Vec<usize>>,
    atoms: HashMap<String, usize>,
}

/// Where an atom is: from its first word to after its last.
type Hits = HashMap<usize, Vec<(usize, usize)>>;

impl Finder {
    /// Adds a phrase of a rule.
    pub(crate) fn add(
        &mut self,
        text: &str,
        rule: usize,
        groups: &Groups,
    ) -> Result<(), PhraseError> {
        let mut atoms = Vec::new();
        let mut literal = String::new();
        let mut gap = 0;
        for part in text.split_ascii_whitespace() {
            if part == "..." {
                self.end_literal(&mut literal, &mut gap, &mut atoms, text)?;
                if gap > 0 || atoms.is_empty() {
                    return Err(PhraseError::Gap(text.into()));
                }
                gap = GAP;
            } else if let Some(name) = part
                .strip_prefix('{')
                .and_then(|part| part.strip_suffix('}'))
            {
                self.end_literal(&mut literal, &mut gap, &mut atoms, text)?;
                let atom = self.group(name, groups, text)?;
                atoms.push((atom, std::mem::take(&mut gap)));
            } else {
                literal.push(' ');
                literal.push_str(part);
            }
        }
        self.end_literal(&mut literal, &mut gap, &mut atoms, text)?;
        if gap > 0 {
            return Err(PhraseError::Gap(text.into()));
        }
        let Some((first, _)) = atoms.first().copied() else {
            return Err(PhraseError::Length(text.into()));
        };
        self.by_first[first].push(self.phrases.len());
        self.phrases.push(Phrase { atoms, rule });
        Ok(())
    }

    fn end_literal(
        &mut self,
        literal: &mut String,
        gap: &mut usize,
        atoms: &mut Vec<(usize, usize)>,
        phrase: &str,
    ) -> Result<(), PhraseError> {
        if !literal.is_empty() {
            let (atom, is_new) = self.atom(literal);
            if is_new {
                self.row(literal, atom, phrase)?;
            }
            atoms.push((atom, std::mem::take(gap)));
            literal.clear();
        }
        Ok(())
    }

    fn group(&mut self, name: &str, groups: &Groups, phrase: &str) -> Result<usize, PhraseError> {
        let (atom, is_new) = self.atom(&format!("{{{name}}}"));
        if is_new {
            let alternatives = groups
                .get(name)
                .ok_or_else(|| PhraseError::NoGroup(phrase.into(), name.into()))?;
            for alternative in alternatives {
                self.row(alternative, atom, alternative)?;
            }
        }
        Ok(atom)
    }

    fn atom(&mut self, name: &str) -> (usize, bool) {
        let next = self.by_first.len();
        let atom = *self.atoms.entry(name.to_owned()).or_insert(next);
        if atom == next {
            self.by_first.push(Vec::new());
        }
        (atom, atom == next)
    }

    fn row(&mut self, text: &str, atom: usize, phrase: &str) -> Result<(), PhraseError> {
        let mut words = Vec::new();
        for word in words_of(text, LONGEST + 1) {
            let stem = word.strip_suffix('*');
            let text = stem.unwrap_or(&word);
            if text.contains('*')
                || (stem.is_some() && words.is_empty() && text.chars().count() < 2)
            {
                return Err(PhraseError::Star(phrase.into()));
            }
            words.push(Word {
                text: text.to_owned(),
                is_stem: stem.is_some(),
            });
        }
        if !(1..=LONGEST).contains(&words.len()) {
            return Err(PhraseError::Length(phrase.into()));
        }
        let first = words.remove(0);
        let row = Row { atom, rest: words };
        if first.is_stem {
            if !self.stem_lengths.contains(&first.text.len()) {
                self.stem_lengths.push(first.text.len());
            }
            self.stems.entry(first.text).or_default().push(row);
        } else {
            self.exact.entry(first.text).or_default().push(row);
        }
        Ok(())
    }

    /// The rules that have a phrase in these words, in no order, perhaps more than once.
    pub(crate) fn rules_in(&self, words: &[String]) -> Vec<usize> {
        let hits = self.hits(words);
        let mut rules = Vec::new();
        for (first, places) in &hits {
            for phrase in &self.by_first[*first] {
                let phrase = &self.phrases[*phrase];
                if places
                    .iter()
                    .any(|(_, end)| goes_on(words, &hits, &phrase.atoms[1..], *end))
                {
                    rules.push(phrase.rule);
                }
            }
        }
        rules
    }

    fn hits(&self, words: &[String]) -> Hits {
        let mut hits = Hits::new();
        for (start, word) in words.iter().enumerate() {
            let stems = self
                .stem_lengths
                .iter()
                .filter_map(|length| self.stems.get(word.get(..*length)?));
            let rows = self.exact.get(word).into_iter().chain(stems).flatten();
            for row in rows {
                let end = start + 1 + row.rest.len();
                let fits = words.get(start + 1..end).is_some_and(|words| {
                    let pairs = words.iter().zip(&row.rest);
                    pairs.into_iter().all(|(word, wanted)| {
                        *word == wanted.text || wanted.is_stem && word.starts_with(&wanted.text)
                    })
                });
                if fits {
                    let places = hits.entry(row.atom).or_default();
                    if places.len() < MOST_HITS {
                        places.push((start, end));
                    }
                }
            }
        }
        hits
    }
}

/// Whether the atoms follow from this word on, each within its gap and in the same sentence.
fn goes_on(words: &[String], hits: &Hits, atoms: &[(usize, usize)], from: usize) -> bool {
    let Some(((atom, gap), rest)) = atoms.split_first() else {
        return true;
    };
    let places = hits.get(atom).into_iter().flatten();
    places
        .filter(|(start, _)| (from..=from + gap).contains(start))
        .any(|(start, end)| {
            !words[from..*start].iter().any(|word| word == STOP) && goes_on(words, hits, rest, *end)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finder(phrases: &[&str]) -> Result<Finder, PhraseError> {
        let groups = Groups::from([
            (
                "box".to_owned(),
                vec!["mail box".to_owned(), "user".to_owned()],
            ),
            (
                "full".to_owned(),
                vec!["full".to_owned(), "over quot*".to_owned()],
            ),
        ]);
        let mut finder = Finder::default();
        for (rule, phrase) in phrases.iter().enumerate() {
            finder.add(phrase, rule, &groups)?;
        }
        Ok(finder)
    }

    fn found(finder: &Finder, text: &str) -> Vec<usize> {
        let mut rules = finder.rules_in(&words_of(text, 1000));
        rules.sort_unstable();
        rules.dedup();
        rules
    }

    #[test]
    fn finds_words_groups_and_gaps() {
        let finder = finder(&[
            "{box} ... {full}",
            "{full} {box}",
            "no such {box}",
            "throttl*",
        ])
        .unwrap();
        for (text, rules) in [
            ("The mail-box is full", &[0][..]),
            ("user x is over quota", &[0]),
            ("full user", &[1]),
            ("full of user", &[]),
            ("No such user here", &[2]),
            ("you are throttled", &[3]),
            ("user a b c d e full", &[0]),
            ("user a b c d e f full", &[]),
            ("user x. It is full", &[]),
            ("users full", &[]),
            ("no such user throttling", &[2, 3]),
        ] {
            assert_eq!(found(&finder, text), rules, "{text}");
        }
    }

    #[test]
    fn says_what_is_no_phrase() {
        for (phrase, error) in [
            ("", PhraseError::Length(String::new())),
            ("... x", PhraseError::Gap("... x".into())),
            ("x ...", PhraseError::Gap("x ...".into())),
            ("x ... ... y", PhraseError::Gap("x ... ... y".into())),
            (
                "{none}",
                PhraseError::NoGroup("{none}".into(), "none".into()),
            ),
            ("a*", PhraseError::Star("a*".into())),
            ("ab*c", PhraseError::Star("ab*c".into())),
        ] {
            assert_eq!(finder(&[phrase]).unwrap_err(), error);
        }
    }

    #[test]
    fn takes_bounded_work_for_words_that_come_again_and_again() {
        let finder = finder(&["{box} ... {box} ... {box} ... {full}"]).unwrap();
        assert_eq!(found(&finder, &"user ".repeat(10_000)), [0; 0]);
    }
}
