//! Webhooks: events posted to endpoints as they happen ([ADR 39](../../../../docs/adr/0039-webhooks-read-the-journals.md)).
//!
//! Nothing is copied into a queue: each webhook has its own place in each source of events, and one that is slow or dead
//! costs only that place.
//!
//! | module | what is in it |
//! |---|---|
//! | `board` | who posts; what begins and ends with the configuration; what is kept |
//! | `line` | one source for one webhook: gathered, posted, settled in order |
//! | `pace` | when it is posted again, and when it is given up: a state machine |
//! | `hook` | what the lines of one webhook share: its choice of events, its keys, its log |
//! | `batch`, `signature` | the body of a post, and who it is from |
//! | `shelf` | how far webhooks are in a source |

mod batch;
mod board;
mod hook;
mod line;
pub(crate) mod metrics;
mod pace;
mod shelf;
mod signature;

pub(crate) use board::run;
