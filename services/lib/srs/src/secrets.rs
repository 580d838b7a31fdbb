//! What addresses are signed with.

use aws_lc_rs::hmac;
use zeroize::Zeroizing;

/// Shorter secrets are guessed.
const SHORTEST: usize = 16;
/// No honest secret is longer, octets.
const LONGEST: usize = 1024;
/// Each makes checking a wrong address longer.
const MOST: usize = 16;

/// The secrets of an installation. Its `Debug` says how many there are.
pub struct Secrets {
    keys: Vec<hmac::Key>,
}

/// Why a file of secrets is not taken. Never repeats what is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretsError {
    /// Nothing but empty lines.
    #[error("there is no secret in it: one a line is expected, the first signs")]
    Empty,
    /// Of the line.
    #[error("line {0}: a secret of 16 to 1024 octets is expected")]
    Length(usize),
    /// More than 16.
    #[error("more than 16 secrets: take out those that signed nothing in the last weeks")]
    TooMany,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Secrets({})", self.keys.len())
    }
}

impl Secrets {
    /// Reads a file as postsrsd has it: one secret a line, empty lines count for nothing. The first signs, all are
    /// taken, so that a new one is put on top and an old one taken away weeks later.
    pub fn parse(text: &str) -> Result<Self, SecretsError> {
        let mut keys = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let secret = line.trim_end_matches('\r');
            if secret.is_empty() {
                continue;
            }
            if !(SHORTEST..=LONGEST).contains(&secret.len()) {
                return Err(SecretsError::Length(index + 1));
            }
            if keys.len() == MOST {
                return Err(SecretsError::TooMany);
            }
            keys.push(hmac::Key::new(
                hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
                secret.as_bytes(),
            ));
        }
        if keys.is_empty() {
            return Err(SecretsError::Empty);
        }
        Ok(Self { keys })
    }

    /// As [`Secrets::parse`]; forgets the text.
    pub fn parse_and_forget(text: String) -> Result<Self, SecretsError> {
        Self::parse(&Zeroizing::new(text))
    }

    pub(crate) fn signing(&self) -> &hmac::Key {
        &self.keys[0]
    }

    pub(crate) fn all(&self) -> &[hmac::Key] {
        &self.keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_one_secret_a_line_and_shows_none() {
        let secrets = Secrets::parse("0123456789abcdef\r\n\n# is one as well, too\n").unwrap();
        assert_eq!(format!("{secrets:?}"), "Secrets(2)");
        let many = "0123456789abcdef\n".repeat(17);
        for (text, error) in [
            ("", SecretsError::Empty),
            ("\n\r\n", SecretsError::Empty),
            ("0123456789abcdef\nshort\n", SecretsError::Length(2)),
            (&"x".repeat(1025), SecretsError::Length(1)),
            (&many, SecretsError::TooMany),
        ] {
            assert_eq!(Secrets::parse(text).unwrap_err(), error);
        }
    }
}
