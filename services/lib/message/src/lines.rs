//! Lines that are longer than SMTP allows (RFC 5321 section 4.5.3.1.6, RFC 5322 section 2.1.1): many hosts refuse or
//! cut them, the latter after they were signed.

use memchr::{memchr, memchr_iter, memrchr2};

/// Octets of a line without its CRLF.
pub const LONGEST_LINE: usize = 998;

/// Looks for a line that is too long in text that comes in parts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LineWatch {
    /// Octets of the line that has not ended yet.
    column: usize,
}

/// Where the first line begins that is too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongLine {
    /// In the part that was looked at last: what comes of the line in it begins here.
    pub offset: usize,
    /// Octets of the line that came before that part.
    pub column: usize,
}

impl LineWatch {
    /// Looks at the next part. Once a line was found there is nothing more to look for.
    pub fn push(&mut self, part: &[u8]) -> Option<LongLine> {
        let mut start = 0;
        for line_feed in memchr_iter(b'\n', part) {
            // With its CR.
            let length = self.column + line_feed - start;
            if length > LONGEST_LINE + 1 {
                return Some(self.found(start));
            }
            self.column = 0;
            start = line_feed + 1;
        }
        let rest = part.get(start..).unwrap_or_default();
        // The CR may be that of its end.
        let length = self.column + rest.strip_suffix(b"\r").unwrap_or(rest).len();
        if length > LONGEST_LINE && !rest.is_empty() {
            return Some(self.found(start));
        }
        self.column += rest.len();
        None
    }

    fn found(&self, offset: usize) -> LongLine {
        LongLine {
            offset,
            column: self.column,
        }
    }
}

/// Breaks lines that are too long: after white space where there is some, so that what is read as words or as HTML
/// stays the same, else anywhere between characters. Linear; keeps at most one line.
#[derive(Debug, Clone)]
pub struct LineBreaker {
    /// Of the line that has not ended: what was not passed on.
    held: Vec<u8>,
    /// Octets of that line which were passed on before.
    column: usize,
}

impl LineBreaker {
    /// For text that begins at `column` of a line.
    pub fn new(column: usize) -> Self {
        Self {
            held: Vec::new(),
            column,
        }
    }

    /// Takes the next part of the text; what is certain of it goes to `out`.
    pub fn push(&mut self, mut part: &[u8], out: &mut Vec<u8>) {
        while let Some(line_feed) = memchr(b'\n', part) {
            let (line, rest) = part.split_at(line_feed + 1);
            part = rest;
            if self.held.is_empty() {
                self.pass_on(line, true, out);
            } else {
                self.held.extend_from_slice(line);
                let line = std::mem::take(&mut self.held);
                self.pass_on(&line, true, out);
            }
            self.column = 0;
        }
        self.held.extend_from_slice(part);
        let held = std::mem::take(&mut self.held);
        let passed = self.pass_on(&held, false, out);
        self.held = held;
        self.held.drain(..passed);
    }

    /// The text is complete.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        out.append(&mut self.held);
    }

    /// Octets of memory in use.
    pub fn memory(&self) -> usize {
        self.held.capacity()
    }

    /// Breaks `line` as often as it must be, and passes it on: all of it when it is `whole` (with its end), else
    /// what comes before its last break. Returns how much that was.
    fn pass_on(&mut self, line: &[u8], whole: bool, out: &mut Vec<u8>) -> usize {
        let end = match line {
            [.., b'\r', b'\n'] if whole => line.len() - 2,
            [.., b'\n'] if whole => line.len() - 1,
            // The CR may be that of its end.
            [.., b'\r'] => line.len() - 1,
            _ => line.len(),
        };
        let mut start = 0;
        while self.column + end - start > LONGEST_LINE {
            let room = LONGEST_LINE.saturating_sub(self.column);
            let length = break_after(&line[start..end], room);
            out.extend_from_slice(&line[start..start + length]);
            out.extend_from_slice(b"\r\n");
            start += length;
            self.column = 0;
        }
        if whole {
            out.extend_from_slice(&line[start..]);
            return line.len();
        }
        start
    }
}

/// How many octets of `text`, at most `most`, stay on the line.
fn break_after(text: &[u8], most: usize) -> usize {
    let mut window = &text[..most];
    while let Some(space) = memrchr2(b' ', b'\t', window) {
        // What comes after it must not look like the delimiter of a part (RFC 2046 section 5.1.1).
        if text.get(space + 1).is_none_or(|next| *next != b'-') {
            return space + 1;
        }
        window = &text[..space];
    }
    let is_within_character = |at: &usize| text.get(*at).is_some_and(|octet| octet & 0xC0 == 0x80);
    let back = (most.saturating_sub(3)..=most).rev();
    back.into_iter()
        .find(|at| !is_within_character(at))
        .unwrap_or(most)
}

/// Folds the lines of a field that are too long, before white space (RFC 5322 section 2.2.3). What has none stays as
/// it is.
pub(crate) fn fold(mut field: &[u8], out: &mut Vec<u8>) {
    while field.len() > LONGEST_LINE {
        let line = memchr(b'\n', field).map_or(field.len(), |line_feed| line_feed + 1);
        // The last one may have no end yet.
        let text = field[..line].strip_suffix(b"\n").unwrap_or(&field[..line]);
        if text.strip_suffix(b"\r").unwrap_or(text).len() <= LONGEST_LINE {
            out.extend_from_slice(&field[..line]);
            field = &field[line..];
            continue;
        }
        // A line of nothing but white space would end the header section for some: something must stay before it.
        let first_word = field.iter().position(|octet| !octet.is_ascii_whitespace());
        let from = first_word.unwrap_or(line).min(line);
        let before = from..=LONGEST_LINE.max(from);
        let at = memrchr2(b' ', b'\t', &field[before.clone()])
            .or_else(|| memchr::memchr2(b' ', b'\t', &field[from..line]))
            .map(|at| from + at)
            .filter(|at| !field[*at..line].trim_ascii().is_empty());
        match at {
            Some(at) => {
                out.extend_from_slice(&field[..at]);
                out.extend_from_slice(b"\r\n");
                field = &field[at..];
            }
            None => {
                out.extend_from_slice(&field[..line]);
                field = &field[line..];
            }
        }
    }
    out.extend_from_slice(field);
}

/// Whether a line of a header section is too long.
pub fn has_long_line(header: &[u8]) -> bool {
    LineWatch::default().push(header).is_some()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn broken(text: &[u8], step: usize) -> Vec<u8> {
        let mut breaker = LineBreaker::new(0);
        let mut out = Vec::new();
        for part in text.chunks(step.max(1)) {
            breaker.push(part, &mut out);
            assert!(breaker.held.len() <= LONGEST_LINE + 1);
        }
        breaker.finish(&mut out);
        out
    }

    fn longest(text: &[u8]) -> usize {
        let lines = text.split(|octet| *octet == b'\n');
        lines
            .map(|line| line.strip_suffix(b"\r").unwrap_or(line).len())
            .max()
            .unwrap_or(0)
    }

    #[test]
    fn finds_the_first_line_that_is_too_long_and_where_it_begins() {
        let fits = format!("{}\r\n", "x".repeat(LONGEST_LINE));
        let text = format!("a\r\n{fits}{}\r\n", "y".repeat(LONGEST_LINE + 1));
        let expected = 3 + fits.len();
        let at_once = LineWatch::default().push(text.as_bytes());
        let found = LongLine {
            offset: expected,
            column: 0,
        };
        assert_eq!(at_once, Some(found));
        for step in [1, 7, 100, 998, 999, 1000] {
            let mut watch = LineWatch::default();
            let mut passed = 0;
            let found = text.as_bytes().chunks(step).find_map(|part| {
                let found = watch.push(part);
                passed += part.len();
                found.map(|found| passed - part.len() + found.offset - found.column)
            });
            assert_eq!(found, Some(expected), "{step}");
        }
        assert_eq!(LineWatch::default().push(fits.as_bytes()), None);
        // A last line without an end; a CR that may be one, and a part with nothing in it.
        let mut watch = LineWatch::default();
        assert_eq!(watch.push(&fits.as_bytes()[..LONGEST_LINE + 1]), None);
        assert_eq!(watch.push(b""), None);
        assert!(watch.push(b"x").is_some());
        assert!(has_long_line("z".repeat(LONGEST_LINE + 1).as_bytes()));
        assert!(!has_long_line(fits.as_bytes()) && has_long_line(text.as_bytes()));
    }

    #[test]
    fn breaks_after_white_space_and_between_characters_otherwise() {
        let words = format!("{} {}\r\n", "a".repeat(900), "b".repeat(900));
        let expected = format!("{} \r\n{}\r\n", "a".repeat(900), "b".repeat(900));
        assert_eq!(broken(words.as_bytes(), 64), expected.as_bytes());
        // No space after which it may be broken: the rest would look like a delimiter.
        let dashes = format!("a {} --{}\r\n", "b".repeat(500), "c".repeat(900));
        let expected = format!(
            "a \r\n{} --{}\r\n{}\r\n",
            "b".repeat(500),
            "c".repeat(495),
            "c".repeat(405)
        );
        assert_eq!(broken(dashes.as_bytes(), 64), expected.as_bytes());
        let umlauts = "ä".repeat(900);
        let parts = broken(umlauts.as_bytes(), 5000);
        assert_eq!(
            String::from_utf8(parts).unwrap(),
            format!("{}\r\n{}", "ä".repeat(499), "ä".repeat(401))
        );
    }

    #[test]
    fn goes_on_in_a_line_that_has_begun() {
        let mut breaker = LineBreaker::new(990);
        let mut out = Vec::new();
        breaker.push(&[b'x'; 20], &mut out);
        breaker.push(b"\r\ny\r\n", &mut out);
        breaker.finish(&mut out);
        assert_eq!(out, b"xxxxxxxx\r\nxxxxxxxxxxxx\r\ny\r\n");
        for column in [LONGEST_LINE, LONGEST_LINE + 1] {
            let mut breaker = LineBreaker::new(column);
            let mut out = Vec::new();
            breaker.push(b"xy\r\n", &mut out);
            assert_eq!(out, b"\r\nxy\r\n");
        }
    }

    #[test]
    fn folds_before_white_space_and_leaves_what_has_none() {
        let folded = |field: &str| {
            let mut out = Vec::new();
            fold(field.as_bytes(), &mut out);
            String::from_utf8(out).unwrap()
        };
        let (a, b) = ("a".repeat(700), "b".repeat(700));
        assert_eq!(
            folded(&format!("X: {a} {b} c\r\n d\r\n")),
            format!("X: {a}\r\n {b} c\r\n d\r\n")
        );
        assert_eq!(folded("X: short\r\n"), "X: short\r\n");
        let one_word = format!("X:{a}{b}\r\n");
        assert_eq!(folded(&one_word), one_word);
        // Further on is better than nowhere.
        assert_eq!(
            folded(&format!("X:{a}{b} c d\r\n")),
            format!("X:{a}{b}\r\n c d\r\n")
        );
        // A line of white space alone would end the section for some readers.
        let only_space = format!("X:{a}{b}   \r\n");
        assert_eq!(folded(&only_space), only_space);
        // The section ended before the line did.
        let unended = format!("X: {} {}", "a".repeat(500), "b".repeat(495));
        assert_eq!(
            folded(&unended),
            unended.replace(' ', "\r\n ").replacen("\r\n ", " ", 1)
        );
    }

    proptest! {
        #[test]
        fn loses_nothing_and_leaves_no_long_line(
            lines in proptest::collection::vec(("[a-z -]{0,30}", 0_usize..120), 0..6),
            step in 1_usize..3000,
        ) {
            let text: String = lines.iter().map(|(word, times)| word.repeat(*times) + "\r\n").collect();
            let out = broken(text.as_bytes(), step);
            prop_assert!(longest(&out) <= LONGEST_LINE);
            let without_ends = |text: &[u8]| -> Vec<u8> {
                text.iter().copied().filter(|octet| !b"\r\n".contains(octet)).collect()
            };
            prop_assert_eq!(without_ends(&out), without_ends(text.as_bytes()));
            prop_assert_eq!(broken(text.as_bytes(), usize::MAX), out);
        }

        #[test]
        fn folding_loses_nothing(field in "[a-z \t]{0,3000}") {
            let field = format!("X: {field}\r\n");
            let mut out = Vec::new();
            fold(field.as_bytes(), &mut out);
            let unfolded = String::from_utf8(out).unwrap().replace("\r\n", "");
            prop_assert_eq!(unfolded, field.replace("\r\n", ""));
        }
    }
}
