//! Links by which readers leave a stream, one for each recipient (ADR 41).

use std::sync::Arc;

use bounce::{Link, Purpose, TokenKeys};
use config::{Headers, Snapshot, UriTemplate, UriValues};
use mail::{Domain, MessageId};
use message::{SignedNames, fields};
use runtime::{Shutdown, TokenKeyring};
use tokio::sync::watch;

use crate::return_paths::Returned;

/// The fields that say how to leave; a tenant's own are kept, and a link that is not ours is not called one-click.
pub(crate) const NAMES: &[&str] = &["List-Unsubscribe", "List-Unsubscribe-Post"];
/// Value of `List-Unsubscribe-Post` (RFC 8058 section 3.1).
pub(crate) const ONE_CLICK: &str = "List-Unsubscribe=One-Click";

/// What the links of one message are made of.
#[derive(Debug)]
pub(crate) struct Links {
    keys: Arc<TokenKeys>,
    /// With the port where it is not that of https.
    host: String,
    message: MessageId,
    tenant: String,
    stream: String,
    campaign: String,
    /// They are answered until then, Unix seconds.
    end: u64,
    /// Of addresses of ours, to which programs write that can't post; `None`: there are none.
    return_domain: Option<Domain>,
    /// URIs that come after ours.
    beside: Vec<UriTemplate>,
}

/// Why a message of a stream with links has none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NoLinks {
    /// The author's domain has no link host.
    Host,
    /// This process has no keys.
    Keys,
}

/// Whose message it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Whose<'a> {
    pub(crate) message: MessageId,
    pub(crate) tenant: &'a str,
    pub(crate) stream: &'a str,
    /// May be empty.
    pub(crate) campaign: &'a str,
    /// Domain of the author.
    pub(crate) author: &'a Domain,
    /// Not before then it leaves, Unix milliseconds: links are answered from then on as long as they are to be.
    pub(crate) leaves_ms: u64,
}

impl Links {
    /// `Ok(None)`: the stream has none.
    pub(crate) fn of(
        headers: &Headers,
        whose: &Whose<'_>,
        snapshot: &Snapshot,
        keys: Option<&TokenKeyring>,
    ) -> Result<Option<Self>, NoLinks> {
        let Some(life) = headers.unsubscribe else {
            return Ok(None);
        };
        let domain = snapshot.sending_domain(whose.author.as_str());
        let host = domain.and_then(|domain| domain.link_host.clone());
        let returned = domain.and_then(|domain| domain.return_path.as_ref());
        let host = host.ok_or(NoLinks::Host)?;
        let keys = keys.ok_or(NoLinks::Keys)?.keys();
        Ok(Some(Self {
            keys,
            host,
            message: whose.message,
            tenant: whose.tenant.to_owned(),
            stream: whose.stream.to_owned(),
            campaign: whose.campaign.to_owned(),
            end: whose.leaves_ms / 1000 + life.as_millis() / 1000,
            return_domain: returned.map(|own| own.domain.clone()),
            beside: headers.list_unsubscribe.clone(),
        }))
    }

    /// The value of `List-Unsubscribe` for a recipient. `None`: none can be made for it.
    pub(crate) fn value(&self, recipient: &str) -> Option<String> {
        let link = Link {
            message: self.message,
            tenant: self.tenant.as_str(),
            stream: &self.stream,
            recipient,
        };
        let text = self.keys.mint_link(&link, self.end).ok()?;
        let mut value = format!("<https://{}/u/{text}>", self.host);
        let by_mail = self.return_domain.as_ref().and_then(|domain| {
            let returned = Returned {
                tenant: &self.tenant,
                stream: &self.stream,
                id: self.message,
                domain,
                end: self.end,
            };
            let address = returned.address(&self.keys, Purpose::Unsubscribe, recipient);
            Some(format!("mailto:{}?subject=unsubscribe", address.ok()?))
        });
        let message = self.message.to_string();
        let values = UriValues {
            message: &message,
            recipient: Some(recipient),
            campaign: &self.campaign,
        };
        // One in each line: RFC 2369 section 2 allows white space between them.
        let beside = self.beside.iter().filter_map(|uri| uri.fill(&values));
        for uri in by_mail.into_iter().chain(beside) {
            value.push_str(",\r\n <");
            value.push_str(&uri);
            value.push('>');
        }
        Some(value)
    }

    /// Both fields for a recipient, each with its CRLF; empty when none can be made.
    pub(crate) fn fields(&self, recipient: &str) -> String {
        match self.value(recipient) {
            None => String::new(),
            Some(value) => {
                format!("List-Unsubscribe: {value}\r\nList-Unsubscribe-Post: {ONE_CLICK}\r\n")
            }
        }
    }
}

/// Whether a header section says itself how to leave, or a signature says that it does not.
pub(crate) fn has_own(header: &[u8], signed: &SignedNames<'_>) -> bool {
    NAMES.iter().any(|name| signed.covers(name))
        || fields(header).any(|field| NAMES.iter().any(|name| field.is(name)))
}

/// Says at each configuration with links that this process, which has no keys, makes none.
pub(crate) async fn warn_without_keys(
    mut snapshots: watch::Receiver<Arc<Snapshot>>,
    shutdown: Shutdown,
) {
    loop {
        let wants_links = snapshots.borrow_and_update().tenants().any(|tenant| {
            let headers = tenant
                .streams
                .iter()
                .filter_map(|stream| stream.headers.as_ref());
            headers
                .into_iter()
                .any(|headers| headers.unsubscribe.is_some())
        });
        if wants_links {
            tracing::error!(
                "streams have unsubscribe, and staffetta.yaml has no tokens: messages get no links"
            );
        }
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            () = shutdown.requested() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use mail::Span;
    use runtime::bootstrap::Tokens;

    use super::*;

    const NOW_MS: u64 = 1_796_000_000_000;

    fn snapshot(headers: &str) -> Snapshot {
        let documents = format!(
            "apiVersion: staffetta.dev/v1alpha1\nkind: Tenant\nmetadata: {{ name: acme }}\n\
             spec: {{ defaultStream: news, streams: [ {{ name: news, headers: {headers} }} ] }}\n---\n\
             apiVersion: staffetta.dev/v1alpha1\nkind: SendingDomain\nmetadata: {{ name: acme.example }}\n\
             spec: {{ tenant: acme, unsigned: true, includeSubdomains: true, linkHost: \"u.acme.example:8443\" }}\n---\n\
             apiVersion: staffetta.dev/v1alpha1\nkind: SendingDomain\nmetadata: {{ name: acme.org }}\n\
             spec: {{ tenant: acme, unsigned: true }}\n---\n\
             apiVersion: staffetta.dev/v1alpha1\nkind: SendingDomain\nmetadata: {{ name: acme.net }}\n\
             spec: {{ tenant: acme, unsigned: true, linkHost: u.acme.net, \
             returnPath: {{ mode: ours, domain: b.acme.net, forwardTo: people@acme.net }} }}\n"
        );
        Snapshot::from_documents(&documents).unwrap()
    }

    fn links(
        headers: &str,
        author: &str,
        keys: Option<&TokenKeyring>,
    ) -> Result<Option<Links>, NoLinks> {
        let snapshot = snapshot(headers);
        let whose = Whose {
            message: MessageId::from_bytes([1; 16]),
            tenant: "acme",
            stream: "news",
            campaign: "may",
            author: &Domain::parse(author).unwrap(),
            leaves_ms: NOW_MS,
        };
        let headers = snapshot
            .tenant("acme")
            .unwrap()
            .stream("news")
            .unwrap()
            .headers
            .clone();
        Links::of(&headers.unwrap(), &whose, &snapshot, keys)
    }

    fn keys(folder: &std::path::Path) -> TokenKeyring {
        let configured = Tokens {
            keys: folder.join("keys"),
            lifetime: Span::from_secs(86_400),
        };
        std::fs::write(&configured.keys, "1 the first secret of ours").unwrap();
        TokenKeyring::load(&configured).unwrap()
    }

    #[test]
    fn each_recipient_gets_a_link_of_its_own_and_what_the_tenant_has_beside() {
        let folder = tempfile::tempdir().unwrap();
        let file = keys(folder.path());
        let headers = "{ unsubscribe: { validFor: 30d }, listUnsubscribe: [ \"mailto:leave@acme.example?subject={recipient}\" ] }";
        let links = links(headers, "mail.acme.example", Some(&file))
            .unwrap()
            .unwrap();
        let fields = links.fields("a+b@d.example");
        let (link, rest) = fields
            .strip_prefix("List-Unsubscribe: <https://u.acme.example:8443/u/")
            .and_then(|rest| rest.split_once('>'))
            .unwrap();
        assert_eq!(
            rest,
            ",\r\n <mailto:leave@acme.example?subject=a%2Bb%40d.example>\r\nList-Unsubscribe-Post: List-Unsubscribe=One-Click\r\n"
        );
        let last = NOW_MS / 1000 + 30 * 86_400;
        let read = file.keys().read_link(link, last).unwrap();
        assert_eq!(
            (
                read.tenant.as_str(),
                read.stream.as_str(),
                read.recipient.as_str()
            ),
            ("acme", "news", "a+b@d.example")
        );
        assert!(file.keys().read_link(link, last + 86_400).is_err());
        assert_ne!(links.value("c@d.example"), links.value("a+b@d.example"));
    }

    #[test]
    fn who_can_not_post_writes_to_an_address_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let file = keys(folder.path());
        let links = links("{ unsubscribe: {} }", "acme.net", Some(&file));
        let value = links.unwrap().unwrap().value("a@d.example").unwrap();
        let (link, mail) = value.split_once(",\r\n <mailto:").unwrap();
        assert!(link.starts_with("<https://u.acme.net/u/1"), "{link}");
        let (local, rest) = mail.split_once('@').unwrap();
        assert_eq!(rest, "b.acme.net?subject=unsubscribe>");
        let domain = Domain::parse("b.acme.net").unwrap();
        let keys = file.keys();
        let token = keys.read(Purpose::Unsubscribe, local, &domain, NOW_MS / 1000);
        let token = token.unwrap();
        assert!(keys.is_of(&token, "a@d.example") && keys.is_in(&token, "acme", "news"));
    }

    #[test]
    fn says_why_there_are_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = keys(folder.path());
        let with = "{ unsubscribe: {} }";
        assert_eq!(
            links(with, "acme.org", Some(&file)).unwrap_err(),
            NoLinks::Host
        );
        assert_eq!(
            links(with, "acme.example", None).unwrap_err(),
            NoLinks::Keys
        );
        assert!(
            links("{ feedbackId: staffetta }", "acme.org", None)
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn a_field_of_the_tenant_is_kept_and_one_that_is_signed_away_is_not_added() {
        for (header, expected) in [
            ("From: a@b\r\nlist-unsubscribe: <https://x>\r\n", true),
            ("From: a@b\r\nList-Unsubscribe-Post: x\r\n", true),
            ("From: a@b\r\nX-List-Unsubscribe: x\r\n", false),
            (
                "DKIM-Signature: h=From:List-Unsubscribe\r\nFrom: a@b\r\n",
                true,
            ),
        ] {
            let header = header.as_bytes();
            assert_eq!(has_own(header, &SignedNames::of(header)), expected);
        }
    }
}
