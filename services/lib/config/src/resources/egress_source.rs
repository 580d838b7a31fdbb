//! An egress source: where connections to the outside come from, and by what way.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use mail::Domain;
use serde_json::{Value, json};

use super::credential::read_file_reference;
use super::names::{LABEL_FORM, is_label};
use super::word;
use crate::Fields;

/// Where connections to the outside come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressSource {
    /// Unique in the installation; in two pools it is the same source.
    pub name: String,
    /// Address to bind, or that the proxy is to use; `None` = the system or the proxy chooses.
    pub address: Option<IpAddr>,
    /// EHLO name; `None` = `hostname` of staffetta.yaml.
    pub ehlo: Option<Domain>,
    /// Share of the pool's mail, 0 to 1000; 0 = takes nothing new.
    pub weight: u32,
    /// Addresses of this family only are connected to; `None` = that of `address`, else both.
    pub family: Option<AddressFamily>,
    /// All of its mail goes to this host.
    pub smart_host: Option<Arc<SmartHost>>,
    /// Its connections are made by this proxy.
    pub proxy: Option<Arc<EgressProxy>>,
    /// Shown to hosts that ask for one in TLS.
    pub certificate: Option<Arc<ClientCertificate>>,
}

/// IPv4 or IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum AddressFamily {
    Ipv4,
    Ipv6,
}

/// A certificate and its key, both read by the sender from files on its machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificate {
    /// PEM file of the chain.
    pub chain: PathBuf,
    /// PEM file of the key.
    pub key: PathBuf,
}

/// A host that takes all mail of a source, whoever it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmartHost {
    /// Its name.
    pub host: Domain,
    /// Its port.
    pub port: u16,
    /// TLS begins with the connection (RFC 8314) and not with STARTTLS.
    pub implicit_tls: bool,
    /// How strictly TLS is asked for.
    pub tls: SmartHostTls,
    /// Whether it may have a private or loopback address.
    pub allow_private: bool,
    /// As whom mail is submitted.
    pub auth: Option<SmartHostAuth>,
}

/// How strictly TLS is asked for at a smart host; the strictest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SmartHostTls {
    /// With a certificate that is valid for its name.
    Verified,
    /// With any certificate.
    Required,
    /// Where it works.
    Opportunistic,
    /// Not at all.
    None,
}

/// What proves to a smart host who we are (RFC 4954).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SmartHostAuth {
    /// How it is said.
    pub mechanism: AuthMechanism,
    /// Who we are there.
    pub username: String,
    /// File with the password or the access token, read for each connection by the sender on its machine.
    pub secret: PathBuf,
    /// Over what it may be said.
    pub over: AuthOver,
}

/// How a smart host is told who we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMechanism {
    /// RFC 4616.
    Plain,
    /// The older form of it, in two steps.
    Login,
    /// An OAuth 2.0 access token in the form of Google and Microsoft.
    Xoauth2,
}

/// Over what credentials may be sent; the strictest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AuthOver {
    /// TLS with a certificate that is valid for the host's name.
    VerifiedTls,
    /// TLS with any certificate: whoever is in between can have them.
    AnyTls,
    /// Any connection: whoever listens can have them.
    PlainText,
}

/// What makes the connections of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EgressProxy {
    /// How it is spoken to.
    pub protocol: ProxyProtocol,
    /// Where it is.
    pub address: SocketAddr,
    /// User name, and the file with the password, read for each connection by the sender (RFC 1929).
    pub login: Option<(String, PathBuf)>,
}

/// How a proxy is told where a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// SOCKS version 5 (RFC 1928); it chooses the address from which it connects.
    Socks5,
    /// The PROXY protocol, version 2: source and destination are named to it.
    Haproxy,
}

const FAMILY: [(&str, AddressFamily); 2] =
    [("ipv4", AddressFamily::Ipv4), ("ipv6", AddressFamily::Ipv6)];
const TLS: [(&str, SmartHostTls); 4] = [
    ("verified", SmartHostTls::Verified),
    ("required", SmartHostTls::Required),
    ("opportunistic", SmartHostTls::Opportunistic),
    ("none", SmartHostTls::None),
];
const MECHANISM: [(&str, AuthMechanism); 3] = [
    ("plain", AuthMechanism::Plain),
    ("login", AuthMechanism::Login),
    ("xoauth2", AuthMechanism::Xoauth2),
];
const OVER: [(&str, AuthOver); 3] = [
    ("verifiedTls", AuthOver::VerifiedTls),
    ("anyTls", AuthOver::AnyTls),
    ("plainText", AuthOver::PlainText),
];
const PROTOCOL: [(&str, ProxyProtocol); 2] = [
    ("socks5", ProxyProtocol::Socks5),
    ("haproxy", ProxyProtocol::Haproxy),
];
/// Octets of a user name; SOCKS allows 255 (RFC 1929).
const LONGEST_NAME: usize = 255;
/// For submission (RFC 6409), and with TLS from the start (RFC 8314).
const SUBMISSION: u16 = 587;
const SUBMISSIONS: u16 = 465;

impl EgressSource {
    pub(super) fn read(fields: &Fields<'_>) -> Option<Self> {
        let address = fields.read("address", |text| match text {
            "" => Ok(None),
            text => text
                .parse()
                .map(Some)
                .map_err(|_| "an IP address is expected".to_owned()),
        });
        let address: Option<IpAddr> = address.flatten();
        let ehlo = fields.text("ehlo").filter(|text| !text.is_empty());
        let source = Self {
            address,
            ehlo: ehlo.and_then(|_| fields.domain("ehlo")),
            weight: fields.small_integer("weight", 0..=1000).unwrap_or(1),
            family: fields.one_of("family", &FAMILY),
            smart_host: SmartHost::read(fields).map(Arc::new),
            proxy: EgressProxy::read(fields).map(Arc::new),
            certificate: ClientCertificate::read(fields).map(Arc::new),
            name: fields.required_text("name")?.to_owned(),
        };
        if !is_label(&source.name) {
            fields.problem("name", format!("{LABEL_FORM}, found {:?}", source.name));
        }
        if source.address.is_some() && source.family.is_some() {
            fields.problem("family", "follows from the address, and must not be given");
        }
        match source.proxy.as_ref().map(|proxy| proxy.protocol) {
            Some(ProxyProtocol::Socks5) if source.address.is_some() => fields.problem(
                "address",
                "SOCKS has no way to say from which address the proxy is to connect: leave it out, and say the family where it matters",
            ),
            Some(ProxyProtocol::Haproxy) if source.address.is_none() => fields.problem(
                "address",
                "is missing: the proxy is told from which address it is to connect",
            ),
            _ => {}
        }
        Some(source)
    }

    pub(super) fn spec(&self) -> Value {
        let mut value = json!({ "name": self.name, "weight": self.weight });
        if let Some(address) = self.address {
            value["address"] = json!(address.to_string());
        }
        if let Some(ehlo) = &self.ehlo {
            value["ehlo"] = json!(ehlo.as_str());
        }
        if let Some(family) = self.family {
            value["family"] = json!(word(&FAMILY, family));
        }
        if let Some(host) = &self.smart_host {
            value["smartHost"] = host.spec();
        }
        if let Some(proxy) = &self.proxy {
            value["proxy"] = proxy.spec();
        }
        if let Some(certificate) = &self.certificate {
            value["certificate"] =
                json!({ "chain": file(&certificate.chain), "key": file(&certificate.key) });
        }
        value
    }

    /// Whether it is the same but for its weight, which is the pool's.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let weight = other.weight;
        Self {
            weight,
            ..self.clone()
        } == *other
    }
}

fn file(path: &std::path::Path) -> String {
    format!("file:{}", path.display())
}

fn port(fields: &Fields<'_>) -> Option<u16> {
    let port = fields.small_integer("port", 1..=65_535)?;
    u16::try_from(port).ok()
}

/// A user name that can be said in every protocol here: neither empty nor too long, without control characters.
fn read_username(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > LONGEST_NAME || text.chars().any(char::is_control) {
        Err(format!(
            "1 to {LONGEST_NAME} octets without control characters are expected"
        ))
    } else {
        Ok(text.to_owned())
    }
}

impl SmartHost {
    fn read(source: &Fields<'_>) -> Option<Self> {
        if !source.is_given("smartHost") {
            return None;
        }
        let fields = source.map("smartHost");
        let host = fields.required_text("host");
        let host = host.and_then(|_| fields.domain("host"));
        let said_port = port(&fields);
        let implicit_tls = fields.boolean("implicitTls");
        let implicit_tls = implicit_tls.unwrap_or(said_port == Some(SUBMISSIONS));
        let usual_port = if implicit_tls {
            SUBMISSIONS
        } else {
            SUBMISSION
        };
        let tls = fields.one_of("tls", &TLS).unwrap_or(SmartHostTls::Verified);
        if implicit_tls && tls > SmartHostTls::Required {
            let what = "with implicitTls there is TLS always: verified or required is expected";
            fields.problem("tls", what);
        }
        let auth = SmartHostAuth::read(&fields);
        if let Some(auth) = &auth
            && !auth.is_ever_said(tls)
        {
            let what = format!(
                "credentials would never be sent: tls is {}, and they go over {} only",
                word(&TLS, tls),
                word(&OVER, auth.over)
            );
            fields.problem("auth.over", what);
        }
        let allow_private = fields.boolean("allowPrivate").unwrap_or(false);
        fields.close();
        Some(Self {
            host: host?,
            port: said_port.unwrap_or(usual_port),
            implicit_tls,
            tls,
            allow_private,
            auth,
        })
    }

    fn spec(&self) -> Value {
        let mut spec = json!({
            "host": self.host.as_str(),
            "port": self.port,
            "implicitTls": self.implicit_tls,
            "tls": word(&TLS, self.tls),
            "allowPrivate": self.allow_private,
        });
        if let Some(auth) = &self.auth {
            let secret = match auth.mechanism {
                AuthMechanism::Plain | AuthMechanism::Login => "password",
                AuthMechanism::Xoauth2 => "token",
            };
            spec["auth"] = json!({
                "mechanism": word(&MECHANISM, auth.mechanism),
                "username": auth.username,
                secret: file(&auth.secret),
                "over": word(&OVER, auth.over),
            });
        }
        spec
    }
}

impl SmartHostAuth {
    fn read(host: &Fields<'_>) -> Option<Self> {
        if !host.is_given("auth") {
            return None;
        }
        let fields = host.map("auth");
        let mechanism = fields.required_text("mechanism");
        let mechanism = mechanism.and_then(|_| fields.one_of("mechanism", &MECHANISM));
        let username = fields.required_text("username");
        let username = username.and_then(|_| fields.read("username", read_username));
        let over = fields.one_of("over", &OVER);
        // The one that the mechanism needs; the other would not be used.
        let secret = match mechanism {
            Some(AuthMechanism::Plain | AuthMechanism::Login) => Some(("password", "token")),
            Some(AuthMechanism::Xoauth2) => Some(("token", "password")),
            None => {
                fields.skip("password");
                fields.skip("token");
                None
            }
        };
        let secret = secret.and_then(|(needed, other)| {
            if fields.is_given(other) {
                fields.problem(other, format!("is not for this mechanism: {needed} is"));
            }
            if !fields.is_given(needed) {
                fields.problem(needed, "is missing");
            }
            fields.read_secret(needed, read_file_reference)
        });
        fields.close();
        Some(Self {
            mechanism: mechanism?,
            username: username?,
            secret: secret?,
            over: over.unwrap_or(AuthOver::VerifiedTls),
        })
    }

    /// Whether credentials can ever go out where TLS is asked for so strictly.
    fn is_ever_said(&self, tls: SmartHostTls) -> bool {
        match self.over {
            AuthOver::VerifiedTls => tls == SmartHostTls::Verified,
            AuthOver::AnyTls => tls != SmartHostTls::None,
            AuthOver::PlainText => true,
        }
    }
}

impl EgressProxy {
    fn read(source: &Fields<'_>) -> Option<Self> {
        if !source.is_given("proxy") {
            return None;
        }
        let fields = source.map("proxy");
        let protocol = fields.required_text("protocol");
        let protocol = protocol.and_then(|_| fields.one_of("protocol", &PROTOCOL));
        let address = fields.required_text("address");
        let address = address.and_then(|_| {
            fields.read("address", |text| match text.parse::<SocketAddr>() {
                Ok(address) if address.port() > 0 => Ok(address),
                _ => Err("an address IP:port is expected".to_owned()),
            })
        });
        let username = fields.read("username", read_username);
        let password = fields.read_secret("password", read_file_reference);
        for (field, other) in [("username", "password"), ("password", "username")] {
            if fields.is_given(field) && !fields.is_given(other) {
                fields.problem(other, format!("is missing: there is a {field}"));
            }
        }
        if protocol == Some(ProxyProtocol::Haproxy) && fields.is_given("username") {
            fields.problem(
                "username",
                "the PROXY protocol has no login: it is for socks5",
            );
        }
        fields.close();
        Some(Self {
            protocol: protocol?,
            address: address?,
            login: username.zip(password),
        })
    }

    fn spec(&self) -> Value {
        let mut spec = json!({
            "protocol": word(&PROTOCOL, self.protocol),
            "address": self.address.to_string(),
        });
        if let Some((username, password)) = &self.login {
            spec["username"] = json!(username);
            spec["password"] = json!(file(password));
        }
        spec
    }
}

impl ClientCertificate {
    fn read(source: &Fields<'_>) -> Option<Self> {
        if !source.is_given("certificate") {
            return None;
        }
        let fields = source.map("certificate");
        let path = |name| {
            if !fields.is_given(name) {
                fields.problem(name, "is missing");
            }
            fields.read_secret(name, read_file_reference)
        };
        let (chain, key) = (path("chain"), path("key"));
        fields.close();
        Some(Self {
            chain: chain?,
            key: key?,
        })
    }
}
