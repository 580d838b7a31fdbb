//! Kind TokenIssuer.

use std::path::PathBuf;

use mail::{HttpsUrl, Span};
use serde_json::{Value, json};

use super::credential::read_file_reference;
use crate::Fields;

/// Whose OAuth access tokens (JWT, RFC 7519) clients may log in with, and what must be said in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenIssuer {
    /// Unique.
    pub name: String,
    /// `iss` of the tokens, compared octet by octet; unique.
    pub issuer: String,
    /// `aud` of the tokens must have one of them.
    pub audiences: Vec<String>,
    /// Of their signatures.
    pub algorithms: Vec<TokenAlgorithm>,
    /// Where the public keys are.
    pub keys: TokenKeys,
    /// So long the last good keys hold while no new ones can be had.
    pub keep_keys_for: Span,
    /// How wrong clocks may be.
    pub clock_skew: Span,
    /// The claim that names the user; a text in it.
    pub claim: String,
    /// A scope that the tokens must have.
    pub scope: Option<String>,
}

/// Where the keys of an issuer are, as a JWK set (RFC 7517).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum TokenKeys {
    /// In a file.
    File(PathBuf),
    /// At a URL.
    Url {
        /// The document.
        url: HttpsUrl,
        /// PEM file with the authorities of the server's certificate; `None` = those of the system.
        authorities: Option<PathBuf>,
    },
}

/// Algorithms of signatures (RFC 7518 section 3, RFC 8037): those with a public key. There is no `none` and no HS256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TokenAlgorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// Ed25519.
    EdDsa,
}

const ALGORITHMS: [(&str, TokenAlgorithm); 4] = [
    ("RS256", TokenAlgorithm::Rs256),
    ("PS256", TokenAlgorithm::Ps256),
    ("ES256", TokenAlgorithm::Es256),
    ("EdDSA", TokenAlgorithm::EdDsa),
];

/// Octets of names in tokens: issuers, audiences, subjects.
const LONGEST: usize = 255;
const MOST_AUDIENCES: usize = 16;
const CLOCK_SKEW: Span = Span::from_secs(60);
const KEEP_KEYS_FOR: Span = Span::from_secs(86_400);

impl TokenAlgorithm {
    /// All of them.
    pub fn all() -> impl Iterator<Item = Self> {
        ALGORITHMS.iter().map(|(_, algorithm)| *algorithm)
    }

    /// By its name in `alg`.
    pub fn named(name: &str) -> Option<Self> {
        let mut found = ALGORITHMS.iter().filter(|(word, _)| *word == name);
        found.next().map(|(_, algorithm)| *algorithm)
    }
}

impl TokenIssuer {
    pub(super) fn read(name: &str, spec: &Fields<'_>) -> Option<Self> {
        // Every field is read before the first missing one ends it, so that all are reported.
        let issuer = spec.required_text("issuer");
        let issuer = issuer.and_then(|_| spec.read("issuer", read_name));
        let audiences = spec.read_list("audiences", read_name);
        if !spec.is_given("audiences") {
            spec.problem(
                "audiences",
                "is missing: tokens that are meant for others would be taken",
            );
        } else if spec.is_empty_list("audiences") || audiences.len() > MOST_AUDIENCES {
            spec.problem(
                "audiences",
                format!("1 to {MOST_AUDIENCES} are expected: `aud` of tokens for this relay"),
            );
        }
        let mut algorithms = spec.read_list("algorithms", |text| {
            TokenAlgorithm::named(text)
                .ok_or_else(|| "one of RS256, PS256, ES256, EdDSA is expected".to_owned())
        });
        if spec.is_empty_list("algorithms") {
            spec.problem("algorithms", "is empty: no token would be taken");
        }
        if !spec.is_given("algorithms") {
            algorithms = TokenAlgorithm::all().collect();
        }
        let keys = read_keys(spec);
        let keep_keys_for =
            bounded(spec, "keepKeysFor", "10m", "30d", 600..=2_592_000).unwrap_or(KEEP_KEYS_FOR);
        let clock_skew = bounded(spec, "clockSkew", "0", "5m", 0..=300).unwrap_or(CLOCK_SKEW);
        let claim = spec.read("claim", read_name);
        let scope = spec.read("scope", read_scope);
        Some(Self {
            name: name.to_owned(),
            issuer: issuer?,
            audiences,
            algorithms,
            keys: keys?,
            keep_keys_for,
            clock_skew,
            claim: claim.unwrap_or_else(|| "sub".to_owned()),
            scope,
        })
    }

    pub(super) fn spec(&self) -> Value {
        let algorithms: Vec<&str> = self
            .algorithms
            .iter()
            .map(|algorithm| super::word(&ALGORITHMS, *algorithm))
            .collect();
        let mut spec = json!({
            "issuer": self.issuer,
            "audiences": self.audiences,
            "algorithms": algorithms,
            "keepKeysFor": self.keep_keys_for.to_string(),
            "clockSkew": self.clock_skew.to_string(),
            "claim": self.claim,
        });
        let file = |path: &PathBuf| json!(format!("file:{}", path.display()));
        match &self.keys {
            TokenKeys::File(path) => spec["jwksFile"] = file(path),
            TokenKeys::Url { url, authorities } => {
                spec["jwksUrl"] = json!(url.to_string());
                if let Some(authorities) = authorities {
                    spec["authorities"] = file(authorities);
                }
            }
        }
        if let Some(scope) = &self.scope {
            spec["scope"] = json!(scope);
        }
        spec
    }
}

fn read_keys(spec: &Fields<'_>) -> Option<TokenKeys> {
    let url: Option<HttpsUrl> = spec.parsed("jwksUrl");
    let file = spec.read("jwksFile", read_file);
    let authorities = spec.read("authorities", read_file);
    match (spec.is_given("jwksUrl"), spec.is_given("jwksFile")) {
        (true, true) => spec.problem(
            "jwksFile",
            "is given beside jwksUrl: one of the two is expected",
        ),
        (false, false) => spec.problem("jwksUrl", "is missing: jwksUrl or jwksFile is expected"),
        (false, true) if spec.is_given("authorities") => {
            spec.problem("authorities", "is for jwksUrl, which is not given");
        }
        _ => {}
    }
    match (url, file) {
        (Some(url), None) => Some(TokenKeys::Url { url, authorities }),
        (None, Some(file)) => Some(TokenKeys::File(file)),
        _ => None,
    }
}

fn bounded(
    spec: &Fields<'_>,
    name: &'static str,
    least: &str,
    most: &str,
    seconds: std::ops::RangeInclusive<u64>,
) -> Option<Span> {
    let span: Span = spec.parsed(name)?;
    let range = Span::from_secs(*seconds.start())..=Span::from_secs(*seconds.end());
    if !range.contains(&span) {
        spec.problem(name, format!("{least} to {most} is expected, found {span}"));
    }
    Some(span)
}

/// Names of issuers, audiences, claims and subjects: any text that can be shown.
pub(super) fn read_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > LONGEST || text.contains(char::is_control) {
        return Err(format!("a text of 1 to {LONGEST} octets is expected"));
    }
    Ok(text.to_owned())
}

/// RFC 6749 section 3.3; short, since clients are told it.
fn read_scope(text: &str) -> Result<String, String> {
    let allowed = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if text.is_empty() || text.len() > 128 || !text.bytes().all(allowed) {
        return Err("one scope of at most 128 characters is expected".to_owned());
    }
    Ok(text.to_owned())
}

fn read_file(text: &str) -> Result<PathBuf, String> {
    read_file_reference(text).map_err(|_| "\"file:/path\" is expected".to_owned())
}
