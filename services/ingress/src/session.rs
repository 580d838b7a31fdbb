//! The SMTP session as a state machine: commands in, replies and effects out. No sockets, no clocks.

use std::net::IpAddr;
use std::sync::Arc;

use config::Snapshot;
use ipnet::IpNet;
use mail::Domain;
use message::Protocol;
use smtp::{AuthLine, Command, CommandError, XClient, XClientAddress};
use spool::MeasureMap;
use suppress::Table;

use crate::answer::{self, Answer};
use crate::forwarding::Forwarding;
use crate::metrics::Metrics;
use crate::policy::Identity;
use crate::proxy::Client;
use crate::sasl::{self, Claim, Exchange, Next, Offer};

mod refusal;
mod transaction;

pub(crate) use refusal::Refusal;
pub(crate) use transaction::Transaction;

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
    /// AUTH SCRAM-SHA-256 is offered.
    pub(crate) scram: bool,
    /// Clients of these networks are proxies that say whose connection they hand on.
    pub(crate) xclient_trusted: Vec<IpNet>,
    /// SIZE, octets.
    pub(crate) max_message_size: u64,
    /// RCPTMAX.
    pub(crate) max_recipients: usize,
    /// What mail of foreign senders is forwarded with; `None`: nobody forwards any.
    pub(crate) forwarding: Option<Arc<Forwarding>>,
    /// For recipients of this domain the simulator answers.
    pub(crate) simulator: Domain,
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
    /// Read a chunk of the content, and forget it when it was refused; then answer.
    Chunk {
        /// Octets that follow the command.
        size: u64,
        /// The content is complete with it.
        last: bool,
        refused: Option<Answer>,
    },
    /// The connection is that of another client from now on, who is to be greeted: [`Session::origin`].
    NewClient,
    /// The client said goodbye: send the output and close.
    Quit,
    /// Send the output and close, whatever the client still sends.
    Close,
}

/// How things stand when a command comes.
#[derive(Clone, Copy)]
pub(crate) struct Moment<'a> {
    pub(crate) snapshot: &'a Snapshot,
    /// What is done about credentials.
    pub(crate) measures: &'a MeasureMap,
    pub(crate) storage: Storage,
    /// Whom nothing is sent to, where that is refused.
    pub(crate) suppressed: Option<&'a Table>,
    /// Unix milliseconds.
    pub(crate) now_ms: u64,
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
    /// DNS names in the certificate that the client has shown.
    certified_as: Vec<Box<str>>,
    /// Address of the proxy that may say whose connection this is.
    proxy: Option<IpAddr>,
    tls: bool,
    greeting: Option<Greeting>,
    identity: Option<Identity>,
    exchange: Option<Exchange>,
    transaction: Option<Box<Transaction>>,
    /// What the last command was refused.
    refused: Option<Box<Refusal>>,
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
        let is_proxy = client.is_proxy(&listener.xclient_trusted);
        Self {
            listener,
            metrics,
            client: if is_proxy { client.unnamed() } else { client },
            proxy: is_proxy.then_some(client.address),
            certified_as: Vec::new(),
            tls,
            greeting: None,
            identity: None,
            exchange: None,
            transaction: None,
            refused: None,
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

    /// The transaction, after [`Effect::Receive`] or the last chunk, or when a chunk was refused.
    pub(crate) fn take_transaction(&mut self) -> Option<Box<Transaction>> {
        self.transaction.take()
    }

    /// The transaction goes on after a chunk.
    pub(crate) fn resume(&mut self, transaction: Box<Transaction>) {
        self.transaction = Some(transaction);
    }

    /// Whether chunks of a message were received of which the last is still to come.
    pub(crate) fn in_chunks(&self) -> bool {
        self.transaction
            .as_ref()
            .is_some_and(|transaction| transaction.chunked)
    }

    /// The client's address, IPv4 where it is one.
    pub(crate) fn client(&self) -> IpAddr {
        self.client.address
    }

    /// The client, and how its address is known.
    pub(crate) fn origin(&self) -> Client {
        self.client
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
    /// `certified_as`: the DNS names in the client's certificate.
    pub(crate) fn tls_started(&mut self, certified_as: Vec<Box<str>>) {
        self.tls = true;
        self.certified_as = certified_as;
        self.begin_anew();
    }

    /// Takes a command.
    pub(crate) fn command(
        &mut self,
        command: Result<Command, CommandError>,
        moment: Moment<'_>,
        out: &mut Vec<u8>,
    ) -> Effect {
        let snapshot = moment.snapshot;
        let answer = match command {
            Ok(Command::Ehlo(name)) => return self.ehlo(name, moment, out),
            Ok(Command::Helo(name)) => self.helo(name),
            Ok(Command::StartTls) => return self.start_tls(out),
            Ok(Command::Auth {
                mechanism,
                initial_response,
            }) => {
                let initial = initial_response.as_ref().map(smtp::Secret::expose);
                return self.auth(&mechanism, initial, snapshot, out);
            }
            Ok(Command::Mail {
                return_path,
                params,
            }) => {
                if self.is_over(moment.now_ms) {
                    self.say(answer::TOKEN_OVER, out);
                    return Effect::Close;
                }
                self.mail(return_path, params, moment)
                    .unwrap_or_else(|refusal| self.refuse_mail(refusal, snapshot))
            }
            Ok(Command::Rcpt { address, params }) => {
                // What is wrong with one recipient says nothing against the client.
                let answer = self
                    .rcpt(&address, &params, moment)
                    .unwrap_or_else(|refusal| self.refuse_recipient(refusal, &address));
                return if answer.code == 503 {
                    self.say(answer, out)
                } else {
                    self.say_uncounted(answer, out)
                };
            }
            Ok(Command::Data) => match self.data() {
                Err(refusal) => refusal,
                Ok(()) => return Effect::Receive,
            },
            Ok(Command::Rset) => {
                self.transaction = None;
                answer::OK
            }
            Ok(Command::Quit) => {
                answer::BYE.write(out);
                return Effect::Quit;
            }
            Ok(Command::Bdat { size, last }) => {
                let refused = self.bdat().err();
                return Effect::Chunk {
                    size,
                    last,
                    refused,
                };
            }
            Ok(Command::Noop) => answer::OK,
            Ok(Command::Vrfy) => answer::CANNOT_VERIFY,
            Ok(Command::Help) => answer::HELP,
            Ok(Command::Expn) => answer::NOT_IMPLEMENTED,
            Ok(Command::Unknown { verb, argument })
                if &*verb == "XCLIENT" && !self.listener.xclient_trusted.is_empty() =>
            {
                return self.xclient(&argument, out);
            }
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
        snapshot: &Snapshot,
        out: &mut Vec<u8>,
    ) -> Effect {
        let exchange = self.exchange.take();
        match (exchange, line) {
            (Some(exchange), Ok(AuthLine::Response(response))) => {
                self.sasl(exchange.answer(response.expose(), snapshot), out)
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

    /// Tells the client why its token is refused (base64), and lets it answer before the login fails.
    pub(crate) fn token_refused(&mut self, why: String, out: &mut Vec<u8>) -> Effect {
        self.sasl(Next::Challenge(Exchange::token_refused(), why.into()), out)
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

    fn ehlo(&mut self, name: Box<str>, moment: Moment<'_>, out: &mut Vec<u8>) -> Effect {
        self.transaction = None;
        self.greeting = Some(Greeting {
            name,
            extended: true,
        });
        let size = format!("SIZE {}", self.listener.max_message_size);
        let limits = format!("LIMITS RCPTMAX={}", self.listener.max_recipients);
        let release = format!(
            "FUTURERELEASE {} {}",
            message::MOST_AHEAD_MS / 1000,
            message::timestamp_text(moment.now_ms + message::MOST_AHEAD_MS)
        );
        let mut lines: Vec<&str> = vec![
            &self.listener.hostname,
            "PIPELINING",
            &size,
            "8BITMIME",
            "SMTPUTF8",
            "CHUNKING",
            "BINARYMIME",
            "ENHANCEDSTATUSCODES",
            "DSN",
            &limits,
            &release,
            "DELIVERBY",
        ];
        if self.is_authenticated(moment.snapshot) {
            lines.push("MT-PRIORITY");
        }
        if self.listener.starttls && !self.tls {
            lines.push("STARTTLS");
        }
        let auth;
        // RFC 8689 section 2.
        if self.tls {
            lines.push("REQUIRETLS");
        }
        if self.may_authenticate() && self.identity.is_none() {
            auth = self.offer(moment.snapshot).line();
            lines.push(&auth);
        }
        let xclient = format!("XCLIENT {}", XClient::ATTRIBUTES);
        if self.proxy.is_some() {
            lines.push(&xclient);
        }
        answer::write_lines(250, lines, out);
        Effect::Continue
    }

    /// The connection begins anew, for the client that the proxy names.
    fn xclient(&mut self, argument: &str, out: &mut Vec<u8>) -> Effect {
        let client = match (self.proxy, XClient::parse(argument)) {
            (None, _) => Err(answer::XCLIENT_REFUSED),
            _ if self.transaction.is_some() => Err(answer::XCLIENT_IN_TRANSACTION),
            (Some(_), Err(error)) => Err(error.into()),
            (
                Some(_),
                Ok(XClient {
                    address: XClientAddress::NotSaid,
                }),
            ) => Ok(self.client),
            (Some(proxy), Ok(said)) => {
                Client::named_by(proxy, said.address).ok_or(answer::XCLIENT_LOOPBACK)
            }
        };
        match client {
            Ok(client) => {
                self.client = client;
                // It is the proxy's.
                self.certified_as.clear();
                self.begin_anew();
                Effect::NewClient
            }
            Err(refusal) => self.say(refusal, out),
        }
    }

    /// Nothing that was said before counts.
    fn begin_anew(&mut self) {
        self.greeting = None;
        self.identity = None;
        self.transaction = None;
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

    /// By a login, or the certificate of the client.
    fn is_authenticated(&self, snapshot: &Snapshot) -> bool {
        self.identity.is_some() || self.has_certificate(snapshot)
    }

    /// One that a credential names.
    fn has_certificate(&self, snapshot: &Snapshot) -> bool {
        let mut certificates = self.certified_as.iter();
        certificates.any(|name| snapshot.credential_by_certificate(name).is_some())
    }

    /// The token that the client has logged in with is over.
    fn is_over(&self, now_ms: u64) -> bool {
        let mut identity = self.identity.iter();
        identity.any(|identity| identity.is_over(now_ms))
    }

    fn offer(&self, snapshot: &Snapshot) -> Offer {
        Offer {
            scram: self.listener.scram,
            tokens: snapshot.takes_tokens(),
            external: self.has_certificate(snapshot),
        }
    }

    fn may_authenticate(&self) -> bool {
        let local = &self.listener.allow_plaintext_auth_from;
        self.tls || self.client.is_connected_from(local)
    }

    fn auth(
        &mut self,
        mechanism: &str,
        initial: Option<&str>,
        snapshot: &Snapshot,
        out: &mut Vec<u8>,
    ) -> Effect {
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
            match self.offer(snapshot).mechanism(mechanism) {
                Some(mechanism) => {
                    let next = sasl::begin(mechanism, initial, &self.certified_as, snapshot);
                    return self.sasl(next, out);
                }
                None => answer::AUTH_UNKNOWN,
            }
        };
        self.say(refusal, out)
    }

    fn sasl(&mut self, next: Next, out: &mut Vec<u8>) -> Effect {
        match next {
            Next::Challenge(exchange, text) => {
                self.exchange = Some(exchange);
                let challenge = Answer {
                    code: 334,
                    enhanced: None,
                    text,
                };
                self.say(challenge, out)
            }
            Next::Claim(claim) => Effect::Login(claim),
            Next::Refused => self.say(answer::AUTH_WRONG, out),
            Next::Malformed => self.say(answer::AUTH_MALFORMED, out),
        }
    }
}

#[cfg(test)]
mod tests;
