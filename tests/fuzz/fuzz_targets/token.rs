//! Tokens and what they come in: bounded, and nothing is taken but what was signed.

#![no_main]

use std::sync::LazyLock;

use bearer::{Form, KeySet, Message, Token, challenge};
use config::Snapshot;
use libfuzzer_sys::fuzz_target;

/// The key of the issuer `corp`, of whom there is one token.
const KEYS: &str = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k","x":"g2b4OW051QZ438hL-_IZhKPfyX4ayEntYposPUUFuq8"}]}"#;
const TOKEN: &str = "eyJhbGciOiJFZERTQSIsImtpZCI6ImsifQ.eyJpc3MiOiJjb3JwIiwiYXVkIjpbInJlbGF5Il0sInN1YiI6ImFwcCIsImV4cCI6NDEwMjQ0NDgwMCwiaWF0IjoxNzY3MjI1NjAwLCJzY29wZSI6InNtdHAuc2VuZCJ9.7a-IcoWod1gQyxCc21WPHt0KHbTmoUkmal4ZVSC3tSawUAyE7tc85WRfYKuDM72NLY9O60yEiHRrq5Wwtfl4BQ";
/// Within the time of the token, Unix milliseconds.
const NOW_MS: u64 = 1_795_351_205_000;

static KNOWN: LazyLock<(Snapshot, KeySet)> = LazyLock::new(|| {
    let document = "apiVersion: staffetta.dev/v1alpha1\nkind: TokenIssuer\nmetadata: { name: corp }\n\
                    spec: { issuer: corp, audiences: [ relay ], scope: smtp.send, jwksFile: file:/k }\n";
    let (keys, _) = KeySet::read(KEYS.as_bytes()).expect("these are keys");
    let snapshot = Snapshot::from_documents(document).expect("this is a document");
    (snapshot, keys)
});

// The first octet says what the rest is.
fuzz_target!(|input: &[u8]| {
    let Some((&kind, rest)) = input.split_first() else {
        return;
    };
    match kind {
        0 => message(Form::OAuthBearer, rest),
        1 => message(Form::XOAuth2, rest),
        2 => verify(&String::from_utf8_lossy(rest)),
        _ => keys(rest),
    }
});

fn message(form: Form, octets: &[u8]) {
    let Ok(message) = Message::read(form, octets) else {
        return;
    };
    assert!(message.token.len() + message.user.as_ref().map_or(0, String::len) <= octets.len());
    assert!(
        message
            .user
            .iter()
            .all(|user| !user.contains(char::is_control) && user.len() < 256)
    );
    verify(&message.token);
}

fn verify(text: &str) {
    let Ok(token) = Token::read(text) else { return };
    let (snapshot, keys) = &*KNOWN;
    let _ = token.subject("sub");
    for issuer in snapshot.token_issuers() {
        match token.verify(issuer, keys, NOW_MS) {
            Ok(verified) => assert_eq!((text, verified.subject.as_str()), (TOKEN, "app")),
            Err(refusal) => {
                let told = challenge(Form::OAuthBearer, refusal.status(), issuer.scope.as_deref());
                assert!(told.len() < 400);
            }
        }
    }
}

fn keys(json: &[u8]) {
    let Ok((keys, left_out)) = KeySet::read(json) else {
        return;
    };
    assert!(keys.len() + left_out.len() <= 64);
    let token = Token::read(TOKEN).expect("this is a token");
    for issuer in KNOWN.0.token_issuers() {
        // Only a key that is the same takes it.
        let _ = token.verify(issuer, &keys, NOW_MS);
    }
}
