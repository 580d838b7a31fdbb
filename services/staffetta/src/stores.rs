//! Connecting to the stores as the bootstrap file says.

use runtime::Bootstrap;
use runtime::bootstrap::Durability;
use spool::{Access, Options, Stores};

/// How to reach the stores, for a service or command of this name.
pub(crate) fn options(bootstrap: &Bootstrap, name: &str) -> Options {
    let nats = &bootstrap.nats;
    let certificate = nats.certificate.as_ref();
    Options {
        url: nats.url.clone(),
        access: Access {
            login: nats.login.clone(),
            credentials: nats.credentials.clone(),
            authorities: nats.authorities.clone(),
            certificate: certificate.map(|files| (files.certificate.clone(), files.key.clone())),
        },
        monitor: nats.monitor.clone(),
        name: format!("staffetta-{name}"),
        durability: match bootstrap.durability {
            Durability::Strict => spool::Durability::Strict,
            Durability::Relaxed => spool::Durability::Relaxed,
        },
    }
}

/// Connects once.
pub(crate) async fn connect(bootstrap: &Bootstrap, name: &str) -> anyhow::Result<Stores> {
    Ok(Stores::connect(&options(bootstrap, name)).await?)
}
