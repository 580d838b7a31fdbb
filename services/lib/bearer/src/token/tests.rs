use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
    RSA_PSS_SHA256, RsaKeyPair,
};
use config::Snapshot;
use serde_json::json;

use super::*;
use crate::KeyError;

/// 2026-01-01T00:00:00Z, seconds.
const NOW: u64 = 1_767_225_600;

fn encode(octets: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(octets)
}

/// An issuer's private keys, one of each kind, and two that have only been published.
struct Keys {
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

impl Keys {
    fn generate() -> Self {
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).unwrap(),
            p256: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap(),
            ed25519: Ed25519KeyPair::generate().unwrap(),
        }
    }

    /// As a JWK set.
    fn published(&self) -> Value {
        let point = self.p256.public_key().as_ref();
        json!({ "keys": [
            self.rsa_jwk(),
            {
                "kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "key_ops": ["verify"],
                "x": encode(&point[1..33]), "y": encode(&point[33..]),
            },
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": encode(self.ed25519.public_key()) },
        ]})
    }

    fn rsa_jwk(&self) -> Value {
        let (n, e) = self.rsa_numbers();
        json!({ "kty": "RSA", "kid": "rsa", "use": "sig", "n": encode(n), "e": encode(e) })
    }

    /// Modulus and exponent, where DER has them for 2048 bits and the usual exponent.
    fn rsa_numbers(&self) -> (&[u8], &[u8]) {
        let der = self.rsa.public_key().as_ref();
        assert_eq!(der.len(), 270);
        (&der[9..265], &der[267..])
    }

    fn set(&self) -> KeySet {
        let (set, left_out) = KeySet::read(self.published().to_string().as_bytes()).unwrap();
        assert_eq!((set.len(), left_out.len()), (3, 0));
        set
    }

    fn sign(&self, alg: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let rsa = |padding| {
            let mut signature = vec![0; self.rsa.public_modulus_len()];
            let signed = self.rsa.sign(padding, &random, message, &mut signature);
            signed.map(|()| signature).unwrap()
        };
        match alg {
            "RS256" => rsa(&RSA_PKCS1_SHA256),
            "PS256" => rsa(&RSA_PSS_SHA256),
            "ES256" => self.p256.sign(&random, message).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed25519.sign(message).as_ref().to_vec(),
            // With what everybody knows, as a verifier that does not look at the kind of the key would take it.
            "HS256" => {
                let public = self.rsa.public_key().as_ref();
                let key = hmac::Key::new(hmac::HMAC_SHA256, public);
                hmac::sign(&key, message).as_ref().to_vec()
            }
            _ => Vec::new(),
        }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let signed = format!(
            "{}.{}",
            encode(header.to_string()),
            encode(claims.to_string())
        );
        let alg = header["alg"].as_str().unwrap_or_default();
        let signature = self.sign(alg, signed.as_bytes());
        format!("{signed}.{}", encode(signature))
    }
}

fn issuer(more: &str) -> TokenIssuer {
    let text = format!(
        "apiVersion: staffetta.dev/v1alpha1\nkind: TokenIssuer\nmetadata: {{ name: corp }}\n\
         spec: {{ issuer: \"https://login.example\", audiences: [ relay, other ], jwksFile: \"file:/k\", {more} }}"
    );
    let snapshot = Snapshot::from_documents(&text).unwrap();
    (**snapshot.token_issuers().next().unwrap()).clone()
}

fn claims() -> Value {
    json!({ "iss": "https://login.example", "aud": "relay", "sub": "app", "exp": NOW + 300, "iat": NOW, "nbf": NOW })
}

/// The claims with one of them changed, or taken out.
fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

fn verify(token: &str, issuer: &TokenIssuer, keys: &KeySet) -> Result<String, Refusal> {
    let verified = Token::read(token)?.verify(issuer, keys, NOW * 1000)?;
    Ok(verified.subject)
}

#[test]
fn takes_tokens_of_every_algorithm() {
    let keys = Keys::generate();
    let set = keys.set();
    for (alg, kid) in [
        ("RS256", "rsa"),
        ("PS256", "rsa"),
        ("ES256", "ec"),
        ("EdDSA", "ed"),
    ] {
        for header in [
            json!({ "alg": alg, "kid": kid, "typ": "at+jwt" }),
            json!({ "alg": alg }),
        ] {
            let token = keys.token(&header, &claims());
            assert_eq!(
                verify(&token, &issuer(""), &set).as_deref(),
                Ok("app"),
                "{header}"
            );
            let only = issuer(&format!("algorithms: [ {alg} ]"));
            assert!(verify(&token, &only, &set).is_ok());
            let others = ["RS256", "PS256", "ES256", "EdDSA"].into_iter();
            let others: Vec<&str> = others.filter(|other| *other != alg).collect();
            let others = issuer(&format!("algorithms: [ {} ]", others.join(", ")));
            assert_eq!(verify(&token, &others, &set), Err(Refusal::Algorithm));
        }
    }
}

#[test]
fn takes_claims_in_every_form_they_may_have() {
    let keys = Keys::generate();
    let set = keys.set();
    let header = json!({ "alg": "EdDSA", "kid": "ed" });
    for claims in [
        with("aud", json!(["x", "other"])),
        without("nbf"),
        without("iat"),
        with("exp", json!(NOW as f64 + 0.5)),
        // Clocks may be wrong by a minute, either way.
        with("exp", json!(NOW - 59)),
        with("nbf", json!(NOW + 60)),
        with("iat", json!(NOW + 60)),
        with("exp", json!(1e300)),
    ] {
        let token = keys.token(&header, &claims);
        assert_eq!(
            verify(&token, &issuer(""), &set).as_deref(),
            Ok("app"),
            "{claims}"
        );
    }
    let scoped = issuer("scope: smtp.send");
    for (name, value) in [
        ("scope", json!("openid smtp.send")),
        ("scp", json!(["a", "smtp.send"])),
        ("scp", json!("smtp.send")),
    ] {
        let token = keys.token(&header, &with(name, value));
        assert!(verify(&token, &scoped, &set).is_ok());
    }
    let by_mail = issuer("claim: email");
    let mut mail = with("email", json!("app@acme.example"));
    let token = keys.token(&header, &mail);
    assert_eq!(
        verify(&token, &by_mail, &set).as_deref(),
        Ok("app@acme.example")
    );
    for (verified, expected) in [
        (json!(true), Ok("app@acme.example")),
        (json!("true"), Ok("app@acme.example")),
        (json!(false), Err(Refusal::Subject)),
        (json!("false"), Err(Refusal::Subject)),
        (json!(null), Err(Refusal::Subject)),
    ] {
        mail["email_verified"] = verified;
        let token = keys.token(&header, &mail);
        let found = verify(&token, &by_mail, &set);
        assert_eq!(found.as_deref().map_err(|refusal| *refusal), expected);
    }
    let over = Token::read(&token)
        .unwrap()
        .verify(&issuer(""), &set, NOW * 1000);
    assert_eq!(over.unwrap().over_ms, (NOW + 360) * 1000);
}

#[test]
fn refuses_wrong_tokens() {
    let keys = Keys::generate();
    let set = keys.set();
    let good = keys.token(&json!({ "alg": "RS256", "kid": "rsa" }), &claims());
    assert!(verify(&good, &issuer(""), &set).is_ok());
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = signed.split_once('.').unwrap();
    let token = |alg: &str, kid: &str, claims: &Value| {
        keys.token(&json!({ "alg": alg, "kid": kid }), claims)
    };
    let rs256 = |claims: Value| token("RS256", "rsa", &claims);
    let stranger = Keys::generate();
    let crit = json!({ "alg": "RS256", "kid": "rsa", "crit": ["b64"], "b64": false });
    let twice = format!(
        "{}.{payload}.{signature}",
        encode(r#"{"alg":"none","kid":"rsa","alg":"RS256"}"#)
    );
    let longer = rs256(with("x", json!("x".repeat(LONGEST))));
    for (what, token, expected) in [
        (
            "expired",
            rs256(with("exp", json!(NOW - 60))),
            Refusal::Expired,
        ),
        ("without an end", rs256(without("exp")), Refusal::Expired),
        (
            "an end that is no time",
            rs256(with("exp", json!("soon"))),
            Refusal::Malformed,
        ),
        (
            "an end before all time",
            rs256(with("exp", json!(-1))),
            Refusal::Malformed,
        ),
        (
            "not yet",
            rs256(with("nbf", json!(NOW + 61))),
            Refusal::Early,
        ),
        (
            "out of the future",
            rs256(with("iat", json!(NOW + 61))),
            Refusal::Early,
        ),
        (
            "for somebody else",
            rs256(with("aud", json!("x"))),
            Refusal::Audience,
        ),
        (
            "for others",
            rs256(with("aud", json!(["x", "y", 1]))),
            Refusal::Audience,
        ),
        ("for nobody", rs256(without("aud")), Refusal::Audience),
        (
            "of another issuer",
            rs256(with("iss", json!("https://login.example/"))),
            Refusal::Issuer,
        ),
        ("of no issuer", rs256(without("iss")), Refusal::Issuer),
        ("about nobody", rs256(without("sub")), Refusal::Subject),
        (
            "about a number",
            rs256(with("sub", json!(7))),
            Refusal::Subject,
        ),
        (
            "not signed",
            token("none", "rsa", &claims()),
            Refusal::Algorithm,
        ),
        (
            "not signed, in other letters",
            token("nOnE", "rsa", &claims()),
            Refusal::Algorithm,
        ),
        (
            "with the public key as a secret",
            token("HS256", "rsa", &claims()),
            Refusal::Algorithm,
        ),
        (
            "of an algorithm of another kind of key",
            token("RS256", "ec", &claims()),
            Refusal::UnknownKey,
        ),
        (
            "of an unknown key",
            token("RS256", "new", &claims()),
            Refusal::UnknownKey,
        ),
        (
            "signed by a stranger",
            stranger.token(&json!({ "alg": "RS256", "kid": "rsa" }), &claims()),
            Refusal::Signature,
        ),
        (
            "signed by a stranger without a name",
            stranger.token(&json!({ "alg": "ES256" }), &claims()),
            Refusal::UnknownKey,
        ),
        (
            "with another padding than it says",
            format!(
                "{}.{payload}.{signature}",
                encode(r#"{"alg":"PS256","kid":"rsa"}"#)
            ),
            Refusal::Signature,
        ),
        (
            "with other claims",
            format!(
                "{header}.{}.{signature}",
                encode(with("sub", json!("boss")).to_string())
            ),
            Refusal::Signature,
        ),
        (
            "without a signature",
            format!("{signed}."),
            Refusal::Signature,
        ),
        ("cut", good[..good.len() - 2].to_owned(), Refusal::Signature),
        (
            "cut within a letter",
            good[..good.len() - 1].to_owned(),
            Refusal::Malformed,
        ),
        (
            "cut within the claims",
            header.to_owned() + "." + &payload[..20],
            Refusal::Malformed,
        ),
        (
            "with an extension that must be understood",
            keys.token(&crit, &claims()),
            Refusal::Malformed,
        ),
        ("with two algorithms", twice, Refusal::Malformed),
        (
            "without an algorithm",
            keys.token(&json!({ "kid": "rsa" }), &claims()),
            Refusal::Malformed,
        ),
        ("padded", format!("{good}="), Refusal::Malformed),
        (
            "in another alphabet",
            good.replace(['-', '_'], "+"),
            Refusal::Malformed,
        ),
        (
            "encrypted",
            format!("{header}.a.b.c.{signature}"),
            Refusal::Malformed,
        ),
        (
            "opaque",
            "ya29.vF9dft4qmTc2Nvb3".to_owned(),
            Refusal::Malformed,
        ),
        (
            "claims that are no object",
            format!("{header}.{}.{signature}", encode("[]")),
            Refusal::Malformed,
        ),
        (
            "deep claims",
            format!("{header}.{}.{signature}", encode("[".repeat(5000))),
            Refusal::Malformed,
        ),
        ("nothing", String::new(), Refusal::Malformed),
        ("dots", "..".to_owned(), Refusal::Malformed),
        ("huge", longer, Refusal::Malformed),
    ] {
        assert_eq!(verify(&token, &issuer(""), &set), Err(expected), "{what}");
    }
    let scoped = issuer("scope: smtp.send");
    for scope in ["", "smtp", "smtp.send.all", "Smtp.Send"] {
        let token = rs256(with("scope", json!(scope)));
        assert_eq!(verify(&token, &scoped, &set), Err(Refusal::Scope));
    }
    assert_eq!(
        verify(&good, &issuer(""), &KeySet::default()),
        Err(Refusal::UnknownKey)
    );
}

#[test]
fn leaves_out_keys_that_cannot_be_used() {
    let keys = Keys::generate();
    let published = keys.published();
    let changed = |key: usize, name: &str, value: Value| {
        let mut jwk = published["keys"][key].clone();
        jwk[name] = value;
        jwk
    };
    let mut odd = vec![0xff; 128];
    let small = encode(&odd);
    odd.resize(1025, 0xff);
    let large = encode(&odd);
    for (what, jwk, expected) in [
        (
            "symmetric",
            json!({ "kty": "oct", "k": "c2VjcmV0", "alg": "HS256" }),
            KeyError::Kind,
        ),
        (
            "for HS256",
            changed(0, "alg", json!("HS256")),
            KeyError::Kind,
        ),
        (
            "for an algorithm of another kind",
            changed(0, "alg", json!("ES256")),
            KeyError::Kind,
        ),
        (
            "for encryption",
            changed(0, "use", json!("enc")),
            KeyError::Use,
        ),
        (
            "for signing",
            changed(1, "key_ops", json!(["sign"])),
            KeyError::Use,
        ),
        (
            "RSA of 1024 bits",
            changed(0, "n", json!(small)),
            KeyError::Size,
        ),
        (
            "RSA of 8200 bits",
            changed(0, "n", json!(large)),
            KeyError::Size,
        ),
        (
            "RSA of nothing",
            changed(0, "n", json!("AAAA")),
            KeyError::Numbers,
        ),
        (
            "RSA with an exponent of 1",
            changed(0, "e", json!("AQ")),
            KeyError::Numbers,
        ),
        (
            "RSA with an even exponent",
            changed(0, "e", json!("AQAC")),
            KeyError::Numbers,
        ),
        (
            "RSA with a long exponent",
            changed(0, "e", json!("AQAAAAE")),
            KeyError::Numbers,
        ),
        (
            "RSA without an exponent",
            changed(0, "e", Value::Null),
            KeyError::Form,
        ),
        (
            "RSA in another alphabet",
            changed(0, "n", json!("+/+/")),
            KeyError::Form,
        ),
        (
            "a point beside the curve",
            changed(1, "x", json!(encode([1; 32]))),
            KeyError::Numbers,
        ),
        (
            "a short coordinate",
            changed(1, "y", json!(encode([1; 31]))),
            KeyError::Numbers,
        ),
        (
            "another curve",
            changed(1, "crv", json!("secp256k1")),
            KeyError::Kind,
        ),
        (
            "a short Ed25519 key",
            changed(2, "x", json!(encode([1; 31]))),
            KeyError::Numbers,
        ),
        (
            "another curve of Edwards",
            changed(2, "crv", json!("Ed448")),
            KeyError::Kind,
        ),
        (
            "a number as a name",
            changed(0, "kid", json!(7)),
            KeyError::Form,
        ),
        (
            "a long name",
            changed(0, "kid", json!("k".repeat(256))),
            KeyError::Form,
        ),
        ("no object", json!("key"), KeyError::Form),
    ] {
        let document = json!({ "keys": [ jwk, published["keys"][2] ] }).to_string();
        let (set, left_out) = KeySet::read(document.as_bytes()).unwrap();
        assert_eq!(set.len(), 1, "{what}");
        assert_eq!(left_out[0].error, expected, "{what}");
    }
    // A number may begin with zeros.
    let (n, _) = keys.rsa_numbers();
    let padded = changed(0, "n", json!(encode([&[0, 0], n].concat())));
    let document = json!({ "keys": [ padded ] }).to_string();
    let (set, _) = KeySet::read(document.as_bytes()).unwrap();
    let token = keys.token(&json!({ "alg": "RS256", "kid": "rsa" }), &claims());
    assert!(verify(&token, &issuer(""), &set).is_ok());
}

#[test]
fn a_set_is_a_list_of_a_bounded_number_of_keys() {
    for document in ["", "[]", "{}", "{\"keys\":{}}", "<html>"] {
        assert!(KeySet::read(document.as_bytes()).is_err(), "{document}");
    }
    let (set, _) = KeySet::read(b"{\"keys\":[]}").unwrap();
    assert!(set.is_empty());
    let many = json!({ "keys": vec![json!({}); 65] }).to_string();
    let error = KeySet::read(many.as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "more than 64 keys");
}

#[test]
fn takes_the_examples_of_the_rfcs() {
    // RFC 8037 appendix A.4: a signature that was not made here.
    let jwk = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let (set, _) = KeySet::read(jwk.as_bytes()).unwrap();
    let key = set.candidates(None, TokenAlgorithm::EdDsa).next().unwrap();
    let signature = decode(
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    )
    .unwrap();
    let signed = b"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc";
    assert!(key.verify_sig(signed, &signature).is_ok());
    // RFC 7515 appendix A.3: ES256.
    let jwk = r#"{"keys":[{"kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#;
    let (set, _) = KeySet::read(jwk.as_bytes()).unwrap();
    let token = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let read = Token::read(token).unwrap();
    assert_eq!(read.issuer(), Some("joe"));
    assert_eq!(read.verify_signature(&issuer(""), &set), Ok(()));
    let mut changed = read.clone();
    changed.signature[0] ^= 1;
    assert_eq!(
        changed.verify_signature(&issuer(""), &set),
        Err(Refusal::UnknownKey)
    );
}
