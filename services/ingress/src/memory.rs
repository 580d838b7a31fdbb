//! Bounded pools of memory for the contents of messages that are being received or stored.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Grain of the pool, bytes: a semaphore counts in `u32`, and nobody needs single bytes.
const GRAIN: usize = 1024;

/// What strangers may have at least where they may send anything: 4 MiB, which need four times as much.
const LEAST_OF_STRANGERS: usize = 17 << 20;

/// How the memory for contents, bytes, is shared: what clients have who are known, and what strangers have who send back. Theirs
/// is a quarter of it, more when the largest message needs more, and never more than half.
pub(crate) fn shares(bytes: usize, takes_inbound: bool) -> (usize, usize) {
    let of_strangers = match takes_inbound {
        true => (bytes / 4).max(LEAST_OF_STRANGERS).min(bytes / 2),
        false => 0,
    };
    (bytes - of_strangers, of_strangers)
}

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

    #[test]
    fn strangers_have_memory_of_their_own() {
        const MIB: usize = 1 << 20;
        assert_eq!(shares(256 * MIB, false), (256 * MIB, 0));
        assert_eq!(shares(256 * MIB, true), (192 * MIB, 64 * MIB));
        assert_eq!(shares(40 * MIB, true), (23 * MIB, 17 * MIB));
        assert_eq!(shares(8 * MIB, true), (4 * MIB, 4 * MIB));
    }

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
