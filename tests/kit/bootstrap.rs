//! `staffetta.yaml` of an installation under test.

use std::net::SocketAddr;

use anyhow::Result;

use crate::place::free_port;
use crate::servers::LOOPBACK;

/// The ports of one process, or of all services in one.
#[derive(Debug, Clone)]
pub(crate) struct Ports {
    pub submission: SocketAddr,
    pub signer: SocketAddr,
    pub scheduler: SocketAddr,
    /// Health and metrics of the process.
    pub metrics: SocketAddr,
}

impl Ports {
    /// Ports that were free a moment ago.
    pub fn free() -> Result<Self> {
        let free = || anyhow::Ok(SocketAddr::new(LOOPBACK, free_port(LOOPBACK)?));
        Ok(Self {
            submission: free()?,
            signer: free()?,
            scheduler: free()?,
            metrics: free()?,
        })
    }
}

/// What the file says besides ports.
pub(crate) struct Bootstrap<'a> {
    pub nats_url: String,
    pub nats_monitor: String,
    pub redis_url: String,
    pub resolver: SocketAddr,
    pub durability: &'a str,
    pub partitions: u32,
    pub replicas: u32,
    pub signers: Vec<SocketAddr>,
    pub volume: &'a str,
}

impl Bootstrap<'_> {
    /// The text for a process with these ports.
    pub fn yaml(&self, ports: &Ports) -> String {
        let Ports {
            submission,
            signer,
            scheduler,
            metrics,
        } = ports;
        let signers: Vec<String> = self
            .signers
            .iter()
            .map(|signer| format!("\"http://{signer}\""))
            .collect();
        let signers = signers.join(", ");
        let Self {
            nats_url,
            nats_monitor,
            redis_url,
            resolver,
            durability,
            partitions,
            replicas,
            volume,
            ..
        } = self;
        format!(
            r#"hostname: relay.example.com
nats: {{ url: "{nats_url}", monitor: "{nats_monitor}" }}
redis: {{ url: "{redis_url}" }}
durability: {durability}
partitions: {partitions}
storage: {{ volumeBytes: {volume}, replicas: {replicas} }}
resolvers: ["{resolver}"]
ingress:
  metrics: "{metrics}"
  listeners:
    - {{ name: submission, kind: submission, address: "{submission}", tls: none }}
signer: {{ listen: "{signer}", metrics: "{metrics}" }}
scheduler: {{ listen: "{scheduler}", advertise: "{scheduler}", metrics: "{metrics}" }}
sender: {{ signers: [{signers}], metrics: "{metrics}", drainTimeout: 20s }}
feedback: {{ metrics: "{metrics}" }}
all: {{ metrics: "{metrics}" }}
"#
        )
    }
}
