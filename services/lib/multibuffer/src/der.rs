//! The private key as PKCS#1 (RFC 8017 appendix A.1.2) or in PKCS#8 (RFC 5208), as far as it is needed: whoever calls has
//! had the key checked by a cryptographic library.

const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
/// rsaEncryption, 1.2.840.113549.1.1.1.
const RSA: &[u8] = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01\x05\x00";

/// Numbers of a key, big-endian, without leading zeros.
pub(crate) struct PrivateKey<'a> {
    pub n: &'a [u8],
    pub e: &'a [u8],
    pub p: &'a [u8],
    pub q: &'a [u8],
    pub dp: &'a [u8],
    pub dq: &'a [u8],
    pub qinv: &'a [u8],
}

impl<'a> PrivateKey<'a> {
    /// `None` for anything but an RSA key with two primes.
    pub(crate) fn read(der: &'a [u8]) -> Option<Self> {
        let mut fields = Reader(Reader(der).element(SEQUENCE)?);
        if !fields.number()?.is_empty() {
            return None;
        }
        if fields.0.first() == Some(&SEQUENCE) {
            return match fields.element(SEQUENCE)? {
                RSA => Self::read(fields.element(OCTET_STRING)?),
                _ => None,
            };
        }
        let (n, e, _d) = (fields.number()?, fields.number()?, fields.number()?);
        Some(Self {
            n,
            e,
            p: fields.number()?,
            q: fields.number()?,
            dp: fields.number()?,
            dq: fields.number()?,
            qinv: fields.number()?,
        })
    }
}

/// Bits of the modulus of an RSA key in one of these forms; `None` for anything else.
pub fn modulus_bits(der: &[u8]) -> Option<usize> {
    let n = PrivateKey::read(der)?.n;
    let unused = usize::try_from(n.first()?.leading_zeros()).ok()?;
    Some(n.len() * 8 - unused)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn element(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (&[found, length], rest) = self.0.split_first_chunk()?;
        if found != tag {
            return None;
        }
        let (length, rest) = match (length, rest) {
            (0..=0x7f, _) => (usize::from(length), rest),
            (0x81, [length, rest @ ..]) => (usize::from(*length), rest),
            (0x82, [high, low, rest @ ..]) => (usize::from(*high) << 8 | usize::from(*low), rest),
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(content)
    }

    /// A number that is not negative; zero is empty.
    fn number(&mut self) -> Option<&'a [u8]> {
        let mut bytes = self.element(INTEGER)?;
        if *bytes.first()? >= 0x80 {
            return None;
        }
        while let [0, rest @ ..] = bytes {
            bytes = rest;
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_key_and_nothing_cut_short() {
        let der = b"\x30\x1b\x02\x01\x00\x02\x01\x0f\x02\x01\x03\x02\x01\x05\x02\x01\x05\x02\x01\x03\x02\x01\x01\x02\x01\x01\x02\x01\x02";
        let key = PrivateKey::read(der).unwrap();
        assert_eq!(
            (key.n, key.e, key.p, key.q),
            (&[15][..], &[3][..], &[5][..], &[3][..])
        );
        assert_eq!((key.dp, key.dq, key.qinv), (&[1][..], &[1][..], &[2][..]));
        for end in 0..der.len() {
            assert!(PrivateKey::read(&der[..end]).is_none());
        }
        for (position, byte) in [(0, 0x31), (4, 1), (5, 3), (7, 0x80), (1, 0x83)] {
            let mut other = der.to_vec();
            other[position] = byte;
            assert!(PrivateKey::read(&other).is_none(), "{position}");
        }
        let wrapped = [
            b"\x30\x82\x00\x32\x02\x01\x00\x30\x0d",
            RSA,
            b"\x04\x81\x1d",
            &der[..],
        ]
        .concat();
        assert_eq!(PrivateKey::read(&wrapped).unwrap().n, [15]);
    }
}
