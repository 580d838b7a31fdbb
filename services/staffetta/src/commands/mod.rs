//! A module for each command.

pub(crate) mod apply;
pub(crate) mod bounce;
pub(crate) mod check;
pub(crate) mod credential;
pub(crate) mod dkim;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod hash_password;
pub(crate) mod init;
pub(crate) mod metrics_reference;
pub(crate) mod preflight;
pub(crate) mod queue;
pub(crate) mod run;
pub(crate) mod shaping;
pub(crate) mod srs;
pub(crate) mod suppression;
pub(crate) mod tenants;
pub(crate) mod trace;
pub(crate) mod up;
pub(crate) mod webhook;
pub(crate) mod why;
