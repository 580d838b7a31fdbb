//! Connection slots: places for a connection that the scheduler has lent to this sender, one stream's.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use proto::dispatch::{SenderItem, SlotClosed, sender_item};
use tokio::sync::oneshot;

use crate::outbox::Outbox;
use crate::session::Connection;

/// Lane and slot, as the scheduler numbers them.
pub(crate) type SlotKey = (u32, u32);

/// The slots of a stream. One delivery at a time has a slot; others assigned to it wait in order.
pub(crate) struct Slots<C = Connection> {
    state: Mutex<State<C>>,
    outbox: Arc<Outbox>,
}

struct State<C> {
    slots: HashMap<SlotKey, Slot<C>>,
    /// No connection is kept any more.
    ending: bool,
}

struct Slot<C> {
    idle: Option<Idle<C>>,
    busy: bool,
    close: bool,
    waiting: VecDeque<oneshot::Sender<Lease<C>>>,
}

struct Idle<C> {
    connection: C,
    since: Instant,
    most: Duration,
}

/// A slot for the time of a delivery, with the connection that was open in it. Dropped, the slot is free
/// and what is left of the connection is closed.
pub(crate) struct Lease<C = Connection> {
    /// `None` when another lease has taken over.
    slots: Option<Arc<Slots<C>>>,
    key: SlotKey,
    most_idle: Duration,
    pub connection: Option<C>,
}

impl<C> Slots<C> {
    pub fn new(outbox: Arc<Outbox>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                slots: HashMap::new(),
                ending: false,
            }),
            outbox,
        })
    }

    /// Waits for the turn on a slot. Its connection may be idle for `most_idle` afterwards.
    pub async fn lease(self: &Arc<Self>, key: SlotKey, most_idle: Duration) -> Lease<C> {
        let turn = {
            let mut state = self.lock();
            let slot = state.slots.entry(key).or_insert_with(Slot::new);
            if !slot.busy {
                slot.busy = true;
                let connection = slot.idle.take().map(|idle| idle.connection);
                return self.lent(key, connection, most_idle);
            }
            let (waiter, turn) = oneshot::channel();
            slot.waiting.push_back(waiter);
            turn
        };
        let mut lease = turn
            .await
            .expect("a busy slot lives until nobody waits for it");
        lease.most_idle = most_idle;
        lease
    }

    /// The scheduler takes the slot back. Its idle connection comes out, to be closed; a busy one comes
    /// out when it is put back. A slot without connection is free already, which is said again.
    pub fn close(self: &Arc<Self>, key: SlotKey) -> Option<Lease<C>> {
        let mut state = self.lock();
        let Some(slot) = state.slots.get_mut(&key) else {
            self.say_free(key);
            return None;
        };
        slot.close = true;
        self.take_idle(key, slot)
    }

    /// Connections that were idle for too long come out, to be closed.
    pub fn expire(self: &Arc<Self>, now: Instant) -> Vec<Lease<C>> {
        let mut state = self.lock();
        let expired = |slot: &Slot<C>| {
            slot.idle
                .as_ref()
                .is_some_and(|idle| now.duration_since(idle.since) >= idle.most)
        };
        state
            .slots
            .iter_mut()
            .filter(|(_, slot)| expired(slot))
            .filter_map(|(key, slot)| self.take_idle(*key, slot))
            .collect()
    }

    /// From now on no connection is kept; the idle ones come out, to be closed.
    pub fn end(self: &Arc<Self>) -> Vec<Lease<C>> {
        let mut state = self.lock();
        state.ending = true;
        state
            .slots
            .iter_mut()
            .filter_map(|(key, slot)| self.take_idle(*key, slot))
            .collect()
    }

    fn take_idle(self: &Arc<Self>, key: SlotKey, slot: &mut Slot<C>) -> Option<Lease<C>> {
        let idle = slot.idle.take()?;
        slot.busy = true;
        Some(self.lent(key, Some(idle.connection), idle.most))
    }

    fn lent(
        self: &Arc<Self>,
        key: SlotKey,
        connection: Option<C>,
        most_idle: Duration,
    ) -> Lease<C> {
        Lease {
            slots: Some(self.clone()),
            key,
            most_idle,
            connection,
        }
    }

    /// Gives the slot to the next, keeps the connection for later, or says that the slot is free. A
    /// connection that must not be kept comes out again, to be closed.
    fn free(
        self: &Arc<Self>,
        key: SlotKey,
        mut connection: Option<C>,
        most_idle: Duration,
    ) -> Option<Lease<C>> {
        let mut state = self.lock();
        let keep = !state.ending;
        let slot = state.slots.get_mut(&key)?;
        while let Some(waiter) = slot.waiting.pop_front() {
            match waiter.send(self.lent(key, connection.take(), most_idle)) {
                Ok(()) => return None,
                // Given up meanwhile: the next one.
                Err(mut lease) => {
                    lease.slots = None;
                    connection = lease.connection.take();
                }
            }
        }
        match connection {
            Some(connection) if keep && !slot.close => {
                slot.busy = false;
                slot.idle = Some(Idle {
                    connection,
                    since: Instant::now(),
                    most: most_idle,
                });
                None
            }
            Some(connection) => Some(self.lent(key, Some(connection), most_idle)),
            None => {
                state.slots.remove(&key);
                self.say_free(key);
                None
            }
        }
    }

    /// An assignment to the slot was not taken: when there is no connection in it, it is free.
    pub fn not_taken(&self, key: SlotKey) {
        if !self.lock().slots.contains_key(&key) {
            self.say_free(key);
        }
    }

    fn say_free(&self, (lane, slot): SlotKey) {
        self.outbox.push(SenderItem {
            kind: Some(sender_item::Kind::SlotClosed(SlotClosed { lane, slot })),
        });
    }

    fn lock(&self) -> MutexGuard<'_, State<C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<C> Slot<C> {
    fn new() -> Self {
        Self {
            idle: None,
            busy: false,
            close: false,
            waiting: VecDeque::new(),
        }
    }
}

impl<C> Lease<C> {
    /// The delivery is over and the connection is good for another. When none is to follow, the lease
    /// comes out again: close the connection, then drop it.
    pub fn put_back(mut self) -> Option<Self> {
        let slots = self.slots.take()?;
        slots.free(self.key, self.connection.take(), self.most_idle)
    }
}

impl<C> Drop for Lease<C> {
    fn drop(&mut self) {
        // The connection is closed before the slot is said to be free.
        drop(self.connection.take());
        if let Some(slots) = self.slots.take() {
            drop(slots.free(self.key, None, self.most_idle));
        }
    }
}

impl Lease<Connection> {
    /// Says good-bye in the background; then the slot is free.
    pub fn quit(mut self) {
        tokio::spawn(async move {
            if let Some(connection) = self.connection.take() {
                connection.quit().await;
            }
            drop(self);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Duration = Duration::from_secs(5);
    const KEY: SlotKey = (1, 7);

    fn slots() -> (Arc<Slots<&'static str>>, Arc<Outbox>) {
        let outbox = Arc::new(Outbox::default());
        (Slots::new(outbox.clone()), outbox)
    }

    #[tokio::test]
    async fn a_connection_that_is_put_back_serves_the_next_delivery() {
        let (slots, outbox) = slots();
        let mut lease = slots.lease(KEY, IDLE).await;
        assert_eq!(lease.connection, None);
        lease.connection = Some("open");
        assert!(lease.put_back().is_none());
        assert_eq!(slots.lease(KEY, IDLE).await.connection, Some("open"));
        // Dropped with its connection.
        assert_eq!(outbox.len(), 1);
        assert_eq!(slots.lease(KEY, IDLE).await.connection, None);
    }

    #[tokio::test]
    async fn deliveries_of_one_slot_take_turns() {
        let (slots, outbox) = slots();
        let mut first = slots.lease(KEY, IDLE).await;
        let waiting = tokio::spawn({
            let slots = slots.clone();
            async move { slots.lease(KEY, IDLE).await }
        });
        let given_up = tokio::spawn({
            let slots = slots.clone();
            async move { slots.lease(KEY, IDLE).await }
        });
        tokio::task::yield_now().await;
        given_up.abort();
        assert!(given_up.await.is_err());
        first.connection = Some("open");
        assert!(first.put_back().is_none());
        let second = waiting.await.unwrap();
        assert_eq!(second.connection, Some("open"));
        assert!(second.put_back().is_none());
        assert_eq!(outbox.len(), 0);
        assert_eq!(slots.lease(KEY, IDLE).await.connection, Some("open"));
    }

    #[tokio::test]
    async fn idle_connections_come_out_after_their_time_and_free_the_slot_when_closed() {
        let (slots, outbox) = slots();
        let mut lease = slots.lease(KEY, IDLE).await;
        lease.connection = Some("open");
        assert!(lease.put_back().is_none());
        assert!(slots.expire(Instant::now()).is_empty());
        let expired = slots.expire(Instant::now() + IDLE);
        assert_eq!(expired.len(), 1);
        assert_eq!(outbox.len(), 0);
        drop(expired);
        assert_eq!(outbox.len(), 1);
    }

    #[tokio::test]
    async fn a_slot_that_is_taken_back_is_closed_when_its_delivery_is_over() {
        let (slots, outbox) = slots();
        let mut lease = slots.lease(KEY, IDLE).await;
        assert!(slots.close(KEY).is_none());
        lease.connection = Some("open");
        let closing = lease.put_back().unwrap();
        assert_eq!(closing.connection, Some("open"));
        drop(closing);
        assert_eq!(outbox.len(), 1);
        // A slot of the same number is a new one.
        let mut lease = slots.lease(KEY, IDLE).await;
        lease.connection = Some("new");
        assert!(lease.put_back().is_none());
        assert_eq!(slots.close(KEY).unwrap().connection, Some("new"));
    }

    #[tokio::test]
    async fn nothing_is_kept_after_the_end() {
        let (slots, _outbox) = slots();
        let mut busy = slots.lease((1, 1), IDLE).await;
        let mut idle = slots.lease((1, 2), IDLE).await;
        busy.connection = Some("busy");
        idle.connection = Some("idle");
        assert!(idle.put_back().is_none());
        assert_eq!(slots.end().len(), 1);
        assert_eq!(busy.put_back().unwrap().connection, Some("busy"));
    }
}
