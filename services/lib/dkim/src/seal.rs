//! Adding a set to a chain (RFC 8617 section 5.1).

use message::fields;

use crate::chain::{ChainStatus, MOST_SETS, push_sealed, push_unsigned, sets};
use crate::signature::{Draft, Selection, signed_data};
use crate::{SignError, Signer};

/// What a new set says.
#[derive(Debug, Clone, Copy)]
pub struct Seal<'a> {
    /// Its number, 1 to 50.
    pub instance: u32,
    /// What was found of the sets before it.
    pub status: ChainStatus,
    /// What follows the instance in the ARC-Authentication-Results: `authserv-id; method=result …`. May be folded.
    pub results: &'a str,
}

/// Why a set is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The sets in the header section are not those that `instance` and `status` speak of.
    #[error("the ARC sets of the message are not those that were checked")]
    OtherChain,
    /// A line of the results ends the field.
    #[error("the authentication results are no value of a field")]
    Results,
    /// As of a signature.
    #[error(transparent)]
    Sign(#[from] SignError),
}

impl Signer {
    /// The three fields of a set, the seal on top, to be put on top of `header`; `body_hash` is that of
    /// [`crate::BodyHasher`], `now` is in Unix seconds. Costs the time of two signatures.
    pub fn seal(
        &self,
        header: &[u8],
        body_hash: &[u8; 32],
        seal: &Seal<'_>,
        now: u64,
    ) -> Result<Vec<u8>, SealError> {
        let instance = seal.instance;
        if !is_value(seal.results) {
            return Err(SealError::Results);
        }
        let mut data = self.chain_data(header, seal)?;
        let results = format!(
            "ARC-Authentication-Results: i={instance}; {}\r\n",
            seal.results
        );
        let selection = Selection::with(header, &["DKIM-Signature"])?;
        let head = format!("ARC-Message-Signature: i={instance}; a=");
        let field = self.unsigned_field(&head, &selection.names, body_hash, now);
        let signature = Draft {
            data: signed_data(&selection.fields, field.as_bytes()),
            key: &self.key,
            field,
        }
        .sign()?;
        let field = format!(
            "ARC-Seal: i={instance}; a={}; cv={};\r\n\td={}; s={};\r\n\tt={now};\r\n\tb=",
            self.algorithm().as_str(),
            seal.status.as_str(),
            self.domain(),
            self.selector(),
        );
        for field in fields(results.as_bytes()).chain(fields(&signature)) {
            push_sealed(&mut data, &field);
        }
        for field in fields(field.as_bytes()) {
            push_unsigned(&mut data, &field);
        }
        let mut set = Draft {
            data,
            key: &self.key,
            field,
        }
        .sign()?;
        set.extend_from_slice(&signature);
        set.extend_from_slice(results.as_bytes());
        Ok(set)
    }

    /// What a seal covers of the sets before it: all of them, or nothing of a chain that fails (section 5.1.2).
    fn chain_data(&self, header: &[u8], seal: &Seal<'_>) -> Result<Vec<u8>, SealError> {
        let found = sets(header);
        let before = match &found {
            Ok(sets) => u32::try_from(sets.len()).unwrap_or(MOST_SETS),
            Err(highest) => *highest,
        };
        let is_next = seal.instance == before + 1 && seal.instance <= MOST_SETS;
        let mut data = Vec::new();
        match (seal.status, found) {
            (ChainStatus::Fail, _) if is_next => {}
            (ChainStatus::None, Ok(sets)) if is_next && sets.is_empty() => {}
            (ChainStatus::Pass, Ok(sets)) if is_next && !sets.is_empty() => {
                for set in sets {
                    push_sealed(&mut data, &set.results);
                    push_sealed(&mut data, &set.signature);
                    push_sealed(&mut data, &set.seal);
                }
            }
            _ => return Err(SealError::OtherChain),
        }
        Ok(data)
    }
}

/// Whether the text stays in its field: printable, and every line but the first is a continuation with something in it.
fn is_value(text: &str) -> bool {
    let is_line = |line: &str| {
        !line.trim().is_empty()
            && line.len() <= 998
            && line
                .bytes()
                .all(|byte| byte == b'\t' || (b' '..=b'~').contains(&byte))
    };
    let mut lines = text.split("\r\n");
    lines.next().is_some_and(is_line)
        && lines.all(|line| line.starts_with([' ', '\t']) && is_line(line))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        BodyHasher, BodyHashes, Chain, Key, PublicKey, generate_ed25519, generate_rsa2048,
    };

    const NOW: u64 = 1_795_351_205;
    const BODY: &[u8] = b"hello\r\n";

    fn signer(domain: &str, pem: &str) -> (Signer, PublicKey) {
        let key = Key::from_pem(pem.as_bytes()).unwrap();
        let record = PublicKey::parse(&key.dns_record()).unwrap();
        (Signer::new(domain, "s1", key).unwrap(), record)
    }

    fn hash(body: &[u8]) -> [u8; 32] {
        let mut hasher = BodyHasher::new();
        hasher.update(body);
        hasher.finish()
    }

    /// Whether every signature of a whole chain holds, with the key of its domain.
    fn status(header: &[u8], body: &[u8], keys: &[(&str, &PublicKey)]) -> ChainStatus {
        let bodies = BodyHashes {
            relaxed: hash(body),
            simple: None,
        };
        let holds = |claim: &crate::Claim| {
            let key = keys.iter().find(|(domain, _)| *domain == claim.domain());
            key.is_some_and(|(_, key)| claim.check(key, &bodies, NOW).is_ok())
        };
        match Chain::of(header) {
            Chain::None => ChainStatus::None,
            Chain::Whole { message, seals, .. } if holds(&message) && seals.iter().all(holds) => {
                ChainStatus::Pass
            }
            _ => ChainStatus::Fail,
        }
    }

    fn sealed(signer: &Signer, header: &[u8], status: ChainStatus) -> Vec<u8> {
        let seal = Seal {
            instance: Chain::of(header).sets() + 1,
            status,
            results: "relay.example;\r\n\tarc=none;\r\n\tdkim=pass header.d=a.example",
        };
        let set = signer.seal(header, &hash(BODY), &seal, NOW).unwrap();
        [set, header.to_vec()].concat()
    }

    const HEADER: &[u8] =
        b"DKIM-Signature: v=1; b=x\r\nFrom: a@a.example\r\nSubject: s\r\nTo: b@b.example\r\n";

    #[test]
    fn a_chain_grows_and_holds() {
        let (first, first_key) = signer("first.example", &generate_rsa2048());
        let (second, second_key) = signer("second.example", &generate_ed25519());
        let keys = [
            ("first.example", &first_key),
            ("second.example", &second_key),
        ];
        assert_eq!(status(HEADER, BODY, &keys), ChainStatus::None);
        let once = sealed(&first, HEADER, ChainStatus::None);
        assert_eq!(status(&once, BODY, &keys), ChainStatus::Pass);
        // What is put on top on the way is not covered.
        let on_its_way = [b"Received: x\r\n".as_slice(), &once].concat();
        let twice = sealed(&second, &on_its_way, ChainStatus::Pass);
        assert_eq!(status(&twice, BODY, &keys), ChainStatus::Pass);
        let text = String::from_utf8(twice).unwrap();
        assert!(
            text.starts_with("ARC-Seal: i=2; a=ed25519-sha256; cv=pass;"),
            "{text}"
        );
        assert!(text.lines().all(|line| line.len() < 80), "{text}");

        // The first may have been changed by the second, not by others.
        for (from, to) in [
            ("Subject: s", "Subject: t"),
            ("i=1; relay.example", "i=1; evil.example"),
            ("i=2; relay.example", "i=2; evil.example"),
            ("cv=none", "cv=pass"),
            ("cv=pass", "cv=none"),
            ("DKIM-Signature: v=1", "DKIM-Signature: v=2"),
            ("i=1; a=rsa-sha256; cv", "i=3; a=rsa-sha256; cv"),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text, "{from}");
            assert_eq!(
                status(changed.as_bytes(), BODY, &keys),
                ChainStatus::Fail,
                "{to}"
            );
        }
        assert_eq!(status(text.as_bytes(), b"other", &keys), ChainStatus::Fail);
        let keys = [
            ("first.example", &second_key),
            ("second.example", &second_key),
        ];
        assert_eq!(status(text.as_bytes(), BODY, &keys), ChainStatus::Fail);
    }

    #[test]
    fn a_chain_that_failed_is_said_to_and_then_left_alone() {
        let (signer, key) = signer("first.example", &generate_ed25519());
        let once = sealed(&signer, HEADER, ChainStatus::None);
        let failed = sealed(&signer, &once, ChainStatus::Fail);
        let chain = Chain::of(&failed);
        assert!(matches!(chain, Chain::Ended { sets: 2 }));
        assert!(!chain.may_grow());
        // Its seal is over its own set alone.
        let seal: Vec<u8> = fields(&failed)
            .take(3)
            .flat_map(|field| field.raw.to_vec())
            .collect();
        let alone = String::from_utf8(seal).unwrap().replace("i=2;", "i=1;");
        assert!(matches!(
            Chain::of(alone.as_bytes()),
            Chain::Ended { sets: 1 }
        ));
        assert_eq!(
            status(&failed, BODY, &[("first.example", &key)]),
            ChainStatus::Fail
        );
    }

    #[test]
    fn tells_chains_that_are_not_whole() {
        let (signer, _) = signer("first.example", &generate_ed25519());
        let once = String::from_utf8(sealed(&signer, HEADER, ChainStatus::None)).unwrap();
        let set: Vec<&str> = once.split_inclusive("\r\n").collect();
        let whole: String = set.concat();
        let results = "ARC-Authentication-Results: i=1; x\r\n";
        for (header, number) in [
            (format!("{results}{whole}"), 1),
            (format!("ARC-Seal: i=0; cv=none\r\n{whole}"), 1),
            (format!("ARC-Seal: i=51; cv=none\r\n{whole}"), 1),
            (format!("ARC-Seal: cv=none\r\n{whole}"), 1),
            (format!("ARC-Seal: i=3; cv=pass\r\n{whole}"), 3),
            (results.to_owned(), 1),
            ("ARC-Seal: junk\r\n".to_owned(), 0),
            (
                whole.replace(
                    "d=first.example; s=s1;\r\n\tt=",
                    "d=first.example; s=s1; h=from;\r\n\tt=",
                ),
                1,
            ),
        ] {
            let chain = Chain::of(header.as_bytes());
            assert!(
                matches!(chain, Chain::Malformed { sets } if sets == number),
                "{header}: {chain:?}"
            );
        }
    }

    #[test]
    fn seals_only_the_chain_that_was_checked() {
        let (signer, _) = signer("first.example", &generate_ed25519());
        let once = sealed(&signer, HEADER, ChainStatus::None);
        for (header, instance, status) in [
            (HEADER, 1, ChainStatus::Pass),
            (HEADER, 2, ChainStatus::None),
            (HEADER, 0, ChainStatus::Fail),
            (&once, 2, ChainStatus::None),
            (&once, 1, ChainStatus::None),
            (&once, 3, ChainStatus::Pass),
        ] {
            let seal = Seal {
                instance,
                status,
                results: "relay.example; none",
            };
            let made = signer.seal(header, &[0; 32], &seal, NOW);
            assert_eq!(made, Err(SealError::OtherChain));
        }
        for results in [
            "",
            "a\r\nb",
            "a\r\n\t\r\n b",
            "a\nb",
            "a\u{e9}",
            "a\r\n b\r\n",
        ] {
            let seal = Seal {
                instance: 1,
                status: ChainStatus::None,
                results,
            };
            let made = signer.seal(HEADER, &[0; 32], &seal, NOW);
            assert_eq!(made, Err(SealError::Results), "{results:?}");
        }
    }
}
