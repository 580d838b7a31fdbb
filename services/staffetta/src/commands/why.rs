//! `staffetta why`: what keeps a message, the mail to a domain, or that of a tenant.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use clap::ValueEnum;
use mail::{Domain, MessageId};
use proto::admin::why_request::Which;
use proto::admin::{ExplainedDelivery, WhyRequest};
use serde_json::json;

use crate::admin::{self, Server};
use crate::cli::Global;
use crate::output::{self, OutputFormat};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// A message id, a recipient domain, or the name of a tenant
    what: String,
    /// What it is, where its form does not tell: a name with a dot is taken for a domain
    #[arg(long, value_enum)]
    kind: Option<What>,
    /// Deliveries of each scheduler at most
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Message,
    Domain,
    Tenant,
}

pub(crate) async fn run(global: &Global, arguments: &Arguments) -> anyhow::Result<()> {
    let which = which(&arguments.what, arguments.kind)?;
    let mut admin = arguments.server.connect(global).await?;
    let partitions = admin::partitions(&mut admin).await?;
    let unowned: Vec<u32> = partitions
        .iter()
        .filter(|partition| partition.address.is_empty())
        .map(|partition| partition.id)
        .collect();
    let owners: BTreeSet<String> = partitions
        .into_iter()
        .map(|partition| partition.address)
        .filter(|address| !address.is_empty())
        .collect();
    let mut deliveries = Vec::new();
    for address in owners {
        let request = WhyRequest {
            which: Some(which.clone()),
            limit: arguments.limit,
        };
        let answer = admin
            .why(admin::for_owner(&address, request)?)
            .await
            .map_err(|status| admin::refused("why", &status))
            .with_context(|| format!("the scheduler at {address}"))?;
        deliveries.extend(answer.into_inner().deliveries);
    }
    let text = match arguments.output {
        OutputFormat::Text => text(&deliveries, &unowned, runtime::now_ms()),
        OutputFormat::Json => json_of(&deliveries, &unowned),
    };
    output::print(&text)
}

fn which(what: &str, kind: Option<What>) -> anyhow::Result<Which> {
    let is_id = what.parse::<MessageId>().is_ok();
    let by_form = if is_id {
        What::Message
    } else if what.contains('.') {
        What::Domain
    } else {
        What::Tenant
    };
    Ok(match kind.unwrap_or(by_form) {
        What::Message => {
            anyhow::ensure!(is_id, "{what:?} is no message id");
            Which::MessageId(what.to_owned())
        }
        What::Domain => {
            let domain =
                Domain::parse(what).map_err(|_| anyhow::anyhow!("{what:?} is no domain"))?;
            Which::Domain(domain.as_str().to_owned())
        }
        What::Tenant => Which::Tenant(what.to_owned()),
    })
}

/// Deliveries that the same thing keeps are one line, those with the most recipients first.
fn text(deliveries: &[ExplainedDelivery], unowned: &[u32], now_ms: u64) -> String {
    let mut lines: BTreeMap<[&str; 5], (u64, u64, &str)> = BTreeMap::new();
    for delivery in deliveries {
        let (kind, what, until_ms) = delivery.constraint.as_ref().map_or(("", "", 0), |c| {
            (c.kind.as_str(), c.text.as_str(), c.until_ms)
        });
        let key = [
            delivery.domain.as_str(),
            &delivery.tenant,
            &delivery.stream,
            kind,
            what,
        ];
        let line = lines
            .entry(key)
            .or_insert((0, u64::MAX, &delivery.message_id));
        line.0 += u64::from(delivery.recipients);
        line.1 = line.1.min(if until_ms == 0 { u64::MAX } else { until_ms });
    }
    let heading = [
        "DOMAIN",
        "TENANT",
        "STREAM",
        "RECIPIENTS",
        "KEPT-BY",
        "NEXT",
        "WHAT IT IS",
        "MESSAGE",
    ];
    let mut rows = vec![heading.map(str::to_owned).to_vec()];
    let mut sorted: Vec<_> = lines.into_iter().collect();
    sorted.sort_by_key(|(_, (recipients, ..))| std::cmp::Reverse(*recipients));
    for ([domain, tenant, stream, kind, what], (recipients, until_ms, id)) in sorted {
        let next = match until_ms {
            u64::MAX => "-".to_owned(),
            at if at <= now_ms => "now".to_owned(),
            at => format!("in {} s", (at - now_ms).div_ceil(1000)),
        };
        let recipients = recipients.to_string();
        let row = [domain, tenant, stream, &recipients, kind, &next, what, id];
        rows.push(row.map(str::to_owned).to_vec());
    }
    let mut text = if deliveries.is_empty() {
        "nothing waits: all of it is final, or it was never accepted\n".to_owned()
    } else {
        output::table(&rows)
    };
    let elsewhere: BTreeSet<&str> = deliveries.iter().map(|of| &*of.elsewhere).collect();
    for line in elsewhere.into_iter().filter(|line| !line.is_empty()) {
        text.push_str(&format!("{line}\n"));
    }
    if !unowned.is_empty() {
        let unowned: Vec<String> = unowned.iter().map(u32::to_string).collect();
        text.push_str(&format!(
            "partitions without an owner, not looked at: {}\n",
            unowned.join(", ")
        ));
    }
    text
}

fn json_of(deliveries: &[ExplainedDelivery], unowned: &[u32]) -> String {
    let delivery = |delivery: &ExplainedDelivery| {
        let constraint = delivery.constraint.clone().unwrap_or_default();
        json!({
            "partition": delivery.partition,
            "messageId": delivery.message_id,
            "tenant": delivery.tenant,
            "stream": delivery.stream,
            "domain": delivery.domain,
            "recipients": delivery.recipients,
            "attempts": delivery.attempts,
            "elsewhere": delivery.elsewhere,
            "constraint": {
                "kind": constraint.kind,
                "text": constraint.text,
                "untilMs": constraint.until_ms,
            },
        })
    };
    let deliveries: Vec<_> = deliveries.iter().map(delivery).collect();
    format!(
        "{}\n",
        json!({ "deliveries": deliveries, "unowned": unowned })
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::admin::Constraint;

    #[test]
    fn the_form_says_what_is_meant_unless_it_is_given() {
        let id = "0198c2a4-7b1e-7c3a-9d2f-1a2b3c4d5e6f";
        assert_eq!(which(id, None).unwrap(), Which::MessageId(id.into()));
        assert_eq!(
            which("One.Example", None).unwrap(),
            Which::Domain("one.example".into())
        );
        assert_eq!(which("acme", None).unwrap(), Which::Tenant("acme".into()));
        assert_eq!(
            which("acme.mail", Some(What::Tenant)).unwrap(),
            Which::Tenant("acme.mail".into())
        );
        assert!(which("acme", Some(What::Message)).is_err());
    }

    #[test]
    fn deliveries_that_the_same_thing_keeps_are_one_line() {
        let delivery = |id: &str, kind: &str, until_ms| ExplainedDelivery {
            message_id: id.into(),
            domain: "one.example".into(),
            tenant: "acme".into(),
            recipients: 1,
            elsewhere: "acme is on probation".into(),
            constraint: Some(Constraint {
                kind: kind.into(),
                text: kind.into(),
                until_ms,
            }),
            ..ExplainedDelivery::default()
        };
        let deliveries = [
            delivery("m1", "hold", 0),
            delivery("m2", "rate", 3_500),
            delivery("m3", "rate", 9_000),
        ];
        let text = text(&deliveries, &[2], 1_000);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 5);
        assert_eq!(lines[3], "acme is on probation");
        assert!(
            lines[1].contains("rate") && lines[1].contains("in 3 s"),
            "{text}"
        );
        assert!(
            lines[2].contains("hold") && lines[2].contains("m1"),
            "{text}"
        );
        assert!(lines[4].ends_with("not looked at: 2"), "{text}");
    }
}
