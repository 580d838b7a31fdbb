//! Tag lists (RFC 6376 section 3.2), as others write them.

/// No honest list is longer.
const MOST_TAGS: usize = 64;

/// The tags of a signature field or a key record.
#[derive(Debug, Clone)]
pub(crate) struct Tags<'a> {
    tags: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Tags<'a> {
    /// `None` when it is no list, or a name stands in it twice.
    pub(crate) fn parse(text: &'a [u8]) -> Option<Self> {
        let mut tags: Vec<(&[u8], &[u8])> = Vec::with_capacity(12);
        let text = text.trim_ascii_end();
        let text = text.strip_suffix(b";").unwrap_or(text);
        for tag in text.split(|byte| *byte == b';') {
            let tag = tag.trim_ascii();
            let at = tag.iter().position(|byte| *byte == b'=')?;
            let (name, value) = (tag[..at].trim_ascii(), tag[at + 1..].trim_ascii());
            let is_name = name.first().is_some_and(u8::is_ascii_alphabetic)
                && name
                    .iter()
                    .all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
            if !is_name || tags.len() == MOST_TAGS || tags.iter().any(|(other, _)| *other == name) {
                return None;
            }
            tags.push((name, value));
        }
        Some(Self { tags })
    }

    /// The value, without white space around it.
    pub(crate) fn get(&self, name: &str) -> Option<&'a [u8]> {
        let found = self
            .tags
            .iter()
            .find(|(other, _)| *other == name.as_bytes());
        found.map(|(_, value)| *value)
    }

    /// The value as text.
    pub(crate) fn text(&self, name: &str) -> Option<&'a str> {
        std::str::from_utf8(self.get(name)?).ok()
    }

    /// The value without any white space, as that of base64.
    pub(crate) fn packed(&self, name: &str) -> Option<Vec<u8>> {
        let value = self.get(name)?;
        let is_space = |byte: &&u8| !byte.is_ascii_whitespace();
        Some(value.iter().filter(is_space).copied().collect())
    }

    /// The value as a number.
    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        let text = self.text(name)?;
        let digits = (1..=12).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| text.parse().ok()).flatten()
    }
}

/// A signature field's value as it was when it was signed: without what stands in `b=`.
pub(crate) fn without_signature(value: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(value.len());
    for (index, tag) in value.split(|byte| *byte == b';').enumerate() {
        if index > 0 {
            kept.push(b';');
        }
        let at = tag.iter().position(|byte| *byte == b'=');
        match at {
            Some(at) if tag[..at].trim_ascii() == b"b" => kept.extend_from_slice(&tag[..=at]),
            _ => kept.extend_from_slice(tag),
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_tags_and_refuses_what_is_no_list() {
        let tags = Tags::parse(b" v=1;\r\n\ta = rsa-sha256 ; b=a b\r\n c=;t=12; ").unwrap();
        assert_eq!(tags.text("v"), Some("1"));
        assert_eq!(tags.text("a"), Some("rsa-sha256"));
        assert_eq!(tags.packed("b").unwrap(), b"abc=");
        assert_eq!(tags.number("t"), Some(12));
        assert_eq!(tags.number("a"), None);
        assert_eq!(tags.get("x"), None);
        for text in ["a=1;; b=2", "", "a=1; a=2", "a", "=1", "1a=2", "a b=1"] {
            assert!(Tags::parse(text.as_bytes()).is_none(), "{text}");
        }
        let many: String = (0..65).map(|number| format!("t{number}=1;")).collect();
        assert!(Tags::parse(many.as_bytes()).is_none());
    }

    #[test]
    fn empties_the_signature_and_nothing_else() {
        assert_eq!(
            without_signature(b" v=1; bh=x=; b =\r\n y=; h=b"),
            b" v=1; bh=x=; b =; h=b"
        );
        assert_eq!(without_signature(b"b=x"), b"b=");
        assert_eq!(without_signature(b"bb=x"), b"bb=x");
    }
}
