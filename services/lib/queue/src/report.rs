//! Outcomes: what a sender reports, and what they change.

use mail::MessageId;
use proto::dispatch::Report;
use proto::journal::{Class, Disposition, Outcome, RecipientOutcome, Reply, Stage};

use crate::Key;
use crate::delivery::{State, seed};
use crate::effect::{Counted, Effect, SessionId};
use crate::intake::{InDoubt, Intake, Policies};
use crate::live::{Finished, Live};

/// What a reply means for a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Accepted.
    Delivered,
    /// Not now.
    Transient,
    /// Never.
    Permanent,
    /// Broken off by us before the final dot: no attempt.
    Returned,
    /// The final dot was sent and no reply came.
    InDoubt,
}

/// A recipient's result, judged.
#[derive(Debug, Clone)]
pub struct Judged {
    /// Position in the envelope.
    pub ordinal: u32,
    /// As reported, for the event.
    pub address: String,
    /// As reported.
    pub reply: Reply,
    /// What it means.
    pub verdict: Verdict,
    /// Why.
    pub class: Class,
}

/// A report that came before the block of its message was read.
#[derive(Debug)]
pub(crate) struct EarlyReport {
    session: SessionId,
    report: Report,
    judged: Vec<Judged>,
    source: String,
    site: String,
    sender_id: String,
}

/// By which way an attempt went, for the journal.
#[derive(Debug, Clone, Copy)]
pub struct Via<'a> {
    /// The sender.
    pub sender_id: &'a str,
    /// The egress source.
    pub source: &'a str,
    /// The site.
    pub site: &'a str,
}

impl Intake {
    /// A sender reports an attempt. Accepted from any epoch, once; acknowledged when it is stored.
    pub fn report(
        &mut self,
        now_ms: u64,
        session: SessionId,
        report: &Report,
        judged: Vec<Judged>,
        via: Via<'_>,
        policies: &dyn Policies,
    ) {
        let Some(reference) = report.delivery.clone() else {
            return;
        };
        let found = MessageId::try_from(&reference.message_id[..])
            .ok()
            .and_then(|id| self.live.find(&id));
        let Some(message_slot) = found else {
            if self.recovery.is_some() {
                self.keep_early_report(EarlyReport {
                    session,
                    report: report.clone(),
                    judged,
                    source: via.source.to_owned(),
                    site: via.site.to_owned(),
                    sender_id: via.sender_id.to_owned(),
                });
                return;
            }
            self.acknowledge_when_stored(session, reference);
            return;
        };
        let present = self.flight_of(&reference).map(|(slot, _)| slot);
        let recipients = match present {
            Some(slot) => self.dispose(now_ms, slot, judged, policies),
            None => self.dispose_late(message_slot, judged),
        };
        if recipients.is_empty() {
            self.acknowledge_when_stored(session, reference);
            return;
        }
        let ordinal = recipients
            .first()
            .and_then(|recipient| u16::try_from(recipient.ordinal).ok());
        let delivery = ordinal.and_then(|ordinal| self.live.delivery_with(message_slot, ordinal));
        let attempts = delivery
            .and_then(|slot| self.live.deliveries.get(slot))
            .map_or(0, |d| u32::from(d.attempts));
        let counts = recipients
            .iter()
            .any(|recipient| recipient.disposition() != Disposition::Returned);
        let outcome = Outcome {
            attempt: attempts + u32::from(counts),
            recipients,
            source: via.source.to_owned(),
            site: via.site.to_owned(),
            mx_host: report.mx_host.clone(),
            mx_address: report.mx_address.clone(),
            tls: report.tls,
            started_at_ms: report.started_at_ms,
            finished_at_ms: report.finished_at_ms,
            sender_id: via.sender_id.to_owned(),
            ..self.outcome_of(message_slot)
        };
        if outcome
            .recipients
            .iter()
            .any(|recipient| recipient.disposition() == Disposition::Delivered)
        {
            let id = self
                .live
                .messages
                .get(message_slot)
                .map(|message| message.id);
            let waited = now_ms.saturating_sub(id.map_or(now_ms, |id| id.unix_ms()));
            self.effects
                .push(Effect::Counted(Counted::QueueTime(waited)));
        }
        self.record_outcome(outcome, Some((session, reference)));
        self.flush(now_ms);
    }

    /// After a take-over with a full budget the message may be in a block that is not read yet: its report waits.
    /// One that a sender repeats takes the place of the first, so there are no more than the senders hold.
    fn keep_early_report(&mut self, early: EarlyReport) {
        self.early_reports
            .retain(|other| other.report.delivery != early.report.delivery);
        self.early_reports.push(early);
    }

    /// Takes the reports that had to wait for their messages, as far as those are read by now.
    pub(crate) fn take_early_reports(&mut self, now_ms: u64, policies: &dyn Policies) {
        if self.early_reports.is_empty() {
            return;
        }
        let is_read = |early: &EarlyReport| {
            let id = early
                .report
                .delivery
                .as_ref()
                .and_then(|delivery| MessageId::try_from(&delivery.message_id[..]).ok());
            self.recovery.is_none() || id.is_none_or(|id| self.live.find(&id).is_some())
        };
        let (read, unread) = std::mem::take(&mut self.early_reports)
            .into_iter()
            .partition(is_read);
        self.early_reports = unread;
        for early in read {
            let via = Via {
                sender_id: &early.sender_id,
                source: &early.source,
                site: &early.site,
            };
            self.report(
                now_ms,
                early.session,
                &early.report,
                early.judged,
                via,
                policies,
            );
        }
    }

    /// A ready delivery can't be sent for a reason of ours (no answer of the DNS): deferred like after an attempt.
    pub fn defer(
        &mut self,
        now_ms: u64,
        key: Key,
        reply: &Reply,
        class: Class,
        policies: &dyn Policies,
    ) {
        let Some(slot) = self.live.resolve(key) else {
            return;
        };
        let Some(delivery) = self.live.deliveries.get(slot) else {
            return;
        };
        if delivery.state != State::Ready {
            return;
        }
        let (message, attempt) = (delivery.message, u32::from(delivery.attempts) + 1);
        let judged = |&ordinal: &u16| Judged {
            ordinal: ordinal.into(),
            address: String::new(),
            reply: reply.clone(),
            verdict: Verdict::Transient,
            class,
        };
        let judged = delivery.ordinals.as_slice().iter().map(judged).collect();
        let outcome = Outcome {
            attempt,
            recipients: self.dispose(now_ms, slot, judged, policies),
            finished_at_ms: now_ms,
            ..self.outcome_of(message)
        };
        self.record_outcome(outcome, None);
    }

    /// The recipients of the present attempt, each with its disposition.
    fn dispose(
        &self,
        now_ms: u64,
        slot: u32,
        judged: Vec<Judged>,
        policies: &dyn Policies,
    ) -> Vec<RecipientOutcome> {
        let Some(delivery) = self.live.deliveries.get(slot) else {
            return Vec::new();
        };
        let Some(message) = self.live.messages.get(delivery.message) else {
            return Vec::new();
        };
        let tenant = self.live.strings.get(message.tenant);
        let stream = self.live.strings.get(message.stream);
        let retry = policies.retry(tenant, stream, self.live.strings.get(delivery.domain));
        let attempts = u32::from(delivery.attempts) + 1;
        let next_ms = now_ms + retry.delay_ms(attempts, seed(&message.id, u64::from(attempts)));
        let expires_ms = self.expires_ms(slot, policies);
        let doubt = policies.in_doubt(tenant, stream);
        let decide = |judged: Judged| {
            let (disposition, next_attempt_ms) = match judged.verdict {
                Verdict::Delivered => (Disposition::Delivered, 0),
                Verdict::Permanent => (Disposition::Bounced, 0),
                Verdict::Transient if next_ms >= expires_ms => (Disposition::Expired, 0),
                Verdict::Transient => (Disposition::Deferred, next_ms),
                Verdict::Returned => (Disposition::Returned, now_ms + 1_000),
                Verdict::InDoubt => match doubt {
                    InDoubt::Retry => (Disposition::InDoubt, next_ms),
                    InDoubt::Hold => (Disposition::InDoubt, u64::MAX),
                    InDoubt::GiveUp => (Disposition::Bounced, 0),
                },
            };
            let failed = matches!(disposition, Disposition::Bounced | Disposition::Expired);
            RecipientOutcome {
                ordinal: judged.ordinal,
                address: judged.address,
                disposition: disposition.into(),
                reply: Some(judged.reply),
                next_attempt_ms,
                dsn_owed: failed && delivery.wants_dsn,
                class: judged.class.into(),
            }
        };
        let is_in = |ordinal: u32| {
            u16::try_from(ordinal).is_ok_and(|ordinal| delivery.ordinals.contains(ordinal))
        };
        let unreported: Vec<Judged> = delivery
            .ordinals
            .as_slice()
            .iter()
            .map(|&ordinal| u32::from(ordinal))
            .filter(|ordinal| judged.iter().all(|judged| judged.ordinal != *ordinal))
            .map(not_reported)
            .collect();
        judged
            .into_iter()
            .filter(|judged| is_in(judged.ordinal))
            .chain(unreported)
            .map(decide)
            .collect()
    }

    /// A report of an attempt that is not the present one (it was in doubt, and decided): final results count,
    /// since they prevent a duplicate; others are history.
    fn dispose_late(&self, message_slot: u32, judged: Vec<Judged>) -> Vec<RecipientOutcome> {
        let decide = |judged: Judged| {
            let disposition = match judged.verdict {
                Verdict::Delivered => Disposition::Delivered,
                Verdict::Permanent => Disposition::Bounced,
                _ => return None,
            };
            let slot = self
                .live
                .delivery_with(message_slot, u16::try_from(judged.ordinal).ok()?)?;
            let delivery = self.live.deliveries.get(slot)?;
            let bounced = disposition == Disposition::Bounced;
            // Another attempt is under way and may yet succeed: a late failure does not end it.
            if bounced && delivery.state == State::InFlight {
                return None;
            }
            Some(RecipientOutcome {
                ordinal: judged.ordinal,
                address: judged.address,
                disposition: disposition.into(),
                reply: Some(judged.reply),
                next_attempt_ms: 0,
                dsn_owed: bounced && delivery.wants_dsn,
                class: judged.class.into(),
            })
        };
        judged.into_iter().filter_map(decide).collect()
    }

    /// Changes the index as an outcome says. In replay and in live operation alike.
    pub(crate) fn apply_outcome(&mut self, outcome: &Outcome) -> Option<Finished> {
        let id = MessageId::try_from(&outcome.message_id[..]).ok()?;
        let message_slot = self.live.find(&id)?;
        self.part_held(message_slot, outcome);
        for recipient in &outcome.recipients {
            let Ok(ordinal) = u16::try_from(recipient.ordinal) else {
                continue;
            };
            let Some(slot) = self.live.delivery_with(message_slot, ordinal) else {
                continue;
            };
            match recipient.disposition() {
                Disposition::Deferred | Disposition::Returned | Disposition::InDoubt => {
                    self.live.end_flight(slot);
                    // The line that it leaves goes by the attempts before.
                    if is_ready(&self.live, slot) {
                        self.live.set_state(slot, State::Behind);
                    }
                    let Some(delivery) = self.live.deliveries.get_mut(slot) else {
                        continue;
                    };
                    delivery.attempts = u16::try_from(outcome.attempt).unwrap_or(u16::MAX);
                    if recipient.next_attempt_ms == u64::MAX {
                        delivery.state = State::Held;
                    } else if delivery.state != State::Waiting
                        || delivery.due_ms != recipient.next_attempt_ms
                    {
                        self.live.wait_until(slot, recipient.next_attempt_ms);
                    }
                }
                Disposition::Unspecified => {}
                Disposition::Delivered
                | Disposition::Bounced
                | Disposition::Expired
                | Disposition::Suppressed
                | Disposition::Cancelled => {
                    self.live
                        .finish_recipient(slot, ordinal, recipient.dsn_owed)
                }
            }
        }
        self.live.finish_message(message_slot)
    }
}

impl Intake {
    /// When some recipients of a delivery are to be held and others to be tried again, they part.
    fn part_held(&mut self, message_slot: u32, outcome: &Outcome) {
        let ordinals = |is_held: bool| {
            let of_kind = move |recipient: &&RecipientOutcome| {
                let goes_on = matches!(
                    recipient.disposition(),
                    Disposition::Deferred | Disposition::Returned | Disposition::InDoubt
                );
                goes_on && (recipient.next_attempt_ms == u64::MAX) == is_held
            };
            outcome
                .recipients
                .iter()
                .filter(of_kind)
                .filter_map(|recipient| u16::try_from(recipient.ordinal).ok())
        };
        if ordinals(false).next().is_none() {
            return;
        }
        let held: Vec<u16> = ordinals(true).collect();
        if let Some(slot) = held
            .first()
            .and_then(|first| self.live.delivery_with(message_slot, *first))
        {
            self.live.part(slot, &held);
        }
    }
}

fn is_ready(live: &Live, slot: u32) -> bool {
    live.deliveries
        .get(slot)
        .is_some_and(|delivery| delivery.state == State::Ready)
}

/// A recipient that a report leaves out.
fn not_reported(ordinal: u32) -> Judged {
    Judged {
        ordinal,
        address: String::new(),
        reply: Reply {
            stage: Stage::Unspecified.into(),
            code: 0,
            enhanced: String::new(),
            text: "the sender reported no result".into(),
        },
        verdict: Verdict::Transient,
        class: Class::Infrastructure,
    }
}
