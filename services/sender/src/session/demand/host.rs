//! What a delivery asks of one host, of which DNSSEC may say something.

use std::sync::Arc;

use dns::TlsaRecord;

use super::{Demand, Encryption, Lack, Level, Peer, Seen};
use crate::lane::TlsPolicy;
use crate::session::dane::{Dane, Proved};
use crate::session::fault::Fault;

/// See the module.
#[derive(Debug, Clone)]
pub(in crate::session) struct HostDemand<'a> {
    demand: &'a Demand,
    dane: Dane,
}

impl<'a> HostDemand<'a> {
    pub(super) fn new(demand: &'a Demand, dane: Dane) -> Self {
        Self { demand, dane }
    }

    pub fn dane(&self) -> &Dane {
        &self.dane
    }

    /// See [`Demand::signed_domain`].
    pub fn signed_domain(&self) -> Option<Arc<str>> {
        self.demand.signed.clone()
    }

    /// See [`Demand::name`].
    pub fn name(&self) -> Option<&'static str> {
        match self.dane {
            _ if self.demand.requires_tls() => self.demand.name(),
            Dane::Usable(_) => Some("dane"),
            Dane::Unusable => Some(self.demand.name().unwrap_or("dane_unusable")),
            Dane::Absent => self.demand.name(),
        }
    }

    /// Whose policy it is: the `policy-type` of RFC 8460 section 4.2.
    pub fn policy_type(&self) -> &'static str {
        match (&self.dane, &self.demand.policy) {
            (Dane::Usable(_), _) | (Dane::Unusable, None) => "tlsa",
            (_, Some(_)) => "sts",
            (Dane::Absent, None) => "no-policy-found",
        }
    }

    /// The recipient domain, when it may be told what TLS comes to.
    pub fn reported_to(&self) -> Option<&'a str> {
        self.demand.reported_to.as_deref()
    }

    /// The policy of the domain that holds for the host, as it is reported (RFC 8460 section 4.4). The domain of TLSA records is
    /// the name that has them; that of others is the recipient's.
    pub fn policy_of(&self, domain: &str, host: &str) -> tlsrpt::Policy {
        let kind = self.policy_type();
        let mut policy = tlsrpt::Policy {
            kind: kind.to_owned(),
            domain: domain.to_owned(),
            ..tlsrpt::Policy::default()
        };
        match (&self.dane, &self.demand.policy) {
            (Dane::Usable(tlsa), _) => {
                policy.domain = tlsa.base.to_string();
                policy.lines = tlsa.records.iter().filter_map(record_text).collect();
            }
            (Dane::Unusable, None) => policy.domain = host.to_owned(),
            (_, Some(sts)) => {
                policy.lines = sts.lines();
                policy.hosts = sts.hosts().collect();
            }
            (Dane::Absent, None) => {}
        }
        policy
    }

    /// What is wrong before the host is spoken to.
    pub fn fault(&self) -> Option<Fault> {
        (self.dane == Dane::Unusable && self.demand.policy.is_none()).then_some(Fault::TlsaInvalid)
    }

    /// What is wrong with a connection that was made so, for whoever has the policy.
    pub fn fault_of(&self, tried: Encryption, peer: Peer<'_>) -> Option<Fault> {
        let lacks = || match self.lack(peer) {
            Some(Lack::Host | Lack::Certificate) => Some(Fault::Other),
            _ => None,
        };
        match (tried, self.policy_type()) {
            (Encryption::None, _) => None,
            _ if !peer.tls => Some(Fault::NoStarttls),
            (_, "no-policy-found") => None,
            _ => lacks(),
        }
    }

    /// See [`Demand::level`]. What can be used decides, whatever else is asked for; and TLS is announced where something is
    /// that can't (RFC 7672 section 2.2).
    pub fn level(&self, shaped: TlsPolicy) -> Level {
        let level = self.demand.level(shaped);
        match self.dane {
            Dane::Usable(_) => Level::Named,
            Dane::Unusable => level.max(Level::Encrypted),
            Dane::Absent => level,
        }
    }

    /// See [`Demand::forbids`]: nobody has to name a host with MTA-STS that is named with DANE (RFC 8461 section 2).
    pub fn forbids(&self, host: &str) -> bool {
        !matches!(self.dane, Dane::Usable(_)) && self.demand.forbids(host)
    }

    /// See [`Demand::steps`].
    pub fn steps(&self, shaped: TlsPolicy, seen: Seen) -> &'static [Encryption] {
        match self.dane {
            Dane::Usable(_) => &[Encryption::NamedCertificate],
            Dane::Unusable if self.level(shaped) == Level::Encrypted => {
                self.demand.steps(TlsPolicy::Required, seen)
            }
            Dane::Unusable | Dane::Absent => self.demand.steps(shaped, seen),
        }
    }

    /// See [`Demand::lack`].
    pub fn lack(&self, peer: Peer<'_>) -> Option<Lack> {
        let Dane::Usable(tlsa) = &self.dane else {
            return match self.dane {
                Dane::Unusable if self.demand.name().is_none() => (!peer.tls).then_some(Lack::Tls),
                _ => self.demand.lack(peer),
            };
        };
        let domain = self.demand.signed.as_deref();
        let is_enough = |proved: &Proved| proved.is_enough(tlsa, domain);
        if !peer.tls {
            Some(Lack::Tls)
        } else if !peer.proved.is_some_and(is_enough) {
            Some(Lack::Certificate)
        } else if self.demand.requires_tls() && !peer.require_tls {
            Some(Lack::RequireTls)
        } else {
            None
        }
    }

    /// Whether the mail may go over a connection to this peer.
    pub fn is_met(&self, shaped: TlsPolicy, peer: Peer<'_>) -> bool {
        match self.level(shaped) {
            Level::Plain | Level::Opportunistic => true,
            Level::Encrypted => peer.tls,
            // Records that can't be used take nothing away from what else is asked.
            Level::Verified => self.demand.lack(peer).is_none(),
            Level::Named => self.lack(peer).is_none(),
        }
    }
}

/// Octets of a TLSA record that is reported; a whole certificate may be of many thousands.
const LONGEST_RECORD: usize = 512;

/// As zone files have it (RFC 6698 section 2.2).
fn record_text(record: &TlsaRecord) -> Option<String> {
    if record.data.len() > LONGEST_RECORD {
        return None;
    }
    let digits: String = record
        .data
        .iter()
        .map(|octet| format!("{octet:02x}"))
        .collect();
    let TlsaRecord {
        usage,
        selector,
        matching,
        ..
    } = record;
    Some(format!("{usage} {selector} {matching} {digits}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::demand::Wish;
    use crate::session::demand::tests::{peer, policy};
    use Encryption::{AnyCertificate, None as Clear, ValidCertificate};

    #[test]
    fn what_dnssec_says_of_a_host_goes_before_all_else() {
        let record = |usage| dns::TlsaRecord {
            usage,
            selector: 1,
            matching: 1,
            data: [0; 32].into(),
        };
        let of = |usage| -> Dane {
            let tlsa = dns::Tlsa {
                base: "mx.dest.example".into(),
                records: [record(usage)].into(),
            };
            Some(Arc::new(tlsa)).into()
        };
        let usual = Demand::default().signed("dest.example");
        let enforced = Demand::new(Wish::Usual, policy("enforce")).signed("dest.example");
        let testing = Demand::new(Wish::Usual, policy("testing")).signed("dest.example");
        let (usable, unusable) = (of(3), of(1));
        for (demand, dane, level, steps, name, policy_type) in [
            (
                &usual,
                &usable,
                Level::Named,
                &[Encryption::NamedCertificate][..],
                Some("dane"),
                "tlsa",
            ),
            (
                &enforced,
                &usable,
                Level::Named,
                &[Encryption::NamedCertificate],
                Some("dane"),
                "tlsa",
            ),
            (
                &usual,
                &unusable,
                Level::Encrypted,
                &[AnyCertificate],
                Some("dane_unusable"),
                "tlsa",
            ),
            (
                &testing,
                &unusable,
                Level::Encrypted,
                &[ValidCertificate, AnyCertificate],
                Some("mta_sts_testing"),
                "sts",
            ),
            (
                &enforced,
                &unusable,
                Level::Verified,
                &[ValidCertificate],
                Some("mta_sts_enforce"),
                "sts",
            ),
            (
                &enforced,
                &Dane::Absent,
                Level::Verified,
                &[ValidCertificate],
                Some("mta_sts_enforce"),
                "sts",
            ),
            (
                &usual,
                &Dane::Absent,
                Level::Plain,
                &[Clear],
                None,
                "no-policy-found",
            ),
        ] {
            let demand = demand.of(dane.clone());
            assert_eq!(demand.level(TlsPolicy::None), level, "{demand:?}");
            let found = demand.steps(TlsPolicy::None, Seen::default());
            assert_eq!(found, steps, "{demand:?}");
            assert_eq!(demand.name(), name, "{demand:?}");
            assert_eq!(demand.policy_type(), policy_type, "{demand:?}");
        }
        // To be valid for its name is not what is asked; and any certificate will do where nothing can be used.
        let peer = peer("mx.dest.example");
        assert_eq!(usual.of(usable.clone()).lack(peer), Some(Lack::Certificate));
        assert!(!usual.of(usable.clone()).is_met(TlsPolicy::None, peer));
        assert!(usual.of(unusable.clone()).is_met(TlsPolicy::None, peer));
        let clear = Peer { tls: false, ..peer };
        assert!(!usual.of(unusable.clone()).is_met(TlsPolicy::None, clear));
        assert!(!enforced.of(usable).forbids("mx.other.example"));
        assert!(enforced.of(unusable.clone()).forbids("mx.other.example"));
        let fault = |demand: &Demand, tried, peer| demand.of(Dane::Absent).fault_of(tried, peer);
        assert_eq!(usual.of(unusable).fault(), Some(Fault::TlsaInvalid));
        assert_eq!(
            fault(&usual, AnyCertificate, clear),
            Some(Fault::NoStarttls)
        );
        assert_eq!(fault(&usual, Clear, clear), None);
        let unverified = Peer {
            verified: false,
            ..peer
        };
        assert_eq!(fault(&usual, AnyCertificate, unverified), None);
        assert_eq!(
            fault(&testing, AnyCertificate, unverified),
            Some(Fault::Other)
        );
        assert_eq!(fault(&testing, ValidCertificate, peer), None);
    }
}
