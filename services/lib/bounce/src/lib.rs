//! What comes back: reports on messages that were not delivered, complaints, and the answers of programs and people.
//!
//! - [`read`]: what a message is, as [`Inbound`]
//! - `head`, `signs`: who writes, and the words by which people would know
//! - `status`, `prose`: reports in fields (RFC 3464) and in words
//! - `feedback`: complaints (RFC 5965 and older forms)
//! - `original`: the message that was sent back
//! - [`TokenKeys`], [`Token`], [`Scopes`]: which message and recipient a report is about, and whose mail it was
//! - [`Destination`]: what an address that is written to is for
//! - [`Link`]: the same of a link on the web
//! - `judge`: why, by the rules of `classify`
//!
//! All of it is hostile. Work is linear in the message and memory bounded; what is kept is one line of at most 1 KiB each. Nothing
//! says which message a report is about but a token that only we can make: whoever writes to us may name any address. Pure: no
//! clock, no I/O.

mod address;
mod destination;
mod feedback;
mod head;
mod inbound;
mod judge;
mod line;
mod original;
mod prose;
mod read;
mod reply;
mod signs;
mod status;
#[cfg(test)]
mod tests;
mod token;

pub use destination::Destination;
pub use inbound::{
    Action, Automatic, Feedback, FeedbackKind, Form, Inbound, Original, Recipient, Report,
};
pub use read::{read, read_by};
pub use token::{
    KeysError, LONGEST_LINK, Link, LinkError, MintError, Purpose, Scopes, Subject, Token,
    TokenError, TokenKeys,
};
