//! How deliveries stand, for those who want to know why one does not move.

use mail::MessageId;
use proto::journal::Class;

use crate::Key;
use crate::delivery::State;
use crate::effect::SessionId;
use crate::holds::OnHold;
use crate::intake::Intake;

/// Which deliveries are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// Those of a message.
    Message(MessageId),
    /// Those to a recipient domain.
    Domain(String),
    /// Those of a tenant.
    Tenant(String),
}

/// What a delivery waits for, as far as its queue knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// In quarantine: its content can't be read, or asks for something that this release does not know.
    Quarantined,
    /// Held until somebody decides, or [`Standing::hold`] ends.
    Held,
    /// It is due, and the simulator answers next.
    Simulator,
    /// For its time, Unix milliseconds.
    Until(u64),
    /// For its window or its place in the spread of its stream, Unix milliseconds.
    HeldBack(u64),
    /// It is due, and others of its tenant, stream, campaign and domain are with the lanes before it.
    Behind,
    /// It is with the lanes.
    Ready,
    /// It is at the sender of this stream, and begun at this time (Unix milliseconds) if it is.
    AtSender(SessionId, Option<u64>),
    /// It is begun and its sender is gone; settled at this time (Unix milliseconds) at the latest.
    InDoubt(Option<u64>),
}

/// A delivery.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// Its name in the partition.
    pub key: Key,
    /// Its message.
    pub id: MessageId,
    /// Its tenant.
    pub tenant: &'a str,
    /// Its stream.
    pub stream: &'a str,
    /// Its campaign.
    pub campaign: &'a str,
    /// Its recipient domain.
    pub domain: &'a str,
    /// Recipients that are not final.
    pub recipients: usize,
    /// Attempts made, those aside in which nothing was said of the message.
    pub attempts: u32,
    /// It was tried before, or could not be.
    pub is_retry: bool,
    /// Why it was deferred last.
    pub class: Class,
    /// What it waits for.
    pub wait: Wait,
    /// It is on hold.
    pub hold: Option<OnHold>,
    /// The simulator answers for it: it never leaves.
    pub is_simulated: bool,
}

impl Intake {
    /// How the deliveries stand that are asked for, at most `limit`. Those of a message cost what they are, others a
    /// look at every live delivery.
    pub fn standings(&self, which: &Which, limit: usize) -> Vec<Standing<'_>> {
        let live = &self.live;
        match which {
            Which::Message(id) => {
                let message = live.find(id);
                let slots = message.map(|slot| live.deliveries_of(slot));
                let standings = slots.into_iter().flatten().take(limit);
                standings.filter_map(|slot| self.standing(slot)).collect()
            }
            Which::Domain(domain) => {
                let Some(domain) = live.strings.find(domain) else {
                    return Vec::new();
                };
                let to_it = live.deliveries.iter().filter(|(_, d)| d.domain == domain);
                let standings = to_it.take(limit).map(|(slot, _)| slot);
                standings.filter_map(|slot| self.standing(slot)).collect()
            }
            Which::Tenant(tenant) => {
                let Some(tenant) = live.strings.find(tenant) else {
                    return Vec::new();
                };
                let message = |message| live.messages.get(message);
                let of_it = live
                    .deliveries
                    .iter()
                    .filter(|(_, d)| message(d.message).is_some_and(|m| m.tenant == tenant));
                let standings = of_it.take(limit).map(|(slot, _)| slot);
                standings.filter_map(|slot| self.standing(slot)).collect()
            }
        }
    }

    /// How a delivery stands; `None` when it does not live any more.
    pub fn standing_of(&self, key: Key) -> Option<Standing<'_>> {
        self.standing(self.live.resolve(key)?)
    }

    /// Whether a message lives only since a DSN about it is not spooled yet.
    pub fn owes_dsn(&self, id: &MessageId) -> bool {
        let message = self.live.find(id);
        message.is_some_and(|slot| self.live.owed.contains_key(&slot))
    }

    pub(crate) fn standing(&self, slot: u32) -> Option<Standing<'_>> {
        let live = &self.live;
        let delivery = live.deliveries.get(slot)?;
        let message = live.messages.get(delivery.message)?;
        let flight = live.flights.get(&slot);
        let wait = match delivery.state {
            State::Held if message.is_quarantined() => Wait::Quarantined,
            State::Held => Wait::Held,
            State::Simulated => Wait::Simulator,
            State::Waiting => Wait::Until(delivery.due_ms),
            State::HeldBack => Wait::HeldBack(delivery.due_ms),
            State::Behind => Wait::Behind,
            State::Ready | State::Parked => Wait::Ready,
            State::InFlight => match flight.and_then(|flight| flight.session) {
                Some(session) => {
                    let begun_ms = flight.and_then(|flight| flight.begun_ms);
                    Wait::AtSender(SessionId(session), begun_ms)
                }
                None => Wait::InDoubt(flight.and_then(|flight| flight.doubt_ms)),
            },
        };
        Some(Standing {
            key: live.key(slot)?,
            id: message.id,
            tenant: live.strings.get(message.tenant),
            stream: live.strings.get(message.stream),
            campaign: live.strings.get(message.campaign),
            domain: live.strings.get(delivery.domain),
            recipients: live.ordinals(slot).len(),
            attempts: delivery.attempts.into(),
            is_retry: delivery.is_retry(),
            class: delivery.deferred.class(),
            wait,
            hold: live.holds.present(slot),
            is_simulated: live.simulated.contains_key(&slot),
        })
    }
}
