//! Limits that hold over all replicas: slices of a lane's rates and leases of its connections, lent by Redis.
//!
//! - [`Grants`]: the connection, [`Grants::ask`] and [`Grants::lease`]
//! - [`GrantRequest`], [`GrantReply`], [`SliceUse`]: what is asked and answered about rates
//! - [`SlotRequest`], [`SlotReply`], [`SLOT_TTL`]: about connections
//! - [`Quotas`], [`Scope`], [`Charged`]: uses in sliding windows, charged one by one (see its module)
//! - [`Grants::turns`]: turns of a weighted rotation that all take part in
//! - [`server_clock`]: whether Redis lets us in, for who looks at an installation
//! - [`Words`]: what is said and answered, for who brings a server of its own
//! - [`safe_share`]: what a replica may use when Redis cannot be asked
//!
//! # How it counts
//!
//! A slice is leave for `amount` uses until it expires. Over any window of the limit's length the sum of what
//! all replicas use is at most the limit, because a slice counts in full until it expires and one window more,
//! and what was used counts for one window after its last use. A report (`previous` of the next request)
//! replaces the one by the other, so that what was not used is free again at once. All of it happens in one
//! atomic script over one key, by Redis' own clock.
//!
//! Uses are counted as of the last one in the slice, so a slice that is used up slowly makes the limit look
//! fuller than it is: at a steady pace the limit is used to about `window / (window + ttl / 2)`. A `ttl` of
//! 1/16 of the window costs 3 %.
//!
//! # Connections
//!
//! A connection lasts as long as it lasts, so what Redis has is how many each holder has, for the life of its lease
//! since it said so last. A connection is free when its holder says that it has one less, which it does after the connection is
//! closed, or when the lease ran out. What holders have counts even if it is more than the limit, as after a time
//! without Redis. While others wait, who has more than its fair part (limit / holders) is told to give connections
//! up; when there are fewer connections than holders, they take turns. After Redis lost its memory each keeps to its share
//! for the life of a lease, and holders that had leases before take no new one until all have said what they have.
//!
//! # What can't be known
//!
//! A lost reply may have been a grant: nothing is retried, the slice counts until it ends by itself. When
//! Redis was restarted, emptied or failed over (its run id or the epoch key changed), what was used before is
//! not known: [`GrantReply::Unknown`] says for how long the safe share holds. What is used under the safe share
//! is reported as `outside`, so that grants continue where it ended.
//!
//! Redis must not evict keys (`maxmemory-policy noeviction`), and its clock must not jump forward by more than
//! a small part of a window; a clock that jumps back is handled.

mod connection;
mod grant;
mod grants;
mod quota;
mod script;
mod share;
mod slot;
mod turns;
mod words;

pub use connection::{Options, server_clock};
pub use grant::{GrantReply, GrantRequest, SliceId, SliceUse};
pub use grants::{Error, Grants, Unavailable};
pub use quota::{Charged, Clock, Quotas, Receipt, Scope, WindowLimit};
pub use share::safe_share;
pub use slot::{SLOT_TTL, SlotReply, SlotRequest};
pub use words::{Command, Memory, Words};
