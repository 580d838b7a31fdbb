//! Local mode: everything on one machine, out of one folder.

mod child;
mod folder;
mod programs;
mod servers;
mod starter;

pub(crate) use folder::{DataFolder, Ports, write_secret};
pub(crate) use programs::{
    LEAST_NATS_R1, LEAST_NATS_R3, Program, find_nats_server, find_redis_server,
};
pub(crate) use servers::Servers;
pub(crate) use starter::documents as starter_documents;
