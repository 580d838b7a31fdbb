//! The milter protocol, version 6, as its client: what Sendmail, Postfix and libmilter speak with each other
//! (libmilter/mfdef.h; there is no RFC).
//!
//! A connection is for one message: [`offer`], the milter's answer ([`Agreed::read`]), then the commands of a
//! [`Dialogue`], and [`QUIT`]. All of it is said when the content is there, so what a milter answers to any command counts
//! for the whole message.
//!
//! A milter may add header fields and ask that a message be kept. No other changes are offered: the body is hashed and
//! partly stored, and the recipients have had their replies, before the milter has seen everything.

mod dialogue;
mod fields;
mod negotiation;
mod packet;

pub use dialogue::{Dialogue, Heard, Next};
pub use negotiation::{Agreed, offer};
pub use packet::{Packet, PacketDecoder};

use packet::write;

/// Ends a connection.
pub const QUIT: &[u8] = &[0, 0, 0, 1, b'Q'];

/// What a milter says can't be taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A packet without anything in it, or larger than any reply.
    #[error("a packet of {0} octets")]
    Length(u32),
    /// Not the answer to an offer.
    #[error("its answer to the negotiation can't be understood")]
    Negotiation,
    /// It wants to do what is not offered (bits of SMFIF_).
    #[error("it wants to change messages in ways that are not offered (actions {0:#x})")]
    Actions(u32),
    /// It wants commands that are not offered (bits of SMFIP_).
    #[error("it wants the protocol to be changed in ways that are not offered ({0:#x})")]
    Protocol(u32),
    /// A change that was not agreed on, or not before the end of the message.
    #[error("it wants to change the message by {0:?}, which was not agreed on")]
    Change(char),
    /// A header field that is none, or too many of them.
    #[error("it adds a header field that can't be taken")]
    Field,
    /// A reply to the client that refuses nothing.
    #[error("its reply for the client can't be understood")]
    Reply,
    /// It gives up.
    #[error("it gives up the connection")]
    GivenUp,
    /// Nothing that is known.
    #[error("it answers {0:?}")]
    Unknown(char),
}
