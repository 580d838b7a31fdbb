//! Logins with access tokens: OAUTHBEARER and XOAUTH2.

use std::sync::Arc;

use bearer::{Form, Message, Refusal, Token, Verified, challenge};
use config::{Snapshot, TokenIssuer};
use limits::Receipt;

use crate::answer;
use crate::connection::Connection;
use crate::issuers::Issuers;
use crate::login::FAILURE_DELAY;
use crate::policy::{By, Identity};
use crate::session::Effect;

/// What came of a token.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    LoggedIn(Identity),
    Refused(Refusal),
    /// There are no keys to check it with.
    Unavailable,
}

impl Connection {
    /// Checks a token, and answers. `attempt` was charged for it, to whom it or its client says to be: `username`.
    pub(crate) async fn log_in_by_token(
        &mut self,
        attempt: Receipt,
        username: &str,
        form: Form,
        message: Message,
    ) -> Effect {
        let snapshot = Arc::clone(&self.wire.shared.snapshot.borrow());
        let token = Token::read(&message.token);
        let issuer = token
            .as_ref()
            .ok()
            .and_then(|token| snapshot.token_issuer(token.issuer()?));
        let outcome = match (&token, issuer) {
            (Ok(token), Some(issuer)) => {
                let verified = verify(token, issuer, &self.wire.shared.issuers).await;
                verified.map_or_else(
                    |outcome| outcome,
                    |verified| identify(verified, message.user.as_deref(), issuer, &snapshot),
                )
            }
            (Ok(_), None) => Outcome::Refused(Refusal::Issuer),
            (Err(refusal), _) => Outcome::Refused(*refusal),
        };
        let issuer = issuer.map(|issuer| &**issuer);
        match outcome {
            Outcome::LoggedIn(identity)
                if self.wire.shared.watcher.is_locked(&identity.credential) =>
            {
                self.forgive(attempt);
                self.locked_out(&identity.credential)
            }
            Outcome::LoggedIn(identity) => {
                self.forgive(attempt);
                self.note_login(Some(&identity.credential), true);
                self.session.logged_in(identity, &mut self.wire.output)
            }
            Outcome::Unavailable => {
                self.forgive(attempt);
                tokio::time::sleep(FAILURE_DELAY).await;
                self.session
                    .say_uncounted(answer::AUTH_BUSY, &mut self.wire.output)
            }
            Outcome::Refused(refusal) => {
                self.wire.shared.metrics.auth_failures.inc();
                self.wire.shared.metrics.token_refused(refusal);
                let name = issuer.map(|issuer| issuer.name.as_str());
                tracing::info!(client = %self.client_network(), issuer = name, reason = %refusal, "token refused");
                self.tell_failed(None, username);
                tokio::time::sleep(FAILURE_DELAY).await;
                let scope = issuer.and_then(|issuer| issuer.scope.as_deref());
                let why = challenge(form, refusal.status(), scope);
                self.session.token_refused(why, &mut self.wire.output)
            }
        }
    }
}

/// With the keys that are there; with newer ones when it is of a key that is not among them.
async fn verify(
    token: &Token<'_>,
    issuer: &TokenIssuer,
    issuers: &Issuers,
) -> Result<Verified, Outcome> {
    let keys = issuers.keys(issuer).await.ok_or(Outcome::Unavailable)?;
    match token.verify(issuer, &keys, runtime::now_ms()) {
        Err(Refusal::UnknownKey) => {
            let keys = issuers.newer_keys(issuer).await;
            let keys = keys.ok_or(Outcome::Unavailable)?;
            token.verify(issuer, &keys, runtime::now_ms())
        }
        verified => verified,
    }
    .map_err(Outcome::Refused)
}

/// Whose token it is. `user`: whom the client wants to be, by the token's subject or the user name of its credential.
fn identify(
    verified: Verified,
    user: Option<&str>,
    issuer: &TokenIssuer,
    snapshot: &Snapshot,
) -> Outcome {
    let Verified { subject, over_ms } = verified;
    let credential = snapshot.credential_by_token(&issuer.name, &subject);
    let credential = credential.filter(|credential| {
        let login = credential.login.as_ref();
        let own = login.map(|login| login.username.as_str());
        user.is_none_or(|user| user == subject || own == Some(user))
    });
    match credential {
        Some(credential) => Outcome::LoggedIn(Identity {
            credential: credential.name.clone(),
            username: subject,
            by: By::Token {
                issuer: issuer.name.clone(),
                over_ms,
            },
        }),
        None => Outcome::Refused(Refusal::User),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTS: &str = "
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: acme }
spec: { defaultStream: bulk, streams: [ { name: bulk } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: TokenIssuer
metadata: { name: corp }
spec: { issuer: corp, audiences: [ relay ], jwksFile: \"file:/k\" }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-app }
spec: { tenant: acme, username: app, passwordHash: \"$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$aGFzaA\", tokens: [ { issuer: corp, subject: \"1\" } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-shop }
spec: { tenant: acme, tokens: [ { issuer: corp, subject: \"2\" } ] }
";

    #[test]
    fn a_token_is_that_of_its_subject_and_speaks_for_nobody_else() {
        let snapshot = Snapshot::from_documents(DOCUMENTS).unwrap();
        let issuer = snapshot.token_issuer("corp").unwrap();
        for (subject, user, expected) in [
            ("1", None, Some("acme-app")),
            ("1", Some("1"), Some("acme-app")),
            ("1", Some("app"), Some("acme-app")),
            ("2", Some("2"), Some("acme-shop")),
            ("1", Some("2"), None),
            ("2", Some("app"), None),
            ("1", Some("APP"), None),
            ("1", Some("acme-app"), None),
            ("3", None, None),
            ("3", Some("1"), None),
        ] {
            let subject = subject.to_owned();
            let verified = Verified {
                subject,
                over_ms: 7,
            };
            let found = match identify(verified, user, issuer, &snapshot) {
                Outcome::LoggedIn(identity) => {
                    assert!(!identity.is_over(6) && identity.is_over(7));
                    Some(identity.credential)
                }
                outcome => {
                    assert_eq!(outcome, Outcome::Refused(Refusal::User));
                    None
                }
            };
            assert_eq!(found.as_deref(), expected, "{user:?}");
        }
    }
}
