//! What happens with a user name and a password, or a proof.

use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use config::{PasswordHash, Snapshot};
use limits::{Charged, Receipt, Scope, WindowLimit};
use proto::event::Stage;

use crate::answer;
use crate::connection::Connection;
use crate::events::{self, Refused, Whose};
use crate::password::Verdict;
use crate::policy::{By, Identity};
use crate::sasl::{Claim, Evidence};
use crate::server::Shared;
use crate::session::Effect;
use crate::watching::Seen;
use crate::wire::Ended;

/// A failed login is answered this much later.
pub(crate) const FAILURE_DELAY: Duration = Duration::from_secs(1);

impl Connection {
    /// Checks a claim, and answers. A failed login is charged beforehand, so that no number of connections to
    /// any number of pods gets more of them; one that succeeds is given back.
    pub(crate) async fn login(&mut self, claim: Claim) -> Result<Effect, Ended> {
        self.wire.send().await?;
        let attempt = self
            .wire
            .shared
            .quotas
            .charge(
                LOGINS,
                &[self.attempts_of(&claim.username)],
                1,
                Duration::ZERO,
            )
            .await;
        let Charged::Yes(attempt) = attempt else {
            self.wire.shared.metrics.login_bans.inc();
            tracing::warn!(client = %self.client_network(), "login not checked: too many have failed");
            tokio::time::sleep(FAILURE_DELAY).await;
            let named = look_up_name(&self.wire.shared.snapshot.borrow(), &claim.username);
            let whose = self.whose_login(named.as_deref());
            self.wire
                .shared
                .events
                .logins_blocked(whose, &claim.username);
            self.say(answer::AUTH_BANNED);
            return Ok(Effect::Close);
        };
        let Claim { username, evidence } = claim;
        let by = match evidence {
            Evidence::Certificate => By::Certificate,
            _ => By::Password,
        };
        let (verdict, credential) = match evidence {
            Evidence::Token(form, message) => {
                return Ok(self
                    .log_in_by_token(attempt, &username, form, message)
                    .await);
            }
            Evidence::Certificate => {
                let snapshot = self.wire.shared.snapshot.borrow();
                let credential = snapshot.credential_by_certificate(&username);
                let name = credential.map(|credential| credential.name.clone());
                (Verdict::Right, name)
            }
            Evidence::Password(password) => {
                check_password(&self.wire.shared, &username, password).await
            }
            Evidence::Proof(right) => {
                let snapshot = self.wire.shared.snapshot.borrow();
                let credential = snapshot.credential_by_username(&username);
                let verdict = if right {
                    Verdict::Right
                } else {
                    Verdict::Wrong
                };
                (
                    verdict,
                    credential.map(|credential| credential.name.clone()),
                )
            }
        };
        let effect = match (verdict, credential) {
            (Verdict::Right, Some(credential))
                if self.wire.shared.watcher.is_locked(&credential) =>
            {
                self.forgive(attempt);
                self.locked_out(&credential)
            }
            (Verdict::Right, Some(credential)) => {
                self.forgive(attempt);
                self.note_login(Some(&credential), true);
                let identity = Identity {
                    credential,
                    username,
                    by,
                };
                self.session.logged_in(identity, &mut self.wire.output)
            }
            (Verdict::Busy, _) => {
                self.forgive(attempt);
                self.session
                    .say_uncounted(answer::AUTH_BUSY, &mut self.wire.output)
            }
            (Verdict::Right | Verdict::Wrong, credential) => {
                self.wire.shared.metrics.auth_failures.inc();
                let known = credential.is_some();
                tracing::info!(client = %self.client_network(), known, "login refused");
                self.tell_failed(credential.as_deref(), &username);
                tokio::time::sleep(FAILURE_DELAY).await;
                self.say(answer::AUTH_WRONG)
            }
        };
        Ok(effect)
    }

    /// The login of a credential that is locked: it is told, and answered.
    pub(crate) fn locked_out(&mut self, credential: &str) -> Effect {
        let refused = Refused {
            stage: Stage::Auth,
            answer: &answer::AUTH_LOCKED,
            recipient: "",
            recipients: 0,
        };
        let whose = self.whose_login(Some(credential));
        self.wire.shared.events.rejected(whose, &refused);
        self.say(answer::AUTH_LOCKED)
    }

    /// A login failed; `credential`: whose it would have been.
    pub(crate) fn tell_failed(&self, credential: Option<&str>, username: &str) {
        let whose = self.whose_login(credential);
        self.wire.shared.events.login_failed(whose, username);
        self.note_login(credential, false);
    }

    /// For who watches the credential, if there is one.
    pub(crate) fn note_login(&self, credential: Option<&str>, succeeded: bool) {
        let snapshot = self.wire.shared.snapshot.borrow();
        let seen = credential
            .and_then(|name| snapshot.credential(name))
            .and_then(|of| Seen::login(of, &snapshot, self.session.origin(), succeeded));
        self.wire.shared.watcher.note(seen);
    }

    /// Whom a login concerns that did not succeed.
    fn whose_login(&self, credential: Option<&str>) -> Whose {
        let client = self.session.origin();
        let snapshot = self.wire.shared.snapshot.borrow();
        match credential.and_then(|name| snapshot.credential(name)) {
            Some(credential) => Whose::of(credential, client),
            None => Whose {
                network: events::network_text(client),
                ..Whose::default()
            },
        }
    }

    /// What failed logins are counted by: the client's network together with the user name, so that nobody else
    /// in the network and nobody elsewhere is locked out. Of names only a digest is kept.
    fn attempts_of(&self, username: &str) -> Scope {
        let digest = digest(&SHA256, username.as_bytes());
        let name = URL_SAFE_NO_PAD.encode(&digest.as_ref()[..16]);
        let allowed = self.wire.shared.failed_logins;
        Scope {
            key: format!("{}/{name}", runtime::one_client(self.session.client())),
            windows: vec![WindowLimit {
                length_ms: allowed.window.as_millis(),
                limit: allowed.count,
            }],
        }
    }

    pub(crate) fn forgive(&self, attempt: Receipt) {
        let quotas = self.wire.shared.quotas.clone();
        tokio::spawn(async move { quotas.give_back(attempt).await });
    }
}

/// Checks a password; gives the credential too.
async fn check_password(
    shared: &Shared,
    username: &str,
    password: Vec<u8>,
) -> (Verdict, Option<String>) {
    let (credential, hash, stand_in) = look_up(&shared.snapshot.borrow(), username);
    let hash = read_hash(hash, credential.as_deref()).await;
    let stand_in = read_hash(stand_in, None).await;
    let verdict = shared
        .passwords
        .check(username, password, hash.as_deref(), stand_in.as_deref())
        .await;
    (verdict, credential)
}

fn look_up_name(snapshot: &Snapshot, username: &str) -> Option<String> {
    let found = snapshot.credential_by_username(username);
    found.map(|credential| credential.name.clone())
}

/// Names the counts of failed logins.
const LOGINS: &str = "logins";

/// The credential of a user name with its hash, and some credential's hash to spend the same time on
/// when there is none.
fn look_up(
    snapshot: &Snapshot,
    username: &str,
) -> (Option<String>, Option<PasswordHash>, Option<PasswordHash>) {
    let found = snapshot.credential_by_username(username);
    let hash = found
        .and_then(|credential| credential.login.as_ref())
        .map(|login| login.password_hash.clone());
    let stand_in = match hash {
        Some(_) => None,
        None => snapshot
            .credentials()
            .find_map(|other| other.login.as_ref())
            .map(|login| login.password_hash.clone()),
    };
    (
        found.map(|credential| credential.name.clone()),
        hash,
        stand_in,
    )
}

async fn read_hash(hash: Option<PasswordHash>, credential: Option<&str>) -> Option<String> {
    match hash? {
        PasswordHash::Phc(phc) => Some(phc),
        PasswordHash::File(path) => match tokio::fs::read_to_string(&path).await {
            Ok(text) => text.lines().next().map(|line| line.trim().to_owned()),
            Err(error) => {
                tracing::error!(credential, path = %path.display(), %error, "the password hash of a credential cannot be read");
                None
            }
        },
    }
}
