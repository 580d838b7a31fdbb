//! Passes over the domains, with a real nats-server and real DNS servers.

use std::sync::Mutex;

use kit::{Dns, NatsServer, Zones};
use proto::signer::KeysAnswer;
use proto::{Call, CallError};
use spool::{Durability, InitOptions, Options, Stores, TranscriptBounds};

use super::*;

const DOCUMENTS: &str = "\
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: acme }
spec: { defaultStream: a, streams: [ { name: a } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: { name: acme.example }
spec: { tenant: acme, unsigned: true }
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: { name: bulk }
spec: { sources: [ { name: one, address: 192.0.2.1 } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Route
metadata: { name: default }
spec: { pool: bulk }
";

struct NoKeys;

impl TellKeys for NoKeys {
    fn keys(&self, request: KeysRequest) -> Call<'_, KeysAnswer> {
        Box::pin(async move {
            match request.domain.as_str() {
                "" => Ok(KeysAnswer::default()),
                domain => Err(CallError {
                    detail: format!("nobody asks for {domain} alone"),
                }),
            }
        })
    }
}

type Told = Arc<Mutex<Vec<Event>>>;

fn checks(stores: &Stores, dns: &Dns, told: &Told, every: Span) -> DomainChecks {
    let snapshot = Arc::new(Snapshot::from_documents(DOCUMENTS).unwrap());
    let told = told.clone();
    DomainChecks {
        marks: stores.marks(),
        snapshots: watch::channel(snapshot).1,
        keys: Arc::new(NoKeys),
        doctor: Doctor::new(&[dns.address()]).unwrap(),
        hostname: "relay.example".into(),
        every,
        tell: Arc::new(move |event| told.lock().unwrap().push(event)),
        metrics: DomainMetrics::new(),
        shutdown: Shutdown::new(),
    }
}

/// One pass, by a process of its own.
async fn pass(checks: &DomainChecks) {
    let looked = checks.look(&mut AtWork::new(PATIENCE)).await;
    looked.unwrap();
}

/// What was told since the last time: the checks that have failed.
fn news(told: &Told) -> Vec<Vec<String>> {
    let events: Vec<Event> = told.lock().unwrap().drain(..).collect();
    let failed = |event: Event| {
        let Some(Kind::DomainChecked(checked)) = event.kind else {
            panic!("{event:?}");
        };
        assert_eq!(
            (&*event.tenant, &*checked.domain, &*checked.pool),
            ("acme", "acme.example", "bulk")
        );
        let errors = checked.findings.into_iter();
        let errors = errors.filter(|finding| finding.severity == "error");
        errors.map(|finding| finding.check).collect()
    };
    events.into_iter().map(failed).collect()
}

#[tokio::test]
async fn one_sender_looks_at_a_time_and_tells_what_has_changed() {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let nats = NatsServer::start(folders[0].path()).await.unwrap();
    let stores = Stores::connect(&Options {
        url: nats.url(),
        name: "test".to_owned(),
        durability: Durability::Strict,
        ..Options::default()
    })
    .await
    .unwrap();
    let options = InitOptions {
        partitions: 1,
        replicas: 1,
        volume_bytes: 512 << 20,
        transcripts: TranscriptBounds::USUAL,
    };
    stores.init(&options).await.unwrap();
    let zones = || {
        Zones::new()
            .only("example")
            .mx("acme.example", 10, "mx.acme.example")
            .address("mx.acme.example", [192, 0, 2, 7].into())
            .text("_dmarc.acme.example", "v=DMARC1; p=none")
    };
    let bad = zones().text("acme.example", "v=spf1 ip4:203.0.113.0/24 -all");
    let bad = Dns::start(folders[1].path(), &bad).await.unwrap();
    let good = zones().text("acme.example", "v=spf1 ip4:192.0.2.0/24 -all");
    let good = Dns::start(folders[2].path(), &good).await.unwrap();

    let (told, hourly) = (Told::default(), Span::from_secs(3_600));
    let [first, second] = [(); 2].map(|()| checks(&stores, &bad, &told, hourly));
    pass(&first).await;
    let begin = news(&told);
    assert_eq!(begin.len(), 1);
    assert!(begin[0].contains(&"spf".to_owned()), "{begin:?}");
    // The other finds that it is done, and shows the same.
    pass(&second).await;
    assert_eq!(news(&told).len(), 0);
    let shown = State::read(stores.marks().get(WORK).await.unwrap().value.as_deref());
    assert_eq!((shown.shown[0], shown.is_under_way()), ([1, 0, 0], false));

    let at_once = Span::from_secs(0);
    pass(&checks(&stores, &bad, &told, at_once)).await;
    assert_eq!(news(&told).len(), 0, "nothing has changed");
    pass(&checks(&stores, &good, &told, at_once)).await;
    let now = news(&told);
    assert_eq!(now.len(), 1);
    assert!(!now[0].contains(&"spf".to_owned()), "{now:?}");

    // One that has begun, and is asleep: another passes by, and who wakes up late writes nothing.
    let mark = stores.marks().get(WORK).await.unwrap();
    let state = State::read(mark.value.as_deref()).begin(now_ms());
    let marks = stores.marks();
    let begun = marks.set(WORK, state.written(), mark.revision).await;
    let begun = begun.unwrap().unwrap();
    pass(&checks(&stores, &bad, &told, at_once)).await;
    assert_eq!(news(&told).len(), 0);
    marks
        .set(WORK, state.written(), begun)
        .await
        .unwrap()
        .unwrap();
    let late = marks.set(WORK, state.written(), begun).await.unwrap();
    assert_eq!(late, None);
}
