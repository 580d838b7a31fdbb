//! What operators do to the live queue, as far as it is a matter of one partition.
//!
//! Whom an operation concerns is decided above ([`proto::operation::Selector`]): the intake shows its deliveries in slices,
//! carries out what is decided about them, and keeps a note of each operation in the journal, so that a later owner knows
//! which are done.

use std::collections::HashSet;

use proto::dispatch::DeliveryRef;
use proto::journal::entry::Kind;
use proto::journal::{AdminAction, Disposition, Phase, Reply, Touched, TouchedDelivery};

use crate::delivery::State;
use crate::intake::{By, Gate, Intake, Policies};
use crate::recovery::Change;
use crate::{Key, Standing};

/// Entries that wait for the journal from which an operation pauses: those of attempts must not queue behind it.
const BUSY: usize = 1024;
/// Deliveries in one entry.
const TOUCHED: usize = 512;
/// Notes that are kept at most: the oldest give way.
const KEPT: usize = 4096;

/// What a release came to, in recipients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Released {
    /// They go on.
    pub recipients: u64,
    /// They stay on hold: who sent the message may not send it any more.
    pub refused: u64,
}

/// What became of a delivery that was to be ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It is final, with so many recipients.
    Now(usize),
    /// An attempt is begun, and may succeed: to be asked again when it is over.
    Begun,
    /// It is not there any more.
    Gone,
}

impl Intake {
    /// The live deliveries in `count` places from `from` on, and the place to go on at: 0 when all are through. Begin at
    /// 0. What comes meanwhile may be left out. Cost O(`count`).
    pub fn slice(&self, from: u32, count: u32) -> (Vec<Standing<'_>>, u32) {
        let slots = self.live.deliveries.slots();
        let to = from.saturating_add(count).min(slots);
        let standings = (from..to).filter_map(|slot| self.standing(slot)).collect();
        (standings, if to < slots { to } else { 0 })
    }

    /// How the delivery of an attempt stands, if it is the present one.
    pub fn standing_of_attempt(&self, reference: &DeliveryRef) -> Option<Standing<'_>> {
        let (slot, _) = self.flight_of(reference)?;
        self.standing(slot)
    }

    /// Whether the journal is behind: an operation waits until it is not.
    pub fn is_busy(&self) -> bool {
        self.writer.pending() >= BUSY
    }

    /// Ends all recipients of a delivery, wherever it is, unless its attempt is begun. What a sender has and has not begun
    /// is refused to it when it begins.
    pub fn end(
        &mut self,
        now_ms: u64,
        key: Key,
        disposition: Disposition,
        reply: Reply,
        operation: &str,
    ) -> Ended {
        let Some(slot) = self.live.resolve(key) else {
            return Ended::Gone;
        };
        let flight = self.live.flights.get(&slot);
        if flight.is_some_and(|flight| flight.begun_ms.is_some()) {
            return Ended::Begun;
        }
        let recipients = self.live.ordinals(slot).len();
        let by = By {
            operation,
            ..By::default()
        };
        self.conclude_by(now_ms, key, disposition, reply, by);
        Ended::Now(recipients)
    }

    /// Deliveries that wait for their next attempt are due now; others stay as they are. Gives the number of recipients.
    pub fn hurry(&mut self, now_ms: u64, keys: &[Key], operation: &str) -> u64 {
        let waits = |intake: &Self, slot| {
            intake.live.deliveries.get(slot).is_some_and(|delivery| {
                let waits = delivery.state == State::Waiting && delivery.due_ms > now_ms;
                waits && delivery.is_retry()
            })
        };
        self.touch(now_ms, keys, operation, false, waits)
    }

    /// Deliveries that are held or in quarantine are due now, as soon as they may be sent; others stay as they are, and so
    /// does what was accepted on hold of those who may not send it any more.
    pub fn release(
        &mut self,
        now_ms: u64,
        keys: &[Key],
        operation: &str,
        policies: &dyn Policies,
    ) -> Released {
        let mut refused = 0;
        let may_go = |key: &&Key| {
            let slot = self.live.resolve(**key);
            let may_go = slot.is_none_or(|slot| self.refusal(slot, policies).is_none());
            if !may_go {
                refused += slot.map_or(0, |slot| self.live.ordinals(slot).len() as u64);
            }
            may_go
        };
        let keys: Vec<Key> = keys.iter().filter(may_go).copied().collect();
        let held = |intake: &Self, slot| {
            let delivery = intake.live.deliveries.get(slot);
            delivery.is_some_and(|delivery| delivery.state == State::Held)
        };
        Released {
            recipients: self.touch(now_ms, &keys, operation, true, held),
            refused,
        }
    }

    fn touch(
        &mut self,
        now_ms: u64,
        keys: &[Key],
        operation: &str,
        released: bool,
        is_meant: impl Fn(&Self, u32) -> bool,
    ) -> u64 {
        let mut recipients = 0;
        for keys in keys.chunks(TOUCHED) {
            let mut deliveries = Vec::new();
            for key in keys {
                let Some(slot) = self.live.resolve(*key).filter(|slot| is_meant(self, *slot))
                else {
                    continue;
                };
                let Some(delivery) = self.live.deliveries.get(slot) else {
                    continue;
                };
                let (ordinals, message) = (self.live.ordinals(slot), delivery.message);
                let Some(message) = self.live.messages.get(message) else {
                    continue;
                };
                recipients += ordinals.len() as u64;
                deliveries.push(TouchedDelivery {
                    message_id: message.id.as_bytes().to_vec().into(),
                    ordinal: ordinals.first().copied().unwrap_or(0).into(),
                });
                self.apply_touched(slot, now_ms, released);
            }
            if !deliveries.is_empty() {
                let entry = Touched {
                    operation: operation.to_owned(),
                    deliveries,
                    due_ms: now_ms,
                    released,
                };
                self.log(Kind::Touched(entry), Gate::Nothing);
            }
        }
        recipients
    }

    /// In replay and in live operation alike.
    pub(crate) fn apply_touched(&mut self, slot: u32, due_ms: u64, released: bool) {
        let Some(delivery) = self.live.deliveries.get(slot) else {
            return;
        };
        let message = delivery.message;
        match (delivery.state, released) {
            (State::Held, true) => {
                let is_retry = delivery.is_retry();
                if let Some(message) = self.live.messages.get_mut(message) {
                    message.set_quarantined(false);
                }
                let earliest_ms = self.live.end_hold(slot, due_ms);
                let from_ms = if is_retry { 0 } else { earliest_ms };
                self.live.wait_until(slot, due_ms.max(from_ms));
            }
            (State::Waiting, false) => self.live.wait_until(slot, due_ms),
            _ => {}
        }
    }

    pub(crate) fn replay_touched(&mut self, touched: &Touched) -> Result<(), mail::MessageIdError> {
        for delivery in &touched.deliveries {
            let id = mail::MessageId::try_from(&delivery.message_id[..])?;
            if let Ok(ordinal) = u16::try_from(delivery.ordinal) {
                let (due_ms, released) = (touched.due_ms, touched.released);
                self.change(
                    id,
                    Change::Touched {
                        ordinal,
                        due_ms,
                        released,
                    },
                );
            }
        }
        Ok(())
    }

    /// A ready delivery is kept out of the lanes until [`Intake::unpark`]; it leaves its line, so that others move up. For
    /// what sets it apart from the others of its line.
    pub fn park(&mut self, key: Key) {
        let slot = self.live.resolve(key);
        let is_ready = |slot: &u32| {
            let delivery = self.live.deliveries.get(*slot);
            delivery.is_some_and(|delivery| delivery.state == State::Ready)
        };
        if let Some(slot) = slot.filter(is_ready) {
            self.live.set_state(slot, State::Parked);
        }
    }

    /// A parked delivery is ready again. False when it is not parked.
    pub fn unpark(&mut self, key: Key) -> bool {
        let Some(slot) = self.live.resolve(key) else {
            return false;
        };
        let delivery = self.live.deliveries.get(slot);
        let is_parked = delivery.is_some_and(|delivery| delivery.state == State::Parked);
        if is_parked {
            self.make_ready(slot);
        }
        is_parked
    }

    /// Notes how far an operation is.
    pub fn note_operation(&mut self, now_ms: u64, action: AdminAction) {
        self.keep_operation(action.clone());
        self.log(Kind::AdminAction(action), Gate::Nothing);
        self.flush(now_ms);
    }

    /// The last note about an operation.
    pub fn operation(&self, id: &str) -> Option<&AdminAction> {
        self.operations.iter().find(|action| id_of(action) == id)
    }

    /// The last note about each operation.
    pub fn operations(&self) -> &[AdminAction] {
        &self.operations
    }

    /// Forgets operations that are over, but for those that may be asked about.
    pub fn forget_operations(&mut self, known: &HashSet<&str>) {
        self.operations
            .retain(|action| action.phase() == Phase::Begun || known.contains(id_of(action)));
    }

    /// A later note replaces an earlier one about the same operation.
    pub(crate) fn keep_operation(&mut self, action: AdminAction) {
        let id = id_of(&action).to_owned();
        self.operations.retain(|other| id_of(other) != id);
        if self.operations.len() >= KEPT {
            self.operations.remove(0);
        }
        self.operations.push(action);
    }
}

fn id_of(action: &AdminAction) -> &str {
    let operation = action.operation.as_ref();
    operation.map_or("", |operation| &operation.id)
}
