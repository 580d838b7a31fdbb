//! Feeding decoders with input cut into pieces.

use proptest::prelude::*;
use smtp::{
    AuthLineDecoder, Command, CommandDecoder, CommandError, DataDecoder, DataError, Decoded, Reply,
    ReplyDecoder, ReplyError,
};

/// Cuts the input at lengths taken in turn; without lengths there is one piece.
pub fn cut<'a>(input: &'a [u8], lengths: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    let mut rest = input;
    let mut lengths = lengths.iter().cycle();
    while !rest.is_empty() {
        let length = lengths
            .next()
            .copied()
            .unwrap_or(rest.len())
            .clamp(1, rest.len());
        let (piece, behind) = rest.split_at(length);
        pieces.push(piece);
        rest = behind;
    }
    pieces
}

/// Lengths of pieces, mostly short.
pub fn lengths() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![4 => 1_usize..4, 1 => 1_usize..700], 1..12)
}

/// Everything that a decoder makes of the pieces, and how many octets it used for each item.
fn collect<T, E>(
    pieces: &[&[u8]],
    mut decode: impl FnMut(&[u8]) -> Decoded<T, E>,
) -> Vec<(usize, Result<T, E>)> {
    let mut items = Vec::new();
    let mut used = 0;
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let decoded = decode(rest);
            assert!(
                decoded.item.is_some() || decoded.consumed == rest.len(),
                "input left without an item"
            );
            assert!(decoded.consumed > 0, "no progress");
            used += decoded.consumed;
            rest = &rest[decoded.consumed..];
            if let Some(item) = decoded.item {
                items.push((used, item));
            }
        }
    }
    items
}

pub fn commands(pieces: &[&[u8]]) -> Vec<(usize, Result<Command, CommandError>)> {
    let mut decoder = CommandDecoder::new();
    collect(pieces, |input| decoder.decode(input))
}

pub fn auth_lines(pieces: &[&[u8]]) -> Vec<(usize, Result<smtp::AuthLine, CommandError>)> {
    let mut decoder = AuthLineDecoder::new();
    collect(pieces, |input| decoder.decode(input))
}

pub fn replies(pieces: &[&[u8]]) -> Vec<(usize, Result<Reply, ReplyError>)> {
    let mut decoder = ReplyDecoder::new();
    collect(pieces, |input| decoder.decode(input))
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    pub octets: Vec<u8>,
    pub error: Option<DataError>,
    /// Octets used up to the final dot; `None` when it did not come.
    pub end: Option<usize>,
    pub size: u64,
    pub long_line: bool,
}

pub fn content(pieces: &[&[u8]], limit: u64) -> Content {
    let mut decoder = DataDecoder::new(limit);
    let mut octets = Vec::new();
    let mut used = 0;
    let mut end = None;
    for piece in pieces {
        let progress = decoder.decode(piece, &mut octets);
        used += progress.consumed;
        if progress.done {
            end = Some(used);
            break;
        }
        assert_eq!(progress.consumed, piece.len(), "input left before the end");
    }
    Content {
        octets,
        error: decoder.error(),
        end,
        size: decoder.size(),
        long_line: decoder.has_long_line(),
    }
}
