//! What follows from a message that came in: decided once, then stored step by step, each step once.

use std::collections::VecDeque;

use bytes::Bytes;
use mail::PartitionId;
use proto::event::Event;
use proto::spool::IndexEntry;
use spool::{Stores, SubmitError};

use super::derived;

/// So many events go into one record, whatever their size, so that they are the same ones each time: a report's words are short.
const MOST_EVENTS: usize = 16;

/// What is still to be stored. What is done does not come again when a later step has to wait.
#[derive(Debug, Default)]
pub(super) struct Plan {
    events: Vec<Event>,
    packs: u32,
    messages: VecDeque<Outgoing>,
    counted: Vec<&'static str>,
}

/// A message of ours on its way into the spool.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Its block, entry and content.
    block: ([u8; 16], IndexEntry, Bytes),
    /// What it counts as.
    what: &'static str,
    /// So many partitions have refused it.
    full: u32,
    /// It may be stored in the partition that is next.
    in_doubt: bool,
}

impl Plan {
    /// A word for metrics.
    pub(super) fn count(&mut self, what: &'static str) {
        self.counted.push(what);
    }

    pub(super) fn tell(&mut self, event: Event) {
        self.events.push(event);
    }

    pub(super) fn send(&mut self, block: ([u8; 16], IndexEntry, Bytes), what: &'static str) {
        self.messages.push_back(Outgoing {
            block,
            what,
            full: 0,
            in_doubt: false,
        });
    }

    /// Stores what is left: events first, since whoever reads them knows those that come again, however late. `Err` says why
    /// something has to wait. Gives what all of it counts as.
    pub(super) async fn carry_out(
        &mut self,
        id: &[u8; 16],
        stores: &Stores,
        partitions: u32,
    ) -> Result<Vec<&'static str>, String> {
        while !self.events.is_empty() {
            let count = self.events.len().min(MOST_EVENTS);
            let pack = self.events[..count].to_vec();
            let pack_id = derived(id, "events", &self.packs.to_string());
            let stored = stores.events().store_as(pack_id, "feedback", pack).await;
            stored.map_err(|error| error.to_string())?;
            self.events.drain(..count);
            self.packs += 1;
        }
        while let Some(message) = self.messages.front_mut() {
            let what = message.store(stores, partitions.max(1)).await?;
            self.counted.push(what);
            self.messages.pop_front();
        }
        Ok(std::mem::take(&mut self.counted))
    }
}

impl Outgoing {
    /// Into the partition that its id names; when that has no room for certain, into the next one.
    async fn store(&mut self, stores: &Stores, partitions: u32) -> Result<&'static str, String> {
        for _ in 0..partitions {
            let (block_id, entry, content) = self.block.clone();
            let block = vec![(entry, content)];
            let stored = stores.publish_block(self.partition(partitions), block_id, block, 0);
            match stored.await {
                Ok(_) => return Ok(self.what),
                Err(SubmitError::TooLarge(size)) => {
                    tracing::error!(size, "a message is too large to be passed on");
                    return Ok("too_large");
                }
                Err(error) if self.goes_on(&error, partitions) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Err(SubmitError::Full.to_string())
    }

    fn partition(&self, partitions: u32) -> PartitionId {
        let id = &self.block.0;
        let number = u32::from_be_bytes([id[12], id[13], id[14], id[15]]);
        PartitionId((number % partitions + self.full) % partitions)
    }

    /// Whether the next partition may be tried: only when this one has it certainly not, now or from an attempt before.
    fn goes_on(&mut self, error: &SubmitError, partitions: u32) -> bool {
        self.in_doubt |= matches!(error, SubmitError::Unknown(_));
        let goes_on = matches!(error, SubmitError::Full) && !self.in_doubt;
        if goes_on {
            self.full = (self.full + 1) % partitions;
        }
        goes_on
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_partition_gives_way_unless_it_may_have_the_message() {
        let mut message = Outgoing {
            block: ([0xff; 16], IndexEntry::default(), Bytes::new()),
            what: "forwarded",
            full: 0,
            in_doubt: false,
        };
        let mut tried = Vec::new();
        for _ in 0..4 {
            tried.push(message.partition(4).0);
            assert!(message.goes_on(&SubmitError::Full, 4));
        }
        assert_eq!(tried, [3, 0, 1, 2]);
        let away = SubmitError::Unavailable(String::new());
        assert!(!message.goes_on(&away, 4));
        let unknown = SubmitError::Unknown(String::new());
        assert!(!message.goes_on(&unknown, 4));
        assert!(!message.goes_on(&SubmitError::Full, 4));
        assert_eq!(message.partition(4).0, 3);
    }
}
