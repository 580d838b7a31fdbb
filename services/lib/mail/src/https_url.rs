//! Addresses on the web: of documents that are fetched over TLS, and of where something is posted to.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::str::FromStr;

use crate::Domain;

/// Longest URL, octets.
const LONGEST: usize = 2048;

/// `https://host[:port]/path[?query]`: the only URLs that anything is fetched from. At most 2,048 octets of ASCII, the
/// host in the form of DNS; no user, no password, no fragment.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HttpsUrl {
    /// A name, or an IP address without brackets.
    host: Box<str>,
    port: u16,
    /// With the `/` that it begins with, and the query.
    path: Box<str>,
}

/// Not such a URL.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a URL such as https://login.example.com/keys is expected, without user and fragment")]
pub struct HttpsUrlError;

impl HttpsUrl {
    /// The name or IP address of the server, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// 443 where the URL says nothing else.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What is asked for: path and query.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Host, and port unless it is 443, as the field `Host` has them (RFC 9110 section 7.2).
    pub fn authority(&self) -> String {
        self.authority_unless(443)
    }

    fn authority_unless(&self, usual: u16) -> String {
        let host = match self.host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => self.host.to_string(),
        };
        match self.port {
            port if port == usual => host,
            port => format!("{host}:{port}"),
        }
    }
}

impl FromStr for HttpsUrl {
    type Err = HttpsUrlError;

    fn from_str(text: &str) -> Result<Self, HttpsUrlError> {
        read(text, "https://", 443).ok_or(HttpsUrlError)
    }
}

/// Reads a URL of a scheme; the port is `usual` where the URL says nothing else.
fn read(text: &str, scheme: &str, usual: u16) -> Option<HttpsUrl> {
    let in_a_url = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&byte);
    if text.len() > LONGEST || !text.bytes().all(in_a_url) {
        return None;
    }
    let (found, rest) = text.split_at_checked(scheme.len())?;
    if !found.eq_ignore_ascii_case(scheme) {
        return None;
    }
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let (host, port) = split_port(authority, usual)?;
    let path = match path.starts_with('/') {
        true => path.into(),
        false => format!("/{path}").into(),
    };
    Some(HttpsUrl { host, port, path })
}

/// `https://…`, or `http://…` where somebody said that it may be: where something is posted to. Otherwise as [`HttpsUrl`].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WebUrl {
    place: HttpsUrl,
    is_plain: bool,
}

/// Not such a URL.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a URL such as https://hooks.example.com/mail is expected, without user and fragment")]
pub struct WebUrlError;

impl WebUrl {
    /// Whether it is `http`: without TLS.
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// The name or IP address of the server, without brackets.
    pub fn host(&self) -> &str {
        self.place.host()
    }

    /// 443, or 80 for `http`, where the URL says nothing else.
    pub fn port(&self) -> u16 {
        self.place.port
    }

    /// What is asked for: path and query.
    pub fn path(&self) -> &str {
        self.place.path()
    }

    /// Host, and port unless it is the usual one, as the field `Host` has them (RFC 9110 section 7.2).
    pub fn authority(&self) -> String {
        let usual = if self.is_plain { 80 } else { 443 };
        self.place.authority_unless(usual)
    }
}

impl FromStr for WebUrl {
    type Err = WebUrlError;

    fn from_str(text: &str) -> Result<Self, WebUrlError> {
        let secure = read(text, "https://", 443).map(|place| (place, false));
        let read = secure.or_else(|| read(text, "http://", 80).map(|place| (place, true)));
        let (place, is_plain) = read.ok_or(WebUrlError)?;
        Ok(Self { place, is_plain })
    }
}

impl fmt::Display for WebUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_plain { "http" } else { "https" };
        write!(f, "{scheme}://{}{}", self.authority(), self.path())
    }
}

fn split_port(authority: &str, usual: u16) -> Option<(Box<str>, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']')?;
            let address: Ipv6Addr = address.parse().ok()?;
            let port = match port {
                "" => None,
                port => Some(port.strip_prefix(':')?),
            };
            (address.to_string().into(), port)
        }
        None => {
            let (host, port) = match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            };
            (read_host(host)?, port)
        }
    };
    let port = match port {
        None => usual,
        Some(digits) if digits.bytes().all(|digit| digit.is_ascii_digit()) => {
            digits.parse().ok().filter(|port| *port != 0)?
        }
        Some(_) => return None,
    };
    Some((host, port))
}

fn read_host(host: &str) -> Option<Box<str>> {
    match host.parse::<IpAddr>() {
        Ok(address) => Some(address.to_string().into()),
        Err(_) => Domain::parse(host)
            .ok()
            .map(|domain| domain.as_str().into()),
    }
}

impl fmt::Display for HttpsUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}{}", self.authority(), self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_can_be_fetched_and_says_it_in_one_form() {
        for (given, expected, host, port) in [
            ("https://a.example", "https://a.example/", "a.example", 443),
            (
                "HTTPS://A.Example/k?v=1",
                "https://a.example/k?v=1",
                "a.example",
                443,
            ),
            (
                "https://a.example?v=1",
                "https://a.example/?v=1",
                "a.example",
                443,
            ),
            (
                "https://a.example:443/",
                "https://a.example/",
                "a.example",
                443,
            ),
            (
                "https://a.example:8443/k",
                "https://a.example:8443/k",
                "a.example",
                8443,
            ),
            (
                "https://127.0.0.1:8443/k",
                "https://127.0.0.1:8443/k",
                "127.0.0.1",
                8443,
            ),
            ("https://[::1]:8443/k", "https://[::1]:8443/k", "::1", 8443),
            (
                "https://[2001:db8::1]/",
                "https://[2001:db8::1]/",
                "2001:db8::1",
                443,
            ),
        ] {
            let url: HttpsUrl = given.parse().unwrap();
            assert_eq!(url.to_string(), expected);
            assert_eq!((url.host(), url.port()), (host, port));
            assert_eq!(expected.parse(), Ok(url));
        }
    }

    #[test]
    fn refuses_everything_else() {
        let long = format!("https://a.example/{}", "a".repeat(LONGEST));
        for given in [
            "",
            "https://",
            "https:///keys",
            "http://a.example/",
            "a.example/keys",
            "https://user@a.example/",
            "https://user:secret@a.example/",
            "https://a.example:0/",
            "https://a.example:65536/",
            "https://a.example:+443/",
            "https://a.example:/",
            "https://a.example/#keys",
            "https://a.example/a b",
            "https://a.example/\r\nX: y",
            "https://[::1/",
            "https://[::1]8443/",
            "https://::1/",
            "https://ä.example/",
            &long,
        ] {
            assert_eq!(given.parse::<HttpsUrl>(), Err(HttpsUrlError), "{given}");
        }
    }

    #[test]
    fn what_is_posted_to_may_be_without_tls() {
        for (given, expected, port, is_plain) in [
            (
                "https://a.example:80/h",
                "https://a.example:80/h",
                80,
                false,
            ),
            ("http://a.example", "http://a.example/", 80, true),
            ("http://a.example:443/", "http://a.example:443/", 443, true),
            ("http://[::1]:8080/h", "http://[::1]:8080/h", 8080, true),
        ] {
            let url: WebUrl = given.parse().unwrap();
            assert_eq!(url.to_string(), expected);
            assert_eq!((url.port(), url.is_plain()), (port, is_plain));
            assert_eq!(expected.parse(), Ok(url));
        }
        for given in ["ftp://a.example/", "http://", "http://u@a.example/"] {
            assert_eq!(given.parse::<WebUrl>(), Err(WebUrlError), "{given}");
        }
    }
}
