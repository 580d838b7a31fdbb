//! One connection: reads, lets the session decide, does what it says, writes.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use proto::event::Stage;
use runtime::ClientSlot;
use smtp::{AuthLineDecoder, CommandDecoder};
use tokio::time::{Instant, timeout};

use crate::answer::{self, Answer};
use crate::events::{Refused, Whose};
use crate::metrics::TenantMetrics;
use crate::policy::Rules;
use crate::proxy::Client;
use crate::receive::Incoming;
use crate::resubmission::Remembered;
use crate::server::{Listening, Shared};
use crate::session::{Effect, Moment, Refusal, Session};
use crate::socket::{Input, Socket};
use crate::watching::Seen;

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

/// A message that is being received, for who tells that it was refused.
pub(crate) struct Concern {
    pub(crate) rules: Rules,
    pub(crate) stage: Stage,
    pub(crate) recipients: usize,
}

/// A connection and its session.
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    pub(crate) listening: Arc<Listening>,
    pub(crate) socket: Socket,
    pub(crate) input: Input,
    pub(crate) output: Vec<u8>,
    pub(crate) session: Session,
    pub(crate) tenant_metrics: Option<TenantMetrics>,
    /// The message whose chunks come in.
    pub(crate) chunks: Option<Box<Incoming>>,
    /// The last message, until its client shows that it has seen our answer.
    pub(crate) unconfirmed: Option<Remembered>,
    /// The message that is being received.
    pub(crate) concerning: Option<Concern>,
    /// It counts as one of its client's.
    of_client: Option<ClientSlot>,
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
            client,
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
            tenant_metrics: None,
            chunks: None,
            unconfirmed: None,
            concerning: None,
            of_client,
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
                tracing::debug!(client = %self.client_network(), %error, "connection broke");
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
            Box::pin(self.handshake()).await?;
        }
        self.session.greet(&mut self.output);
        Ok(())
    }

    async fn converse(&mut self) -> Result<Ended, Ended> {
        let mut commands = CommandDecoder::new();
        let mut auth_lines = AuthLineDecoder::new();
        loop {
            let effect = self.decode(&mut commands, &mut auth_lines);
            if self.chunks.is_some() && !self.session.in_chunks() {
                // RSET, EHLO: what came so far is forgotten.
                self.chunks = None;
            }
            match effect {
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
                    Box::pin(self.handshake()).await?;
                }
                Some(Effect::Login(claim)) => {
                    if let Effect::Close = Box::pin(self.login(claim)).await? {
                        return Ok(Ended::CutOff);
                    }
                }
                Some(Effect::Receive) => {
                    if let Effect::Close = Box::pin(self.receive()).await? {
                        return Ok(Ended::CutOff);
                    }
                }
                Some(Effect::Chunk {
                    size,
                    last,
                    refused,
                }) => {
                    if let Effect::Close = Box::pin(self.chunk(size, last, refused)).await? {
                        return Ok(Ended::CutOff);
                    }
                }
                Some(Effect::NewClient) => {
                    if let Effect::Close = self.change_client() {
                        return Ok(Ended::CutOff);
                    }
                }
                Some(Effect::Quit) => return Ok(Ended::Closed),
                Some(Effect::Close) => return Ok(Ended::CutOff),
            }
        }
    }

    /// Takes the next command or line, if it is there.
    fn decode(
        &mut self,
        commands: &mut CommandDecoder,
        auth_lines: &mut AuthLineDecoder,
    ) -> Option<Effect> {
        if self.session.in_exchange() {
            let decoded = auth_lines.decode(self.input.octets());
            self.input.consume(decoded.consumed);
            let line = decoded.item?;
            let snapshot = self.shared.snapshot.borrow();
            return Some(self.session.auth_line(line, &snapshot, &mut self.output));
        }
        let decoded = commands.decode(self.input.octets());
        self.input.consume(decoded.consumed);
        let command = decoded.item?;
        let moment = Moment {
            snapshot: &self.shared.snapshot.borrow(),
            measures: &self.shared.watcher.measures(),
            storage: self.shared.storage(),
            suppressed: self.shared.suppressed.table(),
            now_ms: runtime::now_ms(),
        };
        let effect = self.session.command(command, moment, &mut self.output);
        if let Some(refusal) = self.session.take_refusal() {
            self.tell_refusal(&refusal);
        }
        Some(effect)
    }

    /// The connection counts as one of the client's that a proxy has named. A client that is not known has no limit of its
    /// own: its connections are the proxy's.
    fn change_client(&mut self) -> Effect {
        self.of_client = None;
        let client = self.session.origin();
        let room = if client.is_known() {
            self.listening.room_for(client)
        } else {
            Ok(None)
        };
        match room {
            Ok(of_client) => {
                self.of_client = of_client;
                self.session.greet(&mut self.output);
                Effect::Continue
            }
            Err(refusal) => {
                self.say(refusal);
                Effect::Close
            }
        }
    }

    async fn handshake(&mut self) -> Result<(), Ended> {
        let acceptor = self.listening.tls.as_ref().ok_or(Ended::Closed)?.acceptor();
        let result = self.socket.accept_tls(&acceptor, HANDSHAKE).await;
        self.shared.metrics.handshake(self.socket.tls_version());
        result?;
        self.session.tls_started(self.socket.client_names());
        Ok(())
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
        self.confirmed().await;
        Ok(())
    }

    /// The client has sent something: it has seen our last answer, so far as it could.
    async fn confirmed(&mut self) {
        if let Some(remembered) = self.unconfirmed.take() {
            remembered.forget().await;
        }
    }

    /// Waits for content.
    pub(crate) async fn read_content(&mut self, deadline: Instant) -> Result<(), Ended> {
        let stall = Instant::now() + self.listening.stall_timeout;
        let read = tokio::time::timeout_at(stall.min(deadline), self.input.fill(&mut self.socket));
        if !read.await.map_err(|_| Ended::Silent)?? {
            return Err(Ended::Closed);
        }
        self.confirmed().await;
        Ok(())
    }

    /// Appends an answer for the session.
    pub(crate) fn say(&mut self, answer: Answer) -> Effect {
        let concerning = self.concerning.take();
        if let Some(concern) = concerning.filter(|_| answer.is_refusal()) {
            let refused = Refused {
                stage: concern.stage,
                answer: &answer,
                recipient: "",
                recipients: concern.recipients,
            };
            let client = self.session.origin();
            let whose = Whose::of(&concern.rules.credential, client);
            self.shared.events.rejected(whose, &refused);
            if answer.code >= 500 {
                let seen = Seen::refused(&concern.rules, client, concern.recipients);
                self.shared.watcher.note(seen);
            }
        }
        self.session.say(answer, &mut self.output)
    }

    /// The network of the client, for logs: who it is, is nobody's business there.
    pub(crate) fn client_network(&self) -> ipnet::IpNet {
        runtime::network_of(self.session.client())
    }

    fn tell_refusal(&self, refusal: &Refusal) {
        let refused = Refused {
            stage: refusal.stage,
            answer: &refusal.answer,
            recipient: &refusal.recipient,
            recipients: 0,
        };
        let client = self.session.origin();
        let whose = Whose::of(&refusal.credential, client);
        self.shared.events.rejected(whose, &refused);
        if refusal.answer.code >= 500 && refusal.answer != answer::LOCKED {
            let rules = Rules::of(&refusal.credential, &self.shared.snapshot.borrow());
            let seen = rules.and_then(|rules| Seen::refused(&rules, client, 1));
            self.shared.watcher.note(seen);
        }
    }
}
