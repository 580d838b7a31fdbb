//! How far webhooks are, in the bucket `readers`; what was given up, in the stream `DEADLETTERS`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use bytes::Bytes;
use prost::Message;
use proto::webhook::{DeadLetter, Order, Positions, State};
use tokio::sync::watch;

use crate::bucket::{self, Bucket, KeyMap, map_watch};
use crate::consume::Consumption;
use crate::link::Link;
use crate::packs::{PackReader, PackUnreadable};
use crate::{Error, layout};

/// Format of everything here that this release writes.
pub const WEBHOOK_FORMAT: u32 = 1;

/// Reads a record of `DEADLETTERS`.
pub fn decode_dead_letter(bytes: &[u8]) -> Result<DeadLetter, PackUnreadable> {
    let letter =
        DeadLetter::decode(bytes).map_err(|error| PackUnreadable::Malformed(error.to_string()))?;
    match letter.format {
        WEBHOOK_FORMAT => Ok(letter),
        found => Err(PackUnreadable::Format {
            found,
            known: WEBHOOK_FORMAT,
        }),
    }
}

/// Positions, states, orders and what was given up. A cheap clone.
#[derive(Debug, Clone)]
pub struct WebhookStore {
    bucket: Bucket,
    control: Link,
    bulk: Link,
}

impl WebhookStore {
    pub(crate) fn new(control: Link, bulk: Link) -> Self {
        Self {
            bucket: Bucket::new(control.clone(), "readers"),
            control,
            bulk,
        }
    }

    /// How far webhooks are in a source, such as `0` or `events`; empty when nothing is kept.
    pub async fn positions(&self, source: &str) -> Result<Positions, Error> {
        let key = key_of("positions", source)?;
        match self.bucket.get(&key).await?.value {
            Some(value) => read(&key, &value, |positions: &Positions| positions.format),
            None => Ok(Positions::default()),
        }
    }

    /// Keeps how far webhooks are in a source. Each call is a durable write.
    pub async fn set_positions(&self, source: &str, positions: Positions) -> Result<(), Error> {
        let key = key_of("positions", source)?;
        let positions = Positions {
            format: WEBHOOK_FORMAT,
            ..positions
        };
        self.write(&key, &positions).await
    }

    /// What is known of a webhook; nothing when nothing is kept.
    pub async fn state(&self, webhook: &str) -> Result<State, Error> {
        let key = key_of("state", webhook)?;
        match self.bucket.get(&key).await?.value {
            Some(value) => read(&key, &value, |state: &State| state.format),
            None => Ok(State::default()),
        }
    }

    /// Keeps what is known of a webhook.
    pub async fn set_state(&self, state: State) -> Result<(), Error> {
        let key = key_of("state", &state.webhook)?;
        let state = State {
            format: WEBHOOK_FORMAT,
            ..state
        };
        self.write(&key, &state).await
    }

    /// Forgets what is known of a webhook that is no more, and what was wanted of it.
    pub async fn forget(&self, webhook: &str) -> Result<(), Error> {
        for kind in ["state", "order"] {
            self.bucket.delete(&key_of(kind, webhook)?, None).await?;
        }
        Ok(())
    }

    /// What an operator wants of a webhook; nothing when nothing is wanted.
    pub async fn order(&self, webhook: &str) -> Result<Order, Error> {
        let key = key_of("order", webhook)?;
        match self.bucket.get(&key).await?.value {
            Some(value) => read(&key, &value, |order: &Order| order.format),
            None => Ok(Order::default()),
        }
    }

    /// Wants something of a webhook, in place of what was wanted before.
    pub async fn set_order(&self, order: Order) -> Result<(), Error> {
        let key = key_of("order", &order.webhook)?;
        let order = Order {
            format: WEBHOOK_FORMAT,
            ..order
        };
        self.write(&key, &order).await
    }

    /// What is wanted of all webhooks, by name, now and ever after.
    pub fn follow_orders(&self) -> watch::Receiver<Arc<BTreeMap<String, Order>>> {
        let keys = self.bucket.follow("webhook.order.*");
        map_watch(keys, Arc::default(), orders_of)
    }

    /// Stores what was given up; with the same id it is stored once (within 10 minutes).
    pub async fn bury(&self, letter: DeadLetter, id: &str) -> Result<u64, Error> {
        let subject = layout::deadletters_subject(&part_of(&letter.webhook)?);
        let letter = DeadLetter {
            format: WEBHOOK_FORMAT,
            ..letter
        };
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, id);
        let stored =
            self.control
                .publish_connected(subject, headers, Bytes::from(letter.encode_to_vec()));
        stored
            .await
            .map(|acknowledgement| acknowledgement.sequence)
            .map_err(|failure| failure.into_error("storing what a webhook gives up"))
    }

    /// What was given up for a webhook and is still kept, oldest first, to the end as it is when that is reached.
    pub async fn dead_letters(&self, webhook: &str) -> Result<PackReader, Error> {
        self.control.stream_state(layout::DEADLETTERS).await?;
        let consumption = Consumption::after(
            self.bulk.clone(),
            layout::DEADLETTERS.to_owned(),
            layout::deadletters_subject(&part_of(webhook)?),
            0,
        );
        Ok(PackReader::start(consumption, false))
    }

    /// The last sequence of `DEADLETTERS`.
    pub async fn last_dead_letter(&self) -> Result<u64, Error> {
        let info = self.control.stream_state(layout::DEADLETTERS).await?;
        Ok(info.state.last_sequence)
    }

    /// Removes one record of what was given up; one that is gone is no error.
    pub async fn unbury(&self, sequence: u64) -> Result<(), Error> {
        self.control.delete(layout::DEADLETTERS, sequence).await
    }

    async fn write(&self, key: &str, value: &impl Message) -> Result<(), Error> {
        let value = Bytes::from(value.encode_to_vec());
        self.bucket
            .put(key, value, None, None::<Duration>)
            .await
            .map(drop)
    }
}

/// Names of webhooks may hold dots, which part keys, and no underscores.
fn part_of(name: &str) -> Result<String, Error> {
    if name.contains('_') {
        return Err(Error::InvalidKey(name.to_owned()));
    }
    let part = name.replace('.', "_");
    bucket::check_key(&part)?;
    Ok(part)
}

fn key_of(kind: &str, name: &str) -> Result<String, Error> {
    Ok(format!("webhook.{kind}.{}", part_of(name)?))
}

fn read<T: Message + Default>(
    key: &str,
    value: &[u8],
    format_of: impl Fn(&T) -> u32,
) -> Result<T, Error> {
    let damaged = |detail: String| Error::Damaged {
        what: key.to_owned(),
        detail,
    };
    let message = T::decode(value).map_err(|error| damaged(error.to_string()))?;
    match format_of(&message) {
        WEBHOOK_FORMAT => Ok(message),
        found => Err(damaged(format!(
            "format {found}, and only {WEBHOOK_FORMAT} is known"
        ))),
    }
}

/// One of a later release is left out: who knows it acts on it.
fn orders_of(keys: &KeyMap) -> Arc<BTreeMap<String, Order>> {
    let orders = keys
        .values()
        .filter_map(|(_, value)| Order::decode(&**value).ok());
    let known = orders.filter(|order| order.format == WEBHOOK_FORMAT);
    Arc::new(known.map(|order| (order.webhook.clone(), order)).collect())
}
