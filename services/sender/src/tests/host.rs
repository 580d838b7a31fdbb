//! A host that follows a script.
//!
//! One script for each connection it gets. Lines of a script: `> text` is said, `< text` must be how the
//! client's next line begins, `<until text` reads up to such a line, `<empty` reads an empty one,
//! `<data` reads content up to the final dot, `<end` waits until the client closes,
//! `close` closes, `gate` waits for the test, `tell` tells it, `tls` makes a TLS handshake, `broken tls` spoils it,
//! `tls as NAME` makes it with a certificate of the tests' authority, `tls asking as NAME` asks for a certificate of that
//! authority, too, `refused tls as [expired] NAME` has the client refuse that, `tls by key` makes it with a certificate of which
//! only the key is known. Extra words for common passages: `hello` (banner and EHLO with
//! PIPELINING), `mail` (MAIL, one RCPT and DATA pipelined, all accepted).

use std::sync::{Arc, OnceLock};

use kit::Authority;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufStream};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinHandle;

trait Octets: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Octets for T {}

pub struct Host {
    pub port: u16,
    gate: Arc<Notify>,
    told: Arc<Notify>,
    task: JoinHandle<Vec<String>>,
}

const HELLO: &str = "> 220 mx.example\n< EHLO relay.example\n> 250-mx.example\n> 250 PIPELINING";
const MAIL: &str = "< MAIL FROM:<a@sender.example>\n< RCPT TO:<b@dest.example>\n< DATA\n> 250 ok\n> 250 ok\n> 354 go on";

impl Host {
    pub async fn start(scripts: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", scripts).await
    }

    pub async fn start_at(address: &str, scripts: &[&str]) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let expand = |script: &&str| {
            script
                .lines()
                .map(str::trim)
                .map(|line| match line {
                    "hello" => HELLO.to_owned(),
                    "mail" => MAIL.to_owned(),
                    other => other.to_owned(),
                })
                .collect::<Vec<_>>()
                .join("\n")
        };
        let scripts: Vec<String> = scripts.iter().map(expand).collect();
        let gate = Arc::new(Notify::new());
        let told = Arc::new(Notify::new());
        let (gates, tells) = (gate.clone(), told.clone());
        let task = tokio::spawn(async move {
            let mut contents = Vec::new();
            for script in scripts {
                let (stream, _) = listener.accept().await.unwrap();
                follow(Box::new(stream), &script, &mut contents, &gates, &tells).await;
            }
            contents
        });
        Self {
            port,
            gate,
            told,
            task,
        }
    }

    /// Lets the script pass the next `gate`.
    pub fn open_gate(&self) {
        self.gate.notify_one();
    }

    /// Waits until the script has come to its next `tell`.
    pub async fn told(&self) {
        self.told.notified().await;
    }

    /// Waits until all scripts are through; the contents that were received.
    pub async fn done(self) -> Vec<String> {
        tokio::time::timeout(super::play::PATIENCE, self.task)
            .await
            .expect("the script comes to its end")
            .expect("the client follows the script")
    }
}

async fn follow(
    stream: Box<dyn Octets>,
    script: &str,
    contents: &mut Vec<String>,
    gate: &Notify,
    told: &Notify,
) {
    let mut stream = BufStream::new(stream);
    for step in script.lines().filter(|line| !line.is_empty()) {
        if let Some(text) = step.strip_prefix("> ") {
            stream
                .write_all(format!("{text}\r\n").as_bytes())
                .await
                .unwrap();
            stream.flush().await.unwrap();
        } else if let Some(text) = step.strip_prefix("< ") {
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            assert!(line.starts_with(text), "{line:?} instead of {text:?}");
        } else if let Some(text) = step.strip_prefix("<until ") {
            let mut line = String::new();
            while !line.starts_with(text) {
                line.clear();
                assert!(
                    stream.read_line(&mut line).await.unwrap() > 0,
                    "the client closed before {text:?}"
                );
            }
        } else if step == "<empty" {
            let mut line = String::new();
            stream.read_line(&mut line).await.unwrap();
            assert_eq!(line, "\r\n");
        } else if step == "<data" {
            let mut content = String::new();
            while !content.ends_with("\r\n.\r\n") {
                assert!(
                    stream.read_line(&mut content).await.unwrap() > 0,
                    "the client closed within the content: {content:?}"
                );
            }
            contents.push(content);
        } else if step == "<end" {
            let mut rest = Vec::new();
            let _reset = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest).await;
            contents.push(String::from_utf8_lossy(&rest).into_owned());
        } else if step == "gate" {
            gate.notified().await;
        } else if step == "tell" {
            told.notify_one();
        } else if step == "close" {
            return;
        } else if step == "tls" {
            let tls = tokio_rustls::TlsAcceptor::from(tls_config())
                .accept(stream.into_inner())
                .await
                .unwrap();
            stream = BufStream::new(Box::new(tls));
        } else if step == "tls by key" {
            let acceptor = tokio_rustls::TlsAcceptor::from(known().0.clone());
            let accepted = acceptor.accept(stream.into_inner()).await;
            stream = BufStream::new(Box::new(accepted.unwrap()));
        } else if let Some(name) = step.strip_prefix("tls as ") {
            let acceptor = authority().acceptor(&[name]).unwrap();
            let accepted = acceptor.accept(stream.into_inner()).await;
            stream = BufStream::new(Box::new(accepted.unwrap()));
        } else if let Some(name) = step.strip_prefix("tls asking as ") {
            let acceptor = authority().asking_acceptor(&[name]).unwrap();
            let accepted = acceptor.accept(stream.into_inner()).await;
            stream = BufStream::new(Box::new(accepted.unwrap()));
        } else if let Some(name) = step.strip_prefix("refused tls as ") {
            let acceptor = match name.strip_prefix("expired ") {
                Some(name) => authority().expired_acceptor(&[name]).unwrap(),
                None => authority().acceptor(&[name]).unwrap(),
            };
            // With TLS 1.3 the server hears of it when it reads.
            if let Ok(mut stream) = acceptor.accept(stream.into_inner()).await {
                let read = tokio::io::AsyncReadExt::read_u8(&mut stream).await;
                assert!(read.is_err(), "the client takes the certificate");
            }
            return;
        } else if step == "broken tls" {
            stream.write_all(b"this is no handshake").await.unwrap();
            stream.flush().await.unwrap();
        } else {
            panic!("no such step: {step}");
        }
    }
}

fn tls_config() -> Arc<rustls::ServerConfig> {
    config_of(&rcgen::generate_simple_self_signed(vec!["other.example".into()]).unwrap())
}

/// What `tls by key` shows, and its SubjectPublicKeyInfo.
pub fn known() -> &'static (Arc<rustls::ServerConfig>, Vec<u8>) {
    static KNOWN: OnceLock<(Arc<rustls::ServerConfig>, Vec<u8>)> = OnceLock::new();
    KNOWN.get_or_init(|| {
        use rcgen::PublicKeyData;
        let made = rcgen::generate_simple_self_signed(vec!["other.example".into()]).unwrap();
        (config_of(&made), made.signing_key.subject_public_key_info())
    })
}

fn config_of(made: &rcgen::CertifiedKey<rcgen::KeyPair>) -> Arc<rustls::ServerConfig> {
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    Arc::new(config)
}

/// Has signed the certificates of `tls as`.
pub fn authority() -> &'static Authority {
    static AUTHORITY: OnceLock<Authority> = OnceLock::new();
    AUTHORITY.get_or_init(|| Authority::new().unwrap())
}
