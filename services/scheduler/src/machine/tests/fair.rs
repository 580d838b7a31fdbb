//! Whose turn it is, by the configuration.

use super::*;

const TENANTS: &str = r#"
---
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: big }
spec: { weight: 1, defaultStream: bulk, streams: [ { name: bulk }, { name: transactional } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: heavy }
spec: { weight: 3, defaultStream: bulk, streams: [ { name: bulk } ] }
"#;

/// A machine with one connection to the site of the domain.
fn desk() -> Desk {
    let mut desk = Desk::new(1);
    desk.step(Input::Config(documents(&(route("port: 25") + TENANTS))));
    desk.message("one.example");
    desk.resolve("one.example", SiteNews::Site("mx.one.example".into()));
    desk
}

/// Messages of a tenant, stream and campaign.
fn submit(desk: &mut Desk, count: usize, of: (&str, &str, &str)) {
    for _ in 0..count {
        desk.message_with("one.example", |envelope| {
            (envelope.tenant, envelope.stream) = (of.0.into(), of.1.into());
            envelope.campaign = of.2.into();
        });
    }
}

/// Delivers so many, one after another; gives their tenants and streams.
fn deliver(desk: &mut Desk, count: usize) -> Vec<(String, String)> {
    let mut left = Vec::new();
    for _ in 0..count {
        let Some(assignment) = desk.assignments().pop() else {
            break;
        };
        let delivery = assignment.delivery.unwrap();
        let id = MessageId::try_from(&delivery.message_id[..]).unwrap();
        let which = queue::Which::Message(id);
        let explained = desk.machine.why(desk.now_ms, &which, 1).remove(0);
        left.push((explained.tenant, explained.stream));
        let begin = Begin {
            delivery: Some(delivery.clone()),
            ..Begin::default()
        };
        desk.say(SESSION, FromSender::Begin(begin));
        desk.items();
        desk.report(&delivery, Stage::FinalDot, 250);
    }
    left
}

#[test]
fn tenants_get_what_their_weights_say_however_much_one_has_waiting() {
    let mut desk = desk();
    submit(&mut desk, 600, ("big", "bulk", ""));
    submit(&mut desk, 400, ("heavy", "bulk", ""));
    deliver(&mut desk, 80);
    let left = deliver(&mut desk, 200);
    let heavy = left.iter().filter(|(tenant, _)| tenant == "heavy").count();
    assert_eq!((left.len(), heavy), (200, 150));
}

#[test]
fn transactional_mail_goes_first_and_leaves_the_others_a_fifth() {
    let mut desk = desk();
    submit(&mut desk, 300, ("big", "bulk", ""));
    submit(&mut desk, 200, ("big", "transactional", ""));
    deliver(&mut desk, 1);
    let left = deliver(&mut desk, 100);
    let high = left.iter().filter(|(_, stream)| stream == "transactional");
    assert_eq!(high.count(), 80);
}

#[test]
fn what_a_client_asks_for_comes_before_what_its_stream_has() {
    let mut desk = desk();
    submit(&mut desk, 300, ("big", "bulk", ""));
    submit(&mut desk, 200, ("big", "transactional", ""));
    let mut asking = |priority, tenant: &str, stream: &str| {
        for _ in 0..50 {
            desk.message_with("one.example", |envelope| {
                (envelope.tenant, envelope.stream) = (tenant.into(), stream.into());
                envelope.priority = priority;
            });
        }
    };
    asking(3, "heavy", "bulk");
    asking(-3, "acme", "transactional");
    deliver(&mut desk, 1);
    let left = deliver(&mut desk, 80);
    let count = |of: &str| left.iter().filter(|(tenant, _)| tenant == of).count();
    // `heavy` has three quarters of what is high, although its stream is not; `acme` a part of the rest, although it is.
    assert!(count("heavy") >= 45, "{left:?}");
    assert!(count("acme") <= 16, "{left:?}");
}

#[test]
fn a_tenant_that_comes_is_done_in_less_than_twice_the_time_of_an_empty_lane() {
    let mut desk = desk();
    submit(&mut desk, 2_000, ("big", "bulk", ""));
    deliver(&mut desk, 50);
    submit(&mut desk, 100, ("acme", "mail", ""));
    let left = deliver(&mut desk, 200);
    let last = left.iter().rposition(|(tenant, _)| tenant == "acme");
    let count = left.iter().filter(|(tenant, _)| tenant == "acme").count();
    assert_eq!(count, 100);
    assert!(last.unwrap() < 180, "{last:?}");
}

#[test]
fn retries_do_not_keep_first_attempts_waiting() {
    let mut desk = desk();
    submit(&mut desk, 100, ("big", "bulk", ""));
    for _ in 0..101 {
        let Some(assignment) = desk.assignments().pop() else {
            break;
        };
        let delivery = assignment.delivery.unwrap();
        desk.report(&delivery, Stage::Rcpt, 451);
    }
    desk.now_ms += 3_600_000;
    desk.renew();
    desk.resolve("one.example", SiteNews::Site("mx.one.example".into()));
    submit(&mut desk, 100, ("heavy", "bulk", ""));
    let left = deliver(&mut desk, 100);
    let fresh = left.iter().filter(|(tenant, _)| tenant == "heavy").count();
    assert!((70..=80).contains(&fresh), "{fresh}");
}

#[test]
fn what_its_source_cannot_send_goes_by_another_of_the_pool() {
    let mut desk = Desk::new(1_000);
    let two = "---\napiVersion: staffetta.dev/v1alpha1\nkind: EgressPool\nmetadata: { name: two }\nspec: { sources: [ { name: elsewhere }, { name: here } ] }\n";
    let route = route("port: 25").replace("pool: default", "pool: two");
    desk.step(Input::Config(documents(&(route + two))));
    // The sender has only one of the sources.
    desk.step(Input::Detached(SESSION));
    desk.step(Input::Attached(SESSION));
    desk.say(
        SESSION,
        FromSender::Hello(Hello {
            sender_id: "sender".into(),
            credit: 1,
            sources: vec!["here".into()],
            ..Hello::default()
        }),
    );
    desk.message("one.example");
    desk.resolve("one.example", SiteNews::Site("mx.one.example".into()));
    submit(&mut desk, 1_000, ("big", "bulk", ""));
    let left = deliver(&mut desk, 1_001);
    // The few that were there before it was known that the source is jammed, wait.
    assert!(left.len() > 980, "{}", left.len());
}
