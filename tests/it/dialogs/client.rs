//! The client's end of a dialogue: octets out, replies in, nothing clever.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const PATIENCE: Duration = Duration::from_secs(60);

/// A certificate and its key.
pub type Identity = (CertificateDer<'static>, PrivateKeyDer<'static>);

enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection to the server.
pub struct Client {
    socket: Socket,
    received: Vec<u8>,
    /// Lines of the last reply, code and separator included.
    pub reply: Vec<String>,
}

impl Client {
    pub async fn connect(from: IpAddr, to: SocketAddr) -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(from, 0))?;
        let stream = socket.connect(to).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            socket: Socket::Plain(stream),
            received: Vec::new(),
            reply: Vec::new(),
        })
    }

    /// Asks for `name`, and trusts nothing but its certificate; shows `own`.
    pub async fn start_tls(
        self,
        name: &str,
        certificate: &CertificateDer<'static>,
        own: Option<Identity>,
    ) -> Result<Self> {
        let Socket::Plain(stream) = self.socket else {
            bail!("TLS is active already");
        };
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots);
        let config = match own {
            None => config.with_no_client_auth(),
            Some((certificate, key)) => config.with_client_auth_cert(vec![certificate], key)?,
        };
        let name = ServerName::try_from(name.to_owned())?;
        let handshake = TlsConnector::from(Arc::new(config)).connect(name, stream);
        let stream = timeout(PATIENCE, handshake).await??;
        Ok(Self {
            socket: Socket::Tls(Box::new(stream)),
            received: self.received,
            reply: Vec::new(),
        })
    }

    pub async fn write(&mut self, octets: &[u8]) -> Result<()> {
        match &mut self.socket {
            Socket::Plain(stream) => stream.write_all(octets).await?,
            Socket::Tls(stream) => {
                stream.write_all(octets).await?;
                stream.flush().await?;
            }
        }
        Ok(())
    }

    /// Reads a whole reply; gives its last line.
    pub async fn read_reply(&mut self) -> Result<String> {
        self.reply.clear();
        loop {
            let line = self.read_line().await?;
            let last = line.as_bytes().get(3) != Some(&b'-');
            self.reply.push(line.clone());
            if last {
                return Ok(line);
            }
        }
    }

    /// Waits for the end of the connection. A TLS alert before it is fine, a reply is not.
    pub async fn expect_end(&mut self) -> Result<()> {
        const ALERT: u8 = 0x15;
        // An error means: closed with octets of ours unread.
        while timeout(PATIENCE, self.read_more())
            .await
            .context("the connection stays open")?
            .unwrap_or(false)
        {}
        match self.received.first() {
            None | Some(&ALERT) => Ok(()),
            Some(_) => bail!(
                "the server says: {:?}",
                String::from_utf8_lossy(&self.received)
            ),
        }
    }

    async fn read_line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.received.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.received.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            let more = timeout(PATIENCE, self.read_more())
                .await
                .context("no reply")??;
            if !more {
                bail!(
                    "the connection ends instead of a reply; {:?}",
                    String::from_utf8_lossy(&self.received)
                );
            }
        }
    }

    async fn read_more(&mut self) -> Result<bool> {
        let read = match &mut self.socket {
            Socket::Plain(stream) => stream.read_buf(&mut self.received).await?,
            Socket::Tls(stream) => stream.read_buf(&mut self.received).await?,
        };
        Ok(read > 0)
    }
}
