//! Who may send as whom (requirement A5). Pure: the snapshot decides.

use std::sync::Arc;

use config::{Credential, Snapshot, Stream, Tenant};
use mail::{Address, Domain};
use message::{Inspection, Times, inspect, times};
use smtp::EnhancedCode;

use crate::answer::{self, Answer};
use crate::proxy::Client;

/// Who has logged in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Name of the credential.
    pub(crate) credential: String,
    pub(crate) username: String,
}

/// In whose name a transaction is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) tenant: String,
    pub(crate) stream: String,
    pub(crate) credential: String,
    /// Empty when a network was trusted.
    pub(crate) authenticated_as: String,
    /// What holds for it.
    pub(crate) rules: Rules,
}

/// The documents behind a [`Sender`], as they were at MAIL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) tenant: Arc<Tenant>,
    pub(crate) credential: Arc<Credential>,
}

impl Sender {
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
/// A login whose credential is gone by now counts for nothing, nor does the network of a load balancer that does not name
/// its client.
pub(crate) fn authorise(
    snapshot: &Snapshot,
    identity: Option<&Identity>,
    client: Client,
    return_path: Option<&Address>,
) -> Result<Sender, Answer> {
    let domain = return_path
        .map(|path| path.domain().ok_or_else(|| not_yours(path.domain_text())))
        .transpose();
    let credential = match identity {
        Some(identity) => snapshot
            .credential(&identity.credential)
            .filter(|credential| has_login(credential, &identity.username))
            .ok_or(answer::NOT_AUTHORISED)?,
        None => snapshot
            .credential_for_network(client.address)
            .filter(|_| client.is_known())
            .ok_or(answer::AUTH_REQUIRED)?,
    };
    let tenant = snapshot
        .tenant(&credential.tenant)
        .ok_or(answer::NOT_AUTHORISED)?;
    if let Some(domain) = domain?
        && !owns(snapshot, &tenant.name, &domain)
    {
        return Err(not_yours(domain.as_str()));
    }
    Ok(Sender {
        tenant: tenant.name.clone(),
        stream: credential
            .stream
            .clone()
            .unwrap_or_else(|| tenant.default_stream.clone()),
        credential: credential.name.clone(),
        authenticated_as: identity
            .map(|identity| identity.username.clone())
            .unwrap_or_default(),
        rules: Rules {
            tenant: Arc::clone(tenant),
            credential: Arc::clone(credential),
        },
    })
}

/// Decides over a header section; gives the author's domain.
pub(crate) fn judge_header(
    header: &[u8],
    snapshot: &Snapshot,
    tenant: &str,
) -> Result<Domain, Answer> {
    let inspection: Inspection = inspect(header);
    if inspection.is_loop() {
        return Err(answer::LOOP);
    }
    let author = inspection.author.map_err(|error| {
        Answer::with(
            554,
            EnhancedCode(5, 6, 0),
            format!("Message refused: {error}"),
        )
    })?;
    let stranger = std::iter::once(&author.domain)
        .chain(&author.others)
        .find(|domain| !owns(snapshot, tenant, domain));
    match stranger {
        Some(domain) => Err(not_yours(domain.as_str())),
        None => Ok(author.domain),
    }
}

/// Between which times a message may be sent: by its header, else by its stream.
pub(crate) fn judge_times(
    header: &[u8],
    stream: Option<&Stream>,
    now_ms: u64,
) -> Result<Times, Answer> {
    let mut times = times(header, now_ms).map_err(|error| {
        Answer::with(
            554,
            EnhancedCode(5, 6, 0),
            format!("Message refused: {error}"),
        )
    })?;
    if times.expires_ms.is_none() {
        let span = stream.and_then(|stream| stream.expires_after);
        let from_ms = times.not_before_ms.unwrap_or(now_ms);
        times.expires_ms = span.map(|span| from_ms + span.as_millis());
    }
    Ok(times)
}

fn has_login(credential: &Credential, username: &str) -> bool {
    credential
        .login
        .as_ref()
        .is_some_and(|login| login.username == username)
}

fn owns(snapshot: &Snapshot, tenant: &str, domain: &Domain) -> bool {
    snapshot
        .sending_domain(domain.as_str())
        .is_some_and(|sending| sending.tenant == tenant)
}

fn not_yours(domain: &str) -> Answer {
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
spec: { defaultStream: transactional, streams: [ { name: transactional }, { name: bulk } ] }
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
metadata: { name: other.example }
spec: { tenant: other, unsigned: true }
";

    fn snapshot() -> Snapshot {
        Snapshot::from_documents(DOCUMENTS).unwrap()
    }

    fn authorised(
        identity: Option<&str>,
        client: &str,
        path: &str,
    ) -> Result<(String, String), u16> {
        let identity = identity.map(|name| Identity {
            credential: name.to_owned(),
            username: "app".to_owned(),
        });
        let path = (!path.is_empty()).then(|| Address::parse(path).unwrap());
        authorise(
            &snapshot(),
            identity.as_ref(),
            Client::connected(client.parse().unwrap()),
            path.as_ref(),
        )
        .map(|sender| (sender.credential, sender.stream))
        .map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_credential_sends_only_as_its_tenants_domains() {
        let app = Some("acme-app");
        let granted = Ok(("acme-app".to_owned(), "transactional".to_owned()));
        for (path, expected) in [
            ("a@acme.example", granted.clone()),
            ("a@ACME.Example", granted.clone()),
            ("a@news.acme.example", granted.clone()),
            ("", granted),
            ("a@other.example", Err(550)),
            ("a@example.org", Err(550)),
            ("a@[192.0.2.1]", Err(550)),
        ] {
            assert_eq!(authorised(app, "198.51.100.1", path), expected, "{path}");
        }
    }

    #[test]
    fn a_network_needs_no_login() {
        let of = |client, path| authorised(None, client, path);
        assert_eq!(
            of("192.0.2.200", "a@acme.example"),
            Ok(("acme-net".to_owned(), "bulk".to_owned()))
        );
        assert_eq!(
            of("192.0.2.1", "a@other.example"),
            Ok(("other-net".to_owned(), "bulk".to_owned()))
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
    fn every_author_must_be_of_the_tenant() {
        let judged = |header: &str| {
            judge_header(header.as_bytes(), &snapshot(), "acme").map_err(|refusal| refusal.code)
        };
        assert_eq!(
            judged("From: A <a@News.acme.example>\r\n")
                .unwrap()
                .as_str(),
            "news.acme.example"
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
}
