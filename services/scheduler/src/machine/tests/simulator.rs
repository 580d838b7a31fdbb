//! Mail for which the simulator answers: nobody hears of it, and nothing counts it.

use proto::envelope::Simulated;
use queue::Which;

use super::*;

fn sandboxed(desk: &mut Desk, change: impl FnOnce(&mut Envelope)) {
    desk.message_with("one.example", |envelope| {
        envelope.sandbox = true;
        change(envelope);
    });
}

/// Recipients by what became of them.
fn simulated(desk: &Desk, disposition: Disposition) -> u64 {
    desk.machine.counts().simulated_with(disposition)
}

/// Nobody was asked, told or counted anything.
fn assert_nothing_left(desk: &mut Desk) {
    assert_eq!(desk.asked_sites(), 0);
    assert!(desk.assignments().is_empty());
    let counts = desk.machine.counts();
    assert_eq!(counts.dispositions, [0; 10]);
    assert_eq!(counts.outcomes.iter().count(), 0);
    assert!(counts.queue_times.is_empty());
    assert_eq!((counts.assigned, counts.unroutable), (0, 0));
    assert_eq!(desk.machine.lanes(), 0);
}

#[test]
fn the_sandbox_asks_nobody_and_counts_for_nothing() {
    let mut desk = Desk::new(10);
    desk.items();
    for _ in 0..3 {
        sandboxed(&mut desk, |_| {});
    }
    assert_eq!(simulated(&desk, Disposition::Delivered), 3);
    assert_eq!(desk.machine.intakes().next().unwrap().totals().messages, 0);
    assert_nothing_left(&mut desk);
    // The same without the mark.
    desk.message("one.example");
    assert_eq!(desk.asked_sites(), 1);
}

#[test]
fn no_configuration_makes_real_mail_of_it() {
    let mut desk = Desk::new(10);
    desk.items();
    sandboxed(&mut desk, |envelope| {
        envelope.hold = true;
        envelope.recipients[0].simulated = Some(Simulated {
            code: 451,
            ..Simulated::default()
        });
    });
    desk.step(Input::Config(documents(&route("port: 2525"))));
    let release = Operation {
        format: 1,
        id: "release".into(),
        kind: proto::operation::Kind::Release.into(),
        selector: Some(proto::operation::Selector {
            all: true,
            accepted_before_ms: u64::MAX,
            ..Default::default()
        }),
        ..Operation::default()
    };
    desk.step(Input::Operations(vec![release]));
    assert_eq!(simulated(&desk, Disposition::Deferred), 1);
    let why = desk
        .machine
        .why(desk.now_ms, &Which::Tenant("acme".into()), 9);
    assert_eq!(why[0].constraint.kind(), "retry-time");
    for _ in 0..200 {
        desk.now_ms += 3_600_000;
        desk.renew();
    }
    assert_eq!(simulated(&desk, Disposition::Expired), 1);
    assert_nothing_left(&mut desk);
}

#[test]
fn replies_are_judged_as_those_of_hosts() {
    for (code, enhanced, disposition) in [
        (250, "2.0.0", Disposition::Delivered),
        (550, "5.1.1", Disposition::Bounced),
        (552, "5.2.2", Disposition::Bounced),
        (451, "4.3.0", Disposition::Deferred),
        (452, "4.2.2", Disposition::Deferred),
    ] {
        let mut desk = Desk::new(10);
        desk.items();
        desk.message_with("simulator.example", |envelope| {
            envelope.recipients[0].simulated = Some(Simulated {
                code,
                enhanced: enhanced.into(),
                ..Simulated::default()
            });
        });
        assert_eq!(simulated(&desk, disposition), 1, "{code} {enhanced}");
        assert_nothing_left(&mut desk);
    }
}

#[test]
fn it_waits_while_its_partition_stops_and_much_is_answered_in_turns() {
    let mut desk = Desk::new(10);
    desk.items();
    // Two seconds before the end of the lease.
    desk.pass(5_000);
    sandboxed(&mut desk, |_| {});
    assert_eq!(simulated(&desk, Disposition::Delivered), 0);
    let why = desk
        .machine
        .why(desk.now_ms, &Which::Tenant("acme".into()), 9);
    assert_eq!(why[0].constraint.kind(), "lease");
    desk.renew();
    assert_eq!(simulated(&desk, Disposition::Delivered), 1);
    desk.machine.drain();
    for _ in 0..2_000 {
        sandboxed(&mut desk, |_| {});
    }
    assert_eq!(simulated(&desk, Disposition::Delivered), 1);
    desk.own();
    assert_nothing_left(&mut desk);
}
