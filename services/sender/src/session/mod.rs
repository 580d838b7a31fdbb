//! The client's side of SMTP: opening a connection to a site, and transactions on it.

mod asked;
mod auth;
mod commands;
mod connect;
mod connection;
mod dane;
mod demand;
mod dial;
mod failure;
mod fault;
mod identity;
mod io;
mod open;
mod socks;
mod targets;
mod tls;
mod transaction;
mod tried;

pub(crate) use commands::{Mail, MailRecipient, Unfit, recipients, variant};
pub(crate) use connection::Connection;
pub(crate) use open::{Names, OpenFailure, Opener};
pub(crate) use transaction::{Ended, Outcome, Said, transact};

use proto::journal::{Reply, Stage};

/// Octets of a reply's text that are reported.
const REPORTED_TEXT: usize = 1024;

/// A reply of the other side, as it is reported.
fn reported(stage: Stage, reply: &smtp::Reply) -> Reply {
    Reply {
        stage: stage.into(),
        code: reply.code.into(),
        enhanced: reply
            .enhanced
            .map(|enhanced| enhanced.to_string())
            .unwrap_or_default(),
        text: reply.text(REPORTED_TEXT),
    }
}

/// Hosts that could be trusted do not take messages with REQUIRETLS (RFC 8689 section 4.2.1). Said as if of MAIL, since it
/// is about the message and not about the host.
fn no_require_tls() -> Reply {
    let text = "REQUIRETLS support required: no host of the domain that may be trusted has it";
    own_words(Stage::Mail, 550, "5.7.30", text)
}

/// What went wrong without a reply, or what this side says itself.
pub(crate) fn own_words(stage: Stage, code: u32, enhanced: &str, text: &str) -> Reply {
    Reply {
        stage: stage.into(),
        code,
        enhanced: enhanced.into(),
        text: text[..text.floor_char_boundary(REPORTED_TEXT)].into(),
    }
}
