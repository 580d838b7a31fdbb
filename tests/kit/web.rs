//! An https server with an authority of its own, that answers as the test wants.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use crate::Authority;

/// Octets of the longest request.
const LONGEST_REQUEST: usize = 16 * 1024;

#[derive(Default)]
struct Book {
    /// What is sent for a path, octet by octet.
    answers: HashMap<String, Vec<u8>>,
    /// Heads of the requests so far.
    requests: Vec<String>,
    /// Connections are closed at once.
    away: bool,
    /// Nothing is closed after an answer.
    lingers: bool,
}

/// A running server. It ends when it is dropped.
pub struct WebServer {
    address: SocketAddr,
    authority: String,
    book: Arc<Mutex<Book>>,
    listening: JoinHandle<()>,
}

impl WebServer {
    /// Listens at the address, with a certificate for these host names and IP addresses.
    pub async fn start(address: SocketAddr, names: &[&str]) -> Result<Self> {
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("web server on {address}"))?;
        let address = listener.local_addr()?;
        let signing = Authority::new()?;
        let (acceptor, authority) = (signing.acceptor(names)?, signing.pem());
        let book = Arc::<Mutex<Book>>::default();
        let listening = tokio::spawn(accept(listener, acceptor, Arc::clone(&book)));
        Ok(Self {
            address,
            authority,
            book,
            listening,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a path, by the server's IP address.
    pub fn url(&self, path: &str) -> String {
        format!("https://{}{path}", self.address)
    }

    /// Writes the certificate of its authority into a PEM file of the folder.
    pub fn write_authority(&self, folder: &Path) -> Result<PathBuf> {
        let path = folder.join(format!("authority-{}.pem", self.address.port()));
        std::fs::write(&path, &self.authority)?;
        Ok(path)
    }

    /// Answers the path with 200 and this document; `fields` are header fields, each with its CRLF.
    pub fn show(&self, path: &str, fields: &str, document: &str) {
        let length = document.len();
        let answer =
            format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n{fields}\r\n{document}");
        self.answer(path, answer.as_bytes());
    }

    /// Answers the path with these octets, and closes the connection.
    pub fn answer(&self, path: &str, octets: &[u8]) {
        let mut book = lock(&self.book);
        book.answers.insert(path.to_owned(), octets.to_owned());
    }

    /// Whether connections are closed before a word is said.
    pub fn set_away(&self, away: bool) {
        lock(&self.book).away = away;
    }

    /// Whether connections stay open after an answer.
    pub fn set_lingering(&self, lingers: bool) {
        lock(&self.book).lingers = lingers;
    }

    /// The heads of the requests so far.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.book).requests.clone()
    }
}

impl Drop for WebServer {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock()
        .expect("no session panics while it holds the book")
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, book: Arc<Mutex<Book>>) {
    while let Ok((stream, _)) = listener.accept().await {
        if lock(&book).away {
            continue;
        }
        let (acceptor, book) = (acceptor.clone(), Arc::clone(&book));
        tokio::spawn(async move {
            // A client that breaks off is what some tests want.
            drop(serve(stream, &acceptor, &book).await);
        });
    }
}

async fn serve(stream: TcpStream, acceptor: &TlsAcceptor, book: &Mutex<Book>) -> Result<()> {
    let mut stream = acceptor.accept(stream).await?;
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") && request.len() < LONGEST_REQUEST {
        if stream.read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let request = String::from_utf8_lossy(&request).into_owned();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let (answer, lingers) = {
        let mut book = lock(book);
        book.requests.push(request);
        (book.answers.get(&path).cloned(), book.lingers)
    };
    let nothing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_vec();
    stream.write_all(&answer.unwrap_or(nothing)).await?;
    stream.flush().await?;
    if lingers {
        std::future::pending::<()>().await;
    }
    stream.shutdown().await?;
    Ok(())
}
