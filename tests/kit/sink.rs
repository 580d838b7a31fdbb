//! A programmable MX host. It keeps a ledger of what it has taken responsibility for.

mod rules;
mod session;

pub use rules::{Action, Matching, Rule, Stage};

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use anyhow::{Context, Result};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use rules::Rules;

/// A message that the sink has accepted with its final reply, or would have (see
/// [`Action::TakeAndDrop`]).
#[derive(Debug, Clone)]
pub struct Received {
    /// When the final dot had come.
    pub at: Instant,
    /// The sink's number of the connection, from 0.
    pub connection: u64,
    /// The address that the client connected from.
    pub peer: SocketAddr,
    /// What it said in EHLO.
    pub ehlo: String,
    /// Whether the connection was encrypted.
    pub tls: bool,
    /// MAIL FROM without the angle brackets.
    pub sender: String,
    /// Parameters of MAIL FROM as sent.
    pub parameters: String,
    /// Recipients that were accepted, without the angle brackets.
    pub recipients: Vec<String>,
    /// The content with the dots un-stuffed; empty unless the sink keeps contents.
    pub content: Vec<u8>,
    /// The value of the header field `X-Token`, by which the ledger knows the message.
    pub token: String,
    /// Whether the body is one made by [`crate::message`] and unchanged.
    pub intact: bool,
}

impl Received {
    /// The content as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.content).into_owned()
    }
}

/// What the sink has seen.
#[derive(Default)]
struct Book {
    received: Vec<Received>,
    /// (token, recipient) → how often it was accepted.
    deliveries: HashMap<(String, String), u32>,
    connections: u64,
    open_connections: u64,
    most_open_connections: u64,
    delayed: u64,
    commands: Vec<String>,
}

impl Book {
    /// Called at commands, not at the start of a connection: then the end of the connection that this one
    /// takes the place of may not have been read yet.
    fn note_open(&mut self) {
        self.most_open_connections = self.most_open_connections.max(self.open_connections);
    }
}

/// What all sessions of a sink share.
struct Shared {
    rules: Rules,
    book: Mutex<Book>,
    keeps_content: bool,
    tls: Option<tokio_rustls::TlsAcceptor>,
}

impl Shared {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.book
            .lock()
            .expect("no session panics while it holds the book")
    }
}

/// A running MX host. It ends when it is dropped.
pub struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
    listening: JoinHandle<()>,
}

impl Sink {
    /// One that accepts everything but what the rules say, and keeps contents.
    pub async fn start(address: SocketAddr, rules: Vec<Rule>) -> Result<Self> {
        Self::listen(address, rules, true, None).await
    }

    /// One for load: keeps tokens, not contents.
    pub async fn start_counting(address: SocketAddr, rules: Vec<Rule>) -> Result<Self> {
        Self::listen(address, rules, false, None).await
    }

    /// One that offers STARTTLS with a certificate of its own making for the host name.
    pub async fn start_with_tls(address: SocketAddr, host: &str, rules: Vec<Rule>) -> Result<Self> {
        Self::listen(address, rules, true, Some(session::acceptor(host)?)).await
    }

    /// One that offers STARTTLS with a certificate for the names that the authority has signed.
    pub async fn start_certified(
        address: SocketAddr,
        authority: &crate::Authority,
        names: &[&str],
        rules: Vec<Rule>,
    ) -> Result<Self> {
        Self::listen(address, rules, true, Some(authority.acceptor(names)?)).await
    }

    async fn listen(
        address: SocketAddr,
        rules: Vec<Rule>,
        keeps_content: bool,
        tls: Option<tokio_rustls::TlsAcceptor>,
    ) -> Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("sink on {address}"))?;
        let address = listener.local_addr()?;
        let book = Mutex::new(Book::default());
        let shared = Arc::new(Shared {
            rules: Rules::new(rules),
            book,
            keeps_content,
            tls,
        });
        let listening = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self {
            address,
            shared,
            listening,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All messages accepted so far, in order.
    pub fn received(&self) -> Vec<Received> {
        self.shared.book().received.clone()
    }

    /// How many messages were accepted so far.
    pub fn count(&self) -> usize {
        self.shared.book().received.len()
    }

    /// How often each (token, recipient) was accepted.
    pub fn deliveries(&self) -> HashMap<(String, String), u32> {
        self.shared.book().deliveries.clone()
    }

    /// Connections so far.
    pub fn connections(&self) -> u64 {
        self.shared.book().connections
    }

    /// The largest number of connections that were open at the same time, of those on which the client
    /// has spoken.
    pub fn most_open_connections(&self) -> u64 {
        self.shared.book().most_open_connections
    }

    /// Sessions in which a rule makes the client wait at the moment.
    pub fn delayed(&self) -> u64 {
        self.shared.book().delayed
    }

    /// Command lines so far, of all connections (not kept by a counting sink).
    pub fn commands(&self) -> Vec<String> {
        self.shared.book().commands.clone()
    }

    /// Replaces the rules, for what comes from now on.
    pub fn set_rules(&self, rules: Vec<Rule>) {
        self.shared.rules.replace(rules);
    }

    /// Waits until so many messages are accepted.
    pub async fn wait_for(
        &self,
        count: usize,
        limit: std::time::Duration,
    ) -> Result<Vec<Received>> {
        crate::until("messages at the sink", limit, || async {
            (self.count() >= count).then_some(())
        })
        .await
        .with_context(|| format!("{} of {count} messages came", self.count()))?;
        Ok(self.received())
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Accepts connections until the sink is dropped; each is served by a task of its own.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut sessions = tokio::task::JoinSet::new();
    while let Ok((stream, peer)) = listener.accept().await {
        while sessions.try_join_next().is_some() {}
        let shared = shared.clone();
        sessions.spawn(async move {
            let connection = {
                let mut book = shared.book();
                book.connections += 1;
                book.open_connections += 1;
                book.connections - 1
            };
            // A client that breaks off is nothing that a sink complains about.
            session::serve(stream, peer, connection, &shared)
                .await
                .unwrap_or_default();
            shared.book().open_connections -= 1;
        });
    }
}
