//! The record of a block: the messages one after another, and their index in the headers.
//! The format is described in `proto/staffetta/spool/v1/spool.proto`.

use async_nats::HeaderMap;
use base64::Engine;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use bytes::{BufMut, Bytes, BytesMut};
use mail::MessageId;
use prost::Message as _;
use proto::spool::{BlockIndex, IndexEntry};
use uuid::Uuid;

/// Bit of `BlockIndex.flags`: a copy made by repacking, of no effect until the journal names it.
pub const BLOCK_COPY: u64 = 1;

/// The longest content that goes into a block, bytes; longer messages are uploaded in chunks.
pub const MAX_INLINE_CONTENT: usize = 1 << 20;

/// Format version of the index.
const INDEX_FORMAT: u32 = 1;

/// An index up to this length, bytes, goes into the header: base64 makes 48 KiB of it, and JetStream
/// takes at most 64 KiB of headers.
pub(crate) const MAX_HEADER_INDEX: usize = 36 << 10;

/// Length of a part of the index that goes before the block, bytes.
const MORE_PART: usize = 512 << 10;

/// The longest index that is read, bytes.
const MAX_INDEX: usize = 8 << 20;

pub(crate) const INDEX_HEADER: &str = "Staffetta-Index";
pub(crate) const MORE_HEADER: &str = "Staffetta-More";

/// Padding is not written, and accepted.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent),
);

/// Whether a message has an entry so long that its block could not be read: it has too many recipients with much of their own.
/// Such a message is alone in its block; offset, length and the block's own fields come to it.
pub(crate) fn is_too_long(entry: &IndexEntry) -> bool {
    entry.encoded_len() > MAX_INDEX - (1 << 10)
}

/// A block can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockDamage {
    /// The record has no index.
    #[error("the record has no index")]
    NoIndex,
    /// The index can't be decoded.
    #[error("the index can't be decoded: {0}")]
    Index(String),
    /// The index has a format that this release does not know.
    #[error("the index has the unknown format {0}")]
    UnknownFormat(u32),
    /// A part of the index that the block names is not there.
    #[error("part {0} of the index is missing")]
    MissingPart(u64),
    /// The index has no entry at the place.
    #[error("the block has no entry {0}")]
    NoEntry(u32),
    /// The entry is about another message.
    #[error("the entry is about message {found}")]
    WrongMessage {
        /// The id in the entry, or its bytes when they are none.
        found: String,
    },
    /// The content is shorter than the index says.
    #[error("the content ends at {end}, the record at {available} bytes")]
    Truncated {
        /// End of the content according to the index.
        end: u64,
        /// Length of the record.
        available: usize,
    },
    /// The content does not have the checksum of the index.
    #[error("the checksum of the content differs")]
    Checksum,
    /// A chunk of the content is not there.
    #[error("chunk {0} of the content is missing")]
    MissingChunk(u64),
}

/// A block ready to be published, to any partition.
#[derive(Debug, Clone)]
pub(crate) struct AssembledBlock {
    pub id: Uuid,
    pub payload: Bytes,
    /// Goes into the header.
    index: String,
    /// Go before the block.
    pub more: Vec<Bytes>,
}

impl AssembledBlock {
    /// Puts the contents together; sets offset, length and checksum of entries without chunks.
    pub fn new(id: Uuid, flags: u64, mut messages: Vec<(IndexEntry, Bytes)>) -> Self {
        let length: usize = messages.iter().map(|(_, content)| content.len()).sum();
        let mut payload = BytesMut::with_capacity(length);
        for (entry, content) in &mut messages {
            if entry.chunks.is_some() {
                (entry.offset, entry.length) = (0, 0);
                continue;
            }
            entry.offset = payload.len() as u32;
            entry.length = content.len() as u32;
            entry.crc = crc32c::crc32c(content);
            payload.put_slice(content);
        }
        let index = BlockIndex {
            format: INDEX_FORMAT,
            flags,
            block_id: Bytes::copy_from_slice(id.as_bytes()),
            entries: messages.into_iter().map(|(entry, _)| entry).collect(),
        };
        let encoded = Bytes::from(index.encode_to_vec());
        let (more, own) = if encoded.len() <= MAX_HEADER_INDEX {
            (Vec::new(), encoded)
        } else {
            let split = encoded.len() - MAX_HEADER_INDEX;
            let before = encoded.slice(..split);
            let parts = (0..before.len())
                .step_by(MORE_PART)
                .map(|start| before.slice(start..before.len().min(start + MORE_PART)))
                .collect();
            (parts, encoded.slice(split..))
        };
        Self {
            id,
            payload: payload.freeze(),
            index: BASE64.encode(own),
            more,
        }
    }

    /// The headers of the record; `more` are the sequences of the parts that went before it.
    pub fn headers(&self, more: &[u64]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(async_nats::header::NATS_MESSAGE_ID, self.id.to_string());
        if !more.is_empty() {
            let sequences: Vec<String> = more.iter().map(u64::to_string).collect();
            headers.insert(MORE_HEADER, sequences.join(","));
        }
        headers.insert(INDEX_HEADER, self.index.as_str());
        headers
    }

    /// Bytes of the record, roughly.
    pub fn size(&self) -> usize {
        self.payload.len() + self.index.len() + self.more.iter().map(Bytes::len).sum::<usize>()
    }
}

/// Sequences of the parts that go before the block's own; empty for most blocks.
pub(crate) fn more_sequences(headers: &HeaderMap) -> Result<Vec<u64>, BlockDamage> {
    let Some(list) = headers.get(MORE_HEADER) else {
        return Ok(Vec::new());
    };
    let sequences: Result<Vec<u64>, _> = list.as_str().split(',').map(str::parse).collect();
    match sequences {
        Ok(sequences) if sequences.len() <= MAX_INDEX / MORE_PART => Ok(sequences),
        Ok(sequences) => Err(BlockDamage::Index(format!("{} parts", sequences.len()))),
        Err(error) => Err(BlockDamage::Index(format!("{MORE_HEADER}: {error}"))),
    }
}

/// Decodes the index from the record's headers and the parts that went before it.
pub(crate) fn decode_index(headers: &HeaderMap, more: &[Bytes]) -> Result<BlockIndex, BlockDamage> {
    let text = headers.get(INDEX_HEADER).ok_or(BlockDamage::NoIndex)?;
    let own = BASE64
        .decode(text.as_str())
        .map_err(|error| BlockDamage::Index(error.to_string()))?;
    let index = if more.is_empty() {
        BlockIndex::decode(own.as_slice())
    } else {
        let mut whole: Vec<u8> = more.concat();
        whole.extend_from_slice(&own);
        BlockIndex::decode(whole.as_slice())
    }
    .map_err(|error| BlockDamage::Index(error.to_string()))?;
    if index.format != INDEX_FORMAT {
        return Err(BlockDamage::UnknownFormat(index.format));
    }
    Ok(index)
}

/// Checks that an entry is about the message that is asked for.
pub(crate) fn check_message(entry: &IndexEntry, expected: MessageId) -> Result<(), BlockDamage> {
    if entry.message_id.as_ref() == expected.as_bytes() {
        return Ok(());
    }
    let found = match MessageId::try_from(entry.message_id.as_ref()) {
        Ok(id) => id.to_string(),
        Err(error) => error.to_string(),
    };
    Err(BlockDamage::WrongMessage { found })
}

/// The content of an entry without chunks, its checksum verified.
pub(crate) fn content_of(entry: &IndexEntry, payload: &Bytes) -> Result<Bytes, BlockDamage> {
    let (start, end) = (
        u64::from(entry.offset),
        u64::from(entry.offset) + u64::from(entry.length),
    );
    if end > payload.len() as u64 {
        return Err(BlockDamage::Truncated {
            end,
            available: payload.len(),
        });
    }
    let content = payload.slice(start as usize..end as usize);
    if crc32c::crc32c(&content) != entry.crc {
        return Err(BlockDamage::Checksum);
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(recipients: usize) -> IndexEntry {
        IndexEntry {
            message_id: Bytes::copy_from_slice(MessageId::now().as_bytes()),
            header_variants: vec![Bytes::from(vec![b'x'; recipients])],
            ..Default::default()
        }
    }

    #[test]
    fn reads_back_what_it_assembled_whatever_the_size_of_the_index() {
        for size in [0, 10, 36_000, 36_864, 40_000, 524_288, 524_900, 1_500_000] {
            let contents = [
                Bytes::from_static(b"one"),
                Bytes::new(),
                Bytes::from_static(b"three"),
            ];
            let messages = contents
                .iter()
                .map(|content| (entry(size), content.clone()))
                .collect();
            let block = AssembledBlock::new(Uuid::now_v7(), BLOCK_COPY, messages);
            assert!(block.index.len() <= 48 << 10, "{size}");
            let sequences: Vec<u64> = (1..=block.more.len() as u64).collect();
            let headers = block.headers(&sequences);
            assert_eq!(more_sequences(&headers).unwrap(), sequences);
            let index = decode_index(&headers, &block.more).unwrap();
            assert_eq!(index.flags, BLOCK_COPY);
            assert_eq!(index.block_id.as_ref(), block.id.as_bytes());
            for (entry, content) in index.entries.iter().zip(contents) {
                assert_eq!(content_of(entry, &block.payload).unwrap(), content);
            }
        }
    }

    #[test]
    fn what_is_no_longer_than_it_may_be_can_be_read() {
        let parts = |size: usize| {
            let entry = entry(size);
            let is_too_long = is_too_long(&entry);
            let block = AssembledBlock::new(Uuid::now_v7(), 0, vec![(entry, Bytes::new())]);
            let sequences: Vec<u64> = (1..=block.more.len() as u64).collect();
            let headers = block.headers(&sequences);
            let is_read =
                more_sequences(&headers).is_ok() && decode_index(&headers, &block.more).is_ok();
            (is_too_long, is_read)
        };
        assert_eq!(parts(MAX_INDEX - 2048), (false, true));
        assert_eq!(parts(MAX_INDEX - 512), (true, true));
        assert_eq!(parts(MAX_INDEX + (1 << 20)), (true, false));
    }

    #[test]
    fn notices_damage_of_content_and_index() {
        let block = AssembledBlock::new(
            Uuid::now_v7(),
            0,
            vec![(entry(1), Bytes::from_static(b"content"))],
        );
        let index = decode_index(&block.headers(&[]), &[]).unwrap();
        let only = &index.entries[0];
        assert_eq!(
            content_of(only, &Bytes::from_static(b"cOntent")),
            Err(BlockDamage::Checksum)
        );
        assert_eq!(
            content_of(only, &Bytes::from_static(b"cont")),
            Err(BlockDamage::Truncated {
                end: 7,
                available: 4
            })
        );
        assert!(matches!(
            check_message(only, MessageId::now()),
            Err(BlockDamage::WrongMessage { .. })
        ));
        assert_eq!(
            decode_index(&HeaderMap::new(), &[]),
            Err(BlockDamage::NoIndex)
        );
        let mut headers = HeaderMap::new();
        headers.insert(INDEX_HEADER, "!!");
        assert!(matches!(
            decode_index(&headers, &[]),
            Err(BlockDamage::Index(_))
        ));
    }
}
