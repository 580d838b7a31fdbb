//! Ingress: accepts messages over SMTP, and says 250 only when they are on stable storage.
//!
//! | module | what is in it |
//! |---|---|
//! | `server` | start, listeners, stop |
//! | `connection` | one connection: reads, asks the session, writes |
//! | `wire` | what every connection does, whatever is said on it |
//! | `session` | the SMTP session as a state machine |
//! | `proxy` | whose connection a load balancer hands on |
//! | `policy` | who may send as whom |
//! | `forwarding` | mail of senders who are not of the tenant |
//! | `chain` | what its signatures are worth, for its ARC set |
//! | `checks` | what follows when a tenant's checks find something |
//! | `quota` | how much a tenant, a credential, a network may send |
//! | `sasl`, `scram`, `login`, `password` | AUTH: from lines to a claim, proofs, from a claim to an answer, Argon2 |
//! | `token`, `issuers` | logins with tokens; the keys of who issues them |
//! | `return_paths` | where reports on a message go, made for each recipient |
//! | `inbound` | the listener for what comes back |
//! | `receive`, `content`, `store` | the message: received and judged; its bytes on the way; into the spool |
//! | `scanning` | scanners that are asked before a message is accepted |
//! | `headers`, `links` | the fields that messages get where they are missing |
//! | `memory` | the bound on all contents together |
//! | `events` | what is told of refusals, logins and checks |
//! | `watching` | credentials that may be stolen |
//! | `suppression` | recipients that nothing is sent to any more |
//! | `watch_stores` | readiness and the writer's figures |
//! | `answer`, `socket`, `metrics` | replies, the connection's two forms, counters |
//!
//! What it accepts beyond the letter of the RFCs, and what it refuses: lines of any length in a
//! message are accepted, since clients in the field send them (RFC 5321 section 4.5.3.1.6 names
//! 1,000 octets as the least that must be taken; the sender of a long line is warned by nobody, and
//! breaking it would break signatures). A CR or LF alone is refused, in commands and messages. Mail
//! to address literals is refused. An empty return path is accepted from every client that may send at
//! all. Content that comes with BDAT is held to the same line ends as that of DATA, with which it goes
//! on; binary content (BINARYMIME) is made into lines while it comes in.

mod answer;
mod chain;
mod checks;
mod connection;
mod content;
mod events;
mod forwarding;
mod headers;
mod inbound;
mod issuers;
mod links;
mod login;
mod memory;
mod metrics;
mod password;
mod policy;
mod proxy;
mod quota;
mod receive;
mod resubmission;
mod return_paths;
mod sasl;
mod scanning;
mod scram;
mod server;
mod session;
mod simulator;
mod socket;
mod store;
mod suppression;
mod token;
mod watch_stores;
mod watching;
mod wire;

pub use quota::QuotaError;
pub use server::{Error, Listeners, run};

/// Registers the metrics of the service, so that they can be described without running it.
pub fn register_metrics() {
    metrics::Metrics::new();
    scanning::register_metrics();
}
