//! A message on its way into the spool.

use bytes::Bytes;
use mail::MessageId;
use proto::envelope::{Envelope, Forwarded, Recipient};
use proto::spool::IndexEntry;
use spool::{Submission, SubmitError, Upload};

use crate::answer::{self, Answer};
use crate::content::{Judged, PIECE, Received};
use crate::links::Links;
use crate::return_paths::Returned;
use crate::server::Shared;
use crate::session::Transaction;

/// Bit of `IndexEntry.flags`: the simulator answers for some recipients. Who does not know it lets the message wait.
const SIMULATED: u64 = 1;

/// Why a message is refused that could not be stored.
pub(crate) struct Unstored {
    pub(crate) answer: Answer,
    /// It may be stored all the same.
    pub(crate) in_doubt: bool,
}

impl From<Answer> for Unstored {
    fn from(answer: Answer) -> Self {
        let in_doubt = false;
        Self { answer, in_doubt }
    }
}

impl Shared {
    /// Stores one piece of a large message; the first one begins the upload.
    pub(crate) async fn upload(
        &self,
        upload: &mut Option<Upload>,
        piece: Bytes,
    ) -> Result<(), Answer> {
        if upload.is_none() {
            *upload = Some(
                self.writer
                    .begin_upload()
                    .map_err(|error| self.storage_refusal(&error))?,
            );
        }
        match upload {
            Some(upload) => upload
                .push(piece)
                .await
                .map_err(|error| self.storage_refusal(&error)),
            None => Ok(()),
        }
    }

    /// Stores the message; `Ok` only when the stores have acknowledged it.
    pub(crate) async fn store(
        &self,
        id: MessageId,
        mut transaction: Transaction,
        mut received: Received,
        mut upload: Option<Upload>,
    ) -> Result<(), Unstored> {
        let judged = std::mem::take(&mut received.judged);
        self.give_return_paths(id, &mut transaction, &judged)?;
        let entry = index_entry(id, transaction, judged, &received);
        let rest = received.rest;
        if rest.len() > PIECE || upload.is_some() {
            self.upload(&mut upload, rest.clone()).await?;
        }
        let submission = match upload {
            Some(upload) => {
                let uploaded = upload
                    .finish()
                    .await
                    .map_err(|error| self.storage_refusal(&error))?;
                Submission::uploaded(entry, uploaded)
            }
            None => Submission::new(entry, rest),
        };
        let stored = self.writer.submit(submission).await;
        stored.map(drop).map_err(|error| {
            let in_doubt = matches!(error, SubmitError::Unknown(_));
            if let SubmitError::Unknown(detail) = &error {
                self.metrics.accept_unknown.inc();
                tracing::error!(message_id = %id, detail, "whether a message was stored is not known; its client was told to send it again");
            }
            let answer = self.storage_refusal(&error);
            Unstored { answer, in_doubt }
        })
    }

    fn give_return_paths(
        &self,
        id: MessageId,
        transaction: &mut Transaction,
        judged: &Judged,
    ) -> Result<(), Answer> {
        let (Some(domain), Some(tokens)) = (&judged.return_domain, &self.tokens) else {
            return Ok(());
        };
        // The later one: reports come after it has left.
        let leaves_ms = runtime::now_ms().max(not_before_ms(transaction, judged));
        let returned = Returned {
            tenant: &transaction.sender.tenant,
            stream: &judged.stream,
            id,
            domain,
            end: tokens.end(leaves_ms / 1000),
        };
        returned
            .give(&tokens.keys(), &mut transaction.recipients)
            .map_err(|_| answer::NO_RETURN_PATHS)
    }

    fn storage_refusal(&self, error: &SubmitError) -> Answer {
        match error {
            SubmitError::Full | SubmitError::Overloaded => answer::STORAGE_FULL,
            SubmitError::Unavailable(detail) => {
                tracing::warn!(detail, "message refused: the spool is unavailable");
                answer::STORAGE_AWAY
            }
            SubmitError::Unknown(_) | SubmitError::UploadExpired => answer::STORAGE_AWAY,
            SubmitError::TooLarge(_) => answer::TOO_LARGE,
            SubmitError::TooManyRecipients(_) => answer::TOO_MUCH_OF_RECIPIENTS,
        }
    }
}

/// What is put before the message: the same for all recipients, and a link of its own for each.
fn variants(fields: Vec<u8>, links: Option<&Links>, recipients: &mut [Recipient]) -> Vec<Bytes> {
    let mut number = 0;
    if let Some(links) = links {
        let of_each = recipients.iter_mut().map(|recipient| {
            number += 1;
            recipient.header_variant = number;
            let own = links.fields(&recipient.address);
            Bytes::from([fields.as_slice(), own.as_bytes()].concat())
        });
        return of_each.collect();
    }
    if fields.is_empty() {
        return Vec::new();
    }
    for recipient in recipients {
        recipient.header_variant = 1;
    }
    vec![Bytes::from(fields)]
}

/// The later one of what client and header say, Unix milliseconds; what is over its quota waits, too. 0: at once.
fn not_before_ms(transaction: &Transaction, judged: &Judged) -> u64 {
    transaction
        .not_before_ms
        .max(judged.times.not_before_ms.unwrap_or(0))
}

fn index_entry(
    id: MessageId,
    mut transaction: Transaction,
    mut judged: Judged,
    received: &Received,
) -> IndexEntry {
    let not_before_ms = not_before_ms(&transaction, &judged);
    let sender = transaction.sender;
    let hold = sender.is_on_hold(&judged.stream) || judged.marks.hold;
    let sandbox = sender.is_sandboxed(&judged.stream);
    let is_simulated = |recipient: &Recipient| recipient.simulated.is_some();
    let some_simulated = sandbox || transaction.recipients.iter().any(is_simulated);
    let fields = std::mem::take(&mut judged.marks.fields);
    let links = judged.links.take();
    let header_variants = variants(fields, links.as_deref(), &mut transaction.recipients);
    let envelope = Envelope {
        tenant: sender.tenant,
        stream: judged.stream,
        campaign: judged.campaign,
        credential: sender.credential,
        authenticated_as: sender.authenticated_as,
        return_path: transaction.return_path,
        recipients: transaction.recipients,
        accepted_at_ms: runtime::now_ms(),
        not_before_ms,
        expires_at_ms: judged.times.expires_ms.unwrap_or(0),
        hold,
        priority: judged.priority.into(),
        deliver_by_ms: transaction.deliver_by_ms,
        require_tls: transaction.require_tls,
        // RFC 8689 section 4.1: the field means nothing then.
        tls_optional: judged.tls_optional && !transaction.require_tls,
        body: transaction.body.into(),
        smtputf8: transaction.smtputf8,
        ret: transaction.ret.into(),
        envid: transaction.envid,
        from_domain: judged.from_domain,
        forwarded: judged.is_foreign.then(|| Forwarded {
            seal: judged.seal.map(|seal| *seal),
        }),
        sandbox,
        expires_by_stream: judged.times.expires_by_stream,
    };
    IndexEntry {
        message_id: Bytes::copy_from_slice(id.as_bytes()),
        flags: if some_simulated { SIMULATED } else { 0 },
        offset: 0,
        length: 0,
        crc: 0,
        body_hash: Bytes::copy_from_slice(&received.body_hash),
        header_length: received.header_length,
        envelope: Some(envelope),
        chunks: None,
        header_variants,
        reports_on: None,
        reports_delay: None,
    }
}
