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
            25..45 => {
                let open: Vec<usize> = (0..self.streams.len())
                    .filter(|stream| self.streams[*stream].open)
                    .collect();
                if !open.is_empty() {
                    let stream = open[self.rng.random_range(0..open.len())];
                    self.break_stream(stream);
                }
            }
            45..60 => {
                let node = self.rng.random_range(0..self.nodes.len());
                self.nodes[node].paused_until = self.now + self.rng.random_range(100..20_000);
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
        let life = self.nodes[node].life;
        let streams: Vec<usize> = (0..self.streams.len())
            .filter(|s| {
                self.streams[*s].open
                    && self.streams[*s].node == node
                    && self.streams[*s].life == life
            })
            .collect();
        let machine = self.machine(node);
        self.nodes[node] = Node {
            machine,
            life: life + 1,
            paused_until: 0,
            leases: BTreeMap::new(),
            read: BTreeMap::new(),
            operations: self.operations.clone(),
        };
        // Its leases run out by themselves.
        for stream in streams {
            self.break_stream(stream);
        }
        self.after(
            20,
            Event::Wake {
                node,
                life: life + 1,
            },
        );
    }

    pub(super) fn crash_sender(&mut self) {
        self.crashes += 1;
        let sender = self.rng.random_range(0..self.senders.len());
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
        let incarnation = self.senders[sender].incarnation + 1;
        // Perhaps it was upgraded, or the upgrade taken back.
        self.senders[sender] = Sender {
            incarnation,
            is_old: self.chance(30),
            ..Sender::default()
        };
        let streams: Vec<usize> = (0..self.streams.len())
            .filter(|s| self.streams[*s].open && self.streams[*s].sender == sender)
            .collect();
        for stream in streams {
            self.break_stream(stream);
        }
    }
}
