//! What a link on the web says of whom it was made for, encrypted with the keys of the tokens, so that it shows no address and
//! nobody else can make one (ADR 41).
//!
//! A text is the digit 1 for the format and base64url without padding over
//!
//! | octets | what |
//! |---|---|
//! | 1 | number of the key |
//! | 2 | the last day on which it is taken, since 2020-01-01 |
//! | 16 | message id |
//! | the rest | AES-256-GCM-SIV (RFC 8452) over the names of tenant and stream, each after its length, and the recipient's address |
//!
//! What stands in the clear is authenticated with it. The nonce is the end of the message id, so that links of two messages never
//! share one; those of one message do, and tell of it only whether their recipients are the same. That is what the mode is for.

use aws_lc_rs::aead::{Aad, NONCE_LEN, Nonce};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use mail::MessageId;

use super::{DAY_S, FIRST_DAY, TokenError, TokenKeys};

/// Octets in the clear.
const CLEAR: usize = 19;
/// Octets of the tag of AES-GCM-SIV.
const TAG: usize = 16;
/// Of one name: those of the configuration have at most 63.
const LONGEST_NAME: usize = 63;
/// Of an address (RFC 5321 section 4.5.3.1.3).
const LONGEST_ADDRESS: usize = 254;
const LONGEST: usize = CLEAR + 2 * (1 + LONGEST_NAME) + LONGEST_ADDRESS + TAG;
/// The longest text, characters.
pub const LONGEST_LINK: usize = 1 + (LONGEST * 4).div_ceil(3);

/// Whom a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Link<T> {
    /// The message that it stands in.
    pub message: MessageId,
    /// Name of the tenant.
    pub tenant: T,
    /// Name of the stream.
    pub stream: T,
    /// Address of the recipient.
    pub recipient: T,
}

/// A link can't be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Before 2020 or after 2199.
    #[error("a link ends between 2020 and 2199")]
    End,
    /// A name above 63 octets, or an address above 254.
    #[error("a name or an address is too long for a link")]
    TooLong,
    /// The cryptographic library refused; it says no more.
    #[error("a link could not be encrypted")]
    Failed,
}

impl TokenKeys {
    /// The text of a link, of at most [`LONGEST_LINK`] letters, digits, `-` and `_`: about 100. It is taken until the end of the
    /// day (UTC) of `end`, Unix seconds. The same link with the same end has the same text.
    ///
    /// # Errors
    /// When something has no room.
    pub fn mint_link(&self, link: &Link<&str>, end: u64) -> Result<String, LinkError> {
        let last_day = (end / DAY_S).checked_sub(FIRST_DAY).ok_or(LinkError::End)?;
        let last_day = u16::try_from(last_day).map_err(|_| LinkError::End)?;
        if link.recipient.len() > LONGEST_ADDRESS {
            return Err(LinkError::TooLong);
        }
        let key = self.signing();
        let mut octets = Vec::with_capacity(LONGEST);
        octets.push(key.number);
        octets.extend_from_slice(&last_day.to_be_bytes());
        octets.extend_from_slice(link.message.as_bytes());
        let mut sealed = Vec::with_capacity(LONGEST - CLEAR);
        for name in [link.tenant, link.stream] {
            let length = u8::try_from(name.len()).map_err(|_| LinkError::TooLong)?;
            if name.len() > LONGEST_NAME {
                return Err(LinkError::TooLong);
            }
            sealed.push(length);
            sealed.extend_from_slice(name.as_bytes());
        }
        sealed.extend_from_slice(link.recipient.as_bytes());
        key.cipher
            .seal_in_place_append_tag(
                nonce(link.message),
                Aad::from(octets.as_slice()),
                &mut sealed,
            )
            .map_err(|_| LinkError::Failed)?;
        octets.extend_from_slice(&sealed);
        let mut text = String::with_capacity(LONGEST_LINK);
        text.push('1');
        URL_SAFE_NO_PAD.encode_string(&octets, &mut text);
        Ok(text)
    }

    /// What the text of a link says at `now`, Unix seconds.
    ///
    /// # Errors
    /// When it is not a link that counts.
    pub fn read_link(&self, text: &str, now: u64) -> Result<Link<String>, TokenError> {
        let digits = text.strip_prefix('1').ok_or(TokenError::NotOne)?;
        if text.len() > LONGEST_LINK {
            return Err(TokenError::NotOne);
        }
        let octets = URL_SAFE_NO_PAD
            .decode(digits)
            .map_err(|_| TokenError::NotOne)?;
        let (clear, sealed) = octets.split_at_checked(CLEAR).ok_or(TokenError::NotOne)?;
        let [number, day_high, day_low, message @ ..] = clear else {
            return Err(TokenError::NotOne);
        };
        let message = MessageId::try_from(message).map_err(|_| TokenError::NotOne)?;
        let key = self.of_number(*number).ok_or(TokenError::UnknownKey)?;
        let mut sealed = sealed.to_vec();
        let opened = key
            .cipher
            .open_in_place(nonce(message), Aad::from(clear), &mut sealed)
            .map_err(|_| TokenError::Forged)?;
        // What is ours is well-formed.
        let (tenant, rest) = name(opened).ok_or(TokenError::Forged)?;
        let (stream, recipient) = name(rest).ok_or(TokenError::Forged)?;
        let recipient = text_of(recipient).ok_or(TokenError::Forged)?;
        let last_day = FIRST_DAY + u64::from(u16::from_be_bytes([*day_high, *day_low]));
        if now / DAY_S > last_day {
            return Err(TokenError::Expired);
        }
        Ok(Link {
            message,
            tenant,
            stream,
            recipient,
        })
    }
}

/// The last octets of a UUIDv7: those that are random, and the end of its time.
fn nonce(message: MessageId) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    nonce.copy_from_slice(&message.as_bytes()[16 - NONCE_LEN..]);
    Nonce::assume_unique_for_key(nonce)
}

/// A name after its length, and what comes after it.
fn name(octets: &[u8]) -> Option<(String, &[u8])> {
    let (length, rest) = octets.split_first()?;
    let (name, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((text_of(name)?, rest))
}

fn text_of(octets: &[u8]) -> Option<String> {
    std::str::from_utf8(octets).ok().map(str::to_owned)
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

    fn link() -> Link<&'static str> {
        Link {
            message: MessageId::now(),
            tenant: "acme",
            stream: "bulk",
            recipient: "Tired.Reader@receiver.example",
        }
    }

    fn mint(keys: &TokenKeys) -> String {
        keys.mint_link(&link(), NOW + 30 * DAY_S).unwrap()
    }

    #[test]
    fn says_whom_it_is_for_and_shows_it_to_nobody() {
        let keys = keys(OLD);
        let link = link();
        let text = keys.mint_link(&link, NOW).unwrap();
        assert_eq!(text.len(), 100);
        assert!(
            text.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
        );
        let octets = URL_SAFE_NO_PAD.decode(&text[1..]).unwrap();
        for shown in ["acme", "bulk", "receiver", "Reader"] {
            assert!(!octets.windows(shown.len()).any(|at| at == shown.as_bytes()));
        }
        let read = keys.read_link(&text, NOW).unwrap();
        assert_eq!(read.message, link.message);
        assert_eq!(read.tenant, link.tenant);
        assert_eq!(read.stream, link.stream);
        assert_eq!(read.recipient, link.recipient);
        assert_eq!(keys.mint_link(&link, NOW).unwrap(), text);
        let other = Link {
            recipient: "tired.reader@receiver.example",
            ..link
        };
        assert_ne!(keys.mint_link(&other, NOW).unwrap(), text);
    }

    #[test]
    fn is_taken_until_the_end_of_its_last_day_and_as_long_as_there_is_its_key() {
        let (old, new) = (keys(OLD), keys(NEW));
        let text = mint(&old);
        let last = (NOW / DAY_S + 31) * DAY_S - 1;
        assert!(new.read_link(&text, last).is_ok());
        assert_eq!(new.read_link(&text, last + 1), Err(TokenError::Expired));
        assert_eq!(old.read_link(&mint(&new), NOW), Err(TokenError::UnknownKey));
        let others = keys("1 somebody else's secret");
        assert_eq!(others.read_link(&text, NOW), Err(TokenError::Forged));
    }

    #[test]
    fn refuses_what_has_no_room_and_takes_the_longest_that_has() {
        let keys = keys(OLD);
        let (name, address) = ("n".repeat(63), "a".repeat(254));
        let longest = Link {
            message: MessageId::now(),
            tenant: name.as_str(),
            stream: &name,
            recipient: &address,
        };
        let text = keys.mint_link(&longest, NOW).unwrap();
        assert_eq!(text.len(), LONGEST_LINK);
        assert_eq!(keys.read_link(&text, NOW).unwrap().recipient, address);
        let text = format!("{text}A");
        assert_eq!(keys.read_link(&text, NOW), Err(TokenError::NotOne));
        let (name, address) = ("n".repeat(64), "a".repeat(255));
        let mint = |link: Link<&str>, end| keys.mint_link(&link, end).err();
        let tenant = Link {
            tenant: name.as_str(),
            ..longest
        };
        let recipient = Link {
            recipient: address.as_str(),
            ..longest
        };
        assert_eq!(mint(tenant, NOW), Some(LinkError::TooLong));
        assert_eq!(mint(recipient, NOW), Some(LinkError::TooLong));
        assert_eq!(mint(longest, 1_577_836_799), Some(LinkError::End));
        assert_eq!(mint(longest, u64::MAX), Some(LinkError::End));
    }

    proptest! {
        #[test]
        fn no_change_of_a_link_is_taken(at in 0_usize..100, with in "[A-Za-z0-9_-]") {
            let keys = keys(OLD);
            let text = mint(&keys);
            let mut changed = text.clone();
            changed.replace_range(at..=at, &with);
            prop_assert_eq!(keys.read_link(&changed, NOW).is_ok(), changed == text);
        }

        #[test]
        fn nothing_else_is_taken(text in "1?[A-Za-z0-9_=é/-]{0,200}") {
            prop_assert!(keys(NEW).read_link(&text, NOW).is_err());
        }
    }
}
