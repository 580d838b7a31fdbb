//! From blocks to deliveries.

use super::*;

/// The groups of recipients, by ordinals.
fn groups(recipients: Vec<Recipient>, change: impl FnOnce(&mut Envelope)) -> Vec<(Vec<u16>, bool)> {
    let mut desk = Desk::new();
    let id = desk.id();
    let mut entry = entry(id, &[]);
    let envelope = entry.envelope.as_mut().unwrap();
    envelope.recipients = recipients;
    change(envelope);
    desk.accept(vec![entry]);
    let live = &desk.intake.live;
    let mut groups: Vec<_> = live
        .deliveries_of(live.find(&id).unwrap())
        .into_iter()
        .map(|slot| {
            let delivery = live.deliveries.get(slot).unwrap();
            (live.ordinals(slot).to_vec(), delivery.wants_dsn())
        })
        .collect();
    groups.sort();
    groups
}

fn to(address: &str) -> Recipient {
    Recipient {
        address: address.into(),
        ..Recipient::default()
    }
}

#[test]
fn recipients_of_one_domain_share_a_delivery_whatever_the_case() {
    let recipients = vec![
        to("a@one.example"),
        to("b@two.example"),
        to("c@ONE.example"),
        to("\"x@y\"@two.example"),
    ];
    assert_eq!(
        groups(recipients, |_| {}),
        [(vec![0, 2], true), (vec![1, 3], true)]
    );
}

#[test]
fn an_own_return_path_or_header_variant_makes_an_own_delivery() {
    let verp = |address: &str, path: &str| Recipient {
        return_path: path.into(),
        ..to(address)
    };
    let recipients = vec![
        to("a@one.example"),
        verp("b@one.example", "bounce+b@acme.example"),
        // The same as the envelope's is not another.
        verp("c@one.example", "sender@acme.example"),
        Recipient {
            header_variant: 1,
            ..to("d@one.example")
        },
    ];
    assert_eq!(
        groups(recipients, |_| {}),
        [(vec![0, 2], true), (vec![1], true), (vec![3], true)]
    );
}

#[test]
fn a_failure_is_reported_as_notify_says_and_never_to_the_null_return_path() {
    let notify = |bits: u32| Recipient {
        notify: bits,
        ..to("a@one.example")
    };
    let all = || vec![notify(0), notify(1), notify(2), notify(4), notify(6)];
    assert_eq!(
        groups(all(), |_| {}),
        // Who says nothing of it is told of delays if the stream says so, the others are not.
        [(vec![0], true), (vec![1, 2], false), (vec![3, 4], true)]
    );
    let bulk = groups(all(), |envelope| envelope.stream = "bulk".into());
    assert_eq!(
        bulk,
        [(vec![0], false), (vec![1, 2], false), (vec![3, 4], true)]
    );
    let null = groups(all(), |envelope| envelope.return_path.clear());
    assert_eq!(null, [(vec![0, 1, 2, 3, 4], false)]);
}

#[test]
fn waits_until_not_before_and_holds_what_is_to_be_held() {
    let mut desk = Desk::new();
    let (later, held) = (desk.id(), desk.id());
    let mut one = entry(later, &["a@one.example"]);
    one.envelope.as_mut().unwrap().not_before_ms = START_MS + 5_000;
    let mut other = entry(held, &["a@one.example"]);
    other.envelope.as_mut().unwrap().hold = true;
    desk.accept(vec![one, other]);
    assert_eq!(desk.assign_to(SESSION), None);
    desk.settle();
    assert_eq!(desk.intake.next_wake(), Some(START_MS + 5_000));
    desk.pass(4_999);
    assert_eq!(desk.assign_to(SESSION), None);
    desk.pass(1);
    assert_eq!(desk.assign().message_id, later.as_bytes().to_vec());
    desk.crash();
    desk.pass(86_400_000);
    assert_eq!(desk.states(held)[0].1, State::Held);
}

#[test]
fn a_block_that_cannot_be_read_stays_for_ever_and_its_neighbours_go_on() {
    let mut desk = Desk::new();
    desk.message(&["a@one.example"]);
    let damaged = desk.stores.put(BlockIndex::default());
    desk.intake.damaged_block(damaged, "no index");
    desk.message(&["a@one.example"]);
    desk.attempt(Verdict::Delivered);
    desk.attempt(Verdict::Delivered);
    desk.settle();
    desk.pass(10_000);
    assert_eq!(desk.trimmed_below(), damaged);
    assert_eq!(desk.intake.totals().quarantined, 1);
    let told =
        |kind: &Kind| matches!(kind, Kind::Quarantined(entry) if entry.message_ids.is_empty());
    assert_eq!(desk.entries().iter().filter(|kind| told(kind)).count(), 1);
    // Snapshots carry it.
    desk.intake.begin_snapshot();
    desk.settle();
    desk.stores.blocks.remove(&damaged);
    desk.crash();
    assert_eq!(desk.intake.totals().quarantined, 1);
    desk.settle();
    desk.pass(400_000);
    assert_eq!(desk.trimmed_below(), damaged);
}

#[test]
fn stops_before_a_block_of_a_newer_format() {
    let mut desk = Desk::new();
    let newer = BlockIndex {
        format: 2,
        ..block(vec![])
    };
    let refused = desk.intake.block(START_MS, 1, 1, newer);
    assert_eq!(
        refused,
        Err(BlockError::UnknownFormat {
            sequence: 1,
            format: 2
        })
    );
    assert_eq!(desk.intake.cursor(), 0);
}

#[test]
fn an_entry_with_an_unknown_flag_waits_in_quarantine() {
    let mut desk = Desk::new();
    let id = desk.id();
    desk.accept(vec![IndexEntry {
        flags: 1 << 40,
        ..entry(id, &["a@one.example"])
    }]);
    assert_eq!(desk.assign_to(SESSION), None);
    desk.settle();
    desk.pass(10 * 86_400_000);
    assert_eq!(desk.states(id)[0].1, State::Held);
    assert_eq!(desk.trimmed_below(), 0);
    assert!(
        desk.seen
            .iter()
            .any(|effect| matches!(effect, Effect::Counted(Counted::Quarantined)))
    );
}

#[test]
fn an_entry_without_envelope_quarantines_its_block_and_no_neighbour() {
    let mut desk = Desk::new();
    let (one, other) = (desk.id(), desk.id());
    let nameless = IndexEntry {
        envelope: None,
        ..entry(one, &[])
    };
    let sequence = desk.accept(vec![nameless, entry(other, &["a@one.example"])]);
    desk.attempt(Verdict::Delivered);
    desk.settle();
    desk.pass(10_000);
    assert!(!desk.is_live(other));
    assert!(desk.trimmed_below() <= sequence);
    assert_eq!(desk.intake.totals().quarantined, 1);
}

#[test]
fn a_block_that_is_read_twice_brings_nothing_back() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example"]);
    desk.attempt(Verdict::Delivered);
    desk.settle();
    desk.read(1);
    assert!(!desk.is_live(id));
    assert_eq!(desk.assign_to(SESSION), None);
}

#[test]
fn reads_no_more_blocks_than_the_budget_of_recipients_allows() {
    let mut desk = Desk::with(Settings {
        recipients: 3,
        journal_linger_ms: 0,
        ..Settings::default()
    });
    desk.message(&["a@one.example", "b@one.example"]);
    assert!(desk.intake.wants_blocks());
    desk.message(&["a@one.example"]);
    assert!(!desk.intake.wants_blocks());
    assert_eq!(desk.intake.fullness(), 1.0);
    desk.attempt(Verdict::Delivered);
    assert!(desk.intake.wants_blocks());
}
