//! `staffetta.yaml`: where the servers are, what is bound where. Everything else is resource
//! documents (crate `config`).

mod environment;
mod forwarding;
mod listener;
mod services;
mod tokens;
mod web;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use config::{Fields, Node, Problem, Problems};
use mail::{ByteSize, Domain, Span};

pub use forwarding::Forwarding;
pub use listener::{CertificateFiles, Listener, ListenerKind, ListenerTls, ProxyProtocol};
pub use services::{
    AdminListener, All, Feedback, Ingress, MtaSts, Scheduler, Sender, Signer, Transcripts,
};
pub use tokens::Tokens;
pub use web::WebListener;

/// The validated `staffetta.yaml`.
#[derive(Debug, Clone)]
pub struct Bootstrap {
    /// Our name in banner and EHLO, and the domain of our Message-IDs and of the DSNs' postmaster.
    pub hostname: Domain,
    /// The NATS server or cluster.
    pub nats: Nats,
    /// The Redis server.
    pub redis: Redis,
    /// What a 250 stands for.
    pub durability: Durability,
    /// Number of partitions that `init` creates.
    pub partitions: u32,
    /// What `init` may use.
    pub storage: Storage,
    /// DNS servers; empty = those of the system.
    pub resolvers: Vec<SocketAddr>,
    /// What makes return paths and such; `None`: there are none of ours.
    pub tokens: Option<Tokens>,
    /// Service `ingress`.
    pub ingress: Ingress,
    /// Service `signer`.
    pub signer: Signer,
    /// Service `scheduler`.
    pub scheduler: Scheduler,
    /// Service `sender`.
    pub sender: Sender,
    /// Service `feedback`.
    pub feedback: Feedback,
    /// Several services in one process.
    pub all: All,
}

/// Where NATS is, and how we and it know each other.
#[derive(Clone, PartialEq, Eq)]
pub struct Nats {
    /// `nats://host:port` or `tls://host:port`, several separated by commas.
    pub url: String,
    /// Monitoring endpoint, from which the durability is read; without it, it is only declared.
    pub monitor: Option<String>,
    /// Name and password.
    pub login: Option<(String, String)>,
    /// Credentials file (`.creds`).
    pub credentials: Option<PathBuf>,
    /// PEM file of the authorities that sign its certificate; the system's when there is none.
    pub authorities: Option<PathBuf>,
    /// Our own certificate.
    pub certificate: Option<CertificateFiles>,
}

/// Where Redis is, and how we and it know each other.
#[derive(Clone, PartialEq, Eq)]
pub struct Redis {
    /// `redis://host:port` or `rediss://host:port`; several, separated by commas.
    pub url: String,
    /// Name (empty = the default user) and password.
    pub login: Option<(String, String)>,
    /// PEM file of the authorities that sign its certificate; the system's when there is none.
    pub authorities: Option<PathBuf>,
}

impl fmt::Debug for Nats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The URL may hold a password, too.
        f.debug_struct("Nats").finish_non_exhaustive()
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Redis").finish_non_exhaustive()
    }
}

/// What the storage must survive before a 250 is said (architecture section 5, invariant 1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// R1 with an fsync for every record, or R3 with them across failure domains.
    Strict,
    /// Anything weaker, asked for by name.
    Relaxed,
}

impl Durability {
    /// As it is written in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Relaxed => "relaxed",
        }
    }
}

/// What `init` may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Storage {
    /// The volume of one NATS server; the streams' bounds sum to at most 80 % of it.
    pub volume: ByteSize,
    /// 1 or 3.
    pub replicas: u32,
    /// How long what was said to and by mail hosts is kept: 1 hour to 365 days.
    pub transcripts_age: Span,
    /// How much of it is kept, 1 MiB to 4 % of the volume; `None`: 1 % of what is used of it.
    pub transcripts_size: Option<ByteSize>,
}

/// The file could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It is not there or can't be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not valid.
    #[error("{}", list(path, problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Everything that is wrong with it.
        problems: Vec<Problem>,
    },
}

fn list(path: &Path, problems: &[Problem]) -> String {
    let lines: Vec<String> = problems
        .iter()
        .map(|problem| format!("{}: {problem}", path.display()))
        .collect();
    lines.join("\n")
}

impl Bootstrap {
    /// Reads and validates the file; `${NAME}` in a value is that environment variable. Relative paths in it are taken from the file's folder.
    pub fn load(path: &Path) -> Result<Self, LoadError> {
        let text = std::fs::read_to_string(path).map_err(|source| LoadError::Read {
            path: path.to_owned(),
            source,
        })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        Self::from_yaml_in(&text, folder).map_err(|problems| LoadError::Invalid {
            path: path.to_owned(),
            problems,
        })
    }

    /// Validates a text; relative paths in it stay relative. An empty text gives the defaults.
    pub fn from_yaml(text: &str) -> Result<Self, Vec<Problem>> {
        Self::from_yaml_in(text, Path::new(""))
    }

    /// Validates a text; relative paths in it are taken from `folder`.
    pub fn from_yaml_in(text: &str, folder: &Path) -> Result<Self, Vec<Problem>> {
        let mut documents = Node::from_yaml(text)
            .map_err(|problem| vec![problem])?
            .into_iter();
        let mut document = documents.next().unwrap_or(Node {
            line: None,
            value: config::NodeValue::Null,
        });
        let unset = Problems::new();
        environment::expand(&mut document, &unset, &|name| std::env::var(name).ok());
        // Before anything is said about values that are not complete.
        unset.none_or(())?;
        let problems = Problems::new();
        if let Some(second) = documents.next() {
            problems.add("", second.line, "only one document is expected");
        }
        let fields = Fields::open("", "", &document, &problems);
        let bootstrap = Self::read(&fields, folder);
        let mut listeners = bootstrap.ingress.listeners.iter();
        if bootstrap.tokens.is_none()
            && let Some(inbound) = listeners.find(|listener| listener.kind == ListenerKind::Inbound)
        {
            let what = format!(
                "are missing: the listener {:?} is for what comes back, and known by them",
                inbound.name
            );
            fields.problem("tokens", what);
        }
        fields.close();
        problems.none_or(bootstrap)
    }

    fn read(fields: &Fields<'_>, folder: &Path) -> Self {
        let storage = read_storage(fields.map("storage"));
        let durability = [
            ("strict", Durability::Strict),
            ("relaxed", Durability::Relaxed),
        ];
        Self {
            hostname: fields
                .domain("hostname")
                .unwrap_or_else(|| Domain::parse("localhost").expect("localhost is a domain name")),
            nats: read_nats(fields.map("nats"), folder),
            redis: read_redis(fields.map("redis"), folder),
            durability: fields
                .one_of("durability", &durability)
                .unwrap_or(Durability::Strict),
            partitions: fields.small_integer("partitions", 1..=64).unwrap_or(4),
            storage,
            resolvers: fields.read_list("resolvers", |text| {
                text.parse()
                    .map_err(|_| "an address IP:port is expected".to_owned())
            }),
            tokens: Tokens::read(fields, folder),
            ingress: Ingress::read(fields.map("ingress"), folder),
            signer: Signer::read(fields.map("signer")),
            scheduler: Scheduler::read(fields.map("scheduler"), folder),
            sender: Sender::read(fields.map("sender"), folder),
            feedback: Feedback::read(fields.map("feedback"), folder, fields.is_given("tokens")),
            all: All::read(fields.map("all")),
        }
    }
}

fn read_storage(fields: Fields<'_>) -> Storage {
    let transcripts = fields.map("transcripts");
    let storage = Storage {
        volume: fields
            .parsed("volumeBytes")
            .unwrap_or(ByteSize::from_bytes(20 << 30)),
        replicas: fields.small_integer("replicas", 1..=3).unwrap_or(1),
        transcripts_age: transcripts
            .parsed("maxAge")
            .unwrap_or(Span::from_secs(7 * 86_400)),
        transcripts_size: transcripts.parsed("maxBytes"),
    };
    if storage.replicas == 2 {
        fields.problem("replicas", "1 or 3 is expected, found 2");
    }
    let age = storage.transcripts_age;
    if !(Span::from_secs(3_600)..=Span::from_secs(365 * 86_400)).contains(&age) {
        transcripts.problem("maxAge", format!("1h to 365d is expected, found {age}"));
    }
    let most = storage.volume.as_u64() / 100 * 4;
    if let Some(size) = storage.transcripts_size
        && !(1 << 20..=most).contains(&size.as_u64())
    {
        let what = format!("1MiB to 4 % of the volume ({most} bytes) is expected, found {size}");
        transcripts.problem("maxBytes", what);
    }
    transcripts.close();
    fields.close();
    storage
}

fn read_nats(fields: Fields<'_>, folder: &Path) -> Nats {
    let certificate = match (fields.text("certificate"), fields.text("key")) {
        (Some(certificate), Some(key)) => Some(CertificateFiles {
            certificate: folder.join(certificate),
            key: folder.join(key),
        }),
        (None, None) => None,
        (Some(_), None) => {
            fields.problem("key", "is missing: there is a certificate");
            None
        }
        (None, Some(_)) => {
            fields.problem("certificate", "is missing: there is a key");
            None
        }
    };
    let nats = Nats {
        url: url(&fields, "url", &["nats://", "tls://"])
            .unwrap_or_else(|| "nats://127.0.0.1:4222".to_owned()),
        monitor: url(&fields, "monitor", &["http://"]),
        login: login(&fields),
        credentials: file(&fields, "credentials", folder),
        authorities: file(&fields, "authorities", folder),
        certificate,
    };
    if nats.login.is_some() && nats.credentials.is_some() {
        fields.problem("credentials", "either credentials or username and password");
    }
    fields.close();
    nats
}

fn read_redis(fields: Fields<'_>, folder: &Path) -> Redis {
    let redis = Redis {
        url: url(&fields, "url", &["redis://", "rediss://"])
            .unwrap_or_else(|| "redis://127.0.0.1:6379".to_owned()),
        login: login(&fields),
        authorities: file(&fields, "authorities", folder),
    };
    if redis.authorities.is_some() && !redis.url.starts_with("rediss://") {
        fields.problem("authorities", "has no use without TLS: url is redis://…");
    }
    fields.close();
    redis
}

/// An empty password is none, so that a variable may be empty.
fn login(fields: &Fields<'_>) -> Option<(String, String)> {
    let username = fields.text("username").unwrap_or_default();
    let password = fields.text("password").unwrap_or_default();
    if password.is_empty() {
        if !username.is_empty() {
            fields.problem("password", "is missing: there is a username");
        }
        return None;
    }
    Some((username.to_owned(), password.to_owned()))
}

fn file(fields: &Fields<'_>, name: &'static str, folder: &Path) -> Option<PathBuf> {
    let text = fields.text(name).filter(|text| !text.is_empty())?;
    Some(folder.join(text))
}

/// A URL (or several, separated by commas) of one of the schemes.
fn url(fields: &Fields<'_>, name: &'static str, schemes: &[&str]) -> Option<String> {
    let text = fields.text(name).filter(|text| !text.is_empty())?;
    let valid = text.split(',').all(|url| {
        schemes.iter().any(|scheme| {
            url.trim()
                .strip_prefix(scheme)
                .is_some_and(|rest| !rest.is_empty())
        })
    });
    if !valid {
        let expected = schemes.join("… or ");
        // It may hold a password.
        let shown = match text.rsplit_once('@') {
            Some((_, host)) => format!("…@{host}"),
            None => text.to_owned(),
        };
        fields.problem(
            name,
            format!("a URL {expected}… is expected, found {shown:?}"),
        );
        return None;
    }
    Some(text.to_owned())
}
