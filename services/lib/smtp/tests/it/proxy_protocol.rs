//! PROXY headers, good and bad.

use proptest::prelude::*;
use smtp::{ProxyDecoded, ProxyError, ProxyHeader, decode_proxy_header};

fn from(source: &str, destination: &str) -> ProxyHeader {
    ProxyHeader::Client {
        source: source.parse().expect("the address is valid"),
        destination: destination.parse().expect("the address is valid"),
    }
}

/// Version 2 with this command, family and rest.
fn second(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut octets = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    octets.extend([0x20 | command, family]);
    octets.extend(
        u16::try_from(rest.len())
            .expect("it is short")
            .to_be_bytes(),
    );
    octets.extend(rest);
    octets
}

const IPV4: [u8; 12] = [192, 0, 2, 7, 198, 51, 100, 9, 0xc0, 0x01, 0, 25];

/// Decodes what has the client's first octets after it, octet by octet too: nothing of them is ever asked for.
fn decode(header: &[u8]) -> Result<ProxyHeader, ProxyError> {
    let mut octets = header.to_vec();
    octets.extend(b"EHLO client.example\r\n");
    let whole = decode_proxy_header(&octets);
    let mut read = 0;
    let in_pieces = loop {
        match decode_proxy_header(&octets[..read]) {
            Ok(ProxyDecoded::Needs(more)) => {
                assert!(more > 0);
                read += more;
                assert!(read <= octets.len());
            }
            other => break other,
        }
    };
    match whole {
        Ok(ProxyDecoded::Header(found, length)) => {
            assert_eq!(in_pieces, whole);
            assert_eq!((length, read), (header.len(), header.len()));
            Ok(found)
        }
        Ok(ProxyDecoded::Needs(_)) => panic!("the header is there"),
        Err(error) => Err(error),
    }
}

#[test]
fn both_versions_name_the_client() {
    let ipv4 = from("192.0.2.7:49153", "198.51.100.9:25");
    assert_eq!(
        decode(b"PROXY TCP4 192.0.2.7 198.51.100.9 49153 25\r\n"),
        Ok(ipv4)
    );
    assert_eq!(decode(&second(1, 0x11, &IPV4)), Ok(ipv4));
    let ipv6 = from("[2001:db8::1]:65535", "[2001:db8::2]:0");
    assert_eq!(
        decode(b"PROXY TCP6 2001:db8::1 2001:db8::2 65535 0\r\n"),
        Ok(ipv6)
    );
    let mut addresses = Vec::new();
    for last in [1, 2] {
        addresses.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    addresses.extend([0xff, 0xff, 0, 0]);
    assert_eq!(decode(&second(1, 0x21, &addresses)), Ok(ipv6));
}

#[test]
fn an_ipv4_address_in_ipv6_is_the_ipv4_address() {
    let header = b"PROXY TCP6 ::ffff:127.0.0.1 ::1 1 2\r\n";
    assert_eq!(decode(header), Ok(from("127.0.0.1:1", "[::1]:2")));
}

#[test]
fn local_and_unknown_are_told_apart_and_what_they_carry_is_passed_over() {
    assert_eq!(decode(&second(0, 0, &[])), Ok(ProxyHeader::Local));
    assert_eq!(decode(&second(0, 0x11, &[1; 300])), Ok(ProxyHeader::Local));
    assert_eq!(decode(&second(1, 0, &[1; 7])), Ok(ProxyHeader::Unknown));
    assert_eq!(decode(b"PROXY UNKNOWN\r\n"), Ok(ProxyHeader::Unknown));
    let longest = b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n";
    assert_eq!(longest.len(), 107);
    assert_eq!(decode(longest), Ok(ProxyHeader::Unknown));
}

#[test]
fn additional_fields_are_passed_over_and_must_fit() {
    let with = |fields: &[u8]| decode(&second(1, 0x11, &[&IPV4[..], fields].concat()));
    let header = Ok(from("192.0.2.7:49153", "198.51.100.9:25"));
    assert_eq!(with(&[2, 0, 3, b'a', b'b', b'c', 4, 0, 0]), header);
    for cut in [&[2, 0][..], &[2, 0, 4, 1, 2, 3], &[2, 0xff, 0xff]] {
        assert!(
            matches!(with(cut), Err(ProxyError::Malformed(_))),
            "{cut:?}"
        );
    }
    let long = [&IPV4[..], &[5, 0x0f, 0xf1], &[0; 0x0ff1]].concat();
    assert_eq!(long.len(), 4096);
    assert_eq!(decode(&second(1, 0x11, &long)), header);
    let longer = second(1, 0x11, &[&long[..], &[4, 0, 0]].concat());
    assert!(matches!(decode(&longer), Err(ProxyError::Malformed(_))));
}

#[test]
fn what_is_no_header_is_seen_at_the_first_octet_that_differs() {
    for octets in [&b"E"[..], b"PROXZ", b"\r\n\r\nQUIT", b"\x16\x03\x01"] {
        assert_eq!(decode_proxy_header(octets), Err(ProxyError::Missing));
    }
}

#[test]
fn malformed_headers_are_refused() {
    for line in [
        "PROXY  TCP4 192.0.2.7 198.51.100.9 1 2\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.9 1 2\n",
        "PROXY TCP4 192.0.2.7 198.51.100.9 1\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.9 1 2 3\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.9 1 65536\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.9 +1 2\r\n",
        "PROXY TCP4 192.0.2.7 198.51.100.9 01 2\r\n",
        "PROXY TCP4 192.0.2.07 198.51.100.9 1 2\r\n",
        "PROXY TCP4 ::1 ::1 1 2\r\n",
        "PROXY TCP6 192.0.2.7 198.51.100.9 1 2\r\n",
        "PROXY UDP4 192.0.2.7 198.51.100.9 1 2\r\n",
        "PROXY \r\n",
    ] {
        let found = decode_proxy_header(line.as_bytes());
        assert!(matches!(found, Err(ProxyError::Malformed(_))), "{line:?}");
    }
    let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(92));
    assert!(matches!(
        decode_proxy_header(long.as_bytes()),
        Err(ProxyError::Malformed(_))
    ));
    for octets in [
        second(2, 0x11, &IPV4),
        second(1, 0x12, &IPV4),
        second(1, 0x31, &[0; 216]),
        second(1, 0x11, &IPV4[..11]),
        second(1, 0x21, &[0; 35]),
    ] {
        assert!(matches!(
            decode_proxy_header(&octets),
            Err(ProxyError::Malformed(_))
        ));
    }
    let mut version = second(1, 0x11, &IPV4);
    version[12] = 0x11;
    assert!(matches!(
        decode_proxy_header(&version),
        Err(ProxyError::Malformed(_))
    ));
}

proptest! {
    #[test]
    fn any_octets_are_answered_the_same_however_they_are_cut(
        version in 0..3_u8, octets in proptest::collection::vec(any::<u8>(), 0..200)
    ) {
        let mut input = match version {
            0 => Vec::new(),
            1 => b"PROXY TCP4 ".to_vec(),
            _ => b"\r\n\r\n\0\r\nQUIT\n\x21".to_vec(),
        };
        input.extend(octets);
        let whole = decode_proxy_header(&input);
        for length in 0..input.len() {
            match decode_proxy_header(&input[..length]) {
                Ok(ProxyDecoded::Needs(more)) => if let Ok(ProxyDecoded::Header(_, end)) = whole {
                    prop_assert!(length + more <= end);
                },
                decided => prop_assert_eq!(decided, whole),
            }
        }
    }
}
