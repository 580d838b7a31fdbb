//! Signatures as the Standard Webhooks specification (version 1.0.0) has them: HMAC-SHA-256 with a secret that both sides
//! know, over id, time and body.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// What secrets begin with.
const PREFIX: &str = "whsec_";

/// A secret of a webhook.
#[derive(Clone)]
pub(crate) struct Secret(Key);

/// Not a secret; does not tell what is there instead.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("\"whsec_\" and 24 to 64 octets in base64 are expected")]
pub(crate) struct SecretForm;

impl FromStr for Secret {
    type Err = SecretForm;

    fn from_str(text: &str) -> Result<Self, SecretForm> {
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(SecretForm)?;
        let octets = STANDARD.decode(encoded).map_err(|_| SecretForm)?;
        if !(24..=64).contains(&octets.len()) {
            return Err(SecretForm);
        }
        Ok(Self(Key::new(HMAC_SHA256, &octets)))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The field `webhook-signature`: one signature for each secret. `seconds` as in `webhook-timestamp`.
pub(crate) fn sign(secrets: &[Secret], id: &str, seconds: u64, body: &[u8]) -> String {
    let signatures = secrets.iter().map(|Secret(key)| {
        let mut context = hmac::Context::with_key(key);
        context.update(format!("{id}.{seconds}.").as_bytes());
        context.update(body);
        format!("v1,{}", STANDARD.encode(context.sign()))
    });
    signatures.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signs_as_the_example_of_the_specification_does() {
        let secret: Secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n".parse().unwrap();
        let body = br#"{"test": 2432232314}"#;
        let id = "msg_p5jXN8AQM9LWM0D4loKWxJek";
        let expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(
            sign(std::slice::from_ref(&secret), id, 1_614_265_330, body),
            expected
        );
        let both = sign(&[secret.clone(), secret], id, 1_614_265_330, body);
        assert_eq!(both, format!("{expected} {expected}"));
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        for text in [
            "",
            "whsec_",
            "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
            "whsec_c2hvcnQ=",
            "whsec_not base64",
        ] {
            assert_eq!(text.parse::<Secret>().err(), Some(SecretForm), "{text}");
        }
    }
}
