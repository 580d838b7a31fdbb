//! `staffetta webhook dead`.

use anyhow::Context;
use proto::admin::DeadLettersRequest;
use serde_json::{Value, json};

use super::time;
use crate::admin::{self, Server};
use crate::cli::Global;
use crate::output::{self, OutputFormat};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Name of the Webhook
    #[arg(value_name = "WEBHOOK")]
    webhook: String,
    /// How it is written; `json`: one line for each post that was given up, with its events
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    server: Server,
}

pub(super) async fn run(global: &Global, arguments: &Arguments) -> anyhow::Result<()> {
    let mut admin = arguments.server.connect(global).await?;
    let request = DeadLettersRequest {
        webhook: arguments.webhook.clone(),
    };
    let refused = |status: tonic::Status| admin::refused("webhook", &status);
    let mut letters = admin
        .dead_letters(request)
        .await
        .map_err(refused)?
        .into_inner();
    let mut events = 0;
    while let Some(stored) = letters.message().await.map_err(refused)? {
        let letter = stored.letter.unwrap_or_default();
        events += letter.events.len();
        let given_up = time(letter.given_up_ms);
        output::print(&match arguments.output {
            OutputFormat::Text => format!(
                "{given_up} {} events of {}: {}\n",
                letter.events.len(),
                letter.source,
                letter.reason
            ),
            OutputFormat::Json => {
                let events = letter
                    .events
                    .iter()
                    .map(|event| serde_json::from_slice(event));
                let events: Vec<Value> = events
                    .collect::<Result<_, _>>()
                    .context("an event that was given up is no JSON")?;
                let line = json!({
                    "sequence": stored.sequence,
                    "given_up": given_up,
                    "reason": letter.reason,
                    "source": letter.source,
                    "events": events,
                });
                format!("{line}\n")
            }
        })?;
    }
    match (arguments.output, events) {
        (OutputFormat::Text, 0) => output::print("nothing was given up\n"),
        _ => Ok(()),
    }
}
