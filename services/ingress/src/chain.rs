//! What the signatures of forwarded mail are worth, and what its ARC set says of them (RFC 8617).
//!
//! The claims are read when the header section is complete, and checked when the body is: both forms of a body are hashed
//! while it comes in, the second one only when a signature asks for it.

use std::collections::HashMap;
use std::time::Duration;

use dkim::{
    BodyHashes, Broken, Chain, ChainStatus, Claim, ClaimError, PublicKey, PublicKeyError, claims,
};
use mail::Domain;
use message::fields;
use proto::envelope::{self, Seal};
use tokio::task::JoinSet;

/// Signatures of a message that are checked, from the top; who adds more keeps others waiting.
const MOST_SIGNATURES: usize = 5;
/// Keys that are asked for, for one message: no honest chain has so many sealers. What they would check is not known.
const MOST_KEYS: usize = 12;
/// For the keys of all signatures together: the client waits for its answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Authentication-Results fields that are taken over.
const MOST_REPORTS: usize = 8;
/// Octets of them, together.
const MOST_REPORTED: usize = 4096;
/// A result that is longer does not fit into a line (RFC 5322 section 2.1.1).
const LONGEST_RESULT: usize = 900;

/// What is to be found out about a message that is sealed.
#[derive(Debug)]
pub(crate) struct Checks {
    /// Whose keys seal.
    domain: Domain,
    signatures: Vec<Result<Claim, ClaimError>>,
    chain: Chain,
    /// What the server that hands it on has found.
    reported: Vec<String>,
}

impl Checks {
    /// Of a header section as it came. `results_of`: this server's results are taken over.
    pub(crate) fn of(header: &[u8], domain: &Domain, results_of: Option<&Domain>) -> Self {
        Self {
            domain: domain.clone(),
            signatures: claims(header, MOST_SIGNATURES),
            chain: Chain::of(header),
            reported: results_of.map_or_else(Vec::new, |server| reported(header, server)),
        }
    }

    /// Whether the body must be hashed in simple form, too.
    pub(crate) fn need_simple_body(&self) -> bool {
        self.claims().any(Claim::needs_simple_body)
    }

    fn claims(&self) -> impl Iterator<Item = &Claim> {
        let of_chain = match &self.chain {
            Chain::Whole { message, seals, .. } => Some((&**message, seals)),
            _ => None,
        };
        let of_chain = of_chain
            .into_iter()
            .flat_map(|(message, seals)| std::iter::once(message).chain(seals));
        self.signatures.iter().flatten().chain(of_chain)
    }

    /// Asks for the keys, and says what the set of the message is; `None` where none may be added. `now` is in Unix seconds.
    pub(crate) async fn seal(
        &self,
        resolver: &dns::Resolver,
        bodies: &BodyHashes,
        receiver: &Receiver<'_>,
        now: u64,
    ) -> Option<Seal> {
        if !self.chain.may_grow() {
            return None;
        }
        let keys = Keys::of(self.claims(), resolver).await;
        Some(self.seal_with(&keys, bodies, receiver, now))
    }

    fn seal_with(
        &self,
        keys: &Keys,
        bodies: &BodyHashes,
        receiver: &Receiver<'_>,
        now: u64,
    ) -> Seal {
        let status = self.status(keys, bodies, now);
        let mut results = vec![receiver.hostname.to_owned()];
        if receiver.authenticated {
            results.push("auth=pass".to_owned());
        }
        results.push(match self.chain.sets() {
            0 => format!("arc={}", status.as_str()),
            sets => format!("arc={} (i={sets})", status.as_str()),
        });
        for signature in &self.signatures {
            results.push(match signature {
                Ok(claim) => format!(
                    "dkim={} header.d={} header.s={} header.b={}",
                    keys.judge(claim, bodies, now).as_str(),
                    claim.domain(),
                    claim.selector(),
                    quoted(&claim.signature_prefix()),
                ),
                Err(error) => format!("dkim=neutral ({error})"),
            });
        }
        if self.signatures.is_empty() {
            results.push("dkim=none".to_owned());
        }
        results.extend(self.reported.iter().cloned());
        Seal {
            domain: self.domain.as_str().to_owned(),
            instance: self.chain.sets() + 1,
            status: match status {
                ChainStatus::None => envelope::ChainStatus::None,
                ChainStatus::Pass => envelope::ChainStatus::Pass,
                ChainStatus::Fail => envelope::ChainStatus::Fail,
            }
            .into(),
            results: results.join(";\r\n\t"),
        }
    }

    /// Whatever goes wrong, the chain fails, and for good (RFC 8617 section 5.2.1).
    fn status(&self, keys: &Keys, bodies: &BodyHashes, now: u64) -> ChainStatus {
        let holds = |claim: &Claim| keys.judge(claim, bodies, now) == Verdict::Pass;
        match &self.chain {
            Chain::None => ChainStatus::None,
            Chain::Whole { message, seals, .. } if holds(message) && seals.iter().all(holds) => {
                ChainStatus::Pass
            }
            _ => ChainStatus::Fail,
        }
    }
}

/// Who has the message now.
pub(crate) struct Receiver<'a> {
    /// The `authserv-id` of the results.
    pub(crate) hostname: &'a str,
    /// Its client has logged in.
    pub(crate) authenticated: bool,
}

/// The keys of a message's signatures, by name.
struct Keys {
    keys: HashMap<String, Found>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Found {
    Key(PublicKey),
    /// No record, or none that is a key.
    Not(PublicKeyError),
    /// The DNS gave no answer.
    Unknown,
}

/// What became of a signature, in the words of RFC 8601 section 2.7.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Pass,
    Body,
    Signature,
    Expired,
    NoKey,
    Revoked,
    Unknown,
}

impl Verdict {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Body => "fail (body hash did not verify)",
            Self::Signature => "fail (signature did not verify)",
            Self::Expired => "fail (signature expired)",
            Self::NoKey => "permerror (no key)",
            Self::Revoked => "permerror (key revoked)",
            Self::Unknown => "temperror (no answer for the key)",
        }
    }
}

impl Keys {
    async fn of(claims: impl Iterator<Item = &Claim>, resolver: &dns::Resolver) -> Self {
        let mut names: Vec<String> = Vec::new();
        for name in claims.map(Claim::key_name) {
            if names.len() < MOST_KEYS && !names.contains(&name) {
                names.push(name);
            }
        }
        let mut questions = JoinSet::new();
        for name in names {
            let resolver = resolver.clone();
            questions.spawn(async move {
                let records = resolver.texts(&name).await;
                (name, found(records))
            });
        }
        let mut keys = HashMap::with_capacity(questions.len());
        let answers = async {
            while let Some(answer) = questions.join_next().await {
                keys.extend(answer);
            }
        };
        // What is not there by then is unknown.
        tokio::time::timeout(PATIENCE, answers).await.ok();
        Self { keys }
    }

    fn judge(&self, claim: &Claim, bodies: &BodyHashes, now: u64) -> Verdict {
        match self.keys.get(&claim.key_name()) {
            Some(Found::Key(key)) => match claim.check(key, bodies, now) {
                Ok(()) => Verdict::Pass,
                Err(Broken::Body) => Verdict::Body,
                Err(Broken::Signature) => Verdict::Signature,
                Err(Broken::Expired) => Verdict::Expired,
            },
            Some(Found::Not(PublicKeyError::Invalid)) => Verdict::NoKey,
            Some(Found::Not(PublicKeyError::Revoked)) => Verdict::Revoked,
            Some(Found::Unknown) | None => Verdict::Unknown,
        }
    }
}

/// The first record that is a key.
fn found(records: Result<std::sync::Arc<[Box<str>]>, dns::Error>) -> Found {
    match records {
        Ok(records) => {
            let mut why = PublicKeyError::Invalid;
            for record in records.iter() {
                match PublicKey::parse(record) {
                    Ok(key) => return Found::Key(key),
                    Err(PublicKeyError::Revoked) => why = PublicKeyError::Revoked,
                    Err(PublicKeyError::Invalid) => {}
                }
            }
            Found::Not(why)
        }
        Err(error) if error.is_permanent() => Found::Not(PublicKeyError::Invalid),
        Err(_) => Found::Unknown,
    }
}

/// The beginning of a signature as a value (RFC 8601 section 2.2): base64 has characters that no token may have.
fn quoted(prefix: &str) -> String {
    if prefix.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        prefix.to_owned()
    } else {
        format!("\"{prefix}\"")
    }
}

/// What `server` says in its Authentication-Results (RFC 8601), result by result. What is said of the chain is left out: it is
/// checked here.
fn reported(header: &[u8], server: &Domain) -> Vec<String> {
    let mut reported = Vec::new();
    let mut octets = 0;
    let reports = fields(header)
        .filter(|field| field.is("Authentication-Results"))
        .filter_map(|field| results(field.value, server))
        .take(MOST_REPORTS);
    for result in reports.flatten() {
        octets += result.len();
        let is_readable = result.len() <= LONGEST_RESULT
            && result.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        if octets > MOST_REPORTED {
            break;
        }
        let of_chain = result
            .get(..4)
            .is_some_and(|method| method.eq_ignore_ascii_case("arc="));
        if is_readable && !of_chain && !result.eq_ignore_ascii_case("none") {
            reported.push(result);
        }
    }
    reported
}

/// The results in a field, when it is of `server`.
fn results(value: &[u8], server: &Domain) -> Option<Vec<String>> {
    let text = std::str::from_utf8(value).ok()?;
    let mut parts = parts(text).into_iter();
    // A version may follow the name.
    let name = parts.next()?;
    let name = name.split_ascii_whitespace().next()?;
    name.eq_ignore_ascii_case(server.as_str())
        .then(|| parts.filter(|part| !part.is_empty()).collect())
}

/// The parts between semicolons that stand in neither a comment nor quotes, unfolded.
fn parts(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut depth, mut is_quoted, mut is_escaped) = (0_u32, false, false);
    for character in text.chars() {
        let is_plain = !std::mem::take(&mut is_escaped);
        match character {
            '\\' if is_plain && (is_quoted || depth > 0) => is_escaped = true,
            '"' if is_plain && depth == 0 => is_quoted = !is_quoted,
            '(' if is_plain && !is_quoted => depth += 1,
            ')' if is_plain && !is_quoted => depth = depth.saturating_sub(1),
            ';' if is_plain && !is_quoted && depth == 0 => {
                parts.push(String::new());
                continue;
            }
            _ => {}
        }
        if let Some(part) = parts.last_mut() {
            part.push(character);
        }
    }
    // One that is not closed would take in what comes after it.
    if depth > 0 || is_quoted {
        parts.pop();
    }
    let unfolded = |part: &String| part.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    parts.iter().map(unfolded).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_795_351_205;
    const AUTHOR: &[u8] = b"From: a@sender.example\r\nSubject: s\r\n";

    fn domain(name: &str) -> Domain {
        Domain::parse(name).unwrap()
    }

    fn bodies(body: &[u8]) -> BodyHashes {
        let mut relaxed = dkim::BodyHasher::new();
        relaxed.update(body);
        let mut simple = dkim::SimpleBodyHasher::new();
        simple.update(body);
        BodyHashes {
            relaxed: relaxed.finish(),
            simple: Some(simple.finish()),
        }
    }

    /// A signer and its key where others find it.
    fn signer(name: &str) -> (dkim::Signer, (String, Found)) {
        let key = dkim::Key::from_pem(dkim::generate_ed25519().as_bytes()).unwrap();
        let record = key.dns_record();
        let found = found(Ok(vec![record.into_boxed_str()].into()));
        let signer = dkim::Signer::new(name, "s1", key).unwrap();
        (signer, (format!("s1._domainkey.{name}"), found))
    }

    fn seal_of(header: &[u8], body: &[u8], keys: &[(String, Found)]) -> Seal {
        let keys = Keys {
            keys: keys.iter().cloned().collect(),
        };
        let server = domain("mx.acme.example");
        let checks = Checks::of(header, &domain("acme.example"), Some(&server));
        let receiver = Receiver {
            hostname: "relay.example",
            authenticated: true,
        };
        checks.seal_with(&keys, &bodies(body), &receiver, NOW)
    }

    #[test]
    fn says_what_became_of_each_signature() {
        let (author, key) = signer("sender.example");
        let signature = author.sign(AUTHOR, &bodies(b"x\r\n").relaxed, NOW).unwrap();
        let signed = [signature, AUTHOR.to_vec()].concat();
        let name = key.0.clone();
        for (header, body, found, result) in [
            (
                &signed[..],
                &b"x\r\n"[..],
                key.1.clone(),
                "dkim=pass header.d=sender.example header.s=s1",
            ),
            (
                &signed,
                b"y\r\n",
                key.1.clone(),
                "dkim=fail (body hash did not verify)",
            ),
            (
                &signed,
                b"x\r\n",
                signer("sender.example").1.1,
                "dkim=fail (signature did not verify)",
            ),
            (
                &signed,
                b"x\r\n",
                Found::Not(PublicKeyError::Invalid),
                "dkim=permerror (no key)",
            ),
            (
                &signed,
                b"x\r\n",
                Found::Not(PublicKeyError::Revoked),
                "dkim=permerror (key revoked)",
            ),
            (&signed, b"x\r\n", Found::Unknown, "dkim=temperror"),
            (AUTHOR, b"", Found::Unknown, "dkim=none"),
            (
                b"DKIM-Signature: junk\r\nFrom: a@b.example\r\n",
                b"",
                Found::Unknown,
                "dkim=neutral (malformed signature)",
            ),
        ] {
            let seal = seal_of(header, body, &[(name.clone(), found)]);
            let mut lines = seal.results.split(";\r\n\t");
            assert_eq!(lines.next(), Some("relay.example"));
            assert_eq!(lines.next(), Some("auth=pass"));
            assert_eq!(lines.next(), Some("arc=none"));
            let line = lines.next().unwrap();
            assert!(line.starts_with(result), "{line}");
            assert_eq!(
                (seal.instance, seal.status()),
                (1, envelope::ChainStatus::None)
            );
        }
    }

    #[test]
    fn a_chain_passes_when_all_of_it_does() {
        let (first, key) = signer("first.example");
        let own = dkim::Seal {
            instance: 1,
            status: ChainStatus::None,
            results: "first.example; arc=none",
        };
        let set = first
            .seal(AUTHOR, &bodies(b"x\r\n").relaxed, &own, NOW)
            .unwrap();
        let header = [b"Received: x\r\n".to_vec(), set, AUTHOR.to_vec()].concat();
        let (pass, fail) = (envelope::ChainStatus::Pass, envelope::ChainStatus::Fail);
        for (body, keys, status) in [
            (&b"x\r\n"[..], vec![key.clone()], pass),
            (b"y\r\n", vec![key.clone()], fail),
            (b"x\r\n", vec![(key.0.clone(), Found::Unknown)], fail),
            (b"x\r\n", vec![], fail),
        ] {
            let seal = seal_of(&header, body, &keys);
            assert_eq!((seal.instance, seal.status()), (2, status));
            let said = if status == pass {
                "arc=pass (i=1)"
            } else {
                "arc=fail (i=1)"
            };
            assert!(seal.results.contains(said), "{}", seal.results);
        }
    }

    #[test]
    fn takes_over_what_the_named_server_has_found_and_nothing_else() {
        let header = b"Authentication-Results: mx.acme.example 1;\r\n\tspf=pass (a;b) smtp.mailfrom=a@sender.example;\r\n\
            \tdmarc=pass header.from=\"sender;example\"; arc=pass; x=\xc3\xa9\r\n\
            Authentication-Results: MX.acme.example; none\r\n\
            Authentication-Results: mx.evil.example; spf=pass\r\n\
            Authentication-Results: junk\r\n\
            Authentication-Results: mx.acme.example; iprev=pass; a=(open\r\n";
        assert_eq!(
            reported(header, &domain("mx.acme.example")),
            [
                "spf=pass (a;b) smtp.mailfrom=a@sender.example",
                "dmarc=pass header.from=\"sender;example\"",
                "iprev=pass",
            ]
        );
        let long = format!(
            "Authentication-Results: mx.acme.example; a={}; b=c\r\n",
            "x".repeat(1000)
        );
        assert_eq!(
            reported(long.as_bytes(), &domain("mx.acme.example")),
            ["b=c"]
        );
        let many = "Authentication-Results: mx.acme.example; a=b\r\n".repeat(20);
        assert_eq!(
            reported(many.as_bytes(), &domain("mx.acme.example")).len(),
            8
        );
    }
}
