//! The PROXY protocol, versions 1 and 2: the line or the octets by which a load balancer says, before anything else,
//! whose connection it hands on; and by which a proxy is told whose connection it is to make.
//!
//! <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>. What comes after the header is the client's and is never
//! asked for: [`decode`] says how many octets certainly belong to the header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// `PROXY UNKNOWN` with its end; every other header is longer.
const SHORTEST: usize = 15;
/// The longest line of version 1, with its end.
const LONGEST_LINE: usize = 107;
/// What comes after the first 16 octets of version 2, at most: addresses of 36 octets and additional fields, which are
/// not used here. The protocol allows 65,535.
const LONGEST_REST: usize = 4096;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const WORD: &[u8; 6] = b"PROXY ";

/// Whose connection it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// That of a client, by TCP.
    Client {
        /// The client.
        source: SocketAddr,
        /// What it connected to.
        destination: SocketAddr,
    },
    /// The load balancer's own, such as a check of health (LOCAL).
    Local,
    /// That of a client that the load balancer can't name (UNKNOWN, or no TCP over IP).
    Unknown,
}

/// How far the header is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyDecoded {
    /// So many octets more are needed at least; all of them belong to the header.
    Needs(usize),
    /// All of it, and its length.
    Header(ProxyHeader, usize),
}

/// Why the octets are no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProxyError {
    /// They do not begin as one: the other side does not speak the protocol.
    #[error("there is no PROXY header")]
    Missing,
    /// They begin as one, and then something is wrong.
    #[error("the PROXY header is malformed: {0}")]
    Malformed(&'static str),
}

use ProxyError::Malformed;

/// Reads a header from the first octets of a connection, as far as there are any. The result never depends on how they
/// come in pieces; a header of version 1 is at most 107 octets long, one of version 2 at most 4,112.
///
/// ```
/// use smtp::{ProxyDecoded, ProxyHeader, decode_proxy_header};
/// assert_eq!(decode_proxy_header(b"PROXY UNKNOWN\r"), Ok(ProxyDecoded::Needs(1)));
/// let header = ProxyDecoded::Header(ProxyHeader::Unknown, 15);
/// assert_eq!(decode_proxy_header(b"PROXY UNKNOWN\r\nEHLO client"), Ok(header));
/// ```
pub fn decode(octets: &[u8]) -> Result<ProxyDecoded, ProxyError> {
    if octets.is_empty() {
        Ok(ProxyDecoded::Needs(SHORTEST))
    } else if begins(octets, SIGNATURE) {
        second_version(octets)
    } else if begins(octets, WORD) {
        first_version(octets)
    } else {
        Err(ProxyError::Missing)
    }
}

/// The header of version 2 by which a proxy is told between which addresses it is to connect (PROXY, TCP). Port 0 of the
/// source leaves the port to the proxy. When only one of the two is IPv4 it goes as IPv6, mapped.
///
/// ```
/// use smtp::{ProxyDecoded, ProxyHeader, decode_proxy_header, encode_proxy_header};
/// let (source, destination) = ("192.0.2.1:0".parse()?, "198.51.100.1:25".parse()?);
/// let octets = encode_proxy_header(source, destination);
/// let header = ProxyHeader::Client { source, destination };
/// assert_eq!(decode_proxy_header(&octets), Ok(ProxyDecoded::Header(header, octets.len())));
/// # Ok::<(), std::net::AddrParseError>(())
/// ```
pub fn encode(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    let mut finish = |family: u8, addresses: &[&[u8]]| {
        let length = addresses.iter().map(|address| address.len()).sum::<usize>();
        let length = u16::try_from(length.saturating_add(4)).unwrap_or_default();
        header.extend_from_slice(&[0x21, family]);
        header.extend_from_slice(&length.to_be_bytes());
        for address in addresses {
            header.extend_from_slice(address);
        }
    };
    match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => finish(0x11, &[&from.octets(), &to.octets()]),
        (from, to) => {
            let mapped = |address| match address {
                IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
                IpAddr::V6(address) => address.octets(),
            };
            finish(0x21, &[&mapped(from), &mapped(to)]);
        }
    }
    for port in [source.port(), destination.port()] {
        header.extend_from_slice(&port.to_be_bytes());
    }
    header
}

/// Whether the octets begin with the pattern, as far as they go.
fn begins(octets: &[u8], pattern: &[u8]) -> bool {
    octets
        .iter()
        .zip(pattern)
        .all(|(left, right)| left == right)
}

fn first_version(octets: &[u8]) -> Result<ProxyDecoded, ProxyError> {
    let longest = octets.get(..LONGEST_LINE).unwrap_or(octets);
    let Some(end) = longest.iter().position(|octet| *octet == b'\n') else {
        if longest.len() == LONGEST_LINE {
            return Err(Malformed("the line is too long"));
        }
        let to_end = if octets.last() == Some(&b'\r') { 1 } else { 2 };
        let more = SHORTEST.saturating_sub(octets.len()).max(to_end);
        return Ok(ProxyDecoded::Needs(more));
    };
    let length = end.saturating_add(1);
    let line = longest
        .get(..end)
        .and_then(|line| line.strip_suffix(b"\r"))
        .ok_or(Malformed("the line does not end with CR LF"))?;
    let line = std::str::from_utf8(line).map_err(|_| Malformed("the line is not ASCII"))?;
    let mut words = line.split(' ').skip(1);
    let header = match words.next() {
        Some("TCP4") => addresses::<Ipv4Addr>(words)?,
        Some("TCP6") => addresses::<Ipv6Addr>(words)?,
        Some("UNKNOWN") => ProxyHeader::Unknown,
        _ => return Err(Malformed("TCP4, TCP6 or UNKNOWN is expected")),
    };
    Ok(ProxyDecoded::Header(header, length))
}

fn addresses<'a, A>(mut words: impl Iterator<Item = &'a str>) -> Result<ProxyHeader, ProxyError>
where
    A: std::str::FromStr + Into<IpAddr>,
{
    let mut address = || -> Result<IpAddr, ProxyError> {
        let word = words.next().unwrap_or_default();
        let parsed: Result<A, _> = word.parse();
        parsed
            .map(Into::into)
            .map_err(|_| Malformed("an address is expected"))
    };
    let (source, destination) = (address()?, address()?);
    let mut port = || port(words.next().unwrap_or_default());
    let (source_port, destination_port) = (port()?, port()?);
    if words.next().is_some() {
        return Err(Malformed("there is something after the ports"));
    }
    Ok(client(
        (source, source_port),
        (destination, destination_port),
    ))
}

fn port(word: &str) -> Result<u16, ProxyError> {
    let is_written_well =
        word.bytes().all(|octet| octet.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    word.parse()
        .ok()
        .filter(|_| is_written_well)
        .ok_or(Malformed("a port is expected"))
}

fn second_version(octets: &[u8]) -> Result<ProxyDecoded, ProxyError> {
    let Some((head, rest)) = octets.split_first_chunk::<16>() else {
        return Ok(ProxyDecoded::Needs(16_usize.saturating_sub(octets.len())));
    };
    let [.., version_command, family, high, low] = *head;
    if version_command & 0xf0 != 0x20 {
        return Err(Malformed("the version is not 2"));
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST_REST {
        return Err(Malformed("it is too long"));
    }
    let Some(rest) = rest.get(..length) else {
        return Ok(ProxyDecoded::Needs(length.saturating_sub(rest.len())));
    };
    let header = match (version_command & 0x0f, family) {
        (0, _) => ProxyHeader::Local,
        (1, 0x11) => {
            let (block, fields) = block::<12>(rest)?;
            check_fields(fields)?;
            let [a, b, c, d, e, f, g, h, ports @ ..] = block;
            let addresses = (Ipv4Addr::new(a, b, c, d), Ipv4Addr::new(e, f, g, h));
            let [source, destination] = both_ports(ports);
            client(
                (addresses.0.into(), source),
                (addresses.1.into(), destination),
            )
        }
        (1, 0x21) => {
            let (source, rest) = block::<16>(rest)?;
            let (destination, rest) = block::<16>(rest)?;
            let (ports, fields) = block::<4>(rest)?;
            check_fields(fields)?;
            let [source_port, destination_port] = both_ports(ports);
            client(
                (Ipv6Addr::from(source).into(), source_port),
                (Ipv6Addr::from(destination).into(), destination_port),
            )
        }
        (1, 0x00) => ProxyHeader::Unknown,
        (1, _) => return Err(Malformed("it is no TCP over IPv4 or IPv6")),
        _ => return Err(Malformed("the command is neither LOCAL nor PROXY")),
    };
    Ok(ProxyDecoded::Header(header, length.saturating_add(16)))
}

fn block<const N: usize>(octets: &[u8]) -> Result<([u8; N], &[u8]), ProxyError> {
    octets
        .split_first_chunk::<N>()
        .map(|(block, rest)| (*block, rest))
        .ok_or(Malformed("it is too short for its addresses"))
}

fn both_ports([a, b, c, d]: [u8; 4]) -> [u16; 2] {
    [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])]
}

/// Additional fields (type, length of two octets, value) are passed over, but must fit.
fn check_fields(mut octets: &[u8]) -> Result<(), ProxyError> {
    while !octets.is_empty() {
        let rest = match octets {
            [_, high, low, rest @ ..] => rest.get(usize::from(u16::from_be_bytes([*high, *low]))..),
            _ => None,
        };
        octets = rest.ok_or(Malformed("an additional field does not fit"))?;
    }
    Ok(())
}

fn client(source: (IpAddr, u16), destination: (IpAddr, u16)) -> ProxyHeader {
    let canonical = |(address, port): (IpAddr, u16)| SocketAddr::new(address.to_canonical(), port);
    ProxyHeader::Client {
        source: canonical(source),
        destination: canonical(destination),
    }
}
