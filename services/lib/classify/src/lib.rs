//! What a reply means for a message: delivered, try again, give up, or nothing to do with the message at all.
//!
//! The stage of the dialogue decides first ("outcome by stage"): a host that refuses before MAIL has said
//! nothing of any message, so even its 5xx is [`Kind::HostTrouble`]; only replies to MAIL, RCPT, DATA and the
//! final dot can end a delivery. Then come two tables that are data: the 5xx replies that are temporary in
//! truth ([`TEMPORARY`]) and the reasons that replies give ([`Class`]). Pure: no clock, no I/O.
//!
//! - [`Observation`], [`Stage`], [`Kind`], [`Class`], [`Verdict`]: the nouns
//! - [`classify`]: the decision
//! - [`retry_after`]: how long a reply asks to wait

mod decide;
mod observation;
mod retry_after;
mod rules;
#[cfg(test)]
mod tests;

pub use decide::classify;
pub use observation::{Class, Kind, Observation, Stage, Verdict};
pub use retry_after::retry_after;
pub use rules::{TEMPORARY, TemporaryRule};
