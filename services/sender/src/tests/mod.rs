//! The sender against real and scripted hosts, and a scheduler that the test plays.

mod announced;
mod host;
mod ledger;
mod names;
mod pieces;
mod play;
mod protocol;
mod proxies;
mod sink;
mod smart_hosts;
mod transactions;
mod trust;
