//! The machine, and the ways that follow from what it stores.

use config::Snapshot;
use proto::standing::{PoolStandings, Standing};

use super::*;

const NOW_MS: u64 = 1_800_000_000_000;

const DOCUMENTS: &str = "
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: { name: shared }
spec:
  sources: [ { name: a } ]
  probation: { pool: newcomers, days: 2, delivered: 10, except: [ old ] }
  quarantine: penalty
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: { name: plain }
spec: { sources: [ { name: b } ], quarantine: penalty }
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: { name: strict }
spec: { sources: [ { name: c } ], maxTenants: 9 }
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: { name: newcomers }
spec: { sources: [ { name: d } ], maxTenants: 2 }
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: { name: penalty }
spec: { sources: [ { name: e } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: { name: vip }
spec: { sources: [ { name: f } ], dedicatedTo: old }
";

fn config() -> Snapshot {
    with_tenants(DOCUMENTS)
}

fn with_tenants(documents: &str) -> Snapshot {
    let tenants = ["old", "one", "two", "three"].map(|name| {
        format!(
            "---\napiVersion: staffetta.dev/v1alpha1\nkind: Tenant\nmetadata: {{ name: {name} }}\n\
             spec: {{ defaultStream: main, streams: [ {{ name: main }} ] }}\n"
        )
    });
    Snapshot::from_documents(&(documents.to_owned() + &tenants.concat())).unwrap()
}

/// A record that is stepped, with the time.
struct Bench {
    config: Snapshot,
    record: PoolStandings,
    now_ms: u64,
}

impl Bench {
    fn of(pool: &str) -> Self {
        Self {
            config: config(),
            record: no_standings(pool),
            now_ms: NOW_MS,
        }
    }

    fn step(&mut self, event: &StandingEvent) -> bool {
        let pool = self.config.pool(&self.record.pool).unwrap().clone();
        step(&mut self.record, &pool, self.now_ms, event)
    }

    fn decide(&mut self, tenant: &str, decision: Decided) -> bool {
        self.step(&StandingEvent::Decided {
            tenant: tenant.to_owned(),
            decision,
            author: "alice".to_owned(),
            cause: "complaints".to_owned(),
        })
    }

    fn standing(&self, tenant: &str) -> Standing {
        let standing = standing_of(&self.record, tenant);
        standing.map_or(Standing::Unspecified, TenantStanding::standing)
    }

    /// The moves, as `tenant from>to: cause`.
    fn moves(&self) -> Vec<String> {
        let word = |standing: Standing| {
            let name = standing.as_str_name().trim_start_matches("STANDING_");
            name.to_ascii_lowercase()
        };
        let moves = self.record.moves.iter();
        moves
            .map(|of| {
                let (from, to) = (word(of.from()), word(of.to()));
                format!("{} {from}>{to} by {:?}: {}", of.tenant, of.author, of.cause)
            })
            .collect()
    }
}

fn seen(tenant: &str) -> StandingEvent {
    StandingEvent::Seen(tenant.to_owned())
}

fn delivered(tenant: &str, count: u64) -> StandingEvent {
    StandingEvent::Delivered(tenant.to_owned(), count)
}

#[test]
fn a_new_tenant_becomes_a_member_after_the_days_and_the_deliveries() {
    let mut bench = Bench::of("shared");
    assert!(bench.step(&seen("one")));
    assert!(!bench.step(&seen("one")), "seen once");
    assert!(!bench.step(&seen("old")), "not new");
    assert!(bench.step(&delivered("one", 9)));
    bench.now_ms += 3 * DAY_MS;
    assert!(
        !bench.step(&StandingEvent::Passed),
        "one delivery is missing"
    );
    assert_eq!(bench.standing("one"), Standing::Probation);
    assert!(bench.step(&delivered("one", 1)));
    assert_eq!(bench.standing("one"), Standing::Member);
    assert!(!bench.step(&delivered("one", 1)), "members are not counted");

    assert!(bench.step(&seen("two")));
    assert!(bench.step(&delivered("two", 50)));
    bench.now_ms += 2 * DAY_MS - 1;
    assert!(
        !bench.step(&StandingEvent::Passed),
        "a millisecond is missing"
    );
    bench.now_ms += 1;
    assert!(bench.step(&StandingEvent::Passed));
    assert_eq!(bench.standing("two"), Standing::Member);
    assert_eq!(
        bench.moves(),
        [
            "one unspecified>probation by \"\": its first mail for the pool",
            "one probation>member by \"\": 3 days, 10 recipients accepted",
            "two unspecified>probation by \"\": its first mail for the pool",
            "two probation>member by \"\": 2 days, 50 recipients accepted",
        ]
    );
}

#[test]
fn quarantine_ends_with_its_time_and_its_place_is_earned_again() {
    let mut bench = Bench::of("shared");
    let until_ms = NOW_MS + 1_000;
    assert!(bench.decide("old", Decided::Quarantine { until_ms }));
    assert!(
        !bench.decide("old", Decided::Quarantine { until_ms }),
        "asked twice"
    );
    assert!(!bench.step(&StandingEvent::Passed));
    bench.now_ms = until_ms;
    assert!(bench.step(&StandingEvent::Passed));
    assert_eq!(bench.standing("old"), Standing::Probation);
    assert!(bench.decide("old", Decided::Admit));
    assert_eq!(bench.standing("old"), Standing::Member);
    assert!(!bench.decide("old", Decided::Admit), "it is one");
    assert_eq!(
        bench.moves(),
        [
            "old unspecified>quarantine by \"alice\": complaints",
            "old quarantine>probation by \"\": its time is over",
            "old probation>member by \"alice\": complaints",
        ]
    );
    assert!(bench.decide("old", Decided::Probation));
    assert_eq!(bench.standing("old"), Standing::Probation);
    assert!(!bench.decide("old", Decided::Probation), "it is on it");
    assert!(bench.decide("two", Decided::Admit), "it needs none");
    assert_eq!(bench.standing("two"), Standing::Member);

    // Without a probation it is a member again.
    let mut bench = Bench::of("plain");
    assert!(bench.decide("one", Decided::Quarantine { until_ms: 0 }));
    bench.now_ms += 365 * DAY_MS;
    assert!(
        !bench.step(&StandingEvent::Passed),
        "until somebody ends it"
    );
    assert!(bench.decide("one", Decided::Release));
    assert_eq!(bench.standing("one"), Standing::Member);
    assert!(!bench.decide("one", Decided::Release));
    assert!(!bench.decide("two", Decided::Admit), "it is one");
    assert!(!bench.decide("two", Decided::Probation), "there is none");
    assert!(!bench.decide("two", Decided::Forget));
    assert!(bench.decide("one", Decided::Forget));
    assert!(bench.record.tenants.is_empty());
}

#[test]
fn a_rule_does_not_shorten_what_somebody_decided() {
    let mut bench = Bench::of("plain");
    let convicted = |until_ms| StandingEvent::Convicted {
        tenant: "one".to_owned(),
        until_ms,
        cause: "mine/0: 550 spam".to_owned(),
    };
    let until = |bench: &Bench| standing_of(&bench.record, "one").unwrap().until_ms;
    assert!(bench.step(&convicted(NOW_MS + 10)));
    assert!(!bench.step(&convicted(NOW_MS + 5)));
    assert!(bench.step(&convicted(NOW_MS + 20)));
    assert!(!bench.step(&convicted(NOW_MS + 20)));
    assert_eq!(until(&bench), NOW_MS + 20);
    let forever = Decided::Quarantine { until_ms: 0 };
    assert!(bench.decide("one", forever));
    assert!(!bench.step(&convicted(NOW_MS + 30)));
    assert_eq!(until(&bench), 0);
    assert_eq!(bench.record.moves.len(), 2, "to be longer there is no move");
}

#[test]
fn causes_and_moves_are_bounded() {
    let mut bench = Bench::of("plain");
    for number in 0..300 {
        bench.step(&StandingEvent::Convicted {
            tenant: format!("tenant-{number}"),
            until_ms: 0,
            cause: "ü".repeat(200),
        });
    }
    // Not within a character.
    bench.step(&StandingEvent::Convicted {
        tenant: "tenant-300".to_owned(),
        until_ms: 0,
        cause: format!("x{}", "ü".repeat(200)),
    });
    let standing = standing_of(&bench.record, "tenant-300").unwrap();
    assert_eq!(standing.cause.len(), CAUSE - 1);
    assert_eq!(bench.record.moves.len(), MOVES);
    assert_eq!(
        (bench.record.moves[0].number, bench.record.moved),
        (46, 301)
    );
    assert_eq!(bench.record.tenants[0].cause.len(), CAUSE);
    let names = bench.record.tenants.windows(2);
    assert!(names.clone().all(|pair| pair[0].tenant < pair[1].tenant));
}

fn ways(standings: &Standings, config: &Snapshot, pool: &str) -> Vec<String> {
    let pool = config.pool(pool).unwrap();
    let way = |tenant: &str| match standings.way(pool, tenant) {
        Way::Own => "own".to_owned(),
        Way::By(other, _) => other.to_owned(),
        Way::Waits(Waits::Quarantine(_)) => "quarantine".to_owned(),
        Way::Waits(Waits::Full { pool, most }) => format!("{pool} has {most}"),
        Way::Waits(Waits::Closed { owner }) => format!("of {owner}"),
        Way::Waits(Waits::Unknown) => "unknown".to_owned(),
    };
    ["old", "one", "two", "three"].map(way).to_vec()
}

#[test]
fn the_way_follows_from_what_is_stored() {
    let config = config();
    let mut standings = Standings::default();
    standings.configure(&config);
    assert_eq!(
        ways(&standings, &config, "shared"),
        ["own", "unknown", "unknown", "unknown"]
    );
    assert_eq!(
        ways(&standings, &config, "vip"),
        ["own", "of old", "of old", "of old"]
    );
    assert_eq!(ways(&standings, &config, "strict"), ["own"; 4]);

    let mut bench = Bench::of("shared");
    for tenant in ["one", "two", "three"] {
        bench.now_ms += 1;
        bench.step(&seen(tenant));
    }
    assert!(standings.know(&config, std::slice::from_ref(&bench.record)));
    // Two may be there: those who came first.
    let expected = ["own", "newcomers", "newcomers", "newcomers has 2"];
    assert_eq!(ways(&standings, &config, "shared"), expected);
    bench.step(&delivered("one", 3));
    let record = std::slice::from_ref(&bench.record);
    assert!(
        !standings.know(&config, record),
        "what is counted changes no way"
    );

    bench.decide("one", Decided::Quarantine { until_ms: 0 });
    assert!(standings.know(&config, std::slice::from_ref(&bench.record)));
    let expected = ["own", "penalty", "newcomers", "newcomers"];
    assert_eq!(ways(&standings, &config, "shared"), expected);

    // Mail that an operator moves there is not on probation, and in quarantine as ever.
    let shared = config.pool("shared").unwrap();
    assert_eq!(standings.way_of_moved(shared, "two"), Way::Own);
    assert!(matches!(
        standings.way_of_moved(shared, "one"),
        Way::By("penalty", _)
    ));
    let vip = config.pool("vip").unwrap();
    let closed = Way::Waits(Waits::Closed { owner: "old" });
    assert_eq!(standings.way_of_moved(vip, "one"), closed);
    assert_eq!(standings.count(), [2, 0, 1]);

    // What a later release wrote is not understood: nobody is let through for that.
    let later = PoolStandings {
        format: FORMAT + 1,
        ..bench.record.clone()
    };
    assert!(standings.know(&config, &[later]));
    assert_eq!(ways(&standings, &config, "shared"), ["unknown"; 4]);
}

#[test]
fn time_is_waited_for_only_where_it_changes_something() {
    let config = config();
    let mut standings = Standings::default();
    let mut bench = Bench::of("shared");
    bench.step(&seen("one"));
    standings.know(&config, std::slice::from_ref(&bench.record));
    assert_eq!(standings.next_wake(), None, "its deliveries are missing");
    bench.step(&delivered("one", 10));
    standings.know(&config, std::slice::from_ref(&bench.record));
    let due_ms = NOW_MS + 2 * DAY_MS;
    assert_eq!(standings.next_wake(), Some(due_ms));
    assert!(standings.due(&config, due_ms - 1).is_empty());
    assert_eq!(standings.due(&config, due_ms + 1), ["shared"]);
    assert_eq!(standings.due(&config, due_ms), ["shared"]);
    let numbers = standings.moves_after("shared", 0).map(|moved| moved.number);
    assert_eq!(numbers.collect::<Vec<_>>(), [1]);
    assert_eq!(standings.moves_after("shared", 1).count(), 0);
}

/// A pool that keeps nobody apart.
fn simple() -> Snapshot {
    with_tenants(
        "
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: { name: simple }
spec: { sources: [ { name: a } ] }
",
    )
}

#[test]
fn standings_are_looked_at_only_where_somebody_is_kept_apart() {
    let mut standings = Standings::default();
    standings.configure(&config());
    assert!(standings.is_needed(), "the documents keep tenants apart");
    let config = simple();
    standings.configure(&config);
    assert!(!standings.is_needed());

    let mut bench = Bench {
        config: simple(),
        record: no_standings("simple"),
        now_ms: NOW_MS,
    };
    let pool = config.pool("simple").unwrap();
    bench.decide("one", Decided::Quarantine { until_ms: 0 });
    assert!(standings.know(&config, std::slice::from_ref(&bench.record)));
    assert!(standings.is_needed());
    // There is no pool for those.
    let waits = Way::Waits(Waits::Quarantine(&bench.record.tenants[0]));
    assert_eq!(standings.way(pool, "one"), waits);
    bench.decide("one", Decided::Release);
    assert!(standings.know(&config, std::slice::from_ref(&bench.record)));
    assert!(!standings.is_needed(), "it is a member");

    let later = PoolStandings {
        format: FORMAT + 1,
        ..bench.record
    };
    assert!(standings.know(&config, &[later]));
    assert!(standings.is_needed());
    let unknown = Way::Waits(Waits::Unknown);
    assert_eq!(standings.way(pool, "one"), unknown);
    assert_eq!(standings.way_of_moved(pool, "one"), unknown);
}

#[test]
fn knows_when_a_way_changes() {
    let config = config();
    let mut standings = Standings::default();
    let (mut shared, mut plain) = (Bench::of("shared"), Bench::of("plain"));
    shared.decide("one", Decided::Probation);
    plain.decide("one", Decided::Quarantine { until_ms: 0 });
    let records = |shared: &Bench, plain: &Bench| [shared.record.clone(), plain.record.clone()];
    assert!(standings.know(&config, &records(&shared, &plain)));
    let mut pools: Vec<&str> = standings.pools().collect();
    pools.sort_unstable();
    assert_eq!(pools, ["plain", "shared"]);
    assert!(!standings.know(&config, &records(&shared, &plain)));
    // Another standing, another tenant, one more, one less, one pool less.
    shared.decide("one", Decided::Quarantine { until_ms: 0 });
    assert!(standings.know(&config, &records(&shared, &plain)));
    shared.record.tenants[0].tenant = "three".to_owned();
    assert!(standings.know(&config, &records(&shared, &plain)));
    shared.decide("two", Decided::Admit);
    assert!(standings.know(&config, &records(&shared, &plain)));
    assert_eq!(standings.count(), [0, 1, 2]);
    shared.decide("two", Decided::Forget);
    assert!(standings.know(&config, &records(&shared, &plain)));
    assert!(standings.know(&config, &[shared.record.clone()]));
    // That it can't be read is another way, and that it can again.
    let later = PoolStandings {
        format: FORMAT + 1,
        ..plain.record.clone()
    };
    assert!(standings.know(&config, &[shared.record.clone(), later.clone()]));
    assert!(!standings.know(&config, &[shared.record.clone(), later]));
    assert!(standings.know(&config, &[shared.record.clone()]));
}

#[test]
fn a_place_that_becomes_free_is_another_way() {
    let config = config();
    let mut standings = Standings::default();
    let mut bench = Bench::of("shared");
    for tenant in ["one", "two", "three"] {
        bench.now_ms += 1;
        bench.step(&seen(tenant));
    }
    standings.know(&config, std::slice::from_ref(&bench.record));
    // Who came last is the first now: nothing else changes.
    bench.record.tenants.iter_mut().for_each(|standing| {
        if standing.tenant == "three" {
            standing.since_ms = 1;
        }
    });
    assert!(standings.know(&config, std::slice::from_ref(&bench.record)));
    let expected = ["own", "newcomers", "newcomers has 2", "newcomers"];
    assert_eq!(ways(&standings, &config, "shared"), expected);
}
