//! Where a test keeps its files, and which ports it listens on.

use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

/// The folder of one test.
pub struct Place {
    path: PathBuf,
}

impl Place {
    /// An empty folder for the test of this name. What runs that are dead have left for it goes.
    pub fn new(test: &str) -> Result<Self> {
        let all = target_folder().join("tmp/it");
        std::fs::create_dir_all(&all).with_context(|| format!("cannot make {all:?}"))?;
        for entry in std::fs::read_dir(&all)? {
            let entry = entry?.path();
            let name = entry
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let Some((name, run)) = name.rsplit_once('.') else {
                continue;
            };
            let is_alive = Path::new("/proc").join(run).exists();
            if name == test && !is_alive {
                std::fs::remove_dir_all(&entry)
                    .with_context(|| format!("cannot remove {entry:?}"))?;
            }
        }
        // Two runs at once stay apart by their process ids.
        let path = all.join(format!("{test}.{}", std::process::id()));
        std::fs::create_dir(&path).with_context(|| format!("cannot make {path:?}"))?;
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
    let kit = Path::new(env!("CARGO_MANIFEST_DIR"));
    kit.ancestors()
        .nth(2)
        .expect("the package lies in tests/kit of the checkout")
        .to_path_buf()
}

/// Below the ports that the kernel gives to outgoing connections, so that none of those takes one of
/// ours between the look and the use.
const PORTS: std::ops::Range<u32> = 10_000..32_000;

/// How often a server is started on another port when the one found was taken meanwhile.
pub(crate) const TRIES: u32 = 4;

/// A port that was free a moment ago on the address, for TCP and UDP. Tests of this process never
/// get the same one twice; other processes begin elsewhere.
pub fn free_port(address: IpAddr) -> Result<u16> {
    static NEXT: OnceLock<AtomicU32> = OnceLock::new();
    let next = NEXT.get_or_init(|| AtomicU32::new(std::process::id().wrapping_mul(1_009)));
    for _ in PORTS {
        let number = next.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start);
        let port = u16::try_from(PORTS.start + number).expect("the range has 16 bits");
        if is_free(SocketAddr::new(address, port)) {
            return Ok(port);
        }
    }
    bail!("no port is free on {address}")
}

/// For TCP, and for UDP as well: a DNS server wants both.
fn is_free(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
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
            .all(|address| is_free(SocketAddr::new(*address, port)));
        if all {
            return Ok(port);
        }
    }
    bail!("no port is free on all of {addresses:?}")
}
