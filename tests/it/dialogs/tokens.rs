//! The tokens that dialogues name.

use anyhow::{Result, bail};
use serde_json::{Value, json};

use crate::token_issuer::{Issuer, now};

/// Issues them.
pub struct Tokens {
    issuer: Issuer,
    stranger: Issuer,
}

impl Tokens {
    pub fn new() -> Self {
        Self {
            issuer: Issuer::new("k1"),
            stranger: Issuer::new("k1"),
        }
    }

    /// The issuer whose keys are known.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// The token of this name; `tests/dialogs/README.md` says what they are.
    pub fn token(&self, name: &str) -> Result<String> {
        let with = |field: &str, value: Value| {
            let mut claims = Issuer::claims("app-1");
            claims[field] = value;
            self.issuer.token(&claims)
        };
        let claims = Issuer::claims("app-1");
        Ok(match name {
            "good" => self.issuer.token(&claims),
            "long" => with("groups", json!("g".repeat(6000))),
            "expired" => with("exp", json!(now() - 120)),
            "elsewhere" => with("aud", json!("somebody.example")),
            "unscoped" => with("scope", json!("openid")),
            "unknown" => with("sub", json!("somebody")),
            "foreign" => with("iss", json!("https://other.example")),
            "away" => with("iss", json!("https://away.example")),
            "forged" => self.stranger.token(&claims),
            "unsigned" => {
                let token = self.issuer.sign(&json!({ "alg": "none" }), &claims);
                let (signed, _) = token.rsplit_once('.').unwrap_or_default();
                format!("{signed}.")
            }
            "opaque" => "ya29.vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg".to_owned(),
            _ => bail!("there is no such token"),
        })
    }
}
