//! What must stand in the DNS about a domain that mail is sent for, and about the addresses that it is sent from; and what of
//! it is wrong.
//!
//! [`Doctor::examine`] looks at everything from outside, as receivers do: SPF, DKIM, DMARC, the way back for bounces, the names
//! of the addresses, MTA-STS and TLS-RPT. It changes nothing. The only user of `mail-auth`, which evaluates SPF and reads
//! records of DMARC and TLS-RPT.

mod configured;
mod dmarc;
mod doctor;
mod finding;
mod inbound;
mod keys;
mod names;
mod spf;

pub use configured::domains_and_pools;
pub use doctor::{Doctor, Error, Key, KeyUse, Source, Subject};
pub use finding::{Finding, Record, Topic, Verdict};
