//! Names of addresses.

use std::net::IpAddr;

use hickory_resolver::proto::rr::{Name, RData, RecordType};
use mail::Domain;

use crate::{Error, Resolver};

/// Names of one address that are looked at.
const MOST_NAMES: usize = 16;

impl Resolver {
    /// The names that the PTR records of an address give it, at most 16; never empty. `NoSuchDomain` when there is none.
    /// Not kept: who asks does so rarely.
    pub async fn names(&self, address: IpAddr) -> Result<Vec<Domain>, Error> {
        let name = Name::from(address).to_ascii();
        let found = self.inner.asker.ask(&name, RecordType::PTR).await?;
        let names: Vec<Domain> = found
            .records
            .iter()
            .filter_map(|record| match &record.data {
                RData::PTR(name) => Domain::parse(name.to_ascii().trim_end_matches('.')).ok(),
                _ => None,
            })
            .take(MOST_NAMES)
            .collect();
        if names.is_empty() {
            return Err(Error::NoSuchDomain);
        }
        Ok(names)
    }
}
