//! Where a test keeps its files, and which ports it listens on.

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// The folder of one test.
pub struct Place {
    path: PathBuf,
}

impl Place {
    /// An empty folder for the test of this name; what an earlier run left there goes.
    pub fn new(test: &str) -> Result<Self> {
        // The name of a run keeps two runs at once apart; that of a dead run is taken over.
        let path = target_folder().join("tmp/it").join(test);
        if path.exists() {
            std::fs::remove_dir_all(&path).with_context(|| format!("cannot empty {path:?}"))?;
        }
        std::fs::create_dir_all(&path).with_context(|| format!("cannot make {path:?}"))?;
        Ok(Self { path })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the folder: the test has passed.
    pub fn finish(self) -> Result<()> {
        std::fs::remove_dir_all(&self.path)
            .with_context(|| format!("cannot remove {:?}", self.path))
    }
}

/// Cargo's target folder.
pub(crate) fn target_folder() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => PathBuf::from(folder),
        None => repository().join("target"),
    }
}

/// The root of the checkout.
pub(crate) fn repository() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("the package lies in the checkout")
        .to_path_buf()
}

/// A port that was free a moment ago on the address.
pub fn free_port(address: IpAddr) -> Result<u16> {
    let listener = TcpListener::bind(SocketAddr::new(address, 0)).context("no port is free")?;
    Ok(listener.local_addr()?.port())
}

/// One port number that was free a moment ago on all the addresses.
pub fn free_port_on(addresses: &[IpAddr]) -> Result<u16> {
    let Some(first) = addresses.first() else {
        bail!("no address was given");
    };
    for _ in 0..100 {
        let port = free_port(*first)?;
        let all = addresses
            .iter()
            .all(|address| TcpListener::bind(SocketAddr::new(*address, port)).is_ok());
        if all {
            return Ok(port);
        }
    }
    bail!("no port is free on all of {addresses:?}")
}
