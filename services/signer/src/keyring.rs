//! The keys that sign, and how all keys stand, as of one moment.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use config::{Snapshot, WithoutKey};
use mail::Domain;
use proto::signer::{KeyPublication, KeyState, KeyUse, KeysAnswer, KeysRequest};

use crate::metrics::DomainMetrics;
use crate::rotation::{Publication, Use};

/// A key that signs, shared by the threads.
pub(crate) type DomainKey = Arc<dkim::Signer>;

/// Keys in one answer; those of a domain are not parted.
const KEYS_IN_ANSWER: usize = 1000;

/// The keys of all sending domains as of one moment. Never changes; a change makes another.
pub(crate) struct Keyring {
    pub snapshot: Arc<Snapshot>,
    rings: HashMap<Domain, Ring>,
    /// Of all keys, also of those that don't sign.
    states: BTreeMap<Domain, Arc<[Standing]>>,
}

/// What signs mail of one domain.
pub(crate) struct Ring {
    /// The domain's own, RSA first, then those of its service domain.
    keys: Vec<DomainKey>,
    own: usize,
    pub metrics: DomainMetrics,
}

impl Ring {
    /// The domain's own, RSA first.
    pub(crate) fn own(&self) -> &[DomainKey] {
        &self.keys[..self.own]
    }

    /// And those of its service domain.
    pub(crate) fn all(&self) -> &[DomainKey] {
        &self.keys
    }
}

/// How a configured key stands.
#[derive(Debug, Clone)]
pub(crate) struct Standing {
    pub selector: String,
    pub algorithm: &'static str,
    /// The last good one of its file.
    pub key: Option<DomainKey>,
    pub used: Use,
    pub publication: Publication,
    /// Text of its DNS record.
    pub record: Option<Arc<str>>,
    /// Of its file.
    pub problem: Option<String>,
}

impl Keyring {
    /// Joins what is known of the keys of each domain with those of its service domain.
    pub(crate) fn new(
        snapshot: &Arc<Snapshot>,
        states: BTreeMap<Domain, Arc<[Standing]>>,
        metrics: impl Fn(&Domain) -> DomainMetrics,
    ) -> Self {
        let active = |domain: &Domain| -> Vec<DomainKey> {
            let states = states.get(domain).map_or(&[][..], |states| states);
            let mut keys: Vec<DomainKey> = states
                .iter()
                .filter(|standing| standing.used == Use::Active)
                .filter_map(|standing| standing.key.clone())
                .collect();
            keys.sort_by_key(|key| key.algorithm() != dkim::Algorithm::RsaSha256);
            keys
        };
        let ring = |sending_domain: &Arc<config::SendingDomain>| {
            let domain = sending_domain.domain.clone();
            let mut keys = active(&domain);
            let own = keys.len();
            if let Some(service) = &sending_domain.service_domain {
                keys.extend(active(service));
            }
            let metrics = metrics(&domain);
            (domain, Ring { keys, own, metrics })
        };
        Self {
            snapshot: snapshot.clone(),
            rings: snapshot.sending_domains().map(ring).collect(),
            states,
        }
    }

    /// What signs mail of the sending domain of this name.
    pub(crate) fn of(&self, domain: &Domain) -> Option<&Ring> {
        self.rings.get(domain)
    }

    /// How all keys stand.
    pub(crate) fn standings(&self) -> impl Iterator<Item = (&Domain, &Standing)> {
        self.states.iter().flat_map(|(domain, standings)| {
            standings.iter().map(move |standing| (domain, standing))
        })
    }

    /// Why none of the domain's own keys signs.
    pub(crate) fn why_none(&self, domain: &Domain) -> String {
        let standings = self.states.get(domain).map_or(&[][..], |states| states);
        let pending = standings
            .iter()
            .find(|standing| standing.used == Use::Pending);
        match pending {
            Some(key) => format!(
                "no key of {domain} signs: {} waits until the DNS shows its public key",
                key.selector
            ),
            None if standings.is_empty() => format!("{domain} has no key"),
            None => format!("no key of {domain} is loaded"),
        }
    }

    /// Whether the service domain may sign alone for mail of this tenant and stream; `own` is mail of ours.
    pub(crate) fn may_go_without(
        &self,
        domain: &config::SendingDomain,
        tenant: &str,
        stream: &str,
        own: bool,
    ) -> bool {
        match domain.without_key {
            WithoutKey::Wait => false,
            WithoutKey::Service => true,
            WithoutKey::ByStream => {
                let tenant = self.snapshot.tenant(tenant);
                let stream = tenant.and_then(|tenant| tenant.stream(stream));
                own || stream.is_some_and(|stream| stream.priority == config::Priority::High)
            }
        }
    }

    /// A part of how all keys stand.
    pub(crate) fn answer(&self, request: &KeysRequest) -> KeysAnswer {
        let mut answer = KeysAnswer::default();
        if !request.domain.is_empty() {
            if let Ok(domain) = Domain::parse(&request.domain)
                && let Some((domain, standings)) = self.states.get_key_value(&domain)
            {
                let states = standings.iter().map(|standing| standing.told(domain));
                answer.keys.extend(states);
            }
            return answer;
        }
        let after = Domain::parse(&request.after).ok();
        let after = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
        for (domain, standings) in self.states.range((after, Bound::Unbounded)) {
            if answer.keys.len() >= KEYS_IN_ANSWER {
                answer.more = true;
                break;
            }
            let states = standings.iter().map(|standing| standing.told(domain));
            answer.keys.extend(states);
        }
        answer
    }
}

impl Standing {
    fn told(&self, domain: &Domain) -> KeyState {
        let key = self.key.as_ref().map(|signer| signer.key());
        let publication = match self.publication {
            Publication::Unknown => KeyPublication::Unspecified,
            Publication::Shown(_) => KeyPublication::Shown,
            Publication::Absent => KeyPublication::Absent,
            Publication::Other => KeyPublication::Other,
        };
        let (used, keep_until_ms) = match self.used {
            Use::Active => (KeyUse::Active, 0),
            Use::Pending => (KeyUse::Pending, 0),
            Use::Retiring(until) => (KeyUse::Retiring, until),
            Use::Missing => (KeyUse::Missing, 0),
        };
        KeyState {
            domain: domain.to_string(),
            selector: self.selector.clone(),
            algorithm: self.algorithm.to_owned(),
            bits: key.map_or(0, |key| u32::try_from(key.bits()).unwrap_or(u32::MAX)),
            r#use: used.into(),
            publication: publication.into(),
            record: self.record.as_deref().unwrap_or_default().to_owned(),
            problem: self.problem.clone().unwrap_or_default(),
            keep_until_ms,
        }
    }
}
