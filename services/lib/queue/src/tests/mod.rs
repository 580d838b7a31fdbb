//! Tests of the queue over a journal and a spool in memory.

mod accepting;
mod acted;
mod attempts;
mod deadlines;
mod delays;
mod doubt;
mod holds;
mod lines;
mod notifications;
mod operations;
mod recovering;
mod retries;
mod rows;
mod simulator;
mod standings;
mod suppression;
mod trimming;

use std::collections::BTreeMap;

use bytes::Bytes;
use journal::{Append, Tail, Writer, WriterEffect, WriterEvent};
use mail::{MessageId, PartitionId, Place};
use proto::dispatch::{DeliveryRef, RecipientReport, Report};
use proto::envelope::{Envelope, Recipient};
use proto::journal::entry::Kind;
use proto::journal::{Class, Reply};
use proto::spool::{BlockIndex, IndexEntry, ReportsOn};

use crate::delivery::State;
use crate::*;

const START_MS: u64 = 1_800_000_000_000;
const VIA: crate::Via<'static> = crate::Via {
    sender_id: "sender",
    source: "source",
    site: "site",
};
const SECRET: &[u8] = b"of the keys of addresses";
const SESSION: SessionId = SessionId(1);

pub(crate) struct Rules {
    retry: Retry<'static>,
    /// Of a class alone.
    own: Vec<(Class, Retry<'static>)>,
    in_doubt: InDoubt,
    /// Ages of notices of delay, with NOTIFY=DELAY and without.
    asked_notices: Vec<mail::Span>,
    notices: Vec<mail::Span>,
    delay_ms: u64,
    /// 0 = no spread.
    spread_ms: u64,
    longest_hold: LongestHold,
    /// Credentials.
    gone: Vec<&'static str>,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            retry: Retry {
                waits: Waits::Exponential {
                    initial_ms: 60_000,
                    factor_percent: 200,
                    max_ms: 3_600_000,
                },
                jitter_percent: 0,
                max_age_ms: 86_400_000,
                own: false,
                asked_ms: (10_000, 3_600_000),
            },
            own: Vec::new(),
            in_doubt: InDoubt::Retry,
            asked_notices: Vec::new(),
            notices: Vec::new(),
            delay_ms: 0,
            spread_ms: 0,
            longest_hold: LongestHold {
                most_ms: 30 * 86_400_000,
                ends: HoldEnds::Return,
            },
            gone: Vec::new(),
        }
    }
}

impl Policies for Rules {
    fn retry(&self, _: &str, _: &str, _: &str, class: Class) -> Retry<'_> {
        let own = self.own.iter().find(|(of, _)| *of == class);
        own.map_or(self.retry, |(_, retry)| *retry)
    }

    fn first_attempt_ms(&self, _: &str, _: &str, from_ms: u64, seed: u64) -> u64 {
        from_ms + self.delay_ms + seed.checked_rem(self.spread_ms).unwrap_or(0)
    }

    fn delay_notices(&self, _: &str, _: &str, asked: bool) -> &[mail::Span] {
        if asked {
            &self.asked_notices
        } else {
            &self.notices
        }
    }

    fn in_doubt(&self, _: &str, _: &str) -> InDoubt {
        self.in_doubt
    }

    fn longest_hold(&self, _: &str) -> LongestHold {
        self.longest_hold
    }

    fn may_send(&self, _: &str, submitter: Submitter<'_>) -> Result<(), String> {
        let is_gone = self.gone.contains(&submitter.credential);
        if is_gone {
            return Err(format!("{} is gone", submitter.credential));
        }
        Ok(())
    }
}

/// What the stores of a partition hold.
#[derive(Default)]
pub(crate) struct Stores {
    records: BTreeMap<u64, (String, Bytes)>,
    last_record: u64,
    blocks: BTreeMap<u64, BlockIndex>,
    last_block: u64,
    claims: u64,
}

impl Stores {
    fn new() -> Self {
        let mut stores = Self::default();
        stores.append(&Append {
            record: journal::genesis(START_MS),
            id: "genesis".into(),
            expected_last: 0,
        });
        stores
    }

    fn append(&mut self, append: &Append) -> u64 {
        assert_eq!(append.expected_last, self.last_record);
        self.last_record += 1;
        self.records
            .insert(self.last_record, (append.id.clone(), append.record.clone()));
        self.last_record
    }

    fn put(&mut self, index: BlockIndex) -> u64 {
        self.last_block += 1;
        self.blocks.insert(self.last_block, index);
        self.last_block
    }

    /// Claims the partition and replays what there is.
    fn take_over(&mut self, now_ms: u64, settings: Settings) -> Intake {
        self.claims += 1;
        let mut writer = Writer::new("scheduler", format!("claim-{}", self.claims));
        let mut effect = writer.claim();
        let claimed = loop {
            let event = match effect {
                WriterEffect::Claimed(claimed) => break claimed,
                WriterEffect::Append { append, .. } => WriterEvent::Stored(self.append(&append)),
                _ => {
                    let (sequence, (id, record)) = self.records.last_key_value().unwrap();
                    WriterEvent::Tail(Some(Tail {
                        sequence: *sequence,
                        id: id.clone(),
                        record: record.clone(),
                    }))
                }
            };
            effect = writer.step(now_ms, event).unwrap();
        };
        assert!(
            *self.records.keys().next().unwrap() <= claimed.replay_from,
            "the journal was trimmed too far"
        );
        let intake = Intake::new(PartitionId(0), settings, writer);
        let mut intake = intake.with_keys(suppress::Keys::new(SECRET));
        for (sequence, (_, record)) in self.records.range(claimed.replay_from..=claimed.epoch) {
            intake
                .replay(*sequence, journal::decode(record).unwrap())
                .unwrap();
        }
        for (sequence, index) in self.blocks.range(intake.cursor() + 1..) {
            if intake.wants_blocks() {
                intake
                    .block(now_ms, *sequence, *sequence, index.clone())
                    .unwrap();
            }
        }
        if intake.wants_blocks() {
            intake.caught_up();
        }
        intake.activate(now_ms);
        intake
    }
}

/// An intake with its stores.
pub(crate) struct Desk {
    stores: Stores,
    intake: Intake,
    now_ms: u64,
    rules: Rules,
    ready: Vec<Key>,
    /// What it wanted besides the journal and ready deliveries.
    seen: Vec<Effect>,
    /// Answered only when it is let go.
    in_flight: Option<Append>,
    numbers: u64,
}

impl Desk {
    fn new() -> Self {
        Self::with(Settings {
            journal_linger_ms: 0,
            ..Settings::default()
        })
    }

    fn with(settings: Settings) -> Self {
        let mut stores = Stores::new();
        let intake = stores.take_over(START_MS, settings);
        Self {
            stores,
            intake,
            now_ms: START_MS,
            rules: Rules::default(),
            ready: Vec::new(),
            seen: Vec::new(),
            in_flight: None,
            numbers: 0,
        }
    }

    fn id(&mut self) -> MessageId {
        self.numbers += 1;
        let mut id = [0; 16];
        id[..6].copy_from_slice(&self.now_ms.to_be_bytes()[2..]);
        id[8..].copy_from_slice(&self.numbers.to_be_bytes());
        MessageId::from_bytes(id)
    }

    /// What operators release.
    fn release(&mut self) -> Released {
        let (standings, _) = self.intake.slice(0, u32::MAX);
        let keys: Vec<Key> = standings.iter().map(|standing| standing.key).collect();
        let released = self
            .intake
            .release(self.now_ms, &keys, "operation", &self.rules);
        self.drain();
        released
    }

    fn drain(&mut self) {
        for effect in self.intake.effects().collect::<Vec<_>>() {
            match effect {
                Effect::Journal(WriterEffect::Append { append, .. }) => {
                    self.in_flight = Some(append)
                }
                Effect::Ready(key) => self.ready.push(key),
                other => self.seen.push(other),
            }
        }
    }

    fn tick(&mut self) {
        self.intake.tick(self.now_ms, usize::MAX, &self.rules);
        let more = self
            .intake
            .simulate(self.now_ms, usize::MAX, &self.rules, &by_code);
        assert!(!more);
        self.drain();
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.tick();
        // What was in doubt until now is due.
        self.tick();
    }

    /// The record in flight is stored.
    fn store(&mut self) -> bool {
        let Some(append) = self.in_flight.take() else {
            return false;
        };
        let sequence = self.stores.append(&append);
        self.intake
            .journal(self.now_ms, WriterEvent::Stored(sequence));
        self.drain();
        true
    }

    /// Everything that is logged is stored.
    fn settle(&mut self) {
        loop {
            self.tick();
            if !self.store() && self.intake.is_settled() {
                return;
            }
        }
    }

    fn accept(&mut self, entries: Vec<IndexEntry>) -> u64 {
        let sequence = self.stores.put(block(entries));
        self.read(sequence);
        sequence
    }

    fn read(&mut self, sequence: u64) {
        let index = self.stores.blocks[&sequence].clone();
        self.intake
            .block(self.now_ms, sequence, sequence, index)
            .unwrap();
        self.tick();
    }

    /// A message to these recipients, accepted and ready.
    fn message(&mut self, recipients: &[&str]) -> MessageId {
        let id = self.id();
        self.accept(vec![entry(id, recipients)]);
        id
    }

    fn assign(&mut self) -> DeliveryRef {
        self.assign_to(SESSION).expect("something is ready")
    }

    fn assign_to(&mut self, session: SessionId) -> Option<DeliveryRef> {
        while !self.ready.is_empty() {
            let key = self.ready.remove(0);
            if let Some(assigned) = self.intake.assign(key, session) {
                return Some(assigned.delivery);
            }
        }
        None
    }

    fn begin(&mut self, delivery: &DeliveryRef) {
        self.begin_waiting(delivery, 0);
    }

    /// By a sender that waits so long for the final reply; 0 = it does not say.
    fn begin_waiting(&mut self, delivery: &DeliveryRef, final_reply_timeout_ms: u32) {
        self.intake
            .begin(self.now_ms, SESSION, VIA, delivery, final_reply_timeout_ms);
        self.drain();
    }

    fn report(&mut self, delivery: &DeliveryRef, verdicts: &[(u32, Verdict)]) {
        let judged = verdicts
            .iter()
            .map(|(ordinal, verdict)| judged(*ordinal, *verdict))
            .collect();
        self.report_judged(delivery, judged);
    }

    fn report_judged(&mut self, delivery: &DeliveryRef, judged: Vec<Judged>) {
        let report = Report {
            delivery: Some(delivery.clone()),
            finished_at_ms: self.now_ms,
            ..Report::default()
        };
        self.intake
            .report(self.now_ms, SESSION, &report, judged, VIA, &self.rules);
        self.drain();
    }

    /// An attempt at what is ready, with the same result for all its recipients.
    fn attempt(&mut self, verdict: Verdict) -> DeliveryRef {
        let delivery = self.assign();
        self.begin(&delivery);
        let verdicts: Vec<_> = delivery
            .ordinals
            .iter()
            .map(|ordinal| (*ordinal, verdict))
            .collect();
        self.report(&delivery, &verdicts);
        delivery
    }

    fn place_of(&self, id: MessageId) -> Place {
        let message = self
            .intake
            .live
            .messages
            .get(self.intake.live.find(&id).unwrap())
            .unwrap();
        Place {
            sequence: message.sequence,
            index: message.index.into(),
        }
    }

    fn is_live(&self, id: MessageId) -> bool {
        self.intake.live.find(&id).is_some()
    }

    fn permitted(&self, delivery: &DeliveryRef) -> bool {
        self.seen
            .iter()
            .any(|effect| matches!(effect, Effect::Permit(_, of) if of == delivery))
    }

    fn acknowledged(&self, delivery: &DeliveryRef) -> usize {
        self.seen
            .iter()
            .filter(|effect| matches!(effect, Effect::ReportStored(_, of) if of == delivery))
            .count()
    }

    fn refused(&self) -> Vec<&str> {
        let reason = |effect: &'_ Effect| match effect {
            Effect::Refused(_, _, reason) => Some(*reason),
            _ => None,
        };
        self.seen.iter().filter_map(reason).collect()
    }

    fn trimmed_below(&self) -> u64 {
        let below = |effect: &Effect| match effect {
            Effect::TrimSpool { below } => Some(*below),
            _ => None,
        };
        self.seen.iter().filter_map(below).max().unwrap_or(0)
    }

    /// The entries that are stored.
    fn entries(&self) -> Vec<Kind> {
        let records = self.stores.records.values();
        records
            .flat_map(|(_, record)| journal::decode(record).unwrap().entries)
            .filter_map(|entry| entry.kind)
            .collect()
    }

    fn outcomes(&self) -> Vec<proto::journal::Outcome> {
        let outcome = |kind| match kind {
            Kind::Outcome(outcome) => Some(outcome),
            _ => None,
        };
        self.entries().into_iter().filter_map(outcome).collect()
    }

    /// The owner is gone; another takes over.
    fn crash(&mut self) {
        self.in_flight = None;
        self.ready.clear();
        self.intake = self.stores.take_over(self.now_ms, self.intake.settings);
        self.drain();
    }

    fn states(&self, id: MessageId) -> Vec<(Vec<u16>, State, u64)> {
        let live = &self.intake.live;
        let slots = live.deliveries_of(live.find(&id).unwrap());
        let mut states: Vec<_> = slots
            .into_iter()
            .map(|slot| {
                let delivery = live.deliveries.get(slot).unwrap();
                (
                    live.ordinals(slot).to_vec(),
                    delivery.state,
                    delivery.due_ms,
                )
            })
            .collect();
        states.sort_by(|a, b| a.0.cmp(&b.0));
        states
    }
}

pub(crate) fn block(entries: Vec<IndexEntry>) -> BlockIndex {
    BlockIndex {
        format: 1,
        entries,
        ..BlockIndex::default()
    }
}

pub(crate) fn entry(id: MessageId, recipients: &[&str]) -> IndexEntry {
    let recipient = |address: &&str| Recipient {
        address: (*address).to_owned(),
        ..Recipient::default()
    };
    let envelope = Envelope {
        tenant: "acme".into(),
        stream: "mail".into(),
        return_path: "sender@acme.example".into(),
        recipients: recipients.iter().map(recipient).collect(),
        ..Envelope::default()
    };
    IndexEntry {
        message_id: id.as_bytes().to_vec().into(),
        length: 100,
        envelope: Some(envelope),
        ..IndexEntry::default()
    }
}

pub(crate) fn notification(id: MessageId, original: MessageId, ordinals: &[u32]) -> IndexEntry {
    let mut entry = entry(id, &["sender@acme.example"]);
    if let Some(envelope) = &mut entry.envelope {
        envelope.return_path.clear();
    }
    entry.reports_on = Some(ReportsOn {
        message_id: original.as_bytes().to_vec().into(),
        ordinals: ordinals.to_vec(),
    });
    entry
}

/// As the classifier, roughly.
fn by_code(report: RecipientReport) -> Judged {
    let reply = report.reply.unwrap();
    Judged {
        ordinal: report.ordinal,
        address: report.address,
        verdict: match reply.code {
            200..300 => Verdict::Delivered,
            400..500 => Verdict::Transient,
            _ => Verdict::Permanent,
        },
        reply,
        class: Class::Unspecified,
        retry_after_ms: None,
    }
}

pub(crate) fn judged(ordinal: u32, verdict: Verdict) -> Judged {
    Judged {
        ordinal,
        address: String::new(),
        reply: Reply::default(),
        verdict,
        class: Class::Unspecified,
        retry_after_ms: None,
    }
}
