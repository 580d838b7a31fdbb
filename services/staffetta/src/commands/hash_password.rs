//! `staffetta hash-password`.

use std::io::IsTerminal;

use anyhow::Context;
use argon2::Argon2;
use argon2::password_hash::PasswordHasher;

use crate::output;

/// Iterations of SCRAM-SHA-256: what RFC 7677 asks for at least (4,096) costs a guesser little, so more; and Cyrus SASL, with
/// which Postfix logs in, refuses to compute more than these.
const SCRAM_ITERATIONS: u32 = 65_536;

pub(crate) fn run(scram: bool) -> anyhow::Result<()> {
    let password = read_password()?;
    anyhow::ensure!(!password.is_empty(), "the password is empty");
    let text = if scram {
        scram_keys(&password)
    } else {
        hash(&password)?
    };
    output::print(&format!("{text}\n"))
}

/// With a salt of its own.
fn scram_keys(password: &str) -> String {
    let salt = config::ScramKeys::random_salt();
    config::ScramKeys::derive(password.as_bytes(), &salt, SCRAM_ITERATIONS).to_string()
}

/// Argon2id with the crate's parameters (19 MiB, 2 passes), as a PHC string.
fn hash(password: &str) -> anyhow::Result<String> {
    let hash = Argon2::default()
        .hash_password(password.as_bytes())
        .map_err(|error| anyhow::anyhow!("the password can't be hashed: {error}"))?;
    Ok(hash.to_string())
}

/// One line of standard input; on a terminal it is not shown.
fn read_password() -> anyhow::Result<String> {
    let input = std::io::stdin();
    let hidden = if input.is_terminal() {
        Some(HiddenInput::start()?)
    } else {
        None
    };
    let mut line = String::new();
    let outcome = input.read_line(&mut line).context("standard input");
    drop(hidden);
    outcome?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

/// While it lives, what is typed is not shown.
struct HiddenInput {
    before: rustix::termios::Termios,
}

impl HiddenInput {
    fn start() -> anyhow::Result<Self> {
        use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
        eprint!("Password: ");
        let before = tcgetattr(std::io::stdin()).context("the terminal")?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(std::io::stdin(), OptionalActions::Now, &silent).context("the terminal")?;
        Ok(Self { before })
    }
}

impl Drop for HiddenInput {
    fn drop(&mut self) {
        eprintln!();
        // The terminal is gone when this fails.
        rustix::termios::tcsetattr(
            std::io::stdin(),
            rustix::termios::OptionalActions::Now,
            &self.before,
        )
        .ok();
    }
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::PasswordVerifier;
    use argon2::password_hash::phc::PasswordHash;

    use super::*;

    #[test]
    fn the_hash_is_one_that_a_credential_takes_and_that_verifies() {
        let text = hash("correct horse").unwrap();
        let parsed = PasswordHash::new(&text).unwrap();
        assert!(
            Argon2::default()
                .verify_password(b"correct horse", &parsed)
                .is_ok()
        );
        let documents = format!(
            "apiVersion: staffetta.dev/v1alpha1\nkind: Tenant\nmetadata: {{ name: t }}\n\
             spec: {{ defaultStream: m, streams: [ {{ name: m }} ] }}\n---\n\
             apiVersion: staffetta.dev/v1alpha1\nkind: Credential\nmetadata: {{ name: c }}\n\
             spec: {{ tenant: t, username: u, passwordHash: \"{text}\", scram: \"{}\" }}\n",
            scram_keys("correct horse")
        );
        config::Snapshot::from_documents(&documents).unwrap();
    }
}
