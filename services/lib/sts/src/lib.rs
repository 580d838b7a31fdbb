//! What domains say with MTA-STS (RFC 8461) about TLS to their mail hosts.
//!
//! - [`policy_id`]: the TXT record of `_mta-sts.<domain>`, which says that there is a policy, and which
//! - [`Policy`]: the policy itself, which is fetched over https, and the hosts that it takes
//! - [`Book`]: what is known of each domain, for how long, and when to look again
//!
//! Pure: who asks the DNS and fetches is in the sender (`policies.rs`).

mod book;
mod policy;
mod record;

pub use book::{Book, Bounds, Finding, Known};
pub use policy::{Mode, Policy, PolicyError};
pub use record::policy_id;
