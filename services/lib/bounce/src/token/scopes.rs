//! Which tenant and stream a token was made for.

use std::collections::HashMap;

use super::{SCOPE, Token, TokenKeys, scope};

/// Tenant and stream.
type Pair = (Box<str>, Box<str>);

/// The tenants and streams that there are, by what tokens say of them.
#[derive(Debug, Default)]
pub struct Scopes {
    /// By number of the key and scope; `None`: two have the same.
    pairs: HashMap<(u8, [u8; SCOPE]), Option<Pair>>,
}

impl Scopes {
    /// For pairs of tenant and stream, under all keys. Computes an HMAC for each: when the configuration or the keys change,
    /// not for every token.
    pub fn new<'a>(keys: &TokenKeys, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut scopes = Self::default();
        for (tenant, stream) in pairs {
            for key in keys.all() {
                let named = Some((tenant.into(), stream.into()));
                let found = scopes
                    .pairs
                    .entry((key.number, scope(&key.mac, tenant, stream)));
                found
                    .and_modify(|other| {
                        if *other != named {
                            *other = None;
                        }
                    })
                    .or_insert(named);
            }
        }
        scopes
    }

    /// Tenant and stream of the token; `None` when they are not there (any more), or two of them can't be told apart.
    pub fn of(&self, token: &Token) -> Option<(&str, &str)> {
        let (tenant, stream) = self.pairs.get(&(token.key, token.scope))?.as_ref()?;
        Some((tenant, stream))
    }
}

#[cfg(test)]
mod tests {
    use mail::{Domain, MessageId};

    use super::*;
    use crate::token::{Purpose, Subject};

    #[test]
    fn finds_tenant_and_stream_under_every_key() {
        let keys = TokenKeys::parse("1 the first secret of ours").unwrap();
        let domain = Domain::parse("u.acme.example").unwrap();
        let token = |stream| {
            let subject = Subject {
                tenant: "acme",
                stream,
                message: MessageId::now(),
                recipient: "a@b.example",
            };
            let text = keys.mint(Purpose::Unsubscribe, &subject, &domain, 1_796_000_000);
            keys.read(Purpose::Unsubscribe, &text.unwrap(), &domain, 1_796_000_000)
                .unwrap()
        };
        let newer = TokenKeys::parse("2 the second secret of ours\n1 the first secret of ours");
        let pairs = [
            ("acme", "bulk"),
            ("acme", "news"),
            ("other", "bulk"),
            ("acme", "bulk"),
        ];
        let mut scopes = Scopes::new(&newer.unwrap(), pairs);
        assert_eq!(scopes.of(&token("bulk")), Some(("acme", "bulk")));
        assert_eq!(scopes.of(&token("news")), Some(("acme", "news")));
        assert_eq!(scopes.of(&token("gone")), None);
        let news = token("news");
        scopes.pairs.insert((news.key, news.scope), None);
        assert_eq!(scopes.of(&news), None);
    }
}
