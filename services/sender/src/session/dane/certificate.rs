//! What of a certificate a TLSA record is about.

use aws_lc_rs::digest::{SHA256, SHA512, digest};
use dns::TlsaRecord;

/// Whether the certificate, DER, is what the record names (RFC 6698 section 2.1); its usage is not looked at.
pub(super) fn matches(record: &TlsaRecord, certificate: &[u8]) -> bool {
    let selected = match record.selector {
        0 => Some(certificate),
        1 => public_key(certificate),
        _ => None,
    };
    let Some(selected) = selected else {
        return false;
    };
    match record.matching {
        0 => selected == &*record.data,
        1 => digest(&SHA256, selected).as_ref() == &*record.data,
        2 => digest(&SHA512, selected).as_ref() == &*record.data,
        _ => false,
    }
}

const SEQUENCE: u8 = 0x30;
/// `[0] EXPLICIT`.
const VERSION: u8 = 0xa0;

/// An element of DER, and what comes after it.
struct Element<'a> {
    tag: u8,
    /// Tag and length included.
    whole: &'a [u8],
    inner: &'a [u8],
    rest: &'a [u8],
}

/// The SubjectPublicKeyInfo of a certificate (RFC 5280 section 4.1), as it stands there.
pub(super) fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    let outer = element(certificate)?;
    let signed = element(outer.inner)?;
    if (outer.tag, signed.tag) != (SEQUENCE, SEQUENCE) {
        return None;
    }
    let mut rest = signed.inner;
    if rest.first() == Some(&VERSION) {
        rest = element(rest)?.rest;
    }
    // Serial number, algorithm, issuer, validity, subject.
    for _ in 0..5 {
        rest = element(rest)?.rest;
    }
    let key = element(rest)?;
    (key.tag == SEQUENCE).then_some(key.whole)
}

/// The first element. Lengths have three octets at most, and tags one.
fn element(input: &[u8]) -> Option<Element<'_>> {
    let (tag, first) = (*input.first()?, *input.get(1)?);
    let (length, start) = match first {
        0..=0x7f => (usize::from(first), 2),
        0x81..=0x83 => {
            let octets = input.get(2..2 + usize::from(first & 0x7f))?;
            let add = |length: usize, octet: &u8| length << 8 | usize::from(*octet);
            (octets.iter().fold(0, add), 2 + octets.len())
        }
        _ => return None,
    };
    let end = start + length;
    Some(Element {
        tag,
        whole: input.get(..end)?,
        inner: input.get(start..end)?,
        rest: input.get(end..)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_key_is_found_and_nothing_is_read_beyond_the_end() {
        let key = rcgen::KeyPair::generate().unwrap();
        let names = vec!["mx.dest.example".to_owned()];
        let params = rcgen::CertificateParams::new(names).unwrap();
        let made = params.self_signed(&key).unwrap();
        let der = made.der().as_ref();
        use rcgen::PublicKeyData;
        assert_eq!(public_key(der), Some(&*key.subject_public_key_info()));
        for end in 0..der.len() {
            assert_eq!(public_key(&der[..end]), None);
        }
        for place in 0..der.len() {
            for octet in [0, 0x30, 0x80, 0x84, 0xff] {
                let mut broken = der.to_vec();
                broken[place] = octet;
                // It says something or nothing, and does not panic.
                let _said = public_key(&broken);
            }
        }
    }
}
