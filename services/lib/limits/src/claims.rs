//! What may have been done already by another process: claimed before it is begun, noted when it is done, free again when
//! whoever asked for it knows.
//!
//! A key is held by one claim at a time. Without Redis nothing is known and nothing is noted: who asks then does its work as
//! if there were no claims. Keys of a Redis that lost its memory are not those of the next one.

use std::sync::Arc;
use std::time::Duration;

use redis::{Pipeline, RedisResult};

use crate::connection::{Connector, Link};

/// A claim that is neither kept nor given up ends by itself.
const UNDERWAY: Duration = Duration::from_secs(120);
/// Begins the value of a key whose claim is not done yet.
const CLAIM: char = '?';
/// Deletes the key when its value is one of the two.
const FREE: &str = "local value = redis.call('GET', KEYS[1])
if value == ARGV[1] or value == ARGV[2] then return redis.call('DEL', KEYS[1]) end
return 0";

/// What is known of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claimed {
    /// Nothing: it is claimed now. Keep the claim, or give it up.
    Now,
    /// Somebody is at it.
    Underway,
    /// It is done, with this result.
    Done(String),
    /// Redis can't be asked.
    Unknown,
}

/// Claims keys. Cheap to clone; from [`crate::Quotas::claims`], with whose connection it works.
#[derive(Clone)]
pub struct Claims {
    connector: Arc<Connector>,
}

impl Claims {
    pub(crate) fn new(connector: Arc<Connector>) -> Self {
        Self { connector }
    }

    /// Claims `key`. `own` names the claim, and is its result when it is kept: not empty, and never used twice. Takes at most
    /// the response time-out.
    pub async fn claim(&self, key: &str, own: &str) -> Claimed {
        let Some(link) = self.connector.link(key) else {
            return Claimed::Unknown;
        };
        let (key, claim) = (self.key(&link, key), format!("{CLAIM}{own}"));
        let mut pipeline = redis::pipe();
        set(&mut pipeline, &key, &claim, UNDERWAY)
            .arg("NX")
            .ignore();
        pipeline.cmd("GET").arg(&key);
        let mut connection = link.connection.clone();
        let found: RedisResult<(Option<String>,)> = pipeline.query_async(&mut connection).await;
        match found {
            Ok((Some(value),)) if value == claim => Claimed::Now,
            Ok((Some(value),)) if value.starts_with(CLAIM) => Claimed::Underway,
            Ok((Some(value),)) => Claimed::Done(value),
            // It ended in between.
            Ok((None,)) => Claimed::Unknown,
            Err(error) => {
                self.connector.failed(&link, &error);
                Claimed::Unknown
            }
        }
    }

    /// What was claimed is done, with `own` as its result, which is known for so long.
    pub async fn keep(&self, key: &str, own: &str, time: Duration) {
        let Some(link) = self.connector.link(key) else {
            return;
        };
        let mut pipeline = redis::pipe();
        set(&mut pipeline, &self.key(&link, key), own, time).ignore();
        self.run(&link, &pipeline).await;
    }

    /// What was claimed is not done after all, or whoever asked for it knows that it is. A key that is another's by now stays.
    pub async fn give_up(&self, key: &str, own: &str) {
        let Some(link) = self.connector.link(key) else {
            return;
        };
        let mut pipeline = redis::pipe();
        pipeline
            .cmd("EVAL")
            .arg(FREE)
            .arg(1)
            .arg(self.key(&link, key))
            .arg(own)
            .arg(format!("{CLAIM}{own}"))
            .ignore();
        self.run(&link, &pipeline).await;
    }

    /// What fails is known for a while longer, or not.
    async fn run(&self, link: &Link, pipeline: &Pipeline) {
        let mut connection = link.connection.clone();
        let ran: RedisResult<()> = pipeline.query_async(&mut connection).await;
        if let Err(error) = ran {
            self.connector.failed(link, &error);
        }
    }

    fn key(&self, link: &Link, key: &str) -> String {
        link.shard
            .state_key(self.connector.prefix(), "claim", key, link.epoch.id)
    }
}

fn set<'a>(pipeline: &'a mut Pipeline, key: &str, value: &str, time: Duration) -> &'a mut Pipeline {
    let time = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    pipeline
        .cmd("SET")
        .arg(key)
        .arg(value)
        .arg("PX")
        .arg(time.max(1))
}
