//! Tokens in return paths, addresses for complaints and links to unsubscribe: which message, which recipient, made with a key, so
//! that nobody else can make one (ADR 37).
//!
//! A local part is a letter for the purpose, the digit 1 for the format, and 61 digits of base32 over 38 octets:
//!
//! | octets | what |
//! |---|---|
//! | 1 | number of the key |
//! | 2 | the last day on which it is taken, since 2020-01-01 |
//! | 5 | scope: tenant and stream, hashed with the key |
//! | 16 | message id |
//! | 4 | recipient: its address in lower case, hashed with the key and the message id |
//! | 10 | the first octets of HMAC-SHA256 over purpose, domain and all before |

mod base32;
mod keys;
mod link;
mod scopes;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use mail::{Domain, MessageId};

pub use keys::{KeysError, TokenKeys};
pub use link::{LONGEST_LINK, Link, LinkError};
pub use scopes::Scopes;

/// Octets that are signed.
const SIGNED: usize = 28;
/// Octets of the signature.
const MAC: usize = 10;
const SCOPE: usize = 5;
const RECIPIENT: usize = 4;
/// Of a local part, octets: RFC 5321 section 4.5.3.1.1 allows 64.
const LENGTH: usize = 63;
const WHOLE: usize = SIGNED + MAC;
const DAY_S: u64 = 86_400;
/// 2020-01-01 in days since 1970.
const FIRST_DAY: u64 = 18_262;

/// What a token is for; one for another purpose is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// The return path of a message.
    Bounce,
    /// Where complaints go (RFC 9477).
    Complaint,
    /// What a reader uses who wants no more mail (RFC 8058): an address, or a part of a link whose host is the domain.
    Unsubscribe,
}

impl Purpose {
    const fn letter(self) -> char {
        match self {
            Self::Bounce => 'b',
            Self::Complaint => 'c',
            Self::Unsubscribe => 'u',
        }
    }
}

/// What a token is made of.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Name of the tenant.
    pub tenant: &'a str,
    /// Name of the stream.
    pub stream: &'a str,
    /// The message.
    pub message: MessageId,
    /// Address of the recipient; empty: it is about the message, whoever got it.
    pub recipient: &'a str,
}

/// What a token says, when it is ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token {
    /// The message.
    pub message: MessageId,
    key: u8,
    scope: [u8; SCOPE],
    recipient: [u8; RECIPIENT],
}

/// A token can't be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MintError {
    /// Before 2020 or after 2199.
    #[error("a token ends between 2020 and 2199")]
    End,
}

/// An address has no token that counts. What is not ours is refused (550 at RCPT), and nothing is told of why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It does not look like one.
    #[error("it is no token")]
    NotOne,
    /// The key was taken away, or never was.
    #[error("its key is not known")]
    UnknownKey,
    /// Its signature is wrong: made by others, for another purpose or domain, or changed.
    #[error("it is not ours")]
    Forged,
    /// It was ours.
    #[error("its time is over")]
    Expired,
}

impl TokenKeys {
    /// The local part of an address of this domain, of 63 letters and digits. It is taken until the end of the day (UTC) of
    /// `end`, Unix seconds.
    ///
    /// # Errors
    /// When the day has no room.
    pub fn mint(
        &self,
        purpose: Purpose,
        subject: &Subject<'_>,
        domain: &Domain,
        end: u64,
    ) -> Result<String, MintError> {
        let last_day = (end / DAY_S).checked_sub(FIRST_DAY).ok_or(MintError::End)?;
        let last_day = u16::try_from(last_day).map_err(|_| MintError::End)?;
        let signing = self.signing();
        let key = &signing.mac;
        let mut octets = Vec::with_capacity(WHOLE);
        octets.push(signing.number);
        octets.extend_from_slice(&last_day.to_be_bytes());
        octets.extend_from_slice(&scope(key, subject.tenant, subject.stream));
        octets.extend_from_slice(subject.message.as_bytes());
        octets.extend_from_slice(&recipient(key, subject.message, subject.recipient));
        let mac = signature(key, purpose, domain, &octets);
        octets.extend_from_slice(&mac);
        let mut text = String::with_capacity(LENGTH);
        text.push(purpose.letter());
        text.push('1');
        base32::write(&octets, &mut text);
        Ok(text)
    }

    /// What the local part of an address of this domain says at `now`, Unix seconds. Case does not matter. Takes the same time
    /// however wrong the signature is.
    ///
    /// # Errors
    /// When it is not a token that counts.
    pub fn read(
        &self,
        purpose: Purpose,
        local_part: &str,
        domain: &Domain,
        now: u64,
    ) -> Result<Token, TokenError> {
        let [letter, b'1', digits @ ..] = local_part.as_bytes() else {
            return Err(TokenError::NotOne);
        };
        if char::from(letter.to_ascii_lowercase()) != purpose.letter() {
            return Err(TokenError::NotOne);
        }
        let octets: [u8; WHOLE] = base32::read(digits).ok_or(TokenError::NotOne)?;
        let (signed, mac) = octets.split_at(SIGNED);
        let key = self.of_number(signed[0]).ok_or(TokenError::UnknownKey)?;
        let wanted = signature(&key.mac, purpose, domain, signed);
        verify_slices_are_equal(&wanted, mac).map_err(|_| TokenError::Forged)?;
        let last_day = FIRST_DAY + u64::from(u16::from_be_bytes([signed[1], signed[2]]));
        if now / DAY_S > last_day {
            return Err(TokenError::Expired);
        }
        let mut scope = [0; SCOPE];
        scope.copy_from_slice(&signed[3..3 + SCOPE]);
        let message = MessageId::try_from(&signed[8..24]).map_err(|_| TokenError::NotOne)?;
        let mut recipient = [0; RECIPIENT];
        recipient.copy_from_slice(&signed[24..SIGNED]);
        Ok(Token {
            message,
            key: signed[0],
            scope,
            recipient,
        })
    }

    /// Whether the token was made for the recipient with this address, or, if it is empty, for all of the message. The case of
    /// ASCII letters does not matter. Of four thousand million addresses that are tried one is taken by chance, and nobody can
    /// find out which without the key.
    pub fn is_of(&self, token: &Token, address: &str) -> bool {
        self.of_number(token.key).is_some_and(|key| {
            let wanted = recipient(&key.mac, token.message, address);
            verify_slices_are_equal(&wanted, &token.recipient).is_ok()
        })
    }

    /// Whether the token was made for the tenant and stream. Two of a million pairs are alike by chance once in two installations;
    /// the message says then which of them it is.
    pub fn is_in(&self, token: &Token, tenant: &str, stream: &str) -> bool {
        self.of_number(token.key)
            .is_some_and(|key| scope(&key.mac, tenant, stream) == token.scope)
    }
}

fn scope(key: &hmac::Key, tenant: &str, stream: &str) -> [u8; SCOPE] {
    first(&tag(
        key,
        &[b"scope\0", tenant.as_bytes(), b"\0", stream.as_bytes()],
    ))
}

fn recipient(key: &hmac::Key, message: MessageId, address: &str) -> [u8; RECIPIENT] {
    let mut context = hmac::Context::with_key(key);
    context.update(b"recipient\0");
    context.update(message.as_bytes());
    context.update(address.to_ascii_lowercase().as_bytes());
    first(&context.sign())
}

fn signature(key: &hmac::Key, purpose: Purpose, domain: &Domain, signed: &[u8]) -> [u8; MAC] {
    let mut letter = [0; 4];
    let letter = purpose.letter().encode_utf8(&mut letter).as_bytes();
    let domain = domain.as_str().to_ascii_lowercase();
    first(&tag(
        key,
        &[b"token\0", letter, domain.as_bytes(), b"\0", signed],
    ))
}

fn tag(key: &hmac::Key, parts: &[&[u8]]) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    for part in parts {
        context.update(part);
    }
    context.sign()
}

fn first<const N: usize>(tag: &hmac::Tag) -> [u8; N] {
    let mut octets = [0; N];
    octets.copy_from_slice(&tag.as_ref()[..N]);
    octets
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_796_000_000;
    const OLD: &str = "1 the first secret of ours";
    const NEW: &str = "2 the second secret of ours\n1 the first secret of ours";

    fn keys(text: &str) -> TokenKeys {
        TokenKeys::parse(text).unwrap()
    }

    fn domain(text: &str) -> Domain {
        Domain::parse(text).unwrap()
    }

    fn subject(message: MessageId) -> Subject<'static> {
        Subject {
            tenant: "acme",
            stream: "bulk",
            message,
            recipient: "Reader@receiver.example",
        }
    }

    fn mint(keys: &TokenKeys) -> (MessageId, String) {
        let message = MessageId::now();
        let end = NOW + 30 * DAY_S;
        let text = keys.mint(
            Purpose::Bounce,
            &subject(message),
            &domain("b.acme.example"),
            end,
        );
        (message, text.unwrap())
    }

    fn read(keys: &TokenKeys, text: &str, now: u64) -> Result<Token, TokenError> {
        keys.read(Purpose::Bounce, text, &domain("b.acme.example"), now)
    }

    #[test]
    fn says_which_message_and_recipient_whatever_the_case() {
        let keys = keys(OLD);
        let (message, text) = mint(&keys);
        assert_eq!(text.len(), LENGTH);
        assert!(
            text.bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        );
        for text in [text.clone(), text.to_uppercase()] {
            let token = read(&keys, &text, NOW).unwrap();
            assert_eq!(token.message, message);
            assert!(keys.is_in(&token, "acme", "bulk"));
            assert!(!keys.is_in(&token, "acme", "transactional"));
            assert!(!keys.is_in(&token, "acmeb", "ulk"));
            assert!(keys.is_of(&token, "READER@receiver.example"));
            for other in ["other@receiver.example", "reader@receiver.example.", ""] {
                assert!(!keys.is_of(&token, other), "{other}");
            }
        }
    }

    #[test]
    fn is_taken_until_the_end_of_its_last_day() {
        let keys = keys(OLD);
        let (_, text) = mint(&keys);
        let last = (NOW / DAY_S + 31) * DAY_S - 1;
        assert!(read(&keys, &text, last).is_ok());
        assert_eq!(read(&keys, &text, last + 1), Err(TokenError::Expired));
    }

    #[test]
    fn keys_come_on_top_and_leave_when_their_tokens_are_over() {
        let (old, new) = (keys(OLD), keys(NEW));
        let (message, text) = mint(&old);
        assert_eq!(read(&new, &text, NOW).unwrap().message, message);
        let (_, text) = mint(&new);
        assert_eq!(read(&old, &text, NOW), Err(TokenError::UnknownKey));
        // Another secret under the same number.
        assert_eq!(
            read(&keys("2 somebody else's secret"), &text, NOW),
            Err(TokenError::Forged)
        );
    }

    #[test]
    fn counts_for_one_purpose_at_one_domain() {
        let keys = keys(OLD);
        let (_, text) = mint(&keys);
        let elsewhere = keys.read(Purpose::Bounce, &text, &domain("b.other.example"), NOW);
        assert_eq!(elsewhere, Err(TokenError::Forged));
        let otherwise = text.replacen('b', "c", 1);
        let here = domain("b.acme.example");
        assert_eq!(
            keys.read(Purpose::Complaint, &otherwise, &here, NOW),
            Err(TokenError::Forged)
        );
        assert_eq!(
            keys.read(Purpose::Complaint, &text, &here, NOW),
            Err(TokenError::NotOne)
        );
        assert!(
            keys.read(Purpose::Bounce, &text, &domain("B.Acme.EXAMPLE"), NOW)
                .is_ok()
        );
    }

    #[test]
    fn refuses_days_that_have_no_room() {
        let keys = keys(OLD);
        let subject = subject(MessageId::now());
        let here = domain("b.acme.example");
        let mint = |end| keys.mint(Purpose::Bounce, &subject, &here, end).err();
        assert_eq!(mint(1_577_836_799), Some(MintError::End));
        assert_eq!(mint(1_577_836_800), None);
        assert_eq!(mint(u64::MAX), Some(MintError::End));
    }

    #[test]
    fn the_recipient_is_hashed_with_the_message() {
        let keys = keys(OLD);
        let hashes: Vec<_> = (0..2)
            .map(|_| read(&keys, &mint(&keys).1, NOW).unwrap().recipient)
            .collect();
        assert_ne!(hashes[0], hashes[1]);
    }

    proptest! {
        #[test]
        fn no_change_of_a_token_is_taken(at in 0_usize..LENGTH, with in "[a-z2-7]") {
            let keys = keys(OLD);
            let (_, text) = mint(&keys);
            let mut changed = text.clone();
            changed.replace_range(at..=at, &with);
            prop_assert_eq!(read(&keys, &changed, NOW).is_ok(), changed == text);
        }

        #[test]
        fn nothing_else_is_taken(text in "([bB]1)?[a-zA-Z2-7é@=]{0,70}") {
            prop_assert!(read(&keys(NEW), &text, NOW).is_err());
        }

        #[test]
        fn reads_what_was_written(recipient in "[a-zA-Zé.]{0,20}(@[a-z]{1,9})?", days in 0_u64..365, tenant in "[a-z0-9-]{1,63}") {
            let keys = keys(NEW);
            let subject = Subject { tenant: &tenant, stream: "s", message: MessageId::now(), recipient: &recipient };
            let here = domain("x.example");
            let text = keys.mint(Purpose::Unsubscribe, &subject, &here, NOW + days * DAY_S).unwrap();
            let token = keys.read(Purpose::Unsubscribe, &text, &here, NOW).unwrap();
            prop_assert_eq!(token.message, subject.message);
            prop_assert!(keys.is_of(&token, &recipient));
            prop_assert!(keys.is_in(&token, &tenant, "s"));
        }
    }
}
