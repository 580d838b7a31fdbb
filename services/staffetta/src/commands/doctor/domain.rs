//! `staffetta doctor domain`: what is published about a domain and the addresses of a pool.

use std::fmt::Write;
use std::process::ExitCode;

use anyhow::Context;
use config::{EgressPool, Snapshot};
use mail::Domain;
use records::{Doctor, Finding, Key, Record, Source, Subject, Verdict};
use serde_json::{Value, json};

use crate::cli::Global;
use crate::commands::dkim::zone_text;
use crate::commands::shaping;
use crate::output::{self, OutputFormat};
use crate::signers::Signer;

/// The exit code when nothing is wrong, and not all could be asked.
const UNKNOWN: u8 = 2;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Domain of the authors
    #[arg(value_parser = parse_domain)]
    domain: Domain,
    /// Name of the egress pool that its mail leaves by [default: the only one]
    #[arg(long)]
    pool: Option<String>,
    /// Domain of the return path [default: the domain]
    #[arg(long, value_name = "DOMAIN", value_parser = parse_domain)]
    return_path: Option<Domain>,
    /// How it is written: as JSON, one object for each finding
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    configuration: shaping::Source,
    #[command(flatten)]
    signer: Signer,
}

fn parse_domain(text: &str) -> Result<Domain, mail::DomainError> {
    Domain::parse(text)
}

/// Ends with 1 when something is wrong, else with 2 when something could not be asked.
pub(super) async fn run(global: &Global, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Some(snapshot) = arguments.configuration.snapshot(global).await? else {
        return Ok(ExitCode::FAILURE);
    };
    let domain = &arguments.domain;
    let sending_domain = snapshot.sending_domain(domain.as_str()).with_context(|| {
        format!("{domain} is no SendingDomain, nor below one that includes its subdomains")
    })?;
    let pool = pool(&snapshot, arguments.pool.as_deref())?;
    let keys = if sending_domain.dkim.is_empty() {
        Vec::new()
    } else {
        let name = sending_domain.domain.as_str();
        arguments.signer.keys(global, Some(name)).await?
    };
    let configured = global.given_config().is_some() || global.config_path().exists();
    let bootstrap = configured.then(|| global.bootstrap()).transpose()?;
    let hostname = bootstrap
        .as_ref()
        .map(|bootstrap| bootstrap.hostname.to_string());
    let now = runtime::now_ms();
    let keys = keys.iter().map(|key| Key::of(key, now)).collect();
    let sources = sources(pool, hostname.as_deref())?;
    let mut subject = Subject::of(domain, sending_domain, keys, sources);
    if let Some(return_path) = &arguments.return_path {
        return_path.clone_into(&mut subject.return_path);
    }
    let servers = bootstrap
        .as_ref()
        .map_or(&[][..], |bootstrap| &bootstrap.resolvers);
    let authorities = bootstrap
        .as_ref()
        .and_then(|it| it.sender.authorities.as_deref());
    let port = bootstrap.as_ref().map_or(443, |it| it.sender.mta_sts.port);
    let mut doctor = Doctor::new(servers)?;
    if let Err(error) = doctor.fetch(authorities, port) {
        // Everything else can be looked at.
        output::complain(&anyhow::Error::new(error).context("MTA-STS policies are not fetched"));
    }
    let findings = doctor.examine(&subject).await;
    output::print(&match arguments.output {
        OutputFormat::Text => described(&findings),
        OutputFormat::Json => findings
            .iter()
            .map(|finding| format!("{}\n", json(finding)))
            .collect(),
    })?;
    let worst = findings.iter().map(|finding| finding.verdict).max();
    Ok(match worst {
        Some(Verdict::Wrong) => ExitCode::FAILURE,
        Some(Verdict::Unknown) => ExitCode::from(UNKNOWN),
        _ => ExitCode::SUCCESS,
    })
}

fn pool<'a>(snapshot: &'a Snapshot, name: Option<&str>) -> anyhow::Result<&'a EgressPool> {
    let mut names: Vec<&str> = snapshot.pools().map(|pool| pool.name.as_str()).collect();
    names.sort_unstable();
    let name = match (name, names.as_slice()) {
        (Some(name), _) => name,
        (None, [only]) => only,
        (None, _) => anyhow::bail!("name the pool with --pool; there are: {}", names.join(", ")),
    };
    let pool = snapshot.pool(name);
    let pool = pool.with_context(|| {
        format!(
            "there is no EgressPool named {name:?}; known: {}",
            names.join(", ")
        )
    })?;
    Ok(pool)
}

fn sources(pool: &EgressPool, hostname: Option<&str>) -> anyhow::Result<Vec<Source>> {
    Source::of_pool(pool, hostname).map_err(|name| {
        anyhow::anyhow!(
            "the source {name} has no ehlo, and without staffetta.yaml no hostname stands for it"
        )
    })
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Fine => "ok",
        Verdict::Note => "note",
        Verdict::Unknown => "unknown",
        Verdict::Wrong => "WRONG",
    }
}

fn described(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let (verdict, topic) = (word(finding.verdict), finding.topic.as_str());
        let Finding { at, what, .. } = finding;
        writeln!(text, "{verdict:<7}  {topic:<11}  {at}: {what}")
            .expect("a String takes everything");
    }
    let mut lines: Vec<String> = Vec::new();
    for record in findings
        .iter()
        .filter_map(|finding| finding.publish.as_ref())
    {
        let line = zone_line(record);
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    if !lines.is_empty() {
        text.push_str("\nTo be published:\n");
        text.extend(lines);
    }
    text
}

fn zone_line(record: &Record) -> String {
    let Record { name, kind, value } = record;
    let value = match *kind {
        "TXT" => zone_text(value),
        _ => value.clone(),
    };
    format!("{name}. IN {kind} {value}\n")
}

fn json(finding: &Finding) -> Value {
    let publish = finding.publish.as_ref();
    json!({
        "verdict": word(finding.verdict).to_ascii_lowercase(),
        "topic": finding.topic.as_str(),
        "at": finding.at,
        "what": finding.what,
        "publish": publish.map(|record| json!({
            "name": record.name,
            "type": record.kind,
            "value": record.value,
        })),
    })
}

#[cfg(test)]
mod tests {
    use records::Topic;

    use super::*;

    #[test]
    fn what_is_to_be_published_comes_once_and_in_the_form_of_a_zone() {
        let finding = |what: &str| Finding {
            verdict: Verdict::Wrong,
            topic: Topic::Spf,
            at: "acme.example".to_owned(),
            what: what.to_owned(),
            publish: Some(Record {
                name: "acme.example".to_owned(),
                kind: "TXT",
                value: "v=spf1 -all".to_owned(),
            }),
        };
        let text = described(&[finding("one"), finding("two")]);
        assert_eq!(
            text,
            "WRONG    spf          acme.example: one\nWRONG    spf          acme.example: two\n\n\
             To be published:\nacme.example. IN TXT ( \"v=spf1 -all\" )\n"
        );
        let told = json(&finding("one"));
        assert_eq!(told["verdict"], "wrong");
        assert_eq!(told["publish"]["value"], "v=spf1 -all");
    }

    #[test]
    fn the_pool_need_not_be_named_where_there_is_one() {
        let document = |name: &str| {
            format!(
                "---\napiVersion: staffetta.dev/v1alpha1\nkind: EgressPool\nmetadata: {{ name: {name} }}\n\
                 spec: {{ sources: [ {{ name: {name}, address: 192.0.2.1 }} ] }}\n"
            )
        };
        let one = Snapshot::from_documents(&document("bulk")).unwrap();
        let two = Snapshot::from_documents(&(document("bulk") + &document("fast"))).unwrap();
        assert_eq!(pool(&one, None).unwrap().name, "bulk");
        assert_eq!(pool(&two, Some("fast")).unwrap().name, "fast");
        for (snapshot, name) in [(&two, None), (&two, Some("slow"))] {
            let error = pool(snapshot, name).unwrap_err().to_string();
            assert!(error.ends_with("bulk, fast"), "{error}");
        }
        let bulk = pool(&one, None).unwrap();
        assert_eq!(
            sources(bulk, Some("relay.example")).unwrap()[0].ehlo,
            "relay.example"
        );
        assert!(sources(bulk, None).is_err());
    }
}
