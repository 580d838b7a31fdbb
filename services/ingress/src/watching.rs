//! Stolen credentials (requirement A22): what a watched credential does is noted beside its mail, judged, told, and, where
//! its tenant wants that, answered with a measure.
//!
//! | where | what |
//! |---|---|
//! | the connection | [`Watcher::note`]: one word into a bounded queue, after the reply |
//! | a task of this module | packs the words of a moment, asks Redis for the picture, judges it ([`verdict`]) |
//! | the bucket `config` | measures: one process takes one, all follow |
//! | the session | at MAIL and AUTH, what the measures that it knows say |
//!
//! Without Redis nothing new is noticed, and measures hold on; without NATS those that are known do. Mail waits for
//! neither.

mod verdict;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use config::{Credential, Quota, SignalRule, Snapshot, Watch};
use limits::{Bound, Bounds, Claimed, Claims, Doings, Habits};
use mail::MessageId;
use proto::event::event::Kind;
use proto::event::{CredentialMeasure, CredentialNoticed};
use proto::watch::{Action, Measure};
use spool::{MeasureMap, Measures};
use tokio::sync::{mpsc, watch};

use crate::content::Received;
use crate::events::{self, Events, Whose};
use crate::metrics::WatchMetrics;
use crate::policy::{Rules, Sender};
use crate::proxy::Client;
use crate::session::Transaction;
use verdict::{Verdict, cause, judge};

/// Words that wait; more are lost.
const QUEUE: usize = 4_096;
/// Words of so long are packed: the credential of a busy client asks Redis five times a second.
const LINGER: Duration = Duration::from_millis(200);
/// Of a pack, for one credential.
const MOST_OF_A_PACK: usize = 256;
/// The same signal of the same credential is told again after so long.
const TELL_AGAIN: Duration = Duration::from_secs(6 * 3_600);
/// Signals that are remembered as told.
const MOST_TOLD: usize = 10_000;

/// What a watched credential did.
pub(crate) struct Seen {
    rules: Rules,
    network: String,
    what: What,
}

enum What {
    Accepted {
        recipients: u64,
        sender: String,
        weight: u64,
    },
    Refused {
        recipients: u64,
    },
    Login,
    LoginFailed,
}

impl Seen {
    /// A message that is about to be accepted; `None` when its credential is not watched.
    pub(crate) fn message(
        transaction: &Transaction,
        received: &Received,
        client: Client,
    ) -> Option<Self> {
        let rules = &transaction.sender.rules;
        rules.watch()?;
        let sender = format!(
            "{}\n{}",
            transaction.return_path, received.judged.from_domain
        );
        let mut sender = URL_SAFE_NO_PAD.encode(digest(&SHA256, sender.as_bytes()));
        sender.truncate(12);
        let what = What::Accepted {
            recipients: transaction.recipients.len() as u64,
            sender,
            weight: received.judged.warned.into(),
        };
        Some(Self::of(rules, client, what))
    }

    /// Recipients that were refused.
    pub(crate) fn refused(rules: &Rules, client: Client, recipients: usize) -> Option<Self> {
        rules.watch()?;
        let recipients = recipients.max(1) as u64;
        Some(Self::of(rules, client, What::Refused { recipients }))
    }

    /// A login of a credential, and whether it succeeded.
    pub(crate) fn login(
        credential: &Arc<Credential>,
        snapshot: &Snapshot,
        client: Client,
        succeeded: bool,
    ) -> Option<Self> {
        let rules = Rules::of(credential, snapshot)?;
        rules.watch()?;
        let what = match succeeded {
            true => What::Login,
            false => What::LoginFailed,
        };
        Some(Self::of(&rules, client, what))
    }

    fn of(rules: &Rules, client: Client, what: What) -> Self {
        Self {
            rules: rules.clone(),
            network: events::network_text(client),
            what,
        }
    }
}

/// Notes what watched credentials do, and knows what is done about credentials.
pub(crate) struct Watcher {
    queue: mpsc::Sender<Seen>,
    measures: watch::Receiver<MeasureMap>,
    metrics: WatchMetrics,
}

/// What the task works with.
pub(crate) struct Tools {
    pub(crate) habits: Habits,
    pub(crate) claims: Claims,
    pub(crate) measures: Measures,
    /// As they are followed.
    pub(crate) known: watch::Receiver<MeasureMap>,
    pub(crate) snapshot: watch::Receiver<Arc<Snapshot>>,
    pub(crate) events: Arc<Events>,
    pub(crate) metrics: WatchMetrics,
}

impl Watcher {
    /// Begins to work. The task ends with the watcher.
    pub(crate) fn start(tools: Tools) -> Self {
        let (queue, seen) = mpsc::channel(QUEUE);
        let measures = tools.known.clone();
        let metrics = tools.metrics.clone();
        let task = Task {
            tools,
            seen,
            told: HashMap::new(),
        };
        tokio::spawn(task.run());
        Self {
            queue,
            measures,
            metrics,
        }
    }

    /// Notes what was done, if somebody watches. Never waits.
    pub(crate) fn note(&self, seen: Option<Seen>) {
        if let Some(seen) = seen
            && self.queue.try_send(seen).is_err()
        {
            self.metrics.lost_queue.inc();
        }
    }

    /// What is done about credentials now, as far as it is known.
    pub(crate) fn measures(&self) -> MeasureMap {
        Arc::clone(&self.measures.borrow())
    }

    /// Whether a credential is locked.
    pub(crate) fn is_locked(&self, credential: &str) -> bool {
        measure_of(&self.measures.borrow(), credential, runtime::now_ms()) == Action::Lock
    }

    /// Shows how many there are.
    pub(crate) fn tick(&self) {
        let now_ms = runtime::now_ms();
        self.metrics.show(&self.measures.borrow(), now_ms);
    }
}

/// What is done about a credential; `Unspecified` when nothing is.
pub(crate) fn measure_of(measures: &MeasureMap, credential: &str, now_ms: u64) -> Action {
    if measures.is_empty() {
        return Action::Unspecified;
    }
    let measure = measures.get(credential);
    measure
        .filter(|measure| holds(measure, now_ms))
        .map_or(Action::Unspecified, Measure::action)
}

fn holds(measure: &Measure, now_ms: u64) -> bool {
    measure.until_ms == 0 || measure.until_ms > now_ms
}

/// Whether a measure stays though the rules would do this now: it is as strong, or stronger, or a pardon.
fn stays(present: &Measure, wanted: Action, now_ms: u64) -> bool {
    holds(present, now_ms) && present.action() >= wanted
}

/// The pace of a sender that is slowed: recipients.
pub(crate) fn pace(sender: &Sender) -> Option<Quota> {
    let watch = sender.rules.watch();
    watch
        .filter(|_| sender.measure == Action::Slow)
        .map(|watch| watch.slow_to)
}

struct Task {
    tools: Tools,
    seen: mpsc::Receiver<Seen>,
    /// By credential and signal.
    told: HashMap<(String, i32), Instant>,
}

impl Task {
    async fn run(mut self) {
        let mut waiting = Vec::new();
        let mut pardoned = HashMap::new();
        loop {
            let count = tokio::select! {
                count = self.seen.recv_many(&mut waiting, 1) => count,
                changed = self.tools.known.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.pass_on_pardons(&mut pardoned).await;
                    continue;
                }
            };
            if count == 0 {
                return;
            }
            tokio::time::sleep(LINGER).await;
            while waiting.len() < QUEUE
                && let Ok(seen) = self.seen.try_recv()
            {
                waiting.push(seen);
            }
            for (rules, doings) in packed(waiting.drain(..)) {
                self.look(&rules, &doings).await;
            }
        }
    }

    /// Tells Redis of new pardons at once: the credential may be silent until they are over.
    async fn pass_on_pardons(&self, pardoned: &mut HashMap<String, u64>) {
        let known = self.tools.known.borrow().clone();
        pardoned.retain(|name, since_ms| {
            known
                .get(name)
                .is_some_and(|measure| measure.since_ms == *since_ms)
        });
        for (name, measure) in known.iter() {
            if measure.action() != Action::Pardon || pardoned.contains_key(name) {
                continue;
            }
            let rules = {
                let snapshot = self.tools.snapshot.borrow();
                let credential = snapshot.credential(name);
                credential.and_then(|credential| Rules::of(credential, &snapshot))
            };
            if let Some(rules) = rules {
                self.picture(&rules, &Doings::default()).await;
            }
            pardoned.insert(name.clone(), measure.since_ms);
        }
    }

    async fn picture(&self, rules: &Rules, doings: &Doings) -> Option<Verdict> {
        let watch = rules.watch()?;
        let name = &rules.credential.name;
        let pardoned_ms = self
            .tools
            .known
            .borrow()
            .get(name)
            .filter(|measure| measure.action() == Action::Pardon)
            .map_or(0, |measure| measure.since_ms);
        let bounds = bounds(watch, pardoned_ms);
        match self.tools.habits.note(name, doings, &bounds).await {
            Ok(picture) => Some(judge(&picture, watch)),
            Err(error) => {
                self.tools.metrics.lost_redis.inc();
                tracing::debug!(%error, "what a credential does is not noted");
                None
            }
        }
    }

    async fn look(&mut self, rules: &Rules, doings: &Doings) {
        let Some(verdict) = self.picture(rules, doings).await else {
            return;
        };
        if verdict.evidence.is_empty() {
            return;
        }
        let network = doings.networks.first().or(doings.logins.first());
        let whose = Whose {
            tenant: rules.tenant.name.clone(),
            credential: rules.credential.name.clone(),
            network: network.cloned().unwrap_or_default(),
        };
        self.tell(&whose, &verdict).await;
        if verdict.action >= Action::Slow
            && let Some(watch) = rules.watch()
        {
            self.take(watch, whose, verdict).await;
        }
    }

    /// Tells what is noticed, once for each signal in six hours over all processes.
    async fn tell(&mut self, whose: &Whose, verdict: &Verdict) {
        let mut is_news = false;
        for evidence in &verdict.evidence {
            let key = (whose.credential.clone(), evidence.signal);
            let told = self.told.get(&key);
            if told.is_some_and(|at| at.elapsed() < TELL_AGAIN) {
                continue;
            }
            let name = evidence.signal().word();
            let claim = format!("noticed/{}/{name}", whose.credential);
            let own = MessageId::now().to_string();
            let claimed = self.tools.claims.claim(&claim, &own).await;
            if matches!(claimed, Claimed::Now) {
                self.tools.claims.keep(&claim, &own, TELL_AGAIN).await;
            }
            if matches!(claimed, Claimed::Now | Claimed::Unknown) {
                self.tools.metrics.noticed(name);
                is_news = true;
            }
            if self.told.len() >= MOST_TOLD {
                self.told.retain(|_, at| at.elapsed() < TELL_AGAIN);
            }
            if self.told.len() < MOST_TOLD {
                self.told.insert(key, Instant::now());
            }
        }
        if is_news {
            tracing::warn!(
                tenant = whose.tenant,
                credential = whose.credential,
                noticed = cause(&verdict.evidence),
                "a credential does what it usually does not"
            );
            let noticed = CredentialNoticed {
                evidence: verdict.evidence.clone(),
                weight: verdict.weight,
            };
            let kind = Kind::CredentialNoticed(noticed);
            self.tools.events.tell(whose.clone(), kind);
        }
    }

    /// Takes a measure, unless one that is as strong, or a pardon, is in force.
    async fn take(&self, watch: &Watch, whose: Whose, verdict: Verdict) {
        let now_ms = runtime::now_ms();
        let stays = |present: &Measure| stays(present, verdict.action, now_ms);
        if self
            .tools
            .known
            .borrow()
            .get(&whose.credential)
            .is_some_and(stays)
        {
            return;
        }
        let lasts = match verdict.action {
            Action::Lock => watch.lock_lasts,
            _ => Some(watch.lasts),
        };
        let measure = Measure {
            credential: whose.credential.clone(),
            tenant: whose.tenant.clone(),
            action: verdict.action.into(),
            since_ms: now_ms,
            until_ms: lasts.map_or(0, |span| now_ms + span.as_millis()),
            cause: cause(&verdict.evidence),
            evidence: verdict.evidence.clone(),
            ..Measure::default()
        };
        match self.tools.measures.set(&measure, now_ms, stays).await {
            Ok((_, false)) => {}
            Ok((measure, true)) => {
                let action = measure.action();
                self.tools.metrics.taken(action);
                tracing::error!(
                    tenant = whose.tenant,
                    credential = whose.credential,
                    action = action.as_str_name(),
                    noticed = measure.cause,
                    "a credential may be stolen, and something is done about it"
                );
                let kind = Kind::CredentialMeasure(CredentialMeasure {
                    measure: Some(measure),
                });
                self.tools.events.tell(whose, kind);
            }
            Err(error) => {
                tracing::warn!(credential = whose.credential, %error, "a measure is not taken yet");
            }
        }
    }
}

/// What was done by each credential.
fn packed(seen: impl Iterator<Item = Seen>) -> Vec<(Rules, Doings)> {
    let mut packs: HashMap<String, (Rules, Doings)> = HashMap::new();
    for Seen {
        rules,
        network,
        what,
    } in seen
    {
        let (_, doings) = packs
            .entry(rules.credential.name.clone())
            .or_insert_with(|| (rules, Doings::default()));
        match what {
            What::Accepted {
                recipients,
                sender,
                weight,
            } => {
                doings.recipients += recipients;
                doings.weight += weight;
                add(&mut doings.senders, sender);
                add(&mut doings.networks, network);
            }
            What::Refused { recipients } => doings.refused += recipients,
            What::Login => add(&mut doings.logins, network),
            What::LoginFailed => {
                let failed = &mut doings.failed;
                match failed.iter().position(|(known, _)| *known == network) {
                    Some(position) => failed[position].1 += 1,
                    None if failed.len() < MOST_OF_A_PACK => failed.push((network, 1)),
                    None => {}
                }
            }
        }
    }
    packs.into_values().collect()
}

/// Each once; a network that is not known is none.
fn add(list: &mut Vec<String>, text: String) {
    if !text.is_empty() && list.len() < MOST_OF_A_PACK && !list.contains(&text) {
        list.push(text);
    }
}

fn bounds(watch: &Watch, pardoned_ms: u64) -> Bounds {
    let bound = |rule: SignalRule| Bound {
        at_least: rule.at_least,
        factor: rule.factor,
    };
    Bounds {
        networks: bound(watch.signals.new_networks),
        recipients: bound(watch.signals.volume),
        senders: bound(watch.signals.senders),
        learn: watch.learn.duration(),
        pardoned_ms,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENTS: &str = "
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: acme }
spec: { defaultStream: bulk, streams: [ { name: bulk } ], watch: {} }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-net }
spec: { tenant: acme, networks: [ 192.0.2.0/24 ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-off }
spec: { tenant: acme, networks: [ 198.51.100.0/24 ], watch: { enabled: false } }
";

    fn client(address: [u8; 4]) -> Client {
        Client::connected(address.into())
    }

    #[test]
    fn what_one_does_in_a_moment_is_one_word_and_who_is_not_watched_has_none() {
        let snapshot = Snapshot::from_documents(DOCUMENTS).unwrap();
        let rules = |name| Rules::of(snapshot.credential(name).unwrap(), &snapshot).unwrap();
        let watched = rules("acme-net");
        assert!(Seen::refused(&rules("acme-off"), client([198, 51, 100, 1]), 1).is_none());
        let login = |address, succeeded| {
            let credential = snapshot.credential("acme-net").unwrap();
            Seen::login(credential, &snapshot, client(address), succeeded).unwrap()
        };
        let message = |address, sender: &str| Seen {
            rules: watched.clone(),
            network: events::network_text(client(address)),
            what: What::Accepted {
                recipients: 3,
                sender: sender.to_owned(),
                weight: 2,
            },
        };
        let packs = packed(
            [
                message([192, 0, 2, 1], "a"),
                message([192, 0, 2, 99], "b"),
                message([203, 0, 113, 1], "a"),
                Seen::refused(&watched, client([192, 0, 2, 1]), 0).unwrap(),
                Seen::refused(&watched, client([192, 0, 2, 1]), 4).unwrap(),
                login([192, 0, 2, 1], true),
                login([192, 0, 2, 1], false),
                login([192, 0, 2, 2], false),
            ]
            .into_iter(),
        );
        assert_eq!(packs.len(), 1);
        let expected = Doings {
            networks: vec!["192.0.2.0/24".into(), "203.0.113.0/24".into()],
            logins: vec!["192.0.2.0/24".into()],
            failed: vec![("192.0.2.0/24".into(), 2)],
            recipients: 9,
            refused: 5,
            weight: 6,
            senders: vec!["a".into(), "b".into()],
        };
        assert_eq!(packs[0].1, expected);
    }

    #[test]
    fn a_measure_gives_way_to_a_stronger_one_only_and_a_pardon_to_none() {
        use Action::{Hold, Lock, Pardon, Slow};
        for (present, wanted, expected) in [
            (Slow, Slow, true),
            (Slow, Hold, false),
            (Hold, Lock, false),
            (Hold, Slow, true),
            (Lock, Hold, true),
            (Pardon, Lock, true),
        ] {
            let measure = Measure {
                action: present.into(),
                until_ms: 100,
                ..Measure::default()
            };
            assert_eq!(
                stays(&measure, wanted, 99),
                expected,
                "{present:?} {wanted:?}"
            );
            assert!(!stays(&measure, wanted, 100), "it is over");
        }
    }

    #[test]
    fn a_measure_holds_until_its_end() {
        let measure = |action: Action, until_ms| Measure {
            action: action.into(),
            until_ms,
            ..Measure::default()
        };
        let measures: MeasureMap = Arc::new(
            [
                ("a".to_owned(), measure(Action::Lock, 0)),
                ("b".to_owned(), measure(Action::Hold, 100)),
            ]
            .into(),
        );
        let of = |name, now_ms| measure_of(&measures, name, now_ms);
        assert_eq!(of("a", u64::MAX), Action::Lock);
        assert_eq!(
            (of("b", 99), of("b", 100)),
            (Action::Hold, Action::Unspecified)
        );
        assert_eq!(of("c", 0), Action::Unspecified);
    }
}
