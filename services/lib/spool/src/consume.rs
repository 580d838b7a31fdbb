//! Reads a stream in order from a place on, through lost connections and restarted servers, by
//! consumers without state of their own on the server.
//!
//! The ordered consumers of async-nats are not used: one that loses its server before its first message
//! begins anew at the first message of the stream, and it notices a restarted server only after two
//! missed heartbeats.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer};
use bytes::Bytes;
use futures::StreamExt;
use tokio::sync::watch;

use crate::Error;
use crate::link::{Link, LinkState};

const HEARTBEAT: Duration = Duration::from_secs(5);
/// The server forgets a consumer that nobody asked for so long.
const INACTIVE: Duration = Duration::from_secs(30);
/// Nothing has come for so long although more was to come.
const SILENCE: Duration = Duration::from_secs(2);
/// Time between two attempts when a consumer can't be made.
const RETRY: Duration = Duration::from_millis(500);

/// A message of a stream.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub sequence: u64,
    pub subject: String,
    pub headers: HeaderMap,
    pub payload: Bytes,
}

/// What comes next.
#[derive(Debug)]
pub(crate) enum Delivered {
    Message(Record),
    /// What was in the stream when the reading (or its last restart) began has been delivered.
    CaughtUp,
    /// What was delivered so far will come again.
    Restarted,
    /// No consumer could be made; asking again tries again.
    Failed(Error),
}

/// Not safe to cancel while it waits: run it in a task of its own, or to its end.
#[derive(Debug)]
pub(crate) struct Consumption {
    link: Link,
    stream: String,
    filter: String,
    start: DeliverPolicy,
    headers_only: bool,
    batch: usize,
    from_begin: bool,
    /// The last sequence delivered.
    last: Option<u64>,
    active: Option<Active>,
    failed: bool,
}

struct Active {
    consumer: PullConsumer,
    messages: pull::Stream,
    state: watch::Receiver<LinkState>,
    made_under: LinkState,
    /// Sequence of the consumer's last message.
    consumer_sequence: u64,
    /// Messages until it has caught up; `None` = it has.
    until_caught_up: Option<u64>,
}

#[expect(
    clippy::large_enum_variant,
    reason = "lives for a moment, and is nearly always the large one"
)]
enum Waited {
    Message(Option<Result<async_nats::jetstream::Message, pull::MessagesError>>),
    LostConnection,
    Silence,
}

impl Active {
    async fn wait(&mut self) -> Waited {
        let made_under = self.made_under;
        tokio::select! {
            biased;
            message = self.messages.next() => Waited::Message(message),
            _ = self.state.wait_for(|now| *now != made_under) => Waited::LostConnection,
            () = tokio::time::sleep(SILENCE), if self.until_caught_up.is_some() => Waited::Silence,
        }
    }

    /// What was counted when the consumer was made may have been removed before it was delivered.
    async fn look_for_the_end(&mut self) {
        if let Ok(info) = self.consumer.get_info().await
            && info.num_pending == 0
            && info.delivered.consumer_sequence <= self.consumer_sequence
        {
            self.until_caught_up = Some(0);
        }
    }
}

impl std::fmt::Debug for Active {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Active")
            .field("until_caught_up", &self.until_caught_up)
            .finish_non_exhaustive()
    }
}

impl Consumption {
    pub fn new(link: Link, stream: String, filter: String, start: DeliverPolicy) -> Self {
        Self {
            link,
            stream,
            filter,
            start,
            headers_only: false,
            batch: 64,
            from_begin: false,
            last: None,
            active: None,
            failed: false,
        }
    }

    /// From the message after a sequence.
    pub fn after(link: Link, stream: String, filter: String, sequence: u64) -> Self {
        let mut consumption = Self::new(link, stream, filter, DeliverPolicy::All);
        consumption.last = (sequence > 0).then_some(sequence);
        consumption
    }

    /// Without the payloads.
    pub fn headers_only(mut self) -> Self {
        self.headers_only = true;
        self
    }

    /// Messages that are asked for at once; fewer where they are large.
    pub fn batch(mut self, count: usize) -> Self {
        self.batch = count;
        self
    }

    /// After a lost connection everything is delivered again, instead of what is new.
    pub fn restart_from_begin(mut self) -> Self {
        self.from_begin = true;
        self
    }

    /// The next message, or what else is to be known.
    pub async fn next(&mut self) -> Delivered {
        loop {
            let Some(active) = &mut self.active else {
                if std::mem::take(&mut self.failed) {
                    tokio::time::sleep(RETRY).await;
                }
                match self.activate().await {
                    Ok(restarted) if restarted => return Delivered::Restarted,
                    Ok(_) => continue,
                    Err(error) => {
                        self.failed = true;
                        return Delivered::Failed(error);
                    }
                }
            };
            if active.until_caught_up == Some(0) {
                active.until_caught_up = None;
                return Delivered::CaughtUp;
            }
            let message = match active.wait().await {
                Waited::Message(Some(Ok(message))) => message,
                Waited::Silence => {
                    active.look_for_the_end().await;
                    continue;
                }
                Waited::Message(end) => {
                    if let Some(Err(error)) = end {
                        tracing::debug!(stream = self.stream, %error, "the consumer is made anew");
                    }
                    self.active = None;
                    continue;
                }
                Waited::LostConnection => {
                    self.active = None;
                    continue;
                }
            };
            let Ok(info) = message.info() else {
                self.active = None;
                continue;
            };
            let (sequence, consumer_sequence) = (info.stream_sequence, info.consumer_sequence);
            if consumer_sequence != active.consumer_sequence + 1 {
                tracing::debug!(
                    stream = self.stream,
                    "messages were dropped on the way; the consumer is made anew"
                );
                self.active = None;
                continue;
            }
            active.consumer_sequence = consumer_sequence;
            active.until_caught_up = active.until_caught_up.map(|left| left.saturating_sub(1));
            self.last = Some(sequence);
            let message = message.message;
            return Delivered::Message(Record {
                sequence,
                subject: message.subject.to_string(),
                headers: message.headers.unwrap_or_default(),
                payload: message.payload,
            });
        }
    }

    /// Makes the consumer; tells whether it begins again at the begin.
    async fn activate(&mut self) -> Result<bool, Error> {
        let mut state = self.link.state();
        let unavailable = |detail: String| Error::Unavailable {
            what: format!("reading stream {}", self.stream),
            detail,
        };
        let made_under = *state
            .wait_for(|now| now.connected)
            .await
            .map_err(|error| unavailable(error.to_string()))?;
        let restarted = self.from_begin && self.last.is_some();
        if restarted {
            self.last = None;
        }
        let deliver_policy = match self.last {
            Some(last) => DeliverPolicy::ByStartSequence {
                start_sequence: last + 1,
            },
            None => self.start,
        };
        let config = pull::Config {
            deliver_policy,
            ack_policy: AckPolicy::None,
            max_deliver: 1,
            filter_subject: self.filter.clone(),
            headers_only: self.headers_only,
            inactive_threshold: INACTIVE,
            num_replicas: 1,
            memory_storage: true,
            ..Default::default()
        };
        let consumer: PullConsumer = match self
            .link
            .jetstream()
            .create_consumer_on_stream(config, &self.stream)
            .await
        {
            Ok(consumer) => consumer,
            Err(error) => {
                // Told apart by asking, since the error's kind does not tell.
                self.link.stream_state(&self.stream).await?;
                return Err(unavailable(error.to_string()));
            }
        };
        let pending = consumer.cached_info().num_pending;
        let messages = consumer
            .clone()
            .stream()
            .max_messages_per_batch(self.batch)
            .heartbeat(HEARTBEAT)
            .messages()
            .await
            .map_err(|error| unavailable(error.to_string()))?;
        self.active = Some(Active {
            consumer,
            messages,
            state,
            made_under,
            consumer_sequence: 0,
            until_caught_up: Some(pending),
        });
        Ok(restarted)
    }
}
