//! `staffetta suppression list` and `show`.

use std::collections::BTreeMap;

use anyhow::Context;
use jiff::Timestamp;
use proto::admin::{SuppressionRequest, SuppressionRows};
use proto::suppression::change::Kind;
use proto::suppression::{Change, Reason};
use serde_json::{Value, json};
use tonic::Streaming;

use crate::admin::{self, Server};
use crate::cli::Global;
use crate::output::{self, OutputFormat};

/// Which entries.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Which {
    /// Only those for mail of this tenant
    #[arg(long, conflicts_with = "global")]
    tenant: Option<String>,
    /// Only those for this stream
    #[arg(long, requires = "tenant")]
    stream: Option<String>,
    /// Only those for mail of all tenants
    #[arg(long)]
    global: bool,
    /// Only those for this reason: hard, soft, complaint, unsubscribe, manual, import
    #[arg(long, value_parser = reason)]
    reason: Option<Reason>,
}

fn reason(text: &str) -> Result<Reason, String> {
    suppress::reason_of(text).ok_or_else(|| {
        "hard, soft, complaint, unsubscribe, manual or import is expected".to_owned()
    })
}

impl Which {
    pub(super) fn request(&self) -> SuppressionRequest {
        SuppressionRequest {
            address: String::new(),
            tenant: self.tenant.clone().unwrap_or_default(),
            stream: self.stream.clone().unwrap_or_default(),
            reason: self.reason.unwrap_or_default().into(),
            global: self.global,
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    which: Which,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Show {
    /// The address, or `hash:…`
    #[arg(value_name = "ADDRESS")]
    address: String,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    server: Server,
}

impl List {
    pub(crate) async fn run(&self, global: &Global) -> anyhow::Result<()> {
        let rows = entries(&self.server, global, self.which.request()).await?;
        show(rows, self.output).await
    }
}

impl Show {
    pub(crate) async fn run(&self, global: &Global) -> anyhow::Result<()> {
        let request = SuppressionRequest {
            address: self.address.clone(),
            ..SuppressionRequest::default()
        };
        let mut rows = entries(&self.server, global, request).await?;
        let mut found = Vec::new();
        while let Some(part) = next(&mut rows).await? {
            found.extend(part);
        }
        output::print(&match self.output {
            OutputFormat::Json => found
                .iter()
                .map(|of| format!("{}\n", json_of(of)))
                .collect(),
            OutputFormat::Text if found.is_empty() => "not suppressed\n".to_owned(),
            OutputFormat::Text => table(&found),
        })
    }
}

/// All entries that are asked for, as they come.
pub(super) async fn entries(
    server: &Server,
    global: &Global,
    request: SuppressionRequest,
) -> anyhow::Result<Streaming<SuppressionRows>> {
    let mut admin = server.connect(global).await?;
    let rows = admin
        .suppression(request)
        .await
        .map_err(|status| admin::refused("suppression", &status))?;
    Ok(rows.into_inner())
}

/// The next of them; `None` at the end.
pub(super) async fn next(
    rows: &mut Streaming<SuppressionRows>,
) -> anyhow::Result<Option<Vec<Change>>> {
    let part = rows.message().await;
    let part = part.map_err(|status| admin::refused("suppression", &status))?;
    Ok(part.map(|part| part.entries))
}

async fn show(mut rows: Streaming<SuppressionRows>, format: OutputFormat) -> anyhow::Result<()> {
    let mut counts: BTreeMap<&'static str, u64> = BTreeMap::new();
    while let Some(part) = next(&mut rows).await? {
        output::print(&match format {
            OutputFormat::Json => part.iter().map(|of| format!("{}\n", json_of(of))).collect(),
            OutputFormat::Text => table(&part),
        })?;
        for change in &part {
            *counts.entry(reason_of(change)).or_default() += 1;
        }
    }
    let text: Vec<String> = counts
        .iter()
        .map(|(reason, count)| format!("{count} {reason}"))
        .collect();
    match format {
        OutputFormat::Json => Ok(()),
        OutputFormat::Text if text.is_empty() => output::print("nobody is suppressed\n"),
        OutputFormat::Text => output::print(&format!("{}\n", text.join(", "))),
    }
}

fn table(changes: &[Change]) -> String {
    let row = |change: &Change| {
        let (expires, author, cause) = match &change.kind {
            Some(Kind::Entry(entry)) => (entry.expires_ms, &*entry.author, &*entry.cause),
            _ => (0, "", ""),
        };
        vec![
            address_of(change),
            scope_of(change),
            reason_of(change).to_owned(),
            time(change.at_ms),
            if expires == 0 {
                "never".to_owned()
            } else {
                time(expires)
            },
            author.to_owned(),
            cause.to_owned(),
        ]
    };
    let heading = [
        "ADDRESS", "MAIL", "REASON", "SINCE", "EXPIRES", "AUTHOR", "CAUSE",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    rows.extend(changes.iter().map(row));
    output::table(&rows)
}

/// The address, or its key where that is all that is stored.
pub(super) fn address_of(change: &Change) -> String {
    if !change.address.is_empty() {
        return change.address.clone();
    }
    let digits = change.key.iter().map(|octet| format!("{octet:02x}"));
    "hash:".to_owned() + &digits.collect::<String>()
}

fn scope_of(change: &Change) -> String {
    match (change.tenant.as_str(), change.stream.as_str()) {
        ("", _) => "all".to_owned(),
        (tenant, "") => tenant.to_owned(),
        (tenant, stream) => format!("{tenant}/{stream}"),
    }
}

pub(super) fn reason_of(change: &Change) -> &'static str {
    match &change.kind {
        Some(Kind::Entry(entry)) => suppress::reason_name(entry.reason()),
        _ => "unknown",
    }
}

/// RFC 3339; empty for a time that no calendar has.
pub(super) fn time(unix_ms: u64) -> String {
    let timestamp = i64::try_from(unix_ms / 1000)
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok());
    timestamp.map_or_else(String::new, |timestamp| timestamp.to_string())
}

/// Unix milliseconds of a time in RFC 3339.
pub(super) fn unix_ms(text: &str) -> anyhow::Result<u64> {
    let timestamp: Timestamp = text
        .parse()
        .with_context(|| format!("{text:?} is no time such as 2026-01-31T00:00:00Z"))?;
    u64::try_from(timestamp.as_millisecond()).context("the time is before 1970")
}

/// As an export has it, too.
pub(super) fn json_of(change: &Change) -> Value {
    let mut value = json!({
        "address": address_of(change),
        "tenant": change.tenant,
        "stream": change.stream,
        "reason": reason_of(change),
        "created": time(change.at_ms),
    });
    if let Some(Kind::Entry(entry)) = &change.kind {
        if entry.expires_ms != 0 {
            value["expires"] = json!(time(entry.expires_ms));
        }
        if !entry.author.is_empty() {
            value["author"] = json!(entry.author);
        }
        if !entry.cause.is_empty() {
            value["cause"] = json!(entry.cause);
        }
    }
    value
}
