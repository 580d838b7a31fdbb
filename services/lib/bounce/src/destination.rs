//! What the addresses of a domain of return paths are for.

use mail::Address;

use crate::{Purpose, Token, TokenError, TokenKeys};

/// What an address is for, whose domain is one of return paths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// Made by us.
    Token(Purpose, Token),
    /// `postmaster` (RFC 5321 section 4.5.1).
    Postmaster,
    /// `abuse` (RFC 2142).
    Abuse,
    /// `fbl`: where providers send complaints that take one address for all.
    Complaints,
}

const NAMES: [(&str, Destination); 3] = [
    ("postmaster", Destination::Postmaster),
    ("abuse", Destination::Abuse),
    ("fbl", Destination::Complaints),
];

impl TokenKeys {
    /// What an address is for at `now`, Unix seconds. Whether its domain is one of return paths is for the caller to know.
    ///
    /// # Errors
    /// When it is for nothing: neither a name that is known, nor a token that counts.
    pub fn destination(&self, address: &Address, now: u64) -> Result<Destination, TokenError> {
        let local_part = address.local_part();
        let mut names = NAMES.iter();
        if let Some((_, named)) = names.find(|(name, _)| local_part.eq_ignore_ascii_case(name)) {
            return Ok(*named);
        }
        let purpose = match local_part.bytes().next() {
            Some(b'b' | b'B') => Purpose::Bounce,
            Some(b'c' | b'C') => Purpose::Complaint,
            Some(b'u' | b'U') => Purpose::Unsubscribe,
            _ => return Err(TokenError::NotOne),
        };
        let domain = address.domain().ok_or(TokenError::NotOne)?;
        let token = self.read(purpose, local_part, &domain, now)?;
        Ok(Destination::Token(purpose, token))
    }
}

#[cfg(test)]
mod tests {
    use mail::MessageId;

    use super::*;
    use crate::Subject;

    #[test]
    fn an_address_is_a_token_or_has_a_name() {
        let keys = TokenKeys::parse("1 a secret of sixteen octets").unwrap();
        let find = |text: &str| keys.destination(&Address::parse(text).unwrap(), 1_800_000_000);
        assert_eq!(find("PostMaster@b.example"), Ok(Destination::Postmaster));
        assert_eq!(find("abuse@b.example"), Ok(Destination::Abuse));
        assert_eq!(find("fbl@b.example"), Ok(Destination::Complaints));
        for none in ["info@b.example", "b1@b.example", "x@b.example"] {
            assert_eq!(find(none), Err(TokenError::NotOne), "{none}");
        }
        let subject = Subject {
            tenant: "acme",
            stream: "bulk",
            message: MessageId::now(),
            recipient: "a@d.example",
        };
        let domain = mail::Domain::parse("b.example").unwrap();
        for purpose in [Purpose::Bounce, Purpose::Complaint, Purpose::Unsubscribe] {
            let text = keys
                .mint(purpose, &subject, &domain, 1_800_000_000)
                .unwrap();
            let Ok(Destination::Token(found, token)) = find(&format!("{text}@b.example")) else {
                panic!("{purpose:?}");
            };
            assert_eq!((found, token.message), (purpose, subject.message));
            assert_eq!(find(&format!("{text}@c.example")), Err(TokenError::Forged));
        }
    }
}
