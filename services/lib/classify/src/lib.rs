//! What a reply means for a message: delivered, try again, give up, or nothing to do with the message at all.
//!
//! The stage of the dialogue decides first ("outcome by stage"): a host that refuses before MAIL has said
//! nothing of any message, so even its 5xx is [`Kind::HostTrouble`]; only replies to MAIL, RCPT, DATA and the
//! final dot can end a delivery. Then come rules that are data (`rules/*.yaml`): the 5xx replies that are temporary in
//! truth, and the reasons that replies give ([`Reason`], of which the [`Class`] is stored). Pure: no clock, no I/O.
//!
//! - [`Observation`], [`Stage`], [`Kind`], [`Class`], [`Verdict`], [`Reason`], [`Judgement`]: the nouns
//! - [`classify`]: the decision by the shipped rules
//! - [`Rules`]: the rules, and those of an installation before them
//! - [`retry_after`]: how long a reply asks to wait
//! - `words`, `phrases`: how texts are looked through

mod decide;
mod observation;
mod phrases;
mod reason;
mod retry_after;
mod rules;
#[cfg(test)]
mod tests;
mod words;

pub use decide::classify;
pub use observation::{Class, Judgement, Kind, Observation, Stage, Verdict};
pub use phrases::PhraseError;
pub use reason::Reason;
pub use retry_after::retry_after;
pub use rules::{Rules, RulesError};
