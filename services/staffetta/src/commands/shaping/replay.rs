//! `staffetta shaping replay`: what the rules of kind Automation would have done about recorded replies.

use std::io::BufRead;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use config::{ShapingQuery, Snapshot};
use egress::{Act, Automation, Change, Heard, Measure};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::Source;
use crate::cli::Global;
use crate::output::{self, OutputFormat};

/// Messages per minute of a lane that is slowed, when the configuration sets no rate: events do not tell it.
const PACE: u64 = 60;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// File with events as `staffetta events` writes them, or `-` for standard input
    #[arg(value_name = "EVENTS")]
    events: PathBuf,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    configuration: Source,
}

/// What came of it.
#[derive(Default)]
struct Replayed {
    replies: u64,
    changes: Vec<(u64, Change)>,
}

pub(crate) async fn run(global: &Global, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Some(snapshot) = arguments.configuration.snapshot(global).await? else {
        return Ok(ExitCode::FAILURE);
    };
    let replayed = if arguments.events.as_os_str() == "-" {
        replay(&snapshot, std::io::stdin().lock())?
    } else {
        let name = arguments.events.display().to_string();
        let file = std::fs::File::open(&arguments.events).with_context(|| name.clone())?;
        replay(&snapshot, std::io::BufReader::new(file)).with_context(|| name)?
    };
    output::print(&match arguments.output {
        OutputFormat::Text => replayed.text(),
        OutputFormat::Json => replayed.json(),
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Feeds the replies in the events, in the order of time, to the rules.
fn replay(snapshot: &Snapshot, events: impl BufRead) -> anyhow::Result<Replayed> {
    let mut heard = Vec::new();
    for (line, number) in events.lines().zip(1_u64..) {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let event: Value = serde_json::from_str(&line)
            .with_context(|| format!("line {number} is not an event"))?;
        if matches!(text(&event, "type"), "Deferral" | "Bounce" | "Expiration")
            && !event["reply"].is_null()
            && !text(&event, "source").is_empty()
        {
            let time: Timestamp = text(&event, "time")
                .parse()
                .with_context(|| format!("line {number} has no time"))?;
            let at_ms = u64::try_from(time.as_millisecond()).unwrap_or(0);
            heard.push((at_ms, event));
        }
    }
    // Journals of several partitions come one after another.
    heard.sort_by_key(|(at_ms, _)| *at_ms);
    let mut automation = Automation::default();
    automation.configure(snapshot);
    let mut replayed = Replayed::default();
    for (at_ms, event) in &heard {
        let ticked = automation.tick(*at_ms);
        replayed.note(*at_ms, ticked);
        replayed.replies += 1;
        let changes = hear(snapshot, &mut automation, *at_ms, event);
        replayed.note(*at_ms, changes);
    }
    while let Some(at_ms) = automation.next_wake() {
        let ticked = automation.tick(at_ms);
        replayed.note(at_ms, ticked);
    }
    Ok(replayed)
}

fn hear(
    snapshot: &Snapshot,
    automation: &mut Automation,
    at_ms: u64,
    event: &Value,
) -> Vec<Change> {
    let (tenant, stream, site) = (
        text(event, "tenant"),
        text(event, "stream"),
        text(event, "site"),
    );
    let recipient = text(event, "recipient");
    let domain = recipient.rsplit_once('@').map_or("", |(_, domain)| domain);
    let domain = domain.to_ascii_lowercase();
    let route = snapshot.route(tenant, stream, &domain);
    let provider = snapshot.provider(site, &domain);
    let lane = ShapingQuery {
        site,
        domain: &domain,
        stream,
        source: text(event, "source"),
        pool: route.map_or("", |route| route.pool.as_str()),
    };
    let class = snapshot.lane_class(&lane);
    let name = class.map_or(site.to_owned(), |class| format!("{site}%{class}"));
    let reply = &event["reply"];
    let code = reply["code"]
        .as_u64()
        .and_then(|code| u16::try_from(code).ok());
    let heard = Heard {
        lane,
        name: &name,
        provider: provider.map(|provider| provider.name.as_str()),
        tenant,
        code: code.unwrap_or(0),
        enhanced: text(reply, "enhanced"),
        text: text(reply, "text"),
    };
    automation.reply(at_ms, &heard, || {
        let shaping = snapshot.shaping(&lane);
        let per_minute = |rate: &mail::Rate| {
            egress::per_minute(egress::RateLimit {
                count: rate.count().into(),
                per_ms: u64::try_from(rate.per().as_millis()).unwrap_or(u64::MAX),
            })
        };
        shaping
            .message_rates()
            .map(per_minute)
            .min()
            .unwrap_or(PACE)
    })
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or("")
}

fn time(at_ms: u64) -> String {
    let at = i64::try_from(at_ms)
        .ok()
        .and_then(|at_ms| Timestamp::from_millisecond(at_ms).ok());
    at.map_or_else(|| at_ms.to_string(), |at| at.to_string())
}

impl Replayed {
    /// Keeps what begins and ends; the steps of a slowed lane are part of its rule.
    fn note(&mut self, at_ms: u64, changes: Vec<Change>) {
        let told = changes
            .into_iter()
            .filter(|change| !matches!(change, Change::Stepped(_)));
        self.changes.extend(told.map(|change| (at_ms, change)));
    }

    fn begun(&self) -> usize {
        let is_begun = |(_, change): &&(u64, Change)| {
            matches!(change, Change::Begun(_) | Change::Convicted { .. })
        };
        self.changes.iter().filter(is_begun).count()
    }

    fn text(&self) -> String {
        let mut text = String::new();
        for (at_ms, change) in &self.changes {
            let line = match change {
                Change::Begun(act) => format!(
                    "{} {} until {}, by {}: {}",
                    act.subject,
                    described(act),
                    time(act.until_ms),
                    act.rule,
                    act.cause.replace(char::is_control, "?")
                ),
                Change::Convicted {
                    rule,
                    tenant,
                    until_ms,
                    cause,
                } => format!(
                    "tenant {tenant} into quarantine {}, by {rule}: {}",
                    until(*until_ms),
                    cause.replace(char::is_control, "?")
                ),
                Change::Ended(act) => format!("{} free again, by {}", act.subject, act.rule),
                Change::Stepped(_) => continue,
            };
            text.push_str(&format!("{}  {line}\n", time(*at_ms)));
        }
        let (replies, begun) = (self.replies, self.begun());
        text + &format!("{replies} replies, {begun} times something would have been done\n")
    }

    fn json(&self) -> String {
        let line = |(at_ms, change): &(u64, Change)| {
            let (what, act) = match change {
                Change::Begun(act) => ("begun", act),
                Change::Ended(act) => ("ended", act),
                Change::Convicted {
                    rule,
                    tenant,
                    until_ms,
                    cause,
                } => {
                    let until = (*until_ms > 0).then(|| time(*until_ms));
                    let value = json!({
                        "time": time(*at_ms), "change": "begun", "subject": format!("tenant {tenant}"),
                        "rule": &**rule, "measure": "quarantine", "until": until, "cause": &**cause,
                    });
                    return Some(format!("{value}\n"));
                }
                Change::Stepped(_) => return None,
            };
            let value = json!({
                "time": time(*at_ms), "change": what, "subject": act.subject.to_string(), "rule": &*act.rule,
                "measure": act.measure.word(), "until": time(act.until_ms), "cause": &*act.cause,
            });
            Some(format!("{value}\n"))
        };
        self.changes.iter().filter_map(line).collect()
    }
}

fn until(at_ms: u64) -> String {
    match at_ms {
        0 => "until somebody ends it".to_owned(),
        at_ms => format!("until {}", time(at_ms)),
    }
}

fn described(act: &Act) -> String {
    match act.measure {
        Measure::Suspend => "suspended".to_owned(),
        Measure::Limit { .. } => "limited".to_owned(),
        Measure::Slow { cut, .. } => format!("slowed to {cut}/m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(time: &str, kind: &str, source: &str, reply: &str) -> String {
        let event = json!({
            "version": 1, "type": kind, "time": time, "tenant": "acme", "stream": "bulk", "recipient": "u@gmail.com",
            "source": source, "site": "gmail-smtp-in.l.google.com",
            "reply": { "stage": "final_dot", "code": 421, "enhanced": "4.7.28", "text": reply },
        });
        format!("{event}\n")
    }

    #[test]
    fn what_would_have_been_done_is_told_in_the_order_of_time() {
        let rate = "Our system has detected an unusual rate of mail";
        let events = [
            event("2026-01-01T00:10:00.000Z", "Deferral", "b", rate),
            event("2026-01-01T00:00:00.000Z", "Deferral", "a", rate),
            event("2026-01-01T00:01:00.000Z", "Delivery", "a", rate),
            event("2026-01-01T00:02:00.000Z", "Bounce", "a", rate),
            // Without an attempt there was no reply.
            event("2026-01-01T00:02:00.000Z", "Deferral", "", rate),
        ]
        .concat();
        let replayed = replay(&Snapshot::default(), events.as_bytes()).unwrap();
        let expected = "\
2026-01-01T00:02:00Z  lane a|gmail-smtp-in.l.google.com slowed to 30/m until 2026-01-01T00:27:00Z, by google/1: 421 4.7.28 Our system has detected an unusual rate of mail
2026-01-01T00:27:00Z  lane a|gmail-smtp-in.l.google.com free again, by google/1
3 replies, 1 times something would have been done
";
        assert_eq!(replayed.text(), expected);
        let first: Value = serde_json::from_str(replayed.json().lines().next().unwrap()).unwrap();
        assert_eq!(
            (&first["change"], &first["measure"]),
            (&json!("begun"), &json!("slow"))
        );
    }

    #[test]
    fn tenants_that_would_have_gone_into_quarantine_are_told() {
        let rules = "apiVersion: staffetta.dev/v1alpha1\nkind: Automation\nmetadata: { name: mine }\n\
                     spec: { rules: [ { reply: { text: spam }, threshold: 2/h, action: quarantine, for: 1d } ] }\n";
        let snapshot = Snapshot::from_documents(rules).unwrap();
        let events = [
            event("2026-01-01T00:00:00.000Z", "Deferral", "a", "this is spam"),
            event("2026-01-01T00:01:00.000Z", "Bounce", "b", "this is spam"),
        ];
        let replayed = replay(&snapshot, events.concat().as_bytes()).unwrap();
        let expected = "\
2026-01-01T00:01:00Z  tenant acme into quarantine until 2026-01-02T00:01:00Z, by mine/0: 421 4.7.28 this is spam
2 replies, 1 times something would have been done
";
        assert_eq!(replayed.text(), expected);
        let line: Value = serde_json::from_str(&replayed.json()).unwrap();
        assert_eq!(line["measure"], "quarantine");
    }

    #[test]
    fn a_line_that_is_no_event_is_named() {
        let error = replay(&Snapshot::default(), &b"{}\n\nnot JSON\n"[..])
            .err()
            .unwrap();
        assert_eq!(error.to_string(), "line 3 is not an event");
    }
}
