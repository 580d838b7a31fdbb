use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PublicKeyData};

use super::*;

const BASE: &str = "mx.dest.example";

/// An authority, one between it and the host, and the host's certificate: for these names, expired or not.
struct Chain {
    certificates: Vec<CertificateDer<'static>>,
    keys: Vec<Vec<u8>>,
}

impl Chain {
    fn new(names: &[&str], expired: bool) -> Self {
        let authority = |name: &str| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params
                .distinguished_name
                .push(rcgen::DnType::CommonName, name);
            (KeyPair::generate().unwrap(), params)
        };
        let (root_key, root) = authority("root");
        let (between_key, between) = authority("between");
        let root_made = root.self_signed(&root_key).unwrap();
        let root_spki = root_key.subject_public_key_info();
        let between_made = between
            .signed_by(&between_key, &Issuer::new(root, root_key))
            .unwrap();
        let between_spki = between_key.subject_public_key_info();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        if expired {
            params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        }
        let key = KeyPair::generate().unwrap();
        let own = params
            .signed_by(&key, &Issuer::new(between, between_key))
            .unwrap();
        let certificates = [&own, &between_made, &root_made].map(|made| made.der().clone());
        let keys = [key.subject_public_key_info(), between_spki, root_spki];
        Self {
            certificates: certificates.into(),
            keys: keys.into(),
        }
    }

    /// A record about one of them: 0 is the host's.
    fn record(&self, usage: u8, selector: u8, matching: u8, about: usize) -> TlsaRecord {
        use aws_lc_rs::digest::{SHA256, SHA512, digest};
        let selected = match selector {
            0 => self.certificates[about].as_ref(),
            _ => &self.keys[about],
        };
        let data = match matching {
            1 => digest(&SHA256, selected).as_ref().into(),
            2 => digest(&SHA512, selected).as_ref().into(),
            _ => selected.into(),
        };
        TlsaRecord {
            usage,
            selector,
            matching,
            data,
        }
    }
}

fn proves(chain: &[CertificateDer<'_>], records: &[TlsaRecord]) -> Result<For, Error> {
    let tlsa = Tlsa {
        base: BASE.into(),
        records: records.into(),
    };
    let now = UnixTime::since_unix_epoch(
        std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap_or(Duration::ZERO),
    );
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    prove(&tlsa, Some("dest.example"), chain, now, &provider)
}

#[test]
fn every_form_of_record_finds_what_it_names() {
    let chain = Chain::new(&[BASE], false);
    let stranger = Chain::new(&[BASE], false);
    for selector in [0, 1] {
        for matching in [0, 1, 2] {
            for (usage, about) in [(3, 0), (2, 1), (2, 2)] {
                let record = chain.record(usage, selector, matching, about);
                assert!(is_usable(&record));
                let found = proves(&chain.certificates, std::slice::from_ref(&record));
                assert_eq!(
                    found,
                    Ok(For::Host),
                    "{usage} {selector} {matching} {about}"
                );
                let found = proves(&stranger.certificates, &[record]);
                assert!(found.is_err(), "{usage} {selector} {matching} {about}");
            }
        }
    }
    // An authority that is named does not vouch for itself as the host, nor a host as an authority.
    for (usage, about) in [(3, 1), (3, 2)] {
        let record = chain.record(usage, 1, 1, about);
        assert!(proves(&chain.certificates, &[record]).is_err());
    }
}

#[test]
fn an_authority_that_is_not_shown_counts_only_when_the_record_has_all_of_it() {
    let chain = Chain::new(&[BASE], false);
    let shown = &chain.certificates[..2];
    assert_eq!(proves(shown, &[chain.record(2, 0, 0, 2)]), Ok(For::Host));
    for (selector, matching) in [(0, 1), (1, 1), (1, 0)] {
        let record = chain.record(2, selector, matching, 2);
        assert!(proves(shown, &[record]).is_err());
    }
    // The one between is not shown: nobody knows who has signed.
    let shown = &chain.certificates[..1];
    assert!(proves(shown, &[chain.record(2, 0, 0, 2)]).is_err());
}

#[test]
fn names_and_times_are_looked_at_when_an_authority_vouches_and_only_then() {
    let not_named = Error::from(CertificateError::NotValidForName);
    for (names, expired, expected) in [
        (&[BASE][..], false, Ok(For::Host)),
        (&["*.dest.example"], false, Ok(For::Host)),
        (&["dest.example"], false, Ok(For::Domain)),
        (&["other.example"], false, Err(not_named)),
        (&[BASE], true, Err(CertificateError::Expired.into())),
    ] {
        let chain = Chain::new(names, expired);
        let found = proves(&chain.certificates, &[chain.record(2, 1, 1, 2)]);
        assert_eq!(found, expected, "{names:?}");
        let found = proves(&chain.certificates, &[chain.record(3, 1, 1, 0)]);
        assert_eq!(found, Ok(For::Host), "{names:?}");
    }
}

#[test]
fn any_record_is_enough_but_a_weaker_digest_does_not_stand_beside_a_stronger_one() {
    let chain = Chain::new(&[BASE], false);
    let stranger = Chain::new(&[BASE], false);
    let both = [stranger.record(3, 1, 1, 0), chain.record(3, 1, 1, 0)];
    assert_eq!(proves(&chain.certificates, &both), Ok(For::Host));
    let outdone = [stranger.record(3, 1, 2, 0), chain.record(3, 1, 1, 0)];
    assert!(proves(&chain.certificates, &outdone).is_err());
    let other_kind = [stranger.record(3, 0, 2, 0), chain.record(3, 1, 1, 0)];
    assert_eq!(proves(&chain.certificates, &other_kind), Ok(For::Host));
    let other_usage = [stranger.record(3, 1, 1, 0), chain.record(2, 1, 1, 2)];
    assert_eq!(proves(&chain.certificates, &other_usage), Ok(For::Host));
}

#[test]
fn what_nobody_can_use_is_told_from_what_is_not_there() {
    let chain = Chain::new(&[BASE], false);
    let usable = chain.record(3, 1, 1, 0);
    let with = |change: fn(&mut TlsaRecord)| {
        let mut record = usable.clone();
        change(&mut record);
        record
    };
    let unusable = [
        with(|record| record.usage = 0),
        with(|record| record.usage = 1),
        with(|record| record.usage = 255),
        with(|record| record.selector = 2),
        with(|record| record.matching = 3),
        with(|record| record.matching = 2),
        with(|record| record.data = record.data[1..].into()),
    ];
    let of = |records: &[TlsaRecord]| {
        let tlsa = Tlsa {
            base: BASE.into(),
            records: records.into(),
        };
        Dane::from(Some(Arc::new(tlsa)))
    };
    for record in &unusable {
        assert_eq!(
            of(std::slice::from_ref(record)),
            Dane::Unusable,
            "{record:?}"
        );
    }
    assert_eq!(Dane::from(None), Dane::Absent);
    let mixed = [&unusable[..], &[usable]].concat();
    assert!(matches!(of(&mixed), Dane::Usable(_)));
    assert_eq!(proves(&chain.certificates, &mixed), Ok(For::Host));
}
