//! Load with a ledger.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::message::message;
use crate::{Ledger, Outcome, Session, Submission};

/// What is sent.
#[derive(Clone)]
pub struct LoadOptions {
    /// Connections at once.
    pub connections: u32,
    /// Messages in a second over all connections; as fast as they are taken when `None`.
    pub rate: Option<f64>,
    /// Bytes of each message, about.
    pub size: usize,
    /// MAIL FROM and From.
    pub sender: String,
    /// Recipient domains, used in turn.
    pub domains: Vec<String>,
    /// Begins every token, so that two loads of a test stay apart.
    pub prefix: String,
    /// No more messages than this.
    pub messages: u64,
}

struct Progress {
    stopping: AtomicBool,
    next: AtomicU64,
    accepted: AtomicU64,
}

/// Clients that submit until they are stopped or all messages are sent.
pub struct Load {
    progress: Arc<Progress>,
    clients: JoinSet<Ledger>,
}

impl Load {
    /// Starts the clients.
    pub fn start(address: SocketAddr, options: LoadOptions) -> Self {
        let progress = Arc::new(Progress {
            stopping: AtomicBool::new(false),
            next: AtomicU64::new(0),
            accepted: AtomicU64::new(0),
        });
        let mut clients = JoinSet::new();
        for _ in 0..options.connections {
            clients.spawn(client(address, options.clone(), progress.clone()));
        }
        Self { progress, clients }
    }

    /// Messages accepted so far.
    pub fn accepted(&self) -> u64 {
        self.progress.accepted.load(Ordering::Relaxed)
    }

    /// Ends it after the messages that are under way, and gives the ledger.
    pub async fn stop(self) -> Result<Ledger> {
        self.progress.stopping.store(true, Ordering::Relaxed);
        self.finish().await
    }

    /// Waits until all messages are sent, and gives the ledger.
    pub async fn finish(mut self) -> Result<Ledger> {
        let mut ledger = Ledger::default();
        while let Some(client) = self.clients.join_next().await {
            ledger.merge(client?);
        }
        Ok(ledger)
    }
}

/// One client: takes the next number, submits, and connects again when the connection is gone.
async fn client(address: SocketAddr, options: LoadOptions, progress: Arc<Progress>) -> Ledger {
    let mut ledger = Ledger::default();
    let mut session = None;
    let pause = options
        .rate
        .map(|rate| Duration::from_secs_f64(f64::from(options.connections) / rate));
    let mut due = Instant::now();
    while !progress.stopping.load(Ordering::Relaxed) {
        let Some(open) = session.as_mut() else {
            match Session::open(address, Duration::from_secs(30)).await {
                Ok(open) => session = Some(open),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
            continue;
        };
        if let Some(pause) = pause {
            tokio::time::sleep_until(due).await;
            due = Instant::now().max(due + pause);
        }
        let number = progress.next.fetch_add(1, Ordering::Relaxed);
        if number >= options.messages {
            break;
        }
        let token = format!("{}-{number}", options.prefix);
        let domain = &options.domains[number as usize % options.domains.len()];
        let recipients = vec![format!("user{number}@{domain}")];
        let content = message(&token, &options.sender, &recipients[0], options.size);
        let Ok(outcome) = open.submit(&options.sender, &recipients, &content).await else {
            // Broken before the final dot: never submitted, nothing to write down.
            session = None;
            continue;
        };
        match &outcome {
            Outcome::Accepted(_) => {
                progress.accepted.fetch_add(1, Ordering::Relaxed);
            }
            Outcome::Refused(reply) => {
                if reply.starts_with("421") {
                    session = None;
                }
                // A relay that says "later" is not asked in a tight loop.
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Outcome::Unknown(_) => session = None,
        }
        ledger.add(Submission {
            token,
            recipients,
            outcome,
        });
    }
    ledger
}
