//! What a message is looked over for before it is accepted: the checks of its tenant (`preflight` of a Tenant).
//!
//! Pure, and the same for ingress and for `staffetta preflight check`. Header sections come first; content is looked at when it
//! is there, or the first part of it before that leaves.

mod alignment;
mod content;
mod findings;
mod header;
mod placeholders;

pub use content::look_at_content;
pub use findings::{Finding, Findings};
pub use header::{Envelope, look_at_header};
