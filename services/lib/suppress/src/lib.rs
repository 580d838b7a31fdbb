//! Suppression: whom nothing is sent to, for which mail, and why.
//!
//! | module | what is in it |
//! |---|---|
//! | [`Keys`], [`normal_form`] | addresses as they are compared and stored |
//! | [`Scope`] | for which mail an entry holds |
//! | [`Table`] | all entries in memory, for who asks about each recipient |
//! | [`Fold`] | what the changes of a shard come to, with all that is known of each |
//! | [`meaning`], [`Meaning`] | what an outcome says of an address |
//! | [`Strikes`] | addresses that failed for a while, and on which days |

mod fold;
mod keys;
mod meaning;
mod scope;
mod strikes;
mod table;

pub use fold::{Fold, KEPT_MS};
pub use keys::{AddressKey, Keys, SHARDS, normal_form, shard_of};
pub use meaning::{Meaning, meaning};
pub use scope::Scope;
pub use strikes::{Limit, Strikes, Struck, day_of};
pub use table::{Hit, Reach, Table};

/// Format of the records that this release writes.
pub const FORMAT: u32 = 1;

/// The name of a reason, as it is written in files, events and documents.
pub const fn reason_name(reason: proto::suppression::Reason) -> &'static str {
    use proto::suppression::Reason;
    match reason {
        Reason::Unspecified => "unknown",
        Reason::Hard => "hard",
        Reason::Soft => "soft",
        Reason::Complaint => "complaint",
        Reason::Unsubscribe => "unsubscribe",
        Reason::Manual => "manual",
        Reason::Import => "import",
    }
}

/// The reason of this name.
pub fn reason_of(name: &str) -> Option<proto::suppression::Reason> {
    use proto::suppression::Reason;
    let all = [
        Reason::Hard,
        Reason::Soft,
        Reason::Complaint,
        Reason::Unsubscribe,
        Reason::Manual,
        Reason::Import,
    ];
    all.into_iter().find(|reason| reason_name(*reason) == name)
}
