use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

#[derive(Default)]
struct Counted {
    opened: AtomicU64,
    closed: AtomicU64,
    turned_away: AtomicU64,
}

impl WebStats for Counted {
    fn opened(&self) {
        self.opened.fetch_add(1, Relaxed);
    }

    fn closed(&self) {
        self.closed.fetch_add(1, Relaxed);
    }

    fn turned_away(&self) {
        self.turned_away.fetch_add(1, Relaxed);
    }
}

/// A server that keeps what it is asked.
struct Running {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Request>>>,
    stats: Arc<Counted>,
    shutdown: Shutdown,
    task: tokio::task::JoinHandle<()>,
}

impl Running {
    async fn start(configured: WebListener) -> Self {
        let server = WebServer::bind(&configured).await.unwrap();
        let address = server.address().unwrap();
        let (asked, shutdown) = (Arc::<Mutex<Vec<Request>>>::default(), Shutdown::new());
        let (stats, book) = (Arc::<Counted>::default(), Arc::clone(&asked));
        let answer = move |request: Request| {
            let body = format!("{:?} {}", request.method, request.path);
            book.lock().unwrap().push(request);
            std::future::ready(Response {
                status: 200,
                fields: vec![("content-type", "text/plain")],
                body,
            })
        };
        let serve = server.serve(answer, stats.clone(), shutdown.clone());
        Self {
            address,
            asked,
            stats,
            shutdown,
            task: tokio::spawn(serve),
        }
    }

    async fn say(&self, octets: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        exchange(&mut stream, octets).await
    }

    fn last(&self) -> Request {
        self.asked.lock().unwrap().last().unwrap().clone()
    }
}

/// What is answered until the connection is closed, which may happen while more is being sent.
async fn exchange<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S, octets: &[u8]) -> String {
    stream.write_all(octets).await.ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.ok();
    String::from_utf8(answer).unwrap()
}

fn listener() -> WebListener {
    WebListener {
        listen: "127.0.0.1:0".parse().unwrap(),
        certificates: Vec::new(),
        max_connections: 10,
        max_connections_per_client: 2,
        proxies: Vec::new(),
    }
}

const GET: &[u8] = b"GET /u/x?y=z HTTP/1.1\r\nHost: u\r\nAccept-Language: de\r\nX-Forwarded-For: 192.0.2.1\r\nConnection: close\r\n\r\n";

#[tokio::test]
async fn answers_what_is_asked_and_reads_bodies_of_posts_alone() {
    let server = Running::start(listener()).await;
    let answer = server.say(GET).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\nGet /u/x"), "{answer}");
    let asked = server.last();
    assert_eq!(asked.languages.as_deref(), Some("de"));
    assert_eq!(asked.client, IpAddr::from([127, 0, 0, 1]));
    let head = String::from_utf8(GET.to_vec())
        .unwrap()
        .replace("GET", "HEAD");
    assert!(server.say(head.as_bytes()).await.ends_with("\r\n\r\n"));
    let with_body = |method: &str, more: &str, body: &str| {
        let length = body.len();
        format!(
            "{method} / HTTP/1.1\r\nHost: u\r\nConnection: close\r\nContent-Length: {length}\r\n{more}\r\n{body}"
        )
    };
    let post = with_body("POST", "Content-Type: a/b\r\n", "x=y");
    assert!(server.say(post.as_bytes()).await.ends_with("Post /"));
    let asked = server.last();
    assert_eq!(
        (asked.content_type.as_deref(), &asked.body[..]),
        (Some("a/b"), &b"x=y"[..])
    );
    let put = with_body("PUT", "", "x=y");
    assert!(server.say(put.as_bytes()).await.ends_with("Other /"));
    assert!(server.last().body.is_empty());
    server.shutdown.request();
    server.task.await.unwrap();
    assert_eq!(
        server.stats.opened.load(Relaxed),
        server.stats.closed.load(Relaxed)
    );
}

#[tokio::test]
async fn takes_no_more_than_it_must() {
    let server = Running::start(listener()).await;
    let longest = "x".repeat(MOST_BODY + 1);
    for (request, status) in [
        (
            format!("POST / HTTP/1.1\r\nHost: u\r\nContent-Length: 1000000\r\n\r\n{longest}"),
            "413",
        ),
        (
            format!(
                "POST / HTTP/1.1\r\nHost: u\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{longest}\r\n0\r\n\r\n",
                longest.len()
            ),
            "413",
        ),
        (
            format!(
                "GET / HTTP/1.1\r\nX: {}\r\n\r\n",
                "x".repeat(2 * MOST_HEADER)
            ),
            "431",
        ),
        (
            format!(
                "GET / HTTP/1.1\r\n{}\r\n",
                "X: y\r\n".repeat(MOST_FIELDS + 1)
            ),
            "431",
        ),
        ("\u{16}\u{3}\u{1}\u{2}\r\n\r\n".to_owned(), "400"),
    ] {
        let answer = server.say(request.as_bytes()).await;
        // A client that is cut off while it is still sending may not see why.
        assert!(
            answer.is_empty() || answer.starts_with(&format!("HTTP/1.1 {status}")),
            "{answer}"
        );
    }
    assert!(server.asked.lock().unwrap().is_empty());
    server.shutdown.request();
}

#[tokio::test]
async fn one_client_does_not_take_the_connections_of_all() {
    let server = Running::start(listener()).await;
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        // Half a request, and its answer to another one, so that it is certainly taken.
        let request = [&GET[..GET.len() - 21], b"\r\nGET / HTTP/1.1\r\n"].concat();
        stream.write_all(&request).await.unwrap();
        let mut octet = [0];
        stream.read_exact(&mut octet).await.unwrap();
        waiting.push(stream);
    }
    assert_eq!(server.say(GET).await, "");
    assert_eq!(server.stats.turned_away.load(Relaxed), 1);
    server.shutdown.request();
}

#[tokio::test]
async fn believes_the_proxies_that_it_trusts_about_the_client() {
    let server = Running::start(WebListener {
        proxies: ["127.0.0.0/8", "10.0.0.0/8"]
            .map(|network| network.parse().unwrap())
            .into(),
        ..listener()
    })
    .await;
    let limits = Limits {
        connections: Arc::new(Semaphore::new(1)),
        clients: Arc::default(),
        per_client: 1,
        proxies: ["127.0.0.0/8", "10.0.0.0/8"]
            .map(|network| network.parse().unwrap())
            .into(),
    };
    for (fields, expected) in [
        (&["192.0.2.1"][..], "192.0.2.1"),
        (&["198.51.100.1, 192.0.2.1"], "192.0.2.1"),
        (&["198.51.100.1", "192.0.2.1,10.0.0.7"], "192.0.2.1"),
        (&["198.51.100.1", "2001:db8::1"], "2001:db8::1"),
        (&["198.51.100.1, x"], "127.0.0.1"),
        (&["10.0.0.1"], "127.0.0.1"),
        (&[], "127.0.0.1"),
    ] {
        let mut map = HeaderMap::new();
        for field in fields {
            map.append("x-forwarded-for", HeaderValue::from_static(field));
        }
        let found = limits.client([127, 0, 0, 1].into(), &map);
        assert_eq!(found, expected.parse::<IpAddr>().unwrap(), "{fields:?}");
    }
    assert!(server.say(GET).await.starts_with("HTTP/1.1 200"));
    assert_eq!(server.last().client, IpAddr::from([192, 0, 2, 1]));
    server.shutdown.request();
}

#[tokio::test]
async fn shows_the_certificate_of_the_host_that_is_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let mut roots = rustls::RootCertStore::empty();
    let certificates = ["u.acme.example", "u.other.example"].map(|name| {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let files = crate::bootstrap::CertificateFiles {
            certificate: folder.path().join(format!("{name}.pem")),
            key: folder.path().join(format!("{name}.key")),
        };
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        roots.add(made.cert.der().clone()).unwrap();
        files
    });
    let server = Running::start(WebListener {
        certificates: certificates.into(),
        ..listener()
    })
    .await;
    let config = rustls::ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    for name in ["u.acme.example", "u.other.example"] {
        let stream = TcpStream::connect(server.address).await.unwrap();
        let name = rustls::pki_types::ServerName::try_from(name).unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        let answer = exchange(&mut stream, GET).await;
        assert!(answer.ends_with("Get /u/x"), "{answer}");
    }
    server.shutdown.request();
}
