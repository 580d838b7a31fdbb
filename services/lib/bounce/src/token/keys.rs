//! What tokens are made with.

use aws_lc_rs::aead::{AES_256_GCM_SIV, LessSafeKey, UnboundKey};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use super::tag;

/// Shorter secrets are guessed.
const SHORTEST: usize = 16;
/// No honest secret is longer, octets.
const LONGEST: usize = 1024;

/// The keys of an installation, each with its number from 0 to 255. Its `Debug` says how many there are.
pub struct TokenKeys {
    /// The first signs.
    keys: Vec<Key>,
}

/// One of them, as it is used.
pub(super) struct Key {
    pub(super) number: u8,
    pub(super) mac: hmac::Key,
    /// Of links, derived from it.
    pub(super) cipher: LessSafeKey,
}

impl Key {
    fn new(number: u8, secret: &[u8]) -> Option<Self> {
        let mac = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let derived = tag(&mac, &[b"link\0"]);
        let cipher = UnboundKey::new(&AES_256_GCM_SIV, derived.as_ref()).ok()?;
        let cipher = LessSafeKey::new(cipher);
        Some(Self {
            number,
            mac,
            cipher,
        })
    }
}

/// Why a file of keys is not taken. Never repeats what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// Nothing but empty lines.
    #[error("there is no key in it: one a line is expected as `NUMBER SECRET`, the first signs")]
    Empty,
    /// Of the line.
    #[error(
        "line {0}: a number from 0 to 255, a blank and a secret of 16 to 1024 octets are expected"
    )]
    Malformed(usize),
    /// On this line; tokens say by which key they are made.
    #[error("line {0}: the number is that of another line")]
    Repeated(usize),
}

impl std::fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenKeys({})", self.keys.len())
    }
}

impl TokenKeys {
    /// Reads keys, one a line as `NUMBER SECRET`; empty lines count for nothing. The first signs, all are taken: a new one is put
    /// on top under a new number, and an old one is taken away when its tokens have expired.
    ///
    /// # Errors
    /// When a line is something else, or there is none.
    pub fn parse(text: &str) -> Result<Self, KeysError> {
        let mut keys: Vec<Key> = Vec::new();
        for (index, line) in text.lines().enumerate() {
            if line.trim().is_empty() {
                continue;
            }
            let malformed = KeysError::Malformed(index + 1);
            let (number, secret) = line.trim_start().split_once(' ').ok_or(malformed)?;
            let number: u8 = number.parse().map_err(|_| malformed)?;
            let secret = secret.trim();
            if !(SHORTEST..=LONGEST).contains(&secret.len()) {
                return Err(malformed);
            }
            if keys.iter().any(|other| other.number == number) {
                return Err(KeysError::Repeated(index + 1));
            }
            keys.push(Key::new(number, secret.as_bytes()).ok_or(malformed)?);
        }
        if keys.is_empty() {
            return Err(KeysError::Empty);
        }
        Ok(Self { keys })
    }

    /// As [`TokenKeys::parse`]; forgets the text.
    ///
    /// # Errors
    /// The same.
    pub fn parse_and_forget(text: String) -> Result<Self, KeysError> {
        Self::parse(&Zeroizing::new(text))
    }

    pub(super) fn signing(&self) -> &Key {
        &self.keys[0]
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Key> {
        self.keys.iter()
    }

    pub(super) fn of_number(&self, wanted: u8) -> Option<&Key> {
        self.keys.iter().find(|key| key.number == wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_one_key_a_line_and_shows_none() {
        let keys = TokenKeys::parse("7 0123456789abcdef\r\n\n0 another secret here\n").unwrap();
        assert_eq!(format!("{keys:?}"), "TokenKeys(2)");
        assert_eq!(keys.signing().number, 7);
        assert!(keys.of_number(0).is_some() && keys.of_number(1).is_none());
        for (text, error) in [
            ("", KeysError::Empty),
            ("\n \n", KeysError::Empty),
            ("0123456789abcdef", KeysError::Malformed(1)),
            ("1 short", KeysError::Malformed(1)),
            ("256 0123456789abcdef", KeysError::Malformed(1)),
            (
                "1 0123456789abcdef\n1 fedcba9876543210",
                KeysError::Repeated(2),
            ),
        ] {
            assert_eq!(TokenKeys::parse(text).unwrap_err(), error, "{text}");
        }
    }
}
