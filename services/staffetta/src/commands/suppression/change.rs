//! `staffetta suppression add` and `remove`.

use mail::Span;
use proto::admin::{ChangeSuppressionRequest, SuppressionWish};
use proto::suppression::Reason;
use serde_json::json;

use crate::admin::{self, Server};
use crate::cli::Global;
use crate::commands::queue::Author;
use crate::output::{self, OutputFormat};

/// For which mail.
#[derive(Debug, Clone, clap::Args)]
#[group(required = true, multiple = true)]
pub(super) struct For {
    /// Mail of this tenant
    #[arg(long, conflicts_with = "global")]
    tenant: Option<String>,
    /// Only this stream of it
    #[arg(long, requires = "tenant")]
    stream: Option<String>,
    /// Mail of all tenants
    #[arg(long)]
    global: bool,
}

impl For {
    pub(super) fn names(&self) -> (String, String) {
        let text = |name: &Option<String>| name.clone().unwrap_or_default();
        (text(&self.tenant), text(&self.stream))
    }
}

#[derive(Debug, clap::Args)]
struct Common {
    /// The addresses; `hash:…` as an export has it where they are not stored
    #[arg(value_name = "ADDRESS", required = true, num_args = 1..=1000)]
    addresses: Vec<String>,
    #[command(flatten)]
    mail: For,
    #[command(flatten)]
    author: Author,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Add {
    #[command(flatten)]
    common: Common,
    /// Why; shown by `list` and `show`
    #[arg(long, default_value = "")]
    reason: String,
    /// How long, such as `90d` [default: for ever]
    #[arg(long = "for", value_name = "DURATION")]
    lasts: Option<Span>,
    /// Store only the key of the address, whatever its tenant does
    #[arg(long)]
    hashed: bool,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Remove {
    #[command(flatten)]
    common: Common,
}

impl Add {
    pub(crate) async fn run(&self, global: &Global) -> anyhow::Result<()> {
        let expires_ms = self
            .lasts
            .map_or(0, |span| runtime::now_ms() + span.as_millis());
        let wish = SuppressionWish {
            reason: Reason::Manual.into(),
            expires_ms,
            cause: self.reason.clone(),
            hashed: self.hashed,
            ..SuppressionWish::default()
        };
        self.common.run(global, &wish).await
    }
}

impl Remove {
    pub(crate) async fn run(&self, global: &Global) -> anyhow::Result<()> {
        let wish = SuppressionWish {
            remove: true,
            ..SuppressionWish::default()
        };
        self.common.run(global, &wish).await
    }
}

impl Common {
    async fn run(&self, global: &Global, wish: &SuppressionWish) -> anyhow::Result<()> {
        let (tenant, stream) = self.mail.names();
        let of = |address: &String| SuppressionWish {
            address: address.clone(),
            tenant: tenant.clone(),
            stream: stream.clone(),
            ..wish.clone()
        };
        let request = ChangeSuppressionRequest {
            author: self.author.name()?,
            changes: self.addresses.iter().map(of).collect(),
        };
        let mut admin = self.server.connect(global).await?;
        let stored = admin
            .change_suppression(request)
            .await
            .map_err(|status| admin::refused("suppression", &status))?
            .into_inner()
            .stored;
        let what = if wish.remove { "removed" } else { "added" };
        output::print(&match self.output {
            OutputFormat::Text => format!("{what}: {stored}\n"),
            OutputFormat::Json => format!("{}\n", json!({ what: stored })),
        })
    }
}
