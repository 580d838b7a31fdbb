//! Connections to scanners, and how long is waited for them.

use std::future::Future;
use std::time::Duration;

use config::ScannerAddress;
use scan::Verdict;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, timeout};

use super::judgement::Failure;

/// For a connection, name resolution included.
const CONNECT: Duration = Duration::from_secs(3);
/// Octets of one read.
const READ: usize = 16 * 1024;

/// A connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

pub(super) type Wire = Box<dyn Stream>;

/// How long a message still waits for a scanner. Time in which the scanner waits for the client does not count.
pub(super) struct Patience {
    all: Duration,
    left: Duration,
}

impl Patience {
    pub(super) fn new(all: Duration) -> Self {
        Self { all, left: all }
    }

    /// Waits for something that the scanner does.
    pub(super) async fn spend<T>(&mut self, what: impl Future<Output = T>) -> Result<T, Failure> {
        let begun = Instant::now();
        let done = timeout(self.left, what).await;
        self.left = self.left.saturating_sub(begun.elapsed());
        done.map_err(|_| Failure::Late)
    }

    /// How much of it is used up.
    pub(super) fn spent(&self) -> Duration {
        self.all - self.left
    }
}

/// Connects.
pub(super) async fn connect(
    address: &ScannerAddress,
    patience: &mut Patience,
) -> Result<Wire, Failure> {
    let connecting = async {
        Ok::<Wire, std::io::Error>(match address {
            ScannerAddress::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                Box::new(stream)
            }
            ScannerAddress::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    };
    let connected = patience.spend(timeout(CONNECT, connecting)).await?;
    connected
        .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        .map_err(Failure::Unreachable)
}

/// Makes a verdict of what a scanner says at the end.
pub(super) trait Hearing {
    /// Takes what came; `None` while it is not complete.
    fn hear(&mut self, octets: &[u8]) -> Result<Option<Verdict>, Failure>;
    /// The connection has ended.
    fn end(&mut self) -> Result<Verdict, Failure>;
}

/// Sends octets; a scanner that has seen enough may answer before it has taken all of them.
pub(super) async fn send(
    wire: &mut Wire,
    octets: &[u8],
    patience: &mut Patience,
    hearing: &mut impl Hearing,
) -> Result<Option<Verdict>, Failure> {
    patience.spend(send_or_hear(wire, octets, hearing)).await?
}

async fn send_or_hear(
    wire: &mut Wire,
    mut octets: &[u8],
    hearing: &mut impl Hearing,
) -> Result<Option<Verdict>, Failure> {
    let (mut reader, mut writer) = tokio::io::split(&mut *wire);
    let mut buffer = vec![0; 1024];
    while !octets.is_empty() {
        tokio::select! {
            read = reader.read(&mut buffer) => match read {
                Ok(0) => return hearing.end().map(Some),
                Ok(count) => {
                    if let Some(verdict) = hearing.hear(&buffer[..count])? {
                        return Ok(Some(verdict));
                    }
                }
                Err(error) => return Err(broken(&error)),
            },
            written = writer.write(octets) => match written {
                Ok(count) if count > 0 => octets = &octets[count..],
                // It has closed the connection; it may have said why.
                _ => return receive(&mut reader, hearing).await.map(Some),
            },
        }
    }
    Ok(None)
}

/// Waits for what the scanner says.
pub(super) async fn hear(
    wire: &mut Wire,
    patience: &mut Patience,
    hearing: &mut impl Hearing,
) -> Result<Verdict, Failure> {
    patience.spend(receive(wire, hearing)).await?
}

async fn receive(
    reader: &mut (impl AsyncRead + Unpin),
    hearing: &mut impl Hearing,
) -> Result<Verdict, Failure> {
    let mut buffer = vec![0; READ];
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) => return hearing.end(),
            Ok(count) => {
                if let Some(verdict) = hearing.hear(&buffer[..count])? {
                    return Ok(verdict);
                }
            }
            Err(error) => return Err(broken(&error)),
        }
    }
}

/// The connection failed.
pub(super) fn broken(error: &std::io::Error) -> Failure {
    Failure::Broken(format!("the connection broke: {error}").into())
}

/// The connection ended too early.
pub(super) const CLOSED: &str = "it closed the connection without an answer";
