//! Return paths, there and back.

use std::ops::RangeInclusive;
use std::sync::Arc;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use mail::{Address, Domain};

use crate::local_part::{quoted, unquoted};
use crate::{Secrets, stamp};

/// Characters of a hash: fewer are guessed, more leave no room for the address.
pub const HASH_LENGTHS: RangeInclusive<u32> = 4..=20;

/// Rewrites addresses with the secrets of an installation. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Rewriter {
    secrets: Arc<Secrets>,
    hash_length: usize,
    max_age_days: u64,
}

/// The return path can't be rewritten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// Local part over 64 octets, or address over 254 (RFC 5321 section 4.5.3.1).
    #[error("the return path is too long to be rewritten")]
    TooLong,
}

/// An address does not lead back to anybody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReverseError {
    /// It begins with neither `SRS0` nor `SRS1`.
    #[error("not an SRS address")]
    NotRewritten,
    /// A part is missing, or what comes out is no address.
    #[error("the SRS address is malformed")]
    Malformed,
    /// None of the secrets made it.
    #[error("the hash of the SRS address is wrong")]
    Hash,
    /// It is older than it may be.
    #[error("the SRS address has expired")]
    Expired,
}

/// What both forms of an address begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// Of mail that its sender sent.
    First,
    /// Of mail that had been forwarded so before.
    Again,
}

/// The form of a local part, and what follows the name of it, with its separator.
fn form(local: &str) -> Option<(Form, &str)> {
    let (name, rest) = local.split_at_checked(4)?;
    let form = match name {
        name if name.eq_ignore_ascii_case("SRS0") => Form::First,
        name if name.eq_ignore_ascii_case("SRS1") => Form::Again,
        _ => return None,
    };
    rest.starts_with(['=', '+', '-']).then_some((form, rest))
}

/// Whether the address looks like one that somebody's SRS has made.
pub fn is_rewritten(address: &Address) -> bool {
    form(&unquoted(address.local_part())).is_some()
}

impl Rewriter {
    /// With hashes of so many characters (see [`HASH_LENGTHS`]), which are also the fewest that are taken. Addresses are taken
    /// back for so many days after the one on which they were made.
    pub fn new(secrets: Arc<Secrets>, hash_length: u32, max_age_days: u64) -> Self {
        let hash_length = hash_length.clamp(*HASH_LENGTHS.start(), *HASH_LENGTHS.end());
        Self {
            secrets,
            hash_length: usize::try_from(hash_length).unwrap_or(4),
            max_age_days,
        }
    }

    /// A return path of `domain` that leads back to `sender`; `now` is in Unix seconds.
    ///
    /// An address that another forwarder has rewritten becomes `SRS1`, and names the first one. Fails when the local part
    /// does not fit into 64 octets.
    pub fn forward(
        &self,
        sender: &Address,
        domain: &Domain,
        now: u64,
    ) -> Result<Address, ForwardError> {
        let user = unquoted(sender.local_part());
        let host = sender.domain_text();
        let local = match form(&user) {
            Some((Form::First, rest)) => self.again(host, rest),
            // Its hash is that of whoever forwarded it last, and of no use here.
            Some((Form::Again, rest)) => match parts::<3>(&rest[1..]) {
                Some([_, first, rest]) if !first.is_empty() && !rest.is_empty() => {
                    self.again(first, rest)
                }
                _ => self.first(host, &user, now),
            },
            None => self.first(host, &user, now),
        };
        let address = format!("{}@{}", quoted(&local), domain.as_str());
        Address::parse(&address).map_err(|_| ForwardError::TooLong)
    }

    /// Whom an address of ours leads back to: the sender, or the forwarder before us. `now` is in Unix seconds.
    pub fn reverse(&self, address: &Address, now: u64) -> Result<Address, ReverseError> {
        let local = unquoted(address.local_part());
        let (form, rest) = form(&local).ok_or(ReverseError::NotRewritten)?;
        let rest = &rest[1..];
        let text = match form {
            Form::First => {
                let [hash, day, host, user] = parts::<4>(rest).ok_or(ReverseError::Malformed)?;
                let age = stamp::age(day, now).ok_or(ReverseError::Malformed)?;
                self.check(hash, &[day, host, user])?;
                if age > self.max_age_days {
                    return Err(ReverseError::Expired);
                }
                format!("{}@{host}", quoted(user))
            }
            Form::Again => {
                let [hash, host, rest] = parts::<3>(rest).ok_or(ReverseError::Malformed)?;
                self.check(hash, &[host, rest])?;
                format!("{}@{host}", quoted(&format!("SRS0{rest}")))
            }
        };
        Address::parse(&text).map_err(|_| ReverseError::Malformed)
    }

    fn first(&self, host: &str, user: &str, now: u64) -> String {
        let day = stamp::write(now);
        let hash = self.hash(self.secrets.signing(), &[&day, host, user]);
        format!("SRS0={hash}={day}={host}={user}")
    }

    /// `rest` begins with the separator after `SRS0`.
    fn again(&self, host: &str, rest: &str) -> String {
        let hash = self.hash(self.secrets.signing(), &[host, rest]);
        format!("SRS1={hash}={host}={rest}")
    }

    /// Of the parts in lower case, one after another: hosts on the way may change the case of a local part.
    fn hash(&self, key: &hmac::Key, parts: &[&str]) -> String {
        let mut context = hmac::Context::with_key(key);
        for part in parts {
            context.update(part.to_ascii_lowercase().as_bytes());
        }
        let mut hash = BASE64_STANDARD.encode(context.sign());
        hash.truncate(self.hash_length);
        hash
    }

    fn check(&self, hash: &str, parts: &[&str]) -> Result<(), ReverseError> {
        if hash.len() != self.hash_length {
            return Err(ReverseError::Hash);
        }
        let made_with = |key: &hmac::Key| {
            let expected = self.hash(key, parts);
            // Takes the same time wherever they differ.
            let differences = expected.bytes().zip(hash.bytes()).fold(0, |found, pair| {
                found | (pair.0.to_ascii_lowercase() ^ pair.1.to_ascii_lowercase())
            });
            differences == 0
        };
        if self.secrets.all().iter().any(made_with) {
            Ok(())
        } else {
            Err(ReverseError::Hash)
        }
    }
}

/// The parts between the first separators; the last is all the rest.
fn parts<const N: usize>(text: &str) -> Option<[&str; N]> {
    let mut parts = [""; N];
    let mut split = text.splitn(N, '=');
    for part in &mut parts {
        *part = split.next()?;
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY: u64 = 86_400;
    const NOW: u64 = 20_787 * DAY;

    fn rewriter(secrets: &str) -> Rewriter {
        Rewriter::new(Arc::new(Secrets::parse(secrets).unwrap()), 4, 21)
    }

    fn forward(rewriter: &Rewriter, sender: &str) -> String {
        let (sender, ours) = (
            Address::parse(sender).unwrap(),
            Domain::parse("ours.example").unwrap(),
        );
        let forwarded = rewriter.forward(&sender, &ours, NOW);
        forwarded.map_or_else(|error| error.to_string(), |path| path.to_string())
    }

    fn reverse(rewriter: &Rewriter, address: &str, now: u64) -> Result<String, ReverseError> {
        let address = Address::parse(address).unwrap();
        rewriter.reverse(&address, now).map(|path| path.to_string())
    }

    const OLD: &str = "an old secret of ours";
    const NEW: &str = "a new secret of ours\nan old secret of ours";

    #[test]
    fn leads_back_to_the_sender_for_three_weeks() {
        let rewriter = rewriter(OLD);
        for sender in [
            "user@sender.example",
            "User.Name+tag=x@Sender.Example",
            "\"a b\"@sender.example",
            "\"a@b\\\"c\"@sender.example",
            "a@[192.0.2.1]",
            "jürgen@bücher.example",
            "SRS0x@sender.example",
            "SRS1=malformed@sender.example",
        ] {
            let path = forward(&rewriter, sender);
            assert!(path.ends_with("@ours.example"), "{path}");
            for (days, expected) in [
                (0, Ok(sender.to_owned())),
                (21, Ok(sender.to_owned())),
                (22, Err(ReverseError::Expired)),
            ] {
                assert_eq!(reverse(&rewriter, &path, NOW + days * DAY), expected);
            }
        }
    }

    #[test]
    fn names_the_first_forwarder_when_there_were_others() {
        let (first, second, third) = (
            rewriter("the first forwarder's"),
            rewriter("the second forwarder's"),
            rewriter("the third forwarder's"),
        );
        let once = forward(&first, "user@sender.example");
        let at_first = once.replace("ours.example", "first.example");
        let twice = forward(&second, &at_first);
        let rest = at_first
            .strip_prefix("SRS0=")
            .and_then(|rest| rest.strip_suffix("@first.example"))
            .unwrap();
        assert!(twice.starts_with("SRS1=") && twice.contains(&format!("=first.example=={rest}@")));
        let thrice = forward(&third, &twice.replace("ours.example", "second.example"));
        // Not longer than the one before.
        assert_eq!(thrice.len(), twice.len());
        assert_eq!(reverse(&third, &thrice, NOW), Ok(at_first.clone()));
        // The first host looks at the days.
        assert_eq!(reverse(&second, &twice, NOW + 900 * DAY), Ok(at_first));
        assert_eq!(
            reverse(&first, &once, NOW),
            Ok("user@sender.example".to_owned())
        );
    }

    #[test]
    fn takes_what_any_of_its_secrets_made_and_nothing_else() {
        let path = forward(&rewriter(OLD), "user@sender.example");
        assert_eq!(
            reverse(&rewriter(NEW), &path, NOW),
            Ok("user@sender.example".to_owned())
        );
        let new = forward(&rewriter(NEW), "user@sender.example");
        assert_eq!(reverse(&rewriter(OLD), &new, NOW), Err(ReverseError::Hash));
    }

    #[test]
    fn survives_a_change_of_case_and_no_other() {
        let rewriter = rewriter(OLD);
        let path = forward(&rewriter, "User@Sender.example");
        assert_eq!(
            reverse(&rewriter, &path.to_ascii_lowercase(), NOW),
            Ok("user@sender.example".to_owned())
        );
        for (from, to) in [("User", "Usex"), ("Sender", "Tender"), ("=JT=", "=JU=")] {
            let changed = path.replace(from, to);
            assert_eq!(
                reverse(&rewriter, &changed, NOW),
                Err(ReverseError::Hash),
                "{changed}"
            );
        }
    }

    #[test]
    fn says_what_is_wrong_with_an_address() {
        let rewriter = rewriter(OLD);
        for (address, error) in [
            ("user@ours.example", ReverseError::NotRewritten),
            ("SRS@ours.example", ReverseError::NotRewritten),
            ("SRS0@ours.example", ReverseError::NotRewritten),
            ("SRS2=a=b=c=d@ours.example", ReverseError::NotRewritten),
            (
                "SRS0=abcd=JT=sender.example@ours.example",
                ReverseError::Malformed,
            ),
            (
                "SRS0=abcd=1T=sender.example=u@ours.example",
                ReverseError::Malformed,
            ),
            (
                "SRS0=abcd=JT=sender.example=u@ours.example",
                ReverseError::Hash,
            ),
            (
                "SRS0=abc=JT=sender.example=u@ours.example",
                ReverseError::Hash,
            ),
            ("SRS0==JT=sender.example=u@ours.example", ReverseError::Hash),
            (
                "SRS1=abcd=sender.example@ours.example",
                ReverseError::Malformed,
            ),
            (
                "SRS1=abcd=sender.example==x@ours.example",
                ReverseError::Hash,
            ),
        ] {
            assert_eq!(reverse(&rewriter, address, NOW), Err(error), "{address}");
        }
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let rewriter = rewriter(OLD);
        let longest = "a".repeat(64 - "SRS0=hhhh=JT=sender.example=".len());
        assert!(forward(&rewriter, &format!("{longest}@sender.example")).starts_with("SRS0="));
        assert_eq!(
            forward(&rewriter, &format!("{longest}a@sender.example")),
            ForwardError::TooLong.to_string()
        );
    }

    proptest! {
        #[test]
        fn never_panics(text in "(SRS|srs)[01][=+-][a-zA-Z0-9=.+-]{0,40}@ours.example") {
            let rewriter = rewriter(OLD);
            if let Ok(address) = Address::parse(&text) {
                prop_assert!(rewriter.reverse(&address, NOW).is_err());
                let forwarded = rewriter.forward(&address, &Domain::parse("x.example").unwrap(), NOW);
                if let Ok(forwarded) = forwarded {
                    prop_assert!(is_rewritten(&forwarded));
                }
            }
        }
    }
}
