//! Takes messages from the stream `INBOUND`, in order, and removes what is handled.

use std::sync::Arc;
use std::time::Duration;

use bounce::{Scopes, TokenKeys};
use bytes::Bytes;
use config::Snapshot;
use mail::{MessageId, PartitionId};
use proto::event::Event;
use proto::event::event::Kind;
use proto::inbound::Record;
use proto::spool::IndexEntry;
use runtime::{Shutdown, TokenKeyring};
use spool::{StoredPack, Stores, SubmitError, decode_inbound};
use telemetry::{IntCounterVec, IntGauge};
use tokio::sync::watch;

use super::attribution::Known;
use super::derived;
use super::forward::{InALoop, forwarded};
use super::judge::{Consequence, Told, judge};
use super::late::Late;
use super::past::{self, Past};
use crate::metrics::Metrics;
use crate::tenants::Tenants;

/// Between two attempts at a store that does not answer.
const RETRY: Duration = Duration::from_secs(1);
/// Between two looks at a record that this release can't read.
const UNREADABLE: Duration = Duration::from_secs(60);

/// Handles what comes back.
pub(crate) struct Handler {
    pub(crate) stores: Stores,
    pub(crate) partitions: u32,
    pub(crate) snapshots: watch::Receiver<Arc<Snapshot>>,
    pub(crate) tokens: Arc<TokenKeyring>,
    pub(crate) tenants: Tenants,
    pub(crate) hostname: String,
    pub(crate) shutdown: Shutdown,
}

/// The stores did not take what follows: it is tried again.
struct Later(String);

/// Tenants and streams, by what tokens say of them, as long as neither configuration nor keys change.
struct Names {
    snapshot: Arc<Snapshot>,
    keys: Arc<TokenKeys>,
    scopes: Scopes,
}

impl Names {
    fn of(snapshot: Arc<Snapshot>, keys: Arc<TokenKeys>) -> Self {
        let pairs = snapshot.tenants().flat_map(|tenant| {
            let streams = tenant.streams.iter();
            streams.map(|stream| (tenant.name.as_str(), stream.name.as_str()))
        });
        Self {
            scopes: Scopes::new(&keys, pairs),
            snapshot: Arc::clone(&snapshot),
            keys,
        }
    }

    fn is_of(&self, snapshot: &Arc<Snapshot>, keys: &Arc<TokenKeys>) -> bool {
        Arc::ptr_eq(&self.snapshot, snapshot) && Arc::ptr_eq(&self.keys, keys)
    }
}

impl Handler {
    /// Until shutdown; lost stores are waited for.
    pub(crate) async fn run(self) {
        let shutdown = self.shutdown.clone();
        tokio::select! {
            () = self.follow() => {}
            // What is broken off is done again, with the same ids.
            () = shutdown.requested() => {}
        }
    }

    async fn follow(&self) {
        let mut snapshots = self.snapshots.clone();
        // Before there is a configuration, no address is one of ours.
        if snapshots.wait_for(|found| !found.is_empty()).await.is_err() {
            return;
        }
        let outcomes = Metrics::came_back();
        let waiting = Metrics::waiting();
        let inbound = self.stores.inbound();
        let mut names: Option<Names> = None;
        let mut records = inbound.follow();
        while let Some(record) = records.next().await {
            let record = match record {
                Ok(record) => record,
                Err(error) => {
                    tracing::warn!(%error, "what came back can't be read at the moment");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            };
            if !self.is_there(record.sequence, &waiting).await {
                // Another process was faster.
                continue;
            }
            self.handle_for_certain(&record, &mut names, &outcomes)
                .await;
            if let Err(error) = inbound.remove_up_to(record.sequence).await {
                // It goes with the next one.
                tracing::warn!(%error, "what is handled can't be removed yet");
            }
            waiting.set(0.max(waiting.get() - 1));
        }
    }

    /// Whether a record is still to be handled; waits for an answer.
    async fn is_there(&self, sequence: u64, waiting: &IntGauge) -> bool {
        loop {
            match self.stores.inbound().bounds().await {
                Ok((first, last)) => {
                    let count = (last + 1).saturating_sub(first);
                    waiting.set(i64::try_from(count).unwrap_or(i64::MAX));
                    return sequence >= first;
                }
                Err(error) => {
                    tracing::warn!(%error, "what came back can't be looked at");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Until it is done.
    async fn handle_for_certain(
        &self,
        stored: &StoredPack,
        names: &mut Option<Names>,
        outcomes: &IntCounterVec,
    ) {
        loop {
            let record = match decode_inbound(&stored.bytes) {
                Ok(record) => record,
                Err(error) => {
                    // Never skipped: a newer release of this service will read it.
                    let sequence = stored.sequence;
                    tracing::error!(sequence, %error, "waiting: a message that came back can't be read");
                    tokio::time::sleep(UNREADABLE).await;
                    continue;
                }
            };
            let (snapshot, keys) = (Arc::clone(&self.snapshots.borrow()), self.tokens.keys());
            if !names.as_ref().is_some_and(|of| of.is_of(&snapshot, &keys)) {
                *names = Some(Names::of(snapshot, keys));
            }
            let Some(of) = names.as_ref() else { continue };
            match self.handle(&record, of, outcomes).await {
                Ok(()) => return,
                Err(Later(why)) => {
                    tracing::warn!(
                        why,
                        "what follows from a message that came back can't be stored yet"
                    );
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn handle(
        &self,
        record: &Record,
        names: &Names,
        outcomes: &IntCounterVec,
    ) -> Result<(), Later> {
        let id: [u8; 16] = record.id.as_ref().try_into().unwrap_or([0; 16]);
        let known = Known {
            snapshot: &names.snapshot,
            keys: &names.keys,
            scopes: &names.scopes,
            came_at: record.received_at_ms / 1000,
        };
        let mut events = Vec::new();
        let mut counted = Vec::new();
        for consequence in judge(record, known) {
            match consequence {
                Consequence::Dropped(reason) => counted.push(reason),
                Consequence::Forwarded { tenant, to } => {
                    let stream = self.tenants.default_stream(&tenant, "");
                    match forwarded(record, &id, &to, &tenant, &stream) {
                        Ok(message) => counted.push(self.spool(message, "forwarded").await?),
                        Err(InALoop) => counted.push("loop"),
                    }
                }
                Consequence::Told(mut told) => {
                    let past = self.past(&told, names).await?;
                    if let Some(past) = past.as_ref().filter(|_| told.recipient().is_empty()) {
                        told.name(&past.address);
                    }
                    if told.recipient().is_empty() {
                        counted.push("unnamed");
                    }
                    counted.push(told.label());
                    counted.extend(self.late(record, &id, &told, past.as_ref()).await?);
                    events.push(Event {
                        at_ms: record.received_at_ms,
                        tenant: told.tenant,
                        kind: Some(told.kind),
                        ..Event::default()
                    });
                }
            }
        }
        if !events.is_empty() {
            let record_id = derived(&id, "events", "");
            let store = self.stores.events();
            let stored = store.store_as(record_id, "feedback", events).await;
            stored.map_err(|error| Later(error.to_string()))?;
        }
        for outcome in counted {
            outcomes.with_label_values(&[outcome]).inc();
        }
        tracing::info!(inbound_id = %MessageId::from_bytes(id), "handled what came back");
        Ok(())
    }

    /// What the journals know, where that is needed: of an address that nothing tells, or of whom to tell.
    async fn past(&self, told: &Told, names: &Names) -> Result<Option<Past>, Later> {
        let has_failed =
            matches!(&told.kind, Kind::OutOfBandBounce(bounce) if bounce.action == "failed");
        let is_of_all = names.keys.is_of(&told.token, "");
        if is_of_all || !has_failed && !told.recipient().is_empty() {
            return Ok(None);
        }
        past::look_up(&self.stores, self.partitions, &names.keys, told.token)
            .await
            .map_err(|error| Later(error.to_string()))
    }

    /// Tells the sender, as far as it asked for it.
    async fn late(
        &self,
        record: &Record,
        id: &[u8; 16],
        told: &Told,
        past: Option<&Past>,
    ) -> Result<Option<&'static str>, Later> {
        let Kind::OutOfBandBounce(bounce) = &told.kind else {
            return Ok(None);
        };
        let Some((past, asked)) = past.and_then(|past| Some((past, past.asked.as_ref()?))) else {
            return Ok(None);
        };
        let stream = self.tenants.default_stream(&told.tenant, &told.stream);
        let late = Late {
            record_id: *id,
            received_at_ms: record.received_at_ms,
            hostname: &self.hostname,
            tenant: &told.tenant,
            stream: &stream,
            message: told.token.message,
            address: &past.address,
            asked,
        };
        if !late.is_wanted(bounce) {
            return Ok(None);
        }
        let stored = self.spool(late.notification(bounce), "late_dsn").await?;
        Ok(Some(stored))
    }

    /// Stores a message of ours; gives what it counts as.
    async fn spool(
        &self,
        (block_id, entry, content): ([u8; 16], IndexEntry, Bytes),
        what: &'static str,
    ) -> Result<&'static str, Later> {
        let number = u32::from_be_bytes([block_id[12], block_id[13], block_id[14], block_id[15]]);
        let partition = PartitionId(number % self.partitions.max(1));
        let stored = self
            .stores
            .publish_block(partition, block_id, vec![(entry, content)], 0);
        match stored.await {
            Ok(_) => Ok(what),
            Err(SubmitError::TooLarge(size)) => {
                tracing::error!(size, "a message is too large to be passed on");
                Ok("too_large")
            }
            Err(error) => Err(Later(error.to_string())),
        }
    }
}
