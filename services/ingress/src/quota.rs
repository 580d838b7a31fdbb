//! Quotas: how much a tenant, a credential and a client's network may send, counted over all pods.

use std::path::PathBuf;
use std::time::Duration;

use config::{OverQuota, Quota};
use limits::{Charged, Quotas, Receipt, Scope, WindowLimit};
use runtime::bootstrap::Redis;
use runtime::one_client;
use smtp::EnhancedCode;

use crate::answer::{self, Answer};
use crate::policy::Sender;
use crate::proxy::Client;
use crate::watching;

/// Mail over a quota is queued for so long when nothing is said.
const QUEUE_UP_TO: Duration = Duration::from_secs(3600);

/// The connection to Redis can't even be tried.
#[derive(Debug, thiserror::Error)]
pub enum QuotaError {
    /// The file with the authorities for Redis can't be read.
    #[error("redis.authorities {path}: {source}")]
    Authorities {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The Redis URL is no URL.
    #[error("Redis: {0}")]
    Url(#[from] limits::Error),
}

/// Begins to connect to Redis. Without it, each of `replicas` processes has its part of every quota.
pub(crate) fn connect(redis: &Redis, replicas: u32) -> Result<Quotas, QuotaError> {
    let read = |path: &PathBuf| {
        std::fs::read(path).map_err(|source| QuotaError::Authorities {
            path: path.clone(),
            source,
        })
    };
    let options = limits::Options {
        login: redis.login.clone(),
        authorities: redis.authorities.as_ref().map(read).transpose()?,
        ..limits::Options::new(&redis.url)
    };
    Ok(Quotas::connect(options, replicas)?)
}

/// What is charged for a message until it is accepted; given back when it is dropped before.
pub(crate) struct Charge {
    quotas: Quotas,
    receipt: Option<Receipt>,
}

impl Charge {
    /// The message waits for so long before it goes out.
    pub(crate) fn wait(&self) -> Duration {
        self.receipt
            .as_ref()
            .map_or(Duration::ZERO, |receipt| receipt.wait)
    }

    /// The message was accepted.
    pub(crate) fn keep(mut self) {
        self.receipt = None;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        if let Some(receipt) = self.receipt.take() {
            let quotas = self.quotas.clone();
            tokio::spawn(async move { quotas.give_back(receipt).await });
        }
    }
}

/// Charges the recipients of a message, or says what its client is told. `None` = there are no quotas for it.
pub(crate) async fn charge(
    quotas: &Quotas,
    sender: &Sender,
    client: Client,
    recipients: usize,
) -> Result<Option<Charge>, Answer> {
    let (tenant, credential) = (&sender.rules.tenant.limits, &sender.rules.credential.limits);
    let is_slowed = watching::pace(sender).is_some();
    if !tenant.has_quotas() && !credential.has_quotas() && !is_slowed {
        return Ok(None);
    }
    let mut over_quota = credential
        .over_quota
        .or(tenant.over_quota)
        .unwrap_or_default();
    if is_slowed && over_quota == OverQuota::Reject {
        // Its own mail comes back when it may have been an error.
        over_quota = OverQuota::Defer;
    }
    let latest = match over_quota {
        OverQuota::Queue => credential
            .queue_up_to
            .or(tenant.queue_up_to)
            .map_or(QUEUE_UP_TO, |span| span.duration()),
        OverQuota::Defer | OverQuota::Reject => Duration::ZERO,
    };
    let charged = quotas
        .charge(
            &sender.tenant,
            &scopes(sender, client),
            recipients as u64,
            latest,
        )
        .await;
    match charged {
        Charged::Yes(receipt) => Ok(Some(Charge {
            quotas: quotas.clone(),
            receipt: Some(receipt),
        })),
        Charged::Over { .. } if over_quota == OverQuota::Reject => Err(answer::OVER_QUOTA),
        Charged::Over { retry_after } => {
            let seconds = retry_after.as_millis().div_ceil(1000);
            Err(Answer::with(
                451,
                EnhancedCode(4, 7, 28),
                format!("Quota exceeded; try again in {seconds} seconds"),
            ))
        }
        Charged::MonthUsedUp => Err(answer::MONTH_USED_UP),
        Charged::Never => Err(answer::OVER_QUOTA),
    }
}

/// Everything that is counted for a message of this sender from this client.
fn scopes(sender: &Sender, client: Client) -> Vec<Scope> {
    let (tenant, credential) = (&sender.rules.tenant.limits, &sender.rules.credential.limits);
    let network = client.is_known().then(|| one_client(client.address));
    let mut scopes = Vec::with_capacity(2);
    let mut add = |key: String, quotas: &[Quota], monthly: Option<u64>| {
        let windows = quotas.iter().map(|quota| WindowLimit {
            length_ms: quota.window.as_millis(),
            limit: quota.count,
        });
        let month = monthly.map(|limit| WindowLimit {
            length_ms: 0,
            limit,
        });
        let windows: Vec<WindowLimit> = windows.chain(month).collect();
        if !windows.is_empty() {
            scopes.push(Scope { key, windows });
        }
    };
    let name = &sender.credential;
    add("tenant".to_owned(), &tenant.quotas, tenant.monthly);
    add(
        format!("credential/{name}"),
        &credential.quotas,
        credential.monthly,
    );
    if let Some(pace) = watching::pace(sender) {
        add(format!("credential/{name}/slow"), &[pace], None);
    }
    if let Some(network) = network {
        add(format!("from/{network}"), &tenant.network_quotas, None);
        add(
            format!("credential/{name}/from/{network}"),
            &credential.network_quotas,
            None,
        );
    }
    scopes
}

#[cfg(test)]
mod tests {
    use config::Snapshot;
    use mail::Address;

    use super::*;
    use crate::policy;

    const DOCUMENTS: &str = "
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: acme }
spec: { defaultStream: bulk, streams: [ { name: bulk } ], limits: { quotas: [ 5000/h ], monthly: 100000 } }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-net }
spec: { tenant: acme, networks: [ \"192.0.2.0/24\", \"2001:db8::/32\" ], limits: { quotas: [ 300/m, 10000/12h ], networkQuotas: [ 60/m ] } }
---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: { name: acme.example }
spec: { tenant: acme, unsigned: true }
";

    fn keys(client: &str) -> Vec<String> {
        let snapshot = Snapshot::from_documents(DOCUMENTS).unwrap();
        let client = Client::connected(client.parse().unwrap());
        let path = Address::parse("a@acme.example").unwrap();
        let sender = policy::authorise(&snapshot, None, &[], client, Some(&path)).unwrap();
        assert_eq!(sender.most_at_once(), Some(60));
        let show = |scope: Scope| {
            let windows: Vec<String> = scope
                .windows
                .iter()
                .map(|window| format!("{}/{}", window.limit, window.length_ms))
                .collect();
            format!("{} {}", scope.key, windows.join(" "))
        };
        scopes(&sender, client).into_iter().map(show).collect()
    }

    #[test]
    fn who_is_slowed_has_a_quota_more_and_no_message_that_never_fits() {
        let watched = DOCUMENTS.replace(
            "spec: { defaultStream",
            "spec: { watch: { slowTo: 30/h }, defaultStream",
        );
        let snapshot = Snapshot::from_documents(&watched).unwrap();
        let client = Client::connected([192, 0, 2, 7].into());
        let path = Address::parse("a@acme.example").unwrap();
        let mut sender = policy::authorise(&snapshot, None, &[], client, Some(&path)).unwrap();
        let slow = |sender: &Sender| {
            let scopes = scopes(sender, client);
            let slow = scopes
                .into_iter()
                .find(|scope| scope.key.ends_with("/slow"));
            slow.map(|scope| (scope.windows[0].limit, scope.windows[0].length_ms))
        };
        assert_eq!((slow(&sender), sender.most_at_once()), (None, Some(60)));
        sender.measure = proto::watch::Action::Slow;
        assert_eq!(slow(&sender), Some((30, 3_600_000)));
        assert_eq!(sender.most_at_once(), Some(30));
    }

    #[test]
    fn tenant_credential_and_network_are_counted_apart() {
        assert_eq!(
            keys("192.0.2.7"),
            [
                "tenant 5000/3600000 100000/0",
                "credential/acme-net 300/60000 10000/43200000",
                "credential/acme-net/from/192.0.2.7 60/60000",
            ]
        );
        assert_eq!(
            keys("2001:db8:1:2:3:4:5:6")[2],
            "credential/acme-net/from/2001:db8:1:2:: 60/60000"
        );
    }
}
