//! Local parts as text: hashes are made of what stands between the quotes.

use std::borrow::Cow;

/// Without its quotes, where it has them.
pub(crate) fn unquoted(local: &str) -> Cow<'_, str> {
    let content = local
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    let Some(content) = content else {
        return Cow::Borrowed(local);
    };
    if !content.contains('\\') {
        return Cow::Borrowed(content);
    }
    let mut text = String::with_capacity(content.len());
    let mut characters = content.chars();
    while let Some(character) = characters.next() {
        text.push(match character {
            '\\' => characters.next().unwrap_or('\\'),
            other => other,
        });
    }
    Cow::Owned(text)
}

/// With quotes where it is no dot-string (RFC 5321 section 4.1.2).
pub(crate) fn quoted(text: &str) -> Cow<'_, str> {
    let is_atom = |atom: &str| {
        !atom.is_empty()
            && atom.chars().all(|character| {
                !character.is_ascii()
                    || character.is_ascii_alphanumeric()
                    || "!#$%&'*+-/=?^_`{|}~".contains(character)
            })
    };
    if text.split('.').all(is_atom) {
        return Cow::Borrowed(text);
    }
    let mut local = String::with_capacity(text.len() + 2);
    local.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            local.push('\\');
        }
        local.push(character);
    }
    local.push('"');
    Cow::Owned(local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_what_needs_it() {
        for (local, text) in [
            ("a.b+c", "a.b+c"),
            ("\"a b\"", "a b"),
            ("\"a\\\"b\\\\c\"", "a\"b\\c"),
            ("\"a..b\"", "a..b"),
            ("\"\"", ""),
            ("\"a@b\"", "a@b"),
            ("jürgen", "jürgen"),
        ] {
            assert_eq!(unquoted(local), text);
            assert_eq!(quoted(text), local);
        }
        assert_eq!(unquoted("\"needless\""), "needless");
    }
}
