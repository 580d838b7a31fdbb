//! Benchmark of the signer: what a signature costs, alone and with others, and what gRPC adds to it.
//!
//! Prints one JSON object per figure; `tests/bench/signer.py` sets them against openssl. All is CPU time.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use config::Snapshot;
use dkim::{Batches, Key};
use proto::signer::SignRequest;
use proto::{GrpcSigner, Sign};
use rustix::time::{ClockId, clock_gettime};
use signer::{Options, Signer};
use tokio::sync::watch;

/// As in production.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const HEADER: &str = "From: News <news@acme.example>\r\nTo: one@destination.example\r\nSubject: Figures\r\n\
    Date: Sun, 22 Nov 2026 20:00:05 +0000\r\nMessage-ID: <1@acme.example>\r\nMIME-Version: 1.0\r\n\
    Content-Type: text/plain; charset=utf-8\r\n";
/// Requests of a call: what senders under load send.
const CALL: usize = 8;
const CALLS: usize = 2000;

fn main() -> anyhow::Result<()> {
    signatures(Batches::detect(), "us_per_signature", 400)?;
    signatures(Batches::one_by_one(), "us_per_signature_alone", 200)?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(grpc())
}

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::from_secs(now.tv_sec.unsigned_abs())
        + Duration::from_nanos(now.tv_nsec.unsigned_abs())
}

fn print(case: &str, metric: &str, value: f64) {
    println!(r#"{{"case":"{case}","metric":"{metric}","value":{value:.3},"unit":"us"}}"#);
}

/// A whole `DKIM-Signature` field with RSA-2048, in groups of eight.
fn signatures(batches: Batches, metric: &str, groups: usize) -> anyhow::Result<()> {
    let key = Key::from_pem(dkim::generate_rsa2048().as_bytes())?;
    let signer = dkim::Signer::new("acme.example", "s1", key)?;
    let sign = |groups: usize| -> anyhow::Result<()> {
        for _ in 0..groups {
            let drafts: Result<Vec<_>, _> = (0..8)
                .map(|number| signer.draft(HEADER.as_bytes(), &[number; 32], 1))
                .collect();
            for signed in black_box(batches.sign(drafts?)) {
                signed.field?;
            }
        }
        Ok(())
    };
    sign(20)?;
    let before = cpu();
    sign(groups)?;
    let spent = cpu() - before;
    print(
        "rsa2048",
        metric,
        spent.as_secs_f64() * 1e6 / (groups * 8) as f64,
    );
    Ok(())
}

/// The difference that gRPC makes, client and server together, with cheap signatures.
async fn grpc() -> anyhow::Result<()> {
    let folder = std::env::temp_dir().join(format!("bench-signer-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let key = folder.join("e1.pem");
    std::fs::write(&key, dkim::generate_ed25519())?;
    let documents = format!(
        "apiVersion: staffetta.dev/v1alpha1\nkind: Tenant\nmetadata: {{ name: acme }}\n\
         spec: {{ defaultStream: bulk, streams: [ {{ name: bulk, inDoubt: retry }} ] }}\n---\n\
         apiVersion: staffetta.dev/v1alpha1\nkind: SendingDomain\nmetadata: {{ name: acme.example }}\n\
         spec:\n  tenant: acme\n  dkim:\n  - {{ selector: e1, algorithm: ed25519-sha256, key: \"file:{}\" }}\n",
        key.display()
    );
    let snapshot = Snapshot::from_documents(&documents)
        .ok()
        .context("the documents of the benchmark are valid")?;
    let (_source, snapshots) = watch::channel(Arc::new(snapshot));
    let signer = Signer::start(Options::default(), snapshots).await;
    std::fs::remove_dir_all(&folder)?;

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    let shutdown = runtime::Shutdown::new();
    let served = tokio::spawn(signer::serve(signer.clone(), listener, shutdown.clone()));
    let client = GrpcSigner::new(&[url])
        .ok()
        .context("the address is a URL")?;

    let local = cpu_of_calls(&signer).await?;
    let remote = cpu_of_calls(&client).await?;
    print("grpc", "overhead_us", remote - local);
    shutdown.request();
    served.await??;
    Ok(())
}

/// CPU time of one request in µs.
async fn cpu_of_calls(signer: &dyn Sign) -> anyhow::Result<f64> {
    let request = SignRequest {
        domain: "acme.example".to_owned(),
        header: HEADER.as_bytes().into(),
        body_hash: vec![7; 32].into(),
        own_message: false,
        ..SignRequest::default()
    };
    let mut before = cpu();
    for number in 0..CALLS + 100 {
        if number == 100 {
            before = cpu();
        }
        let results = signer.sign(vec![request.clone(); CALL]).await;
        let results = results.ok().context("the signer answers")?;
        ensure!(results.len() == CALL, "a result for each request");
    }
    Ok((cpu() - before).as_secs_f64() * 1e6 / (CALLS * CALL) as f64)
}
