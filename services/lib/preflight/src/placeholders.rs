//! What was to be replaced before a message is sent, and salutations of nobody in particular.

use config::WordText;
use memchr::memmem;

/// What is within the signs of a placeholder is shorter, octets.
const MAX_INNER: usize = 64;

/// Phrases, by the words that they begin with.
const PHRASES: [(&str, &[&str]); 4] = [
    (
        "dear",
        &[
            "account holder",
            "client",
            "customer",
            "friend",
            "member",
            "null",
            "recipient",
            "sir or madam",
            "subscriber",
            "undefined",
            "user",
            "valued customer",
        ],
    ),
    ("hello", &["null", "undefined"]),
    ("lorem", &["ipsum"]),
    ("your", &["text here"]),
];

/// In brackets, in lower case.
const IN_BRACKETS: [&str; 12] = [
    "company",
    "company name",
    "email",
    "first name",
    "first_name",
    "firstname",
    "full name",
    "last name",
    "last_name",
    "lastname",
    "name",
    "your name",
];

/// The first placeholder or phrase in a text, and its words; said in words of ours.
pub(crate) fn find(text: &str, words: &WordText) -> Option<String> {
    match find_placeholder(text.as_bytes()) {
        Some(form) => Some(format!("it has a placeholder like {form}")),
        None => {
            find_phrase(words.as_str()).map(|(first, rest)| format!("it says \"{first} {rest}\""))
        }
    }
}

fn find_phrase(words: &str) -> Option<(&'static str, &'static str)> {
    PHRASES.iter().find_map(|(first, rests)| {
        memmem::find_iter(words.as_bytes(), first).find_map(|at| {
            let is_word = words.as_bytes().get(at.checked_sub(1)?) == Some(&b' ');
            let behind = words[at + first.len()..].strip_prefix(' ')?;
            let rest = rests.iter().find(|rest| {
                behind
                    .strip_prefix(**rest)
                    .is_some_and(|behind| behind.starts_with(' '))
            })?;
            is_word.then_some((*first, *rest))
        })
    })
}

fn find_placeholder(text: &[u8]) -> Option<&'static str> {
    let begins = |byte: &u8| matches!(byte, b'{' | b'<' | b'*' | b'%' | b'$' | b'[');
    let (mut at, mut before) = (0, b' ');
    while let Some(next) = text[at..].iter().position(begins) {
        if next > 0 {
            before = text[at + next - 1];
        }
        at += next;
        let found = placeholder_at(&text[at..], before);
        if found.is_some() {
            return found;
        }
        before = text[at];
        at += 1;
    }
    None
}

/// The form of the placeholder that begins here. `before`: the octet before it.
fn placeholder_at(text: &[u8], before: u8) -> Option<&'static str> {
    let has_letter = |inner: &[u8]| inner.iter().any(u8::is_ascii_alphabetic);
    match text {
        [b'{', b'{', inner @ ..] => until(inner, b'{', b"}}")
            .is_some_and(has_letter)
            .then_some("{{name}}"),
        [b'{', b'%', inner @ ..] => until(inner, b'{', b"%}")
            .is_some_and(has_letter)
            .then_some("{% name %}"),
        [b'<', b'%', inner @ ..] => until(inner, b'<', b"%>")
            .is_some_and(has_letter)
            .then_some("<% name %>"),
        [b'*', b'|', inner @ ..] => until(inner, b'*', b"|")
            .is_some_and(|name| is_name(name) && inner.get(name.len() + 1) == Some(&b'*'))
            .then_some("*|NAME|*"),
        [b'$', b'{', inner @ ..] => until(inner, b'$', b"}")
            .is_some_and(is_name)
            .then_some("${name}"),
        [b'%', b'%', inner @ ..] => until(inner, b'\n', b"%")
            .is_some_and(|name| is_name(name) && inner.get(name.len() + 1) == Some(&b'%'))
            .then_some("%%name%%"),
        [b'%', inner @ ..] if !before.is_ascii_alphanumeric() => until(inner, b'\n', b"%")
            .is_some_and(|name| is_constant(name, inner.get(name.len() + 1)))
            .then_some("%NAME%"),
        [b'[', inner @ ..] => until(inner, b'[', b"]")
            .is_some_and(is_in_brackets)
            .then_some("[name]"),
        _ => None,
    }
}

/// What is before `close`, when that comes soon and before another `open`: so nothing is looked at often.
fn until<'a>(inner: &'a [u8], open: u8, close: &[u8]) -> Option<&'a [u8]> {
    let inner = &inner[..inner.len().min(MAX_INNER)];
    for (at, byte) in inner.iter().enumerate() {
        if inner[at..].starts_with(close) {
            return Some(&inner[..at]);
        }
        if *byte == open {
            return None;
        }
    }
    None
}

fn is_name(inner: &[u8]) -> bool {
    let is_of_it = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b':');
    inner.first().is_some_and(u8::is_ascii_alphabetic) && inner.iter().all(is_of_it)
}

/// Three capitals or more, and no octet of a URL.
fn is_constant(inner: &[u8], behind: Option<&u8>) -> bool {
    let is_of_it = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
    inner.len() >= 3
        && inner[0].is_ascii_uppercase()
        && inner.iter().all(is_of_it)
        && !behind.is_some_and(u8::is_ascii_alphanumeric)
}

fn is_in_brackets(inner: &[u8]) -> bool {
    let inner = inner.trim_ascii();
    IN_BRACKETS
        .iter()
        .any(|name| inner.eq_ignore_ascii_case(name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(text: &str) -> Option<String> {
        find(text, &WordText::of(text))
    }

    #[test]
    fn finds_what_was_to_be_replaced() {
        for (text, form) in [
            ("Hi {{name}},", "{{name}}"),
            ("Hi {{ user.first_name | default: 'you' }},", "{{name}}"),
            ("{% if user %}x", "{% name %}"),
            ("Hi <%= name %>", "<% name %>"),
            ("Hi *|FNAME|*!", "*|NAME|*"),
            ("Hi ${firstName}!", "${name}"),
            ("Hi %%First_Name%%!", "%%name%%"),
            ("Hi %FIRSTNAME%,", "%NAME%"),
            ("%FIRSTNAME%", "%NAME%"),
            ("Hi [First Name],", "[name]"),
            ("Hi [NAME]", "[name]"),
        ] {
            assert_eq!(
                found(text),
                Some(format!("it has a placeholder like {form}")),
                "{text}"
            );
        }
    }

    #[test]
    fn finds_phrases_of_nobody_in_particular() {
        for (text, phrase) in [
            ("Dear Customer,", "dear customer"),
            ("DEAR\r\n  VALUED  CUSTOMER!", "dear valued customer"),
            ("Hello undefined,", "hello undefined"),
            ("Lorem ipsum dolor", "lorem ipsum"),
            ("dear dear user", "dear user"),
        ] {
            assert_eq!(found(text), Some(format!("it says \"{phrase}\"")), "{text}");
        }
    }

    #[test]
    fn leaves_usual_text_alone() {
        for text in [
            "",
            "Dear Jane Customer, endear customer, dear customers",
            "Hello!",
            "100% off, 50%OFF% and 20 % more",
            "https://a.example/?q=%D0%9F%D1%80&x=%FACE%20",
            "costs $5 {really} [1] [sic] *very* | <3 {{}} {{ 1 }}",
            "a {{ that goes on and on and on and on and on and on and on and on and on and on and on }}",
            "{{ a {{ b",
            "printf(\"%d%s\")",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "(\\{|\\}|%|\\$|<|>|\\*|\\||\\[|\\]|N|name| |dear|user|ü){0,40}") {
            found(&text);
        }
    }
}
