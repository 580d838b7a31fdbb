//! What makes return paths, addresses for complaints and links of ours (ADR 37).

use std::path::{Path, PathBuf};

use config::Fields;
use mail::Span;

/// Tokens can be made and are taken. Without this section there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    /// File with the keys, one a line as `NUMBER SECRET`; the first signs, all are taken.
    pub keys: PathBuf,
    /// So long a new one is taken, from when its message may leave, in whole days, 14 to 365: hosts report for days.
    pub lifetime: Span,
}

const DAY: Span = Span::from_secs(86_400);
const SHORTEST: Span = Span::from_secs(14 * 86_400);
const LONGEST: Span = Span::from_secs(365 * 86_400);

impl Tokens {
    /// Reads the section; `None` when it is not there.
    pub(super) fn read(bootstrap: &Fields<'_>, folder: &Path) -> Option<Self> {
        if !bootstrap.is_given("tokens") {
            return None;
        }
        let fields = bootstrap.map("tokens");
        let keys = fields.required_text("keys");
        let lifetime: Span = fields
            .parsed("lifetime")
            .unwrap_or(Span::from_secs(60 * 86_400));
        if !(SHORTEST..=LONGEST).contains(&lifetime)
            || !lifetime.as_millis().is_multiple_of(DAY.as_millis())
        {
            fields.problem(
                "lifetime",
                format!("whole days from 14d to 365d are expected, found {lifetime}"),
            );
        }
        fields.close();
        Some(Self {
            keys: folder.join(keys?),
            lifetime,
        })
    }
}
