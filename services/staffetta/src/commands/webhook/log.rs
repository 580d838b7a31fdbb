//! `staffetta webhook log`.

use proto::admin::WebhooksRequest;
use proto::webhook::Attempt;
use serde_json::{Value, json};

use super::time;
use crate::admin::{self, Server};
use crate::cli::Global;
use crate::output::{self, OutputFormat, table};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Name of the Webhook
    #[arg(value_name = "WEBHOOK")]
    webhook: String,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    server: Server,
}

pub(super) async fn run(global: &Global, arguments: &Arguments) -> anyhow::Result<()> {
    let mut admin = arguments.server.connect(global).await?;
    let request = WebhooksRequest {
        webhook: arguments.webhook.clone(),
    };
    let webhooks = admin
        .webhooks(request)
        .await
        .map_err(|status| admin::refused("webhook", &status))?
        .into_inner()
        .webhooks;
    let states = webhooks.into_iter().filter_map(|webhook| webhook.state);
    let attempts: Vec<Attempt> = states.flat_map(|state| state.attempts).collect();
    output::print(&match arguments.output {
        OutputFormat::Text => text(&attempts),
        OutputFormat::Json => {
            let attempts: Vec<_> = attempts.iter().map(json_of).collect();
            format!("{}\n", json!({ "attempts": attempts }))
        }
    })
}

fn text(attempts: &[Attempt]) -> String {
    if attempts.is_empty() {
        return "nothing was posted lately\n".to_owned();
    }
    let heading = ["TIME", "SOURCE", "EVENTS", "TRY", "MS", "RESULT", "ID"];
    let rows = attempts.iter().map(|attempt| {
        let result = match attempt.status {
            0 => attempt.error.clone(),
            status => status.to_string(),
        };
        vec![
            time(attempt.at_ms),
            attempt.source.clone(),
            attempt.events.to_string(),
            attempt.number.to_string(),
            attempt.took_ms.to_string(),
            result,
            attempt.id.clone(),
        ]
    });
    let heading = heading.map(str::to_owned).to_vec();
    table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>())
}

fn json_of(attempt: &Attempt) -> Value {
    json!({
        "time": time(attempt.at_ms),
        "took_ms": attempt.took_ms,
        "id": attempt.id,
        "source": attempt.source,
        "events": attempt.events,
        "number": attempt.number,
        "status": attempt.status,
        "error": attempt.error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_shown_with_what_came_of_them() {
        let attempt = |number, status, error: &str| Attempt {
            at_ms: 1_800_000_000_000,
            took_ms: 12,
            id: "evt_1".to_owned(),
            source: "0".to_owned(),
            events: 100,
            number,
            status,
            error: error.to_owned(),
        };
        let shown = text(&[attempt(1, 0, "HTTP: gone"), attempt(2, 204, "")]);
        assert_eq!(
            shown,
            "TIME                  SOURCE  EVENTS  TRY  MS  RESULT      ID\n\
             2027-01-15T08:00:00Z       0     100    1  12  HTTP: gone  evt_1\n\
             2027-01-15T08:00:00Z       0     100    2  12         204  evt_1\n"
        );
        assert_eq!(text(&[]), "nothing was posted lately\n");
    }
}
