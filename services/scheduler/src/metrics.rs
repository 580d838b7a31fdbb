//! What the scheduler tells Prometheus.

use std::collections::HashSet;

use proto::journal::Disposition;
use telemetry::{Histogram, IntCounter, IntCounterVec, IntGauge};

use crate::machine::{Counts, Machine, Outcomes, RESULTS};

/// Pairs of provider and pool that have values of their own; the configuration may have many more.
const MOST_PAIRS: usize = 200;
/// The value of both labels for further pairs, and that of the provider for destinations that are nobody's.
const OTHER: &str = "other";

const DISPOSITIONS: [Disposition; 9] = [
    Disposition::Delivered,
    Disposition::Deferred,
    Disposition::Bounced,
    Disposition::Expired,
    Disposition::Suppressed,
    Disposition::Cancelled,
    Disposition::Returned,
    Disposition::InDoubt,
    Disposition::Late,
];

pub(crate) struct Metrics {
    dispositions: Vec<(Disposition, IntCounter)>,
    simulated: Vec<(Disposition, IntCounter)>,
    assigned: IntCounter,
    returned: IntCounter,
    refused: IntCounter,
    unroutable: IntCounter,
    quarantined: IntCounter,
    waiting: IntGauge,
    in_flight: IntGauge,
    in_doubt: IntGauge,
    dsn_owed: IntGauge,
    messages: IntGauge,
    partitions: IntGauge,
    ready: IntGauge,
    sendable: IntGauge,
    lanes: IntGauge,
    slots: IntGauge,
    /// By measure: suspend, limit, slow.
    acted: [IntCounter; 3],
    convicted: IntCounter,
    /// By standing: probation, member, quarantine.
    standings: [IntGauge; 3],
    acts: IntGauge,
    /// By cause: connect, sender.
    sources_lost: [IntCounter; 2],
    sources_out: IntGauge,
    sources_seen: [u64; 2],
    queue_seconds: Histogram,
    results: ResultsByPlace,
    seen: Counts,
}

/// What receivers made of mail, by provider and pool.
struct ResultsByPlace {
    counter: IntCounterVec,
    pairs: HashSet<(String, String)>,
}

impl ResultsByPlace {
    fn new() -> Self {
        Self {
            counter: telemetry::counter_with(
                "staffetta_scheduler_results_total",
                "Recipients of ended attempts, by provider of the destination (`other` when no Provider has it), pool and result: accepted, transient, host_trouble, permanent, returned, in_doubt. The first 200 pairs of provider and pool of a process, then `other` for both.",
                &["provider", "pool", "result"],
            ),
            pairs: HashSet::new(),
        }
    }

    fn add(&mut self, outcomes: &Outcomes) {
        for (provider, pool, results) in outcomes.iter() {
            let (provider, pool) = within(
                &mut self.pairs,
                MOST_PAIRS,
                (provider.unwrap_or(OTHER), pool),
            );
            for (result, count) in RESULTS.into_iter().zip(results) {
                if *count > 0 {
                    self.counter
                        .with_label_values(&[provider, pool, result])
                        .inc_by(*count);
                }
            }
        }
    }
}

/// The pair itself while there is room, so that the number of series has a bound.
fn within<'a>(
    seen: &mut HashSet<(String, String)>,
    most: usize,
    (first, second): (&'a str, &'a str),
) -> (&'a str, &'a str) {
    let pair = (first.to_owned(), second.to_owned());
    if seen.contains(&pair) {
        return (first, second);
    }
    if seen.len() >= most {
        return (OTHER, OTHER);
    }
    seen.insert(pair);
    (first, second)
}

/// 1 while there is a connection.
pub(crate) fn redis_connected() -> IntGauge {
    telemetry::gauge(
        "staffetta_scheduler_redis_connected",
        "1 while Redis counts the limits; 0 while each partition keeps to its safe share of them.",
    )
}

/// Whether all entries are read, and how many there are.
pub(crate) fn suppression() -> (IntGauge, IntGauge) {
    (
        telemetry::gauge(
            "staffetta_scheduler_suppression_loaded",
            "1 while it is known whom nothing is sent to; 0 while that is not read yet, and nobody is suppressed whose entry is missing.",
        ),
        telemetry::gauge(
            "staffetta_scheduler_suppression_entries",
            "Entries of those that nothing is sent to, as this scheduler knows them; some may be over.",
        ),
    )
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let recipients = telemetry::counter_with(
            "staffetta_scheduler_recipients_total",
            "Recipients by disposition of an attempt: delivered, deferred, bounced, expired, suppressed, cancelled, returned, in_doubt; and late, those not delivered by the time that their client asked for.",
            &["disposition"],
        );
        let simulated = telemetry::counter_with(
            "staffetta_scheduler_simulated_recipients_total",
            "Recipients for which the simulator answered, by disposition; staffetta_scheduler_recipients_total has none of them.",
            &["disposition"],
        );
        let child = |counter: &IntCounterVec, disposition: Disposition| {
            let name = disposition
                .as_str_name()
                .trim_start_matches("DISPOSITION_")
                .to_ascii_lowercase();
            (disposition, counter.with_label_values(&[name.as_str()]))
        };
        let acted = telemetry::counter_with(
            "staffetta_scheduler_automation_total",
            "What was begun, or begun again, for what was replied, by measure: suspend, limit, slow, quarantine.",
            &["measure"],
        );
        let convicted = acted.with_label_values(&["quarantine"]);
        let standings = telemetry::gauge_with(
            "staffetta_scheduler_tenants",
            "Tenants of which it is stored how they stand in a pool, by standing: probation, member (that was on probation or in quarantine), quarantine. Every scheduler tells the same.",
            &["standing"],
        );
        let acted = ["suspend", "limit", "slow"].map(|word| acted.with_label_values(&[word]));
        let lost = telemetry::counter_with(
            "staffetta_scheduler_source_outages_total",
            "Egress sources that were taken out, by cause: connect (no connection comes about), sender (no attached sender has it or can bind it).",
            &["cause"],
        );
        Self {
            dispositions: DISPOSITIONS
                .into_iter()
                .map(|disposition| child(&recipients, disposition))
                .collect(),
            simulated: DISPOSITIONS
                .into_iter()
                .map(|disposition| child(&simulated, disposition))
                .collect(),
            assigned: telemetry::counter(
                "staffetta_scheduler_assignments_total",
                "Deliveries given to senders.",
            ),
            returned: telemetry::counter(
                "staffetta_scheduler_returned_total",
                "Assignments that came back unbegun.",
            ),
            refused: telemetry::counter(
                "staffetta_scheduler_refused_total",
                "Begins that were refused.",
            ),
            unroutable: telemetry::counter(
                "staffetta_scheduler_unroutable_total",
                "Times that a ready delivery found no route or pool.",
            ),
            quarantined: telemetry::counter(
                "staffetta_scheduler_quarantined_total",
                "Blocks and messages put into quarantine.",
            ),
            waiting: telemetry::gauge(
                "staffetta_scheduler_waiting_recipients",
                "Recipients that wait in owned partitions.",
            ),
            in_flight: telemetry::gauge(
                "staffetta_scheduler_in_flight_deliveries",
                "Deliveries at senders.",
            ),
            in_doubt: telemetry::gauge(
                "staffetta_scheduler_in_doubt_deliveries",
                "Begun deliveries whose sender is gone.",
            ),
            dsn_owed: telemetry::gauge(
                "staffetta_scheduler_dsn_owed_recipients",
                "Recipients whose DSN is not yet spooled.",
            ),
            messages: telemetry::gauge(
                "staffetta_scheduler_live_messages",
                "Messages with a recipient that is not final.",
            ),
            partitions: telemetry::gauge(
                "staffetta_scheduler_owned_partitions",
                "Partitions owned; the sum over all schedulers should be all partitions.",
            ),
            ready: telemetry::gauge(
                "staffetta_scheduler_ready_deliveries",
                "Deliveries that wait in lanes for a connection, a rate or a sender.",
            ),
            sendable: telemetry::gauge(
                "staffetta_scheduler_sendable_deliveries",
                "Deliveries that wait in lanes for a sender only: limits allow them now.",
            ),
            lanes: telemetry::gauge(
                "staffetta_scheduler_lanes",
                "Lanes that something waits in, has a connection in, or did lately.",
            ),
            acted,
            convicted,
            standings: ["probation", "member", "quarantine"]
                .map(|standing| standings.with_label_values(&[standing])),
            acts: telemetry::gauge(
                "staffetta_scheduler_automation_active",
                "Suspensions, limits and slowed lanes that hold now for what was replied.",
            ),
            slots: telemetry::gauge(
                "staffetta_scheduler_connection_slots",
                "Connection slots in use or idle at senders.",
            ),
            sources_lost: ["connect", "sender"].map(|cause| lost.with_label_values(&[cause])),
            sources_out: telemetry::gauge(
                "staffetta_scheduler_sources_out",
                "Egress sources that are taken out now.",
            ),
            sources_seen: [0; 2],
            queue_seconds: telemetry::histogram(
                "staffetta_scheduler_queue_seconds",
                "Time from acceptance to delivery.",
                telemetry::latency_buckets(),
            ),
            results: ResultsByPlace::new(),
            seen: Counts::default(),
        }
    }

    /// Brings everything up to date.
    pub(crate) fn update(&mut self, now_ms: u64, machine: &mut Machine) {
        let queue_times = machine.take_queue_times();
        for milliseconds in queue_times {
            self.queue_seconds.observe(milliseconds as f64 / 1000.0);
        }
        self.results.add(&machine.take_outcomes());
        let counts = machine.counts();
        for (disposition, counter) in &self.simulated {
            let seen = self.seen.simulated_with(*disposition);
            counter.inc_by(counts.simulated_with(*disposition) - seen);
        }
        for (disposition, counter) in &self.dispositions {
            counter.inc_by(counts.with(*disposition) - self.seen.with(*disposition));
        }
        self.assigned.inc_by(counts.assigned - self.seen.assigned);
        self.returned.inc_by(counts.returned - self.seen.returned);
        self.refused.inc_by(counts.refused - self.seen.refused);
        self.unroutable
            .inc_by(counts.unroutable - self.seen.unroutable);
        self.quarantined
            .inc_by(counts.quarantined - self.seen.quarantined);
        for (position, counter) in self.acted.iter().enumerate() {
            counter.inc_by(counts.acted[position] - self.seen.acted[position]);
        }
        self.convicted
            .inc_by(counts.convicted - self.seen.convicted);
        for (gauge, count) in self.standings.iter().zip(machine.tenant_standings()) {
            set(gauge, count);
        }
        let (out, lost) = machine.sources_out();
        set(&self.sources_out, out as u64);
        for (position, counter) in self.sources_lost.iter().enumerate() {
            counter.inc_by(lost[position] - self.sources_seen[position]);
        }
        self.sources_seen = lost;
        set(&self.acts, machine.acts().count() as u64);
        self.seen = counts.clone();
        let mut sums = [0_u64; 5];
        for intake in machine.intakes() {
            let totals = intake.totals();
            let of_partition = [
                totals.waiting,
                totals.in_flight,
                totals.in_doubt,
                totals.dsn_owed,
                totals.messages,
            ];
            sums.iter_mut()
                .zip(of_partition)
                .for_each(|(sum, value)| *sum += value);
        }
        let gauges = [
            &self.waiting,
            &self.in_flight,
            &self.in_doubt,
            &self.dsn_owed,
            &self.messages,
        ];
        for (gauge, sum) in gauges.into_iter().zip(sums) {
            set(gauge, sum);
        }
        set(&self.partitions, machine.intakes().count() as u64);
        let (ready, slots) = machine.lane_totals();
        set(&self.ready, ready as u64);
        set(&self.sendable, machine.sendable(now_ms) as u64);
        set(&self.lanes, machine.lanes() as u64);
        set(&self.slots, slots as u64);
    }
}

fn set(gauge: &IntGauge, value: u64) {
    gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn further_pairs_of_provider_and_pool_share_one_value() {
        let mut seen = HashSet::new();
        let pairs = [("a", "x"), ("a", "y"), ("b", "x"), ("a", "x")];
        let labels = pairs.map(|pair| within(&mut seen, 2, pair));
        assert_eq!(labels, [("a", "x"), ("a", "y"), (OTHER, OTHER), ("a", "x")]);
    }
}
