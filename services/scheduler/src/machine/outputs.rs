//! What the machine wants done, and what it counts.

use std::sync::Arc;

use config::EgressPool;
use egress::{StandingEvent, Whose, Window, Word};
use journal::WriterEffect;
use mail::PartitionId;
use proto::dispatch::SchedulerItem;
use proto::journal::{Acted, Disposition};
use queue::{Copy, Counted, SessionId};

use super::outcomes::Outcomes;

/// See the module.
#[derive(Debug)]
pub enum Output {
    /// For a sender.
    ToSender(SessionId, SchedulerItem),
    /// For the journal of a partition.
    Journal(PartitionId, WriterEffect),
    /// Find the site of a domain.
    Resolve(Arc<str>),
    /// Say what is used of a limit, and ask for more of it.
    AskGrant {
        /// Whose.
        whose: Whose,
        /// The name of the limit for all replicas.
        key: String,
        /// Which of its windows.
        window: Window,
        /// What to say.
        word: Word,
    },
    /// Say how many connections there are, and ask for more.
    AskSlots {
        /// Whose.
        whose: Whose,
        /// The name of the limit for all replicas.
        key: String,
        /// Connections that all replicas together may have.
        limit: u32,
        /// How many of them when nobody knows what others have.
        share: u32,
        /// How many there are here.
        have: u32,
        /// How many more are wanted.
        want: u32,
    },
    /// Draw turns of a pool's rotation.
    AskTurns {
        /// The pool.
        pool: Arc<str>,
        /// How many.
        count: u32,
    },
    /// Tell the other schedulers what is done about replies.
    TellAct {
        /// The same for the same rule and subject.
        key: u64,
        /// What.
        act: Acted,
    },
    /// Store what happened to the tenants of a pool, and answer with [`super::Input::StandingsTold`].
    TellStandings {
        /// The pool, as it is configured.
        pool: Arc<EgressPool>,
        /// In order.
        events: Vec<StandingEvent>,
    },
    /// Purge the spool below a sequence.
    TrimSpool(PartitionId, u64),
    /// The journal is not needed below a sequence for recovery.
    TrimJournal(PartitionId, u64),
    /// Delete the chunks of an upload.
    DeleteUpload(PartitionId, Box<str>),
    /// Copy messages forward.
    Copy(PartitionId, Copy),
    /// A partition is not owned any more; with the reason.
    Dropped(PartitionId, String),
    /// Somebody must look.
    Alarm(PartitionId, String),
}

/// Sums since the start.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Recipients by disposition, by the number of the enum's value.
    pub dispositions: [u64; 10],
    /// Those for which the simulator answered.
    pub simulated: [u64; 10],
    /// Messages and blocks quarantined.
    pub quarantined: u64,
    /// Assignments made.
    pub assigned: u64,
    /// Assignments that came back unbegun.
    pub returned: u64,
    /// Begins refused.
    pub refused: u64,
    /// Ready deliveries for which there was no route or no pool.
    pub unroutable: u64,
    /// What was begun about replies: suspended, limited, slowed.
    pub acted: [u64; 3],
    /// What receivers made of mail since the last look.
    pub outcomes: Outcomes,
    /// Times that a rule sent a tenant into quarantine.
    pub convicted: u64,
    /// Milliseconds from acceptance to delivery since the last look.
    pub queue_times: Vec<u64>,
}

/// Queue times kept between two looks.
const QUEUE_TIMES: usize = 10_000;

impl Counts {
    pub(super) fn acted(&mut self, measure: &egress::Measure) {
        let position = match measure {
            egress::Measure::Suspend => 0,
            egress::Measure::Limit { .. } => 1,
            egress::Measure::Slow { .. } => 2,
        };
        self.acted[position] += 1;
    }

    pub(super) fn add(&mut self, counted: Counted) {
        match counted {
            Counted::Recipient(disposition) => count(&mut self.dispositions, disposition),
            Counted::Simulated(disposition) => count(&mut self.simulated, disposition),
            Counted::Quarantined => self.quarantined += 1,
            Counted::QueueTime(ms) if self.queue_times.len() < QUEUE_TIMES => {
                self.queue_times.push(ms)
            }
            Counted::QueueTime(_) => {}
        }
    }

    /// Recipients with a disposition.
    pub fn with(&self, disposition: Disposition) -> u64 {
        number(disposition)
            .and_then(|n| self.dispositions.get(n))
            .copied()
            .unwrap_or(0)
    }

    /// Recipients with a disposition for which the simulator answered.
    pub fn simulated_with(&self, disposition: Disposition) -> u64 {
        number(disposition)
            .and_then(|n| self.simulated.get(n))
            .copied()
            .unwrap_or(0)
    }
}

fn number(disposition: Disposition) -> Option<usize> {
    usize::try_from(i32::from(disposition)).ok()
}

fn count(counts: &mut [u64], disposition: Disposition) {
    if let Some(count) = number(disposition).and_then(|n| counts.get_mut(n)) {
        *count += 1;
    }
}
