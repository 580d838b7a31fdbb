//! The task that feeds the machine and passes on what it wants.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use mail::PartitionId;
use proto::admin::{QueueRow, Selected};
use proto::dispatch::{SchedulerFrame, SchedulerItem, SenderFrame};
use proto::operation::Operation;
use queue::{SessionId, Totals, Which};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Duration, Instant};

use crate::clock::Clock;
use crate::errands::Errands;
use crate::lending::slot_request;
use crate::machine::{Constraint, Explained, Input, Machine, Meant, Output, Progress, Selection};
use crate::metrics::Metrics;
use crate::oldest::Oldest;
use crate::partition::Partition;

/// Events taken at once.
const BATCH: usize = 1024;
/// Items per frame to a sender.
const FRAME: usize = 256;
/// Items that wait for a sender which takes nothing: more than a sender that keeps to its credit can be told.
const MOST_ITEMS: usize = 300_000;
/// How often metrics are brought up to date.
const METRICS_EVERY: Duration = Duration::from_secs(1);
/// How long a stop waits for the journals.
const SETTLE: Duration = Duration::from_millis(1500);
/// While there is a lot to do, events are gathered so long: each pass costs a frame to every sender that it concerns.
const GATHER: Duration = Duration::from_millis(1);
/// Events of one pass from which there is a lot to do.
const MANY: usize = 4;
/// Longest sleep, so that a lease that runs out is seen in time.
const LONGEST_SLEEP_MS: u64 = 250;

/// For the core.
pub(crate) enum Event {
    /// For the machine.
    Machine(Input),
    /// A partition is ours, with the tasks that serve it.
    Owned {
        intake: Box<queue::Intake>,
        lease_until_ms: u64,
        partition: Partition,
    },
    /// A sender opened a stream.
    Attach(SessionId, Line),
    /// A sender said something.
    Frame(SessionId, SenderFrame),
    /// A sender's stream broke.
    Detach(SessionId),
    /// Somebody wants to see the queue, or what of it is selected.
    Queue(Option<Selection>, oneshot::Sender<QueueView>),
    /// Somebody wants to know how far operations are.
    Operations(oneshot::Sender<Vec<(Arc<Operation>, Vec<Progress>)>>),
    /// Somebody wants to know why something does not move: which deliveries, and how many at most.
    Why(Which, usize, oneshot::Sender<Vec<Explained>>),
    /// Whether an upload is the content of a live message, or may be: of one that is not read yet.
    HasUpload {
        partition: PartitionId,
        upload_id: String,
        /// Blocks up to this sequence can name it.
        spool_last: u64,
        answer: oneshot::Sender<bool>,
    },
    /// Stop: hand everything over. Answered when the journals are settled.
    Stop(oneshot::Sender<()>),
}

/// What waits.
pub(crate) struct QueueView {
    pub(crate) rows: Vec<QueueRow>,
    pub(crate) totals: Totals,
    /// What is selected; all zero when nothing was.
    pub(crate) selected: Selected,
    pub(crate) automation: Vec<proto::admin::AutomationAct>,
}

/// The way to the core.
pub(crate) type Events = mpsc::Sender<Event>;

pub(crate) struct Core {
    machine: Machine,
    clock: Clock,
    metrics: Metrics,
    oldest: Oldest,
    errands: Errands,
    partitions: HashMap<PartitionId, Partition>,
    sessions: HashMap<SessionId, Outgoing>,
    /// Tells the ownership which partitions were dropped.
    dropped: mpsc::UnboundedSender<(PartitionId, String)>,
}

/// The way to a sender. Its stream ends when this is dropped.
pub(crate) struct Line {
    pub(crate) frames: mpsc::Sender<SchedulerFrame>,
    pub(crate) _open: oneshot::Sender<()>,
}

/// Items on their way to a sender.
struct Outgoing {
    line: Line,
    items: Vec<SchedulerItem>,
}

impl Core {
    pub(crate) fn new(
        machine: Machine,
        clock: Clock,
        errands: Errands,
        dropped: mpsc::UnboundedSender<(PartitionId, String)>,
    ) -> Self {
        Self {
            machine,
            clock,
            metrics: Metrics::new(),
            oldest: Oldest::new(),
            errands,
            partitions: HashMap::new(),
            sessions: HashMap::new(),
            dropped,
        }
    }

    /// Runs until all ways to it are closed.
    pub(crate) async fn run(mut self, mut events: mpsc::Receiver<Event>) {
        let mut batch = Vec::with_capacity(BATCH);
        let mut metrics_due = Instant::now();
        let mut more = false;
        let mut batch_was_large = false;
        let mut stopping: Option<(oneshot::Sender<()>, Instant)> = None;
        loop {
            if batch_was_large {
                tokio::time::sleep(GATHER).await;
            }
            let wake = self.sleep(more);
            tokio::select! {
                count = events.recv_many(&mut batch, BATCH) => if count == 0 { return },
                () = tokio::time::sleep(wake) => {}
            }
            let now_ms = self.clock.now_ms();
            batch_was_large = batch.len() >= MANY;
            for event in batch.drain(..) {
                if let Event::Stop(done) = event {
                    self.machine.drain();
                    stopping = Some((done, Instant::now() + SETTLE));
                } else {
                    self.take(now_ms, event);
                }
            }
            more = self.machine.run(now_ms);
            self.pass_on();
            self.errands.own(self.partitions.len());
            if Instant::now() >= metrics_due {
                self.metrics.update(now_ms, &mut self.machine);
                self.oldest.update(now_ms, &self.machine);
                metrics_due = Instant::now() + METRICS_EVERY;
            }
            let settled = |until: Instant| self.machine.is_settled() || Instant::now() >= until;
            let is_done = stopping.as_ref().is_some_and(|(_, until)| settled(*until));
            if is_done && let Some((done, _)) = stopping.take() {
                // Nobody waits any more: then nobody needs the answer.
                done.send(()).ok();
            }
        }
    }

    fn sleep(&self, more: bool) -> Duration {
        if more {
            return Duration::ZERO;
        }
        let longest = Duration::from_millis(LONGEST_SLEEP_MS);
        self.machine
            .next_wake()
            .map_or(longest, |at_ms| self.clock.until(at_ms).min(longest))
    }

    fn take(&mut self, now_ms: u64, event: Event) {
        match event {
            Event::Machine(input) => self.machine.step(now_ms, input),
            Event::Owned {
                intake,
                lease_until_ms,
                partition,
            } => {
                self.partitions.insert(intake.partition(), partition);
                self.machine.step(
                    now_ms,
                    Input::Owned {
                        intake,
                        lease_until_ms,
                    },
                );
            }
            Event::Attach(session, line) => {
                self.sessions.insert(
                    session,
                    Outgoing {
                        line,
                        items: Vec::new(),
                    },
                );
                self.machine.step(now_ms, Input::Attached(session));
            }
            Event::Frame(session, frame) => {
                for item in frame.items {
                    self.machine.step(now_ms, Input::Sender(session, item));
                }
            }
            Event::Detach(session) => {
                self.sessions.remove(&session);
                self.machine.step(now_ms, Input::Detached(session));
            }
            // Who asked may have gone.
            Event::Queue(selection, answer) => {
                answer.send(self.view(now_ms, selection.as_ref())).ok();
            }
            Event::Operations(answer) => {
                answer.send(self.machine.operations()).ok();
            }
            Event::Why(which, limit, answer) => {
                answer.send(self.machine.why(now_ms, &which, limit)).ok();
            }
            Event::HasUpload {
                partition,
                upload_id,
                spool_last,
                answer,
            } => {
                let intake = self
                    .machine
                    .intakes()
                    .find(|intake| intake.partition() == partition);
                let may_live = |intake: &queue::Intake| {
                    intake.cursor() < spool_last || intake.has_upload(&upload_id)
                };
                answer.send(intake.is_none_or(may_live)).ok();
            }
            Event::Stop(_) => {}
        }
    }

    fn pass_on(&mut self) {
        let outputs: Vec<Output> = self.machine.outputs().collect();
        for output in outputs {
            self.pass_on_one(output);
        }
        for (partition, tasks) in &self.partitions {
            let intake = self
                .machine
                .intakes()
                .find(|intake| intake.partition() == *partition);
            if let Some(intake) = intake {
                tasks.set_state(intake.wants_blocks(), intake.fullness());
            }
        }
        let mut deaf = Vec::new();
        for (session, outgoing) in &mut self.sessions {
            outgoing.flush();
            if outgoing.items.len() > MOST_ITEMS {
                deaf.push(*session);
            }
        }
        for session in deaf {
            tracing::warn!(
                session = session.0,
                "a sender takes nothing and is told more and more: its stream is ended"
            );
            self.sessions.remove(&session);
            self.machine
                .step(self.clock.now_ms(), Input::Detached(session));
        }
    }

    fn pass_on_one(&mut self, output: Output) {
        match output {
            Output::ToSender(session, item) => {
                if let Some(outgoing) = self.sessions.get_mut(&session) {
                    outgoing.items.push(item);
                }
            }
            Output::Journal(partition, effect) => {
                self.with(partition, |tasks| tasks.journal(effect))
            }
            Output::Resolve(domain) => self.errands.resolve(domain),
            Output::AskGrant {
                whose,
                key,
                window,
                word,
            } => {
                let owned: Vec<u32> = self
                    .partitions
                    .keys()
                    .map(|partition| partition.0)
                    .collect();
                self.errands.ask_grant(
                    whose,
                    (key, self.machine.scheduler_id()),
                    window,
                    word,
                    &owned,
                );
            }
            Output::AskSlots {
                whose,
                key,
                limit,
                share,
                have,
                want,
            } => {
                let holder = self.machine.scheduler_id().to_owned();
                let request = slot_request(key, holder, (limit, share), (have, want));
                self.errands.ask_slots(whose, request);
            }
            Output::TellAct { key, act } => self.errands.tell_act(key, act),
            Output::TellStandings { pool, events } => self.errands.tell_standings(pool, events),
            Output::AskTurns { pool, count } => self.errands.ask_turns(pool, count),
            Output::TrimSpool(partition, below) => {
                self.with(partition, |tasks| tasks.trim_spool(below))
            }
            Output::TrimJournal(partition, below) => {
                self.with(partition, |tasks| tasks.trim_journal(below))
            }
            Output::DeleteUpload(partition, id) => {
                self.with(partition, |tasks| tasks.delete_upload(id))
            }
            Output::Copy(partition, copy) => self.with(partition, |tasks| tasks.copy(copy)),
            Output::Dropped(partition, reason) => {
                tracing::warn!(
                    partition = partition.0,
                    reason,
                    "the partition is not owned any more"
                );
                self.partitions.remove(&partition);
                // The ownership ends before the core only when the process stops.
                self.dropped.send((partition, reason)).ok();
            }
            Output::Alarm(partition, what) => tracing::error!(partition = partition.0, "{what}"),
        }
    }

    fn with(&self, partition: PartitionId, act: impl FnOnce(&Partition)) {
        if let Some(tasks) = self.partitions.get(&partition) {
            act(tasks);
        }
    }

    fn view(&self, now_ms: u64, selection: Option<&Selection>) -> QueueView {
        let mut totals = Totals::default();
        let mut selected = Selected::default();
        let mut rows: Vec<QueueRow> = Vec::new();
        for intake in self.machine.intakes() {
            let of_partition = intake.totals();
            totals.waiting += of_partition.waiting;
            totals.in_flight += of_partition.in_flight;
            totals.in_doubt += of_partition.in_doubt;
            totals.dsn_owed += of_partition.dsn_owed;
            totals.quarantined += of_partition.quarantined;
            totals.messages += of_partition.messages;
            let of_partition = match selection {
                None => intake.rows(),
                Some(selection) => self.selected_rows(intake, selection, &mut selected),
            };
            rows.extend(of_partition.into_iter().map(|row| {
                let constraint = row
                    .sample
                    .and_then(|key| self.machine.why_one(now_ms, intake.partition(), key));
                QueueRow {
                    constraint: constraint.as_ref().map(constraint_of),
                    site: self
                        .machine
                        .site_of(&row.domain)
                        .unwrap_or_default()
                        .to_owned(),
                    domain: row.domain,
                    tenant: row.tenant,
                    stream: row.stream,
                    ready: row.ready,
                    deferred: row.deferred,
                    in_flight: row.in_flight,
                    in_doubt: row.in_doubt,
                    held: row.held,
                    next_due_ms: row.next_due_ms.unwrap_or(0),
                    oldest_ms: row.oldest_ms,
                    held_since_ms: row.held_since_ms.unwrap_or(0),
                    held_until_ms: row.held_until_ms.unwrap_or(0),
                    simulated: row.simulated,
                }
            }));
        }
        QueueView {
            rows: merge(rows),
            totals,
            selected,
            automation: self.machine.acts().map(act_of).collect(),
        }
    }
}

impl Core {
    fn selected_rows(
        &self,
        intake: &queue::Intake,
        selection: &Selection,
        selected: &mut Selected,
    ) -> Vec<queue::Row> {
        let mut messages = HashSet::new();
        let mut is_meant = |standing: &queue::Standing<'_>| {
            let recipients = standing.recipients as u64;
            match self.machine.is_meant(standing, selection) {
                Meant::Yes => {
                    selected.recipients += recipients;
                    messages.insert(standing.id);
                    return true;
                }
                Meant::Unresolved => selected.unresolved += recipients,
                Meant::No => {}
            }
            false
        };
        let rows = intake.rows_where(Some(&mut is_meant));
        selected.messages += messages.len() as u64;
        rows
    }
}

fn act_of(act: &egress::Act) -> proto::admin::AutomationAct {
    proto::admin::AutomationAct {
        rule: act.rule.to_string(),
        subject: act.subject.to_string(),
        measure: act.measure.word().to_owned(),
        until_ms: act.until_ms,
        cause: act.cause.to_string(),
    }
}

/// As it is told.
pub(crate) fn constraint_of(constraint: &Constraint) -> proto::admin::Constraint {
    proto::admin::Constraint {
        kind: constraint.kind().to_owned(),
        text: constraint.to_string(),
        until_ms: constraint.until_ms().unwrap_or(0),
    }
}

/// One row for each domain, tenant and stream over all partitions.
fn merge(rows: Vec<QueueRow>) -> Vec<QueueRow> {
    let mut merged: HashMap<(String, String, String), QueueRow> = HashMap::new();
    for row in rows {
        let key = (row.domain.clone(), row.tenant.clone(), row.stream.clone());
        let Some(sum) = merged.get_mut(&key) else {
            merged.insert(key, row);
            continue;
        };
        if sum.ready == 0 && row.ready > 0 {
            sum.constraint = row.constraint;
        }
        sum.ready += row.ready;
        sum.deferred += row.deferred;
        sum.in_flight += row.in_flight;
        sum.in_doubt += row.in_doubt;
        sum.held += row.held;
        sum.simulated += row.simulated;
        for (sum_ms, row_ms) in [
            (&mut sum.oldest_ms, row.oldest_ms),
            (&mut sum.next_due_ms, row.next_due_ms),
            (&mut sum.held_since_ms, row.held_since_ms),
            (&mut sum.held_until_ms, row.held_until_ms),
        ] {
            *sum_ms = match (*sum_ms, row_ms) {
                (0, at) | (at, 0) => at,
                (one, other) => one.min(other),
            };
        }
    }
    merged.into_values().collect()
}

impl Outgoing {
    /// Sends what waits in frames. When the sender is slow to take them they wait here: what is under way is
    /// bounded by its credit.
    fn flush(&mut self) {
        while !self.items.is_empty() {
            let rest = self.items.split_off(self.items.len().min(FRAME));
            let items = std::mem::replace(&mut self.items, rest);
            if let Err(mpsc::error::TrySendError::Full(frame)) =
                self.line.frames.try_send(SchedulerFrame { items })
            {
                let rest = std::mem::replace(&mut self.items, frame.items);
                self.items.extend(rest);
                return;
            }
        }
    }
}

/// Sends an input to the core; when the core is gone nothing matters any more.
pub(crate) async fn tell(events: &Events, input: Input) {
    events.send(Event::Machine(input)).await.ok();
}
