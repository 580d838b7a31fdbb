//! The order in which the hosts of a site are tried.

use std::net::IpAddr;

use dns::MailHost;

/// Orders hosts for one connection: by preference, equals at random (RFC 5321 section 5.1). `None` when
/// the list leads back to ourselves: hosts of our own name, and those no more preferred, are left out
/// (RFC 5321 section 5.1), and nothing remains.
pub(super) fn in_order<'a>(
    hosts: &'a [MailHost],
    own_names: &[&str],
    mut random: impl FnMut() -> u64,
) -> Option<Vec<&'a str>> {
    let own = hosts
        .iter()
        .filter(|host| {
            own_names
                .iter()
                .any(|own| own.eq_ignore_ascii_case(&host.name))
        })
        .map(|host| host.preference)
        .min();
    let mut ordered: Vec<(u16, u64, &str)> = hosts
        .iter()
        .filter(|host| own.is_none_or(|own| host.preference < own))
        .map(|host| (host.preference, random(), &*host.name))
        .collect();
    ordered.sort_unstable();
    (!ordered.is_empty()).then(|| ordered.into_iter().map(|(_, _, name)| name).collect())
}

/// The address that a host name, an address literal (`[192.0.2.1]`, `[IPv6:2001:db8::1]`) or a bare address names by itself.
pub(super) fn literal(host: &str) -> Option<IpAddr> {
    let inner = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(host);
    let inner = match inner.get(..5) {
        Some(tag) if tag.eq_ignore_ascii_case("IPv6:") => &inner[5..],
        _ => inner,
    };
    inner.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(list: &[(u16, &str)]) -> Vec<MailHost> {
        list.iter()
            .map(|(preference, name)| MailHost {
                preference: *preference,
                name: (*name).into(),
            })
            .collect()
    }

    #[test]
    fn equals_come_in_random_order_and_never_before_the_preferred() {
        let hosts = hosts(&[(10, "a"), (10, "b"), (5, "first"), (20, "last")]);
        let mut seed = 0_u64;
        let mut seen = std::collections::HashSet::new();
        for _ in 0..50 {
            let order = in_order(&hosts, &[], || {
                seed = seed
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                seed >> 33
            })
            .unwrap();
            assert_eq!((order[0], order[3]), ("first", "last"));
            seen.insert(order[1].to_owned());
        }
        assert_eq!(seen.len(), 2);
    }

    #[test]
    fn hosts_of_our_own_name_and_those_behind_them_are_left_out() {
        let hosts = hosts(&[
            (10, "primary"),
            (20, "Relay.example"),
            (20, "beside"),
            (30, "behind"),
        ]);
        assert_eq!(
            in_order(&hosts, &["relay.example"], || 0),
            Some(vec!["primary"])
        );
        assert_eq!(in_order(&hosts[1..], &["relay.example"], || 0), None);
    }

    #[test]
    fn address_literals_name_their_address() {
        for (host, address) in [
            ("[127.0.0.1]", Some("127.0.0.1")),
            ("[IPv6:::1]", Some("::1")),
            ("192.0.2.1", Some("192.0.2.1")),
            ("a.example", None),
            ("", None),
        ] {
            assert_eq!(
                literal(host),
                address.map(|text| text.parse().unwrap()),
                "{host}"
            );
        }
    }
}
