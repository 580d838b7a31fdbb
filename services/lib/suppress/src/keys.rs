//! Addresses as they are compared and stored.

use std::fmt;

use aws_lc_rs::hmac;
use mail::Address;

/// Slices of the change log, by the first six bits of the keys. Fixed for the life of an installation.
pub const SHARDS: u8 = 64;

/// The first 16 octets of HMAC-SHA-256 over an address in its normal form.
pub type AddressKey = [u8; 16];

/// Makes keys of addresses, by a secret of the installation. A cheap clone.
#[derive(Clone)]
pub struct Keys(hmac::Key);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl Keys {
    /// Keys by this secret, which should have 32 octets.
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The key of an address; `None` when it is none.
    pub fn of(&self, address: &str) -> Option<AddressKey> {
        Some(self.of_normal(&normal_form(address)?))
    }

    /// The key of an address in its normal form.
    pub fn of_normal(&self, address: &str) -> AddressKey {
        let tag = hmac::sign(&self.0, address.as_bytes());
        let mut key = AddressKey::default();
        key.copy_from_slice(&tag.as_ref()[..16]);
        key
    }

    /// As much of a key as is kept in memory: 64 bits, never 0. `None` when it is no address.
    pub fn short_of(&self, address: &str) -> Option<u64> {
        self.of(address).as_ref().map(short)
    }
}

/// As much of a key as is kept in memory. 0 stands for an address that is not known.
pub(crate) fn short(key: &AddressKey) -> u64 {
    let mut octets = [0; 8];
    octets.copy_from_slice(&key[..8]);
    u64::from_be_bytes(octets).max(1)
}

/// The slice of the change log in which a key is, below [`SHARDS`].
pub fn shard_of(key: &AddressKey) -> u8 {
    key[0] >> 2
}

/// The form in which addresses are compared: the domain as the DNS has it, and the local part without upper case. Local
/// parts may differ by case alone (RFC 5321 section 2.4), but no mailbox of one person differs from that of another so,
/// and who asks for no more mail shall get none. What follows a `+` stays. `None` when it is no address.
pub fn normal_form(address: &str) -> Option<String> {
    let address = Address::parse(address).ok()?;
    let local = address.local_part().to_lowercase();
    let mut normal = local;
    normal.push('@');
    match address.domain() {
        Some(domain) => normal.push_str(domain.as_str()),
        None => normal.push_str(&address.domain_text().to_ascii_lowercase()),
    }
    Some(normal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_differ_by_case_or_form_of_the_domain_are_one() {
        for (one, other) in [
            ("Ann@Example.COM", "ann@example.com"),
            ("ann@bücher.example", "ANN@xn--bcher-kva.example"),
            ("Ünal@example.com", "ünal@example.com"),
            ("a@[IPv6:2001:DB8::1]", "A@[ipv6:2001:db8::1]"),
        ] {
            assert_eq!(normal_form(one), normal_form(other), "{one}");
        }
        assert_ne!(normal_form("a+b@example.com"), normal_form("a@example.com"));
        assert_eq!(normal_form("no address"), None);
    }

    #[test]
    fn keys_depend_on_the_secret_and_on_nothing_else() {
        let (keys, others) = (Keys::new(&[1; 32]), Keys::new(&[2; 32]));
        assert_eq!(keys.of("A@example.com"), keys.of("a@example.com"));
        assert_ne!(keys.of("a@example.com"), others.of("a@example.com"));
        assert_eq!(
            keys.short_of("a@example.com"),
            keys.of("a@example.com").as_ref().map(short)
        );
        assert_eq!(short(&[0; 16]), 1);
        assert!(
            keys.of("a@example.com")
                .is_some_and(|key| shard_of(&key) < SHARDS)
        );
    }
}
