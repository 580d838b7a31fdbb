//! XCLIENT: how a proxy says whose connection it hands on (<https://www.postfix.org/XCLIENT_README.html>).

use std::net::{IpAddr, Ipv6Addr};

use crate::xtext;

/// What the attributes of an XCLIENT command say about the client. NAME, PORT and PROTO are read and not kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct XClient {
    /// ADDR; IPv4 where it is one.
    pub address: XClientAddress,
}

/// The client's address, as the proxy knows it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum XClientAddress {
    /// There is no ADDR: what was known goes on.
    #[default]
    NotSaid,
    /// The proxy does not know it.
    Unavailable,
    /// This one.
    Is(IpAddr),
}

/// Why the attributes are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum XClientError {
    /// An attribute is malformed, unknown or said twice.
    #[error("Syntax: XCLIENT NAME=, ADDR=, PORT=, PROTO=")]
    Syntax,
    /// Somebody is said to have logged in elsewhere.
    #[error("LOGIN is not believed; log in with AUTH")]
    Login,
}

impl XClient {
    /// The attributes that are read, as announced in the reply to EHLO.
    pub const ATTRIBUTES: &str = "NAME ADDR PORT PROTO";

    /// Reads what follows the verb.
    pub fn parse(argument: &str) -> Result<Self, XClientError> {
        let mut said: Vec<String> = Vec::new();
        let mut address = XClientAddress::NotSaid;
        for word in argument.split_ascii_whitespace() {
            let (name, value) = word.split_once('=').ok_or(XClientError::Syntax)?;
            let name = name.to_ascii_uppercase();
            let value = value_of(value).ok_or(XClientError::Syntax)?;
            let is_fine = match (name.as_str(), value.as_deref()) {
                ("ADDR", value) => {
                    address = match value {
                        None => XClientAddress::Unavailable,
                        Some(text) => ip(text).map_or(XClientAddress::NotSaid, XClientAddress::Is),
                    };
                    address != XClientAddress::NotSaid
                }
                ("PORT", Some(port)) => port.parse::<u16>().is_ok(),
                ("PROTO", Some(proto)) => {
                    proto.eq_ignore_ascii_case("SMTP") || proto.eq_ignore_ascii_case("ESMTP")
                }
                ("NAME", Some(name)) => !name.is_empty() && name.len() <= 255,
                ("NAME" | "PORT" | "PROTO" | "LOGIN", None) => true,
                ("LOGIN", Some(_)) => return Err(XClientError::Login),
                _ => false,
            };
            if !is_fine || said.contains(&name) {
                return Err(XClientError::Syntax);
            }
            said.push(name);
        }
        if said.is_empty() {
            return Err(XClientError::Syntax);
        }
        Ok(Self { address })
    }
}

/// The value as text, `Some(None)` when there is none to be had.
fn value_of(value: &str) -> Option<Option<String>> {
    if value.eq_ignore_ascii_case("[UNAVAILABLE]") || value.eq_ignore_ascii_case("[TEMPUNAVAIL]") {
        return Some(None);
    }
    String::from_utf8(xtext::decode(value)?).ok().map(Some)
}

fn ip(text: &str) -> Option<IpAddr> {
    const IPV6: usize = "IPV6:".len();
    match text.split_at_checked(IPV6) {
        Some((prefix, address)) if prefix.eq_ignore_ascii_case("IPV6:") => {
            let address: Ipv6Addr = address.parse().ok()?;
            Some(IpAddr::from(address).to_canonical())
        }
        _ => text.parse().map(IpAddr::V4).ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_whose_connection_it_is() {
        use XClientAddress::{Is, NotSaid, Unavailable};
        for (argument, address) in [
            ("ADDR=192.0.2.7", Is([192, 0, 2, 7].into())),
            (
                "NAME=spike.porcupine.org addr=168.100.189.2 PROTO=ESMTP PORT=4000",
                Is([168, 100, 189, 2].into()),
            ),
            ("ADDR=IPV6:2001:db8::1", Is("2001:db8::1".parse().unwrap())),
            ("ADDR=ipv6:::ffff:192.0.2.7", Is([192, 0, 2, 7].into())),
            ("ADDR=[UNAVAILABLE]", Unavailable),
            ("NAME=[TEMPUNAVAIL] LOGIN=[UNAVAILABLE]", NotSaid),
            ("NAME=a+2Bb", NotSaid),
        ] {
            assert_eq!(
                XClient::parse(argument),
                Ok(XClient { address }),
                "{argument}"
            );
        }
    }

    #[test]
    fn refuses_what_it_does_not_understand_and_logins() {
        for argument in [
            "",
            "ADDR",
            "ADDR=",
            "ADDR=[192.0.2.7]",
            "ADDR=2001:db8::1",
            "ADDR=IPV6:192.0.2.7",
            "ADDR=192.0.2.7 ADDR=192.0.2.8",
            "ADDR=192.0.2.7+",
            "NAME=",
            "PORT=70000",
            "PROTO=LMTP",
            "HELO=x",
            "XOTHER=1",
        ] {
            assert_eq!(
                XClient::parse(argument),
                Err(XClientError::Syntax),
                "{argument}"
            );
        }
        assert_eq!(
            XClient::parse("ADDR=192.0.2.7 LOGIN=app"),
            Err(XClientError::Login)
        );
    }

    proptest! {
        #[test]
        fn never_panics(argument in "[A-Z]{0,5}[=+ :\\PC]{0,40}") {
            if let Ok(XClient { address: XClientAddress::Is(address) }) = XClient::parse(&argument) {
                prop_assert_eq!(address, address.to_canonical());
            }
        }
    }
}
