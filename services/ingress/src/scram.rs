//! SCRAM-SHA-256 (RFC 5802, RFC 7677), the server's side: the client proves that it knows the password, and we that
//! we know its keys; neither the password nor anything that would do in its place is sent or stored.

use aws_lc_rs::{constant_time, digest, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use config::ScramKeys;

/// What a client says first.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct First {
    pub(crate) username: String,
    /// Of the client.
    nonce: String,
    /// The message without the header before it, as the proof covers it.
    bare: String,
    /// The header, which comes again in the final message.
    header: String,
}

/// An exchange that waits for the client's proof.
#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) username: String,
    header: String,
    /// Of both sides.
    nonce: String,
    /// What was said so far, as the proof covers it.
    said: String,
    keys: ScramKeys,
    /// There is no such user: no proof is right.
    nobody: bool,
}

/// What came of a proof.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// It is right; this is our own, to be sent.
    Right(String),
    Wrong,
    Malformed,
}

impl First {
    /// Reads the client's first message; `None` when it is malformed or wants what is not offered (channel binding,
    /// to act as somebody else, extensions).
    pub(crate) fn read(message: &[u8]) -> Option<Self> {
        let message = std::str::from_utf8(message).ok()?;
        let mut parts = message.splitn(3, ',');
        let (flag, acting_as, bare) = (parts.next()?, parts.next()?, parts.next()?);
        if !matches!(flag, "n" | "y") || !acting_as.is_empty() {
            return None;
        }
        let mut fields = bare.split(',');
        let username = unescape(fields.next()?.strip_prefix("n=")?)?;
        let nonce = fields.next()?.strip_prefix("r=")?;
        let printable = |c: u8| c.is_ascii_graphic() && c != b',';
        let nonce_valid = (8..=256).contains(&nonce.len()) && nonce.bytes().all(printable);
        (!username.is_empty() && nonce_valid).then(|| Self {
            username,
            nonce: nonce.to_owned(),
            bare: bare.to_owned(),
            header: format!("{flag},,"),
        })
    }

    /// Goes on with the keys of the user, or with a stand-in's for a user that is not there: the answer looks the
    /// same, and stays the same for the same name. Gives the challenge.
    pub(crate) fn challenge(
        self,
        keys: Option<&ScramKeys>,
        stand_in: Option<&ScramKeys>,
        random: &str,
    ) -> (Exchange, String) {
        let nobody = keys.is_none();
        let keys = match keys {
            Some(keys) => keys.clone(),
            None => invented(&self.username, stand_in),
        };
        let nonce = format!("{}{random}", self.nonce);
        let challenge = format!(
            "r={nonce},s={},i={}",
            STANDARD.encode(&keys.salt),
            keys.iterations
        );
        let exchange = Exchange {
            said: format!("{},{challenge}", self.bare),
            username: self.username,
            header: self.header,
            nonce,
            keys,
            nobody,
        };
        (exchange, challenge)
    }
}

impl Exchange {
    /// Checks the client's final message.
    pub(crate) fn check(&self, message: &[u8]) -> Proof {
        let Some((without_proof, proof)) = std::str::from_utf8(message)
            .ok()
            .and_then(|text| text.rsplit_once(",p="))
        else {
            return Proof::Malformed;
        };
        let mut fields = without_proof.split(',');
        let header = fields
            .next()
            .and_then(|field| field.strip_prefix("c="))
            .and_then(|field| STANDARD.decode(field).ok());
        let nonce = fields.next().and_then(|field| field.strip_prefix("r="));
        let Ok(proof) = STANDARD.decode(proof) else {
            return Proof::Malformed;
        };
        if header.as_deref() != Some(self.header.as_bytes())
            || nonce != Some(self.nonce.as_str())
            || proof.len() != 32
        {
            return Proof::Malformed;
        }
        let covered = format!("{},{without_proof}", self.said);
        let signature = sign(&self.keys.stored_key, covered.as_bytes());
        let client_key: Vec<u8> = proof
            .iter()
            .zip(signature.as_ref())
            .map(|(proof, signature)| proof ^ signature)
            .collect();
        let hashed = digest::digest(&digest::SHA256, &client_key);
        let equal =
            constant_time::verify_slices_are_equal(hashed.as_ref(), &self.keys.stored_key).is_ok();
        if !equal || self.nobody {
            return Proof::Wrong;
        }
        let own = sign(&self.keys.server_key, covered.as_bytes());
        Proof::Right(format!("v={}", STANDARD.encode(own)))
    }
}

/// Random text for a nonce.
pub(crate) fn random() -> String {
    let mut octets = [0; 18];
    aws_lc_rs::rand::fill(&mut octets).expect("the system gives random bytes to the process");
    STANDARD.encode(octets)
}

fn sign(key: &[u8], message: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), message)
}

/// Keys that nobody has, with a salt that only we can tell from a real one.
fn invented(username: &str, stand_in: Option<&ScramKeys>) -> ScramKeys {
    let (secret, iterations, length) = match stand_in {
        Some(keys) => (keys.server_key.as_slice(), keys.iterations, keys.salt.len()),
        None => (&[0; 32][..], 4096, 16),
    };
    let made = sign(secret, username.as_bytes());
    ScramKeys {
        salt: made.as_ref().iter().copied().cycle().take(length).collect(),
        iterations,
        stored_key: [0; 32],
        server_key: [0; 32],
    }
}

/// `=2C` and `=3D` stand for "," and "=" (RFC 5802 section 5.1).
fn unescape(name: &str) -> Option<String> {
    let mut parts = name.split('=');
    let mut text = parts.next()?.to_owned();
    for part in parts {
        let (code, rest) = part.split_at_checked(2)?;
        text.push(match code {
            "2C" => ',',
            "3D" => '=',
            _ => return None,
        });
        text.push_str(rest);
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677 section 3: user "user", password "pencil".
    fn keys() -> ScramKeys {
        ScramKeys::derive(
            b"pencil",
            &STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap(),
            4096,
        )
    }

    const FIRST: &[u8] = b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO";
    const RANDOM: &str = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
    const FINAL: &[u8] = b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";

    #[test]
    fn goes_as_the_example_of_the_rfc() {
        let first = First::read(FIRST).unwrap();
        assert_eq!(first.username, "user");
        let (exchange, challenge) = first.challenge(Some(&keys()), None, RANDOM);
        assert_eq!(
            challenge,
            "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
        );
        assert_eq!(
            exchange.check(FINAL),
            Proof::Right("v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=".to_owned())
        );
    }

    #[test]
    fn a_proof_of_another_exchange_or_for_nobody_is_worth_nothing() {
        let exchange = |keys: Option<&ScramKeys>, random: &str| {
            First::read(FIRST)
                .unwrap()
                .challenge(keys, Some(&keys_of_another()), random)
        };
        let (other, _) = exchange(Some(&keys()), "other");
        assert_eq!(other.check(FINAL), Proof::Malformed);
        let (nobody, challenge) = exchange(None, RANDOM);
        assert_eq!(nobody.check(FINAL), Proof::Wrong);
        assert_eq!(
            challenge,
            exchange(None, RANDOM).1,
            "asked twice, the same salt"
        );
        let (wrong, _) = exchange(Some(&keys_of_another()), RANDOM);
        assert_eq!(wrong.check(FINAL), Proof::Wrong);
        for message in [&b""[..], b"c=biws", b"c=biws,r=x,p=", b"c=eSws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=", b"\xff"] {
            let (exchange, _) = exchange(Some(&keys()), RANDOM);
            assert_eq!(exchange.check(message), Proof::Malformed);
        }
    }

    fn keys_of_another() -> ScramKeys {
        ScramKeys::derive(b"pen", b"0123456789abcdef", 4096)
    }

    #[test]
    fn what_is_not_offered_is_refused() {
        for message in [
            "",
            "n,,",
            "p=tls-exporter,,n=user,r=12345678",
            "n,a=other,n=user,r=12345678",
            "n,,n=,r=12345678",
            "n,,n=user,r=1234567",
            "n,,m=x,n=user,r=12345678",
            "n,,n=us=2er,r=12345678",
            "n,,n=user,r=1234 5678",
        ] {
            assert_eq!(First::read(message.as_bytes()), None, "{message}");
        }
        let escaped = First::read(b"y,,n=a=2Cb=3Dc,r=12345678").unwrap();
        assert_eq!(escaped.username, "a,b=c");
    }
}
