//! `staffetta dkim list`.

use proto::signer::{KeyPublication, KeyState, KeyUse};
use serde_json::{Value, json};

use crate::cli::Global;
use crate::output::{self, OutputFormat};
use crate::signers::Signer;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Sending domain [default: all]
    domain: Option<String>,
    /// How it is written: as JSON, one object for each key
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    signer: Signer,
}

pub(super) async fn run(global: &Global, arguments: &Arguments) -> anyhow::Result<()> {
    let keys = arguments
        .signer
        .keys(global, arguments.domain.as_deref())
        .await?;
    let now = runtime::now_ms();
    output::print(&match arguments.output {
        OutputFormat::Json => keys
            .iter()
            .map(|key| format!("{}\n", json(key, now)))
            .collect(),
        OutputFormat::Text if keys.is_empty() => "There are no keys.\n".to_owned(),
        OutputFormat::Text => table(&keys, now),
    })
}

/// What is done with a key, as it is said in documents and metrics.
fn used(key: &KeyState, now: u64) -> &'static str {
    match key.r#use() {
        KeyUse::Active => "active",
        KeyUse::Pending => "pending",
        KeyUse::Retiring if key.keep_until_ms <= now => "retired",
        KeyUse::Retiring => "retiring",
        KeyUse::Missing => "missing",
        KeyUse::Unspecified => "unknown",
    }
}

fn shown(publication: KeyPublication) -> &'static str {
    match publication {
        KeyPublication::Shown => "shown",
        KeyPublication::Absent => "absent",
        KeyPublication::Other => "other",
        KeyPublication::Unspecified => "unknown",
    }
}

fn json(key: &KeyState, now: u64) -> Value {
    json!({
        "domain": key.domain,
        "selector": key.selector,
        "algorithm": key.algorithm,
        "bits": key.bits,
        "use": used(key, now),
        "dns": shown(key.publication()),
        "record": key.record,
        "problem": key.problem,
        "keepUntil": (key.keep_until_ms > 0).then(|| time(key.keep_until_ms)),
    })
}

fn time(unix_ms: u64) -> String {
    let milliseconds = i64::try_from(unix_ms).ok();
    let time = milliseconds.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(String::new, |time| {
        time.strftime("%Y-%m-%dT%H:%MZ").to_string()
    })
}

fn table(keys: &[KeyState], now: u64) -> String {
    let heading = [
        "DOMAIN",
        "SELECTOR",
        "ALGORITHM",
        "BITS",
        "USE",
        "DNS",
        "NOTE",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    for key in keys {
        let note = match used(key, now) {
            "retiring" => format!("keep its record until {}", time(key.keep_until_ms)),
            "retired" => "its record and its file can go".to_owned(),
            _ => key.problem.clone(),
        };
        rows.push(vec![
            key.domain.clone(),
            key.selector.clone(),
            key.algorithm.clone(),
            key.bits.to_string(),
            used(key, now).to_owned(),
            shown(key.publication()).to_owned(),
            note,
        ]);
    }
    output::table(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_is_done_with_each_key() {
        let key = |used: KeyUse, keep_until_ms| KeyState {
            domain: "acme.example".to_owned(),
            selector: "s1".to_owned(),
            algorithm: "rsa-sha256".to_owned(),
            bits: 2048,
            r#use: used.into(),
            publication: KeyPublication::Shown.into(),
            problem: "p".to_owned(),
            keep_until_ms,
            ..KeyState::default()
        };
        let now = 1_795_351_205_000;
        let line = |key: &KeyState| {
            table(std::slice::from_ref(key), now)
                .lines()
                .nth(1)
                .map(str::to_owned)
        };
        for (key, expected) in [
            (key(KeyUse::Active, 0), "active  shown  p"),
            (
                key(KeyUse::Retiring, now + 1000),
                "retiring  shown  keep its record until 2026-11-22T",
            ),
            (
                key(KeyUse::Retiring, now),
                "retired  shown  its record and its file can go",
            ),
        ] {
            let line = line(&key).unwrap();
            assert!(line.contains(expected), "{line}");
        }
        let told = json(&key(KeyUse::Pending, 0), now);
        assert_eq!(
            (told["use"].as_str(), told["keepUntil"].is_null()),
            (Some("pending"), true)
        );
    }
}
