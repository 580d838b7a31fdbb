//! Kind Credential.

use std::path::{Path, PathBuf};

use ipnet::IpNet;
use mail::{Domain, Span};
use serde_json::{Value, json};

use super::tenant::MODE;
use super::token_issuer::read_name;
use super::{Allowance, ForeignSenders, Mode, ScramKeys, Watch};
use crate::Fields;

/// Who may submit, and as whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// Unique.
    pub name: String,
    /// Name of the tenant.
    pub tenant: String,
    /// For AUTH; compared octet by octet.
    pub login: Option<Login>,
    /// Stream of its mail; `None` = the tenant's default.
    pub stream: Option<String>,
    /// Streams that a message may choose itself, beside `stream`; `None` = all of the tenant's where there is no `stream`, else
    /// none.
    pub may_choose: Option<Vec<String>>,
    /// What becomes of its mail; the tenant's holds besides.
    pub mode: Mode,
    /// For so long a message is known again whose client did not see that it was accepted; `None` = not at all.
    pub idempotent_for: Option<Span>,
    /// How it forwards mail of senders who are not of the tenant; `None` = such mail is refused.
    pub foreign_senders: Option<ForeignSenders>,
    /// From these networks no AUTH is needed.
    pub networks: Vec<IpNet>,
    /// DNS names in lower case: a client whose certificate has one of them needs no AUTH.
    pub certificates: Vec<String>,
    /// Whoever has a token about one of them may log in.
    pub tokens: Vec<TokenSubject>,
    /// Of its mail, beside those of the tenant.
    pub limits: Allowance,
    /// What is noticed of it, in place of what the tenant says.
    pub watch: Option<Watch>,
}

/// User name and password.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Login {
    /// Unique among all credentials.
    pub username: String,
    /// How the password is checked.
    pub password_hash: PasswordHash,
    /// How a proof of SCRAM-SHA-256 is checked; without them there is none.
    pub scram: Option<ScramKeys>,
}

/// Whom a token is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TokenSubject {
    /// Name of the TokenIssuer.
    pub issuer: String,
    /// What the issuer's claim must be, octet by octet.
    pub subject: String,
}

/// Where the hash of a password is.
#[derive(Clone, PartialEq, Eq)]
pub enum PasswordHash {
    /// An Argon2 hash as a PHC string (`$argon2id$v=19$m=…`).
    Phc(String),
    /// A file whose first line is such a string.
    File(PathBuf),
}

impl std::fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Phc(_) => f.write_str("Phc(…)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

impl Credential {
    pub(super) fn read(name: &str, spec: &Fields<'_>) -> Option<Self> {
        let username = spec.text("username").filter(|text| !text.is_empty());
        let password_hash = spec.read_secret("passwordHash", read_password_hash);
        let hash_given = spec.is_given("passwordHash");
        let scram = spec.read_secret("scram", |text| {
            text.parse()
                .map_err(|error: super::ScramKeysError| error.to_string())
        });
        if spec.is_given("scram") && !hash_given {
            spec.problem(
                "scram",
                "needs passwordHash beside it, for the other mechanisms",
            );
        }
        let networks = spec.read_list("networks", |text| {
            text.parse()
                .map(|network: IpNet| network.trunc())
                .map_err(|_| "a network such as 192.0.2.0/24 is expected".to_owned())
        });
        let certificates = spec.read_list("certificates", |name| {
            Domain::parse(name)
                .map(|name| name.as_str().to_owned())
                .map_err(|_| "a host name in a certificate is expected".to_owned())
        });
        let tokens = spec.maps("tokens").into_iter().filter_map(|fields| {
            let subject = read_token_subject(&fields);
            fields.close();
            subject
        });
        let tokens: Vec<TokenSubject> = tokens.collect();
        let without_login = ["networks", "certificates", "tokens"];
        let login = match (username, password_hash) {
            (Some(username), Some(password_hash)) => {
                if username.len() > 255 {
                    spec.problem("username", "must not be longer than 255 octets");
                }
                let username = username.to_owned();
                Some(Login {
                    username,
                    password_hash,
                    scram,
                })
            }
            (Some(_), None) if !hash_given => {
                spec.problem("passwordHash", "is missing: there is a username");
                None
            }
            (None, _) if hash_given => {
                spec.problem("username", "is missing: there is a passwordHash");
                None
            }
            (None, _) if !without_login.into_iter().any(|name| spec.is_given(name)) => {
                spec.problem(
                    "",
                    "username and passwordHash, or networks, or both are expected, or certificates, or tokens",
                );
                None
            }
            _ => None,
        };
        let stream = spec.text("stream").filter(|text| !text.is_empty());
        let may_choose = spec
            .is_given("mayChoose")
            .then(|| spec.read_list("mayChoose", |text| Ok(text.to_owned())));
        let mode = spec.one_of("mode", &MODE).unwrap_or_default();
        let idempotent_for: Option<Span> = spec.parsed("idempotentFor");
        if let Some(time) = idempotent_for
            && !(Span::from_secs(60)..=Span::from_secs(86_400)).contains(&time)
        {
            spec.problem(
                "idempotentFor",
                format!("1m to 1d is expected, found {time}"),
            );
        }
        let foreign_senders = ForeignSenders::read(spec);
        let limits = spec.map("limits");
        let allowance = Allowance::read(&limits);
        limits.close();
        let watch = Watch::read(spec);
        Some(Self {
            name: name.to_owned(),
            tenant: spec.required_text("tenant")?.to_owned(),
            login,
            stream: stream.map(str::to_owned),
            may_choose,
            mode,
            idempotent_for,
            foreign_senders,
            networks,
            certificates,
            tokens,
            limits: allowance,
            watch,
        })
    }

    pub(super) fn spec(&self) -> Value {
        let mut spec = json!({ "tenant": self.tenant });
        if let Some(login) = &self.login {
            spec["username"] = json!(login.username);
            spec["passwordHash"] = match &login.password_hash {
                PasswordHash::Phc(phc) => json!(phc),
                PasswordHash::File(path) => json!(format!("file:{}", path.display())),
            };
        }
        if let Some(scram) = self.login.as_ref().and_then(|login| login.scram.as_ref()) {
            spec["scram"] = json!(scram.to_string());
        }
        if let Some(stream) = &self.stream {
            spec["stream"] = json!(stream);
        }
        if let Some(streams) = &self.may_choose {
            spec["mayChoose"] = json!(streams);
        }
        if self.mode != Mode::default() {
            spec["mode"] = json!(super::word(&MODE, self.mode));
        }
        if let Some(time) = self.idempotent_for {
            spec["idempotentFor"] = json!(time.to_string());
        }
        if let Some(foreign) = &self.foreign_senders {
            spec["foreignSenders"] = foreign.spec();
        }
        if !self.networks.is_empty() {
            let networks: Vec<String> = self.networks.iter().map(IpNet::to_string).collect();
            spec["networks"] = json!(networks);
        }
        if !self.certificates.is_empty() {
            spec["certificates"] = json!(self.certificates);
        }
        if !self.tokens.is_empty() {
            let tokens = self.tokens.iter();
            let tokens: Vec<Value> = tokens
                .map(|token| json!({ "issuer": token.issuer, "subject": token.subject }))
                .collect();
            spec["tokens"] = json!(tokens);
        }
        if let Some(limits) = self.limits.spec() {
            spec["limits"] = limits;
        }
        if let Some(watch) = &self.watch {
            spec["watch"] = watch.spec();
        }
        spec
    }
}

fn read_token_subject(fields: &Fields<'_>) -> Option<TokenSubject> {
    let issuer = fields.required_text("issuer");
    let subject = fields.required_text("subject");
    let subject = subject.and_then(|_| fields.read("subject", read_name));
    Some(TokenSubject {
        issuer: issuer?.to_owned(),
        subject: subject?,
    })
}

/// The text is never repeated in a message: a password may stand there by mistake.
fn read_password_hash(text: &str) -> Result<PasswordHash, String> {
    if text.starts_with("file:") || text.starts_with("secretKeyRef:") {
        return read_file_reference(text).map(PasswordHash::File);
    }
    let parts: Vec<&str> = text.split('$').collect();
    let is_phc = matches!(
        parts.as_slice(),
        ["", "argon2id" | "argon2i" | "argon2d", version, parameters, salt, hash]
            if version.starts_with("v=") && parameters.starts_with("m=") && !salt.is_empty() && !hash.is_empty()
    );
    if is_phc {
        Ok(PasswordHash::Phc(text.to_owned()))
    } else {
        Err("an Argon2 hash \"$argon2id$v=19$…\" (see `staffetta hash-password`) or \"file:/path\" is expected".to_owned())
    }
}

/// Secrets are referenced: `file:/path`; `secretKeyRef:` has to wait for Kubernetes.
pub(super) fn read_file_reference(text: &str) -> Result<PathBuf, String> {
    if text.starts_with("secretKeyRef:") {
        return Err(
            "secretKeyRef is not available outside Kubernetes yet; use \"file:/path\"".to_owned(),
        );
    }
    let path = text.strip_prefix("file:").map(Path::new);
    match path {
        Some(path) if path.is_absolute() => Ok(path.to_owned()),
        Some(_) => Err("the path after \"file:\" must begin with \"/\"".to_owned()),
        None => Err("\"file:/path\" is expected; secrets are never written inline".to_owned()),
    }
}
