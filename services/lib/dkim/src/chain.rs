//! The Authenticated Received Chain of a message (RFC 8617): its sets, and what has to be checked of them.

use aws_lc_rs::digest::{Context, SHA256};
use message::{Field, fields};

use crate::canonical::push_relaxed_field;
use crate::claim::{self, ByName, Claim, Kind};
use crate::tags::{Tags, without_signature};

/// RFC 8617 section 4.2.1: no instance is higher.
pub const MOST_SETS: u32 = 50;

/// The tag `cv=`: what a sealer found of the sets before its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainStatus {
    /// There were none.
    None,
    /// All of them hold.
    Pass,
    /// Something is wrong with them.
    Fail,
}

impl ChainStatus {
    /// As in the tag.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Pass => "pass",
            Self::Fail => "fail",
        }
    }
}

/// The chain of a message, before any key was asked for.
#[derive(Debug, Clone)]
pub enum Chain {
    /// There is none.
    None,
    /// The sets are whole and say that those before them were. It holds when all of this does.
    Whole {
        /// Number of sets, 1 to 50.
        sets: u32,
        /// The newest ARC-Message-Signature.
        message: Box<Claim>,
        /// The ARC-Seals, newest first.
        seals: Vec<Claim>,
    },
    /// The newest seal says `cv=fail`: nothing is added to such a chain any more (section 5.1).
    Ended {
        /// Number of sets.
        sets: u32,
    },
    /// A part is missing, repeated or malformed.
    Malformed {
        /// The highest instance that was found.
        sets: u32,
    },
}

/// The fields of one instance.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Set<'a> {
    pub(crate) results: Field<'a>,
    pub(crate) signature: Field<'a>,
    pub(crate) seal: Field<'a>,
}

/// The sets of a header section, the first instance first; `Err`: the highest instance of a chain with something missing,
/// repeated or malformed.
pub(crate) fn sets(header: &[u8]) -> Result<Vec<Set<'_>>, u32> {
    let mut found: Vec<[Option<Field<'_>>; 3]> = Vec::new();
    let mut is_malformed = false;
    for field in fields(header) {
        let part = match field.name.len() {
            8 if field.is("ARC-Seal") => 2,
            21 if field.is("ARC-Message-Signature") => 1,
            26 if field.is("ARC-Authentication-Results") => 0,
            _ => continue,
        };
        let Some(instance) = instance(&field, part == 0) else {
            is_malformed = true;
            continue;
        };
        if found.len() < instance {
            found.resize(instance, [None; 3]);
        }
        is_malformed |= found[instance - 1][part].replace(field).is_some();
    }
    let highest = u32::try_from(found.len()).unwrap_or(MOST_SETS);
    if is_malformed {
        return Err(highest);
    }
    found
        .into_iter()
        .map(|[results, signature, seal]| {
            Some(Set {
                results: results?,
                signature: signature?,
                seal: seal?,
            })
        })
        .collect::<Option<_>>()
        .ok_or(highest)
}

/// The tag `i=`, 1 to 50. Results begin with it, and what follows is no tag list.
fn instance(field: &Field<'_>, of_results: bool) -> Option<usize> {
    let list = if of_results {
        field.value.split(|byte| *byte == b';').next()?
    } else {
        field.value
    };
    let instance = Tags::parse(list)?.number("i")?;
    let in_range = (1..=u64::from(MOST_SETS)).contains(&instance);
    in_range.then(|| usize::try_from(instance).ok()).flatten()
}

impl Chain {
    /// Of a header section.
    pub fn of(header: &[u8]) -> Self {
        let sets = match sets(header) {
            Ok(sets) if sets.is_empty() => return Self::None,
            Ok(sets) => sets,
            Err(sets) => return Self::Malformed { sets },
        };
        let number = u32::try_from(sets.len()).unwrap_or(MOST_SETS);
        let malformed = Self::Malformed { sets: number };
        let says_fail = |set: &Set<'_>| {
            let tags = Tags::parse(set.seal.value);
            tags.is_some_and(|tags| tags.text("cv") == Some("fail"))
        };
        if sets.last().is_some_and(says_fail) {
            return Self::Ended { sets: number };
        }
        let mut seals = Vec::with_capacity(sets.len());
        // Of all that the seals so far cover.
        let mut covered = Context::new(&SHA256);
        let mut field = Vec::new();
        for (index, set) in sets.iter().enumerate() {
            let Some(tags) = Tags::parse(set.seal.value) else {
                return malformed;
            };
            match (index, tags.text("cv")) {
                (0, Some("none")) | (1.., Some("pass")) => {}
                _ => return malformed,
            }
            // Section 4.1.3.
            if tags.get("h").is_some() {
                return malformed;
            }
            let Ok(claim) = claim::of_tags(&tags) else {
                return malformed;
            };
            push_sealed(&mut field, &set.results);
            push_sealed(&mut field, &set.signature);
            covered.update(&field);
            field.clear();
            push_unsigned(&mut field, &set.seal);
            let mut with_seal = covered.clone();
            with_seal.update(&field);
            seals.push(claim.over(with_seal.finish()));
            field.clear();
            push_sealed(&mut field, &set.seal);
            covered.update(&field);
            field.clear();
        }
        let newest = sets.last().map(|set| set.signature);
        let message = newest.map(|field| claim::of_message(&field, &ByName::of(header), Kind::Arc));
        let Some(Ok(message)) = message else {
            return malformed;
        };
        seals.reverse();
        Self::Whole {
            sets: number,
            message: Box::new(message),
            seals,
        }
    }

    /// Number of sets; that of the next one is higher by one.
    pub fn sets(&self) -> u32 {
        match self {
            Self::None => 0,
            Self::Whole { sets, .. } | Self::Ended { sets } | Self::Malformed { sets } => *sets,
        }
    }

    /// Whether a set may be added.
    pub fn may_grow(&self) -> bool {
        !matches!(self, Self::Ended { .. }) && self.sets() < MOST_SETS
    }
}

/// A field as seals cover it: relaxed, with its CRLF.
pub(crate) fn push_sealed(data: &mut Vec<u8>, field: &Field<'_>) {
    push_relaxed_field(data, field.name, field.value);
    data.extend_from_slice(b"\r\n");
}

/// The seal itself as it covers itself: without its signature and its CRLF.
pub(crate) fn push_unsigned(data: &mut Vec<u8>, seal: &Field<'_>) {
    push_relaxed_field(data, seal.name, &without_signature(seal.value));
}
