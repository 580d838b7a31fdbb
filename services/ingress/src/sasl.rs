//! AUTH PLAIN (RFC 4616), LOGIN, SCRAM-SHA-256, OAUTHBEARER (RFC 7628), XOAUTH2 and EXTERNAL (RFC 4422 appendix A): from
//! the client's lines to a user name and what speaks for it.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bearer::{Form, Message, Token};
use config::Snapshot;

use crate::scram::{self, First, Proof};

/// A mechanism that is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    Plain,
    Login,
    ScramSha256,
    Token(Form),
    External,
}

/// What is offered beside PLAIN and LOGIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Offer {
    /// By the listener.
    pub(crate) scram: bool,
    /// Since there are credentials with tokens.
    pub(crate) tokens: bool,
    /// To a client whose certificate a credential names.
    pub(crate) external: bool,
}

impl Offer {
    /// The mechanisms that are offered, in the order in which they are announced.
    fn mechanisms(self) -> impl Iterator<Item = (&'static str, Mechanism)> {
        [
            ("PLAIN", Mechanism::Plain, true),
            ("LOGIN", Mechanism::Login, true),
            ("SCRAM-SHA-256", Mechanism::ScramSha256, self.scram),
            (
                "OAUTHBEARER",
                Mechanism::Token(Form::OAuthBearer),
                self.tokens,
            ),
            ("XOAUTH2", Mechanism::Token(Form::XOAuth2), self.tokens),
            ("EXTERNAL", Mechanism::External, self.external),
        ]
        .into_iter()
        .filter(|(_, _, offered)| *offered)
        .map(|(name, mechanism, _)| (name, mechanism))
    }

    /// The line of EHLO.
    pub(crate) fn line(self) -> String {
        let mut line = "AUTH".to_owned();
        for (name, _) in self.mechanisms() {
            line.push(' ');
            line.push_str(name);
        }
        line
    }

    /// By its name in any case.
    pub(crate) fn mechanism(self, name: &str) -> Option<Mechanism> {
        self.mechanisms()
            .find(|(offered, _)| offered.eq_ignore_ascii_case(name))
            .map(|(_, mechanism)| mechanism)
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
    /// A token, to be checked.
    Token(Form, Message),
    /// The user name is that in the client's certificate.
    Certificate,
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
    Token(Form),
    /// The client has been told why its token is refused; whatever it says now (RFC 7628 section 3.2.3).
    TokenRefused,
    External {
        /// Names in the client's certificate.
        certified_as: Vec<Box<str>>,
    },
}

/// What comes after a line of the client.
#[derive(Debug)]
pub(crate) enum Next {
    /// Send `334` with this text and wait for another line.
    Challenge(Exchange, Cow<'static, str>),
    /// All is there.
    Claim(Claim),
    /// The login has failed, and its client knows why.
    Refused,
    /// Not base64, or not what the mechanism wants.
    Malformed,
}

/// Starts an exchange; `initial` is the initial response of the AUTH command, base64. `certified_as`: the names in the
/// client's certificate.
pub(crate) fn begin(
    mechanism: Mechanism,
    initial: Option<&str>,
    certified_as: &[Box<str>],
    snapshot: &Snapshot,
) -> Next {
    let (state, challenge) = match mechanism {
        Mechanism::Plain => (State::Plain, ""),
        // Not in the draft of LOGIN, but widely used: the user name as the initial response.
        Mechanism::Login => (State::LoginUsername, "VXNlcm5hbWU6"),
        Mechanism::ScramSha256 => (State::ScramFirst, ""),
        Mechanism::Token(form) => (State::Token(form), ""),
        Mechanism::External => {
            let certified_as = certified_as.to_owned();
            (State::External { certified_as }, "")
        }
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
            State::Token(form) => match Message::read(form, &response) {
                Ok(message) => Next::Claim(Claim {
                    username: claimed_by(&message, snapshot),
                    evidence: Evidence::Token(form, message),
                }),
                Err(_) => Next::Malformed,
            },
            State::TokenRefused => Next::Refused,
            State::External { certified_as } => external(&response, &certified_as, snapshot),
        }
    }

    /// For a client that is told why its token is refused.
    pub(crate) fn token_refused() -> Self {
        Self(State::TokenRefused)
    }
}

/// Whom a client says to be, or its token says, which nobody has checked: failed logins are counted by it.
fn claimed_by(message: &Message, snapshot: &Snapshot) -> String {
    let of_token = || {
        let token = Token::read(&message.token).ok()?;
        let issuer = snapshot.token_issuer(token.issuer()?)?;
        token.subject(&issuer.claim).map(str::to_owned)
    };
    message.user.clone().or_else(of_token).unwrap_or_default()
}

/// `response`: whom the client wants to be: a name in its certificate, or the user name of the credential that names the
/// certificate; empty: whoever the certificate makes it (RFC 4422 appendix A).
fn external(response: &[u8], certified_as: &[Box<str>], snapshot: &Snapshot) -> Next {
    let Ok(wanted) = std::str::from_utf8(response) else {
        return Next::Malformed;
    };
    let may_be = |name: &&str| {
        let credential = snapshot.credential_by_certificate(name);
        credential.is_some_and(|credential| {
            let login = credential.login.as_ref();
            wanted.is_empty()
                || name.eq_ignore_ascii_case(wanted)
                || login.is_some_and(|login| login.username == wanted)
        })
    };
    let (username, evidence) = match certified_as.iter().map(|name| &**name).find(may_be) {
        Some(name) => (name.to_string(), Evidence::Certificate),
        None => (wanted.to_owned(), Evidence::Proof(false)),
    };
    Next::Claim(Claim { username, evidence })
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
            claim(begin(Mechanism::Plain, Some(&response), &[], &nobody())),
            expected
        );
        let Next::Challenge(exchange, _) = begin(Mechanism::Plain, None, &[], &nobody()) else {
            panic!()
        };
        assert_eq!(claim(exchange.answer(&response, &nobody())), expected);
        assert_eq!(
            claim(begin(
                Mechanism::Plain,
                Some(&encode("app\0app\0secret")),
                &[],
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
                begin(Mechanism::Login, Some(&name), &[], &nobody())
            } else {
                let Next::Challenge(exchange, Cow::Borrowed("VXNlcm5hbWU6")) =
                    begin(Mechanism::Login, None, &[], &nobody())
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
    fn failed_logins_with_tokens_count_for_whom_they_say_to_be() {
        let snapshot = Snapshot::from_documents(
            "apiVersion: staffetta.dev/v1alpha1
kind: TokenIssuer
metadata: { name: corp }
spec: { issuer: corp, audiences: [ relay ], jwksFile: \"file:/k\", claim: email }
",
        )
        .unwrap();
        // {"alg":"none"} and {"iss":"corp","email":"app"}, not signed.
        let token = "eyJhbGciOiJub25lIn0.eyJpc3MiOiJjb3JwIiwiZW1haWwiOiJhcHAifQ.";
        for (form, message, expected) in [
            (
                Form::OAuthBearer,
                format!("n,,\x01auth=Bearer {token}\x01\x01"),
                "app",
            ),
            (
                Form::OAuthBearer,
                format!("n,a=user,\x01auth=Bearer {token}\x01\x01"),
                "user",
            ),
            (
                Form::XOAuth2,
                format!("user=user\x01auth=Bearer {token}\x01\x01"),
                "user",
            ),
            (
                Form::OAuthBearer,
                "n,,\x01auth=Bearer opaque\x01\x01".to_owned(),
                "",
            ),
            (Form::OAuthBearer, "n,,\x01\x01".to_owned(), ""),
        ] {
            let mechanism = Mechanism::Token(form);
            let next = begin(mechanism, Some(&encode(&message)), &[], &snapshot);
            let Next::Claim(claim) = next else {
                panic!("{next:?}")
            };
            assert_eq!(claim.username, expected);
            assert!(matches!(claim.evidence, Evidence::Token(of, _) if of == form));
        }
    }

    #[test]
    fn a_certificate_is_whom_it_names_and_nobody_else() {
        let snapshot = Snapshot::from_documents(
            "apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: acme }
spec: { defaultStream: bulk, streams: [ { name: bulk } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: one }
spec: { tenant: acme, certificates: [ one.example ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: two }
spec: { tenant: acme, username: app, passwordHash: \"$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$aGFzaA\", certificates: [ two.example ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: three }
spec: { tenant: acme, certificates: [ three.example ] }
",
        )
        .unwrap();
        let names = [
            "nobody.example".into(),
            "one.example".into(),
            "two.example".into(),
        ];
        for (wanted, expected) in [
            ("", Some("one.example")),
            ("two.example", Some("two.example")),
            ("Two.Example", Some("two.example")),
            ("app", Some("two.example")),
            ("three.example", None),
            ("nobody.example", None),
            ("one", None),
        ] {
            let next = begin(
                Mechanism::External,
                Some(&encode(wanted)),
                &names,
                &snapshot,
            );
            let Next::Claim(claim) = next else {
                panic!("{next:?}")
            };
            match expected {
                Some(name) => {
                    assert_eq!(claim.username, name);
                    assert!(claim.evidence == Evidence::Certificate);
                }
                None => {
                    assert_eq!(claim.username, wanted);
                    assert!(claim.evidence == Evidence::Proof(false));
                }
            }
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
                    begin(Mechanism::Plain, Some(response), &[], &nobody()),
                    Next::Malformed
                ),
                "{response}"
            );
        }
    }
}
