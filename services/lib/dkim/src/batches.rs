//! Signatures of several messages at once.

use aws_lc_rs::digest::{SHA256, digest};
use multibuffer::{BATCH, Processor};

use crate::signature::{Draft, SignError};

/// From so many on, a batch takes less time than its signatures one by one: it costs as much as eight, whatever is in it,
/// and that is what a little more than four cost alone.
const LEAST: usize = 5;

/// How signatures are made: RSA-2048 in batches where the processor can, everything else one by one.
#[derive(Debug, Clone, Copy)]
pub struct Batches {
    processor: Option<Processor>,
}

/// A draft that was signed.
#[derive(Debug, PartialEq, Eq)]
pub struct Signed {
    /// As of [`crate::Signer::sign`].
    pub field: Result<Vec<u8>, SignError>,
    /// How.
    pub way: Way,
}

/// How a signature was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By the cryptographic library.
    Single,
    /// With others, in the lanes of the processor.
    MultiBuffer,
    /// With others first, but the result did not verify: then by the cryptographic library. Points to a processor that
    /// errs, or to a key whose parts do not belong together.
    Repeated,
}

impl Way {
    /// As in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Single => "single",
            Self::MultiBuffer => "multi_buffer",
            Self::Repeated => "repeated",
        }
    }
}

impl Batches {
    /// As this processor can.
    pub fn detect() -> Self {
        Self {
            processor: Processor::detect(),
        }
    }

    /// One by one, as on a processor without the instructions.
    pub fn one_by_one() -> Self {
        Self { processor: None }
    }

    /// How many drafts of RSA-2048 are best signed together; 1 where it makes no difference.
    pub fn size(self) -> usize {
        match self.processor {
            Some(_) => BATCH,
            None => 1,
        }
    }

    /// Signs all, in the order given.
    pub fn sign(self, drafts: Vec<Draft<'_>>) -> Vec<Signed> {
        let together = self.together(&drafts);
        let sign = |(draft, made): (Draft<'_>, Made)| match made {
            Made::Not => Signed {
                field: draft.sign(),
                way: Way::Single,
            },
            Made::Good(signature) => Signed {
                field: Ok(draft.complete(signature.as_slice())),
                way: Way::MultiBuffer,
            },
            Made::Wrong => Signed {
                field: draft.sign(),
                way: Way::Repeated,
            },
        };
        drafts.into_iter().zip(together).map(sign).collect()
    }

    fn together(self, drafts: &[Draft<'_>]) -> Vec<Made> {
        let mut made: Vec<Made> = drafts.iter().map(|_| Made::Not).collect();
        let Some(processor) = self.processor else {
            return made;
        };
        let fitting: Vec<_> = drafts
            .iter()
            .enumerate()
            .filter_map(|(index, draft)| Some((index, draft.key.for_batches()?)))
            .collect();
        for batch in fitting.chunks(BATCH).filter(|batch| batch.len() >= LEAST) {
            let mut jobs = Vec::with_capacity(BATCH);
            for (index, key) in batch {
                let mut hash = [0; 32];
                hash.copy_from_slice(digest(&SHA256, &drafts[*index].data).as_ref());
                jobs.push((*key, hash));
            }
            for ((index, _), signature) in batch.iter().zip(processor.sign(&jobs)) {
                made[*index] = signature.map_or(Made::Wrong, |bytes| Made::Good(Box::new(bytes)));
            }
        }
        made
    }
}

/// The signature of a draft by a batch.
enum Made {
    Not,
    Good(Box<[u8; multibuffer::SIGNATURE_BYTES]>),
    Wrong,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Key, Signer, generate_ed25519, generate_rsa2048};

    fn signer(pem: &str) -> Signer {
        Signer::new("a.example", "s1", Key::from_pem(pem.as_bytes()).unwrap()).unwrap()
    }

    fn drafts<'a>(signers: &'a [Signer], number: usize) -> Vec<Draft<'a>> {
        let header = |index: usize| format!("From: a@a.example\r\nSubject: {index}\r\n");
        let signers = signers.iter().cycle().take(number).enumerate();
        signers
            .map(|(index, signer)| signer.draft(header(index).as_bytes(), &[1; 32], 7))
            .collect::<Result<_, _>>()
            .unwrap()
    }

    #[test]
    fn makes_the_same_fields_in_batches_and_one_by_one() {
        let large = include_str!("../testdata/rsa3072-pkcs8.pem");
        let signers = [
            signer(&generate_rsa2048()),
            signer(&generate_rsa2048()),
            signer(&generate_ed25519()),
            signer(large),
            signer(include_str!("../testdata/rsa2048-pkcs1.pem")),
        ];
        for number in [0, 1, 7, 8, 13, 14, 27, 40] {
            let alone = Batches::one_by_one().sign(drafts(&signers, number));
            let together = Batches::detect().sign(drafts(&signers, number));
            assert_eq!(alone.len(), number);
            assert!(alone.iter().all(|signed| signed.way == Way::Single));
            let fields = |signed: &[Signed]| -> Vec<_> {
                signed.iter().map(|signed| signed.field.clone()).collect()
            };
            assert_eq!(fields(&alone), fields(&together), "{number}");
            let in_batches = together
                .iter()
                .filter(|signed| signed.way == Way::MultiBuffer);
            let expected = match Batches::detect().size() {
                1 => 0,
                _ => expected_in_batches(number),
            };
            assert_eq!(in_batches.count(), expected, "{number}");
        }
    }

    /// Two of each five signers, at positions 2 and 3, do not fit; a rest of less than five is signed alone.
    fn expected_in_batches(number: usize) -> usize {
        let fitting = (0..number)
            .filter(|index| !matches!(index % 5, 2 | 3))
            .count();
        match fitting % BATCH {
            rest if rest >= LEAST => fitting,
            rest => fitting - rest,
        }
    }
}
