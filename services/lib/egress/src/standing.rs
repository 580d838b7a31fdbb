//! How tenants stand in a pool: on probation, a member, in quarantine.
//!
//! [`step`] is the machine. Its state is the stored record of a pool, and whoever steps it stores the result on the condition
//! that nobody else did meanwhile, so all schedulers decide the same. [`Standings`] answers for each delivery by which pool
//! it leaves.

mod table;
#[cfg(test)]
mod tests;

use config::{EgressPool, Probation};
use proto::standing::{Move, PoolStandings, Standing, TenantStanding};

pub use table::{Standings, Waits, Way};

/// The format version of records.
pub const FORMAT: u32 = 1;
/// Moves that a record keeps for who writes them into a journal.
const MOVES: usize = 256;
/// Octets of a cause.
pub const CAUSE: usize = 256;
const DAY_MS: u64 = 86_400_000;

/// What happened to the tenants of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StandingEvent {
    /// Mail of one came, of which nothing is known.
    Seen(String),
    /// So many of its recipients accepted.
    Delivered(String, u64),
    /// Time.
    Passed,
    /// Its replies are such that it goes into quarantine; until then (Unix milliseconds), or until somebody ends it (0).
    Convicted {
        /// Which.
        tenant: String,
        /// End.
        until_ms: u64,
        /// Rule and reply.
        cause: String,
    },
    /// An operator decides.
    Decided {
        /// Which.
        tenant: String,
        /// What.
        decision: Decided,
        /// Who.
        author: String,
        /// Why.
        cause: String,
    },
}

/// What an operator decides about a tenant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decided {
    /// Into quarantine, until then (Unix milliseconds), or until it is ended (0).
    Quarantine {
        /// End.
        until_ms: u64,
    },
    /// Out of quarantine: on probation where there is one, else a member.
    Release,
    /// A member at once.
    Admit,
    /// On probation, from the beginning.
    Probation,
    /// As if it had never been there.
    Forget,
}

/// Takes what happened at a time. False when nothing is to be stored.
pub fn step(
    record: &mut PoolStandings,
    pool: &EgressPool,
    now_ms: u64,
    event: &StandingEvent,
) -> bool {
    let mut desk = Desk {
        record,
        pool,
        now_ms,
    };
    match event {
        StandingEvent::Seen(tenant) => desk.seen(tenant),
        StandingEvent::Delivered(tenant, count) => desk.delivered(tenant, *count),
        StandingEvent::Passed => desk.passed(),
        StandingEvent::Convicted {
            tenant,
            until_ms,
            cause,
        } => desk.convicted(tenant, *until_ms, cause),
        StandingEvent::Decided {
            tenant,
            decision,
            author,
            cause,
        } => desk.decided(tenant, *decision, author, cause),
    }
}

/// The record of a pool of which nothing is stored.
pub fn no_standings(pool: &str) -> PoolStandings {
    PoolStandings {
        format: FORMAT,
        pool: pool.to_owned(),
        ..PoolStandings::default()
    }
}

/// Of a tenant in a record.
pub fn standing_of<'r>(record: &'r PoolStandings, tenant: &str) -> Option<&'r TenantStanding> {
    let position = position(record, tenant).ok()?;
    record.tenants.get(position)
}

/// Whether a tenant of which nothing is known begins with probation.
pub fn begins_on_probation(pool: &EgressPool, tenant: &str) -> bool {
    let is_excepted = |of: &Probation| of.except.iter().any(|name| name == tenant);
    let probation = pool.probation.as_ref();
    probation.is_some_and(|probation| !is_excepted(probation))
}

/// When [`StandingEvent::Passed`] changes something; `None` = not by time alone.
fn due_ms(standing: &TenantStanding, pool: &EgressPool) -> Option<u64> {
    match (standing.standing(), &pool.probation) {
        (Standing::Quarantine, _) => (standing.until_ms > 0).then_some(standing.until_ms),
        (Standing::Probation, Some(probation)) => (standing.delivered
            >= u64::from(probation.delivered))
        .then(|| standing.since_ms + u64::from(probation.days) * DAY_MS),
        _ => None,
    }
}

fn position(record: &PoolStandings, tenant: &str) -> Result<usize, usize> {
    let tenants = &record.tenants;
    tenants.binary_search_by(|standing| standing.tenant.as_str().cmp(tenant))
}

struct Desk<'a> {
    record: &'a mut PoolStandings,
    pool: &'a EgressPool,
    now_ms: u64,
}

impl Desk<'_> {
    fn seen(&mut self, tenant: &str) -> bool {
        let is_new = standing_of(self.record, tenant).is_none();
        if !is_new || !begins_on_probation(self.pool, tenant) {
            return false;
        }
        self.set(
            tenant,
            Standing::Probation,
            0,
            "",
            "its first mail for the pool",
        );
        true
    }

    fn delivered(&mut self, tenant: &str, count: u64) -> bool {
        let Ok(position) = position(self.record, tenant) else {
            return false;
        };
        let standing = &mut self.record.tenants[position];
        if standing.standing() != Standing::Probation || count == 0 {
            return false;
        }
        standing.delivered += count;
        self.passed();
        true
    }

    fn passed(&mut self) -> bool {
        let is_due = |standing: &&TenantStanding| {
            due_ms(standing, self.pool).is_some_and(|due_ms| due_ms <= self.now_ms)
        };
        let due: Vec<TenantStanding> = self.record.tenants.iter().filter(is_due).cloned().collect();
        for standing in &due {
            match standing.standing() {
                Standing::Quarantine => self.release(&standing.tenant, "", "its time is over"),
                _ => {
                    let days = self.now_ms.saturating_sub(standing.since_ms) / DAY_MS;
                    let cause = format!("{days} days, {} recipients accepted", standing.delivered);
                    self.set(&standing.tenant, Standing::Member, 0, "", &cause);
                }
            }
        }
        !due.is_empty()
    }

    /// What an operator or an earlier rule decided holds at least as long.
    fn convicted(&mut self, tenant: &str, until_ms: u64, cause: &str) -> bool {
        let present = position(self.record, tenant).ok();
        if let Some(standing) = present.and_then(|position| self.record.tenants.get_mut(position))
            && standing.standing() == Standing::Quarantine
        {
            let is_longer =
                standing.until_ms != 0 && (until_ms == 0 || until_ms > standing.until_ms);
            if is_longer {
                standing.until_ms = until_ms;
            }
            return is_longer;
        }
        self.set(tenant, Standing::Quarantine, until_ms, "", cause);
        true
    }

    fn decided(&mut self, tenant: &str, decision: Decided, author: &str, cause: &str) -> bool {
        let present = standing_of(self.record, tenant).cloned();
        let standing = present
            .as_ref()
            .map_or(Standing::Unspecified, TenantStanding::standing);
        let has_probation = self.pool.probation.is_some();
        match decision {
            Decided::Quarantine { until_ms } => {
                let ends_so = |present: TenantStanding| present.until_ms == until_ms;
                if standing == Standing::Quarantine && present.is_some_and(ends_so) {
                    return false;
                }
                self.set(tenant, Standing::Quarantine, until_ms, author, cause);
            }
            Decided::Release if standing == Standing::Quarantine => {
                self.release(tenant, author, cause);
            }
            Decided::Admit if standing == Standing::Member => return false,
            Decided::Admit if standing == Standing::Unspecified && !has_probation => return false,
            Decided::Admit => self.set(tenant, Standing::Member, 0, author, cause),
            Decided::Probation if standing != Standing::Probation && has_probation => {
                self.set(tenant, Standing::Probation, 0, author, cause);
            }
            Decided::Forget if standing != Standing::Unspecified => {
                self.set(tenant, Standing::Unspecified, 0, author, cause);
            }
            Decided::Release | Decided::Probation | Decided::Forget => return false,
        }
        true
    }

    /// Who comes out of quarantine has to earn its place again, where there is a way to.
    fn release(&mut self, tenant: &str, author: &str, cause: &str) {
        let to = match self.pool.probation {
            Some(_) => Standing::Probation,
            None => Standing::Member,
        };
        self.set(tenant, to, 0, author, cause);
    }

    fn set(&mut self, tenant: &str, to: Standing, until_ms: u64, author: &str, cause: &str) {
        let mut end = cause.len().min(CAUSE);
        while !cause.is_char_boundary(end) {
            end -= 1;
        }
        let standing = TenantStanding {
            tenant: tenant.to_owned(),
            standing: to.into(),
            since_ms: self.now_ms,
            until_ms,
            author: author.to_owned(),
            cause: cause[..end].to_owned(),
            delivered: 0,
        };
        let number = self.record.moved + 1;
        let mut moved = Move {
            number,
            pool: self.record.pool.clone(),
            tenant: tenant.to_owned(),
            from: Standing::Unspecified.into(),
            to: to.into(),
            at_ms: self.now_ms,
            until_ms,
            author: standing.author.clone(),
            cause: standing.cause.clone(),
        };
        let tenants = &mut self.record.tenants;
        match tenants.binary_search_by(|other| other.tenant.as_str().cmp(tenant)) {
            Ok(position) => {
                moved.from = tenants[position].standing;
                if to == Standing::Unspecified {
                    tenants.remove(position);
                } else {
                    tenants[position] = standing;
                }
            }
            Err(position) => tenants.insert(position, standing),
        }
        self.record.moved = number;
        self.record.moves.push(moved);
        let gone = self.record.moves.len().saturating_sub(MOVES);
        self.record.moves.drain(..gone);
    }
}
