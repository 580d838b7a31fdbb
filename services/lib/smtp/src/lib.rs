//! The SMTP protocol as octets, for both sides of a connection (RFC 5321 and its extensions):
//! no sockets, no clocks, no policy.
//!
//! Every decoder takes octets as they come from the network, in pieces of any size, says how many
//! it has used and keeps what it needs of an unfinished line. The result never depends on how the
//! input was cut. Nothing grows with what the other side sends beyond the bounds stated in its docs.
//!
//! | side | reads | writes |
//! |---|---|---|
//! | server | [`CommandDecoder`], [`AuthLineDecoder`], [`DataDecoder`], [`ChunkDecoder`] | [`write::reply`] |
//! | server, before all else | [`decode_proxy_header`] | |
//! | server, of a proxy | [`XClient`] | |
//! | client | [`ReplyDecoder`], [`EhloCapabilities`] | [`write::mail`] and the like, [`DataEncoder`] |

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod auth;
mod capabilities;
mod chunk_decoder;
mod command;
mod command_decoder;
mod data_decoder;
mod data_encoder;
mod deliver_by;
mod enhanced;
mod grammar;
mod line;
mod parameters;
mod proxy_protocol;
mod reply;
mod reply_decoder;
pub mod write;
mod xclient;
pub mod xtext;

pub use auth::{AuthLine, AuthLineDecoder, Secret};
pub use capabilities::{EhloCapabilities, Limits};
pub use chunk_decoder::ChunkDecoder;
pub use command::{Command, CommandError, ForwardPath};
pub use command_decoder::CommandDecoder;
pub use data_decoder::{DataDecoder, DataError, DataProgress};
pub use data_encoder::DataEncoder;
pub use deliver_by::{ByMode, DeliverBy};
pub use enhanced::EnhancedCode;
pub use line::Decoded;
pub use parameters::{Body, MailParams, Notify, OriginalRecipient, RcptParams, Release, Return};
pub use proxy_protocol::{
    ProxyDecoded, ProxyError, ProxyHeader, decode as decode_proxy_header,
    encode as encode_proxy_header,
};
pub use reply::{Reply, ReplyError};
pub use reply_decoder::ReplyDecoder;
pub use xclient::{XClient, XClientAddress, XClientError};
pub use xtext::Xtext;
