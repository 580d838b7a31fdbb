//! The integration tests, in one binary so that they are linked once. They need `make servers`.

mod dependencies;
mod dialogs;
mod draining;
mod events;
mod forwarding;
mod holds;
mod keys;
mod kill;
mod limits;
mod metrics;
mod operations;
mod outside;
mod pipeline;
mod pools;
mod proxy;
mod sandbox;
mod scanners;
mod servers;
mod signatures;
mod stalled;
mod starting;
mod submission;
mod tenants;
mod token_issuer;
mod tokens;
mod trust;
