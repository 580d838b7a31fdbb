//! The exemption from rates: what a scheduler used of its share that is killed before Redis heard of it (ADR 24). Whoever
//! takes its partitions over is heard, and does not know of it. Its share is all that may come on top.

use std::collections::BTreeMap;

use egress::GrantNews;

/// For so long after a word that nobody answered the share may be used, milliseconds.
const BELIEVED_MS: u64 = 1_000;
/// A message is under way for so long until MAIL, milliseconds.
const UNDER_WAY_MS: u64 = 5_000;

/// The last time in which a scheduler could use its share.
#[derive(Debug)]
struct Alone {
    until: u64,
    share: u64,
    per_ms: u64,
    /// Then it was killed, not long after.
    killed_at: Option<u64>,
}

/// By the name of a limit, and scheduler.
#[derive(Debug, Default)]
pub(super) struct Beside(BTreeMap<String, BTreeMap<String, Alone>>);

impl Beside {
    /// An answer, or none.
    pub(super) fn note(
        &mut self,
        now: u64,
        (key, per_ms): (&str, u64),
        scheduler: &str,
        news: GrantNews,
    ) {
        let GrantNews::Share { share, heard, .. } = news else {
            return;
        };
        if heard || share == 0 {
            return;
        }
        let alone = Alone {
            until: now + BELIEVED_MS,
            share,
            per_ms,
            killed_at: None,
        };
        let of_key = self.0.entry(key.to_owned()).or_default();
        of_key.insert(scheduler.to_owned(), alone);
    }

    pub(super) fn killed(&mut self, now: u64, scheduler: &str) {
        let of_scheduler = self.0.values_mut().filter_map(|all| all.get_mut(scheduler));
        for alone in of_scheduler {
            let counts = now < alone.until + alone.per_ms;
            alone.killed_at = counts.then_some(now);
        }
    }

    /// How much may come on top of a limit.
    pub(super) fn shares(&self, key: &str, now: u64) -> usize {
        let all = self.0.get(key).into_iter().flat_map(BTreeMap::values);
        // A dot may follow a window after MAIL.
        let counts = |alone: &&Alone| {
            let over_ms = UNDER_WAY_MS + 2 * alone.per_ms;
            alone.killed_at.is_some_and(|at| now < at + over_ms)
        };
        all.filter(counts).map(|alone| alone.share as usize).sum()
    }
}
