//! Items on their way to a scheduler, gathered into frames.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use proto::dispatch::{SenderFrame, SenderItem};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

/// Items in one frame.
const MOST_ITEMS: usize = 256;
/// Frames follow each other no faster; the first one after a pause goes at once.
const FRAME_INTERVAL: Duration = Duration::from_millis(1);

/// What waits for the next frame. Bounded by what the sender holds and owes: a few items for each delivery.
#[derive(Default)]
pub(crate) struct Outbox {
    items: Mutex<Vec<SenderItem>>,
    filled: Notify,
}

impl Outbox {
    pub fn push(&self, item: SenderItem) {
        let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
        items.push(item);
        let first = items.len() == 1;
        drop(items);
        if first {
            self.filled.notify_one();
        }
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.items.lock().unwrap().len()
    }

    /// Sends frames until the other end is gone.
    pub async fn send_to(&self, frames: &mpsc::Sender<SenderFrame>) {
        let mut last = None;
        loop {
            self.filled.notified().await;
            if let Some(last) = last {
                tokio::time::sleep_until(last + FRAME_INTERVAL).await;
            }
            let mut items =
                std::mem::take(&mut *self.items.lock().unwrap_or_else(PoisonError::into_inner));
            while !items.is_empty() {
                let rest = items.split_off(items.len().min(MOST_ITEMS));
                if frames.send(SenderFrame { items }).await.is_err() {
                    return;
                }
                items = rest;
            }
            last = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::dispatch::{SlotClosed, sender_item};

    #[tokio::test(start_paused = true)]
    async fn frames_hold_what_came_in_between_and_keep_the_order() {
        let outbox = std::sync::Arc::new(Outbox::default());
        let (frames, mut received) = mpsc::channel(16);
        let sending = outbox.clone();
        tokio::spawn(async move { sending.send_to(&frames).await });
        for slot in 0..300 {
            let closed = SlotClosed { lane: 1, slot };
            outbox.push(SenderItem {
                kind: Some(sender_item::Kind::SlotClosed(closed)),
            });
        }
        let first = received.recv().await.unwrap().items;
        let second = received.recv().await.unwrap().items;
        assert_eq!((first.len(), second.len()), (256, 44));
        let slots: Vec<u32> = first
            .into_iter()
            .chain(second)
            .filter_map(|item| match item.kind {
                Some(sender_item::Kind::SlotClosed(closed)) => Some(closed.slot),
                _ => None,
            })
            .collect();
        assert_eq!(slots, (0..300).collect::<Vec<_>>());
    }
}
