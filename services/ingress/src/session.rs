//! The SMTP session as a state machine: commands in, replies and effects out. No sockets, no clocks.

use std::net::IpAddr;
use std::sync::Arc;

use config::Snapshot;
use ipnet::IpNet;
use mail::Address;
use message::Protocol;
use proto::envelope;
use smtp::{AuthLine, Body, Command, CommandError, ForwardPath, MailParams, RcptParams, Return};

use crate::answer::{self, Answer};
use crate::metrics::Metrics;
use crate::policy::{self, Identity, Sender};
use crate::proxy::Client;
use crate::sasl::{self, Claim, Exchange, Mechanism, Next};

/// So many refused commands end a session.
const MAX_ERRORS: u32 = 10;

/// What a session has to know of its listener.
pub(crate) struct ListenerPolicy {
    /// Our name.
    pub(crate) hostname: String,
    /// STARTTLS can be had.
    pub(crate) starttls: bool,
    /// From here AUTH needs no TLS.
    pub(crate) allow_plaintext_auth_from: Vec<IpNet>,
    /// SIZE, octets.
    pub(crate) max_message_size: u64,
    /// RCPTMAX.
    pub(crate) max_recipients: usize,
}

/// What the connection has to do after a command; the replies so far are in the output.
#[derive(Debug)]
pub(crate) enum Effect {
    /// Read the next command (or line of an exchange).
    Continue,
    /// Send the output, then start TLS.
    StartTls,
    /// Check the password and tell [`Session::login_checked`].
    Login(Claim),
    /// Make room, answer 354 and read the content.
    Receive,
    /// The client said goodbye: send the output and close.
    Quit,
    /// Send the output and close, whatever the client still sends.
    Close,
}

/// Whether messages can be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    Ready,
    /// There is no connection to it.
    Away,
    /// It is near its bound.
    Full,
}

/// An open transaction.
pub(crate) struct Transaction {
    pub(crate) sender: Sender,
    /// Empty for the null reverse-path.
    pub(crate) return_path: String,
    pub(crate) recipients: Vec<envelope::Recipient>,
    pub(crate) declared_size: Option<u64>,
    pub(crate) body: envelope::Body,
    pub(crate) ret: envelope::DsnReturn,
    pub(crate) envid: String,
}

struct Greeting {
    name: Box<str>,
    /// EHLO, not HELO.
    extended: bool,
}

/// One session.
pub(crate) struct Session {
    listener: Arc<ListenerPolicy>,
    metrics: Arc<Metrics>,
    client: Client,
    tls: bool,
    greeting: Option<Greeting>,
    identity: Option<Identity>,
    exchange: Option<Exchange>,
    transaction: Option<Box<Transaction>>,
    errors: u32,
}

impl Session {
    /// For a client that has just connected.
    pub(crate) fn new(
        listener: Arc<ListenerPolicy>,
        metrics: Arc<Metrics>,
        client: Client,
        tls: bool,
    ) -> Self {
        Self {
            listener,
            metrics,
            client,
            tls,
            greeting: None,
            identity: None,
            exchange: None,
            transaction: None,
            errors: 0,
        }
    }

    /// The banner.
    pub(crate) fn greet(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"220 ");
        out.extend_from_slice(self.listener.hostname.as_bytes());
        out.extend_from_slice(b" ESMTP Staffetta\r\n");
    }

    /// Whether the client's next line belongs to an AUTH exchange.
    pub(crate) fn in_exchange(&self) -> bool {
        self.exchange.is_some()
    }

    /// The transaction, after [`Effect::Receive`].
    pub(crate) fn take_transaction(&mut self) -> Option<Box<Transaction>> {
        self.transaction.take()
    }

    /// The client's address, IPv4 where it is one.
    pub(crate) fn client(&self) -> IpAddr {
        self.client.address
    }

    /// What the client calls itself.
    pub(crate) fn client_name(&self) -> &str {
        self.greeting.as_ref().map_or("", |greeting| &greeting.name)
    }

    /// For the trace field.
    pub(crate) fn protocol(&self) -> Protocol {
        match &self.greeting {
            Some(greeting) if greeting.extended => {
                Protocol::of_session(self.tls, self.identity.is_some())
            }
            _ => Protocol::Smtp,
        }
    }

    /// TLS has begun: nothing that was said before counts (RFC 3207 section 4.2).
    pub(crate) fn tls_started(&mut self) {
        self.tls = true;
        self.greeting = None;
        self.identity = None;
        self.transaction = None;
    }

    /// Takes a command. `snapshot` is the configuration of this moment.
    pub(crate) fn command(
        &mut self,
        command: Result<Command, CommandError>,
        snapshot: &Snapshot,
        storage: Storage,
        out: &mut Vec<u8>,
    ) -> Effect {
        let answer = match command {
            Ok(Command::Ehlo(name)) => return self.ehlo(name, out),
            Ok(Command::Helo(name)) => self.helo(name),
            Ok(Command::StartTls) => return self.start_tls(out),
            Ok(Command::Auth {
                mechanism,
                initial_response,
            }) => {
                let initial = initial_response.as_ref().map(smtp::Secret::expose);
                return self.auth(&mechanism, initial, out);
            }
            Ok(Command::Mail {
                return_path,
                params,
            }) => self
                .mail(return_path, params, snapshot, storage)
                .unwrap_or_else(|refusal| refusal),
            Ok(Command::Rcpt { address, params }) => {
                // What is wrong with one recipient says nothing against the client.
                let answer = self
                    .rcpt(address, &params)
                    .unwrap_or_else(|refusal| refusal);
                return if answer.code == 503 {
                    self.say(answer, out)
                } else {
                    self.say_uncounted(answer, out)
                };
            }
            Ok(Command::Data) => match &self.transaction {
                None => answer::NEED_MAIL,
                Some(transaction) if transaction.recipients.is_empty() => {
                    answer::NO_VALID_RECIPIENTS
                }
                Some(_) => return Effect::Receive,
            },
            Ok(Command::Rset) => {
                self.transaction = None;
                answer::OK
            }
            Ok(Command::Quit) => {
                answer::BYE.write(out);
                return Effect::Quit;
            }
            Ok(Command::Bdat { .. }) => {
                // Not offered. What follows is content, and must not be taken for commands.
                self.say(answer::NOT_IMPLEMENTED, out);
                return Effect::Close;
            }
            Ok(Command::Noop) => answer::OK,
            Ok(Command::Vrfy) => answer::CANNOT_VERIFY,
            Ok(Command::Help) => answer::HELP,
            Ok(Command::Expn) => answer::NOT_IMPLEMENTED,
            Ok(Command::Unknown { .. }) => answer::UNKNOWN_COMMAND,
            Err(CommandError::Recipient) => {
                return self.say_uncounted(CommandError::Recipient.into(), out);
            }
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

    /// Takes a line of an AUTH exchange.
    pub(crate) fn auth_line(
        &mut self,
        line: Result<AuthLine, CommandError>,
        out: &mut Vec<u8>,
    ) -> Effect {
        let exchange = self.exchange.take();
        match (exchange, line) {
            (Some(exchange), Ok(AuthLine::Response(response))) => {
                self.sasl(exchange.answer(response.expose()), out)
            }
            (_, Err(error)) => self.say(error.into(), out),
            (_, Ok(_)) => self.say(answer::AUTH_CANCELLED, out),
        }
    }

    /// The client is who it claims to be.
    pub(crate) fn logged_in(&mut self, identity: Identity, out: &mut Vec<u8>) -> Effect {
        self.identity = Some(identity);
        self.say(answer::AUTHENTICATED, out)
    }

    /// Answers, and counts what was refused; too much of that ends the session.
    pub(crate) fn say(&mut self, answer: Answer, out: &mut Vec<u8>) -> Effect {
        if answer.code >= 500 {
            self.errors += 1;
        }
        let effect = self.say_uncounted(answer, out);
        if self.errors < MAX_ERRORS {
            return effect;
        }
        self.metrics.refused(&answer::TOO_MANY_ERRORS);
        answer::TOO_MANY_ERRORS.write(out);
        Effect::Close
    }

    /// Answers what is no fault of the client's program.
    pub(crate) fn say_uncounted(&mut self, answer: Answer, out: &mut Vec<u8>) -> Effect {
        if answer.is_refusal() {
            self.metrics.refused(&answer);
        }
        answer.write(out);
        Effect::Continue
    }

    /// A message was accepted: earlier mistakes are forgiven.
    pub(crate) fn message_accepted(&mut self) {
        self.errors = 0;
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
            "ENHANCEDSTATUSCODES",
            "DSN",
            &limits,
        ];
        if self.listener.starttls && !self.tls {
            lines.push("STARTTLS");
        }
        if self.may_authenticate() && self.identity.is_none() {
            lines.push("AUTH PLAIN LOGIN");
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

    fn start_tls(&mut self, out: &mut Vec<u8>) -> Effect {
        if self.tls {
            return self.say(answer::TLS_ACTIVE, out);
        }
        if !self.listener.starttls {
            return self.say(answer::NOT_IMPLEMENTED, out);
        }
        Effect::StartTls
    }

    fn may_authenticate(&self) -> bool {
        let local = &self.listener.allow_plaintext_auth_from;
        self.tls || self.client.is_connected_from(local)
    }

    fn auth(&mut self, mechanism: &str, initial: Option<&str>, out: &mut Vec<u8>) -> Effect {
        let refusal = if !self
            .greeting
            .as_ref()
            .is_some_and(|greeting| greeting.extended)
        {
            answer::SAY_EHLO
        } else if self.identity.is_some() {
            answer::AUTH_ACTIVE
        } else if self.transaction.is_some() {
            answer::AUTH_IN_TRANSACTION
        } else if !self.may_authenticate() {
            if self.listener.starttls {
                answer::AUTH_NEEDS_TLS
            } else {
                answer::AUTH_NEEDS_IMPLICIT_TLS
            }
        } else {
            match Mechanism::parse(mechanism) {
                Some(mechanism) => return self.sasl(sasl::begin(mechanism, initial), out),
                None => answer::AUTH_UNKNOWN,
            }
        };
        self.say(refusal, out)
    }

    fn sasl(&mut self, next: Next, out: &mut Vec<u8>) -> Effect {
        match next {
            Next::Challenge(exchange, text) => {
                self.exchange = Some(exchange);
                self.say(Answer::plain(334, text), out)
            }
            Next::Claim(claim) => Effect::Login(claim),
            Next::Malformed => self.say(answer::AUTH_MALFORMED, out),
        }
    }

    fn mail(
        &mut self,
        return_path: Option<Address>,
        params: MailParams,
        snapshot: &Snapshot,
        storage: Storage,
    ) -> Result<Answer, Answer> {
        if self.greeting.is_none() {
            return Err(answer::SAY_EHLO);
        }
        if self.transaction.is_some() {
            return Err(answer::NESTED_MAIL);
        }
        let sender = policy::authorise(
            snapshot,
            self.identity.as_ref(),
            self.client,
            return_path.as_ref(),
        )?;
        let body = match params.body {
            None | Some(Body::SevenBit) => envelope::Body::SevenBit,
            Some(Body::EightBitMime) => envelope::Body::EightBit,
            Some(Body::BinaryMime) => return Err(answer::UNSUPPORTED_PARAMETER),
        };
        if params.smtputf8 || params.require_tls {
            return Err(answer::UNSUPPORTED_PARAMETER);
        }
        if params
            .size
            .is_some_and(|size| size > self.listener.max_message_size)
        {
            return Err(answer::TOO_LARGE);
        }
        match storage {
            Storage::Ready => {}
            Storage::Away => return Err(answer::STORAGE_AWAY),
            Storage::Full => return Err(answer::STORAGE_FULL),
        }
        self.transaction = Some(Box::new(Transaction {
            sender,
            return_path: return_path
                .map(|path| path.as_str().to_owned())
                .unwrap_or_default(),
            recipients: Vec::with_capacity(1),
            declared_size: params.size,
            body,
            ret: match params.ret {
                None => envelope::DsnReturn::Unspecified,
                Some(Return::Full) => envelope::DsnReturn::Full,
                Some(Return::Headers) => envelope::DsnReturn::Headers,
            },
            envid: params
                .envid
                .map(|envid| envid.as_str().to_owned())
                .unwrap_or_default(),
        }));
        Ok(answer::SENDER_OK)
    }

    fn rcpt(&mut self, path: ForwardPath, params: &RcptParams) -> Result<Answer, Answer> {
        let transaction = self.transaction.as_mut().ok_or(answer::NEED_MAIL)?;
        let address = match path {
            // RFC 5321 section 4.5.1: the postmaster of this host, who has a mailbox elsewhere.
            ForwardPath::Postmaster => format!("postmaster@{}", self.listener.hostname),
            ForwardPath::Mailbox(address) if address.needs_smtputf8() => {
                return Err(CommandError::NeedsSmtpUtf8.into());
            }
            ForwardPath::Mailbox(address) if address.domain().is_none() => {
                return Err(answer::ADDRESS_LITERAL);
            }
            ForwardPath::Mailbox(address) => address.as_str().to_owned(),
        };
        if transaction
            .recipients
            .iter()
            .any(|recipient| recipient.address == address)
        {
            // Named twice, delivered once.
            return Ok(answer::RECIPIENT_OK);
        }
        if transaction.recipients.len() >= self.listener.max_recipients {
            return Err(answer::TOO_MANY_RECIPIENTS);
        }
        transaction.recipients.push(envelope::Recipient {
            address,
            notify: params.notify.bits(),
            orcpt: params
                .orcpt
                .as_ref()
                .map(|orcpt| orcpt.as_str().to_owned())
                .unwrap_or_default(),
            return_path: String::new(),
            header_variant: 0,
        });
        Ok(answer::RECIPIENT_OK)
    }
}

#[cfg(test)]
mod tests;
