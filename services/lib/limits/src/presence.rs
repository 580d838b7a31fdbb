//! Which schedulers Redis hears.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use redis::{RedisError, RedisResult};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::connection::{Connector, Link, random};
use crate::grants::is_no_script;
use crate::keys::Shard;
use crate::script::hex;

/// Others are not lent what a scheduler may use by itself when it was not heard for so long.
pub(crate) const SILENCE: Duration = Duration::from_secs(2);
/// How often it is heard.
const EVERY: Duration = Duration::from_millis(500);

/// What a scheduler knows of its being heard.
#[derive(Default)]
pub(crate) struct Presence {
    /// Its name among the others, and when it joined.
    joined: OnceLock<(String, Instant)>,
    /// When it was heard, last, by shard.
    heard: Mutex<HashMap<Shard, Instant>>,
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
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        let last = heard.get(&shard).copied();
        let joined = || self.joined.get().map(|(_, when)| *when);
        last.or_else(joined)
            .map_or(Duration::MAX, |last| last.elapsed())
    }

    /// Now, after the answer: the later, the longer it waits for its share.
    fn was_heard(&self, shard: Shard) {
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.insert(shard, Instant::now());
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

/// Over one connection, about all the shards that it leads to.
async fn say(connector: &Connector, presence: &Presence, links: &[Link], counts: (u32, u32)) {
    let Some(first) = links.first() else { return };
    let scripts = &connector.scripts;
    let mut pipeline = redis::pipe();
    for Link { epoch, shard, .. } in links {
        let silent_for = presence.silent_for(*shard);
        let to = (*shard, *epoch);
        let word = scripts.present(presence.name(), counts, silent_for, connector.prefix(), to);
        pipeline.add_command(word);
    }
    pipeline.ignore_errors();
    let mut connection = first.connection.clone();
    let answers: RedisResult<Vec<RedisResult<u64>>> = pipeline.query_async(&mut connection).await;
    let mut forgot = false;
    let failed = |link: &Link, error: &RedisError| drop(connector.failed(link, error));
    match answers {
        Err(error) => failed(first, &error),
        Ok(answers) => {
            for (link, answer) in links.iter().zip(answers) {
                match answer {
                    Ok(_) => presence.was_heard(link.shard),
                    // SCRIPT FLUSH: it is heard the next time.
                    Err(error) if is_no_script(&error) => forgot = true,
                    Err(error) => failed(link, &error),
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
