//! Streams between senders and schedulers.

use proto::dispatch::{Draining, scheduler_item};

use super::hosts::KNOWN_MS;
use super::*;

/// Until a side that hears nothing takes the stream for broken, milliseconds.
const UNHEARD_MS: u64 = 6_500;

impl World {
    pub(super) fn connect(&mut self, sender: usize, node: usize) {
        let life = self.nodes[node].life;
        let is_same = |s: &Stream| (s.sender, s.node) == (sender, node) && s.seen_by_sender;
        let state = &self.senders[sender];
        if !state.up || !self.nodes[node].up || self.streams.iter().any(is_same) {
            return;
        }
        if self.is_paused(node) {
            self.after(1_000, Event::Connect { sender, node });
            return;
        }
        let session = SessionId(self.streams.len() as u64 + 1);
        self.streams.push(Stream {
            sender,
            node,
            life,
            open: true,
            seen_by_sender: true,
            cut_at: 0,
            session,
        });
        let stream = self.streams.len() - 1;
        self.step(node, Some(Input::Attached(session)));
        let hello = self.senders[sender].hello(sender);
        self.send(stream, hello);
        if self.senders[sender].drains {
            self.send(stream, ToScheduler::Draining(Draining {}));
        }
    }

    /// Nothing passes any more. Both sides see it at once, or one of them when it has heard nothing for a while.
    pub(super) fn break_stream(&mut self, stream: usize) {
        if !std::mem::replace(&mut self.streams[stream].open, false) {
            return;
        }
        self.streams[stream].cut_at = self.now;
        self.note(|| format!("stream {stream} is cut"));
        let (mut sender_ms, mut node_ms) = (0, 0);
        match self.rng.random_range(0..4) {
            0 => sender_ms = self.rng.random_range(1..UNHEARD_MS),
            1 => node_ms = self.rng.random_range(1..UNHEARD_MS),
            _ => {}
        }
        let node = self.streams[stream].node;
        let wait = self.nodes[node].paused_until.saturating_sub(self.now);
        self.seen_after(stream, sender_ms, node_ms.max(wait));
    }

    /// A scheduler that stands still is lost to its senders.
    pub(super) fn go_unheard(&mut self, node: usize) {
        let until = self.nodes[node].paused_until;
        let life = self.nodes[node].life;
        for stream in self.streams_where(|s| s.node == node && s.life == life) {
            let wait = self.rng.random_range(3_000..UNHEARD_MS);
            if self.now + wait < until {
                let since = self.now;
                self.after(wait, Event::Unheard { stream, since });
            }
        }
    }

    /// Open streams.
    pub(super) fn streams_where(&self, which: impl Fn(&Stream) -> bool) -> Vec<usize> {
        let streams = self.streams.iter().enumerate();
        streams
            .filter(|(_, stream)| stream.open && which(stream))
            .map(|(number, _)| number)
            .collect()
    }

    /// A scheduler that stood still for too long has lost the stream; it sees that when it goes on.
    pub(super) fn unheard(&mut self, stream: usize, since: u64) {
        if std::mem::replace(&mut self.streams[stream].open, false) {
            self.streams[stream].cut_at = since;
            let node = self.streams[stream].node;
            let wait = self.nodes[node].paused_until.saturating_sub(self.now);
            let node_ms = wait + self.rng.random_range(1..500);
            self.seen_after(stream, 0, node_ms);
        }
    }

    fn seen_after(&mut self, stream: usize, sender_ms: u64, node_ms: u64) {
        let sees_sender = Event::SenderSees { stream };
        let sees_node = Event::NodeSees { stream };
        match sender_ms {
            0 => self.sender_sees(stream),
            _ => self.after(sender_ms, sees_sender),
        }
        match node_ms {
            0 => self.node_sees(stream),
            _ => self.after(node_ms, sees_node),
        }
    }

    pub(super) fn node_sees(&mut self, stream: usize) {
        let Stream {
            node,
            life,
            session,
            ..
        } = self.streams[stream];
        if self.nodes[node].life == life {
            self.step(node, Some(Input::Detached(session)));
        }
    }

    pub(super) fn sender_sees(&mut self, stream: usize) {
        let Stream {
            sender,
            node,
            cut_at,
            ..
        } = self.streams[stream];
        if !std::mem::replace(&mut self.streams[stream].seen_by_sender, false) {
            return;
        }
        let acts = self.senders[sender].stream_broken(stream);
        self.act(sender, acts);
        self.orphan(stream, cut_at + KNOWN_MS);
        self.tidy(sender);
        let delay = self.rng.random_range(10..3_000);
        self.after(delay, Event::Connect { sender, node });
    }

    pub(super) fn send(&mut self, stream: usize, item: ToScheduler) {
        let delay = self.streams[stream].session.0 % 3 + 1;
        self.after(delay, Event::ToScheduler { stream, item });
    }

    pub(super) fn act(&mut self, sender: usize, acts: Vec<Act>) {
        let incarnation = self.senders[sender].incarnation;
        for act in acts {
            match act {
                Act::Send(stream, item) => self.send(stream, item),
                Act::Free(slot) => self.say_free(sender, slot),
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

    /// A sender hears something.
    pub(super) fn hear(&mut self, stream: usize, item: SchedulerItem) {
        let sender = self.streams[stream].sender;
        if !self.streams[stream].open || !self.streams[stream].seen_by_sender {
            return;
        }
        self.note_permit(sender, &item);
        if let Some(scheduler_item::Kind::CloseSlot(close)) = &item.kind {
            self.close_slot(sender, (stream, close.lane, close.slot));
        }
        let acts = self.senders[sender].take(self.now, stream, item);
        self.act(sender, acts);
        self.tidy(sender);
    }
}
