//! Kind Scanner.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;

use mail::{ByteSize, Domain, Span};
use serde_json::{Value, json};

use crate::Fields;

/// A program that looks at messages before they are accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scanner {
    /// Unique.
    pub name: String,
    /// What it is, and speaks.
    pub engine: Engine,
    /// Where it is.
    pub address: ScannerAddress,
    /// A message waits for it no longer than this in all, 1 second to 2 minutes.
    pub deadline: Span,
    /// Messages that one process of ingress gives it at the same time, 1 to 1000.
    pub connections: u32,
    /// Larger messages are too large for it, header section included.
    pub max_size: ByteSize,
    /// What becomes of a message that it can't look at.
    pub when_down: WhenDown,
    /// What becomes of a message that is too large for it.
    pub when_too_large: WhenTooLarge,
}

/// What a scanner is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// ClamAV's clamd.
    ClamAv,
    /// A normal worker of Rspamd.
    Rspamd {
        /// What becomes of what it would mark.
        spam: Spam,
    },
    /// A milter, version 6 of the protocol.
    Milter,
}

/// What becomes of a message that looks like spam, but not so much that it would be refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Spam {
    /// It is accepted, and gets fields that say so.
    #[default]
    Mark,
    /// It is accepted.
    Accept,
    /// It is accepted and kept until somebody releases it.
    Hold,
    /// It is refused with 554.
    Reject,
}

/// What becomes of a message that a scanner can't look at: it is down, too slow, or says nothing of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenDown {
    /// 451.
    #[default]
    Defer,
    /// It counts as clean.
    Accept,
}

/// What becomes of a message that is larger than a scanner takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WhenTooLarge {
    /// 552.
    #[default]
    Reject,
    /// It counts as clean.
    Accept,
    /// Its beginning decides.
    ScanHead,
}

/// Where a scanner is: `host:port`, or `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScannerAddress {
    /// A name that the system's resolver knows, or an address.
    Tcp {
        /// Without brackets.
        host: String,
        /// Not 0.
        port: u16,
    },
    /// A socket of this machine.
    Unix(PathBuf),
}

/// The text is no address of a scanner.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("host:port or unix:/path is expected")]
pub struct ScannerAddressError;

impl FromStr for ScannerAddress {
    type Err = ScannerAddressError;

    fn from_str(text: &str) -> Result<Self, ScannerAddressError> {
        // What the kernel takes as the path of a socket.
        const LONGEST_PATH: usize = 107;
        if let Some(path) = text.strip_prefix("unix:") {
            let fits = path.starts_with('/') && path.len() <= LONGEST_PATH;
            return fits
                .then(|| Self::Unix(path.into()))
                .ok_or(ScannerAddressError);
        }
        let (host, port) = text.rsplit_once(':').ok_or(ScannerAddressError)?;
        let port: u16 = port.parse().map_err(|_| ScannerAddressError)?;
        let host = match host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
        {
            Some(inner) => {
                let address: IpAddr = inner.parse().map_err(|_| ScannerAddressError)?;
                address.to_string()
            }
            None if host
                .parse::<IpAddr>()
                .is_ok_and(|address| address.is_ipv4()) =>
            {
                host.to_owned()
            }
            None => {
                let name = Domain::parse(host).map_err(|_| ScannerAddressError)?;
                name.as_str().to_owned()
            }
        };
        (port > 0)
            .then_some(Self::Tcp { host, port })
            .ok_or(ScannerAddressError)
    }
}

impl fmt::Display for ScannerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

const SPAM: [(&str, Spam); 4] = [
    ("mark", Spam::Mark),
    ("accept", Spam::Accept),
    ("hold", Spam::Hold),
    ("reject", Spam::Reject),
];

const WHEN_DOWN: [(&str, WhenDown); 2] = [("defer", WhenDown::Defer), ("accept", WhenDown::Accept)];

const WHEN_TOO_LARGE: [(&str, WhenTooLarge); 3] = [
    ("reject", WhenTooLarge::Reject),
    ("accept", WhenTooLarge::Accept),
    ("scanHead", WhenTooLarge::ScanHead),
];

const ENGINES: [&str; 3] = ["clamav", "rspamd", "milter"];

const DEADLINE: Span = Span::from_secs(20);
const CONNECTIONS: u32 = 10;
const MAX_SIZE: ByteSize = ByteSize::from_bytes(25 << 20);
/// A message may be as large.
const LARGEST: ByteSize = ByteSize::from_bytes(512 << 20);
/// Less would not take the header sections of usual messages.
const SMALLEST: ByteSize = ByteSize::from_bytes(64 << 10);

impl Scanner {
    pub(super) fn read(name: &str, spec: &Fields<'_>) -> Option<Self> {
        let deadline = spec.parsed("deadline").unwrap_or(DEADLINE);
        if !(Span::from_secs(1)..=Span::from_secs(120)).contains(&deadline) {
            spec.problem(
                "deadline",
                format!("1s to 2m is expected, found {deadline}"),
            );
        }
        let max_size = spec.parsed("maxSize").unwrap_or(MAX_SIZE);
        if !(SMALLEST..=LARGEST).contains(&max_size) {
            spec.problem(
                "maxSize",
                format!("{SMALLEST} to {LARGEST} is expected, found {max_size}"),
            );
        }
        let connections = spec.small_integer("connections", 1..=1000);
        let when_down = spec.one_of("whenDown", &WHEN_DOWN);
        let when_too_large = spec.one_of("whenTooLarge", &WHEN_TOO_LARGE);
        let given: Vec<&str> = ENGINES
            .into_iter()
            .filter(|engine| spec.is_given(engine))
            .collect();
        let [engine] = given.as_slice() else {
            let found = match given.as_slice() {
                [] => "none".to_owned(),
                several => several.join(" and "),
            };
            let what = format!(
                "exactly one of {} is expected, found {found}",
                ENGINES.join(", ")
            );
            spec.problem("", what);
            return None;
        };
        let (fields, engine) = match *engine {
            "clamav" => (spec.map("clamav"), Engine::ClamAv),
            "milter" => (spec.map("milter"), Engine::Milter),
            _ => {
                let fields = spec.map("rspamd");
                let spam = fields.one_of("spam", &SPAM).unwrap_or_default();
                (fields, Engine::Rspamd { spam })
            }
        };
        let address = fields
            .required_text("address")
            .and_then(|_| fields.parsed("address"));
        fields.close();
        Some(Self {
            name: name.to_owned(),
            engine,
            address: address?,
            deadline,
            connections: connections.unwrap_or(CONNECTIONS),
            max_size,
            when_down: when_down.unwrap_or_default(),
            when_too_large: when_too_large.unwrap_or_default(),
        })
    }

    pub(super) fn spec(&self) -> Value {
        let address = self.address.to_string();
        let mut spec = json!({
            "deadline": self.deadline.to_string(),
            "connections": self.connections,
            "maxSize": self.max_size.to_string(),
            "whenDown": super::word(&WHEN_DOWN, self.when_down),
            "whenTooLarge": super::word(&WHEN_TOO_LARGE, self.when_too_large),
        });
        match self.engine {
            Engine::ClamAv => spec["clamav"] = json!({ "address": address }),
            Engine::Rspamd { spam } => {
                spec["rspamd"] = json!({ "address": address, "spam": super::word(&SPAM, spam) });
            }
            Engine::Milter => spec["milter"] = json!({ "address": address }),
        }
        spec
    }
}

/// Scanners of one message.
const MOST: usize = 8;

/// The names of scanners; whether they are there is looked at with all documents. `None` when nothing is said.
pub(super) fn read_names(fields: &Fields<'_>) -> Option<Vec<String>> {
    if !fields.is_given("scanners") {
        return None;
    }
    let names = fields.read_list("scanners", |name| Ok(name.to_owned()));
    if names.len() > MOST {
        fields.problem("scanners", format!("at most {MOST} are expected"));
    }
    for (index, name) in names.iter().enumerate() {
        if names.iter().take(index).any(|before| before == name) {
            fields.problem("scanners", format!("{name:?} is there twice"));
        }
    }
    Some(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_and_others_are_none() {
        for text in [
            "127.0.0.1:3310",
            "[::1]:11333",
            "rspamd.mail.svc:11333",
            "unix:/run/clamd.ctl",
        ] {
            let address: ScannerAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
        let long = format!("unix:/{}", "x".repeat(107));
        for text in [
            "",
            "127.0.0.1",
            "host:",
            "host:0",
            "host:70000",
            ":3310",
            "unix:run/x",
            "::1:3310",
            "a b:1",
            &long,
        ] {
            assert_eq!(
                text.parse::<ScannerAddress>(),
                Err(ScannerAddressError),
                "{text}"
            );
        }
    }
}
