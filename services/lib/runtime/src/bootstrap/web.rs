//! Listeners of HTTP for those who read mail.

use std::net::SocketAddr;
use std::path::Path;

use config::Fields;
use ipnet::IpNet;

use super::CertificateFiles;
use super::listener::read_files;
use super::services::socket_address;

/// A listener of HTTP/1.1 for strangers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebListener {
    /// Where it listens.
    pub listen: SocketAddr,
    /// What it shows, that for clients who ask for no known name first; without, TLS ends before it.
    pub certificates: Vec<CertificateFiles>,
    /// Connections open at once, 1 to 100,000.
    pub max_connections: u32,
    /// The same of one client that is no proxy: an IPv4 address, an IPv6 /64.
    pub max_connections_per_client: u32,
    /// Networks of proxies that say in `X-Forwarded-For` whose connection they hand on.
    pub proxies: Vec<IpNet>,
}

impl WebListener {
    /// Reads the section `name` of a service; `None` when it is not there.
    pub(super) fn read(service: &Fields<'_>, name: &'static str, folder: &Path) -> Option<Self> {
        if !service.is_given(name) {
            return None;
        }
        let fields = service.map(name);
        let listen = fields
            .required_text("listen")
            .and_then(|_| socket_address(&fields, "listen"));
        let certificates: Vec<Option<CertificateFiles>> = fields
            .maps("certificates")
            .into_iter()
            .map(|entry| {
                let files = read_files(&entry, folder, "each certificate has both");
                entry.close();
                files
            })
            .collect();
        let max_connections = fields
            .small_integer("maxConnections", 1..=100_000)
            .unwrap_or(1_000);
        let max_connections_per_client = fields
            .small_integer("maxConnectionsPerClient", 1..=100_000)
            .unwrap_or(50);
        let proxies = fields.read_list("proxies", |text| {
            text.parse::<IpNet>()
                .map_err(|_| "a network such as 10.0.0.0/8 is expected".to_owned())
        });
        fields.close();
        Some(Self {
            listen: listen?,
            certificates: certificates.into_iter().flatten().collect(),
            max_connections,
            max_connections_per_client,
            proxies,
        })
    }
}
