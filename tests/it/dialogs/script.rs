//! Reading a dialogue; `tests/dialogs/README.md` says what the lines mean.

use std::path::Path;

use anyhow::{Context, Result, bail};

/// A file.
pub struct Script {
    pub steps: Vec<Step>,
}

/// One line of it.
pub struct Step {
    /// In the file, from 1.
    pub line: usize,
    pub text: String,
    pub times: usize,
    pub action: Action,
}

/// What is to be done.
pub enum Action {
    Connect(String),
    StartTls(String),
    StartTlsAs(String),
    Closed,
    HangUp,
    Known,
    Stop,
    KillNats,
    RestartNats,
    FillSpool,
    RemoveCredential(String),
    LockCredential(String),
    Say(String),
    Octets(String),
    Login {
        user: String,
        password: String,
    },
    Token {
        mechanism: String,
        token: String,
        user: Option<String>,
        /// The response alone, without the command.
        response: bool,
    },
    Reply(String),
    ReplyHas(String),
    ReplyHasNot(String),
    Content(String),
    ContentHasNot(String),
    Envelope(String),
    Body(Vec<u8>),
}

impl Script {
    pub fn read(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file)?;
        let mut steps = Vec::new();
        for (number, line) in text.lines().enumerate() {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let step =
                step(line).with_context(|| format!("{}:{}: {line}", file.display(), number + 1))?;
            let (times, action) = step;
            steps.push(Step {
                line: number + 1,
                text: line.to_owned(),
                times,
                action,
            });
        }
        Ok(Self { steps })
    }
}

fn step(line: &str) -> Result<(usize, Action)> {
    if let Some(directive) = line.strip_prefix("@ ") {
        return directive_of(directive).map(|action| (1, action));
    }
    let (head, rest) = line
        .split_once(':')
        .context("no colon after the first letter")?;
    let rest = rest.strip_prefix(' ').unwrap_or(rest).to_owned();
    let (kind, times) = match head.split_once('*') {
        Some((kind, times)) => (kind, times.parse().context("no number after the star")?),
        None => (head, 1),
    };
    let action = match kind {
        "C" => Action::Say(rest),
        "B" => Action::Octets(rest),
        "A" => {
            let (user, password) = rest.split_once(' ').context("no password")?;
            Action::Login {
                user: user.to_owned(),
                password: password.to_owned(),
            }
        }
        "T" | "R" => {
            let mut words = rest.split(' ').map(str::to_owned);
            Action::Token {
                mechanism: words.next().context("no mechanism")?,
                token: words.next().context("no token")?,
                user: words.next(),
                response: kind == "R",
            }
        }
        "S" => Action::Reply(rest),
        "H" => Action::ReplyHas(rest),
        "N" => Action::ReplyHasNot(rest),
        "M" => Action::Content(rest),
        "X" => Action::ContentHasNot(rest),
        "E" => Action::Envelope(rest),
        "P" => Action::Body(unescape(&rest)?),
        _ => bail!("unknown kind of line"),
    };
    Ok((times, action))
}

fn directive_of(directive: &str) -> Result<Action> {
    if let Some(listener) = directive.strip_prefix("connect ") {
        return Ok(Action::Connect(listener.to_owned()));
    }
    if let Some(name) = directive.strip_prefix("remove credential ") {
        return Ok(Action::RemoveCredential(name.to_owned()));
    }
    if let Some(name) = directive.strip_prefix("lock credential ") {
        return Ok(Action::LockCredential(name.to_owned()));
    }
    if let Some(name) = directive.strip_prefix("tls as ") {
        return Ok(Action::StartTlsAs(name.to_owned()));
    }
    if let Some(name) = directive.strip_prefix("tls ") {
        return Ok(Action::StartTls(name.to_owned()));
    }
    Ok(match directive {
        "tls" => Action::StartTls("relay.example.com".to_owned()),
        "closed" => Action::Closed,
        "hang up" => Action::HangUp,
        "known" => Action::Known,
        "stop" => Action::Stop,
        "nats kill" => Action::KillNats,
        "nats restart" => Action::RestartNats,
        "spool fill" => Action::FillSpool,
        _ => bail!("unknown directive"),
    })
}

/// `\r \n \t \0 \\ \xNN` become octets.
pub fn unescape(text: &str) -> Result<Vec<u8>> {
    let mut octets = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            octets.push(byte);
            continue;
        }
        octets.push(match bytes.next() {
            Some(b'r') => b'\r',
            Some(b'n') => b'\n',
            Some(b't') => b'\t',
            Some(b'0') => 0,
            Some(b'\\') => b'\\',
            Some(b'x') => {
                let digits = [bytes.next(), bytes.next()].map(Option::unwrap_or_default);
                u8::from_str_radix(std::str::from_utf8(&digits)?, 16)
                    .context("two digits after \\x")?
            }
            _ => bail!("unknown escape"),
        });
    }
    Ok(octets)
}

/// Whether a line is as expected; a `~` at the end of what is expected accepts anything after.
pub fn matches(expected: &str, line: &str) -> bool {
    match expected.strip_suffix('~') {
        Some(prefix) => line.starts_with(prefix),
        None => line == expected,
    }
}
