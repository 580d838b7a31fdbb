//! Keys of SCRAM-SHA-256 (RFC 5802 section 3), in the form that PostgreSQL made common:
//! `SCRAM-SHA-256$<iterations>:<salt>$<StoredKey>:<ServerKey>`, the last three in base64.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use aws_lc_rs::{digest, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What a server keeps of a password for SCRAM-SHA-256: it can check a proof with it, and make none.
#[derive(Clone, PartialEq, Eq)]
pub struct ScramKeys {
    /// 8 to 64 octets.
    pub salt: Vec<u8>,
    /// 4,096 to 10,000,000 (RFC 7677 section 4 asks for at least 4,096).
    pub iterations: u32,
    /// The hash of the key that a client proves to have.
    pub stored_key: [u8; 32],
    /// What we prove ourselves with.
    pub server_key: [u8; 32],
}

/// Not in the form.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("SCRAM keys \"SCRAM-SHA-256$4096:…\" (see `staffetta hash-password --scram`) are expected")]
pub struct ScramKeysError;

const NAME: &str = "SCRAM-SHA-256$";

impl ScramKeys {
    /// 16 octets that nobody else has.
    pub fn random_salt() -> [u8; 16] {
        let mut salt = [0; 16];
        aws_lc_rs::rand::fill(&mut salt).expect("the system gives random bytes to the process");
        salt
    }

    /// Of a password; `iterations` of 0 counts as 1.
    pub fn derive(password: &[u8], salt: &[u8], iterations: u32) -> Self {
        let rounds = NonZeroU32::new(iterations).unwrap_or(NonZeroU32::MIN);
        let mut salted = [0; 32];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            rounds,
            salt,
            password,
            &mut salted,
        );
        let key = hmac::Key::new(hmac::HMAC_SHA256, &salted);
        let client_key = hmac::sign(&key, b"Client Key");
        let hashed = digest::digest(&digest::SHA256, client_key.as_ref());
        let mut keys = Self {
            salt: salt.to_owned(),
            iterations: rounds.get(),
            stored_key: [0; 32],
            server_key: [0; 32],
        };
        keys.stored_key.copy_from_slice(hashed.as_ref());
        keys.server_key
            .copy_from_slice(hmac::sign(&key, b"Server Key").as_ref());
        keys
    }
}

impl FromStr for ScramKeys {
    type Err = ScramKeysError;

    fn from_str(text: &str) -> Result<Self, ScramKeysError> {
        let decode = |text: &str| STANDARD.decode(text).map_err(|_| ScramKeysError);
        let key = |text: &str| <[u8; 32]>::try_from(decode(text)?).map_err(|_| ScramKeysError);
        let rest = text.strip_prefix(NAME).ok_or(ScramKeysError)?;
        let (parameters, keys) = rest.split_once('$').ok_or(ScramKeysError)?;
        let (iterations, salt) = parameters.split_once(':').ok_or(ScramKeysError)?;
        let (stored, server) = keys.split_once(':').ok_or(ScramKeysError)?;
        let iterations: u32 = iterations.parse().map_err(|_| ScramKeysError)?;
        let salt = decode(salt)?;
        if !(4096..=10_000_000).contains(&iterations) || !(8..=64).contains(&salt.len()) {
            return Err(ScramKeysError);
        }
        Ok(Self {
            salt,
            iterations,
            stored_key: key(stored)?,
            server_key: key(server)?,
        })
    }
}

impl fmt::Display for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{NAME}{}:{}${}:{}",
            self.iterations,
            STANDARD.encode(&self.salt),
            STANDARD.encode(self.stored_key),
            STANDARD.encode(self.server_key)
        )
    }
}

/// Keys are no text for logs.
impl fmt::Debug for ScramKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScramKeys(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_back_and_are_those_of_another_implementation() {
        // The password "pencil" with the salt of RFC 7677, as hashlib of Python has it.
        let salt = STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let keys = ScramKeys::derive(b"pencil", &salt, 4096);
        let text = keys.to_string();
        assert_eq!(
            text,
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU="
        );
        assert_eq!(text.parse(), Ok(keys));
        for wrong in [
            "",
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==",
            "SCRAM-SHA-256$1:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
            "SCRAM-SHA-256$4096:AA==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=",
            "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d:wfPL",
        ] {
            assert_eq!(wrong.parse::<ScramKeys>(), Err(ScramKeysError), "{wrong}");
        }
    }
}
