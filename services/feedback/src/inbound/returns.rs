//! Takes messages from the stream `INBOUND`, in order, and removes what is handled.

use std::sync::Arc;
use std::time::Duration;

use bounce::{Scopes, TokenKeys};
use bytes::Bytes;
use config::Snapshot;
use mail::MessageId;
use proto::event::Event;
use proto::event::event::Kind;
use proto::inbound::Record;
use proto::spool::IndexEntry;
use runtime::{Shutdown, TokenKeyring};
use spool::{InboundInfo, StoredPack, Stores, decode_inbound};
use telemetry::{IntCounterVec, IntGauge};
use tokio::sync::watch;

use super::attribution::Known;
use super::forward::{InALoop, forwarded};
use super::judge::{Consequence, Told, judge};
use super::late::Late;
use super::past::{Effort, Journals, Memory, Past};
use super::plan::Plan;
use crate::metrics::Metrics;
use crate::tenants::Tenants;

/// Between two attempts at a store that does not answer.
const RETRY: Duration = Duration::from_secs(1);
/// After so long every process has read a new key.
const NEW_KEYS_MS: u64 = 300_000;
/// So long nothing comes before it is looked whether the stream is still the same.
const QUIET: Duration = Duration::from_secs(30);
/// Between two looks at a record that this release can't read.
const UNREADABLE: Duration = Duration::from_secs(60);

/// Handles what comes back.
pub(crate) struct Returns {
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

/// What is kept from one message to the next.
struct Following {
    names: Option<Names>,
    memory: Memory,
    outcomes: IntCounterVec,
    waiting: IntGauge,
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

impl Returns {
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
        let mut following = Following {
            names: None,
            memory: Memory::default(),
            outcomes: Metrics::came_back(),
            waiting: Metrics::waiting(),
        };
        let inbound = self.stores.inbound();
        loop {
            let created_ms = self.look(&following.waiting).await.created_ms;
            let mut records = inbound.follow();
            loop {
                let next = tokio::time::timeout(QUIET, records.next()).await;
                let info = self.look(&following.waiting).await;
                if info.created_ms != created_ms {
                    // What was read is of a stream that is gone, and the new one counts from 1.
                    tracing::warn!("the stream INBOUND was made again: it is read from its begin");
                    break;
                }
                let record = match next {
                    Ok(Some(Ok(record))) => record,
                    Ok(Some(Err(error))) => {
                        tracing::warn!(%error, "what came back can't be read at the moment");
                        tokio::time::sleep(RETRY).await;
                        continue;
                    }
                    Ok(None) => break,
                    Err(_) => continue,
                };
                if record.sequence < info.first {
                    // Another process was faster.
                    continue;
                }
                self.handle_for_certain(&record, &mut following).await;
                self.remove(record.sequence, created_ms, &following.waiting)
                    .await;
            }
        }
    }

    /// What is in the stream; waits for an answer.
    async fn look(&self, waiting: &IntGauge) -> InboundInfo {
        loop {
            match self.stores.inbound().info().await {
                Ok(info) => {
                    waiting.set(i64::try_from(info.count).unwrap_or(i64::MAX));
                    return info;
                }
                Err(error) => {
                    tracing::warn!(%error, "what came back can't be looked at");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Until it is removed, or the stream is another one: what has that sequence there is not handled.
    async fn remove(&self, sequence: u64, created_ms: u64, waiting: &IntGauge) {
        while self.look(waiting).await.created_ms == created_ms {
            match self.stores.inbound().remove(sequence).await {
                Ok(()) => {
                    waiting.set(0.max(waiting.get() - 1));
                    return;
                }
                Err(error) => {
                    tracing::warn!(%error, "what is handled can't be removed yet");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    /// Until it is done.
    async fn handle_for_certain(&self, stored: &StoredPack, following: &mut Following) {
        let mut effort = Effort::default();
        let mut plan: Option<Plan> = None;
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
            let handled = self.handle(&record, following, &mut effort, &mut plan);
            match handled.await {
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

    /// Makes the plan, unless it is made, and carries out what is left of it.
    async fn handle(
        &self,
        record: &Record,
        following: &mut Following,
        effort: &mut Effort,
        plan: &mut Option<Plan>,
    ) -> Result<(), Later> {
        let id: [u8; 16] = record.id.as_ref().try_into().unwrap_or([0; 16]);
        let plan = match plan {
            Some(made) => made,
            none => none.insert(self.plan(record, &id, following, effort).await?),
        };
        let stored = plan.carry_out(&id, &self.stores, self.partitions).await;
        for outcome in stored.map_err(Later)? {
            following.outcomes.with_label_values(&[outcome]).inc();
        }
        tracing::info!(inbound_id = %MessageId::from_bytes(id), "handled what came back");
        Ok(())
    }

    async fn plan(
        &self,
        record: &Record,
        id: &[u8; 16],
        following: &mut Following,
        effort: &mut Effort,
    ) -> Result<Plan, Later> {
        let (snapshot, keys) = (Arc::clone(&self.snapshots.borrow()), self.tokens.keys());
        let is_same = |of: &Names| of.is_of(&snapshot, &keys);
        if !following.names.as_ref().is_some_and(is_same) {
            following.names = None;
        }
        let names = following
            .names
            .get_or_insert_with(|| Names::of(snapshot, keys));
        let known = Known {
            snapshot: &names.snapshot,
            keys: &names.keys,
            scopes: &names.scopes,
            came_at: record.received_at_ms / 1000,
        };
        let age_ms = runtime::now_ms().saturating_sub(record.received_at_ms);
        let mut addresses = record.recipients.iter();
        if age_ms < NEW_KEYS_MS && addresses.any(|address| known.has_unknown_key(address)) {
            // Ingress knew it.
            return Err(Later("a key of `tokens` is not known here yet".to_owned()));
        }
        let mut plan = Plan::default();
        for consequence in judge(record, known) {
            match consequence {
                Consequence::Dropped(reason) => plan.count(reason),
                Consequence::Forwarded { tenant, to } => {
                    let stream = self.tenants.default_stream(&tenant, "");
                    match forwarded(record, id, &to, &tenant, &stream) {
                        Ok(block) => plan.send(block, "forwarded"),
                        Err(InALoop) => plan.count("loop"),
                    }
                }
                Consequence::Told(mut told) => {
                    let past = match is_looked_for(&told, &names.keys) {
                        false => None,
                        true => {
                            let journals = Journals {
                                stores: self.stores.clone(),
                                partitions: self.partitions,
                                keys: Arc::clone(&names.keys),
                            };
                            let memory = &mut following.memory;
                            let found = journals.look_up(told.token, memory, effort).await;
                            found.map_err(|error| Later(error.to_string()))?
                        }
                    };
                    if let Some(past) = past.as_ref().filter(|_| told.recipient().is_empty()) {
                        told.name(&past.address);
                    }
                    if told.recipient().is_empty() {
                        plan.count("unnamed");
                    }
                    plan.count(told.label());
                    if let Some(block) = self.late(record, id, &told, past.as_ref()) {
                        plan.send(block, "late_dsn");
                    }
                    plan.tell(Event {
                        at_ms: record.received_at_ms,
                        tenant: told.tenant,
                        kind: Some(told.kind),
                        ..Event::default()
                    });
                }
            }
        }
        Ok(plan)
    }

    /// What the sender is told, as far as it asked for it.
    fn late(
        &self,
        record: &Record,
        id: &[u8; 16],
        told: &Told,
        past: Option<&Past>,
    ) -> Option<([u8; 16], IndexEntry, Bytes)> {
        let Kind::OutOfBandBounce(bounce) = &told.kind else {
            return None;
        };
        let past = past?;
        let stream = self.tenants.default_stream(&told.tenant, &told.stream);
        let late = Late {
            record_id: *id,
            received_at_ms: record.received_at_ms,
            hostname: &self.hostname,
            tenant: &told.tenant,
            stream: &stream,
            message: told.token.message,
            address: &past.address,
            asked: past.asked.as_ref()?,
        };
        late.is_wanted(bounce).then(|| late.notification(bounce))
    }
}

/// Whether the journals are asked: for an address that nothing tells, and for whom to tell.
fn is_looked_for(told: &Told, keys: &TokenKeys) -> bool {
    let is_missing = match &told.kind {
        Kind::OutOfBandBounce(bounce) => bounce.action == "failed" || bounce.recipient.is_empty(),
        Kind::Complaint(complaint) => complaint.recipient.is_empty(),
        // Told only when it came from the reader.
        _ => false,
    };
    is_missing && !keys.is_of(&told.token, "")
}
