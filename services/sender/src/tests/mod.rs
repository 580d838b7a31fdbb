//! The sender against real and scripted hosts, and a scheduler that the test plays.

mod host;
mod hostile;
mod ledger;
mod names;
mod play;
mod protocol;
mod sink;
mod transactions;
mod transcripts;
mod trust;
