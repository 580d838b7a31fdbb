//! What is counted for the reports about TLS that domains ask for (RFC 8460).
//!
//! Each session is counted here, in memory, and told every few minutes as events: of the domains that ask for reports, which
//! is looked up then and not while mail waits. What is not told yet is lost with the process.

mod counts;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dns::Resolver;
use futures::StreamExt as _;
use proto::event::Event;
use proto::event::event::Kind;
use tlsrpt::{Day, Failure, Policy};

use counts::{Counts, Told};

/// How often is told what was counted.
const TELL_EVERY: Duration = Duration::from_secs(300);
/// Domains that are asked about at a time.
const ASKED_AT_ONCE: usize = 16;

/// Takes events; never waits.
pub(crate) type Tell = Arc<dyn Fn(Event) + Send + Sync>;

/// A session with a host, or one that could not be begun for the policy that holds.
pub(crate) struct Session<'a> {
    /// The recipient domain.
    pub domain: &'a str,
    pub policy: Policy,
    /// How it failed, if it did.
    pub failure: Option<Failure>,
}

/// See the module. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Reporting {
    /// `None`: nothing is reported.
    shared: Option<Arc<Shared>>,
}

struct Shared {
    counts: Mutex<Counts>,
    tell: Tell,
}

impl Reporting {
    pub fn new(tell: Option<Tell>) -> Self {
        let shared = tell.map(|tell| {
            Arc::new(Shared {
                counts: Mutex::default(),
                tell,
            })
        });
        Self { shared }
    }

    pub fn is_on(&self) -> bool {
        self.shared.is_some()
    }

    /// Counts a session.
    pub fn note(&self, session: Session<'_>) {
        if let Some(shared) = &self.shared {
            let day = Day::of(runtime::now_ms());
            shared.counts().note(day, session);
        }
    }

    /// Counts a policy of the domain that could not be had, for a reason in the words of RFC 8460 section 4.3.2.
    pub fn note_policy(&self, domain: &str, result: &str) {
        if !self.is_on() {
            return;
        }
        self.note(Session {
            domain,
            policy: Policy {
                kind: "sts".into(),
                domain: domain.into(),
                ..Policy::default()
            },
            failure: Some(Failure {
                result: result.into(),
                ..Failure::default()
            }),
        });
    }

    /// Tells again and again.
    pub async fn keep_telling(self, resolver: Resolver) {
        if !self.is_on() {
            return;
        }
        loop {
            tokio::time::sleep(TELL_EVERY).await;
            self.tell(&resolver).await;
        }
    }

    /// Tells what was counted since it was told last.
    pub async fn tell(&self, resolver: &Resolver) {
        let Some(shared) = &self.shared else {
            return;
        };
        let counted = shared.counts().take();
        let (by_domain, left_out) = (counted.by_domain, counted.left_out);
        if left_out > 0 {
            tracing::warn!(
                left_out,
                "sessions are missing in reports about TLS: there are too many domains"
            );
        }
        futures::stream::iter(by_domain)
            .for_each_concurrent(ASKED_AT_ONCE, |(domain, told)| async move {
                if asks_for_reports(resolver, &domain).await {
                    told.into_iter().for_each(|told| (shared.tell)(event(told)));
                }
            })
            .await;
    }
}

impl Shared {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where that can't be found out now it is told all the same: who reports will ask again.
async fn asks_for_reports(resolver: &Resolver, domain: &str) -> bool {
    match resolver.texts(&format!("_smtp._tls.{domain}")).await {
        Ok(texts) => tlsrpt::endpoints(texts.iter().map(|text| &**text))
            .is_some_and(|endpoints| !endpoints.is_empty()),
        Err(error) => !error.is_permanent(),
    }
}

fn event(told: Told) -> Event {
    Event {
        // A moment of the day that it is counted for, whenever it is told.
        at_ms: told.day.start_ms(),
        kind: Some(Kind::TlsSessions(told.sessions)),
        ..Event::default()
    }
}
