use config::{EVENT_TYPES, Snapshot};
use mail::Span;

use crate::document;

fn with(spec: &str) -> Result<Snapshot, Vec<String>> {
    let tenant = document(
        "Tenant",
        "acme",
        "{ defaultStream: bulk, streams: [ { name: bulk } ] }",
    );
    Snapshot::from_documents(&(tenant + &document("Webhook", "w", spec)))
        .map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

#[test]
fn webhooks_read_back_as_they_were_and_have_careful_defaults() {
    let short = with("{ url: \"https://a.example/x\", secrets: [ \"file:/s\" ] }").unwrap();
    let webhook = short.webhook("w").unwrap();
    assert!(!webhook.allow_private && !webhook.allow_http && !webhook.disabled);
    assert_eq!(
        (webhook.batch, webhook.linger, webhook.max_age),
        (100, Span::from_secs(1), Span::from_secs(259_200))
    );
    let long = with(
        "{ tenant: acme, url: \"http://127.0.0.1:8080/h?x=1\", secrets: [ \"file:/s\", \"file:/t\" ], \
          events: [ Bounce, Delivery ], streams: [ bulk ], batch: 7, linger: 0, timeout: 2s, maxAge: 2d, \
          allowHttp: true, allowPrivate: true, authorities: \"file:/ca.pem\", disabled: true }",
    )
    .unwrap();
    let webhook = long.webhook("w").unwrap();
    assert_eq!((webhook.secrets.len(), webhook.batch), (2, 7));
    assert_eq!(webhook.events, ["Bounce", "Delivery"]);
    for snapshot in [short, long] {
        let read = Snapshot::from_json(snapshot.to_json().as_bytes()).unwrap();
        assert_eq!(read.hash(), snapshot.hash());
        assert_eq!(read.webhook("w"), snapshot.webhook("w"));
    }
}

#[test]
fn what_is_wrong_with_a_webhook_is_said_with_its_place() {
    let secrets = "secrets: [ \"file:/s\" ]";
    let https = "url: \"https://a.example/\"";
    for (spec, expected) in [
        (format!("{{ {secrets} }}"), "spec.url"),
        (format!("{{ {https} }}"), "spec.secrets"),
        (format!("{{ {https}, secrets: [] }}"), "spec.secrets"),
        (
            format!("{{ {https}, secrets: [ \"whsec_x\" ] }}"),
            "secrets are never written inline",
        ),
        (
            format!("{{ url: \"http://a.example/\", {secrets} }}"),
            "allowHttp: true",
        ),
        (
            format!("{{ {https}, {secrets}, events: [ Bouncing ] }}"),
            "such as Delivery or Bounce",
        ),
        (
            format!("{{ {https}, {secrets}, tenant: other }}"),
            "spec.tenant",
        ),
        (
            format!("{{ {https}, {secrets}, streams: [ bulk ] }}"),
            "are of a tenant",
        ),
        (
            format!("{{ {https}, {secrets}, tenant: acme, streams: [ news ] }}"),
            "no stream named \"news\"",
        ),
        (
            format!("{{ {https}, {secrets}, batch: 1001 }}"),
            "spec.batch",
        ),
        (
            format!("{{ {https}, {secrets}, maxAge: 31d }}"),
            "1m to 30d is expected, found 31d",
        ),
        (
            format!("{{ {https}, {secrets}, linger: 2m }}"),
            "spec.linger",
        ),
        (
            format!("{{ {https}, {secrets}, retries: 3 }}"),
            "spec.retries",
        ),
    ] {
        let problems = with(&spec).unwrap_err();
        assert_eq!(problems.len(), 1, "{spec}: {problems:?}");
        assert!(problems[0].contains(expected), "{spec}: {problems:?}");
    }
}

#[test]
fn types_of_events_are_sorted_and_none_is_named_twice() {
    assert!(EVENT_TYPES.is_sorted_by(|left, right| left < right));
}
