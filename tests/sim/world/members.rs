//! Schedulers and senders join and leave.

use proto::dispatch::Draining;

use super::*;

/// How long a scheduler that leaves waits for its journals, milliseconds.
const SETTLE_MS: u64 = 1_500;

impl World {
    /// Somebody wants another number of schedulers or senders.
    pub(super) fn scale(&mut self) {
        if !self.faulty() {
            return;
        }
        let one = self.rng.random_range(0..MEMBERS);
        let nodes = self.nodes.iter().filter(|node| node.up && !node.leaves);
        let senders = self.senders.iter().filter(|one| one.up && !one.drains);
        let (nodes, senders) = (nodes.count(), senders.count());
        match self.rng.random_range(0..2) {
            0 if !self.nodes[one].up => self.join_node(one),
            0 if nodes > 1 && self.chance(50) => self.ask_node_to_leave(one),
            1 if !self.senders[one].up => self.join_sender(one),
            1 if senders > 1 && self.chance(50) => self.ask_sender_to_leave(one),
            _ => {}
        }
        let delay = self.rng.random_range(500..20_000);
        self.after(delay, Event::Scale);
    }

    pub(super) fn join_node(&mut self, node: usize) {
        let life = self.nodes[node].life + 1;
        self.note(|| format!("scheduler {node}.{life} starts"));
        let started = self.started(node, life);
        self.nodes[node] = Node {
            up: true,
            ..started
        };
        self.after(20, Event::Wake { node, life });
        self.after(5, Event::OpensRedis { node, life });
        self.after(6, Event::Present { node, life });
        for sender in 0..MEMBERS {
            let delay = self.rng.random_range(10..3_000);
            self.after(delay, Event::Connect { sender, node });
        }
    }

    fn ask_node_to_leave(&mut self, node: usize) {
        if self.nodes[node].leaves {
            return;
        }
        self.scaled += 1;
        self.nodes[node].leaves = true;
        self.nodes[node].machine.drain();
        let life = self.nodes[node].life;
        self.after(SETTLE_MS, Event::Leaves { node, life });
    }

    /// Its time is over: what it has is handed over.
    pub(super) fn node_leaves(&mut self, node: usize) {
        for partition in self.nodes[node].leases.keys().copied().collect::<Vec<_>>() {
            self.step(node, Some(Input::Drop(partition)));
        }
        let life = self.nodes[node].life;
        self.note(|| format!("scheduler {node}.{life} leaves"));
        let name = self.nodes[node].machine.scheduler_id().to_owned();
        self.beside.killed(self.now, &name);
        let streams = self.streams_where(|s| s.node == node && s.life == life);
        self.nodes[node] = self.started(node, life + 1);
        for stream in streams {
            self.break_stream(stream);
        }
        self.orphan_all(node, life);
    }

    pub(super) fn join_sender(&mut self, sender: usize) {
        let incarnation = self.senders[sender].incarnation + 1;
        self.senders[sender] = Sender {
            incarnation,
            // Perhaps it was upgraded, or the upgrade taken back.
            is_old: incarnation > 1 && self.chance(30),
            up: true,
            ..Sender::default()
        };
        for node in 0..MEMBERS {
            let delay = self.rng.random_range(10..3_000);
            self.after(delay, Event::Connect { sender, node });
        }
    }

    fn ask_sender_to_leave(&mut self, sender: usize) {
        if self.senders[sender].drains {
            return;
        }
        self.scaled += 1;
        self.senders[sender].drains = true;
        for stream in self.streams_where(|s| s.sender == sender && s.seen_by_sender) {
            self.send(stream, ToScheduler::Draining(Draining {}));
        }
        let acts = self.senders[sender].give_back_all();
        self.act(sender, acts);
        self.tidy(sender);
        let incarnation = self.senders[sender].incarnation;
        let leaves = Event::SenderLeaves {
            sender,
            incarnation,
        };
        self.after(1_000, leaves);
    }

    /// It goes when nothing is under way any more and all reports are stored, or when nobody waits any longer.
    pub(super) fn sender_leaves(&mut self, sender: usize, incarnation: u64) {
        let state = &self.senders[sender];
        if state.incarnation != incarnation {
            return;
        }
        let is_done = state.holds.is_empty() && state.reports.is_empty();
        if is_done || (self.faulty() && self.chance(3)) {
            self.end_sender(sender);
            self.senders[sender].up = false;
            return;
        }
        let leaves = Event::SenderLeaves {
            sender,
            incarnation,
        };
        self.after(1_000, leaves);
    }
}
