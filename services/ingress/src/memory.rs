//! One bounded pool of memory for the contents of messages that are being received or stored.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Grain of the pool, bytes: a semaphore counts in `u32`, and nobody needs single bytes.
const GRAIN: usize = 1024;

/// Bytes that all connections of the process may hold for contents together.
#[derive(Clone)]
pub(crate) struct BodyPool {
    grains: Arc<Semaphore>,
}

/// A part of the pool; given back when dropped.
#[derive(Default)]
pub(crate) struct Reservation {
    permit: Option<OwnedSemaphorePermit>,
}

/// Nothing was given back in time.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("the memory for contents is all in use")]
pub(crate) struct Exhausted;

impl BodyPool {
    /// A pool of `bytes`, rounded down to whole KiB.
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            grains: Arc::new(Semaphore::new((bytes / GRAIN).min(Semaphore::MAX_PERMITS))),
        }
    }

    /// Makes `reservation` at least `bytes` large. Waits up to `patience` for others to finish:
    /// short, since those who wait hold what they already have.
    pub(crate) async fn grow(
        &self,
        reservation: &mut Reservation,
        bytes: usize,
        patience: Duration,
    ) -> Result<(), Exhausted> {
        let missing = bytes.div_ceil(GRAIN).saturating_sub(reservation.grains());
        if missing == 0 {
            return Ok(());
        }
        let missing = u32::try_from(missing).map_err(|_| Exhausted)?;
        let grains = Arc::clone(&self.grains);
        let permit = match Arc::clone(&grains).try_acquire_many_owned(missing) {
            Ok(permit) => permit,
            Err(_) => tokio::time::timeout(patience, grains.acquire_many_owned(missing))
                .await
                .map_err(|_| Exhausted)?
                .map_err(|_| Exhausted)?,
        };
        match &mut reservation.permit {
            Some(held) => held.merge(permit),
            none => *none = Some(permit),
        }
        Ok(())
    }

    /// Bytes that are free now.
    pub(crate) fn free(&self) -> usize {
        self.grains.available_permits() * GRAIN
    }
}

impl Reservation {
    fn grains(&self) -> usize {
        self.permit
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn gives_out_no_more_than_it_has_and_takes_it_back() {
        let pool = BodyPool::new(10 * GRAIN);
        let mut first = Reservation::default();
        let mut second = Reservation::default();
        let no_patience = Duration::from_millis(1);
        pool.grow(&mut first, 4 * GRAIN, no_patience).await.unwrap();
        pool.grow(&mut first, 4 * GRAIN, no_patience).await.unwrap();
        assert_eq!(pool.free(), 6 * GRAIN);
        pool.grow(&mut first, 7 * GRAIN, no_patience).await.unwrap();
        assert_eq!(
            pool.grow(&mut second, 4 * GRAIN, no_patience).await,
            Err(Exhausted)
        );
        drop(first);
        pool.grow(&mut second, 4 * GRAIN, no_patience)
            .await
            .unwrap();
        assert_eq!(pool.free(), 6 * GRAIN);
    }
}
