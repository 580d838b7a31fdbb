//! Recipients that nothing is sent to any more.

use proto::suppression::change::Kind;
use proto::suppression::{Change, Entry, Reason, Removal};
use suppress::Table;

use super::*;

const TENANT: &str = "---
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: bravo }
spec: { defaultStream: mail, streams: [ { name: mail }, { name: receipts, transactional: true } ] }
";

fn desk(credit: u32) -> (Desk, Arc<Table>) {
    let mut desk = Desk::new(credit);
    let table = Arc::new(Table::new(address_keys()));
    let config = documents(&(route("port: 25") + TENANT));
    desk.machine.suppressed = Some(Arc::clone(&table));
    desk.step(Input::Config(config));
    (desk, table)
}

fn apply(table: &Table, address: &str, stream: &str, kind: Kind) {
    let change = Change {
        key: table.keys().of(address).unwrap().to_vec().into(),
        tenant: "bravo".to_owned(),
        stream: stream.to_owned(),
        kind: Some(kind),
        ..Change::default()
    };
    table.apply(&change, START_MS);
}

fn entry(reason: Reason) -> Kind {
    Kind::Entry(Entry {
        reason: reason.into(),
        ..Entry::default()
    })
}

fn message(desk: &mut Desk, user: &str, stream: &str) {
    desk.message_with("one.example", |envelope| {
        envelope.tenant = "bravo".to_owned();
        envelope.stream = stream.to_owned();
        envelope.recipients[0].address = format!("{user}@one.example");
    });
}

/// Whether a message to `user@one.example` is sent; it is delivered then.
fn is_sent(desk: &mut Desk, stream: &str) -> bool {
    message(desk, "user", stream);
    let assigned = desk.assignments();
    for assignment in &assigned {
        desk.report(assignment.delivery.as_ref().unwrap(), Stage::FinalDot, 250);
    }
    !assigned.is_empty()
}

#[test]
fn nothing_is_sent_to_whom_the_table_names_from_then_on() {
    let (mut desk, table) = desk(10);
    let first = desk.assigned().delivery.unwrap();
    desk.report(&first, Stage::FinalDot, 250);
    assert!(is_sent(&mut desk, "mail"));
    apply(&table, "User@ONE.example", "mail", entry(Reason::Hard));
    assert!(!is_sent(&mut desk, "mail"));
    assert!(is_sent(&mut desk, "receipts"));
    assert_eq!(desk.machine.counts().with(Disposition::Suppressed), 1);
    apply(
        &table,
        "user@one.example",
        "mail",
        Kind::Removal(Removal::default()),
    );
    assert!(is_sent(&mut desk, "mail"));
    // Nothing was kept of what was not sent.
    assert_nothing_leaked(&mut desk, 10);
}

#[test]
fn complaints_do_not_keep_transactional_mail_back() {
    let (mut desk, table) = desk(10);
    let first = desk.assigned().delivery.unwrap();
    desk.report(&first, Stage::FinalDot, 250);
    apply(&table, "user@one.example", "", entry(Reason::Complaint));
    assert!(is_sent(&mut desk, "receipts"));
    assert!(!is_sent(&mut desk, "mail"));
    apply(&table, "user@one.example", "", entry(Reason::Manual));
    assert!(!is_sent(&mut desk, "receipts"));
}

#[test]
fn it_is_asked_when_a_delivery_leaves_and_not_when_it_lines_up() {
    let (mut desk, table) = desk(1);
    let first = desk.assigned().delivery.unwrap();
    // Its sender has no more credit: these wait in their lane.
    message(&mut desk, "user", "mail");
    message(&mut desk, "other", "mail");
    assert!(desk.assignments().is_empty());
    apply(&table, "user@one.example", "mail", entry(Reason::Hard));
    desk.report(&first, Stage::FinalDot, 250);
    assert_eq!(desk.assignments().len(), 1);
    assert_eq!(desk.machine.counts().with(Disposition::Suppressed), 1);
}
