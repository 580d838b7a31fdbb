//! What mail of foreign senders is forwarded with.

use std::path::{Path, PathBuf};

use config::Fields;
use mail::Span;

/// Credentials may forward mail of foreign senders, where their documents say so. Without this section none may.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarding {
    /// File with the secrets of SRS, one a line; the first signs, all are taken.
    pub secrets: PathBuf,
    /// Characters of the hash in rewritten return paths, 4 to 20.
    pub hash_length: u32,
    /// So long they lead back, in whole days.
    pub max_age: Span,
}

const DAY: Span = Span::from_secs(86_400);
/// The days in an address begin anew after 1,024.
const LONGEST: Span = Span::from_secs(365 * 86_400);

impl Forwarding {
    /// Reads the section; `None` when it is not there.
    pub(super) fn read(ingress: &Fields<'_>, folder: &Path) -> Option<Self> {
        if !ingress.is_given("forwarding") {
            return None;
        }
        let fields = ingress.map("forwarding");
        let secrets = fields.required_text("srsSecrets");
        let hash_length = fields.small_integer("srsHashLength", 4..=20).unwrap_or(4);
        let max_age: Span = fields
            .parsed("srsMaxAge")
            .unwrap_or(Span::from_secs(21 * 86_400));
        if !(DAY..=LONGEST).contains(&max_age)
            || !max_age.as_millis().is_multiple_of(DAY.as_millis())
        {
            fields.problem(
                "srsMaxAge",
                format!("whole days from 1d to 365d are expected, found {max_age}"),
            );
        }
        fields.close();
        Some(Self {
            secrets: folder.join(secrets?),
            hash_length,
            max_age,
        })
    }

    /// Days after the one of which a return path is.
    pub fn max_age_days(&self) -> u64 {
        self.max_age.as_millis() / DAY.as_millis()
    }
}
