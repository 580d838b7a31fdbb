//! Words and phrases that texts are searched for.

use std::fmt;

use aho_corasick::AhoCorasick;

/// Words of a list.
const MOST_WORDS: usize = 500;
/// Characters of a word or phrase.
const LONGEST_WORD: usize = 64;

/// Words and phrases, found whole and whatever their case. The time to search for them is that of reading the text, however many they
/// are.
#[derive(Clone)]
pub struct WordList {
    /// As in the document.
    words: Vec<String>,
    matcher: AhoCorasick,
}

/// A text as its words in lower case, a space before each and at the end: what a [`WordList`] is compared with. What is neither
/// letter nor digit only separates words, and what is not seen (soft hyphens, zero width spaces) not even that. In scripts
/// that have no spaces each character is a word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WordText(String);

impl WordText {
    /// The words of a text.
    pub fn of(text: &str) -> Self {
        let mut words = String::with_capacity(text.len() + 2);
        words.push(' ');
        for c in text.chars() {
            match c {
                'a'..='z' | '0'..='9' => words.push(c),
                'A'..='Z' => words.push(c.to_ascii_lowercase()),
                _ if c.is_ascii() => separate(&mut words),
                _ => push_other(&mut words, c),
            }
        }
        separate(&mut words);
        Self(words)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn separate(words: &mut String) {
    if !words.ends_with(' ') {
        words.push(' ');
    }
}

/// A character beyond ASCII.
fn push_other(words: &mut String, c: char) {
    match c {
        // Soft hyphen, zero width space and joiners, word joiner, byte order mark.
        '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}' => {}
        // What is written otherwise at the end of a word, or in capitals.
        'ς' => words.push('σ'),
        'ß' | 'ẞ' => words.push_str("ss"),
        // Accents that stand for themselves.
        '\u{300}'..='\u{36f}' => words.push(c),
        _ if is_word_itself(c) => {
            separate(words);
            words.push(c);
            words.push(' ');
        }
        _ if c.is_alphanumeric() => words.extend(c.to_lowercase()),
        _ => separate(words),
    }
}

/// Characters of scripts without spaces: Thai and Lao, kana, ideographs.
fn is_word_itself(c: char) -> bool {
    matches!(
        c,
        '\u{e00}'..='\u{eff}'
            | '\u{3040}'..='\u{30ff}'
            | '\u{3400}'..='\u{4dbf}'
            | '\u{4e00}'..='\u{9fff}'
            | '\u{f900}'..='\u{faff}'
            | '\u{20000}'..='\u{3ffff}'
    )
}

impl WordList {
    /// What is wrong with the number of words is said, as in a problem of the configuration.
    pub(super) fn new(words: Vec<String>) -> Result<Self, String> {
        if words.is_empty() || words.len() > MOST_WORDS {
            return Err(format!(
                "1 to {MOST_WORDS} words or phrases are expected, found {}",
                words.len()
            ));
        }
        let patterns = words.iter().map(|word| WordText::of(word).0);
        let matcher = AhoCorasick::new(patterns).map_err(|error| error.to_string())?;
        Ok(Self { words, matcher })
    }

    /// One word or phrase.
    pub(super) fn read_word(word: &str) -> Result<String, String> {
        let length = word.chars().count();
        if length > LONGEST_WORD || WordText::of(word).0 == " " {
            return Err(format!(
                "a word or phrase of at most {LONGEST_WORD} characters with a letter or digit is expected"
            ));
        }
        Ok(word.to_owned())
    }

    /// As in the document.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// The first of them in a text, as it is in the document.
    pub fn find_in(&self, text: &WordText) -> Option<&str> {
        let found = self.matcher.find(&text.0)?;
        self.words
            .get(found.pattern().as_usize())
            .map(String::as_str)
    }
}

impl PartialEq for WordList {
    fn eq(&self, other: &Self) -> bool {
        self.words == other.words
    }
}

impl Eq for WordList {}

impl fmt::Debug for WordList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WordList").field(&self.words).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found<'a>(list: &'a WordList, text: &str) -> Option<&'a str> {
        list.find_in(&WordText::of(text))
    }

    fn list(words: &[&str]) -> WordList {
        let words = words.iter().map(|word| WordList::read_word(word).unwrap());
        WordList::new(words.collect()).unwrap()
    }

    #[test]
    fn finds_whole_words_whatever_their_case() {
        let list = list(&[
            "casino",
            "Free Money",
            "GRÜSSE",
            "don't miss",
            "無料",
            "ΟΔΟΣ",
        ]);
        for (text, expected) in [
            ("Casino!", Some("casino")),
            ("casinos", None),
            ("occasino", None),
            ("a CASINO-night", Some("casino")),
            ("free\r\n   money", Some("Free Money")),
            ("(free) *money*", Some("Free Money")),
            ("free my money", None),
            ("freemoney", None),
            ("fr\u{ad}ee mo\u{200b}ney", Some("Free Money")),
            ("Schöne Grüße", Some("GRÜSSE")),
            ("Don’t miss it", Some("don't miss")),
            ("これは無料です", Some("無料")),
            ("無い料", None),
            ("οδος", Some("ΟΔΟΣ")),
            ("first free money, then casino", Some("Free Money")),
            ("", None),
        ] {
            assert_eq!(found(&list, text), expected, "{text}");
        }
    }

    #[test]
    fn phrases_may_share_words() {
        let list = list(&["a b c", "b d", "d"]);
        assert_eq!(found(&list, "a b d"), Some("b d"));
        assert_eq!(found(&list, "a b a b c"), Some("a b c"));
        assert_eq!(found(&list, "a a d"), Some("d"));
    }

    #[test]
    fn lists_are_bounded() {
        assert!(WordList::read_word("...").is_err());
        assert!(WordList::read_word("").is_err());
        assert!(WordList::read_word(&"ü".repeat(65)).is_err());
        assert!(WordList::read_word(&"ü".repeat(64)).is_ok());
        assert!(WordList::new(Vec::new()).is_err());
        assert!(WordList::new(vec!["a".to_owned(); 501]).is_err());
        assert!(WordList::new(vec!["a".to_owned(); 500]).is_ok());
    }

    proptest! {
        #[test]
        fn finds_what_a_simple_search_finds(text in "[aAbB .ß\u{ad}無]{0,30}", words in prop::collection::vec("[ab]{1,2}( [ab])?", 1..6)) {
            let list = list(&words.iter().map(String::as_str).collect::<Vec<_>>());
            let text = WordText::of(&text);
            let simple = words.iter().any(|word| text.as_str().contains(&format!(" {word} ")));
            prop_assert_eq!(list.find_in(&text).is_some(), simple);
        }
    }
}
