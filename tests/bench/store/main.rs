//! What storing a message costs the process that accepts it: blocks written as ingress writes them, and nothing else.
//!
//! `bench-store NATS-URL MONITOR-URL MESSAGES RETURN-PATH RECIPIENT` prints one JSON object; `tests/bench/ingress.py` runs it beside the
//! relay, which delivers what is stored.

use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use mail::MessageId;
use proto::envelope::{Envelope, Recipient};
use proto::spool::IndexEntry;
use rustix::time::{ClockId, clock_gettime};
use spool::{BlockWriter, Durability, Options, Stores, Submission, WriterOptions};
use tokio::task::JoinSet;

/// As in production.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Messages under way, as the benchmark of ingress has clients.
const CLIENTS: usize = 20;
const HEADER: &str = "From: load@sender.example\r\nSubject: bench\r\n\r\n";
const LINE: &str = "0123456789012345678901234567890123456789012345678901234567890123456789\r\n";
const SIZE: usize = 10 << 10;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1);
    let mut word = || words.next().context("an argument is missing");
    let options = Options {
        url: word()?,
        access: spool::Access::default(),
        monitor: Some(word()?),
        name: "bench-store".to_owned(),
        durability: Durability::Strict,
    };
    let messages: usize = word()?.parse()?;
    let (return_path, recipient) = (word()?, word()?);
    let stores = Stores::connect(&options).await?;
    let partitions = stores.open().await?.partitions;
    let writer = stores.block_writer(partitions, WriterOptions::default());
    let content = Bytes::from(format!("{HEADER}{}", LINE.repeat(SIZE / LINE.len())));
    let entry = entry(&return_path, &recipient);
    store(&writer, &entry, &content, messages / 10).await?;
    let before = cpu();
    store(&writer, &entry, &content, messages).await?;
    let each = (cpu() - before).as_secs_f64() * 1e6 / messages as f64;
    println!(r#"{{"case":"storage","metric":"cpu_us_per_message","value":{each:.3},"unit":"us"}}"#);
    Ok(())
}

fn entry(return_path: &str, recipient: &str) -> IndexEntry {
    let envelope = Envelope {
        tenant: "bench".to_owned(),
        stream: "transactional".to_owned(),
        credential: "bench".to_owned(),
        return_path: return_path.to_owned(),
        recipients: vec![Recipient {
            address: recipient.to_owned(),
            ..Recipient::default()
        }],
        from_domain: "sender.example".to_owned(),
        ..Envelope::default()
    };
    IndexEntry {
        body_hash: Bytes::from_static(&[7; 32]),
        header_length: HEADER.len() as u32,
        envelope: Some(envelope),
        ..IndexEntry::default()
    }
}

/// Each client stores one message after the other, all of them at once.
async fn store(
    writer: &BlockWriter,
    entry: &IndexEntry,
    content: &Bytes,
    messages: usize,
) -> anyhow::Result<()> {
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (writer, entry, content) = (writer.clone(), entry.clone(), content.clone());
        clients.spawn(async move {
            for _ in 0..messages / CLIENTS {
                let mut entry = entry.clone();
                entry.message_id = Bytes::copy_from_slice(MessageId::now().as_bytes());
                writer
                    .submit(Submission::new(entry, content.clone()))
                    .await?;
            }
            anyhow::Ok(())
        });
    }
    let mut ended = 0;
    while let Some(client) = clients.join_next().await {
        client??;
        ended += 1;
    }
    ensure!(ended == CLIENTS, "{ended} of {CLIENTS} clients ended");
    Ok(())
}

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ProcessCPUTime);
    Duration::from_secs(now.tv_sec.unsigned_abs())
        + Duration::from_nanos(now.tv_nsec.unsigned_abs())
}
