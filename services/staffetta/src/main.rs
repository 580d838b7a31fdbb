//! The binary `staffetta`: the services, and what operates them.

mod admin;
mod cli;
mod commands;
mod dialogue;
mod documents;
mod local;
mod output;
mod services;
mod signers;
mod stores;
mod timeline;
mod waiting;

use std::process::ExitCode;

/// Messages come and go in sizes of all kinds on many threads; glibc's allocator keeps what it had.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    match cli::start() {
        Ok(code) => code,
        Err(error) => {
            output::complain(&error);
            ExitCode::FAILURE
        }
    }
}
