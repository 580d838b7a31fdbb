//! The listener for what comes back: reports, complaints, and what people write to addresses of ours. Apart from that for
//! clients: there is no login here, nothing is relayed, and a recipient is one of those that we made, or the postmaster of a
//! domain of return paths.
//!
//! | module | what is in it |
//! |---|---|
//! | `session` | the dialogue as a state machine |
//! | `connection` | one connection: reads, asks the session, writes; the content, into the stream `INBOUND` |

mod connection;
mod session;

pub(crate) use connection::Connection;
