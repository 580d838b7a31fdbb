//! Limits that all lanes of a source to the sites of a provider share.
//!
//! A delivery needs what its lane allows and what the shared limit allows. Lanes that find the shared limit used up wait
//! in two lists, in the order in which they came: those that need a connection first, and those that have one and need
//! the rate. When something comes back the first of a list is *called*; whoever comes meanwhile goes to the end. A lane
//! that had its turn and has more to send goes to the end, too. So nothing that is free stays free while somebody could
//! use it, and each call looks at one lane, however many wait.
//!
//! Connections go round as well: when somebody waits for one, a lane that does not use its own now gives it up, and so does
//! a lane whose connection is worn out or was opened [`TURN_MS`] ago.

use std::collections::VecDeque;
use std::sync::Arc;

use super::lane::Lane;
use super::lease::Lease;
use super::senders::SourceId;
use super::slots::Spare;
use super::{Decision, LaneId, Lanes, Whose};
use crate::rate::{Rates, Window};

/// How long a lane keeps a connection while others wait for one, milliseconds. To open one costs some hundred.
const TURN_MS: u64 = 5_000;

/// Places of lanes that have left are looked for when they are more than half of all, and more than this.
const MOST_LEFT: usize = 32;

/// Number of a shared limit, for the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SharedId(pub u32);

/// What limits several lanes together, each of them beside its own limits.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SharedLimits {
    /// Connections at a time; `None` = no limit.
    pub connections: Option<u32>,
    /// As in [`super::LaneLimits`].
    pub connection_share: Option<u32>,
    /// As in [`super::LaneLimits`].
    pub windows: Vec<Window>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Shared {
    source: SourceId,
    name: Arc<str>,
    pub(super) connections: u32,
    pub(super) connection_share: Option<u32>,
    pub(super) lease: Lease,
    pub(super) rates: Rates,
    /// Connections of its lanes, and those among them that are not about to be closed.
    used: u32,
    open: u32,
    /// Lanes that wait to open a connection: for one of the limit, and for the rates.
    to_open: VecDeque<LaneId>,
    /// Lanes that have a connection and wait for the rate of messages.
    to_send: VecDeque<LaneId>,
    /// Lanes that were called and are not looked at yet.
    called: u32,
    /// Lanes that had an idle connection when they were looked at last.
    spare: VecDeque<LaneId>,
    /// So many places in these lists, or more than there are by now, are of lanes that share the limit no more.
    left: usize,
    /// The last timer that was set for it, and for its words about rates, Unix milliseconds.
    pub(super) timer_ms: u64,
    pub(super) tell_timer_ms: u64,
}

/// A lane's part in a shared limit.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) of: SharedId,
    /// It was the first of a list, and what it waited for is there; it keeps its place until it has had it.
    pub(super) called: bool,
    /// So it was, and it is not looked at yet.
    is_next: bool,
    /// It gave a connection up for those that wait to open one, so it goes behind them.
    is_last: bool,
    /// In the lists of the same names.
    to_open: bool,
    to_send: bool,
    spare: bool,
}

impl Member {
    pub(super) fn new(of: SharedId) -> Self {
        Self {
            of,
            called: false,
            is_next: false,
            is_last: false,
            to_open: false,
            to_send: false,
            spare: false,
        }
    }

    pub(super) fn waits_to_open(&self) -> bool {
        self.to_open
    }
}

impl Shared {
    fn new(source: SourceId, name: Arc<str>) -> Self {
        Self {
            source,
            name,
            connections: u32::MAX,
            connection_share: None,
            lease: Lease::default(),
            rates: Rates::default(),
            used: 0,
            open: 0,
            to_open: VecDeque::new(),
            to_send: VecDeque::new(),
            called: 0,
            spare: VecDeque::new(),
            left: 0,
            timer_ms: 0,
            tell_timer_ms: 0,
        }
    }

    /// Connections that its lanes may have now.
    fn allowed(&self, now_ms: u64) -> u32 {
        let (limit, share) = (self.connections, self.connection_share);
        self.lease.allowed(now_ms, limit, share)
    }

    /// Connections that may be opened now.
    fn free(&self, now_ms: u64) -> u32 {
        self.allowed(now_ms).saturating_sub(self.used)
    }

    /// Connections that could be opened, as far as is known: before more are asked for, others may leave them.
    pub(super) fn hoped(&self, now_ms: u64) -> u32 {
        match self.lease.is_short() {
            true => self.free(now_ms),
            false => self.connections.saturating_sub(self.used),
        }
    }

    /// Connections that a lane may open now: who was not called goes behind those that wait.
    pub(super) fn room(&self, now_ms: u64, member: &Member) -> u32 {
        match member.called || (self.to_open.is_empty() && self.called == 0) {
            true => self.free(now_ms),
            false => 0,
        }
    }

    /// Whether a lane goes before those that wait to send, and was not called.
    pub(super) fn would_barge(&self, member: &Member) -> bool {
        !member.called && (!self.to_send.is_empty() || self.called > 0)
    }

    /// Lanes that wait.
    pub(super) fn waiting(&self) -> usize {
        self.to_open.len() + self.to_send.len()
    }

    /// A lane waits, to open a connection or to send over its own. Who was called has the first place.
    pub(super) fn wait(&mut self, lane: LaneId, member: &mut Member, opens: bool) {
        let (list, is_in) = match opens {
            true => (&mut self.to_open, &mut member.to_open),
            false => (&mut self.to_send, &mut member.to_send),
        };
        let called = std::mem::take(&mut member.called);
        match std::mem::replace(is_in, true) {
            true => {}
            false if called => list.push_front(lane),
            false => list.push_back(lane),
        }
    }

    /// The slots of one of its lanes changed: used and open ones.
    pub(super) fn count(&mut self, before: (u32, u32), after: (u32, u32)) {
        self.used = (self.used + after.0).saturating_sub(before.0);
        self.open = (self.open + after.1).saturating_sub(before.1);
    }

    /// Whether another lane waits for a connection.
    fn is_wanted_by_others(&self, lane: LaneId) -> bool {
        self.to_open.len() > 1 || self.to_open.front().is_some_and(|first| *first != lane)
    }

    fn has_surplus(&self, now_ms: u64) -> bool {
        self.open > self.allowed(now_ms)
    }

    /// Whether an idle connection is to be closed for one who waits. Not while it may be granted one.
    fn lacks_room(&self, now_ms: u64) -> bool {
        let closing = self.used.saturating_sub(self.open) as usize;
        let may_get = self.connection_share.is_some()
            && self.used < self.connections
            && self.lease.may_get(now_ms);
        closing < self.to_open.len() && self.free(now_ms) == 0 && !may_get
    }
}

impl Lane {
    fn spare(&self, now_ms: u64) -> Option<Spare> {
        self.slots
            .spare(now_ms, self.messages_per_connection, TURN_MS)
    }

    /// Whether an idle connection is of more use to another lane.
    fn gives_up(&self, now_ms: u64, spare: &Spare) -> bool {
        let is_kept = || {
            self.queue.is_empty()
                || now_ms < self.suspended_until_ms
                || self.rates.must_wait(now_ms, false).is_some()
        };
        spare.is_old || (!self.runnable && is_kept())
    }
}

impl<T> Lanes<T> {
    /// The limit that lanes of a source share under this name, and whether it was made now, without limits.
    pub fn share(&mut self, source: &Arc<str>, name: &Arc<str>) -> (SharedId, bool) {
        let source = self.senders.source(source);
        let key = (source, name.clone());
        if let Some(&id) = self.shared_numbers.get(&key) {
            return (id, false);
        }
        let id = SharedId(self.shared.len() as u32);
        self.shared.push(Shared::new(source, name.clone()));
        self.shared_numbers.insert(key, id);
        (id, true)
    }

    /// All of them.
    pub fn all_shared(&self) -> impl Iterator<Item = SharedId> + use<T> {
        (0..self.shared.len() as u32).map(SharedId)
    }

    /// Source and name of a shared limit.
    pub fn shared_names(&self, id: SharedId) -> Option<(&Arc<str>, &Arc<str>)> {
        let shared = self.shared.get(id.0 as usize)?;
        Some((self.senders.name(shared.source)?, &shared.name))
    }

    /// New limits for those that share one. A window that stays the same keeps its count.
    pub fn set_limits_of_shared(&mut self, id: SharedId, limits: &SharedLimits) {
        let Some(shared) = self.shared.get_mut(id.0 as usize) else {
            return;
        };
        shared.connections = limits.connections.unwrap_or(u32::MAX);
        shared.rates.set(&limits.windows);
        let before = std::mem::replace(&mut shared.connection_share, limits.connection_share);
        let whose = Whose::Shared(id);
        if shared
            .lease
            .begins_or_ends(self.now_ms, (before, shared.connection_share), shared.used)
        {
            self.timers.set_lease(whose, &mut shared.lease, self.now_ms);
        }
        self.set_tell(whose);
        self.make_room(id);
        self.call(id);
    }

    /// A connection of one of its lanes is closed.
    pub(super) fn shared_closed(&mut self, id: SharedId) {
        let now_ms = self.now_ms;
        let Some(shared) = self.shared.get_mut(id.0 as usize) else {
            return;
        };
        let is_needed = !shared.to_open.is_empty();
        if shared.connection_share.is_some()
            && shared.lease.gave_back(now_ms, shared.used, is_needed)
        {
            let whose = Whose::Shared(id);
            self.timers.set_lease(whose, &mut shared.lease, now_ms);
        }
        self.call(id);
    }

    /// A lane shares a limit from now on, another one, or none.
    pub(super) fn join(&mut self, lane: LaneId, to: Option<SharedId>) {
        let Some(state) = self.lanes.get_mut(lane.0 as usize) else {
            return;
        };
        let before = state.member.as_ref().map(|member| member.of);
        if before == to {
            return;
        }
        self.looks_at(lane);
        let Some(state) = self.lanes.get_mut(lane.0 as usize) else {
            return;
        };
        let slots = (state.slots.used(), state.slots.open());
        let joins = to.map(Member::new);
        let leaves = std::mem::replace(&mut state.member, joins);
        self.left(leaves);
        if let Some(left) = before.and_then(|id| self.shared.get_mut(id.0 as usize)) {
            left.count(slots, (0, 0));
        }
        if let Some(joined) = to.and_then(|id| self.shared.get_mut(id.0 as usize)) {
            joined.count((0, 0), slots);
        }
        self.offer_spare(lane);
        for id in before.into_iter().chain(to) {
            self.make_room(id);
            self.call(id);
        }
    }

    /// A lane shares a limit no more. Its places in the lists come up some time; when they are many they are taken out.
    pub(super) fn left(&mut self, member: Option<Member>) {
        let Some(member) = member else {
            return;
        };
        let Some(shared) = self.shared.get_mut(member.of.0 as usize) else {
            return;
        };
        let places = [member.to_open, member.to_send, member.spare];
        shared.left += places.into_iter().filter(|is_in| *is_in).count();
        let all = shared.to_open.len() + shared.to_send.len() + shared.spare.len();
        if shared.left <= all / 2 + MOST_LEFT {
            return;
        }
        shared.left = 0;
        type IsIn = fn(&mut Member) -> &mut bool;
        let lists: [(_, IsIn); 3] = [
            (&mut shared.to_open, |member| &mut member.to_open),
            (&mut shared.to_send, |member| &mut member.to_send),
            (&mut shared.spare, |member| &mut member.spare),
        ];
        for (list, is_in) in lists {
            let lanes = &mut self.lanes;
            list.retain(|lane| {
                let flag = member_of(lanes, *lane, member.of).map(is_in);
                flag.is_some_and(std::mem::take)
            });
            for lane in list {
                if let Some(flag) = member_of(lanes, *lane, member.of).map(is_in) {
                    *flag = true;
                }
            }
        }
    }

    /// A lane was looked at, or has something less to do: others may need what it leaves.
    pub(super) fn pass_on(&mut self, lane: LaneId) {
        let state = self.lanes.get(lane.0 as usize);
        let Some(id) = state.and_then(|state| Some(state.member.as_ref()?.of)) else {
            return;
        };
        self.offer_spare(lane);
        self.make_room(id);
        self.call(id);
    }

    /// As [`Lanes::pass_on`], for all lanes.
    pub(super) fn pass_on_all(&mut self) {
        if self.shared.is_empty() {
            return;
        }
        (0..self.lanes.len()).for_each(|number| self.offer_spare(LaneId(number as u32)));
        for id in self.all_shared() {
            self.make_room(id);
            self.call(id);
        }
    }

    /// Gives the turn to the first of those that wait, when what they wait for is there; else sees to it that they are
    /// looked at when it is.
    pub(super) fn call(&mut self, id: SharedId) {
        let now_ms = self.now_ms;
        for opens in [true, false] {
            let Some(shared) = self.shared.get_mut(id.0 as usize) else {
                return;
            };
            let list = match opens {
                true => &shared.to_open,
                false => &shared.to_send,
            };
            if list.is_empty() {
                continue;
            }
            if let Some(until_ms) = shared.rates.must_wait(now_ms, opens) {
                let last_ms = &mut shared.timer_ms;
                self.timers
                    .set_turn(Whose::Shared(id), last_ms, now_ms, until_ms);
            } else if opens && shared.free(now_ms) == 0 {
                if shared.connection_share.is_some() && shared.used < shared.connections {
                    shared.lease.runs_short(now_ms);
                    self.timers
                        .set_lease(Whose::Shared(id), &mut shared.lease, now_ms);
                }
            } else if shared.rates.are_open(now_ms, opens) {
                self.call_first(id, opens);
            }
        }
    }

    /// A lane is looked at now.
    pub(super) fn looks_at(&mut self, lane: LaneId) {
        if let Some(state) = self.lanes.get_mut(lane.0 as usize)
            && let Some(member) = state.member.as_mut()
            && std::mem::take(&mut member.is_next)
            && let Some(shared) = self.shared.get_mut(member.of.0 as usize)
        {
            shared.called -= 1;
        }
    }

    fn call_first(&mut self, id: SharedId, opens: bool) {
        while let Some(shared) = self.shared.get_mut(id.0 as usize) {
            let list = match opens {
                true => &mut shared.to_open,
                false => &mut shared.to_send,
            };
            let Some(lane) = list.pop_front() else {
                return;
            };
            let state = self.lanes.get_mut(lane.0 as usize);
            let Some((member, is_empty)) = state.and_then(|state| {
                let is_empty = state.queue.is_empty();
                Some((state.member.as_mut()?, is_empty))
            }) else {
                continue;
            };
            if opens && member.of == id && std::mem::take(&mut member.is_last) && !list.is_empty() {
                list.push_back(lane);
                continue;
            }
            let is_in = match opens {
                true => &mut member.to_open,
                false => &mut member.to_send,
            };
            // Some have gone elsewhere, or have nothing left to send.
            if member.of == id && std::mem::take(is_in) && !is_empty {
                member.called = true;
                shared.called += u32::from(!std::mem::replace(&mut member.is_next, true));
                self.wake(lane);
                return;
            }
        }
    }

    /// Takes note of a lane that has an idle connection.
    fn offer_spare(&mut self, lane: LaneId) {
        if let Some(state) = self.lanes.get_mut(lane.0 as usize)
            && let Some(member) = state.member.as_mut()
            && !member.spare
            && state.slots.has_idle()
            && let Some(shared) = self.shared.get_mut(member.of.0 as usize)
        {
            member.spare = true;
            shared.spare.push_back(lane);
        }
    }

    /// Has idle connections closed that are too many, or that others wait for. Each lane that is looked at for it is
    /// one that gives a connection up, or is not looked at again before something happens to it.
    pub(super) fn make_room(&mut self, id: SharedId) {
        let now_ms = self.now_ms;
        // The only one who waits has a connection itself.
        let mut waits_itself = None;
        while let Some(shared) = self.shared.get_mut(id.0 as usize) {
            let has_surplus = shared.has_surplus(now_ms);
            if !has_surplus && !shared.lacks_room(now_ms) {
                break;
            }
            let Some(lane) = shared.spare.pop_front() else {
                break;
            };
            let others = shared.is_wanted_by_others(lane);
            let Some(state) = self.lanes.get_mut(lane.0 as usize) else {
                continue;
            };
            let spare = state.spare(now_ms);
            let gives_up = spare.is_some_and(|spare| others && state.gives_up(now_ms, &spare));
            let is_offered = |member: &&mut Member| member.of == id && member.spare;
            let Some(member) = state.member.as_mut().filter(is_offered) else {
                continue;
            };
            member.spare = false;
            let Some(spare) = spare else {
                continue;
            };
            if has_surplus || spare.is_worn_out || gives_up {
                member.is_last = others && member.to_open;
                self.close(lane, spare.slot, spare.holder);
                self.offer_spare(lane);
            } else if !others {
                waits_itself = Some(lane);
            }
        }
        if let Some(lane) = waits_itself {
            self.offer_spare(lane);
        }
    }

    /// A lane waits for a connection of its shared limit.
    pub(super) fn wait_to_open(&mut self, lane: LaneId) {
        if let Some(state) = self.lanes.get_mut(lane.0 as usize)
            && let Some(member) = state.member.as_mut()
            && let Some(shared) = self.shared.get_mut(member.of.0 as usize)
        {
            shared.wait(lane, member, true);
        }
    }

    /// What is said about the connections of a shared limit now.
    pub(super) fn speak_of_shared(&mut self, now_ms: u64, id: SharedId) -> Option<Decision<T>> {
        let shared = self.shared.get_mut(id.0 as usize)?;
        let share = shared.connection_share?;
        let first = shared.to_open.front();
        let first = first.and_then(|lane| self.lanes.get(lane.0 as usize));
        let wanted = shared.to_open.len() + first.map_or(0, |lane| lane.queue.len());
        let most = u32::try_from(wanted).unwrap_or(u32::MAX);
        let most = most.min(shared.connections.saturating_sub(shared.used));
        let word = shared.lease.speak(now_ms, shared.used, most)?;
        Some(Decision::AskSlots {
            whose: Whose::Shared(id),
            limit: shared.connections,
            share,
            have: word.have,
            want: word.want,
        })
    }
}

/// The part of a lane in this limit.
fn member_of(lanes: &mut [Lane], lane: LaneId, of: SharedId) -> Option<&mut Member> {
    let member = lanes.get_mut(lane.0 as usize)?.member.as_mut();
    member.filter(|member| member.of == of)
}

#[cfg(test)]
mod tests;
