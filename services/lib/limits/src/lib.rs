//! Limits that hold over all replicas: parts of a lane's rates and leases of its connections, lent by Redis.
//!
//! - [`Grants`]: the connection, [`Grants::ask`] and [`Grants::lease`]
//! - [`GrantRequest`], [`GrantReply`], [`Dated`]: what is asked and answered about rates
//! - [`SlotRequest`], [`SlotReply`], [`SLOT_TTL`]: about connections
//! - [`Quotas`], [`Scope`], [`Charged`]: uses in sliding windows, charged one by one (see its module)
//! - [`Claims`], [`Claimed`]: what one of many does, and the others hear what came of it
//! - [`Habits`], [`Doings`], [`Picture`]: what somebody does usually, and what it does now
//! - [`Grants::turns`]: turns of a weighted rotation that all take part in
//! - [`servers`]: what the servers are and whether they let us in, for who looks at an installation
//! - [`Grants::join`], [`Grants::may_share`]: who is heard, and who may use a share of its own
//! - [`Words`], [`Epoch`], [`LeasedIn`]: what is said and answered, for who brings a server of its own (the simulation)
//! - [`safe_share`]: what a replica may use when Redis cannot be asked
//!
//! # How it counts
//!
//! A grant is leave for `amount` uses for a moment. Each holder says with every word how many uses it *has*: granted
//! and not dated, because they are not used yet or are under way. Those count as long as it has them. What it dates
//! counts from then on by its date, until one window after it. So a use counts without a gap from before it begins
//! until a window after it has happened, and over any window the sum of all replicas is at most the limit, however long a
//! use is under way. All of it happens in one atomic script over one key, by Redis' own clock; a date is told as how long
//! ago it was, so no two clocks are compared.
//!
//! Of the limit `window / (window + t)` is used, `t` the mean time from grant to date, less about 1 % of the window: dates
//! are kept to 1/256 of it, and who finds nothing asks again when 1/128 of the limit is free. So a window of which all is
//! used costs about 128 calls, and as many as there are holders for a limit smaller than that.
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
//! A lost reply may have been a grant: what it granted counts until the holder says again what it has. A holder that
//! crashed counts as having what it had for one window (at least 2 s, at most 30 s) and one window more. When Redis was
//! restarted, emptied or failed over (its run id or the epoch key changed), what was used before is not known:
//! [`GrantReply::Unknown`] says for how long the safe share holds. What is used under the safe share is told as all
//! else is, so that grants continue where it ended.
//!
//! # Who is not heard
//!
//! Some may reach Redis while others don't. A scheduler is heard twice a second ([`Grants::join`]). Of one that was silent
//! for 2 s nobody is lent what it may use by itself, and it uses that after twice the time and when nothing counts any
//! more that the others were lent before. When it comes back it goes on with its share until all that it used has been
//! told; for windows that are longer than it was away nothing changes, since it used nothing.
//!
//! Of several servers the master is used, and of two masters the one whose epoch has the higher term; in Redis Cluster the
//! counts are spread over buckets, each with an epoch of its own (see `connection` and `keys`).
//!
//! Redis must not evict keys (`maxmemory-policy noeviction`), and its clock must not jump forward by more than
//! a small part of a window; a clock that jumps back is handled.

mod claims;
mod connection;
mod grant;
mod grants;
mod habits;
mod keys;
mod presence;
mod quota;
mod script;
mod share;
mod slot;
mod turns;
mod words;

pub use claims::{Claimed, Claims};
pub use connection::{Epoch, Options, Role, Seen, servers};
pub use grant::{Dated, GrantReply, GrantRequest};
pub use grants::{Error, Grants, Unavailable};
pub use habits::{Bound, Bounds, Doings, Habits, Picture};
pub use quota::{Charged, Clock, Quotas, Receipt, Scope, WindowLimit};
pub use share::safe_share;
pub use slot::{LeasedIn, SLOT_TTL, SlotReply, SlotRequest};
pub use words::{Answer, Command, Words};
