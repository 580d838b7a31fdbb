//! What others see who send to the domain: bounces above all.

use std::time::Duration;

use dns::{Error, Family, MailHosts, Resolver};
use mail_auth::common::parse::TxtRecordParser;
use mail_auth::mta_sts::TlsRpt;
use runtime::{Get, HttpsClient};
use sts::{Mode, Policy};

use crate::Subject;
use crate::finding::{Finding, Topic, Verdict};

/// For the policy (RFC 8461 section 3.3 suggests a minute and 64 KiB).
const PATIENCE: Duration = Duration::from_secs(60);
const LONGEST_POLICY: usize = 64 * 1024;

/// Whether bounces come back.
pub(crate) async fn return_path(resolver: &Resolver, subject: &Subject) -> Vec<Finding> {
    let domain = &subject.return_path;
    let found =
        |verdict, what: String| Finding::new(verdict, Topic::ReturnPath, domain.as_str(), what);
    let hosts = match resolver.mail_hosts(domain).await {
        Ok(hosts) => hosts,
        Err(Error::NullMx) => {
            let what = "the domain says that it takes no mail (null MX), and mail leaves with it as its return path";
            return vec![found(Verdict::Wrong, what.to_owned())];
        }
        Err(error) if error.is_permanent() => {
            let what = "there is no MX: bounces can't come back, and receivers refuse such senders";
            return vec![found(Verdict::Wrong, what.to_owned())];
        }
        Err(error) => return vec![found(Verdict::Unknown, error.to_string())],
    };
    let names = names(&hosts);
    for name in &names {
        match resolver.addresses(name, Family::Any).await {
            Ok(_) => {}
            Err(error) if error.is_permanent() => {
                let what = format!("its mail host {name} has no address");
                return vec![found(Verdict::Wrong, what)];
            }
            Err(error) => return vec![found(Verdict::Unknown, format!("{name}: {error}"))],
        }
    }
    if hosts.implicit {
        let what = "there is no MX: bounces go to the address of the domain itself";
        return vec![found(Verdict::Note, what.to_owned())];
    }
    let what = format!("bounces go to {}", names.join(", "));
    vec![found(Verdict::Fine, what)]
}

fn names(hosts: &MailHosts) -> Vec<String> {
    hosts
        .hosts
        .iter()
        .map(|host| host.name.to_string())
        .collect()
}

/// Whether there is a policy, and whether it takes the domain's own hosts.
pub(crate) async fn mta_sts(
    resolver: &Resolver,
    https: Option<&(HttpsClient, u16)>,
    subject: &Subject,
) -> Finding {
    let domain = &subject.domain;
    let name = format!("_mta-sts.{domain}");
    let found = |verdict, what: String| Finding::new(verdict, Topic::MtaSts, &name, what);
    let texts = match resolver.texts(&name).await {
        Ok(texts) => texts,
        Err(error) if error.is_permanent() => {
            let what = "there is no policy: who sends to the domain need not use TLS";
            return found(Verdict::Note, what.to_owned());
        }
        Err(error) => return found(Verdict::Unknown, error.to_string()),
    };
    let Some(id) = sts::policy_id(texts.iter().map(|text| text.as_bytes())) else {
        let what = "the record can't be read, or there are several";
        return found(Verdict::Wrong, what.to_owned());
    };
    let Some(https) = https else {
        return found(Verdict::Fine, format!("there is a policy with the id {id}"));
    };
    let policy = match fetch(https, resolver, domain.as_str()).await {
        Ok(policy) => policy,
        Err(what) => {
            let what = format!("the record is there, and the policy can't be fetched: {what}");
            return found(Verdict::Wrong, what);
        }
    };
    let outside: Vec<String> = match resolver.mail_hosts(domain).await {
        Ok(hosts) => names(&hosts)
            .into_iter()
            .filter(|host| !policy.takes(host))
            .collect(),
        Err(error) if error.is_permanent() => Vec::new(),
        Err(error) => return found(Verdict::Unknown, error.to_string()),
    };
    let mode = match policy.mode {
        Mode::Enforce => "enforce",
        Mode::Testing => "testing",
        Mode::None => "none",
    };
    if outside.is_empty() || policy.mode == Mode::None {
        return found(
            Verdict::Fine,
            format!("there is a policy with the id {id}, mode {mode}"),
        );
    }
    let verdict = if policy.mode == Mode::Enforce {
        Verdict::Wrong
    } else {
        Verdict::Note
    };
    let what = format!(
        "the policy (mode {mode}) does not name {}, which is an MX of the domain",
        outside.join(", ")
    );
    found(verdict, what)
}

async fn fetch(
    (https, port): &(HttpsClient, u16),
    resolver: &Resolver,
    domain: &str,
) -> Result<Policy, String> {
    let host = format!("mta-sts.{domain}");
    let url = format!("https://{host}/.well-known/mta-sts.txt");
    let url = url
        .parse()
        .map_err(|_| "the domain makes no URL".to_owned())?;
    let addresses = resolver.addresses(&host, Family::Any).await;
    let addresses = addresses.map_err(|error| format!("{host}: {error}"))?;
    let addresses: Vec<_> = addresses
        .iter()
        .map(|address| (*address, *port).into())
        .collect();
    let get = Get {
        url: &url,
        addresses: &addresses,
        etag: None,
        patience: PATIENCE,
        most: LONGEST_POLICY,
    };
    let fetched = https.get(get).await.map_err(|error| error.to_string())?;
    let document = fetched.document.ok_or("the server sends no document")?;
    Policy::parse(&document).map_err(|error| error.to_string())
}

/// Whether somebody is told of failures of TLS.
pub(crate) async fn tls_rpt(resolver: &Resolver, subject: &Subject) -> Finding {
    let domain = &subject.domain;
    let name = format!("_smtp._tls.{domain}");
    let found = |verdict, what: &str| Finding::new(verdict, Topic::TlsRpt, &name, what);
    let value = || format!("v=TLSRPTv1; rua=mailto:tlsrpt@{domain}");
    let texts = match resolver.texts(&name).await {
        Ok(texts) => texts,
        Err(error) if error.is_permanent() => {
            let what = "there is no record: nobody is told when TLS to the domain fails";
            return found(Verdict::Note, what).publishing(&name, "TXT", value());
        }
        Err(error) => return found(Verdict::Unknown, &error.to_string()),
    };
    let mut records = texts.iter().filter(|text| text.starts_with("v=TLSRPTv1"));
    match (records.next(), records.next()) {
        (None, _) => {
            let what = "there is no record: nobody is told when TLS to the domain fails";
            found(Verdict::Note, what).publishing(&name, "TXT", value())
        }
        (Some(_), Some(_)) => found(
            Verdict::Wrong,
            "there are several records, and one is expected",
        ),
        (Some(only), None) => match TlsRpt::parse(only.as_bytes()) {
            Ok(record) if !record.rua.is_empty() => {
                found(Verdict::Fine, "reports about TLS are sent")
            }
            _ => {
                found(Verdict::Wrong, "the record can't be read").publishing(&name, "TXT", value())
            }
        },
    }
}
