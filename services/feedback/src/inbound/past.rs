//! What the journals know of a delivery: to whom it went, and what its sender asked to be told.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bounce::{Token, TokenKeys};
use mail::PartitionId;
use proto::journal::entry::Kind;
use proto::journal::{Asked, Disposition, Outcome, Record};
use spool::Stores;
use tokio::task::JoinSet;

/// A message is looked for from so long before its id was made: clocks differ.
const BEFORE_MS: u64 = 60_000;
/// A message whose id is so much older than a journal's first record is not in it: it was delivered, or given up, before.
const LONGEST_LIFE_MS: u64 = 7 * 86_400_000;
/// So long one is looked for.
const PATIENCE: Duration = Duration::from_secs(20);
/// So long all of one message that came in are looked for.
const BUDGET: Duration = Duration::from_secs(30);
/// So much of each journal is read, octets.
const MOST_OCTETS: usize = 128 << 20;
/// So often a journal that can't be read is tried for one message that came in, while the stores are there.
const TRIES: u32 = 10;
/// What was found, or not, is remembered so long,
const REMEMBERED: Duration = Duration::from_secs(300);
/// and of so many.
const MOST_REMEMBERED: usize = 4_096;

/// What is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Past {
    /// The recipient's address, as it was given to us.
    pub(crate) address: String,
    /// What its sender asked to be told, when it was delivered.
    pub(crate) asked: Option<Asked>,
}

/// What was looked for lately: the same report may come many times.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    found: HashMap<Token, (Instant, Option<Past>)>,
}

impl Memory {
    fn recall(&self, token: &Token, now: Instant) -> Option<Option<Past>> {
        let (at, past) = self.found.get(token)?;
        (now.duration_since(*at) < REMEMBERED).then(|| past.clone())
    }

    fn keep(&mut self, token: Token, past: Option<Past>, now: Instant) {
        if self.found.len() >= MOST_REMEMBERED {
            let is_fresh = |at: Instant| now.duration_since(at) < REMEMBERED;
            self.found.retain(|_, (at, _)| is_fresh(*at));
        }
        if self.found.len() >= MOST_REMEMBERED {
            self.found.clear();
        }
        self.found.insert(token, (now, past));
    }
}

/// What one message that came in may cost.
#[derive(Debug, Default)]
pub(crate) struct Effort {
    spent: Duration,
    tries: u32,
}

/// What a look at the journals came to.
#[derive(Debug, Default)]
struct Searched {
    past: Option<Past>,
    /// A journal could not be read.
    error: Option<spool::Error>,
}

impl Searched {
    fn is_delivered(&self) -> bool {
        self.past.as_ref().is_some_and(|past| past.asked.is_some())
    }
}

/// Where it is looked for.
#[derive(Clone)]
pub(crate) struct Journals {
    pub(crate) stores: Stores,
    pub(crate) partitions: u32,
    pub(crate) keys: Arc<TokenKeys>,
}

impl Journals {
    /// Looks for the delivery that a token is of. `None`: the journals do not have it (any more), or it took too long.
    ///
    /// # Errors
    /// When a journal can't be read at the moment; after some tries it has nothing.
    pub(crate) async fn look_up(
        &self,
        token: Token,
        memory: &mut Memory,
        effort: &mut Effort,
    ) -> Result<Option<Past>, spool::Error> {
        let begun = Instant::now();
        if let Some(known) = memory.recall(&token, begun) {
            return Ok(known);
        }
        let patience = PATIENCE.min(BUDGET.saturating_sub(effort.spent));
        if patience.is_zero() {
            tracing::warn!(message_id = %token.message, "a message was not looked for in the journals: too many of one report");
            return Ok(None);
        }
        let searched = match tokio::time::timeout(patience, self.search_all(token)).await {
            Ok(searched) => searched,
            Err(_) => {
                tracing::warn!(message_id = %token.message, "a message was not found in the journals in time");
                Searched::default()
            }
        };
        if let Some(error) = searched.error {
            // While all stores are away, nothing is said of one of them.
            effort.tries += u32::from(self.stores.is_connected());
            if effort.tries < TRIES {
                return Err(error);
            }
            tracing::error!(message_id = %token.message, %error, "a journal can't be read, and is taken as one without the message");
        }
        effort.spent += begun.elapsed();
        memory.keep(token, searched.past.clone(), Instant::now());
        Ok(searched.past)
    }

    async fn search_all(&self, token: Token) -> Searched {
        let mut searches = JoinSet::new();
        for partition in (0..self.partitions).map(PartitionId) {
            let journals = self.clone();
            searches.spawn(async move { journals.search(partition, token).await });
        }
        let mut best = Searched::default();
        while let Some(ended) = searches.join_next().await {
            let searched = match ended {
                Ok(searched) => searched,
                Err(error) => {
                    tracing::error!(%error, "a search of a journal failed");
                    continue;
                }
            };
            if searched.is_delivered() {
                return Searched {
                    error: None,
                    ..searched
                };
            }
            best.past = best.past.or(searched.past);
            best.error = best.error.or(searched.error);
        }
        best
    }

    async fn search(&self, partition: PartitionId, token: Token) -> Searched {
        let mut past = None;
        let error = self.search_into(partition, token, &mut past).await.err();
        Searched { past, error }
    }

    async fn search_into(
        &self,
        partition: PartitionId,
        token: Token,
        past: &mut Option<Past>,
    ) -> Result<(), spool::Error> {
        let journal = self.stores.journal(partition);
        let info = journal.info().await?;
        let made_ms = token.message.unix_ms();
        if info.first > info.last || is_before(made_ms, info.first_at_ms) {
            return Ok(());
        }
        let mut records = journal.since(made_ms.saturating_sub(BEFORE_MS))?;
        let mut octets = 0;
        while let Some(record) = records.next().await {
            let record = record?;
            octets += record.bytes.len();
            // What can't be read is for who follows the journal to complain of.
            if let Ok(decoded) = journal::decode(&record.bytes) {
                let found = of_record(&decoded, &self.keys, &token);
                let is_delivered = found.as_ref().is_some_and(|(_, delivered)| *delivered);
                if let Some((found, _)) = found {
                    *past = Some(found);
                }
                if is_delivered {
                    return Ok(());
                }
            }
            if octets > MOST_OCTETS {
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Whether a journal whose first record is of that time has nothing more of a message.
fn is_before(made_ms: u64, first_at_ms: u64) -> bool {
    made_ms.saturating_add(LONGEST_LIFE_MS) < first_at_ms
}

/// The last outcome of the recipient in a record, and whether it was delivered.
fn of_record(record: &Record, keys: &TokenKeys, token: &Token) -> Option<(Past, bool)> {
    let mut entries = record.entries.iter().rev();
    entries.find_map(|entry| match &entry.kind {
        Some(Kind::Outcome(outcome)) => of_outcome(outcome, keys, token),
        _ => None,
    })
}

fn of_outcome(outcome: &Outcome, keys: &TokenKeys, token: &Token) -> Option<(Past, bool)> {
    if outcome.message_id[..] != token.message.as_bytes()[..] {
        return None;
    }
    let mut recipients = outcome.recipients.iter();
    let recipient = recipients.find(|recipient| keys.is_of(token, &recipient.address))?;
    let past = Past {
        address: recipient.address.clone(),
        asked: outcome.asked.clone(),
    };
    Some((past, recipient.disposition() == Disposition::Delivered))
}

#[cfg(test)]
mod tests {
    use bounce::{Purpose, Subject};
    use mail::{Domain, MessageId};
    use proto::journal::{Entry, RecipientOutcome};

    use super::*;

    #[test]
    fn what_was_looked_for_is_remembered_for_a_while_and_not_without_bound() {
        let keys = TokenKeys::parse("1 a secret of sixteen octets").unwrap();
        let domain = Domain::parse("b.example").unwrap();
        let token = |number: u128| {
            let subject = Subject {
                tenant: "acme",
                stream: "bulk",
                message: MessageId::from_bytes(number.to_be_bytes()),
                recipient: "b@d.example",
            };
            let text = keys.mint(Purpose::Bounce, &subject, &domain, 1_800_000_000);
            keys.read(Purpose::Bounce, &text.unwrap(), &domain, 1_800_000_000)
                .unwrap()
        };
        let mut memory = Memory::default();
        let now = Instant::now();
        assert_eq!(memory.recall(&token(1), now), None);
        memory.keep(token(1), None, now);
        assert_eq!(memory.recall(&token(1), now), Some(None));
        assert_eq!(memory.recall(&token(1), now + REMEMBERED), None);
        for number in 0..=MOST_REMEMBERED as u128 {
            memory.keep(token(number), Some(Past::default()), now + REMEMBERED);
        }
        assert!(memory.found.len() <= MOST_REMEMBERED);
    }

    #[test]
    fn what_is_older_than_a_journal_is_not_looked_for() {
        let first = 1_800_000_000_000;
        assert!(!is_before(first - LONGEST_LIFE_MS, first));
        assert!(is_before(first - LONGEST_LIFE_MS - 1, first));
    }

    #[test]
    fn finds_the_recipient_of_the_token_among_others() {
        let keys = TokenKeys::parse("1 a secret of sixteen octets").unwrap();
        let domain = Domain::parse("b.example").unwrap();
        let message = MessageId::now();
        let subject = Subject {
            tenant: "acme",
            stream: "bulk",
            message,
            recipient: "b@d.example",
        };
        let text = keys.mint(Purpose::Bounce, &subject, &domain, 1_800_000_000);
        let token = keys
            .read(Purpose::Bounce, &text.unwrap(), &domain, 1_800_000_000)
            .unwrap();
        let outcome = |id: MessageId, address: &str, disposition: Disposition| Entry {
            kind: Some(Kind::Outcome(Outcome {
                message_id: bytes::Bytes::copy_from_slice(id.as_bytes()),
                recipients: vec![RecipientOutcome {
                    address: address.to_owned(),
                    disposition: disposition.into(),
                    ..RecipientOutcome::default()
                }],
                ..Outcome::default()
            })),
        };
        let record = |entries| Record {
            entries,
            ..Record::default()
        };
        let other = MessageId::from_bytes([1; 16]);
        let found = of_record(
            &record(vec![
                outcome(message, "a@d.example", Disposition::Delivered),
                outcome(message, "B@d.example", Disposition::Deferred),
                outcome(message, "B@d.example", Disposition::Delivered),
                outcome(other, "b@d.example", Disposition::Delivered),
            ]),
            &keys,
            &token,
        );
        let (past, is_delivered) = found.unwrap();
        assert_eq!((past.address.as_str(), is_delivered), ("B@d.example", true));
        let strange = record(vec![outcome(other, "b@d.example", Disposition::Delivered)]);
        assert_eq!(of_record(&strange, &keys, &token), None);
    }
}
