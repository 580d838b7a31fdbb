//! `staffetta.admin.v1`: what the command-line tool asks.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use config::Snapshot;
use egress::{no_standings, standing_of, step_standings};
use mail::PartitionId;
use prost::Message as _;
use proto::admin::admin_client::AdminClient;
use proto::admin::admin_server::Admin as AdminService;
use proto::admin::why_request::Which as AskedFor;
use proto::admin::{
    ApplyRequest, ApplyResponse, ChangeSuppressionRequest, ChangeSuppressionResponse,
    ConfigurationRequest, ConfigurationResponse, DeadLettersRequest, EventRecord, EventsRequest,
    ExplainedDelivery, JournalRecord, JournalRequest, LiftRequest, LiftResponse, MeasuresRequest,
    MeasuresResponse, OperateRequest, OperateResponse, OperationProgress, OperationState,
    OperationsRequest, OperationsResponse, Partition, PartitionsRequest, PartitionsResponse,
    QueueRequest, QueueResponse, SetMeasureRequest, SetMeasureResponse, SetStandingRequest,
    SetStandingResponse, SetWebhookRequest, SetWebhookResponse, StoredDeadLetter, StoredTranscript,
    SuppressionRequest, SuppressionRows, TenantsRequest, TenantsResponse, TranscriptsRequest,
    WebhooksRequest, WebhooksResponse, WhyRequest, WhyResponse,
};
use proto::event;
use proto::operation::{Lifted, Operation, Selector};
use queue::Which;
use spool::{
    ConfigConflict, JournalError, JournalReader, OperationError, PackReader, StandingsError, Stores,
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::{Stream, wrappers::ReceiverStream};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status};

use crate::core::{Event, Events, constraint_of};
use crate::machine::{Explained, Progress, Selection};
use crate::operate::{checked, checked_selector, short};
use crate::{measures, suppression, tenants, transcripts, webhooks};

/// Rows without a limit given, and at most.
const ROWS: (usize, usize) = (1_000, 10_000);
/// How often a concurrent `apply` is merged with.
const APPLY_TRIES: usize = 5;
/// Journal records read ahead of a client.
const READ_AHEAD: usize = 64;

/// A call with this metadata is for the scheduler at that address, and passed on to it: who reaches only one scheduler, as
/// through `kubectl port-forward`, reaches all by it.
const OWNER: &str = "staffetta-owner";
/// For reaching another scheduler.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Queues are answers of many rows.
const LARGEST_ANSWER: usize = 64 << 20;

pub(crate) struct Admin {
    /// Where others reach this scheduler.
    pub(crate) address: String,
    pub(crate) stores: Stores,
    pub(crate) events: Events,
    pub(crate) partitions: u32,
}

#[tonic::async_trait]
impl AdminService for Admin {
    type JournalStream = Pin<Box<dyn Stream<Item = Result<JournalRecord, Status>> + Send>>;
    type EventsStream = Pin<Box<dyn Stream<Item = Result<EventRecord, Status>> + Send>>;
    type DeadLettersStream = Pin<Box<dyn Stream<Item = Result<StoredDeadLetter, Status>> + Send>>;
    type TranscriptsStream = Pin<Box<dyn Stream<Item = Result<StoredTranscript, Status>> + Send>>;
    type SuppressionStream = Pin<Box<dyn Stream<Item = Result<SuppressionRows, Status>> + Send>>;

    async fn apply(
        &self,
        request: Request<ApplyRequest>,
    ) -> Result<Response<ApplyResponse>, Status> {
        let request = request.into_inner();
        for _ in 0..APPLY_TRIES {
            if let Some(response) = self.try_apply(&request).await? {
                return Ok(Response::new(response));
            }
        }
        Err(Status::aborted(
            "others keep changing the configuration; try again",
        ))
    }

    async fn configuration(
        &self,
        _: Request<ConfigurationRequest>,
    ) -> Result<Response<ConfigurationResponse>, Status> {
        let stored = self.stores.config().load().await.map_err(unavailable)?;
        let Some(stored) = stored else {
            return Ok(Response::new(ConfigurationResponse::default()));
        };
        let json = String::from_utf8(stored.body.to_vec())
            .map_err(|_| Status::data_loss("the stored configuration is not UTF-8"))?;
        Ok(Response::new(ConfigurationResponse {
            version: stored.version,
            hash: stored.hash,
            json,
        }))
    }

    async fn queue(
        &self,
        request: Request<QueueRequest>,
    ) -> Result<Response<QueueResponse>, Status> {
        if let Some(mut owner) = self.other(&request).await? {
            return owner.queue(request.into_inner()).await;
        }
        let (answer, view) = oneshot::channel();
        let stopping = |_| Status::unavailable("the scheduler is stopping");
        let QueueRequest { limit, selector } = request.into_inner();
        let selection = selector
            .filter(|selector| *selector != Selector::default())
            .map(checked_selector)
            .transpose()
            .map_err(Status::invalid_argument)?
            .map(|selector| Selection::new(&selector));
        self.events
            .send(Event::Queue(selection, answer))
            .await
            .map_err(|_| Status::unavailable("the scheduler is stopping"))?;
        let view = view.await.map_err(stopping)?;
        let limit = match limit as usize {
            0 => ROWS.0,
            limit => limit.min(ROWS.1),
        };
        let mut rows = view.rows;
        rows.sort_by_key(|row| {
            std::cmp::Reverse(row.ready + row.deferred + row.in_flight + row.in_doubt + row.held)
        });
        rows.truncate(limit);
        Ok(Response::new(QueueResponse {
            rows,
            waiting: view.totals.waiting,
            in_flight: view.totals.in_flight,
            in_doubt: view.totals.in_doubt,
            dsn_owed: view.totals.dsn_owed,
            quarantined: view.totals.quarantined,
            messages: view.totals.messages,
            automation: view.automation,
            selected: Some(view.selected),
        }))
    }

    async fn operate(
        &self,
        request: Request<OperateRequest>,
    ) -> Result<Response<OperateResponse>, Status> {
        let operation = request.into_inner().operation.unwrap_or_default();
        let config = self.applied().await?;
        let now_ms = runtime::now_ms();
        let operation = checked(operation, now_ms, &config).map_err(Status::invalid_argument)?;
        let store = self.stores.operations();
        let known = store.add(&operation, now_ms).await.map_err(not_stored)?;
        tracing::info!(
            operation = operation.id,
            kind = operation.kind().as_str_name(),
            author = operation.author,
            known = known.is_some(),
            "an operator asked for something"
        );
        Ok(Response::new(OperateResponse {
            known: known.is_some(),
            operation: Some(known.unwrap_or(operation)),
        }))
    }

    async fn lift(&self, request: Request<LiftRequest>) -> Result<Response<LiftResponse>, Status> {
        let LiftRequest {
            ids,
            author,
            reason,
        } = request.into_inner();
        short("author", &author, 128).map_err(Status::invalid_argument)?;
        short("reason", &reason, 512).map_err(Status::invalid_argument)?;
        if author.is_empty() {
            return Err(Status::invalid_argument("author: somebody must have asked"));
        }
        let lifted = Lifted {
            author,
            reason,
            at_ms: runtime::now_ms(),
        };
        let mut operations = Vec::new();
        for id in ids {
            let store = self.stores.operations();
            let lift = |operation: &mut Operation| {
                operation.lifted.get_or_insert_with(|| lifted.clone());
            };
            let stored = store.lift(&id, lift).await.map_err(not_stored)?;
            operations.extend(stored);
        }
        Ok(Response::new(LiftResponse { operations }))
    }

    async fn operations(
        &self,
        request: Request<OperationsRequest>,
    ) -> Result<Response<OperationsResponse>, Status> {
        if let Some(mut owner) = self.other(&request).await? {
            return owner.operations(request.into_inner()).await;
        }
        let (answer, operations) = oneshot::channel();
        self.events
            .send(Event::Operations(answer))
            .await
            .map_err(|_| Status::unavailable("the scheduler is stopping"))?;
        let operations = operations
            .await
            .map_err(|_| Status::unavailable("the scheduler is stopping"))?;
        let state = |(operation, progress): (Arc<Operation>, Vec<Progress>)| OperationState {
            operation: Some((*operation).clone()),
            partitions: progress.into_iter().map(progress_of).collect(),
        };
        Ok(Response::new(OperationsResponse {
            operations: operations.into_iter().map(state).collect(),
        }))
    }

    async fn why(&self, request: Request<WhyRequest>) -> Result<Response<WhyResponse>, Status> {
        if let Some(mut owner) = self.other(&request).await? {
            return owner.why(request.into_inner()).await;
        }
        let request = request.into_inner();
        let limit = match request.limit as usize {
            0 => ROWS.0,
            limit => limit.min(ROWS.1),
        };
        let which = match request.which {
            Some(AskedFor::MessageId(id)) => Which::Message(
                id.parse()
                    .map_err(|_| Status::invalid_argument(format!("{id:?} is no message id")))?,
            ),
            Some(AskedFor::Domain(domain)) => Which::Domain(domain),
            Some(AskedFor::Tenant(tenant)) => Which::Tenant(tenant),
            None => {
                let what = "a message, a domain or a tenant must be named";
                return Err(Status::invalid_argument(what));
            }
        };
        let (answer, explained) = oneshot::channel();
        self.events
            .send(Event::Why(which, limit, answer))
            .await
            .map_err(|_| Status::unavailable("the scheduler is stopping"))?;
        let explained = explained
            .await
            .map_err(|_| Status::unavailable("the scheduler is stopping"))?;
        let delivery = |explained: Explained| ExplainedDelivery {
            partition: explained.partition.0,
            message_id: explained.id.to_string(),
            tenant: explained.tenant,
            stream: explained.stream,
            domain: explained.domain,
            recipients: u32::try_from(explained.recipients).unwrap_or(u32::MAX),
            attempts: explained.attempts,
            constraint: Some(constraint_of(&explained.constraint)),
            elsewhere: explained.elsewhere.unwrap_or_default(),
        };
        Ok(Response::new(WhyResponse {
            deliveries: explained.into_iter().map(delivery).collect(),
        }))
    }

    async fn tenants(
        &self,
        request: Request<TenantsRequest>,
    ) -> Result<Response<TenantsResponse>, Status> {
        let request = request.into_inner();
        let config = self.applied().await?;
        if !request.pool.is_empty() && config.pool(&request.pool).is_none() {
            let what = format!("there is no EgressPool {:?}", request.pool);
            return Err(Status::not_found(what));
        }
        if !request.tenant.is_empty() && config.tenant(&request.tenant).is_none() {
            let what = format!("there is no Tenant {:?}", request.tenant);
            return Err(Status::not_found(what));
        }
        let records = self.stores.standings().load().await.map_err(unavailable)?;
        Ok(Response::new(TenantsResponse {
            pools: tenants::overview(&config, &records, &request),
        }))
    }

    async fn set_standing(
        &self,
        request: Request<SetStandingRequest>,
    ) -> Result<Response<SetStandingResponse>, Status> {
        let request = request.into_inner();
        let config = self.applied().await?;
        let now_ms = runtime::now_ms();
        let event =
            tenants::decided(&request, now_ms, &config).map_err(Status::invalid_argument)?;
        let pool = config.pool(&request.pool);
        let pool = pool.ok_or_else(|| Status::not_found("the pool is gone"))?;
        let store = self.stores.standings();
        let (record, changed) = store
            .change(&no_standings(&pool.name), |record| {
                step_standings(record, pool, now_ms, &event)
            })
            .await
            .map_err(not_changed)?;
        tracing::info!(
            pool = request.pool,
            tenant = request.tenant,
            decision = request.decision().as_str_name(),
            author = request.author,
            changed,
            "an operator decided about a tenant"
        );
        Ok(Response::new(SetStandingResponse {
            standing: standing_of(&record, &request.tenant).cloned(),
            changed,
        }))
    }

    async fn journal(
        &self,
        request: Request<JournalRequest>,
    ) -> Result<Response<Self::JournalStream>, Status> {
        let request = request.into_inner();
        if request.partition >= self.partitions {
            return Err(Status::invalid_argument(format!(
                "there are {} partitions, from 0",
                self.partitions
            )));
        }
        let store = self.stores.journal(PartitionId(request.partition));
        let info = store.info().await.map_err(unavailable)?;
        let from = request.from_sequence.max(info.first);
        let reader = match (request.follow, from <= info.last) {
            (true, _) => Some(store.follow(from)),
            (false, true) => Some(store.replay(from, info.last)),
            (false, false) => None,
        };
        let (records, stream) = mpsc::channel(READ_AHEAD);
        if let Some(reader) = reader {
            tokio::spawn(send_records(reader, request.since_ms, records));
        }
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn events(
        &self,
        request: Request<EventsRequest>,
    ) -> Result<Response<Self::EventsStream>, Status> {
        let request = request.into_inner();
        let store = self.stores.events();
        let (first, last) = store.bounds().await.map_err(no_events)?;
        let from = request.from_sequence.max(first);
        let (records, stream) = mpsc::channel(READ_AHEAD);
        if request.follow || from <= last {
            let reader = store.read(from, request.follow);
            tokio::spawn(send_events(reader, request.since_ms, records));
        }
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn transcripts(
        &self,
        request: Request<TranscriptsRequest>,
    ) -> Result<Response<Self::TranscriptsStream>, Status> {
        let TranscriptsRequest { message_id } = request.into_inner();
        let about = message_id
            .parse()
            .map_err(|_| Status::invalid_argument(format!("{message_id:?} is no message id")))?;
        let stream = transcripts::about(&self.stores.transcripts(), about).await?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn measures(
        &self,
        _: Request<MeasuresRequest>,
    ) -> Result<Response<MeasuresResponse>, Status> {
        let now_ms = runtime::now_ms();
        let known = self.stores.measures().load().await.map_err(unavailable)?;
        let holding = known
            .values()
            .filter(|measure| measure.until_ms == 0 || measure.until_ms > now_ms);
        Ok(Response::new(MeasuresResponse {
            measures: holding.cloned().collect(),
        }))
    }

    async fn set_measure(
        &self,
        request: Request<SetMeasureRequest>,
    ) -> Result<Response<SetMeasureResponse>, Status> {
        let request = request.into_inner();
        let now_ms = runtime::now_ms();
        let config = self.applied().await?;
        let measure =
            measures::wanted(&request, now_ms, &config).map_err(Status::invalid_argument)?;
        let measure = measures::set(&self.stores, &measure, now_ms)
            .await
            .map_err(unavailable)?;
        Ok(Response::new(SetMeasureResponse {
            measure: Some(measure),
        }))
    }

    async fn suppression(
        &self,
        request: Request<SuppressionRequest>,
    ) -> Result<Response<Self::SuppressionStream>, Status> {
        let store = self.stores.suppression();
        let store = store.ok_or_else(suppression::no_stream)?;
        let asked = suppression::Asked::new(request.into_inner(), store.keys())
            .map_err(Status::invalid_argument)?;
        let (rows, stream) = mpsc::channel(READ_AHEAD);
        tokio::spawn(asked.send(store, runtime::now_ms(), rows));
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }

    async fn change_suppression(
        &self,
        request: Request<ChangeSuppressionRequest>,
    ) -> Result<Response<ChangeSuppressionResponse>, Status> {
        let request = request.into_inner();
        let now_ms = runtime::now_ms();
        let store = self.stores.suppression();
        let store = store.ok_or_else(suppression::no_stream)?;
        let config = self.applied().await?;
        let changes = suppression::wanted(&request, store.keys(), &config, now_ms)
            .map_err(Status::invalid_argument)?;
        let (octets, bound) = store.usage().await.map_err(unavailable)?;
        suppression::have_room(&changes, octets, bound)?;
        let events = suppression::events(&changes, &request.author, now_ms);
        let stored = changes.len() as u64;
        let ended = (request.changes.len() as u64).saturating_sub(stored);
        store.store(changes).await.map_err(unavailable)?;
        // They hold; that they are told is no condition.
        if let Err(error) = self.stores.events().store("scheduler", events).await {
            tracing::warn!(%error, "changes of the suppression are not told as events");
        }
        Ok(Response::new(ChangeSuppressionResponse { stored, ended }))
    }

    async fn webhooks(
        &self,
        request: Request<WebhooksRequest>,
    ) -> Result<Response<WebhooksResponse>, Status> {
        let config = self.applied().await?;
        let wanted = request.into_inner().webhook;
        let found = webhooks::overview(&self.stores, self.partitions, &config, &wanted).await?;
        Ok(Response::new(WebhooksResponse { webhooks: found }))
    }

    async fn dead_letters(
        &self,
        request: Request<DeadLettersRequest>,
    ) -> Result<Response<Self::DeadLettersStream>, Status> {
        let webhook = request.into_inner().webhook;
        let stream = webhooks::dead_letters(&self.stores.webhooks(), &webhook).await?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn set_webhook(
        &self,
        request: Request<SetWebhookRequest>,
    ) -> Result<Response<SetWebhookResponse>, Status> {
        let config = self.applied().await?;
        let order = webhooks::set(&self.stores.webhooks(), &config, &request.into_inner()).await?;
        Ok(Response::new(SetWebhookResponse { order: Some(order) }))
    }

    async fn partitions(
        &self,
        _: Request<PartitionsRequest>,
    ) -> Result<Response<PartitionsResponse>, Status> {
        let holders = self.stores.leases().holders().await.map_err(unavailable)?;
        let partition = |id: u32| {
            let holder = holders.iter().find(|holder| holder.partition.0 == id);
            Partition {
                id,
                owner: holder
                    .map(|holder| holder.holder.id.clone())
                    .unwrap_or_default(),
                epoch: holder.map_or(0, |holder| holder.epoch),
                address: holder
                    .map(|holder| holder.holder.address.clone())
                    .unwrap_or_default(),
            }
        };
        let partitions = (0..self.partitions).map(partition).collect();
        Ok(Response::new(PartitionsResponse { partitions }))
    }
}

impl Admin {
    /// The other scheduler that a call is for; `None` when it is for this one. Only owners of partitions are called, not
    /// whatever address a client names.
    async fn other<T>(&self, request: &Request<T>) -> Result<Option<AdminClient<Channel>>, Status> {
        let Some(owner) = request.metadata().get(OWNER) else {
            return Ok(None);
        };
        let owner = owner
            .to_str()
            .map_err(|_| Status::invalid_argument("the owner is no address"))?;
        if owner == self.address {
            return Ok(None);
        }
        let holders = self.stores.leases().holders().await.map_err(unavailable)?;
        if !holders.iter().any(|holder| holder.holder.address == owner) {
            let what = format!("{owner} owns no partition (any more)");
            return Err(Status::failed_precondition(what));
        }
        let unreachable = |error: tonic::transport::Error| {
            Status::unavailable(format!("the scheduler at {owner}: {error}"))
        };
        let channel = Endpoint::from_shared(format!("http://{owner}"))
            .map_err(unreachable)?
            .connect_timeout(CONNECT_TIMEOUT)
            .connect()
            .await
            .map_err(unreachable)?;
        Ok(Some(
            AdminClient::new(channel).max_decoding_message_size(LARGEST_ANSWER),
        ))
    }

    /// The configuration that is applied.
    async fn applied(&self) -> Result<Snapshot, Status> {
        let stored = self.stores.config().load().await.map_err(unavailable)?;
        let Some(stored) = stored else {
            return Ok(Snapshot::default());
        };
        Snapshot::from_json(&stored.body)
            .map_err(|_| Status::failed_precondition("the stored configuration can't be read"))
    }

    /// `None` when somebody else stored a snapshot meanwhile.
    async fn try_apply(&self, request: &ApplyRequest) -> Result<Option<ApplyResponse>, Status> {
        let store = self.stores.config();
        let stored = store.load().await.map_err(unavailable)?;
        let (version, present) = match &stored {
            None => (0, Snapshot::default()),
            Some(stored) => {
                let snapshot = Snapshot::from_json(&stored.body);
                let refused = |problems: Vec<config::Problem>| {
                    Status::failed_precondition(format!(
                        "the stored configuration can't be read: {}",
                        texts(&problems).join("; ")
                    ))
                };
                (stored.version, snapshot.map_err(refused)?)
            }
        };
        let (merged, changes) = match present.merge(&request.documents, request.prune) {
            Ok(merged) => merged,
            Err(problems) => {
                let problems = texts(&problems);
                return Ok(Some(ApplyResponse {
                    problems,
                    ..ApplyResponse::default()
                }));
            }
        };
        let changes = changes.iter().map(ToString::to_string).collect();
        let hash = merged.hash().to_owned();
        let is_same = stored.as_ref().is_some_and(|stored| stored.hash == hash);
        if request.dry_run || is_same {
            return Ok(Some(ApplyResponse {
                problems: Vec::new(),
                version,
                hash,
                changes,
            }));
        }
        match store
            .put(merged.to_json().into_bytes().into(), &hash, version)
            .await
        {
            Ok(version) => {
                tracing::info!(version, hash, "the configuration was changed");
                Ok(Some(ApplyResponse {
                    problems: Vec::new(),
                    version,
                    hash,
                    changes,
                }))
            }
            Err(ConfigConflict::Changed { .. }) => Ok(None),
            Err(error) => Err(Status::unavailable(error.to_string())),
        }
    }
}

fn texts(problems: &[config::Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

fn progress_of(progress: Progress) -> OperationProgress {
    OperationProgress {
        partition: progress.partition.0,
        phase: progress.phase.into(),
        recipients: progress.recipients,
        unresolved: progress.unresolved,
        refused: progress.refused,
        in_flight: progress.in_flight,
    }
}

fn not_stored(error: OperationError) -> Status {
    let text = error.to_string();
    match error {
        OperationError::TooMany { .. } => Status::resource_exhausted(text),
        OperationError::Different(_) => Status::already_exists(text),
        OperationError::Changing(_) => Status::aborted(text),
        OperationError::Store(_) => Status::unavailable(text),
    }
}

fn not_changed(error: StandingsError) -> Status {
    let text = error.to_string();
    match error {
        StandingsError::Full { .. } => Status::resource_exhausted(text),
        StandingsError::Unreadable(_) => Status::failed_precondition(text),
        StandingsError::Changing(_) => Status::aborted(text),
        StandingsError::Store(_) => Status::unavailable(text),
    }
}

pub(crate) fn unavailable(error: spool::Error) -> Status {
    Status::unavailable(error.to_string())
}

/// An installation that is older than the stream has none.
fn no_events(error: spool::Error) -> Status {
    match error {
        spool::Error::MissingStream { .. } => Status::not_found(
            "this installation has no stream EVENTS; `staffetta init` creates it and touches nothing else",
        ),
        error => unavailable(error),
    }
}

/// Sends records of EVENTS until the client goes or the end is reached.
async fn send_events(
    mut reader: PackReader,
    since_ms: u64,
    records: mpsc::Sender<Result<EventRecord, Status>>,
) {
    while let Some(record) = reader.next().await {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                tracing::debug!(%error, "EVENTS can't be read at the moment");
                continue;
            }
        };
        let is_old = since_ms > 0
            && event::Record::decode(&record.bytes[..])
                .is_ok_and(|record| record.written_at_ms < since_ms);
        if is_old {
            continue;
        }
        let item = EventRecord {
            sequence: record.sequence,
            record: record.bytes,
        };
        if records.send(Ok(item)).await.is_err() {
            return;
        }
    }
}

/// Sends records until the client goes or the end is reached.
async fn send_records(
    mut reader: JournalReader,
    since_ms: u64,
    records: mpsc::Sender<Result<JournalRecord, Status>>,
) {
    while let Some(record) = reader.next().await {
        let item = match record {
            Ok(record) => {
                let too_old = since_ms > 0
                    && journal::decode(&record.bytes)
                        .is_ok_and(|decoded| decoded.written_at_ms < since_ms);
                if too_old {
                    continue;
                }
                Ok(JournalRecord {
                    sequence: record.sequence,
                    record: record.bytes,
                })
            }
            Err(JournalError::Unavailable(_)) => {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
                continue;
            }
            Err(error) => Err(Status::data_loss(error.to_string())),
        };
        if records.send(item).await.is_err() {
            return;
        }
    }
}
