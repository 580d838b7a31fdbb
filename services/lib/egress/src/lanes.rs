//! Lanes: egress source × site.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use hashbrown::{Equivalent, HashMap, HashSet};

use crate::rate::{GrantNews, Rates, TakeAll, Window};

/// The names of a lane, for looking it up.
#[derive(Hash)]
struct Names<'a>(&'a str, &'a str);

impl Equivalent<(Arc<str>, Arc<str>)> for Names<'_> {
    fn equivalent(&self, (source, site): &(Arc<str>, Arc<str>)) -> bool {
        *self.0 == **source && *self.1 == **site
    }
}

/// Number of a lane, for the life of the process.
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
    /// Connections at a time over all senders, at least 1.
    pub connections: u32,
    /// After so many messages a sender opens a new connection; 0 = it does not.
    pub messages_per_connection: u32,
    /// Messages and connections per time; all hold. No two with the same unit and length.
    pub windows: Vec<Window>,
    /// A lane without a connection begins with one, and may have one more each time that so many milliseconds have
    /// passed; 0 = all at once.
    pub ramp_ms: u64,
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
    /// Ask for a grant of one of the lane's windows.
    AskGrant {
        /// The lane.
        lane: LaneId,
        /// Which window.
        window: Window,
        /// How many are wanted.
        want: u64,
        /// How many of the last grant were used.
        used: u64,
        /// How many were used outside any grant since the last question.
        outside: u64,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    Free,
    /// Open (perhaps) and idle at a sender.
    Idle(SenderId),
    Busy(SenderId),
    /// The sender was asked to close it.
    Closing(SenderId),
}

#[derive(Debug)]
struct Lane<T> {
    source: Arc<str>,
    site: Arc<str>,
    connections: u32,
    messages_per_connection: u32,
    rates: Rates,
    ramp: Ramp,
    queue: VecDeque<(T, u64)>,
    slots: Vec<Slot>,
    /// Messages over the present connection of each slot.
    uses: Vec<u32>,
    /// In the list of runnable lanes.
    runnable: bool,
    /// In the list of starved lanes.
    starved: bool,
    /// The last timer that was set for it, Unix milliseconds.
    timer_ms: u64,
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

#[derive(Debug)]
struct Sender {
    credit: u32,
    /// `None` = every source.
    sources: Option<HashSet<Arc<str>>>,
    draining: bool,
}

/// Ready deliveries, in lanes. A decision costs O(number of slots of the lane) at worst and O(1) in the usual case
/// of one sender; it does not grow with what waits.
#[derive(Debug)]
pub struct Lanes<T> {
    lanes: Vec<Lane<T>>,
    numbers: HashMap<(Arc<str>, Arc<str>), LaneId>,
    senders: HashMap<SenderId, Sender>,
    order: Vec<SenderId>,
    runnable: VecDeque<LaneId>,
    /// Lanes that found no sender able to take more, the longest waiting first.
    starved: VecDeque<LaneId>,
    /// How many of them have not been looked at since credit came back.
    hopeful: usize,
    timers: BinaryHeap<Reverse<(u64, LaneId)>>,
    closing: VecDeque<(LaneId, SlotId, SenderId)>,
    waiting: usize,
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self {
            lanes: Vec::new(),
            numbers: HashMap::new(),
            senders: HashMap::new(),
            order: Vec::new(),
            runnable: VecDeque::new(),
            starved: VecDeque::new(),
            hopeful: 0,
            timers: BinaryHeap::new(),
            closing: VecDeque::new(),
            waiting: 0,
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
        let lane = LaneId(self.lanes.len() as u32);
        let limits = limits();
        self.lanes.push(Lane {
            source: source.clone(),
            site: site.clone(),
            connections: limits.connections,
            messages_per_connection: limits.messages_per_connection,
            rates: Rates::new(limits.windows),
            ramp: Ramp {
                every_ms: limits.ramp_ms,
                since_ms: 0,
            },
            queue: VecDeque::new(),
            slots: Vec::new(),
            uses: Vec::new(),
            runnable: false,
            starved: false,
            timer_ms: 0,
        });
        self.numbers.insert((source.clone(), site.clone()), lane);
        lane
    }

    /// The lane of a source and a site, if there is one.
    pub fn find(&self, source: &str, site: &str) -> Option<LaneId> {
        self.numbers.get(&Names(source, site)).copied()
    }

    /// Source and site of a lane.
    pub fn names(&self, lane: LaneId) -> Option<(&Arc<str>, &Arc<str>)> {
        self.lanes
            .get(lane.0 as usize)
            .map(|lane| (&lane.source, &lane.site))
    }

    /// New limits for every lane. A window that stays the same keeps its count.
    pub fn set_limits(&mut self, limits: impl Fn(&str, &str) -> LaneLimits) {
        for number in 0..self.lanes.len() {
            let lane = &mut self.lanes[number];
            let limits = limits(&lane.source, &lane.site);
            lane.connections = limits.connections;
            lane.messages_per_connection = limits.messages_per_connection;
            lane.rates.set(&limits.windows);
            lane.ramp.every_ms = limits.ramp_ms;
            self.wake(LaneId(number as u32));
        }
    }

    /// Deliveries that wait in lanes.
    pub fn waiting(&self) -> usize {
        self.waiting
    }

    /// Connection slots in use or idle at senders.
    pub fn slots_in_use(&self) -> usize {
        self.lanes
            .iter()
            .flat_map(|lane| &lane.slots)
            .filter(|slot| **slot != Slot::Free)
            .count()
    }

    /// Adds a ready delivery. Deliveries of equal affinity prefer the same sender.
    pub fn push(&mut self, lane: LaneId, item: T, affinity: u64) {
        if let Some(state) = self.lanes.get_mut(lane.0 as usize) {
            state.queue.push_back((item, affinity));
            self.waiting += 1;
            self.wake(lane);
        }
    }

    /// Takes all that waits out of the lanes, in order.
    pub fn take_all(&mut self) -> Vec<T> {
        self.waiting = 0;
        self.lanes
            .iter_mut()
            .flat_map(|lane| lane.queue.drain(..))
            .map(|(item, _)| item)
            .collect()
    }

    /// Takes out of the lanes what is not to stay.
    pub fn retain(&mut self, keep: impl Fn(&T) -> bool) {
        for lane in &mut self.lanes {
            lane.queue.retain(|(item, _)| keep(item));
        }
        self.waiting = self.lanes.iter().map(|lane| lane.queue.len()).sum();
    }

    /// A sender is attached. `sources` empty = it can use every source.
    pub fn sender_up(
        &mut self,
        sender: SenderId,
        credit: u32,
        sources: impl IntoIterator<Item = Arc<str>>,
    ) {
        let sources: HashSet<Arc<str>> = sources.into_iter().collect();
        let state = Sender {
            credit,
            sources: (!sources.is_empty()).then_some(sources),
            draining: false,
        };
        if self.senders.insert(sender, state).is_none() {
            self.order.push(sender);
        }
        (0..self.lanes.len()).for_each(|number| self.wake(LaneId(number as u32)));
    }

    /// A sender takes no more deliveries.
    pub fn sender_drains(&mut self, sender: SenderId) {
        if let Some(state) = self.senders.get_mut(&sender) {
            state.draining = true;
        }
    }

    /// A sender is gone with all its connections.
    pub fn sender_gone(&mut self, sender: SenderId) {
        self.senders.remove(&sender);
        self.order.retain(|other| *other != sender);
        for number in 0..self.lanes.len() {
            for slot in &mut self.lanes[number].slots {
                if matches!(slot, Slot::Idle(holder) | Slot::Busy(holder) | Slot::Closing(holder) if *holder == sender)
                {
                    *slot = Slot::Free;
                }
            }
            self.wake(LaneId(number as u32));
        }
    }

    /// An assignment is over (reported, returned or refused): the slot is idle again and the credit comes back.
    pub fn released(&mut self, lane: LaneId, slot: SlotId, sender: SenderId) {
        self.set_slot(lane, slot, |state| match state {
            Slot::Busy(holder) if holder == sender => Slot::Idle(sender),
            other => other,
        });
        if let Some(state) = self.senders.get_mut(&sender) {
            state.credit = state.credit.saturating_add(1);
        }
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

    fn has_credit(&self) -> bool {
        self.senders
            .values()
            .any(|sender| sender.credit > 0 && !sender.draining)
    }

    /// A sender has closed the connection of a slot.
    pub fn slot_closed(&mut self, lane: LaneId, slot: SlotId, sender: SenderId) {
        self.set_slot(lane, slot, |state| match state {
            Slot::Idle(holder) | Slot::Closing(holder) if holder == sender => Slot::Free,
            other => other,
        });
        self.wake(lane);
    }

    fn set_slot(&mut self, lane: LaneId, slot: SlotId, change: impl FnOnce(Slot) -> Slot) {
        let slots = self
            .lanes
            .get_mut(lane.0 as usize)
            .map(|lane| &mut lane.slots);
        if let Some(state) = slots.and_then(|slots| slots.get_mut(slot.0 as usize)) {
            *state = change(*state);
        }
    }

    /// An answer to a question for a grant.
    pub fn grant(&mut self, now_ms: u64, lane: LaneId, window: Window, news: GrantNews) {
        if let Some(state) = self.lanes.get_mut(lane.0 as usize) {
            state.rates.news(now_ms, window, news);
        }
        self.wake(lane);
    }

    /// An assignment was not made after all (the delivery was not there any more).
    pub fn unassign(&mut self, lane: LaneId, slot: SlotId, sender: SenderId) {
        if let Some(state) = self.lanes.get_mut(lane.0 as usize) {
            state.rates.refund();
        }
        self.released(lane, slot, sender);
    }

    /// When the next lane that waits for time goes on.
    pub fn next_wake(&self) -> Option<u64> {
        self.timers.peek().map(|Reverse((at, _))| *at)
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

    /// The next decision; `None` when nothing can move now. Lanes take turns.
    pub fn next(&mut self, now_ms: u64) -> Option<Decision<T>> {
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
        loop {
            let Some(lane) = self.runnable.pop_front() else {
                if self.has_credit() && self.revive() {
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
            if let Some((lane, slot, sender)) = self.closing.pop_front() {
                return Some(Decision::CloseSlot { lane, slot, sender });
            }
        }
    }

    fn decide(&mut self, now_ms: u64, lane: LaneId) -> Option<Decision<T>> {
        let state = self.lanes.get_mut(lane.0 as usize)?;
        let affinity = state.queue.front()?.1;
        let able = |id: SenderId| {
            let sender = self.senders.get(&id)?;
            let has_source = sender
                .sources
                .as_ref()
                .is_none_or(|sources| sources.contains(&state.source));
            (sender.credit > 0 && !sender.draining && has_source).then_some(id)
        };
        let preferred = match self.order.len() {
            0 => None,
            count => self
                .order
                .get((affinity % count as u64) as usize)
                .copied()
                .and_then(able),
        };
        let sender = preferred.or_else(|| self.order.iter().copied().find_map(able));
        let Some(sender) = sender else {
            if !state.starved {
                state.starved = true;
                self.starved.push_back(lane);
            }
            return None;
        };
        if state.ramp.every_ms > 0 && state.slots.iter().all(|slot| *slot == Slot::Free) {
            state.ramp.since_ms = now_ms;
        }
        let allowed = state.connections.min(state.ramp.allows(now_ms));
        let (slot, sender) = match choose_slot(&state.slots, allowed, sender, able) {
            Choice::Slot(slot, sender) => (slot, sender),
            Choice::Close(slot, holder) => {
                state.slots[slot] = Slot::Closing(holder);
                self.closing.push_back((lane, SlotId(slot as u32), holder));
                return None;
            }
            Choice::Full => {
                if allowed < state.connections {
                    let until_ms = state.ramp.next_ms(now_ms);
                    set_timer(&mut self.timers, state, lane, now_ms, until_ms);
                }
                return None;
            }
        };
        let worn_out = |uses: &u32| {
            state.messages_per_connection > 0 && *uses >= state.messages_per_connection
        };
        let opens = state
            .slots
            .get(slot)
            .is_none_or(|state| *state == Slot::Free)
            || state.uses.get(slot).is_some_and(worn_out);
        let waiting = state.queue.len() as u64;
        match state.rates.take(now_ms, opens, waiting) {
            TakeAll::Yes => {}
            TakeAll::Asked => return None,
            TakeAll::Wait(until_ms) => {
                set_timer(&mut self.timers, state, lane, now_ms, until_ms);
                return None;
            }
            TakeAll::Ask {
                window,
                want,
                used,
                outside,
            } => {
                return Some(Decision::AskGrant {
                    lane,
                    window,
                    want,
                    used,
                    outside,
                });
            }
        }
        if slot == state.slots.len() {
            state.slots.push(Slot::Free);
            state.uses.push(0);
        }
        state.slots[slot] = Slot::Busy(sender);
        state.uses[slot] = if opens { 1 } else { state.uses[slot] + 1 };
        if let Some(sender) = self.senders.get_mut(&sender) {
            sender.credit -= 1;
        }
        let (item, _) = state.queue.pop_front()?;
        self.waiting -= 1;
        Some(Decision::Assign {
            lane,
            slot: SlotId(slot as u32),
            sender,
            item,
        })
    }
}

/// One timer of a lane is enough, however often it is looked at meanwhile.
fn set_timer<T>(
    timers: &mut BinaryHeap<Reverse<(u64, LaneId)>>,
    state: &mut Lane<T>,
    lane: LaneId,
    now_ms: u64,
    until_ms: u64,
) {
    if state.timer_ms <= now_ms || until_ms < state.timer_ms {
        state.timer_ms = until_ms;
        timers.push(Reverse((until_ms, lane)));
    }
}

enum Choice {
    Slot(usize, SenderId),
    Close(usize, SenderId),
    Full,
}

/// When more connections are open than allowed (any more), an idle one is to be closed. Else: an idle connection of
/// the sender, else a free slot for it, else the idle connection of another able sender,
/// else that of any sender, which must close it first.
fn choose_slot(
    slots: &[Slot],
    limit: u32,
    sender: SenderId,
    able: impl Fn(SenderId) -> Option<SenderId>,
) -> Choice {
    let limit = limit.max(1) as usize;
    let idle = || {
        slots
            .iter()
            .enumerate()
            .filter_map(|(at, slot)| match slot {
                Slot::Idle(holder) => Some((at, *holder)),
                _ => None,
            })
    };
    let is_open = |slot: &&Slot| matches!(slot, Slot::Idle(_) | Slot::Busy(_));
    if slots.iter().filter(is_open).count() > limit {
        return match idle().next() {
            Some((at, holder)) => Choice::Close(at, holder),
            None => Choice::Full,
        };
    }
    if let Some(own) = slots.iter().position(|slot| *slot == Slot::Idle(sender)) {
        return Choice::Slot(own, sender);
    }
    let used = slots.iter().filter(|slot| **slot != Slot::Free).count();
    if used < limit {
        let free = slots
            .iter()
            .position(|slot| *slot == Slot::Free)
            .unwrap_or(slots.len());
        return Choice::Slot(free, sender);
    }
    if let Some((at, holder)) = idle().find(|(_, holder)| able(*holder).is_some()) {
        return Choice::Slot(at, holder);
    }
    match idle().next() {
        Some((at, holder)) => Choice::Close(at, holder),
        None => Choice::Full,
    }
}

#[cfg(test)]
mod tests;
