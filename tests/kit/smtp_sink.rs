//! Postfix's smtp-sink: an MX host that is not our code.

use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::Process;
use crate::place::{TRIES, free_port};
use crate::servers::{LOOPBACK, READY, server};

/// A running smtp-sink that takes everything.
pub struct SmtpSink {
    address: SocketAddr,
    _process: Process,
}

impl SmtpSink {
    /// Starts one on the loopback address.
    pub async fn start(folder: &Path) -> Result<Self> {
        let mut last = Err(anyhow!("no port was tried"));
        for _ in 0..TRIES {
            let address = SocketAddr::new(LOOPBACK, free_port(LOOPBACK)?);
            let mut arguments = vec![address.to_string(), "256".to_owned()];
            // Root must say as whom it is to run, and nobody else may.
            if std::fs::metadata("/proc/self")?.uid() == 0 {
                arguments.splice(0..0, ["-u".to_owned(), "root".to_owned()]);
            }
            let mut process =
                Process::start("smtp-sink", folder, &server("smtp-sink")?, arguments)?;
            match greeted(&mut process, address).await {
                Ok(()) => {
                    return Ok(Self {
                        address,
                        _process: process,
                    });
                }
                Err(error) => last = Err(error),
            }
        }
        last.context("smtp-sink does not start")
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

/// Waits for its banner, as it prints nothing.
async fn greeted(process: &mut Process, address: SocketAddr) -> Result<()> {
    let begun = Instant::now();
    loop {
        if let Ok(mut connection) = TcpStream::connect(address).await {
            let mut banner = [0; 64];
            let read = timeout(READY, connection.read(&mut banner)).await??;
            // One that ended had its port taken, and the banner is somebody else's.
            if process.is_running() && banner[..read].starts_with(b"220 smtp-sink ") {
                return Ok(());
            }
            bail!("its port was taken:\n{}", process.log_tail());
        }
        if !process.is_running() || begun.elapsed() > READY {
            bail!("it does not listen:\n{}", process.log_tail());
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
