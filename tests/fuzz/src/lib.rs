//! What the fuzz targets share: cutting the input into pieces, and feeding decoders with them.

use smtp::Decoded;

/// The first octet of an input says into which pieces the rest is cut: of 1 to 15 and of 1 to 15
/// octets in turn; for 0 there is one piece.
pub fn pieces(input: &[u8]) -> (&[u8], Vec<&[u8]>) {
    let Some((&lengths, rest)) = input.split_first() else {
        return (input, Vec::new());
    };
    if lengths == 0 {
        return (rest, vec![rest]);
    }
    let mut turns = [lengths >> 4, lengths & 15].into_iter().cycle();
    let mut pieces = Vec::new();
    let mut left = rest;
    while !left.is_empty() {
        let length = usize::from(turns.next().unwrap_or(1).max(1)).min(left.len());
        let (piece, behind) = left.split_at(length);
        pieces.push(piece);
        left = behind;
    }
    (rest, pieces)
}

/// All items of a decoder, each with the number of octets used up to its end.
pub fn items<T, E>(
    pieces: &[&[u8]],
    mut decode: impl FnMut(&[u8]) -> Decoded<T, E>,
) -> Vec<(usize, Result<T, E>)> {
    let mut items = Vec::new();
    let mut used = 0;
    for piece in pieces {
        let mut rest = *piece;
        while !rest.is_empty() {
            let decoded = decode(rest);
            assert!(decoded.consumed > 0 && decoded.consumed <= rest.len());
            used += decoded.consumed;
            rest = &rest[decoded.consumed..];
            match decoded.item {
                Some(item) => items.push((used, item)),
                None => assert!(rest.is_empty()),
            }
        }
    }
    items
}
