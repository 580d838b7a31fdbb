//! Return paths of ours: one for each recipient, so that a report that comes back says by itself what it is about (ADR 37).

use bounce::{MintError, Purpose, Subject, TokenKeys};
use mail::{Domain, MessageId};
use proto::envelope::Recipient;

/// Whose mail it is, and where reports on it go.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Returned<'a> {
    pub(crate) tenant: &'a str,
    pub(crate) stream: &'a str,
    pub(crate) id: MessageId,
    /// Of the return paths.
    pub(crate) domain: &'a Domain,
    /// Until when they are taken, Unix seconds.
    pub(crate) end: u64,
}

impl Returned<'_> {
    /// Gives each recipient a return path of its own, but not those for whom the simulator answers: no report comes back on
    /// what never leaves.
    pub(crate) fn give(
        &self,
        keys: &TokenKeys,
        recipients: &mut [Recipient],
    ) -> Result<(), MintError> {
        for recipient in recipients {
            if recipient.simulated.is_none() {
                recipient.return_path = self.address(keys, Purpose::Bounce, &recipient.address)?;
            }
        }
        Ok(())
    }

    /// Where complaints about the message go, whichever recipient has them.
    pub(crate) fn for_complaints(&self, keys: &TokenKeys) -> Result<String, MintError> {
        self.address(keys, Purpose::Complaint, "")
    }

    /// An address of the purpose about one recipient; about the message when it is empty.
    pub(crate) fn address(
        &self,
        keys: &TokenKeys,
        purpose: Purpose,
        recipient: &str,
    ) -> Result<String, MintError> {
        let subject = Subject {
            tenant: self.tenant,
            stream: self.stream,
            message: self.id,
            recipient,
        };
        let mut address = keys.mint(purpose, &subject, self.domain, self.end)?;
        address.push('@');
        address.push_str(self.domain.as_str());
        Ok(address)
    }
}

#[cfg(test)]
mod tests {
    use bounce::Destination;
    use mail::Address;
    use proto::envelope::Simulated;

    use super::*;

    #[test]
    fn each_recipient_gets_its_own_and_what_never_leaves_none() {
        let keys = TokenKeys::parse("1 a secret of sixteen octets").unwrap();
        let returned = Returned {
            tenant: "acme",
            stream: "bulk",
            id: MessageId::now(),
            domain: &Domain::parse("b.acme.example").unwrap(),
            end: 1_800_000_000,
        };
        let of = |address: &str, simulated| Recipient {
            address: address.to_owned(),
            simulated,
            ..Recipient::default()
        };
        let mut recipients = [
            of("a@d.example", None),
            of("b@d.example", None),
            of("c@d.example", Some(Simulated::default())),
        ];
        returned.give(&keys, &mut recipients).unwrap();
        assert_eq!(recipients[2].return_path, "");
        assert_ne!(recipients[0].return_path, recipients[1].return_path);
        for recipient in &recipients[..2] {
            let path = Address::parse(&recipient.return_path).unwrap();
            let Ok(Destination::Token(Purpose::Bounce, token)) =
                keys.destination(&path, 1_800_000_000)
            else {
                panic!("{path}");
            };
            assert_eq!(token.message, returned.id);
            assert!(keys.is_of(&token, &recipient.address));
        }
        let complaints = Address::parse(&returned.for_complaints(&keys).unwrap()).unwrap();
        let found = keys.destination(&complaints, 1_800_000_000);
        assert!(
            matches!(found, Ok(Destination::Token(Purpose::Complaint, token)) if keys.is_of(&token, ""))
        );
    }
}
