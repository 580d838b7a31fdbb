//! The mail hosts of a domain.

/// A host that takes mail for a domain.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MailHost {
    /// Lower is tried first; equals in random order (RFC 5321 section 5.1).
    pub preference: u16,
    /// Lower case, A-labels, no final dot.
    pub name: Box<str>,
}

/// The mail hosts of a domain, by preference, then by name; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MailHosts {
    /// At most 20: the most preferred ones.
    pub hosts: Vec<MailHost>,
    /// There is no MX record: the only host is the domain itself (RFC 5321 section 5.1).
    pub implicit: bool,
    /// A server that is believed has checked it with DNSSEC: these are the hosts that the domain has named.
    pub secure: bool,
}

/// Hosts beyond these are not looked at.
const MOST_HOSTS: usize = 20;

/// Longest name of a site that lists its hosts, bytes.
const LONGEST_LIST: usize = 200;

impl MailHosts {
    /// From MX records in any order; `None` when there is none.
    pub(crate) fn from_records(mut records: Vec<MailHost>, secure: bool) -> Option<Self> {
        records.sort_unstable();
        let mut hosts: Vec<MailHost> = Vec::with_capacity(records.len().min(MOST_HOSTS));
        for record in records {
            if hosts.len() < MOST_HOSTS && !hosts.iter().any(|host| host.name == record.name) {
                hosts.push(record);
            }
        }
        (!hosts.is_empty()).then_some(Self {
            hosts,
            implicit: false,
            secure,
        })
    }

    /// The domain itself, without MX record.
    pub(crate) fn implicit(domain: &mail::Domain, secure: bool) -> Self {
        let host = MailHost {
            preference: 0,
            name: domain.as_str().into(),
        };
        Self {
            hosts: vec![host],
            implicit: true,
            secure,
        }
    }

    /// Name of the site: the same for all domains with the same set of hosts, whatever their
    /// preferences. The sorted names joined by commas; when that is longer than 200 bytes, the first
    /// name, the number of the others and a hash of the whole: `a.example+3#0123456789abcdef`.
    pub fn site(&self) -> String {
        let mut names: Vec<&str> = self.hosts.iter().map(|host| &*host.name).collect();
        names.sort_unstable();
        let list = names.join(",");
        if list.len() <= LONGEST_LIST {
            return list;
        }
        format!(
            "{}+{}#{:016x}",
            names[0],
            names.len() - 1,
            fnv1a(list.as_bytes())
        )
    }
}

/// FNV-1a, 64 bits: the name of a site must not change with a release of a hash library.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(preference: u16, name: &str) -> MailHost {
        MailHost {
            preference,
            name: name.into(),
        }
    }

    #[test]
    fn hosts_are_ordered_by_preference_and_each_is_kept_once() {
        let hosts = MailHosts::from_records(
            vec![
                host(20, "b.example"),
                host(10, "c.example"),
                host(30, "c.example"),
                host(10, "a.example"),
            ],
            false,
        )
        .unwrap();
        assert_eq!(
            hosts.hosts,
            [
                host(10, "a.example"),
                host(10, "c.example"),
                host(20, "b.example")
            ]
        );
        assert!(!hosts.implicit);
        assert_eq!(MailHosts::from_records(Vec::new(), false), None);
    }

    #[test]
    fn only_the_twenty_most_preferred_are_kept() {
        let many = (0..500)
            .rev()
            .map(|n| host(n, &format!("mx{n}.example")))
            .collect();
        let hosts = MailHosts::from_records(many, false).unwrap().hosts;
        assert_eq!(hosts.len(), 20);
        assert_eq!(hosts.last().unwrap().preference, 19);
    }

    #[test]
    fn the_site_does_not_depend_on_preferences() {
        let one =
            MailHosts::from_records(vec![host(10, "a.example"), host(20, "b.example")], false)
                .unwrap();
        let other =
            MailHosts::from_records(vec![host(20, "a.example"), host(10, "b.example")], false)
                .unwrap();
        assert_eq!(one.site(), "a.example,b.example");
        assert_eq!(one.site(), other.site());
    }

    #[test]
    fn long_sites_are_shortened_and_stay_distinct() {
        let of = |count: usize| {
            let records = (0..count)
                .map(|n| {
                    host(
                        1,
                        &format!("a-rather-long-host-name-{n:02}.mail.example.com"),
                    )
                })
                .collect();
            MailHosts::from_records(records, false).unwrap().site()
        };
        assert!(
            of(6).starts_with("a-rather-long-host-name-00.mail.example.com+5#"),
            "{}",
            of(6)
        );
        assert_eq!(
            of(6).len(),
            "a-rather-long-host-name-00.mail.example.com+5#".len() + 16
        );
        assert_ne!(of(6).split('#').next_back(), of(7).split('#').next_back());
        // The names of sites are in stored records: they stay what they are.
        assert_eq!(fnv1a(b"a.example"), fnv1a(b"a.example"));
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
