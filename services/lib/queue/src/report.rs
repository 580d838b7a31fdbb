//! Outcomes: what a sender reports, and what they change.

use mail::MessageId;
use proto::dispatch::Report;
use proto::journal::{Class, Disposition, Outcome, RecipientOutcome, Reply, Stage};

use crate::Key;
use crate::delivery::{Deferred, Delivery, State, TellDelays, seed, spread_seed};
use crate::effect::{Counted, Effect, SessionId};
use crate::intake::{InDoubt, Intake, Policies};
use crate::live::{Finished, Live, Owed};

/// What a reply means for a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Accepted.
    Delivered,
    /// Accepted by a host that tells nobody of it, and the sender wants to hear of it.
    Relayed,
    /// Not now.
    Transient,
    /// Not now, and nothing was said of the message: no attempt of it is consumed, and it waits like after one.
    HostTrouble,
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
    /// How long the other side wants us to wait, milliseconds.
    pub retry_after_ms: Option<u64>,
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
        let is_attempt = judged.is_empty()
            || judged
                .iter()
                .any(|judged| judged.verdict != Verdict::HostTrouble);
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
        let counts = is_attempt
            && recipients
                .iter()
                .any(|recipient| recipient.disposition() != Disposition::Returned);
        let is_delivered = recipients
            .iter()
            .any(|recipient| recipient.disposition() == Disposition::Delivered);
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
            asked: report.asked.clone().filter(|_| is_delivered),
            ..self.outcome_of(message_slot)
        };
        if is_delivered {
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

    /// A ready delivery can't be sent (no answer of the DNS): deferred like after an attempt, which is not counted.
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
        let (message, attempt) = (delivery.message, u32::from(delivery.attempts));
        let judged = |&ordinal: &u16| Judged {
            ordinal: ordinal.into(),
            address: String::new(),
            reply: reply.clone(),
            verdict: Verdict::HostTrouble,
            class,
            retry_after_ms: None,
        };
        let judged = self.live.ordinals(slot).iter().map(judged).collect();
        let outcome = Outcome {
            attempt,
            recipients: self.dispose(now_ms, slot, judged, policies),
            finished_at_ms: now_ms,
            ..self.outcome_of(message)
        };
        self.record_outcome(outcome, None);
    }

    /// The recipients of the present attempt, each with its disposition.
    pub(crate) fn dispose(
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
        let doubt = policies.in_doubt(
            self.live.strings.get(message.tenant),
            self.live.strings.get(message.stream),
        );
        let judged = complete(self.live.ordinals(slot), judged);
        let next = self.next_attempts(now_ms, slot, &judged, policies);
        let notice = self.delay_notice(now_ms, slot, policies);
        let decide = |judged: Judged| {
            let next = next.iter().find(|next| next.class == judged.class);
            let next_ms = next.map_or(now_ms, |next| next.at_ms);
            let expires_ms = next.map_or(u64::MAX, |next| next.expires_ms);
            let (disposition, next_attempt_ms) = match judged.verdict {
                Verdict::Delivered | Verdict::Relayed => (Disposition::Delivered, 0),
                Verdict::Permanent => (Disposition::Bounced, 0),
                Verdict::Transient | Verdict::HostTrouble if next_ms >= expires_ms => {
                    (Disposition::Expired, 0)
                }
                Verdict::Transient | Verdict::HostTrouble => (Disposition::Deferred, next_ms),
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
                dsn_owed: failed && delivery.wants_dsn(),
                relay_owed: judged.verdict == Verdict::Relayed && delivery.has_sender(),
                class: judged.class.into(),
                deferrals: match (disposition, next) {
                    (Disposition::Deferred, Some(next)) => next.deferred.times.into(),
                    _ => 0,
                },
                own_schedule: disposition == Disposition::Deferred
                    && next.is_some_and(|next| next.deferred.has_own_schedule()),
                delay_notice: match disposition {
                    Disposition::Deferred => notice,
                    _ => 0,
                },
                tried_until_ms: match disposition {
                    Disposition::Deferred if notice > 0 => expires_ms,
                    _ => 0,
                },
            }
        };
        judged.into_iter().map(decide).collect()
    }

    /// The number of the notice of delay that is to be sent when a delivery is deferred now; 0 = none. Ages that passed
    /// without a deferral in between have one notice together.
    fn delay_notice(&self, now_ms: u64, slot: u32, policies: &dyn Policies) -> u32 {
        let Some(delivery) = self.live.deliveries.get(slot) else {
            return 0;
        };
        let Some(message) = self.live.messages.get(delivery.message) else {
            return 0;
        };
        let asked = match delivery.told.delays() {
            TellDelays::Never => return 0,
            TellDelays::IfConfigured => false,
            TellDelays::Asked => true,
        };
        let tenant = self.live.strings.get(message.tenant);
        let stream = self.live.strings.get(message.stream);
        let ages = policies.delay_notices(tenant, stream, asked);
        if ages.is_empty() {
            return 0;
        }
        let seed = spread_seed(message, delivery);
        let from_ms =
            policies.first_attempt_ms(tenant, stream, self.live.age_begins_ms(slot), seed);
        let age_ms = now_ms.saturating_sub(from_ms);
        let passed = ages.iter().filter(|age| age.as_millis() <= age_ms).count();
        let passed = u32::try_from(passed).unwrap_or(0);
        if passed > delivery.told.notices() {
            passed
        } else {
            0
        }
    }

    /// When the recipients are tried again that are to be, by class. Those of a class go on together: as late as the
    /// one among them asks for that asks for most.
    fn next_attempts(
        &self,
        now_ms: u64,
        slot: u32,
        judged: &[Judged],
        policies: &dyn Policies,
    ) -> Vec<Next> {
        let mut all: Vec<Next> = Vec::new();
        let Some(delivery) = self.live.deliveries.get(slot) else {
            return all;
        };
        let Some(message) = self.live.messages.get(delivery.message) else {
            return all;
        };
        let goes_on = |judged: &&Judged| {
            matches!(
                judged.verdict,
                Verdict::Transient | Verdict::HostTrouble | Verdict::InDoubt
            )
        };
        for judged in judged.iter().filter(goes_on) {
            let position = all.iter().position(|next| next.class == judged.class);
            if position.is_some() && judged.retry_after_ms.is_none() {
                continue;
            }
            let class = judged.class;
            let retry = policies.retry(
                self.live.strings.get(message.tenant),
                self.live.strings.get(message.stream),
                self.live.strings.get(delivery.domain),
                class,
            );
            let deferred = delivery.deferred.next(class, retry.own);
            let times = u32::from(deferred.times);
            // The same for all classes: those that go by one schedule go on together.
            let seed = seed(&message.id, u64::from(times));
            let asked = judged.retry_after_ms;
            let wait_ms = asked.and_then(|asked_ms| retry.asked_delay_ms(asked_ms, seed));
            let is_asked = wait_ms.is_some();
            let wait_ms = wait_ms.unwrap_or_else(|| retry.delay_ms(times, seed));
            let at_ms = now_ms.saturating_add(wait_ms);
            match position.and_then(|position| all.get_mut(position)) {
                None => all.push(Next {
                    class,
                    at_ms,
                    is_asked,
                    expires_ms: self.expires_ms(slot, class, policies),
                    deferred,
                }),
                Some(known) if is_asked => {
                    let later = known.is_asked && known.at_ms >= at_ms;
                    known.at_ms = if later { known.at_ms } else { at_ms };
                    known.is_asked = true;
                }
                Some(_) => {}
            }
        }
        all
    }

    /// A report of an attempt that is not the present one (it was in doubt, and decided): final results count,
    /// since they prevent a duplicate; others are history.
    fn dispose_late(&self, message_slot: u32, judged: Vec<Judged>) -> Vec<RecipientOutcome> {
        let decide = |judged: Judged| {
            let disposition = match judged.verdict {
                Verdict::Delivered | Verdict::Relayed => Disposition::Delivered,
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
                dsn_owed: bounced && delivery.wants_dsn(),
                relay_owed: judged.verdict == Verdict::Relayed && delivery.has_sender(),
                class: judged.class.into(),
                ..RecipientOutcome::default()
            })
        };
        judged.into_iter().filter_map(decide).collect()
    }

    /// Changes the index as an outcome says. In replay and in live operation alike.
    pub(crate) fn apply_outcome(&mut self, outcome: &Outcome) -> Option<Finished> {
        let id = MessageId::try_from(&outcome.message_id[..]).ok()?;
        let message_slot = self.live.find(&id)?;
        self.part_recipients(message_slot, outcome);
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
                    if recipient.disposition() == Disposition::Deferred {
                        let class = recipient.class();
                        self.live.note_source(slot, class, &outcome.source);
                    }
                    let Some(delivery) = self.live.deliveries.get_mut(slot) else {
                        continue;
                    };
                    delivery.attempts = u16::try_from(outcome.attempt).unwrap_or(u16::MAX);
                    if recipient.disposition() == Disposition::Deferred {
                        let times = match recipient.deferrals {
                            0 => outcome.attempt,
                            times => times,
                        };
                        delivery.deferred =
                            Deferred::new(times, recipient.class(), recipient.own_schedule);
                        if recipient.delay_notice > 0 {
                            delivery.told = delivery.told.with_notices(recipient.delay_notice);
                            let owed = self.live.delays_owed.entry(message_slot).or_default();
                            owed.push((ordinal, recipient.delay_notice));
                        }
                    }
                    if recipient.next_attempt_ms == u64::MAX {
                        delivery.state = State::Held;
                        self.live.hold(slot, outcome.finished_at_ms);
                    } else if delivery.state != State::Waiting
                        || delivery.due_ms != recipient.next_attempt_ms
                    {
                        self.live.wait_until(slot, recipient.next_attempt_ms);
                    }
                }
                Disposition::Late => {
                    self.live.deadlines.remove(message_slot);
                    if recipient.delay_notice > 0 {
                        let owed = self.live.delays_owed.entry(message_slot).or_default();
                        owed.push((ordinal, recipient.delay_notice));
                    }
                }
                Disposition::Unspecified => {}
                Disposition::Delivered
                | Disposition::Bounced
                | Disposition::Expired
                | Disposition::Suppressed
                | Disposition::Cancelled => {
                    // Earlier releases owed it to the null return path too.
                    let delivery = self.live.deliveries.get(slot);
                    let relay_owed =
                        recipient.relay_owed && delivery.is_some_and(Delivery::has_sender);
                    let owed = match (recipient.dsn_owed, relay_owed) {
                        (true, _) => Owed::Failure,
                        (false, true) => Owed::Relay,
                        (false, false) => Owed::Nothing,
                    };
                    self.live.finish_recipient(slot, ordinal, owed)
                }
            }
        }
        self.live.finish_message(message_slot)
    }
}

impl Intake {
    /// Recipients of a delivery that go on at different times, or of which some are to be held, part: those of each
    /// time become a delivery of their own.
    fn part_recipients(&mut self, message_slot: u32, outcome: &Outcome) {
        let goes_on = |recipient: &&RecipientOutcome| {
            matches!(
                recipient.disposition(),
                Disposition::Deferred | Disposition::Returned | Disposition::InDoubt
            )
        };
        let mut times: Vec<u64> = Vec::new();
        for recipient in outcome.recipients.iter().filter(goes_on) {
            if !times.contains(&recipient.next_attempt_ms) {
                times.push(recipient.next_attempt_ms);
            }
        }
        // Those of the first time stay where they are.
        for time in times.into_iter().skip(1) {
            let of_time: Vec<u16> = outcome
                .recipients
                .iter()
                .filter(goes_on)
                .filter(|recipient| recipient.next_attempt_ms == time)
                .filter_map(|recipient| u16::try_from(recipient.ordinal).ok())
                .collect();
            let first = of_time.first();
            if let Some(slot) =
                first.and_then(|ordinal| self.live.delivery_with(message_slot, *ordinal))
            {
                self.live.part(slot, &of_time);
            }
        }
    }
}

/// When a class of deferred recipients is tried again.
struct Next {
    class: Class,
    at_ms: u64,
    /// A reply asked for it.
    is_asked: bool,
    /// Those that would be tried after it are given up.
    expires_ms: u64,
    deferred: Deferred,
}

/// What is reported of a delivery's recipients, and something of those that are left out.
fn complete(ordinals: &[u16], mut judged: Vec<Judged>) -> Vec<Judged> {
    judged.retain(|judged| {
        u16::try_from(judged.ordinal).is_ok_and(|ordinal| ordinals.contains(&ordinal))
    });
    let unreported: Vec<Judged> = ordinals
        .iter()
        .map(|&ordinal| u32::from(ordinal))
        .filter(|ordinal| judged.iter().all(|judged| judged.ordinal != *ordinal))
        .map(not_reported)
        .collect();
    judged.extend(unreported);
    judged
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
        retry_after_ms: None,
    }
}
