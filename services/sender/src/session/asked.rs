//! What is asked of a host, found out before it is spoken to.

use proto::journal::{Reply, Stage};

use super::connection::Connection;
use super::dane::Dane;
use super::demand::{Demand, HostDemand};
use super::fault::Fault;
use super::open::Opener;
use super::own_words;
use crate::lane::Lane;

impl Opener {
    /// Whether mail of which this is asked may go over the connection.
    pub async fn serves(&self, lane: &Lane, connection: &Connection, demand: &Demand) -> bool {
        match self.dane(lane, &connection.host, demand).await {
            Ok(dane) => {
                let asked = demand.of(dane);
                connection.is_by_way_of(lane) && asked.is_met(lane.tls, connection.peer())
            }
            Err(_) => false,
        }
    }

    /// What is asked of a host. What it must show has to be known before it is spoken to (RFC 7672 section 2.1.2).
    pub(super) async fn asked<'a>(
        &self,
        lane: &Lane,
        host: &str,
        demand: &'a Demand,
    ) -> Result<HostDemand<'a>, Reply> {
        let dane = match self.dane(lane, host, demand).await {
            // It has no address: that says enough.
            Err(error) if error.is_permanent() => Ok(Dane::Absent),
            dane => dane,
        };
        if demand.signed_domain().is_some() {
            self.metrics.tlsa_lookup(match &dane {
                Ok(Dane::Absent) => "none",
                Ok(Dane::Unusable) => "unusable",
                Ok(Dane::Usable(_)) => "usable",
                Err(_) => "failed",
            });
        }
        let dane = dane.map_err(|error| {
            let unknown = demand.of(Dane::Unusable);
            self.tls_came_to(lane, &unknown, host, None, Some(Fault::DnssecInvalid));
            let text = format!("TLSA records of the host: {error}");
            own_words(Stage::Dns, 0, "4.7.5", &text)
        })?;
        Ok(demand.of(dane))
    }

    /// What DNSSEC says of a host of the domain.
    async fn dane(&self, lane: &Lane, host: &str, demand: &Demand) -> Result<Dane, dns::Error> {
        if demand.signed_domain().is_none() {
            return Ok(Dane::Absent);
        }
        let family = lane.reach.family;
        let found = self.names.resolver.tlsa(host, lane.port, family).await;
        found.map(Dane::from)
    }
}
