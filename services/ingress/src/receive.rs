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
        if self
            .shared
            .pool
            .grow(&mut reservation, need, MEMORY_PATIENCE)
            .await
            .is_err()
        {
            return Ok(self.say(answer::NO_MEMORY));
        }
        answer::SEND_DATA.write(&mut self.output);
        self.send().await?;

        let id = MessageId::now();
        let snapshot = Arc::clone(&self.shared.snapshot.borrow());
        let (received, upload) = self
            .read_message(id, &transaction, &snapshot, &mut reservation)
            .await?;
        let complete = Instant::now();
        let received = match received {
            Ok(received) => received,
            Err(refusal) => return Ok(self.say(refusal)),
        };
        let accepted = Accepted {
            id,
            tenant: transaction.sender.tenant.clone(),
            recipients: transaction.recipients.len(),
            length: received.length,
        };
        let stored = self.shared.store(id, *transaction, received, upload).await;
        let waited = complete.elapsed();
        drop(reservation);
        if let Err(refusal) = stored {
            return Ok(self.say(refusal));
        }
        self.session.message_accepted();
        let text = format!("Ok queued as {id}");
        let effect = self.say(Answer::with(250, EnhancedCode(2, 0, 0), text));
        self.send().await?;
        self.count(accepted, complete.elapsed(), waited);
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
        self.input.enlarge(&self.shared.content_buffers);
        loop {
            if self.input.is_empty() {
                self.read_content(deadline).await?;
            }
            if content.refusal().is_none() {
                let need = content.need(self.input.octets().len());
                if self
                    .shared
                    .pool
                    .grow(reservation, need, MEMORY_PATIENCE)
                    .await
                    .is_err()
                {
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
                let room = self
                    .shared
                    .pool
                    .grow(reservation, UPLOAD_MEMORY, MEMORY_PATIENCE)
                    .await;
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

    /// Counts and logs an accepted message, after its client has the answer.
    fn count(&mut self, accepted: Accepted, in_all: Duration, waited: Duration) {
        let Accepted {
            id,
            tenant,
            recipients,
            length,
        } = accepted;
        let metrics = &self.shared.metrics;
        metrics.accept_seconds.observe(in_all.as_secs_f64());
        metrics.storage_seconds.observe(waited.as_secs_f64());
        metrics
            .added_seconds
            .observe(in_all.saturating_sub(waited).as_secs_f64());
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
    fn of(
        connection: &Connection,
        id: MessageId,
        transaction: &'a Transaction,
        snapshot: &'a Snapshot,
    ) -> Self {
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
        Self {
            id,
            snapshot,
            tenant: &transaction.sender.tenant,
            received,
            unix_ms,
            hostname,
        }
    }

    fn judge(&self, header: &[u8]) -> Result<Repaired, Answer> {
        let author = policy::judge_header(header, self.snapshot, self.tenant)?;
        let additions = Additions {
            received: &self.received,
            date_if_missing: &date_text(self.unix_ms),
            message_id_if_missing: &message_id_text(self.id, &self.hostname),
        };
        Ok(Repaired {
            header: repair(header, &additions),
            from_domain: author.as_str().to_owned(),
        })
    }
}
