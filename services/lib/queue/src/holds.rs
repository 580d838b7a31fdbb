//! What is on hold: accepted so, or in doubt where the stream says that somebody shall decide.
//!
//! Meanwhile its age stands still. How long that was is known from what is stored: a message is on hold from its
//! acceptance, or from the end of the attempt that is in doubt, to the entry that releases it. So a later owner comes to
//! the same ages. What was accepted on hold does not stay for ever: its tenant has a longest hold.
//!
//! What was never on hold takes no memory here.

use std::collections::BTreeSet;

use hashbrown::HashMap;
use proto::envelope::Envelope;
use proto::journal::{Disposition, Reply, Stage};

use crate::delivery::Message;
use crate::intake::{By, Intake, Policies};
use crate::live::Live;
use crate::strings::Name;

/// For how long mail may be on hold, and what becomes of it then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongestHold {
    /// Milliseconds from its acceptance.
    pub most_ms: u64,
    /// What becomes of it.
    pub ends: HoldEnds,
}

/// What becomes of mail that nobody released in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HoldEnds {
    /// It expires: its sender is told.
    Return,
    /// It is cancelled.
    Discard,
}

/// Who sent a message: what a release asks about again. Empty = not known, or none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Submitter<'a> {
    /// The credential.
    pub credential: &'a str,
    /// Domain of the header From, by which it is signed.
    pub author_domain: &'a str,
    /// Domain of the return path.
    pub return_domain: &'a str,
}

impl<'a> Submitter<'a> {
    pub(crate) fn of(envelope: &'a Envelope) -> Self {
        let return_path = envelope.return_path.rsplit_once('@');
        Self {
            credential: &envelope.credential,
            author_domain: &envelope.from_domain,
            return_domain: return_path.map_or("", |(_, domain)| domain),
        }
    }
}

/// A present hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnHold {
    /// Unix milliseconds.
    pub since_ms: u64,
    /// When it ends by itself, Unix milliseconds; `None` = it does not, or that was not looked at yet.
    pub until_ms: Option<u64>,
}

/// As [`Submitter`], by name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Submitted {
    pub(crate) credential: Option<Name>,
    pub(crate) author_domain: Option<Name>,
    pub(crate) return_domain: Option<Name>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Hold {
    /// Unix milliseconds; `None` = not on hold any more.
    since_ms: Option<u64>,
    /// How long it was on hold before, after it might be sent.
    for_ms: u64,
    /// When to look whether it is over, Unix milliseconds: its end, once that is known.
    look_ms: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Holds {
    by_delivery: HashMap<u32, Hold>,
    /// Those that are on hold, by when to look.
    order: BTreeSet<(u64, u32)>,
    /// Who sent the messages that were accepted on hold, by message slot.
    submitters: HashMap<u32, Submitted>,
}

/// Nobody has looked yet when it ends.
const AT_ONCE: u64 = 0;
/// It does not end by itself.
const NEVER: u64 = u64::MAX;

impl Holds {
    /// Since when a delivery is on hold (0 = it is not), and how long it was before.
    pub(crate) fn times(&self, slot: u32) -> (u64, u64) {
        let hold = self.by_delivery.get(&slot).copied().unwrap_or_default();
        (hold.since_ms.unwrap_or(0), hold.for_ms)
    }

    pub(crate) fn present(&self, slot: u32) -> Option<OnHold> {
        let hold = self.by_delivery.get(&slot)?;
        Some(OnHold {
            since_ms: hold.since_ms?,
            until_ms: (!matches!(hold.look_ms, AT_ONCE | NEVER)).then_some(hold.look_ms),
        })
    }

    pub(crate) fn submitter(&self, message_slot: u32) -> Option<&Submitted> {
        self.submitters.get(&message_slot)
    }

    /// What was parted from a delivery is as old.
    pub(crate) fn share(&mut self, slot: u32, parted: u32) {
        if let Some(hold) = self.by_delivery.get(&slot).copied() {
            let before = Hold {
                for_ms: hold.for_ms,
                ..Hold::default()
            };
            self.by_delivery.insert(parted, before);
        }
    }

    pub(crate) fn forget(&mut self, slot: u32) {
        if let Some(hold) = self.by_delivery.remove(&slot) {
            self.order.remove(&(hold.look_ms, slot));
        }
    }

    /// When to look for holds that are over, Unix milliseconds.
    pub(crate) fn next(&self) -> Option<u64> {
        let (look_ms, _) = self.order.first()?;
        (*look_ms != NEVER).then_some(*look_ms)
    }

    fn due(&self, now_ms: u64) -> Option<u32> {
        let (look_ms, slot) = self.order.first()?;
        (*look_ms <= now_ms && *look_ms != NEVER).then_some(*slot)
    }

    fn look_at(&mut self, slot: u32, look_ms: u64) {
        if let Some(hold) = self.by_delivery.get_mut(&slot) {
            self.order.remove(&(hold.look_ms, slot));
            hold.look_ms = look_ms;
            self.order.insert((look_ms, slot));
        }
    }
}

impl Live {
    /// A delivery is on hold since then, Unix milliseconds.
    pub(crate) fn hold(&mut self, slot: u32, since_ms: u64) {
        let hold = self.holds.by_delivery.entry(slot).or_default();
        // 0 would say in a snapshot that it is not.
        hold.since_ms = Some(since_ms.max(1));
        self.holds.look_at(slot, AT_ONCE);
    }

    /// As a snapshot says.
    pub(crate) fn held_before(&mut self, slot: u32, for_ms: u64) {
        if for_ms > 0 {
            self.holds.by_delivery.entry(slot).or_default().for_ms = for_ms;
        }
    }

    /// How long a delivery was on hold after it might be sent, milliseconds.
    pub(crate) fn held_for_ms(&self, slot: u32) -> u64 {
        if self.holds.by_delivery.is_empty() {
            return 0;
        }
        let hold = self.holds.by_delivery.get(&slot);
        hold.map_or(0, |hold| hold.for_ms)
    }

    /// From when on the age of a delivery counts, Unix milliseconds: since it may be sent, and later by its holds.
    pub(crate) fn age_begins_ms(&self, slot: u32) -> u64 {
        let delivery = self.deliveries.get(slot);
        let message = delivery.and_then(|delivery| self.messages.get(delivery.message));
        let earliest_ms = message.map_or(0, Message::earliest_ms);
        earliest_ms.saturating_add(self.held_for_ms(slot))
    }

    /// A delivery that is held is released at that time. Gives from when on it may be sent.
    pub(crate) fn end_hold(&mut self, slot: u32, at_ms: u64) -> u64 {
        let Some(delivery) = self.deliveries.get(slot) else {
            return 0;
        };
        let message_slot = delivery.message;
        let message = self.messages.get(message_slot);
        let earliest_ms = message.map_or(0, Message::earliest_ms);
        if self.deadlines.get(message_slot) > 0
            && let Some(since_ms) = self.all_held_since(message_slot)
        {
            let held_ms = at_ms.saturating_sub(since_ms);
            self.deadlines.go_on(message_slot, held_ms);
        }
        if let Some(hold) = self.holds.by_delivery.get_mut(&slot)
            && let Some(since_ms) = hold.since_ms.take()
        {
            let held_ms = at_ms.saturating_sub(since_ms.max(earliest_ms));
            hold.for_ms = hold.for_ms.saturating_add(held_ms);
            self.holds.order.remove(&(hold.look_ms, slot));
        }
        earliest_ms
    }

    /// Since when all deliveries of a message are on hold; `None` when some are not.
    pub(crate) fn all_held_since(&self, message_slot: u32) -> Option<u64> {
        if self.holds.order.is_empty() {
            return None;
        }
        let mut last_ms = None;
        for slot in self.deliveries_of(message_slot) {
            last_ms = last_ms.max(Some(self.holds.by_delivery.get(&slot)?.since_ms?));
        }
        last_ms
    }

    pub(crate) fn note_submitter(&mut self, message_slot: u32, of: Submitter<'_>) {
        if of == Submitter::default() {
            return;
        }
        let strings = &mut self.strings;
        let mut name = |text: &str| (!text.is_empty()).then(|| strings.acquire(text));
        let submitted = Submitted {
            credential: name(of.credential),
            author_domain: name(of.author_domain),
            return_domain: name(of.return_domain),
        };
        self.holds.submitters.insert(message_slot, submitted);
    }

    pub(crate) fn forget_submitter(&mut self, message_slot: u32) {
        let Some(of) = self.holds.submitters.remove(&message_slot) else {
            return;
        };
        let names = [of.credential, of.author_domain, of.return_domain];
        for name in names.into_iter().flatten() {
            self.strings.release(name);
        }
    }
}

impl Intake {
    /// Why a delivery that is held would stay so when it is released; `None` = it would not.
    pub fn refusal_of(&self, key: crate::Key, policies: &dyn Policies) -> Option<String> {
        self.refusal(self.live.resolve(key)?, policies)
    }

    pub(crate) fn refusal(&self, slot: u32, policies: &dyn Policies) -> Option<String> {
        let live = &self.live;
        live.holds.present(slot)?;
        let message_slot = live.deliveries.get(slot)?.message;
        let tenant = live.strings.get(live.messages.get(message_slot)?.tenant);
        let text = |name: Option<Name>| name.map_or("", |name| live.strings.get(name));
        let submitter = match live.holds.submitter(message_slot) {
            Some(of) => Submitter {
                credential: text(of.credential),
                author_domain: text(of.author_domain),
                return_domain: text(of.return_domain),
            },
            None => Submitter::default(),
        };
        policies.may_send(tenant, submitter).err()
    }

    /// Holds may end at other times now: all are looked at again. Cost O(holds).
    pub fn look_at_holds(&mut self) {
        let holds = &mut self.live.holds;
        let slots: Vec<u32> = holds.order.iter().map(|(_, slot)| *slot).collect();
        for slot in slots {
            holds.look_at(slot, AT_ONCE);
        }
    }

    /// Ends what was on hold for too long; looks at most at `limit`, and at none while much waits to be stored: many may
    /// end at once.
    pub(crate) fn end_holds(&mut self, now_ms: u64, limit: usize, policies: &dyn Policies) {
        for _ in 0..limit {
            if self.is_busy() {
                return;
            }
            let Some(slot) = self.live.holds.due(now_ms) else {
                return;
            };
            match self.end_of_hold(slot, policies) {
                Some(end) if end.at_ms <= now_ms => self.end_held(now_ms, slot, end),
                end => {
                    let look_ms = end.map_or(NEVER, |end| end.at_ms.max(now_ms + 1));
                    self.live.holds.look_at(slot, look_ms);
                }
            }
        }
    }

    /// When a hold ends by itself: that of what is in doubt or in quarantine does not.
    fn end_of_hold(&self, slot: u32, policies: &dyn Policies) -> Option<End> {
        let live = &self.live;
        let hold = live.holds.present(slot)?;
        let delivery = live.deliveries.get(slot)?;
        let message = live.messages.get(delivery.message)?;
        if delivery.attempts > 0 || message.is_quarantined() {
            return None;
        }
        let longest = policies.longest_hold(live.strings.get(message.tenant));
        let end = End {
            at_ms: hold.since_ms.saturating_add(longest.most_ms),
            held: Some((hold.since_ms, longest.ends)),
        };
        match message.expires_ms().filter(|_| !message.expiry_moves()) {
            Some(at_ms) if at_ms < end.at_ms => Some(End { at_ms, held: None }),
            _ => Some(end),
        }
    }

    fn end_held(&mut self, now_ms: u64, slot: u32, end: End) {
        let Some(key) = self.live.key(slot) else {
            return;
        };
        let (disposition, text, held_since_ms) = match end.held {
            None => (Disposition::Expired, "delivery time expired", 0),
            Some((since_ms, HoldEnds::Return)) => (
                Disposition::Expired,
                "on hold, and not released in time",
                since_ms,
            ),
            Some((since_ms, HoldEnds::Discard)) => (
                Disposition::Cancelled,
                "on hold, and not released in time",
                since_ms,
            ),
        };
        let reply = Reply {
            stage: Stage::Unspecified.into(),
            code: 0,
            enhanced: "4.4.7".into(),
            text: text.into(),
        };
        let by = By {
            held_since_ms,
            ..By::default()
        };
        self.conclude_by(now_ms, key, disposition, reply, by);
    }
}

/// When what is on hold ends by itself.
#[derive(Debug, Clone, Copy)]
struct End {
    at_ms: u64,
    /// By the longest hold: since when it is on hold, and what becomes of it. Else by the time that its client gave.
    held: Option<(u64, HoldEnds)>,
}
