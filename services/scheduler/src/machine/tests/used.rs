//! When what was assigned counts as used in the windows of its lane.

use egress::{GrantNews, Whose, Window, Word};
use proto::dispatch::{Assignment, Begin, Left, ReturnReason};

use super::*;

/// What is said about the windows since the last time.
fn words(desk: &mut Desk) -> Vec<(Whose, Window, Word)> {
    let seen = std::mem::take(&mut desk.seen);
    let (asked, rest): (Vec<Output>, Vec<Output>) = seen
        .into_iter()
        .partition(|output| matches!(output, Output::AskGrant { .. }));
    desk.seen = rest;
    let word = |output| match output {
        Output::AskGrant {
            whose,
            window,
            word,
            ..
        } => Some((whose, window, word)),
        _ => None,
    };
    asked.into_iter().filter_map(word).collect()
}

/// A message of a lane with a window, assigned under a grant of one.
fn assigned_under(desk: &mut Desk, rates: &str) -> (Assignment, Whose, Window) {
    let rule = format!("{{ match: {{ site: mx.one.example }}, {rates} }}");
    desk.step(Input::Config(super::shaping::with_rules(&rule)));
    desk.message("one.example");
    desk.resolve("one.example", SiteNews::Site("mx.one.example".into()));
    let (whose, window, word) = words(desk).pop().expect("a window is asked for");
    assert_eq!((word.have, word.want), (0, 1));
    let news = GrantNews::Granted {
        amount: 1,
        until_ms: desk.now_ms + 3_000,
    };
    desk.step(Input::Grant(whose, window, news));
    let assignment = desk.assignments().pop().expect("the message is assigned");
    (assignment, whose, window)
}

/// What is said after a while: what is had, and when what was used was used, from now.
fn said_after(desk: &mut Desk, ms: u64) -> (u64, Vec<i64>) {
    let from_ms = desk.now_ms as i64;
    desk.pass(ms);
    let (_, _, word) = words(desk).pop().expect("something is said");
    let dates = word.dated.iter().map(|(at_ms, _)| *at_ms as i64 - from_ms);
    (word.have, dates.collect())
}

fn begin(desk: &mut Desk, assignment: &Assignment) {
    let begin = Begin {
        delivery: assignment.delivery.clone(),
        final_reply_timeout_ms: 1_000,
    };
    desk.say(SESSION, FromSender::Begin(begin));
}

#[test]
fn a_message_counts_until_it_has_left_however_long_that_takes() {
    let mut desk = Desk::new(10);
    let (assignment, whose, window) = assigned_under(&mut desk, "rates: [ 10/m ]");
    begin(&mut desk, &assignment);
    // While it is under way it is had.
    desk.pass(5_000);
    desk.renew();
    assert_eq!(said_after(&mut desk, 3_000), (1, vec![]));
    let nothing = GrantNews::Nothing {
        retry_ms: desk.now_ms,
    };
    desk.step(Input::Grant(whose, window, nothing));
    desk.pass(500);
    let delivery = assignment.delivery;
    desk.say(SESSION, FromSender::Left(Left { delivery }));
    assert_eq!(said_after(&mut desk, 1_000), (0, vec![1]));
}

#[test]
fn the_sender_is_told_how_soon_to_say_that_a_message_has_left() {
    let mut desk = Desk::new(10);
    let rule = "{ match: { site: mx.one.example }, rates: [ 90/h, 10/m ] }";
    desk.step(Input::Config(super::shaping::with_rules(rule)));
    desk.message("one.example");
    desk.resolve("one.example", SiteNews::Site("mx.one.example".into()));
    for (whose, window, _) in words(&mut desk) {
        let news = GrantNews::Granted {
            amount: 1,
            until_ms: desk.now_ms + 3_000,
        };
        desk.step(Input::Grant(whose, window, news));
    }
    let lanes = desk.lanes_told();
    assert_eq!(lanes.first().map(|lane| lane.left_within_ms), Some(60_000));
}

#[test]
fn without_a_word_of_its_leaving_a_message_that_began_counts_from_its_report() {
    let mut desk = Desk::new(10);
    let (assignment, ..) = assigned_under(&mut desk, "rates: [ 10/m ]");
    begin(&mut desk, &assignment);
    desk.pass(300);
    desk.report(&assignment.delivery.unwrap(), Stage::FinalDot, 250);
    assert_eq!(said_after(&mut desk, 1_000), (0, vec![1]));
}

#[test]
fn a_message_that_never_began_is_given_back_and_its_connection_counts_when_it_was_tried() {
    let mut desk = Desk::new(10);
    let (assignment, ..) = assigned_under(&mut desk, "rates: [ 10/m ]");
    desk.report(&assignment.delivery.unwrap(), Stage::Connect, 0);
    assert_eq!(said_after(&mut desk, 3_000), (0, vec![]));

    let mut desk = Desk::new(10);
    let (assignment, ..) = assigned_under(&mut desk, "connectionRate: 10/m");
    desk.report(&assignment.delivery.unwrap(), Stage::Connect, 0);
    assert_eq!(said_after(&mut desk, 1_000), (0, vec![1]));

    // Nothing was tried.
    let mut desk = Desk::new(10);
    let (assignment, ..) = assigned_under(&mut desk, "connectionRate: 10/m");
    desk.give_back(
        &assignment.delivery.unwrap(),
        ReturnReason::SignerUnavailable,
    );
    assert_eq!(said_after(&mut desk, 3_000), (0, vec![]));
}

#[test]
fn a_large_message_that_is_over_before_it_begins_counts_from_its_leaving_and_so_does_its_connection()
 {
    for rates in ["rates: [ 10/m ]", "connectionRate: 10/m"] {
        let mut desk = Desk::new(10);
        let (assignment, ..) = assigned_under(&mut desk, rates);
        let delivery = assignment.delivery;
        let left = Left {
            delivery: delivery.clone(),
        };
        desk.say(SESSION, FromSender::Left(left));
        desk.give_back(&delivery.unwrap(), ReturnReason::Damaged);
        assert_eq!(said_after(&mut desk, 1_000), (0, vec![1]), "{rates}");
    }
}

#[test]
fn a_connection_counts_from_the_begin_of_its_first_message() {
    let mut desk = Desk::new(10);
    let (assignment, ..) = assigned_under(&mut desk, "connectionRate: 10/m");
    desk.pass(200);
    begin(&mut desk, &assignment);
    assert_eq!(said_after(&mut desk, 1_000), (0, vec![1]));
}

#[test]
fn what_a_lost_sender_held_counts_until_it_must_have_seen_that() {
    let mut desk = Desk::new(10);
    assigned_under(&mut desk, "rates: [ 10/m ]");
    desk.step(Input::Detached(SESSION));
    assert_eq!(said_after(&mut desk, 7_500), (1, vec![]));
}

#[test]
fn a_scheduler_that_stops_gives_back_what_it_has_not_used() {
    let mut desk = Desk::new(10);
    let (_, whose, window) = assigned_under(&mut desk, "rates: [ 10/m ]");
    let news = GrantNews::Granted {
        amount: 4,
        until_ms: desk.now_ms + 3_000,
    };
    desk.step(Input::Grant(whose, window, news));
    words(&mut desk);
    desk.machine.drain();
    desk.run();
    let (_, _, word) = words(&mut desk).pop().expect("it is given back");
    assert_eq!((word.have, word.want), (1, 0));
}
