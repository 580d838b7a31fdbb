//! `staffetta metrics-reference`: docs/metrics.md, from the code.

use telemetry::Description;

use crate::{output, services};

/// The services, in the order of a message's way, and what their part is about.
const PARTS: [(&str, &str); 6] = [
    ("ingress", "Submission."),
    ("scheduler", "What waits, and what is given to whom."),
    ("sender", "Attempts, connections, and what they wait for."),
    ("signer", "DKIM."),
    ("feedback", "What is reported to senders."),
    ("build", "Every process."),
];

const INTRODUCTION: &str = "# Metrics

<!-- Made by `staffetta metrics-reference > docs/metrics.md`: change the code, not this page. -->

Each process serves `/metrics` at its metrics address: 9101 ingress, 9102 signer, 9103 scheduler, 9104 sender, 9105
feedback, 9090 for several services in one process. [operations.md](operations.md) says which are worth an alarm.

Labels are bounded: constants, partitions, names of listeners and token issuers, tenants, sending domains and webhooks (of each the first 200 that a
process meets, then `other`); never addresses, message ids or domains of recipients. A metric with labels appears with its first value.
Histograms have the usual `_bucket`, `_sum` and `_count`. Times are in seconds, sizes in octets. CPU, memory and open
files of a process are in `process_…`.
";

pub(crate) fn run() -> anyhow::Result<()> {
    output::print(&reference())
}

/// The page.
fn reference() -> String {
    let descriptions = descriptions();
    let mut text = INTRODUCTION.to_owned();
    for (service, about) in PARTS {
        let prefix = format!("staffetta_{service}_");
        text.push_str(&format!(
            "\n## {service}\n\n{about}\n\n| metric | type | labels | meaning |\n|---|---|---|---|\n"
        ));
        for metric in &descriptions {
            if !metric.name.starts_with(&prefix) {
                continue;
            }
            let Description {
                name,
                kind,
                labels,
                help,
            } = metric;
            let labels = labels.join(", ");
            text.push_str(&format!("| `{name}` | {kind} | {labels} | {help} |\n"));
        }
    }
    text
}

/// The metrics of all services.
fn descriptions() -> Vec<Description> {
    ingress::register_metrics();
    scheduler::register_metrics();
    sender::register_metrics();
    signer::register_metrics();
    feedback::register_metrics();
    services::tell_version();
    telemetry::describe()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_in_docs_is_that_of_the_code() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md");
        let written = std::fs::read_to_string(page).unwrap_or_default();
        assert!(
            written == reference(),
            "docs/metrics.md is not up to date: staffetta metrics-reference > docs/metrics.md"
        );
    }

    /// Labels that would grow without a bound, were it not kept: 200 domains, and then `other`.
    const BOUNDED: [(&str, &str); 1] = [("staffetta_signer_domain_messages_total", "domain")];

    /// What `promtool check metrics` would say, and what it can't know.
    #[test]
    fn names_and_help_follow_the_conventions() {
        for metric in descriptions() {
            let Description {
                name,
                kind,
                labels,
                help,
            } = &metric;
            let is_named = PARTS
                .iter()
                .any(|(service, _)| name.starts_with(&format!("staffetta_{service}_")));
            assert!(is_named, "{name}: no service of this name");
            assert_eq!(name.ends_with("_total"), *kind == "counter", "{name}");
            for reserved in ["_count", "_sum", "_bucket"] {
                assert!(!name.ends_with(reserved), "{name}");
            }
            for unit in ["milliseconds", "_ms", "minutes", "kilobytes", "percent"] {
                assert!(!name.contains(unit), "{name}: base units only");
            }
            assert!(!name.contains(kind), "{name}: the type is no part of it");
            assert!(help.ends_with('.') && !help.contains('|'), "{name}: {help}");
            for label in labels {
                let unbounded = [
                    "domain",
                    "address",
                    "recipient",
                    "message",
                    "site",
                    "client",
                ];
                let is_bounded = BOUNDED.contains(&(name, label));
                assert!(
                    is_bounded || !unbounded.contains(&label.as_str()),
                    "{name}: {label}"
                );
                assert!(
                    label
                        .bytes()
                        .all(|byte| byte.is_ascii_lowercase() || byte == b'_'),
                    "{name}: {label}"
                );
            }
        }
    }
}
