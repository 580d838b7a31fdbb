//! The ledger with its surroundings: one lock, the streams' outboxes, the tasks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proto::dispatch::{
    DeliveryRef, InFlight, PartitionEpoch, RecipientReport, Report, ReturnReason, SenderItem,
};
use proto::journal::{Reply, Stage};
use tokio::sync::oneshot;
use tokio::task::AbortHandle;

use crate::attempt::{Denied, Effect, Gone, StreamId, Ticket, Unfinished, returned_item};
use crate::ledger::Ledger;
use crate::metrics::Metrics;
use crate::outbox::Outbox;

/// Answered with the end of the permit, or why there is none.
pub(crate) type PermitAnswer = Result<Instant, Denied>;
type Effects = Vec<Effect<AbortHandle, oneshot::Sender<PermitAnswer>>>;

/// Reports that may wait to be stored before no more assignments are taken.
const MOST_OWED: usize = 65_536;

pub(crate) struct Desk {
    state: Mutex<State>,
    metrics: Arc<Metrics>,
}

struct State {
    ledger: Ledger<AbortHandle, oneshot::Sender<PermitAnswer>>,
    outboxes: HashMap<StreamId, Arc<Outbox>>,
}

impl Desk {
    pub fn new(metrics: Arc<Metrics>) -> Arc<Self> {
        let state = State {
            ledger: Ledger::new(MOST_OWED),
            outboxes: HashMap::new(),
        };
        Arc::new(Self {
            state: Mutex::new(state),
            metrics,
        })
    }

    /// Opens the stream and says what belongs into its Hello.
    pub fn attach(&self, stream: StreamId, credit: u32, outbox: Arc<Outbox>) -> Vec<InFlight> {
        let mut state = self.lock();
        state.outboxes.insert(stream, outbox);
        state.ledger.attach(stream, credit)
    }

    pub fn detach(&self, stream: StreamId) {
        self.with(|ledger, effects| effects.extend(ledger.detach(stream)));
        self.lock().outboxes.remove(&stream);
    }

    pub fn drain(&self) {
        self.with(|ledger, effects| effects.extend(ledger.drain()));
    }

    pub fn owns(&self, stream: StreamId, partitions: &[PartitionEpoch]) {
        self.with(|ledger, effects| effects.extend(ledger.owns(stream, partitions)));
    }

    /// Takes an assignment; one that can't be taken is returned, and `None` is the answer.
    pub fn assign(&self, stream: StreamId, delivery: &DeliveryRef) -> Option<Ticket> {
        let taken = self.with(|ledger, effects| ledger.assign(stream, delivery, effects));
        match taken {
            Ok(ticket) => Some(ticket),
            Err((reason, detail)) => {
                self.metrics.returned(reason);
                self.send(stream, returned_item(delivery.clone(), reason, detail));
                None
            }
        }
    }

    pub fn started(&self, ticket: Ticket, task: AbortHandle) {
        let over = self.with(|ledger, _| ledger.started(ticket, task));
        if let Some(task) = over {
            task.abort();
        }
    }

    fn begin(
        &self,
        ticket: Ticket,
        final_reply: Duration,
    ) -> Result<oneshot::Receiver<PermitAnswer>, Gone> {
        let (sender, receiver) = oneshot::channel();
        self.with(|ledger, effects| ledger.begin(ticket, final_reply, sender, effects))?;
        Ok(receiver)
    }

    fn under_way(&self, ticket: Ticket) {
        self.lock().ledger.under_way(ticket);
    }

    pub fn permit(
        &self,
        stream: StreamId,
        delivery: &DeliveryRef,
        valid: Duration,
        received: Instant,
    ) {
        self.with(|ledger, effects| {
            effects.extend(ledger.permit(stream, delivery, valid, received))
        });
    }

    fn may_send_dot(&self, ticket: Ticket) -> Result<(), Denied> {
        self.lock().ledger.may_send_dot(ticket, Instant::now())
    }

    fn left(&self, ticket: Ticket) {
        self.with(|ledger, effects| effects.extend(ledger.left(ticket)));
    }

    fn finish(&self, ticket: Ticket, report: Report) {
        // When it is gone, somebody else answers for the delivery.
        let _gone = self.with(|ledger, effects| ledger.finish(ticket, report, effects));
    }

    fn give_back(&self, ticket: Ticket, reason: ReturnReason, detail: &str) {
        self.metrics.returned(reason);
        let _gone = self.with(|ledger, effects| ledger.give_back(ticket, reason, detail, effects));
    }

    pub fn stored(&self, delivery: &DeliveryRef) {
        self.lock().ledger.stored(delivery);
    }

    pub fn refused(&self, delivery: &DeliveryRef) {
        self.with(|ledger, effects| effects.extend(ledger.refused(delivery)));
    }

    /// The task ended without a word, by a defect or because it was stopped: says what can be said.
    fn abandoned(&self, ticket: Ticket) {
        let (unfinished, delivery) = {
            let mut state = self.lock();
            (
                state.ledger.unfinished(ticket),
                state.ledger.delivery(ticket),
            )
        };
        let (Some(unfinished), Some(delivery)) = (unfinished, delivery) else {
            return;
        };
        tracing::error!(
            ?unfinished,
            "the task of a delivery ended without an outcome"
        );
        let stage = match unfinished {
            Unfinished::NotBegun => {
                return self.give_back(ticket, ReturnReason::Unspecified, "the sender failed");
            }
            Unfinished::Begun => Stage::Prepare,
            Unfinished::DotSent => Stage::FinalDot,
        };
        let reply = Reply {
            stage: stage.into(),
            text: "the sender failed".into(),
            ..Reply::default()
        };
        let recipient = |ordinal: &u32| RecipientReport {
            ordinal: *ordinal,
            reply: Some(reply.clone()),
            ..RecipientReport::default()
        };
        let report = Report {
            recipients: delivery.ordinals.iter().map(recipient).collect(),
            delivery: Some(delivery),
            dot_sent: unfinished == Unfinished::DotSent,
            finished_at_ms: runtime::now_ms(),
            ..Report::default()
        };
        self.finish(ticket, report);
    }

    /// Deliveries held, and reports not yet stored.
    pub fn open(&self) -> (usize, usize) {
        let state = self.lock();
        (state.ledger.held(), state.ledger.owed())
    }

    pub fn send(&self, stream: StreamId, item: SenderItem) {
        let outbox = self.lock().outboxes.get(&stream).cloned();
        if let Some(outbox) = outbox {
            outbox.push(item);
        }
    }

    /// Runs a step of the ledger and then, without the lock where tasks are concerned, what follows from it.
    fn with<R>(
        &self,
        step: impl FnOnce(&mut Ledger<AbortHandle, oneshot::Sender<PermitAnswer>>, &mut Effects) -> R,
    ) -> R {
        let mut effects = Vec::new();
        let mut stopped = Vec::new();
        let mut state = self.lock();
        let result = step(&mut state.ledger, &mut effects);
        self.metrics.open(state.ledger.held(), state.ledger.owed());
        for effect in effects {
            match effect {
                Effect::Send(stream, item) => {
                    if let Some(outbox) = state.outboxes.get(&stream) {
                        outbox.push(item);
                    }
                }
                Effect::Stop(task) => stopped.push(task),
                // The task may have given up waiting.
                Effect::Answer(waiter, answer) => drop(waiter.send(answer)),
            }
        }
        drop(state);
        for task in stopped {
            task.abort();
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task's hold on its delivery. One that is dropped without a word (a panic) is answered for.
pub(crate) struct Hold {
    desk: Arc<Desk>,
    ticket: Ticket,
    ended: bool,
}

impl Hold {
    pub fn new(desk: Arc<Desk>, ticket: Ticket) -> Self {
        Self {
            desk,
            ticket,
            ended: false,
        }
    }

    /// See [`Ledger::begin`]. What is received says until when the final dot may be sent.
    pub fn begin(&self, final_reply: Duration) -> Result<oneshot::Receiver<PermitAnswer>, Gone> {
        self.desk.begin(self.ticket, final_reply)
    }

    /// See [`Ledger::under_way`].
    pub fn under_way(&self) {
        self.desk.under_way(self.ticket);
    }

    /// See [`Ledger::may_send_dot`].
    pub fn may_send_dot(&self) -> Result<(), Denied> {
        self.desk.may_send_dot(self.ticket)
    }

    /// See [`Ledger::left`].
    pub fn left(&self) {
        self.desk.left(self.ticket);
    }

    pub fn finish(mut self, report: Report) {
        self.ended = true;
        self.desk.finish(self.ticket, report);
    }

    pub fn give_back(mut self, reason: ReturnReason, detail: &str) {
        self.ended = true;
        self.desk.give_back(self.ticket, reason, detail);
    }

    /// The delivery is no longer this task's.
    pub fn forget(mut self) {
        self.ended = true;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if !self.ended {
            self.desk.abandoned(self.ticket);
        }
    }
}
