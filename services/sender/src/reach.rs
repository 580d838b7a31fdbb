//! By what way a source gets out.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use dns::Family;
use proto::dispatch;
pub(crate) use proto::dispatch::{AuthMechanism, AuthOver};

/// How connections of a source are made, and as whom. A connection that was made by another way does not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reach {
    /// Address to bind, or to name to the proxy; `None` = any.
    pub source_address: Option<IpAddr>,
    /// Which addresses of a host can be reached.
    pub family: Family,
    pub proxy: Option<Proxy>,
    /// The host is the source's own smart host.
    pub own_host: Option<OwnHost>,
    pub certificate: Option<ClientCertificate>,
}

/// A smart host that belongs to the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OwnHost {
    /// TLS begins with the connection.
    pub implicit_tls: bool,
    pub auth: Option<Auth>,
}

/// What proves to it who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Auth {
    pub mechanism: AuthMechanism,
    pub username: String,
    pub secret_file: PathBuf,
    pub over: AuthOver,
}

/// What makes the connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proxy {
    pub protocol: ProxyProtocol,
    pub address: SocketAddr,
}

/// How it is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ProxyProtocol {
    /// With user name and password file, where it asks for them.
    Socks5(Option<(String, PathBuf)>),
    Haproxy,
}

/// PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClientCertificate {
    pub chain: PathBuf,
    pub key: PathBuf,
}

impl Default for Reach {
    fn default() -> Self {
        Self::from_address(None)
    }
}

impl Reach {
    /// Something of the source's takes part in TLS, or lies on the way.
    pub fn is_in_between(&self) -> bool {
        self.certificate.is_some() || self.proxy.is_some()
    }

    /// A plain connection from this address.
    pub fn from_address(source_address: Option<IpAddr>) -> Self {
        Self {
            source_address,
            family: Family::of_source(source_address),
            proxy: None,
            own_host: None,
            certificate: None,
        }
    }

    /// What can't be read, or is not known here, is refused: no other way may be taken in its place.
    pub fn read(source_address: Option<IpAddr>, said: dispatch::Reach) -> Result<Self, String> {
        let family = match (said.family(), source_address) {
            _ if dispatch::Family::try_from(said.family).is_err() => {
                return Err("unknown family of addresses".to_owned());
            }
            (dispatch::Family::Ipv4, _) => Family::V4,
            (dispatch::Family::Ipv6, _) => Family::V6,
            (dispatch::Family::Unspecified, source) => Family::of_source(source),
        };
        Ok(Self {
            source_address,
            family,
            proxy: said.proxy.map(Proxy::read).transpose()?,
            own_host: said.own_host.map(OwnHost::read).transpose()?,
            certificate: said.certificate.map(|files| ClientCertificate {
                chain: files.chain_file.into(),
                key: files.key_file.into(),
            }),
        })
    }

    /// Whether TLS begins with the connection.
    pub fn implicit_tls(&self) -> bool {
        self.own_host.as_ref().is_some_and(|host| host.implicit_tls)
    }

    pub fn auth(&self) -> Option<&Auth> {
        self.own_host.as_ref()?.auth.as_ref()
    }
}

impl OwnHost {
    fn read(said: dispatch::OwnHost) -> Result<Self, String> {
        Ok(Self {
            implicit_tls: said.implicit_tls,
            auth: said.auth.map(Auth::read).transpose()?,
        })
    }
}

impl Auth {
    fn read(said: dispatch::Auth) -> Result<Self, String> {
        let mechanism = AuthMechanism::try_from(said.mechanism).ok();
        let mechanism = mechanism.filter(|known| *known != AuthMechanism::Unspecified);
        let over = AuthOver::try_from(said.over);
        Ok(Self {
            mechanism: mechanism.ok_or("unknown mechanism of AUTH")?,
            username: said.username,
            secret_file: said.secret_file.into(),
            over: over.map_err(|_| "it is not known over what AUTH may go")?,
        })
    }
}

impl Proxy {
    fn read(said: dispatch::Proxy) -> Result<Self, String> {
        let login = Some((said.username.clone(), said.password_file.clone().into()));
        Ok(Self {
            protocol: match said.protocol() {
                dispatch::ProxyProtocol::Socks5 => {
                    ProxyProtocol::Socks5(login.filter(|(name, _)| !name.is_empty()))
                }
                dispatch::ProxyProtocol::Haproxy => ProxyProtocol::Haproxy,
                dispatch::ProxyProtocol::Unspecified => {
                    return Err("unknown protocol of a proxy".to_owned());
                }
            },
            address: said
                .address
                .parse()
                .map_err(|_| format!("{:?} is no address of a proxy", said.address))?,
        })
    }
}
