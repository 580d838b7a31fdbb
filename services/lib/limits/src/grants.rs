//! Asking for slices.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use redis::{ErrorKind, RedisError, RedisResult, ServerErrorKind, Value};

use crate::connection::{Connector, Link, random};
use crate::script::{answer, hex};
use crate::{GrantReply, GrantRequest, Options, SliceId};

/// Lends slices of limits. Cheap to clone; one connection for all clones.
#[derive(Clone)]
pub struct Grants {
    connector: Arc<Connector>,
    /// Numbers of slices: a random start, so that no two processes choose the same.
    next_number: Arc<AtomicU64>,
}

/// The options make no sense.
#[derive(Debug, thiserror::Error)]
#[error("the URL of Redis is not valid: {detail}")]
pub struct Error {
    /// What the URL's reader says; never the URL, which may hold a password.
    pub detail: String,
}

/// Redis did not answer in time, refused, or is not connected: the safe share holds. The request may have been
/// carried out: a slice that it granted counts until it ends by itself.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("Redis is unavailable: {0}")]
pub struct Unavailable(pub String);

impl Grants {
    /// Starts connecting and returns at once; until there is a connection [`Grants::ask`] fails without waiting.
    /// Must be called within a Tokio runtime.
    pub fn connect(options: Options) -> Result<Self, Error> {
        let connector = Connector::start(options).map_err(|error| Error {
            detail: format!("{:?}", error.kind()),
        })?;
        Ok(Self {
            connector,
            next_number: Arc::new(AtomicU64::new(random())),
        })
    }

    /// Whether there is a connection.
    pub fn is_connected(&self) -> bool {
        self.connector.link().is_some()
    }

    /// Reports the slice before and asks for another one. Takes at most the response time-out.
    pub async fn ask(&self, request: &GrantRequest) -> Result<GrantReply, Unavailable> {
        let Some(mut link) = self.connector.link() else {
            return Err(Unavailable("not connected".into()));
        };
        let slice_id = SliceId {
            epoch: link.epoch.id,
            number: self.next_number.fetch_add(1, Ordering::Relaxed),
        };
        let scripts = &self.connector.scripts;
        let pipeline = scripts.ask(request, self.connector.prefix(), &link.epoch, slice_id);
        let mut attempts = 0;
        loop {
            attempts += 1;
            let replies: RedisResult<(RedisResult<Value>, RedisResult<Value>)> =
                pipeline.query_async(&mut link.connection).await;
            let outcome = replies.and_then(|(granted, epoch)| Ok((granted?, epoch?)));
            match outcome {
                Ok((granted, epoch)) => {
                    return self.judge(request, &link, slice_id, granted, &epoch);
                }
                // The server forgot its scripts (SCRIPT FLUSH): nothing was carried out, so asking again is safe.
                Err(error) if is_no_script(&error) && attempts == 1 => {
                    if let Err(error) = scripts
                        .grant
                        .prepare_invoke()
                        .load_async(&mut link.connection)
                        .await
                    {
                        return Err(self.failed(&link, &error));
                    }
                }
                Err(error) => return Err(self.failed(&link, &error)),
            }
        }
    }

    fn judge(
        &self,
        request: &GrantRequest,
        link: &Link,
        slice_id: SliceId,
        granted: Value,
        epoch: &Value,
    ) -> Result<GrantReply, Unavailable> {
        let expected = hex(link.epoch.id);
        let same_epoch = matches!(epoch, Value::BulkString(id) if id == expected.as_bytes());
        if !same_epoch {
            self.connector.drop_link(link, "the counts are gone");
            let safe_for: Duration = request.window.saturating_add(request.ttl);
            return Ok(GrantReply::Unknown { safe_for });
        }
        answer(granted, slice_id).map_err(|error| self.failed(link, &error))
    }

    /// Any failure ends the connection: a demoted master (READONLY), one that loads, one that hangs.
    fn failed(&self, link: &Link, error: &RedisError) -> Unavailable {
        let detail = error.to_string();
        self.connector.drop_link(link, &detail);
        Unavailable(detail)
    }
}

fn is_no_script(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::NoScript)
}
