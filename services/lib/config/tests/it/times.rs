use config::{RetryClass, RetryWaits, Snapshot};
use mail::Span;

use crate::{COMPLETE, document};

fn documents(retry: &str) -> String {
    let spec = format!("{{ match: {{ domains: [ r.example ] }}, pool: default, retry: {retry} }}");
    format!("{COMPLETE}{}", document("Route", "r", &spec))
}

fn with_retry(retry: &str) -> Snapshot {
    Snapshot::from_documents(&documents(retry)).unwrap()
}

fn exponential(initial: u64, factor: u32, max: u64) -> RetryWaits {
    RetryWaits::Exponential {
        initial: Span::from_secs(initial),
        factor,
        max: Span::from_secs(max),
    }
}

#[test]
fn a_class_has_what_it_says_and_otherwise_what_holds_for_all() {
    let snapshot = with_retry(
        "{ initial: 10m, max: 2h, jitter: 5, tryAgainIn: { most: 6h }, classes: {
           greylisted: { waits: [5m, 10m], jitter: 0 }, mailboxFull: { initial: 4h, maxAge: 3d }, dns: { maxAge: 2d } } }",
    );
    let route = snapshot.route("acme", "bulk", "r.example").unwrap();
    let retry = &route.retry;
    let of = |class| {
        let (schedule, own) = retry.schedule(class);
        (
            schedule.waits.clone(),
            schedule.jitter_percent,
            schedule.max_age,
            own,
        )
    };
    let day = |days: u64| Some(Span::from_secs(days * 86_400));
    assert_eq!(of(None), (exponential(600, 2, 7200), 5, None, false));
    assert_eq!(of(Some(RetryClass::Policy)), of(None));
    let waits = RetryWaits::List(vec![Span::from_secs(300), Span::from_secs(600)]);
    assert_eq!(of(Some(RetryClass::Greylisted)), (waits, 0, None, true));
    let full = exponential(14_400, 2, 14_400);
    assert_eq!(of(Some(RetryClass::MailboxFull)), (full, 5, day(3), true));
    let dns = exponential(600, 2, 7200);
    assert_eq!(of(Some(RetryClass::Dns)), (dns, 5, day(2), true));
    assert_eq!(
        (retry.asked.least, retry.asked.most),
        (Span::from_secs(30), Span::from_secs(6 * 3600))
    );
}

#[test]
fn windows_read_back_from_json() {
    let spec = "{ defaultStream: a, streams: [
        { name: a, window: { zone: europe/rome, open: [ \"mon-fri 09:00-18:00\", sat ] }, spread: 4h },
        { name: b, delay: 10m, expiresAfter: 2d, delayNotices: [4h, 1d] }, { name: c } ] }";
    let snapshot = Snapshot::from_documents(&document("Tenant", "t", spec)).unwrap();
    let read = Snapshot::from_json(snapshot.to_json().as_bytes()).unwrap();
    assert_eq!(read.hash(), snapshot.hash());
    assert_eq!(read.tenant("t"), snapshot.tenant("t"));
    let timing = |stream| snapshot.stream("t", stream).unwrap().timing.as_ref();
    let window = timing("a").unwrap().window.as_ref().unwrap();
    assert_eq!(
        window.to_string(),
        "mon-fri 09:00-18:00, sat 00:00-24:00 Europe/Rome"
    );
    assert_eq!(timing("b").unwrap().delay, Span::from_secs(600));
    assert_eq!(timing("c"), None);
    let expires_after = |stream| snapshot.stream("t", stream).unwrap().expires_after;
    assert_eq!(expires_after("b"), Some(Span::from_secs(2 * 86_400)));
    assert_eq!(expires_after("c"), None);
    let notices = |stream, asked| {
        let stream = snapshot.stream("t", stream).unwrap();
        stream.delay_notices(asked).to_vec()
    };
    let hours = |hours: u64| Span::from_secs(hours * 3600);
    assert_eq!(notices("b", false), [hours(4), hours(24)]);
    assert_eq!(notices("b", true), notices("b", false));
    assert_eq!(
        (notices("c", false), notices("c", true)),
        (vec![], vec![hours(4)])
    );
}

#[test]
fn schedules_read_back_from_json() {
    for retry in [
        "{}",
        "{ waits: [1m, 2m, 1h], jitter: 50, tryAgainIn: { most: 0 } }",
        "{ waits: [1m], classes: { dns: { initial: 2m }, content: {}, policy: { maxAge: 1d } } }",
    ] {
        let snapshot = with_retry(retry);
        let read = Snapshot::from_json(snapshot.to_json().as_bytes()).unwrap();
        assert_eq!(read.hash(), snapshot.hash(), "{retry}");
        assert_eq!(read.routes(), snapshot.routes(), "{retry}");
    }
}

#[test]
fn what_a_route_does_not_say_is_built_in() {
    let snapshot = with_retry("{}");
    let retry = &snapshot.route("acme", "bulk", "r.example").unwrap().retry;
    let (schedule, own) = retry.schedule(Some(RetryClass::Dns));
    assert_eq!(schedule.waits, exponential(300, 2, 4 * 3600));
    assert_eq!((schedule.jitter_percent, own), (10, false));
    let asked = (retry.asked.least, retry.asked.most);
    assert_eq!(asked, (Span::from_secs(30), Span::from_secs(4 * 3600)));
}

#[test]
fn bounds_are_within_what_they_bound() {
    let waits = |count: usize| format!("{{ waits: [ {} ] }}", vec!["1m"; count].join(", "));
    let age = |age: &str| format!("{{ classes: {{ dns: {{ maxAge: {age} }} }} }}");
    let asked =
        |least: &str, most: &str| format!("{{ tryAgainIn: {{ least: {least}, most: {most} }} }}");
    for good in [waits(64), age("1s"), age("30d"), asked("5m", "5m")] {
        with_retry(&good);
    }
    for bad in [waits(65), age("31d"), asked("5m", "4m")] {
        let problems = Snapshot::from_documents(&documents(&bad)).unwrap_err();
        assert_eq!(problems.len(), 1, "{bad}");
    }
}
