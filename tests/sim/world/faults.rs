//! What goes wrong.

use super::*;

impl World {
    pub(super) fn fault(&mut self) {
        if !self.faulty() {
            return;
        }
        match self.rng.random_range(0..100) {
            0..15 => self.crash_scheduler(),
            15..25 => self.crash_sender(),
            25..35 => {
                let open = self.streams_where(|_| true);
                if !open.is_empty() {
                    let stream = open[self.rng.random_range(0..open.len())];
                    self.break_stream(stream);
                }
            }
            35..42 => self.outage(),
            42..52 => self.trouble_redis(),
            52..55 => self.set_wall_clock(),
            55..60 => {
                let node = self.rng.random_range(0..self.nodes.len());
                let until = self.now + self.rng.random_range(100..20_000);
                self.nodes[node].paused_until = until;
                self.note(|| format!("scheduler {node} stands still until {until}"));
                self.go_unheard(node);
                self.orphan_all(node, self.nodes[node].life);
            }
            60..70 => self.journal_full_until = self.now + self.rng.random_range(10..15_000),
            70..75 => {
                // Everything at once.
                self.crash_scheduler();
                self.crash_scheduler();
                self.crash_sender();
                self.crash_sender();
            }
            75..90 => {
                let node = self.rng.random_range(0..self.nodes.len());
                let owned: Vec<PartitionId> = self.nodes[node]
                    .machine
                    .intakes()
                    .map(Intake::partition)
                    .collect();
                for partition in owned {
                    self.step(node, Some(Input::ShortOfSpace(partition)));
                }
            }
            90..95 => self.configure(),
            _ => {
                // Feedback restarts and reads the journal again.
                for position in &mut self.fed_back {
                    *position = position.saturating_sub(self.rng.random_range(0..50));
                }
            }
        }
        let delay = self.rng.random_range(100..6_000);
        self.after(delay, Event::Fault);
    }

    /// Somebody changes how long final replies are waited for.
    fn configure(&mut self) {
        self.final_reply = self.rng.random();
        let config = self.configuration();
        for node in 0..self.nodes.len() {
            self.step(node, Some(Input::Config(config.clone())));
        }
    }

    pub(super) fn crash_scheduler(&mut self) {
        self.crashes += 1;
        let node = self.rng.random_range(0..self.nodes.len());
        if !self.nodes[node].up {
            return;
        }
        let life = self.nodes[node].life;
        self.note(|| format!("scheduler {node} crashes"));
        let streams = self.streams_where(|s| s.node == node && s.life == life);
        let name = self.nodes[node].machine.scheduler_id().to_owned();
        self.beside.killed(self.now, &name);
        // Its leases run out by themselves.
        self.join_node(node);
        for stream in streams {
            self.break_stream(stream);
        }
        self.orphan_all(node, life);
    }

    pub(super) fn crash_sender(&mut self) {
        self.crashes += 1;
        let sender = self.rng.random_range(0..self.senders.len());
        if self.senders[sender].up {
            self.end_sender(sender);
            self.join_sender(sender);
        }
    }

    /// Its process is gone.
    pub(super) fn end_sender(&mut self, sender: usize) {
        self.note(|| format!("sender {sender} ends"));
        // What was under permit, and reports that nobody has acknowledged, are in doubt.
        let lost: BTreeSet<Key> = self.senders[sender]
            .holds
            .values()
            .filter(|h| h.stage != Holds::Assigned)
            .map(|h| key(&h.delivery))
            .chain(self.senders[sender].reports.keys().copied())
            .collect();
        for key in &lost {
            let holds = &self.senders[sender].holds;
            let reports = &self.senders[sender].reports;
            let of_reports = || {
                reports
                    .get(key)
                    .and_then(|(report, _)| report.delivery.clone())
            };
            let of_holds = holds.get(key).map(|holding| holding.delivery.clone());
            self.note_doubt(of_holds.or_else(of_reports).as_ref());
            self.end_permit(sender, *key);
        }
        for slot in self.senders[sender]
            .connections
            .keys()
            .copied()
            .collect::<Vec<_>>()
        {
            self.cut_connection(sender, slot);
        }
        for stream in self.streams_where(|s| s.sender == sender) {
            self.streams[stream].seen_by_sender = false;
            self.break_stream(stream);
        }
        for stream in &mut self.streams {
            stream.seen_by_sender &= stream.sender != sender;
        }
        self.senders[sender] = Sender {
            incarnation: self.senders[sender].incarnation,
            ..Sender::default()
        };
    }
}
