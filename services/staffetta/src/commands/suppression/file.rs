//! `staffetta suppression import` and `export`: CSV (RFC 4180) or JSON Lines.

use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use proto::admin::{ChangeSuppressionRequest, SuppressionWish};
use proto::suppression::change::Kind;
use proto::suppression::{Change, Reason};
use serde::Deserialize;
use serde_json::json;
use tonic::Code;

use super::csv;
use super::list::{Which, address_of, entries, json_of, next, reason_of, time, unix_ms};
use crate::admin::{self, Server};
use crate::cli::Global;
use crate::commands::queue::Author;
use crate::output::{self, OutputFormat};

/// Entries of one request.
const BATCH: usize = 5_000;
/// Octets of a line at most.
const LINE: u64 = 64 << 10;
const COLUMNS: [&str; 8] = [
    "address", "tenant", "stream", "reason", "created", "expires", "author", "cause",
];

/// How entries are written in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// With a heading.
    Csv,
    /// One object in a line.
    Jsonl,
}

impl Format {
    /// As it is given, else by the file's name.
    fn of(given: Option<Self>, path: &Path) -> Self {
        let is_json = path
            .extension()
            .is_some_and(|extension| extension == "jsonl" || extension == "json");
        given.unwrap_or(if is_json { Self::Jsonl } else { Self::Csv })
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Import {
    /// The file; `-` is standard input. CSV has a heading with `address` and, if you like, `tenant`, `stream`, `reason`,
    /// `created`, `expires`, `cause`
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// How it is written [default: by the file's name, else CSV]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// The tenant of entries that name none
    #[arg(long, conflicts_with = "global")]
    tenant: Option<String>,
    /// The stream of entries that name none
    #[arg(long, requires = "tenant")]
    stream: Option<String>,
    /// Entries that name no tenant are for mail of all tenants
    #[arg(long)]
    global: bool,
    /// Store only the keys of the addresses, whatever the tenants do
    #[arg(long)]
    hashed: bool,
    #[command(flatten)]
    author: Author,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Export {
    /// The file [default: standard output]
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// How it is written [default: by the file's name, else CSV]
    #[arg(long, value_enum)]
    format: Option<Format>,
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    server: Server,
}

/// An entry of a file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Row {
    address: String,
    tenant: String,
    stream: String,
    reason: String,
    created: String,
    expires: String,
    /// Who imports is the author now.
    author: String,
    cause: String,
}

impl Import {
    pub(crate) async fn run(&self, global: &Global) -> anyhow::Result<()> {
        let author = self.author.name()?;
        let input: Box<dyn Read + Send> = match self.file.to_str() {
            Some("-") => Box::new(std::io::stdin()),
            _ => Box::new(File::open(&self.file).with_context(|| self.file.display().to_string())?),
        };
        let mut rows = Rows::new(BufReader::new(input), Format::of(self.format, &self.file))
            .with_context(|| self.file.display().to_string())?;
        let mut admin = self.server.connect(global).await?;
        let (mut stored, mut ended) = (0, 0);
        loop {
            let (mut changes, mut lines) = (Vec::new(), Vec::new());
            while changes.len() < BATCH
                && let Some((line, row)) = rows.next().with_context(|| self.place(None))?
            {
                let wish = self.wish(row).with_context(|| self.place(Some(line)))?;
                changes.push(wish);
                lines.push(line);
            }
            if changes.is_empty() {
                break;
            }
            let author = author.clone();
            let request = ChangeSuppressionRequest { author, changes };
            let answer = admin.change_suppression(request).await;
            let answer = answer.map_err(|status| self.told(&status, &lines, stored))?;
            let answer = answer.into_inner();
            stored += answer.stored;
            ended += answer.ended;
        }
        output::print(&match self.output {
            OutputFormat::Text if ended > 0 => {
                format!("added: {stored}\nover already, left out: {ended}\n")
            }
            OutputFormat::Text => format!("added: {stored}\n"),
            OutputFormat::Json => format!("{}\n", json!({ "added": stored, "ended": ended })),
        })
    }

    fn place(&self, line: Option<u64>) -> String {
        match line {
            Some(line) => format!("{}, line {line}", self.file.display()),
            None => self.file.display().to_string(),
        }
    }

    fn wish(&self, row: Row) -> anyhow::Result<SuppressionWish> {
        let (mut tenant, mut stream) = (row.tenant, row.stream);
        if tenant.is_empty() {
            anyhow::ensure!(stream.is_empty(), "a stream without a tenant");
            tenant = self.tenant.clone().unwrap_or_default();
            stream = self.stream.clone().unwrap_or_default();
            anyhow::ensure!(
                !tenant.is_empty() || self.global,
                "no tenant: --tenant or --global says for which mail such entries are"
            );
        }
        let reason = match row.reason.as_str() {
            "" => Reason::Import,
            reason => suppress::reason_of(reason).with_context(|| {
                format!(
                    "reason {reason:?}: hard, soft, complaint, unsubscribe, manual or import is expected"
                )
            })?,
        };
        let time = |name: &'static str, text: &str| match text {
            "" | "never" => Ok(0),
            text => unix_ms(text).context(name),
        };
        Ok(SuppressionWish {
            address: row.address,
            tenant,
            stream,
            remove: false,
            reason: reason.into(),
            expires_ms: time("expires", &row.expires)?,
            cause: row.cause,
            created_ms: time("created", &row.created)?,
            hashed: self.hashed,
        })
    }

    /// The scheduler names the entry by its position in the request: its line is what helps.
    fn told(&self, status: &tonic::Status, lines: &[u64], stored: u64) -> anyhow::Error {
        let before = format!("{stored} before it are stored");
        let named = status.message().strip_prefix("changes[");
        let named = named.and_then(|rest| rest.split_once("]: "));
        let line = named.and_then(|(at, what)| Some((lines.get(at.parse::<usize>().ok()?)?, what)));
        match line {
            Some((line, what)) if status.code() == Code::InvalidArgument => {
                anyhow::anyhow!("{}: {what} ({before})", self.place(Some(*line)))
            }
            _ => admin::refused("suppression", status).context(before),
        }
    }
}

impl Export {
    pub(crate) async fn run(&self, global: &Global) -> anyhow::Result<()> {
        let mut rows = entries(&self.server, global, self.which.request()).await?;
        let path = self.file.clone().unwrap_or_default();
        let format = Format::of(self.format, &path);
        let mut file = match &self.file {
            None => None,
            Some(path) => {
                let file = File::create(path).with_context(|| path.display().to_string())?;
                Some(BufWriter::new(file))
            }
        };
        let mut text = match format {
            Format::Csv => csv::line(&COLUMNS),
            Format::Jsonl => String::new(),
        };
        loop {
            match &mut file {
                None => output::print(&text)?,
                Some(file) => file
                    .write_all(text.as_bytes())
                    .with_context(|| path.display().to_string())?,
            }
            let Some(part) = next(&mut rows).await? else {
                break;
            };
            text = part.iter().map(|change| line_of(change, format)).collect();
        }
        if let Some(mut file) = file {
            file.flush().with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

fn line_of(change: &Change, format: Format) -> String {
    if format == Format::Jsonl {
        return format!("{}\n", json_of(change));
    }
    let (expires, author, cause) = match &change.kind {
        Some(Kind::Entry(entry)) => (entry.expires_ms, &*entry.author, &*entry.cause),
        _ => (0, "", ""),
    };
    let expires = match expires {
        0 => String::new(),
        expires => time(expires),
    };
    csv::line(&[
        &address_of(change),
        &change.tenant,
        &change.stream,
        reason_of(change),
        &time(change.at_ms),
        &expires,
        author,
        cause,
    ])
}

/// The entries of a file, one after the other.
struct Rows<R> {
    input: R,
    format: Format,
    columns: Vec<String>,
    line: u64,
}

impl<R: BufRead> Rows<R> {
    fn new(input: R, format: Format) -> anyhow::Result<Self> {
        let mut rows = Self {
            input,
            format,
            columns: Vec::new(),
            line: 0,
        };
        if format == Format::Csv {
            let (_, heading) = rows.record()?.context("the file is empty")?;
            let heading = heading.trim_start_matches('\u{feff}');
            let columns = csv::fields(heading)?;
            rows.columns = columns
                .iter()
                .map(|name| name.trim().to_lowercase())
                .collect();
            anyhow::ensure!(
                rows.columns.iter().any(|name| name == "address"),
                "line 1: a heading with a column `address` is expected"
            );
            for name in &rows.columns {
                anyhow::ensure!(
                    COLUMNS.contains(&name.as_str()),
                    "line 1: there is no column {name:?}; known: {}",
                    COLUMNS.join(", ")
                );
            }
        }
        Ok(rows)
    }

    /// The next entry and the line where it begins.
    fn next(&mut self) -> anyhow::Result<Option<(u64, Row)>> {
        loop {
            let Some((line, text)) = self.record()? else {
                return Ok(None);
            };
            if text.trim().is_empty() {
                continue;
            }
            let row = match self.format {
                Format::Jsonl => serde_json::from_str(&text).map_err(anyhow::Error::new),
                Format::Csv => self.row(&text),
            };
            return Ok(Some((line, row.with_context(|| format!("line {line}"))?)));
        }
    }

    fn row(&self, text: &str) -> anyhow::Result<Row> {
        let fields = csv::fields(text)?;
        let (found, expected) = (fields.len(), self.columns.len());
        anyhow::ensure!(
            found == expected,
            "{found} fields, where the heading has {expected}"
        );
        let mut row = Row::default();
        for (name, field) in self.columns.iter().zip(fields) {
            let place = match name.as_str() {
                "address" => &mut row.address,
                "tenant" => &mut row.tenant,
                "stream" => &mut row.stream,
                "reason" => &mut row.reason,
                "created" => &mut row.created,
                "expires" => &mut row.expires,
                "cause" => &mut row.cause,
                _ => continue,
            };
            *place = field.trim().to_owned();
        }
        Ok(row)
    }

    /// The next line, and those after it that a quoted field goes on in.
    fn record(&mut self) -> anyhow::Result<Option<(u64, String)>> {
        let mut text = String::new();
        let begins = self.line + 1;
        loop {
            self.line += 1;
            let line = self.line;
            let left = LINE - text.len() as u64;
            let read = (&mut self.input).take(left).read_line(&mut text);
            let read = read.with_context(|| format!("line {line}"))?;
            anyhow::ensure!(
                (text.len() as u64) < LINE,
                "line {line}: longer than {LINE} octets"
            );
            if read == 0 {
                anyhow::ensure!(text.is_empty(), "line {begins}: a quote is not closed");
                return Ok(None);
            }
            let is_open = self.format == Format::Csv && text.matches('"').count() % 2 == 1;
            if !is_open {
                while text.ends_with(['\n', '\r']) {
                    text.pop();
                }
                return Ok(Some((begins, text)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str, format: Format) -> anyhow::Result<Vec<(u64, Row)>> {
        let mut rows = Rows::new(text.as_bytes(), format)?;
        let mut all = Vec::new();
        while let Some(row) = rows.next()? {
            all.push(row);
        }
        Ok(all)
    }

    #[test]
    fn a_table_is_read_by_its_heading() {
        let text = "\u{feff}Address, reason,cause\r\na@x.example,hard,\"said \"\"no\"\",\r\ntwice\"\r\n\r\nb@x.example,,\r\n";
        let all = rows(text, Format::Csv).unwrap();
        let seen: Vec<(u64, &str, &str, &str)> = all
            .iter()
            .map(|(line, row)| (*line, &*row.address, &*row.reason, &*row.cause))
            .collect();
        assert_eq!(
            seen,
            [
                (2, "a@x.example", "hard", "said \"no\",\r\ntwice"),
                (5, "b@x.example", "", "")
            ]
        );
    }

    #[test]
    fn an_export_can_be_imported() {
        let change = Change {
            key: vec![0xab; 16].into(),
            tenant: "acme".to_owned(),
            at_ms: 1_800_000_000_000,
            kind: Some(Kind::Entry(proto::suppression::Entry {
                reason: Reason::Complaint.into(),
                expires_ms: 1_900_000_000_000,
                author: "alice".to_owned(),
                cause: "a \"b\", c".to_owned(),
            })),
            ..Change::default()
        };
        for format in [Format::Csv, Format::Jsonl] {
            let heading = match format {
                Format::Csv => csv::line(&COLUMNS),
                Format::Jsonl => String::new(),
            };
            let text = heading + &line_of(&change, format);
            let (_, row) = rows(&text, format).unwrap().remove(0);
            assert_eq!(row.address, format!("hash:{}", "ab".repeat(16)));
            assert_eq!(
                (&*row.tenant, &*row.stream, &*row.reason),
                ("acme", "", "complaint")
            );
            assert_eq!(row.cause, "a \"b\", c");
            assert_eq!(unix_ms(&row.created).unwrap(), 1_800_000_000_000);
            assert_eq!(unix_ms(&row.expires).unwrap(), 1_900_000_000_000);
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        let csv = |text: &str| format!("{:#}", rows(text, Format::Csv).unwrap_err());
        for (text, expected) in [
            ("", "the file is empty"),
            ("mail\n", "line 1: a heading"),
            ("address,colour\n", "line 1: there is no column \"colour\""),
            ("address,reason\n\na@x.example\n", "line 3: 1 fields"),
            ("address\n\"a\n", "line 2: a quote is not closed"),
            ("address\na\"b\"\n", "line 2: "),
        ] {
            let problem = csv(text);
            assert!(problem.contains(expected), "{text:?}: {problem}");
        }
        let long = format!("address\n{}\n", "a".repeat(70_000));
        assert!(csv(&long).contains("longer than"));
        let json = rows(
            "{\"address\":\"a@x.example\"}\n{\"adress\":1}\n",
            Format::Jsonl,
        );
        let problem = format!("{:#}", json.unwrap_err());
        assert!(problem.starts_with("line 2: unknown field"), "{problem}");
    }
}
