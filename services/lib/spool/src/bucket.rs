//! A key-value bucket: a stream `KV_<bucket>` with one message per key, as `nats kv` makes it.
//!
//! async-nats' own key-value store is not used: its `update` drops the time to live of a value (also
//! inside `create_with_ttl` when a deleted key is created again), and a read may come from a replica
//! that is behind.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::{
    NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, NATS_MARKER_REASON, NATS_MESSAGE_TTL,
};
use async_nats::jetstream::consumer::DeliverPolicy;
use bytes::Bytes;
use tokio::sync::watch;

use crate::Error;
use crate::consume::{Consumption, Delivered};
use crate::layout;
use crate::link::{Link, PublishFailure, WRONG_LAST_SEQUENCE};

const OPERATION: &str = "KV-Operation";
const OPERATION_DELETE: &str = "DEL";

/// A key of a bucket and what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyState {
    /// Sequence of the last message about the key, a marker of its end included; 0 = there was none.
    pub revision: u64,
    /// `None`: deleted, expired or never set.
    pub value: Option<Bytes>,
}

/// The keys and values of a part of a bucket.
pub(crate) type KeyMap = Arc<BTreeMap<String, (u64, Bytes)>>;

/// A write on a condition.
#[derive(Debug)]
pub(crate) enum Written {
    /// With the new revision.
    Done(u64),
    /// The key has another revision than was expected.
    Conflict,
}

#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    link: Link,
    name: &'static str,
}

impl Bucket {
    pub fn new(link: Link, name: &'static str) -> Self {
        Self { link, name }
    }

    fn subject(&self, key: &str) -> String {
        format!("$KV.{}.{key}", self.name)
    }

    /// Writes if the key's revision is `expected` (`None`: whatever it is). A time to live is rounded
    /// up to whole seconds.
    pub async fn put(
        &self,
        key: &str,
        value: Bytes,
        expected: Option<u64>,
        ttl: Option<Duration>,
    ) -> Result<Written, Error> {
        let mut headers = HeaderMap::new();
        if let Some(ttl) = ttl {
            let seconds = ttl.as_millis().div_ceil(1000).max(1);
            headers.insert(NATS_MESSAGE_TTL, seconds.to_string());
        }
        self.write(key, headers, value, expected).await
    }

    /// Ends a key, if its revision is `expected`.
    pub async fn delete(&self, key: &str, expected: Option<u64>) -> Result<Written, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(OPERATION, OPERATION_DELETE);
        headers.insert(NATS_MESSAGE_TTL, "60");
        self.write(key, headers, Bytes::new(), expected).await
    }

    async fn write(
        &self,
        key: &str,
        mut headers: HeaderMap,
        value: Bytes,
        expected: Option<u64>,
    ) -> Result<Written, Error> {
        if let Some(expected) = expected {
            headers.insert(NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, expected.to_string());
        }
        match self
            .link
            .publish_connected(self.subject(key), headers, value)
            .await
        {
            Ok(acknowledgement) => Ok(Written::Done(acknowledgement.sequence)),
            Err(PublishFailure::Refused {
                code: WRONG_LAST_SEQUENCE,
                ..
            }) => Ok(Written::Conflict),
            Err(failure) => {
                Err(failure.into_error(&format!("writing {key} in bucket {}", self.name)))
            }
        }
    }

    /// The present state of a key, from the stream's leader.
    pub async fn get(&self, key: &str) -> Result<KeyState, Error> {
        match self
            .link
            .last_of(&layout::bucket_stream(self.name), &self.subject(key))
            .await?
        {
            Some(message) => Ok(KeyState {
                revision: message.sequence,
                value: (!is_end(&message.headers)).then_some(message.payload),
            }),
            None => Ok(KeyState {
                revision: 0,
                value: None,
            }),
        }
    }

    /// Removes all keys that match, without trace.
    pub async fn purge(&self, pattern: &str) -> Result<(), Error> {
        let stream = layout::bucket_stream(self.name);
        self.link
            .purge(&stream, None, Some(&self.subject(pattern)))
            .await
            .map(drop)
    }

    /// The keys that match a pattern, as they are now; at most 1,024.
    pub async fn list(&self, pattern: &str) -> Result<KeyMap, Error> {
        let stream = layout::bucket_stream(self.name);
        let mut keys = BTreeMap::new();
        for message in self
            .link
            .last_of_each(&stream, &self.subject(pattern))
            .await?
        {
            self.apply(&mut keys, &message);
        }
        Ok(Arc::new(keys))
    }

    /// The keys that match a pattern, now and ever after; `None` until they are known. The task ends
    /// when the last receiver is gone.
    pub fn follow(&self, pattern: &str) -> watch::Receiver<Option<KeyMap>> {
        let (sender, receiver) = watch::channel(None);
        let bucket = self.clone();
        let pattern = pattern.to_owned();
        tokio::spawn(async move {
            tokio::select! {
                () = bucket.keep_following(&pattern, &sender) => {}
                () = sender.closed() => {}
            }
        });
        receiver
    }

    async fn keep_following(&self, pattern: &str, sender: &watch::Sender<Option<KeyMap>>) {
        let mut consumption = self.consume(pattern).restart_from_begin();
        let mut keys = BTreeMap::new();
        // What is known stays valid while the keys are read anew.
        let mut complete = false;
        loop {
            match consumption.next().await {
                Delivered::Message(message) => self.apply(&mut keys, &message),
                Delivered::CaughtUp => complete = true,
                Delivered::Restarted => {
                    keys.clear();
                    complete = false;
                }
                Delivered::Failed(error) => {
                    tracing::warn!(bucket = self.name, %error, "can't follow the bucket, trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
            if complete {
                sender.send_replace(Some(Arc::new(keys.clone())));
            }
        }
    }

    fn consume(&self, pattern: &str) -> Consumption {
        Consumption::new(
            self.link.clone(),
            layout::bucket_stream(self.name),
            self.subject(pattern),
            DeliverPolicy::LastPerSubject,
        )
    }

    fn apply(&self, keys: &mut BTreeMap<String, (u64, Bytes)>, message: &crate::consume::Record) {
        let prefix_length = self.subject("").len();
        let Some(key) = message.subject.get(prefix_length..) else {
            return;
        };
        if is_end(&message.headers) {
            keys.remove(key);
        } else {
            keys.insert(key.to_owned(), (message.sequence, message.payload.clone()));
        }
    }
}

/// A watch of what is made from the keys of another one; it changes when that does.
pub(crate) fn map_watch<T: PartialEq + Send + Sync + 'static>(
    mut keys: watch::Receiver<Option<KeyMap>>,
    initial: T,
    map: impl Fn(&KeyMap) -> T + Send + 'static,
) -> watch::Receiver<T> {
    let (sender, receiver) = watch::channel(initial);
    tokio::spawn(async move {
        loop {
            let changed = tokio::select! {
                changed = keys.changed() => changed,
                () = sender.closed() => return,
            };
            if changed.is_err() {
                return;
            }
            let present = keys.borrow_and_update().clone();
            if let Some(present) = present {
                let made = map(&present);
                sender.send_if_modified(|last| {
                    let differs = *last != made;
                    *last = made;
                    differs
                });
            }
        }
    });
    receiver
}

/// Whether a message ends its key: deleted by somebody, or by the server when its time was over.
fn is_end(headers: &HeaderMap) -> bool {
    headers.get(OPERATION).is_some() || headers.get(NATS_MARKER_REASON).is_some()
}

/// Whether a text can be one part of a key.
pub(crate) fn check_key(text: &str) -> Result<(), Error> {
    let valid = !text.is_empty()
        && text.len() <= 128
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_');
    if valid {
        Ok(())
    } else {
        Err(Error::InvalidKey(text.to_owned()))
    }
}
