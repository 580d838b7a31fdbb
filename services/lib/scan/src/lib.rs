//! What scanners of messages speak, as octets: no sockets, no clocks, no policy.
//!
//! | module | whom it is for | sends | reads |
//! |---|---|---|---|
//! | [`clamav`] | clamd, sessions of INSTREAM | chunks | [`clamav::ReplyDecoder`] |
//! | [`http`], [`rspamd`] | a normal worker of Rspamd, `/checkv2` | chunks, and who sends to whom | [`http::ResponseDecoder`], [`rspamd::read_reply`] |
//! | [`milter`] | a milter, version 6 of the protocol | the message command by command: [`milter::Dialogue`] | [`milter::PacketDecoder`] |
//!
//! Each ends with a [`Verdict`]. What a scanner says is not trusted: every decoder has a bound, gives the same however its input
//! was cut, and what can reach a client or a message is printable ASCII ([`public_text`], [`Reply`]).

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

pub mod clamav;
pub mod http;
pub mod milter;
pub mod rspamd;
mod verdict;

pub use verdict::{Opinion, Reply, Verdict, public_text};

use std::net::IpAddr;

/// What scanners are told of a message beside its content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Envelope {
    /// Under which it is accepted, if it is.
    pub id: String,
    /// Our name.
    pub hostname: String,
    /// From where it comes; `None`: not known.
    pub client: Option<IpAddr>,
    /// What the client calls itself.
    pub hello: String,
    /// As whom the client has logged in; may be empty.
    pub user: String,
    /// Empty for the null reverse-path.
    pub return_path: String,
    /// In the order of the commands.
    pub recipients: Vec<String>,
    /// Octets of the header section with its empty line.
    pub header_length: usize,
}
