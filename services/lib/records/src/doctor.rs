//! All of it together.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use dns::Resolver;
use mail::Domain;
use runtime::HttpsClient;

use crate::spf::Spf;
use crate::{Finding, dmarc, inbound, keys, names, spf};

/// Looks from outside at what is published.
pub struct Doctor {
    resolver: Resolver,
    spf: Spf,
    https: Option<(HttpsClient, u16)>,
}

/// It can't look.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Neither servers were given nor does the system name any.
    #[error("the DNS can't be asked: {0}")]
    Dns(String),
}

/// Whom it looks at.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Domain of the authors.
    pub domain: Domain,
    /// The sending domain whose keys sign for it: the domain itself, or one above it.
    pub signed_by: Domain,
    /// Domain of the return path (MAIL FROM).
    pub return_path: Domain,
    /// Its keys.
    pub keys: Vec<Key>,
    /// Its mail goes out unsigned, as somebody said by name.
    pub unsigned: bool,
    /// Where it is sent from.
    pub sources: Vec<Source>,
}

/// A key of the domain.
#[derive(Debug, Clone)]
pub struct Key {
    /// Selector.
    pub selector: String,
    /// Text of the record that belongs to it; empty when its file could not be read.
    pub record: String,
    /// What the signer does with it.
    pub used: KeyUse,
    /// What the signer says of its file; empty when nothing is wrong.
    pub problem: String,
}

/// What the signer does with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyUse {
    /// It signs.
    Active,
    /// It waits for its record.
    Pending,
    /// It was replaced, and its record is still needed.
    Retiring,
    /// Its record is not needed any more.
    Retired,
    /// Its file can't be read.
    Missing,
}

/// An egress source.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name in the configuration.
    pub name: String,
    /// `None`: the system chooses one, and nothing is known.
    pub address: Option<IpAddr>,
    /// Its name in EHLO.
    pub ehlo: String,
}

impl Doctor {
    /// One that asks these servers; none = those of the system.
    pub fn new(servers: &[SocketAddr]) -> Result<Self, Error> {
        let resolver = Resolver::new(servers).map_err(|error| Error::Dns(error.to_string()))?;
        let spf = Spf::new(servers).map_err(Error::Dns)?;
        Ok(Self {
            resolver,
            spf,
            https: None,
        })
    }

    /// Fetches MTA-STS policies, too, from servers whose certificates are signed by an authority in this PEM file, or by
    /// one that the system trusts. `port` is 443 in the world. Without it the records alone are looked at.
    pub fn fetch(
        &mut self,
        authorities: Option<&Path>,
        port: u16,
    ) -> Result<(), runtime::TlsError> {
        self.https = Some((HttpsClient::trusting(authorities)?, port));
        Ok(())
    }

    /// Looks at everything; the findings are in the order of [`crate::Topic`].
    pub async fn examine(&self, subject: &Subject) -> Vec<Finding> {
        let resolver = &self.resolver;
        let mut findings = spf::examine(&self.spf, subject).await;
        findings.extend(keys::examine(resolver, subject).await);
        findings.extend(dmarc::examine(resolver, subject).await);
        findings.extend(inbound::return_path(resolver, subject).await);
        findings.extend(names::examine(resolver, subject).await);
        findings.push(inbound::mta_sts(resolver, self.https.as_ref(), subject).await);
        findings.push(inbound::tls_rpt(resolver, subject).await);
        findings
    }
}
