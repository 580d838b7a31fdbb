//! Which certificates and keys a host may show (TLSA records, RFC 6698).

use hickory_resolver::proto::rr::{RData, Record};

/// TLSA records that are kept of one name.
const MOST_RECORDS: usize = 32;
/// Octets of their data, together: whole certificates may be among them.
const MOST_OCTETS: usize = 16 * 1024;

/// The TLSA records of a host, from DNS that was checked with DNSSEC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tlsa {
    /// The name whose records these are, without `_25._tcp`: that of the host, or the name at the end of its CNAMEs. Lower
    /// case, no final dot.
    pub base: Box<str>,
    /// Sorted; never empty, at most 32 with 16 KiB of data. Usable ones and others.
    pub records: Box<[TlsaRecord]>,
}

/// RFC 6698 section 2.1.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct TlsaRecord {
    /// 2: authority (DANE-TA), 3: the host's own (DANE-EE).
    pub usage: u8,
    /// 0: the certificate, 1: its public key.
    pub selector: u8,
    /// 0: itself, 1: its SHA-256, 2: its SHA-512.
    pub matching: u8,
    /// What it must be.
    pub data: Box<[u8]>,
}

/// More records than are looked at: to look at some would be to be surer than one is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooMany;

/// Those among the records of an answer.
pub(crate) fn tlsa_of(records: &[Record]) -> Result<Box<[TlsaRecord]>, TooMany> {
    let mut octets = 0;
    let mut kept = Vec::new();
    for record in records {
        let RData::TLSA(tlsa) = &record.data else {
            continue;
        };
        octets += tlsa.cert_data.len();
        if kept.len() == MOST_RECORDS || octets > MOST_OCTETS {
            return Err(TooMany);
        }
        kept.push(TlsaRecord {
            usage: tlsa.cert_usage.into(),
            selector: tlsa.selector.into(),
            matching: tlsa.matching.into(),
            data: tlsa.cert_data.as_slice().into(),
        });
    }
    // They come in any order, and mean the same.
    kept.sort_unstable();
    Ok(kept.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_resolver::proto::rr::Name;
    use hickory_resolver::proto::rr::rdata::TLSA;

    fn records(count: usize, octets: usize) -> Vec<Record> {
        let tlsa = TLSA::new(3.into(), 1.into(), 1.into(), vec![7; octets]);
        let record = Record::from_rdata(Name::root(), 60, RData::TLSA(tlsa));
        vec![record; count]
    }

    #[test]
    fn all_records_are_kept_or_none() {
        let kept = tlsa_of(&records(2, 32)).unwrap();
        let expected = TlsaRecord {
            usage: 3,
            selector: 1,
            matching: 1,
            data: [7; 32].into(),
        };
        assert_eq!(*kept, [expected.clone(), expected]);
        assert_eq!(tlsa_of(&records(32, 512)).map(|kept| kept.len()), Ok(32));
        assert_eq!(tlsa_of(&records(33, 1)), Err(TooMany));
        assert_eq!(tlsa_of(&records(17, 1000)), Err(TooMany));
    }
}
