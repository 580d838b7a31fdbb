//! Submits messages at a steady rate and tells how long their final dots waited:
//! `paced-load ADDRESS MESSAGES PER-SECOND SIZE SENDER RECIPIENT` prints one JSON object.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use kit::{Outcome, Session, message};
use tokio::task::JoinSet;
use tokio::time::Instant;

const CONNECTIONS: u64 = 50;
const PATIENCE: Duration = Duration::from_secs(60);

struct Plan {
    address: SocketAddr,
    messages: u64,
    per_second: f64,
    size: usize,
    sender: String,
    recipient: String,
    start: Instant,
    next: AtomicU64,
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [address, messages, per_second, size, sender, recipient] = arguments.as_slice() else {
        bail!("paced-load ADDRESS MESSAGES PER-SECOND SIZE SENDER RECIPIENT");
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let plan = Arc::new(Plan {
            address: address.parse().context("ADDRESS")?,
            messages: messages.parse().context("MESSAGES")?,
            per_second: per_second.parse().context("PER-SECOND")?,
            size: size.parse().context("SIZE")?,
            sender: sender.clone(),
            recipient: recipient.clone(),
            start: Instant::now(),
            next: AtomicU64::new(0),
        });
        let mut clients = JoinSet::new();
        for _ in 0..CONNECTIONS {
            clients.spawn(client(plan.clone()));
        }
        let mut waits = Vec::new();
        while let Some(client) = clients.join_next().await {
            waits.extend(client??);
        }
        waits.sort_unstable();
        let rank = |percent: usize| {
            waits
                .get(waits.len() * percent / 100)
                .copied()
                .unwrap_or_default()
        };
        let elapsed = plan.start.elapsed().as_secs_f64();
        println!(
            "{{\"accepted\": {}, \"per_second\": {:.1}, \"p50_ms\": {:.3}, \"p99_ms\": {:.3}}}",
            waits.len(),
            waits.len() as f64 / elapsed,
            rank(50).as_secs_f64() * 1000.0,
            rank(99).as_secs_f64() * 1000.0
        );
        Ok(())
    })
}

/// Takes the next number, waits until it is due, submits.
async fn client(plan: Arc<Plan>) -> Result<Vec<Duration>> {
    let mut session = Session::open(plan.address, PATIENCE).await?;
    let mut waits = Vec::new();
    loop {
        let number = plan.next.fetch_add(1, Ordering::Relaxed);
        if number >= plan.messages {
            return Ok(waits);
        }
        let content = message(
            &format!("P-{number}"),
            &plan.sender,
            &plan.recipient,
            plan.size,
        );
        let due = plan.start + Duration::from_secs_f64(number as f64 / plan.per_second);
        tokio::time::sleep_until(due).await;
        match session
            .submit(
                &plan.sender,
                std::slice::from_ref(&plan.recipient),
                &content,
            )
            .await?
        {
            Outcome::Accepted(_) => waits.push(session.final_wait()),
            other => bail!("message {number}: {other:?}"),
        }
    }
}
