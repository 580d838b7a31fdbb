//! Which schedulers Redis hears.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use redis::{RedisError, RedisResult, Value};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::connection::{Connector, Link, Lost, random};
use crate::grants::is_no_script;
use crate::keys::Shard;
use crate::script::hex;
use crate::slot::SlotRequest;

/// Others are not lent what a scheduler may use by itself when it was not heard for so long.
pub(crate) const SILENCE: Duration = Duration::from_secs(2);
/// After so long a silence others may have opened their share of connections meanwhile: they do when no lease holds any
/// more, which is later.
const LONG_SILENCE: Duration = Duration::from_secs(10);
/// So long after it all have said what they opened.
const SPOKEN: Duration = Duration::from_secs(6);
/// How often it is heard.
const EVERY: Duration = Duration::from_millis(500);

/// What a scheduler knows of its being heard.
#[derive(Default)]
pub(crate) struct Presence {
    /// Its name among the others, and when it joined.
    joined: OnceLock<(String, Instant)>,
    heard: Mutex<HashMap<Shard, Heard>>,
}

/// When it was heard: last, and since when without a long silence.
#[derive(Clone, Copy)]
struct Heard {
    last: Instant,
    since: Instant,
}

impl Presence {
    pub(crate) fn join(&self) {
        self.joined.get_or_init(|| (hex(random()), Instant::now()));
    }

    /// Empty when it has not joined.
    pub(crate) fn name(&self) -> &str {
        self.joined.get().map_or("", |(name, _)| name)
    }

    /// For how long it was not heard; as long as can be when it has not joined.
    pub(crate) fn silent_for(&self, shard: Shard) -> Duration {
        let last = self.heard(shard).map(|heard| heard.last);
        let joined = || self.joined.get().map(|(_, when)| *when);
        last.or_else(joined)
            .map_or(Duration::MAX, |last| last.elapsed())
    }

    /// For how long it has been heard without a long silence; `None` when it has not joined.
    pub(crate) fn heard_for(&self, shard: Shard) -> Option<Duration> {
        self.joined.get()?;
        let unbroken = |heard: &Heard| heard.last.elapsed() < LONG_SILENCE;
        let heard = self.heard(shard).filter(unbroken);
        Some(heard.map_or(Duration::ZERO, |heard| heard.since.elapsed()))
    }

    fn heard(&self, shard: Shard) -> Option<Heard> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.get(&shard).copied()
    }

    /// Now, after the answer: the later, the longer it waits for its share.
    fn was_heard(&self, shard: Shard) {
        let last = Instant::now();
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let before = heard.get(&shard).copied();
        let unbroken = before.filter(|before| last - before.last < LONG_SILENCE);
        let since = unbroken.map_or(last, |before| before.since);
        heard.insert(shard, Heard { last, since });
    }
}

/// Until who tells how many it has is gone, or the connector is.
pub(crate) async fn be_heard(
    connector: Weak<Connector>,
    presence: Arc<Presence>,
    partitions: u32,
    mut has: watch::Receiver<u32>,
) {
    while let Some(connector) = connector.upgrade() {
        let count = *has.borrow_and_update();
        let mut said = JoinSet::new();
        for links in connector.reached() {
            let (connector, presence) = (connector.clone(), presence.clone());
            said.spawn(
                async move { say(&connector, &presence, &links, (count, partitions)).await },
            );
        }
        said.join_all().await;
        drop(connector);
        // At once when it has more or fewer.
        if let Ok(Err(_)) = timeout(EVERY, has.changed()).await {
            return;
        }
    }
}

/// Whether a scheduler that was not heard for so long may use its share.
pub(crate) fn may_share(silent_for: Duration) -> bool {
    silent_for >= SILENCE * 2
}

/// What a scheduler asks for that has been heard for so long without a long silence: no more than its share until all
/// others have said what they opened while nobody was heard.
pub(crate) fn asks_for(request: &SlotRequest, heard_for: Duration) -> SlotRequest {
    let most = match heard_for < SPOKEN {
        true => request.share.saturating_sub(request.have),
        false => u32::MAX,
    };
    SlotRequest {
        want: request.want.min(most),
        ..request.clone()
    }
}

/// Over one connection, about all the shards that it leads to.
async fn say(connector: &Connector, presence: &Presence, links: &[Link], counts: (u32, u32)) {
    let Some(first) = links.first() else { return };
    let scripts = &connector.scripts;
    let mut pipeline = redis::pipe();
    for Link { epoch, shard, .. } in links {
        let said = (presence.name(), counts, presence.silent_for(*shard));
        scripts.present(&mut pipeline, said, connector.prefix(), (*shard, *epoch));
    }
    let mut connection = first.connection.clone();
    let answers: RedisResult<Vec<RedisResult<Value>>> = pipeline.query_async(&mut connection).await;
    let mut forgot = false;
    let failed = |link: &Link, error: &RedisError| drop(connector.failed(link, error));
    match answers {
        Err(error) => failed(first, &error),
        Ok(answers) => {
            for (link, answer) in links.iter().zip(answers.chunks(2)) {
                match answer {
                    [Ok(_), Ok(id)] if link.is_of(id) => presence.was_heard(link.shard),
                    // SCRIPT FLUSH: it is heard the next time.
                    [Err(error), _] if is_no_script(error) => forgot = true,
                    [Err(error), _] | [_, Err(error)] => failed(link, error),
                    _ => connector.drop_link(link, Lost::Shard, "the counts are gone"),
                }
            }
        }
    }
    if forgot
        && let Err(error) = scripts
            .presence
            .prepare_invoke()
            .load_async(&mut connection)
            .await
    {
        failed(first, &error);
    }
}
