//! JWK sets (RFC 7517): the public keys of an issuer.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA256, RsaPublicKeyComponents,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use config::TokenAlgorithm;
use serde::Deserialize;
use serde_json::Value;

/// Keys of a set that are looked at.
const MOST_KEYS: usize = 64;
/// Octets of the longest key id.
const LONGEST_ID: usize = 255;

/// The keys of an issuer that signatures can be checked with.
#[derive(Debug, Clone, Default)]
pub struct KeySet {
    keys: Vec<Key>,
}

/// One of them.
#[derive(Clone)]
pub struct Key {
    id: Option<String>,
    /// One for each algorithm that the key may be used with.
    checks: Vec<(TokenAlgorithm, ParsedPublicKey)>,
}

/// A key of a set that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its `kid`, at most 80 characters.
    pub id: Option<String>,
    /// Why.
    pub error: KeyError,
}

/// No JWK set.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// Not JSON, or no list `keys` in it.
    #[error("not a JWK set: {0}")]
    Form(#[from] serde_json::Error),
    /// More keys than anybody needs.
    #[error("more than {MOST_KEYS} keys")]
    TooMany,
}

/// Why a key of a set is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A field is missing, or of a wrong type.
    #[error("not a JWK")]
    Form,
    /// It is for encryption, or for signing only.
    #[error("not for checking signatures")]
    Use,
    /// A kind, a curve or an algorithm that is not taken: symmetric keys among them.
    #[error("of a kind or for an algorithm that is not taken")]
    Kind,
    /// RSA with less than 2048 bits, or more than 8192.
    #[error("an RSA key of 2048 to 8192 bits is expected")]
    Size,
    /// The numbers are no key: a point that is not on the curve, an even exponent.
    #[error("not a valid key")]
    Numbers,
}

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

/// A JWK; fields that are not of interest are passed over.
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    key_ops: Option<Vec<String>>,
    alg: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

impl KeySet {
    /// Reads a set. Keys that can't be used are left out, and told of.
    pub fn read(json: &[u8]) -> Result<(Self, Vec<LeftOut>), KeySetError> {
        let Document { keys } = serde_json::from_slice(json)?;
        if keys.len() > MOST_KEYS {
            return Err(KeySetError::TooMany);
        }
        let mut set = Self::default();
        let mut left_out = Vec::new();
        for value in keys {
            let id = value.get("kid").and_then(Value::as_str);
            let id = id.map(|id| id.chars().take(80).collect());
            match Key::read(value) {
                Ok(key) => set.keys.push(key),
                Err(error) => left_out.push(LeftOut { id, error }),
            }
        }
        Ok((set, left_out))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys that a signature can be of: those with this id, or, where a token names none, all; for this algorithm.
    pub(crate) fn candidates<'a>(
        &'a self,
        id: Option<&'a str>,
        algorithm: TokenAlgorithm,
    ) -> impl Iterator<Item = &'a ParsedPublicKey> {
        self.keys
            .iter()
            .filter(move |key| id.is_none() || key.id.as_deref() == id)
            .flat_map(|key| &key.checks)
            .filter(move |(of, _)| *of == algorithm)
            .map(|(_, check)| check)
    }
}

impl Key {
    fn read(value: Value) -> Result<Self, KeyError> {
        let jwk: Jwk = serde_json::from_value(value).map_err(|_| KeyError::Form)?;
        if jwk.kid.as_ref().is_some_and(|id| id.len() > LONGEST_ID) {
            return Err(KeyError::Form);
        }
        let for_checking = jwk.usage.as_deref().is_none_or(|usage| usage == "sig")
            && jwk
                .key_ops
                .as_ref()
                .is_none_or(|operations| operations.iter().any(|operation| operation == "verify"));
        if !for_checking {
            return Err(KeyError::Use);
        }
        let mut checks = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => rsa(&jwk)?,
            ("EC", Some("P-256")) => p256(&jwk)?,
            ("OKP", Some("Ed25519")) => ed25519(&jwk)?,
            _ => return Err(KeyError::Kind),
        };
        if let Some(only) = &jwk.alg {
            let only = TokenAlgorithm::named(only).ok_or(KeyError::Kind)?;
            checks.retain(|(algorithm, _)| *algorithm == only);
        }
        if checks.is_empty() {
            return Err(KeyError::Kind);
        }
        Ok(Self {
            id: jwk.kid,
            checks,
        })
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Key").field(&self.id).finish()
    }
}

type Checks = Vec<(TokenAlgorithm, ParsedPublicKey)>;

fn octets(field: Option<&String>) -> Result<Vec<u8>, KeyError> {
    let text = field.ok_or(KeyError::Form)?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| KeyError::Form)
}

/// A number without the zeros that it should not begin with.
fn number(field: Option<&String>) -> Result<Vec<u8>, KeyError> {
    let octets = octets(field)?;
    let zeros = octets.iter().take_while(|octet| **octet == 0).count();
    Ok(octets[zeros..].to_vec())
}

fn rsa(jwk: &Jwk) -> Result<Checks, KeyError> {
    let (n, e) = (number(jwk.n.as_ref())?, number(jwk.e.as_ref())?);
    let first = n.first().ok_or(KeyError::Numbers)?;
    let bits = n.len() * 8 - first.leading_zeros() as usize;
    if !(2048..=8192).contains(&bits) {
        return Err(KeyError::Size);
    }
    // Odd, more than 1, and no longer than anybody has it, so that a check stays cheap.
    let is_odd = |number: &[u8]| number.last().is_some_and(|octet| octet % 2 == 1);
    if !is_odd(&n) || !is_odd(&e) || e.len() > 4 || e == [1] {
        return Err(KeyError::Numbers);
    }
    let components = RsaPublicKeyComponents { n, e };
    [
        (TokenAlgorithm::Rs256, &RSA_PKCS1_2048_8192_SHA256),
        (TokenAlgorithm::Ps256, &RSA_PSS_2048_8192_SHA256),
    ]
    .into_iter()
    .map(|(algorithm, parameters)| {
        let key = components.to_parsed_public_key(parameters);
        Ok((algorithm, key.map_err(|_| KeyError::Numbers)?))
    })
    .collect()
}

fn p256(jwk: &Jwk) -> Result<Checks, KeyError> {
    let (x, y) = (octets(jwk.x.as_ref())?, octets(jwk.y.as_ref())?);
    // Not compressed (SEC 1 section 2.3.3); each coordinate has its full length (RFC 7518 section 6.2.1).
    let point = [&[4], x.as_slice(), y.as_slice()].concat();
    if x.len() != 32 || y.len() != 32 {
        return Err(KeyError::Numbers);
    }
    let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    Ok(vec![(
        TokenAlgorithm::Es256,
        key.map_err(|_| KeyError::Numbers)?,
    )])
}

fn ed25519(jwk: &Jwk) -> Result<Checks, KeyError> {
    let key = ParsedPublicKey::new(&ED25519, octets(jwk.x.as_ref())?);
    Ok(vec![(
        TokenAlgorithm::EdDsa,
        key.map_err(|_| KeyError::Numbers)?,
    )])
}
