//! ESMTP parameters of MAIL and RCPT.

use crate::{DeliverBy, Xtext, xtext};

/// Parameters of `MAIL`. What was not said is `None` or `false`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MailParams {
    /// `SIZE=`, octets (RFC 1870).
    pub size: Option<u64>,
    /// `BODY=` (RFC 6152, RFC 3030).
    pub body: Option<Body>,
    /// `SMTPUTF8` (RFC 6531).
    pub smtputf8: bool,
    /// `RET=` (RFC 3461 section 4.3).
    pub ret: Option<Return>,
    /// `ENVID=`, at most 100 characters (RFC 3461 section 4.4).
    pub envid: Option<Xtext>,
    /// `AUTH=`, an address in xtext or `<>` (RFC 4954 section 5).
    pub auth: Option<Xtext>,
    /// `REQUIRETLS` (RFC 8689).
    pub require_tls: bool,
    /// `HOLDFOR=` or `HOLDUNTIL=` (RFC 4865); one of the two.
    pub release: Option<Release>,
    /// `MT-PRIORITY=`, −9 to 9 (RFC 6710).
    pub priority: Option<i8>,
    /// `BY=` (RFC 2852).
    pub deliver_by: Option<DeliverBy>,
}

/// When a message may be released (RFC 4865 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// `HOLDFOR=`: so many seconds from now, 1 to 999,999,999.
    After(u32),
    /// `HOLDUNTIL=`: not before this time (Unix seconds, not negative).
    At(u64),
}

impl Release {
    pub(crate) fn after(value: &str) -> Option<Self> {
        let digits = (1..=9).contains(&value.len()) && value.bytes().all(|b| b.is_ascii_digit());
        let seconds = digits.then(|| value.parse().ok()).flatten();
        seconds.filter(|seconds| *seconds > 0).map(Self::After)
    }

    /// A `date-time` of RFC 3339 section 5.6; a fraction of a second counts as none.
    pub(crate) fn at(value: &str) -> Option<Self> {
        // The parser takes forms beyond RFC 3339.
        let bytes = value.as_bytes();
        let separated = bytes.get(10).is_some_and(|b| b.eq_ignore_ascii_case(&b'T'))
            && bytes.get(13) == Some(&b':')
            && bytes.get(16) == Some(&b':')
            && bytes.len() <= 40;
        let with_zone = value.ends_with(['Z', 'z'])
            || bytes
                .len()
                .checked_sub(6)
                .and_then(|at| bytes.get(at))
                .is_some_and(|b| matches!(b, b'+' | b'-'));
        if !separated || !with_zone {
            return None;
        }
        let time: jiff::Timestamp = value.parse().ok()?;
        u64::try_from(time.as_second()).ok().map(Self::At)
    }
}

/// Parameters of `RCPT`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RcptParams {
    /// `NOTIFY=` (RFC 3461 section 4.1).
    pub notify: Notify,
    /// `ORCPT=` (RFC 3461 section 4.2).
    pub orcpt: Option<OriginalRecipient>,
}

/// What the content consists of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Body {
    /// `7BIT`.
    SevenBit,
    /// `8BITMIME` (RFC 6152).
    EightBitMime,
    /// `BINARYMIME` (RFC 3030).
    BinaryMime,
}

impl Body {
    /// The value in `BODY=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SevenBit => "7BIT",
            Self::EightBitMime => "8BITMIME",
            Self::BinaryMime => "BINARYMIME",
        }
    }

    pub(crate) fn parse(value: &str) -> Option<Self> {
        [Self::SevenBit, Self::EightBitMime, Self::BinaryMime]
            .into_iter()
            .find(|body| body.as_str().eq_ignore_ascii_case(value))
    }
}

/// How much of the message a failure notice returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Return {
    /// `FULL`: all of it.
    Full,
    /// `HDRS`: the header section.
    Headers,
}

impl Return {
    /// The value in `RET=`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "FULL",
            Self::Headers => "HDRS",
        }
    }

    pub(crate) fn parse(value: &str) -> Option<Self> {
        [Self::Full, Self::Headers]
            .into_iter()
            .find(|ret| ret.as_str().eq_ignore_ascii_case(value))
    }
}

/// A set of conditions, as bits: 1 NEVER, 2 SUCCESS, 4 FAILURE, 8 DELAY; 0 = not said.
/// NEVER stands alone.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Notify(u8);

impl Notify {
    /// No notice at all.
    pub const NEVER: Self = Self(1);
    /// On delivery.
    pub const SUCCESS: Self = Self(2);
    /// On failure.
    pub const FAILURE: Self = Self(4);
    /// On delay.
    pub const DELAY: Self = Self(8);

    const NAMES: [(&'static str, Self); 4] = [
        ("NEVER", Self::NEVER),
        ("SUCCESS", Self::SUCCESS),
        ("FAILURE", Self::FAILURE),
        ("DELAY", Self::DELAY),
    ];

    /// `None` for unknown bits, and for NEVER together with others.
    pub fn from_bits(bits: u32) -> Option<Self> {
        let bits = u8::try_from(bits).ok().filter(|bits| *bits < 16)?;
        let notify = Self(bits);
        let contradicts = notify.contains(Self::NEVER) && notify != Self::NEVER;
        (!contradicts).then_some(notify)
    }

    /// The bits, as stored in envelopes.
    pub fn bits(self) -> u32 {
        u32::from(self.0)
    }

    /// Whether `NOTIFY=` was said.
    pub fn is_given(self) -> bool {
        self.0 != 0
    }

    /// Whether all of `other` is in it.
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Names of the conditions, in the order of their bits.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES
            .into_iter()
            .filter(move |(_, flag)| self.contains(*flag))
            .map(|(name, _)| name)
    }

    pub(crate) fn parse(value: &str) -> Option<Self> {
        let mut bits = 0;
        for word in value.split(',') {
            let (_, flag) = Self::NAMES
                .into_iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(word))?;
            bits |= flag.0;
        }
        Self::from_bits(u32::from(bits))
    }
}

/// `addr-type;xtext`, kept as received, at most 500 characters (RFC 3461 section 4.2); for the type
/// `utf-8` also `\x{…}` and UTF-8 itself (RFC 6533 section 3).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct OriginalRecipient(Box<str>);

impl OriginalRecipient {
    /// Takes the value of `ORCPT=`; `None` when it is not valid.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, address) = text.split_once(';')?;
        let kind_valid =
            !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let address_valid = !address.is_empty()
            && if kind.eq_ignore_ascii_case("utf-8") {
                is_utf8_address(address)
            } else {
                xtext::is_valid(address)
            };
        (text.len() <= 500 && kind_valid && address_valid).then(|| Self(text.into()))
    }

    /// `rfc822;` with the address in xtext.
    pub fn rfc822(address: &str) -> Option<Self> {
        Self::parse(&format!("rfc822;{}", xtext::encode(address.as_bytes())))
    }

    /// As received, not decoded.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it may be sent only with SMTPUTF8.
    pub fn needs_smtputf8(&self) -> bool {
        !self.0.is_ascii()
    }
}

/// `utf-8-addr-xtext` or `utf-8-addr-unitext`.
fn is_utf8_address(address: &str) -> bool {
    let mut rest = address;
    while let Some(c) = rest.chars().next() {
        if let Some(embedded) = rest.strip_prefix("\\x{") {
            let Some((digits, behind)) = embedded.split_once('}') else {
                return false;
            };
            let scalar = u32::from_str_radix(digits, 16)
                .ok()
                .and_then(char::from_u32);
            if digits.len() < 2 || digits.len() > 6 || digits.starts_with('+') || scalar.is_none() {
                return false;
            }
            rest = behind;
            continue;
        }
        let plain = (c.is_ascii_graphic() && !matches!(c, '+' | '=' | '\\'))
            || (!c.is_ascii() && !c.is_control());
        if !plain {
            return false;
        }
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notify_is_never_or_a_set_of_others() {
        assert_eq!(Notify::parse("never"), Some(Notify::NEVER));
        assert_eq!(
            Notify::parse("SUCCESS,Failure,DELAY").map(Notify::bits),
            Some(14)
        );
        for value in ["", "NEVER,SUCCESS", "SUCCESS,", "ALWAYS", "SUCCESS, DELAY"] {
            assert_eq!(Notify::parse(value), None, "{value}");
        }
        assert_eq!(Notify::from_bits(3), None);
        assert_eq!(Notify::from_bits(16), None);
        assert_eq!(
            Notify::from_bits(12).unwrap().names().collect::<Vec<_>>(),
            ["FAILURE", "DELAY"]
        );
    }

    #[test]
    fn orcpt_is_a_type_and_xtext() {
        for value in [
            "rfc822;user+2Btag@example.com",
            "x-local;a",
            "utf-8;us\\x{E9}r@x.example",
            "utf-8;用户@x.example",
        ] {
            assert_eq!(OriginalRecipient::parse(value).unwrap().as_str(), value);
        }
        let long = format!("rfc822;{}", "a".repeat(500));
        for value in [
            "",
            "rfc822",
            "rfc822;",
            ";a@b",
            "rfc822;a+b",
            "rfc822;a b",
            "rfc822;é",
            "utf-8;a\\b",
            "utf-8;\\x{}",
            "utf-8;\\x{D800}",
            "utf-8;\\x{+1}",
            &long,
        ] {
            assert_eq!(OriginalRecipient::parse(value), None, "{value}");
        }
        assert_eq!(
            OriginalRecipient::rfc822("a+b@c.d").unwrap().as_str(),
            "rfc822;a+2Bb@c.d"
        );
    }
}
