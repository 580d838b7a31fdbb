//! What a delivery asks of the connection that it goes over.

mod host;

use std::sync::Arc;

use sts::{Mode, Policy};

use super::dane::{Dane, Proved};
use crate::lane::TlsPolicy;

pub(super) use host::HostDemand;

/// What the sender of a message wants of TLS (RFC 8689).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Wish {
    /// Nothing is said.
    #[default]
    Usual,
    /// REQUIRETLS: only to hosts that are known to be the right ones, and that keep it, too.
    Required,
    /// `TLS-Required: No`: what the domains of recipients say is passed over.
    Optional,
}

/// How strictly TLS is asked for; what is stricter includes what is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Level {
    /// Not at all.
    Plain,
    /// Where it works.
    Opportunistic,
    /// With any certificate.
    Encrypted,
    /// With a certificate that is valid for the host's name.
    Verified,
    /// With one that the host's TLSA records name.
    Named,
}

/// With what a connection is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encryption {
    None,
    AnyCertificate,
    ValidCertificate,
    NamedCertificate,
}

/// What a host does not have that is asked for: definite, for as long as nobody changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    /// The domain's policy does not name it.
    Host,
    /// It offers no TLS, or none that we could speak.
    Tls,
    /// Its certificate is not valid for its name, or none that its TLSA records name.
    Certificate,
    /// It does not announce REQUIRETLS.
    RequireTls,
}

impl Lack {
    /// Value of the label `result`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Host => "host",
            Self::Tls => "no_tls",
            Self::Certificate => "certificate",
            Self::RequireTls => "no_requiretls",
        }
    }
}

/// What of TLS was seen lately at an address.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    /// It does not work.
    pub broken: bool,
    /// The certificate was valid.
    pub valid: bool,
    /// The certificate was not valid.
    pub invalid: bool,
}

/// A connection, as far as it matters here.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer<'a> {
    pub host: &'a str,
    pub tls: bool,
    /// Its certificate is valid for `host`.
    pub verified: bool,
    /// What it has shown of what its TLSA records name.
    pub proved: Option<&'a Proved>,
    /// It announces REQUIRETLS.
    pub require_tls: bool,
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Demand {
    wish: Wish,
    /// The recipient domain's, in mode enforce or testing.
    policy: Option<Arc<Policy>>,
    /// The recipient domain, when DNSSEC says which are its hosts: what it says of them holds.
    signed: Option<Arc<str>>,
    /// The recipient domain, when it may be told what TLS came to.
    reported_to: Option<Arc<str>>,
}

impl Demand {
    pub fn new(wish: Wish, policy: Option<Arc<Policy>>) -> Self {
        Self {
            wish,
            policy,
            signed: None,
            reported_to: None,
        }
    }

    /// DNSSEC says which are the hosts of this recipient domain.
    pub fn signed(self, domain: &str) -> Self {
        let signed = Some(domain.into());
        Self { signed, ..self }
    }

    /// The recipient domain may be told what TLS comes to.
    pub fn reported_to(self, domain: &str) -> Self {
        let reported_to = Some(domain.into());
        Self {
            reported_to,
            ..self
        }
    }

    /// The recipient domain, when DNSSEC says which are its hosts.
    pub(super) fn signed_domain(&self) -> Option<&Arc<str>> {
        self.signed.as_ref()
    }

    /// What is asked of a host of which DNSSEC says this.
    pub(super) fn of(&self, dane: Dane) -> HostDemand<'_> {
        HostDemand::new(self, dane)
    }

    pub fn requires_tls(&self) -> bool {
        self.wish == Wish::Required
    }

    /// The policy that forbids.
    pub(super) fn enforced(&self) -> Option<&Policy> {
        let policy = self.policy.as_deref();
        policy.filter(|policy| policy.mode == Mode::Enforce)
    }

    /// The policy that is only tried out.
    fn tested(&self) -> Option<&Policy> {
        let policy = self.policy.as_deref();
        policy.filter(|policy| policy.mode == Mode::Testing)
    }

    /// Value of the label `policy`: who asks for what a host may lack.
    pub(super) fn name(&self) -> Option<&'static str> {
        match (self.wish, self.policy.as_ref().map(|policy| policy.mode)) {
            (Wish::Required, _) => Some("requiretls"),
            (_, Some(Mode::Enforce)) => Some("mta_sts_enforce"),
            (_, Some(Mode::Testing)) => Some("mta_sts_testing"),
            (_, Some(Mode::None) | None) => None,
        }
    }

    /// The stricter of what the shaping says, and what the domain and the message ask for.
    pub(super) fn level(&self, shaped: TlsPolicy) -> Level {
        let shaped = match shaped {
            TlsPolicy::None => Level::Plain,
            TlsPolicy::Opportunistic => Level::Opportunistic,
            TlsPolicy::Required => Level::Encrypted,
            TlsPolicy::Verified => Level::Verified,
        };
        if self.requires_tls() || self.enforced().is_some() {
            Level::Verified
        } else {
            shaped
        }
    }

    /// Whether nothing may go to a host of this name.
    pub(super) fn forbids(&self, host: &str) -> bool {
        self.enforced().is_some_and(|policy| !policy.takes(host))
    }

    /// What is tried at an address, in turn, as long as TLS fails.
    pub(super) fn steps(&self, shaped: TlsPolicy, seen: Seen) -> &'static [Encryption] {
        use Encryption::{AnyCertificate, None, ValidCertificate};
        // So that the connection serves domains with a policy and without one; and to see what a policy in testing would
        // have done.
        let tries_valid = (seen.valid || self.tested().is_some()) && !seen.invalid;
        match self.level(shaped) {
            Level::Verified | Level::Named => &[ValidCertificate],
            Level::Encrypted if tries_valid => &[ValidCertificate, AnyCertificate],
            Level::Encrypted => &[AnyCertificate],
            Level::Opportunistic if seen.broken => &[None],
            Level::Opportunistic if tries_valid => &[ValidCertificate, AnyCertificate, None],
            Level::Opportunistic => &[AnyCertificate, None],
            Level::Plain => &[None],
        }
    }

    /// What the peer of a connection lacks, were everything enforced that is only tried out.
    pub(super) fn lack(&self, peer: Peer<'_>) -> Option<Lack> {
        let policy = self.policy.as_deref();
        if policy.is_some_and(|policy| !policy.takes(peer.host)) {
            Some(Lack::Host)
        } else if !peer.tls {
            Some(Lack::Tls)
        } else if !peer.verified {
            Some(Lack::Certificate)
        } else if self.requires_tls() && !peer.require_tls {
            Some(Lack::RequireTls)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Encryption::{AnyCertificate, None as Clear, ValidCertificate};

    pub(super) fn policy(mode: &str) -> Option<Arc<Policy>> {
        let text = format!("version: STSv1\nmode: {mode}\nmx: *.dest.example\nmax_age: 1000\n");
        Some(Arc::new(Policy::parse(text.as_bytes()).unwrap()))
    }

    const SHAPED: [TlsPolicy; 4] = [
        TlsPolicy::None,
        TlsPolicy::Opportunistic,
        TlsPolicy::Required,
        TlsPolicy::Verified,
    ];

    pub(super) fn peer(host: &str) -> Peer<'_> {
        Peer {
            host,
            tls: true,
            verified: true,
            proved: None,
            require_tls: true,
        }
    }

    #[test]
    fn what_is_stricter_holds_and_the_wish_for_none_lowers_only_what_domains_say() {
        let usual = [
            Level::Plain,
            Level::Opportunistic,
            Level::Encrypted,
            Level::Verified,
        ];
        for (demand, levels) in [
            (Demand::default(), usual),
            (Demand::new(Wish::Usual, policy("testing")), usual),
            (
                Demand::new(Wish::Usual, policy("enforce")),
                [Level::Verified; 4],
            ),
            (
                Demand::new(Wish::Required, policy("enforce")),
                [Level::Verified; 4],
            ),
            // At a smart host there is no policy to ask for.
            (Demand::new(Wish::Required, None), [Level::Verified; 4]),
            // Its policy is not looked at.
            (Demand::new(Wish::Optional, None), usual),
        ] {
            assert_eq!(
                SHAPED.map(|shaped| demand.level(shaped)),
                levels,
                "{demand:?}"
            );
        }
    }

    #[test]
    fn a_connection_serves_whom_its_peer_satisfies() {
        let good = peer("mx.dest.example");
        let usual = Demand::default();
        let optional = Demand::new(Wish::Optional, None);
        let testing = Demand::new(Wish::Usual, policy("testing"));
        let enforced = Demand::new(Wish::Usual, policy("enforce"));
        let required = Demand::new(Wish::Required, policy("enforce"));
        let clear = Peer {
            tls: false,
            verified: false,
            require_tls: false,
            ..good
        };
        let unverified = Peer {
            verified: false,
            ..good
        };
        let other = peer("mx.other.example");
        let unable = Peer {
            require_tls: false,
            ..good
        };
        for (name, peer, weak, enforced_takes, required_takes, lack) in [
            ("good", good, true, true, true, None),
            ("clear", clear, true, false, false, Some(Lack::Tls)),
            (
                "unverified",
                unverified,
                true,
                false,
                false,
                Some(Lack::Certificate),
            ),
            ("other", other, true, false, false, Some(Lack::Host)),
            ("unable", unable, true, true, false, Some(Lack::RequireTls)),
        ] {
            for shaped in [TlsPolicy::None, TlsPolicy::Opportunistic] {
                for demand in [&usual, &optional, &testing] {
                    assert_eq!(
                        demand.of(Dane::Absent).is_met(shaped, peer),
                        weak,
                        "{name} {demand:?}"
                    );
                }
                assert_eq!(
                    enforced.of(Dane::Absent).is_met(shaped, peer),
                    enforced_takes,
                    "{name}"
                );
                assert_eq!(
                    required.of(Dane::Absent).is_met(shaped, peer),
                    required_takes,
                    "{name}"
                );
            }
            assert_eq!(required.lack(peer), lack, "{name}");
            assert_eq!(
                usual.of(Dane::Absent).is_met(TlsPolicy::Required, peer),
                peer.tls,
                "{name}"
            );
            for dane in [Dane::Absent, Dane::Unusable] {
                let met = usual.of(dane).is_met(TlsPolicy::Verified, peer);
                assert_eq!(met, peer.verified, "{name}");
            }
        }
        assert!(enforced.forbids("mx.other.example") && !testing.forbids("mx.other.example"));
    }

    #[test]
    fn tls_is_tried_from_the_strictest_down_as_far_as_it_may_go() {
        let seen = |broken, valid, invalid| Seen {
            broken,
            valid,
            invalid,
        };
        let nothing = Seen::default();
        let usual = Demand::default();
        let testing = Demand::new(Wish::Usual, policy("testing"));
        let enforced = Demand::new(Wish::Usual, policy("enforce"));
        let (plain, maybe, must) = (SHAPED[0], SHAPED[1], SHAPED[2]);
        for (demand, shaped, seen, steps) in [
            (&usual, plain, nothing, &[Clear][..]),
            (&usual, maybe, nothing, &[AnyCertificate, Clear]),
            (&usual, maybe, seen(true, true, false), &[Clear]),
            (
                &usual,
                maybe,
                seen(false, true, false),
                &[ValidCertificate, AnyCertificate, Clear],
            ),
            (
                &usual,
                maybe,
                seen(false, true, true),
                &[AnyCertificate, Clear],
            ),
            (&usual, must, seen(true, false, false), &[AnyCertificate]),
            (
                &usual,
                must,
                seen(false, true, false),
                &[ValidCertificate, AnyCertificate],
            ),
            (
                &testing,
                maybe,
                nothing,
                &[ValidCertificate, AnyCertificate, Clear],
            ),
            (
                &testing,
                maybe,
                seen(false, false, true),
                &[AnyCertificate, Clear],
            ),
            (&testing, plain, nothing, &[Clear]),
            (
                &usual,
                SHAPED[3],
                seen(true, false, true),
                &[ValidCertificate],
            ),
            (&enforced, plain, nothing, &[ValidCertificate]),
            (
                &enforced,
                maybe,
                seen(true, false, true),
                &[ValidCertificate],
            ),
        ] {
            assert_eq!(
                demand.steps(shaped, seen),
                steps,
                "{demand:?} {shaped:?} {seen:?}"
            );
        }
    }
}
