//! `staffetta webhook replay` and `enable`.

use proto::admin::SetWebhookRequest;

use crate::admin::{self, Server};
use crate::cli::Global;
use crate::output;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Name of the Webhook
    #[arg(value_name = "WEBHOOK")]
    webhook: String,
    #[command(flatten)]
    server: Server,
}

impl Arguments {
    pub(super) async fn replay(&self, global: &Global) -> anyhow::Result<()> {
        let request = SetWebhookRequest {
            webhook: self.webhook.clone(),
            replay: true,
            ..SetWebhookRequest::default()
        };
        self.set(global, request).await?;
        output::print(&format!(
            "{}: what was given up is posted again\n",
            self.webhook
        ))
    }

    pub(super) async fn enable(&self, global: &Global) -> anyhow::Result<()> {
        let request = SetWebhookRequest {
            webhook: self.webhook.clone(),
            enable: true,
            ..SetWebhookRequest::default()
        };
        self.set(global, request).await?;
        output::print(&format!("{}: it is posted to again\n", self.webhook))
    }

    async fn set(&self, global: &Global, request: SetWebhookRequest) -> anyhow::Result<()> {
        let mut admin = self.server.connect(global).await?;
        let answer = admin.set_webhook(request).await;
        answer
            .map(drop)
            .map_err(|status| admin::refused("webhook", &status))
    }
}
