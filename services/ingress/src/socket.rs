//! A client's connection, with or without TLS, and what was read of it ahead.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Octets read at once while commands are expected; small, since most connections are idle.
const COMMANDS: usize = 1024;
/// Octets read at once while content comes in: a TLS record.
const CONTENT: usize = 16 * 1024;

/// The connection.
pub(crate) enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// Between the two, or after a failed handshake.
    Gone,
}

impl Socket {
    /// Reads what is there, at least one octet; 0 at the end.
    pub(crate) async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer).await,
            Self::Tls(stream) => stream.read(buffer).await,
            Self::Gone => Ok(0),
        }
    }

    /// Sends all of it now.
    pub(crate) async fn send(&mut self, octets: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(octets).await,
            Self::Tls(stream) => {
                stream.write_all(octets).await?;
                stream.flush().await
            }
            Self::Gone => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Becomes the server of a TLS session.
    pub(crate) async fn accept_tls(
        &mut self,
        acceptor: &TlsAcceptor,
        patience: Duration,
    ) -> io::Result<()> {
        let Self::Plain(stream) = std::mem::replace(self, Self::Gone) else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let handshake = tokio::time::timeout(patience, acceptor.accept(stream));
        *self = Self::Tls(Box::new(
            handshake.await.map_err(|_| io::ErrorKind::TimedOut)??,
        ));
        Ok(())
    }

    /// The version of TLS, when there is TLS.
    pub(crate) fn tls_version(&self) -> Option<rustls::ProtocolVersion> {
        match self {
            Self::Tls(stream) => stream.get_ref().1.protocol_version(),
            Self::Plain(_) | Self::Gone => None,
        }
    }

    /// The DNS names in the client's certificate, which was checked; none without one.
    pub(crate) fn client_names(&self) -> Vec<Box<str>> {
        let chain = match self {
            Self::Tls(stream) => stream.get_ref().1.peer_certificates(),
            Self::Plain(_) | Self::Gone => None,
        };
        chain
            .and_then(<[_]>::first)
            .map(runtime::certificate_names)
            .unwrap_or_default()
    }

    /// Says goodbye.
    pub(crate) async fn close(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.shutdown().await,
            Self::Tls(stream) => stream.shutdown().await,
            Self::Gone => Ok(()),
        }
    }
}

/// Buffers for content, lent while a message comes in: an idle connection holds none.
#[derive(Default)]
pub(crate) struct ContentBuffers {
    free: Mutex<Vec<Vec<u8>>>,
}

/// So many free buffers are kept.
const KEPT: usize = 128;

impl ContentBuffers {
    fn lend(&self) -> Vec<u8> {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        free.pop().unwrap_or_else(|| vec![0; CONTENT])
    }

    fn take_back(&self, buffer: Vec<u8>) {
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        if free.len() < KEPT {
            free.push(buffer);
        }
    }
}

/// What was read and not used yet.
pub(crate) struct Input {
    own: Box<[u8]>,
    lent: Option<Vec<u8>>,
    start: usize,
    end: usize,
}

impl Input {
    /// Empty, with a buffer for commands.
    pub(crate) fn new() -> Self {
        let own = vec![0; COMMANDS].into_boxed_slice();
        Self {
            own,
            lent: None,
            start: 0,
            end: 0,
        }
    }

    /// What is there.
    pub(crate) fn octets(&self) -> &[u8] {
        let buffer = self.lent.as_deref().unwrap_or(&self.own);
        &buffer[self.start..self.end]
    }

    /// Whether all was used.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The first `count` octets were used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Forgets what is there.
    pub(crate) fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }

    /// Reads more, when all was used. `false` at the end of the connection.
    pub(crate) async fn fill(&mut self, socket: &mut Socket) -> io::Result<bool> {
        debug_assert!(self.is_empty(), "what was read is used before more is read");
        self.clear();
        let buffer = self.lent.as_deref_mut().unwrap_or(&mut self.own);
        self.end = socket.read(buffer).await?;
        Ok(self.end > 0)
    }

    /// Borrows a buffer for content.
    pub(crate) fn enlarge(&mut self, buffers: &ContentBuffers) {
        if self.lent.is_some() {
            return;
        }
        let mut lent = buffers.lend();
        lent[..self.end].copy_from_slice(&self.own[..self.end]);
        self.lent = Some(lent);
    }

    /// Gives it back, when all was used.
    pub(crate) fn shrink(&mut self, buffers: &ContentBuffers) {
        if self.is_empty()
            && let Some(lent) = self.lent.take()
        {
            self.clear();
            buffers.take_back(lent);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_survives_the_larger_buffer() {
        let buffers = ContentBuffers::default();
        let mut input = Input::new();
        input.own[..6].copy_from_slice(b"DATA\r\n");
        input.end = 6;
        input.consume(2);
        input.enlarge(&buffers);
        assert_eq!(input.octets(), b"TA\r\n");
        input.shrink(&buffers);
        assert_eq!(input.octets(), b"TA\r\n");
        input.consume(4);
        input.shrink(&buffers);
        assert!(input.is_empty() && input.lent.is_none());
        assert_eq!(buffers.free.lock().unwrap().len(), 1);
        input.enlarge(&buffers);
        assert_eq!(buffers.free.lock().unwrap().len(), 0);
    }
}
