//! An open SMTP connection: octets out, replies in.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Buf;
use smtp::{EhloCapabilities, Limits, Reply, ReplyDecoder, ReplyError};
use telemetry::IntGauge;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, timeout_at};

use super::auth::Mechanisms;
use super::dane::Proved;
use super::demand::Peer;
use super::io::Io;
use crate::lane::Lane;
use crate::reach::Reach;
use crate::transcript;

/// Octets read at once.
const INPUT: usize = 4096;
/// How long what has arrived may still be found when the time for a reply is over.
const LAST_LOOK: Duration = Duration::from_millis(100);
/// Recipient domains of a connection that are kept apart; after so many it is closed, though the host allows more.
const MOST_DOMAINS: u32 = 1000;
/// Time for the farewell.
const QUIT_TIMEOUT: Duration = Duration::from_secs(2);

/// The connection is of no more use.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the host closed the connection")]
    Closed,
    #[error("the connection broke: {0}")]
    Failed(std::io::ErrorKind),
    #[error("no answer in time")]
    TimedOut,
    #[error("the host does not speak SMTP: {0}")]
    Protocol(#[from] ReplyError),
    /// What answers which command is not known any more.
    #[error("the host spoke without being asked")]
    Unasked,
}

impl From<std::io::Error> for Broken {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.kind())
    }
}

/// What the host can do; asked of every transaction, so kept apart from the list of words.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Capabilities {
    pub pipelining: bool,
    pub size: bool,
    /// Octets of a message at most; 0 = it says nothing (RFC 1870).
    pub most_octets: u64,
    /// What it takes at a time (RFC 9422).
    pub limits: Limits,
    pub eight_bit_mime: bool,
    pub smtputf8: bool,
    pub dsn: bool,
    pub starttls: bool,
    pub mt_priority: bool,
    pub deliver_by: bool,
    pub require_tls: bool,
    pub auth: Mechanisms,
}

impl From<&EhloCapabilities> for Capabilities {
    fn from(said: &EhloCapabilities) -> Self {
        Self {
            pipelining: said.pipelining(),
            size: said.has("SIZE"),
            most_octets: said.size().unwrap_or(0),
            limits: said.limits(),
            eight_bit_mime: said.eight_bit_mime(),
            smtputf8: said.smtputf8(),
            dsn: said.dsn(),
            starttls: said.starttls(),
            mt_priority: said.mt_priority(),
            deliver_by: said.deliver_by(),
            require_tls: said.require_tls(),
            auth: Mechanisms::of(said),
        }
    }
}

/// After EHLO, between transactions or in one.
pub(crate) struct Connection {
    pub(super) io: Io,
    input: Box<[u8]>,
    start: usize,
    end: usize,
    decoder: ReplyDecoder,
    /// Commands on their way out; kept for its memory.
    pub(super) output: Vec<u8>,
    pub(super) capabilities: Capabilities,
    /// The MX or smart host.
    pub host: Arc<str>,
    pub address: SocketAddr,
    /// By what way it was made.
    pub(super) reach: Arc<Reach>,
    /// It is under TLS, with a certificate that is valid for `host`.
    pub(super) verified: bool,
    /// What it has shown of what its TLSA records name.
    pub(super) proved: Option<Proved>,
    /// Transactions begun on it.
    pub(super) transactions: u32,
    /// Recipient domains of transactions on it; kept only where the host says how many there may be (RFC 9422).
    domains: Vec<Box<str>>,
    /// A transaction was left open; RSET goes before the next one.
    pub(super) needs_reset: bool,
    open: Open,
}

/// Counts an open connection as long as it lives.
pub(super) struct Open(IntGauge);

impl Open {
    pub fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Connection {
    pub(super) fn new(io: Io, host: Arc<str>, address: SocketAddr, open: Open) -> Self {
        Self {
            io,
            input: vec![0; INPUT].into_boxed_slice(),
            start: 0,
            end: 0,
            decoder: ReplyDecoder::new(),
            output: Vec::with_capacity(512),
            capabilities: Capabilities::default(),
            host,
            address,
            reach: Arc::default(),
            verified: false,
            proved: None,
            transactions: 0,
            domains: Vec::new(),
            needs_reset: false,
            open,
        }
    }

    /// The host knows DSN (RFC 3461), and answers for what it takes.
    pub fn knows_dsn(&self) -> bool {
        self.capabilities.dsn
    }

    /// Whether it is under TLS.
    pub fn is_tls(&self) -> bool {
        matches!(self.io, Io::Tls(_))
    }

    /// Whether it was made by the way that the lane has now: that of a source may have changed since.
    pub fn is_by_way_of(&self, lane: &Lane) -> bool {
        Arc::ptr_eq(&self.reach, &lane.reach) || self.reach == lane.reach
    }

    pub(super) fn peer(&self) -> Peer<'_> {
        Peer {
            host: &self.host,
            tls: self.is_tls(),
            verified: self.verified,
            proved: self.proved.as_ref(),
            require_tls: self.capabilities.require_tls,
        }
    }

    /// Whether it has carried as many messages as it may: by what the lane says (0 = nothing), or the host.
    pub fn is_worn_out(&self, most_messages: u32) -> bool {
        let said = self.capabilities.limits.mail_max;
        let reached = |most: u32| most > 0 && self.transactions >= most;
        reached(most_messages) || said.is_some_and(reached)
    }

    /// Whether mail to one more recipient domain may go over it, which is counted then.
    pub fn takes_domain(&mut self, domain: &str) -> bool {
        let Some(most) = self.capabilities.limits.rcpt_domain_max else {
            return true;
        };
        if self.domains.iter().any(|known| **known == *domain) {
            return true;
        }
        if self.domains.len() >= most.min(MOST_DOMAINS) as usize {
            return false;
        }
        self.domains.push(domain.into());
        true
    }

    /// The TCP connection, for TLS to begin on it. `None` when the host has sent more than it was asked for:
    /// what came before TLS must not be taken for what comes under it.
    pub(super) fn into_tcp(self) -> Option<(tokio::net::TcpStream, Open)> {
        match self.io {
            Io::Plain(stream) if self.start == self.end => Some((stream, self.open)),
            _ => None,
        }
    }

    /// The version of TLS, such as `1.3`; empty = none.
    pub fn tls_version(&self) -> &'static str {
        match &self.io {
            Io::Plain(_) => "",
            Io::Tls(stream) => match stream.get_ref().1.protocol_version() {
                Some(rustls::ProtocolVersion::TLSv1_3) => "1.3",
                Some(rustls::ProtocolVersion::TLSv1_2) => "1.2",
                _ => "other",
            },
        }
    }

    /// Notes for the transcript of an attempt that it was open before.
    pub fn note_reuse(&self) {
        let (tls, version) = match self.tls_version() {
            "" => ("without TLS", ""),
            version => ("with TLS ", version),
        };
        transcript::note(format_args!(
            "on a connection to {} [{}] {tls}{version} that was open already, as transaction {}",
            self.host,
            self.address.ip(),
            self.transactions + 1
        ));
    }

    /// Sends what is in `output`.
    pub(super) async fn send(&mut self, until: Instant) -> Result<(), Broken> {
        self.is_answered().inspect_err(note)?;
        transcript::said(&self.output);
        let sent = async {
            self.io.write_all(&self.output).await?;
            self.io.flush().await
        };
        let sent = timeout_at(until, sent).await;
        self.output.clear();
        let sent = sent.map_err(|_| Broken::TimedOut);
        sent.and_then(|sent| sent.map_err(Broken::from))
            .inspect_err(note)
    }

    /// Every reply that has come was asked for. One that comes too much would be taken for the next command's, and a `250` for the
    /// final dot's.
    fn is_answered(&self) -> Result<(), Broken> {
        match self.start < self.end {
            true => Err(Broken::Unasked),
            false => Ok(()),
        }
    }

    /// Sends all of `content`, whose rest shows how far it came. `silence` is the time without
    /// progress; after `until` nothing is written any more, even by a process that was stopped and
    /// goes on.
    pub(super) async fn send_content(
        &mut self,
        content: &mut impl Buf,
        silence: Duration,
        until: Option<Instant>,
    ) -> Result<(), Broken> {
        self.is_answered().inspect_err(note)?;
        let wanted = content.remaining();
        let sent = self.write_content(content, silence, until).await;
        let written = wanted - content.remaining();
        transcript::note(format_args!("{written} of {wanted} octets of content sent"));
        sent.inspect_err(note)
    }

    /// [`Self::send_content`], of which the transcript says nothing.
    pub(super) async fn write_content(
        &mut self,
        content: &mut impl Buf,
        silence: Duration,
        until: Option<Instant>,
    ) -> Result<(), Broken> {
        while content.has_remaining() {
            before(silence, until, self.io.write_buf(content)).await?;
        }
        if self.is_tls() {
            before(silence, until, self.io.flush()).await?;
        }
        Ok(())
    }

    /// The next reply. One that has arrived counts although its time is over: a process that was stopped and goes on
    /// hears of its timers before it hears of its sockets (epoll_wait is interrupted), and a message whose `250` lies
    /// there unread would be in doubt.
    pub(super) async fn reply(&mut self, until: Instant) -> Result<Reply, Broken> {
        self.read_reply(until).await.inspect_err(note)
    }

    async fn read_reply(&mut self, until: Instant) -> Result<Reply, Broken> {
        let mut last_look = None;
        loop {
            if self.start < self.end {
                let decoded = self.decoder.decode(&self.input[self.start..self.end]);
                transcript::heard(&self.input[self.start..self.start + decoded.consumed]);
                self.start += decoded.consumed;
                if let Some(item) = decoded.item {
                    return Ok(item?);
                }
            }
            let read = match timeout_at(until, self.io.read(&mut self.input)).await {
                Ok(read) => read?,
                Err(_) => {
                    let end = *last_look.get_or_insert_with(|| Instant::now() + LAST_LOOK);
                    timeout_at(end, self.io.read(&mut self.input))
                        .await
                        .map_err(|_| Broken::TimedOut)??
                }
            };
            if read == 0 {
                return Err(Broken::Closed);
            }
            (self.start, self.end) = (0, read);
        }
    }

    /// Whether nothing was heard since the last reply: an idle connection on which something came was
    /// closed by the host, or is about to be.
    pub fn is_quiet(&mut self) -> bool {
        if self.start < self.end {
            return false;
        }
        let mut octet = [0];
        let mut buffer = ReadBuf::new(&mut octet);
        // The readiness is asked for again by the next reply, so nobody needs to be woken.
        let polled =
            Pin::new(&mut self.io).poll_read(&mut Context::from_waker(Waker::noop()), &mut buffer);
        matches!(polled, Poll::Pending)
    }

    /// Says good-bye; the answer is waited for, but not for long.
    pub async fn quit(mut self) {
        let until = Instant::now() + QUIT_TIMEOUT;
        self.output.clear();
        smtp::write::quit(&mut self.output);
        if self.send(until).await.is_ok() {
            drop(self.reply(until).await);
        }
    }

    /// Sends one command that `write` wrote into `output`, and reads its reply.
    pub(super) async fn exchange(
        &mut self,
        write: impl FnOnce(&mut Vec<u8>),
        until: Instant,
    ) -> Result<Reply, Broken> {
        self.output.clear();
        write(&mut self.output);
        self.send(until).await?;
        self.reply(until).await
    }
}

/// For the transcript.
fn note(broken: &Broken) {
    transcript::note(format_args!("{broken}"));
}

/// Waits for `writing`, and never goes on with it after `until`: the time is looked at before each step,
/// not only when it has come.
async fn before<T>(
    silence: Duration,
    until: Option<Instant>,
    writing: impl Future<Output = std::io::Result<T>>,
) -> Result<T, Broken> {
    let mut writing = pin!(writing);
    let writing = poll_fn(|context| match until {
        Some(until) if Instant::now() >= until => Poll::Ready(Err(Broken::TimedOut)),
        _ => writing.as_mut().poll(context).map_err(Broken::from),
    });
    let patience = Instant::now() + silence;
    let patience = until.map_or(patience, |until| patience.min(until));
    timeout_at(patience, writing)
        .await
        .map_err(|_| Broken::TimedOut)?
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[tokio::test]
    async fn a_reply_that_has_arrived_counts_although_its_time_is_over() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let near = std::net::TcpStream::connect(address).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        far.write_all(b"250 kept\r\n").unwrap();
        near.set_nonblocking(true).unwrap();
        // The runtime has not looked at the socket yet.
        let stream = tokio::net::TcpStream::from_std(near).unwrap();
        let open = Open::new(&IntGauge::new("open", "connections").unwrap());
        let mut connection = Connection::new(Io::Plain(stream), "mx".into(), address, open);
        let over = Instant::now() - Duration::from_secs(1);
        let reply = connection.reply(over).await.unwrap();
        assert_eq!(reply.code, 250);
        // Another does not come.
        let silent = connection.reply(over).await;
        assert!(matches!(silent, Err(Broken::TimedOut)));
    }

    #[tokio::test]
    async fn nothing_is_written_after_its_time_although_it_could_be() {
        let mut polled = false;
        let writing = async {
            polled = true;
            Ok(())
        };
        let ended = before(Duration::from_secs(180), Some(Instant::now()), writing).await;
        assert!(matches!(ended, Err(Broken::TimedOut)));
        assert!(!polled);
    }
}
