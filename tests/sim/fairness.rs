//! Bounds on fairness: one lane with tenants that come, send a lot or a little, and go, by seed.
//!
//! Checked at each delivery that leaves: the lane never rests while something waits; while two tenants have something
//! waiting in a band, neither gets ahead of its share of the other by more than a turn and what a newcomer may send
//! first; and no band that waits gets less than its share of what leaves.

use std::collections::BTreeMap;

use egress::{
    AHEAD, Decision, FRESH_TURNS, Flow, HIGH_TURNS, LaneId, LaneLimits, Lanes, SenderId, SlotId,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

const SENDER: SenderId = SenderId(1);
const STEPS: u32 = 2_000;

/// A tenant in a band: whether its mail is of high priority, and whether it is retries.
type Line = (u64, bool, bool);

/// What two tenants of a band got since both have something waiting.
#[derive(Default)]
struct Race {
    turns: BTreeMap<u64, f64>,
}

struct Lane {
    rng: StdRng,
    lanes: Lanes<Line>,
    lane: LaneId,
    weights: BTreeMap<u64, u16>,
    waiting: BTreeMap<Line, u32>,
    races: BTreeMap<(bool, bool), Race>,
    /// What left since the last one of a band, while it waited.
    passed: BTreeMap<(bool, bool), u32>,
    busy: Vec<SlotId>,
    left: u32,
}

impl Lane {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut lanes = Lanes::default();
        let limits = LaneLimits {
            connections: rng.random_range(1..6),
            ..LaneLimits::default()
        };
        let lane = lanes.lane(&"source".into(), &"site".into(), || limits);
        lanes.sender_up(SENDER, 1_000, []);
        let weights = (0..8).map(|tenant| (tenant, rng.random_range(1..6)));
        Self {
            weights: weights.collect(),
            rng,
            lanes,
            lane,
            waiting: BTreeMap::new(),
            races: BTreeMap::new(),
            passed: BTreeMap::new(),
            busy: Vec::new(),
            left: 0,
        }
    }

    /// A tenant sends a few, or now and then very many.
    fn submit(&mut self) {
        let tenant = self.rng.random_range(0..8);
        let line = (
            tenant,
            self.rng.random_range(0..4) == 0,
            self.rng.random_range(0..4) == 0,
        );
        let many = self.rng.random_range(0..20) == 0;
        let count = self.rng.random_range(1..if many { 2_000 } else { 20 });
        let (tenant, high, retry) = line;
        let flow = Flow {
            high,
            retry,
            tenant,
            tenant_weight: self.weights[&tenant],
            stream: self.rng.random_range(0..2),
            campaign: self.rng.random_range(0..3),
            ..Flow::default()
        };
        for _ in 0..count {
            self.lanes.push(self.lane, &flow, line, 0);
        }
        let waiting = self.waiting.entry(line).or_default();
        if *waiting == 0 {
            // It begins level with those that are behind most, with what a newcomer may send first.
            let race = self.races.entry((high, retry)).or_default();
            let level = race.turns.values().copied().fold(f64::INFINITY, f64::min);
            race.turns
                .insert(tenant, if level.is_finite() { level } else { 0.0 });
        }
        *waiting += count;
    }

    /// Everything that can leave does.
    fn run(&mut self, now_ms: u64) {
        while let Some(decision) = self.lanes.next(now_ms) {
            let Decision::Assign { slot, item, .. } = decision else {
                panic!("{decision:?}");
            };
            self.busy.push(slot);
            self.note(item);
        }
        let waiting: u32 = self.waiting.values().sum();
        assert!(
            waiting == 0 || !self.busy.is_empty(),
            "the lane rests while {waiting} wait"
        );
        assert_eq!(self.lanes.waiting(), waiting as usize);
    }

    fn note(&mut self, (tenant, high, retry): Line) {
        self.left += 1;
        let band = (high, retry);
        self.passed.insert(band, 0);
        for other in [(true, true), (true, false), (false, true), (false, false)] {
            let waits = |&(&(_, h, r), &count): &(&Line, &u32)| (h, r) == other && count > 0;
            if other == band || self.waiting.iter().find(waits).is_none() {
                self.passed.insert(other, 0);
                continue;
            }
            let passed = self.passed.entry(other).or_default();
            *passed += 1;
            // Its priority has every turn, or every fifth; of those it has the most, or every fourth.
            let (of_priority, of_attempt) = match other {
                (true, false) => (1, 1),
                (true, true) => (1, u32::from(FRESH_TURNS)),
                (false, false) => (u32::from(HIGH_TURNS), 1),
                (false, true) => (u32::from(HIGH_TURNS), u32::from(FRESH_TURNS)),
            };
            let most = (of_priority + 1) * (of_attempt + 1);
            assert!(*passed <= most, "{other:?} was passed over {passed} times");
        }
        let race = self.races.entry(band).or_default();
        *race.turns.entry(tenant).or_default() += 1.0 / f64::from(self.weights[&tenant]);
        let turns = |of: &u64| race.turns.get(of).copied().unwrap_or(0.0);
        for (&(other, h, r), &count) in &self.waiting {
            if (h, r) != band || count == 0 || other == tenant {
                continue;
            }
            let ahead = turns(&tenant) - turns(&other);
            // A turn of each, and what a newcomer of the least weight may send first; both may be newcomers.
            let most = 2.0 + 2.0 * f64::from(AHEAD);
            assert!(
                ahead <= most,
                "tenant {tenant} is {ahead} turns ahead of tenant {other} in {band:?}"
            );
        }
        let waiting = self.waiting.entry((tenant, high, retry)).or_default();
        *waiting -= 1;
        if *waiting == 0 {
            let race = self.races.entry(band).or_default();
            race.turns.remove(&tenant);
        }
    }

    fn finish_one(&mut self) {
        if self.busy.is_empty() {
            return;
        }
        let at = self.rng.random_range(0..self.busy.len());
        let slot = self.busy.swap_remove(at);
        self.lanes.released(self.lane, slot, SENDER);
    }
}

/// Runs a seed; gives how many deliveries left.
pub fn run(seed: u64) -> u32 {
    let mut lane = Lane::new(seed);
    for step in 0..STEPS {
        if lane.rng.random_range(0..12) == 0 {
            lane.submit();
        }
        lane.finish_one();
        lane.run(step.into());
    }
    lane.left
}
