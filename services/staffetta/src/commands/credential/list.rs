//! `staffetta credential list-locks`.

use proto::admin::MeasuresRequest;
use proto::watch::{Evidence, Measure};
use serde_json::json;

use super::decide::json_of;
use super::done;
use crate::admin::{self, Server};
use crate::cli::Global;
use crate::output::{self, OutputFormat};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    server: Server,
}

pub(super) async fn run(global: &Global, arguments: &Arguments) -> anyhow::Result<()> {
    let mut admin = arguments.server.connect(global).await?;
    let measures = admin
        .measures(MeasuresRequest {})
        .await
        .map_err(|status| admin::refused("credential", &status))?
        .into_inner()
        .measures;
    output::print(&match arguments.output {
        OutputFormat::Text => text(&measures),
        OutputFormat::Json => {
            let measures: Vec<_> = measures.iter().map(json_of).collect();
            format!("{}\n", json!({ "credentials": measures }))
        }
    })
}

fn text(measures: &[Measure]) -> String {
    if measures.is_empty() {
        return "nothing is done about any credential\n".to_owned();
    }
    let mut text = String::new();
    for measure in measures {
        let by = match measure.author.as_str() {
            "" => "the rules",
            author => author,
        };
        text.push_str(&format!(
            "{} of {}: {} by {by} since {}{}\n",
            measure.credential,
            measure.tenant,
            done(measure.action()),
            time(measure.since_ms),
            match measure.until_ms {
                0 => String::new(),
                until_ms => format!(" until {}", time(until_ms)),
            },
        ));
        if !measure.cause.is_empty() {
            text.push_str(&format!("  {}\n", measure.cause));
        }
        for evidence in &measure.evidence {
            text.push_str(&format!("  {}\n", describe(evidence)));
        }
    }
    text
}

fn describe(evidence: &Evidence) -> String {
    let usual = match evidence.usual {
        0 => String::new(),
        usual => format!(", usually {usual}"),
    };
    let networks = match evidence.networks.as_slice() {
        [] => String::new(),
        networks => format!(": {}", networks.join(", ")),
    };
    format!(
        "{} {} since {} (noticed from {}{usual}){networks}",
        evidence.signal().word(),
        evidence.observed,
        time(evidence.since_ms),
        evidence.threshold,
    )
}

fn time(unix_ms: u64) -> String {
    let milliseconds = i64::try_from(unix_ms).ok();
    let timestamp = milliseconds.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    timestamp.map_or_else(|| "?".to_owned(), |timestamp| format!("{timestamp:.0}"))
}

#[cfg(test)]
mod tests {
    use proto::watch::{Action, Signal};

    use super::*;

    #[test]
    fn measures_are_shown_with_what_was_seen() {
        let evidence = Evidence {
            signal: Signal::NewNetworks.into(),
            observed: 40,
            usual: 2,
            threshold: 10,
            weight: 3,
            since_ms: 1_800_000_000_000,
            networks: vec!["192.0.2.0/24".to_owned(), "2001:db8::/48".to_owned()],
        };
        let measure = Measure {
            credential: "shop".to_owned(),
            tenant: "acme".to_owned(),
            action: Action::Lock.into(),
            since_ms: 1_800_000_000_000,
            until_ms: 1_800_086_400_000,
            evidence: vec![evidence],
            ..Measure::default()
        };
        assert_eq!(
            text(&[measure]),
            "shop of acme: locked by the rules since 2027-01-15T08:00:00Z until 2027-01-16T08:00:00Z\n  \
             newNetworks 40 since 2027-01-15T08:00:00Z (noticed from 10, usually 2): 192.0.2.0/24, 2001:db8::/48\n"
        );
        assert_eq!(text(&[]), "nothing is done about any credential\n");
    }
}
