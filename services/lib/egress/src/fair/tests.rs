use super::*;

const FLOW: Flow = Flow {
    high: false,
    retry: false,
    tenant: 1,
    tenant_weight: 1,
    stream: 1,
    stream_weight: 1,
    campaign: 0,
};

fn tenant(tenant: u64, weight: u16) -> Flow {
    Flow {
        tenant,
        tenant_weight: weight,
        ..FLOW
    }
}

/// One lane.
#[derive(Default)]
struct Line {
    fair: Fair<u32>,
    queue: Queue,
    pushed: u32,
}

impl Line {
    fn push(&mut self, count: u32, flow: Flow) {
        for _ in 0..count {
            self.fair.push(&mut self.queue, &flow, self.pushed, 0);
            self.pushed += 1;
        }
    }

    fn pop(&mut self) -> Option<Flow> {
        let next = self.fair.peek(self.queue).map(|(item, _)| *item);
        let popped = self.fair.pop(&mut self.queue);
        assert_eq!(next, popped.as_ref().map(|(_, item, _)| *item));
        popped.map(|(flow, ..)| flow)
    }

    /// How many of the next ones are of each tenant.
    fn by_tenant(&mut self, turns: u32) -> Vec<(u64, u32)> {
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..turns {
            if let Some(flow) = self.pop() {
                *counts.entry(flow.tenant).or_default() += 1;
            }
        }
        counts.into_iter().collect()
    }

    fn is_empty(&self) -> bool {
        let sizes = [
            self.fair.bands.len(),
            self.fair.nodes.len(),
            self.fair.items.len(),
            self.fair.index.len(),
        ];
        self.queue.is_empty() && sizes == [0; 4]
    }
}

#[test]
fn one_flow_is_first_in_first_out_and_leaves_nothing_behind() {
    let mut line = Line::default();
    line.push(10, FLOW);
    let order: Vec<u32> =
        std::iter::from_fn(|| line.fair.pop(&mut line.queue).map(|(_, item, _)| item)).collect();
    assert_eq!(order, (0..10).collect::<Vec<_>>());
    assert!(line.is_empty());
}

#[test]
fn tenants_share_by_weight_and_what_one_leaves_the_others_use() {
    let mut line = Line::default();
    line.push(1, tenant(9, 1));
    for (name, weight) in [(1, 1), (2, 3), (3, 6)] {
        line.push(2_000, tenant(name, weight));
    }
    // Who comes goes first for a moment.
    line.by_tenant(200);
    assert_eq!(line.by_tenant(1_000), [(1, 100), (2, 300), (3, 600)]);
    while !line.by_tenant(1).is_empty() {}
    line.push(50, tenant(2, 3));
    assert_eq!(line.by_tenant(100), [(2, 50)]);
    assert!(line.is_empty());
}

#[test]
fn streams_share_by_weight_in_a_tenant_and_campaigns_alike_in_a_stream() {
    let mut line = Line::default();
    let of = |stream, stream_weight, campaign| Flow {
        stream,
        stream_weight,
        campaign,
        ..FLOW
    };
    line.push(1_000, of(1, 3, 0));
    line.push(1_000, of(2, 1, 1));
    line.push(1_000, of(2, 1, 2));
    line.push(1_000, tenant(2, 1));
    line.by_tenant(64);
    let mut counts = [0; 4];
    for _ in 0..800 {
        match line.pop() {
            Some(flow) if flow.tenant == 2 => counts[3] += 1,
            Some(flow) => counts[flow.campaign as usize] += 1,
            None => {}
        }
    }
    assert_eq!(counts, [300, 50, 50, 400]);
}

#[test]
fn high_priority_and_first_attempts_go_first_and_leave_the_others_their_share() {
    let mut line = Line::default();
    for (high, retry) in [(false, true), (false, false), (true, true), (true, false)] {
        line.push(
            1_000,
            Flow {
                high,
                retry,
                ..FLOW
            },
        );
    }
    let mut counts = [0; 4];
    for _ in 0..1_000 {
        if let Some(flow) = line.pop() {
            counts[flow.band()] += 1;
        }
    }
    assert_eq!(counts, [600, 200, 150, 50]);
}

#[test]
fn a_tenant_that_comes_goes_ahead_and_coming_again_and_again_wins_no_more_than_its_share() {
    let mut line = Line::default();
    line.push(100_000, tenant(1, 1));
    line.by_tenant(1_000);
    line.push(100, tenant(2, 1));
    assert_eq!(line.by_tenant(AHEAD), [(2, AHEAD)]);
    assert_eq!(line.by_tenant(68 * 2), [(1, 68), (2, 68)]);
    // It always has one or a few, and never a queue.
    let (mut big, mut small) = (0, 0);
    for round in 0..20_000 {
        if line.queue.len() < 60_000 || round % 3 == 0 {
            line.push(round % 40, tenant(2, 1));
        }
        match line.pop() {
            Some(flow) if flow.tenant == 1 => big += 1,
            _ => small += 1,
        }
    }
    assert!(small <= big + AHEAD + 1, "{small} against {big}");
}

#[test]
fn a_crowd_of_tenants_that_come_and_go_is_forgotten() {
    let mut line = Line::default();
    line.push(30_000, tenant(0, 1));
    for name in 1..10_000 {
        line.push(1, tenant(name, 1));
        line.pop();
        line.pop();
    }
    assert!(line.fair.nodes.len() < RESTING as usize + 16);
    while line.pop().is_some() {}
    assert!(line.is_empty());
}

#[test]
fn a_weight_that_changes_counts_from_the_next_time_on() {
    let mut line = Line::default();
    line.push(1, tenant(9, 1));
    line.push(400, tenant(1, 1));
    line.push(400, tenant(2, 1));
    let mut queue = line.queue;
    line.fair.retain(&mut queue, |item| *item > 400);
    line.queue = queue;
    assert_eq!(line.by_tenant(1_000), [(2, 400)]);
    line.push(1, tenant(9, 1));
    line.push(400, tenant(1, 4));
    line.push(400, tenant(2, 1));
    line.by_tenant(66);
    assert_eq!(line.by_tenant(100), [(1, 80), (2, 20)]);
}

/// How many of the next ones are of each band.
fn by_band(line: &mut Line, turns: u32) -> [u32; 4] {
    let mut counts = [0; 4];
    for _ in 0..turns {
        if let Some(flow) = line.pop() {
            counts[flow.band()] += 1;
        }
    }
    counts
}

fn in_band(band: usize) -> Flow {
    Flow {
        high: band / 2 == 0,
        retry: band % 2 == 1,
        ..FLOW
    }
}

#[test]
fn what_a_band_does_not_use_the_others_do_by_their_shares() {
    // High first attempts, high retries, other first attempts, other retries: what waits, and what leaves of twenty.
    let table = [
        ([true, false, false, false], [20, 0, 0, 0]),
        ([true, true, false, false], [15, 5, 0, 0]),
        ([false, false, true, true], [0, 0, 15, 5]),
        ([true, false, true, false], [16, 0, 4, 0]),
        ([true, false, false, true], [16, 0, 0, 4]),
        ([false, true, true, false], [0, 16, 4, 0]),
        ([false, true, false, true], [0, 16, 0, 4]),
        ([true, true, false, true], [12, 4, 0, 4]),
        ([true, false, true, true], [16, 0, 3, 1]),
        ([false, true, true, true], [0, 16, 3, 1]),
        ([false, true, false, false], [0, 20, 0, 0]),
        ([false, false, false, true], [0, 0, 0, 20]),
    ];
    for (waits, leaves) in table {
        let mut line = Line::default();
        for band in (0..4).filter(|band| waits[*band]) {
            line.push(20, in_band(band));
        }
        assert_eq!(by_band(&mut line, 20), leaves, "{waits:?}");
    }
}

#[test]
fn who_has_waited_for_nobody_has_its_whole_share_before_those_who_come() {
    let mut line = Line::default();
    line.push(100, in_band(0));
    by_band(&mut line, 50);
    line.push(10, in_band(3));
    assert_eq!(by_band(&mut line, 4), [4, 0, 0, 0]);
    assert_eq!(by_band(&mut line, 1), [0, 0, 0, 1]);
    let mut line = Line::default();
    line.push(100, in_band(2));
    by_band(&mut line, 50);
    line.push(10, in_band(3));
    assert_eq!(by_band(&mut line, 3), [0, 0, 3, 0]);
    assert_eq!(by_band(&mut line, 1), [0, 0, 0, 1]);
}

/// One delivery in each of several bands, tenants, streams and campaigns.
fn one_of_each() -> Vec<Flow> {
    let mut flows = Vec::new();
    for band in 0..4 {
        for of in 0..8 {
            flows.push(Flow {
                tenant: of / 4,
                stream: of / 2 % 2,
                campaign: of % 2,
                ..in_band(band)
            });
        }
    }
    flows
}

#[test]
fn lanes_in_one_store_have_nothing_to_do_with_each_other() {
    let mut fair = Fair::default();
    let mut queues = [Queue::default(); 12];
    for flow in one_of_each() {
        for (lane, queue) in queues.iter_mut().enumerate() {
            fair.push(queue, &flow, (lane, flow), lane as u32);
        }
    }
    for (lane, queue) in queues.iter_mut().enumerate() {
        let mut left = one_of_each();
        for _ in 0..left.len() {
            if let Some((flow, (of, pushed), affinity)) = fair.pop(queue) {
                assert_eq!((of, pushed, affinity), (lane, flow, lane as u32));
                left.retain(|other| *other != flow);
            }
        }
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn holds_what_waits_wherever_it_stands_and_nothing_else() {
    let mut line = Line::default();
    for flow in one_of_each() {
        line.push(2, flow);
    }
    line.push(1, FLOW);
    let mut left: Vec<u32> = (0..line.pushed).collect();
    for _ in 0..line.pushed {
        for item in 0..line.pushed {
            let is_held = line.fair.holds(line.queue, |waiting| *waiting == item);
            assert_eq!(is_held, left.contains(&item), "{item}");
        }
        if let Some((_, popped, _)) = line.fair.pop(&mut line.queue) {
            left.retain(|item| *item != popped);
        }
    }
    assert!(left.is_empty(), "{left:?}");
}

/// The tenants of the next ones, in their order.
fn order(line: &mut Line, turns: u32) -> Vec<u64> {
    (0..turns)
        .filter_map(|_| line.pop())
        .map(|flow| flow.tenant)
        .collect()
}

/// Two tenants with a lot, and a third with this weight that came, had all that it may have ahead of its turn, and went.
fn two_with_a_lot_and_one_that_went(weight: u16) -> Line {
    let mut line = Line::default();
    line.push(10_000, tenant(1, 1));
    line.push(10_000, tenant(2, 1));
    // What the second one had ahead.
    line.by_tenant(AHEAD);
    let all = AHEAD + u32::from(weight);
    line.push(all, tenant(3, weight));
    let mut gone = 0;
    for _ in 0..1_000 {
        gone += u32::from(gone < all && line.by_tenant(1) == [(3, 1)]);
    }
    assert_eq!(gone, all);
    line
}

#[test]
fn who_comes_back_has_ahead_what_it_missed_and_no_more() {
    // Weight, how many others left meanwhile, and how many it has ahead: two of weight 1 take two for a turn of all.
    let table = [
        (1, 0, 0),
        (1, 2, 1),
        (1, 20, 10),
        (3, 20, 30),
        (1, 1_000, AHEAD),
        (3, 1_000, AHEAD),
    ];
    for (weight, others, ahead) in table {
        let mut line = two_with_a_lot_and_one_that_went(weight);
        line.by_tenant(others);
        line.push(1_000, tenant(3, weight));
        let turns = order(&mut line, ahead + 1);
        let first = turns.iter().take_while(|name| **name == 3).count() as u32;
        assert_eq!(first, ahead, "{weight} {others}: {turns:?}");
    }
}

#[test]
fn who_missed_nothing_waits_for_its_turn_behind_all_others() {
    let mut line = two_with_a_lot_and_one_that_went(1);
    line.push(10, tenant(3, 1));
    let turns = order(&mut line, 6);
    assert_eq!((turns[2], turns[5]), (3, 3), "{turns:?}");
}

#[test]
fn a_weight_counts_from_when_its_tenant_comes_and_not_in_the_midst_of_its_turns() {
    let mut line = two_with_a_lot_and_one_that_went(1);
    line.push(30, tenant(3, 1));
    line.push(30, tenant(3, 8));
    assert_eq!(line.by_tenant(180), [(1, 60), (2, 60), (3, 60)]);
    line.push(80, tenant(3, 8));
    assert_eq!(line.by_tenant(100), [(1, 10), (2, 10), (3, 80)]);
}
