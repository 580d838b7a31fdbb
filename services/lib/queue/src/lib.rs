//! The queue of a partition: which messages live, when each delivery is due, what is under way.
//!
//! [`Intake`] is a state machine: its methods take the time and what happened, its [`Effect`]s say what is to be
//! done. It holds the fenced journal writer, and an effect that others rely on (a permit, the acknowledgement of
//! an outcome) appears only when the entry that it depends on is stored. The same `apply` functions serve live
//! operation and replay, so that what is recovered is what was there.
//!
//! Cost: O(1) per delivery but for the heap of what is due within seconds, O(log n); about 170 bytes per waiting delivery.

mod accepting;
mod acted;
mod arena;
mod attempts;
mod blocks;
mod deadlines;
mod delivery;
mod due;
mod effect;
mod holds;
mod intake;
mod kept;
mod lines;
mod live;
mod operations;
mod ordinals;
mod recovery;
mod report;
mod rows;
mod simulator;
mod snapshot;
mod standing;
mod strings;
mod suppression;
mod trim;

#[cfg(test)]
mod tests;

pub use accepting::BlockError;
pub use attempts::RouteOf;
pub use delivery::{Key, Retry, Waits};
pub use effect::{Assigned, Counted, Effect, SessionId};
pub use holds::{HoldEnds, LongestHold, OnHold, Submitter};
pub use intake::{InDoubt, Intake, Policies, Settings};
pub use operations::{Ended, Released};
pub use recovery::ReplayError;
pub use report::{Judged, Verdict, Via};
pub use rows::{Row, Totals};
pub use standing::{Standing, Wait, Which};
pub use trim::Copy;
