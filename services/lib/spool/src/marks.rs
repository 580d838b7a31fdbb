//! How far work is that one process of several does at a time, beside the positions of readers.
//!
//! Whoever works writes on the condition that nobody else has written: two that both think it is their turn find out with the
//! first step of the second.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::Error;
use crate::bucket::{self, Bucket, Written};
use crate::link::Link;

/// What is written about a work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Changes with every write; 0 = there was none.
    pub revision: u64,
    /// As it was written.
    pub value: Option<Bytes>,
}

/// The marks of all works. A cheap clone.
#[derive(Debug, Clone)]
pub struct Marks {
    bucket: Bucket,
}

impl Marks {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            bucket: Bucket::new(link, "readers"),
        }
    }

    /// What is written about a work; its name has letters, digits, "-" and "_".
    pub async fn get(&self, work: &str) -> Result<Mark, Error> {
        let state = self.bucket.get(&key_of(work)?).await?;
        Ok(Mark {
            revision: state.revision,
            value: state.value,
        })
    }

    /// Writes, when nobody else has since `revision`: the new revision. `None`: somebody has. After an error it may be
    /// written or not.
    pub async fn set(&self, work: &str, value: Bytes, revision: u64) -> Result<Option<u64>, Error> {
        let key = key_of(work)?;
        let put = self
            .bucket
            .put(&key, value, Some(revision), None::<Duration>);
        Ok(match put.await? {
            Written::Done(revision) => Some(revision),
            Written::Conflict => None,
        })
    }
}

/// The second part is never the number of a partition, which those of readers have.
fn key_of(work: &str) -> Result<String, Error> {
    bucket::check_key(work)?;
    Ok(format!("work.of-{work}"))
}

/// Whether another process is at work, by what it writes: no clocks are compared.
#[derive(Debug)]
pub struct AtWork {
    patience: Duration,
    revision: u64,
    /// `None`: we wrote it, or nobody did.
    since: Option<Instant>,
}

impl AtWork {
    /// Who is at work writes more often than once in this time.
    pub fn new(patience: Duration) -> Self {
        Self {
            patience,
            revision: 0,
            since: None,
        }
    }

    /// The mark is this now. Says whether somebody may be at work who wrote it.
    pub fn sees(&mut self, mark: &Mark, now: Instant) -> bool {
        if self.revision != mark.revision {
            (self.revision, self.since) = (mark.revision, Some(now));
        }
        let patience = self.patience;
        self.since
            .is_some_and(|since| now.saturating_duration_since(since) < patience)
    }

    /// We wrote it.
    pub fn wrote(&mut self, revision: u64) {
        (self.revision, self.since) = (revision, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_not_written_for_long_is_not_at_work() {
        let mark = |revision| Mark {
            revision,
            value: None,
        };
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut others = AtWork::new(Duration::from_secs(60));
        assert!(!others.sees(&mark(0), start), "nobody wrote");
        assert!(others.sees(&mark(1), after(0)));
        assert!(others.sees(&mark(1), after(59)));
        assert!(others.sees(&mark(2), after(100)));
        assert!(!others.sees(&mark(2), after(160)));
        others.wrote(3);
        assert!(!others.sees(&mark(3), after(161)), "it is ours");
        assert!(others.sees(&mark(4), after(162)));
    }
}
