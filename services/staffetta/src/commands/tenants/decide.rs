//! `staffetta tenants quarantine`, `release`, `admit`, `probation`, `forget`.

use mail::Span;
use proto::admin::{Decision, SetStandingRequest};
use proto::standing::TenantStanding;
use serde_json::json;

use super::word;
use crate::admin::{self, Server};
use crate::cli::Global;
use crate::commands::queue::Author;
use crate::output::{self, OutputFormat};

#[derive(Debug, clap::Args)]
struct Common {
    /// The tenant
    #[arg(value_name = "TENANT")]
    tenant: String,
    /// The pool to which its mail is routed
    #[arg(long)]
    pool: String,
    #[command(flatten)]
    author: Author,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Quarantine {
    #[command(flatten)]
    common: Common,
    /// Why; shown by `tenants`, `why` and in the event
    #[arg(long)]
    reason: String,
    /// How long it is there, such as `7d` [default: until it is released]
    #[arg(long = "for", value_name = "DURATION")]
    lasts: Option<Span>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Decide {
    #[command(flatten)]
    common: Common,
    /// Why
    #[arg(long, default_value = "")]
    reason: String,
}

impl Quarantine {
    pub(crate) async fn run(&self, global: &Global) -> anyhow::Result<()> {
        let until_ms = self
            .lasts
            .map_or(0, |span| runtime::now_ms() + span.as_millis());
        let decision = Decision::Quarantine;
        self.common
            .run(global, decision, &self.reason, until_ms)
            .await
    }
}

impl Decide {
    pub(crate) async fn run(&self, global: &Global, decision: Decision) -> anyhow::Result<()> {
        self.common.run(global, decision, &self.reason, 0).await
    }
}

impl Common {
    async fn run(
        &self,
        global: &Global,
        decision: Decision,
        reason: &str,
        until_ms: u64,
    ) -> anyhow::Result<()> {
        let request = SetStandingRequest {
            pool: self.pool.clone(),
            tenant: self.tenant.clone(),
            decision: decision.into(),
            until_ms,
            author: self.author.name()?,
            cause: reason.to_owned(),
        };
        let mut admin = self.server.connect(global).await?;
        let answer = admin
            .set_standing(request)
            .await
            .map_err(|status| admin::refused("tenants", &status))?
            .into_inner();
        output::print(&match self.output {
            OutputFormat::Text => {
                let (tenant, pool) = (&self.tenant, &self.pool);
                text(tenant, pool, answer.standing.as_ref(), answer.changed)
            }
            OutputFormat::Json => {
                let standing = answer.standing.as_ref().map(|of| word(of.standing()));
                let value = json!({
                    "tenant": self.tenant, "pool": self.pool, "standing": standing, "changed": answer.changed,
                });
                format!("{value}\n")
            }
        })
    }
}

fn text(tenant: &str, pool: &str, standing: Option<&TenantStanding>, changed: bool) -> String {
    let how = match standing.map(|of| word(of.standing())) {
        None => "nothing is known of it",
        Some("member") => "a member",
        Some("probation") => "on probation",
        Some(_) => "in quarantine",
    };
    let already = if changed { "" } else { " (as before)" };
    format!("{tenant} in the pool {pool}: {how}{already}\n")
}
