//! Packets: a length, a letter, and what belongs to it.

use super::Error;

/// Octets of the largest packet that is read: a field of a header section.
const LARGEST: u32 = 128 * 1024;

/// What the milter says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    /// The letter.
    pub code: u8,
    /// What belongs to it.
    pub data: Vec<u8>,
}

/// Reads packets.
#[derive(Debug, Default)]
pub struct PacketDecoder {
    received: Vec<u8>,
}

impl PacketDecoder {
    /// Before anything has come.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what came. Call [`PacketDecoder::next`] until there is none before more is added.
    pub fn push(&mut self, octets: &[u8]) {
        self.received.extend_from_slice(octets);
    }

    /// The next packet; `None` while it is not complete.
    #[expect(
        clippy::should_implement_trait,
        reason = "it goes on after `None`, and may fail"
    )]
    pub fn next(&mut self) -> Result<Option<Packet>, Error> {
        let Some((head, rest)) = self.received.split_first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*head);
        if length == 0 || length > LARGEST {
            return Err(Error::Length(length));
        }
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some((code, data)) = rest.get(..length).and_then(<[u8]>::split_first) else {
            return Ok(None);
        };
        let packet = Packet {
            code: *code,
            data: data.to_vec(),
        };
        self.received.drain(..length.saturating_add(4));
        Ok(Some(packet))
    }
}

/// Appends a packet of these parts.
pub(super) fn write(out: &mut Vec<u8>, code: u8, parts: &[&[u8]]) {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let length = u32::try_from(length.saturating_add(1)).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.push(code);
    for part in parts {
        out.extend_from_slice(part);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(pieces: &[&[u8]]) -> Result<Vec<Packet>, Error> {
        let mut decoder = PacketDecoder::new();
        let mut packets = Vec::new();
        for piece in pieces {
            decoder.push(piece);
            while let Some(packet) = decoder.next()? {
                packets.push(packet);
            }
        }
        Ok(packets)
    }

    #[test]
    fn packets_are_read_wherever_they_are_cut_and_bounded() {
        let mut octets = Vec::new();
        write(&mut octets, b'c', &[]);
        write(&mut octets, b'y', &[b"550 no", b"\0"]);
        let expected = decode(&[&octets]).unwrap();
        assert_eq!(expected.len(), 2);
        assert_eq!(
            (expected[1].code, expected[1].data.as_slice()),
            (b'y', &b"550 no\0"[..])
        );
        for cut in 0..=octets.len() {
            let (first, second) = octets.split_at(cut);
            assert_eq!(decode(&[first, second]).as_ref(), Ok(&expected));
        }
        assert_eq!(decode(&[&[0, 0, 0, 0]]), Err(Error::Length(0)));
        assert_eq!(decode(&[b"HTTP/1.1"]), Err(Error::Length(0x4854_5450)));
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(octets in proptest::collection::vec(any::<u8>(), 0..100)) {
            let single: Vec<&[u8]> = octets.chunks(1).collect();
            prop_assert_eq!(decode(&single).is_ok(), decode(&[&octets]).is_ok());
        }
    }
}
