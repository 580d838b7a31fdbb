//! Identifiers.

use std::fmt;
use std::str::FromStr;

/// Identifies a message for ever; says nothing of where it is stored. A UUIDv7 (RFC 9562 section 5.7),
/// so that ids sort by the time of acceptance.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MessageId([u8; 16]);

/// The text or bytes are not a message id.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a message id (a UUID is expected): {0}")]
pub struct MessageIdError(String);

impl MessageId {
    /// A new id that carries the present time.
    pub fn now() -> Self {
        Self(uuid::Uuid::now_v7().into_bytes())
    }

    /// The id with these bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// The 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Unix milliseconds that a UUIDv7 carries in its first six bytes.
    pub fn unix_ms(&self) -> u64 {
        self.0[..6]
            .iter()
            .fold(0, |ms, byte| ms << 8 | u64::from(*byte))
    }
}

impl TryFrom<&[u8]> for MessageId {
    type Error = MessageIdError;

    fn try_from(bytes: &[u8]) -> Result<Self, MessageIdError> {
        <[u8; 16]>::try_from(bytes)
            .map(Self)
            .map_err(|_| MessageIdError(format!("{} bytes instead of 16", bytes.len())))
    }
}

impl FromStr for MessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        uuid::Uuid::parse_str(text)
            .map(|id| Self(id.into_bytes()))
            .map_err(|_| MessageIdError(text.chars().take(64).collect()))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).fmt(f)
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One of the P independent slices of the spool, 0 to P − 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId(pub u32);

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a message is in the spool of its partition. Repacking changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    /// Stream sequence of the block.
    pub sequence: u64,
    /// Position in the block.
    pub index: u32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_the_time_of_its_making() {
        let before = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_millis() as u64;
        let made = MessageId::now().unix_ms();
        assert!((before..before + 1000).contains(&made), "{before} {made}");
    }

    #[test]
    fn reads_back_its_text_and_refuses_others() {
        let id = MessageId::now();
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("not-an-id".parse::<MessageId>().is_err());
        assert!(MessageId::try_from(&[1_u8, 2][..]).is_err());
    }
}
