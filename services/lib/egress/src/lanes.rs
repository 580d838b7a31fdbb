//! Lanes: egress source × site.

mod blocked;
mod lease;
mod outage;
mod senders;
mod slots;

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::fair::{Fair, Flow, Queue};
use crate::rate::{Became, GrantNews, Rates, TakeAll, Taken, Unit, Window, Word};

pub use blocked::Blocked;
use lease::Lease;
pub use lease::SlotNews;
use outage::Outages;
use senders::{Senders, SourceId};
use slots::{Choice, Slots};

/// After so long with nothing that waits, no connection and no use that counts, a lane is forgotten, milliseconds.
const IDLE_MS: u64 = 60_000;

/// Number of a lane. When a lane was forgotten ([`Lanes::forget_idle`]) another one may get its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId(pub u32);

/// An attached sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SenderId(pub u64);

/// A connection slot of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u32);

/// What limits a lane.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LaneLimits {
    /// Connections at a time over all senders.
    pub connections: u32,
    /// When the connections are those of all schedulers together, so that each must be leased: how many may be used
    /// when nobody answers. `None` = all connections are for this scheduler.
    pub connection_share: Option<u32>,
    /// After so many messages a sender opens a new connection; 0 = it does not.
    pub messages_per_connection: u32,
    /// Messages and connections per time; all hold. No two with the same unit and length.
    pub windows: Vec<Window>,
    /// A lane without a connection begins with one, and may have one more each time that so many milliseconds have
    /// passed; 0 = all at once.
    pub ramp_ms: u64,
    /// Nothing leaves until then, Unix milliseconds; 0 = nothing is suspended.
    pub suspended_until_ms: u64,
}

/// What to do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Decision<T> {
    /// Give the delivery to the sender, over this slot.
    Assign {
        /// Where it leaves.
        lane: LaneId,
        /// Over which connection.
        slot: SlotId,
        /// By whom.
        sender: SenderId,
        /// What.
        item: T,
        /// As what its lane's windows counted it; what becomes of it is to be told ([`Lanes::settle`]).
        taken: Taken,
    },
    /// The sender must close its idle connection: another one needs the slot.
    CloseSlot {
        /// The lane.
        lane: LaneId,
        /// The slot.
        slot: SlotId,
        /// Who holds it.
        sender: SenderId,
    },
    /// Say what is used of one of the lane's windows, and ask for a grant.
    AskGrant {
        /// The lane.
        lane: LaneId,
        /// Which window.
        window: Window,
        /// What to say.
        word: Word,
    },
    /// Say how many connections a lane has, which leases them anew, and ask for more.
    AskSlots {
        /// The lane.
        lane: LaneId,
        /// Connections that all schedulers together may have.
        limit: u32,
        /// How many of them when nobody knows what others have.
        share: u32,
        /// How many there are.
        have: u32,
        /// How many more are wanted.
        want: u32,
    },
}

#[derive(Debug)]
struct Lane {
    /// `None` = a number that is free.
    site: Option<Arc<str>>,
    source: SourceId,
    connections: u32,
    connection_share: Option<u32>,
    messages_per_connection: u32,
    queue: Queue,
    slots: Slots,
    lease: Lease,
    rates: Rates,
    ramp: Ramp,
    suspended_until_ms: u64,
    /// The last timer that was set for it, and for its words about rates, Unix milliseconds.
    timer_ms: u64,
    tell_timer_ms: u64,
    /// In the list of runnable lanes.
    runnable: bool,
    /// In the list of starved lanes.
    starved: bool,
    /// In the list of idle lanes.
    idle: bool,
}

/// How many connections a lane may have by now.
#[derive(Debug, Default)]
struct Ramp {
    /// 0 = no ramp.
    every_ms: u64,
    /// When the lane had its first connection.
    since_ms: u64,
}

impl Ramp {
    fn allows(&self, now_ms: u64) -> u32 {
        let steps = now_ms
            .saturating_sub(self.since_ms)
            .checked_div(self.every_ms);
        steps.map_or(u32::MAX, |steps| {
            u32::try_from(steps).unwrap_or(u32::MAX).saturating_add(1)
        })
    }

    /// When it allows one more.
    fn next_ms(&self, now_ms: u64) -> u64 {
        self.since_ms + u64::from(self.allows(now_ms)) * self.every_ms
    }
}

impl Lane {
    /// Connections that its limits let it have by now, those of other schedulers apart.
    fn ramped(&self, now_ms: u64) -> u32 {
        if self.ramp.every_ms > 0 && self.slots.used() == 0 {
            return self.connections.min(1);
        }
        self.connections.min(self.ramp.allows(now_ms))
    }

    /// Connections that it may have by now.
    fn allowed(&self, now_ms: u64) -> u32 {
        let (limit, share) = (self.connections, self.connection_share);
        let leased = self.lease.allowed(now_ms, limit, share);
        self.ramped(now_ms).min(leased)
    }

    /// Connections that it could have by now, as far as is known: before more are asked for, others may leave them.
    fn hoped(&self, now_ms: u64) -> u32 {
        match self.lease.is_short() {
            true => self.allowed(now_ms),
            false => self.ramped(now_ms),
        }
    }

    /// What is said about its connections now.
    fn speak(&mut self, now_ms: u64, away_ms: Option<u64>) -> Option<(u32, u32, lease::Word)> {
        let share = self.connection_share?;
        let used = self.slots.used();
        let more = self.ramped(now_ms).saturating_sub(used);
        let waiting = u32::try_from(self.queue.len()).unwrap_or(u32::MAX);
        let most = more.min(waiting);
        let word = self.lease.speak(now_ms, used, most, (share, away_ms))?;
        Some((self.connections, share, word))
    }

    fn is_idle(&self) -> bool {
        self.site.is_some()
            && self.queue.is_empty()
            && self.slots.used() == 0
            && self.lease.is_over()
            && !self.runnable
            && !self.starved
    }
}

/// Ready deliveries, in lanes. A decision costs O(1): it grows neither with what waits nor with the number of lanes or
/// tenants. Only when senders have no credit others are looked at, one after another. Lanes that are not used are
/// forgotten.
#[derive(Debug)]
pub struct Lanes<T> {
    lanes: Vec<Lane>,
    vacant: Vec<LaneId>,
    fair: Fair<T>,
    /// Lanes by source and site.
    numbers: HashTable<u32>,
    hasher: DefaultHashBuilder,
    senders: Senders,
    outages: Outages,
    runnable: VecDeque<LaneId>,
    /// Lanes that found no sender able to take more, the longest waiting first.
    starved: VecDeque<LaneId>,
    /// How many of them have not been looked at since credit came back.
    hopeful: usize,
    timers: BinaryHeap<Reverse<(u64, LaneId)>>,
    /// When lanes say how many connections they have.
    leases: BinaryHeap<Reverse<(u64, LaneId)>>,
    /// When lanes say what they have used of their rates.
    tells: BinaryHeap<Reverse<(u64, LaneId)>>,
    /// When nobody answered what was said about connections.
    away_ms: Option<u64>,
    closing: VecDeque<(LaneId, SlotId, SenderId)>,
    /// Lanes that had nothing, and since when.
    idle: VecDeque<(u64, LaneId)>,
    waiting: usize,
    slots_in_use: usize,
    now_ms: u64,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self {
            lanes: Vec::new(),
            vacant: Vec::new(),
            fair: Fair::default(),
            numbers: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            senders: Senders::default(),
            outages: Outages::default(),
            runnable: VecDeque::new(),
            starved: VecDeque::new(),
            hopeful: 0,
            timers: BinaryHeap::new(),
            leases: BinaryHeap::new(),
            tells: BinaryHeap::new(),
            away_ms: None,
            closing: VecDeque::new(),
            idle: VecDeque::new(),
            waiting: 0,
            slots_in_use: 0,
            now_ms: 0,
        }
    }
}

impl<T> Lanes<T> {
    /// The lane of a source and a site. `limits` is asked only for a new one.
    pub fn lane(
        &mut self,
        source: &Arc<str>,
        site: &Arc<str>,
        limits: impl FnOnce() -> LaneLimits,
    ) -> LaneId {
        if let Some(lane) = self.find(source, site) {
            return lane;
        }
        let limits = limits();
        let source = self.senders.source(source);
        let state = Lane {
            site: Some(site.clone()),
            source,
            connections: limits.connections,
            connection_share: limits.connection_share,
            messages_per_connection: limits.messages_per_connection,
            queue: Queue::default(),
            slots: Slots::default(),
            lease: Lease::default(),
            rates: Rates::new(limits.windows),
            ramp: Ramp {
                every_ms: limits.ramp_ms,
                since_ms: 0,
            },
            suspended_until_ms: limits.suspended_until_ms,
            timer_ms: 0,
            tell_timer_ms: 0,
            runnable: false,
            starved: false,
            idle: false,
        };
        let lane = match self.vacant.pop() {
            Some(lane) => {
                self.lanes[lane.0 as usize] = state;
                lane
            }
            None => {
                self.lanes.push(state);
                LaneId((self.lanes.len() - 1) as u32)
            }
        };
        let (hasher, lanes) = (&self.hasher, &self.lanes);
        let hash_of = |&number: &u32| {
            lanes.get(number as usize).map_or(0, |lane| {
                hash_lane(hasher, lane.source, lane.site.as_deref())
            })
        };
        let hash = hash_lane(hasher, source, Some(site));
        self.numbers.insert_unique(hash, lane.0, hash_of);
        lane
    }

    /// The lane of a source and a site, if there is one.
    pub fn find(&self, source: &str, site: &str) -> Option<LaneId> {
        let source = self.senders.number(source)?;
        let is_it = |&number: &u32| {
            self.lanes
                .get(number as usize)
                .is_some_and(|lane| lane.source == source && lane.site.as_deref() == Some(site))
        };
        let hash = hash_lane(&self.hasher, source, Some(site));
        self.numbers.find(hash, is_it).copied().map(LaneId)
    }

    /// Source and site of a lane.
    pub fn names(&self, lane: LaneId) -> Option<(&Arc<str>, &Arc<str>)> {
        let lane = self.lanes.get(lane.0 as usize)?;
        Some((self.senders.name(lane.source)?, lane.site.as_ref()?))
    }

    /// New limits for a lane. A window that stays the same keeps its count.
    pub fn set_limits_of(&mut self, lane: LaneId, limits: LaneLimits) {
        let Some(state) = self.lanes.get_mut(lane.0 as usize) else {
            return;
        };
        state.connections = limits.connections;
        state.connection_share = limits.connection_share;
        state.messages_per_connection = limits.messages_per_connection;
        state.rates.set(&limits.windows);
        state.ramp.every_ms = limits.ramp_ms;
        state.suspended_until_ms = limits.suspended_until_ms;
        self.wake(lane);
    }

    /// Deliveries that wait in lanes.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Connection slots in use or idle at senders.
    pub fn slots_in_use(&self) -> usize {
        self.slots_in_use
    }

    /// Lanes that there are.
    pub fn count(&self) -> usize {
        self.lanes.len() - self.vacant.len()
    }

    /// Adds a ready delivery. Deliveries of equal affinity prefer the same sender.
    pub fn push(&mut self, lane: LaneId, flow: &Flow, item: T, affinity: u64) {
        if let Some(state) = self.lanes.get_mut(lane.0 as usize) {
            let affinity = (affinity ^ affinity >> 32) as u32;
            self.fair.push(&mut state.queue, flow, item, affinity);
            self.waiting += 1;
            self.wake(lane);
        }
    }

    /// Takes all that waits out of the lanes, each lane's in order.
    pub fn take_all(&mut self) -> Vec<T> {
        let mut all = Vec::with_capacity(self.waiting);
        self.waiting = 0;
        for lane in &mut self.lanes {
            while let Some((_, item, _)) = self.fair.pop(&mut lane.queue) {
                all.push(item);
            }
        }
        self.note_idle_lanes();
        all
    }

    /// Takes out of the lanes what is not to stay.
    pub fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        for lane in &mut self.lanes {
            self.fair.retain(&mut lane.queue, &keep);
        }
        self.waiting = self.lanes.iter().map(|lane| lane.queue.len()).sum();
        self.note_idle_lanes();
    }

    /// A sender is attached. `sources` empty = it can use every source.
    pub fn sender_up(
        &mut self,
        sender: SenderId,
        credit: u32,
        sources: impl IntoIterator<Item = Arc<str>>,
    ) {
        self.senders
            .up(sender, credit, sources.into_iter().collect());
        (0..self.lanes.len()).for_each(|number| self.wake(LaneId(number as u32)));
    }

    /// A sender takes no more deliveries.
    pub fn sender_drains(&mut self, sender: SenderId) {
        self.senders.drains(sender);
    }

    /// A sender is gone with all its connections.
    pub fn sender_gone(&mut self, sender: SenderId) {
        self.senders.gone(sender);
        let now_ms = self.now_ms;
        for number in 0..self.lanes.len() {
            let before = self.lanes[number].slots.used();
            self.with_slots(LaneId(number as u32), |slots| slots.gone(sender));
            let state = &mut self.lanes[number];
            if state.connection_share.is_some() {
                // It may have them open until it sees that it is not attached any more.
                let lost = before - state.slots.used();
                state.lease.lose(now_ms, lost);
            }
            self.wake(LaneId(number as u32));
        }
    }

    /// An assignment is over (reported, returned or refused): the slot is idle again and the credit comes back.
    pub fn released(&mut self, lane: LaneId, slot: SlotId, sender: SenderId) {
        self.with_slots(lane, |slots| slots.release(slot, sender));
        self.close_surplus(lane);
        self.senders.give(sender);
        // Who waited longest goes first: else the lane that just had its turn would take the credit again.
        self.hopeful = self.starved.len();
        self.revive();
        self.wake(lane);
    }

    /// Wakes the lane that has been without a sender for longest. One at a time: credit for one delivery is no use
    /// to ten thousand lanes. False when there is none left to try.
    fn revive(&mut self) -> bool {
        if self.hopeful == 0 {
            return false;
        }
        self.hopeful -= 1;
        let Some(starved) = self.starved.pop_front() else {
            return false;
        };
        if let Some(lane) = self.lanes.get_mut(starved.0 as usize) {
            lane.starved = false;
        }
        self.wake(starved);
        true
    }

    /// A sender has closed the connection of a slot.
    pub fn slot_closed(&mut self, lane: LaneId, slot: SlotId, sender: SenderId) {
        self.with_slots(lane, |slots| slots.closed(slot, sender));
        let now_ms = self.now_ms;
        if let Some(state) = self.lanes.get_mut(lane.0 as usize)
            && state.connection_share.is_some()
            && state
                .lease
                .gave_back(now_ms, state.slots.used(), !state.queue.is_empty())
        {
            set_lease_timer(&mut self.leases, state, lane, now_ms);
        }
        self.wake(lane);
    }

    /// An answer to what was said about the connections of a lane.
    pub fn slots(&mut self, now_ms: u64, lane: LaneId, news: SlotNews) {
        self.now_ms = now_ms;
        let Some(state) = self.lanes.get_mut(lane.0 as usize) else {
            return;
        };
        state.lease.news(now_ms, news);
        if matches!(news, SlotNews::Away { .. }) {
            self.away_ms = Some(now_ms);
        }
        set_lease_timer(&mut self.leases, state, lane, now_ms);
        self.close_surplus(lane);
        self.note_idle(lane);
        self.wake(lane);
    }

    /// Idle connections are closed when more are open than are leased.
    fn close_surplus(&mut self, lane: LaneId) {
        let Some(state) = self.lanes.get_mut(lane.0 as usize) else {
            return;
        };
        if state.connection_share.is_none() {
            return;
        }
        let allowed = state.allowed(self.now_ms);
        while let Some((slot, holder)) = state.slots.surplus(allowed) {
            state.slots.close(slot);
            self.closing.push_back((lane, slot, holder));
        }
    }

    /// Changes the slots of a lane, and counts those in use.
    fn with_slots(&mut self, lane: LaneId, change: impl FnOnce(&mut Slots)) {
        if let Some(state) = self.lanes.get_mut(lane.0 as usize) {
            let before = state.slots.used() as usize;
            change(&mut state.slots);
            self.slots_in_use = self.slots_in_use + state.slots.used() as usize - before;
            self.note_idle(lane);
        }
    }

    /// An answer to a question for a grant.
    pub fn grant(&mut self, now_ms: u64, lane: LaneId, window: Window, news: GrantNews) {
        if let Some(state) = self.lanes.get_mut(lane.0 as usize) {
            state.rates.news(now_ms, window, news);
            set_tell_timer(&mut self.tells, state, lane, now_ms);
        }
        self.wake(lane);
    }

    /// What became of the message, or of the connection, of an assignment: once for each, also for those that have no
    /// rate.
    pub fn settle(&mut self, lane: LaneId, taken: Taken, unit: Unit, became: Became) {
        let now_ms = self.now_ms;
        if let Some(state) = self.lanes.get_mut(lane.0 as usize) {
            state.rates.settle(now_ms, taken, unit, became);
            set_tell_timer(&mut self.tells, state, lane, now_ms);
        }
        if became == Became::Nothing {
            self.wake(lane);
        }
    }

    /// An assignment was not made after all (the delivery was not there any more).
    pub fn unassign(&mut self, lane: LaneId, slot: SlotId, sender: SenderId, taken: Taken) {
        self.settle(lane, taken, Unit::Messages, Became::Nothing);
        self.settle(lane, taken, Unit::Connections, Became::Nothing);
        self.released(lane, slot, sender);
    }

    /// Gives back all that was granted and not used: what is to be said.
    pub fn hand_over(&mut self) -> Vec<(LaneId, Window, Word)> {
        let now_ms = self.now_ms;
        let mut words = Vec::new();
        for (lane, state) in (0..).map(LaneId).zip(&mut self.lanes) {
            let of_lane = state.rates.hand_over(now_ms).into_iter();
            words.extend(of_lane.map(|(window, word)| (lane, window, word)));
        }
        words
    }

    /// When the next lane that waits for time goes on.
    pub fn next_wake(&self) -> Option<u64> {
        let timers = [self.timers.peek(), self.leases.peek(), self.tells.peek()];
        let times = timers.into_iter().flatten().map(|Reverse((at, _))| *at);
        times.min()
    }

    fn wake(&mut self, lane: LaneId) {
        let Some(state) = self.lanes.get_mut(lane.0 as usize) else {
            return;
        };
        if !state.runnable && !state.queue.is_empty() {
            state.runnable = true;
            self.runnable.push_back(lane);
        }
    }

    /// Puts a lane that has nothing any more on the list of those that may be forgotten.
    fn note_idle(&mut self, lane: LaneId) {
        let Some(state) = self.lanes.get_mut(lane.0 as usize) else {
            return;
        };
        if !state.idle && state.is_idle() {
            state.idle = true;
            self.idle.push_back((self.now_ms, lane));
        }
    }

    fn note_idle_lanes(&mut self) {
        (0..self.lanes.len()).for_each(|number| self.note_idle(LaneId(number as u32)));
    }

    /// Forgets lanes that had nothing for long, at most `limit`; their numbers are free then.
    pub fn forget_idle(&mut self, now_ms: u64, limit: usize) -> Vec<LaneId> {
        let mut forgotten = Vec::new();
        for _ in 0..limit {
            let due = |(since_ms, _): &&(u64, LaneId)| since_ms + IDLE_MS <= now_ms;
            let Some(&(_, lane)) = self.idle.front().filter(due) else {
                break;
            };
            self.idle.pop_front();
            let Some(state) = self.lanes.get_mut(lane.0 as usize) else {
                continue;
            };
            state.idle = false;
            if !state.is_idle() {
                continue;
            }
            if !state.rates.are_unused(now_ms) {
                state.idle = true;
                self.idle.push_back((now_ms, lane));
                continue;
            }
            let hash = hash_lane(&self.hasher, state.source, state.site.as_deref());
            if let Ok(entry) = self.numbers.find_entry(hash, |&number| number == lane.0) {
                entry.remove();
            }
            state.site = None;
            state.rates = Rates::default();
            self.vacant.push(lane);
            forgotten.push(lane);
        }
        forgotten
    }

    /// The next decision; `None` when nothing can move now. Lanes take turns.
    pub fn next(&mut self, now_ms: u64) -> Option<Decision<T>> {
        self.now_ms = now_ms;
        if let Some((lane, slot, sender)) = self.closing.pop_front() {
            return Some(Decision::CloseSlot { lane, slot, sender });
        }
        while let Some(&Reverse((at, lane))) = self.timers.peek() {
            if at > now_ms {
                break;
            }
            self.timers.pop();
            self.wake(lane);
        }
        while let Some(&Reverse((at, lane))) = self.leases.peek() {
            if at > now_ms {
                break;
            }
            self.leases.pop();
            if let Some(decision) = self.speak(now_ms, lane) {
                return Some(decision);
            }
        }
        if let Some(decision) = self.tell(now_ms) {
            return Some(decision);
        }
        loop {
            let Some(lane) = self.runnable.pop_front() else {
                if self.senders.has_credit() && self.revive() {
                    continue;
                }
                return None;
            };
            if let Some(state) = self.lanes.get_mut(lane.0 as usize) {
                state.runnable = false;
            }
            if let Some(decision) = self.decide(now_ms, lane) {
                self.wake(lane);
                return Some(decision);
            }
            self.note_idle(lane);
            if let Some((lane, slot, sender)) = self.closing.pop_front() {
                return Some(Decision::CloseSlot { lane, slot, sender });
            }
        }
    }

    /// What a lane says about its rates, if it is time for one.
    fn tell(&mut self, now_ms: u64) -> Option<Decision<T>> {
        while let Some(&Reverse((at, lane))) = self.tells.peek() {
            if at > now_ms {
                return None;
            }
            self.tells.pop();
            let Some(state) = self.lanes.get_mut(lane.0 as usize) else {
                continue;
            };
            if at != state.tell_timer_ms {
                continue;
            }
            state.tell_timer_ms = 0;
            let said = state.rates.tell(now_ms);
            set_tell_timer(&mut self.tells, state, lane, now_ms);
            if let Some((window, word)) = said {
                return Some(Decision::AskGrant { lane, window, word });
            }
        }
        None
    }

    /// What a lane says about its connections, if it is time.
    fn speak(&mut self, now_ms: u64, lane: LaneId) -> Option<Decision<T>> {
        let state = self.lanes.get_mut(lane.0 as usize)?;
        if state.lease.speaks_at()? > now_ms {
            set_lease_timer(&mut self.leases, state, lane, now_ms);
            return None;
        }
        let said = state.speak(now_ms, self.away_ms);
        if said.is_none() {
            self.note_idle(lane);
        }
        let (limit, share, lease::Word { have, want }) = said?;
        Some(Decision::AskSlots {
            lane,
            limit,
            share,
            have,
            want,
        })
    }

    fn decide(&mut self, now_ms: u64, lane: LaneId) -> Option<Decision<T>> {
        let state = self.lanes.get_mut(lane.0 as usize)?;
        let (_, affinity) = self.fair.peek(state.queue)?;
        if let Some(until_ms) = self.outages.keeps(state.source, now_ms) {
            set_timer(&mut self.timers, state, lane, now_ms, until_ms);
            return None;
        }
        if now_ms < state.suspended_until_ms {
            let until_ms = state.suspended_until_ms;
            set_timer(&mut self.timers, state, lane, now_ms, until_ms);
            return None;
        }
        let Some(sender) = self.senders.choose(affinity, state.source) else {
            if !state.starved {
                state.starved = true;
                self.starved.push_back(lane);
            }
            return None;
        };
        if state.ramp.every_ms > 0 && state.slots.used() == 0 {
            state.ramp.since_ms = now_ms;
        }
        let allowed = state.allowed(now_ms);
        let able = |sender| self.senders.is_able(sender, state.source);
        let (slot, sender) = match state.slots.choose(allowed, sender, able) {
            Choice::Slot(slot, sender) => (slot, sender),
            Choice::Close(slot, holder) => {
                state.slots.close(slot);
                self.closing.push_back((lane, slot, holder));
                return None;
            }
            Choice::Full => {
                let ramped = state.ramped(now_ms);
                if ramped < state.connections {
                    let until_ms = state.ramp.next_ms(now_ms);
                    set_timer(&mut self.timers, state, lane, now_ms, until_ms);
                }
                if state.connection_share.is_none() || state.slots.used() >= ramped {
                    return None;
                }
                if state.lease.runs_short(now_ms) {
                    return self.speak(now_ms, lane);
                }
                set_lease_timer(&mut self.leases, state, lane, now_ms);
                return None;
            }
        };
        let opens = state.slots.opens(slot, state.messages_per_connection);
        let taken = match state.rates.take(now_ms, opens, state.queue.len() as u64) {
            TakeAll::Yes(taken) => taken,
            TakeAll::Asked => return None,
            TakeAll::Wait(until_ms) => {
                set_timer(&mut self.timers, state, lane, now_ms, until_ms);
                return None;
            }
            TakeAll::Ask { window, word } => {
                return Some(Decision::AskGrant { lane, window, word });
            }
        };
        let before = state.slots.used() as usize;
        state.slots.occupy(slot, sender, opens);
        self.slots_in_use = self.slots_in_use + state.slots.used() as usize - before;
        if opens && state.connection_share.is_some() && state.lease.opened(now_ms) {
            set_lease_timer(&mut self.leases, state, lane, now_ms);
        }
        self.senders.take(sender);
        self.outages.tried(state.source, now_ms);
        let (_, item, _) = self.fair.pop(&mut state.queue)?;
        self.waiting -= 1;
        Some(Decision::Assign {
            lane,
            slot,
            sender,
            item,
            taken,
        })
    }
}

fn hash_lane(hasher: &DefaultHashBuilder, source: SourceId, site: Option<&str>) -> u64 {
    hasher.hash_one((source, site))
}

/// One timer of a lane is enough, however often it is looked at meanwhile.
fn set_timer(
    timers: &mut BinaryHeap<Reverse<(u64, LaneId)>>,
    state: &mut Lane,
    lane: LaneId,
    now_ms: u64,
    until_ms: u64,
) {
    if state.timer_ms <= now_ms || until_ms < state.timer_ms {
        state.timer_ms = until_ms;
        timers.push(Reverse((until_ms, lane)));
    }
}

/// As [`set_timer`], for when the lane speaks about its connections.
fn set_lease_timer(
    timers: &mut BinaryHeap<Reverse<(u64, LaneId)>>,
    state: &mut Lane,
    lane: LaneId,
    now_ms: u64,
) {
    let Some(at_ms) = state.lease.speaks_at() else {
        return;
    };
    if state.lease.timer_ms <= now_ms || at_ms < state.lease.timer_ms {
        state.lease.timer_ms = at_ms;
        timers.push(Reverse((at_ms, lane)));
    }
}

/// As [`set_timer`], for when the lane says what it has used of its rates.
fn set_tell_timer(
    timers: &mut BinaryHeap<Reverse<(u64, LaneId)>>,
    state: &mut Lane,
    lane: LaneId,
    now_ms: u64,
) {
    let Some(at_ms) = state.rates.tells_at(now_ms) else {
        return;
    };
    let at_ms = at_ms.max(1);
    if state.tell_timer_ms == 0 || at_ms < state.tell_timer_ms {
        state.tell_timer_ms = at_ms;
        timers.push(Reverse((at_ms, lane)));
    }
}

#[cfg(test)]
mod tests;
