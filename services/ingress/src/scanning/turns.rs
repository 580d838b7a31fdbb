//! How many messages a scanner has at the same time, and whose is next when there are more.
//!
//! Tenants take turns, so that one with thousands of messages leaves others their place. Messages that are still coming in hold
//! theirs as long as their clients take to send them: they get half of the places at most.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// The places of one scanner.
pub(crate) struct Turns {
    state: Arc<Mutex<State>>,
}

struct State {
    free: usize,
    /// Of them, for messages that are still coming in.
    free_for_slow: usize,
    /// Tenants that wait, in the order of their turns; none without a message.
    lines: VecDeque<Line>,
}

struct Line {
    tenant: Box<str>,
    waiting: VecDeque<Waiter>,
}

struct Waiter {
    is_slow: bool,
    called: oneshot::Sender<Slot>,
}

/// A place; given back when dropped.
pub(crate) struct Slot {
    state: Option<Arc<Mutex<State>>>,
    is_slow: bool,
}

impl Turns {
    /// With so many places, at least 1.
    pub(crate) fn new(places: usize) -> Self {
        Self {
            state: Arc::new(Mutex::new(State {
                free: places,
                free_for_slow: (places / 2).max(1),
                lines: VecDeque::new(),
            })),
        }
    }

    /// Waits for a place. `is_slow`: the message is still coming in.
    pub(crate) async fn take(&self, tenant: &str, is_slow: bool) -> Slot {
        let called = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let (call, called) = oneshot::channel();
            state.join(
                tenant,
                Waiter {
                    is_slow,
                    called: call,
                },
            );
            state.call(&self.state);
            called
        };
        match called.await {
            Ok(slot) => slot,
            // Who waits is called or kept as long as `self` is there.
            Err(_) => std::future::pending().await,
        }
    }
}

impl State {
    fn join(&mut self, tenant: &str, waiter: Waiter) {
        match self.lines.iter_mut().find(|line| *line.tenant == *tenant) {
            Some(line) => line.waiting.push_back(waiter),
            None => self.lines.push_back(Line {
                tenant: tenant.into(),
                waiting: VecDeque::from([waiter]),
            }),
        }
    }

    /// Calls those for whom there is a place.
    fn call(&mut self, shared: &Arc<Mutex<State>>) {
        let mut to_ask = self.lines.len();
        while self.free > 0 && to_ask > 0 {
            let Some(mut line) = self.lines.pop_front() else {
                return;
            };
            to_ask -= 1;
            // Those that have left wait no more.
            line.waiting.retain(|waiter| !waiter.called.is_closed());
            let next = line
                .waiting
                .iter()
                .position(|waiter| !waiter.is_slow || self.free_for_slow > 0);
            let called = next.and_then(|next| line.waiting.remove(next));
            let is_called = called.is_some();
            if let Some(waiter) = called {
                self.give(waiter, shared);
            }
            if !line.waiting.is_empty() {
                self.lines.push_back(line);
            }
            if is_called {
                to_ask = self.lines.len();
            }
        }
    }

    fn give(&mut self, waiter: Waiter, shared: &Arc<Mutex<State>>) {
        let slot = Slot {
            state: Some(Arc::clone(shared)),
            is_slow: waiter.is_slow,
        };
        match waiter.called.send(slot) {
            Ok(()) => {
                self.free -= 1;
                self.free_for_slow -= usize::from(waiter.is_slow);
            }
            // It has just left. It must not give back what it never had.
            Err(mut slot) => slot.state = None,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let Some(shared) = self.state.take() else {
            return;
        };
        let mut state = shared.lock().unwrap_or_else(PoisonError::into_inner);
        state.free += 1;
        state.free_for_slow += usize::from(self.is_slow);
        state.call(&shared);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll<F: Future>(future: Pin<&mut F>) -> Option<F::Output> {
        match future.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => Some(output),
            Poll::Pending => None,
        }
    }

    #[test]
    fn tenants_take_turns_however_many_messages_they_have() {
        let turns = Turns::new(1);
        let mut held = poll(pin!(turns.take("many", false)));
        assert!(held.is_some());
        let mut waiting: Vec<_> = ["many", "many", "many", "one", "many", "two"]
            .map(|tenant| (tenant, Box::pin(turns.take(tenant, false))))
            .into();
        for (_, waiter) in &mut waiting {
            assert!(poll(waiter.as_mut()).is_none());
        }
        let mut order = Vec::new();
        while !waiting.is_empty() {
            held = None;
            let called = waiting
                .iter_mut()
                .position(|(_, waiter)| {
                    held = poll(waiter.as_mut());
                    held.is_some()
                })
                .expect("somebody is called");
            order.push(waiting.remove(called).0);
        }
        assert_eq!(order, ["many", "one", "two", "many", "many", "many"]);
        drop(held);
        assert!(poll(pin!(turns.take("many", false))).is_some());
    }

    #[test]
    fn what_comes_in_slowly_gets_half_of_the_places() {
        let turns = Turns::new(4);
        let slow: Vec<Slot> = (0..2)
            .filter_map(|_| poll(pin!(turns.take("a", true))))
            .collect();
        assert_eq!(slow.len(), 2);
        let mut third = Box::pin(turns.take("a", true));
        assert!(poll(third.as_mut()).is_none());
        let quick: Vec<Slot> = (0..3)
            .filter_map(|_| poll(pin!(turns.take("a", false))))
            .collect();
        assert_eq!(quick.len(), 2, "behind one that can't go on");
        drop(quick);
        assert!(poll(third.as_mut()).is_none());
        drop(slow);
        assert!(poll(third.as_mut()).is_some());
    }

    #[test]
    fn who_leaves_takes_no_place_with_it() {
        let turns = Turns::new(1);
        let held = poll(pin!(turns.take("a", false)));
        let mut first = Box::pin(turns.take("a", false));
        let mut second = Box::pin(turns.take("b", false));
        assert!(poll(first.as_mut()).is_none() && poll(second.as_mut()).is_none());
        drop(first);
        drop(held);
        // Called, and gone before it knows.
        drop(second);
        assert!(poll(pin!(turns.take("c", false))).is_some());
    }
}
