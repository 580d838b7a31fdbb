//! Delivery status notifications: the message that tells a sender which recipients were not reached
//! (RFC 3464 in the multipart/report of RFC 6522, with the parameters of RFC 3461).
//!
//! - [`Report`], [`FailedRecipient`], [`Original`]: what is told
//! - [`notification`]: the message, as [`Built`]
//! - `status_fields`, `explanation`, `original`: its three parts
//! - `text`: what makes hostile text harmless
//!
//! Everything that came from elsewhere (reply texts, addresses, ORCPT, ENVID, the original's header) is hostile:
//! it can neither start a field or a part of its own nor make the message long. Pure; the same report always
//! gives the same bytes.

mod compose;
mod date;
mod explanation;
mod original;
mod report;
mod status_fields;
#[cfg(test)]
mod tests;
mod text;

pub use compose::{Built, notification};
pub use original::FULL_RETURN_LIMIT;
pub use report::{Action, FailedRecipient, Failure, Original, Report, Return};
