//! A small SMTP client that tells refused, accepted and unknown apart.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// What became of a submission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// 250 after the final dot: the relay has taken responsibility.
    Accepted(String),
    /// A reply that is no success, at any stage.
    Refused(String),
    /// The final dot was sent and no reply came: it may have been stored or not.
    Unknown(String),
}

/// The code of a reply.
pub fn reply_code(reply: &str) -> u16 {
    reply
        .get(..3)
        .and_then(|code| code.parse().ok())
        .unwrap_or(0)
}

/// An SMTP session.
pub struct Session {
    stream: BufReader<TcpStream>,
    patience: Duration,
    final_wait: Duration,
}

impl Session {
    /// Connects, reads the banner and says EHLO. Each reply is waited for at most `patience`.
    pub async fn open(address: SocketAddr, patience: Duration) -> Result<Self> {
        let stream = timeout(patience, TcpStream::connect(address)).await??;
        Self::begin(stream, patience).await
    }

    /// As [`Session::open`], from an address of IPv4 that is ours.
    pub async fn open_from(from: IpAddr, address: SocketAddr, patience: Duration) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(from, 0))?;
        let stream = timeout(patience, socket.connect(address)).await??;
        Self::begin(stream, patience).await
    }

    async fn begin(stream: TcpStream, patience: Duration) -> Result<Self> {
        stream.set_nodelay(true)?;
        let mut session = Self {
            stream: BufReader::new(stream),
            patience,
            final_wait: Duration::ZERO,
        };
        let banner = session.reply().await?;
        if reply_code(&banner) != 220 {
            bail!("banner {banner:?}");
        }
        let hello = session.command("EHLO client.example").await?;
        if reply_code(&hello) != 250 {
            bail!("EHLO: {hello:?}");
        }
        Ok(session)
    }

    /// Sends a command line and gives its reply.
    pub async fn command(&mut self, line: &str) -> Result<String> {
        self.write(format!("{line}\r\n").as_bytes()).await?;
        self.reply().await
    }

    /// Submits one message with dots stuffed. `Err` means that the connection broke before the final
    /// dot was sent: nothing can have been stored.
    pub async fn submit(
        &mut self,
        sender: &str,
        recipients: &[String],
        content: &[u8],
    ) -> Result<Outcome> {
        let mut commands = vec![format!("MAIL FROM:<{sender}>")];
        commands.extend(
            recipients
                .iter()
                .map(|recipient| format!("RCPT TO:<{recipient}>")),
        );
        for command in &commands {
            let reply = self.command(command).await?;
            if reply_code(&reply) / 100 != 2 {
                // The transaction is given up; a broken connection shows itself at the next use.
                self.command("RSET").await.map(drop).unwrap_or_default();
                return Ok(Outcome::Refused(reply));
            }
        }
        let reply = self.command("DATA").await?;
        if reply_code(&reply) != 354 {
            self.command("RSET").await.map(drop).unwrap_or_default();
            return Ok(Outcome::Refused(reply));
        }
        self.write(&stuffed(content)).await?;
        let dot_at = Instant::now();
        let answered = match self.write(b".\r\n").await {
            Ok(()) => self.reply().await,
            Err(error) => Err(error),
        };
        self.final_wait = dot_at.elapsed();
        Ok(match answered {
            Ok(reply) if reply_code(&reply) / 100 == 2 => Outcome::Accepted(reply),
            Ok(reply) => Outcome::Refused(reply),
            Err(error) => Outcome::Unknown(format!("{error:#}")),
        })
    }

    /// How long the last final dot waited for its reply.
    pub fn final_wait(&self) -> Duration {
        self.final_wait
    }

    /// Sends bytes as they are.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        timeout(self.patience, self.stream.write_all(bytes))
            .await
            .context("nobody reads")??;
        Ok(())
    }

    /// The next reply; its lines are joined by `\n`.
    pub async fn reply(&mut self) -> Result<String> {
        let mut reply = String::new();
        loop {
            let mut line = String::new();
            let read = timeout(self.patience, self.stream.read_line(&mut line))
                .await
                .context("no reply")??;
            if read == 0 {
                bail!("the connection was closed");
            }
            let more = line.as_bytes().get(3) == Some(&b'-');
            reply.push_str(line.trim_end());
            if !more {
                return Ok(reply);
            }
            reply.push('\n');
        }
    }
}

/// The content with a dot put before each line that begins with one (RFC 5321 section 4.5.2).
fn stuffed(content: &[u8]) -> Vec<u8> {
    let mut stuffed = Vec::with_capacity(content.len() + 64);
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        if line.starts_with(b".") {
            stuffed.push(b'.');
        }
        stuffed.extend_from_slice(line);
    }
    stuffed
}
