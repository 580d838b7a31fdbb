//! What receivers made of mail, by provider and pool, for the metrics.

use hashbrown::HashMap;
use queue::{Judged, Verdict};

/// Recipients by result, in the order of [`RESULTS`].
pub type Results = [u64; RESULTS.len()];

/// Names of the results of an attempt.
pub const RESULTS: [&str; 6] = [
    "accepted",
    "transient",
    "host_trouble",
    "permanent",
    "returned",
    "in_doubt",
];

fn position(verdict: Verdict) -> usize {
    match verdict {
        Verdict::Delivered | Verdict::Relayed => 0,
        Verdict::Transient => 1,
        Verdict::HostTrouble => 2,
        Verdict::Permanent => 3,
        Verdict::Returned => 4,
        Verdict::InDoubt => 5,
    }
}

/// Recipients of ended attempts since the last look.
#[derive(Debug, Clone, Default)]
pub struct Outcomes {
    /// By provider and pool; the empty provider stands for destinations that are nobody's.
    by_provider: HashMap<Box<str>, HashMap<Box<str>, Results>>,
}

impl Outcomes {
    /// Counts the recipients of a report.
    pub(super) fn note(&mut self, provider: Option<&str>, pool: &str, judged: &[Judged]) {
        let by_pool = self
            .by_provider
            .entry_ref(provider.unwrap_or_default())
            .or_default();
        let results = by_pool.entry_ref(pool).or_default();
        for recipient in judged {
            results[position(recipient.verdict)] += 1;
        }
    }

    /// Provider, pool and results of each pair of which something was reported.
    pub fn iter(&self) -> impl Iterator<Item = (Option<&str>, &str, &Results)> {
        self.by_provider.iter().flat_map(|(provider, by_pool)| {
            let provider = (!provider.is_empty()).then_some(&**provider);
            by_pool
                .iter()
                .map(move |(pool, results)| (provider, &**pool, results))
        })
    }
}
