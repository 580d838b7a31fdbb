//! What ingress has to say as events: refusals, logins that fail, messages sent again, what checks have found.
//!
//! Nothing here waits. What is alike is told together ([`crowd`]); what there is no room for is counted, and gone.

mod crowd;
mod reason;

use std::sync::{Mutex, MutexGuard, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use config::Credential;
use mail::MessageId;
use preflight::Findings;
use proto::event::event::Kind;
use proto::event::{
    Event, Finding, LoginFailed, LoginsBlocked, Preflight, Rejection, Resubmission, Stage,
};
use runtime::network_of;
use spool::EventWriter;

use crate::answer::Answer;
use crate::metrics::EventMetrics;
use crate::proxy::Client;
use crowd::{Crowd, Noted};

/// Tells events of one process.
pub(crate) struct Events {
    crowd: Mutex<Crowd>,
    writer: EventWriter,
    metrics: EventMetrics,
}

/// Whom an event is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct Whose {
    pub(crate) tenant: String,
    pub(crate) credential: String,
    pub(crate) network: String,
}

impl Whose {
    /// Of a credential that a client uses.
    pub(crate) fn of(credential: &Credential, client: Client) -> Self {
        Self {
            tenant: credential.tenant.clone(),
            credential: credential.name.clone(),
            network: network_text(client),
        }
    }
}

/// A message or a recipient that was refused.
#[derive(Debug)]
pub(crate) struct Refused<'a> {
    pub(crate) stage: Stage,
    pub(crate) answer: &'a Answer,
    /// Empty when it is about a whole message.
    pub(crate) recipient: &'a str,
    /// Of a whole message.
    pub(crate) recipients: usize,
}

impl Events {
    pub(crate) fn new(writer: EventWriter, metrics: EventMetrics) -> Self {
        Self {
            crowd: Mutex::default(),
            writer,
            metrics,
        }
    }

    /// A message or a recipient was refused.
    pub(crate) fn rejected(&self, whose: Whose, refused: &Refused<'_>) {
        let answer = refused.answer;
        let rejection = Rejection {
            stage: refused.stage.into(),
            code: answer.code.into(),
            enhanced: answer
                .enhanced
                .map(|enhanced| enhanced.to_string())
                .unwrap_or_default(),
            text: answer.text.chars().take(400).collect(),
            reason: reason::reason(answer).to_owned(),
            recipient: refused.recipient.to_owned(),
            recipients: u32::try_from(refused.recipients).unwrap_or(u32::MAX),
        };
        self.tell(whose, Kind::Rejection(rejection));
    }

    /// A login failed.
    pub(crate) fn login_failed(&self, whose: Whose, username: &str) {
        let user = user(username);
        self.tell(whose, Kind::LoginFailed(LoginFailed { user }));
    }

    /// A login was not checked.
    pub(crate) fn logins_blocked(&self, whose: Whose, username: &str) {
        let user = user(username);
        self.tell(whose, Kind::LoginsBlocked(LoginsBlocked { user }));
    }

    /// A message was sent again, of which the first copy has this id.
    pub(crate) fn resubmitted(&self, whose: Whose, first: &str, recipients: usize) {
        let first: Option<MessageId> = first.parse().ok();
        let again = Resubmission {
            message_id: first.map_or_else(Bytes::new, |id| Bytes::copy_from_slice(id.as_bytes())),
            recipients: u32::try_from(recipients).unwrap_or(u32::MAX),
        };
        self.tell(whose, Kind::Resubmission(again));
    }

    /// Checks have found something in a message.
    pub(crate) fn looked_over(
        &self,
        whose: Whose,
        id: MessageId,
        stream: &str,
        findings: &Findings,
    ) {
        let refused = !findings.refused_for.is_empty();
        let message_id = match refused {
            true => Bytes::new(),
            false => Bytes::copy_from_slice(id.as_bytes()),
        };
        let rejecting = findings
            .refused_for
            .iter()
            .filter(|refused| !findings.warnings.contains(refused))
            .map(|refused| finding(refused, 0));
        let warnings = findings.warnings.iter();
        let preflight = Preflight {
            message_id,
            stream: stream.to_owned(),
            refused,
            findings: warnings
                .map(|warning| finding(warning, warning.weight))
                .chain(rejecting)
                .collect(),
        };
        self.tell(whose, Kind::Preflight(preflight));
    }

    /// Tells what has come together, and shows what became of all.
    pub(crate) fn tick(&self) {
        let due = self.crowd().due(runtime::now_ms());
        self.pass_on(due);
        self.metrics.show(&self.writer.stats());
    }

    /// Tells all that is left; waits for it two seconds at most.
    pub(crate) async fn close(&self) {
        let rest = self.crowd().rest();
        self.pass_on(rest);
        self.writer.flush().await;
        self.metrics.show(&self.writer.stats());
    }

    /// Tells one, or notes it to be told with others.
    pub(crate) fn tell(&self, whose: Whose, kind: Kind) {
        let at_ms = runtime::now_ms();
        let event = Event {
            at_ms,
            tenant: whose.tenant,
            credential: whose.credential,
            network: whose.network,
            kind: Some(kind),
            ..Event::default()
        };
        let noted = self.crowd().note(event, at_ms);
        match noted {
            Noted::Told(event) => {
                self.writer.tell(*event);
            }
            Noted::Later => {}
            Noted::Dropped => self.metrics.dropped_crowd.inc(),
        }
    }

    fn pass_on(&self, events: Vec<Event>) {
        for event in events {
            // What there is no room for is counted by the writer.
            self.writer.tell(event);
        }
    }

    fn crowd(&self) -> MutexGuard<'_, Crowd> {
        self.crowd.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The network of a client, as a text; empty when a load balancer does not say who the client is.
pub(crate) fn network_text(client: Client) -> String {
    if client.is_known() {
        network_of(client.address).to_string()
    } else {
        String::new()
    }
}

/// Names a user name without telling it: people type passwords there.
fn user(username: &str) -> String {
    let mut text = URL_SAFE_NO_PAD.encode(digest(&SHA256, username.as_bytes()));
    text.truncate(12);
    text
}

fn finding(found: &preflight::Finding, weight: u32) -> Finding {
    Finding {
        rule: found.rule.to_owned(),
        weight,
        explanation: found.what.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_name_is_named_and_not_told() {
        assert_eq!(user("app@acme.example"), user("app@acme.example"));
        assert_ne!(user("app@acme.example"), user("app@acme.example "));
        assert_eq!(user("correct horse").len(), 12);
        assert!(!user("correct").contains("correct"));
    }

    #[test]
    fn a_client_is_told_as_its_network() {
        let text = |address: &str| network_text(Client::connected(address.parse().unwrap()));
        assert_eq!(text("192.0.2.77"), "192.0.2.0/24");
        assert_eq!(text("2001:db8:1:2::3"), "2001:db8:1::/48");
        let unnamed = Client::connected([192, 0, 2, 1].into()).unnamed();
        assert_eq!(network_text(unnamed), "");
    }
}
