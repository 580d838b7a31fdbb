//! What waits, by site and tenant.

use std::collections::BTreeMap;

use anyhow::Context;
use proto::admin::{AutomationAct, QueueRequest, QueueResponse, QueueRow, Selected};
use serde_json::json;

use super::selection::Selection;
use crate::admin::{self, Server};
use crate::cli::Global;
use crate::output::{self, OutputFormat};

#[derive(Debug, clap::Args)]
pub(crate) struct Listing {
    #[command(flatten)]
    selection: Selection,
    /// Rows of each scheduler at most
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    server: Server,
}

/// Sums over everything that waits, also of what no row shows.
#[derive(Debug, Default)]
struct Totals {
    messages: u64,
    waiting: u64,
    in_flight: u64,
    in_doubt: u64,
    dsn_owed: u64,
    quarantined: u64,
}

/// What all schedulers have told.
#[derive(Debug, Default)]
struct Queue {
    /// By site, domain, tenant and stream.
    rows: BTreeMap<[String; 4], QueueRow>,
    totals: Totals,
    /// What each scheduler does about replies, by its subject and rule.
    automation: BTreeMap<(String, String), AutomationAct>,
    /// Whether it is of what was selected only, and how much that is.
    of_selection: bool,
    selected: Selected,
    /// Partitions without an owner: what waits there is not counted.
    unowned: Vec<u32>,
}

pub(crate) async fn run(global: &Global, arguments: &Listing) -> anyhow::Result<()> {
    let mut admin = arguments.server.connect(global).await?;
    let (owners, unowned) = admin::owners(&mut admin).await?;
    let mut queue = Queue {
        unowned,
        of_selection: !arguments.selection.is_empty(),
        ..Queue::default()
    };
    for address in owners {
        let request = QueueRequest {
            limit: arguments.limit,
            selector: queue.of_selection.then(|| arguments.selection.selector()),
        };
        let answer = admin
            .queue(admin::for_owner(&address, request)?)
            .await
            .map_err(|status| admin::refused("queue", &status))
            .with_context(|| format!("the scheduler at {address}"))?;
        queue.add(answer.into_inner());
    }
    let text = match arguments.output {
        OutputFormat::Text => queue.text(runtime::now_ms()),
        OutputFormat::Json => queue.json(),
    };
    output::print(&text)
}

impl Queue {
    fn add(&mut self, answer: QueueResponse) {
        let totals = &mut self.totals;
        totals.messages += answer.messages;
        totals.waiting += answer.waiting;
        totals.in_flight += answer.in_flight;
        totals.in_doubt += answer.in_doubt;
        totals.dsn_owed += answer.dsn_owed;
        totals.quarantined += answer.quarantined;
        if let Some(selected) = answer.selected {
            self.selected.messages += selected.messages;
            self.selected.recipients += selected.recipients;
            self.selected.unresolved += selected.unresolved;
        }
        for act in answer.automation {
            let key = (act.subject.clone(), act.rule.clone());
            let known = self.automation.entry(key).or_default();
            if known.until_ms <= act.until_ms {
                *known = act;
            }
        }
        for row in answer.rows {
            let key = [&row.site, &row.domain, &row.tenant, &row.stream].map(Clone::clone);
            let sum = self.rows.entry(key).or_insert_with(|| QueueRow {
                site: row.site.clone(),
                domain: row.domain.clone(),
                tenant: row.tenant.clone(),
                stream: row.stream.clone(),
                ..QueueRow::default()
            });
            if sum.constraint.is_none() || (sum.ready == 0 && row.ready > 0) {
                sum.constraint = row.constraint;
            }
            sum.ready += row.ready;
            sum.deferred += row.deferred;
            sum.in_flight += row.in_flight;
            sum.in_doubt += row.in_doubt;
            sum.held += row.held;
            sum.simulated += row.simulated;
            for (sum_ms, row_ms) in [
                (&mut sum.oldest_ms, row.oldest_ms),
                (&mut sum.next_due_ms, row.next_due_ms),
                (&mut sum.held_since_ms, row.held_since_ms),
                (&mut sum.held_until_ms, row.held_until_ms),
            ] {
                *sum_ms = match (*sum_ms, row_ms) {
                    (0, at) | (at, 0) => at,
                    (left, right) => left.min(right),
                };
            }
        }
    }

    fn text(&self, now_ms: u64) -> String {
        let heading = [
            "SITE",
            "DOMAIN",
            "TENANT",
            "STREAM",
            "READY",
            "DEFERRED",
            "IN-FLIGHT",
            "IN-DOUBT",
            "HELD",
            "OLDEST",
            "NEXT",
            "KEPT-BY",
        ];
        let mut rows = vec![heading.map(str::to_owned).to_vec()];
        for row in self.rows.values() {
            let counts = [
                row.ready,
                row.deferred,
                row.in_flight,
                row.in_doubt,
                row.held,
            ];
            let mut cells = [&row.site, &row.domain, &row.tenant, &row.stream]
                .map(|cell| shown(cell))
                .to_vec();
            cells.extend(counts.map(|count| count.to_string()));
            cells.push(age(row.oldest_ms, now_ms));
            cells.push(due(row.next_due_ms, now_ms));
            let constraint = row.constraint.as_ref();
            cells.push(shown(constraint.map_or("", |constraint| &constraint.kind)));
            rows.push(cells);
        }
        let asides: String = self.rows.values().map(|row| aside(row, now_ms)).collect();
        let mut text = if self.rows.is_empty() {
            String::new()
        } else {
            output::table(&rows) + &asides
        };
        let Totals {
            messages,
            waiting,
            in_flight,
            in_doubt,
            dsn_owed,
            quarantined,
        } = &self.totals;
        text.push_str(&format!(
            "{messages} messages; recipients: {waiting} waiting, {in_flight} in flight, {in_doubt} in doubt, \
             {dsn_owed} with a DSN owed, {quarantined} quarantined\n"
        ));
        if self.of_selection {
            let Selected {
                messages,
                recipients,
                unresolved,
            } = &self.selected;
            text.push_str(&format!(
                "selected: {messages} messages, {recipients} recipients\n"
            ));
            if *unresolved > 0 {
                text.push_str(&format!(
                    "{unresolved} recipients more may be meant: the sites of their domains are not known\n"
                ));
            }
        }
        for act in self.automation.values() {
            text.push_str(&format!(
                "{} {} {}, by {}: {}\n",
                act.subject,
                past(&act.measure),
                until(act.until_ms, now_ms),
                act.rule,
                printable(&act.cause),
            ));
        }
        text + &admin::not_counted(&self.unowned)
    }

    fn json(&self) -> String {
        let rows: Vec<serde_json::Value> = self
            .rows
            .values()
            .map(|row| {
                let constraint = row.constraint.clone().unwrap_or_default();
                json!({
                    "constraint": {
                        "kind": constraint.kind, "text": constraint.text, "untilMs": constraint.until_ms,
                    },
                    "site": row.site, "domain": row.domain, "tenant": row.tenant, "stream": row.stream,
                    "ready": row.ready, "deferred": row.deferred, "inFlight": row.in_flight,
                    "inDoubt": row.in_doubt, "held": row.held, "nextDueMs": row.next_due_ms,
                    "oldestMs": row.oldest_ms, "heldSinceMs": row.held_since_ms,
                    "heldUntilMs": row.held_until_ms, "simulated": row.simulated,
                })
            })
            .collect();
        let acts = self.automation.values();
        let automation: Vec<serde_json::Value> = acts
            .map(|act| {
                json!({
                    "rule": act.rule, "subject": act.subject, "measure": act.measure, "untilMs": act.until_ms,
                    "cause": act.cause,
                })
            })
            .collect();
        let Totals {
            messages,
            waiting,
            in_flight,
            in_doubt,
            dsn_owed,
            quarantined,
        } = &self.totals;
        let selected = self.of_selection.then(|| {
            json!({
                "messages": self.selected.messages, "recipients": self.selected.recipients,
                "unresolved": self.selected.unresolved,
            })
        });
        let value = json!({
            "selected": selected,
            "messages": messages, "waiting": waiting, "inFlight": in_flight, "inDoubt": in_doubt,
            "dsnOwed": dsn_owed, "quarantined": quarantined,
            "partitionsWithoutOwner": self.unowned, "rows": rows, "automation": automation,
        });
        format!("{value}\n")
    }
}

/// What the columns do not tell of a row: how long its mail is on hold, and what is the simulator's.
fn aside(row: &QueueRow, now_ms: u64) -> String {
    let name = format!("{} of {} ({})", row.domain, row.tenant, row.stream);
    let mut text = String::new();
    if row.held_since_ms > 0 {
        text.push_str(&format!(
            "{name}: on hold for {}",
            age(row.held_since_ms, now_ms)
        ));
        if row.held_until_ms > 0 {
            text.push_str(&format!(
                "; the first hold ends {}",
                due(row.held_until_ms, now_ms)
            ));
        }
        text.push('\n');
    }
    if row.simulated > 0 {
        text.push_str(&format!(
            "{name}: the simulator answers for {} recipients\n",
            row.simulated
        ));
    }
    text
}

fn past(measure: &str) -> &str {
    match measure {
        "suspend" => "suspended",
        "limit" => "limited",
        "slow" => "slowed",
        other => other,
    }
}

/// "for 4m 10s".
fn until(until_ms: u64, now_ms: u64) -> String {
    match due(until_ms, now_ms).strip_prefix("in ") {
        Some(left) => format!("for {left}"),
        None => "until now".to_owned(),
    }
}

/// A remote text on a terminal.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

fn shown(cell: &str) -> String {
    if cell.is_empty() {
        "-".to_owned()
    } else {
        cell.to_owned()
    }
}

/// "4m 10s", "-".
fn age(since_ms: u64, now_ms: u64) -> String {
    match since_ms {
        0 => "-".to_owned(),
        since_ms => duration(now_ms.saturating_sub(since_ms)),
    }
}

/// "in 4m 10s", "now", "-".
pub(super) fn due(due_ms: u64, now_ms: u64) -> String {
    match due_ms {
        0 => "-".to_owned(),
        due_ms if due_ms <= now_ms => "now".to_owned(),
        due_ms => format!("in {}", duration(due_ms - now_ms)),
    }
}

fn duration(ms: u64) -> String {
    let seconds = ms.div_ceil(1000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{seconds}s"),
        (0, minutes) => format!("{minutes}m {seconds}s"),
        (hours, minutes) => format!("{hours}h {minutes}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::admin::Constraint;

    fn answer(ready: u64, next_due_ms: u64) -> QueueResponse {
        let row = QueueRow {
            site: "mx.example".to_owned(),
            domain: "a.example".to_owned(),
            tenant: "acme".to_owned(),
            stream: "bulk".to_owned(),
            ready,
            deferred: 2,
            next_due_ms,
            oldest_ms: 900,
            constraint: Some(Constraint {
                kind: "rate".to_owned(),
                text: "10 messages in 1 s: used up".to_owned(),
                until_ms: 7,
            }),
            ..QueueRow::default()
        };
        QueueResponse {
            rows: vec![row],
            messages: 2,
            waiting: ready + 2,
            in_doubt: 1,
            ..QueueResponse::default()
        }
    }

    #[test]
    fn rows_of_several_schedulers_are_summed() {
        let mut queue = Queue::default();
        queue.add(answer(1, 0));
        queue.add(answer(10, 251_000));
        queue.add(answer(100, 260_000));
        queue.unowned.push(3);
        let expected = "\
SITE        DOMAIN     TENANT  STREAM  READY  DEFERRED  IN-FLIGHT  IN-DOUBT  HELD  OLDEST  NEXT       KEPT-BY
mx.example  a.example  acme    bulk      111         6          0         0     0  1s      in 4m 10s  rate
6 messages; recipients: 117 waiting, 0 in flight, 3 in doubt, 0 with a DSN owed, 0 quarantined
not counted: partitions without an owner: 3
";
        assert_eq!(queue.text(1_000), expected);
        let json: serde_json::Value = serde_json::from_str(&queue.json()).unwrap();
        assert_eq!(json["waiting"], 117);
        assert_eq!(json["rows"][0]["nextDueMs"], 251_000);
        assert_eq!(json["rows"][0]["constraint"]["untilMs"], 7);
    }

    #[test]
    fn what_is_done_about_replies_is_told_with_its_cause() {
        let mut queue = Queue::default();
        for until_ms in [61_000, 31_000] {
            let act = AutomationAct {
                rule: "google/0".to_owned(),
                subject: "lane a|mx.example".to_owned(),
                measure: "suspend".to_owned(),
                until_ms,
                cause: "421 4.7.28 unusual\u{1b} rate".to_owned(),
            };
            queue.add(QueueResponse {
                automation: vec![act],
                ..QueueResponse::default()
            });
        }
        let text = queue.text(1_000);
        let line = text.lines().last().unwrap();
        let expected =
            "lane a|mx.example suspended for 1m 0s, by google/0: 421 4.7.28 unusual? rate";
        assert_eq!(line, expected);
        let json: serde_json::Value = serde_json::from_str(&queue.json()).unwrap();
        assert_eq!(json["automation"][0]["untilMs"], 61_000);
    }

    #[test]
    fn says_since_when_mail_is_on_hold_until_when_and_what_is_simulated() {
        let mut queue = Queue::default();
        for (since_ms, until_ms) in [(0, 0), (500_000, 800_000), (400_000, 900_000)] {
            let mut answer = answer(1, 0);
            let row = &mut answer.rows[0];
            (row.held_since_ms, row.held_until_ms, row.simulated) = (since_ms, until_ms, 1);
            queue.add(answer);
        }
        let text = queue.text(460_000);
        let lines: Vec<&str> = text.lines().skip(2).take(2).collect();
        let expected = [
            "a.example of acme (bulk): on hold for 1m 0s; the first hold ends in 5m 40s",
            "a.example of acme (bulk): the simulator answers for 3 recipients",
        ];
        assert_eq!(lines, expected);
        let json: serde_json::Value = serde_json::from_str(&queue.json()).unwrap();
        assert_eq!(json["rows"][0]["heldSinceMs"], 400_000);
        assert_eq!(json["rows"][0]["heldUntilMs"], 800_000);
    }

    #[test]
    fn an_empty_queue_has_no_table() {
        let text = Queue::default().text(0);
        assert_eq!(
            text,
            "0 messages; recipients: 0 waiting, 0 in flight, 0 in doubt, 0 with a DSN owed, 0 quarantined\n"
        );
        assert_eq!(due(5, 10), "now");
        assert_eq!(due(7_260_000, 0), "in 2h 1m");
    }
}
