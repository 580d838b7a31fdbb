//! DSNs that are owed.

use super::*;

/// A bounced message, its DSN's id.
fn bounced(desk: &mut Desk) -> (MessageId, MessageId) {
    let id = desk.message(&["a@one.example", "b@one.example"]);
    desk.attempt(Verdict::Permanent);
    desk.settle();
    let dsn = desk.id();
    (id, dsn)
}

#[test]
fn a_message_stays_live_until_its_dsn_is_spooled() {
    let mut desk = Desk::new();
    let (id, dsn) = bounced(&mut desk);
    desk.pass(10_000);
    assert!(desk.is_live(id));
    assert_eq!(
        (desk.intake.totals().dsn_owed, desk.trimmed_below()),
        (2, 0)
    );
    let sequence = desk.accept(vec![notification(dsn, id, &[0, 1])]);
    assert!(!desk.is_live(id));
    assert!(desk.is_live(dsn));
    desk.settle();
    desk.pass(10_000);
    assert_eq!(desk.trimmed_below(), sequence);
    assert!(
        desk.entries()
            .iter()
            .any(|kind| matches!(kind, Kind::DsnSpooled(_)))
    );
    desk.attempt(Verdict::Permanent);
    desk.settle();
    assert!(!desk.is_live(dsn), "no DSN about a DSN");
}

#[test]
fn the_original_leaves_the_spool_only_after_dsn_spooled_is_stored() {
    let mut desk = Desk::new();
    let (id, dsn) = bounced(&mut desk);
    desk.accept(vec![notification(dsn, id, &[0, 1])]);
    desk.pass(10_000);
    assert_eq!(desk.trimmed_below(), 0);
    desk.settle();
    desk.pass(10_000);
    assert_eq!(desk.trimmed_below(), 2);
}

#[test]
fn a_dsn_about_one_of_two_leaves_the_other_owed() {
    let mut desk = Desk::new();
    let (id, dsn) = bounced(&mut desk);
    desk.accept(vec![notification(dsn, id, &[1])]);
    assert!(desk.is_live(id));
    assert_eq!(desk.intake.totals().dsn_owed, 1);
    let other = desk.id();
    desk.accept(vec![notification(other, id, &[0])]);
    assert!(!desk.is_live(id));
    assert!(desk.is_live(other));
}

#[test]
fn a_dsn_that_is_spooled_twice_is_delivered_once() {
    let mut desk = Desk::new();
    let (id, dsn) = bounced(&mut desk);
    desk.accept(vec![notification(dsn, id, &[0, 1])]);
    desk.accept(vec![notification(dsn, id, &[0, 1])]);
    assert_eq!(desk.intake.totals().messages, 1);
    desk.attempt(Verdict::Delivered);
    desk.accept(vec![notification(dsn, id, &[0, 1])]);
    desk.settle();
    assert_eq!(desk.intake.totals().messages, 0);
    assert_eq!(desk.assign_to(SESSION), None);
}

#[test]
fn a_dsn_nobody_waits_for_has_no_effect() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example"]);
    let (early, stranger, unknown) = (desk.id(), desk.id(), desk.id());
    desk.accept(vec![
        notification(early, id, &[0]),
        notification(stranger, unknown, &[0]),
    ]);
    assert!(!desk.is_live(early));
    assert!(!desk.is_live(stranger));
}

#[test]
fn recovery_knows_what_is_owed_and_which_dsn_is_spooled() {
    for with_snapshot in [false, true] {
        let mut desk = Desk::new();
        let (id, dsn) = bounced(&mut desk);
        if with_snapshot {
            desk.intake.begin_snapshot();
            desk.settle();
        }
        desk.crash();
        assert!(desk.is_live(id));
        assert_eq!(desk.intake.totals().dsn_owed, 2);
        // Spooled while nobody owned the partition.
        desk.stores.put(block(vec![notification(dsn, id, &[0, 1])]));
        desk.crash();
        assert!(!desk.is_live(id));
        assert!(desk.is_live(dsn));
        desk.settle();
        if with_snapshot {
            desk.intake.begin_snapshot();
            desk.settle();
        }
        desk.crash();
        assert!(!desk.is_live(id));
        assert!(desk.is_live(dsn));
    }
}

#[test]
fn a_dsn_finds_its_original_whose_copy_comes_after_it() {
    let mut desk = Desk::new();
    let (id, dsn) = bounced(&mut desk);
    let original = desk.stores.blocks.remove(&1).unwrap();
    // Not read by this owner any more.
    desk.stores.put(block(vec![notification(dsn, id, &[0, 1])]));
    let copy = desk.stores.put(BlockIndex {
        flags: 1,
        ..original
    });
    desk.intake.copied(desk.intake.epoch(), copy, &[id]);
    desk.settle();
    desk.crash();
    assert!(!desk.is_live(id));
    assert!(desk.is_live(dsn));
    desk.settle();
    desk.crash();
    assert!(!desk.is_live(id));
    assert!(desk.is_live(dsn));
}

#[test]
fn nobody_is_told_of_a_relay_to_the_null_return_path_and_nothing_waits() {
    for with_crash in [false, true] {
        let mut desk = Desk::new();
        let id = desk.id();
        let mut null = entry(id, &["a@one.example"]);
        let envelope = null.envelope.as_mut().unwrap();
        envelope.return_path.clear();
        envelope.recipients[0].notify = 2;
        desk.accept(vec![null]);
        let delivery = desk.assign();
        desk.begin(&delivery);
        desk.settle();
        if with_crash {
            desk.crash();
        }
        desk.report(&delivery, &[(0, Verdict::Relayed)]);
        desk.settle();
        assert_eq!(desk.intake.totals().dsn_owed, 0);
        assert!(!desk.is_live(id), "{with_crash}");
    }
}

#[test]
fn what_was_relayed_waits_for_its_notice_and_is_no_failure_after_a_restart_either() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example", "b@one.example"]);
    let delivery = desk.assign();
    desk.begin(&delivery);
    desk.settle();
    desk.report(&delivery, &[(0, Verdict::Relayed), (1, Verdict::Permanent)]);
    desk.settle();
    let owed: Vec<(bool, bool)> = desk
        .entries()
        .into_iter()
        .find_map(|kind| match kind {
            Kind::Outcome(outcome) => Some(outcome.recipients),
            _ => None,
        })
        .unwrap()
        .iter()
        .map(|of| (of.dsn_owed, of.relay_owed))
        .collect();
    assert_eq!(owed, [(false, true), (true, false)]);
    assert_eq!(desk.intake.totals().dsn_owed, 2);
    let dsn = desk.id();
    desk.accept(vec![notification(dsn, id, &[0])]);
    assert!(desk.is_live(id) && desk.is_live(dsn));
    let other = desk.id();
    desk.accept(vec![notification(other, id, &[1])]);
    assert!(!desk.is_live(id));
}
