//! Mail of senders who are not of the tenant: return paths rewritten, and led back when it bounces.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use config::{LongReturnPath, ReturnPath, Snapshot};
use mail::{Address, Domain};
use runtime::Shutdown;
use smtp::EnhancedCode;
use srs::{ReverseError, Rewriter, Secrets};

use crate::answer::Answer;
use crate::policy::{self, Author, Sender};

/// How often the file of secrets is looked at.
const SECRETS_CHECK: Duration = Duration::from_secs(60);

/// What mail is forwarded with, followed when its file changes.
pub(crate) struct Forwarding {
    configured: runtime::bootstrap::Forwarding,
    current: ArcSwap<Loaded>,
    /// Where the keys of signatures are asked for.
    pub(crate) resolver: dns::Resolver,
}

struct Loaded {
    rewriter: Rewriter,
    /// When the file was changed last; `None` where the file system does not say.
    written: Option<SystemTime>,
}

/// Nothing can be forwarded.
#[derive(Debug, thiserror::Error)]
pub enum ForwardingError {
    /// The secrets can't be used.
    #[error("the secrets of SRS, {}: {why}", path.display())]
    Secrets {
        /// Where they should be.
        path: PathBuf,
        /// Why not; says nothing of what is in the file.
        why: String,
    },
    /// The resolver can't be set up.
    #[error("forwarding: {0}")]
    Resolver(#[from] dns::Error),
}

impl Forwarding {
    /// Reads the secrets. Keys are asked of these servers, or those of the system.
    pub(crate) fn load(
        configured: &runtime::bootstrap::Forwarding,
        resolvers: &[SocketAddr],
    ) -> Result<Self, ForwardingError> {
        let written = written(configured);
        let rewriter = rewriter(configured)?;
        Ok(Self {
            configured: configured.clone(),
            current: ArcSwap::from_pointee(Loaded { rewriter, written }),
            resolver: dns::Resolver::new(resolvers)?,
        })
    }

    /// Reads the secrets again if they were written since; those in use stay when the new ones are no good. `Ok(true)` when
    /// there are new ones.
    fn reload(&self) -> Result<bool, ForwardingError> {
        let written = written(&self.configured);
        if written == self.current.load().written {
            return Ok(false);
        }
        let rewriter = rewriter(&self.configured)?;
        self.current.store(Arc::new(Loaded { rewriter, written }));
        Ok(true)
    }
}

fn written(configured: &runtime::bootstrap::Forwarding) -> Option<SystemTime> {
    let file = std::fs::metadata(&configured.secrets);
    file.and_then(|file| file.modified()).ok()
}

fn rewriter(configured: &runtime::bootstrap::Forwarding) -> Result<Rewriter, ForwardingError> {
    let error = |why: String| ForwardingError::Secrets {
        path: configured.secrets.clone(),
        why,
    };
    let text =
        std::fs::read_to_string(&configured.secrets).map_err(|found| error(found.to_string()))?;
    let secrets = Secrets::parse_and_forget(text).map_err(|found| error(found.to_string()))?;
    Ok(Rewriter::new(
        Arc::new(secrets),
        configured.hash_length,
        configured.max_age_days(),
    ))
}

/// Follows the file of secrets until shutdown.
pub(crate) async fn follow(forwarding: Arc<Forwarding>, shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(SECRETS_CHECK) => {}
            () = shutdown.requested() => return,
        }
        match forwarding.reload() {
            Ok(true) => tracing::info!("new secrets of SRS"),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%error, "the changed secrets are no good; the old ones stay");
            }
        }
    }
}

/// The return path of a message whose client says `path` (`None` = `<>`), empty for the null one. One of the tenant's
/// domains stays as it is. `now` is in Unix seconds.
pub(crate) fn return_path(
    forwarding: Option<&Forwarding>,
    sender: &Sender,
    snapshot: &Snapshot,
    path: Option<&Address>,
    hostname: &str,
    now: u64,
) -> Result<String, Answer> {
    let Some(path) = path else {
        return Ok(String::new());
    };
    let not_yours = || policy::not_yours(path.domain_text());
    let domain = path.domain().ok_or_else(not_yours)?;
    if policy::owns(snapshot, &sender.tenant, &domain) {
        return Ok(path.as_str().to_owned());
    }
    let (Some(forwarding), Some(foreign)) = (forwarding, sender.foreign_senders()) else {
        return Err(not_yours());
    };
    match foreign.return_path {
        // The SPF record of a neighbour's domain, or of ours, names the addresses that mail of all tenants leaves from: with
        // its return path this message would pass for the neighbour's own.
        ReturnPath::Keep
            if snapshot.sending_domain(domain.as_str()).is_some()
                || is_near_us(snapshot, hostname, &domain) =>
        {
            Err(not_yours())
        }
        ReturnPath::Keep => Ok(path.as_str().to_owned()),
        ReturnPath::Srs => {
            let rewriter = &forwarding.current.load().rewriter;
            match (
                rewriter.forward(path, &foreign.domain, now),
                foreign.long_return_path,
            ) {
                (Ok(rewritten), _) => Ok(rewritten.as_str().to_owned()),
                (Err(_), LongReturnPath::Empty) => Ok(String::new()),
                (Err(_), LongReturnPath::Reject) => Err(TOO_LONG),
            }
        }
    }
}

/// Whether a foreign author may be named in a message of a tenant whose return path is `path`, empty for the null one. SPF
/// passes for the return path, and without one for the name that we say in EHLO; then DMARC passes for authors of that
/// name's organisation. Neither as us nor as a neighbour may anybody send so.
pub(crate) fn may_author(
    snapshot: &Snapshot,
    hostname: &str,
    tenant: &str,
    author: &Author,
    path: &str,
) -> Result<(), Answer> {
    let of_path = path
        .rsplit_once('@')
        .map(|(_, domain)| domain.to_ascii_lowercase());
    let passes_for = |domain: &Domain| match &of_path {
        None => is_near_us(snapshot, hostname, domain),
        Some(of_path) => {
            organisation(domain.as_str()) == organisation(of_path)
                && !policy::owns(snapshot, tenant, domain)
                && (snapshot.sending_domain(domain.as_str()).is_some()
                    || is_near_us(snapshot, hostname, domain))
        }
    };
    let mut domains = std::iter::once(&author.domain).chain(&author.others);
    let near = domains.find(|domain| passes_for(domain));
    near.map_or(Ok(()), |domain| Err(policy::not_yours(domain.as_str())))
}

/// Whether the domain has an organisation in common with a name that we have in banner or EHLO.
fn is_near_us(snapshot: &Snapshot, hostname: &str, domain: &Domain) -> bool {
    let of_sources = snapshot.pools().flat_map(|pool| &pool.sources);
    let names = of_sources.filter_map(|source| Some(source.ehlo.as_ref()?.as_str()));
    std::iter::once(hostname)
        .chain(names)
        .any(|name| organisation(name) == organisation(domain.as_str()))
}

/// The registered part of a name: its last two labels, or three where the second one stands for a kind of registrant, as in
/// `co.uk`. Takes rather too much for one organisation than too little.
fn organisation(name: &str) -> &str {
    const KINDS: [&str; 12] = [
        "ac", "co", "com", "edu", "gob", "gov", "go", "ne", "net", "or", "org", "sch",
    ];
    let mut dots = name.rmatch_indices('.').map(|(at, _)| at);
    let (Some(last), Some(second)) = (dots.next(), dots.next()) else {
        return name;
    };
    let is_kind = name.len() - last == 3 && KINDS.contains(&&name[second + 1..last]);
    let before = if is_kind { dots.next() } else { Some(second) };
    before.map_or(name, |at| &name[at + 1..])
}

/// Whom a recipient stands for: a rewritten return path of ours leads back to whoever sent the message that bounces. `now`
/// is in Unix seconds.
pub(crate) fn recipient(
    forwarding: &Forwarding,
    sender: &Sender,
    address: Address,
    now: u64,
) -> Result<Address, Answer> {
    let Some(foreign) = sender.foreign_senders() else {
        return Ok(address);
    };
    if !srs::is_rewritten(&address) || address.domain().as_ref() != Some(&foreign.domain) {
        return Ok(address);
    }
    let led_back = forwarding.current.load().rewriter.reverse(&address, now);
    led_back.map_err(|error| match error {
        ReverseError::Expired => LEADS_BACK_NO_MORE,
        ReverseError::NotRewritten | ReverseError::Malformed | ReverseError::Hash => NOT_OURS,
    })
}

/// RFC 5321 section 4.5.3.1.1: 64 octets.
const TOO_LONG: Answer = Answer::new(
    550,
    EnhancedCode(5, 1, 7),
    "Return path is too long to be rewritten",
);
/// To somebody else's guess, and to what a typing error made of an address.
const NOT_OURS: Answer = Answer::new(
    550,
    EnhancedCode(5, 7, 1),
    "This SRS address was not made here",
);
const LEADS_BACK_NO_MORE: Answer =
    Answer::new(550, EnhancedCode(5, 7, 1), "This SRS address has expired");

#[cfg(test)]
mod tests {
    use mail::Span;

    use super::*;
    use crate::policy::{Identity, authorise};
    use crate::proxy::Client;

    const DAY: u64 = 86_400;
    const NOW: u64 = 20_787 * DAY;
    const HOST: &str = "relay.platform.example";

    /// A credential with these `foreignSenders`.
    fn snapshot(foreign: &str, may_forward: bool) -> Snapshot {
        let documents = format!(
            "apiVersion: staffetta.dev/v1alpha1\nkind: Tenant\nmetadata: {{ name: acme }}\n\
             spec: {{ defaultStream: m, streams: [ {{ name: m }} ], mayForward: {may_forward} }}\n---\n\
             apiVersion: staffetta.dev/v1alpha1\nkind: Tenant\nmetadata: {{ name: other }}\n\
             spec: {{ defaultStream: m, streams: [ {{ name: m }} ] }}\n---\n\
             apiVersion: staffetta.dev/v1alpha1\nkind: SendingDomain\nmetadata: {{ name: acme.example }}\n\
             spec: {{ tenant: acme, unsigned: true }}\n---\n\
             apiVersion: staffetta.dev/v1alpha1\nkind: SendingDomain\nmetadata: {{ name: other.example }}\n\
             spec: {{ tenant: other, unsigned: true }}\n---\n\
             apiVersion: staffetta.dev/v1alpha1\nkind: Credential\nmetadata: {{ name: relay }}\n\
             spec: {{ tenant: acme, networks: [ 192.0.2.0/24 ]{foreign} }}\n"
        );
        Snapshot::from_documents(&documents).unwrap()
    }

    fn sender(snapshot: &Snapshot) -> Sender {
        let client = Client::connected("192.0.2.1".parse().unwrap());
        authorise(snapshot, None::<&Identity>, &[], client, None).unwrap()
    }

    fn forwarding(folder: &std::path::Path, secrets: &str) -> Forwarding {
        let path = folder.join("secrets");
        std::fs::write(&path, secrets).unwrap();
        let configured = runtime::bootstrap::Forwarding {
            secrets: path,
            hash_length: 4,
            max_age: Span::from_secs(21 * DAY),
        };
        Forwarding::load(&configured, &[([127, 0, 0, 1], 53).into()]).unwrap()
    }

    const SECRET: &str = "a secret of the test\n";
    const SRS: &str = ", foreignSenders: { domain: acme.example }";
    const SRS_OR_NULL: &str = ", foreignSenders: { domain: acme.example, longReturnPath: empty }";
    const KEEP: &str = ", foreignSenders: { domain: acme.example, returnPath: keep }";

    #[test]
    fn return_paths_become_what_the_credential_says() {
        let folder = tempfile::tempdir().unwrap();
        let forwarding = forwarding(folder.path(), SECRET);
        let long = format!("{}@sender.example", "a".repeat(60));
        let own = "a@acme.example";
        for (foreign, path, expected) in [
            ("", own, Ok(own)),
            ("", "", Ok("")),
            ("", "a@sender.example", Err(550)),
            (SRS, own, Ok(own)),
            (SRS, "", Ok("")),
            (
                SRS,
                "a@sender.example",
                Ok("SRS0=JPRg=JT=sender.example=a@acme.example"),
            ),
            (
                SRS,
                "a@other.example",
                Ok("SRS0=wG9S=JT=other.example=a@acme.example"),
            ),
            (SRS, "a@[192.0.2.1]", Err(550)),
            (SRS, &long, Err(550)),
            (SRS_OR_NULL, &long, Ok("")),
            (KEEP, own, Ok(own)),
            (KEEP, "a@sender.example", Ok("a@sender.example")),
            (KEEP, &long, Ok(&long)),
            // Of a neighbour, who has the same source addresses in the SPF record.
            (KEEP, "a@other.example", Err(550)),
            (KEEP, "a@platform.example", Err(550)),
        ] {
            let snapshot = snapshot(foreign, !foreign.is_empty());
            let parsed = (!path.is_empty()).then(|| Address::parse(path).unwrap());
            let of = |forwarding| {
                return_path(
                    forwarding,
                    &sender(&snapshot),
                    &snapshot,
                    parsed.as_ref(),
                    HOST,
                    NOW,
                )
                .map_err(|refusal| refusal.code)
            };
            assert_eq!(
                of(Some(&forwarding)),
                expected.map(str::to_owned),
                "{foreign} {path}"
            );
            // Whoever runs the installation has not allowed it.
            let is_own = path.is_empty() || path == own;
            assert_eq!(of(None).is_ok(), is_own, "{foreign} {path}");
        }
    }

    #[test]
    fn a_return_path_of_ours_leads_back_for_clients_that_forward() {
        let folder = tempfile::tempdir().unwrap();
        let forwarding = forwarding(folder.path(), SECRET);
        let led = |foreign: &str, address: &str, now: u64| {
            let snapshot = snapshot(foreign, !foreign.is_empty());
            let address = Address::parse(address).unwrap();
            recipient(&forwarding, &sender(&snapshot), address, now)
                .map(|address| address.to_string())
                .map_err(|refusal| refusal.text.into_owned())
        };
        let ours = "SRS0=JPRg=JT=sender.example=a@acme.example";
        assert_eq!(led(SRS, ours, NOW), Ok("a@sender.example".to_owned()));
        assert_eq!(
            led(SRS, &ours.to_ascii_lowercase(), NOW),
            Ok("a@sender.example".to_owned())
        );
        assert_eq!(
            led(SRS, ours, NOW + 22 * DAY),
            Err(LEADS_BACK_NO_MORE.text.into_owned())
        );
        let forged = ours.replace("=a@", "=b@");
        assert_eq!(led(SRS, &forged, NOW), Err(NOT_OURS.text.into_owned()));
        // Addresses of others are none of our business, nor are ours for who does not forward.
        let foreign = ours.replace("acme.", "elsewhere.");
        assert_eq!(led(SRS, &foreign, NOW), Ok(foreign.clone()));
        assert_eq!(led("", ours, NOW), Ok(ours.to_owned()));
    }

    #[test]
    fn nobody_speaks_as_us_without_a_return_path() {
        let pool = "---\napiVersion: staffetta.dev/v1alpha1\nkind: EgressPool\nmetadata: { name: p }\n\
                    spec: { sources: [ { name: a, ehlo: out.mail.co.uk } ] }\n\
                    ---\napiVersion: staffetta.dev/v1alpha1\nkind: Tenant\nmetadata: { name: boss }\n\
                    spec: { defaultStream: m, streams: [ { name: m } ] }\n\
                    ---\napiVersion: staffetta.dev/v1alpha1\nkind: Tenant\nmetadata: { name: dept }\n\
                    spec: { defaultStream: m, streams: [ { name: m } ] }\n\
                    ---\napiVersion: staffetta.dev/v1alpha1\nkind: SendingDomain\nmetadata: { name: boss.campus.edu }\n\
                    spec: { tenant: boss, unsigned: true }\n\
                    ---\napiVersion: staffetta.dev/v1alpha1\nkind: SendingDomain\nmetadata: { name: dept.campus.edu }\n\
                    spec: { tenant: dept, unsigned: true }\n";
        let snapshot = Snapshot::from_documents(pool).unwrap();
        for (author, path, expected) in [
            ("sender.example", "", true),
            ("platform.example", "", false),
            ("billing.platform.example", "", false),
            ("a.relay.platform.example", "", false),
            ("platform.example", "SRS0=a@acme.example", true),
            // SPF passes for the return path, and DMARC for its organisation.
            ("platform.example", "SRS0=a@mail.platform.example", false),
            ("boss.campus.edu", "SRS0=a@dept.campus.edu", false),
            ("dept.campus.edu", "SRS0=a@dept.campus.edu", true),
            ("elsewhere.campus.edu", "SRS0=a@dept.campus.edu", true),
            ("xplatform.example", "", true),
            ("mail.co.uk", "", false),
            ("in.mail.co.uk", "", false),
            ("other.co.uk", "", true),
        ] {
            let first = Domain::parse("first.example").unwrap();
            let author = Domain::parse(author).unwrap();
            for (domain, others) in [(author.clone(), vec![]), (first, vec![author])] {
                let author = Author {
                    domain,
                    others,
                    is_foreign: true,
                };
                let may = may_author(&snapshot, HOST, "dept", &author, path).is_ok();
                assert_eq!(may, expected, "{author:?} {path}");
            }
        }
    }

    #[test]
    fn follows_the_file_of_secrets_and_keeps_what_works() {
        let folder = tempfile::tempdir().unwrap();
        let forwarding = forwarding(folder.path(), SECRET);
        let path = folder.path().join("secrets");
        assert!(!forwarding.reload().unwrap());
        let rewrite = |text: &str, seconds| {
            std::fs::write(&path, text).unwrap();
            let later = SystemTime::now() + Duration::from_secs(seconds);
            let file = std::fs::File::options().append(true).open(&path).unwrap();
            file.set_modified(later).unwrap();
        };
        let snapshot = snapshot(SRS, true);
        let sender = sender(&snapshot);
        let foreign = Address::parse("a@sender.example").unwrap();
        let rewritten = || {
            return_path(
                Some(&forwarding),
                &sender,
                &snapshot,
                Some(&foreign),
                HOST,
                NOW,
            )
            .unwrap()
        };
        let before = rewritten();
        rewrite("short\n", 10);
        let error = forwarding.reload().unwrap_err().to_string();
        assert!(
            error.contains("line 1") && !error.contains("short"),
            "{error}"
        );
        assert_eq!(rewritten(), before);
        rewrite(&format!("another secret of it\n{SECRET}"), 20);
        assert!(forwarding.reload().unwrap());
        assert_ne!(rewritten(), before);
        let before = Address::parse(&before).unwrap();
        let led_back = recipient(&forwarding, &sender, before, NOW).unwrap();
        assert_eq!(led_back, foreign);
    }
}
