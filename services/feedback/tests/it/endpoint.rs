//! An endpoint of webhooks.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::installation::PATIENCE;

const KEY: &[u8] = b"0123456789abcdef0123456789abcdef";

/// What is to be answered to a post of so many events; 0 = nothing, the connection is cut.
type Answer = Box<dyn FnMut(usize) -> u16 + Send>;

/// A post that was taken.
#[derive(Debug, Clone)]
pub struct Post {
    pub id: String,
    pub events: Vec<Value>,
    pub status: u16,
}

struct Inner {
    posts: Vec<Post>,
    answer: Answer,
}

/// Takes posts of any number of connections until it is dropped.
pub struct Endpoint {
    pub address: SocketAddr,
    inner: Arc<Mutex<Inner>>,
    listening: JoinHandle<()>,
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// As it is written into a file.
pub fn secret() -> String {
    format!("whsec_{}\n", STANDARD.encode(KEY))
}

impl Endpoint {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::new(Mutex::new(Inner {
            posts: Vec::new(),
            answer: Box::new(|_| 204),
        }));
        let shared = Arc::clone(&inner);
        let listening = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self {
            address,
            inner,
            listening,
        }
    }

    pub fn answer(&self, answer: impl FnMut(usize) -> u16 + Send + 'static) {
        self.inner.lock().unwrap().answer = Box::new(answer);
    }

    pub fn posts(&self) -> Vec<Post> {
        self.inner.lock().unwrap().posts.clone()
    }

    /// Ids of the events that were accepted, in the order in which they came first.
    pub fn accepted(&self) -> Vec<String> {
        let mut seen = HashSet::new();
        let mut ids = Vec::new();
        for post in self.posts() {
            for event in post.events.iter().filter(|_| post.status < 300) {
                let id = event["id"].as_str().unwrap().to_owned();
                if seen.insert(id.clone()) {
                    ids.push(id);
                }
            }
        }
        ids
    }

    /// Waits for so many different events to be accepted.
    pub async fn wait_for(&self, events: usize) -> Vec<String> {
        let begun = Instant::now();
        loop {
            let accepted = self.accepted();
            if accepted.len() >= events {
                return accepted;
            }
            let posts = self.posts().len();
            assert!(
                begun.elapsed() < PATIENCE,
                "{} of {events} events in {posts} posts",
                accepted.len()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn serve(mut stream: TcpStream, inner: Arc<Mutex<Inner>>) {
    let mut read = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let head = String::from_utf8(read[..end].to_vec()).unwrap();
        let field = |name: &str| {
            let mut lines = head.lines();
            let line = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.unwrap_or_default().to_owned()
        };
        let length: usize = field("content-length").parse().unwrap();
        while read.len() < end + length {
            if stream.read_buf(&mut read).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let body: Vec<u8> = read.drain(..end + length).skip(end).collect();
        assert!(head.starts_with("POST /hook?x=1 HTTP/1.1\r\n"), "{head}");
        let id = field("webhook-id");
        let signed = [
            format!("{id}.{}.", field("webhook-timestamp")).as_bytes(),
            &body,
        ]
        .concat();
        let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY), &signed);
        let expected = format!("v1,{}", STANDARD.encode(signature));
        assert_eq!(field("webhook-signature"), expected);
        let post: Value = serde_json::from_slice(&body).unwrap();
        let events = post["data"]["events"].as_array().unwrap().clone();
        let status = {
            let mut inner = inner.lock().unwrap();
            let status = (inner.answer)(events.len());
            inner.posts.push(Post { id, events, status });
            status
        };
        if status == 0 {
            return;
        }
        let answer = format!(
            "HTTP/1.1 {status} Word\r\nlocation: /elsewhere\r\ncontent-length: 2\r\n\r\nok"
        );
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}
