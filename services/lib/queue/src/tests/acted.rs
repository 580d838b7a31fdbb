//! What is done about replies outlives its owner.

use proto::journal::{Acted, ActedOn};
use proto::standing::Move;

use super::*;

fn acted(rule: &str, tenant: &str, until_ms: u64) -> Acted {
    Acted {
        rule: rule.to_owned(),
        subject: Some(ActedOn {
            tenant: tenant.to_owned(),
            ..ActedOn::default()
        }),
        until_ms,
        ..Acted::default()
    }
}

fn known(desk: &Desk) -> Vec<(&str, u64)> {
    let acts = desk.intake.acts().iter();
    acts.map(|acted| (acted.rule.as_str(), acted.until_ms))
        .collect()
}

#[test]
fn what_is_done_is_found_again_in_the_journal_and_in_snapshots() {
    let mut desk = Desk::new();
    let end = desk.now_ms + 1_000_000;
    desk.intake.acted(desk.now_ms, acted("one/0", "a", end));
    desk.intake.acted(desk.now_ms, acted("two/0", "a", end));
    desk.settle();
    desk.intake.begin_snapshot();
    desk.settle();
    desk.crash();
    assert_eq!(known(&desk), [("one/0", end), ("two/0", end)]);

    // Replay begins at the snapshot now; what came after it counts too.
    let mut ended = acted("two/0", "a", end);
    ended.ended = true;
    desk.intake.acted(desk.now_ms, acted("one/0", "a", end + 1));
    desk.intake.acted(desk.now_ms, acted("one/0", "b", end));
    desk.intake.acted(desk.now_ms, ended);
    desk.settle();
    desk.crash();
    assert_eq!(known(&desk), [("one/0", end + 1), ("one/0", end)]);

    // What is over is not carried on.
    desk.intake.acted(end, acted("three/0", "a", end + 9));
    assert_eq!(known(&desk), [("one/0", end + 1), ("three/0", end + 9)]);
}

#[test]
fn a_move_of_a_tenant_is_noted_once() {
    let mut desk = Desk::new();
    let moved = |pool: &str, number| Move {
        pool: pool.to_owned(),
        number,
        ..Move::default()
    };
    desk.intake.standing_moved(desk.now_ms, &moved("shared", 1));
    desk.intake.standing_moved(desk.now_ms, &moved("shared", 2));
    desk.intake.standing_moved(desk.now_ms, &moved("other", 7));
    desk.settle();
    desk.intake.begin_snapshot();
    desk.settle();
    desk.intake.standing_moved(desk.now_ms, &moved("shared", 3));
    desk.settle();
    desk.crash();
    let last = |desk: &Desk| ["shared", "other", "third"].map(|pool| desk.intake.last_move(pool));
    assert_eq!(last(&desk), [3, 7, 0]);
    desk.intake.standing_moved(desk.now_ms, &moved("shared", 2));
    assert_eq!(last(&desk), [3, 7, 0]);
}

#[test]
fn knows_whom_an_attempt_is_about_as_long_as_its_delivery_lives() {
    let mut desk = Desk::new();
    desk.message(&["a@one.example"]);
    let delivery = desk.attempt(Verdict::Transient);
    let about = Some(("acme", "mail", "one.example"));
    assert_eq!(desk.intake.about(&delivery), about);
    desk.pass(60_000);
    let delivery = desk.attempt(Verdict::Delivered);
    assert_eq!(desk.intake.about(&delivery), None);
}
