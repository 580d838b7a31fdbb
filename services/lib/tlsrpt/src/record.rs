//! Where a domain wants reports to go (RFC 8460 section 3).

use mail::{Address, HttpsUrl};

/// Where a report goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// By mail.
    Mail(Address),
    /// By POST.
    Https(HttpsUrl),
}

/// Endpoints of a domain that are looked at.
const MOST_ENDPOINTS: usize = 8;

/// What the TXT records of `_smtp._tls.<domain>` say: `None` when there is no record of the kind, or more than one. Endpoints
/// of other kinds and those that are none are passed over; beyond the eighth, too.
pub fn endpoints<'a>(records: impl IntoIterator<Item = &'a str>) -> Option<Vec<Endpoint>> {
    let mut of_the_kind = records
        .into_iter()
        .filter_map(|record| fields(record).map(|fields| (record, fields)));
    let (record, mut rest) = of_the_kind.next()?;
    if of_the_kind.any(|(other, _)| other != record) {
        return None;
    }
    let uris = rest.find_map(|field| value(field, "rua"))?;
    let found = uris.split(',').take(MOST_ENDPOINTS);
    Some(found.filter_map(endpoint).collect())
}

/// The fields after `v=TLSRPTv1`.
fn fields(record: &str) -> Option<std::str::Split<'_, char>> {
    let mut fields = record.split(';');
    (value(fields.next()?, "v")? == "TLSRPTv1").then_some(fields)
}

fn value<'a>(field: &'a str, name: &str) -> Option<&'a str> {
    let (found, value) = field.split_once('=')?;
    (found.trim() == name).then(|| value.trim())
}

fn endpoint(uri: &str) -> Option<Endpoint> {
    let uri = uri.trim();
    let (scheme, rest) = uri.split_once(':')?;
    match scheme.to_ascii_lowercase().as_str() {
        "mailto" => {
            // Subject and the like are of no use here (RFC 6068 section 2).
            let address = rest.split('?').next().unwrap_or_default();
            let address = Address::parse(&decoded(address)?).ok()?;
            // Header fields are written with it, and a domain that the DNS knows is needed.
            let is_plain = address.as_str().is_ascii() && address.domain().is_some();
            is_plain.then_some(Endpoint::Mail(address))
        }
        "https" => uri.parse().ok().map(Endpoint::Https),
        _ => None,
    }
}

/// Without %-escapes.
fn decoded(text: &str) -> Option<String> {
    let mut octets = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(octet) = octets.next() {
        decoded.push(match octet {
            b'%' => {
                let mut digit = || {
                    let digit = char::from(octets.next()?).to_digit(16)?;
                    u8::try_from(digit).ok()
                };
                let (high, low) = (digit()?, digit()?);
                high << 4 | low
            }
            octet => octet,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(record: &str) -> Option<Vec<String>> {
        let found = endpoints([record])?;
        let text = |endpoint| match endpoint {
            Endpoint::Mail(address) => address.as_str().to_owned(),
            Endpoint::Https(url) => format!("https://{}{}", url.authority(), url.path()),
        };
        Some(found.into_iter().map(text).collect())
    }

    #[test]
    fn reads_what_domains_publish() {
        for (record, found) in [
            (
                "v=TLSRPTv1;rua=mailto:reports@example.com",
                Some(&["reports@example.com"][..]),
            ),
            (
                "v=TLSRPTv1; rua=https://reporting.example.com/v1/tlsrpt",
                Some(&["https://reporting.example.com/v1/tlsrpt"]),
            ),
            (
                " v = TLSRPTv1 ; x=y; rua = mailto:a@example.com , https://b.example/c?d=1;",
                Some(&["a@example.com", "https://b.example/c?d=1"]),
            ),
            (
                "v=TLSRPTv1;rua=MAILTO:a%2bb@example.com?subject=x",
                Some(&["a+b@example.com"]),
            ),
            (
                "v=TLSRPTv1;rua=ftp://a.example,http://b.example,mailto:,mailto:x,c",
                Some(&[]),
            ),
            (
                "v=TLSRPTv1;rua=mailto:a%0d%0ab@example.com,mailto:a%zz@b.example",
                Some(&[]),
            ),
            ("v=TLSRPTv1;rua=", Some(&[])),
            ("v=TLSRPTv1;", None),
            ("v=TLSRPTv2;rua=mailto:a@example.com", None),
            ("v=spf1 -all", None),
            ("", None),
        ] {
            let found = found.map(|found| found.iter().map(|uri| (*uri).to_owned()).collect());
            assert_eq!(of(record), found, "{record}");
        }
    }

    #[test]
    fn of_several_records_none_counts_and_other_texts_are_passed_over() {
        let (first, second) = (
            "v=TLSRPTv1;rua=mailto:a@x.example",
            "v=TLSRPTv1;rua=mailto:b@x.example",
        );
        assert_eq!(endpoints([first, second]), None);
        assert_eq!(endpoints(["something else", first]).unwrap().len(), 1);
        let many = vec!["mailto:a@x.example"; 100].join(",");
        let found = endpoints([format!("v=TLSRPTv1;rua={many}").as_str()]);
        assert_eq!(found.unwrap().len(), MOST_ENDPOINTS);
    }

    proptest! {
        #[test]
        fn never_panics(record in "(v=TLSRPTv1;?)?(rua=|mailto:|https://|[%0-9a-f]{3}|[\\PC]{0,9}|[,;@]){0,12}") {
            if let Some(found) = endpoints([record.as_str()]) {
                prop_assert!(found.len() <= MOST_ENDPOINTS);
            }
        }
    }
}
