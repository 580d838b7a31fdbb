//! Addresses of documents on the web that are fetched over TLS.

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
        let host = match self.host.parse::<Ipv6Addr>() {
            Ok(address) => format!("[{address}]"),
            Err(_) => self.host.to_string(),
        };
        match self.port {
            443 => host,
            port => format!("{host}:{port}"),
        }
    }
}

impl FromStr for HttpsUrl {
    type Err = HttpsUrlError;

    fn from_str(text: &str) -> Result<Self, HttpsUrlError> {
        let in_a_url = |byte: u8| byte.is_ascii_graphic() && !b"\"<>\\^`{|}#".contains(&byte);
        if text.len() > LONGEST || !text.bytes().all(in_a_url) {
            return Err(HttpsUrlError);
        }
        let (scheme, rest) = text.split_at_checked(8).ok_or(HttpsUrlError)?;
        if !scheme.eq_ignore_ascii_case("https://") {
            return Err(HttpsUrlError);
        }
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (host, port) = split_port(authority).ok_or(HttpsUrlError)?;
        let path = match path.starts_with('/') {
            true => path.into(),
            false => format!("/{path}").into(),
        };
        Ok(Self { host, port, path })
    }
}

fn split_port(authority: &str) -> Option<(Box<str>, u16)> {
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
        None => 443,
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
}
