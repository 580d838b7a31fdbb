//! What becomes of mail that a credential hands on for senders who are not of its tenant.

use mail::Domain;
use serde_json::{Value, json};

use crate::Fields;

/// How mail of foreign senders is forwarded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignSenders {
    /// A sending domain of the tenant: rewritten return paths are of it, and its keys seal.
    pub domain: Domain,
    /// What becomes of foreign return paths.
    pub return_path: ReturnPath,
    /// What becomes of those that don't fit when they are rewritten.
    pub long_return_path: LongReturnPath,
    /// Whether mail of foreign authors gets an ARC set.
    pub seal: bool,
    /// `authserv-id` of the server that hands the mail on: its Authentication-Results become a part of the set.
    pub results_of: Option<Domain>,
}

/// What becomes of a foreign return path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReturnPath {
    /// It is rewritten: bounces come to the tenant's domain, and SPF passes for it.
    #[default]
    Srs,
    /// It stays: bounces go to the sender, and SPF fails nearly everywhere.
    Keep,
}

/// What becomes of a return path whose local part would have more than 64 octets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LongReturnPath {
    /// The message is refused.
    #[default]
    Reject,
    /// The message goes out with the null return path: nobody hears when it bounces.
    Empty,
}

const RETURN_PATH: [(&str, ReturnPath); 2] = [("srs", ReturnPath::Srs), ("keep", ReturnPath::Keep)];

const LONG_RETURN_PATH: [(&str, LongReturnPath); 2] = [
    ("reject", LongReturnPath::Reject),
    ("empty", LongReturnPath::Empty),
];

impl ForeignSenders {
    /// Reads the map `foreignSenders` of `spec`; `None` when it is not there.
    pub(super) fn read(spec: &Fields<'_>) -> Option<Self> {
        if !spec.is_given("foreignSenders") {
            return None;
        }
        let fields = spec.map("foreignSenders");
        let domain = fields.domain("domain");
        if !fields.is_given("domain") {
            fields.problem(
                "domain",
                "is missing: a sending domain of the tenant, of which return paths become and whose keys seal",
            );
        }
        let return_path = fields
            .one_of("returnPath", &RETURN_PATH)
            .unwrap_or_default();
        let long_return_path = fields.one_of("longReturnPath", &LONG_RETURN_PATH);
        if long_return_path.is_some() && return_path == ReturnPath::Keep {
            fields.problem(
                "longReturnPath",
                "has no effect: with `returnPath: keep` nothing becomes longer",
            );
        }
        let seal = fields.boolean("seal").unwrap_or(false);
        let results_of = fields.domain("resultsOf");
        if results_of.is_some() && !seal {
            fields.problem("resultsOf", "has no effect without `seal: true`");
        }
        fields.close();
        Some(Self {
            domain: domain?,
            return_path,
            long_return_path: long_return_path.unwrap_or_default(),
            seal,
            results_of,
        })
    }

    pub(super) fn spec(&self) -> Value {
        let mut spec = json!({
            "domain": self.domain.as_str(),
            "returnPath": super::word(&RETURN_PATH, self.return_path),
            "seal": self.seal,
        });
        if self.long_return_path != LongReturnPath::default() {
            spec["longReturnPath"] = json!(super::word(&LONG_RETURN_PATH, self.long_return_path));
        }
        if let Some(server) = &self.results_of {
            spec["resultsOf"] = json!(server.as_str());
        }
        spec
    }
}
