//! What a delivery is on its way to by each source of its pool, and how a source gets there.

use std::sync::Arc;

use config::{
    AddressFamily, AuthMechanism, AuthOver, EgressPool, EgressProxy, EgressSource, ProxyProtocol,
    Route, ShapingQuery, SmartHost, SmartHostTls, Snapshot, TlsPolicy,
};
use proto::dispatch;
use queue::RouteOf;

/// The site of a delivery, or the smart host of a source, with what sets the delivery apart from other mail there.
pub(super) struct Sites {
    site: Arc<str>,
    class: Option<String>,
    /// By position of the source; empty when no source has a smart host.
    own: Vec<Option<(Arc<str>, Option<String>)>>,
}

impl Sites {
    /// `site` is where the mail goes by sources without a smart host.
    pub(super) fn new(
        config: &Snapshot,
        to: &RouteOf<'_>,
        site: &Arc<str>,
        pool: &EgressPool,
    ) -> Self {
        Self::of_domain(config, (to.domain, to.stream), site, pool)
    }

    /// The same for a domain and a stream.
    pub(super) fn of_domain(
        config: &Snapshot,
        (domain, stream): (&str, &str),
        site: &Arc<str>,
        pool: &EgressPool,
    ) -> Self {
        let class_at = |site: &str| {
            config.lane_class(&ShapingQuery {
                site,
                domain,
                stream,
                source: "",
                pool: &pool.name,
            })
        };
        let own = |source: &EgressSource| {
            let host = source.smart_host.as_ref()?.host.as_str();
            Some((host.into(), class_at(host)))
        };
        Self {
            site: site.clone(),
            class: class_at(site),
            own: match pool.has_smart_hosts() {
                true => pool.sources.iter().map(own).collect(),
                false => Vec::new(),
            },
        }
    }

    /// By the source of this position.
    pub(super) fn at(&self, position: usize) -> (&Arc<str>, Option<&str>) {
        match self.own.get(position) {
            Some(Some((site, class))) => (site, class.as_deref()),
            _ => (&self.site, self.class.as_deref()),
        }
    }
}

/// To whom a lane's mail is given, and by what way.
pub(super) struct Target {
    /// Empty = the MX hosts of the recipient domain.
    pub(super) host: String,
    pub(super) port: u32,
    pub(super) allow_private: bool,
    pub(super) tls: dispatch::TlsPolicy,
    /// `None` when the source has no way of its own.
    pub(super) reach: Option<dispatch::Reach>,
}

impl Target {
    /// What a source's own smart host says stands in place of what route and shaping say.
    pub(super) fn of(source: &EgressSource, route: &Route, shaped: TlsPolicy) -> Self {
        let own = source.smart_host.as_deref();
        let host = own.map(|own| &own.host).or(route.smart_host.as_ref());
        let port = own.map_or(route.port, |own| own.port).into();
        Self {
            host: host.map(ToString::to_string).unwrap_or_default(),
            port,
            allow_private: own.map_or(route.allow_private, |own| own.allow_private),
            tls: match own.map(|own| own.tls) {
                Some(SmartHostTls::Verified) => dispatch::TlsPolicy::Verified,
                Some(SmartHostTls::Required) => dispatch::TlsPolicy::Required,
                Some(SmartHostTls::Opportunistic) => dispatch::TlsPolicy::Opportunistic,
                Some(SmartHostTls::None) => dispatch::TlsPolicy::None,
                None => match shaped {
                    TlsPolicy::Opportunistic => dispatch::TlsPolicy::Opportunistic,
                    TlsPolicy::None => dispatch::TlsPolicy::None,
                    TlsPolicy::Required => dispatch::TlsPolicy::Required,
                },
            },
            reach: has_own_way(source).then(|| reach(source, port)),
        }
    }
}

fn has_own_way(source: &EgressSource) -> bool {
    source.smart_host.is_some()
        || source.proxy.is_some()
        || source.family.is_some()
        || source.certificate.is_some()
}

fn reach(source: &EgressSource, port: u32) -> dispatch::Reach {
    let certificate = source.certificate.as_ref();
    dispatch::Reach {
        port,
        own_host: source.smart_host.as_deref().map(own_host),
        proxy: source.proxy.as_deref().map(proxy),
        family: match source.family {
            None => dispatch::Family::Unspecified,
            Some(AddressFamily::Ipv4) => dispatch::Family::Ipv4,
            Some(AddressFamily::Ipv6) => dispatch::Family::Ipv6,
        }
        .into(),
        certificate: certificate.map(|certificate| dispatch::ClientCertificate {
            chain_file: text_of(&certificate.chain),
            key_file: text_of(&certificate.key),
        }),
    }
}

fn own_host(host: &SmartHost) -> dispatch::OwnHost {
    dispatch::OwnHost {
        implicit_tls: host.implicit_tls,
        auth: host.auth.as_ref().map(|auth| dispatch::Auth {
            mechanism: match auth.mechanism {
                AuthMechanism::Plain => dispatch::AuthMechanism::Plain,
                AuthMechanism::Login => dispatch::AuthMechanism::Login,
                AuthMechanism::Xoauth2 => dispatch::AuthMechanism::Xoauth2,
            }
            .into(),
            username: auth.username.clone(),
            secret_file: text_of(&auth.secret),
            over: match auth.over {
                AuthOver::VerifiedTls => dispatch::AuthOver::VerifiedTls,
                AuthOver::AnyTls => dispatch::AuthOver::AnyTls,
                AuthOver::PlainText => dispatch::AuthOver::PlainText,
            }
            .into(),
        }),
    }
}

fn proxy(proxy: &EgressProxy) -> dispatch::Proxy {
    let login = proxy.login.as_ref();
    dispatch::Proxy {
        protocol: match proxy.protocol {
            ProxyProtocol::Socks5 => dispatch::ProxyProtocol::Socks5,
            ProxyProtocol::Haproxy => dispatch::ProxyProtocol::Haproxy,
        }
        .into(),
        address: proxy.address.to_string(),
        username: login.map(|(name, _)| name.clone()).unwrap_or_default(),
        password_file: login.map(|(_, file)| text_of(file)).unwrap_or_default(),
    }
}

/// It came from a text.
fn text_of(path: &std::path::Path) -> String {
    path.to_string_lossy().into_owned()
}
