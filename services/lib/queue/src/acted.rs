//! What is done about replies ([`proto::journal::Acted`]), and which tenants moved between pools: kept in the journal, the
//! one so that it survives its owner, the other so that it is told once.
//!
//! The intake does not understand it. It keeps what is not over, writes it into snapshots and finds it again in replay.

use mail::MessageId;
use proto::dispatch::DeliveryRef;
use proto::journal::Acted;
use proto::journal::entry::Kind;
use proto::standing::Move;

use crate::intake::{Gate, Intake};

/// Entries that are kept at most: the oldest give way.
const KEPT: usize = 20_000;

impl Intake {
    /// Notes that something is done, or is over.
    pub fn acted(&mut self, now_ms: u64, acted: Acted) {
        self.acts.retain(|other| now_ms < other.until_ms);
        self.keep_acted(acted.clone());
        self.log(Kind::Acted(acted), Gate::Nothing);
        self.flush(now_ms);
    }

    /// What is done by the journal of this partition; some of it may be over.
    pub fn acts(&self) -> &[Acted] {
        &self.acts
    }

    /// Notes that a tenant moved in a pool, unless it is noted.
    pub fn standing_moved(&mut self, now_ms: u64, moved: &Move) {
        if moved.number <= self.last_move(&moved.pool) {
            return;
        }
        self.keep_move(moved.clone());
        self.log(Kind::StandingMoved(moved.clone()), Gate::Nothing);
        self.flush(now_ms);
    }

    /// The number of the last move in a pool that is noted here; 0 = none.
    pub fn last_move(&self, pool: &str) -> u64 {
        let mut moves = self.standings_moved.iter();
        moves
            .find(|moved| moved.pool == pool)
            .map_or(0, |moved| moved.number)
    }

    pub(crate) fn keep_move(&mut self, moved: Move) {
        self.standings_moved
            .retain(|other| other.pool != moved.pool);
        self.standings_moved.push(moved);
    }

    /// Tenant, stream and recipient domain of what an attempt is about; `None` when nothing of it lives.
    pub fn about(&self, reference: &DeliveryRef) -> Option<(&str, &str, &str)> {
        let id = MessageId::try_from(&reference.message_id[..]).ok()?;
        let slot = self.live.find(&id)?;
        let message = self.live.messages.get(slot)?;
        let ordinal = u16::try_from(*reference.ordinals.first()?).ok()?;
        let delivery = self
            .live
            .deliveries
            .get(self.live.delivery_with(slot, ordinal)?)?;
        let strings = &self.live.strings;
        Some((
            strings.get(message.tenant),
            strings.get(message.stream),
            strings.get(delivery.domain),
        ))
    }

    /// A later entry replaces an earlier one of the same rule on the same subject.
    pub(crate) fn keep_acted(&mut self, acted: Acted) {
        self.acts
            .retain(|other| (&other.rule, &other.subject) != (&acted.rule, &acted.subject));
        if acted.ended {
            return;
        }
        if self.acts.len() >= KEPT {
            self.acts.remove(0);
        }
        self.acts.push(acted);
    }
}
