//! `staffetta credential lock` and `unlock`.

use mail::Span;
use proto::admin::SetMeasureRequest;
use proto::watch::{Action, Measure};
use serde_json::Value;

use super::done;
use crate::admin::{self, Server};
use crate::cli::Global;
use crate::commands::queue::Author;
use crate::output::{self, OutputFormat};

#[derive(Debug, clap::Args)]
struct Common {
    /// Name of the Credential, not its user name
    #[arg(value_name = "CREDENTIAL")]
    credential: String,
    /// Why; shown by `list-locks` and in the event
    #[arg(long, default_value = "")]
    reason: String,
    #[command(flatten)]
    author: Author,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Lock {
    #[command(flatten)]
    common: Common,
    /// How long, such as `7d` [default: until it is unlocked]
    #[arg(long = "for", value_name = "DURATION")]
    lasts: Option<Span>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Unlock {
    #[command(flatten)]
    common: Common,
    /// For how long no rule does anything about it
    #[arg(long = "for", value_name = "DURATION", default_value = "1h")]
    lasts: Span,
}

impl Lock {
    pub(crate) async fn run(&self, global: &Global) -> anyhow::Result<()> {
        self.common.run(global, Action::Lock, self.lasts).await
    }
}

impl Unlock {
    pub(crate) async fn run(&self, global: &Global) -> anyhow::Result<()> {
        self.common
            .run(global, Action::Pardon, Some(self.lasts))
            .await
    }
}

impl Common {
    async fn run(
        &self,
        global: &Global,
        action: Action,
        lasts: Option<Span>,
    ) -> anyhow::Result<()> {
        let request = SetMeasureRequest {
            credential: self.credential.clone(),
            action: action.into(),
            until_ms: lasts.map_or(0, |span| runtime::now_ms() + span.as_millis()),
            author: self.author.name()?,
            cause: self.reason.clone(),
        };
        let mut admin = self.server.connect(global).await?;
        let answer = admin
            .set_measure(request)
            .await
            .map_err(|status| admin::refused("credential", &status))?
            .into_inner();
        let measure = answer.measure.unwrap_or_default();
        output::print(&match self.output {
            OutputFormat::Text => format!("{}: {}\n", self.credential, done(measure.action())),
            OutputFormat::Json => format!("{}\n", json_of(&measure)),
        })
    }
}

/// As `list-locks` writes it, too.
pub(super) fn json_of(measure: &Measure) -> Value {
    let mut value = feedback::events::measure_value(measure);
    value.insert("credential".to_owned(), measure.credential.clone().into());
    value.insert("tenant".to_owned(), measure.tenant.clone().into());
    Value::Object(value)
}
