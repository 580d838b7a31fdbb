//! clamd: sessions (IDSESSION) in which one message after the other is streamed (INSTREAM). See clamd(8).

use crate::{Opinion, Verdict, public_text};

/// Begins a session; said once.
pub const BEGIN: &[u8] = b"zIDSESSION\0";
/// Before each message.
pub const STREAM: &[u8] = b"zINSTREAM\0";
/// After each message: a chunk without anything in it.
pub const END_OF_STREAM: &[u8] = &[0; 4];

/// Longest reply that is read, octets: the name of a signature.
const LONGEST_REPLY: usize = 4096;

/// What clamd says can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It is not ending.
    #[error("a reply has more than {LONGEST_REPLY} octets")]
    TooLong,
    /// It is about another message, or of no known form.
    #[error("a reply is none to this message")]
    Unknown,
}

/// What comes before a chunk of so many octets, of which there may be at most 2^32 - 1.
pub fn chunk_head(length: u32) -> [u8; 4] {
    length.to_be_bytes()
}

/// Reads the reply to a message.
#[derive(Debug)]
pub struct ReplyDecoder {
    /// Which message of its session it is, from 1.
    number: u64,
    line: Vec<u8>,
}

impl ReplyDecoder {
    /// For the message of this number in its session, from 1.
    pub fn new(number: u64) -> Self {
        Self {
            number,
            line: Vec::new(),
        }
    }

    /// Takes what came; `None` while the reply is not complete. What follows the reply is not looked at.
    pub fn decode(&mut self, octets: &[u8]) -> Result<Option<Verdict>, Error> {
        let end = octets.iter().position(|octet| matches!(octet, 0 | b'\n'));
        let part = octets
            .get(..end.unwrap_or(octets.len()))
            .unwrap_or_default();
        if self.line.len().saturating_add(part.len()) > LONGEST_REPLY {
            return Err(Error::TooLong);
        }
        self.line.extend_from_slice(part);
        match end {
            Some(_) => read(self.number, &self.line).map(Some),
            None => Ok(None),
        }
    }
}

/// `<number>: stream: OK`, `<number>: stream: <name> FOUND`, `… ERROR`.
fn read(number: u64, line: &[u8]) -> Result<Verdict, Error> {
    let line = line.trim_ascii();
    if let Some(reason) = line.strip_suffix(b"ERROR") {
        let reason = public_text(reason);
        // What breaks the stream off has no number.
        return Ok(if reason.contains("size limit exceeded") {
            Opinion::TooLarge.into()
        } else {
            Opinion::Unable(reason).into()
        });
    }
    let prefix = format!("{number}: stream: ");
    let said = line.strip_prefix(prefix.as_bytes()).ok_or(Error::Unknown)?;
    if said == b"OK" {
        return Ok(Opinion::Clean.into());
    }
    let name = said.strip_suffix(b" FOUND").ok_or(Error::Unknown)?;
    Ok(Opinion::Infected(public_text(name)).into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(pieces: &[&[u8]]) -> Result<Option<Verdict>, Error> {
        let mut decoder = ReplyDecoder::new(2);
        for piece in pieces {
            if let Some(verdict) = decoder.decode(piece)? {
                return Ok(Some(verdict));
            }
        }
        Ok(None)
    }

    #[test]
    fn replies_are_read_wherever_they_are_cut() {
        let infected = Opinion::Infected("Eicar.Test".to_owned());
        let unable = Opinion::Unable("2: stream: Can't allocate memory".to_owned());
        type Read = Result<Option<Opinion>, Error>;
        let table: [(&[u8], Read); 9] = [
            (b"2: stream: OK\0", Ok(Some(Opinion::Clean))),
            (b"2: stream: Eicar.Test FOUND\0", Ok(Some(infected))),
            (
                b"INSTREAM size limit exceeded. ERROR\0",
                Ok(Some(Opinion::TooLarge)),
            ),
            (
                b"2: stream: Can't allocate memory ERROR\0",
                Ok(Some(unable)),
            ),
            // Of the message before.
            (b"1: stream: OK\0", Err(Error::Unknown)),
            (b"stream: OK\0", Err(Error::Unknown)),
            (b"2: stream: OK FOR NOW\0", Err(Error::Unknown)),
            (b"UNKNOWN COMMAND\n", Err(Error::Unknown)),
            (b"2: stream: OK", Ok(None)),
        ];
        for (reply, expected) in table {
            for cut in 0..=reply.len() {
                let (first, second) = reply.split_at(cut);
                let read = decode(&[first, second]).map(|verdict| verdict.map(|of| of.opinion));
                assert_eq!(read, expected, "{} cut at {cut}", reply.escape_ascii());
            }
        }
    }

    #[test]
    fn a_reply_without_end_is_given_up() {
        let mut decoder = ReplyDecoder::new(1);
        let mut read = 0;
        while decoder.decode(&[b'x'; 100]) == Ok(None) {
            read += 100;
            assert!(read <= LONGEST_REPLY);
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(octets in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(Some(verdict)) = decode(&[&octets])
                && let Opinion::Infected(text) | Opinion::Unable(text) = verdict.opinion
            {
                prop_assert!(text.bytes().all(|octet| (b' '..=b'~').contains(&octet)));
            }
        }
    }
}
