//! Who said what of which message: the client's side and the sinks' side, and whether they agree.

use std::collections::{HashMap, HashSet};
use std::fmt;

use crate::{Outcome, Sink};

/// One message that a client has tried to submit.
#[derive(Debug, Clone)]
pub struct Submission {
    /// Unique in the test.
    pub token: String,
    /// RCPT.
    pub recipients: Vec<String>,
    /// What the relay answered.
    pub outcome: Outcome,
}

/// All submissions of a test.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    submissions: Vec<Submission>,
}

/// How the two sides agree, counted per recipient.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Balance {
    /// Accepted with 250.
    pub accepted: u64,
    /// Of these, at a sink at least once.
    pub delivered: u64,
    /// Of these, named as bounced.
    pub bounced: u64,
    /// Of these, neither: waiting, or lost.
    pub missing: Vec<(String, String)>,
    /// Deliveries beyond the first, of whatever was submitted.
    pub duplicates: u64,
    /// Recipients whose 250 was not seen.
    pub unknown: u64,
    /// Of these, at a sink: they had been stored.
    pub unknown_delivered: u64,
    /// Recipients that were refused with a reply.
    pub refused: u64,
    /// Of these, at a sink nevertheless: half-accepted, which must not be.
    pub refused_delivered: Vec<(String, String)>,
}

impl Ledger {
    /// Writes one down.
    pub fn add(&mut self, submission: Submission) {
        self.submissions.push(submission);
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: Ledger) {
        self.submissions.extend(other.submissions);
    }

    /// All submissions.
    pub fn submissions(&self) -> &[Submission] {
        &self.submissions
    }

    /// Recipients of messages that got their 250.
    pub fn accepted(&self) -> u64 {
        let accepted = self
            .submissions
            .iter()
            .filter(|s| matches!(s.outcome, Outcome::Accepted(_)));
        accepted.map(|s| s.recipients.len() as u64).sum()
    }

    /// Compares with what the sinks have; `bounced` are the (token, recipient) for which a DSN came.
    pub fn balance(&self, sinks: &[&Sink], bounced: &HashSet<(String, String)>) -> Balance {
        let mut deliveries: HashMap<(String, String), u64> = HashMap::new();
        for sink in sinks {
            for (key, count) in sink.deliveries() {
                *deliveries.entry(key).or_insert(0) += u64::from(count);
            }
        }
        let mut balance = Balance::default();
        for submission in &self.submissions {
            for recipient in &submission.recipients {
                let key = (submission.token.clone(), recipient.clone());
                let times = deliveries.get(&key).copied().unwrap_or(0);
                balance.duplicates += times.saturating_sub(1);
                balance.count(&submission.outcome, times > 0, bounced.contains(&key), key);
            }
        }
        balance
    }
}

impl Balance {
    fn count(&mut self, outcome: &Outcome, delivered: bool, bounced: bool, key: (String, String)) {
        match outcome {
            Outcome::Accepted(_) => {
                self.accepted += 1;
                self.delivered += u64::from(delivered);
                self.bounced += u64::from(bounced && !delivered);
                if !delivered && !bounced {
                    self.missing.push(key);
                }
            }
            Outcome::Unknown(_) => {
                self.unknown += 1;
                self.unknown_delivered += u64::from(delivered);
            }
            Outcome::Refused(_) => {
                self.refused += 1;
                if delivered {
                    self.refused_delivered.push(key);
                }
            }
        }
    }
}

impl fmt::Display for Balance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "accepted={} delivered={} bounced={} missing={} duplicates={} unknown={} (delivered {}) refused={} \
             (delivered {})",
            self.accepted,
            self.delivered,
            self.bounced,
            self.missing.len(),
            self.duplicates,
            self.unknown,
            self.unknown_delivered,
            self.refused,
            self.refused_delivered.len()
        )
    }
}
