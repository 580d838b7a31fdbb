//! The sender against real and scripted hosts, and a scheduler that the test plays.

mod announced;
mod dane;
mod host;
mod hostile;
mod ledger;
mod names;
mod pieces;
mod play;
mod protocol;
mod proxies;
mod reports;
mod sink;
mod smart_hosts;
mod transactions;
mod transcripts;
mod trust;
