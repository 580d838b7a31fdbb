//! Whether each address has a name that leads back to it, and that it says in EHLO.

use std::net::IpAddr;

use dns::{Family, Resolver};

use crate::finding::{Finding, Topic, Verdict};
use crate::{Source, Subject};

pub(crate) async fn examine(resolver: &Resolver, subject: &Subject) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in &subject.sources {
        if let Some(address) = source.address {
            findings.push(of_source(resolver, source, address).await);
        }
    }
    findings
}

async fn of_source(resolver: &Resolver, source: &Source, address: IpAddr) -> Finding {
    let at = address.to_string();
    let found = |verdict, what: String| {
        Finding::new(
            verdict,
            Topic::Names,
            &at,
            format!("source {}: {what}", source.name),
        )
    };
    let ehlo = source.ehlo.as_str();
    let names = match resolver.names(address).await {
        Ok(names) => names,
        Err(error) if error.is_permanent() => {
            let what = "the address has no name (PTR): the large providers refuse its mail";
            return found(Verdict::Wrong, what.to_owned()).publishing(
                &reverse(address),
                "PTR",
                format!("{ehlo}."),
            );
        }
        Err(error) => return found(Verdict::Unknown, error.to_string()),
    };
    let kind = if address.is_ipv4() { "A" } else { "AAAA" };
    match leads_to(resolver, ehlo, address).await {
        Ok(true) => {}
        Ok(false) => {
            let what = format!("the name that it says in EHLO, {ehlo}, does not lead to it");
            return found(Verdict::Wrong, what).publishing(ehlo, kind, at.clone());
        }
        Err(error) => return found(Verdict::Unknown, error),
    }
    if names
        .iter()
        .any(|name| name.as_str().eq_ignore_ascii_case(ehlo))
    {
        let what = format!("its name is {ehlo}, which leads back to it and is said in EHLO");
        return found(Verdict::Fine, what);
    }
    let listed: Vec<&str> = names.iter().map(|name| name.as_str()).collect();
    let listed = listed.join(", ");
    let mut some_lead_back = false;
    for name in &names {
        some_lead_back |= leads_to(resolver, name.as_str(), address).await == Ok(true);
    }
    let publishing =
        |finding: Finding| finding.publishing(&reverse(address), "PTR", format!("{ehlo}."));
    if some_lead_back {
        let what = format!("its name is {listed}, and it says {ehlo} in EHLO");
        publishing(found(Verdict::Note, what))
    } else {
        let what = format!("its name is {listed}, which does not lead back to it");
        publishing(found(Verdict::Wrong, what))
    }
}

async fn leads_to(resolver: &Resolver, name: &str, address: IpAddr) -> Result<bool, String> {
    let family = Family::of_source(Some(address));
    match resolver.addresses(name, family).await {
        Ok(addresses) => Ok(addresses.contains(&address)),
        Err(error) if error.is_permanent() => Ok(false),
        Err(error) => Err(error.to_string()),
    }
}

/// The name at which the PTR records of an address stand.
fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().rev();
            let nibbles = nibbles.flat_map(|octet| [octet & 15, octet >> 4]);
            let labels: Vec<String> = nibbles.map(|nibble| format!("{nibble:x}")).collect();
            format!("{}.ip6.arpa", labels.join("."))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_names_are_those_of_the_dns() {
        for (address, name) in [
            ("192.0.2.7", "7.2.0.192.in-addr.arpa"),
            (
                "2001:db8::567:89ab",
                "b.a.9.8.7.6.5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa",
            ),
        ] {
            assert_eq!(reverse(address.parse().unwrap()), name);
        }
    }
}
