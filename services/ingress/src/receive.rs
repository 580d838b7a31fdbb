//! After DATA or BDAT: the content is received and judged, and the message answered.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use config::{LongLines, Snapshot};
use dkim::BodyHashes;
use mail::{Domain, MessageId};
use message::{
    Additions, BinaryError, Converter, ReceivedInfo, SignedNames, received_field, repair,
};
use preflight::Envelope;
use proto::event::Stage;
use smtp::{ChunkDecoder, DataDecoder, DataError, DataProgress, EnhancedCode};
use spool::Upload;
use tokio::time::Instant;

use crate::answer::{self, Answer};
use crate::chain::{Checks, Receiver};
use crate::checks::{self, Hearers};
use crate::connection::{Concern, Connection};
use crate::content::{Content, Judged, Lines, Received, Repaired};
use crate::events::Whose;
use crate::forwarding;
use crate::headers::{self, Facts};
use crate::links::{self, Links};
use crate::memory::Reservation;
use crate::policy::{self, Author, Sender};
use crate::proxy::Client;
use crate::quota::{self, Charge};
use crate::resubmission::{self, Recognised, Remembered};
use crate::return_paths::Returned;
use crate::scanning::{Marks, SCAN_MEMORY, Scanning};
use crate::server::Shared;
use crate::session::{Effect, Transaction};
use crate::store::Unstored;
use crate::watching::Seen;
use crate::wire::Ended;

/// Memory of a message that leaves in pieces, octets: four are in flight while the next comes in.
const UPLOAD_MEMORY: usize = 5 * 1024 * 1024;
/// How long a client waits for memory.
const MEMORY_PATIENCE: Duration = Duration::from_millis(500);

/// A message that comes in: what was collected of it, and what that holds.
pub(crate) struct Incoming {
    id: MessageId,
    snapshot: Arc<Snapshot>,
    content: Content,
    upload: Option<Upload>,
    /// Of a message that leaves in pieces.
    scanning: Option<Scanning>,
    reservation: Reservation,
    charge: Option<Charge>,
    /// Then it has to be complete.
    deadline: Instant,
    /// Of a message in chunks.
    decoder: ChunkDecoder,
}

/// What makes content of the octets of the connection.
trait Decoder {
    fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> DataProgress;
    fn error(&self) -> Option<DataError>;
}

impl Decoder for DataDecoder {
    fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> DataProgress {
        Self::decode(self, input, out)
    }

    fn error(&self) -> Option<DataError> {
        Self::error(self)
    }
}

impl Decoder for ChunkDecoder {
    fn decode(&mut self, input: &[u8], out: &mut Vec<u8>) -> DataProgress {
        Self::decode(self, input, out)
    }

    fn error(&self) -> Option<DataError> {
        Self::error(self)
    }
}

impl Connection {
    /// After DATA: the transaction of the session to its end.
    pub(crate) async fn receive(&mut self) -> Result<Effect, Ended> {
        let Some(transaction) = self.session.take_transaction() else {
            return Ok(self.say(answer::NEED_MAIL));
        };
        self.concerns(&transaction, Stage::Data);
        let limit = transaction.max_size(self.wire.listening.policy.max_message_size);
        let mut incoming = match self.make_room(&transaction, limit).await {
            Ok(incoming) => incoming,
            Err(refusal) => return Ok(self.say(refusal)),
        };
        self.concerns(&transaction, Stage::Content);
        answer::SEND_DATA.write(&mut self.wire.output);
        self.wire.send().await?;
        incoming.deadline = Instant::now() + self.wire.listening.data_timeout;
        let mut decoder = DataDecoder::new(limit);
        self.read_into(&mut decoder, &mut incoming, &transaction)
            .await?;
        self.conclude(incoming, transaction).await
    }

    /// After BDAT (RFC 3030): one chunk, read to its end whatever is wrong with it; the last one ends the
    /// transaction, and so does one that is refused.
    pub(crate) async fn chunk(
        &mut self,
        size: u64,
        last: bool,
        refused: Option<Answer>,
    ) -> Result<Effect, Ended> {
        if let Some(refusal) = refused {
            self.pass_over(size).await?;
            return Ok(self.say(refusal));
        }
        let Some(transaction) = self.session.take_transaction() else {
            self.pass_over(size).await?;
            return Ok(self.say(answer::NEED_MAIL));
        };
        self.concerns(&transaction, Stage::Data);
        let mut incoming = match self.chunks.take() {
            Some(incoming) => incoming,
            None => {
                let limit = transaction.max_size(self.wire.listening.policy.max_message_size);
                match self.make_room(&transaction, limit).await {
                    Ok(incoming) => Box::new(incoming),
                    Err(refusal) => {
                        self.pass_over(size).await?;
                        return Ok(self.say(refusal));
                    }
                }
            }
        };
        self.concerns(&transaction, Stage::Content);
        let mut decoder = incoming.decoder.clone();
        decoder.begin(size);
        if size > 0 {
            self.read_into(&mut decoder, &mut incoming, &transaction)
                .await?;
        }
        if last {
            decoder.finish(incoming.content.sink());
        }
        if let Some(error) = decoder.error() {
            incoming.content.refuse(error.into());
        }
        if last {
            return self.conclude(*incoming, transaction).await;
        }
        if let Some(refusal) = incoming.content.refusal().cloned() {
            return Ok(self.say(refusal));
        }
        incoming.decoder = decoder;
        self.chunks = Some(incoming);
        self.session.resume(transaction);
        let text = format!("{size} octets received");
        Ok(self.say(Answer::with(250, EnhancedCode(2, 0, 0), text)))
    }

    /// What is said from now on is about this message.
    fn concerns(&mut self, transaction: &Transaction, stage: Stage) {
        self.concerning = Some(Concern {
            rules: transaction.sender.rules.clone(),
            stage,
            recipients: transaction.recipients.len(),
        });
    }

    /// Reads so many octets that nobody wants: they are no commands.
    async fn pass_over(&mut self, mut size: u64) -> Result<(), Ended> {
        let deadline = Instant::now() + self.wire.listening.data_timeout;
        while size > 0 {
            if self.wire.input.is_empty() {
                self.read_content(deadline).await?;
            }
            let there = self.wire.input.octets().len();
            let count = usize::try_from(size).map_or(there, |size| size.min(there));
            self.wire.input.consume(count);
            size -= count as u64;
        }
        Ok(())
    }

    /// Memory for what is expected, and the recipients' part of the quotas.
    async fn make_room(
        &mut self,
        transaction: &Transaction,
        limit: u64,
    ) -> Result<Incoming, Answer> {
        let mut reservation = Reservation::default();
        let need = Content::first_need(transaction.declared_size);
        let room = self
            .wire
            .shared
            .pool
            .grow(&mut reservation, need, MEMORY_PATIENCE)
            .await;
        room.map_err(|_| answer::NO_MEMORY)?;
        let charge = quota::charge(
            &self.wire.shared.quotas,
            &transaction.sender,
            self.session.origin(),
            transaction.recipients.len(),
        )
        .await?;
        Ok(Incoming {
            id: MessageId::now(),
            snapshot: Arc::clone(&self.wire.shared.snapshot.borrow()),
            content: Content::new(transaction.declared_size),
            upload: None,
            scanning: None,
            reservation,
            charge,
            deadline: Instant::now() + self.wire.listening.data_timeout,
            decoder: if transaction.binary {
                ChunkDecoder::binary(limit)
            } else {
                ChunkDecoder::new(limit)
            },
        })
    }

    /// The content is complete: it is judged, stored and answered.
    async fn conclude(
        &mut self,
        incoming: Incoming,
        mut transaction: Box<Transaction>,
    ) -> Result<Effect, Ended> {
        let complete = Instant::now();
        let Incoming {
            id,
            snapshot,
            content,
            upload,
            scanning,
            reservation,
            charge,
            ..
        } = incoming;
        let mut received = match self.finish(id, content, &transaction, &snapshot) {
            Ok(received) => received,
            Err(refusal) => return Ok(self.say(refusal)),
        };
        let scanning = scanning.unwrap_or_else(|| {
            let header = (received.judged.stream.as_str(), received.header_length);
            self.begin_scan(id, (&transaction, &snapshot), header, false)
        });
        let scan_begun = Instant::now();
        received.judged.marks = match scanning.finish(&received.rest).await {
            Ok(marks) => marks,
            Err(refusal) => return Ok(self.say(refusal)),
        };
        let scanned = scan_begun.elapsed();
        let recognised =
            resubmission::recognise(&self.wire.shared.claims, id, &transaction, &received).await;
        let remembered = match recognised {
            Recognised::New(remembered) => remembered,
            Recognised::Underway => return Ok(self.say(answer::UNDERWAY)),
            Recognised::Again(remembered) => {
                self.wire.shared.metrics.resubmissions.inc();
                let first = remembered.id().to_owned();
                tracing::info!(message_id = first, client = %self.client_network(), "message sent again, and known");
                let whose = Whose::of(&transaction.sender.rules.credential, self.session.origin());
                let recipients = transaction.recipients.len();
                self.wire
                    .shared
                    .events
                    .resubmitted(whose, &first, recipients);
                return self.accepted_before(&first, remembered).await;
            }
        };
        let granted = received.judged.priority;
        let is_lowered = transaction.priority.is_some_and(|asked| asked != granted);
        let accepted = Accepted {
            id,
            tenant: transaction.sender.tenant.clone(),
            recipients: transaction.recipients.len(),
            length: received.length,
            scanned,
        };
        if let Some(wait) = charge
            .as_ref()
            .map(Charge::wait)
            .filter(|wait| !wait.is_zero())
        {
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            let allowed_ms = runtime::now_ms().saturating_add(wait_ms);
            transaction.not_before_ms = transaction.not_before_ms.max(allowed_ms);
        }
        self.seal(&mut received, &transaction).await;
        let seen = Seen::message(&transaction, &received, self.session.origin());
        let stored = self
            .wire
            .shared
            .store(id, *transaction, received, upload)
            .await;
        let waited = complete.elapsed().saturating_sub(scanned);
        drop(reservation);
        if let Err(Unstored { answer, in_doubt }) = stored {
            // What is in doubt stays claimed for a while, rather than to be stored a second time at once.
            if let Some(remembered) = remembered.filter(|_| !in_doubt) {
                remembered.forget().await;
            }
            return Ok(self.say(answer));
        }
        if let Some(remembered) = &remembered {
            remembered.stored().await;
        }
        if let Some(charge) = charge {
            charge.keep();
        }
        self.session.message_accepted();
        let effect = self.say(if is_lowered {
            // RFC 6710: the new priority comes first.
            let text = format!("{granted} is the priority of the message, queued as {id}");
            Answer::with(250, EnhancedCode(2, 3, 6), text)
        } else {
            Answer::with(250, EnhancedCode(2, 0, 0), format!("Ok queued as {id}"))
        });
        self.unconfirmed = remembered;
        // Accepted is accepted, whether its client waits for the answer or not.
        self.wire.shared.watcher.note(seen);
        self.wire.send().await?;
        self.count(accepted, complete.elapsed(), waited);
        Ok(effect)
    }

    /// What the ARC set of a message says that is forwarded; counts such messages.
    async fn seal(&mut self, received: &mut Received, transaction: &Transaction) {
        if !received.judged.is_foreign {
            return;
        }
        let forwarding = self.wire.listening.policy.forwarding.as_ref();
        if let (Some(checks), Some(forwarding)) = (received.judged.checks.take(), forwarding) {
            let bodies = BodyHashes {
                relaxed: received.body_hash,
                simple: received.simple_body_hash,
            };
            let receiver = Receiver {
                hostname: &self.wire.listening.policy.hostname,
                authenticated: !transaction.sender.authenticated_as.is_empty(),
            };
            let now = runtime::now_ms() / 1000;
            let resolver = &forwarding.resolver;
            // Rare, and large: not a part of every connection's memory.
            let seal = Box::pin(checks.seal(resolver, &bodies, &receiver, now)).await;
            received.judged.seal = seal.map(Box::new);
        }
        self.wire
            .shared
            .metrics
            .forwarded(received.judged.seal.as_deref());
    }

    /// The answer to a message that was accepted when it came the first time.
    async fn accepted_before(
        &mut self,
        first: &str,
        remembered: Remembered,
    ) -> Result<Effect, Ended> {
        self.session.message_accepted();
        let text = format!("Ok queued as {first}");
        let effect = self.say(Answer::with(250, EnhancedCode(2, 0, 0), text));
        self.unconfirmed = Some(remembered);
        self.wire.send().await?;
        Ok(effect)
    }

    fn finish(
        &self,
        id: MessageId,
        mut content: Content,
        transaction: &Transaction,
        snapshot: &Snapshot,
    ) -> Result<Received, Answer> {
        // Asked only of content without an empty line.
        let shared = &self.wire.shared;
        let mut judge =
            |header: &[u8]| HeaderJudge::of(self, id, transaction, snapshot, shared).judge(header);
        content.absorb(&mut judge);
        content.finish(&mut judge)
    }

    /// Reads to the end that the decoder sees, whatever is wrong before it.
    async fn read_into(
        &mut self,
        decoder: &mut impl Decoder,
        incoming: &mut Incoming,
        transaction: &Transaction,
    ) -> Result<(), Ended> {
        let Incoming {
            id,
            snapshot,
            content,
            upload,
            scanning,
            reservation,
            deadline,
            ..
        } = incoming;
        let shared = Arc::clone(&self.wire.shared);
        let headers = HeaderJudge::of(self, *id, transaction, snapshot, &shared);
        let mut judge = |header: &[u8]| headers.judge(header);
        self.wire.input.enlarge(&self.wire.shared.content_buffers);
        loop {
            if self.wire.input.is_empty() {
                self.read_content(*deadline).await?;
            }
            if content.refusal().is_none() {
                let need = content.need(self.wire.input.octets().len());
                if self
                    .wire
                    .shared
                    .pool
                    .grow(reservation, need, MEMORY_PATIENCE)
                    .await
                    .is_err()
                {
                    content.refuse(answer::NO_MEMORY);
                }
            }
            let progress = decoder.decode(self.wire.input.octets(), content.sink());
            self.wire.input.consume(progress.consumed);
            content.absorb(&mut judge);
            if let Some(error) = decoder.error() {
                content.refuse(error.into());
            }
            if let Some(piece) = content.take_piece() {
                let scanning = scanning.get_or_insert_with(|| {
                    let header = content
                        .judged()
                        .map_or(("", 0), |(judged, length)| (judged.stream.as_str(), length));
                    self.begin_scan(*id, (transaction, snapshot), header, true)
                });
                let need = match scanning.is_idle() {
                    true => UPLOAD_MEMORY,
                    false => UPLOAD_MEMORY + SCAN_MEMORY,
                };
                let room = self
                    .wire
                    .shared
                    .pool
                    .grow(reservation, need, MEMORY_PATIENCE)
                    .await;
                let shown = Instant::now();
                let clean = match room {
                    Ok(()) => scanning.piece(&piece).await,
                    Err(_) => Err(answer::NO_MEMORY),
                };
                // It is not the client who took this time.
                *deadline += shown.elapsed();
                let stored = match clean {
                    Ok(()) => self.wire.shared.upload(upload, piece).await,
                    Err(refusal) => Err(refusal),
                };
                if let Err(refusal) = stored {
                    content.refuse(refusal);
                }
            }
            if content.refusal().is_some() {
                // Nobody has to look at it any more, and nothing of it is kept.
                (*scanning, *upload) = (None, None);
                *reservation = Reservation::default();
            }
            if progress.done {
                return Ok(());
            }
        }
    }

    /// Counts and logs an accepted message, after its client has the answer.
    fn count(&mut self, accepted: Accepted, in_all: Duration, waited: Duration) {
        let Accepted {
            id,
            tenant,
            recipients,
            length,
            scanned,
        } = accepted;
        let metrics = &self.wire.shared.metrics;
        metrics.accept_seconds.observe(in_all.as_secs_f64());
        metrics.storage_seconds.observe(waited.as_secs_f64());
        metrics
            .added_seconds
            .observe(in_all.saturating_sub(waited + scanned).as_secs_f64());
        if self
            .tenant_metrics
            .as_ref()
            .is_none_or(|counters| *counters.tenant != *tenant)
        {
            self.tenant_metrics = Some(metrics.tenant(&tenant));
        }
        if let Some(counters) = &self.tenant_metrics {
            counters.accepted(recipients, length);
        }
        tracing::info!(
            message_id = %id,
            tenant,
            size = length,
            recipients,
            client = %self.client_network(),
            "message accepted"
        );
    }
}

/// What is said of an accepted message.
struct Accepted {
    id: MessageId,
    tenant: String,
    recipients: usize,
    /// Octets.
    length: u64,
    /// How long its scanners were waited for.
    scanned: Duration,
}

/// Judges and repairs the header section of one message.
struct HeaderJudge<'a> {
    id: MessageId,
    snapshot: &'a Snapshot,
    sender: &'a Sender,
    /// Empty for the null reverse-path.
    return_path: &'a str,
    /// Authors may be foreign.
    forwards: bool,
    /// The client wants it to be kept until then, Unix milliseconds; 0: not.
    released_ms: u64,
    /// What the client asks for.
    priority: Option<i8>,
    smtputf8: bool,
    /// The content is binary.
    binary: bool,
    /// The only one.
    recipient: Option<&'a str>,
    shared: &'a Shared,
    client: Client,
    received: String,
    unix_ms: u64,
    hostname: String,
}

impl<'a> HeaderJudge<'a> {
    fn of(
        connection: &Connection,
        id: MessageId,
        transaction: &'a Transaction,
        snapshot: &'a Snapshot,
        shared: &'a Shared,
    ) -> Self {
        let unix_ms = runtime::now_ms();
        let hostname = connection.wire.listening.policy.hostname.clone();
        let recipient = match transaction.recipients.as_slice() {
            [only] => Some(only.address.as_str()),
            _ => None,
        };
        let received = received_field(&ReceivedInfo {
            from_helo: connection.session.client_name(),
            client_ip: connection.session.client(),
            by_host: &hostname,
            with: if transaction.smtputf8 {
                connection.session.protocol().with_smtputf8()
            } else {
                connection.session.protocol()
            },
            id,
            for_single_recipient: recipient,
            unix_ms,
        });
        Self {
            id,
            snapshot,
            sender: &transaction.sender,
            return_path: &transaction.return_path,
            forwards: connection.wire.listening.policy.forwarding.is_some()
                && transaction.sender.foreign_senders().is_some(),
            released_ms: transaction.not_before_ms,
            priority: transaction.priority,
            smtputf8: transaction.smtputf8,
            binary: transaction.binary,
            recipient,
            shared,
            client: connection.session.origin(),
            received,
            unix_ms,
            hostname,
        }
    }

    /// The domain of the return paths of mail of this author; `None`: it keeps the client's, which may be the null one.
    fn return_domain(&self, author: &Author) -> Result<Option<&'a Domain>, Answer> {
        if author.is_foreign || self.return_path.is_empty() {
            return Ok(None);
        }
        let sending = self.snapshot.sending_domain(author.domain.as_str());
        let own = sending.and_then(|sending| sending.return_path.as_ref());
        match (own, &self.shared.tokens) {
            (None, _) => Ok(None),
            (Some(own), Some(_)) => Ok(Some(&own.domain)),
            (Some(_), None) => {
                tracing::error!(
                    domain = author.domain.as_str(),
                    "message refused: its domain has return paths of ours, and staffetta.yaml no `tokens` to make them"
                );
                Err(answer::NO_RETURN_PATHS)
            }
        }
    }

    /// The links of a message of the stream, as far as it has them.
    fn links(
        &self,
        headers: &config::Headers,
        stream: &str,
        campaign: &str,
        author: &Domain,
        leaves_ms: u64,
    ) -> Option<Links> {
        let whose = links::Whose {
            message: self.id,
            tenant: &self.sender.rules.tenant.name,
            stream,
            campaign,
            author,
            leaves_ms,
        };
        let keys = self.shared.tokens.as_deref();
        match Links::of(headers, &whose, self.snapshot, keys) {
            Ok(links) => links,
            Err(why) => {
                self.shared.metrics.no_links(why);
                None
            }
        }
    }

    /// Address for complaints about this message.
    fn complaints_go_to(
        &self,
        domain: &Domain,
        stream: &str,
        leaves_ms: u64,
    ) -> Result<Option<String>, Answer> {
        let Some(tokens) = &self.shared.tokens else {
            return Ok(None);
        };
        let returned = Returned {
            tenant: &self.sender.tenant,
            stream,
            id: self.id,
            domain,
            end: tokens.end(leaves_ms / 1000),
        };
        let address = returned.for_complaints(&tokens.keys());
        address.map(Some).map_err(|_| answer::NO_RETURN_PATHS)
    }

    fn judge(&self, header: &[u8]) -> Result<Repaired, Answer> {
        let tenant = &self.sender.rules.tenant;
        let author = policy::judge_header(header, self.snapshot, &tenant.name, self.forwards)?;
        if author.is_foreign {
            let (snapshot, hostname) = (self.snapshot, &self.hostname);
            forwarding::may_author(snapshot, hostname, &tenant.name, &author, self.return_path)?;
        }
        let return_domain = self.return_domain(&author)?;
        // What a stranger has written is no wish of the tenant's.
        let own = if author.is_foreign { &[] } else { header };
        let (stream, campaign) =
            policy::judge_labels(own, self.snapshot, self.sender, &author.domain)?;
        let tenant_stream = tenant.stream(&stream);
        let times = policy::judge_times(own, tenant_stream, self.released_ms, self.unix_ms)?;
        // What is in it counts from when it is sent.
        let leaves_ms = self.unix_ms.max(times.not_before_ms.unwrap_or(0));
        let envelope = Envelope {
            snapshot: self.snapshot,
            tenant,
            stream: &stream,
            return_path: self.return_path,
            author: Some(&author.domain),
            smtputf8: self.smtputf8,
        };
        let hearers = || Hearers {
            metrics: Arc::clone(&self.shared.metrics),
            events: Arc::clone(&self.shared.events),
            whose: Whose::of(&self.sender.rules.credential, self.client),
            id: self.id,
        };
        let looked = checks::look_over(header, &envelope, tenant, hearers)?;
        let knows_again = self.sender.rules.credential.idempotent_for.is_some();
        let message_id = knows_again
            .then(|| resubmission::message_id(header))
            .flatten();
        let mut on_top = Cow::Borrowed(self.received.as_str());
        if !looked.said.fields.is_empty() {
            on_top.to_mut().push_str(&looked.said.fields);
        }
        let wants_complaints = tenant_stream
            .and_then(|stream| stream.headers.as_deref())
            .is_some_and(|headers| headers.cfbl_ours);
        // Elsewhere the field is not added.
        let aligned = return_domain.filter(|domain| domain.is_within(&author.domain));
        let complaints = match aligned.filter(|_| wants_complaints) {
            Some(domain) => self.complaints_go_to(domain, &stream, leaves_ms)?,
            None => None,
        };
        let foreign = self.sender.foreign_senders().filter(|_| author.is_foreign);
        // What the stream adds is for its own mail.
        let of_stream = tenant_stream
            .and_then(|stream| stream.headers.as_deref())
            .filter(|_| !author.is_foreign);
        let signed = SignedNames::of(header);
        let links = of_stream
            .filter(|headers| headers.unsubscribe.is_some() && !links::has_own(header, &signed))
            .and_then(|headers| self.links(headers, &stream, &campaign, &author.domain, leaves_ms));
        let facts = Facts {
            complaints: complaints.as_deref(),
            id: self.id,
            unix_ms: self.unix_ms,
            hostname: &self.hostname,
            tenant: &tenant.name,
            stream: &stream,
            campaign: &campaign,
            author: &author.domain,
            recipient: self.recipient,
            links: links.as_ref(),
        };
        let if_missing = if author.is_foreign && signed.is_signed() {
            Vec::new()
        } else {
            headers::additions(tenant.repair, of_stream, &facts)
        };
        let additions = Additions {
            received: &on_top,
            if_missing: &if_missing,
            fold: tenant.repair.long_lines == LongLines::Break,
            signed: &signed,
            is_foreign: author.is_foreign,
        };
        if self.binary && author.is_foreign && signed.is_signed() {
            return Err(BinaryError::Signed.into());
        }
        let checks = foreign.filter(|foreign| foreign.seal).map(|foreign| {
            Box::new(Checks::of(
                header,
                &foreign.domain,
                foreign.results_of.as_ref(),
            ))
        });
        let lines = Lines::of(tenant.repair.long_lines, header, signed.is_signed())?;
        let tls_optional = message::tls_is_optional(header);
        let mut header = repair(header, &additions);
        let mut converter = None;
        if self.binary {
            let (begun, with_encoding) = Converter::begin(&header)?;
            (header, converter) = (with_encoding, Some(Box::new(begun)));
        }
        Ok(Repaired {
            header,
            converter,
            lines,
            examine: looked.examine,
            judged: Judged {
                from_domain: if author.is_foreign {
                    String::new()
                } else {
                    author.domain.as_str().to_owned()
                },
                is_foreign: author.is_foreign,
                checks,
                return_domain: return_domain.cloned(),
                seal: None,
                stream,
                campaign,
                times,
                priority: policy::judge_priority(self.priority, tenant_stream),
                tls_optional,
                message_id,
                warned: looked.said.weight,
                marks: Marks::default(),
                links: links.filter(|_| self.recipient.is_none()).map(Box::new),
            },
        })
    }
}
