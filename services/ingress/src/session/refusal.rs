//! What is refused of somebody who is known, to be told as an event.

use std::sync::Arc;

use config::{Credential, Snapshot};
use proto::event::Stage;
use smtp::ForwardPath;

use super::Session;
use crate::answer::Answer;

/// A message or a recipient that was refused.
pub(crate) struct Refusal {
    pub(crate) stage: Stage,
    pub(crate) answer: Answer,
    /// Whose it was.
    pub(crate) credential: Arc<Credential>,
    /// Empty at MAIL.
    pub(crate) recipient: String,
}

impl Session {
    /// Notes that a message was refused at MAIL, unless nobody knows whose it was, or the client has lost its place.
    pub(super) fn refuse_mail(&mut self, answer: Answer, snapshot: &Snapshot) -> Answer {
        if answer.code != 503
            && let Some(credential) = self.credential(snapshot)
        {
            self.refused = Some(Box::new(Refusal {
                stage: Stage::Mail,
                answer: answer.clone(),
                credential: Arc::clone(credential),
                recipient: String::new(),
            }));
        }
        answer
    }

    /// Notes that a recipient was refused.
    pub(super) fn refuse_recipient(&mut self, answer: Answer, path: &ForwardPath) -> Answer {
        let known = self.transaction.as_ref().filter(|_| answer.code != 503);
        if let Some(transaction) = known {
            self.refused = Some(Box::new(Refusal {
                stage: Stage::Rcpt,
                answer: answer.clone(),
                credential: Arc::clone(&transaction.sender.rules.credential),
                recipient: match path {
                    ForwardPath::Postmaster => "postmaster".to_owned(),
                    ForwardPath::Mailbox(address) => address.as_str().to_owned(),
                },
            }));
        }
        answer
    }

    /// What the last command was refused, if it is worth telling.
    pub(crate) fn take_refusal(&mut self) -> Option<Box<Refusal>> {
        self.refused.take()
    }

    /// The credential that speaks for the client, whatever it may do.
    fn credential<'a>(&self, snapshot: &'a Snapshot) -> Option<&'a Arc<Credential>> {
        if let Some(identity) = &self.identity {
            return snapshot.credential(&identity.credential);
        }
        let mut certificates = self.certified_as.iter();
        certificates
            .find_map(|name| snapshot.credential_by_certificate(name))
            .or_else(|| {
                let client = Some(self.client).filter(|client| client.is_known())?;
                snapshot.credential_for_network(client.address)
            })
    }
}
