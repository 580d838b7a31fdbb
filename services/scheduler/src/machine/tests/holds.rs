//! Mail on hold: released, or ended by the configuration of its tenant.

use proto::operation::{Kind, Selector};
use queue::Which;

use super::*;

const DAY_MS: u64 = 86_400_000;

/// The usual documents, with this of the tenant, and a credential and a domain if they are there.
fn configure(desk: &mut Desk, tenant: &str, more: &str) {
    let text = format!(
        "
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: {{ name: acme }}
spec: {{ defaultStream: mail, streams: [ {{ name: mail }} ], mode: hold{tenant} }}
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: {{ name: default }}
spec: {{ sources: [ {{ name: a, weight: 1 }} ] }}
{}{more}",
        route("port: 25")
    );
    let config = Snapshot::from_documents(&text).unwrap();
    desk.step(Input::Config(Arc::new(config)));
}

const CREDENTIAL: &str = "---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: app }
spec: { tenant: acme, networks: [ 192.0.2.0/24 ] }
";
const NEIGHBOUR: &str = "---
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: other }
spec: { defaultStream: mail, streams: [ { name: mail } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: { name: other.example }
spec: { tenant: other, unsigned: true }
";
const DOMAIN: &str = "---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: { name: acme.example }
spec: { tenant: acme, unsigned: true }
";

fn on_hold(desk: &mut Desk) {
    on_hold_from(desk, "acme.example", "");
}

/// Of an author (empty: somebody else) and with a return path.
fn on_hold_from(desk: &mut Desk, author_domain: &str, return_path: &str) {
    desk.message_with("one.example", |envelope| {
        envelope.hold = true;
        envelope.credential = "app".into();
        envelope.from_domain = author_domain.into();
        envelope.return_path = return_path.into();
    });
}

fn release(desk: &mut Desk, id: &str) {
    let operation = Operation {
        format: 1,
        id: id.into(),
        kind: Kind::Release.into(),
        selector: Some(Selector {
            all: true,
            accepted_before_ms: u64::MAX,
            ..Selector::default()
        }),
        ..Operation::default()
    };
    desk.step(Input::Operations(vec![operation]));
}

#[test]
fn a_release_asks_again_who_may_send_what() {
    for (more, refusal) in [
        (
            DOMAIN.to_owned(),
            Some("there is no Credential app any more"),
        ),
        (
            CREDENTIAL.to_owned(),
            Some("acme may not send as acme.example any more"),
        ),
        (format!("{CREDENTIAL}{DOMAIN}"), None),
    ] {
        let mut desk = Desk::new(10);
        configure(&mut desk, "", &format!("{CREDENTIAL}{DOMAIN}"));
        desk.resolve("one.example", SiteNews::Site("mx.one.example".into()));
        on_hold(&mut desk);
        configure(&mut desk, "", &more);
        let which = Which::Tenant("acme".into());
        let why = desk.machine.why(desk.now_ms, &which, 9).remove(0);
        match refusal {
            Some(refusal) => assert!(why.constraint.to_string().ends_with(refusal)),
            None => assert!(!why.constraint.to_string().contains("any more")),
        }
        release(&mut desk, "first");
        let is_refused = refusal.is_some();
        assert_eq!(desk.assignments().len(), usize::from(!is_refused));
        let progress = &desk.machine.operations()[0].1[0];
        assert_eq!(progress.recipients, u64::from(!is_refused));
        assert_eq!(progress.refused, u64::from(is_refused));
        if is_refused {
            configure(&mut desk, "", &format!("{CREDENTIAL}{DOMAIN}"));
            release(&mut desk, "second");
            assert_eq!(desk.assignments().len(), 1);
        }
    }
}

#[test]
fn mail_of_others_is_released_as_long_as_it_may_be_forwarded() {
    let networks = "networks: [ 192.0.2.0/24 ]";
    let foreign = format!("{networks}, foreignSenders: {{ domain: acme.example }}");
    let forwarder = CREDENTIAL.replace(networks, &foreign);
    for (tenant, credential, author, return_path, released) in [
        (", mayForward: true", &*forwarder, "", "a@else.example", 1),
        (
            ", mayForward: true",
            &forwarder,
            "acme.example",
            "a@else.example",
            1,
        ),
        (", mayForward: true", CREDENTIAL, "", "", 0),
        (
            ", mayForward: true",
            CREDENTIAL,
            "acme.example",
            "a@else.example",
            0,
        ),
        // With a neighbour's return path it would pass for the neighbour's own.
        (", mayForward: true", &forwarder, "", "a@other.example", 0),
    ] {
        let mut desk = Desk::new(10);
        configure(
            &mut desk,
            tenant,
            &format!("{credential}{DOMAIN}{NEIGHBOUR}"),
        );
        desk.resolve("one.example", SiteNews::Site("mx.one.example".into()));
        on_hold_from(&mut desk, author, return_path);
        release(&mut desk, "first");
        assert_eq!(
            desk.assignments().len(),
            released,
            "{tenant} {author} {return_path}"
        );
    }
}

#[test]
fn the_tenant_says_how_long_a_hold_is_and_how_it_ends() {
    for (tenant, days, disposition) in [
        ("", 7, Disposition::Expired),
        (", maxHold: 2d", 2, Disposition::Expired),
        (
            ", maxHold: 2d, whenHoldEnds: discard",
            2,
            Disposition::Cancelled,
        ),
    ] {
        let mut desk = Desk::new(10);
        configure(&mut desk, ", maxHold: 30d", "");
        on_hold(&mut desk);
        // Holds for what is there, too.
        configure(&mut desk, tenant, "");
        let ended = |desk: &Desk| desk.machine.counts().with(disposition);
        for _ in 0..days * 24 - 1 {
            desk.now_ms += DAY_MS / 24;
            desk.renew();
        }
        assert_eq!(ended(&desk), 0, "{tenant}");
        desk.now_ms += DAY_MS / 24;
        desk.step(Input::Renewed {
            partition: P0,
            lease_until_ms: desk.now_ms + 7_000,
        });
        assert_eq!(ended(&desk), 1, "{tenant}");
    }
}
