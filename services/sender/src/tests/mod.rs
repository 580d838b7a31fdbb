//! The sender against real and scripted hosts, and a scheduler that the test plays.

mod dane;
mod host;
mod ledger;
mod names;
mod pieces;
mod play;
mod protocol;
mod sink;
mod transactions;
mod trust;
