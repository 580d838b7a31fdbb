//! Egress: which delivery leaves next, from which source, over which connection slot of which sender.
//!
//! - [`Lanes`]: ready deliveries by egress source × site, the connection slots of each lane, limits that lanes share, and
//!   the senders' credit.
//! - [`Rates`]: a lane's windows, drawn from grants that replicas share, with a safe share when there are none.
//! - [`Sites`]: which site a domain belongs to, and who waits to know.
//! - [`Automation`]: what is done for a while about replies that say that something is too much.
//! - [`Rotation`]: weighted choice of the sources of a pool.
//! - [`Standings`]: which tenants leave by another pool than their own, on probation or in quarantine.

mod automation;
mod fair;
mod lanes;
mod rate;
mod rotation;
mod sites;
mod standing;

pub use automation::{Act, Automation, Change, Heard, Measure, Restraint, Subject, per_minute};
pub use fair::{AHEAD, FRESH_TURNS, Flow, HIGH_TURNS};
pub use lanes::{
    Blocked, Decision, Drawn, LaneId, LaneLimits, Lanes, SenderId, SharedId, SharedLimits, SlotId,
    SlotNews, Whose,
};
pub use rate::{
    Became, GrantNews, Rate, RateLimit, Rates, Take, TakeAll, Taken, Unit, Window, Word,
};
pub use rotation::Rotation;
pub use sites::{SiteNews, SiteOf, Sites};
pub use standing::{
    CAUSE as STANDING_CAUSE, Decided, StandingEvent, Standings, Waits, Way, begins_on_probation,
    no_standings, standing_of, step as step_standings,
};
