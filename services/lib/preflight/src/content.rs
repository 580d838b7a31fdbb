//! Checks of texts and structure.

use std::borrow::Cow;

use config::{Check, CheckRule, Preflight, WordList, WordText};
use message::{BrokenMime, Content, Text, Wanted, read_content};

use crate::{Finding, Findings, placeholders};

/// Characters that are said of a word.
const LONGEST_WORD: usize = 100;

/// Looks over content, or the first part of it; `earlier` is what was found before, and is said and weighs with what is found
/// now. Takes linear time.
pub fn look_at_content(
    content: &Content<'_>,
    preflight: &Preflight,
    stream: &str,
    earlier: Vec<Finding>,
) -> Findings {
    let checks = preflight.of_stream(stream);
    let checks: Vec<&Check> = checks.filter(|check| check.rule.is_of_content()).collect();
    let mut look = Look::for_checks(&checks);
    let wanted = Wanted {
        texts: checks
            .iter()
            .any(|check| check.rule != CheckRule::BrokenMime),
        broken: checks
            .iter()
            .any(|check| check.rule == CheckRule::BrokenMime),
    };
    let broken = read_content(content, wanted, &mut |text| look.take(&text));
    let mut words = look.words.iter();
    let found = checks.iter().filter_map(|check| {
        let what: Cow<'static, str> = match &check.rule {
            CheckRule::ManyLinks { most } => look.many_links(*most)?.into(),
            CheckRule::SpamWords(_) => {
                let word = words.next().and_then(|list| list.found)?;
                format!("it says \"{}\"", printable(word)).into()
            }
            CheckRule::GenericText => look.generic.clone()?.into(),
            CheckRule::TooLittleText { least } => look
                .too_little(*least)
                .filter(|_| content.is_complete)?
                .into(),
            CheckRule::BrokenMime => broken.as_ref().map(BrokenMime::to_string)?.into(),
            _ => return None,
        };
        Some((*check, what))
    });
    Findings::of(found, earlier, preflight.reject_at)
}

/// What was seen so far.
struct Look<'a> {
    plain_links: usize,
    html_links: usize,
    images: usize,
    /// Letters and digits of HTML texts.
    html_letters: usize,
    words: Vec<Words<'a>>,
    looks_for_generic: bool,
    generic: Option<String>,
}

/// A list that is searched for.
struct Words<'a> {
    list: &'a WordList,
    found: Option<&'a str>,
}

impl<'a> Look<'a> {
    fn for_checks(checks: &[&'a Check]) -> Self {
        let words = checks.iter().filter_map(|check| match &check.rule {
            CheckRule::SpamWords(list) => Some(Words { list, found: None }),
            _ => None,
        });
        Self {
            plain_links: 0,
            html_links: 0,
            images: 0,
            html_letters: 0,
            words: words.collect(),
            looks_for_generic: checks
                .iter()
                .any(|check| check.rule == CheckRule::GenericText),
            generic: None,
        }
    }

    fn take(&mut self, text: &Text<'_>) {
        match text {
            Text::Subject(subject) => self.search(subject),
            Text::Plain(text) => {
                self.plain_links += links_in(text);
                self.search(text);
            }
            Text::Html(page) => {
                self.html_links += page.links;
                self.images += page.images;
                self.html_letters += page.text.chars().filter(|c| c.is_alphanumeric()).count();
                self.search(&page.text);
            }
        }
    }

    fn search(&mut self, text: &str) {
        let looks_for_generic = self.looks_for_generic && self.generic.is_none();
        if !looks_for_generic && self.words.iter().all(|list| list.found.is_some()) {
            return;
        }
        let words = WordText::of(text);
        for list in self.words.iter_mut().filter(|list| list.found.is_none()) {
            list.found = list.list.find_in(&words);
        }
        if looks_for_generic {
            self.generic = placeholders::find(text, &words);
        }
    }

    /// The texts of an alternative have the same links: the larger number counts.
    fn many_links(&self, most: u32) -> Option<String> {
        let links = self.plain_links.max(self.html_links);
        let is_more = u32::try_from(links).map_or(true, |links| links > most);
        is_more.then(|| format!("it has {links} links, more than {most}"))
    }

    fn too_little(&self, least: u32) -> Option<String> {
        let (images, letters) = (self.images, self.html_letters);
        let is_less = u32::try_from(letters).is_ok_and(|letters| letters < least);
        (images > 0 && is_less).then(|| {
            format!("its HTML has {letters} letters beside {images} images, fewer than {least}")
        })
    }
}

/// Number of http and https URLs in a text.
fn links_in(text: &str) -> usize {
    let is_of_web = |before: &&str| {
        let before = before.as_bytes();
        [&b"http"[..], b"https"].iter().any(|scheme| {
            let begin = before.len().checked_sub(scheme.len());
            begin.is_some_and(|begin| before[begin..].eq_ignore_ascii_case(scheme))
        })
    };
    let separators = text.match_indices("://").map(|(at, _)| &text[..at]);
    separators.filter(is_of_web).count()
}

/// A word of the configuration as ASCII, cut when it is long.
fn printable(word: &str) -> String {
    let escaped = word.escape_default().to_string().replace("\\'", "'");
    escaped.chars().take(LONGEST_WORD).collect()
}

#[cfg(test)]
mod tests;
