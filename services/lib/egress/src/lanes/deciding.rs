//! Which lane does what next.

use super::lease;
use super::slots::Choice;
use super::{Decision, Drawn, LaneId, Lanes, Whose};
use crate::rate::TakeAll;

impl<T> Lanes<T> {
    /// The next decision; `None` when nothing can move now. Lanes take turns.
    pub fn next(&mut self, now_ms: u64) -> Option<Decision<T>> {
        self.now_ms = now_ms;
        if let Some((lane, slot, sender)) = self.closing.pop_front() {
            return Some(Decision::CloseSlot { lane, slot, sender });
        }
        while let Some(whose) = self.timers.due_turn(now_ms) {
            match whose {
                Whose::Lane(lane) => self.wake(lane),
                Whose::Shared(id) => self.call(id),
            }
        }
        if let Some(decision) = self.speak_due(now_ms) {
            return Some(decision);
        }
        if let Some(decision) = self.tell(now_ms) {
            return Some(decision);
        }
        loop {
            let Some(lane) = self.runnable.pop_front() else {
                if self.senders.has_credit() && self.revive() {
                    continue;
                }
                // Some may have found that more is to be asked for.
                return self.speak_due(now_ms);
            };
            if let Some(state) = self.lanes.get_mut(lane.0 as usize) {
                state.runnable = false;
            }
            self.looks_at(lane);
            let decision = self.decide(now_ms, lane);
            self.pass_on(lane);
            if let Some(decision) = decision {
                self.wake(lane);
                return Some(decision);
            }
            self.note_idle(lane);
            if let Some((lane, slot, sender)) = self.closing.pop_front() {
                return Some(Decision::CloseSlot { lane, slot, sender });
            }
        }
    }

    /// What is said about rates, if it is time for something.
    fn tell(&mut self, now_ms: u64) -> Option<Decision<T>> {
        while let Some((at_ms, whose)) = self.timers.due_tell(now_ms) {
            let told = match whose {
                Whose::Lane(lane) => self
                    .lanes
                    .get_mut(lane.0 as usize)
                    .map(|state| (&mut state.rates, &mut state.tell_timer_ms)),
                Whose::Shared(id) => self
                    .shared
                    .get_mut(id.0 as usize)
                    .map(|shared| (&mut shared.rates, &mut shared.tell_timer_ms)),
            };
            let Some((rates, last_ms)) = told.filter(|(_, last_ms)| **last_ms == at_ms) else {
                continue;
            };
            *last_ms = 0;
            let said = rates.tell(now_ms);
            self.set_tell(whose);
            if let Some((window, word)) = said {
                return Some(Decision::AskGrant {
                    whose,
                    window,
                    word,
                });
            }
        }
        None
    }

    /// What is said about connections, if it is time for something.
    fn speak_due(&mut self, now_ms: u64) -> Option<Decision<T>> {
        while let Some(whose) = self.timers.due_lease(now_ms) {
            if let Some(decision) = self.speak(now_ms, whose) {
                return Some(decision);
            }
        }
        None
    }

    /// What is said about connections, if it is time.
    fn speak(&mut self, now_ms: u64, whose: Whose) -> Option<Decision<T>> {
        let lease = match whose {
            Whose::Lane(lane) => &mut self.lanes.get_mut(lane.0 as usize)?.lease,
            Whose::Shared(id) => &mut self.shared.get_mut(id.0 as usize)?.lease,
        };
        if lease.speaks_at()? > now_ms {
            self.timers.set_lease(whose, lease, now_ms);
            return None;
        }
        match whose {
            Whose::Lane(lane) => self.speak_of_lane(now_ms, lane),
            Whose::Shared(id) => self.speak_of_shared(now_ms, id),
        }
    }

    fn speak_of_lane(&mut self, now_ms: u64, lane: LaneId) -> Option<Decision<T>> {
        let state = self.lanes.get_mut(lane.0 as usize)?;
        let said = state.speak(now_ms);
        if said.is_none() {
            self.note_idle(lane);
        }
        let (limit, share, lease::Word { have, want }) = said?;
        Some(Decision::AskSlots {
            whose: Whose::Lane(lane),
            limit,
            share,
            have,
            want,
        })
    }

    fn decide(&mut self, now_ms: u64, lane: LaneId) -> Option<Decision<T>> {
        self.expects(lane, false);
        let state = self.lanes.get_mut(lane.0 as usize)?;
        let (_, affinity) = self.fair.peek(state.queue)?;
        let suspended = Some(state.suspended_until_ms).filter(|until_ms| now_ms < *until_ms);
        if let Some(until_ms) = self.outages.keeps(state.source, now_ms).or(suspended) {
            self.timers
                .set_turn(Whose::Lane(lane), &mut state.timer_ms, now_ms, until_ms);
            return None;
        }
        let Some(sender) = self.senders.choose(affinity, state.source) else {
            if !state.starved {
                state.starved = true;
                self.starved.push_back(lane);
            }
            return None;
        };
        if state.slots.used() == 0 {
            state.ramp.since_ms = now_ms;
        }
        let allowed = state.allowed(now_ms);
        let mut limit = allowed;
        if let Some(member) = &state.member
            && let Some(shared) = self.shared.get(member.of.0 as usize)
        {
            let room = shared.room(now_ms, member);
            limit = limit.min(state.slots.used().saturating_add(room));
        }
        let able = |sender| self.senders.is_able(sender, state.source);
        let (slot, sender) = match state.slots.choose(limit, sender, able) {
            Choice::Slot(slot, sender) => (slot, sender),
            Choice::Close(slot, holder) => {
                self.close(lane, slot, holder);
                return None;
            }
            Choice::Full if state.slots.used() < allowed => {
                self.wait_to_open(lane);
                return None;
            }
            Choice::Full => return self.is_full(now_ms, lane),
        };
        let opens = state.slots.opens(slot, state.messages_per_connection);
        let drawn = match self.draw(now_ms, lane, opens)? {
            Ok(drawn) => drawn,
            Err(ask) => return Some(ask),
        };
        self.with_slots(lane, |slots| slots.occupy(now_ms, slot, sender, opens));
        if opens {
            self.opened(lane);
        }
        self.senders.take(sender);
        let state = self.lanes.get_mut(lane.0 as usize)?;
        self.outages.tried(state.source, now_ms);
        let (_, item, _) = self.fair.pop(&mut state.queue)?;
        self.waiting -= 1;
        Some(Decision::Assign {
            lane,
            slot,
            sender,
            item,
            drawn,
        })
    }

    /// All connections that a lane may have by now are busy.
    fn is_full(&mut self, now_ms: u64, lane: LaneId) -> Option<Decision<T>> {
        let state = self.lanes.get_mut(lane.0 as usize)?;
        let whose = Whose::Lane(lane);
        let ramped = state.ramped(now_ms);
        if ramped < state.connections {
            let until_ms = state.ramp.next_ms(now_ms);
            self.timers
                .set_turn(whose, &mut state.timer_ms, now_ms, until_ms);
        }
        if state.connection_share.is_none() || state.slots.used() >= ramped {
            return None;
        }
        if state.lease.runs_short(now_ms) {
            let asks = self.speak_of_lane(now_ms, lane);
            self.expects(lane, asks.is_some());
            return asks;
        }
        self.timers.set_lease(whose, &mut state.lease, now_ms);
        let asked = state.lease.is_asking();
        self.expects(lane, asked);
        None
    }

    /// Counts a message, and a connection when `opens` says so, in all windows of a lane and of the limit that it shares,
    /// or in none of them: then there is something to ask, or nothing to do.
    fn draw(
        &mut self,
        now_ms: u64,
        lane: LaneId,
        opens: bool,
    ) -> Option<Result<Drawn, Decision<T>>> {
        let state = self.lanes.get_mut(lane.0 as usize)?;
        let whose = Whose::Lane(lane);
        let waiting = state.queue.len();
        // Nothing is asked of others as long as something says no by itself: the grant would only run out.
        if let Some(until_ms) = state.rates.must_wait(now_ms, opens) {
            self.timers
                .set_turn(whose, &mut state.timer_ms, now_ms, until_ms);
            return None;
        }
        let shared = state.member.as_mut().and_then(|member| {
            let shared = self.shared.get_mut(member.of.0 as usize)?;
            Some((member, shared))
        });
        let Some((member, shared)) = shared else {
            return match state.rates.check(now_ms, opens, waiting as u64) {
                None => Some(Ok(Drawn {
                    own: state.rates.commit(now_ms, opens),
                    shared: None,
                })),
                kept => self.kept(now_ms, whose, kept?).map(Err),
            };
        };
        let barges = !opens && shared.would_barge(member);
        if barges || shared.rates.must_wait(now_ms, opens).is_some() {
            shared.wait(lane, member, opens);
            return None;
        }
        if let Some(kept) = state.rates.check(now_ms, opens, waiting as u64) {
            return self.kept(now_ms, whose, kept).map(Err);
        }
        let waiting = waiting + shared.waiting();
        match shared.rates.check(now_ms, opens, waiting as u64) {
            None => {
                member.called = false;
                Some(Ok(Drawn {
                    own: state.rates.commit(now_ms, opens),
                    shared: Some((member.of, shared.rates.commit(now_ms, opens))),
                }))
            }
            Some(ask @ TakeAll::Ask { .. }) => {
                // Its place is kept.
                member.called = true;
                let whose = Whose::Shared(member.of);
                self.kept(now_ms, whose, ask).map(Err)
            }
            Some(_) => {
                shared.wait(lane, member, opens);
                None
            }
        }
    }

    /// What follows when rates keep something. For who asked for something of its own a credit is kept: what is shared is
    /// asked for once for all, and by who had credit.
    fn kept(&mut self, now_ms: u64, whose: Whose, kept: TakeAll) -> Option<Decision<T>> {
        if let Whose::Lane(lane) = whose {
            if let TakeAll::Wait(until_ms) = kept {
                let state = self.lanes.get_mut(lane.0 as usize)?;
                self.timers
                    .set_turn(whose, &mut state.timer_ms, now_ms, until_ms);
                return None;
            }
            self.expects(lane, true);
        }
        match kept {
            TakeAll::Ask { window, word } => Some(Decision::AskGrant {
                whose,
                window,
                word,
            }),
            _ => None,
        }
    }
}
