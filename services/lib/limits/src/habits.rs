//! Habits: what somebody does usually, and what it does now, as all processes see it together.
//!
//! Each call notes what was done and answers with a picture: what is counted now beside what is usual. The state of one
//! is bounded: 256 networks, 256 senders of the present hour, the peaks of 14 days; some kilobytes at most, forgotten after
//! 15 days without a call. It is no count that must be exact, so it has no epoch: a Redis that kept its memory
//! goes on with it, and one that lost it learns anew. Without Redis nothing is noted.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use redis::{ErrorKind, RedisError, RedisResult, Script, ServerErrorKind, Value};

use crate::Unavailable;
use crate::connection::Connector;
use crate::quota::Clock;

/// What was done since the last call.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Doings {
    /// Client networks from which something was accepted.
    pub networks: Vec<String>,
    /// Client networks of logins that succeeded.
    pub logins: Vec<String>,
    /// Failed logins by client network.
    pub failed: Vec<(String, u64)>,
    /// Recipients accepted.
    pub recipients: u64,
    /// Recipients refused.
    pub refused: u64,
    /// What warnings weigh together.
    pub weight: u64,
    /// Senders, as short digests.
    pub senders: Vec<String>,
}

/// What would be noticed: at least so many, and at least so many times what is usual. No more is learned of one hour or day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// At least so many.
    pub at_least: u64,
    /// Times what is usual.
    pub factor: u32,
}

/// How a picture is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Of new networks in a day.
    pub networks: Bound,
    /// Of recipients in an hour.
    pub recipients: Bound,
    /// Of senders in an hour.
    pub senders: Bound,
    /// For so long after the first call everything is only learned.
    pub learn: Duration,
    /// Networks seen until then (Unix milliseconds) are known, and what was counted before is forgotten; 0 = never.
    pub pardoned_ms: u64,
}

/// What is seen now. Times are Unix milliseconds by Redis' clock.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Picture {
    /// The time.
    pub now_ms: u64,
    /// What is usual is not known yet.
    pub learning: bool,
    /// Networks seen in the last 24 hours for the first time in 14 days.
    pub new_networks: u64,
    /// The most of them in a day of the last 14.
    pub usual_new_networks: u64,
    /// When the first of them was seen.
    pub new_networks_since_ms: u64,
    /// Some of them, the newest first.
    pub newest: Vec<String>,
    /// Recipients accepted in this hour.
    pub recipients: u64,
    /// The most in an hour of the last 14 days.
    pub usual_recipients: u64,
    /// Recipients refused in this hour.
    pub refused: u64,
    /// Senders in this hour, at most 256.
    pub senders: u64,
    /// The most in an hour of the last 14 days.
    pub usual_senders: u64,
    /// What warnings of this hour weigh together.
    pub weight: u64,
    /// Logins that failed within an hour from other networks before one from a new network succeeded; 0 = there was none
    /// within the last hour.
    pub guessed: u64,
    /// When it succeeded.
    pub guessed_ms: u64,
    /// From where.
    pub guessed_from: String,
    /// When this hour began.
    pub hour_ms: u64,
}

/// Notes habits. Cheap to clone; from [`crate::Quotas::habits`], with whose connection it works.
#[derive(Clone)]
pub struct Habits {
    connector: Arc<Connector>,
    clock: Option<Clock>,
    observe: Arc<Script>,
}

impl Habits {
    pub(crate) fn new(connector: Arc<Connector>, clock: Option<Clock>) -> Self {
        Self {
            connector,
            clock,
            observe: Arc::new(Script::new(include_str!("habits/observe.lua"))),
        }
    }

    /// Notes what somebody of this name did, and gives the picture. Takes at most the response time-out. After
    /// [`Unavailable`] it may be noted.
    pub async fn note(
        &self,
        name: &str,
        doings: &Doings,
        bounds: &Bounds,
    ) -> Result<Picture, Unavailable> {
        let link = self
            .connector
            .link(name)
            .ok_or_else(|| Unavailable("not connected".into()))?;
        let key = link.shard.key(self.connector.prefix(), "habits", name);
        let mut command = redis::cmd("EVALSHA");
        command
            .arg(self.observe.get_hash())
            .arg(1)
            .arg(key)
            .arg(self.clock.as_ref().map_or(0, |clock| clock()))
            .arg(bounds.json())
            .arg(doings.json());
        let mut connection = link.connection.clone();
        for attempt in 0..2 {
            let answer: RedisResult<Value> = command.query_async(&mut connection).await;
            let failure = match answer.and_then(picture) {
                Ok(picture) => return Ok(picture),
                Err(failure) => failure,
            };
            if attempt > 0 || !is_no_script(&failure) {
                return Err(self.connector.failed(&link, &failure));
            }
            let loading = self.observe.prepare_invoke();
            if let Err(failure) = loading.load_async(&mut connection).await {
                return Err(self.connector.failed(&link, &failure));
            }
        }
        Err(Unavailable("the script is not kept".into()))
    }
}

impl Doings {
    /// Whether nothing was done.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    fn json(&self) -> String {
        let failed: Vec<String> = self
            .failed
            .iter()
            .map(|(network, count)| format!("[{},{count}]", quoted(network)))
            .collect();
        let mut json = String::new();
        write!(
            json,
            "{{\"n\":{},\"l\":{},\"f\":[{}],\"r\":{},\"x\":{},\"w\":{},\"s\":{}}}",
            list(&self.networks),
            list(&self.logins),
            failed.join(","),
            self.recipients,
            self.refused,
            self.weight,
            list(&self.senders)
        )
        .expect("a String takes everything");
        json
    }
}

impl Bounds {
    fn json(&self) -> String {
        let bound = |bound: Bound| format!("[{},{}]", bound.at_least, bound.factor);
        format!(
            "{{\"n\":{},\"r\":{},\"s\":{},\"learn\":{},\"pardon\":{}}}",
            bound(self.networks),
            bound(self.recipients),
            bound(self.senders),
            self.learn.as_millis(),
            self.pardoned_ms
        )
    }
}

fn list(texts: &[String]) -> String {
    let texts: Vec<String> = texts.iter().map(|text| quoted(text)).collect();
    format!("[{}]", texts.join(","))
}

/// Networks and digests need no escapes; what would is left out.
fn quoted(text: &str) -> String {
    let plain = |c: &char| c.is_ascii_graphic() && !matches!(c, '"' | '\\');
    let text: String = text.chars().filter(plain).take(64).collect();
    format!("\"{text}\"")
}

fn is_no_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}

fn picture(value: Value) -> RedisResult<Picture> {
    let (numbers, texts): (Vec<u64>, Vec<String>) = redis::from_redis_value(value)?;
    let number = |position: usize| numbers.get(position).copied().unwrap_or(0);
    let mut texts = texts.into_iter();
    Ok(Picture {
        guessed_from: texts.next().unwrap_or_default(),
        newest: texts.collect(),
        now_ms: number(0),
        learning: number(1) == 1,
        new_networks: number(2),
        usual_new_networks: number(3),
        new_networks_since_ms: number(4),
        recipients: number(5),
        usual_recipients: number(6),
        refused: number(7),
        senders: number(8),
        usual_senders: number(9),
        weight: number(10),
        guessed: number(11),
        guessed_ms: number(12),
        hour_ms: number(13),
    })
}
