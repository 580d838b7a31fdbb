//! A server that runs as our child: started again when it dies, stopped when we stop.

use std::fs::{self, OpenOptions};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use runtime::Shutdown;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use tokio::process::Command;
use tokio::task::JoinHandle;

/// A server has so long to end after SIGTERM.
const PATIENCE: Duration = Duration::from_secs(20);
/// Before a server that died is started again.
const PAUSE: Duration = Duration::from_secs(1);
/// How often it is seen whether a server of an earlier run has ended.
const LOOK: Duration = Duration::from_millis(50);

/// How a server is started.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    /// For the log.
    pub(crate) name: &'static str,
    /// The program.
    pub(crate) program: PathBuf,
    /// Its arguments; one of them names a path in the data folder, by which it is known again.
    pub(crate) arguments: Vec<String>,
    /// What it prints is appended here.
    pub(crate) log: PathBuf,
    /// Holds its process id.
    pub(crate) pid_file: PathBuf,
    /// What it listens on, and where that is configured.
    pub(crate) addresses: Vec<(SocketAddr, &'static str)>,
}

/// Keeps a server running until it is stopped.
pub(crate) struct Child {
    stop: Shutdown,
    keeper: JoinHandle<()>,
}

impl Child {
    /// Ends what an earlier run left behind (it was killed), then starts the server.
    pub(crate) async fn start(recipe: Recipe) -> anyhow::Result<Self> {
        end_leftover(&recipe).await?;
        for (address, setting) in &recipe.addresses {
            std::net::TcpListener::bind(address)
                .with_context(|| format!("{}: {address} ({setting}) is not free", recipe.name))?;
        }
        let first = recipe.spawn()?;
        let stop = Shutdown::new();
        let keeper = tokio::spawn(keep(recipe, first, stop.clone()));
        Ok(Self { stop, keeper })
    }

    /// Asks the server to end and waits until it has.
    pub(crate) async fn stop(self) {
        self.stop.request();
        if let Err(error) = self.keeper.await {
            tracing::error!(%error, "the keeper of a server failed");
        }
    }
}

impl Recipe {
    fn spawn(&self) -> anyhow::Result<tokio::process::Child> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| self.log.display().to_string())?;
        let errors = log.try_clone().context("the log of a server")?;
        let child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // Ctrl-C is for us: the servers end last.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} can't be started", self.program.display()))?;
        if let Some(pid) = child.id() {
            fs::write(&self.pid_file, pid.to_string())
                .with_context(|| self.pid_file.display().to_string())?;
        }
        Ok(child)
    }
}

async fn keep(recipe: Recipe, first: tokio::process::Child, stop: Shutdown) {
    let mut child = first;
    loop {
        tokio::select! {
            () = stop.requested() => return end(&recipe, child).await,
            ended = child.wait() => {
                let status = ended.map_or_else(|error| error.to_string(), |status| status.to_string());
                let log = recipe.log.display();
                tracing::error!(server = recipe.name, status, %log, "the server ended by itself; starting it again");
            }
        }
        child = loop {
            tokio::select! {
                () = tokio::time::sleep(PAUSE) => {}
                () = stop.requested() => return,
            }
            match recipe.spawn() {
                Ok(child) => break child,
                Err(error) => tracing::error!(server = recipe.name, "{error:#}"),
            }
        };
    }
}

async fn end(recipe: &Recipe, mut child: tokio::process::Child) {
    let pid = child
        .id()
        .and_then(|pid| i32::try_from(pid).ok())
        .and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It may have ended just now.
        kill_process(pid, Signal::TERM).ok();
    }
    if tokio::time::timeout(PATIENCE, child.wait()).await.is_err() {
        tracing::warn!(server = recipe.name, "does not end; killed");
        if let Err(error) = child.kill().await {
            tracing::error!(server = recipe.name, %error, "can't be killed");
        }
    }
    drop(fs::remove_file(&recipe.pid_file));
}

/// Ends the server of an earlier run over the same data, if it still runs.
async fn end_leftover(recipe: &Recipe) -> anyhow::Result<()> {
    let Some(pid) = leftover(recipe) else {
        return Ok(());
    };
    tracing::warn!(
        server = recipe.name,
        "the server of an earlier run is still there; stopping it"
    );
    kill_process(pid, Signal::TERM).ok();
    let ended = async {
        while test_kill_process(pid).is_ok() {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(PATIENCE, ended).await.map_err(|_| {
        anyhow::anyhow!(
            "{} of an earlier run (process {}) does not end",
            recipe.name,
            pid.as_raw_nonzero()
        )
    })
}

/// The process of the pid file, when it is really that server: its command line names the same paths.
fn leftover(recipe: &Recipe) -> Option<Pid> {
    let pid: i32 = fs::read_to_string(&recipe.pid_file)
        .ok()?
        .trim()
        .parse()
        .ok()?;
    let command_line = fs::read(Path::new("/proc").join(pid.to_string()).join("cmdline")).ok()?;
    let command_line = String::from_utf8_lossy(&command_line).replace('\0', " ");
    let ours = recipe
        .arguments
        .iter()
        .filter(|argument| argument.contains('/'))
        .all(|argument| command_line.contains(argument.as_str()));
    if ours { Pid::from_raw(pid) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeper(folder: &Path) -> Recipe {
        Recipe {
            name: "sleeper",
            program: PathBuf::from("/bin/sh"),
            arguments: [
                "-c",
                "echo started; exec sleep 1000",
                folder.to_str().unwrap(),
            ]
            .map(str::to_owned)
            .to_vec(),
            log: folder.join("sleeper.log"),
            pid_file: folder.join("sleeper.pid"),
            addresses: Vec::new(),
        }
    }

    fn pid(recipe: &Recipe) -> Option<Pid> {
        let text = fs::read_to_string(&recipe.pid_file).ok()?;
        Pid::from_raw(text.parse().ok()?)
    }

    #[tokio::test]
    async fn a_server_that_dies_is_started_again_and_ends_when_asked() {
        let folder = tempfile::tempdir().unwrap();
        let recipe = sleeper(folder.path());
        let child = Child::start(recipe.clone()).await.unwrap();
        let first = pid(&recipe).unwrap();
        kill_process(first, Signal::KILL).unwrap();
        let second = tokio::time::timeout(Duration::from_secs(60), async {
            loop {
                match pid(&recipe) {
                    Some(second) if second != first => return second,
                    _ => tokio::time::sleep(LOOK).await,
                }
            }
        })
        .await
        .unwrap();
        child.stop().await;
        assert!(test_kill_process(second).is_err());
        assert!(!recipe.pid_file.exists());
    }
}
