//! After DATA: the content is received and judged, and the message answered.

use std::sync::Arc;
use std::time::Duration;

use config::Snapshot;
use mail::MessageId;
use message::{Additions, ReceivedInfo, date_text, message_id_text, received_field, repair};
use smtp::{DataDecoder, EnhancedCode};
use spool::Upload;
use tokio::time::Instant;

use crate::answer::{self, Answer};
use crate::connection::{Connection, Ended};
use crate::content::{Content, Received, Repaired};
use crate::memory::Reservation;
use crate::policy;
use crate::session::{Effect, Transaction};

/// Memory of a message that leaves in pieces, octets: four are in flight while the next comes in.
const UPLOAD_MEMORY: usize = 5 * 1024 * 1024;
/// How long a client waits for memory.
const MEMORY_PATIENCE: Duration = Duration::from_millis(500);

impl Connection {
    /// After DATA: the transaction of the session to its end.
    pub(crate) async fn receive(&mut self) -> Result<Effect, Ended> {
        let Some(transaction) = self.session.take_transaction() else {
            return Ok(self.say(answer::NEED_MAIL));
        };
        let mut reservation = Reservation::default();
        let need = Content::first_need(transaction.declared_size);
        if self.shared.pool.grow(&mut reservation, need, MEMORY_PATIENCE).await.is_err() {
            return Ok(self.say(answer::NO_MEMORY));
        }
        answer::SEND_DATA.write(&mut self.output);
        self.send().await?;

        let id = MessageId::now();
        let snapshot = Arc::clone(&self.shared.snapshot.borrow());
        let (received, upload) = self.read_message(id, &transaction, &snapshot, &mut reservation).await?;
        let complete = Instant::now();
        let effect = match received {
            Ok(received) => {
                let (length, recipients) = (received.length, transaction.recipients.len());
                let tenant = transaction.sender.tenant.clone();
                match self.shared.store(id, *transaction, received, upload).await {
                    Ok(()) => {
                        self.count_accepted(id, &tenant, recipients, length);
                        self.session.message_accepted();
                        self.say(Answer::with(250, EnhancedCode(2, 0, 0), format!("Ok queued as {id}")))
                    }
                    Err(refusal) => self.say(refusal),
                }
            }
            Err(refusal) => self.say(refusal),
        };
        drop(reservation);
        self.send().await?;
        self.shared.metrics.accept_seconds.observe(complete.elapsed().as_secs_f64());
        Ok(effect)
    }

    /// Reads to the final dot, whatever is wrong before it.
    async fn read_message(
        &mut self,
        id: MessageId,
        transaction: &Transaction,
        snapshot: &Snapshot,
        reservation: &mut Reservation,
    ) -> Result<(Result<Received, Answer>, Option<Upload>), Ended> {
        let deadline = Instant::now() + self.listening.data_timeout;
        let headers = HeaderJudge::of(self, id, transaction, snapshot);
        let mut judge = |header: &[u8]| headers.judge(header);
        let mut decoder = DataDecoder::new(self.listening.policy.max_message_size);
        let mut content = Content::new(transaction.declared_size);
        let mut upload: Option<Upload> = None;
        self.input.enlarge();
        loop {
            if self.input.is_empty() {
                self.read_content(deadline).await?;
            }
            if content.refusal().is_none() {
                let need = content.need(self.input.octets().len());
                if self.shared.pool.grow(reservation, need, MEMORY_PATIENCE).await.is_err() {
                    content.refuse(answer::NO_MEMORY);
                    *reservation = Reservation::default();
                }
            }
            let progress = decoder.decode(self.input.octets(), content.sink());
            self.input.consume(progress.consumed);
            content.absorb(&mut judge);
            if let Some(error) = decoder.error() {
                content.refuse(error.into());
            }
            if progress.done {
                return Ok((content.finish(&mut judge), upload));
            }
            if let Some(piece) = content.take_piece() {
                let room = self.shared.pool.grow(reservation, UPLOAD_MEMORY, MEMORY_PATIENCE).await;
                let stored = match room {
                    Ok(()) => self.shared.upload(&mut upload, piece).await,
                    Err(_) => Err(answer::NO_MEMORY),
                };
                if let Err(refusal) = stored {
                    content.refuse(refusal);
                    upload = None;
                }
            }
        }
    }

    fn count_accepted(&mut self, id: MessageId, tenant: &str, recipients: usize, length: u64) {
        if self.tenant_metrics.as_ref().is_none_or(|metrics| &*metrics.tenant != tenant) {
            self.tenant_metrics = Some(self.shared.metrics.tenant(tenant));
        }
        if let Some(metrics) = &self.tenant_metrics {
            metrics.accepted(recipients, length);
        }
        tracing::info!(message = %id, tenant, size = length, recipients, client = %self.client_network(), "message accepted");
    }
}

/// Judges and repairs the header section of one message.
struct HeaderJudge<'a> {
    id: MessageId,
    snapshot: &'a Snapshot,
    tenant: &'a str,
    received: String,
    unix_ms: u64,
    hostname: String,
}

impl<'a> HeaderJudge<'a> {
    fn of(connection: &Connection, id: MessageId, transaction: &'a Transaction, snapshot: &'a Snapshot) -> Self {
        let unix_ms = runtime::now_ms();
        let hostname = connection.listening.policy.hostname.clone();
        let received = received_field(&ReceivedInfo {
            from_helo: connection.session.client_name(),
            client_ip: connection.session.client(),
            by_host: &hostname,
            with: connection.session.protocol(),
            id,
            for_single_recipient: match transaction.recipients.as_slice() {
                [only] => Some(&only.address),
                _ => None,
            },
            unix_ms,
        });
        Self { id, snapshot, tenant: &transaction.sender.tenant, received, unix_ms, hostname }
    }

    fn judge(&self, header: &[u8]) -> Result<Repaired, Answer> {
        let author = policy::judge_header(header, self.snapshot, self.tenant)?;
        let additions = Additions {
            received: &self.received,
            date_if_missing: &date_text(self.unix_ms),
            message_id_if_missing: &message_id_text(self.id, &self.hostname),
        };
        Ok(Repaired { header: repair(header, &additions), from_domain: author.as_str().to_owned() })
    }
}
