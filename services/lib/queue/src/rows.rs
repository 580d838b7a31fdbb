//! What waits, for people.

use std::collections::BTreeMap;

use crate::Standing;
use crate::delivery::State;
use crate::intake::Intake;

/// Recipients of one domain, tenant and stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Row {
    /// Recipient domain.
    pub domain: String,
    /// Tenant.
    pub tenant: String,
    /// Stream.
    pub stream: String,
    /// Could be sent now, were there a free connection and grant.
    pub ready: u64,
    /// Wait for their time.
    pub deferred: u64,
    /// At a sender.
    pub in_flight: u64,
    /// Begun, and their sender is gone.
    pub in_doubt: u64,
    /// Held or quarantined.
    pub held: u64,
    /// When the next of the deferred is due, Unix milliseconds.
    pub next_due_ms: Option<u64>,
    /// When the oldest of its messages was accepted, Unix milliseconds; 0 = never.
    pub oldest_ms: u64,
    /// Since when the first of them is on hold, Unix milliseconds.
    pub held_since_ms: Option<u64>,
    /// When the first hold ends by itself, Unix milliseconds.
    pub held_until_ms: Option<u64>,
    /// For these the simulator answers.
    pub simulated: u64,
    /// One of its deliveries: one that is ready, if there is one.
    pub sample: Option<crate::Key>,
}

/// Recipients of a partition by state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Ready, deferred or held.
    pub waiting: u64,
    /// At a sender.
    pub in_flight: u64,
    /// Begun, and their sender is gone.
    pub in_doubt: u64,
    /// Final, and their DSN is not yet spooled.
    pub dsn_owed: u64,
    /// Blocks and messages in quarantine.
    pub quarantined: u64,
    /// Messages that live.
    pub messages: u64,
}

impl Intake {
    /// The queue by domain, tenant and stream. Cost O(live deliveries).
    pub fn rows(&self) -> Vec<Row> {
        self.rows_where(None)
    }

    /// As [`Intake::rows`], of what is meant only. The deliveries of a message come in no order.
    pub fn rows_where(
        &self,
        mut is_meant: Option<&mut dyn FnMut(&Standing<'_>) -> bool>,
    ) -> Vec<Row> {
        let mut rows: BTreeMap<(u32, u32, u32), Row> = BTreeMap::new();
        for (slot, delivery) in self.live.deliveries.iter() {
            let Some(message) = self.live.messages.get(delivery.message) else {
                continue;
            };
            if let Some(is_meant) = &mut is_meant
                && !self
                    .standing(slot)
                    .is_some_and(|standing| is_meant(&standing))
            {
                continue;
            }
            let row = rows
                .entry((delivery.domain, message.tenant, message.stream))
                .or_insert_with(|| Row {
                    domain: self.live.strings.get(delivery.domain).to_owned(),
                    tenant: self.live.strings.get(message.tenant).to_owned(),
                    stream: self.live.strings.get(message.stream).to_owned(),
                    ..Row::default()
                });
            let recipients = self.live.ordinals(slot).len() as u64;
            let accepted_ms = message.id.unix_ms();
            if row.oldest_ms == 0 || accepted_ms < row.oldest_ms {
                row.oldest_ms = accepted_ms;
            }
            let is_ready = matches!(delivery.state, State::Ready | State::Behind | State::Parked);
            if row.sample.is_none() || (is_ready && row.ready == 0) {
                row.sample = self.live.key(slot);
            }
            if self.live.simulated.contains_key(&slot) {
                row.simulated += recipients;
            }
            if let Some(hold) = self.live.holds.present(slot) {
                let earlier =
                    |known: Option<u64>, at: u64| Some(known.map_or(at, |known| known.min(at)));
                row.held_since_ms = earlier(row.held_since_ms, hold.since_ms);
                if let Some(until_ms) = hold.until_ms {
                    row.held_until_ms = earlier(row.held_until_ms, until_ms);
                }
            }
            match delivery.state {
                State::Ready | State::Behind | State::Parked | State::Simulated => {
                    row.ready += recipients;
                }
                State::Held => row.held += recipients,
                State::Waiting | State::HeldBack => {
                    row.deferred += recipients;
                    row.next_due_ms = Some(
                        row.next_due_ms
                            .map_or(delivery.due_ms, |due| due.min(delivery.due_ms)),
                    );
                }
                State::InFlight => match self.flights().get(&slot) {
                    Some(flight) if flight.session.is_none() => row.in_doubt += recipients,
                    _ => row.in_flight += recipients,
                },
            }
        }
        rows.into_values().collect()
    }

    /// When the earliest of so many live messages was accepted (Unix milliseconds, as its id says), and the place to go
    /// on at: 0 when the index is through. Begin at 0. Cost O(`count`).
    pub fn earliest_among(&self, from: u32, count: u32) -> (Option<u64>, u32) {
        let slots = self.live.messages.slots();
        let to = from.saturating_add(count).min(slots);
        let earliest_ms = (from..to)
            .filter_map(|slot| self.live.messages.get(slot))
            .map(|message| message.id.unix_ms())
            .min();
        (earliest_ms, if to < slots { to } else { 0 })
    }

    /// Sums over the partition, from counts that are kept: cheap.
    pub fn totals(&self) -> Totals {
        let in_flight = self.flights().len() as u64;
        let in_doubt = self.in_doubt() as u64;
        Totals {
            waiting: (self.live.recipients as u64).saturating_sub(in_flight),
            in_flight: in_flight - in_doubt,
            in_doubt,
            dsn_owed: self.live.owed.values().map(|owed| owed.len() as u64).sum(),
            quarantined: self.quarantined_blocks.len() as u64,
            messages: self.live.messages.len() as u64,
        }
    }
}
