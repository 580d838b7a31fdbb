//! One connection: reads, lets the session decide, does what it says, writes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mail::MessageId;
use message::{ReceivedInfo, received_field};
use proto::inbound::Record;
use runtime::{ClientSlot, network_of};
use smtp::{CommandDecoder, DataDecoder, EnhancedCode};
use spool::InboundUnstored;
use tokio::time::{Instant, timeout};

use super::session::{Effect, Moment, Session, Transaction};
use crate::answer::{self, Answer};
use crate::memory::Reservation;
use crate::proxy::Client;
use crate::server::{Listening, Shared};
use crate::socket::{Input, Socket};

/// A client that stops reading is given up after this long.
const SEND_PATIENCE: Duration = Duration::from_secs(60);
/// The same while the connection is being closed.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// For a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(30);
/// How long a client waits for memory.
const MEMORY_PATIENCE: Duration = Duration::from_millis(500);
/// Replies that wait for more commands of a pipeline are sent when they are longer, octets.
const MAX_BATCH: usize = 4096;
/// What content needs at first, octets.
const FIRST_NEED: usize = 32 * 1024;

/// Why a connection is over.
enum Ended {
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

/// A connection and its session.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    listening: Arc<Listening>,
    socket: Socket,
    input: Input,
    output: Vec<u8>,
    session: Session,
    client: Client,
    /// It counts as one of its client's.
    _of_client: Option<ClientSlot>,
    shutdown: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Connection {
    /// For a client that was just accepted.
    pub(crate) fn new(
        shared: Arc<Shared>,
        listening: Arc<Listening>,
        socket: Socket,
        client: Client,
        of_client: Option<ClientSlot>,
    ) -> Self {
        let session = Session::new(
            Arc::clone(&listening.policy),
            Arc::clone(&shared.metrics),
            false,
        );
        let shutdown = shared.shutdown.clone();
        Self {
            shared,
            listening,
            socket,
            input: Input::new(),
            output: Vec::new(),
            session,
            client,
            _of_client: of_client,
            shutdown: Box::pin(async move { shutdown.requested().await }),
        }
    }

    /// Serves it to its end.
    pub(crate) async fn serve(mut self) {
        let ended = match self.begin().await {
            Ok(()) => self.converse().await.unwrap_or_else(|ended| ended),
            Err(ended) => ended,
        };
        let cut_off = !matches!(ended, Ended::Closed);
        let last_words = match ended {
            Ended::Closed | Ended::CutOff => None,
            Ended::Silent => Some(answer::TOO_SLOW),
            Ended::Shutdown => Some(answer::SHUTTING_DOWN),
            Ended::Broken(error) => {
                let client = network_of(self.client.address);
                tracing::debug!(%client, %error, "connection broke");
                return;
            }
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
    }

    async fn begin(&mut self) -> Result<(), Ended> {
        if self.listening.implicit_tls {
            self.handshake().await?;
        }
        self.session.greet(&mut self.output);
        Ok(())
    }

    async fn converse(&mut self) -> Result<Ended, Ended> {
        let mut commands = CommandDecoder::new();
        loop {
            match self.decode(&mut commands) {
                None => {
                    self.send().await?;
                    self.read_command().await?;
                }
                Some(Effect::Continue) if self.output.len() > MAX_BATCH => self.send().await?,
                Some(Effect::Continue) => {}
                Some(Effect::StartTls) => {
                    if !self.input.is_empty() {
                        // What was pipelined came in the clear and may be somebody else's.
                        self.say(answer::PIPELINED_STARTTLS);
                        return Ok(Ended::CutOff);
                    }
                    answer::START_TLS.write(&mut self.output);
                    self.send().await?;
                    self.handshake().await?;
                }
                Some(Effect::Receive) => {
                    if let Effect::Close = Box::pin(self.receive()).await? {
                        return Ok(Ended::CutOff);
                    }
                }
                Some(Effect::Quit) => return Ok(Ended::Closed),
                Some(Effect::Close) => return Ok(Ended::CutOff),
            }
        }
    }

    /// Takes the next command, if it is there.
    fn decode(&mut self, commands: &mut CommandDecoder) -> Option<Effect> {
        let decoded = commands.decode(self.input.octets());
        self.input.consume(decoded.consumed);
        let command = decoded.item?;
        let Some(tokens) = &self.shared.tokens else {
            // A listener of this kind has them.
            return Some(Effect::Close);
        };
        let keys = tokens.keys();
        let moment = Moment {
            snapshot: &self.shared.snapshot.borrow(),
            keys: &keys,
            is_storing: self.shared.stores.is_connected(),
            now: runtime::now_ms() / 1000,
        };
        Some(self.session.command(command, moment, &mut self.output))
    }

    /// After DATA: the content, into the store.
    async fn receive(&mut self) -> Result<Effect, Ended> {
        let Some(transaction) = self.session.take_transaction() else {
            return Ok(self.say(answer::NEED_MAIL));
        };
        let mut reservation = Reservation::default();
        if let Err(refusal) = self.reserve(&mut reservation, FIRST_NEED).await {
            return Ok(self.say(refusal));
        }
        answer::SEND_DATA.write(&mut self.output);
        self.send().await?;
        let id = MessageId::now();
        let received = self.trace(id, &transaction);
        let content = self.read_content_of(received, &mut reservation).await?;
        let answer = match content {
            Ok(content) => self.store(id, transaction, content).await,
            Err(refusal) => refusal,
        };
        drop(reservation);
        Ok(self.say(answer))
    }

    async fn reserve(&mut self, reservation: &mut Reservation, need: usize) -> Result<(), Answer> {
        let pool = &self.shared.inbound_pool;
        let room = pool.grow(reservation, need, MEMORY_PATIENCE).await;
        room.map_err(|_| answer::NO_MEMORY)
    }

    fn trace(&self, id: MessageId, transaction: &Transaction) -> String {
        received_field(&ReceivedInfo {
            from_helo: self.session.client_name(),
            client_ip: self.client.address,
            by_host: &self.listening.policy.hostname,
            with: self.session.protocol(),
            id,
            for_single_recipient: match transaction.recipients.as_slice() {
                [only] => Some(only),
                _ => None,
            },
            unix_ms: runtime::now_ms(),
        })
    }

    /// Reads to the final dot, whatever is wrong before it. The content begins with what is `received`.
    async fn read_content_of(
        &mut self,
        received: String,
        reservation: &mut Reservation,
    ) -> Result<Result<Vec<u8>, Answer>, Ended> {
        let deadline = Instant::now() + self.listening.data_timeout;
        let mut decoder = DataDecoder::new(self.listening.policy.max_message_size);
        let mut content = received.into_bytes();
        let mut nowhere = Vec::new();
        let mut refusal: Option<Answer> = None;
        self.input.enlarge(&self.shared.content_buffers);
        loop {
            if self.input.is_empty() {
                self.read_content(deadline).await?;
            }
            let needed = content.len() + self.input.octets().len();
            if refusal.is_none() && needed > content.capacity() {
                // It doubles, and is there twice while it moves and when it is packed into its record.
                refusal = self.reserve(reservation, needed * 4).await.err();
            }
            let sink = if refusal.is_none() {
                &mut content
            } else {
                nowhere.clear();
                &mut nowhere
            };
            let progress = decoder.decode(self.input.octets(), sink);
            self.input.consume(progress.consumed);
            if let Some(error) = decoder.error() {
                refusal.get_or_insert_with(|| error.into());
            }
            if refusal.is_some() {
                content = Vec::new();
                *reservation = Reservation::default();
            }
            if progress.done {
                return Ok(refusal.map_or(Ok(content), Err));
            }
        }
    }

    async fn store(&mut self, id: MessageId, transaction: Transaction, content: Vec<u8>) -> Answer {
        let size = content.len();
        let recipients = transaction.recipients.len();
        let record = Record {
            id: Bytes::copy_from_slice(id.as_bytes()),
            received_at_ms: runtime::now_ms(),
            client_address: self.client.address.to_string(),
            client_name: self.session.client_name().to_owned(),
            return_path: transaction.return_path,
            recipients: transaction.recipients,
            content: content.into(),
            ..Record::default()
        };
        let client = network_of(self.client.address);
        match self.shared.stores.inbound().store(record).await {
            Ok(()) => {
                self.shared.metrics.inbound.inc();
                tracing::info!(inbound_id = %id, size, recipients, %client, "a message came back");
                Answer::with(250, EnhancedCode(2, 0, 0), format!("Ok queued as {id}"))
            }
            Err(InboundUnstored::Full(detail)) => {
                tracing::warn!(detail, "refused what came back: there is no room for more");
                answer::STORAGE_FULL
            }
            Err(InboundUnstored::Unavailable(detail)) => {
                tracing::warn!(detail, "refused what came back: it can't be stored");
                answer::STORAGE_AWAY
            }
        }
    }

    async fn handshake(&mut self) -> Result<(), Ended> {
        let acceptor = self.listening.tls.as_ref().ok_or(Ended::Closed)?.acceptor();
        let result = Box::pin(self.socket.accept_tls(&acceptor, HANDSHAKE)).await;
        self.shared.metrics.handshake(self.socket.tls_version());
        result?;
        self.session.tls_started();
        Ok(())
    }

    /// Sends the replies so far.
    async fn send(&mut self) -> Result<(), Ended> {
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
    async fn read_command(&mut self) -> Result<(), Ended> {
        self.input.shrink(&self.shared.content_buffers);
        let patience = self.listening.command_timeout;
        let read = tokio::select! {
            biased;
            read = self.input.fill(&mut self.socket) => read,
            () = &mut self.shutdown => return Err(Ended::Shutdown),
            () = tokio::time::sleep(patience) => return Err(Ended::Silent),
        };
        if !read? {
            return Err(Ended::Closed);
        }
        Ok(())
    }

    /// Waits for content.
    async fn read_content(&mut self, deadline: Instant) -> Result<(), Ended> {
        let stall = Instant::now() + self.listening.stall_timeout;
        let read = tokio::time::timeout_at(stall.min(deadline), self.input.fill(&mut self.socket));
        if !read.await.map_err(|_| Ended::Silent)?? {
            return Err(Ended::Closed);
        }
        Ok(())
    }

    fn say(&mut self, answer: Answer) -> Effect {
        self.session.say(answer, &mut self.output)
    }
}
