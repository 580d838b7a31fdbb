//! Keys that others publish (RFC 6376 section 3.6.1).

use aws_lc_rs::digest::Digest;
use aws_lc_rs::signature::{
    ED25519, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, UnparsedPublicKey,
};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::Algorithm;
use crate::tags::Tags;

/// A key record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    algorithm: Algorithm,
    bytes: Vec<u8>,
    /// The domain of `i=` must be that of `d=` (`t=s`).
    pub(crate) strict: bool,
}

/// Why a record is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublicKeyError {
    /// It can't be read, or is for something else.
    #[error("the key record is not valid")]
    Invalid,
    /// `p=` is empty.
    #[error("the key has been revoked")]
    Revoked,
}

impl PublicKey {
    /// Reads the text of a TXT record, its strings joined.
    pub fn parse(record: &str) -> Result<Self, PublicKeyError> {
        use PublicKeyError::{Invalid, Revoked};
        let tags = Tags::parse(record.as_bytes()).ok_or(Invalid)?;
        let of_list = |name: &str, wanted: &[&str]| {
            tags.text(name)
                .is_none_or(|list| list.split(':').any(|entry| wanted.contains(&entry.trim())))
        };
        if tags.text("v").is_some_and(|version| version != "DKIM1")
            || !of_list("h", &["sha256"])
            || !of_list("s", &["*", "email"])
        {
            return Err(Invalid);
        }
        let algorithm = match tags.text("k") {
            None | Some("rsa") => Algorithm::RsaSha256,
            Some("ed25519") => Algorithm::Ed25519Sha256,
            Some(_) => return Err(Invalid),
        };
        let encoded = tags.packed("p").ok_or(Invalid)?;
        if encoded.is_empty() {
            return Err(Revoked);
        }
        Ok(Self {
            algorithm,
            bytes: BASE64_STANDARD.decode(encoded).map_err(|_| Invalid)?,
            strict: tags
                .text("t")
                .is_some_and(|flags| flags.split(':').any(|flag| flag.trim() == "s")),
        })
    }

    /// Whether both are the same key, whatever else their records say.
    pub fn is_same_key(&self, other: &Self) -> bool {
        (self.algorithm, &self.bytes) == (other.algorithm, &other.bytes)
    }

    /// Whether the signature is of this hash. RSA keys of 1024 bits and more are taken (RFC 8301 section 3.2).
    pub(crate) fn verifies(&self, algorithm: Algorithm, hash: &Digest, signature: &[u8]) -> bool {
        if algorithm != self.algorithm {
            return false;
        }
        match algorithm {
            Algorithm::RsaSha256 => {
                let scheme = &RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY;
                let key = UnparsedPublicKey::new(scheme, &self.bytes);
                key.verify_digest(hash, signature).is_ok()
            }
            Algorithm::Ed25519Sha256 => {
                let key = UnparsedPublicKey::new(&ED25519, &self.bytes);
                key.verify(hash.as_ref(), signature).is_ok()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Key, generate_ed25519};

    #[test]
    fn reads_the_records_of_keys() {
        let key = Key::from_pem(generate_ed25519().as_bytes()).unwrap();
        let record = key.dns_record();
        assert!(PublicKey::parse(&record).is_ok());
        let bare = record.replace("v=DKIM1; ", "");
        assert_eq!(PublicKey::parse(&bare), PublicKey::parse(&record));
        assert!(
            PublicKey::parse(&format!("{record}; t=y:s"))
                .unwrap()
                .strict
        );
        let with_flags = PublicKey::parse(&format!("{record}; t=y:s")).unwrap();
        assert!(with_flags.is_same_key(&PublicKey::parse(&record).unwrap()));
        let other = Key::from_pem(generate_ed25519().as_bytes()).unwrap();
        let other = PublicKey::parse(&other.dns_record()).unwrap();
        assert!(!with_flags.is_same_key(&other));
        assert!(PublicKey::parse(&format!("{record}; h=sha1 : sha256; s=email")).is_ok());
        for wrong in [
            "".to_owned(),
            "v=DKIM1; k=rsa".to_owned(),
            "v=DKIM1; p=!".to_owned(),
            "v=spf1 -all".to_owned(),
            record.replace("DKIM1", "DKIM2"),
            record.replace("ed25519", "gost"),
            format!("{record}; h=sha1"),
            format!("{record}; s=tlsrpt"),
        ] {
            assert_eq!(
                PublicKey::parse(&wrong),
                Err(PublicKeyError::Invalid),
                "{wrong}"
            );
        }
        assert_eq!(
            PublicKey::parse("v=DKIM1; p="),
            Err(PublicKeyError::Revoked)
        );
    }
}
