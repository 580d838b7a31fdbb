//! The sender: takes assignments from the schedulers, speaks SMTP with the hosts of the destination, and
//! reports what they said. Holds nothing on disk.
//!
//! | module | what is in it |
//! |---|---|
//! | `run` | start, finding the schedulers, graceful stop |
//! | `stream`, `outbox` | the dispatch stream to one scheduler |
//! | `attempt`, `ledger`, `desk` | what is held, may be finished, and is owed: begin, permit, report |
//! | `delivery` | one delivery from assignment to report |
//! | `content`, `signing` | the message and its signature |
//! | `lane`, `reach` | how a site is reached from a source, and as whom |
//! | `secret` | passwords and tokens in files |
//! | `slots` | the connections that are open between deliveries |
//! | `policies` | what domains say about TLS to their hosts (MTA-STS) |
//! | `reporting` | what TLS came to, counted for the domains that ask for reports |
//! | `domain_checks` | what is published about sending domains, looked at on a schedule |
//! | `transcript` | the dialogue of an attempt, as it is told when it fails |
//! | `validation` | whether the resolvers check DNSSEC |
//! | `session` | SMTP: finding a host, opening a connection, the transaction |

mod attempt;
mod content;
mod delivery;
mod desk;
mod domain_checks;
mod lane;
mod ledger;
mod metrics;
mod outbox;
mod policies;
mod reach;
mod reporting;
mod run;
mod secret;
mod session;
mod signing;
mod slots;
mod stream;
#[cfg(test)]
mod tests;
mod transcript;
mod validation;

pub use run::{Error, Links, Schedulers, run};

/// Registers the metrics of the service, so that they can be described without running it.
pub fn register_metrics() {
    metrics::Metrics::new();
    metrics::cache();
    metrics::transcripts();
    metrics::dnssec();
    metrics::DomainMetrics::new();
}
