//! Lanes: egress source × site.

mod blocked;
mod connections;
mod deciding;
mod idle;
mod lane;
mod lease;
mod outage;
mod senders;
mod shared;
mod slots;
mod timers;
mod uses;

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

use crate::fair::{Fair, Flow, Queue};
use crate::rate::{Rates, Taken, Window, Word};

pub use blocked::Blocked;
use lane::{Lane, Ramp};
use lease::Lease;
pub use lease::SlotNews;
use outage::Outages;
use senders::{Senders, SourceId};
use shared::{Member, Shared};
pub use shared::{SharedId, SharedLimits};
use slots::Slots;
use timers::Timers;

/// Number of a lane. When a lane was forgotten ([`Lanes::forget_idle`]) another one may get its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LaneId(pub u32);

/// An attached sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SenderId(pub u64);

/// A connection slot of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u32);

/// Whose limit it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Whose {
    /// A lane's own.
    Lane(LaneId),
    /// One that lanes share.
    Shared(SharedId),
}

/// On what an assignment draws: as what the windows of its lane counted it, and those that the lane shares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drawn {
    own: Taken,
    shared: Option<(SharedId, Taken)>,
}

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
    /// What limits it together with others ([`Lanes::share`]).
    pub shared: Option<SharedId>,
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
        /// What becomes of it is to be told ([`Lanes::settle`]).
        drawn: Drawn,
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
    /// Say what is used of a window, and ask for a grant.
    AskGrant {
        /// Whose window.
        whose: Whose,
        /// Which window.
        window: Window,
        /// What to say.
        word: Word,
    },
    /// Say how many connections there are, which leases them anew, and ask for more.
    AskSlots {
        /// Whose.
        whose: Whose,
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

/// Ready deliveries, in lanes. A decision costs O(1): it grows neither with what waits nor with the number of lanes or
/// tenants. Only when senders have no credit others are looked at, one after another. A lane that asks for a connection or a
/// grant has a credit kept for it until the answer, so no more is asked for than can be used: ten thousand lanes that wait
/// for credit ask for nothing. Lanes that are not used are forgotten.
#[derive(Debug)]
pub struct Lanes<T> {
    lanes: Vec<Lane>,
    vacant: Vec<LaneId>,
    /// They are as few as sources and providers.
    shared: Vec<Shared>,
    shared_numbers: HashMap<(SourceId, Arc<str>), SharedId>,
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
    timers: Timers,
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
            shared: Vec::new(),
            shared_numbers: HashMap::new(),
            fair: Fair::default(),
            numbers: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            senders: Senders::default(),
            outages: Outages::default(),
            runnable: VecDeque::new(),
            starved: VecDeque::new(),
            hopeful: 0,
            timers: Timers::default(),
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
            member: limits.shared.map(Member::new),
            ramp: Ramp {
                every_ms: limits.ramp_ms,
                since_ms: 0,
            },
            suspended_until_ms: limits.suspended_until_ms,
            timer_ms: 0,
            tell_timer_ms: 0,
            expects: false,
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
        let before = std::mem::replace(&mut state.connection_share, limits.connection_share);
        let shares = (before, limits.connection_share);
        let used = state.slots.used();
        if state.lease.begins_or_ends(self.now_ms, shares, used) {
            let whose = Whose::Lane(lane);
            self.timers.set_lease(whose, &mut state.lease, self.now_ms);
        }
        state.messages_per_connection = limits.messages_per_connection;
        state.rates.set(&limits.windows);
        state.ramp.every_ms = limits.ramp_ms;
        state.suspended_until_ms = limits.suspended_until_ms;
        self.join(lane, limits.shared);
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

    /// When the next that waits for time goes on.
    pub fn next_wake(&self) -> Option<u64> {
        self.timers.next()
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
}

fn hash_lane(hasher: &DefaultHashBuilder, source: SourceId, site: Option<&str>) -> u64 {
    hasher.hash_one((source, site))
}

#[cfg(test)]
mod tests;
