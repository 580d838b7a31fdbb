//! Streams between senders and schedulers.

use proto::dispatch::{SlotClosed, scheduler_item};

use super::*;

impl World {
    pub(super) fn connect(&mut self, sender: usize, node: usize) {
        let life = self.nodes[node].life;
        let session = SessionId(self.streams.len() as u64 + 1);
        self.streams.push(Stream {
            sender,
            node,
            life,
            open: true,
            session,
        });
        let stream = self.streams.len() - 1;
        self.step(node, Some(Input::Attached(session)));
        let hello = self.senders[sender].hello(sender);
        self.after(
            1,
            Event::ToScheduler {
                stream,
                item: hello,
            },
        );
    }

    pub(super) fn break_stream(&mut self, stream: usize) {
        let Stream {
            sender,
            node,
            life,
            session,
            open,
        } = self.streams[stream];
        if !open {
            return;
        }
        self.streams[stream].open = false;
        let acts = self.senders[sender].stream_broken(stream);
        self.act(sender, acts);
        if self.nodes[node].life == life {
            self.step(node, Some(Input::Detached(session)));
        }
        let delay = self.rng.random_range(10..3_000);
        self.after(delay, Event::Connect { sender, node });
    }

    pub(super) fn act(&mut self, sender: usize, acts: Vec<Act>) {
        let incarnation = self.senders[sender].incarnation;
        for act in acts {
            match act {
                Act::Send(stream, item) => {
                    let delay = self.streams[stream].session.0 % 3 + 1;
                    self.after(delay, Event::ToScheduler { stream, item });
                }
                Act::Work(key) => {
                    let holding = self.senders[sender].holds.get(&key);
                    let permitted = holding.is_some_and(|h| matches!(h.stage, Holds::Permitted(_)));
                    // A large message goes out just before its permit ends.
                    let delay = if permitted && self.faulty() && self.chance(3) {
                        self.rng.random_range(50_000..60_000)
                    } else {
                        self.rng.random_range(1..50)
                    };
                    self.after(
                        delay,
                        Event::Work {
                            sender,
                            incarnation,
                            key,
                        },
                    );
                }
            }
        }
    }

    /// Slots are taken back only when nothing is under way over them: the connection is closed at once.
    pub(super) fn close_slot(&mut self, stream: usize, item: &SchedulerItem) {
        if let Some(scheduler_item::Kind::CloseSlot(close)) = &item.kind {
            let closed = ToScheduler::SlotClosed(SlotClosed {
                lane: close.lane,
                slot: close.slot,
            });
            self.act(self.streams[stream].sender, vec![Act::Send(stream, closed)]);
        }
    }
}
