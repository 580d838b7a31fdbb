//! AUTH at a source's own smart host (RFC 4954).
//!
//! Credentials go out only over what the configuration allows by name, and nowhere twice: a host that refuses them is not
//! asked at its other addresses, so that an account is not locked by us. What fails here is the source's failure.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use proto::journal::Stage;
use smtp::EhloCapabilities;
use tokio::time::Instant;

use super::connection::{Broken, Connection};
use super::failure::Failure;
use super::open::Opener;
use crate::lane::Lane;
use crate::reach::{Auth, AuthMechanism, AuthOver};
use crate::secret::read_secret;

/// The longest command line; a first response that would make it longer is sent on a line of its own (RFC 4954 section 4).
const COMMAND_LINE: usize = 512;

/// The mechanisms that a host offers, of those that are known here.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Mechanisms {
    plain: bool,
    login: bool,
    xoauth2: bool,
}

impl Mechanisms {
    pub fn of(said: &EhloCapabilities) -> Self {
        let offered = said.auth_mechanisms();
        let has = |name: &str| offered.iter().any(|offered| offered == name);
        Self {
            plain: has("PLAIN"),
            login: has("LOGIN"),
            xoauth2: has("XOAUTH2"),
        }
    }

    fn has(self, mechanism: AuthMechanism) -> bool {
        match mechanism {
            AuthMechanism::Plain => self.plain,
            AuthMechanism::Login => self.login,
            AuthMechanism::Xoauth2 => self.xoauth2,
            AuthMechanism::Unspecified => false,
        }
    }
}

fn name(mechanism: AuthMechanism) -> &'static str {
    match mechanism {
        AuthMechanism::Plain => "PLAIN",
        AuthMechanism::Login => "LOGIN",
        AuthMechanism::Xoauth2 => "XOAUTH2",
        AuthMechanism::Unspecified => "",
    }
}

/// Why we are not taken in: value of the label `result`, and what is said.
struct NotTakenIn(&'static str, Failure);

impl NotTakenIn {
    /// It would be the same at every address of the host.
    fn for_good(result: &'static str, text: &str) -> Self {
        Self(result, Failure::of_source(Stage::Auth, text))
    }

    fn broken(broken: &Broken) -> Self {
        Self("broken", Failure::broken(Stage::Auth, broken))
    }
}

impl Opener {
    /// A connection on which everything is said that the lane's host asks for before mail.
    pub(super) async fn log_in(
        &self,
        mut connection: Connection,
        lane: &Lane,
    ) -> Result<Connection, Failure> {
        connection.reach = lane.reach.clone();
        let Some(auth) = lane.reach.auth() else {
            return Ok(connection);
        };
        let said = authenticate(&mut connection, auth, lane).await;
        let result = said.as_ref().map_or_else(|not| not.0, |()| "ok");
        let labels = [lane.source.as_str(), result];
        self.metrics.auth.with_label_values(&labels).inc();
        match said {
            Ok(()) => Ok(connection),
            Err(NotTakenIn(result, failure)) => {
                if result != "broken" {
                    connection.quit().await;
                }
                Err(failure)
            }
        }
    }
}

async fn authenticate(
    connection: &mut Connection,
    auth: &Auth,
    lane: &Lane,
) -> Result<(), NotTakenIn> {
    let may = match auth.over {
        AuthOver::VerifiedTls => connection.verified,
        AuthOver::AnyTls => connection.is_tls(),
        AuthOver::PlainText => true,
    };
    if !may {
        let text = "the connection is not as safe as it has to be for credentials to be sent";
        return Err(NotTakenIn::for_good("not_safe", text));
    }
    let mechanism = name(auth.mechanism);
    if !connection.capabilities.auth.has(auth.mechanism) {
        let text = format!("the smart host does not offer AUTH {mechanism}");
        return Err(NotTakenIn::for_good("not_offered", &text));
    }
    let secret = read_secret(&auth.secret_file).await;
    let secret = secret.map_err(|error| NotTakenIn::for_good("no_secret", &error.to_string()))?;
    let secrets = responses(auth, &secret);
    let mut responses = secrets.clone().into_iter();
    let first = match auth.mechanism {
        AuthMechanism::Login => None,
        _ => responses.next(),
    };
    let is_short =
        |response: &String| "AUTH  \r\n".len() + mechanism.len() + response.len() <= COMMAND_LINE;
    let (now, later) = match first {
        Some(response) if is_short(&response) => (Some(response), None),
        later => (None, later),
    };
    let mut responses = later.into_iter().chain(responses);
    let until = || Instant::now() + lane.timeouts.command;
    let write = |out: &mut Vec<u8>| smtp::write::auth(out, mechanism, now.as_deref());
    let mut reply = connection.exchange(write, until()).await;
    loop {
        let answer = reply.map_err(|broken| NotTakenIn::broken(&broken))?;
        match answer.code {
            235 => return Ok(()),
            // Asked for more than there is: with XOAUTH2 what is wrong with the token, which an empty line answers
            // before the host refuses it. A host that asks on and on is let go.
            334 => {
                let Some(line) = responses.next() else {
                    let text = "the smart host asks for more than AUTH has to say";
                    return Err(NotTakenIn::for_good("refused", text));
                };
                let write = |out: &mut Vec<u8>| smtp::write::auth_line(out, &line);
                reply = connection.exchange(write, until()).await;
            }
            // Who can't be looked up for now could not be for the next message either.
            _ => {
                let result = if answer.is_permanent() {
                    "refused"
                } else {
                    "temporary"
                };
                let mut failure = Failure::of(Stage::Auth, &answer).by_source();
                // Some hosts repeat what they were told, and this is told to operators.
                let text = &failure.reply.text;
                let is_repeated = |said: &String| !said.is_empty() && text.contains(&**said);
                if text.contains(&*secret) || secrets.iter().any(is_repeated) {
                    failure.reply.text = "(not shown: it repeats the credentials)".to_owned();
                }
                return Err(NotTakenIn(result, failure));
            }
        }
    }
}

/// What is said, one after the other.
fn responses(auth: &Auth, secret: &str) -> Vec<String> {
    let name = &auth.username;
    match auth.mechanism {
        AuthMechanism::Plain => vec![STANDARD.encode(format!("\0{name}\0{secret}"))],
        AuthMechanism::Login => vec![STANDARD.encode(name), STANDARD.encode(secret)],
        AuthMechanism::Xoauth2 => vec![
            STANDARD.encode(format!("user={name}\x01auth=Bearer {secret}\x01\x01")),
            String::new(),
        ],
        AuthMechanism::Unspecified => Vec::new(),
    }
}
