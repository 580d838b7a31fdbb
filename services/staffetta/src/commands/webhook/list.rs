//! `staffetta webhook list`.

use proto::admin::{WebhookStatus, WebhooksRequest};
use serde_json::{Value, json};

use super::time;
use crate::admin::{self, Server};
use crate::cli::Global;
use crate::output::{self, OutputFormat, table};

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
    let webhooks = admin
        .webhooks(WebhooksRequest::default())
        .await
        .map_err(|status| admin::refused("webhook", &status))?
        .into_inner()
        .webhooks;
    output::print(&match arguments.output {
        OutputFormat::Text => text(&webhooks),
        OutputFormat::Json => {
            let webhooks: Vec<_> = webhooks.iter().map(json_of).collect();
            format!("{}\n", json!({ "webhooks": webhooks }))
        }
    })
}

/// Records that are not settled.
fn behind(webhook: &WebhookStatus) -> u64 {
    let sources = webhook.sources.iter();
    sources
        .map(|source| source.last.saturating_sub(source.sequence))
        .sum()
}

/// Since when it accepts nothing in any source, Unix milliseconds.
fn failing_since_ms(webhook: &WebhookStatus) -> Option<u64> {
    let sources = webhook.sources.iter();
    sources
        .map(|source| source.failing_since_ms)
        .filter(|since_ms| *since_ms > 0)
        .min()
}

fn gone_since_ms(webhook: &WebhookStatus) -> u64 {
    webhook
        .state
        .as_ref()
        .map_or(0, |state| state.gone_since_ms)
}

fn standing(webhook: &WebhookStatus) -> String {
    match (gone_since_ms(webhook), failing_since_ms(webhook)) {
        _ if webhook.disabled => "disabled".to_owned(),
        (0, None) => "accepts".to_owned(),
        (0, Some(since_ms)) => format!("accepts nothing since {}", time(since_ms)),
        (since_ms, _) => format!("gone since {}", time(since_ms)),
    }
}

fn text(webhooks: &[WebhookStatus]) -> String {
    if webhooks.is_empty() {
        return "there is no webhook\n".to_owned();
    }
    let heading = ["WEBHOOK", "TENANT", "BEHIND", "STATE", "URL"];
    let rows = webhooks.iter().map(|webhook| {
        let tenant = match webhook.tenant.as_str() {
            "" => "(all)",
            tenant => tenant,
        };
        vec![
            webhook.webhook.clone(),
            tenant.to_owned(),
            behind(webhook).to_string(),
            standing(webhook),
            webhook.url.clone(),
        ]
    });
    let heading = heading.map(str::to_owned).to_vec();
    table(&std::iter::once(heading).chain(rows).collect::<Vec<_>>())
}

fn json_of(webhook: &WebhookStatus) -> Value {
    let sources = webhook.sources.iter().map(|source| {
        json!({
            "source": source.source,
            "sequence": source.sequence,
            "last": source.last,
            "failing_since_ms": source.failing_since_ms,
        })
    });
    json!({
        "webhook": webhook.webhook,
        "tenant": webhook.tenant,
        "url": webhook.url,
        "disabled": webhook.disabled,
        "gone_since_ms": gone_since_ms(webhook),
        "behind": behind(webhook),
        "sources": sources.collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use proto::admin::WebhookSource;
    use proto::webhook::State;

    use super::*;

    #[test]
    fn webhooks_are_shown_with_what_is_wrong_with_them() {
        let source = |sequence, failing_since_ms| WebhookSource {
            source: "0".to_owned(),
            sequence,
            last: 40,
            failing_since_ms,
        };
        let webhook = |name: &str, sources, gone_since_ms| WebhookStatus {
            webhook: name.to_owned(),
            tenant: "acme".to_owned(),
            url: "https://a.example/".to_owned(),
            sources,
            state: Some(State {
                gone_since_ms,
                ..State::default()
            }),
            ..WebhookStatus::default()
        };
        let shown = text(&[
            webhook("a", vec![source(38, 0), source(40, 0)], 0),
            webhook("b", vec![source(0, 1_800_000_000_000)], 0),
            webhook("c", vec![source(40, 0)], 1_800_000_000_000),
        ]);
        assert_eq!(
            shown,
            "WEBHOOK  TENANT  BEHIND  STATE                                       URL\n\
             a        acme         2  accepts                                     https://a.example/\n\
             b        acme        40  accepts nothing since 2027-01-15T08:00:00Z  https://a.example/\n\
             c        acme         0  gone since 2027-01-15T08:00:00Z             https://a.example/\n"
        );
        assert_eq!(text(&[]), "there is no webhook\n");
    }
}
