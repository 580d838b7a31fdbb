//! Whether the keys that sign can be found (RFC 6376 section 3.6).

use dkim::{PublicKey, PublicKeyError};
use dns::Resolver;

use crate::finding::{Finding, Topic, Verdict};
use crate::{Key, KeyUse, Subject};

pub(crate) async fn examine(resolver: &Resolver, subject: &Subject) -> Vec<Finding> {
    let domain = &subject.signed_by;
    let of_domain = |verdict, what: &str| Finding::new(verdict, Topic::Dkim, domain.as_str(), what);
    if subject.unsigned {
        let what = "its mail is not signed, as its SendingDomain says";
        return vec![of_domain(Verdict::Note, what)];
    }
    let mut findings = Vec::new();
    let signs = |key: &Key| key.used == KeyUse::Active;
    if !subject.keys.iter().any(signs) {
        findings.push(of_domain(Verdict::Wrong, "no key of the domain signs"));
    }
    for key in &subject.keys {
        findings.push(of_key(resolver, domain.as_str(), key).await);
    }
    findings
}

async fn of_key(resolver: &Resolver, domain: &str, key: &Key) -> Finding {
    let name = format!("{}._domainkey.{domain}", key.selector);
    let found = |verdict, what: &str| Finding::new(verdict, Topic::Dkim, &name, what);
    if key.record.is_empty() {
        return found(
            Verdict::Wrong,
            &format!("its private key can't be used: {}", key.problem),
        );
    }
    let texts = match resolver.texts(&name).await {
        Ok(texts) => texts,
        Err(error) if error.is_permanent() => [].into(),
        Err(error) => return found(Verdict::Unknown, &error.to_string()),
    };
    let shown = shown(&key.record, texts.iter().map(AsRef::as_ref));
    let (verdict, what) = judged(key.used, &shown);
    let what = match key.problem.as_str() {
        "" => what,
        problem => format!("{what}; its file can't be used, and the last good key is: {problem}"),
    };
    let finding = found(verdict, &what);
    let is_needed = verdict >= Verdict::Note && shown != Shown::Key { is_test: true };
    if is_needed && key.used != KeyUse::Retired {
        return finding.publishing(&name, "TXT", key.record.clone());
    }
    finding
}

/// What stands at the key's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shown {
    Nothing,
    /// Its public key; with `t=y` receivers may take its signatures for none.
    Key {
        is_test: bool,
    },
    Another,
    Revoked,
    Broken,
    Several,
}

fn shown<'a>(record: &str, texts: impl Iterator<Item = &'a str>) -> Shown {
    let mut records = texts.filter(|text| text.contains("p="));
    let Some(only) = records.next() else {
        return Shown::Nothing;
    };
    if records.next().is_some() {
        return Shown::Several;
    }
    match (PublicKey::parse(only), PublicKey::parse(record)) {
        (Ok(found), Ok(own)) if found.is_same_key(&own) => Shown::Key {
            is_test: is_test(only),
        },
        (Ok(_), _) => Shown::Another,
        (Err(PublicKeyError::Revoked), _) => Shown::Revoked,
        (Err(PublicKeyError::Invalid), _) => Shown::Broken,
    }
}

/// The flag `y` of the tag `t=`.
fn is_test(record: &str) -> bool {
    record.split(';').any(|tag| match tag.split_once('=') {
        Some((name, flags)) => {
            name.trim() == "t" && flags.split(':').any(|flag| flag.trim() == "y")
        }
        None => false,
    })
}

fn judged(used: KeyUse, shown: &Shown) -> (Verdict, String) {
    let state = match shown {
        Shown::Key { is_test: false } => "the DNS shows the public key",
        Shown::Key { is_test: true } => {
            "the DNS shows the public key, as a test (t=y): receivers may pass over it"
        }
        Shown::Nothing => "there is no record of the key",
        Shown::Another => "the record is of another key",
        Shown::Revoked => "the record says that the key is revoked",
        Shown::Broken => "the record can't be read",
        Shown::Several => "there are several records, and receivers take any of them",
    };
    let verdict = match (used, shown) {
        (KeyUse::Active | KeyUse::Pending | KeyUse::Retiring, Shown::Key { is_test: false }) => {
            Verdict::Fine
        }
        (KeyUse::Active, Shown::Key { is_test: true }) => Verdict::Note,
        (KeyUse::Active, _) => Verdict::Wrong,
        (KeyUse::Pending, _) => Verdict::Note,
        // What it signed is still under way.
        (KeyUse::Retiring | KeyUse::Missing, _) => Verdict::Note,
        (KeyUse::Retired, Shown::Nothing) => Verdict::Fine,
        (KeyUse::Retired, _) => Verdict::Note,
    };
    let role = match used {
        KeyUse::Active => "it signs",
        KeyUse::Pending => "it waits for its record",
        KeyUse::Retiring => "it no longer signs, and its record is still needed",
        KeyUse::Retired => "it no longer signs, and its record can go",
        KeyUse::Missing => "it does not sign",
    };
    (verdict, format!("{state}; {role}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_what_stands_at_the_name() {
        let key = || dkim::Key::from_pem(dkim::generate_ed25519().as_bytes()).unwrap();
        let (own, other) = (key().dns_record(), key().dns_record());
        let test = format!("{own}; t=s : y");
        for (texts, expected) in [
            (&[][..], Shown::Nothing),
            (&["v=spf1 -all"], Shown::Nothing),
            (&[own.as_str()], Shown::Key { is_test: false }),
            (&[&test], Shown::Key { is_test: true }),
            (&[&other], Shown::Another),
            (&["v=DKIM1; p="], Shown::Revoked),
            (&["v=DKIM1; p=%"], Shown::Broken),
            (&[&own, &other], Shown::Several),
        ] {
            assert_eq!(shown(&own, texts.iter().copied()), expected, "{texts:?}");
        }
    }
}
