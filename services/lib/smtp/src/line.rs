//! Lines out of a stream of octets that comes in pieces.

use memchr::memchr;

/// What a decoder made of the octets that it was given.
#[derive(Debug, PartialEq, Eq)]
pub struct Decoded<T, E> {
    /// So many octets of the input are used up. All of them, unless there is an item: then what
    /// follows belongs to the next one, and must be given again.
    pub consumed: usize,
    /// A complete command, line or reply, or what is wrong with it.
    pub item: Option<Result<T, E>>,
}

/// However a line begins, so many octets of it are kept; also the least possible bound of a line.
const SHORTEST_BOUND: usize = 512;

/// Collects the octets of a line up to its bound, and goes on counting beyond it.
#[derive(Default)]
pub(crate) struct LineReader {
    kept: Vec<u8>,
    total: usize,
    last: Option<u8>,
}

/// One line without its end.
pub(crate) struct Line<'a> {
    /// At most the bound less two octets.
    pub octets: &'a [u8],
    /// Ended by CRLF, not by LF alone.
    pub strict_end: bool,
    /// The line was longer than its bound, and only the beginning is here.
    pub cut: bool,
}

impl LineReader {
    /// Reads to the end of the line or of the input, whichever comes first. `bound` says from the
    /// first octets of a line how long it may be with its CRLF; at least [`SHORTEST_BOUND`].
    ///
    /// Returns how many octets were used, and the line when it is complete; [`Self::clear`] must be
    /// called before the next line is read.
    pub(crate) fn read<'a>(
        &'a mut self,
        input: &'a [u8],
        bound: fn(&[u8]) -> usize,
    ) -> (usize, Option<Line<'a>>) {
        let Some((content, rest)) = memchr(b'\n', input).and_then(|at| input.split_at_checked(at))
        else {
            self.keep(input, bound);
            return (input.len(), None);
        };
        let consumed = input.len().saturating_sub(rest.len()).saturating_add(1);
        if self.total == 0 {
            // The usual case: the whole line is in the input, and nothing needs to be copied.
            return (
                consumed,
                Some(Line::new(
                    content,
                    content.len(),
                    content.last().copied(),
                    bound(content),
                )),
            );
        }
        self.keep(content, bound);
        (
            consumed,
            Some(Line::new(
                &self.kept,
                self.total,
                self.last,
                bound(&self.kept),
            )),
        )
    }

    /// Forgets the line, and its memory: connections are idle most of the time.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Octets of the unfinished line seen so far, kept or not.
    pub(crate) fn pending(&self) -> usize {
        self.total
    }

    fn keep(&mut self, octets: &[u8], bound: fn(&[u8]) -> usize) {
        self.total = self.total.saturating_add(octets.len());
        self.last = octets.last().copied().or(self.last);
        // Two steps, since the bound is known from the beginning of the line only.
        let rest = self.keep_up_to(octets, SHORTEST_BOUND);
        self.keep_up_to(rest, bound(&self.kept));
    }

    /// Returns what was not kept. The two octets of CRLF are not needed.
    fn keep_up_to<'a>(&mut self, octets: &'a [u8], bound: usize) -> &'a [u8] {
        let room = bound.saturating_sub(2).saturating_sub(self.kept.len());
        let (head, rest) = octets.split_at_checked(room).unwrap_or((octets, &[]));
        self.kept.extend_from_slice(head);
        rest
    }
}

impl<'a> Line<'a> {
    fn new(octets: &'a [u8], total: usize, last: Option<u8>, bound: usize) -> Self {
        let strict_end = last == Some(b'\r');
        let length = total.saturating_sub(usize::from(strict_end));
        let most = bound.saturating_sub(2);
        let octets = octets.get(..length.min(most)).unwrap_or(octets);
        Self {
            octets,
            strict_end,
            cut: length > most,
        }
    }
}
