//! The dialogue as a state machine: commands in, replies and effects out. No sockets, no clocks.

use std::sync::Arc;

use bounce::TokenKeys;
use config::Snapshot;
use mail::Address;
use message::Protocol;
use smtp::{Body, Command, CommandError, EnhancedCode, ForwardPath, MailParams};

use crate::answer::{self, Answer};
use crate::metrics::Metrics;
use crate::session::ListenerPolicy;

/// So many refused commands and recipients end a session: whoever tries addresses begins anew, and slowly.
const MAX_ERRORS: u32 = 10;

/// What the connection has to do after a command; the replies so far are in the output.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Read the next command.
    Continue,
    /// Send the output, then start TLS.
    StartTls,
    /// Make room, answer 354 and read the content.
    Receive,
    /// The client said goodbye: send the output and close.
    Quit,
    /// Send the output and close, whatever the client still sends.
    Close,
}

/// How things stand when a command comes.
#[derive(Clone, Copy)]
pub(super) struct Moment<'a> {
    pub(super) snapshot: &'a Snapshot,
    pub(super) keys: &'a TokenKeys,
    /// Messages can be stored, as far as is known.
    pub(super) is_storing: bool,
    /// Unix seconds.
    pub(super) now: u64,
}

struct Greeting {
    name: Box<str>,
    /// EHLO, not HELO.
    extended: bool,
}

/// An open transaction.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Transaction {
    /// Empty for the null reverse-path.
    pub(super) return_path: String,
    /// As they were written; each once.
    pub(super) recipients: Vec<String>,
    pub(super) declared_size: Option<u64>,
}

/// One session.
pub(super) struct Session {
    listener: Arc<ListenerPolicy>,
    metrics: Arc<Metrics>,
    tls: bool,
    greeting: Option<Greeting>,
    transaction: Option<Transaction>,
    errors: u32,
}

impl Session {
    /// For a client that has just connected.
    pub(super) fn new(listener: Arc<ListenerPolicy>, metrics: Arc<Metrics>, tls: bool) -> Self {
        Self {
            listener,
            metrics,
            tls,
            greeting: None,
            transaction: None,
            errors: 0,
        }
    }

    /// The banner.
    pub(super) fn greet(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"220 ");
        out.extend_from_slice(self.listener.hostname.as_bytes());
        out.extend_from_slice(b" ESMTP Staffetta\r\n");
    }

    /// The transaction, after [`Effect::Receive`].
    pub(super) fn take_transaction(&mut self) -> Option<Transaction> {
        self.transaction.take()
    }

    /// What the client calls itself.
    pub(super) fn client_name(&self) -> &str {
        self.greeting.as_ref().map_or("", |greeting| &greeting.name)
    }

    /// For the trace field.
    pub(super) fn protocol(&self) -> Protocol {
        match &self.greeting {
            Some(greeting) if greeting.extended => Protocol::of_session(self.tls, false),
            _ => Protocol::Smtp,
        }
    }

    /// TLS has begun: nothing that was said before counts (RFC 3207 section 4.2).
    pub(super) fn tls_started(&mut self) {
        self.tls = true;
        self.greeting = None;
        self.transaction = None;
    }

    /// Takes a command.
    pub(super) fn command(
        &mut self,
        command: Result<Command, CommandError>,
        moment: Moment<'_>,
        out: &mut Vec<u8>,
    ) -> Effect {
        let answer = match command {
            Ok(Command::Ehlo(name)) => return self.ehlo(name, out),
            Ok(Command::Helo(name)) => self.helo(name),
            Ok(Command::StartTls) if self.tls => answer::TLS_ACTIVE,
            Ok(Command::StartTls) if self.listener.starttls => return Effect::StartTls,
            Ok(Command::Mail {
                return_path,
                params,
            }) => self
                .mail(return_path, &params, moment)
                .unwrap_or_else(|refusal| refusal),
            Ok(Command::Rcpt { address, .. }) => self
                .rcpt(&address, moment)
                .unwrap_or_else(|refusal| refusal),
            Ok(Command::Data) => match self.data() {
                Ok(()) => return Effect::Receive,
                Err(refusal) => refusal,
            },
            Ok(Command::Rset) => {
                self.transaction = None;
                answer::OK
            }
            Ok(Command::Quit) => {
                answer::BYE.write(out);
                return Effect::Quit;
            }
            Ok(Command::Noop) => answer::OK,
            Ok(Command::Vrfy) => answer::CANNOT_VERIFY,
            Ok(Command::Help) => HELP,
            Ok(Command::Bdat { .. }) => {
                // It was not offered, and what follows are no commands.
                self.say(answer::NOT_IMPLEMENTED, out);
                return Effect::Close;
            }
            Ok(Command::Auth { .. } | Command::StartTls | Command::Expn) => answer::NOT_IMPLEMENTED,
            Ok(Command::Unknown { .. }) => answer::UNKNOWN_COMMAND,
            Err(error) => {
                let effect = self.say(error.into(), out);
                return if error.is_fatal() {
                    Effect::Close
                } else {
                    effect
                };
            }
        };
        self.say(answer, out)
    }

    /// Answers, and counts what was refused for good; too much of that ends the session.
    pub(super) fn say(&mut self, answer: Answer, out: &mut Vec<u8>) -> Effect {
        if answer.code >= 500 {
            self.errors += 1;
        }
        if answer.is_refusal() {
            self.metrics.refused(&answer);
        }
        answer.write(out);
        if self.errors < MAX_ERRORS {
            return Effect::Continue;
        }
        self.metrics.refused(&answer::TOO_MANY_ERRORS);
        answer::TOO_MANY_ERRORS.write(out);
        Effect::Close
    }

    fn ehlo(&mut self, name: Box<str>, out: &mut Vec<u8>) -> Effect {
        self.transaction = None;
        self.greeting = Some(Greeting {
            name,
            extended: true,
        });
        let size = format!("SIZE {}", self.listener.max_message_size);
        let limits = format!("LIMITS RCPTMAX={}", self.listener.max_recipients);
        let mut lines: Vec<&str> = vec![
            &self.listener.hostname,
            "PIPELINING",
            &size,
            "8BITMIME",
            "SMTPUTF8",
            "ENHANCEDSTATUSCODES",
            &limits,
        ];
        if self.listener.starttls && !self.tls {
            lines.push("STARTTLS");
        }
        answer::write_lines(250, lines, out);
        Effect::Continue
    }

    fn helo(&mut self, name: Box<str>) -> Answer {
        self.transaction = None;
        self.greeting = Some(Greeting {
            name,
            extended: false,
        });
        Answer {
            code: 250,
            enhanced: None,
            text: self.listener.hostname.clone().into(),
        }
    }

    fn mail(
        &mut self,
        return_path: Option<Address>,
        params: &MailParams,
        moment: Moment<'_>,
    ) -> Result<Answer, Answer> {
        if self.greeting.is_none() {
            return Err(answer::SAY_EHLO);
        }
        if self.transaction.is_some() {
            return Err(answer::NESTED_MAIL);
        }
        let is_offered = !params.require_tls
            && params.release.is_none()
            && params.priority.is_none()
            && params.deliver_by.is_none()
            && params.body != Some(Body::BinaryMime);
        if !is_offered {
            return Err(NOT_OFFERED);
        }
        if params
            .size
            .is_some_and(|size| size > self.listener.max_message_size)
        {
            return Err(answer::TOO_LARGE);
        }
        if !moment.is_storing {
            return Err(answer::STORAGE_AWAY);
        }
        self.transaction = Some(Transaction {
            return_path: return_path.map_or_else(String::new, |path| path.as_str().to_owned()),
            recipients: Vec::new(),
            declared_size: params.size,
        });
        Ok(answer::SENDER_OK)
    }

    fn rcpt(&mut self, path: &ForwardPath, moment: Moment<'_>) -> Result<Answer, Answer> {
        let transaction = self.transaction.as_mut().ok_or(answer::NEED_MAIL)?;
        let address = match path {
            ForwardPath::Mailbox(address) => address.clone(),
            ForwardPath::Postmaster => postmaster(moment.snapshot).ok_or(NO_SUCH_MAILBOX)?,
        };
        let domain = address.domain().ok_or(answer::ADDRESS_LITERAL)?;
        if moment.snapshot.return_domain(domain.as_str()).is_none() {
            return Err(NO_RELAY);
        }
        moment
            .keys
            .destination(&address, moment.now)
            .map_err(|_| NO_SUCH_MAILBOX)?;
        let recipients = &mut transaction.recipients;
        if recipients.iter().any(|known| known == address.as_str()) {
            return Ok(answer::RECIPIENT_OK);
        }
        if recipients.len() >= self.listener.max_recipients {
            return Err(answer::TOO_MANY_RECIPIENTS);
        }
        recipients.push(address.as_str().to_owned());
        Ok(answer::RECIPIENT_OK)
    }

    /// Whether DATA may begin.
    fn data(&self) -> Result<(), Answer> {
        match &self.transaction {
            None => Err(answer::NEED_MAIL),
            Some(transaction) if transaction.recipients.is_empty() => {
                Err(answer::NO_VALID_RECIPIENTS)
            }
            Some(_) => Ok(()),
        }
    }
}

/// `<Postmaster>` without a domain (RFC 5321 section 4.5.1): that of the first domain of return paths in the order of the
/// alphabet.
fn postmaster(snapshot: &Snapshot) -> Option<Address> {
    let of_domains = snapshot.sending_domains().filter_map(|sending| {
        let own = sending.return_path.as_ref()?;
        Some(own.domain.as_str())
    });
    Address::parse(&format!("postmaster@{}", of_domains.min()?)).ok()
}

const HELP: Answer = Answer::new(
    214,
    EnhancedCode(2, 0, 0),
    "EHLO HELO STARTTLS MAIL RCPT DATA RSET NOOP VRFY HELP QUIT",
);
const NOT_OFFERED: Answer = Answer::new(
    555,
    EnhancedCode(5, 5, 4),
    "A parameter of MAIL is not offered here",
);
const NO_RELAY: Answer = Answer::new(
    550,
    EnhancedCode(5, 7, 1),
    "Relaying denied: this host takes what comes back on mail that was sent from here",
);
/// The same whether it was never made, is over or was made by somebody else: who tries learns nothing.
const NO_SUCH_MAILBOX: Answer = Answer::new(550, EnhancedCode(5, 1, 1), "No such mailbox here");

#[cfg(test)]
mod tests {
    use bounce::{Purpose, Subject};
    use mail::{Domain, MessageId};
    use smtp::CommandDecoder;

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const DOCUMENTS: &str = "
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: acme }
spec: { defaultStream: bulk, streams: [ { name: bulk } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: { name: acme.example }
spec: { tenant: acme, unsigned: true, returnPath: { mode: ours, domain: b.acme.example, forwardTo: people@acme.example } }
";

    fn keys() -> TokenKeys {
        TokenKeys::parse("1 a secret of sixteen octets").unwrap()
    }

    fn token(purpose: Purpose, domain: &str) -> String {
        let subject = Subject {
            tenant: "acme",
            stream: "bulk",
            message: MessageId::from_bytes([7; 16]),
            recipient: "a@d.example",
        };
        let domain = Domain::parse(domain).unwrap();
        let text = keys().mint(purpose, &subject, &domain, NOW).unwrap();
        format!("{text}@{domain}")
    }

    fn session() -> Session {
        let listener = ListenerPolicy {
            hostname: "mx.example".to_owned(),
            starttls: true,
            allow_plaintext_auth_from: Vec::new(),
            scram: false,
            xclient_trusted: Vec::new(),
            max_message_size: 1_000_000,
            max_recipients: 3,
            forwarding: None,
            simulator: Domain::parse("s.invalid").unwrap(),
        };
        Session::new(Arc::new(listener), Arc::new(Metrics::new()), false)
    }

    /// What is said to some lines, and the last effect.
    fn talk(session: &mut Session, lines: &str, is_storing: bool) -> (String, Effect) {
        let snapshot = Snapshot::from_documents(DOCUMENTS).unwrap();
        let keys = keys();
        let moment = Moment {
            snapshot: &snapshot,
            keys: &keys,
            is_storing,
            now: NOW,
        };
        let (mut out, mut effect) = (Vec::new(), Effect::Continue);
        for line in lines.lines() {
            let mut decoder = CommandDecoder::new();
            let command = decoder.decode(format!("{line}\r\n").as_bytes()).item;
            effect = session.command(command.unwrap(), moment, &mut out);
        }
        (String::from_utf8(out).unwrap(), effect)
    }

    fn codes(said: &str) -> Vec<&str> {
        let last = said.lines().filter(|line| line.as_bytes()[3] == b' ');
        last.map(|line| line.get(..9).unwrap_or(line)).collect()
    }

    #[test]
    fn takes_what_comes_back_and_nothing_else() {
        let (bounce, complaint) = (
            token(Purpose::Bounce, "b.acme.example"),
            token(Purpose::Complaint, "b.acme.example"),
        );
        for (recipient, expected) in [
            (bounce.clone(), "250 2.1.5"),
            (bounce.to_uppercase(), "250 2.1.5"),
            (complaint, "250 2.1.5"),
            ("postmaster@B.acme.example".to_owned(), "250 2.1.5"),
            ("abuse@b.acme.example".to_owned(), "250 2.1.5"),
            ("fbl@b.acme.example".to_owned(), "250 2.1.5"),
            ("Postmaster".to_owned(), "250 2.1.5"),
            (bounce.replacen('b', "c", 1), "550 5.1.1"),
            ("info@b.acme.example".to_owned(), "550 5.1.1"),
            (token(Purpose::Bounce, "b.other.example"), "550 5.7.1"),
            ("postmaster@acme.example".to_owned(), "550 5.7.1"),
            ("a@d.example".to_owned(), "550 5.7.1"),
            ("b.acme.example!a@d.example".to_owned(), "550 5.7.1"),
            ("a%d.example@b.acme.example".to_owned(), "550 5.1.1"),
            ("\"a@d.example\"@b.acme.example".to_owned(), "550 5.1.1"),
            ("a@[127.0.0.1]".to_owned(), "550 5.1.2"),
        ] {
            let lines = format!("EHLO h\nMAIL FROM:<>\nRCPT TO:<{recipient}>\nDATA");
            let (said, effect) = talk(&mut session(), &lines, true);
            assert_eq!(codes(&said)[2], expected, "{recipient}: {said}");
            assert_eq!(
                effect == Effect::Receive,
                expected.starts_with('2'),
                "{recipient}"
            );
        }
    }

    #[test]
    fn offers_no_login_and_no_extension_that_is_for_clients() {
        let lines = "EHLO h\nAUTH PLAIN AGEAYg==\nMAIL FROM:<a@b.example> HOLDFOR=60\nMAIL FROM:<a@b.example> BODY=BINARYMIME";
        let (said, _) = talk(&mut session(), lines, true);
        for word in ["AUTH", "CHUNKING", "FUTURERELEASE", "DSN", "BINARYMIME"] {
            assert!(!said.contains(&format!("-{word}")), "{said}");
        }
        assert!(said.contains("STARTTLS"), "{said}");
        assert_eq!(codes(&said)[1..], ["502 5.5.1", "555 5.5.4", "555 5.5.4"]);
        let (_, effect) = talk(&mut session(), "EHLO h\nBDAT 5", true);
        assert_eq!(effect, Effect::Close);
    }

    #[test]
    fn who_tries_addresses_is_sent_away() {
        let tries = "RCPT TO:<x@b.acme.example>\n".repeat(10);
        let lines = format!("EHLO h\nMAIL FROM:<>\n{tries}");
        let (said, effect) = talk(&mut session(), &lines, true);
        assert_eq!(effect, Effect::Close);
        assert_eq!(codes(&said).last(), Some(&"421 4.7.0"));
    }

    #[test]
    fn a_transaction_has_its_order_and_its_bounds() {
        let mut open = session();
        let (said, _) = talk(&mut open, "MAIL FROM:<>\nEHLO h\nRCPT TO:<x>\nDATA", true);
        assert_eq!(codes(&said)[0], "503 5.5.1");
        let (said, _) = talk(&mut open, "MAIL FROM:<> SIZE=1000001", true);
        assert_eq!(codes(&said), ["552 5.3.4"]);
        let (said, _) = talk(&mut open, "MAIL FROM:<>", false);
        assert_eq!(codes(&said), ["451 4.3.0"]);
        let many = "MAIL FROM:<a@b.example> SIZE=5\nRCPT TO:<abuse@b.acme.example>\nRCPT TO:<abuse@b.acme.example>\n\
                    RCPT TO:<fbl@b.acme.example>\nRCPT TO:<postmaster@b.acme.example>\nRCPT TO:<FBL@b.acme.example>\nMAIL FROM:<>";
        let (said, _) = talk(&mut open, many, true);
        assert_eq!(codes(&said)[5..], ["452 4.5.3", "503 5.5.1"]);
        let transaction = open.take_transaction().unwrap();
        assert_eq!(transaction.recipients.len(), 3);
        assert_eq!(
            (transaction.return_path.as_str(), transaction.declared_size),
            ("a@b.example", Some(5))
        );
    }

    #[test]
    fn nothing_that_was_said_before_tls_counts() {
        let mut open = session();
        let (_, effect) = talk(&mut open, "EHLO h\nMAIL FROM:<>\nSTARTTLS", true);
        assert_eq!(effect, Effect::StartTls);
        open.tls_started();
        let (said, _) = talk(&mut open, "MAIL FROM:<>\nSTARTTLS", true);
        assert_eq!(codes(&said), ["503 5.5.1", "503 5.5.1"]);
    }
}
