//! Who may send as whom (requirement A5). Pure: the snapshot decides.

use std::sync::Arc;

use config::{Credential, ForeignSenders, Mode, Snapshot, Stream, Tenant, Watch};
use mail::{Address, Domain};
use message::{Inspection, inspect, labels, times};
use proto::watch::Action;
use smtp::EnhancedCode;

use crate::answer::{self, Answer};
use crate::proxy::Client;
use crate::watching;

/// Who has logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Name of the credential.
    pub(crate) credential: String,
    /// User name, subject of the token, or name in the certificate.
    pub(crate) username: String,
    pub(crate) by: By,
}

/// How somebody has logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum By {
    Password,
    Certificate,
    Token {
        /// Name of the TokenIssuer.
        issuer: String,
        /// When the token is over, Unix milliseconds.
        over_ms: u64,
    },
}

impl Identity {
    /// Whether the login is over.
    pub(crate) fn is_over(&self, now_ms: u64) -> bool {
        matches!(self.by, By::Token { over_ms, .. } if over_ms <= now_ms)
    }

    /// Whether it is still one of the credential's.
    fn is_of(&self, credential: &Credential) -> bool {
        match &self.by {
            By::Password => credential
                .login
                .as_ref()
                .is_some_and(|login| login.username == self.username),
            By::Certificate => credential.certificates.contains(&self.username),
            By::Token { issuer, .. } => credential
                .tokens
                .iter()
                .any(|token| token.issuer == *issuer && token.subject == self.username),
        }
    }
}

/// In whose name a transaction is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) tenant: String,
    pub(crate) credential: String,
    /// User name, or the name in the certificate; empty when a network was trusted.
    pub(crate) authenticated_as: String,
    /// What holds for it.
    pub(crate) rules: Rules,
    /// What is done about its credential, since it may be stolen.
    pub(crate) measure: Action,
}

/// Between which times a message may be sent, Unix milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct JudgedTimes {
    pub(crate) not_before_ms: Option<u64>,
    pub(crate) expires_ms: Option<u64>,
    /// The expiry is the stream's, and not the client's.
    pub(crate) expires_by_stream: bool,
}

/// The documents behind a [`Sender`], as they were at MAIL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) credential: Arc<Credential>,
}

impl Rules {
    /// Of a credential; `None` when its tenant is gone.
    pub(crate) fn of(credential: &Arc<Credential>, snapshot: &Snapshot) -> Option<Self> {
        Some(Self {
            tenant: Arc::clone(snapshot.tenant(&credential.tenant)?),
            credential: Arc::clone(credential),
        })
    }

    /// How the credential is watched; `None` = not.
    pub(crate) fn watch(&self) -> Option<&Watch> {
        let own = self.credential.watch.as_ref();
        own.or(self.tenant.watch.as_ref())
            .filter(|watch| watch.enabled)
    }
}

impl Sender {
    /// How it forwards mail of senders who are not of its tenant; `None` = not at all.
    pub(crate) fn foreign_senders(&self) -> Option<&ForeignSenders> {
        let Rules {
            tenant, credential, ..
        } = &self.rules;
        let foreign = credential.foreign_senders.as_ref();
        foreign.filter(|_| tenant.may_forward)
    }

    /// Whether its messages in a stream wait until somebody releases them.
    pub(crate) fn is_on_hold(&self, stream: &str) -> bool {
        self.measure == Action::Hold || self.modes(stream).contains(&Mode::Hold)
    }

    /// Whether the simulator answers for all recipients of its messages in a stream.
    pub(crate) fn is_sandboxed(&self, stream: &str) -> bool {
        self.modes(stream).contains(&Mode::Sandbox)
    }

    /// All of them hold, whichever says what.
    fn modes(&self, stream: &str) -> [Mode; 3] {
        let Rules { tenant, credential } = &self.rules;
        let stream = tenant.stream(stream);
        let of_stream = stream.map_or(Mode::default(), |stream| stream.mode);
        [tenant.mode, credential.mode, of_stream]
    }

    /// Whether a message may choose this stream itself.
    fn may_choose(&self, stream: &str) -> bool {
        let credential = &self.rules.credential;
        match (&credential.may_choose, &credential.stream) {
            (Some(streams), own) => {
                own.as_deref() == Some(stream) || streams.iter().any(|name| name == stream)
            }
            (None, Some(own)) => own == stream,
            (None, None) => true,
        }
    }

    /// Whether a message may turn out to be of this stream.
    pub(crate) fn may_be_of(&self, stream: &str) -> bool {
        // Without one of its own, its author's domain may name any.
        self.rules.credential.stream.is_none() || self.may_choose(stream)
    }

    /// Recipients of one message; `None` = no rule.
    pub(crate) fn max_recipients(&self) -> Option<usize> {
        let (credential, tenant) = (&self.rules.credential.limits, &self.rules.tenant.limits);
        let most = credential.max_recipients.or(tenant.max_recipients)?;
        usize::try_from(most).ok()
    }

    /// Recipients that fit into every quota at once; more in one message could never be sent.
    pub(crate) fn most_at_once(&self) -> Option<u64> {
        let (credential, tenant) = (&self.rules.credential.limits, &self.rules.tenant.limits);
        [credential, tenant]
            .into_iter()
            .flat_map(|limits| limits.quotas.iter().chain(&limits.network_quotas))
            .map(|quota| quota.count)
            .chain(watching::pace(self).map(|pace| pace.count))
            .min()
    }

    /// Octets of a message to so many recipients, where the listener takes `listener`.
    pub(crate) fn max_size(&self, recipients: usize, listener: u64) -> u64 {
        let (credential, tenant) = (&self.rules.credential.limits, &self.rules.tenant.limits);
        let limits = if credential.sizes.is_empty() {
            tenant
        } else {
            credential
        };
        limits
            .size_for(recipients)
            .map_or(listener, |size| size.as_u64().min(listener))
    }
}

/// Decides at MAIL whether, and as whom, a client may send with this return path (`None` = `<>`).
/// A login comes before the client's certificate (`certified_as`: the DNS names in it), and that before its network.
/// A login whose credential is gone by now counts for nothing, nor does the network of a load balancer that does not name
/// its client.
pub(crate) fn authorise(
    snapshot: &Snapshot,
    identity: Option<&Identity>,
    certified_as: &[Box<str>],
    client: Client,
    return_path: Option<&Address>,
) -> Result<Sender, Answer> {
    let domain = return_path
        .map(|path| path.domain().ok_or_else(|| not_yours(path.domain_text())))
        .transpose();
    let certified = certified_as.iter().find_map(|name| {
        let credential = snapshot.credential_by_certificate(name)?;
        Some((credential, name))
    });
    let credential = match (identity, certified) {
        (Some(identity), _) => snapshot
            .credential(&identity.credential)
            .filter(|credential| identity.is_of(credential))
            .ok_or(answer::NOT_AUTHORISED)?,
        (None, Some((credential, _))) => credential,
        (None, None) => snapshot
            .credential_for_network(client.address)
            .filter(|_| client.is_known())
            .ok_or(answer::AUTH_REQUIRED)?,
    };
    let tenant = snapshot
        .tenant(&credential.tenant)
        .ok_or(answer::NOT_AUTHORISED)?;
    // What becomes of a foreign one where some are forwarded: crate::forwarding.
    if let Some(domain) = domain?
        && credential.foreign_senders.is_none()
        && !owns(snapshot, &tenant.name, &domain)
    {
        return Err(not_yours(domain.as_str()));
    }
    Ok(Sender {
        tenant: tenant.name.clone(),
        credential: credential.name.clone(),
        authenticated_as: identity
            .map(|identity| identity.username.clone())
            .or_else(|| certified.map(|(_, name)| name.to_string()))
            .unwrap_or_default(),
        rules: Rules {
            tenant: Arc::clone(tenant),
            credential: Arc::clone(credential),
        },
        measure: Action::Unspecified,
    })
}

/// Of whom a message says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Author {
    /// Of the first author.
    pub(crate) domain: Domain,
    /// Of the others, where they differ.
    pub(crate) others: Vec<Domain>,
    /// This one's or another one's is not of the tenant.
    pub(crate) is_foreign: bool,
}

/// Decides over a header section; gives the author. `forwards`: authors may be foreign.
pub(crate) fn judge_header(
    header: &[u8],
    snapshot: &Snapshot,
    tenant: &str,
    forwards: bool,
) -> Result<Author, Answer> {
    let inspection: Inspection = inspect(header);
    if inspection.is_loop() {
        return Err(answer::LOOP);
    }
    let author = inspection.author.map_err(|error| refused(&error))?;
    let stranger = std::iter::once(&author.domain)
        .chain(&author.others)
        .find(|domain| !owns(snapshot, tenant, domain));
    match stranger {
        Some(domain) if !forwards => Err(not_yours(domain.as_str())),
        stranger => Ok(Author {
            is_foreign: stranger.is_some(),
            domain: author.domain,
            others: author.others,
        }),
    }
}

/// To which stream and campaign a message belongs: by its header, else by its credential, else by its author's domain, else the
/// tenant's default.
pub(crate) fn judge_labels(
    header: &[u8],
    snapshot: &Snapshot,
    sender: &Sender,
    author: &Domain,
) -> Result<(String, String), Answer> {
    let labels = labels(header).map_err(|error| refused(&error))?;
    let Rules { tenant, credential } = &sender.rules;
    let of_domain = || {
        let domain = snapshot.sending_domain(author.as_str());
        // A domain that has just been given to another tenant says nothing about this one.
        let stream = domain.and_then(|domain| domain.stream.as_deref());
        stream.filter(|stream| tenant.stream(stream).is_some())
    };
    let stream = match labels.stream {
        Some(stream) if tenant.stream(stream).is_none() || !sender.may_choose(stream) => {
            return Err(Answer::with(
                550,
                EnhancedCode(5, 7, 1),
                format!("This credential may not send in the stream {stream}"),
            ));
        }
        Some(stream) => stream,
        None => credential
            .stream
            .as_deref()
            .or_else(of_domain)
            .unwrap_or(&tenant.default_stream),
    };
    let campaign = labels.campaign.unwrap_or_default();
    Ok((stream.to_owned(), campaign.to_owned()))
}

/// Between which times a message may be sent: by its header, else by its stream. `released_ms`: not before that in any case, Unix
/// milliseconds.
pub(crate) fn judge_times(
    header: &[u8],
    stream: Option<&Stream>,
    released_ms: u64,
    now_ms: u64,
) -> Result<JudgedTimes, Answer> {
    let mut times = times(header, now_ms)
        .and_then(|times| times.released_at(released_ms))
        .map_err(|error| refused(&error))?;
    let expires_by_stream = times.expires_ms.is_none();
    if expires_by_stream {
        let span = stream.and_then(|stream| stream.expires_after);
        let from_ms = times.not_before_ms.unwrap_or(now_ms);
        times.expires_ms = span.map(|span| from_ms + span.as_millis());
    }
    Ok(JudgedTimes {
        not_before_ms: times.not_before_ms,
        expires_ms: times.expires_ms,
        expires_by_stream: expires_by_stream && times.expires_ms.is_some(),
    })
}

/// The priority of a message whose client asks for `asked`: no higher than its stream has it.
pub(crate) fn judge_priority(asked: Option<i8>, stream: Option<&Stream>) -> i8 {
    let most = stream.map_or(0, |stream| stream.most_priority);
    asked.map_or(0, |asked| asked.min(most))
}

fn refused(error: &dyn std::error::Error) -> Answer {
    Answer::with(
        554,
        EnhancedCode(5, 6, 0),
        format!("Message refused: {error}"),
    )
}

pub(crate) fn owns(snapshot: &Snapshot, tenant: &str, domain: &Domain) -> bool {
    snapshot
        .sending_domain(domain.as_str())
        .is_some_and(|sending| sending.tenant == tenant)
}

pub(crate) fn not_yours(domain: &str) -> Answer {
    Answer::with(
        550,
        EnhancedCode(5, 7, 1),
        format!("This credential may not send as {domain}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTS: &str = "
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: acme }
spec: { defaultStream: transactional, streams: [ { name: transactional }, { name: bulk }, { name: newsletter } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: other }
spec: { defaultStream: bulk, streams: [ { name: bulk } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-app }
spec: { tenant: acme, username: app, passwordHash: \"$argon2id$v=19$m=64,t=1,p=1$c2FsdHNhbHQ$aGFzaGhhc2hoYXNo\" }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-net }
spec: { tenant: acme, stream: bulk, networks: [ 192.0.2.0/24 ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: other-net }
spec: { tenant: other, networks: [ 192.0.2.0/25 ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: { name: acme.example }
spec: { tenant: acme, unsigned: true, includeSubdomains: true }
---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: { name: news.acme.example }
spec: { tenant: acme, unsigned: true, stream: newsletter }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-choosy }
spec: { tenant: acme, stream: bulk, mayChoose: [ newsletter ], networks: [ 203.0.113.0/24 ], mode: hold }
---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: { name: other.example }
spec: { tenant: other, unsigned: true }
";

    fn snapshot() -> Snapshot {
        Snapshot::from_documents(DOCUMENTS).unwrap()
    }

    fn authorised(identity: Option<&str>, client: &str, path: &str) -> Result<Sender, u16> {
        let identity = identity.map(|name| Identity {
            credential: name.to_owned(),
            username: "app".to_owned(),
            by: By::Password,
        });
        let path = (!path.is_empty()).then(|| Address::parse(path).unwrap());
        authorise(
            &snapshot(),
            identity.as_ref(),
            &[],
            Client::connected(client.parse().unwrap()),
            path.as_ref(),
        )
        .map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_credential_sends_only_as_its_tenants_domains() {
        let app = Some("acme-app");
        let granted = Ok("acme-app".to_owned());
        for (path, expected) in [
            ("a@acme.example", granted.clone()),
            ("a@ACME.Example", granted.clone()),
            ("a@news.acme.example", granted.clone()),
            ("", granted),
            ("a@other.example", Err(550)),
            ("a@example.org", Err(550)),
            ("a@[192.0.2.1]", Err(550)),
        ] {
            let authorised = authorised(app, "198.51.100.1", path);
            let credential = authorised.map(|sender| sender.credential);
            assert_eq!(credential, expected, "{path}");
        }
    }

    #[test]
    fn a_network_needs_no_login() {
        let of = |client, path| {
            authorised(None, client, path).map(|sender| (sender.credential, sender.tenant))
        };
        assert_eq!(
            of("192.0.2.200", "a@acme.example"),
            Ok(("acme-net".to_owned(), "acme".to_owned()))
        );
        assert_eq!(
            of("192.0.2.1", "a@other.example"),
            Ok(("other-net".to_owned(), "other".to_owned()))
        );
        assert_eq!(of("192.0.2.200", "a@other.example"), Err(550));
        assert_eq!(of("198.51.100.1", "a@acme.example"), Err(530));
        assert_eq!(of("198.51.100.1", ""), Err(530));
    }

    #[test]
    fn a_credential_that_is_gone_ends_at_the_next_message() {
        assert_eq!(
            authorised(Some("gone"), "192.0.2.1", "a@acme.example"),
            Err(550)
        );
        assert_eq!(
            authorised(Some("acme-net"), "192.0.2.1", "a@acme.example"),
            Err(550)
        );
    }

    #[test]
    fn a_message_belongs_to_the_stream_that_it_its_credential_or_its_domain_names() {
        let (app, bulk, choosy) = ("198.51.100.1", "192.0.2.200", "203.0.113.1");
        let labels = |client: &str, domain: &str, header: &str| {
            let login = (client == app).then_some("acme-app");
            let sender = authorised(login, client, "").unwrap();
            let author = Domain::parse(domain).unwrap();
            judge_labels(header.as_bytes(), &snapshot(), &sender, &author)
                .map_err(|refusal| refusal.code)
        };
        let (own, news) = ("acme.example", "news.acme.example");
        for (client, domain, header, stream) in [
            (app, own, "", Ok("transactional")),
            (app, news, "", Ok("newsletter")),
            (app, "a.news.acme.example", "", Ok("transactional")),
            (app, news, "X-Staffetta-Stream: bulk\r\n", Ok("bulk")),
            (app, own, "X-Staffetta-Stream: other\r\n", Err(550)),
            (app, own, "X-Staffetta-Stream: a b\r\n", Err(554)),
            (bulk, news, "", Ok("bulk")),
            (bulk, own, "X-Staffetta-Stream: bulk\r\n", Ok("bulk")),
            (bulk, own, "X-Staffetta-Stream: newsletter\r\n", Err(550)),
            (choosy, own, "", Ok("bulk")),
            (
                choosy,
                own,
                "X-Staffetta-Stream: newsletter\r\n",
                Ok("newsletter"),
            ),
            (
                choosy,
                own,
                "X-Staffetta-Stream: transactional\r\n",
                Err(550),
            ),
        ] {
            let found = labels(client, domain, header).map(|(stream, _)| stream);
            assert_eq!(
                found,
                stream.map(str::to_owned),
                "{client} {domain} {header}"
            );
        }
        let campaign = labels(app, own, "X-Staffetta-Campaign: autumn\r\n");
        assert_eq!(
            campaign,
            Ok(("transactional".to_owned(), "autumn".to_owned()))
        );
        assert!(authorised(None, choosy, "").unwrap().is_on_hold("bulk"));
        assert!(!authorised(None, bulk, "").unwrap().is_on_hold("bulk"));
    }

    #[test]
    fn every_author_must_be_of_the_tenant() {
        let judged = |header: &str| {
            judge_header(header.as_bytes(), &snapshot(), "acme", false)
                .map(|author| (author.domain.to_string(), author.is_foreign))
                .map_err(|refusal| refusal.code)
        };
        assert_eq!(
            judged("From: A <a@News.acme.example>\r\n"),
            Ok(("news.acme.example".to_owned(), false))
        );
        for (header, code) in [
            ("From: a@other.example\r\n", 550),
            ("From: a@acme.example, b@other.example\r\n", 550),
            ("From: a@acme.example\r\nFrom: a@acme.example\r\n", 554),
            ("To: a@acme.example\r\n", 554),
            ("From: nobody\r\n", 554),
        ] {
            assert_eq!(judged(header), Err(code), "{header}");
        }
        let looping = format!("From: a@acme.example\r\n{}", "Received: x\r\n".repeat(101));
        assert_eq!(judged(&looping), Err(554));
    }

    #[test]
    fn who_forwards_may_name_any_author_but_must_name_one() {
        let judged = |header: &str| {
            judge_header(header.as_bytes(), &snapshot(), "acme", true)
                .map(|author| author.is_foreign)
                .map_err(|refusal| refusal.code)
        };
        for (header, expected) in [
            ("From: a@acme.example\r\n", Ok(false)),
            ("From: a@sender.example\r\n", Ok(true)),
            ("From: a@acme.example, b@sender.example\r\n", Ok(true)),
            ("From: nobody\r\n", Err(554)),
        ] {
            assert_eq!(judged(header), expected, "{header}");
        }
    }
}
