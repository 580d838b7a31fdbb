//! `staffetta queue suspend`, `move`, `retry`, `bounce`, `cancel`, `release`.

use std::time::{Duration, Instant};

use anyhow::Context;
use mail::Span;
use proto::admin::admin_client::AdminClient;
use proto::admin::{OperateRequest, QueueRequest, Selected};
use proto::operation::{Kind, Operation, Selector};
use serde_json::json;
use tonic::transport::Channel;

use super::operations::{Overview, overview};
use super::selection::{Target, shown};
use crate::admin::{self, Server};
use crate::cli::Global;
use crate::output::{self, OutputFormat};

/// How often it is asked how far an operation is.
const LOOK: Duration = Duration::from_millis(100);

/// What every operation takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Common {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    author: Author,
    /// UUID of the operation; sent twice with the same one it is done once [default: a new one]
    #[arg(long, value_name = "UUID")]
    id: Option<String>,
    /// How long it holds, such as `2h`; what is done once ends after a day, the rest when it is lifted
    #[arg(long = "for", value_name = "DURATION")]
    lasts: Option<Span>,
    /// Only count what it would be done to
    #[arg(long)]
    dry_run: bool,
    /// How long it is waited for the partitions; they do it, too, when nobody waits
    #[arg(long, default_value = "30s", value_name = "DURATION")]
    timeout: Span,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    server: Server,
}

/// Who asks.
#[derive(Debug, clap::Args)]
pub(crate) struct Author {
    /// Who asks for it [default: $STAFFETTA_AUTHOR, else $USER]
    #[arg(long)]
    author: Option<String>,
}

impl Author {
    pub(crate) fn name(&self) -> anyhow::Result<String> {
        let of = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let given = self.author.clone();
        given
            .or_else(|| of("STAFFETTA_AUTHOR"))
            .or_else(|| of("USER"))
            .context("--author: it is kept who asked, and the environment does not say")
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Suspend {
    /// Why; shown by `why` and `queue operations`
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Move {
    /// The pool by which it leaves
    #[arg(long)]
    pool: String,
    /// What comes later, too, not only what is here now
    #[arg(long)]
    also_new: bool,
    /// Why
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Bounce {
    /// What the senders are told
    #[arg(long)]
    reason: String,
    #[command(flatten)]
    common: Common,
}

/// What is done once and needs no more words.
#[derive(Debug, clap::Args)]
pub(crate) struct Once {
    /// Why
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    common: Common,
}

impl Suspend {
    pub(crate) async fn run(&self, global: &Global) -> anyhow::Result<()> {
        self.common
            .run(global, Kind::Suspend, &self.reason, |_| {})
            .await
    }
}

impl Move {
    pub(crate) async fn run(&self, global: &Global) -> anyhow::Result<()> {
        let complete = |operation: &mut Operation| {
            operation.pool = self.pool.clone();
            if let Some(selector) = &mut operation.selector
                && !self.also_new
            {
                selector.accepted_before_ms = runtime::now_ms();
            }
        };
        self.common
            .run(global, Kind::Move, &self.reason, complete)
            .await
    }
}

impl Bounce {
    pub(crate) async fn run(&self, global: &Global) -> anyhow::Result<()> {
        self.common
            .run(global, Kind::Bounce, &self.reason, |_| {})
            .await
    }
}

impl Once {
    pub(crate) async fn run(&self, global: &Global, kind: Kind) -> anyhow::Result<()> {
        self.common.run(global, kind, &self.reason, |_| {}).await
    }
}

impl Common {
    async fn run(
        &self,
        global: &Global,
        kind: Kind,
        reason: &str,
        complete: impl FnOnce(&mut Operation),
    ) -> anyhow::Result<()> {
        let selector = self.target.selector()?;
        let author = self.author.name()?;
        let mut admin = self.server.connect(global).await?;
        if self.dry_run {
            return self.count(&mut admin, selector).await;
        }
        let expires_at_ms = self
            .lasts
            .map_or(0, |span| runtime::now_ms() + span.as_millis());
        let mut operation = Operation {
            id: self
                .id
                .clone()
                .unwrap_or_else(|| mail::MessageId::now().to_string()),
            kind: kind.into(),
            selector: Some(selector),
            author,
            reason: reason.to_owned(),
            expires_at_ms,
            ..Operation::default()
        };
        complete(&mut operation);
        let id = operation.id.clone();
        let request = OperateRequest {
            operation: Some(operation),
        };
        // After a lost answer it may be stored: whoever tries again with the same id does it once.
        let stored = admin
            .operate(request)
            .await
            .map_err(|status| admin::refused("the operation", &status))
            .with_context(|| format!("operation {id}"))?
            .into_inner();
        let operation = stored.operation.unwrap_or_default();
        let overview = self.follow(&mut admin, &operation).await?;
        output::print(&match self.output {
            OutputFormat::Text => overview.text(runtime::now_ms()),
            OutputFormat::Json => overview.json(),
        })
    }

    /// Waits until every partition has noted it and is through, as far as that does not depend on other hosts.
    async fn follow(
        &self,
        admin: &mut AdminClient<Channel>,
        operation: &Operation,
    ) -> anyhow::Result<Overview> {
        let until = Instant::now() + self.timeout.duration();
        loop {
            let mut overview = overview(admin).await?;
            overview.retain(|other| other.id == operation.id);
            if overview.is_empty() {
                overview.add(operation.clone());
            }
            if overview.is_carried_out() || Instant::now() >= until {
                return Ok(overview);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn count(
        &self,
        admin: &mut AdminClient<Channel>,
        selector: Selector,
    ) -> anyhow::Result<()> {
        let mut sum = Selected::default();
        let (owners, unowned) = admin::owners(admin).await?;
        for address in owners {
            let request = QueueRequest {
                limit: 1,
                selector: Some(selector.clone()),
            };
            let answer = admin
                .queue(admin::for_owner(&address, request)?)
                .await
                .map_err(|status| admin::refused("queue", &status))
                .with_context(|| format!("the scheduler at {address}"))?;
            let selected = answer.into_inner().selected.unwrap_or_default();
            sum.messages += selected.messages;
            sum.recipients += selected.recipients;
            sum.unresolved += selected.unresolved;
        }
        output::print(&match self.output {
            OutputFormat::Text => {
                let mut text = format!(
                    "{}: {} messages, {} recipients; nothing was done\n",
                    shown(&selector),
                    sum.messages,
                    sum.recipients
                );
                if sum.unresolved > 0 {
                    text.push_str(&format!(
                        "{} recipients more may be meant: the sites of their domains are not known\n",
                        sum.unresolved
                    ));
                }
                text + &admin::not_counted(&unowned)
            }
            OutputFormat::Json => {
                let value = json!({
                    "dryRun": true, "messages": sum.messages, "recipients": sum.recipients,
                    "unresolved": sum.unresolved, "partitionsWithoutOwner": unowned,
                });
                format!("{value}\n")
            }
        })
    }
}
