//! For tests: canonical forms and verification written a second time, as the RFC says it and
//! without regard for speed.

use std::collections::HashMap;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ED25519, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// Splits at CRLF only.
fn split_lines(text: &[u8]) -> Vec<Vec<u8>> {
    let mut lines = vec![Vec::new()];
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with(b"\r\n") {
            lines.push(Vec::new());
            at += 2;
        } else {
            lines.last_mut().unwrap().push(text[at]);
            at += 1;
        }
    }
    lines
}

fn reduce_white_space(line: &[u8]) -> Vec<u8> {
    let mut reduced: Vec<u8> = Vec::new();
    for byte in line {
        match byte {
            b' ' | b'\t' if reduced.last() == Some(&b' ') => {}
            b' ' | b'\t' => reduced.push(b' '),
            other => reduced.push(*other),
        }
    }
    if reduced.last() == Some(&b' ') {
        reduced.pop();
    }
    reduced
}

/// RFC 6376 section 3.4.4.
pub fn relaxed_body(body: &[u8]) -> Vec<u8> {
    let mut lines: Vec<_> = split_lines(body)
        .iter()
        .map(|line| reduce_white_space(line))
        .collect();
    while lines.last().is_some_and(Vec::is_empty) {
        lines.pop();
    }
    lines
        .into_iter()
        .flat_map(|line| [line, b"\r\n".to_vec()].concat())
        .collect()
}

/// RFC 6376 section 3.4.2, without the CRLF.
pub fn relaxed_field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let value = reduce_white_space(&split_lines(value).concat());
    let value = value.strip_prefix(b" ").unwrap_or(&value);
    [&name.to_ascii_lowercase(), b":".as_slice(), value].concat()
}

/// The tags of a signature field or a key record, without white space.
pub fn tags(text: &str) -> HashMap<String, String> {
    text.split(';')
        .filter_map(|tag| tag.split_once('='))
        .map(|(name, value)| {
            (
                name.trim().to_owned(),
                value.split_ascii_whitespace().collect(),
            )
        })
        .collect()
}

/// Verifies the first field of the header section, a signature, over the fields under it (RFC
/// 6376 section 6.1.3) with the key of a TXT record.
pub fn verifies(header: &[u8], body: &[u8], record: &str) -> bool {
    let mut fields: Vec<_> = message::fields(header).collect();
    let signature = fields.remove(0);
    let tags_text = String::from_utf8(signature.value.to_vec()).unwrap();
    let tag = tags(&tags_text);
    let body_hash = digest::digest(&digest::SHA256, &relaxed_body(body));
    if BASE64_STANDARD.encode(body_hash) != tag["bh"] {
        return false;
    }
    let mut data = Vec::new();
    for name in tag["h"].split(':') {
        // The last instance that is not used yet; none counts as nothing.
        if let Some(at) = fields.iter().rposition(|field| field.is(name)) {
            let field = fields.remove(at);
            data.extend(relaxed_field(field.name, field.value));
            data.extend(b"\r\n");
        }
    }
    let before_b = &tags_text[..tags_text.rfind("b=").unwrap() + 2];
    data.extend(relaxed_field(signature.name, before_b.as_bytes()));
    let public_key = BASE64_STANDARD.decode(&tags(record)["p"]).unwrap();
    let signed = BASE64_STANDARD.decode(&tag["b"]).unwrap();
    match tag["a"].as_str() {
        "rsa-sha256" => UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, public_key)
            .verify(&data, &signed)
            .is_ok(),
        "ed25519-sha256" => UnparsedPublicKey::new(&ED25519, public_key)
            .verify(digest::digest(&digest::SHA256, &data).as_ref(), &signed)
            .is_ok(),
        _ => false,
    }
}
