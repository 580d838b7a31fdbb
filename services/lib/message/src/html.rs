//! What a reader sees of an HTML text, as far as it can be told without layout.
//!
//! Read as browsers do when it is not well formed: what is open at the end goes on to the end. Every octet is looked at a bounded
//! number of times, so the work is linear whatever comes.

use mail_parser::decoders::html::add_html_token;
use memchr::{memchr, memchr2, memmem};

/// An HTML text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Without markup, character references decoded. Elements that are not within a line are apart by white space.
    pub text: String,
    /// Elements `a` and `area` that lead to an http or https URL.
    pub links: usize,
    /// Elements `img`.
    pub images: usize,
}

/// Elements within a line: they do not separate words.
const INLINE: [&str; 22] = [
    "a", "abbr", "b", "big", "code", "del", "em", "font", "i", "ins", "mark", "s", "small", "span",
    "strike", "strong", "sub", "sup", "tt", "u", "var", "wbr",
];

/// Elements whose content is not shown.
const HIDDEN: [&str; 4] = ["script", "style", "template", "title"];

/// The longest character reference with a name is shorter, octets.
const MAX_REFERENCE: usize = 40;

impl Page {
    /// Reads an HTML text.
    pub fn read(html: &str) -> Self {
        let mut page = Self::default();
        page.text.reserve(html.len() / 2);
        let mut rest = html;
        while let Some(at) = memchr2(b'<', b'&', rest.as_bytes()) {
            page.text.push_str(&rest[..at]);
            rest = match rest.as_bytes()[at] {
                b'&' => page.reference(&rest[at..]),
                _ => page.markup(&rest[at..]),
            };
        }
        page.text.push_str(rest);
        page
    }

    /// Takes a character reference, or an `&` that begins none; gives what follows it.
    fn reference<'a>(&mut self, rest: &'a str) -> &'a str {
        let is_of_it = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'#';
        let inner = rest.as_bytes()[1..].iter().take(MAX_REFERENCE);
        let end = 1 + inner.take_while(|byte| is_of_it(byte)).count();
        if rest.as_bytes().get(end) != Some(&b';') {
            self.text.push('&');
            return &rest[1..];
        }
        let (reference, behind) = rest.split_at(end + 1);
        add_html_token(&mut self.text, reference.as_bytes(), false);
        behind
    }

    /// Takes a tag or a comment, or a `<` that begins none; gives what follows it.
    fn markup<'a>(&mut self, rest: &'a str) -> &'a str {
        if let Some(comment) = rest.strip_prefix("<!--") {
            let end = memmem::find(comment.as_bytes(), b"-->");
            return end.map_or("", |end| &comment[end + 3..]);
        }
        let (is_end, name_at) = match rest.as_bytes().get(1) {
            Some(b'/') => (true, 2),
            Some(b'!' | b'?') => {
                let end = memchr(b'>', rest.as_bytes());
                return end.map_or("", |end| &rest[end + 1..]);
            }
            _ => (false, 1),
        };
        if !rest[name_at..].starts_with(|first: char| first.is_ascii_alphabetic()) {
            self.text.push('<');
            return &rest[1..];
        }
        let tag = &rest[name_at..];
        let ends_name = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b'/' | b'>');
        let name_length = tag.bytes().position(|byte| ends_name(&byte));
        let (name, attributes) = tag.split_at(name_length.unwrap_or(tag.len()));
        let is = |other: &&str| name.eq_ignore_ascii_case(other);
        if !INLINE.iter().any(is) {
            self.text.push(' ');
        }
        let is_link = !is_end && (is(&"a") || is(&"area"));
        self.images += usize::from(!is_end && is(&"img"));
        let mut leads_away = false;
        let behind = pass_attributes(attributes, |name, value| {
            leads_away |= is_link && name.eq_ignore_ascii_case("href") && is_http(value);
        });
        self.links += usize::from(leads_away);
        match HIDDEN.iter().find(|other| is(other)) {
            Some(hidden) if !is_end => after_element(behind, hidden),
            _ => behind,
        }
    }
}

/// Whether a URL is one of the web.
fn is_http(url: &str) -> bool {
    let url = url.trim_ascii_start().as_bytes();
    [&b"http://"[..], b"https://"].iter().any(|scheme| {
        url.get(..scheme.len())
            .is_some_and(|begin| begin.eq_ignore_ascii_case(scheme))
    })
}

/// Calls with the name and value of each attribute of a tag; gives what follows the tag.
fn pass_attributes(attributes: &str, mut each: impl FnMut(&str, &str)) -> &str {
    let mut rest = attributes;
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '/');
        if let Some(behind) = rest.strip_prefix('>') {
            return behind;
        }
        if rest.is_empty() {
            return rest;
        }
        let ends_name = |c: char| c.is_ascii_whitespace() || matches!(c, '=' | '>' | '/');
        // A `=` in the first place is a part of the name.
        let first = rest.chars().next().map_or(0, char::len_utf8);
        let length = rest[first..].find(ends_name).map(|at| first + at);
        let (name, behind) = rest.split_at(length.unwrap_or(rest.len()));
        let Some(value) = behind.trim_ascii_start().strip_prefix('=') else {
            rest = behind;
            continue;
        };
        let value = value.trim_ascii_start();
        let (value, behind) = match value.chars().next() {
            Some(quote @ ('"' | '\'')) => value[1..].split_once(quote).unwrap_or((&value[1..], "")),
            _ => {
                let ends = |c: char| c.is_ascii_whitespace() || c == '>';
                value.split_at(value.find(ends).unwrap_or(value.len()))
            }
        };
        each(name, value);
        rest = behind;
    }
}

/// What follows the end of an element whose content is no markup; nothing when it has no end.
fn after_element<'a>(rest: &'a str, name: &str) -> &'a str {
    let ends = memmem::find_iter(rest.as_bytes(), b"</").find(|at| {
        rest.as_bytes()
            .get(at + 2..at + 2 + name.len())
            .is_some_and(|found| found.eq_ignore_ascii_case(name.as_bytes()))
    });
    ends.map_or("", |at| &rest[at..])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn words(html: &str) -> String {
        let text = Page::read(html).text;
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn shows_what_a_reader_sees() {
        for (html, expected) in [
            ("<p>one</p><p>two</p>", "one two"),
            ("fr<b>ee</b> mo<span class=x>ney", "free money"),
            ("one<br>two<br/>three", "one two three"),
            (
                "a &lt; b &amp;&#32;c &#x41;&eacute; &nosuch; &",
                "a < b & c Aé &nosuch; &",
            ),
            ("a < b <3", "a < b <3"),
            ("x<!-- <p>hidden</p> -->y", "xy"),
            ("x<!-- never ends", "x"),
            ("<!DOCTYPE html><?xml?>x", "x"),
            (
                "<head><title>t</title><style type='text/css'>p > a { x }</style></head>seen",
                "seen",
            ),
            ("<SCRIPT>if (a < b) '</p>'</Script>seen", "seen"),
            ("<style>never ends", ""),
            ("<p title=\"a > b\">seen</p>", "seen"),
            ("<p title='never ends>seen", ""),
            ("<p", ""),
        ] {
            assert_eq!(words(html), expected, "{html}");
        }
    }

    #[test]
    fn counts_links_and_images() {
        for (html, links, images) in [
            ("<a href=\"https://a.example/\">x</a>", 1, 0),
            (
                "<A class=x HREF = 'HTTP://a.example/'>x</A><area href=https://b.example>",
                2,
                0,
            ),
            ("<a href=\"mailto:a@b.example\">x</a><a name=x>y</a>", 0, 0),
            (
                "<link href=\"https://a.example/\"><img src=\"https://a.example/\"/>",
                0,
                1,
            ),
            (
                "<a data-href=\"https://a.example/\" href=\"#x\">x</a>",
                0,
                0,
            ),
            ("<!-- <a href=\"https://a.example/\"> -->", 0, 0),
            (
                "<a href=\"https://a.example/\" href=\"https://b.example/\">",
                1,
                0,
            ),
            ("<a href=\" https://a.example/?q=a>b\"><IMG><img/>", 1, 2),
        ] {
            let page = Page::read(html);
            assert_eq!((page.links, page.images), (links, images), "{html}");
        }
    }

    proptest! {
        #[test]
        fn never_panics_and_invents_no_text(html in "(<|>|&|;|/|!|--|\"|'|=|#| |a|img|href|style|é|\\PC){0,60}") {
            let page = Page::read(&html);
            prop_assert!(page.text.len() <= html.len() * 4);
        }
    }
}
