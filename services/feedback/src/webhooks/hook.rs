//! One webhook: what its lines share.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use config::Webhook;
use proto::webhook::{Attempt, State};
use runtime::{Answer, HttpsError, Post, WebClient, WebConnection};
use tokio::io::AsyncReadExt;
use tokio::sync::watch;
use tokio::time::Instant;

use super::metrics::HookMetrics;
use super::pace::Verdict;
use super::signature::{Secret, sign};
use crate::feed::Piece;

/// Attempts that are kept.
const ATTEMPTS: usize = 100;
/// Octets of a file with a secret.
const LONGEST_SECRET: u64 = 4_096;
/// Secrets and authorities are read again after so long.
const READ_AGAIN: Duration = Duration::from_secs(10);

/// The event that is posted only to those who name it.
const GIVEN_UP: &str = "WebhookGivenUp";

/// A post that was answered, or not.
pub(crate) type Outcome = Result<Answer, Trouble>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Trouble {
    #[error("a secret can't be read: {0}")]
    Secret(String),
    #[error("the authorities can't be read: {0}")]
    Authorities(String),
    #[error(transparent)]
    Web(#[from] HttpsError),
}

/// What its lines share.
pub(crate) struct Hook {
    pub(crate) config: Arc<Webhook>,
    pub(crate) metrics: HookMetrics,
    /// Nothing is posted.
    paused: watch::Sender<bool>,
    state: Mutex<State>,
    is_changed: AtomicBool,
    /// Held by the replay that is under way.
    pub(crate) replay: tokio::sync::Mutex<()>,
    clients: Arc<Clients>,
    keys: tokio::sync::Mutex<Option<(Instant, Keys)>>,
}

/// A client for each file of authorities; `None` = those of the system.
#[derive(Default)]
pub(crate) struct Clients {
    read: tokio::sync::Mutex<HashMap<Option<PathBuf>, (Instant, WebClient)>>,
}

impl Clients {
    /// One file is read at a time, and again after a while.
    async fn of(&self, authorities: Option<&Path>) -> Result<WebClient, Trouble> {
        let authorities = authorities.map(Path::to_owned);
        let mut read = self.read.lock().await;
        read.retain(|_, (at, _)| at.elapsed() < READ_AGAIN);
        if let Some((_, client)) = read.get(&authorities) {
            return Ok(client.clone());
        }
        let of = authorities.clone();
        let client = tokio::task::spawn_blocking(move || WebClient::trusting(of.as_deref()))
            .await
            .map_err(|error| Trouble::Authorities(error.to_string()))?
            .map_err(|error| Trouble::Authorities(error.to_string()))?;
        read.insert(authorities, (Instant::now(), client.clone()));
        Ok(client)
    }
}

/// What is read from files.
#[derive(Clone)]
struct Keys {
    client: WebClient,
    secrets: Arc<[Secret]>,
}

impl Hook {
    pub(crate) fn new(config: Arc<Webhook>, state: State, clients: Arc<Clients>) -> Self {
        let paused = watch::Sender::new(config.disabled || state.gone_since_ms > 0);
        Self {
            metrics: HookMetrics::new(&config.name),
            config,
            paused,
            state: Mutex::new(state),
            is_changed: AtomicBool::new(false),
            replay: tokio::sync::Mutex::new(()),
            clients,
            keys: tokio::sync::Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an event is posted. What is told about itself is not: it would be told again.
    pub(crate) fn wants(&self, piece: &Piece) -> bool {
        let config = &*self.config;
        let is_named = |names: &[String], name: &str| {
            names.is_empty() || names.iter().any(|wanted| wanted == name)
        };
        let of_tenant = match &config.tenant {
            Some(tenant) => **tenant == *piece.tenant,
            None => true,
        };
        // Two that fail would have ever more to tell about each other.
        let is_asked_for =
            *piece.kind != *GIVEN_UP || config.events.iter().any(|wanted| wanted == GIVEN_UP);
        of_tenant
            && is_asked_for
            && is_named(&config.events, &piece.kind)
            && is_named(&config.streams, &piece.stream)
            && *config.name != *piece.webhook
    }

    /// Waits until it is posted to.
    pub(crate) async fn active(&self) {
        let mut paused = self.paused.subscribe();
        // Its sender is here.
        paused.wait_for(|paused| !paused).await.ok();
    }

    /// Since when it is gone, Unix milliseconds; 0 = it is not.
    pub(crate) fn gone_since_ms(&self) -> u64 {
        self.state().gone_since_ms
    }

    /// Nothing is posted until it is enabled.
    pub(crate) fn gone(&self, now_ms: u64) {
        self.state().gone_since_ms = now_ms.max(1);
        self.is_changed.store(true, Relaxed);
        self.paused.send_replace(true);
    }

    /// It is posted to again.
    pub(crate) fn enable(&self) {
        self.state().gone_since_ms = 0;
        self.is_changed.store(true, Relaxed);
        self.paused.send_replace(self.config.disabled);
    }

    /// `Order.replay_at_ms` of the last order to replay that was carried out; 0 = none was.
    pub(crate) fn replayed_ms(&self) -> u64 {
        self.state().replayed_ms
    }

    /// An order to replay is carried out.
    pub(crate) fn replayed(&self, replay_at_ms: u64) {
        self.state().replayed_ms = replay_at_ms;
        self.is_changed.store(true, Relaxed);
    }

    pub(crate) fn note(&self, attempt: Attempt) {
        let mut state = self.state();
        let mut attempts = VecDeque::from(std::mem::take(&mut state.attempts));
        if attempts.len() >= ATTEMPTS {
            attempts.pop_front();
        }
        attempts.push_back(attempt);
        state.attempts = attempts.into();
        self.is_changed.store(true, Relaxed);
    }

    /// What is known of it, and whether it has changed since it was asked for last.
    pub(crate) fn take_state(&self) -> (State, bool) {
        let is_changed = self.is_changed.swap(false, Relaxed);
        let state = State {
            webhook: self.config.name.clone(),
            ..self.state().clone()
        };
        (state, is_changed)
    }

    /// What was taken could not be kept.
    pub(crate) fn put_back(&self) {
        self.is_changed.store(true, Relaxed);
    }

    /// Posts, over the connection of the line or another one.
    pub(crate) async fn post(
        &self,
        connection: &mut Option<WebConnection>,
        id: &str,
        body: &Bytes,
        now_ms: u64,
    ) -> Outcome {
        let deadline = Instant::now() + self.config.timeout.duration();
        let keys = self.keys().await?;
        let seconds = now_ms / 1_000;
        let signature = sign(&keys.secrets, id, seconds, body);
        let post = || Post {
            url: &self.config.url,
            fields: vec![
                ("webhook-id", id.to_owned()),
                ("webhook-timestamp", seconds.to_string()),
                ("webhook-signature", signature.clone()),
            ],
            body: body.clone(),
            deadline,
        };
        if let Some(mut kept) = connection.take().filter(WebConnection::is_open) {
            // The server may have closed it this very moment: another one is tried. At worst it is posted twice.
            if let Ok(answer) = kept.post(post()).await {
                if answer.is_kept {
                    *connection = Some(kept);
                }
                return Ok(answer);
            }
        }
        let may = |address| self.config.allow_private || !dns::is_private_target(address);
        let connected = keys.client.connect(&self.config.url, may, deadline).await;
        let mut fresh = connected?;
        let answer = fresh.post(post()).await?;
        if answer.is_kept {
            *connection = Some(fresh);
        }
        Ok(answer)
    }

    async fn keys(&self) -> Result<Keys, Trouble> {
        // Others wait for who reads them.
        let mut kept = self.keys.lock().await;
        if let Some((at, keys)) = &*kept
            && at.elapsed() < READ_AGAIN
        {
            return Ok(keys.clone());
        }
        let mut secrets = Vec::new();
        for path in &self.config.secrets {
            let named = |what: String| Trouble::Secret(format!("{}: {what}", path.display()));
            let text = read(path).await.map_err(|error| named(error.to_string()))?;
            let secret: Result<Secret, _> = text.parse();
            secrets.push(secret.map_err(|error| named(error.to_string()))?);
        }
        let client = self.clients.of(self.config.authorities.as_deref()).await?;
        let keys = Keys {
            client,
            secrets: secrets.into(),
        };
        *kept = Some((Instant::now(), keys.clone()));
        Ok(keys)
    }
}

async fn read(path: &Path) -> std::io::Result<String> {
    let file = tokio::fs::File::open(path).await?;
    let mut text = String::new();
    file.take(LONGEST_SECRET).read_to_string(&mut text).await?;
    Ok(text)
}

/// What an outcome means. Redirections are not followed: the endpoint that somebody chose is the one that gets the events.
pub(crate) fn verdict(outcome: &Outcome) -> Verdict {
    match outcome {
        Ok(answer) => match answer.status {
            200..=299 => Verdict::Accepted,
            400 | 413 | 422 => Verdict::Refused,
            410 => Verdict::Gone,
            _ => Verdict::Failed(answer.retry_after),
        },
        Err(_) => Verdict::Failed(None),
    }
}

/// In words, for the log of attempts.
pub(crate) fn reason(outcome: &Outcome) -> String {
    match outcome {
        Ok(answer) => format!("the endpoint answered {}", answer.status),
        Err(trouble) => trouble.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use config::Snapshot;
    use serde_json::json;

    use super::*;

    fn hook(more: &str) -> Hook {
        let documents = format!(
            "apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: {{ name: acme }}
spec: {{ defaultStream: bulk, streams: [ {{ name: bulk }} ] }}
---
apiVersion: staffetta.dev/v1alpha1
kind: Webhook
metadata: {{ name: w }}
spec: {{ url: \"https://a.example/\", secrets: [ \"file:/s\" ], {more} }}
"
        );
        let snapshot = Snapshot::from_documents(&documents).unwrap();
        Hook::new(
            Arc::clone(snapshot.webhook("w").unwrap()),
            State::default(),
            Arc::default(),
        )
    }

    #[test]
    fn a_webhook_gets_what_it_asks_for_and_nothing_of_others() {
        let events = [
            json!({ "type": "Delivery", "tenant": "acme", "stream": "bulk" }),
            json!({ "type": "Bounce", "tenant": "acme", "stream": "bulk" }),
            json!({ "type": "Delivery", "tenant": "other", "stream": "bulk" }),
            json!({ "type": "Rejection", "tenant": "acme" }),
            json!({ "type": "Claim" }),
            json!({ "type": "WebhookGivenUp", "tenant": "acme", "webhook": "w" }),
            json!({ "type": "WebhookGivenUp", "tenant": "acme", "webhook": "v" }),
        ];
        for (more, expected) in [
            ("", "1111100"),
            ("tenant: acme", "1101000"),
            ("tenant: acme, events: [ WebhookGivenUp ]", "0000001"),
            ("tenant: acme, streams: [ bulk ]", "1100000"),
            ("events: [ Delivery, Claim ]", "1010100"),
            ("tenant: acme, events: [ Delivery ]", "1000000"),
        ] {
            let hook = hook(more);
            let wanted = events.iter().map(|event| hook.wants(&Piece::of(event)));
            let wanted: String = wanted.map(|is| if is { '1' } else { '0' }).collect();
            assert_eq!(wanted, expected, "{more}");
        }
    }

    #[test]
    fn the_last_attempts_are_kept() {
        let hook = hook("");
        for number in 0..150 {
            hook.note(Attempt {
                number,
                ..Attempt::default()
            });
        }
        let (state, is_changed) = hook.take_state();
        assert!(is_changed && !hook.take_state().1);
        let numbers: Vec<u32> = state
            .attempts
            .iter()
            .map(|attempt| attempt.number)
            .collect();
        assert_eq!(numbers, (50..150).collect::<Vec<_>>());
        hook.replayed(7);
        let (state, is_changed) = hook.take_state();
        assert!(is_changed && state.replayed_ms == 7);
    }
}
