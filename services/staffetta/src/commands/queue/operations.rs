//! `staffetta queue operations`: what operators have asked for, and how far it is.

use std::collections::BTreeMap;

use anyhow::Context;
use proto::admin::admin_client::AdminClient;
use proto::admin::{OperationProgress, OperationsRequest};
use proto::journal::Phase;
use proto::operation::{Kind, Operation};
use serde_json::json;
use tonic::transport::Channel;

use super::list::due;
use super::selection::shown;
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

/// Operations, and how far they are in all partitions.
#[derive(Debug, Default)]
pub(crate) struct Overview {
    operations: Vec<Entry>,
    /// All partitions, and those without an owner.
    partitions: usize,
    unowned: Vec<u32>,
}

#[derive(Debug)]
struct Entry {
    operation: Operation,
    partitions: BTreeMap<u32, OperationProgress>,
}

pub(crate) async fn run(global: &Global, arguments: &Arguments) -> anyhow::Result<()> {
    let mut admin = arguments.server.connect(global).await?;
    let overview = overview(&mut admin).await?;
    output::print(&match arguments.output {
        OutputFormat::Text => overview.text(runtime::now_ms()),
        OutputFormat::Json => overview.json(),
    })
}

/// Asks all schedulers.
pub(crate) async fn overview(admin: &mut AdminClient<Channel>) -> anyhow::Result<Overview> {
    let partitions = admin::partitions(admin).await?.len();
    let (owners, unowned) = admin::owners(admin).await?;
    let mut overview = Overview {
        partitions,
        unowned,
        ..Overview::default()
    };
    for address in owners {
        let answer = admin
            .operations(admin::for_owner(&address, OperationsRequest {})?)
            .await;
        // It may just have gone; the next one that is asked knows more.
        let answer = match answer {
            Ok(answer) => answer.into_inner(),
            Err(status) => {
                let refused = admin::refused("operations", &status);
                tracing::warn!(address, error = %refused, "a scheduler does not answer");
                continue;
            }
        };
        for state in answer.operations {
            let operation = state.operation.context("an operation without content")?;
            let entry = overview.entry(operation);
            entry.partitions.extend(
                state
                    .partitions
                    .into_iter()
                    .map(|progress| (progress.partition, progress)),
            );
        }
    }
    overview
        .operations
        .sort_by_key(|entry| entry.operation.at_ms);
    Ok(overview)
}

impl Overview {
    fn entry(&mut self, operation: Operation) -> &mut Entry {
        let known = self
            .operations
            .iter()
            .position(|entry| entry.operation.id == operation.id);
        let position = known.unwrap_or_else(|| {
            self.add(operation);
            self.operations.len() - 1
        });
        &mut self.operations[position]
    }

    pub(crate) fn add(&mut self, operation: Operation) {
        self.operations.push(Entry {
            operation,
            partitions: BTreeMap::new(),
        });
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&Operation) -> bool) {
        self.operations.retain(|entry| keep(&entry.operation));
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.operations.is_empty()
    }

    pub(crate) fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.operations.iter().map(|entry| &entry.operation)
    }

    /// Whether every partition is through, but for attempts under way.
    pub(crate) fn is_carried_out(&self) -> bool {
        self.operations
            .iter()
            .all(|entry| self.carried_out(entry) == self.partitions)
    }

    fn carried_out(&self, entry: &Entry) -> usize {
        let is_once = !matches!(entry.operation.kind(), Kind::Suspend | Kind::Move);
        let is_lifted = entry.operation.lifted.is_some();
        let is_through = |progress: &&OperationProgress| match progress.phase() {
            Phase::Unspecified => false,
            Phase::Begun => !is_lifted && (!is_once || progress.in_flight > 0),
            Phase::Done | Phase::Lifted | Phase::Expired => true,
        };
        entry.partitions.values().filter(is_through).count()
    }

    pub(crate) fn text(&self, now_ms: u64) -> String {
        let mut text = String::new();
        for entry in &self.operations {
            text.push_str(&self.line(entry, now_ms));
        }
        if text.is_empty() {
            text.push_str("no operations\n");
        }
        text + &admin::not_counted(&self.unowned)
    }

    fn line(&self, entry: &Entry, now_ms: u64) -> String {
        let operation = &entry.operation;
        let selector = operation.selector.clone().unwrap_or_default();
        let mut line = format!(
            "{} {}: {}",
            operation.id,
            word(operation.kind()),
            shown(&selector)
        );
        if !operation.pool.is_empty() {
            line.push_str(&format!(" to pool {}", operation.pool));
        }
        line.push_str(&format!(", by {}", operation.author));
        if !operation.reason.is_empty() {
            line.push_str(&format!(" ({})", operation.reason));
        }
        match (&operation.lifted, operation.expires_at_ms) {
            (Some(lifted), _) => line.push_str(&format!("; lifted by {}", lifted.author)),
            (None, 0) => line.push_str("; until it is lifted"),
            (None, at_ms) => line.push_str(&format!("; over {}", due(at_ms, now_ms))),
        }
        let sum =
            |of: fn(&OperationProgress) -> u64| entry.partitions.values().map(of).sum::<u64>();
        let is_once = !matches!(operation.kind(), Kind::Suspend | Kind::Move);
        line.push_str(&format!(
            "\n    in {} of {} partitions",
            self.carried_out(entry),
            self.partitions
        ));
        if is_once {
            line.push_str(&format!(": {} recipients", sum(|p| p.recipients)));
            let (in_flight, unresolved) = (sum(|p| p.in_flight), sum(|p| p.unresolved));
            let refused = sum(|p| p.refused);
            if refused > 0 {
                line.push_str(&format!(
                    ", {refused} stay on hold, since who sent them may not any more"
                ));
            }
            if in_flight > 0 {
                line.push_str(&format!(", {in_flight} more when their attempt is over"));
            }
            if unresolved > 0 {
                line.push_str(&format!(
                    ", {unresolved} more may be meant, seen when they are due"
                ));
            }
        }
        line + "\n"
    }

    pub(crate) fn json(&self) -> String {
        let operations: Vec<serde_json::Value> = self
            .operations
            .iter()
            .map(|entry| {
                let operation = &entry.operation;
                let selector = operation.selector.clone().unwrap_or_default();
                let lifted = operation.lifted.as_ref().map(|lifted| {
                    json!({ "author": lifted.author, "reason": lifted.reason, "atMs": lifted.at_ms })
                });
                let partitions: Vec<serde_json::Value> = entry
                    .partitions
                    .values()
                    .map(|progress| {
                        json!({
                            "partition": progress.partition, "phase": phase(progress.phase()),
                            "recipients": progress.recipients, "inFlight": progress.in_flight,
                            "unresolved": progress.unresolved, "refused": progress.refused,
                        })
                    })
                    .collect();
                json!({
                    "id": operation.id, "kind": word(operation.kind()), "author": operation.author,
                    "reason": operation.reason, "atMs": operation.at_ms, "expiresAtMs": operation.expires_at_ms,
                    "pool": operation.pool, "lifted": lifted, "partitions": partitions,
                    "carriedOut": self.carried_out(entry) == self.partitions,
                    "selector": {
                        "messages": selector.messages, "domains": selector.domains, "sites": selector.sites,
                        "providers": selector.providers, "tenants": selector.tenants,
                        "streams": selector.streams, "campaigns": selector.campaigns,
                        "sources": selector.sources, "acceptedBeforeMs": selector.accepted_before_ms,
                        "all": selector.all,
                    },
                })
            })
            .collect();
        let value = json!({ "operations": operations, "partitionsWithoutOwner": self.unowned });
        format!("{value}\n")
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Unspecified => "unknown",
        Kind::Suspend => "suspend",
        Kind::Move => "move",
        Kind::Retry => "retry",
        Kind::Bounce => "bounce",
        Kind::Cancel => "cancel",
        Kind::Release => "release",
    }
}

fn phase(phase: Phase) -> &'static str {
    match phase {
        Phase::Unspecified => "unknown",
        Phase::Begun => "begun",
        Phase::Done => "done",
        Phase::Lifted => "lifted",
        Phase::Expired => "expired",
    }
}

#[cfg(test)]
mod tests {
    use proto::operation::Selector;

    use super::*;

    fn overview(kind: Kind, phases: &[(Phase, u64)]) -> Overview {
        let operation = Operation {
            id: "0198c2a4-7b1e-7c3a-9d2f-1a2b3c4d5e6f".to_owned(),
            kind: kind.into(),
            author: "alice".to_owned(),
            reason: "listed".to_owned(),
            selector: Some(Selector {
                tenants: vec!["acme".to_owned()],
                ..Selector::default()
            }),
            ..Operation::default()
        };
        let progress = |(partition, (phase, in_flight)): (u32, &(Phase, u64))| {
            let progress = OperationProgress {
                partition,
                phase: (*phase).into(),
                recipients: 2,
                in_flight: *in_flight,
                ..OperationProgress::default()
            };
            (partition, progress)
        };
        Overview {
            operations: vec![Entry {
                operation,
                partitions: (0..).zip(phases).map(progress).collect(),
            }],
            partitions: 2,
            unowned: Vec::new(),
        }
    }

    #[test]
    fn is_carried_out_when_every_partition_says_so() {
        let (begun, done) = ((Phase::Begun, 0), (Phase::Done, 0));
        for (expected, kind, phases) in [
            (true, Kind::Suspend, vec![begun, begun]),
            (false, Kind::Suspend, vec![begun]),
            (false, Kind::Cancel, vec![done, begun]),
            (true, Kind::Cancel, vec![done, done]),
            // What is under way goes on, and is not waited for.
            (true, Kind::Cancel, vec![done, (Phase::Begun, 1)]),
        ] {
            let overview = overview(kind, &phases);
            assert_eq!(overview.is_carried_out(), expected, "{kind:?} {phases:?}");
        }
    }

    #[test]
    fn says_what_a_release_left_on_hold() {
        let mut overview = overview(Kind::Release, &[(Phase::Done, 0), (Phase::Done, 0)]);
        for progress in overview.operations[0].partitions.values_mut() {
            progress.refused = 3;
        }
        let text = overview.text(0);
        let line = text.lines().last().unwrap();
        let expected = "    in 2 of 2 partitions: 4 recipients, 6 stay on hold, since who sent them may not any more";
        assert_eq!(line, expected);
    }

    #[test]
    fn says_who_asked_for_what_and_how_far_it_is() {
        let overview = overview(Kind::Bounce, &[(Phase::Done, 0), (Phase::Begun, 3)]);
        let expected = "\
0198c2a4-7b1e-7c3a-9d2f-1a2b3c4d5e6f bounce: tenant acme, by alice (listed); until it is lifted
    in 2 of 2 partitions: 4 recipients, 3 more when their attempt is over
";
        assert_eq!(overview.text(0), expected);
        let json: serde_json::Value = serde_json::from_str(&overview.json()).unwrap();
        assert_eq!(json["operations"][0]["partitions"][1]["phase"], "begun");
        assert_eq!(json["operations"][0]["carriedOut"], true);
    }
}
