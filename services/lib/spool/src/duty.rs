//! What one of several processes does at a time: a key that expires unless it is renewed.
//!
//! A duty is not exclusive: who sleeps may wake up late and go on for a moment beside the next one. It is for what may be done
//! twice, and need not.

use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::bucket::{self, Bucket, Written};
use crate::link::Link;
use crate::{Error, Renewal};

/// A duty that is held.
#[derive(Debug)]
pub struct Duty {
    key: String,
    /// Of this acquisition, to know an own write again.
    value: Bytes,
    ttl: Duration,
    revision: u64,
    asked_at: Instant,
}

impl Duty {
    /// Until when nobody else has it.
    pub fn valid_until(&self) -> Instant {
        self.asked_at + self.ttl
    }
}

/// All duties, in the bucket `leases`. A cheap clone.
#[derive(Debug, Clone)]
pub struct Duties {
    bucket: Bucket,
}

impl Duties {
    pub(crate) fn new(link: Link) -> Self {
        Self {
            bucket: Bucket::new(link, "leases"),
        }
    }

    /// Takes a duty that nobody has; `None` when somebody does. `ttl` in whole seconds.
    pub async fn take(&self, name: &str, ttl: Duration) -> Result<Option<Duty>, Error> {
        bucket::check_key(name)?;
        let key = format!("duty.{name}");
        let state = self.bucket.get(&key).await?;
        if state.value.is_some() {
            return Ok(None);
        }
        let value = Bytes::from(uuid::Uuid::now_v7().to_string());
        let asked_at = Instant::now();
        let put = self
            .bucket
            .put(&key, value.clone(), Some(state.revision), Some(ttl));
        match put.await? {
            Written::Done(revision) => Ok(Some(Duty {
                key,
                value,
                ttl,
                revision,
                asked_at,
            })),
            Written::Conflict => Ok(None),
        }
    }

    /// Renews a duty for its whole time to live. An error leaves open whether it was renewed: try again before
    /// [`Duty::valid_until`].
    pub async fn renew(&self, duty: &mut Duty) -> Result<Renewal, Error> {
        for _ in 0..2 {
            let asked_at = Instant::now();
            let put = self.bucket.put(
                &duty.key,
                duty.value.clone(),
                Some(duty.revision),
                Some(duty.ttl),
            );
            match put.await? {
                Written::Done(revision) => {
                    (duty.revision, duty.asked_at) = (revision, asked_at);
                    return Ok(Renewal::Renewed(asked_at));
                }
                // Maybe our own renewal whose acknowledgement was lost.
                Written::Conflict => {
                    let state = self.bucket.get(&duty.key).await?;
                    if state.value.as_ref() != Some(&duty.value) {
                        return Ok(Renewal::Lost);
                    }
                    duty.revision = state.revision;
                }
            }
        }
        Ok(Renewal::Lost)
    }

    /// Gives a duty back, so that another process need not wait for its end.
    pub async fn release(&self, duty: Duty) -> Result<(), Error> {
        self.bucket
            .delete(&duty.key, Some(duty.revision))
            .await
            .map(drop)
    }
}
