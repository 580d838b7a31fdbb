//! AUTH PLAIN (RFC 4616), LOGIN and SCRAM-SHA-256: from the client's lines to a user name and a password, or a proof.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use config::Snapshot;

use crate::scram::{self, First, Proof};

/// A mechanism that is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    Plain,
    Login,
    ScramSha256,
}

impl Mechanism {
    /// By its name in any case; SCRAM only where it is offered.
    pub(crate) fn parse(name: &str, scram: bool) -> Option<Self> {
        if name.eq_ignore_ascii_case("PLAIN") {
            Some(Self::Plain)
        } else if name.eq_ignore_ascii_case("LOGIN") {
            Some(Self::Login)
        } else if scram && name.eq_ignore_ascii_case("SCRAM-SHA-256") {
            Some(Self::ScramSha256)
        } else {
            None
        }
    }
}

/// What a client claims to be.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) username: String,
    pub(crate) evidence: Evidence,
}

/// What speaks for a claim.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Evidence {
    /// To be checked.
    Password(Vec<u8>),
    /// A proof that was checked, and whether it is right.
    Proof(bool),
}

impl std::fmt::Debug for Claim {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Claim(..)")
    }
}

/// An exchange that waits for the client's next line.
#[derive(Debug)]
pub(crate) struct Exchange(State);

#[derive(Debug)]
enum State {
    Plain,
    LoginUsername,
    LoginPassword {
        username: String,
    },
    ScramFirst,
    ScramFinal(Box<scram::Exchange>),
    /// The client has our proof, and says nothing more.
    ScramEnd {
        username: String,
    },
}

/// What comes after a line of the client.
#[derive(Debug)]
pub(crate) enum Next {
    /// Send `334` with this text and wait for another line.
    Challenge(Exchange, Cow<'static, str>),
    /// All is there.
    Claim(Claim),
    /// Not base64, or not what the mechanism wants.
    Malformed,
}

/// Starts an exchange; `initial` is the initial response of the AUTH command, base64.
pub(crate) fn begin(mechanism: Mechanism, initial: Option<&str>, snapshot: &Snapshot) -> Next {
    let (state, challenge) = match mechanism {
        Mechanism::Plain => (State::Plain, ""),
        // Not in the draft of LOGIN, but widely used: the user name as the initial response.
        Mechanism::Login => (State::LoginUsername, "VXNlcm5hbWU6"),
        Mechanism::ScramSha256 => (State::ScramFirst, ""),
    };
    match initial {
        None => Next::Challenge(Exchange(state), challenge.into()),
        Some(response) => Exchange(state).answer(response, snapshot),
    }
}

impl Exchange {
    /// Takes the client's next response, base64.
    pub(crate) fn answer(self, response: &str, snapshot: &Snapshot) -> Next {
        let Ok(response) = STANDARD.decode(response) else {
            return Next::Malformed;
        };
        match self.0 {
            State::Plain => plain(&response),
            State::LoginUsername => match String::from_utf8(response) {
                Ok(username) if !username.is_empty() => Next::Challenge(
                    Self(State::LoginPassword { username }),
                    "UGFzc3dvcmQ6".into(),
                ),
                _ => Next::Malformed,
            },
            State::LoginPassword { username } => Next::Claim(Claim {
                username,
                evidence: Evidence::Password(response),
            }),
            State::ScramFirst => match First::read(&response) {
                Some(first) => scram_challenge(first, snapshot),
                None => Next::Malformed,
            },
            State::ScramFinal(exchange) => match exchange.check(&response) {
                Proof::Right(own) => {
                    let username = exchange.username;
                    let text = STANDARD.encode(own);
                    Next::Challenge(Self(State::ScramEnd { username }), text.into())
                }
                Proof::Wrong => Next::Claim(Claim {
                    username: exchange.username,
                    evidence: Evidence::Proof(false),
                }),
                Proof::Malformed => Next::Malformed,
            },
            State::ScramEnd { username } if response.is_empty() => Next::Claim(Claim {
                username,
                evidence: Evidence::Proof(true),
            }),
            State::ScramEnd { .. } => Next::Malformed,
        }
    }
}

fn scram_challenge(first: First, snapshot: &Snapshot) -> Next {
    let keys = |credential: &std::sync::Arc<config::Credential>| {
        credential
            .login
            .as_ref()
            .and_then(|login| login.scram.clone())
    };
    let own = snapshot
        .credential_by_username(&first.username)
        .and_then(keys);
    // Always the same one, so that the same name gets the same answer in every process.
    let stand_in = || {
        snapshot
            .credentials()
            .filter(|credential| keys(credential).is_some())
            .min_by(|one, other| one.name.cmp(&other.name))
            .and_then(keys)
    };
    let stand_in = if own.is_none() { stand_in() } else { None };
    let (exchange, challenge) = first.challenge(own.as_ref(), stand_in.as_ref(), &scram::random());
    let text = STANDARD.encode(challenge);
    Next::Challenge(Exchange(State::ScramFinal(Box::new(exchange))), text.into())
}

/// `[authzid] NUL authcid NUL passwd`; to act as somebody else is not offered.
fn plain(response: &[u8]) -> Next {
    let mut parts = response.split(|byte| *byte == 0);
    let (Some(acting_as), Some(username), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Next::Malformed;
    };
    if username.is_empty() || !(acting_as.is_empty() || acting_as == username) {
        return Next::Malformed;
    }
    match std::str::from_utf8(username) {
        Ok(username) => Next::Claim(Claim {
            username: username.to_owned(),
            evidence: Evidence::Password(password.to_owned()),
        }),
        Err(_) => Next::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nobody() -> Snapshot {
        Snapshot::default()
    }

    fn encode(text: &str) -> String {
        STANDARD.encode(text)
    }

    fn claim(next: Next) -> (String, String) {
        match next {
            Next::Claim(Claim {
                username,
                evidence: Evidence::Password(password),
            }) => (username, String::from_utf8(password).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_plain_with_and_without_an_initial_response() {
        let response = encode("\0app\0secret");
        let expected = ("app".to_owned(), "secret".to_owned());
        assert_eq!(
            claim(begin(Mechanism::Plain, Some(&response), &nobody())),
            expected
        );
        let Next::Challenge(exchange, _) = begin(Mechanism::Plain, None, &nobody()) else {
            panic!()
        };
        assert_eq!(claim(exchange.answer(&response, &nobody())), expected);
        assert_eq!(
            claim(begin(
                Mechanism::Plain,
                Some(&encode("app\0app\0secret")),
                &nobody()
            )),
            expected
        );
    }

    #[test]
    fn reads_login_with_and_without_an_initial_response() {
        let expected = ("app".to_owned(), "secret".to_owned());
        for initial in [true, false] {
            let name = encode("app");
            let next = if initial {
                begin(Mechanism::Login, Some(&name), &nobody())
            } else {
                let Next::Challenge(exchange, Cow::Borrowed("VXNlcm5hbWU6")) =
                    begin(Mechanism::Login, None, &nobody())
                else {
                    panic!()
                };
                exchange.answer(&name, &nobody())
            };
            let Next::Challenge(exchange, Cow::Borrowed("UGFzc3dvcmQ6")) = next else {
                panic!()
            };
            assert_eq!(
                claim(exchange.answer(&encode("secret"), &nobody())),
                expected
            );
        }
    }

    #[test]
    fn refuses_what_is_malformed() {
        for response in [
            "",
            "=",
            "not base64!",
            &encode("app"),
            &encode("\0app"),
            &encode("other\0app\0x"),
            &encode("\0\0x"),
            &encode("\0a\0b\0c"),
        ] {
            assert!(
                matches!(
                    begin(Mechanism::Plain, Some(response), &nobody()),
                    Next::Malformed
                ),
                "{response}"
            );
        }
    }
}
