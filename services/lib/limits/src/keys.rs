//! Names of keys, and which of a cluster's servers has them.
//!
//! One server has all counts, under one epoch. In Redis Cluster a server has slots, and slots move, so counts are spread
//! over a fixed number of buckets: a bucket is one hash tag, thus in one slot, at one server at a time, and has an
//! epoch of its own. All keys of a script are in one bucket.

use crate::script::hex;

/// Buckets of a cluster: enough that each of a few dozen servers has some of them.
pub(crate) const BUCKETS: u16 = 128;
/// Slots of a cluster.
const SLOTS: u16 = 16_384;

/// A part of the counts that is remembered or forgotten as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Shard {
    /// All there are, at one server.
    Whole,
    /// One of [`BUCKETS`].
    Bucket(u16),
}

impl Shard {
    /// Where a cluster counts what has this name.
    pub(crate) fn in_cluster(name: &str) -> Self {
        Self::Bucket(crc16(name.as_bytes()) % BUCKETS)
    }

    /// All of a cluster, by [`Shard::index`].
    pub(crate) fn buckets() -> impl Iterator<Item = Self> {
        (0..BUCKETS).map(Self::Bucket)
    }

    pub(crate) fn index(self) -> usize {
        match self {
            Self::Whole => 0,
            Self::Bucket(number) => usize::from(number),
        }
    }

    /// The slot of a cluster in which its keys are.
    pub(crate) fn slot(self) -> u16 {
        match self {
            Self::Whole => 0,
            Self::Bucket(number) => crc16(number.to_string().as_bytes()) % SLOTS,
        }
    }

    /// Where its epoch is recorded.
    pub(crate) fn epoch_key(self, prefix: &str) -> String {
        match self {
            Self::Whole => format!("{prefix}:epoch"),
            Self::Bucket(number) => format!("{prefix}:epoch:{{{number}}}"),
        }
    }

    /// Where something is counted: what kind of count, and its name, which has no braces.
    pub(crate) fn key(self, prefix: &str, what: &str, name: &str) -> String {
        match self {
            Self::Whole => format!("{prefix}:{what}:{{{name}}}"),
            Self::Bucket(number) => format!("{prefix}:{what}:{{{number}}}:{name}"),
        }
    }

    /// As [`Shard::key`]; the epoch is in the name, so that state which a restarted server read from its disk, or which a
    /// replica has, is never taken for the present one.
    pub(crate) fn state_key(self, prefix: &str, what: &str, name: &str, epoch: u64) -> String {
        format!("{}:{}", self.key(prefix, what, name), hex(epoch))
    }
}

/// CRC-16/XMODEM, by which Redis Cluster finds the slot of a key.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            let shifted = crc << 1;
            if crc & 0x8000 == 0 {
                shifted
            } else {
                shifted ^ 0x1021
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis_cluster() {
        // The check value of the CRC, and what `CLUSTER KEYSLOT` of redis-server 7.0 says.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (bucket, slot) in [(0, 13_907), (17, 12_304), (127, 6_102)] {
            assert_eq!(Shard::Bucket(bucket).slot(), slot, "{bucket}");
        }
    }

    #[test]
    fn keys_of_a_bucket_have_its_tag_and_those_of_one_server_their_name() {
        let bucket = Shard::in_cluster("source|site");
        let tag = format!("{{{}}}", bucket.index());
        for key in [
            bucket.epoch_key("p"),
            bucket.state_key("p", "grant", "source|site", 255),
        ] {
            assert!(key.contains(&tag), "{key}");
        }
        let whole = Shard::Whole.state_key("p", "grant", "source|site", 255);
        assert_eq!(whole, "p:grant:{source|site}:00000000000000ff");
        assert_eq!(Shard::buckets().count(), usize::from(BUCKETS));
    }
}
