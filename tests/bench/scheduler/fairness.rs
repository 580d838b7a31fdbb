//! How long a tenant that sends little waits for one that sends a lot.

use crate::cases::print;
use crate::rig::Rig;
use crate::traffic::{self, Mail};

/// One lane: 20 connections and transactions of 100 ms make 200 messages a second.
const DOCUMENTS: &str = r#"
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: { name: one }
spec: { sources: [ { name: c, address: 127.0.0.3, ehlo: c.relay.example } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Route
metadata: { name: one }
spec: { match: { domains: [.fast.example] }, pool: one, retry: { initial: 4h, factor: 2, max: 8h, jitter: 10 }, maxAge: 5d }
---
apiVersion: staffetta.dev/v1alpha1
kind: Shaping
metadata: { name: one }
spec: { rules: [ { match: { pool: one }, connections: 20 } ] }
"#;
const TRANSACTION_MS: usize = 100;
const BIG: u64 = 0;
const SMALL: u64 = 5;
const MESSAGES: u64 = 100;

fn rig() -> anyhow::Result<Rig> {
    let mail = Mail {
        tenants: (BIG, 1),
        domains: 1,
    };
    // Tenants 0 and 5 have the same weight.
    let mut rig = Rig::with(&(traffic::documents(6) + DOCUMENTS), 1, mail, 10, false)?;
    rig.send(10, traffic::Destination::Fast);
    rig.switch(BIG, TRANSACTION_MS);
    Ok(rig)
}

/// The time that the small tenant's messages take while the other has so many waiting, by that on an idle lane.
pub fn small_tenant(waiting: u64) -> anyhow::Result<()> {
    let mut idle = rig()?;
    idle.switch(SMALL, TRANSACTION_MS);
    let alone_ms = idle.deliver(MESSAGES);

    let mut busy = rig()?;
    busy.submit(waiting);
    (0..1_000).for_each(|_| busy.tick());
    let live = busy.live();
    anyhow::ensure!(live > waiting * 9 / 10, "only {live} of {waiting} wait");
    busy.switch(SMALL, TRANSACTION_MS);
    let beside_ms = busy.deliver(MESSAGES);

    print("small-tenant", "alone_ms", alone_ms as f64, "ms");
    print("small-tenant", "beside_ms", beside_ms as f64, "ms");
    print(
        "small-tenant",
        "slowdown",
        beside_ms as f64 / alone_ms as f64,
        "1",
    );
    Ok(())
}
