//! Recipients that nothing is sent to any more.

use proto::journal::{Disposition, Outcome, Reply};

use super::*;

fn suppress(desk: &mut Desk, key: Key, names: &[&str]) -> bool {
    let keys = suppress::Keys::new(SECRET);
    let named: Vec<u64> = names
        .iter()
        .filter_map(|name| keys.short_of(name))
        .collect();
    let now_ms = desk.now_ms;
    let all = desk
        .intake
        .suppress(now_ms, key, |tenant, stream, address| {
            assert_eq!((tenant, stream), ("acme", "mail"));
            named.contains(&address).then(|| Reply {
                enhanced: "5.7.1".to_owned(),
                ..Reply::default()
            })
        });
    desk.drain();
    all
}

fn dispositions(outcomes: &[Outcome]) -> Vec<(u32, Disposition, bool)> {
    let recipients = outcomes.iter().flat_map(|outcome| &outcome.recipients);
    recipients
        .map(|of| (of.ordinal, of.disposition(), of.dsn_owed))
        .collect()
}

#[test]
fn those_that_are_suppressed_end_and_the_others_go_on() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@x.example", "b@x.example", "c@x.example"]);
    let key = desk.ready[0];
    assert!(!suppress(&mut desk, key, &["other@x.example"]));
    assert!(!suppress(&mut desk, key, &["B@x.example"]));
    let delivery = desk.assign();
    assert_eq!(delivery.ordinals, [0, 2]);
    // What is at a sender is not touched.
    assert!(!suppress(&mut desk, key, &["a@x.example"]));
    desk.begin(&delivery);
    desk.settle();
    desk.report(
        &delivery,
        &[(0, Verdict::Delivered), (2, Verdict::Transient)],
    );
    desk.settle();
    // Before the next attempt it is asked again.
    desk.pass(86_000_000);
    let key = *desk.ready.last().unwrap();
    assert!(suppress(&mut desk, key, &["c@x.example"]));
    desk.settle();
    assert!(!desk.is_live(id));
    let found = dispositions(&desk.outcomes());
    assert_eq!(
        found,
        [
            (1, Disposition::Suppressed, false),
            (0, Disposition::Delivered, false),
            (2, Disposition::Deferred, false),
            (2, Disposition::Suppressed, false),
        ]
    );
}

#[test]
fn only_who_asked_with_notify_is_told() {
    const FAILURE: u32 = 4;
    const NEVER: u32 = 1;
    for (notify, owed) in [(0, false), (NEVER, false), (FAILURE, true)] {
        let mut desk = Desk::new();
        let id = desk.id();
        let mut entry = entry(id, &["a@x.example"]);
        entry.envelope.as_mut().unwrap().recipients[0].notify = notify;
        desk.accept(vec![entry]);
        let key = desk.ready[0];
        assert!(suppress(&mut desk, key, &["a@x.example"]));
        desk.settle();
        let found = dispositions(&desk.outcomes());
        assert_eq!(found, [(0, Disposition::Suppressed, owed)], "{notify}");
        assert_eq!(desk.is_live(id), owed);
    }
}

#[test]
fn addresses_are_known_after_a_take_over_from_a_snapshot_and_from_blocks() {
    for snapshot in [false, true] {
        let mut desk = Desk::new();
        desk.message(&["a@x.example", "b@x.example"]);
        desk.message(&["c@x.example"]);
        desk.settle();
        if snapshot {
            desk.intake.begin_snapshot();
            desk.settle();
            // Only what the snapshot says is known of them.
            desk.stores.blocks.clear();
        }
        desk.crash();
        desk.tick();
        let keys = std::mem::take(&mut desk.ready);
        assert_eq!(keys.len(), 2);
        for key in keys {
            suppress(&mut desk, key, &["b@x.example", "c@x.example"]);
        }
        desk.settle();
        let found = dispositions(&desk.outcomes());
        let ended: Vec<u32> = found.iter().map(|(ordinal, _, _)| *ordinal).collect();
        let mut sorted = ended.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, [0, 1], "{snapshot}");
    }
}

#[test]
fn without_keys_nobody_is_suppressed() {
    let mut desk = Desk::new();
    desk.intake.keys = None;
    desk.message(&["a@x.example"]);
    let key = desk.ready[0];
    assert!(!suppress(&mut desk, key, &["a@x.example"]));
    assert_eq!(desk.assign().ordinals, [0]);
}
