//! Real servers, programmable mail hosts and a client with a ledger, for the integration tests.
//!
//! A package of its own that depends on nothing of ours, so that the tests of every crate can use it.
//!
//! Every test has servers of its own on free loopback ports, and a folder of its own below
//! `target/tmp/it/` that holds their data and logs. The folder goes when the test has called
//! [`Place::finish`]; after a failure it stays for the person who looks for the reason.

#[cfg(feature = "sink")]
mod authority;
mod bootstrap;
mod client;
mod dns;
mod documents;
mod http;
#[cfg(feature = "sink")]
mod ledger;
#[cfg(feature = "sink")]
mod load;
mod message;
mod place;
mod process;
mod queue;
mod relay;
mod scanner;
mod servers;
mod signed;
#[cfg(feature = "sink")]
mod sink;
mod smtp_sink;
mod wait;
#[cfg(feature = "sink")]
mod web;

#[cfg(feature = "sink")]
pub use authority::Authority;
pub use client::{Outcome, Session, reply_code};
pub use dns::{Dns, Zones};
pub use documents::Documents;
pub use http::{get, metric};
#[cfg(feature = "sink")]
pub use ledger::{Balance, Ledger, Submission};
#[cfg(feature = "sink")]
pub use load::{Load, LoadOptions};
pub use message::{is_intact, message};
pub use place::{Place, free_port, free_port_on};
pub use process::{Process, Signal};
pub use queue::Queue;
pub use relay::{Layout, Relay, SERVICES, Setup};
pub use scanner::ScriptedScanner;
pub use servers::{NatsServer, RedisCluster, RedisServer, servers_folder};
pub use signed::{SignedDns, SignedZones};
#[cfg(feature = "sink")]
pub use sink::{Action, Matching, Received, Rule, Sink, Stage};
pub use smtp_sink::SmtpSink;
pub use wait::until;
#[cfg(feature = "sink")]
pub use web::WebServer;
