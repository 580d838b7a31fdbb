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
