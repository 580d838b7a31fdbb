//! Private keys.

use aws_lc_rs::digest;
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject;

/// A signature algorithm of DKIM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 6376 section 3.3.1).
    RsaSha256,
    /// Ed25519 of the SHA-256 (RFC 8463).
    Ed25519Sha256,
}

impl Algorithm {
    /// As in the tag `a=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RsaSha256 => "rsa-sha256",
            Self::Ed25519Sha256 => "ed25519-sha256",
        }
    }
}

/// RFC 8301 section 3.2: signers should have no fewer.
const LEAST_BITS: usize = 2048;

/// Why a key is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// There is no private key block in the PEM text, or it is broken.
    #[error("not a PEM private key: {0}")]
    Pem(String),
    /// Fewer than 2048 bits. Receivers take a signature by fewer than 1024 for none, and signers should have 2048
    /// (RFC 8301 section 3.2).
    #[error(
        "the RSA key is too weak: it has {bits} bits, and at least 2048 are required; make a new one"
    )]
    TooWeak {
        /// Of the modulus.
        bits: usize,
    },
    /// Neither RSA (PKCS#8 or PKCS#1) nor Ed25519 (PKCS#8), or damaged.
    #[error("not an RSA (PKCS#8, PKCS#1) or Ed25519 (PKCS#8) private key: {0}")]
    Unreadable(String),
}

/// A private key. Its `Debug` says the algorithm and nothing else.
pub struct Key(Pair);

enum Pair {
    /// And what batches sign with, if they take the key.
    Rsa(Box<RsaKeyPair>, Option<Box<multibuffer::Key>>),
    Ed25519(Box<Ed25519KeyPair>),
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Key({})", self.algorithm().as_str())
    }
}

impl Key {
    /// Reads the first private key in a PEM text: RSA in PKCS#8 or PKCS#1, Ed25519 in PKCS#8.
    pub fn from_pem(pem: &[u8]) -> Result<Self, KeyError> {
        match PrivateKeyDer::from_pem_slice(pem) {
            Ok(PrivateKeyDer::Pkcs1(der)) => Self::from_pkcs1(der.secret_pkcs1_der()),
            Ok(PrivateKeyDer::Pkcs8(der)) => Self::from_pkcs8(der.secret_pkcs8_der()),
            Ok(_) => Err(KeyError::Unreadable(
                "an elliptic curve of another kind".to_owned(),
            )),
            Err(error) => Err(KeyError::Pem(error.to_string())),
        }
    }

    /// Reads a key in DER, in the same encodings as [`Key::from_pem`].
    pub fn from_der(der: &[u8]) -> Result<Self, KeyError> {
        match PrivateKeyDer::try_from(der) {
            Ok(PrivateKeyDer::Pkcs1(der)) => Self::from_pkcs1(der.secret_pkcs1_der()),
            Ok(PrivateKeyDer::Pkcs8(der)) => Self::from_pkcs8(der.secret_pkcs8_der()),
            Ok(_) => Err(KeyError::Unreadable(
                "an elliptic curve of another kind".to_owned(),
            )),
            Err(error) => Err(KeyError::Unreadable(error.to_owned())),
        }
    }

    fn from_pkcs1(der: &[u8]) -> Result<Self, KeyError> {
        rsa(RsaKeyPair::from_der(der), der)
    }

    fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        // OpenSSL leaves the public key out, which is allowed: "maybe unchecked".
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Ok(Self(Pair::Ed25519(Box::new(pair))));
        }
        rsa(RsaKeyPair::from_pkcs8(der), der)
    }

    /// What it signs with.
    pub fn algorithm(&self) -> Algorithm {
        match self.0 {
            Pair::Rsa(..) => Algorithm::RsaSha256,
            Pair::Ed25519(_) => Algorithm::Ed25519Sha256,
        }
    }

    /// Bits of the modulus of an RSA key; 256 for Ed25519.
    pub fn bits(&self) -> usize {
        match &self.0 {
            Pair::Rsa(pair, _) => pair.public_modulus_len() * 8,
            Pair::Ed25519(_) => 256,
        }
    }

    /// Text of the TXT record at `<selector>._domainkey.<domain>` (RFC 6376 section 3.6.1). For
    /// RSA it is longer than 255 octets: DNS takes it as several strings.
    pub fn dns_record(&self) -> String {
        match &self.0 {
            Pair::Rsa(pair, _) => {
                let der: PublicKeyX509Der<'_> = pair
                    .public_key()
                    .as_der()
                    .expect("the public half of a key that was read can be written");
                format!("v=DKIM1; k=rsa; p={}", BASE64_STANDARD.encode(der.as_ref()))
            }
            Pair::Ed25519(pair) => {
                format!(
                    "v=DKIM1; k=ed25519; p={}",
                    BASE64_STANDARD.encode(pair.public_key().as_ref())
                )
            }
        }
    }

    /// What batches sign with, if they take the key: RSA of 2048 bits with the usual exponent.
    pub(crate) fn for_batches(&self) -> Option<&multibuffer::Key> {
        match &self.0 {
            Pair::Rsa(_, key) => key.as_deref(),
            Pair::Ed25519(_) => None,
        }
    }

    /// Signs the canonical header fields.
    pub(crate) fn sign(&self, data: &[u8]) -> Option<Vec<u8>> {
        match &self.0 {
            Pair::Rsa(pair, _) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(
                    &RSA_PKCS1_SHA256,
                    &SystemRandom::new(),
                    data,
                    &mut signature,
                )
                .ok()?;
                Some(signature)
            }
            Pair::Ed25519(pair) => {
                let hash = digest::digest(&digest::SHA256, data);
                Some(pair.try_sign(hash.as_ref()).ok()?.as_ref().to_vec())
            }
        }
    }
}

/// How many bits a new RSA key has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RsaBits {
    /// What is usual: its record fits into a DNS answer of 512 octets.
    B2048,
    /// Signatures take longer, and none are made several at once.
    B3072,
    /// Longer still; and some receivers don't take longer keys (RFC 8301 section 3.2).
    B4096,
}

/// A new RSA key of 2048 bits, as PKCS#8 in PEM.
pub fn generate_rsa2048() -> String {
    generate_rsa(RsaBits::B2048)
}

/// A new RSA key, as PKCS#8 in PEM. One of 4096 bits takes seconds.
pub fn generate_rsa(bits: RsaBits) -> String {
    let size = match bits {
        RsaBits::B2048 => KeySize::Rsa2048,
        RsaBits::B3072 => KeySize::Rsa3072,
        RsaBits::B4096 => KeySize::Rsa4096,
    };
    let pair = RsaKeyPair::generate(size).expect("the system gives random numbers");
    let der: Pkcs8V1Der<'_> = pair.as_der().expect("a new key can be written");
    pem(der.as_ref())
}

/// A new Ed25519 key, as PKCS#8 in PEM.
pub fn generate_ed25519() -> String {
    let pair = Ed25519KeyPair::generate().expect("the system gives random numbers");
    let der: Pkcs8V1Der<'_> = pair.as_der().expect("a new key can be written");
    pem(der.as_ref())
}

fn rsa(
    pair: Result<RsaKeyPair, aws_lc_rs::error::KeyRejected>,
    der: &[u8],
) -> Result<Key, KeyError> {
    // What the library says of it is no stable interface.
    if let Some(bits) = multibuffer::modulus_bits(der).filter(|bits| *bits < LEAST_BITS) {
        return Err(KeyError::TooWeak { bits });
    }
    match pair {
        Ok(pair) => {
            let for_batches = multibuffer::Key::from_der(der).map(Box::new);
            Ok(Key(Pair::Rsa(Box::new(pair), for_batches)))
        }
        Err(rejected) => Err(KeyError::Unreadable(rejected.to_string())),
    }
}

fn pem(der: &[u8]) -> String {
    let encoded = BASE64_STANDARD.encode(der);
    let mut text = String::from("-----BEGIN PRIVATE KEY-----\n");
    for line in encoded.as_bytes().chunks(64) {
        text.push_str(std::str::from_utf8(line).expect("base64 is ASCII"));
        text.push('\n');
    }
    text.push_str("-----END PRIVATE KEY-----\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSA_PUBLIC: &str = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAwaQUZy5xaMynkgKBheH7gMzbea03vO99IA2XMLFGVMhU1F+dtCg3Pb0pQkBVG4ZE7udRv0tndaIGK3Fug6GIvw0WPi3zNKgI2CgLeDRmsIDaGny9ubncKIILdlbFbX+Rtjf9OCDSPpyc3LceWuNewIC0N+gX80Qeba/uZGnxPyKs+RHtlBqCrC5IFWJ11znJa0o4EceVhzNIlpWPCP1GfoZh+v3MWKcS6843P2fM4SHs05N+rYd8U9FurFyPYdMtHoOC7qoMqqh6TTAs9iV9XGUu4L0bF9jkPkF0a8n5j0jmydgFkWoSpKmdKPQrn/EfSDNjMRiZpZuM5vnO3xTyFQIDAQAB";
    const ED25519_PUBLIC: &str = "RnGJVS3txTsYoeNdXxxmEEgKXVB3JIzMyIh4CFung4E=";

    #[test]
    fn reads_the_keys_that_openssl_makes_and_gives_their_records() {
        for (pem, record) in [
            (
                &include_bytes!("../testdata/rsa2048-pkcs1.pem")[..],
                format!("v=DKIM1; k=rsa; p={RSA_PUBLIC}"),
            ),
            (
                include_bytes!("../testdata/rsa2048-pkcs8.pem"),
                format!("v=DKIM1; k=rsa; p={RSA_PUBLIC}"),
            ),
            (
                include_bytes!("../testdata/ed25519.pem"),
                format!("v=DKIM1; k=ed25519; p={ED25519_PUBLIC}"),
            ),
        ] {
            let key = Key::from_pem(pem).unwrap();
            assert_eq!(key.dns_record(), record);
            let der = PrivateKeyDer::from_pem_slice(pem).unwrap();
            let key = Key::from_der(der.secret_der()).unwrap();
            assert_eq!(key.dns_record(), record);
        }
    }

    #[test]
    fn reads_the_keys_that_it_makes() {
        let rsa = Key::from_pem(generate_rsa2048().as_bytes()).unwrap();
        assert_eq!(rsa.algorithm(), Algorithm::RsaSha256);
        assert_eq!(rsa.sign(b"x").unwrap().len(), 256);
        assert_eq!(rsa.bits(), 2048);
        let longer = Key::from_pem(generate_rsa(RsaBits::B3072).as_bytes()).unwrap();
        assert_eq!(longer.bits(), 3072);
        assert_eq!(longer.sign(b"x").unwrap().len(), 384);
        let ed25519 = Key::from_pem(generate_ed25519().as_bytes()).unwrap();
        assert_eq!(ed25519.algorithm(), Algorithm::Ed25519Sha256);
        assert_eq!(format!("{ed25519:?}"), "Key(ed25519-sha256)");
    }

    #[test]
    fn refuses_weak_keys_and_says_so() {
        for pem in [
            &include_bytes!("../testdata/rsa1024-pkcs1.pem")[..],
            include_bytes!("../testdata/rsa1024-pkcs8.pem"),
        ] {
            let error = Key::from_pem(pem).unwrap_err();
            assert_eq!(error, KeyError::TooWeak { bits: 1024 });
            assert!(
                error
                    .to_string()
                    .contains("has 1024 bits, and at least 2048")
            );
        }
    }

    #[test]
    fn refuses_what_is_no_key() {
        assert!(matches!(Key::from_pem(b""), Err(KeyError::Pem(_))));
        assert!(matches!(Key::from_pem(b"junk"), Err(KeyError::Pem(_))));
        let sec1 = include_bytes!("../testdata/p256-sec1.pem");
        assert!(matches!(Key::from_pem(sec1), Err(KeyError::Unreadable(_))));
        let text = generate_ed25519();
        let damaged = text.replacen("MC", "MD", 1);
        assert!(Key::from_pem(damaged.as_bytes()).is_err());
        assert!(matches!(
            Key::from_der(b"\x30\x03\x02\x01\x00"),
            Err(KeyError::Unreadable(_))
        ));
    }
}
