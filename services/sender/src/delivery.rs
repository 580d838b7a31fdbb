//! One delivery: read, sign, connect, transact, report.

use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use mail::{MessageId, PartitionId, Place};
use proto::Sign;
use proto::dispatch::{Assignment, DeliveryRef, RecipientReport, Report, ReturnReason};
use proto::journal::{Reply, Stage};
use proto::signer::SignRequest;
use proto::transcript::Transcript;

use crate::content::{Loaded, ReadMessage, Unreadable};
use crate::desk::Hold;
use crate::lane::Lane;
use crate::metrics::Metrics;
use crate::session::{
    Ended, Mail, MailRecipient, OpenFailure, Opener, Outcome, Said, Unfit, own_words, recipients,
    transact, variant,
};
use crate::signing::{Unsigned, sign};
use crate::slots::{Lease, Slots};
use crate::transcript::{self, Keeping, Record};

/// What deliveries work with.
pub(crate) struct Tools {
    pub messages: Arc<dyn ReadMessage>,
    pub signer: Arc<dyn Sign>,
    pub opener: Opener,
    /// `None`: no transcripts are kept.
    pub transcripts: Option<Keeping>,
    pub metrics: Arc<Metrics>,
}

/// An assignment with its surroundings.
pub(crate) struct Delivery {
    pub tools: Arc<Tools>,
    pub slots: Arc<Slots>,
    pub lane: Arc<Lane>,
    pub assignment: Assignment,
    pub delivery: DeliveryRef,
    pub message_id: MessageId,
    pub hold: Hold,
}

/// The delivery is given back, without having begun.
struct NotNow(ReturnReason, String);

impl From<Unfit> for NotNow {
    fn from(unfit: Unfit) -> Self {
        Self(ReturnReason::Damaged, unfit.to_string())
    }
}

impl From<Unreadable> for NotNow {
    fn from(unreadable: Unreadable) -> Self {
        Self(unreadable.reason, unreadable.detail)
    }
}

/// How a delivery came to its end.
struct Finished {
    outcome: Outcome,
    mx_host: String,
    mx_address: String,
    /// Empty = without.
    tls: &'static str,
    /// The host knows DSN, and answers for what it takes.
    tells_of_success: bool,
    record: Option<Record>,
}

impl Delivery {
    /// Runs to the report, whatever happens.
    pub async fn run(self) {
        let started = Instant::now();
        let started_at_ms = runtime::now_ms();
        let slot = (self.lane.id, self.assignment.slot);
        let slots = self.slots.clone();
        let (idle_timeout, most_messages) =
            (self.lane.idle_timeout, self.lane.messages_per_connection);
        let prepared = self.prepare().await;
        let mut lease = slots.lease(slot, idle_timeout).await;
        let ended = match prepared {
            Ok(mut mail) => self
                .attempt(&mut mail, &mut lease)
                .await
                .map(|finished| (mail, finished)),
            Err(not_now) => Err(not_now),
        };
        // The scheduler hears of the delivery before it hears of the slot: a slot with a delivery can't be free.
        let usable = match ended {
            Ok((mail, Some(finished))) => {
                let usable = finished.outcome.keep;
                self.report(&mail, finished, started, started_at_ms);
                usable
            }
            Ok((_, None)) => {
                self.hold.forget();
                true
            }
            Err(NotNow(reason, detail)) => {
                tracing::info!(message = %self.message_id, reason = reason.as_str_name(), detail, "assignment returned");
                self.hold.give_back(reason, &detail);
                true
            }
        };
        settle(lease, usable, most_messages);
    }

    async fn prepare(&self) -> Result<Mail, NotNow> {
        let tools = &self.tools;
        let started = Instant::now();
        let place = Place {
            sequence: self.assignment.sequence,
            index: self.assignment.index,
        };
        let read =
            tools
                .messages
                .read(PartitionId(self.delivery.partition), place, self.message_id);
        let loaded = read.await?;
        let read_at = Instant::now();
        tools
            .metrics
            .wait_block
            .observe((read_at - started).as_secs_f64());
        let request = sign_request(&loaded, &self.delivery.ordinals)?;
        let signed = sign(&*tools.signer, request).await;
        tools
            .metrics
            .wait_sign
            .observe(read_at.elapsed().as_secs_f64());
        let signatures = signed.map_err(|unsigned| match unsigned {
            Unsigned::Refused(detail) => NotNow(ReturnReason::SignerUnavailable, detail),
            Unsigned::Unavailable(detail) => {
                tracing::warn!(message = %self.message_id, detail, "no signature");
                // A detail would say that somebody must change something.
                NotNow(ReturnReason::SignerUnavailable, String::new())
            }
        })?;
        Ok(Mail::new(loaded, &self.delivery.ordinals, signatures)?)
    }

    /// [`Self::deliver`], with what is said in it.
    async fn attempt(
        &self,
        mail: &mut Mail,
        lease: &mut Lease,
    ) -> Result<Option<Finished>, NotNow> {
        let attempt = self.deliver(mail, lease);
        if self.tools.transcripts.is_none() {
            return attempt.await;
        }
        let (ended, record) = transcript::recorded(attempt).await;
        Ok(ended?.map(|finished| Finished {
            record: Some(record),
            ..finished
        }))
    }

    /// `None` when the delivery is no longer ours.
    async fn deliver(
        &self,
        mail: &mut Mail,
        lease: &mut Lease,
    ) -> Result<Option<Finished>, NotNow> {
        let tools = &self.tools;
        let way = tools
            .opener
            .way(&self.lane, &self.assignment.domain, mail.wish());
        let (way, demand) = match way.await {
            Ok(found) => found,
            Err(failure) => return self.unopened(mail, failure, true).map(Some),
        };
        lease
            .connection
            .take_if(|connection| !connection.is_quiet());
        // Domains share the hosts of a site, and not what they ask of them.
        let domain = &self.assignment.domain;
        if let Some(mut connection) = lease.connection.take() {
            let serves = tools.opener.serves(&self.lane, &connection, &demand).await;
            // While it was asked what serves, the host may have left.
            if serves && connection.is_quiet() && connection.takes_domain(domain) {
                lease.connection = Some(connection);
            } else {
                // Before the next one is opened: the slot is for one.
                connection.quit().await;
            }
        }
        let mut permit = None;
        loop {
            let connection = match &mut lease.connection {
                Some(connection) => {
                    tools.metrics.reused.inc();
                    connection.note_reuse();
                    connection
                }
                // Rare, and large: not a part of every delivery's memory.
                none => match Box::pin(tools.opener.open(&self.lane, &way, &demand)).await {
                    Ok(mut connection) => {
                        connection.takes_domain(domain);
                        none.insert(connection)
                    }
                    Err(failure) => {
                        tools.opener.doubt(&demand, &self.assignment.domain);
                        return match failure {
                            // What is begun can't be given back. The next attempt will find it out.
                            OpenFailure::Unbound(why) if permit.is_some() => {
                                Ok(Some(broken_off(mail, &why)))
                            }
                            failure => self.unopened(mail, failure, false).map(Some),
                        };
                    }
                },
            };
            let said = Said::new(&self.hold, self.lane.left_within);
            let timeouts = self.lane.timeouts;
            match transact(
                connection,
                mail,
                timeouts,
                &said,
                &mut permit,
                &tools.metrics,
            )
            .await
            {
                Ended::Lost => lease.connection = None,
                Ended::Gone => {
                    // In the middle of the content.
                    lease.connection.take_if(|_| mail.is_in_pieces());
                    return Ok(None);
                }
                Ended::Unreadable(unreadable) => {
                    lease.connection = None;
                    return Err(unreadable.into());
                }
                Ended::Done(outcome) => {
                    return Ok(Some(Finished {
                        outcome,
                        mx_host: connection.host.to_string(),
                        mx_address: connection.address.ip().to_string(),
                        tls: connection.tls_version(),
                        tells_of_success: connection.knows_dsn(),
                        record: None,
                    }));
                }
            }
        }
    }

    fn unopened(&self, mail: &Mail, failure: OpenFailure, keep: bool) -> Result<Finished, NotNow> {
        match failure {
            OpenFailure::SiteChanged(site) => Err(NotNow(ReturnReason::SiteChanged, site)),
            OpenFailure::Unbound(why) => Err(NotNow(ReturnReason::Source, why)),
            OpenFailure::Failed {
                reply,
                host,
                address,
            } => {
                let replies = vec![reply; mail.recipients.len()];
                Ok(Finished {
                    outcome: Outcome {
                        replies,
                        dot_sent: false,
                        aborted: false,
                        keep,
                    },
                    mx_host: host,
                    mx_address: address
                        .map(|address| address.to_string())
                        .unwrap_or_default(),
                    tls: "",
                    tells_of_success: false,
                    record: None,
                })
            }
        }
    }

    /// Keeps the transcript when the attempt failed, or is a sample.
    fn keep(&self, mut record: Record, outcome: &Outcome, about: Transcript) {
        let Some(keeping) = &self.tools.transcripts else {
            return;
        };
        let failed = outcome.replies.iter().find(|reply| !is_accepted(reply));
        let attempt = self.delivery.attempt;
        match failed {
            None if !keeping.samples(self.message_id.as_bytes(), attempt) => return,
            // No host said it.
            Some(reply) if reply.code == 0 => record.note(format_args!("{}", reply.text)),
            _ => {}
        }
        let transcript = record.into_transcript(Transcript {
            message_id: self.delivery.message_id.clone(),
            partition: self.delivery.partition,
            ordinals: self.delivery.ordinals.clone(),
            attempt,
            site: self.lane.site.clone(),
            sampled: failed.is_none(),
            ..about
        });
        (keeping.keep)(transcript);
    }

    fn report(self, mail: &Mail, finished: Finished, started: Instant, started_at_ms: u64) {
        let outcome = finished.outcome;
        let metrics = &self.tools.metrics;
        for reply in &outcome.replies {
            metrics.recipient(reply.stage(), reply.code);
        }
        let no_reply = |reply: &Reply| reply.stage() == Stage::FinalDot && reply.code == 0;
        metrics.ended(
            started.elapsed(),
            outcome.aborted,
            outcome.dot_sent && outcome.replies.iter().any(no_reply),
        );
        let first = outcome.replies.first();
        tracing::debug!(
            message = %self.message_id,
            stage = first.map_or("", |reply| crate::metrics::stage_name(reply.stage())),
            code = first.map_or(0, |reply| reply.code),
            dot_sent = outcome.dot_sent,
            "attempt ended"
        );
        if let Some(record) = finished.record {
            let about = Transcript {
                host: finished.mx_host.clone(),
                address: finished.mx_address.clone(),
                tls: finished.tls.to_owned(),
                started_at_ms,
                ..Transcript::default()
            };
            self.keep(record, &outcome, about);
        }
        let recipient = |(recipient, reply): (&MailRecipient, Reply)| RecipientReport {
            ordinal: recipient.ordinal,
            address: recipient.address.as_str().to_owned(),
            relayed: is_accepted(&reply) && !finished.tells_of_success && recipient.wants_success,
            reply: Some(reply),
        };
        let report = Report {
            delivery: Some(self.delivery),
            recipients: mail
                .recipients
                .iter()
                .zip(outcome.replies)
                .map(recipient)
                .collect(),
            mx_host: finished.mx_host,
            mx_address: finished.mx_address,
            tls: !finished.tls.is_empty(),
            started_at_ms,
            finished_at_ms: runtime::now_ms(),
            dot_sent: outcome.dot_sent,
            asked: mail.asked.clone().filter(|_| outcome.dot_sent),
        };
        self.hold.finish(report);
    }
}

/// A begun attempt that ends before anything could be delivered.
fn broken_off(mail: &Mail, why: &str) -> Finished {
    let reply = own_words(Stage::Prepare, 0, "", why);
    Finished {
        outcome: Outcome {
            replies: vec![reply; mail.recipients.len()],
            dot_sent: false,
            aborted: true,
            keep: false,
        },
        mx_host: String::new(),
        mx_address: String::new(),
        tls: "",
        tells_of_success: false,
        record: None,
    }
}

/// The host has taken the message for the recipient.
fn is_accepted(reply: &Reply) -> bool {
    reply.stage() == Stage::FinalDot && reply.code / 100 == 2
}

/// Puts the connection back, or closes it: in silence when it broke, else with QUIT.
fn settle(mut lease: Lease, usable: bool, most_messages: u32) {
    if !usable {
        lease.connection = None;
        return;
    }
    let worn_out = lease
        .connection
        .as_ref()
        .is_some_and(|connection| connection.is_worn_out(most_messages));
    let closing = if worn_out {
        Some(lease)
    } else {
        lease.put_back()
    };
    if let Some(closing) = closing {
        closing.quit();
    }
}

/// What the signer needs: the header section as it will be sent, and the hash of the body.
fn sign_request(loaded: &Loaded, ordinals: &[u32]) -> Result<SignRequest, NotNow> {
    let entry = &*loaded.entry;
    let envelope = entry.envelope.as_ref().ok_or(Unfit::NoEnvelope)?;
    let variant = variant(entry, &recipients(entry, ordinals)?)?;
    let section = loaded.header.clone();
    // Without the empty line after it.
    let section = if section.ends_with(b"\r\n\r\n") {
        section.slice(..section.len() - 2)
    } else {
        section
    };
    let header = if variant.is_empty() {
        section
    } else {
        let mut header = BytesMut::with_capacity(variant.len() + section.len());
        header.extend_from_slice(&variant);
        header.extend_from_slice(&section);
        header.freeze()
    };
    Ok(SignRequest {
        domain: envelope.from_domain.clone(),
        header,
        body_hash: entry.body_hash.clone(),
        own_message: envelope.return_path.is_empty() && envelope.credential.is_empty(),
        forwarded: envelope.forwarded.is_some(),
        seal: envelope
            .forwarded
            .as_ref()
            .and_then(|forwarded| forwarded.seal.clone()),
        tenant: envelope.tenant.clone(),
        stream: envelope.stream.clone(),
    })
}
