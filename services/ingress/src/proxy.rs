//! Connections that a load balancer hands on: who the client is, is said by a PROXY header, or by XCLIENT.

use std::io;
use std::net::IpAddr;
use std::time::Duration;

use ipnet::IpNet;
use runtime::bootstrap::ProxyProtocol;
use smtp::{ProxyDecoded, ProxyError, ProxyHeader, XClientAddress, decode_proxy_header};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A client, and how its address is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Client {
    /// IPv4 where it is one.
    pub(crate) address: IpAddr,
    pub(crate) origin: Origin,
}

/// How an address is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It is that of the connection.
    Connection,
    /// A trusted load balancer or proxy says so.
    Header,
    /// It is that of the load balancer, which does not say whose connection it is: nothing follows from it.
    LoadBalancer,
}

impl Client {
    /// One that is connected with us itself.
    pub(crate) fn connected(address: IpAddr) -> Self {
        Self {
            address: address.to_canonical(),
            origin: Origin::Connection,
        }
    }

    /// Whether it is one of the proxies of `networks`, for certain: nobody else named it.
    pub(crate) fn is_proxy(self, networks: &[IpNet]) -> bool {
        self.is_connected_from(networks)
    }

    /// The proxy itself, before it says whose connection it hands on.
    pub(crate) fn unnamed(self) -> Self {
        Self {
            origin: Origin::LoadBalancer,
            ..self
        }
    }

    /// Whom a proxy names; `None` when it claims what only its own machine could know.
    pub(crate) fn named_by(proxy: IpAddr, address: XClientAddress) -> Option<Self> {
        let (address, origin) = match address {
            XClientAddress::Is(address) if address.is_loopback() && !proxy.is_loopback() => {
                return None;
            }
            XClientAddress::Is(address) => (address, Origin::Header),
            XClientAddress::Unavailable | XClientAddress::NotSaid => (proxy, Origin::LoadBalancer),
        };
        Some(Self { address, origin })
    }

    /// Whether its address can stand for a credential.
    pub(crate) fn is_known(self) -> bool {
        self.origin != Origin::LoadBalancer
    }

    /// Whether it is on this machine for certain: a header is only somebody's word.
    pub(crate) fn is_connected_from(self, networks: &[IpNet]) -> bool {
        self.origin == Origin::Connection
            && networks
                .iter()
                .any(|network| network.contains(&self.address))
    }
}

/// Why a connection is closed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the other side is no trusted load balancer")]
    Untrusted,
    #[error(transparent)]
    Header(#[from] ProxyError),
    #[error("a loopback address is claimed by another machine")]
    ForeignLoopback,
    #[error("the header did not come in time")]
    TooLate,
    #[error("{0}")]
    Broken(#[from] io::Error),
}

impl Refused {
    /// All reasons.
    pub(crate) const REASONS: [&str; 5] =
        ["untrusted", "missing", "malformed", "timeout", "closed"];

    /// Label of the counter.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Header(ProxyError::Missing) => "missing",
            Self::Header(ProxyError::Malformed(_)) | Self::ForeignLoopback => "malformed",
            Self::TooLate => "timeout",
            Self::Broken(_) => "closed",
        }
    }
}

/// Reads the header, and nothing of what comes after it.
pub(crate) async fn read_header(
    stream: &mut TcpStream,
    peer: IpAddr,
    proxy: &ProxyProtocol,
) -> Result<Client, Refused> {
    let peer = peer.to_canonical();
    if !proxy.trusted.iter().any(|network| network.contains(&peer)) {
        return Err(Refused::Untrusted);
    }
    let patience: Duration = proxy.header_timeout.duration();
    let header = timeout(patience, receive(stream))
        .await
        .map_err(|_| Refused::TooLate)??;
    judge(header, peer)
}

async fn receive(stream: &mut TcpStream) -> Result<ProxyHeader, Refused> {
    let mut octets = Vec::with_capacity(128);
    loop {
        match decode_proxy_header(&octets)? {
            ProxyDecoded::Header(header, _) => return Ok(header),
            ProxyDecoded::Needs(more) => {
                let more = u64::try_from(more).unwrap_or(u64::MAX);
                if (&mut *stream).take(more).read_buf(&mut octets).await? == 0 {
                    return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
                }
            }
        }
    }
}

fn judge(header: ProxyHeader, peer: IpAddr) -> Result<Client, Refused> {
    match header {
        ProxyHeader::Client { source, .. } if source.ip().is_loopback() && !peer.is_loopback() => {
            Err(Refused::ForeignLoopback)
        }
        ProxyHeader::Client { source, .. } => Ok(Client {
            address: source.ip(),
            origin: Origin::Header,
        }),
        ProxyHeader::Local | ProxyHeader::Unknown => Ok(Client {
            address: peer,
            origin: Origin::LoadBalancer,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(source: &str) -> ProxyHeader {
        ProxyHeader::Client {
            source: source.parse().unwrap(),
            destination: "192.0.2.1:25".parse().unwrap(),
        }
    }

    #[test]
    fn a_header_never_makes_a_client_local() {
        let (near, far): (IpAddr, IpAddr) =
            ("127.0.0.1".parse().unwrap(), "10.0.0.1".parse().unwrap());
        let loopback = ["127.0.0.0/8".parse().unwrap()];
        let claims = header("127.0.0.1:9");
        assert!(matches!(judge(claims, far), Err(Refused::ForeignLoopback)));
        let client = judge(claims, near).unwrap();
        assert!(client.is_known() && !client.is_connected_from(&loopback));
        assert!(Client::connected(near).is_connected_from(&loopback));
    }

    #[test]
    fn the_load_balancer_itself_is_nobody() {
        for header in [ProxyHeader::Local, ProxyHeader::Unknown] {
            let client = judge(header, "127.0.0.1".parse().unwrap()).unwrap();
            assert!(!client.is_known());
            assert!(!client.is_connected_from(&["127.0.0.0/8".parse().unwrap()]));
        }
    }
}
