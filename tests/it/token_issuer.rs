//! Somebody who issues tokens, good and bad ones.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

/// `iss` of its tokens.
pub const ISSUER: &str = "https://login.example";
/// Whom they are for.
pub const AUDIENCE: &str = "relay.example.com";

/// An issuer with one key.
pub struct Issuer {
    key: Ed25519KeyPair,
    id: String,
}

impl Issuer {
    /// With a new key of this id.
    pub fn new(id: &str) -> Self {
        Self {
            key: Ed25519KeyPair::generate().expect("the system gives random bytes"),
            id: id.to_owned(),
        }
    }

    /// The key as it is published.
    pub fn jwk(&self) -> Value {
        let x = encode(self.key.public_key());
        json!({ "kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": self.id, "x": x })
    }

    /// What is right to say of a user.
    pub fn claims(subject: &str) -> Value {
        let now = now();
        json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": subject,
            "iat": now, "exp": now + 3600, "scope": "openid smtp.send",
        })
    }

    /// A token that says so.
    pub fn token(&self, claims: &Value) -> String {
        self.sign(&json!({ "alg": "EdDSA", "kid": self.id }), claims)
    }

    /// A token with this header.
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = format!(
            "{}.{}",
            encode(header.to_string()),
            encode(claims.to_string())
        );
        let signature = encode(self.key.sign(signed.as_bytes()));
        format!("{signed}.{signature}")
    }
}

/// A set of keys as it is published.
pub fn key_set(issuers: &[&Issuer]) -> String {
    let keys: Vec<Value> = issuers.iter().map(|issuer| issuer.jwk()).collect();
    json!({ "keys": keys }).to_string()
}

/// What a client says with a token, base64.
pub fn response(mechanism: &str, user: Option<&str>, token: &str) -> String {
    let user = match (mechanism, user) {
        ("XOAUTH2", user) => format!("user={}", user.unwrap_or_default()),
        (_, None) => "n,,".to_owned(),
        (_, Some(user)) => format!("n,a={user},\x01host=relay.example.com\x01port=587"),
    };
    STANDARD.encode(format!("{user}\x01auth=Bearer {token}\x01\x01"))
}

/// Seconds since 1970.
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("the clock is past 1970").as_secs()
}

fn encode(octets: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(octets)
}
