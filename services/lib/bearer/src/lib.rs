//! OAuth access tokens as clients of SMTP bring them: the messages that they come in (RFC 7628, XOAUTH2), the tokens
//! themselves (JWT, RFC 7519) and the keys that their signatures are checked with (JWK sets, RFC 7517).
//!
//! Pure: octets and the time in, values or what is wrong out. Who fetches keys is `ingress`.

mod keys;
mod message;
mod token;

pub use keys::{Key, KeyError, KeySet, KeySetError, LeftOut};
pub use message::{Form, Message, MessageError, challenge};
pub use token::{Refusal, Token, Verified};
