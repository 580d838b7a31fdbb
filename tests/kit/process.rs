//! Child processes that never outlive the test.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What a process can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// Asks it to end.
    Term,
    /// Ends it at once, as `kill -9` does.
    Kill,
    /// Stops it where it is.
    Stop,
    /// Lets it go on.
    Continue,
}

/// A running child with a log file. It is killed when it is dropped, and when the test dies.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    /// Length of the log when this process was started.
    log_start: u64,
}

impl Process {
    /// Starts a program; what it prints is appended to `<folder>/<name>.log`.
    pub fn start<A: AsRef<OsStr>>(
        name: &str,
        folder: &Path,
        program: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Self> {
        let log = folder.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log)?;
        let log_start = out.metadata()?.len();
        // setpriv is in every Debian; the kernel kills the child when the thread of the test is gone.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {program:?}"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log,
            log_start,
        })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Whether it has printed the text since it was started.
    pub fn has_printed(&self, text: &str) -> bool {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let start = usize::try_from(self.log_start).unwrap_or(usize::MAX);
        String::from_utf8_lossy(log.get(start..).unwrap_or_default()).contains(text)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let number = match signal {
            Signal::Term => rustix::process::Signal::TERM,
            Signal::Kill => rustix::process::Signal::KILL,
            Signal::Stop => rustix::process::Signal::STOP,
            Signal::Continue => rustix::process::Signal::CONT,
        };
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), number)
            .with_context(|| format!("{} cannot be sent {signal:?}", self.name))
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill9(mut self) -> Result<()> {
        self.child
            .kill()
            .with_context(|| format!("{} cannot be killed", self.name))?;
        self.child.wait()?;
        Ok(())
    }

    /// Asks it to end and waits as long as `limit`; tells whether it ended well.
    pub fn stop(self, limit: Duration) -> Result<()> {
        self.signal(Signal::Term)?;
        self.ended(limit)
    }

    /// Waits as long as `limit` until it has ended by itself or was asked to before; tells whether it ended well.
    pub fn ended(mut self, limit: Duration) -> Result<()> {
        let start = Instant::now();
        while start.elapsed() < limit {
            if let Some(status) = self.child.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                bail!("{} ended with {status}:\n{}", self.name, self.log_tail());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!(
            "{} did not end within {limit:?}:\n{}",
            self.name,
            self.log_tail()
        )
    }

    /// All of its log, also of an earlier process of this name.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines of its log.
    pub fn log_tail(&self) -> String {
        let log = std::fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.is_running() {
            // It may have ended meanwhile: then there is nothing to do.
            self.child.kill().unwrap_or_default();
            self.child.wait().map(drop).unwrap_or_default();
        }
    }
}
