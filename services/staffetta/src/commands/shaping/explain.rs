//! `staffetta shaping explain`.

use std::process::ExitCode;

use anyhow::Context;
use config::{EgressSource, ExplainedField, Route, ShapingExplanation, ShapingQuery, Snapshot};
use mail::Domain;
use serde_json::json;

use super::Source;
use crate::cli::Global;
use crate::output::{self, OutputFormat};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Recipient domain
    #[arg(value_parser = parse_domain)]
    domain: Domain,
    /// Name of an egress source [default: every source of the pool]
    #[arg(long)]
    source: Option<String>,
    /// Name of the tenant whose mail it is: its routes count too
    #[arg(long)]
    tenant: Option<String>,
    /// Name of the stream [default: the tenant's default]
    #[arg(long)]
    stream: Option<String>,
    /// The MX hosts, separated by commas, instead of those that the DNS names
    #[arg(long, value_name = "HOSTS")]
    site: Option<String>,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    configuration: Source,
}

fn parse_domain(text: &str) -> Result<Domain, mail::DomainError> {
    Domain::parse(text)
}

/// What is asked, as the scheduler would place it.
struct Mail<'a> {
    domain: &'a str,
    stream: &'a str,
    route: &'a Route,
    site: String,
}

/// The answer for one source.
struct Answer {
    source: String,
    class: Option<String>,
    explanation: ShapingExplanation,
}

pub(crate) async fn run(global: &Global, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let Some(snapshot) = arguments.configuration.snapshot(global).await? else {
        return Ok(ExitCode::FAILURE);
    };
    let tenant = match &arguments.tenant {
        None => None,
        Some(name) => {
            let found = snapshot.tenant(name);
            Some(found.with_context(|| format!("there is no Tenant named {name:?}"))?)
        }
    };
    let by_default = tenant.map(|tenant| tenant.default_stream.as_str());
    let stream = arguments.stream.as_deref().or(by_default).unwrap_or("");
    let domain = arguments.domain.as_str();
    let name = tenant.map_or("", |tenant| tenant.name.as_str());
    let route = snapshot.route(name, stream, domain).with_context(|| {
        format!(
            "no route matches mail to {domain}: name its tenant (--tenant) and stream (--stream)"
        )
    })?;
    let of_pool = || snapshot.pool(&route.pool)?.only_smart_hosts();
    let host = route.smart_host.as_ref().map(Domain::as_str);
    let site = match (host.or_else(of_pool), &arguments.site) {
        (Some(host), _) => host.to_owned(),
        (None, Some(hosts)) => site_of(hosts)?,
        (None, None) => resolve(global, &arguments.domain).await?,
    };
    let mail = Mail {
        domain,
        stream,
        route,
        site,
    };
    let answers = explain(&snapshot, &mail, arguments.source.as_deref())?;
    let text = match arguments.output {
        OutputFormat::Text => text(&mail, &answers),
        OutputFormat::Json => json(&mail, &answers),
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// The name of the site with these hosts.
fn site_of(hosts: &str) -> anyhow::Result<String> {
    let mut names = Vec::new();
    for host in hosts.split(',') {
        let name = Domain::parse(host.trim()).with_context(|| format!("--site {host:?}"))?;
        names.push(name.to_string());
    }
    names.sort_unstable();
    names.dedup();
    Ok(names.join(","))
}

async fn resolve(global: &Global, domain: &Domain) -> anyhow::Result<String> {
    let configured = global.given_config().is_some() || global.config_path().exists();
    let servers = if configured {
        global.bootstrap()?.resolvers.clone()
    } else {
        Vec::new()
    };
    let resolver = dns::Resolver::new(&servers).context("DNS")?;
    let hosts = resolver.mail_hosts(domain).await.with_context(|| {
        format!("the MX hosts of {domain} are not known: name them with --site")
    })?;
    Ok(hosts.site())
}

fn explain(
    snapshot: &Snapshot,
    mail: &Mail<'_>,
    source: Option<&str>,
) -> anyhow::Result<Vec<Answer>> {
    let pool = snapshot
        .pool(&mail.route.pool)
        .context("the route's pool is not there")?;
    if let Some(source) = source
        && pool.sources.iter().all(|present| present.name != source)
    {
        let names: Vec<&str> = (pool.sources.iter())
            .map(|source| source.name.as_str())
            .collect();
        anyhow::bail!(
            "mail to {} goes by route {} to pool {}, which has no source {source:?}; known: {}",
            mail.domain,
            mail.route.name,
            pool.name,
            names.join(", ")
        );
    }
    let wanted = pool
        .sources
        .iter()
        .filter(|present| source.is_none_or(|source| source == present.name));
    let answer = |source: &EgressSource| {
        let own_host = source.smart_host.as_ref().map(|own| own.host.as_str());
        let query = ShapingQuery {
            site: own_host.unwrap_or(&mail.site),
            domain: mail.domain,
            stream: mail.stream,
            source: &source.name,
            pool: &pool.name,
        };
        Answer {
            source: source.name.clone(),
            class: snapshot.lane_class(&query),
            explanation: snapshot.explain_shaping(&query),
        }
    };
    Ok(wanted.map(answer).collect())
}

fn text(mail: &Mail<'_>, answers: &[Answer]) -> String {
    let mut text = format!(
        "mail to {} goes by route {} from pool {} to site {}\n",
        mail.domain, mail.route.name, mail.route.pool, mail.site
    );
    for answer in answers {
        let provider = answer.explanation.provider.as_deref();
        let provider = provider.map_or(String::new(), |name| format!(", provider {name}"));
        let class = answer.class.as_deref();
        let class = class.map_or(String::new(), |class| {
            format!(", a lane of its own: {class}")
        });
        text.push_str(&format!("\nsource {}{provider}{class}\n", answer.source));
        let mut rows = vec![["FIELD", "VALUE", "FROM"].map(str::to_owned).to_vec()];
        rows.extend((answer.explanation.fields.iter()).map(|field| row(field, "")));
        let whole = format!(
            ", all of {}",
            answer.explanation.provider.as_deref().unwrap_or("")
        );
        rows.extend((answer.explanation.shared.iter()).map(|field| row(field, &whole)));
        text.push_str(&output::table(&rows));
    }
    text
}

/// `whose` it is, when it is not the lane's alone.
fn row(field: &ExplainedField, whose: &str) -> Vec<String> {
    let from = field.rule.as_ref();
    vec![
        format!("{}{whose}", field.name),
        field.value.clone(),
        from.map_or("built in".to_owned(), ToString::to_string),
    ]
}

fn values(fields: &[ExplainedField]) -> serde_json::Map<String, serde_json::Value> {
    let value = |field: &ExplainedField| {
        let rule = field.rule.as_ref().map(|rule| {
            json!({
                "document": rule.document, "position": rule.position, "shipped": rule.shipped,
                "match": rule.matches.to_string(),
            })
        });
        (
            field.name.to_owned(),
            json!({ "value": field.value, "rule": rule }),
        )
    };
    fields.iter().map(value).collect()
}

fn json(mail: &Mail<'_>, answers: &[Answer]) -> String {
    let lanes: Vec<serde_json::Value> = answers
        .iter()
        .map(|answer| {
            json!({
                "source": answer.source,
                "provider": answer.explanation.provider,
                "class": answer.class,
                "fields": values(&answer.explanation.fields),
                "shared": values(&answer.explanation.shared),
            })
        })
        .collect();
    let value = json!({
        "domain": mail.domain, "route": mail.route.name, "pool": mail.route.pool, "site": mail.site,
        "lanes": lanes,
    });
    format!("{value}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTS: &str = "
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: { name: default }
spec: { sources: [ { name: a }, { name: b } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Route
metadata: { name: everything }
spec: { pool: default }
---
apiVersion: staffetta.dev/v1alpha1
kind: Shaping
metadata: { name: mine }
spec: { rules: [ { match: { source: b }, connections: 3 }, { match: { domain: example.org }, rates: [1/s, 9/m] } ] }
";

    fn mail<'a>(snapshot: &'a Snapshot, domain: &'a str) -> Mail<'a> {
        Mail {
            domain,
            stream: "",
            route: snapshot.route("", "", domain).unwrap(),
            site: site_of("MX.google.com, aspmx.l.google.com").unwrap(),
        }
    }

    #[test]
    fn every_value_stands_beside_its_rule() {
        let snapshot = Snapshot::from_documents(DOCUMENTS).unwrap();
        let mail = mail(&snapshot, "example.org");
        let answers = explain(&snapshot, &mail, Some("b")).unwrap();
        let expected = "\
mail to example.org goes by route everything from pool default to site aspmx.l.google.com,mx.google.com

source b, provider google, a lane of its own: domain=example.org
FIELD                       VALUE     FROM
connections                        3  Shaping/mine rules[0] {source: b}
messagesPerConnection             50  shipped Shaping/google rules[0] {provider: google}
rate                        1/s, 9/m  Shaping/mine rules[1] {domain: example.org}
connectionRate              none      built in
";
        let text = text(&mail, &answers);
        assert!(text.starts_with(expected), "{text}");
        let of_all = "
finalReplyTimeout           10m       built in
connections, all of google         5  shipped Shaping/google rules[1] {provider: google}
";
        assert!(text.ends_with(of_all), "{text}");
        let value: serde_json::Value = serde_json::from_str(&json(&mail, &answers)).unwrap();
        let lane = &value["lanes"][0];
        assert_eq!(lane["fields"]["tls"]["value"], "required");
        assert_eq!(lane["fields"]["tls"]["rule"]["shipped"], true);
        assert_eq!(lane["shared"]["connections"]["value"], "5");
        assert_eq!(lane["shared"]["rate"], serde_json::Value::Null);
        assert_eq!(lane["fields"]["rampUp"]["rule"], serde_json::Value::Null);
    }

    #[test]
    fn all_sources_are_told_and_one_that_is_not_in_the_pool_is_an_error() {
        let snapshot = Snapshot::from_documents(DOCUMENTS).unwrap();
        let mail = mail(&snapshot, "example.com");
        let answers = explain(&snapshot, &mail, None).unwrap();
        let told: Vec<&str> = answers
            .iter()
            .map(|answer| answer.source.as_str())
            .collect();
        assert_eq!(told, ["a", "b"]);
        assert!(answers.iter().all(|answer| answer.class.is_none()));
        let error = explain(&snapshot, &mail, Some("z")).err().unwrap();
        assert!(
            error.to_string().contains("no source \"z\"; known: a, b"),
            "{error}"
        );
    }
}
