//! What every connection of ours does, whatever is said on it: greets by TLS, sends, waits, and ends so that its last words arrive.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use crate::answer;
use crate::server::{Listening, Shared};
use crate::socket::{Input, Socket};

/// A client that stops reading is given up after this long.
const SEND_PATIENCE: Duration = Duration::from_secs(60);
/// The same while the connection is being closed.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// For a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// Replies that wait for more commands of a pipeline are sent when they are longer, octets.
const MAX_BATCH: usize = 4096;

/// Why a connection is over.
#[derive(Debug)]
pub(crate) enum Ended {
    /// By the client.
    Closed,
    /// By us, who have had enough.
    CutOff,
    /// The client was silent too long.
    Silent,
    /// The service stops.
    Shutdown,
    Broken(io::Error),
}

impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::Broken(error)
    }
}

/// A connection without its session.
pub(crate) struct Wire {
    pub(crate) shared: Arc<Shared>,
    pub(crate) listening: Arc<Listening>,
    pub(crate) socket: Socket,
    pub(crate) input: Input,
    pub(crate) output: Vec<u8>,
    shutdown: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Wire {
    pub(crate) fn new(shared: Arc<Shared>, listening: Arc<Listening>, socket: Socket) -> Self {
        let shutdown = shared.shutdown.clone();
        Self {
            shared,
            listening,
            socket,
            input: Input::new(),
            output: Vec::new(),
            shutdown: Box::pin(async move { shutdown.requested().await }),
        }
    }

    /// Says why it ends, if that can still be said; `Err` where it can't.
    pub(crate) async fn end(mut self, ended: Ended) -> Result<(), io::Error> {
        let cut_off = !matches!(ended, Ended::Closed);
        let last_words = match ended {
            Ended::Closed | Ended::CutOff => None,
            Ended::Silent => Some(answer::TOO_SLOW),
            Ended::Shutdown => Some(answer::SHUTTING_DOWN),
            Ended::Broken(error) => return Err(error),
        };
        if let Some(answer) = last_words {
            self.shared.metrics.refused(&answer);
            answer.write(&mut self.output);
        }
        let goodbye = async {
            self.socket.send(&self.output).await?;
            self.socket.close().await?;
            // What the client still sends is read, or the last reply would be lost in a reset.
            self.input.clear();
            while cut_off && self.input.fill(&mut self.socket).await? {
                self.input.clear();
            }
            Ok::<(), io::Error>(())
        };
        match timeout(LAST_WORDS, goodbye).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::trace!(%error, "the client left first"),
            Err(_) => tracing::trace!("the client does not read"),
        }
        Ok(())
    }

    /// Becomes the server of a TLS session.
    pub(crate) async fn handshake(&mut self) -> Result<(), Ended> {
        let acceptor = self.listening.tls.as_ref().ok_or(Ended::Closed)?.acceptor();
        let result = self.socket.accept_tls(&acceptor, HANDSHAKE).await;
        self.shared.metrics.handshake(self.socket.tls_version());
        Ok(result?)
    }

    /// More replies wait than should.
    pub(crate) fn is_full(&self) -> bool {
        self.output.len() > MAX_BATCH
    }

    /// Sends the replies so far.
    pub(crate) async fn send(&mut self) -> Result<(), Ended> {
        if self.output.is_empty() {
            return Ok(());
        }
        timeout(SEND_PATIENCE, self.socket.send(&self.output))
            .await
            .map_err(|_| Ended::Broken(io::ErrorKind::TimedOut.into()))??;
        self.output.clear();
        Ok(())
    }

    /// Waits for commands; the service's end is noticed here.
    pub(crate) async fn read_command(&mut self) -> Result<(), Ended> {
        self.input.shrink(&self.shared.content_buffers);
        let patience = self.listening.command_timeout;
        let read = tokio::select! {
            biased;
            read = self.input.fill(&mut self.socket) => read,
            () = &mut self.shutdown => return Err(Ended::Shutdown),
            () = tokio::time::sleep(patience) => return Err(Ended::Silent),
        };
        if read? { Ok(()) } else { Err(Ended::Closed) }
    }

    /// Waits for content.
    pub(crate) async fn read_content(&mut self, deadline: Instant) -> Result<(), Ended> {
        let stall = Instant::now() + self.listening.stall_timeout;
        let read = tokio::time::timeout_at(stall.min(deadline), self.input.fill(&mut self.socket));
        if read.await.map_err(|_| Ended::Silent)?? {
            Ok(())
        } else {
            Err(Ended::Closed)
        }
    }
}
