//! What happenings come to: changes of the log, from what is known.

use std::collections::HashMap;
use std::sync::Arc;

use config::{Snapshot, StoredAddresses, Stream, Suppression};
use proto::event::event::Kind as Told;
use proto::event::{Complaint, Event};
use proto::journal::entry::Kind as Entered;
use proto::journal::{Class, Outcome, RecipientOutcome, Record, Reply, Simulation};
use proto::suppression::change::Kind;
use proto::suppression::{Change, Entry, Reason, Strikes as StrikesOf};
use suppress::{
    AddressKey, KEPT_MS, Limit, Meaning, Scope, Strikes, Struck, Table, day_of, meaning,
    normal_form,
};

/// Removals that are known at most.
const MOST_REMOVED: usize = 100_000;
/// Octets of a cause.
const CAUSE: usize = 256;
/// Complaints of a reader who wants no more (RFC 5965 section 7.3; `fraud` as well, since nobody who says so wants more). What
/// else comes says that it was no spam, or is not about a wish.
const WISHES: [&str; 4] = ["abuse", "fraud", "virus", "opt-out"];

/// What is known of addresses.
pub(super) struct Book {
    table: Arc<Table>,
    strikes: Strikes,
    /// When entries were removed, lately: what happened before does not bring them back.
    removed: HashMap<(AddressKey, Scope), u64>,
}

/// Whom something happened to, and when.
struct Happening<'a> {
    tenant: &'a str,
    stream: &'a str,
    address: &'a str,
    at_ms: u64,
}

/// What brought an entry about.
#[derive(Clone, Copy)]
enum Cause<'a> {
    Reply(Option<&'a Reply>),
    /// One of ours.
    Word(&'a str),
}

impl Cause<'_> {
    /// As it is stored: the words of a host name the address often, so only its codes are where addresses are not stored.
    fn text(self, addresses: StoredAddresses) -> String {
        let reply = match self {
            Self::Word(word) => return word.to_owned(),
            Self::Reply(None) => return String::new(),
            Self::Reply(Some(reply)) => reply,
        };
        let code = match reply.code {
            0 => String::new(),
            code => code.to_string(),
        };
        let text = match addresses {
            StoredAddresses::Clear => reply.text.as_str(),
            StoredAddresses::Hashed => "",
        };
        let words = [code.as_str(), &reply.enhanced, text];
        let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
        words.join(" ")
    }
}

impl Book {
    pub(super) fn new(table: Arc<Table>) -> Self {
        Self {
            table,
            strikes: Strikes::default(),
            removed: HashMap::new(),
        }
    }

    /// Takes a change of the log.
    pub(super) fn read(&mut self, change: &Change, now_ms: u64) {
        self.table.apply(change, now_ms);
        let Ok(key) = AddressKey::try_from(&change.key[..]) else {
            return;
        };
        match &change.kind {
            Some(Kind::Strikes(strikes)) => {
                self.strikes.restore(Scope::of(change), key, &strikes.days);
            }
            Some(Kind::Entry(_)) => {
                self.strikes.forget(&Scope::of(change), &key);
            }
            Some(Kind::Removal(_)) => self.note_removal(key, change, now_ms),
            None => {}
        }
    }

    fn note_removal(&mut self, key: AddressKey, change: &Change, now_ms: u64) {
        let scope = Scope::of(change);
        self.strikes.forget(&scope, &key);
        self.removed.insert((key, scope), change.at_ms);
        if self.removed.len() > MOST_REMOVED {
            self.removed
                .retain(|_, at_ms| at_ms.saturating_add(KEPT_MS) > now_ms);
        }
        if self.removed.len() > MOST_REMOVED {
            self.removed.clear();
        }
    }

    /// What a record of a journal comes to.
    pub(super) fn journal(
        &mut self,
        record: &Record,
        config: &Snapshot,
        now_ms: u64,
    ) -> Vec<Change> {
        let mut changes = Vec::new();
        let outcomes = record.entries.iter().filter_map(|entry| match &entry.kind {
            Some(Entered::Outcome(outcome)) => Some(outcome),
            _ => None,
        });
        // What the simulator answers is about nobody.
        let outcomes = outcomes.filter(|outcome| outcome.simulation() == Simulation::None);
        for outcome in outcomes {
            for recipient in &outcome.recipients {
                changes.extend(self.outcome(outcome, recipient, config, now_ms));
            }
        }
        changes
    }

    fn outcome(
        &mut self,
        outcome: &Outcome,
        recipient: &RecipientOutcome,
        config: &Snapshot,
        now_ms: u64,
    ) -> Option<Change> {
        let meaning = meaning(recipient);
        if meaning == Meaning::Nothing {
            return None;
        }
        let scope = Scope::new(&outcome.tenant, &outcome.stream);
        if meaning == Meaning::Works && !self.strikes.concerns(&scope) {
            return None;
        }
        let happening = Happening {
            tenant: &outcome.tenant,
            stream: &outcome.stream,
            address: &recipient.address,
            at_ms: outcome.finished_at_ms,
        };
        match meaning {
            Meaning::Hard => {
                let cause = Cause::Reply(recipient.reply.as_ref());
                self.suppress(&happening, Reason::Hard, cause, config, now_ms)
            }
            Meaning::Soft => {
                let cause = Cause::Reply(recipient.reply.as_ref());
                self.strike(&happening, cause, config, now_ms)
            }
            Meaning::Works => {
                let key = self.table.keys().of(&recipient.address)?;
                let had_failed = self.strikes.forget(&scope, &key);
                had_failed.then(|| change_of(&happening, key, Kind::Strikes(StrikesOf::default())))
            }
            Meaning::Nothing => None,
        }
    }

    /// What a record of `EVENTS` comes to.
    pub(super) fn told(&mut self, event: &Event, config: &Snapshot, now_ms: u64) -> Option<Change> {
        let happening = |stream, recipient| Happening {
            tenant: &event.tenant,
            stream,
            address: recipient,
            at_ms: event.at_ms,
        };
        match &event.kind {
            // What the DNS has against a domain may pass.
            Some(Told::OutOfBandBounce(bounce))
                if bounce.hard && bounce.class() == Class::Recipient =>
            {
                let happening = happening(bounce.stream.as_str(), bounce.recipient.as_str());
                let cause = Cause::Reply(bounce.reply.as_ref());
                self.suppress(&happening, Reason::Hard, cause, config, now_ms)
            }
            Some(Told::Complaint(complaint)) if is_wish(complaint) => {
                let happening = happening(complaint.stream.as_str(), complaint.recipient.as_str());
                let cause = Cause::Word(&complaint.feedback_type);
                self.suppress(&happening, Reason::Complaint, cause, config, now_ms)
            }
            Some(Told::Unsubscribe(unsubscribe)) => {
                let happening =
                    happening(unsubscribe.stream.as_str(), unsubscribe.recipient.as_str());
                let cause = Cause::Word(&unsubscribe.by);
                self.suppress(&happening, Reason::Unsubscribe, cause, config, now_ms)
            }
            _ => None,
        }
    }

    /// A rule suppresses an address for one stream. It never shortens an entry that is there.
    fn suppress(
        &mut self,
        happening: &Happening<'_>,
        reason: Reason,
        cause: Cause<'_>,
        config: &Snapshot,
        now_ms: u64,
    ) -> Option<Change> {
        let stream = stream_of(happening, reason, config)?;
        let policy = &stream.suppression;
        let normal = normal_form(happening.address)?;
        let key = self.table.keys().of_normal(&normal);
        let scope = Scope::new(happening.tenant, happening.stream);
        let expires_ms = expires_ms(policy, reason, happening.at_ms);
        if expires_ms != 0 && expires_ms <= now_ms {
            return None;
        }
        if self.is_removed_since(&key, &scope, happening.at_ms) {
            return None;
        }
        if let Some((there, until_ms)) = self.table.entry(&scope, &key, now_ms)
            && counts(stream, there)
            && (until_ms == 0 || (expires_ms != 0 && until_ms >= expires_ms))
        {
            return None;
        }
        let entry = Entry {
            reason: reason.into(),
            expires_ms,
            author: String::new(),
            cause: shortened(&cause.text(policy.addresses)),
        };
        let mut change = change_of(happening, key, Kind::Entry(entry));
        if policy.addresses == StoredAddresses::Clear {
            change.address = normal;
        }
        // The next happening of the same record must see it.
        self.read(&change, now_ms);
        Some(change)
    }

    /// Whether somebody removed the address after this time: what happened before counts no more.
    fn is_removed_since(&self, key: &AddressKey, scope: &Scope, at_ms: u64) -> bool {
        let removed_ms = self.removed.get(&(*key, scope.clone()));
        removed_ms.is_some_and(|removed_ms| *removed_ms >= at_ms)
    }

    fn strike(
        &mut self,
        happening: &Happening<'_>,
        cause: Cause<'_>,
        config: &Snapshot,
        now_ms: u64,
    ) -> Option<Change> {
        let policy = &stream_of(happening, Reason::Soft, config)?.suppression;
        let key = self.table.keys().of(happening.address)?;
        let scope = Scope::new(happening.tenant, happening.stream);
        if self.is_removed_since(&key, &scope, happening.at_ms) {
            return None;
        }
        let limit = Limit {
            days: policy.soft_bounces.count,
            within: day_of(policy.soft_bounces.within.as_millis()),
        };
        let struck = self.strikes.strike(&scope, key, happening.at_ms, limit);
        match struck {
            Struck::Known => None,
            Struck::Counted(days) => {
                let strikes = StrikesOf { days };
                Some(change_of(happening, key, Kind::Strikes(strikes)))
            }
            Struck::Out => self.suppress(happening, Reason::Soft, cause, config, now_ms),
        }
    }
}

/// A complaint that its reader wants no more.
fn is_wish(complaint: &Complaint) -> bool {
    WISHES.contains(&complaint.feedback_type.as_str())
}

/// Its stream; `None` when it is not known (any more), and nothing is sent by it, or the reason means nothing to it.
fn stream_of<'a>(
    happening: &Happening<'_>,
    reason: Reason,
    config: &'a Snapshot,
) -> Option<&'a Stream> {
    let stream = config.tenant(happening.tenant)?.stream(happening.stream)?;
    counts(stream, reason).then_some(stream)
}

/// Whether an entry for this reason stops mail of a stream.
fn counts(stream: &Stream, reason: Reason) -> bool {
    let by_choice = matches!(reason, Reason::Complaint | Reason::Unsubscribe);
    !(by_choice && stream.transactional)
}

/// The end of an entry that is made at this time, Unix milliseconds; 0 = it has none.
fn expires_ms(policy: &Suppression, reason: Reason, at_ms: u64) -> u64 {
    let lasts = match reason {
        Reason::Hard => policy.expires.hard,
        Reason::Soft => policy.expires.soft,
        Reason::Complaint => policy.expires.complaint,
        Reason::Unsubscribe => policy.expires.unsubscribe,
        Reason::Manual | Reason::Import | Reason::Unspecified => None,
    };
    lasts.map_or(0, |span| at_ms.saturating_add(span.as_millis()))
}

fn change_of(happening: &Happening<'_>, key: AddressKey, kind: Kind) -> Change {
    Change {
        key: key.to_vec().into(),
        address: String::new(),
        tenant: happening.tenant.to_owned(),
        stream: happening.stream.to_owned(),
        at_ms: happening.at_ms,
        kind: Some(kind),
    }
}

/// Of one line, and no longer than is stored.
fn shortened(text: &str) -> String {
    let mut short = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if short.len() + c.len_utf8() > CAUSE {
            break;
        }
        short.push(c);
    }
    short
}

#[cfg(test)]
mod tests {
    use proto::event::{OutOfBandBounce, Unsubscribe};
    use proto::journal::{Disposition, Entry as JournalEntry, Stage};
    use proto::suppression::Removal;
    use suppress::Keys;

    use super::*;

    const DAY_MS: u64 = 86_400_000;
    const NOW_MS: u64 = 20_000 * DAY_MS;

    const DOCUMENTS: &str = "
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: acme }
spec:
  defaultStream: bulk
  suppression: { softBounces: { count: 2, within: 7d } }
  streams:
    - name: bulk
    - name: transactional
    - { name: secret, suppression: { addresses: hashed, expires: { hard: 10d } } }
";

    fn config() -> Snapshot {
        Snapshot::from_documents(DOCUMENTS).unwrap()
    }

    fn book() -> Book {
        Book::new(Arc::new(Table::new(Keys::new(&[3; 32]))))
    }

    fn record(stream: &str, address: &str, at_ms: u64, how: (Disposition, Class, u32)) -> Record {
        let (disposition, class, code) = how;
        let recipient = RecipientOutcome {
            address: address.to_owned(),
            disposition: disposition.into(),
            class: class.into(),
            reply: Some(Reply {
                stage: Stage::Rcpt.into(),
                code,
                enhanced: "5.1.1".to_owned(),
                text: "no\nsuch user".to_owned(),
            }),
            ..RecipientOutcome::default()
        };
        let outcome = Outcome {
            tenant: "acme".to_owned(),
            stream: stream.to_owned(),
            recipients: vec![recipient],
            finished_at_ms: at_ms,
            ..Outcome::default()
        };
        Record {
            entries: vec![JournalEntry {
                kind: Some(Entered::Outcome(outcome)),
            }],
            ..Record::default()
        }
    }

    const GONE: (Disposition, Class, u32) = (Disposition::Bounced, Class::Recipient, 550);
    const BLOCKED: (Disposition, Class, u32) = (Disposition::Bounced, Class::Policy, 550);
    const FULL: (Disposition, Class, u32) = (Disposition::Expired, Class::MailboxFull, 452);
    const GOOD: (Disposition, Class, u32) = (Disposition::Delivered, Class::Unspecified, 250);

    fn hit(book: &Book, stream: &str, address: &str) -> Option<Reason> {
        let is_transactional = stream == "transactional";
        let hit = book
            .table
            .lookup("acme", stream, is_transactional, address, NOW_MS);
        hit.map(|hit| hit.reason)
    }

    #[test]
    fn an_address_that_is_not_there_is_suppressed_for_its_stream_once() {
        let (mut book, config) = (book(), config());
        let gone = record("bulk", "Ann@x.example", NOW_MS, GONE);
        let changes = book.journal(&gone, &config, NOW_MS);
        assert_eq!(changes.len(), 1);
        let Some(Kind::Entry(entry)) = &changes[0].kind else {
            panic!("{changes:?}")
        };
        assert_eq!(entry.cause, "550 5.1.1 no such user");
        assert_eq!((entry.reason(), entry.expires_ms), (Reason::Hard, 0));
        assert_eq!(changes[0].address, "ann@x.example");
        assert_eq!(hit(&book, "bulk", "ann@x.example"), Some(Reason::Hard));
        assert_eq!(hit(&book, "transactional", "ann@x.example"), None);
        // Read again, after a kill or by another replica: nothing is new.
        assert!(book.journal(&gone, &config, NOW_MS).is_empty());
    }

    #[test]
    fn what_happened_before_somebody_removed_it_does_not_bring_it_back() {
        let (mut book, config) = (book(), config());
        let gone = |at_ms| record("bulk", "ann@x.example", at_ms, GONE);
        let mut removal = book.journal(&gone(NOW_MS), &config, NOW_MS).remove(0);
        removal.at_ms = NOW_MS + 1_000;
        removal.kind = Some(Kind::Removal(Removal::default()));
        book.read(&removal, NOW_MS);
        assert_eq!(hit(&book, "bulk", "ann@x.example"), None);
        // Read again by a replica that was behind.
        assert!(book.journal(&gone(NOW_MS), &config, NOW_MS).is_empty());
        assert_eq!(
            book.journal(&gone(NOW_MS + 2_000), &config, NOW_MS).len(),
            1
        );
    }

    #[test]
    fn what_a_host_has_against_us_suppresses_nobody() {
        let (mut book, config) = (book(), config());
        let blocked = record("bulk", "ann@x.example", NOW_MS, BLOCKED);
        assert!(book.journal(&blocked, &config, NOW_MS).is_empty());
        let mut simulated = record("bulk", "ann@x.example", NOW_MS, GONE);
        if let Some(Entered::Outcome(outcome)) = &mut simulated.entries[0].kind {
            outcome.simulation = Simulation::Recipient.into();
        }
        assert!(book.journal(&simulated, &config, NOW_MS).is_empty());
        let mut unknown = record("bulk", "ann@x.example", NOW_MS, GONE);
        if let Some(Entered::Outcome(outcome)) = &mut unknown.entries[0].kind {
            outcome.tenant = "gone".to_owned();
        }
        assert!(book.journal(&unknown, &config, NOW_MS).is_empty());
    }

    #[test]
    fn failures_for_a_while_are_counted_by_days_until_one_is_delivered() {
        let (mut book, config) = (book(), config());
        let mut step = |day: u64, how| {
            let at_ms = NOW_MS - (10 - day) * DAY_MS;
            let record = record("bulk", "ann@x.example", at_ms, how);
            let changes = book.journal(&record, &config, NOW_MS);
            let kinds = changes.into_iter().map(|change| match change.kind {
                Some(Kind::Strikes(strikes)) => Some(strikes.days.len()),
                _ => None,
            });
            kinds.collect::<Vec<_>>()
        };
        assert_eq!(step(0, FULL), [Some(1)]);
        assert_eq!(step(0, FULL), []);
        assert_eq!(step(1, GOOD), [Some(0)]);
        assert_eq!(step(1, GOOD), []);
        assert_eq!(step(2, FULL), [Some(1)]);
        assert_eq!(step(3, FULL), [None]);
        assert_eq!(hit(&book, "bulk", "ann@x.example"), Some(Reason::Soft));
        // 30 days from the last failure.
        let key = book.table.keys().of("ann@x.example").unwrap();
        let entry = book.table.entry(&Scope::new("acme", "bulk"), &key, NOW_MS);
        assert_eq!(entry, Some((Reason::Soft, NOW_MS + 23 * DAY_MS)));
    }

    #[test]
    fn what_was_counted_is_known_again_from_the_log() {
        let (mut first, config) = (book(), config());
        let full = |day: u64| record("bulk", "ann@x.example", NOW_MS + day * DAY_MS, FULL);
        let counted = first.journal(&full(0), &config, NOW_MS);
        let mut second = book();
        counted
            .iter()
            .for_each(|change| second.read(change, NOW_MS));
        let changes = second.journal(&full(1), &config, NOW_MS);
        assert!(matches!(changes[0].kind, Some(Kind::Entry(_))));
    }

    #[test]
    fn complaints_and_unsubscriptions_are_for_their_stream_and_not_for_transactional_mail() {
        let (mut book, config) = (book(), config());
        let event = |kind| Event {
            at_ms: NOW_MS,
            tenant: "acme".to_owned(),
            kind: Some(kind),
            ..Event::default()
        };
        let complaint = |stream: &str, feedback_type: &str| {
            event(Told::Complaint(Complaint {
                stream: stream.to_owned(),
                recipient: "ann@x.example".to_owned(),
                feedback_type: feedback_type.to_owned(),
                ..Complaint::default()
            }))
        };
        for (stream, feedback_type, counts) in [
            ("bulk", "not-spam", false),
            ("bulk", "auth-failure", false),
            ("bulk", "other", false),
            ("transactional", "abuse", false),
            ("bulk", "abuse", true),
            ("bulk", "abuse", false),
        ] {
            let change = book.told(&complaint(stream, feedback_type), &config, NOW_MS);
            assert_eq!(change.is_some(), counts, "{stream} {feedback_type}");
        }
        let unsubscribe = event(Told::Unsubscribe(Unsubscribe {
            stream: "secret".to_owned(),
            recipient: "bob@x.example".to_owned(),
            by: "one_click".to_owned(),
            ..Unsubscribe::default()
        }));
        let change = book.told(&unsubscribe, &config, NOW_MS).unwrap();
        assert_eq!(change.address, "");
        assert_eq!(
            hit(&book, "secret", "bob@x.example"),
            Some(Reason::Unsubscribe)
        );
        let bounce = |hard, class: Class| {
            event(Told::OutOfBandBounce(OutOfBandBounce {
                stream: "bulk".to_owned(),
                recipient: "carl@x.example".to_owned(),
                class: class.into(),
                hard,
                ..OutOfBandBounce::default()
            }))
        };
        for (hard, class, counts) in [
            (false, Class::Recipient, false),
            (true, Class::Dns, false),
            (true, Class::Recipient, true),
        ] {
            let change = book.told(&bounce(hard, class), &config, NOW_MS);
            assert_eq!(change.is_some(), counts, "{hard} {class:?}");
        }
        // Nobody knows whom it is about.
        let nobody = event(Told::Complaint(Complaint {
            stream: "bulk".to_owned(),
            feedback_type: "abuse".to_owned(),
            ..Complaint::default()
        }));
        assert!(book.told(&nobody, &config, NOW_MS).is_none());
    }

    #[test]
    fn where_addresses_are_not_stored_neither_are_the_words_of_a_host() {
        let (mut book, config) = (book(), config());
        let mut gone = record("secret", "ann@x.example", NOW_MS, GONE);
        if let Some(Entered::Outcome(outcome)) = &mut gone.entries[0].kind
            && let Some(reply) = &mut outcome.recipients[0].reply
        {
            reply.text = "<ann@x.example> no such user".to_owned();
        }
        let change = book.journal(&gone, &config, NOW_MS).remove(0);
        let Some(Kind::Entry(entry)) = &change.kind else {
            panic!("{change:?}")
        };
        assert_eq!(
            (change.address.as_str(), entry.cause.as_str()),
            ("", "550 5.1.1")
        );
    }

    #[test]
    fn what_means_nothing_to_a_stream_does_not_stand_in_the_way() {
        let (mut book, config) = (book(), config());
        for stream in ["bulk", "transactional"] {
            let gone = record(stream, "ann@x.example", NOW_MS, GONE);
            let mut by_hand = self::book().journal(&gone, &config, NOW_MS).remove(0);
            if let Some(Kind::Entry(entry)) = &mut by_hand.kind {
                entry.reason = Reason::Complaint.into();
            }
            book.read(&by_hand, NOW_MS);
            let changes = book.journal(&gone, &config, NOW_MS);
            assert_eq!(changes.len(), usize::from(stream == "transactional"));
        }
        let reason = hit(&book, "transactional", "ann@x.example");
        assert_eq!(reason, Some(Reason::Hard));
    }

    #[test]
    fn failures_before_a_removal_are_not_counted_again() {
        let (mut book, config) = (book(), config());
        let full = |at_ms| record("bulk", "ann@x.example", at_ms, FULL);
        let mut removal = book.journal(&full(NOW_MS), &config, NOW_MS).remove(0);
        removal.at_ms = NOW_MS + 1_000;
        removal.kind = Some(Kind::Removal(Removal::default()));
        book.read(&removal, NOW_MS);
        // Read again by a replica that was behind.
        assert!(book.journal(&full(NOW_MS), &config, NOW_MS).is_empty());
        let counted = book.journal(&full(NOW_MS + 2_000), &config, NOW_MS);
        assert!(matches!(counted[0].kind, Some(Kind::Strikes(_))));
    }

    #[test]
    fn a_rule_never_shortens_what_is_there() {
        let (mut book, config) = (book(), config());
        let gone = |at_ms| record("secret", "ann@x.example", at_ms, GONE);
        let entry = |book: &Book| {
            let key = book.table.keys().of("ann@x.example").unwrap();
            book.table
                .entry(&Scope::new("acme", "secret"), &key, NOW_MS)
        };
        assert_eq!(book.journal(&gone(NOW_MS), &config, NOW_MS).len(), 1);
        let until = NOW_MS + 10 * DAY_MS;
        assert_eq!(entry(&book), Some((Reason::Hard, until)));
        // An older one is found later; one that is long over does not even count.
        assert!(
            book.journal(&gone(NOW_MS - DAY_MS), &config, NOW_MS)
                .is_empty()
        );
        assert!(
            book.journal(&gone(NOW_MS - 11 * DAY_MS), &config, NOW_MS)
                .is_empty()
        );
        assert_eq!(
            book.journal(&gone(NOW_MS + DAY_MS), &config, NOW_MS).len(),
            1
        );
        assert_eq!(entry(&book), Some((Reason::Hard, until + DAY_MS)));
        let mut by_hand = book
            .journal(&gone(NOW_MS + 2 * DAY_MS), &config, NOW_MS)
            .remove(0);
        if let Some(Kind::Entry(entry)) = &mut by_hand.kind {
            (entry.reason, entry.expires_ms) = (Reason::Manual.into(), 0);
        }
        book.read(&by_hand, NOW_MS);
        assert!(
            book.journal(&gone(NOW_MS + 3 * DAY_MS), &config, NOW_MS)
                .is_empty()
        );
    }
}
