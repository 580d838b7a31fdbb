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

/// The SubjectPublicKeyInfo of a certificate (RFC 5280 section 4.1), as it stands there.
pub(super) fn public_key(certificate: &[u8]) -> Option<&[u8]> {
    let (tag, _, inner, _) = element(certificate)?;
    let (inner_tag, _, mut rest, _) = element(inner)?;
    if (tag, inner_tag) != (SEQUENCE, SEQUENCE) {
        return None;
    }
    if rest.first() == Some(&VERSION) {
        (_, _, _, rest) = element(rest)?;
    }
    // Serial number, algorithm, issuer, validity, subject.
    for _ in 0..5 {
        (_, _, _, rest) = element(rest)?;
    }
    let (tag, whole, _, _) = element(rest)?;
    (tag == SEQUENCE).then_some(whole)
}

/// The first element: its tag, all of it, what is in it, and what comes after it. Lengths have three octets at most, and
/// tags one.
fn element(input: &[u8]) -> Option<(u8, &[u8], &[u8], &[u8])> {
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
    Some((
        tag,
        input.get(..end)?,
        input.get(start..end)?,
        &input[end..],
    ))
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
