//! The dialogue of an attempt, as it is told when the attempt fails.
//!
//! Nobody knows beforehand which attempt fails, so everything that is said is copied into a buffer of the attempt, as octets,
//! and forgotten when all went well. Only what is kept is made readable, and freed of what must not be seen (`passages`).
//!
//! The buffer belongs to the task that makes the attempt. What is said in no attempt, such as the farewell on an idle
//! connection, is recorded nowhere.

mod passages;

use std::cell::RefCell;
use std::fmt;
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

use proto::transcript::Transcript;

/// Octets of an attempt; a piece counts for [`PIECE_COST`] more. Of longer dialogues the middle is left out.
const MOST: usize = 16 * 1024;
/// The beginning that always stays.
const BEGINNING: usize = 4 * 1024;
/// So much of one piece at most.
const LONGEST: usize = 4 * 1024;
/// What a piece costs besides its octets.
const PIECE_COST: usize = 16;
/// What most dialogues need.
const USUAL: usize = 1024;

tokio::task_local! {
    static CURRENT: RefCell<Record>;
}

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaker {
    /// What happens.
    Nobody,
    Client,
    Host,
}

#[derive(Debug, Clone, Copy)]
struct Piece {
    at_ms: u32,
    speaker: Speaker,
    length: usize,
    /// Octets of it that are not there.
    cut: usize,
}

/// What was said so far.
pub(crate) struct Record {
    begun: Instant,
    octets: Vec<u8>,
    pieces: Vec<Piece>,
    left_out: usize,
}

impl Record {
    fn new() -> Self {
        Self {
            begun: Instant::now(),
            octets: Vec::with_capacity(USUAL),
            pieces: Vec::with_capacity(16),
            left_out: 0,
        }
    }

    fn add(&mut self, speaker: Speaker, octets: &[u8]) {
        if octets.is_empty() {
            return;
        }
        let kept = octets.get(..LONGEST).unwrap_or(octets);
        let cut = octets.len() - kept.len();
        // A line that comes in pieces is one.
        let is_within_line = self.octets.last().is_some_and(|octet| *octet != b'\n');
        match self.pieces.last_mut() {
            Some(last)
                if last.speaker == speaker
                    && speaker != Speaker::Nobody
                    && is_within_line
                    && last.cut == 0
                    && last.length < LONGEST =>
            {
                last.length += kept.len();
                last.cut = cut;
            }
            _ => self.begin(speaker, kept.len(), cut),
        }
        self.octets.extend_from_slice(kept);
        self.keep_within_bounds();
    }

    fn begin(&mut self, speaker: Speaker, length: usize, cut: usize) {
        self.pieces.push(Piece {
            at_ms: u32::try_from(self.begun.elapsed().as_millis()).unwrap_or(u32::MAX),
            speaker,
            length,
            cut,
        });
    }

    fn keep_within_bounds(&mut self) {
        if self.octets.len() + self.pieces.len() * PIECE_COST > MOST {
            self.leave_out();
        }
    }

    /// Removes pieces of the middle, many at once: what is moved for it is in proportion to what is said.
    fn leave_out(&mut self) {
        let cost = |piece: &Piece| piece.length + PIECE_COST;
        let mut spent = 0;
        let first = self.pieces.iter().take_while(|piece| {
            spent += cost(piece);
            spent <= BEGINNING
        });
        let first = first.count();
        let start: usize = self.pieces[..first].iter().map(|piece| piece.length).sum();
        let (mut end, mut last, mut freed) = (start, first, 0);
        // The newest piece stays, whatever it is.
        while freed < MOST / 2 && last + 1 < self.pieces.len() {
            let piece = self.pieces[last];
            freed += cost(&piece);
            end += piece.length;
            self.left_out += piece.length + piece.cut;
            last += 1;
        }
        self.octets.drain(start..end);
        self.pieces.drain(first..last);
    }

    /// What happened; said once when it is said twice.
    pub fn note(&mut self, what: fmt::Arguments<'_>) {
        let start = self.octets.len();
        // Writing into memory can't fail.
        write!(self.octets, "{what}").ok();
        self.octets.truncate(start + LONGEST);
        let (before, text) = self.octets.split_at(start);
        let is_said = self.pieces.last().is_some_and(|last| {
            last.speaker == Speaker::Nobody && before[start - last.length..] == *text
        });
        let length = text.len();
        if is_said {
            self.octets.truncate(start);
        } else {
            self.begin(Speaker::Nobody, length, 0);
            self.keep_within_bounds();
        }
    }

    /// What is kept of it: `about` says of which attempt it is.
    pub fn into_transcript(self, about: Transcript) -> Transcript {
        Transcript {
            duration_ms: u32::try_from(self.begun.elapsed().as_millis()).unwrap_or(u32::MAX),
            left_out: u32::try_from(self.left_out).unwrap_or(u32::MAX),
            passages: passages::readable(&self.pieces, &self.octets),
            ..about
        }
    }
}

/// What is kept, and where.
#[derive(Clone)]
pub(crate) struct Keeping {
    pub keep: Arc<dyn Fn(Transcript) + Send + Sync>,
    /// Of so many attempts that succeed, one is kept; 0 = none.
    pub one_in: u32,
}

impl Keeping {
    /// Whether an attempt that succeeds is kept; the same for one attempt whoever asks. `number` tells attempts apart.
    pub fn samples(&self, message_id: &[u8; 16], number: u32) -> bool {
        // The end of a message id is random.
        let (_, random) = message_id.split_at(8);
        let seed = random.iter().fold(u64::from(number), |seed, octet| {
            (seed ^ u64::from(*octet)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        self.one_in > 0 && (seed >> 16) % u64::from(self.one_in) == 0
    }
}

/// Makes an attempt, and records what is said in it.
pub(crate) async fn recorded<T>(attempt: impl Future<Output = T>) -> (T, Record) {
    let attempt = async {
        let ended = attempt.await;
        (
            ended,
            CURRENT.with(|record| record.replace(Record::ended())),
        )
    };
    CURRENT.scope(RefCell::new(Record::new()), attempt).await
}

impl Record {
    /// What is left behind.
    fn ended() -> Self {
        Self {
            begun: Instant::now(),
            octets: Vec::new(),
            pieces: Vec::new(),
            left_out: 0,
        }
    }
}

/// We said this.
pub(crate) fn said(octets: &[u8]) {
    with(|record| record.add(Speaker::Client, octets));
}

/// The host said this.
pub(crate) fn heard(octets: &[u8]) {
    with(|record| record.add(Speaker::Host, octets));
}

/// This happened.
pub(crate) fn note(what: fmt::Arguments<'_>) {
    with(|record| record.note(what));
}

fn with(change: impl FnOnce(&mut Record)) {
    // Without a record there is nobody who would read it.
    CURRENT
        .try_with(|record| change(&mut record.borrow_mut()))
        .ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(record: Record) -> String {
        let transcript = record.into_transcript(Transcript::default());
        let texts = transcript.passages.into_iter().map(|passage| passage.text);
        texts.collect::<Vec<_>>().join("|")
    }

    #[tokio::test]
    async fn what_is_said_outside_of_an_attempt_is_recorded_nowhere() {
        said(b"QUIT\r\n");
        let ((), first) = recorded(async {
            said(b"NOOP\r\n");
            tokio::task::yield_now().await;
            heard(b"250 o");
            heard(b"k\r\n");
            note(format_args!("the host is {}", "gone"));
            note(format_args!("the host is gone"));
        })
        .await;
        let ((), second) = recorded(async { said(b"RSET\r\n") }).await;
        assert_eq!(text(first), "NOOP|250 ok|the host is gone");
        assert_eq!(text(second), "RSET");
    }

    #[test]
    fn of_a_long_dialogue_beginning_and_end_stay() {
        for (piece, rounds) in [
            ("250 2.1.5 ok", 10_000),
            (&*"x".repeat(9_000), 50),
            ("2", 50_000),
        ] {
            let mut record = Record::new();
            let mut all = 0;
            record.add(Speaker::Host, b"220 first\r\n");
            for _ in 0..rounds {
                record.add(Speaker::Client, b"NOOP\r\n");
                record.add(Speaker::Host, piece.as_bytes());
                record.add(Speaker::Host, b"\r\n");
                all += piece.len() + 8;
                let kept = record.octets.len() + record.pieces.len() * PIECE_COST;
                assert!(kept <= MOST, "{kept}");
            }
            record.add(Speaker::Host, b"421 last\r\n");
            assert!((all - 3 * MOST..=all).contains(&record.left_out));
            let left_out = record.left_out;
            let transcript = record.into_transcript(Transcript::default());
            assert_eq!(transcript.left_out as usize, left_out);
            assert_eq!(transcript.passages[0].text, "220 first");
            assert_eq!(transcript.passages.last().unwrap().text, "421 last");
        }
    }

    #[test]
    fn about_as_many_are_sampled_as_are_asked_for() {
        let sampled = |one_in| {
            let keeping = Keeping {
                keep: Arc::new(|_| {}),
                one_in,
            };
            let mut count = 0;
            for _ in 0..10_000 {
                let id = *mail::MessageId::now().as_bytes();
                count += u32::from(keeping.samples(&id, 1));
            }
            count
        };
        assert_eq!((sampled(0), sampled(1)), (0, 10_000));
        assert!((700..1_300).contains(&sampled(10)), "{}", sampled(10));
    }
}
