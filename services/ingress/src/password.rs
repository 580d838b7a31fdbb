//! Checks passwords against Argon2 hashes without letting that become a way to overload the relay
//! or to learn which user names exist.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use argon2::Argon2;
use argon2::password_hash::PasswordVerifier;
use argon2::password_hash::phc::PasswordHash;
use aws_lc_rs::{constant_time, hmac};
use tokio::sync::Semaphore;

/// How long a password that was found right is not hashed again.
const REMEMBERED: Duration = Duration::from_secs(300);
/// How long a client waits for a turn at the hashing threads.
const PATIENCE: Duration = Duration::from_secs(10);
/// Verified when a user name is unknown and no credential is there to take the parameters from:
/// Argon2id with the parameters that the argon2 crate (and OWASP) recommends, of a random password.
const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$c3RhZmZldHRhLW5vYm9keQ$7v8Jm6uEPhYqFZ8NfsBEe0mUZ4Fb8dVtLXiCvK6yDGo";

/// What a check came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The password is that of the user.
    Right,
    /// It is not, or there is no such user.
    Wrong,
    /// Too many are being checked at once.
    Busy,
}

/// Checks passwords on a bounded number of threads.
pub(crate) struct PasswordChecker {
    threads: Arc<Semaphore>,
    /// Right passwords by user name, as a keyed digest. Only users that exist get in.
    known: Mutex<HashMap<String, Known>>,
    key: hmac::Key,
}

struct Known {
    digest: hmac::Tag,
    until: Instant,
}

impl PasswordChecker {
    /// Uses at most `threads` threads at once (each needs the memory that the hash names).
    pub(crate) fn new(threads: usize) -> Self {
        let random = aws_lc_rs::rand::SystemRandom::new();
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &random)
            .expect("the system gives random bytes to the process");
        Self {
            threads: Arc::new(Semaphore::new(threads.max(1))),
            known: Mutex::default(),
            key,
        }
    }

    /// Checks `password` of `username` against `hash`, a PHC string. Without a hash the answer is
    /// `Wrong` after the time that a check against `stand_in` takes.
    pub(crate) async fn check(
        &self,
        username: &str,
        password: Vec<u8>,
        hash: Option<&str>,
        stand_in: Option<&str>,
    ) -> Verdict {
        let digest = self.digest(username, &password, hash.unwrap_or_default());
        if hash.is_some() && self.remembers(username, &digest) {
            return Verdict::Right;
        }
        let turn = tokio::time::timeout(PATIENCE, Arc::clone(&self.threads).acquire_owned()).await;
        let Ok(Ok(turn)) = turn else {
            return Verdict::Busy;
        };
        let exists = hash.is_some();
        let phc = hash.or(stand_in).unwrap_or(NOBODY).to_owned();
        let matches = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            matches_hash(&password, &phc)
        });
        if matches.await.unwrap_or(false) && exists {
            self.remember(username, digest);
            Verdict::Right
        } else {
            Verdict::Wrong
        }
    }

    /// Over the hash too, so that a changed password ends the memory.
    fn digest(&self, username: &str, password: &[u8], hash: &str) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [username.as_bytes(), password, hash.as_bytes()] {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        context.sign()
    }

    fn remembers(&self, username: &str, digest: &hmac::Tag) -> bool {
        let known = self
            .known
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        known.get(username).is_some_and(|entry| {
            entry.until > Instant::now()
                && constant_time::verify_slices_are_equal(entry.digest.as_ref(), digest.as_ref())
                    .is_ok()
        })
    }

    fn remember(&self, username: &str, digest: hmac::Tag) {
        let now = Instant::now();
        let mut known = self
            .known
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        known.retain(|_, entry| entry.until > now);
        known.insert(
            username.to_owned(),
            Known {
                digest,
                until: now + REMEMBERED,
            },
        );
    }
}

fn matches_hash(password: &[u8], phc: &str) -> bool {
    PasswordHash::new(phc)
        .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::PasswordHasher;

    use super::*;

    fn hash(password: &str) -> String {
        let quick = argon2::Params::new(64, 1, 1, None).unwrap();
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, quick);
        argon2
            .hash_password(password.as_bytes())
            .unwrap()
            .to_string()
    }

    #[tokio::test]
    async fn accepts_the_right_password_and_no_other() {
        let checker = PasswordChecker::new(1);
        let phc = hash("secret");
        for _ in 0..2 {
            assert_eq!(
                checker
                    .check("app", b"secret".to_vec(), Some(&phc), None)
                    .await,
                Verdict::Right
            );
            assert_eq!(
                checker
                    .check("app", b"Secret".to_vec(), Some(&phc), None)
                    .await,
                Verdict::Wrong
            );
            assert_eq!(
                checker.check("app", Vec::new(), Some(&phc), None).await,
                Verdict::Wrong
            );
        }
    }

    #[tokio::test]
    async fn an_unknown_user_is_wrong_even_with_the_password_of_the_stand_in() {
        let checker = PasswordChecker::new(1);
        let stand_in = hash("secret");
        assert_eq!(
            checker
                .check("x", b"secret".to_vec(), None, Some(&stand_in))
                .await,
            Verdict::Wrong
        );
    }

    #[tokio::test]
    async fn a_changed_hash_ends_what_was_remembered() {
        let checker = PasswordChecker::new(1);
        let (old, new) = (hash("old"), hash("new"));
        assert_eq!(
            checker
                .check("app", b"old".to_vec(), Some(&old), None)
                .await,
            Verdict::Right
        );
        assert_eq!(
            checker
                .check("app", b"old".to_vec(), Some(&new), None)
                .await,
            Verdict::Wrong
        );
    }

    #[tokio::test]
    async fn a_remembered_password_needs_no_thread() {
        let checker = PasswordChecker::new(1);
        let phc = hash("secret");
        assert_eq!(
            checker
                .check("app", b"secret".to_vec(), Some(&phc), None)
                .await,
            Verdict::Right
        );
        let _all_threads = Arc::clone(&checker.threads).acquire_owned().await.unwrap();
        assert_eq!(
            checker
                .check("app", b"secret".to_vec(), Some(&phc), None)
                .await,
            Verdict::Right
        );
    }

    #[test]
    fn the_hash_of_nobody_is_a_hash_that_takes_its_time() {
        let parsed = PasswordHash::new(NOBODY).unwrap();
        assert!(Argon2::default().verify_password(b"", &parsed).is_err());
        assert!(!matches_hash(b"", "not a hash"));
    }
}
