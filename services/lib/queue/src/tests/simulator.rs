//! Recipients for which the simulator answers.

use proto::envelope::Simulated;
use proto::journal::{Disposition, Simulation};

use super::*;

/// To recipients of the simulator, each with its answers, and to `others`.
fn message(desk: &mut Desk, answers: &[Simulated], others: &[&str]) -> MessageId {
    let id = desk.id();
    let addresses: Vec<String> = (0..answers.len())
        .map(|number| format!("s{number}@simulator.example"))
        .collect();
    let mut all: Vec<&str> = addresses.iter().map(String::as_str).collect();
    all.extend(others);
    let mut entry = entry(id, &all);
    entry.flags = 1;
    let envelope = entry.envelope.as_mut().unwrap();
    for (recipient, answers) in envelope.recipients.iter_mut().zip(answers) {
        recipient.simulated = Some(answers.clone());
    }
    desk.accept(vec![entry]);
    id
}

/// Of the sandbox, to anybody.
fn sandboxed(desk: &mut Desk, change: impl FnOnce(&mut Envelope)) -> MessageId {
    let id = desk.id();
    let mut entry = entry(id, &["a@one.example", "b@one.example"]);
    entry.flags = 1;
    let envelope = entry.envelope.as_mut().unwrap();
    envelope.sandbox = true;
    change(envelope);
    desk.accept(vec![entry]);
    id
}

fn answers(code: u32, enhanced: &str) -> Simulated {
    Simulated {
        code,
        enhanced: enhanced.into(),
        ..Simulated::default()
    }
}

/// Recipient, disposition, code and who answered, of each outcome.
fn results(desk: &mut Desk) -> Vec<(String, Disposition, u32, Simulation)> {
    desk.settle();
    let outcomes = desk.outcomes();
    let of = |outcome: proto::journal::Outcome| {
        let simulation = outcome.simulation();
        outcome.recipients.into_iter().map(move |recipient| {
            let code = recipient.reply.as_ref().map_or(0, |reply| reply.code);
            let disposition = recipient.disposition();
            (recipient.address, disposition, code, simulation)
        })
    };
    outcomes.into_iter().flat_map(of).collect()
}

/// Nothing was ever for the lanes, and nobody is told anything.
fn nothing_left(desk: &mut Desk) {
    assert!(desk.ready.is_empty());
    let left = |effect: &&Effect| matches!(effect, Effect::Ready(_) | Effect::Permit(..));
    let left = desk.seen.iter().find(left);
    assert!(left.is_none(), "{left:?}");
}

#[test]
fn answers_as_the_address_says_and_hands_nothing_to_the_lanes() {
    let mut desk = Desk::new();
    let id = message(
        &mut desk,
        &[answers(250, "2.0.0"), answers(552, "5.2.2")],
        &[],
    );
    let simulation = Simulation::Recipient;
    assert_eq!(
        results(&mut desk),
        [
            (
                "s0@simulator.example".into(),
                Disposition::Delivered,
                250,
                simulation
            ),
            (
                "s1@simulator.example".into(),
                Disposition::Bounced,
                552,
                simulation
            ),
        ]
    );
    nothing_left(&mut desk);
    let owed = &desk.outcomes()[1].recipients[0];
    assert!(owed.dsn_owed && desk.is_live(id));
    let counted = |is: fn(&Counted) -> bool| {
        let counts = desk.seen.iter().filter_map(|effect| match effect {
            Effect::Counted(counted) => Some(counted),
            _ => None,
        });
        counts.filter(|counted| is(counted)).count()
    };
    assert_eq!(counted(|of| matches!(of, Counted::Simulated(_))), 2);
    assert_eq!(counted(|of| matches!(of, Counted::Recipient(_))), 0);
    let dsn = desk.id();
    desk.accept(vec![notification(dsn, id, &[1])]);
    desk.settle();
    assert!(!desk.is_live(id));
}

#[test]
fn defers_by_the_schedule_and_accepts_then_whoever_owns_the_partition() {
    let mut desk = Desk::new();
    let twice = Simulated {
        deferrals: 2,
        ..answers(250, "2.0.0")
    };
    message(&mut desk, &[twice], &[]);
    for (wait_ms, expected) in [
        (0, Disposition::Deferred),
        (60_000, Disposition::Deferred),
        (120_000, Disposition::Delivered),
    ] {
        desk.settle();
        desk.intake.begin_snapshot();
        desk.settle();
        desk.crash();
        desk.pass(wait_ms);
        // Overdue retries are spread at a take-over.
        desk.pass(5_000);
        let (.., last, _, _) = results(&mut desk).pop().unwrap();
        assert_eq!(last, expected);
    }
    nothing_left(&mut desk);
}

#[test]
fn defers_until_the_maximum_age() {
    let mut desk = Desk::new();
    let id = message(&mut desk, &[answers(451, "4.3.0")], &[]);
    for _ in 0..48 {
        desk.pass(HOUR_MS);
    }
    let results = results(&mut desk);
    assert!(results.len() > 5);
    assert_eq!(results.last().unwrap().1, Disposition::Expired);
    assert!(desk.is_live(id), "a DSN is owed");
}

const HOUR_MS: u64 = 3_600_000;

#[test]
fn is_slow_with_its_first_answer() {
    let mut desk = Desk::new();
    let slow = Simulated {
        after_ms: 30_000,
        ..answers(250, "2.0.0")
    };
    message(&mut desk, &[slow], &[]);
    desk.pass(29_999);
    assert_eq!(results(&mut desk), []);
    desk.crash();
    desk.pass(1);
    assert_eq!(results(&mut desk).len(), 1);
}

#[test]
fn others_of_the_message_go_their_way() {
    let mut desk = Desk::new();
    let id = message(&mut desk, &[answers(250, "2.0.0")], &["a@one.example"]);
    let delivery = desk.attempt(Verdict::Delivered);
    assert_eq!(delivery.ordinals, [1]);
    desk.settle();
    assert!(!desk.is_live(id));
    let outcomes = desk.outcomes();
    let simulations: Vec<_> = outcomes.iter().map(|of| of.simulation()).collect();
    assert_eq!(simulations, [Simulation::Recipient, Simulation::None]);
}

#[test]
fn the_sandbox_accepts_whatever_there_is_and_stays_the_sandbox() {
    let mut desk = Desk::new();
    sandboxed(&mut desk, |envelope| envelope.hold = true);
    desk.settle();
    desk.intake.begin_snapshot();
    desk.settle();
    desk.crash();
    desk.pass(HOUR_MS);
    assert_eq!(results(&mut desk), []);
    assert_eq!(desk.intake.rows()[0].simulated, 2);
    desk.release();
    let of = |address: &str| {
        let simulation = Simulation::Sandbox;
        (address.to_owned(), Disposition::Delivered, 250, simulation)
    };
    let mut results = results(&mut desk);
    results.sort_by(|one, other| one.0.cmp(&other.0));
    assert_eq!(results, [of("a@one.example"), of("b@one.example")]);
    nothing_left(&mut desk);
}

#[test]
fn what_is_said_of_the_sandbox_as_a_whole_says_so() {
    let mut desk = Desk::new();
    desk.rules.longest_hold.most_ms = HOUR_MS;
    let id = sandboxed(&mut desk, |envelope| {
        envelope.hold = true;
        envelope.deliver_by_ms = 1;
    });
    desk.pass(HOUR_MS);
    let results = results(&mut desk);
    assert_eq!(results.len(), 2);
    assert!(results.iter().all(|of| of.3 == Simulation::Sandbox));
    let dsn = desk.id();
    let mut entry = notification(dsn, id, &[0, 1]);
    entry.flags = 1;
    entry.envelope.as_mut().unwrap().sandbox = true;
    desk.accept(vec![entry]);
    desk.settle();
    assert!(!desk.is_live(id) && !desk.is_live(dsn));
    nothing_left(&mut desk);
    let is_told = |kind: &Kind| matches!(kind, Kind::DsnSpooled(told) if told.sandbox);
    assert!(desk.entries().iter().any(is_told));
}

#[test]
fn a_begin_whose_outcome_is_lost_is_in_no_doubt() {
    let mut desk = Desk::with(Settings {
        journal_linger_ms: 0,
        ..Settings::default()
    });
    let id = message(&mut desk, &[answers(250, "2.0.0")], &[]);
    desk.settle();
    // Only the begin was stored: the last record says no more than that.
    let begin = desk
        .entries()
        .into_iter()
        .find(|kind| matches!(kind, Kind::Begin(_)))
        .unwrap();
    let mut other = Desk::new();
    other.numbers = desk.numbers;
    let index = desk.stores.blocks[&1].clone();
    other.intake.log(begin, crate::intake::Gate::Nothing);
    other.settle();
    other.stores.put(index);
    other.crash();
    assert_eq!(other.intake.in_doubt(), 0);
    other.settle();
    assert!(!other.is_live(id));
    assert_eq!(other.outcomes().len(), 1);
}

#[test]
fn a_release_that_does_not_know_it_would_let_it_wait() {
    let mut desk = Desk::new();
    sandboxed(&mut desk, |envelope| envelope.hold = true);
    desk.settle();
    desk.intake.begin_snapshot();
    desk.settle();
    let flags = |kind| match kind {
        Kind::SnapshotPart(part) => Some(part.messages[0].flags),
        _ => None,
    };
    let flags = desk.entries().into_iter().find_map(flags).unwrap();
    assert_eq!(flags & 1, 1, "as if in quarantine");
    desk.crash();
    let standings = desk.intake.slice(0, u32::MAX).0;
    assert!(standings.iter().all(|of| of.wait == Wait::Held));
    assert!(standings.iter().all(|of| of.is_simulated));
}
