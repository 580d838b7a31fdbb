//! One connection: reads, lets the session decide, does what it says, writes.

use std::sync::Arc;

use proto::event::Stage;
use runtime::ClientSlot;
use smtp::{AuthLineDecoder, CommandDecoder};
use tokio::time::Instant;

use crate::answer::{self, Answer};
use crate::events::{Refused, Whose};
use crate::metrics::TenantMetrics;
use crate::policy::Rules;
use crate::proxy::Client;
use crate::receive::Incoming;
use crate::resubmission::Remembered;
use crate::server::{Listening, Shared};
use crate::session::{Effect, Moment, Refusal, Session};
use crate::socket::Socket;
use crate::watching::Seen;
use crate::wire::{Ended, Wire};

/// A message that is being received, for who tells that it was refused.
pub(crate) struct Concern {
    pub(crate) rules: Rules,
    pub(crate) stage: Stage,
    pub(crate) recipients: usize,
}

/// A connection and its session.
pub(crate) struct Connection {
    pub(crate) wire: Wire,
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
        Self {
            wire: Wire::new(shared, listening, socket),
            session,
            tenant_metrics: None,
            chunks: None,
            unconfirmed: None,
            concerning: None,
            of_client,
        }
    }

    /// Serves it to its end.
    pub(crate) async fn serve(mut self) {
        let ended = match self.begin().await {
            Ok(()) => self.converse().await.unwrap_or_else(|ended| ended),
            Err(ended) => ended,
        };
        let client = self.client_network();
        if let Err(error) = self.wire.end(ended).await {
            tracing::debug!(%client, %error, "connection broke");
        }
    }

    async fn begin(&mut self) -> Result<(), Ended> {
        if self.wire.listening.implicit_tls {
            Box::pin(self.handshake()).await?;
        }
        self.session.greet(&mut self.wire.output);
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
                    self.wire.send().await?;
                    self.read_command().await?;
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
            let decoded = auth_lines.decode(self.wire.input.octets());
            self.wire.input.consume(decoded.consumed);
            let line = decoded.item?;
            let snapshot = self.wire.shared.snapshot.borrow();
            return Some(
                self.session
                    .auth_line(line, &snapshot, &mut self.wire.output),
            );
        }
        let decoded = commands.decode(self.wire.input.octets());
        self.wire.input.consume(decoded.consumed);
        let command = decoded.item?;
        let moment = Moment {
            snapshot: &self.wire.shared.snapshot.borrow(),
            measures: &self.wire.shared.watcher.measures(),
            storage: self.wire.shared.storage(),
            suppressed: self.wire.shared.suppressed.table(),
            now_ms: runtime::now_ms(),
        };
        let effect = self.session.command(command, moment, &mut self.wire.output);
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
            self.wire.listening.room_for(client)
        } else {
            Ok(None)
        };
        match room {
            Ok(of_client) => {
                self.of_client = of_client;
                self.session.greet(&mut self.wire.output);
                Effect::Continue
            }
            Err(refusal) => {
                self.say(refusal);
                Effect::Close
            }
        }
    }

    async fn handshake(&mut self) -> Result<(), Ended> {
        self.wire.handshake().await?;
        self.session.tls_started(self.wire.socket.client_names());
        Ok(())
    }

    async fn read_command(&mut self) -> Result<(), Ended> {
        self.wire.read_command().await?;
        self.confirmed().await;
        Ok(())
    }

    /// The client has sent something: it has seen our last answer, so far as it could.
    async fn confirmed(&mut self) {
        if let Some(remembered) = self.unconfirmed.take() {
            remembered.forget().await;
        }
    }

    pub(crate) async fn read_content(&mut self, deadline: Instant) -> Result<(), Ended> {
        self.wire.read_content(deadline).await?;
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
            self.wire.shared.events.rejected(whose, &refused);
            if answer.code >= 500 {
                let seen = Seen::refused(&concern.rules, client, concern.recipients);
                self.wire.shared.watcher.note(seen);
            }
        }
        self.session.say(answer, &mut self.wire.output)
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
        self.wire.shared.events.rejected(whose, &refused);
        if refusal.answer.code >= 500 && refusal.answer != answer::LOCKED {
            let rules = Rules::of(&refusal.credential, &self.wire.shared.snapshot.borrow());
            let seen = rules.and_then(|rules| Seen::refused(&rules, client, 1));
            self.wire.shared.watcher.note(seen);
        }
    }
}
