//! Benchmark of the suppression: ten million entries in a table, in the stream, and through a restart.
//!
//! Prints one JSON object per figure.

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use kit::NatsServer;
use proto::suppression::change::Kind;
use proto::suppression::{Change, Entry, Reason};
use spool::{InitOptions, Options, Stores, SuppressionStore, TranscriptBounds};
use suppress::{Keys, Table};

/// As in production.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ENTRIES: u64 = 10_000_000;
const LOOKUPS: u64 = 1_000_000;
/// Changes that are made at a time.
const BATCH: u64 = 100_000;
const PATIENCE: Duration = Duration::from_secs(600);
const NOW_MS: u64 = 1_800_000_000_000;

fn main() -> anyhow::Result<()> {
    lookups()?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(through_the_store())
}

fn print(metric: &str, value: f64, unit: &str) {
    println!(r#"{{"case":"10m","metric":"{metric}","value":{value:.3},"unit":"{unit}"}}"#);
}

fn address(number: u64) -> String {
    format!("person.{number}@domain-{}.example", number % 1000)
}

/// One of a hundred tenants has it.
fn tenant(number: u64) -> String {
    format!("tenant-{}", number % 100)
}

fn change(keys: &Keys, number: u64) -> anyhow::Result<Change> {
    let address = address(number);
    let key = keys.of(&address).context("it is an address")?;
    Ok(Change {
        key: key.to_vec().into(),
        address,
        tenant: tenant(number),
        stream: "newsletter".to_owned(),
        at_ms: NOW_MS,
        kind: Some(Kind::Entry(Entry {
            reason: Reason::Hard.into(),
            ..Entry::default()
        })),
    })
}

fn resident_mib(process: &str) -> anyhow::Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    let kib: f64 = kib.context("VmRSS")?.parse()?;
    Ok(kib / 1024.0)
}

/// What an address costs that is asked about, and what all entries take.
fn lookups() -> anyhow::Result<()> {
    let before = resident_mib("self")?;
    let table = Table::new(Keys::new(&[7; 32]));
    for number in 0..ENTRIES {
        table.apply(&change(table.keys(), number)?, NOW_MS);
    }
    ensure!(table.len() as u64 == ENTRIES, "{} entries", table.len());
    print("mib", resident_mib("self")? - before, "MiB");
    // Half of them have an entry; in no order, so that nothing is in the cache.
    let asked: Vec<(String, String)> = (0..LOOKUPS)
        .map(|number| (number * 7_919) % (2 * ENTRIES))
        .map(|number| (address(number), tenant(number)))
        .collect();
    let begun = Instant::now();
    let mut hits = 0_u64;
    for (address, tenant) in &asked {
        let hit = table.lookup(tenant, "newsletter", false, address, NOW_MS);
        hits += u64::from(black_box(hit).is_some());
    }
    print("lookup_ns", nanoseconds(begun.elapsed()), "ns");
    let expected = (0..LOOKUPS).filter(|number| (number * 7_919) % (2 * ENTRIES) < ENTRIES);
    ensure!(
        hits == expected.count() as u64,
        "{hits} hits: a false one, or one too few"
    );
    // As the scheduler asks, which has the keys.
    let keys: Vec<u64> = asked
        .iter()
        .filter_map(|(address, _)| table.keys().short_of(address))
        .collect();
    let begun = Instant::now();
    for key in &keys {
        black_box(table.knows(*key));
    }
    print("lookup_by_key_ns", nanoseconds(begun.elapsed()), "ns");
    Ok(())
}

fn nanoseconds(of_all: Duration) -> f64 {
    of_all.as_secs_f64() * 1e9 / LOOKUPS as f64
}

async fn through_the_store() -> anyhow::Result<()> {
    let folder = tempfile::tempdir_in("target")?;
    let mut server = NatsServer::start_with_sync(folder.path(), "always").await?;
    let stores = connect(&server).await?;
    let options = InitOptions {
        partitions: 1,
        replicas: 1,
        volume_bytes: 100 << 30,
        transcripts: TranscriptBounds::USUAL,
    };
    stores.init(&options).await?;
    let store = stores.suppression().context("init makes the stream")?;
    let begun = Instant::now();
    fill(&store).await?;
    print("import_seconds", begun.elapsed().as_secs_f64(), "s");
    print(
        "store_mib",
        store.usage().await?.0 as f64 / 1_048_576.0,
        "MiB",
    );
    print("nats_mib", nats_mib(&server)?, "MiB");

    let begun = Instant::now();
    server.kill9()?;
    server.restart().await?;
    print("nats_restart_seconds", begun.elapsed().as_secs_f64(), "s");
    let stores = connect(&server).await?;
    stores.open().await?;
    let store = stores.suppression().context("it is there")?;
    let table = Arc::new(Table::new(store.keys().clone()));
    let begun = Instant::now();
    let follower = store.follow(Arc::clone(&table));
    ensure!(follower.loaded_within(PATIENCE).await, "it takes too long");
    print("load_seconds", begun.elapsed().as_secs_f64(), "s");
    ensure!(table.len() as u64 == ENTRIES, "{} entries", table.len());

    let begun = Instant::now();
    for shard in 0..suppress::SHARDS {
        store
            .rewrite(shard, 0, NOW_MS)
            .await?
            .context("nobody else writes")?;
    }
    print("rewrite_seconds", begun.elapsed().as_secs_f64(), "s");
    print("nats_after_mib", nats_mib(&server)?, "MiB");
    Ok(())
}

async fn connect(server: &NatsServer) -> anyhow::Result<Stores> {
    let options = Options {
        url: server.url(),
        name: "bench".to_owned(),
        ..Options::default()
    };
    Ok(Stores::connect(&options).await?)
}

async fn fill(store: &SuppressionStore) -> anyhow::Result<()> {
    for first in (0..ENTRIES).step_by(usize::try_from(BATCH)?) {
        let changes = (first..first + BATCH).map(|number| change(store.keys(), number));
        store.store(changes.collect::<anyhow::Result<_>>()?).await?;
    }
    Ok(())
}

fn nats_mib(server: &NatsServer) -> anyhow::Result<f64> {
    let process = server
        .process()
        .context("the server runs")?
        .id()
        .to_string();
    ensure!(Path::new(&format!("/proc/{process}")).exists());
    resident_mib(&process)
}
