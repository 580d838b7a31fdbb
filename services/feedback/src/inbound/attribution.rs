//! Whose mail something is about: by tokens that only we can make, and by nothing else that a report says.

use bounce::{Destination, Original, Purpose, Scopes, Token, TokenError, TokenKeys};
use config::{OwnReturnPath, Snapshot};
use mail::Address;

/// What is known of who sends, and what tokens are known by.
#[derive(Clone, Copy)]
pub(crate) struct Known<'a> {
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) keys: &'a TokenKeys,
    pub(crate) scopes: &'a Scopes,
    /// When the message came, Unix seconds: what was taken then is taken now.
    pub(crate) came_at: u64,
}

/// An address of ours that somebody wrote to.
pub(crate) struct Written<'a> {
    pub(crate) destination: Destination,
    pub(crate) own: &'a OwnReturnPath,
    /// Whose domain it is.
    pub(crate) tenant: &'a str,
}

/// A message that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subject<'a> {
    pub(crate) token: Token,
    pub(crate) tenant: &'a str,
    pub(crate) stream: &'a str,
}

impl<'a> Known<'a> {
    /// Whether an address of ours was made with a key that this process does not know: yet, or any more.
    pub(crate) fn has_unknown_key(&self, address: &str) -> bool {
        let Ok(address) = Address::parse(address) else {
            return false;
        };
        let is_ours = address.domain().is_some_and(|domain| {
            let sending = self.snapshot.return_domain(domain.as_str());
            sending.is_some()
        });
        is_ours && self.keys.destination(&address, self.came_at) == Err(TokenError::UnknownKey)
    }

    /// What an address is for; `None` when it is none of ours (any more).
    pub(crate) fn written(&self, address: &str) -> Option<Written<'a>> {
        let address = Address::parse(address).ok()?;
        let domain = address.domain()?;
        let sending = self.snapshot.return_domain(domain.as_str())?;
        Some(Written {
            destination: self.keys.destination(&address, self.came_at).ok()?,
            own: sending.return_path.as_ref()?,
            tenant: &sending.tenant,
        })
    }

    /// Whose message a token is of; `None` when tenant or stream are gone, or the domain is another tenant's by now.
    pub(crate) fn subject(&self, token: Token, tenant_of_domain: &str) -> Option<Subject<'a>> {
        let (tenant, stream) = self.scopes.of(&token)?;
        (tenant == tenant_of_domain).then_some(Subject {
            token,
            tenant,
            stream,
        })
    }

    /// The message that was sent back, or fields of which were. A return path comes first: it is of one recipient.
    pub(crate) fn of_original(&self, original: &Original, mail_from: &str) -> Option<Subject<'a>> {
        let told = [mail_from, &original.return_path, &original.cfbl_address];
        told.into_iter().find_map(|address| {
            let written = self.written(address)?;
            match written.destination {
                Destination::Token(Purpose::Bounce | Purpose::Complaint, token) => {
                    self.subject(token, written.tenant)
                }
                _ => None,
            }
        })
    }

    /// Whether a token is of one recipient.
    pub(crate) fn is_of_one(&self, token: &Token) -> bool {
        !self.keys.is_of(token, "")
    }

    /// The first of these that the token was made for.
    pub(crate) fn named<'n>(
        &self,
        token: &Token,
        addresses: impl IntoIterator<Item = &'n str>,
    ) -> Option<&'n str> {
        addresses
            .into_iter()
            .find(|address| !address.is_empty() && self.keys.is_of(token, address))
    }
}
