//! A redis-server of the test's own.

use std::time::{Duration, Instant};

use kit::{RedisServer, Signal};
use limits::{GrantReply, GrantRequest, Grants, Options};
use tempfile::TempDir;

/// On the loopback, without persistence; killed when dropped.
pub struct Server {
    redis: RedisServer,
    _folder: TempDir,
}

impl Server {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            redis: RedisServer::start(folder.path()).await.unwrap(),
            _folder: folder,
        }
    }

    pub fn url(&self) -> String {
        self.redis.url()
    }

    pub fn port(&self) -> u16 {
        self.redis.port()
    }

    /// What it answers to a command.
    pub fn command(&self, words: &[&str]) -> Option<String> {
        self.redis.ask(words).ok()
    }

    /// A replica of it, that has what it has.
    pub async fn replica(&self) -> Self {
        let replica = Self::start().await;
        replica.redis.follow(&self.redis).await.unwrap();
        replica
    }

    /// Makes a replica the master.
    pub fn promote(&self) {
        self.redis.promote().unwrap();
    }

    /// SIGSTOP: connections stay open and nobody answers.
    pub fn suspend(&self) {
        self.signal(Signal::Stop);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::Continue);
    }

    fn signal(&self, signal: Signal) {
        let process = self.redis.process().unwrap();
        process.signal(signal).unwrap();
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.redis.kill9().unwrap();
    }

    /// Starts it again after [`Server::kill`]: empty, on the same port.
    pub async fn restart(&mut self) {
        self.redis.restart().await.unwrap();
    }
}

pub fn request(key: &str, limit: u64, window: Duration, want: u64) -> GrantRequest {
    GrantRequest {
        key: key.into(),
        limit,
        window,
        want,
        holder: "holder".into(),
        have: 0,
        batch: 0,
        dated: Vec::new(),
    }
}

/// Longer than anything that must happen takes, however busy the machine is.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A client that is connected. It waits long for replies, so that a busy machine is not taken for a dead Redis.
pub async fn client(server: &Server) -> Grants {
    client_with(server, PATIENCE * 2).await
}

pub async fn client_with(server: &Server, response_timeout: Duration) -> Grants {
    let options = Options {
        response_timeout,
        ..Options::new(server.url())
    };
    let grants = Grants::connect(options).unwrap();
    connected(&grants).await;
    grants
}

pub async fn connected(grants: &Grants) {
    let deadline = Instant::now() + PATIENCE;
    while !grants.is_connected() {
        assert!(Instant::now() < deadline, "no connection to Redis");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Asks until the answer is not `Unknown` any more: a new server knows nothing for one window.
pub async fn once_known(grants: &Grants, request: &GrantRequest) -> GrantReply {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match grants.ask(request).await {
            Ok(GrantReply::Unknown { safe_for }) => tokio::time::sleep(safe_for).await,
            Ok(other) => return other,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        assert!(Instant::now() < deadline, "Redis never knows");
    }
}
