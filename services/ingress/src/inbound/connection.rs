//! One connection: reads, lets the session decide, does what it says, writes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use mail::MessageId;
use message::{ReceivedInfo, received_field};
use proto::inbound::Record;
use runtime::{ClientSlot, network_of};
use smtp::{CommandDecoder, DataDecoder, EnhancedCode};
use spool::InboundUnstored;
use tokio::time::Instant;

use super::session::{Effect, Moment, Session, Transaction};
use crate::answer::{self, Answer};
use crate::memory::Reservation;
use crate::proxy::Client;
use crate::server::{Listening, Shared};
use crate::socket::Socket;
use crate::wire::{Ended, Wire};

/// How long a client waits for memory.
const MEMORY_PATIENCE: Duration = Duration::from_millis(500);
/// What content needs at first, octets.
const FIRST_NEED: usize = 32 * 1024;

/// A connection and its session.
pub(crate) struct Connection {
    wire: Wire,
    session: Session,
    client: Client,
    /// It counts as one of its client's.
    _of_client: Option<ClientSlot>,
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
        Self {
            wire: Wire::new(shared, listening, socket),
            session,
            client,
            _of_client: of_client,
        }
    }

    /// Serves it to its end.
    pub(crate) async fn serve(mut self) {
        let ended = match self.begin().await {
            Ok(()) => self.converse().await.unwrap_or_else(|ended| ended),
            Err(ended) => ended,
        };
        let client = network_of(self.client.address);
        if let Err(error) = self.wire.end(ended).await {
            tracing::debug!(%client, %error, "connection broke");
        }
    }

    async fn begin(&mut self) -> Result<(), Ended> {
        if self.wire.listening.implicit_tls {
            self.handshake().await?;
        }
        self.session.greet(&mut self.wire.output);
        Ok(())
    }

    async fn converse(&mut self) -> Result<Ended, Ended> {
        let mut commands = CommandDecoder::new();
        loop {
            match self.decode(&mut commands) {
                None => {
                    self.wire.send().await?;
                    self.wire.read_command().await?;
                }
                Some(Effect::Continue) if self.wire.is_full() => self.wire.send().await?,
                Some(Effect::Continue) => {}
                Some(Effect::StartTls) => {
                    if !self.wire.input.is_empty() {
                        // What was pipelined came in the clear and may be somebody else's.
                        self.say(answer::PIPELINED_STARTTLS);
                        return Ok(Ended::CutOff);
                    }
                    answer::START_TLS.write(&mut self.wire.output);
                    self.wire.send().await?;
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
        let decoded = commands.decode(self.wire.input.octets());
        self.wire.input.consume(decoded.consumed);
        let command = decoded.item?;
        let Some(tokens) = &self.wire.shared.tokens else {
            // A listener of this kind has them.
            return Some(Effect::Close);
        };
        let keys = tokens.keys();
        let moment = Moment {
            snapshot: &self.wire.shared.snapshot.borrow(),
            keys: &keys,
            is_storing: self.wire.shared.stores.is_connected(),
            now: runtime::now_ms() / 1000,
        };
        Some(self.session.command(command, moment, &mut self.wire.output))
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
        answer::SEND_DATA.write(&mut self.wire.output);
        self.wire.send().await?;
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
        let pool = &self.wire.shared.inbound_pool;
        let room = pool.grow(reservation, need, MEMORY_PATIENCE).await;
        room.map_err(|_| answer::NO_MEMORY)
    }

    fn trace(&self, id: MessageId, transaction: &Transaction) -> String {
        received_field(&ReceivedInfo {
            from_helo: self.session.client_name(),
            client_ip: self.client.address,
            by_host: &self.wire.listening.policy.hostname,
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
        let deadline = Instant::now() + self.wire.listening.data_timeout;
        let mut decoder = DataDecoder::new(self.wire.listening.policy.max_message_size);
        let mut content = received.into_bytes();
        let mut nowhere = Vec::new();
        let mut refusal: Option<Answer> = None;
        self.wire.input.enlarge(&self.wire.shared.content_buffers);
        loop {
            if self.wire.input.is_empty() {
                self.wire.read_content(deadline).await?;
            }
            let needed = content.len() + self.wire.input.octets().len();
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
            let progress = decoder.decode(self.wire.input.octets(), sink);
            self.wire.input.consume(progress.consumed);
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
        match self.wire.shared.stores.inbound().store(record).await {
            Ok(()) => {
                self.wire.shared.metrics.inbound.inc();
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
        Box::pin(self.wire.handshake()).await?;
        self.session.tls_started();
        Ok(())
    }

    fn say(&mut self, answer: Answer) -> Effect {
        self.session.say(answer, &mut self.wire.output)
    }
}
