//! The two servers' programs.

use std::path::{Path, PathBuf};
use std::process::Command;

/// One stream copy works from here.
pub(crate) const LEAST_NATS_R1: [u32; 3] = [2, 14, 0];
/// One fsync for each Raft entry.
pub(crate) const LEAST_NATS_R3: [u32; 3] = [2, 15, 0];

/// A program that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    /// Where.
    pub(crate) path: PathBuf,
    /// As it says of itself.
    pub(crate) version: [u32; 3],
}

impl Program {
    /// `2.15.1`.
    pub(crate) fn version_text(&self) -> String {
        let [major, minor, patch] = self.version;
        format!("{major}.{minor}.{patch}")
    }
}

/// nats-server: the newest of the PATH and of `.servers/bin`, where `make servers` puts it.
pub(crate) fn find_nats_server() -> Option<Program> {
    newest("nats-server")
}

/// redis-server, found likewise.
pub(crate) fn find_redis_server() -> Option<Program> {
    newest("redis-server")
}

fn newest(name: &str) -> Option<Program> {
    let found = folders()
        .into_iter()
        .filter_map(|folder| program(&folder.join(name)));
    found.max_by_key(|program| program.version)
}

fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::env::var_os("PATH")
        .map(|path| std::env::split_paths(&path).collect())
        .unwrap_or_default();
    // Debian keeps daemons where a plain user's PATH does not look.
    folders.extend(["/usr/local/sbin", "/usr/sbin", "/sbin", ".servers/bin"].map(PathBuf::from));
    // The binary of a checkout stands in target/release.
    let of_checkout = std::env::current_exe().ok().and_then(|binary| {
        let target = binary.parent()?.parent()?;
        Some(target.parent()?.join(".servers/bin"))
    });
    folders.extend(of_checkout);
    folders
}

fn program(path: &Path) -> Option<Program> {
    if !path.is_file() {
        return None;
    }
    let output = Command::new(path).arg("--version").output().ok()?;
    let version = version_in(&String::from_utf8_lossy(&output.stdout))?;
    Some(Program {
        path: path.to_owned(),
        version,
    })
}

/// The first `n.n.n` in a text.
fn version_in(text: &str) -> Option<[u32; 3]> {
    let is_part = |c: char| c.is_ascii_digit() || c == '.';
    let words = text.split(|c| !is_part(c));
    words.filter_map(version).next()
}

fn version(word: &str) -> Option<[u32; 3]> {
    let mut numbers = word.split('.').map(|number| number.parse().ok());
    let version = [numbers.next()??, numbers.next()??, numbers.next()??];
    numbers.next().is_none().then_some(version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_versions_that_the_servers_print() {
        assert_eq!(version_in("nats-server: v2.15.1\n"), Some([2, 15, 1]));
        assert_eq!(
            version_in("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0"),
            Some([7, 0, 15])
        );
        assert_eq!(version_in("nothing here 1.2"), None);
    }
}
