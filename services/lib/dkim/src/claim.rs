//! What a signature of somebody claims, ready to be checked when its key and the body are there (RFC 6376 section 6.1).

use std::collections::HashMap;

use aws_lc_rs::digest::{Context, Digest, SHA256};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use mail::Domain;
use message::{Field, fields};

use crate::canonical::push_relaxed_field;
use crate::tags::{Tags, without_signature};
use crate::{Algorithm, PublicKey};

/// Names in the `h=` of one signature.
const MOST_NAMES: usize = 1024;

/// A signature, all of it but the key.
#[derive(Debug, Clone)]
pub struct Claim {
    domain: Domain,
    selector: Domain,
    algorithm: Algorithm,
    /// Of the header fields.
    hash: Digest,
    signature: Vec<u8>,
    /// None in a seal.
    body: Option<BodyClaim>,
    /// Domain of the tag `i=`, when it is another than that of `d=`.
    identity: Option<Domain>,
    /// The tag `x=`, Unix seconds.
    expires: Option<u64>,
}

#[derive(Debug, Clone, Copy)]
struct BodyClaim {
    relaxed: bool,
    hash: [u8; 32],
}

/// A body's hashes in the forms that signatures have.
#[derive(Debug, Clone, Copy)]
pub struct BodyHashes {
    /// Of [`crate::BodyHasher`].
    pub relaxed: [u8; 32],
    /// Of [`crate::SimpleBodyHasher`], when one of the signatures asks for it.
    pub simple: Option<[u8; 32]>,
}

/// Why a signature field says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClaimError {
    /// A tag is missing or makes no sense.
    #[error("malformed signature")]
    Malformed,
    /// An algorithm or a form that is not checked: `rsa-sha1` (RFC 8301), a part of the body (`l=`).
    #[error("unsupported signature")]
    Unsupported,
}

/// Why a signature does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The body is not the one that was signed.
    #[error("body hash did not verify")]
    Body,
    /// The header fields are not, or the key is another.
    #[error("signature did not verify")]
    Signature,
    /// `x=` is over.
    #[error("signature expired")]
    Expired,
}

impl Claim {
    /// The tag `d=`.
    pub fn domain(&self) -> &str {
        self.domain.as_str()
    }

    /// The tag `s=`.
    pub fn selector(&self) -> &str {
        self.selector.as_str()
    }

    /// The beginning of the tag `b=`, as results name a signature (RFC 6008).
    pub fn signature_prefix(&self) -> String {
        let mut encoded = BASE64_STANDARD.encode(&self.signature);
        encoded.truncate(8);
        encoded
    }

    /// Where the TXT record with its key is.
    pub fn key_name(&self) -> String {
        format!("{}._domainkey.{}", self.selector, self.domain)
    }

    /// Whether the body must be hashed in simple form.
    pub fn needs_simple_body(&self) -> bool {
        self.body.is_some_and(|body| !body.relaxed)
    }

    /// Checks it with a key. `now` is in Unix seconds.
    pub fn check(&self, key: &PublicKey, bodies: &BodyHashes, now: u64) -> Result<(), Broken> {
        if self.expires.is_some_and(|expires| expires < now) {
            return Err(Broken::Expired);
        }
        let hash_is_right = self.body.is_none_or(|body| {
            let found = if body.relaxed {
                Some(bodies.relaxed)
            } else {
                bodies.simple
            };
            found == Some(body.hash)
        });
        if !hash_is_right {
            return Err(Broken::Body);
        }
        let identity_fits = !key.strict || self.identity.is_none();
        if identity_fits && key.verifies(self.algorithm, &self.hash, &self.signature) {
            Ok(())
        } else {
            Err(Broken::Signature)
        }
    }
}

/// The fields of a header section by name, from the bottom up.
pub(crate) struct ByName<'a> {
    fields: HashMap<Vec<u8>, Vec<Field<'a>>>,
}

impl<'a> ByName<'a> {
    pub(crate) fn of(header: &'a [u8]) -> Self {
        let mut by_name: HashMap<Vec<u8>, Vec<Field<'a>>> = HashMap::new();
        for field in fields(header).filter(|field| !field.name.is_empty()) {
            let name = field.name.to_ascii_lowercase();
            by_name.entry(name).or_default().push(field);
        }
        Self { fields: by_name }
    }
}

/// Which field a signature is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Dkim,
    /// An ARC-Message-Signature: without `v=`, and `i=` is a number.
    Arc,
}

/// A DKIM-Signature or an ARC-Message-Signature over the fields.
pub(crate) fn of_message(
    field: &Field<'_>,
    by_name: &ByName<'_>,
    kind: Kind,
) -> Result<Claim, ClaimError> {
    use ClaimError::{Malformed, Unsupported};
    let tags = Tags::parse(field.value).ok_or(Malformed)?;
    if kind == Kind::Dkim && tags.text("v") != Some("1") {
        return Err(Malformed);
    }
    if tags.get("l").is_some() {
        return Err(Unsupported);
    }
    let (header_relaxed, body_relaxed) = match tags.text("c") {
        None => (false, false),
        Some(form) => {
            let (header, body) = form.split_once('/').unwrap_or((form, "simple"));
            (is_relaxed(header)?, is_relaxed(body)?)
        }
    };
    let hash = BASE64_STANDARD
        .decode(tags.packed("bh").ok_or(Malformed)?)
        .map_err(|_| Malformed)?;
    let hash = hash.try_into().map_err(|_| Malformed)?;
    let names = tags.text("h").ok_or(Malformed)?;
    let names: Vec<String> = names
        .split(':')
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    if names.len() > MOST_NAMES || !names.iter().any(|name| name == "from") {
        return Err(Malformed);
    }
    if kind == Kind::Arc && names.iter().any(|name| name == "arc-seal") {
        return Err(Malformed);
    }
    let mut claim = of_tags(&tags)?;
    claim.body = Some(BodyClaim {
        relaxed: body_relaxed,
        hash,
    });
    claim.expires = tags.number("x");
    if kind == Kind::Dkim
        && let Some(identity) = tags.text("i")
    {
        let domain = identity.rsplit_once('@').map(|(_, domain)| domain);
        let domain = domain.and_then(|domain| Domain::parse(domain).ok());
        let domain = domain.ok_or(Malformed)?;
        if domain != claim.domain {
            let ours = claim.domain.as_str();
            let above = domain.as_str().strip_suffix(ours);
            if !above.is_some_and(|labels| labels.ends_with('.')) {
                return Err(Malformed);
            }
            claim.identity = Some(domain);
        }
    }
    claim.hash = hash_of_fields(field, by_name, &names, header_relaxed);
    Ok(claim)
}

/// Domain, selector, algorithm and signature; nothing of what is signed yet.
pub(crate) fn of_tags(tags: &Tags<'_>) -> Result<Claim, ClaimError> {
    use ClaimError::{Malformed, Unsupported};
    let algorithm = match tags.text("a") {
        Some("rsa-sha256") => Algorithm::RsaSha256,
        Some("ed25519-sha256") => Algorithm::Ed25519Sha256,
        Some(_) => return Err(Unsupported),
        None => return Err(Malformed),
    };
    let domain = |name: &str| {
        let text = tags.text(name).ok_or(Malformed)?;
        Domain::parse(text).map_err(|_| Malformed)
    };
    let signature = tags.packed("b").ok_or(Malformed)?;
    let signature = BASE64_STANDARD.decode(signature).map_err(|_| Malformed)?;
    Ok(Claim {
        domain: domain("d")?,
        selector: domain("s")?,
        algorithm,
        hash: Context::new(&SHA256).finish(),
        signature,
        body: None,
        identity: None,
        expires: None,
    })
}

impl Claim {
    /// As a seal over what has this hash.
    pub(crate) fn over(self, hash: Digest) -> Self {
        Self { hash, ..self }
    }
}

fn is_relaxed(form: &str) -> Result<bool, ClaimError> {
    match form.trim() {
        "relaxed" => Ok(true),
        "simple" => Ok(false),
        _ => Err(ClaimError::Malformed),
    }
}

/// RFC 6376 section 3.7.
fn hash_of_fields(
    signature: &Field<'_>,
    by_name: &ByName<'_>,
    names: &[String],
    relaxed: bool,
) -> Digest {
    let mut context = Context::new(&SHA256);
    let mut canonical = Vec::with_capacity(1024);
    let mut used: HashMap<&str, usize> = HashMap::new();
    for name in names {
        let instances = by_name.fields.get(name.as_bytes());
        let instances = instances.map_or(&[][..], Vec::as_slice);
        // From the bottom up (section 5.4.2), without the signature itself.
        let used = used.entry(name).or_default();
        let others = instances
            .iter()
            .rev()
            .filter(|field| field.raw.as_ptr() != signature.raw.as_ptr());
        let Some(field) = others.clone().nth(*used) else {
            continue;
        };
        *used += 1;
        if relaxed {
            canonical.clear();
            push_relaxed_field(&mut canonical, field.name, field.value);
            context.update(&canonical);
            context.update(b"\r\n");
        } else {
            context.update(field.raw);
            if !field.raw.ends_with(b"\r\n") {
                context.update(b"\r\n");
            }
        }
    }
    let value = without_signature(signature.value);
    if relaxed {
        canonical.clear();
        push_relaxed_field(&mut canonical, signature.name, &value);
        context.update(&canonical);
    } else {
        let before_value = signature.raw.len()
            - signature.value.len()
            - if signature.raw.ends_with(b"\r\n") {
                2
            } else {
                0
            };
        context.update(&signature.raw[..before_value]);
        context.update(&value);
    }
    context.finish()
}

/// The DKIM-Signature fields of a header section, from the top, at most so many.
pub fn claims(header: &[u8], most: usize) -> Vec<Result<Claim, ClaimError>> {
    let by_name = ByName::of(header);
    fields(header)
        .filter(|field| field.is("DKIM-Signature"))
        .take(most)
        .map(|field| of_message(&field, &by_name, Kind::Dkim))
        .collect()
}
