//! What the journals know of a delivery: to whom it went, and what its sender asked to be told.

use std::time::Duration;

use bounce::{Token, TokenKeys};
use mail::PartitionId;
use proto::journal::entry::Kind;
use proto::journal::{Asked, Disposition, Outcome, Record};
use spool::Stores;
use tokio::task::JoinSet;

/// A message is looked for from so long before its id was made: clocks differ.
const BEFORE_MS: u64 = 60_000;
/// So long it is looked for.
const PATIENCE: Duration = Duration::from_secs(20);
/// So much of each journal is read, octets.
const MOST_OCTETS: usize = 128 << 20;

/// What is known.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Past {
    /// The recipient's address, as it was given to us.
    pub(crate) address: String,
    /// What its sender asked to be told, when it was delivered.
    pub(crate) asked: Option<Asked>,
}

/// Looks for the delivery that a token is of. `None`: the journals do not have it (any more), or it took too long.
pub(crate) async fn look_up(
    stores: &Stores,
    partitions: u32,
    keys: &std::sync::Arc<TokenKeys>,
    token: Token,
) -> Result<Option<Past>, spool::Error> {
    let mut searches = JoinSet::new();
    for partition in (0..partitions).map(PartitionId) {
        let (stores, keys) = (stores.clone(), std::sync::Arc::clone(keys));
        searches.spawn(async move { search(&stores, partition, &keys, token).await });
    }
    let all = async {
        let mut best = None;
        while let Some(ended) = searches.join_next().await {
            let found = match ended {
                Ok(found) => found?,
                Err(error) => {
                    tracing::error!(%error, "a search of a journal failed");
                    None
                }
            };
            if found
                .as_ref()
                .is_some_and(|past: &Past| past.asked.is_some())
            {
                return Ok(found);
            }
            best = best.or(found);
        }
        Ok(best)
    };
    match tokio::time::timeout(PATIENCE, all).await {
        Ok(found) => found,
        Err(_) => {
            tracing::warn!(message_id = %token.message, "a message was not found in the journals in time");
            Ok(None)
        }
    }
}

async fn search(
    stores: &Stores,
    partition: PartitionId,
    keys: &TokenKeys,
    token: Token,
) -> Result<Option<Past>, spool::Error> {
    let since_ms = token.message.unix_ms().saturating_sub(BEFORE_MS);
    let mut records = stores.journal(partition).since(since_ms)?;
    let (mut past, mut octets) = (None, 0);
    while let Some(record) = records.next().await {
        let record = record?;
        octets += record.bytes.len();
        // What can't be read is for who follows the journal to complain of.
        if let Ok(decoded) = journal::decode(&record.bytes) {
            let found = of_record(&decoded, keys, &token);
            let is_delivered = found.as_ref().is_some_and(|(_, delivered)| *delivered);
            past = found.map(|(past, _)| past).or(past);
            if is_delivered {
                return Ok(past);
            }
        }
        if octets > MOST_OCTETS {
            return Ok(past);
        }
    }
    Ok(past)
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
