//! A redis-server of the test's own.

use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use limits::{GrantReply, GrantRequest, Grants, Options};

/// `redis-server` from the PATH on a free port of the loopback, without persistence; killed when dropped.
pub struct Server {
    child: Child,
    pub port: u16,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        Self::start_on(port)
    }

    pub fn start_on(port: u16) -> Self {
        let child = Command::new("redis-server")
            .args([
                "--port",
                &port.to_string(),
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
            ])
            .args(["--repl-diskless-sync-delay", "0"])
            .current_dir(std::env::temp_dir())
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server is in the PATH (Debian: apt install redis-server)");
        let server = Self { child, port };
        let deadline = Instant::now() + Duration::from_secs(10);
        while server.command(&["PING"]).as_deref() != Some("+PONG") {
            assert!(Instant::now() < deadline, "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(10));
        }
        server
    }

    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// The first line of the answer to a command.
    pub fn command(&self, words: &[&str]) -> Option<String> {
        use std::io::{BufRead, BufReader, Write};
        let mut stream = std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
        let mut request = format!("*{}\r\n", words.len());
        for word in words {
            request.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        stream.write_all(request.as_bytes()).ok()?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).ok()?;
        Some(line.trim_end().to_owned())
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.child.kill().is_ok() {
            self.child.wait().unwrap();
        }
    }
}

pub fn request(key: &str, limit: u64, window: Duration, want: u64) -> GrantRequest {
    GrantRequest {
        key: key.into(),
        limit,
        window,
        want,
        ttl: GrantRequest::good_ttl(window),
        previous: None,
        outside: 0,
    }
}

/// A client that is connected.
pub async fn client(server: &Server) -> Grants {
    let grants = Grants::connect(Options::new(server.url())).unwrap();
    connected(&grants).await;
    grants
}

pub async fn connected(grants: &Grants) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !grants.is_connected() {
        assert!(Instant::now() < deadline, "no connection to Redis");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Asks until the answer is not `Unknown` any more: a new server knows nothing for one window.
pub async fn once_known(grants: &Grants, request: &GrantRequest) -> GrantReply {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match grants.ask(request).await {
            Ok(GrantReply::Unknown { safe_for }) => tokio::time::sleep(safe_for).await,
            Ok(other) => return other,
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
        assert!(Instant::now() < deadline, "Redis never knows");
    }
}
