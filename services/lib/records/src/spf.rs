//! Whether the domain of the return path lets every source send (RFC 7208).

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use mail_auth::hickory_resolver::config::{
    ConnectionConfig, NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts,
};
use mail_auth::hickory_resolver::net::{DnsError, NetError};
use mail_auth::hickory_resolver::proto::op::ResponseCode;
use mail_auth::hickory_resolver::proto::rr::{Name, RData, RecordType};
use mail_auth::spf::verify::SpfParameters;
use mail_auth::{MessageAuthenticator, SpfResult};

use crate::finding::{Finding, Topic, Verdict};
use crate::{Source, Subject};

/// For one try of one question.
const TRY: Duration = Duration::from_secs(5);
/// For one evaluation with all of its questions: ten terms that ask, and ten names for some of them.
const PATIENCE: Duration = Duration::from_secs(60);
/// An address that nobody sends from (RFC 5737).
const NOBODY: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254));

/// Evaluates SPF.
pub(crate) struct Spf {
    authenticator: MessageAuthenticator,
}

impl Spf {
    pub(crate) fn new(servers: &[SocketAddr]) -> Result<Self, String> {
        let authenticator = if servers.is_empty() {
            MessageAuthenticator::new_system_conf()
        } else {
            let servers = servers.iter().map(name_server).collect();
            let mut options = ResolverOpts::default();
            options.timeout = TRY;
            options.attempts = 2;
            options.use_hosts_file = ResolveHosts::Never;
            MessageAuthenticator::new(ResolverConfig::from_name_servers(servers), options)
        };
        let authenticator = authenticator.map_err(|error| error.to_string())?;
        Ok(Self { authenticator })
    }

    /// What a receiver would find of mail with this return path.
    async fn evaluate(&self, address: IpAddr, ehlo: &str, domain: &str) -> SpfResult {
        let sender = format!("postmaster@{domain}");
        let parameters = SpfParameters::verify_mail_from(address, ehlo, ehlo, &sender);
        let evaluation = self.authenticator.verify_spf(parameters);
        match tokio::time::timeout(PATIENCE, evaluation).await {
            Ok(output) => output.result(),
            Err(_) => SpfResult::TempError,
        }
    }

    /// The SPF records of a domain. It may have many other texts, of which [`dns::Resolver::texts`] gives the first few.
    async fn records(&self, domain: &str) -> Result<Vec<String>, String> {
        let mut name = Name::from_ascii(domain).map_err(|error| error.to_string())?;
        name.set_fqdn(true);
        let question = self.authenticator.resolver().lookup(name, RecordType::TXT);
        let answer = tokio::time::timeout(PATIENCE, question).await;
        let answer = match answer.map_err(|_| "the DNS does not answer".to_owned())? {
            Ok(answer) => answer,
            Err(NetError::Dns(DnsError::NoRecordsFound(none)))
                if [ResponseCode::NXDomain, ResponseCode::NoError]
                    .contains(&none.response_code) =>
            {
                return Ok(Vec::new());
            }
            Err(error) => return Err(error.to_string()),
        };
        let texts = answer
            .answers()
            .iter()
            .filter_map(|record| match &record.data {
                RData::TXT(text) => String::from_utf8(text.txt_data.concat()).ok(),
                _ => None,
            });
        // Whoever wrote it, it is shown to people.
        let is_printable = |text: &String| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        Ok(texts
            .filter(|text| is_spf(text))
            .filter(is_printable)
            .collect())
    }
}

fn name_server(address: &SocketAddr) -> NameServerConfig {
    let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
        connection.port = address.port();
        connection
    });
    NameServerConfig::new(address.ip(), true, connections.into())
}

pub(crate) async fn examine(spf: &Spf, subject: &Subject) -> Vec<Finding> {
    let domain = subject.return_path.as_str();
    let of_domain = |verdict, what: String| Finding::new(verdict, Topic::Spf, domain, what);
    let records = match spf.records(domain).await {
        Ok(records) => records,
        Err(error) => return vec![of_domain(Verdict::Unknown, error)],
    };
    let wanted = || record_for(None, &subject.sources);
    match records.as_slice() {
        [_] => {}
        [] => {
            let what = "there is no SPF record".to_owned();
            return vec![of_domain(Verdict::Wrong, what).publishing(domain, "TXT", wanted())];
        }
        several => {
            let what = format!(
                "there are {} SPF records, and one is expected",
                several.len()
            );
            return vec![of_domain(Verdict::Wrong, what)];
        }
    }
    let mut findings = Vec::new();
    for source in &subject.sources {
        let Some(address) = source.address else {
            let what = format!(
                "the source {} has no address in its pool: it can't be looked up",
                source.name
            );
            findings.push(of_domain(Verdict::Note, what));
            continue;
        };
        let result = spf.evaluate(address, &source.ehlo, domain).await;
        let (verdict, what) = judged(result, address, &source.name);
        let mut finding = of_domain(verdict, what);
        if matches!(
            result,
            SpfResult::Fail | SpfResult::SoftFail | SpfResult::Neutral
        ) {
            let value = record_for(Some(&records[0]), std::slice::from_ref(source));
            finding = finding.publishing(domain, "TXT", value);
        }
        findings.push(finding);
    }
    if spf.evaluate(NOBODY, "nobody.invalid", domain).await == SpfResult::Pass {
        let what = "the record lets every address of the world send".to_owned();
        findings.push(of_domain(Verdict::Note, what));
    }
    findings
}

fn is_spf(text: &str) -> bool {
    let version = text.split(' ').next().unwrap_or_default();
    version.eq_ignore_ascii_case("v=spf1")
}

fn judged(result: SpfResult, address: IpAddr, source: &str) -> (Verdict, String) {
    let said = match result {
        SpfResult::Pass => {
            return (
                Verdict::Fine,
                format!("{address} (source {source}) may send"),
            );
        }
        SpfResult::PermError => {
            let what = format!(
                "the record can't be evaluated for {address} (source {source}): it is malformed, includes what is not there, or asks the DNS more than ten times"
            );
            return (Verdict::Wrong, what);
        }
        SpfResult::TempError => {
            let what =
                format!("the DNS did not answer all that is asked for {address} (source {source})");
            return (Verdict::Unknown, what);
        }
        SpfResult::Fail => "fail",
        SpfResult::SoftFail => "softfail",
        SpfResult::Neutral => "neutral",
        SpfResult::None => "none",
    };
    let what = format!("{address} (source {source}) is not among those that may send ({said})");
    (Verdict::Wrong, what)
}

/// The record with these sources in it, before what it says of all others.
fn record_for(present: Option<&str>, sources: &[Source]) -> String {
    let present = present.unwrap_or("v=spf1 -all");
    let mut terms: Vec<String> = present
        .split_ascii_whitespace()
        .map(str::to_owned)
        .collect();
    let is_last = |term: &String| {
        let term = term
            .trim_start_matches(['+', '-', '~', '?'])
            .to_ascii_lowercase();
        term == "all" || term.starts_with("redirect=")
    };
    let at = terms.iter().position(is_last).unwrap_or(terms.len());
    let addresses = sources.iter().filter_map(|source| source.address);
    let mechanisms = addresses.map(|address| match address {
        IpAddr::V4(address) => format!("ip4:{address}"),
        IpAddr::V6(address) => format!("ip6:{address}"),
    });
    terms.splice(at..at, mechanisms);
    terms.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_come_before_what_is_said_of_all_others() {
        let source = |address: &str| Source {
            name: "a".to_owned(),
            address: address.parse().ok(),
            ehlo: "a.example".to_owned(),
        };
        let sources = [source("192.0.2.1"), source("2001:db8::1"), source("any")];
        for (present, expected) in [
            (None, "v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 -all"),
            (
                Some("v=spf1 a  mx ~all"),
                "v=spf1 a mx ip4:192.0.2.1 ip6:2001:db8::1 ~all",
            ),
            (
                Some("v=spf1 redirect=_spf.example"),
                "v=spf1 ip4:192.0.2.1 ip6:2001:db8::1 redirect=_spf.example",
            ),
            (Some("v=spf1 a"), "v=spf1 a ip4:192.0.2.1 ip6:2001:db8::1"),
        ] {
            assert_eq!(record_for(present, &sources), expected);
        }
    }
}
