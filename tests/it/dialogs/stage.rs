//! What a dialogue is played on: a nats-server, the ingress, and the spool to look into.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use kit::{NatsServer, Place, RedisServer};
use mail::{MessageId, PartitionId};
use proto::envelope::{Envelope, Recipient};
use proto::spool::IndexEntry;
use proto::watch::Measure;
use runtime::{Bootstrap, Readiness, Shutdown};
use rustls_pki_types::CertificateDer;
use spool::{
    Durability, Followed, InitOptions, Options, Stores, Submission, SubmitError, WriterOptions,
};
use tokio::task::JoinHandle;

use super::client::{Client, Identity};
use super::envelope;
use super::installation::{
    Authority, apply, bootstrap, completed, documents, documents_without, write_certificates,
    write_srs_secrets,
};
use super::scanned::Scanners;
use super::script::{Action, matches, unescape};
use super::tokens::Tokens;
use crate::token_issuer::{key_set, response};

const PARTITION: PartitionId = PartitionId(0);
/// Clients that log in come from here; from the other the credential `acme-network` needs no login.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const TRUSTED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
/// The proxy that the listener `xclient` believes.
const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 3));
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Stage {
    place: Place,
    nats: NatsServer,
    redis: RedisServer,
    stores: Stores,
    addresses: HashMap<String, SocketAddr>,
    certificates: HashMap<&'static str, CertificateDer<'static>>,
    authority: Authority,
    tokens: Tokens,
    _scanners: Scanners,
    /// Documents about them.
    scanned: String,
    shutdown: Shutdown,
    ingress: JoinHandle<Result<(), ingress::Error>>,
    client: Option<Client>,
    /// Kept open, as other connections of the same dialogue may matter.
    others: Vec<Client>,
    /// Messages answered with 250 in this dialogue.
    accepted: Vec<MessageId>,
    /// The spool was looked through up to here.
    sequence: u64,
    /// What was found there since the dialogue began.
    stored: HashMap<MessageId, (IndexEntry, Bytes)>,
}

impl Stage {
    pub async fn set(name: &str) -> Result<Self> {
        let place = Place::new(name)?;
        let nats = NatsServer::start(place.path()).await?;
        let redis = RedisServer::start(place.path()).await?;
        let options = Options {
            url: nats.url(),
            access: spool::Access::default(),
            monitor: Some(nats.monitor_url()),
            name: "dialogs".to_owned(),
            durability: Durability::Strict,
        };
        let stores = Stores::connect(&options).await?;
        stores
            .init(&InitOptions {
                partitions: 1,
                replicas: 1,
                volume_bytes: 128 << 20,
                transcripts: spool::TranscriptBounds::USUAL,
            })
            .await?;
        let opened = stores.open().await?;
        let tokens = Tokens::new();
        let keys = key_set(&[tokens.issuer()]);
        std::fs::write(place.path().join("keys.json"), keys)?;
        let scanners = Scanners::start().await?;
        let scanned = completed(&scanners.documents()?, place.path());
        let all = documents(place.path()) + &scanned;
        apply(&stores, &all, false).await?;

        let certificates = write_certificates(place.path())?;
        write_srs_secrets(place.path())?;
        let authority = Authority::make(place.path())?;
        let bootstrap = Bootstrap::from_yaml_in(&bootstrap(&nats, &redis), place.path())
            .map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        let listeners = ingress::Listeners::bind(&bootstrap)?;
        let addresses: HashMap<_, _> = listeners.addresses().into_iter().collect();
        let shutdown = Shutdown::new();
        let (stop, readiness) = (shutdown.clone(), Readiness::new());
        let used = stores.clone();
        let ingress = tokio::spawn(async move {
            let served = listeners.serve(&bootstrap, used, &opened, readiness, stop);
            served.await
        });
        let stage = Self {
            place,
            nats,
            redis,
            stores,
            addresses,
            certificates,
            authority,
            tokens,
            _scanners: scanners,
            scanned,
            shutdown,
            ingress,
            client: None,
            others: Vec::new(),
            accepted: Vec::new(),
            sequence: 0,
            stored: HashMap::new(),
        };
        stage.until_mail_is_answered("250").await?;
        Ok(stage)
    }

    pub fn begin_dialogue(&mut self) {
        self.client = None;
        self.others.clear();
        self.accepted.clear();
        self.stored.clear();
    }

    /// What was accepted is in the spool, and nothing else is.
    pub async fn end_dialogue(&mut self) -> Result<()> {
        self.client = None;
        self.others.clear();
        self.look_into_spool().await?;
        for id in &self.accepted {
            ensure!(
                self.stored.contains_key(id),
                "message {id} was accepted and is not in the spool"
            );
        }
        for (id, (entry, content)) in &self.stored {
            let mut hasher = dkim::BodyHasher::new();
            hasher.update(
                content
                    .get(entry.header_length as usize..)
                    .unwrap_or_default(),
            );
            let hash = hasher.finish();
            ensure!(
                entry.body_hash == hash.as_slice(),
                "the body hash of {id} is not that of its body"
            );
        }
        ensure!(
            self.stored.len() == self.accepted.len(),
            "{} messages were accepted, {} are in the spool",
            self.accepted.len(),
            self.stored.len()
        );
        Ok(())
    }

    /// Stops everything and removes the files.
    pub async fn strike(self) -> Result<()> {
        self.shutdown.request();
        self.ingress.await??;
        drop((self.stores, self.nats, self.redis));
        self.place.finish()
    }

    pub async fn play(&mut self, action: &Action, number: usize) -> Result<()> {
        match action {
            Action::Connect(listener) => self.connect(listener).await,
            Action::StartTls(name) => self.start_tls(name, None).await,
            Action::StartTlsAs(name) => {
                let own = self.authority.certify(name)?;
                self.start_tls("relay.example.com", Some(own)).await
            }
            Action::Closed => self.client()?.expect_end().await,
            Action::Known => {
                let last = self.accepted.pop();
                ensure!(
                    last.is_some() && last.as_ref() == self.accepted.last(),
                    "the message was not known"
                );
                Ok(())
            }
            Action::HangUp => {
                self.client = None;
                Ok(())
            }
            Action::Stop => {
                self.shutdown.request();
                Ok(())
            }
            Action::KillNats => {
                self.nats.kill9()?;
                self.until_mail_is_answered("451").await
            }
            Action::RestartNats => {
                self.nats.restart().await?;
                self.until_mail_is_answered("250").await
            }
            Action::FillSpool => {
                self.fill_spool().await?;
                self.until_mail_is_answered("452").await
            }
            Action::RemoveCredential(name) => self.remove_credential(name).await,
            Action::LockCredential(name) => self.lock_credential(name).await,
            Action::Say(text) => {
                let line = format!("{}\r\n", text.replace("{n}", &number.to_string()));
                self.client()?.write(line.as_bytes()).await
            }
            Action::Octets(text) => {
                let octets = unescape(&text.replace("{n}", &number.to_string()))?;
                self.client()?.write(&octets).await
            }
            Action::Login { user, password } => {
                let response = STANDARD.encode(format!("\0{user}\0{password}"));
                self.client()?
                    .write(format!("AUTH PLAIN {response}\r\n").as_bytes())
                    .await
            }
            Action::Token {
                mechanism,
                token,
                user,
                response: alone,
            } => {
                let token = self.tokens.token(token)?;
                let response = response(mechanism, user.as_deref(), &token);
                let line = if *alone {
                    format!("{response}\r\n")
                } else {
                    format!("AUTH {mechanism} {response}\r\n")
                };
                self.client()?.write(line.as_bytes()).await
            }
            Action::Reply(expected) => self.expect_reply(expected).await,
            Action::ReplyHas(expected) => self.expect_line_of_reply(expected, true),
            Action::ReplyHasNot(expected) => {
                self.expect_line_of_reply(&format!("{expected}~"), false)
            }
            Action::Content(expected) => self.expect_line_of_content(expected, true).await,
            Action::ContentHasNot(expected) => {
                self.expect_line_of_content(&format!("{expected}~"), false)
                    .await
            }
            Action::Envelope(expected) => self.expect_envelope(expected).await,
            Action::Body(expected) => self.expect_body(expected).await,
        }
    }

    fn client(&mut self) -> Result<&mut Client> {
        self.client.as_mut().context("there is no connection")
    }

    fn address(&self, listener: &str) -> Result<SocketAddr> {
        self.addresses
            .get(listener)
            .copied()
            .with_context(|| format!("there is no listener {listener}"))
    }

    async fn connect(&mut self, name: &str) -> Result<()> {
        let (listener, from) = match name {
            "network" => ("starttls", TRUSTED),
            "single" | "slow" => (name, TRUSTED),
            "few from elsewhere" => ("few", TRUSTED),
            "xclient" => ("xclient", PROXY),
            "xclient from elsewhere" => ("xclient", STRANGER),
            _ => (name, STRANGER),
        };
        let client = Client::connect(from, self.address(listener)?).await?;
        self.others.extend(self.client.replace(client));
        Ok(())
    }

    async fn start_tls(&mut self, name: &str, own: Option<Identity>) -> Result<()> {
        let client = self.client.take().context("there is no connection")?;
        let certificate = self.certificates.get(name);
        let certificate = certificate.context("there is no such certificate")?;
        self.client = Some(client.start_tls(name, certificate, own).await?);
        Ok(())
    }

    async fn expect_reply(&mut self, expected: &str) -> Result<()> {
        let client = self.client()?;
        let line = client.read_reply().await?;
        ensure!(
            matches(expected, &line),
            "the server says: {}",
            client.reply.join(" / ")
        );
        if line.starts_with("250 ")
            && let Some((_, id)) = line.rsplit_once("queued as ")
        {
            self.accepted.push(id.parse()?);
        }
        Ok(())
    }

    fn expect_line_of_reply(&mut self, expected: &str, wanted: bool) -> Result<()> {
        let reply = &self.client()?.reply;
        let found = reply
            .iter()
            .any(|line| matches(expected, line.get(4..).unwrap_or_default()));
        ensure!(found == wanted, "the reply was: {}", reply.join(" / "));
        Ok(())
    }

    async fn expect_line_of_content(&mut self, expected: &str, wanted: bool) -> Result<()> {
        let (_, content) = self.last_stored().await?;
        let text = String::from_utf8_lossy(content);
        let found = text.split("\r\n").any(|line| matches(expected, line));
        ensure!(found == wanted, "the content is:\n{text}");
        Ok(())
    }

    async fn expect_body(&mut self, expected: &[u8]) -> Result<()> {
        let (entry, content) = self.last_stored().await?;
        let body = content
            .get(entry.header_length as usize..)
            .context("the header is longer than the content")?;
        ensure!(
            body == expected,
            "the body is: {:?}",
            String::from_utf8_lossy(body)
        );
        Ok(())
    }

    async fn expect_envelope(&mut self, expected: &str) -> Result<()> {
        let (entry, _) = self.last_stored().await?;
        let envelope = entry.envelope.as_ref().context("there is no envelope")?;
        let mut lines = envelope::lines(envelope);
        lines.extend(envelope::fields_before(entry));
        ensure!(
            lines.iter().any(|line| matches(expected, line)),
            "the envelope is:\n{}",
            lines.join("\n")
        );
        Ok(())
    }

    async fn last_stored(&mut self) -> Result<&(IndexEntry, Bytes)> {
        let last = *self.accepted.last().context("no message was accepted")?;
        self.look_into_spool().await?;
        self.stored
            .get(&last)
            .with_context(|| format!("message {last} is not in the spool"))
    }

    async fn look_into_spool(&mut self) -> Result<()> {
        let reader = self.stores.message_reader(1 << 20);
        let mut blocks = self.stores.follow_blocks(PARTITION, self.sequence);
        loop {
            match tokio::time::timeout(PATIENCE, blocks.next()).await?? {
                Followed::CaughtUp { .. } => return Ok(()),
                Followed::Block(block) => {
                    self.sequence = block.sequence;
                    for (index, entry) in (0..).zip(block.result?.entries) {
                        let id = MessageId::try_from(entry.message_id.as_ref())?;
                        let place = mail::Place {
                            sequence: block.sequence,
                            index,
                        };
                        let message = reader.open(PARTITION, place, id).await?;
                        let content = message.content.into_bytes().await?;
                        self.stored.insert(id, (entry, content));
                    }
                }
            }
        }
    }

    /// Asks for MAIL on connections of its own until the answer begins so.
    async fn until_mail_is_answered(&self, code: &str) -> Result<()> {
        let address = self.address("starttls")?;
        kit::until(
            &format!("MAIL answered with {code}"),
            PATIENCE,
            || async move {
                let mut client = Client::connect(TRUSTED, address).await.ok()?;
                let mut answer = client.read_reply().await.ok()?;
                for line in ["EHLO probe.example\r\n", "MAIL FROM:<app@acme.example>\r\n"] {
                    client.write(line.as_bytes()).await.ok()?;
                    answer = client.read_reply().await.ok()?;
                }
                answer.starts_with(code).then_some(())
            },
        )
        .await
    }

    /// Stores messages that are not of the dialogue until there is no room.
    async fn fill_spool(&mut self) -> Result<()> {
        let writer = self.stores.block_writer(1, WriterOptions::default());
        let content = Bytes::from(vec![b'x'; 1 << 20]);
        for _ in 0..1000 {
            let entry = IndexEntry {
                message_id: Bytes::copy_from_slice(MessageId::now().as_bytes()),
                envelope: Some(Envelope {
                    recipients: vec![Recipient::default()],
                    ..Envelope::default()
                }),
                ..IndexEntry::default()
            };
            match writer.submit(Submission::new(entry, content.clone())).await {
                Ok(_) => {}
                Err(SubmitError::Full) => {
                    self.look_into_spool().await?;
                    self.stored.clear();
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        bail!("the spool takes everything")
    }

    async fn remove_credential(&self, name: &str) -> Result<()> {
        let remaining = documents_without(name, self.place.path()) + &self.scanned;
        apply(&self.stores, &remaining, true).await?;
        self.until_login_fails("leaver@acme.example").await
    }

    async fn lock_credential(&self, name: &str) -> Result<()> {
        let lock = Measure {
            credential: name.to_owned(),
            action: proto::watch::Action::Lock.into(),
            author: "alice".to_owned(),
            ..Measure::default()
        };
        self.stores.measures().set(&lock, 0, |_| false).await?;
        self.until_login_fails("stolen@acme.example").await
    }

    /// What was changed is known when a login with it fails.
    async fn until_login_fails(&self, username: &str) -> Result<()> {
        let address = self.address("plain")?;
        kit::until("a login that fails", PATIENCE, || async move {
            let mut client = Client::connect(STRANGER, address).await.ok()?;
            let mut answer = client.read_reply().await.ok()?;
            let response = STANDARD.encode(format!("\0{username}\0correct horse"));
            for line in [
                "EHLO probe.example\r\n",
                &format!("AUTH PLAIN {response}\r\n"),
            ] {
                client.write(line.as_bytes()).await.ok()?;
                answer = client.read_reply().await.ok()?;
            }
            answer.starts_with("535").then_some(())
        })
        .await
    }
}
