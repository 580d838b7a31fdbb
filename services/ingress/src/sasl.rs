//! AUTH PLAIN (RFC 4616) and LOGIN: from the client's lines to a user name and a password.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// A mechanism that is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    Plain,
    Login,
}

impl Mechanism {
    /// By its name in any case.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("PLAIN") {
            Some(Self::Plain)
        } else if name.eq_ignore_ascii_case("LOGIN") {
            Some(Self::Login)
        } else {
            None
        }
    }
}

/// What a client claims to be.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Claim {
    pub(crate) username: String,
    pub(crate) password: Vec<u8>,
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
    LoginPassword { username: String },
}

/// What comes after a line of the client.
#[derive(Debug)]
pub(crate) enum Next {
    /// Send `334` with this text and wait for another line.
    Challenge(Exchange, &'static str),
    /// All is there.
    Claim(Claim),
    /// Not base64, or not what the mechanism wants.
    Malformed,
}

/// Starts an exchange; `initial` is the initial response of the AUTH command, base64.
pub(crate) fn begin(mechanism: Mechanism, initial: Option<&str>) -> Next {
    match (mechanism, initial) {
        (Mechanism::Plain, None) => Next::Challenge(Exchange(State::Plain), ""),
        (Mechanism::Login, None) => Next::Challenge(Exchange(State::LoginUsername), "VXNlcm5hbWU6"),
        (Mechanism::Plain, Some(response)) => Exchange(State::Plain).answer(response),
        // Not in the draft of LOGIN, but widely used: the user name as the initial response.
        (Mechanism::Login, Some(response)) => Exchange(State::LoginUsername).answer(response),
    }
}

impl Exchange {
    /// Takes the client's next response, base64.
    pub(crate) fn answer(self, response: &str) -> Next {
        let Ok(response) = STANDARD.decode(response) else {
            return Next::Malformed;
        };
        match self.0 {
            State::Plain => plain(&response),
            State::LoginUsername => match String::from_utf8(response) {
                Ok(username) if !username.is_empty() => {
                    Next::Challenge(Self(State::LoginPassword { username }), "UGFzc3dvcmQ6")
                }
                _ => Next::Malformed,
            },
            State::LoginPassword { username } => Next::Claim(Claim {
                username,
                password: response,
            }),
        }
    }
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
            password: password.to_owned(),
        }),
        Err(_) => Next::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(text: &str) -> String {
        STANDARD.encode(text)
    }

    fn claim(next: Next) -> (String, String) {
        match next {
            Next::Claim(claim) => (claim.username, String::from_utf8(claim.password).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn reads_plain_with_and_without_an_initial_response() {
        let response = encode("\0app\0secret");
        let expected = ("app".to_owned(), "secret".to_owned());
        assert_eq!(claim(begin(Mechanism::Plain, Some(&response))), expected);
        let Next::Challenge(exchange, "") = begin(Mechanism::Plain, None) else {
            panic!()
        };
        assert_eq!(claim(exchange.answer(&response)), expected);
        assert_eq!(
            claim(begin(Mechanism::Plain, Some(&encode("app\0app\0secret")))),
            expected
        );
    }

    #[test]
    fn reads_login_with_and_without_an_initial_response() {
        let expected = ("app".to_owned(), "secret".to_owned());
        for initial in [true, false] {
            let name = encode("app");
            let next = if initial {
                begin(Mechanism::Login, Some(&name))
            } else {
                let Next::Challenge(exchange, "VXNlcm5hbWU6") = begin(Mechanism::Login, None)
                else {
                    panic!()
                };
                exchange.answer(&name)
            };
            let Next::Challenge(exchange, "UGFzc3dvcmQ6") = next else {
                panic!()
            };
            assert_eq!(claim(exchange.answer(&encode("secret"))), expected);
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
                matches!(begin(Mechanism::Plain, Some(response)), Next::Malformed),
                "{response}"
            );
        }
    }
}
