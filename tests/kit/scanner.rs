//! A scanner that does what the message says: it speaks as clamd does, and as Rspamd where it is asked by HTTP.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::servers::LOOPBACK;

/// The field by which a message says what is to be done with it.
///
/// | value | what a clamd says |
/// |---|---|
/// | none | nothing was found |
/// | `infected` | something was |
/// | `hostile` | something whose name would be a reply of its own |
/// | `error`, `limit` | it can't scan it, it is too large |
/// | `late` | the same as of none, after a second |
/// | `garbage`, `stale` | what it can't say; the answer to another message |
/// | `close`, `hang` | nothing |
/// | `stall` | nothing; it does not even read on |
/// | `action A` | of Rspamd: the action |
/// | `status N` | of Rspamd: this status |
const FIELD: &[u8] = b"X-Scan: ";

/// A running one. It ends when it is dropped.
pub struct ScriptedScanner {
    address: SocketAddr,
    book: Arc<Mutex<Book>>,
    task: JoinHandle<()>,
}

#[derive(Default)]
struct Book {
    connections: usize,
    messages: Vec<Vec<u8>>,
    requests: Vec<String>,
}

impl ScriptedScanner {
    /// Starts one on a port of its own.
    pub async fn start() -> Result<Self> {
        Self::start_at(SocketAddr::new(LOOPBACK, 0)).await
    }

    /// Starts one there.
    pub async fn start_at(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let book = Arc::<Mutex<Book>>::default();
        let shared = Arc::clone(&book);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                lock(&shared).connections += 1;
                let book = Arc::clone(&shared);
                // A client that leaves is no matter of ours.
                connections.spawn(async move { drop(serve(stream, &book).await) });
            }
        });
        Ok(Self {
            address,
            book,
            task,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections that it was given.
    pub fn connections(&self) -> usize {
        lock(&self.book).connections
    }

    /// Messages that it has seen to their end.
    pub fn messages(&self) -> Vec<Vec<u8>> {
        lock(&self.book).messages.clone()
    }

    /// Heads of requests by HTTP.
    pub fn requests(&self) -> Vec<String> {
        lock(&self.book).requests.clone()
    }
}

impl Drop for ScriptedScanner {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(book: &Mutex<Book>) -> std::sync::MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(stream: TcpStream, book: &Mutex<Book>) -> Result<()> {
    let mut stream = BufReader::new(stream);
    if stream.fill_buf().await?.starts_with(b"P") {
        return answer_request(stream, book).await;
    }
    let mut number = 0;
    loop {
        let command = read_until(&mut stream, 0).await?;
        match command.as_slice() {
            b"zIDSESSION" => {}
            b"zINSTREAM" => {
                number += 1;
                answer_stream(&mut stream, number, book).await?;
            }
            _ => bail!("unknown command"),
        }
    }
}

async fn read_until(stream: &mut BufReader<TcpStream>, end: u8) -> Result<Vec<u8>> {
    let mut read = Vec::new();
    stream.read_until(end, &mut read).await?;
    if read.pop() != Some(end) {
        bail!("the end");
    }
    Ok(read)
}

async fn answer_stream(
    stream: &mut BufReader<TcpStream>,
    number: usize,
    book: &Mutex<Book>,
) -> Result<()> {
    let mut content = Vec::new();
    loop {
        let length = stream.read_u32().await? as usize;
        if length == 0 {
            break;
        }
        let begin = content.len();
        content.resize(begin + length, 0);
        stream.read_exact(&mut content[begin..]).await?;
        if wanted(&content) == "stall" {
            std::future::pending::<()>().await;
        }
    }
    let wanted = wanted(&content);
    lock(book).messages.push(content);
    let said = match wanted.as_str() {
        "" => "OK".to_owned(),
        "late" => {
            tokio::time::sleep(Duration::from_secs(1)).await;
            "OK".to_owned()
        }
        "infected" => "Test.Infected FOUND".to_owned(),
        "hostile" => format!("a\r\n250 2.0.0 Ok queued as {} FOUND", "x".repeat(1000)),
        "error" => "Can't allocate memory ERROR".to_owned(),
        "limit" => {
            let reply = b"INSTREAM size limit exceeded. ERROR\0";
            return Ok(stream.write_all(reply).await?);
        }
        "stale" => {
            let reply = format!("{}: stream: OK\0", number + 1);
            return Ok(stream.write_all(reply.as_bytes()).await?);
        }
        "garbage" => return Ok(stream.write_all(b"\xff\xfe HTTP/1.1 OK\0").await?),
        "close" => bail!("as wanted"),
        _ => std::future::pending().await,
    };
    // A line feed would end the reply.
    let said = said.replace('\n', "\t");
    let reply = format!("{number}: stream: {said}\0");
    Ok(stream.write_all(reply.as_bytes()).await?)
}

async fn answer_request(mut stream: BufReader<TcpStream>, book: &Mutex<Book>) -> Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.extend_from_slice(&read_until(&mut stream, b'\n').await?);
        head.push(b'\n');
    }
    let mut content = Vec::new();
    loop {
        let line = String::from_utf8(read_until(&mut stream, b'\n').await?)?;
        let length = usize::from_str_radix(line.trim_end(), 16).context("a chunk")?;
        let begin = content.len();
        content.resize(begin + length, 0);
        stream.read_exact(&mut content[begin..]).await?;
        read_until(&mut stream, b'\n').await?;
        if length == 0 {
            break;
        }
    }
    let wanted = wanted(&content);
    {
        let mut book = lock(book);
        book.messages.push(content);
        book.requests
            .push(String::from_utf8_lossy(&head).into_owned());
    }
    let (status, action) = match wanted.split_once(' ') {
        Some(("status", status)) => (status, "no action"),
        Some(("action", action)) => ("200", action),
        _ => ("200", "no action"),
    };
    let json = format!(r#"{{"action":"{action}","score":7.5,"required_score":6.0}}"#);
    let response = format!(
        "HTTP/1.1 {status} X\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{json}",
        json.len()
    );
    stream.write_all(response.as_bytes()).await?;
    Ok(stream.shutdown().await?)
}

/// What the message says.
fn wanted(content: &[u8]) -> String {
    let at = content
        .windows(FIELD.len())
        .position(|window| window == FIELD);
    let rest = at.map_or(&[][..], |at| &content[at + FIELD.len()..]);
    let line = rest.split(|octet| *octet == b'\r').next();
    String::from_utf8_lossy(line.unwrap_or_default()).into_owned()
}
