//! For each kind of constraint: it is named, and lifting what is named moves the message.

use queue::Which;

use super::*;

fn kinds(desk: &Desk) -> Vec<&'static str> {
    let which = Which::Domain("one.example".into());
    let all = desk.machine.why(desk.now_ms, &which, 100);
    all.iter().map(|one| one.constraint.kind()).collect()
}

fn why(desk: &Desk) -> Constraint {
    let which = Which::Tenant("acme".into());
    let mut all = desk.machine.why(desk.now_ms, &which, 100);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0).constraint
}

fn site() -> SiteNews {
    SiteNews::Site("mx.one.example".into())
}

/// A machine that knows the site, without a sender.
fn without_sender() -> Desk {
    let mut desk = Desk::new(0);
    desk.step(Input::Detached(SESSION));
    desk.step(Input::Attached(SESSION));
    desk.resolve("one.example", site());
    desk
}

fn begin(desk: &mut Desk, delivery: &DeliveryRef) {
    let begin = Begin {
        delivery: Some(delivery.clone()),
        ..Begin::default()
    };
    desk.say(SESSION, FromSender::Begin(begin));
}

#[test]
fn no_route() {
    let mut desk = Desk::new(10);
    desk.resolve("one.example", site());
    desk.step(Input::Config(documents("")));
    desk.message("one.example");
    assert_eq!(why(&desk), Constraint::NoRoute);
    desk.step(Input::Config(documents(&route("port: 25"))));
    desk.now_ms += 60_000;
    desk.renew();
    assert_eq!(desk.assignments().len(), 1);
}

#[test]
fn dns() {
    let mut desk = Desk::new(10);
    desk.message("one.example");
    assert_eq!(why(&desk), Constraint::Dns);
    desk.resolve("one.example", site());
    assert_eq!(desk.assignments().len(), 1);
}

#[test]
fn not_before_and_retry_time() {
    let mut desk = Desk::new(10);
    desk.resolve("one.example", site());
    let at_ms = desk.now_ms + 5_000;
    desk.message_with("one.example", |envelope| envelope.not_before_ms = at_ms);
    assert_eq!(why(&desk), Constraint::NotBefore(at_ms));
    desk.renew();
    desk.pass(4_999);
    assert_eq!(desk.assignments().len(), 0);
    desk.pass(1);
    desk.renew();
    let delivery = desk.assignments().remove(0).delivery.unwrap();
    desk.report(&delivery, Stage::Rcpt, 451);
    let Constraint::RetryTime(at_ms, _) = why(&desk) else {
        panic!("{:?}", why(&desk));
    };
    desk.now_ms = at_ms - 1;
    desk.renew();
    assert_eq!(desk.assignments().len(), 0);
    desk.pass(1);
    assert_eq!(desk.assignments().len(), 1);
}

#[test]
fn a_hold() {
    let mut desk = Desk::new(10);
    desk.resolve("one.example", site());
    desk.message_with("one.example", |envelope| envelope.hold = true);
    assert_eq!(why(&desk).kind(), "hold");
    // Without it the same message leaves.
    desk.message("one.example");
    assert_eq!(desk.assignments().len(), 1);
}

#[test]
fn quarantine() {
    let mut desk = Desk::new(10);
    let assignment = desk.assigned();
    desk.give_back(&assignment.delivery.unwrap(), ReturnReason::Damaged);
    assert_eq!(why(&desk), Constraint::Quarantined);
}

#[test]
fn no_sender_and_no_credit() {
    let mut desk = without_sender();
    desk.message("one.example");
    assert_eq!(why(&desk).kind(), "no-sender");
    let hello = |credit, source: &str| {
        FromSender::Hello(Hello {
            credit,
            sources: vec![source.into()],
            ..Hello::default()
        })
    };
    desk.say(SESSION, hello(10, "other"));
    assert_eq!(why(&desk).kind(), "no-source");
    let other = SessionId(2);
    desk.step(Input::Attached(other));
    desk.say(other, hello(1, "a"));
    assert_eq!(desk.assignments().len(), 1);
    assert_eq!(why(&desk).kind(), "at-sender");
    desk.message("one.example");
    assert_eq!(kinds(&desk), ["at-sender", "sender-credit"]);
    let third = SessionId(3);
    desk.step(Input::Attached(third));
    desk.say(third, hello(1, "a"));
    assert_eq!(desk.assignments().len(), 1);
    assert_eq!(kinds(&desk), ["at-sender", "at-sender"]);
}

#[test]
fn connections() {
    let mut desk = Desk::new(10);
    desk.resolve("one.example", site());
    (0..3).for_each(|_| desk.message("one.example"));
    assert_eq!(kinds(&desk), ["at-sender", "at-sender", "connections"]);
    assert_eq!(desk.machine.sendable(desk.now_ms), 0);
    let delivery = desk.assignments().remove(0).delivery.unwrap();
    begin(&mut desk, &delivery);
    desk.items();
    desk.report(&delivery, Stage::FinalDot, 250);
    assert_eq!(desk.assignments().len(), 1);
}

#[test]
fn a_grant_and_a_rate() {
    let mut desk = Desk::new(10);
    desk.resolve("one.example", site());
    let rate = "---\napiVersion: staffetta.dev/v1alpha1\nkind: Shaping\nmetadata: { name: more }\nspec: { rules: [ { match: { site: mx.one.example }, rate: 10/m } ] }\n";
    desk.step(Input::Config(documents(&(route("port: 25") + rate))));
    desk.message("one.example");
    let asked = |desk: &mut Desk| {
        let asks = |output| match output {
            Output::AskGrant { whose, window, .. } => Some((whose, window)),
            _ => None,
        };
        let seen = std::mem::take(&mut desk.seen);
        seen.into_iter()
            .find_map(asks)
            .expect("a grant is asked for")
    };
    let (whose, window) = asked(&mut desk);
    assert_eq!(why(&desk).kind(), "grant");
    let retry_ms = desk.now_ms + 1_000;
    desk.step(Input::Grant(whose, window, GrantNews::Nothing { retry_ms }));
    assert_eq!(
        (why(&desk).kind(), why(&desk).until_ms()),
        ("rate", Some(retry_ms))
    );
    let text = why(&desk).to_string();
    assert_eq!(text, "10 messages in 60 s: used up (a to mx.one.example)");
    assert_eq!(desk.machine.sendable(desk.now_ms), 0);
    desk.pass(1_000);
    asked(&mut desk);
    let until_ms = desk.now_ms + 1_000;
    let granted = GrantNews::Granted {
        amount: 1,
        until_ms,
    };
    desk.step(Input::Grant(whose, window, granted));
    assert_eq!(desk.assignments().len(), 1);
}

#[test]
fn the_lease_and_the_hand_over() {
    let mut desk = Desk::new(10);
    desk.resolve("one.example", site());
    desk.pass(5_000);
    desk.message("one.example");
    assert_eq!(why(&desk), Constraint::Lease);
    desk.renew();
    assert_eq!(desk.assignments().len(), 1);
    desk.machine.drain();
    desk.message("one.example");
    assert_eq!(kinds(&desk), ["at-sender", "hand-over"]);
}

#[test]
fn the_journal() {
    let mut desk = Desk::new(10);
    desk.resolve("one.example", site());
    // More than it takes while nothing is stored.
    for _ in 0..20_000 {
        desk.blocks += 1;
        let input = Input::Block {
            partition: P0,
            first: desk.blocks,
            sequence: desk.blocks,
            index: Err("damaged".into()),
        };
        desk.machine.step(desk.now_ms, input);
    }
    desk.machine.run(desk.now_ms);
    let append = |desk: &mut Desk| {
        let is_append =
            |output: Output| matches!(output, Output::Journal(_, WriterEffect::Append { .. }));
        desk.machine.outputs().any(is_append)
    };
    assert!(append(&mut desk));
    desk.blocks += 1;
    let envelope = Envelope {
        tenant: "acme".into(),
        stream: "mail".into(),
        recipients: vec![Recipient {
            address: "user@one.example".into(),
            ..Recipient::default()
        }],
        ..Envelope::default()
    };
    let entry = IndexEntry {
        message_id: [2; 16].to_vec().into(),
        envelope: Some(envelope),
        ..IndexEntry::default()
    };
    let input = Input::Block {
        partition: P0,
        first: desk.blocks,
        sequence: desk.blocks,
        index: Ok(BlockIndex {
            format: 1,
            entries: vec![entry],
            ..BlockIndex::default()
        }),
    };
    desk.machine.step(desk.now_ms, input);
    desk.machine.run(desk.now_ms);
    assert_eq!(why(&desk), Constraint::Journal);
    desk.last_record += 1;
    let stored = WriterEvent::Stored(desk.last_record);
    desk.step(Input::Journal(P0, stored));
    desk.renew();
    assert_eq!(desk.assignments().len(), 1);
}

#[test]
fn in_doubt() {
    let mut desk = Desk::new(10);
    let delivery = desk.assigned().delivery.unwrap();
    begin(&mut desk, &delivery);
    assert!(matches!(
        why(&desk),
        Constraint::AtSender {
            begun_ms: Some(_),
            ..
        }
    ));
    desk.step(Input::Detached(SESSION));
    let Constraint::InDoubt(Some(at_ms)) = why(&desk) else {
        panic!("{:?}", why(&desk));
    };
    desk.attach(SessionId(2), 10);
    desk.items();
    desk.now_ms = at_ms - 1;
    desk.renew();
    assert_eq!(desk.assignments().len(), 0);
    desk.pass(1);
    assert_eq!(why(&desk), Constraint::Dns);
    desk.resolve("one.example", site());
    assert_eq!(desk.assignments().len(), 1);
}

#[test]
fn a_dsn_that_is_not_stored() {
    let mut desk = Desk::new(10);
    let delivery = desk.assigned().delivery.unwrap();
    begin(&mut desk, &delivery);
    desk.items();
    desk.report(&delivery, Stage::Rcpt, 550);
    let id = MessageId::try_from(&delivery.message_id[..]).unwrap();
    let all = desk.machine.why(desk.now_ms, &Which::Message(id), 10);
    assert_eq!(all.len(), 1);
    assert_eq!(all[0].constraint, Constraint::DsnOwed);
}

#[test]
fn a_turn_that_has_not_come_and_what_only_waits_for_a_sender() {
    let mut desk = Desk::new(0);
    desk.resolve("one.example", site());
    (0..3).for_each(|_| desk.message("one.example"));
    assert_eq!(kinds(&desk), ["sender-credit"; 3]);
    // Two connections are allowed: the third would have to wait.
    assert_eq!(desk.machine.sendable(desk.now_ms), 2);
    let hello = Hello {
        credit: 10,
        ..Hello::default()
    };
    desk.machine
        .step(desk.now_ms, Input::Attached(SessionId(2)));
    let item = SenderItem {
        kind: Some(FromSender::Hello(hello)),
    };
    desk.machine
        .step(desk.now_ms, Input::Sender(SessionId(2), item));
    assert_eq!(kinds(&desk), ["turn"; 3]);
    desk.run();
    assert_eq!(kinds(&desk), ["at-sender", "at-sender", "connections"]);
}
