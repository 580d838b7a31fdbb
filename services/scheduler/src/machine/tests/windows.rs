//! Send windows and spreads. The tests begin on Friday, 15 January 2027, at 08:00 UTC.

use queue::Which;

use super::*;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
const OFFICE: &str = "window: { zone: UTC, open: [ \"mon-fri 09:00-18:00\" ] }";

/// A configuration whose stream has these fields.
fn with_stream(stream: &str, route_spec: &str) -> Arc<Snapshot> {
    let text = format!(
        r#"
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: {{ name: acme }}
spec: {{ defaultStream: mail, streams: [ {{ name: mail, {stream} }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: {{ name: default }}
spec: {{ sources: [ {{ name: a, weight: 1 }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Shaping
metadata: {{ name: default }}
spec: {{ rules: [ {{ match: {{}}, connections: 2 }} ] }}
{}"#,
        route(route_spec)
    );
    Arc::new(Snapshot::from_documents(&text).unwrap())
}

fn desk(stream: &str, route_spec: &str) -> Desk {
    let mut desk = Desk::new(1000);
    desk.step(Input::Config(with_stream(stream, route_spec)));
    desk.resolve("one.example", SiteNews::Site("mx.one.example".into()));
    desk
}

impl Desk {
    fn at(&mut self, ms_from_start: u64) {
        self.now_ms = START_MS + ms_from_start;
        self.renew();
        self.pass(0);
        // What was known of the site may be forgotten meanwhile.
        let site = SiteNews::Site("mx.one.example".into());
        self.resolve("one.example", site);
        self.pass(0);
    }

    fn why(&self) -> Vec<Constraint> {
        let which = Which::Domain("one.example".into());
        let explained = self.machine.why(self.now_ms, &which, 10_000);
        explained.into_iter().map(|of| of.constraint).collect()
    }

    fn count(&self, disposition: Disposition) -> u64 {
        self.machine.counts().with(disposition)
    }
}

fn closed_until(ms_from_start: u64) -> Constraint {
    Constraint::Window {
        stream: "mail".into(),
        hours: "mon-fri 09:00-18:00 UTC".into(),
        until_ms: START_MS + ms_from_start,
    }
}

#[test]
fn what_comes_while_the_window_is_closed_leaves_when_it_opens() {
    let mut desk = desk(OFFICE, "port: 25");
    desk.message("one.example");
    assert_eq!(desk.why(), [closed_until(HOUR_MS)]);
    assert_eq!(desk.why()[0].kind(), "window");
    assert_eq!(desk.why()[0].until_ms(), Some(START_MS + HOUR_MS));
    desk.at(HOUR_MS - 1);
    assert_eq!(desk.assignments().len(), 0);
    desk.at(HOUR_MS);
    assert_eq!(desk.assignments().len(), 1);
}

#[test]
fn what_waits_for_a_window_leaves_when_the_window_is_lifted() {
    let mut desk = desk(OFFICE, "port: 25");
    desk.message("one.example");
    assert_eq!(desk.assignments().len(), 0);
    desk.step(Input::Config(with_stream("weight: 1", "port: 25")));
    desk.pass(0);
    assert_eq!(desk.assignments().len(), 1);
}

#[test]
fn a_window_that_is_set_keeps_what_waits_in_a_lane() {
    let mut desk = desk("weight: 1", "port: 25");
    for _ in 0..3 {
        desk.message("one.example");
    }
    let first = desk.assignments().remove(0).delivery.unwrap();
    desk.step(Input::Config(with_stream(OFFICE, "port: 25")));
    desk.report(&first, Stage::FinalDot, 250);
    assert_eq!(desk.assignments().len(), 0);
    assert!(desk.why().contains(&closed_until(HOUR_MS)));
    desk.at(HOUR_MS);
    assert_eq!(desk.assignments().len(), 1);
}

#[test]
fn what_waits_in_its_lane_when_the_window_closes_waits_for_the_next_opening() {
    let mut desk = desk(OFFICE, "port: 25");
    desk.at(10 * HOUR_MS - 60_000);
    for _ in 0..3 {
        desk.message("one.example");
    }
    let assigned = desk.assignments();
    assert_eq!(assigned.len(), 2);
    desk.at(10 * HOUR_MS);
    // What is under way is finished.
    for assignment in assigned {
        desk.report(&assignment.delivery.unwrap(), Stage::FinalDot, 250);
    }
    assert_eq!(desk.count(Disposition::Delivered), 2);
    assert_eq!(desk.assignments().len(), 0);
    let monday = 3 * DAY_MS + HOUR_MS;
    assert_eq!(desk.why(), [closed_until(monday)]);
    desk.at(monday);
    assert_eq!(desk.assignments().len(), 1);
}

#[test]
fn a_retry_that_comes_due_while_the_window_is_closed_waits_for_it() {
    let mut desk = desk(OFFICE, "retry: { waits: [5m], jitter: 0 }");
    desk.at(10 * HOUR_MS - 60_000);
    desk.message("one.example");
    let delivery = desk.assignments().remove(0).delivery.unwrap();
    desk.report(&delivery, Stage::Rcpt, 451);
    let due_ms = desk.now_ms + 300_000;
    assert_eq!(desk.why()[0].until_ms(), Some(due_ms));
    assert_eq!(desk.why()[0].kind(), "retry-time");
    desk.at(10 * HOUR_MS + 4 * 60_000);
    let monday = 3 * DAY_MS + HOUR_MS;
    assert_eq!(desk.why(), [closed_until(monday)]);
    desk.at(monday);
    assert_eq!(desk.assignments().len(), 1);
}

#[test]
fn a_message_that_expires_while_the_window_is_closed_expires_then() {
    let mut desk = desk(OFFICE, "port: 25");
    let expires_ms = START_MS + HOUR_MS / 2;
    desk.message_with("one.example", |envelope| {
        envelope.expires_at_ms = expires_ms
    });
    assert_eq!(desk.why().len(), 1);
    desk.at(HOUR_MS / 2 - 1);
    assert_eq!(desk.count(Disposition::Expired), 0);
    desk.at(HOUR_MS / 2);
    assert_eq!(desk.count(Disposition::Expired), 1);
}

/// The age counts from the time at which the first attempt may be made.
#[test]
fn the_age_counts_from_the_first_opening_and_goes_on_while_the_window_is_closed() {
    let mut desk = desk(OFFICE, "retry: { waits: [5m], jitter: 0 }, maxAge: 12h");
    desk.at(11 * HOUR_MS);
    desk.message("one.example");
    let monday = 3 * DAY_MS + HOUR_MS;
    desk.at(monday);
    for minutes in [0, 5, 10] {
        desk.at(monday + minutes * 60_000);
        let delivery = desk.assignments().remove(0).delivery.unwrap();
        desk.report(&delivery, Stage::Rcpt, 451);
    }
    desk.at(monday + 9 * HOUR_MS - 60_000);
    let delivery = desk.assignments().remove(0).delivery.unwrap();
    desk.report(&delivery, Stage::Rcpt, 451);
    desk.at(monday + 9 * HOUR_MS + 4 * 60_000);
    assert_eq!(desk.why()[0].kind(), "window");
    desk.at(monday + 12 * HOUR_MS - 1);
    assert_eq!(desk.count(Disposition::Expired), 0);
    desk.at(monday + 12 * HOUR_MS);
    assert_eq!(desk.count(Disposition::Expired), 1);
}

#[test]
fn what_was_never_tried_does_not_expire_by_its_age_however_long_the_window_is_closed() {
    let stream = "window: { zone: UTC, open: [ \"thu 09:00-10:00\" ] }";
    let mut desk = desk(stream, "maxAge: 1h");
    desk.message("one.example");
    desk.at(6 * DAY_MS + HOUR_MS);
    assert_eq!(desk.assignments().len(), 1);
}

#[test]
fn a_spread_gives_each_message_its_time_whoever_owns_the_partition() {
    let mut desk = desk("spread: 2h, delay: 1h", "port: 25");
    for _ in 0..200 {
        desk.message("one.example");
    }
    assert_eq!(desk.assignments().len(), 0);
    let times = |desk: &Desk| {
        let why = desk.why();
        assert!(why.iter().all(|of| of.kind() == "spread"));
        let mut times: Vec<u64> = why.iter().filter_map(Constraint::until_ms).collect();
        times.sort_unstable();
        times
    };
    let before = times(&desk);
    assert_eq!(before.len(), 200);
    let quarter = |n: u64| START_MS + HOUR_MS + n * HOUR_MS / 2;
    for n in 0..4 {
        let range = quarter(n)..quarter(n + 1);
        let count = before.iter().filter(|at| range.contains(at)).count();
        assert!((30..=70).contains(&count), "{count} in quarter {n}");
    }
    // Looked at anew, each has the same time.
    let config = with_stream("spread: 2h, delay: 1h, weight: 2", "port: 25");
    desk.step(Input::Config(config));
    desk.pass(0);
    desk.pass(0);
    assert_eq!(times(&desk), before);
    desk.at(3 * HOUR_MS);
    assert!(desk.why().iter().all(|of| of.kind() != "spread"));
}

#[test]
fn a_message_with_a_time_of_its_own_is_spread_from_then_on() {
    let mut desk = desk("spread: 10m", "port: 25");
    let not_before = START_MS + 5 * HOUR_MS;
    desk.message_with("one.example", |envelope| {
        envelope.not_before_ms = not_before
    });
    assert_eq!(desk.why(), [Constraint::NotBefore(not_before)]);
    desk.at(5 * HOUR_MS);
    let [Constraint::Spread(at_ms)] = desk.why()[..] else {
        panic!("{:?}", desk.why());
    };
    assert!((not_before..not_before + 600_000).contains(&at_ms));
}
