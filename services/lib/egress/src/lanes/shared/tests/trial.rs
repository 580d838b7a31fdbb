//! Lanes with limits of their own and one that they share, at random, against what answers and what receives.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::lanes::Drawn;

/// Numbers that look random, the same for a seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % end
    }

    fn one_in(&mut self, count: u64) -> bool {
        self.below(count) == 0
    }
}

#[derive(Debug)]
enum Event {
    /// A connection is there, and its message begins.
    Begun(LaneId, Drawn, bool),
    /// The message has left.
    Left(LaneId, Drawn),
    /// Its reply is there.
    Over(LaneId, SlotId),
    Closed(LaneId, SlotId),
    Granted(Whose, Window, GrantNews),
    Leased(Whose, SlotNews),
    Push(LaneId),
}

/// What of a limit is known to who grants.
#[derive(Default)]
struct Known {
    have: u64,
    batch: u64,
    dated: Vec<(u64, u64)>,
}

struct Trial {
    dice: Dice,
    lanes: Lanes<u32>,
    ids: Vec<LaneId>,
    shared: SharedId,
    own: Vec<LaneLimits>,
    limits: SharedLimits,
    now_ms: u64,
    events: BTreeMap<(u64, u64), Event>,
    turn: u64,
    known: BTreeMap<(Whose, u64, bool), Known>,
    /// Connections that are open at the host.
    open: BTreeSet<(LaneId, SlotId)>,
    /// When messages and connections came to the host.
    came: BTreeMap<(LaneId, bool), Vec<u64>>,
    delivered: usize,
}

impl Trial {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let leases = dice.one_in(2);
        let limits = SharedLimits {
            connections: (!dice.one_in(4)).then(|| 1 + dice.below(4) as u32),
            connection_share: None,
            windows: Self::windows(&mut dice, 30),
        };
        let limits = SharedLimits {
            connection_share: limits.connections.filter(|_| leases),
            ..limits
        };
        let mut lanes = Lanes::default();
        let (shared, _) = lanes.share(&"source".into(), &"big".into());
        lanes.set_limits_of_shared(shared, &limits);
        let count = 1 + dice.below(6);
        let mut ids = Vec::new();
        let mut own = Vec::new();
        for number in 0..count {
            let connections = 1 + dice.below(3) as u32;
            let limits = LaneLimits {
                connections,
                connection_share: dice.one_in(3).then_some(connections),
                messages_per_connection: [0, 2, 9][dice.below(3) as usize],
                windows: Self::windows(&mut dice, 12),
                shared: Some(shared),
                ..LaneLimits::default()
            };
            let site = format!("site{number}").into();
            ids.push(lanes.lane(&"source".into(), &site, || limits.clone()));
            own.push(limits);
        }
        lanes.sender_up(SenderId(1), 1 + dice.below(20) as u32, []);
        Self {
            dice,
            lanes,
            ids,
            shared,
            own,
            limits,
            now_ms: 1_000_000,
            events: BTreeMap::new(),
            turn: 0,
            known: BTreeMap::new(),
            open: BTreeSet::new(),
            came: BTreeMap::new(),
            delivered: 0,
        }
    }

    fn windows(dice: &mut Dice, most: u64) -> Vec<Window> {
        let mut windows = Vec::new();
        for unit in [Unit::Messages, Unit::Connections] {
            if dice.one_in(3) {
                windows.push(window(unit, 2 + dice.below(most)));
            }
        }
        windows
    }

    fn after(&mut self, ms: u64, event: Event) {
        self.turn += 1;
        self.events.insert((self.now_ms + ms, self.turn), event);
    }

    fn run(mut self) {
        let mut sent = 0;
        for lane in self.ids.clone() {
            for _ in 0..self.dice.below(60) {
                let at_ms = self.dice.below(4_000);
                self.after(at_ms, Event::Push(lane));
                sent += 1;
            }
        }
        let end_ms = self.now_ms + 600_000;
        while self.delivered < sent {
            self.decide();
            let next = self.events.keys().next().map(|(at_ms, _)| *at_ms);
            let wake = self.lanes.next_wake();
            let at_ms = next.into_iter().chain(wake).min();
            let at_ms = at_ms.expect("something happens as long as something waits");
            self.now_ms = at_ms.max(self.now_ms);
            assert!(self.now_ms < end_ms, "{} of {sent}", self.delivered);
            while let Some(entry) = self.events.first_entry()
                && entry.key().0 <= self.now_ms
            {
                let event = entry.remove();
                self.happens(event);
            }
        }
        self.judge();
    }

    fn decide(&mut self) {
        let mut steps = 0;
        while let Some(decision) = self.lanes.next(self.now_ms) {
            steps += 1;
            assert!(steps < 10_000, "it goes round in circles");
            self.carry_out(decision);
        }
        // Nothing stays that nothing keeps.
        for lane in &self.ids {
            if self.lanes.waiting_in(*lane) > 0 {
                let blocked = self.lanes.blocked(self.now_ms, *lane);
                assert!(
                    blocked.is_some(),
                    "{lane:?} at {}: {:?} {:?}",
                    self.now_ms,
                    self.lanes.lanes[lane.0 as usize],
                    self.lanes.shared
                );
            }
        }
    }

    fn carry_out(&mut self, decision: Decision<u32>) {
        match decision {
            Decision::Assign {
                lane,
                slot,
                sender,
                drawn,
                ..
            } => {
                let opens = drawn.own.opens;
                assert!(opens || self.open.contains(&(lane, slot)));
                self.open.insert((lane, slot));
                self.hold_to_connections();
                if self.dice.one_in(20) {
                    self.lanes.unassign(lane, slot, sender, drawn);
                    // It was not there, so it comes again.
                    return self.after(5, Event::Push(lane));
                }
                let to_begin = self.dice.below(40);
                let to_leave = to_begin + self.dice.below(60);
                let to_reply = to_leave + self.dice.below(300);
                self.after(to_begin, Event::Begun(lane, drawn, opens));
                self.after(to_leave, Event::Left(lane, drawn));
                self.after(to_reply, Event::Over(lane, slot));
            }
            Decision::CloseSlot { lane, slot, .. } => {
                let ms = self.dice.below(10);
                self.after(ms, Event::Closed(lane, slot));
            }
            Decision::AskGrant {
                whose,
                window,
                word,
            } => {
                let key = (whose, window.limit.per_ms, window.unit == Unit::Messages);
                let known = self.known.entry(key).or_default();
                known.have = word.have;
                if known.batch != word.batch {
                    known.batch = word.batch;
                    known.dated.extend(word.dated);
                }
                let since_ms = self.now_ms - window.limit.per_ms;
                known.dated.retain(|(at_ms, _)| *at_ms > since_ms);
                let dated: u64 = known.dated.iter().map(|(_, count)| count).sum();
                let free = window.limit.count.saturating_sub(known.have + dated);
                let amount = word.want.min(free);
                known.have += amount;
                let news = match amount {
                    0 => GrantNews::Nothing {
                        retry_ms: self.now_ms + 20,
                    },
                    _ => granted(amount, self.now_ms + 62),
                };
                let ms = self.dice.below(5);
                self.after(ms, Event::Granted(whose, window, news));
            }
            Decision::AskSlots {
                whose,
                limit,
                share,
                have,
                want,
            } => {
                assert!(have <= limit && share == limit);
                let granted = match self.dice.one_in(4) {
                    true => 0,
                    false => want.min(limit - have),
                };
                let news = SlotNews::Leased {
                    granted,
                    excess: 0,
                    others_wait: false,
                    until_ms: self.now_ms + 19_000,
                };
                let ms = self.dice.below(5);
                self.after(ms, Event::Leased(whose, news));
            }
        }
    }

    /// What is open is within each limit.
    fn hold_to_connections(&self) {
        let all = self.open.len() as u32;
        assert!(all <= self.limits.connections.unwrap_or(u32::MAX), "{all}");
        for (lane, limits) in self.ids.iter().zip(&self.own) {
            let of_it = self.open.iter().filter(|(of, _)| of == lane).count();
            assert!(of_it as u32 <= limits.connections);
        }
    }

    fn happens(&mut self, event: Event) {
        let over = Became::Over(self.now_ms + 1);
        self.lanes.now_ms = self.now_ms;
        match event {
            Event::Begun(lane, drawn, opens) => {
                if opens {
                    let came = self.came.entry((lane, false)).or_default();
                    came.push(self.now_ms);
                }
                self.lanes.settle(lane, drawn, Unit::Connections, over);
            }
            Event::Left(lane, drawn) => {
                self.came.entry((lane, true)).or_default().push(self.now_ms);
                self.lanes.settle(lane, drawn, Unit::Messages, over);
                self.delivered += 1;
            }
            Event::Over(lane, slot) => {
                self.lanes.released(lane, slot, SenderId(1));
                if self.dice.one_in(3) {
                    self.after(50, Event::Closed(lane, slot));
                }
            }
            Event::Closed(lane, slot) => {
                let before = self.lanes.slots_in_use();
                self.lanes.slot_closed(lane, slot, SenderId(1));
                if self.lanes.slots_in_use() < before {
                    self.open.remove(&(lane, slot));
                }
            }
            Event::Granted(whose, window, news) => {
                self.lanes.grant(self.now_ms, whose, window, news);
            }
            Event::Leased(whose, news) => self.lanes.slots(self.now_ms, whose, news),
            Event::Push(lane) => self.lanes.push(lane, &Flow::default(), 0, 0),
        }
    }

    /// No window at the host had more than it may.
    fn judge(&self) {
        let of = |lanes: &[LaneId], messages| {
            let mut times: Vec<u64> = lanes
                .iter()
                .filter_map(|lane| self.came.get(&(*lane, messages)))
                .flatten()
                .copied()
                .collect();
            times.sort_unstable();
            times
        };
        let hold = |lanes: &[LaneId], windows: &[Window]| {
            for window in windows {
                let times = of(lanes, window.unit == Unit::Messages);
                let most = window.limit.count as usize;
                for (first, last) in times.iter().zip(times.iter().skip(most)) {
                    assert!(last - first >= window.limit.per_ms, "{window:?}");
                }
            }
        };
        hold(&self.ids, &self.limits.windows);
        for (lane, limits) in self.ids.iter().zip(&self.own) {
            hold(&[*lane], &limits.windows);
        }
        assert!(self.lanes.shared_names(self.shared).is_some());
    }
}

#[test]
fn whatever_comes_no_limit_is_exceeded_and_nothing_gets_stuck() {
    (1..=400).for_each(|seed| {
        println!("seed {seed}");
        Trial::new(seed).run();
    });
}
