//! How deliveries stand, for those who ask.

use super::*;

fn found(desk: &Desk, which: &Which, limit: usize) -> Vec<(MessageId, String)> {
    let standings = desk.intake.standings(which, limit).into_iter();
    let mut found: Vec<_> = standings
        .map(|standing| (standing.id, standing.domain.to_owned()))
        .collect();
    found.sort_by(|a, b| a.1.cmp(&b.1));
    found
}

#[test]
fn those_of_a_message_of_a_domain_or_of_a_tenant_are_found() {
    let mut desk = Desk::new();
    let first = desk.message(&["a@one.example", "a@two.example"]);
    let other = desk.id();
    let mut of_other = entry(other, &["a@three.example"]);
    of_other.envelope.as_mut().unwrap().tenant = "other".into();
    desk.accept(vec![of_other]);
    let named = |id, domain: &str| (id, domain.to_owned());
    let (one, two) = (named(first, "one.example"), named(first, "two.example"));
    let three = named(other, "three.example");
    let table = [
        (Which::Message(first), vec![one.clone(), two.clone()]),
        (Which::Message(other), vec![three.clone()]),
        (Which::Domain("two.example".into()), vec![two.clone()]),
        (Which::Domain("three.example".into()), vec![three.clone()]),
        (Which::Domain("four.example".into()), vec![]),
        (Which::Tenant("acme".into()), vec![one, two]),
        (Which::Tenant("other".into()), vec![three]),
        (Which::Tenant("nobody".into()), vec![]),
    ];
    for (which, expected) in table {
        assert_eq!(found(&desk, &which, 9), expected, "{which:?}");
        assert_eq!(found(&desk, &which, 1).len(), expected.len().min(1));
    }
}

#[test]
fn each_says_what_it_waits_for() {
    let mut desk = Desk::new();
    let wait = |desk: &Desk, id| desk.intake.standings(&Which::Message(id), 9)[0].wait;
    let held = desk.id();
    let mut on_hold = entry(held, &["a@one.example"]);
    on_hold.envelope.as_mut().unwrap().hold = true;
    desk.accept(vec![on_hold]);
    assert_eq!(wait(&desk, held), Wait::Held);

    let deferred = desk.message(&["a@one.example"]);
    assert_eq!(wait(&desk, deferred), Wait::Ready);
    desk.attempt(Verdict::Transient);
    assert_eq!(wait(&desk, deferred), Wait::Until(START_MS + 60_000));

    let damaged = desk.message(&["a@one.example"]);
    let delivery = desk.assign();
    assert_eq!(wait(&desk, damaged), Wait::AtSender(SESSION, None));
    let place = desk.place_of(damaged);
    desk.intake
        .unreadable(START_MS, SESSION, &delivery, place, "damaged");
    assert_eq!(wait(&desk, damaged), Wait::Quarantined);

    let begun = desk.message(&["a@one.example"]);
    let delivery = desk.assign();
    desk.begin(&delivery);
    let at_sender = Wait::AtSender(SESSION, Some(START_MS));
    assert_eq!(wait(&desk, begun), at_sender);
    desk.intake.session_gone(START_MS, SESSION);
    let doubt_ms = START_MS + 600_000 + Settings::default().in_doubt_margin_ms;
    assert_eq!(wait(&desk, begun), Wait::InDoubt(Some(doubt_ms)));
}

#[test]
fn the_delivery_of_an_attempt_is_found_while_that_is_the_present_one() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example"]);
    let delivery = desk.assign();
    let found = |desk: &Desk| {
        let standing = desk.intake.standing_of_attempt(&delivery)?;
        Some((standing.id, standing.recipients))
    };
    assert_eq!(found(&desk), Some((id, 1)));
    desk.intake.returned(SESSION, &delivery, START_MS);
    assert_eq!(found(&desk), None);
}

#[test]
fn a_message_owes_a_dsn_from_its_failure_until_that_is_spooled() {
    let mut desk = Desk::new();
    let id = desk.message(&["a@one.example"]);
    assert!(!desk.intake.owes_dsn(&id));
    desk.attempt(Verdict::Permanent);
    assert!(desk.intake.owes_dsn(&id));
    let dsn = desk.id();
    desk.accept(vec![notification(dsn, id, &[0])]);
    assert!(!desk.intake.owes_dsn(&id));
}
