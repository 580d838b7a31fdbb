//! What this sender holds, may finish and still owes: the sender's side of begin and permit.
//!
//! Pure: no clock, no tasks, no sockets. The rules that keep a message from going out twice are here:
//!
//! - An assignment or a permit of an older epoch than the newest seen for its partition is refused.
//! - A delivery that is begun waits for the permit of exactly its attempt; when the stream that assigned
//!   it breaks, or the partition goes to another owner, the wait ends with a denial.
//! - Leave to send the final dot is given only while the permit lasts and its epoch is the newest.
//! - A report is kept until a scheduler says that it is stored, and sent again to every new owner.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use proto::dispatch::{
    Begin, DeliveryRef, InFlight, Left, PartitionEpoch, Report, ReturnReason, SenderItem,
    sender_item,
};

use crate::attempt::{Denied, Effect, Gone, Key, StreamId, Ticket, Unfinished, returned_item};

#[derive(Debug)]
enum Phase<W> {
    Preparing,
    Begun(W),
    Permitted { until: Instant },
    Denied(Denied),
    DotSent,
}

struct Held<T, W> {
    serial: u64,
    stream: StreamId,
    delivery: DeliveryRef,
    task: Option<T>,
    /// MAIL is out, or about to be.
    under_way: bool,
    phase: Phase<W>,
}

impl<T, W> Held<T, W> {
    /// What is to be said of a message of which the begin was not reported.
    fn left(&self) -> Option<Effect<T, W>> {
        self.under_way
            .then(|| send_left(self.stream, self.delivery.clone()))
    }
}

struct Owed {
    report: Report,
    /// The owner that it was last sent to, by epoch and stream: a scheduler that takes the partition anew has lost
    /// what it had not stored.
    sent_to: Option<(u64, StreamId)>,
}

struct Stream {
    credit: usize,
    held: usize,
}

/// Everything that this sender holds and owes. `T` names a task, `W` what waits for a permit.
pub(crate) struct Ledger<T, W> {
    serial: u64,
    draining: bool,
    most_owed: usize,
    streams: HashMap<StreamId, Stream>,
    newest: HashMap<u32, u64>,
    owners: HashMap<u32, (u64, StreamId)>,
    held: HashMap<Key, Held<T, W>>,
    owed: HashMap<Key, Owed>,
}

impl<T, W> Ledger<T, W> {
    /// `most_owed`: no assignments are taken while more reports than this are not stored.
    pub fn new(most_owed: usize) -> Self {
        Self {
            serial: 0,
            draining: false,
            most_owed,
            streams: HashMap::new(),
            newest: HashMap::new(),
            owners: HashMap::new(),
            held: HashMap::new(),
            owed: HashMap::new(),
        }
    }

    /// A stream is open; what is in flight from earlier ones goes into its Hello.
    pub fn attach(&mut self, stream: StreamId, credit: u32) -> Vec<InFlight> {
        self.streams.insert(
            stream,
            Stream {
                credit: credit as usize,
                held: 0,
            },
        );
        let in_flight = |held: &Held<T, W>| InFlight {
            delivery: Some(held.delivery.clone()),
            begun: !matches!(held.phase, Phase::Preparing),
        };
        self.held.values().map(in_flight).collect()
    }

    /// The stream broke. What it assigned and is not begun is dropped (its lanes and slots are gone with
    /// it, the scheduler assigns it again), what waits for its permit is denied.
    pub fn detach(&mut self, stream: StreamId) -> Vec<Effect<T, W>> {
        self.streams.remove(&stream);
        self.owners.retain(|_, (_, owner)| *owner != stream);
        let mut effects = Vec::new();
        self.end_where(
            &mut effects,
            |held| held.stream == stream,
            Denied::StreamBroken,
            None,
        );
        effects
    }

    /// No more assignments; what is not begun is given back.
    pub fn drain(&mut self) -> Vec<Effect<T, W>> {
        self.draining = true;
        let mut effects = Vec::new();
        let preparing: Vec<Key> = self
            .held
            .iter()
            .filter(|(_, held)| matches!(held.phase, Phase::Preparing))
            .map(|(key, _)| *key)
            .collect();
        for key in preparing {
            self.give_up_preparing(key, Some(ReturnReason::Draining), &mut effects);
        }
        effects
    }

    /// The partitions of the scheduler at the other end, all of them.
    pub fn owns(&mut self, stream: StreamId, partitions: &[PartitionEpoch]) -> Vec<Effect<T, W>> {
        let mut effects = Vec::new();
        self.owners.retain(|partition, (_, owner)| {
            *owner != stream || partitions.iter().any(|owned| owned.partition == *partition)
        });
        for owned in partitions {
            self.learn(stream, owned.partition, owned.epoch, &mut effects);
        }
        let lost = |held: &Held<T, W>| {
            held.stream == stream
                && !partitions
                    .iter()
                    .any(|owned| owned.partition == held.delivery.partition)
        };
        self.end_where(
            &mut effects,
            lost,
            Denied::StaleEpoch,
            Some(ReturnReason::StaleEpoch),
        );
        effects
    }

    /// Takes an assignment, or says why not. [`Self::started`] has to follow.
    pub fn assign(
        &mut self,
        stream: StreamId,
        delivery: &DeliveryRef,
        effects: &mut Vec<Effect<T, W>>,
    ) -> Result<Ticket, (ReturnReason, &'static str)> {
        let key = Key::of(delivery).ok_or((
            ReturnReason::Unspecified,
            "the assignment names no message or no recipient",
        ))?;
        if self
            .newest
            .get(&key.partition)
            .is_some_and(|newest| key.epoch < *newest)
        {
            return Err((
                ReturnReason::StaleEpoch,
                "a newer epoch of the partition is known",
            ));
        }
        if self.draining {
            return Err((ReturnReason::Draining, "the sender is stopping"));
        }
        self.learn(stream, key.partition, key.epoch, effects);
        if self.held.contains_key(&key) || self.owed.contains_key(&key) {
            return Err((
                ReturnReason::Unspecified,
                "this attempt is held or reported already",
            ));
        }
        let Some(open) = self.streams.get_mut(&stream) else {
            return Err((ReturnReason::Unspecified, "the stream is closed"));
        };
        if open.held >= open.credit {
            return Err((ReturnReason::Unspecified, "more assignments than credit"));
        }
        if self.owed.len() >= self.most_owed {
            return Err((
                ReturnReason::Unspecified,
                "too many reports are not stored yet",
            ));
        }
        open.held += 1;
        self.serial += 1;
        let held = Held {
            serial: self.serial,
            stream,
            delivery: delivery.clone(),
            task: None,
            under_way: false,
            phase: Phase::Preparing,
        };
        self.held.insert(key, held);
        Ok(Ticket {
            key,
            serial: self.serial,
        })
    }

    /// The task of an assignment; it comes back when the assignment is over already and the task is to be ended.
    pub fn started(&mut self, ticket: Ticket, task: T) -> Option<T> {
        match self.of(ticket) {
            Some(held) => {
                held.task = Some(task);
                None
            }
            None => Some(task),
        }
    }

    /// MAIL FROM is about to be sent, and begin will be reported later: over before that, the message counts as sent.
    pub fn under_way(&mut self, ticket: Ticket) {
        if let Some(held) = self.of(ticket) {
            held.under_way = true;
        }
    }

    /// MAIL FROM is about to be sent, or only the final dot is left. The scheduler hears how long the final reply will be waited for: whether the
    /// attempt can still have an outcome is judged by that, whatever the lane says later.
    pub fn begin(
        &mut self,
        ticket: Ticket,
        final_reply: Duration,
        waiter: W,
        effects: &mut Vec<Effect<T, W>>,
    ) -> Result<(), Gone> {
        let held = self.of(ticket).ok_or(Gone)?;
        if !matches!(held.phase, Phase::Preparing) {
            return Err(Gone);
        }
        held.phase = Phase::Begun(waiter);
        let item = sender_item::Kind::Begin(Begin {
            delivery: Some(held.delivery.clone()),
            // Never 0, which would mean the default.
            final_reply_timeout_ms: u32::try_from(final_reply.as_millis())
                .unwrap_or(u32::MAX)
                .max(1),
        });
        effects.push(Effect::Send(held.stream, SenderItem { kind: Some(item) }));
        Ok(())
    }

    /// A permit was received at `received`. One that fits nothing is of no effect.
    pub fn permit(
        &mut self,
        stream: StreamId,
        delivery: &DeliveryRef,
        valid: Duration,
        received: Instant,
    ) -> Option<Effect<T, W>> {
        let key = Key::of(delivery)?;
        let stale = self
            .newest
            .get(&key.partition)
            .is_some_and(|newest| key.epoch < *newest);
        let held = self.held.get_mut(&key)?;
        if held.stream != stream
            || held.delivery.ordinals != delivery.ordinals
            || !matches!(held.phase, Phase::Begun(_))
        {
            return None;
        }
        let until = received + valid;
        let (phase, answer) = if stale {
            (Phase::Denied(Denied::StaleEpoch), Err(Denied::StaleEpoch))
        } else {
            (Phase::Permitted { until }, Ok(until))
        };
        match std::mem::replace(&mut held.phase, phase) {
            Phase::Begun(waiter) => Some(Effect::Answer(waiter, answer)),
            _ => None,
        }
    }

    /// Asked right before the bytes of the final dot are written; from a yes on, the dot counts as sent.
    pub fn may_send_dot(&mut self, ticket: Ticket, now: Instant) -> Result<(), Denied> {
        let newest = self.newest.get(&ticket.key.partition).copied().unwrap_or(0);
        let held = self.of(ticket).ok_or(Denied::NoPermit)?;
        match held.phase {
            Phase::Permitted { .. } if ticket.key.epoch < newest => Err(Denied::StaleEpoch),
            Phase::Permitted { until } if now >= until => Err(Denied::Expired),
            Phase::Permitted { .. } => {
                held.phase = Phase::DotSent;
                Ok(())
            }
            Phase::Denied(why) => Err(why),
            Phase::Preparing | Phase::Begun(_) | Phase::DotSent => Err(Denied::NoPermit),
        }
    }

    /// The message counts as sent from now on.
    pub fn left(&mut self, ticket: Ticket) -> Option<Effect<T, W>> {
        let held = self.of(ticket)?;
        Some(send_left(held.stream, held.delivery.clone()))
    }

    /// The attempt is over: the report is owed until it is stored. An attempt that the scheduler does not
    /// know is dropped.
    pub fn finish(
        &mut self,
        ticket: Ticket,
        report: Report,
        effects: &mut Vec<Effect<T, W>>,
    ) -> Result<(), Gone> {
        let held = self.of(ticket).ok_or(Gone)?;
        let unknown = matches!(held.phase, Phase::Denied(Denied::Refused));
        let is_told = !matches!(held.phase, Phase::Preparing);
        if let Some(held) = self.release(ticket.key).filter(|_| !is_told) {
            effects.extend(held.left());
        }
        if unknown {
            // Nobody would store it.
            return Ok(());
        }
        let owner = self.owners.get(&ticket.key.partition).copied();
        if let Some((_, stream)) = owner {
            effects.push(send_report(stream, report.clone()));
        }
        self.owed.insert(
            ticket.key,
            Owed {
                report,
                sent_to: owner,
            },
        );
        Ok(())
    }

    /// The attempt was not begun.
    pub fn give_back(
        &mut self,
        ticket: Ticket,
        reason: ReturnReason,
        detail: &str,
        effects: &mut Vec<Effect<T, W>>,
    ) -> Result<(), Gone> {
        self.of(ticket).ok_or(Gone)?;
        if let Some(held) = self.release(ticket.key) {
            return_held(held, reason, detail, effects);
        }
        Ok(())
    }

    /// The task of the ticket ended without an outcome (a defect): how far it had come, if it is still held.
    pub fn unfinished(&mut self, ticket: Ticket) -> Option<Unfinished> {
        let held = self.of(ticket)?;
        Some(match held.phase {
            Phase::Preparing => Unfinished::NotBegun,
            Phase::DotSent => Unfinished::DotSent,
            Phase::Begun(_) | Phase::Permitted { .. } | Phase::Denied(_) => Unfinished::Begun,
        })
    }

    /// A report is in the journal.
    pub fn stored(&mut self, delivery: &DeliveryRef) {
        if let Some(key) = Key::of(delivery) {
            self.owed.remove(&key);
        }
    }

    /// The scheduler knows no such attempt: nothing of it is reported or finished any more.
    pub fn refused(&mut self, delivery: &DeliveryRef) -> Option<Effect<T, W>> {
        let key = Key::of(delivery)?;
        self.owed.remove(&key);
        match &self.held.get(&key)?.phase {
            Phase::Preparing => self.release(key)?.task.map(Effect::Stop),
            Phase::Begun(_) => {
                let held = self.held.get_mut(&key)?;
                match std::mem::replace(&mut held.phase, Phase::Denied(Denied::Refused)) {
                    Phase::Begun(waiter) => Some(Effect::Answer(waiter, Err(Denied::Refused))),
                    _ => None,
                }
            }
            Phase::Permitted { .. } | Phase::Denied(_) | Phase::DotSent => None,
        }
    }

    /// The delivery that the ticket holds.
    pub fn delivery(&mut self, ticket: Ticket) -> Option<DeliveryRef> {
        self.of(ticket).map(|held| held.delivery.clone())
    }

    /// Deliveries held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Reports not yet stored.
    pub fn owed(&self) -> usize {
        self.owed.len()
    }

    fn of(&mut self, ticket: Ticket) -> Option<&mut Held<T, W>> {
        self.held
            .get_mut(&ticket.key)
            .filter(|held| held.serial == ticket.serial)
    }

    fn release(&mut self, key: Key) -> Option<Held<T, W>> {
        let held = self.held.remove(&key)?;
        if let Some(stream) = self.streams.get_mut(&held.stream) {
            stream.held -= 1;
        }
        Some(held)
    }

    /// The scheduler at this stream owns the partition under this epoch.
    fn learn(
        &mut self,
        stream: StreamId,
        partition: u32,
        epoch: u64,
        effects: &mut Vec<Effect<T, W>>,
    ) {
        let newest = self.newest.entry(partition).or_insert(epoch);
        let is_new = epoch > *newest;
        *newest = epoch.max(*newest);
        if is_new {
            let stale = |held: &Held<T, W>| {
                held.delivery.partition == partition && held.delivery.epoch < epoch
            };
            self.end_where(
                effects,
                stale,
                Denied::StaleEpoch,
                Some(ReturnReason::StaleEpoch),
            );
        }
        let known = self.owners.get(&partition).copied();
        if known == Some((epoch, stream))
            || known.is_some_and(|(known, _)| epoch < known)
            || epoch < self.newest[&partition]
        {
            return;
        }
        self.owners.insert(partition, (epoch, stream));
        for (key, owed) in &mut self.owed {
            if key.partition == partition && owed.sent_to != Some((epoch, stream)) {
                owed.sent_to = Some((epoch, stream));
                effects.push(send_report(stream, owed.report.clone()));
            }
        }
    }

    /// Ends what is not begun and denies what waits for a permit; what has its permit goes on.
    fn end_where(
        &mut self,
        effects: &mut Vec<Effect<T, W>>,
        which: impl Fn(&Held<T, W>) -> bool,
        why: Denied,
        returned: Option<ReturnReason>,
    ) {
        let keys: Vec<Key> = self
            .held
            .iter()
            .filter(|(_, held)| which(held))
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            let Some(held) = self.held.get_mut(&key) else {
                continue;
            };
            match held.phase {
                Phase::Preparing => self.give_up_preparing(key, returned, effects),
                Phase::Begun(_) => {
                    if let Phase::Begun(waiter) =
                        std::mem::replace(&mut held.phase, Phase::Denied(why))
                    {
                        effects.push(Effect::Answer(waiter, Err(why)));
                    }
                }
                Phase::Permitted { .. } | Phase::Denied(_) | Phase::DotSent => {}
            }
        }
    }

    fn give_up_preparing(
        &mut self,
        key: Key,
        returned: Option<ReturnReason>,
        effects: &mut Vec<Effect<T, W>>,
    ) {
        let Some(mut held) = self.release(key) else {
            return;
        };
        effects.extend(held.task.take().map(Effect::Stop));
        if let Some(reason) = returned {
            return_held(held, reason, "", effects);
        }
    }
}

fn send_report<T, W>(stream: StreamId, report: Report) -> Effect<T, W> {
    Effect::Send(
        stream,
        SenderItem {
            kind: Some(sender_item::Kind::Report(report)),
        },
    )
}

fn return_held<T, W>(
    held: Held<T, W>,
    reason: ReturnReason,
    detail: &str,
    effects: &mut Vec<Effect<T, W>>,
) {
    effects.extend(held.left());
    let Held {
        stream, delivery, ..
    } = held;
    effects.push(Effect::Send(
        stream,
        returned_item(delivery, reason, detail),
    ));
}

fn send_left<T, W>(stream: StreamId, delivery: DeliveryRef) -> Effect<T, W> {
    let left = Left {
        delivery: Some(delivery),
    };
    let item = SenderItem {
        kind: Some(sender_item::Kind::Left(left)),
    };
    Effect::Send(stream, item)
}
