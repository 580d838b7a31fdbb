//! The Sender Rewriting Scheme: return paths of forwarded mail, which name a domain of ours and lead bounces back to
//! whoever sent it.
//!
//! A host that forwards mail with the sender's return path fails the sender's SPF. With SRS the return path is
//! `SRS0=hash=day=domain=local@ours`, and that of mail which was forwarded so before is `SRS1=hash=host=rest@ours`, where
//! `rest` is what the first forwarder (`host`) will make the sender's address of. The hash keeps strangers from sending
//! bounces to anybody through us. Format, hash and days are those of libsrs2 and postsrsd, so that either side may be one of
//! them with the same secrets.
//!
//! | module | what is in it |
//! |---|---|
//! | [`Secrets`] | the file of secrets: the first signs, all are taken |
//! | [`Rewriter`] | there and back |
//! | `local_part` | local parts without their quotes, and with the quotes that they need |
//! | `stamp` | the day in two characters |

mod local_part;
mod rewriter;
mod secrets;
mod stamp;

pub use rewriter::{ForwardError, HASH_LENGTHS, ReverseError, Rewriter, is_rewritten};
pub use secrets::{Secrets, SecretsError};
