//! `staffetta run`.

use std::collections::BTreeSet;

use anyhow::Context;
use clap::ValueEnum;
use clap::builder::PossibleValue;
use runtime::Readiness;

use crate::cli::Global;
use crate::services::{self, Service};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Services that run in this process; with `all`, every process of the installation must be `all`
    #[arg(required = true, value_name = "SERVICE")]
    services: Vec<Choice>,
}

/// A service, or all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Choice {
    One(Service),
    All,
}

impl ValueEnum for Choice {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::One(Service::Ingress),
            Self::One(Service::Signer),
            Self::One(Service::Scheduler),
            Self::One(Service::Sender),
            Self::One(Service::Feedback),
            Self::All,
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::One(service) => service.as_str(),
            Self::All => "all",
        }))
    }
}

pub(crate) async fn run(global: &Global, arguments: &Arguments) -> anyhow::Result<()> {
    let bootstrap = global.bootstrap()?;
    let mut services = BTreeSet::new();
    for choice in &arguments.services {
        match choice {
            Choice::One(service) => drop(services.insert(*service)),
            Choice::All => services.extend(Service::ALL),
        }
    }
    let shutdown = runtime::shutdown_on_signals().context("signals")?;
    services::run(bootstrap, &services, Readiness::new(), shutdown).await
}
