//! One SMTP session of the sink.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use rustls_pki_types::PrivateKeyDer;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Action, Received, Shared, Stage};

/// A session that says nothing for so long is over.
const IDLE: Duration = Duration::from_secs(300);
/// Lines of a message may be long; a command line of ours never is.
const LINE_LIMIT: usize = 64 * 1024 * 1024;

/// TLS with a certificate made for this sink; clients that deliver opportunistically take it.
pub(super) fn acceptor(host: &str) -> Result<tokio_rustls::TlsAcceptor> {
    let made = rcgen::generate_simple_self_signed([host.to_owned()])?;
    let key =
        PrivateKeyDer::try_from(made.signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)?;
    Ok(Arc::new(config).into())
}

/// What happens to a session after a command.
enum Next {
    Continue,
    StartTls,
    Close,
}

struct Session<'a> {
    shared: &'a Shared,
    peer: SocketAddr,
    connection: u64,
    tls: bool,
    ehlo: String,
    sender: Option<String>,
    parameters: String,
    recipients: Vec<String>,
}

/// Serves a connection to its end.
pub(super) async fn serve(
    stream: TcpStream,
    peer: SocketAddr,
    connection: u64,
    shared: &Shared,
) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut session = Session {
        shared,
        peer,
        connection,
        tls: false,
        ehlo: String::new(),
        sender: None,
        parameters: String::new(),
        recipients: Vec::new(),
    };
    let mut stream = BufReader::new(stream);
    match session.rule(Stage::Connect, "").await {
        Some(Action::Reply(reply)) => return Ok(write(&mut stream, &reply).await?),
        Some(_) => return Ok(()),
        None => write(&mut stream, "220 sink.example ESMTP").await?,
    }
    if session.talk(&mut stream).await? {
        let acceptor = shared
            .tls
            .as_ref()
            .expect("STARTTLS was offered only with TLS");
        let stream = acceptor.accept(stream.into_inner()).await?;
        session.tls = true;
        session.reset();
        session.talk(&mut BufReader::new(stream)).await?;
    }
    Ok(())
}

/// Writes a reply and sends it off.
async fn write<S: AsyncWrite + Unpin>(stream: &mut S, reply: &str) -> io::Result<()> {
    stream.write_all(reply.as_bytes()).await?;
    stream.write_all(b"\r\n").await?;
    stream.flush().await
}

/// The next line with its end; empty when the client is gone or silent.
async fn line<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut BufReader<S>) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    match timeout(IDLE, stream.read_until(b'\n', &mut line)).await {
        Ok(read) => read?,
        Err(_) => return Ok(Vec::new()),
    };
    if line.len() > LINE_LIMIT {
        return Err(io::Error::other("a line beyond all bounds"));
    }
    Ok(line)
}

impl Session<'_> {
    fn reset(&mut self) {
        self.sender = None;
        self.recipients.clear();
    }

    /// The action of a rule for this stage, delays already waited for.
    async fn rule(&self, stage: Stage, recipient: &str) -> Option<Action> {
        let sender = self.sender.as_deref().unwrap_or_default();
        match self.shared.rules.action(stage, sender, recipient)? {
            Action::Delay(delay) => {
                self.wait(delay).await;
                None
            }
            other => Some(other),
        }
    }

    async fn wait(&self, delay: Duration) {
        self.shared.book().delayed += 1;
        tokio::time::sleep(delay).await;
        self.shared.book().delayed -= 1;
    }

    /// Reads commands until the session ends (false) or goes on under TLS (true).
    async fn talk<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut BufReader<S>,
    ) -> Result<bool> {
        loop {
            let line = line(stream).await?;
            if line.is_empty() {
                return Ok(false);
            }
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            self.shared.book().note_open();
            if self.shared.keeps_content {
                self.shared.book().commands.push(line.clone());
            }
            match self.command(&line, stream).await? {
                Next::Continue => {}
                Next::StartTls => return Ok(true),
                Next::Close => return Ok(false),
            }
        }
    }

    async fn command<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        line: &str,
        stream: &mut BufReader<S>,
    ) -> Result<Next> {
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        let (stage, reply) = match verb.to_ascii_uppercase().as_str() {
            "EHLO" => (Some(Stage::Hello), self.hello(argument)),
            "HELO" => (Some(Stage::Hello), "250 sink.example".to_owned()),
            "STARTTLS" if self.shared.tls.is_some() && !self.tls => {
                return self.start_tls(stream).await;
            }
            "MAIL" => (Some(Stage::Mail), self.mail(argument)),
            "RCPT" => return self.recipient(argument, stream).await,
            "DATA" => return self.data(stream).await,
            "RSET" => {
                self.reset();
                (None, "250 2.0.0 Reset".to_owned())
            }
            "NOOP" => (None, "250 2.0.0 Nothing done".to_owned()),
            "QUIT" => {
                write(stream, "221 2.0.0 Bye").await?;
                return Ok(Next::Close);
            }
            _ => (None, "500 5.5.2 Unknown command".to_owned()),
        };
        let action = match stage {
            Some(stage) => self.rule(stage, "").await,
            None => None,
        };
        match action {
            None => write(stream, &reply).await?,
            Some(Action::Reply(refusal)) => {
                if stage == Some(Stage::Mail) {
                    self.reset();
                }
                write(stream, &refusal).await?;
                if refusal.starts_with("421") {
                    return Ok(Next::Close);
                }
            }
            Some(_) => return Ok(Next::Close),
        }
        Ok(Next::Continue)
    }

    fn hello(&mut self, name: &str) -> String {
        name.clone_into(&mut self.ehlo);
        self.reset();
        let mut lines = vec![
            "sink.example",
            "PIPELINING",
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
            "DSN",
        ];
        lines.push("SIZE 50000000");
        if self.shared.tls.is_some() && !self.tls {
            lines.push("STARTTLS");
        }
        let last = lines.len() - 1;
        let lines = lines.iter().enumerate();
        let lines: Vec<String> = lines
            .map(|(index, line)| format!("250{}{line}", if index == last { ' ' } else { '-' }))
            .collect();
        lines.join("\r\n")
    }

    async fn start_tls<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut BufReader<S>,
    ) -> Result<Next> {
        match self.rule(Stage::StartTls, "").await {
            None => {
                write(stream, "220 2.0.0 Go ahead").await?;
                Ok(Next::StartTls)
            }
            Some(Action::Reply(refusal)) => {
                write(stream, &refusal).await?;
                Ok(Next::Continue)
            }
            Some(_) => Ok(Next::Close),
        }
    }

    fn mail(&mut self, argument: &str) -> String {
        if self.sender.is_some() {
            return "503 5.5.1 One transaction at a time".to_owned();
        }
        let Some((path, parameters)) = path(argument, "FROM:") else {
            return "501 5.5.4 No path".to_owned();
        };
        self.sender = Some(path.to_owned());
        parameters.trim().clone_into(&mut self.parameters);
        "250 2.1.0 Sender ok".to_owned()
    }

    async fn recipient<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        argument: &str,
        stream: &mut BufReader<S>,
    ) -> Result<Next> {
        let Some((recipient, _)) = path(argument, "TO:").filter(|_| self.sender.is_some()) else {
            write(stream, "503 5.5.1 MAIL first").await?;
            return Ok(Next::Continue);
        };
        match self.rule(Stage::Recipient, recipient).await {
            None => {
                self.recipients.push(recipient.to_owned());
                write(stream, "250 2.1.5 Recipient ok").await?;
            }
            Some(Action::Reply(refusal)) => {
                write(stream, &refusal).await?;
                if refusal.starts_with("421") {
                    return Ok(Next::Close);
                }
            }
            Some(_) => return Ok(Next::Close),
        }
        Ok(Next::Continue)
    }

    async fn data<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        stream: &mut BufReader<S>,
    ) -> Result<Next> {
        if self.recipients.is_empty() {
            write(stream, "503 5.5.1 No valid recipients").await?;
            return Ok(Next::Continue);
        }
        let first = self.recipients[0].clone();
        match self.rule(Stage::Data, &first).await {
            None => write(stream, "354 Go ahead").await?,
            Some(Action::Reply(refusal)) => {
                self.reset();
                write(stream, &refusal).await?;
                return Ok(Next::Continue);
            }
            Some(_) => return Ok(Next::Close),
        }
        self.rule(Stage::Content, &first).await;
        let Some(content) = content(stream).await? else {
            return Ok(Next::Close);
        };
        let next = match self.rule(Stage::Dot, &first).await {
            None => {
                self.take(content);
                write(stream, "250 2.0.0 Taken").await?;
                Next::Continue
            }
            Some(Action::TakeAndDrop) => {
                self.take(content);
                Next::Close
            }
            Some(Action::TakeAndDelay(delay)) => {
                self.take(content);
                self.wait(delay).await;
                write(stream, "250 2.0.0 Taken").await?;
                Next::Continue
            }
            Some(Action::Reply(refusal)) => {
                write(stream, &refusal).await?;
                if refusal.starts_with("421") {
                    Next::Close
                } else {
                    Next::Continue
                }
            }
            Some(_) => Next::Close,
        };
        self.reset();
        Ok(next)
    }

    /// Writes the message into the book.
    fn take(&mut self, content: Vec<u8>) {
        let token = token(&content);
        let intact = crate::is_intact(&content);
        let mut book = self.shared.book();
        for recipient in &self.recipients {
            *book
                .deliveries
                .entry((token.clone(), recipient.clone()))
                .or_insert(0) += 1;
        }
        book.received.push(Received {
            at: Instant::now(),
            connection: self.connection,
            peer: self.peer,
            ehlo: self.ehlo.clone(),
            tls: self.tls,
            sender: self.sender.clone().unwrap_or_default(),
            parameters: self.parameters.clone(),
            recipients: self.recipients.clone(),
            content: if self.shared.keeps_content {
                content
            } else {
                Vec::new()
            },
            token,
            intact,
        });
    }
}

/// Splits `FROM:<path> parameters`.
fn path<'a>(argument: &'a str, keyword: &str) -> Option<(&'a str, &'a str)> {
    let (head, rest) = argument.split_at_checked(keyword.len())?;
    let rest = rest
        .trim_start()
        .strip_prefix('<')
        .filter(|_| head.eq_ignore_ascii_case(keyword))?;
    rest.split_once('>')
}

/// Reads to the final dot and takes the dots' stuffing off; `None` when the client breaks off before it.
async fn content<S: AsyncRead + AsyncWrite + Unpin>(
    stream: &mut BufReader<S>,
) -> Result<Option<Vec<u8>>> {
    let mut content = Vec::new();
    loop {
        let line = line(stream).await?;
        match line.as_slice() {
            b".\r\n" => return Ok(Some(content)),
            [.., b'\n'] => content.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line)),
            // No end of line: the client is gone.
            _ => return Ok(None),
        }
    }
}

/// The value of the header field `X-Token`; empty when there is none.
fn token(content: &[u8]) -> String {
    content
        .split(|byte| *byte == b'\n')
        .take_while(|line| *line != b"\r")
        .find_map(|line| line.strip_prefix(b"X-Token: "))
        .map(|token| String::from_utf8_lossy(token).trim().to_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_a_path_from_its_parameters() {
        assert_eq!(
            path("FROM:<a@b.c> SIZE=3", "FROM:"),
            Some(("a@b.c", " SIZE=3"))
        );
        assert_eq!(path("from:<>", "FROM:"), Some(("", "")));
        assert_eq!(path("a@b.c", "FROM:"), None);
    }

    #[test]
    fn finds_the_token_in_the_header_only() {
        assert_eq!(token(b"Subject: x\r\nX-Token: T1\r\n\r\nbody"), "T1");
        assert_eq!(token(b"Subject: x\r\n\r\nX-Token: T1\r\n"), "");
    }
}
