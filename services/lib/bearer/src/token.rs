//! Tokens: JWT (RFC 7519) as a JWS in its compact form (RFC 7515), checked as RFC 8725 advises.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use config::{TokenAlgorithm, TokenIssuer};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::KeySet;

/// Octets of the longest token: what fits into an AUTH line.
const LONGEST: usize = 9216;
/// Keys that are tried when a token does not name its own.
const MOST_TRIES: usize = 4;

/// A token that is read and not checked: nothing in it is true yet.
#[derive(Clone)]
pub struct Token<'a> {
    header: Header,
    claims: Map<String, Value>,
    /// What is signed.
    signed: &'a str,
    signature: Vec<u8>,
}

#[derive(Clone, Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
}

/// What a token that holds says.
#[derive(Clone, PartialEq, Eq)]
pub struct Verified {
    /// The issuer's claim: whom it is about.
    pub subject: String,
    /// When it is over, clocks being as wrong as they may; Unix milliseconds.
    pub over_ms: u64,
}

/// Why a token is refused. The texts are for logs and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No JWT: opaque, cut, too long, encrypted, or with a header that nobody here understands.
    #[error("malformed")]
    Malformed,
    /// Nobody whose tokens are taken.
    #[error("issuer")]
    Issuer,
    /// `none`, a symmetric one, or one that the issuer does not use.
    #[error("algorithm")]
    Algorithm,
    /// The issuer has no such key, as far as is known.
    #[error("key")]
    UnknownKey,
    /// It is not the issuer's.
    #[error("signature")]
    Signature,
    /// It is over, or does not say when.
    #[error("expired")]
    Expired,
    /// It begins later, or comes out of the future.
    #[error("early")]
    Early,
    /// It is meant for somebody else.
    #[error("audience")]
    Audience,
    /// It does not have the scope that is asked for.
    #[error("scope")]
    Scope,
    /// The claim is missing, no text, or not confirmed by the issuer.
    #[error("subject")]
    Subject,
    /// No credential has this subject, or the client wants to be somebody else.
    #[error("user")]
    User,
}

impl Refusal {
    /// All of them, for metrics.
    pub const ALL: [Self; 11] = [
        Self::Malformed,
        Self::Issuer,
        Self::Algorithm,
        Self::UnknownKey,
        Self::Signature,
        Self::Expired,
        Self::Early,
        Self::Audience,
        Self::Scope,
        Self::Subject,
        Self::User,
    ];

    /// As clients are told it (RFC 6750 section 3.1).
    pub fn status(self) -> &'static str {
        match self {
            Self::Scope => "insufficient_scope",
            _ => "invalid_token",
        }
    }
}

impl<'a> Token<'a> {
    /// Reads a token.
    pub fn read(text: &'a str) -> Result<Self, Refusal> {
        if text.len() > LONGEST {
            return Err(Refusal::Malformed);
        }
        let (signed, signature) = text.rsplit_once('.').ok_or(Refusal::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(Refusal::Malformed)?;
        let header: Header =
            serde_json::from_slice(&decode(header)?).map_err(|_| Refusal::Malformed)?;
        // An extension that must be understood (RFC 7515 section 4.1.11), and none is.
        if header.crit.is_some() {
            return Err(Refusal::Malformed);
        }
        let claims = serde_json::from_slice(&decode(claims)?).map_err(|_| Refusal::Malformed)?;
        Ok(Self {
            header,
            claims,
            signed,
            signature: decode(signature)?,
        })
    }

    /// Who says to have issued it.
    pub fn issuer(&self) -> Option<&str> {
        self.claims.get("iss").and_then(Value::as_str)
    }

    /// Whom it says to be about, where the issuer has it in `claim`.
    pub fn subject(&self, claim: &str) -> Option<&str> {
        self.claims.get(claim).and_then(Value::as_str)
    }

    /// Checks everything: the signature first, then what it says. `now_ms`: Unix milliseconds.
    pub fn verify(
        &self,
        issuer: &TokenIssuer,
        keys: &KeySet,
        now_ms: u64,
    ) -> Result<Verified, Refusal> {
        self.verify_signature(issuer, keys)?;
        if self.issuer() != Some(&issuer.issuer) {
            return Err(Refusal::Issuer);
        }
        let skew = issuer.clock_skew.as_millis();
        let latest_ms = now_ms.saturating_add(skew);
        let over_ms = self.time("exp")?.ok_or(Refusal::Expired)?;
        let over_ms = over_ms.saturating_add(skew);
        if over_ms <= now_ms {
            return Err(Refusal::Expired);
        }
        for name in ["nbf", "iat"] {
            if self.time(name)?.is_some_and(|time_ms| time_ms > latest_ms) {
                return Err(Refusal::Early);
            }
        }
        let audiences = texts(self.claims.get("aud"));
        if !audiences.iter().any(|audience| {
            let own = issuer.audiences.iter();
            own.into_iter().any(|own| own == audience)
        }) {
            return Err(Refusal::Audience);
        }
        if let Some(scope) = &issuer.scope
            && !self.scopes().any(|found| found == scope)
        {
            return Err(Refusal::Scope);
        }
        // What an issuer has not confirmed anybody may have said to it.
        let unconfirmed = match self.claims.get("email_verified") {
            Some(Value::String(text)) => text != "true",
            Some(value) => *value != Value::Bool(true),
            None => false,
        };
        let subject = self.subject(&issuer.claim);
        match subject.filter(|_| issuer.claim != "email" || !unconfirmed) {
            Some(subject) => Ok(Verified {
                subject: subject.to_owned(),
                over_ms,
            }),
            None => Err(Refusal::Subject),
        }
    }

    fn verify_signature(&self, issuer: &TokenIssuer, keys: &KeySet) -> Result<(), Refusal> {
        let algorithm = TokenAlgorithm::named(&self.header.alg)
            .filter(|algorithm| issuer.algorithms.contains(algorithm))
            .ok_or(Refusal::Algorithm)?;
        let mut candidates = keys
            .candidates(self.header.kid.as_deref(), algorithm)
            .take(MOST_TRIES)
            .peekable();
        if candidates.peek().is_none() {
            return Err(Refusal::UnknownKey);
        }
        let signed = self.signed.as_bytes();
        if candidates.any(|key| key.verify_sig(signed, &self.signature).is_ok()) {
            Ok(())
        } else if self.header.kid.is_none() {
            // It may be of a key that was not there when the keys were fetched.
            Err(Refusal::UnknownKey)
        } else {
            Err(Refusal::Signature)
        }
    }

    /// A point in time (RFC 7519 section 2), which may have a fraction; Unix milliseconds.
    fn time(&self, claim: &str) -> Result<Option<u64>, Refusal> {
        let Some(value) = self.claims.get(claim) else {
            return Ok(None);
        };
        let seconds = value.as_f64().filter(|seconds| *seconds >= 0.0);
        let seconds = seconds.ok_or(Refusal::Malformed)?;
        // Saturates: what is beyond is as far away as can be.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "neither negative nor NaN, and saturating is meant"
        )]
        let milliseconds = (seconds * 1000.0) as u64;
        Ok(Some(milliseconds))
    }

    /// `scope` (RFC 8693 section 4.2), or `scp` as some issuers have it.
    fn scopes(&self) -> impl Iterator<Item = &str> {
        ["scope", "scp"]
            .into_iter()
            .flat_map(|name| texts(self.claims.get(name)))
            .flat_map(|text| text.split(' '))
    }
}

/// Tokens are no text for logs.
impl std::fmt::Debug for Token<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token(..)")
    }
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verified(..)")
    }
}

fn decode(part: &str) -> Result<Vec<u8>, Refusal> {
    URL_SAFE_NO_PAD.decode(part).map_err(|_| Refusal::Malformed)
}

/// A text, or a list of texts; what is neither is nothing.
fn texts(value: Option<&Value>) -> Vec<&str> {
    match value {
        Some(Value::String(text)) => vec![text],
        Some(Value::Array(values)) => values.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
