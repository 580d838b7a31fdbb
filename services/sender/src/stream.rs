//! One scheduler, for as long as it is there: attach, obey, attach again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mail::MessageId;
use proto::dispatch::scheduler_item::Kind;
use proto::dispatch::{
    Assignment, DeliveryRef, Draining, Hello, Ping, Pong, Refused, ReturnReason, SchedulerItem,
    SenderFrame, SenderItem, sender_item,
};
use proto::{Attached, Dispatch};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::attempt::{StreamId, returned_item};
use crate::delivery::{Delivery, Tools};
use crate::desk::{Desk, Hold};
use crate::lane::Lane;
use crate::outbox::Outbox;
use crate::slots::{Lease, Slots};

/// Between attempts to attach.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// How often idle connections are looked at.
const SWEEP: Duration = Duration::from_millis(500);

static NEXT_STREAM: AtomicU64 = AtomicU64::new(1);

/// What all streams of this sender share.
pub(crate) struct Sender {
    pub sender_id: String,
    pub credit: u32,
    /// Names of the egress sources that it has; empty = all.
    pub sources: Vec<String>,
    pub desk: Arc<Desk>,
    pub tools: Arc<Tools>,
    /// No more work: streams say so, and close what is idle.
    pub draining: CancellationToken,
}

/// Holds a stream to the scheduler until `end`. While it is not `wanted`, no new one is opened.
pub(crate) async fn hold_stream(
    sender: Arc<Sender>,
    scheduler: Arc<dyn Dispatch>,
    wanted: watch::Receiver<bool>,
    end: CancellationToken,
) {
    let mut pause = FIRST_PAUSE;
    while *wanted.borrow() && !end.is_cancelled() {
        let attached = tokio::select! {
            attached = scheduler.attach() => attached,
            () = end.cancelled() => return,
        };
        match attached {
            Ok(attached) => {
                let since = Instant::now();
                Stream::new(sender.clone()).run(attached, &end).await;
                if since.elapsed() > LONGEST_PAUSE {
                    pause = FIRST_PAUSE;
                }
            }
            Err(error) => tracing::info!(%error, "no dispatch stream"),
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = end.cancelled() => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// An open stream.
struct Stream {
    id: StreamId,
    sender: Arc<Sender>,
    outbox: Arc<Outbox>,
    slots: Arc<Slots>,
    lanes: HashMap<u32, Arc<Lane>>,
}

impl Stream {
    fn new(sender: Arc<Sender>) -> Self {
        let outbox = Arc::new(Outbox::default());
        Self {
            id: StreamId(NEXT_STREAM.fetch_add(1, Ordering::Relaxed)),
            slots: Slots::new(outbox.clone()),
            sender,
            outbox,
            lanes: HashMap::new(),
        }
    }

    async fn run(mut self, attached: Attached, end: &CancellationToken) {
        let Attached { frames, mut events } = attached;
        let sender = self.sender.clone();
        let inventory = sender
            .desk
            .attach(self.id, sender.credit, self.outbox.clone());
        // Without names every source: which ones this host has is not known beforehand, binding tells.
        let hello = Hello {
            sender_id: sender.sender_id.clone(),
            sources: sender.sources.clone(),
            credit: sender.credit,
            inventory,
            answers_pings: true,
        };
        let first = SenderFrame {
            items: vec![SenderItem {
                kind: Some(sender_item::Kind::Hello(hello)),
            }],
        };
        let credit = i64::from(sender.credit);
        sender.tools.metrics.streams.inc();
        sender.tools.metrics.credit.add(credit);
        if frames.send(first).await.is_ok() {
            let mut sweep = tokio::time::interval(SWEEP);
            let mut draining = false;
            let sending = self.outbox.clone();
            let mut sending = std::pin::pin!(sending.send_to(&frames));
            loop {
                tokio::select! {
                    frame = events.recv() => match frame {
                        Some(frame) => {
                            let received = Instant::now();
                            for item in frame.items {
                                self.obey(item, received);
                            }
                        }
                        None => break,
                    },
                    () = &mut sending => break,
                    _ = sweep.tick() => self.slots.expire(Instant::now()).into_iter().for_each(Lease::quit),
                    () = sender.draining.cancelled(), if !draining => {
                        draining = true;
                        self.outbox.push(SenderItem { kind: Some(sender_item::Kind::Draining(Draining {})) });
                        self.slots.end().into_iter().for_each(Lease::quit);
                    }
                    () = end.cancelled() => break,
                }
            }
        }
        sender.tools.metrics.streams.dec();
        sender.tools.metrics.credit.sub(credit);
        sender.desk.detach(self.id);
        // The slots were the stream's.
        self.slots.end().into_iter().for_each(Lease::quit);
    }

    fn obey(&mut self, item: SchedulerItem, received: Instant) {
        let desk = &self.sender.desk;
        match item.kind {
            Some(Kind::Welcome(welcome)) => {
                tracing::info!(scheduler = welcome.scheduler_id, "attached")
            }
            Some(Kind::Lane(lane)) => {
                let id = lane.id;
                match Lane::try_from(lane) {
                    Ok(lane) => drop(self.lanes.insert(id, Arc::new(lane))),
                    Err(problem) => {
                        tracing::error!(problem, "a lane can't be used");
                        self.lanes.remove(&id);
                    }
                }
            }
            Some(Kind::Assignment(assignment)) => self.assignment(assignment),
            Some(Kind::Permit(permit)) => {
                if let Some(delivery) = &permit.delivery {
                    desk.permit(
                        self.id,
                        delivery,
                        Duration::from_millis(permit.valid_ms.into()),
                        received,
                    );
                }
            }
            Some(Kind::ReportStored(stored)) => {
                if let Some(delivery) = &stored.delivery {
                    desk.stored(delivery);
                }
            }
            Some(Kind::CloseSlot(close)) => {
                if let Some(lease) = self.slots.close((close.lane, close.slot)) {
                    lease.quit();
                }
            }
            Some(Kind::Refused(Refused {
                delivery: Some(delivery),
                reason,
            })) => {
                tracing::warn!(message = %message_of(&delivery), reason, "refused by the scheduler");
                desk.refused(&delivery);
            }
            Some(Kind::Owns(owns)) => desk.owns(self.id, &owns.partitions),
            Some(Kind::Ping(Ping { number })) => self.outbox.push(SenderItem {
                kind: Some(sender_item::Kind::Pong(Pong { number })),
            }),
            Some(Kind::Refused(_)) | None => {}
        }
    }

    fn assignment(&mut self, mut assignment: Assignment) {
        let slot = (assignment.lane, assignment.slot);
        let Some(delivery) = assignment.delivery.take() else {
            return;
        };
        let refuse = |delivery: DeliveryRef, detail: &str| {
            self.outbox
                .push(returned_item(delivery, ReturnReason::Unspecified, detail));
            self.slots.not_taken(slot);
        };
        let Some(lane) = self.lanes.get(&assignment.lane).cloned() else {
            return refuse(delivery, "the lane is not known, or can't be used");
        };
        let Ok(message_id) = MessageId::try_from(&delivery.message_id[..]) else {
            return refuse(delivery, "the message id is not valid");
        };
        let desk = &self.sender.desk;
        let Some(ticket) = desk.assign(self.id, &delivery) else {
            return self.slots.not_taken(slot);
        };
        let delivery = Delivery {
            tools: self.sender.tools.clone(),
            slots: self.slots.clone(),
            lane,
            assignment,
            delivery,
            message_id,
            hold: Hold::new(desk.clone(), ticket),
        };
        let task = tokio::spawn(delivery.run());
        desk.started(ticket, task.abort_handle());
    }
}

fn message_of(delivery: &DeliveryRef) -> String {
    MessageId::try_from(&delivery.message_id[..])
        .map_or_else(|_| "unknown".to_owned(), |id| id.to_string())
}
