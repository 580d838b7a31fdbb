//! The schedulers: their machines, leases, journals and take-overs.

use scheduler::lending::{grant_request, grant_share, slot_request};

use super::lending::Asks;
use super::*;

impl World {
    /// Feeds the machine and carries out what it wants.
    pub(super) fn step(&mut self, node: usize, input: Option<Input>) {
        if !self.nodes[node].up {
            return;
        }
        let now = self.clock(node);
        if let Some(input) = input {
            self.nodes[node].machine.step(now, input);
        }
        self.nodes[node].machine.run(now);
        self.note_owned(node);
        let outputs: Vec<Output> = self.nodes[node].machine.outputs().collect();
        let life = self.nodes[node].life;
        for output in outputs {
            match output {
                Output::ToSender(session, item) => {
                    self.check_assigned(node, &item);
                    self.check_is_real(&item);
                    let stream = self.streams.iter().rposition(|s| {
                        s.node == node && s.life == life && s.session == session && s.open
                    });
                    if let Some(stream) = stream {
                        let delay = self.streams[stream].session.0 % 3 + 1;
                        self.after(delay, Event::ToSender { stream, item });
                    }
                }
                Output::Journal(partition, effect) => self.journal(node, partition, effect),
                Output::Resolve(domain) => self.after(5, Event::Resolved { node, life, domain }),
                Output::AskGrant {
                    whose,
                    key,
                    window,
                    word,
                } => {
                    let intakes = self.nodes[node].machine.intakes();
                    let owned: Vec<u32> = intakes.map(|intake| intake.partition().0).collect();
                    let share = grant_share(&key, window, PARTITIONS, &owned);
                    let holder = self.nodes[node].machine.scheduler_id().to_owned();
                    let request = grant_request(key, holder, window, word, now);
                    self.ask(node, Asks::Grant(whose, window, request, share));
                }
                Output::AskSlots {
                    whose,
                    key,
                    limit,
                    share,
                    have,
                    want,
                } => {
                    let holder = self.nodes[node].machine.scheduler_id().to_owned();
                    let request = slot_request(key, holder, (limit, share), (have, want));
                    self.ask(node, Asks::Slots(whose, request));
                }
                Output::TellAct { key, act } => self.tell_act(key, act),
                // Nobody answers: turns of its own are as good here.
                Output::AskTurns { .. } | Output::TellStandings { .. } => {}
                Output::TrimSpool(partition, below) => {
                    // A stale owner's purge is late, but what it purges was final by the journal.
                    self.spools[partition.0 as usize].purge_below(below);
                    self.check_trim(partition, below);
                }
                Output::TrimJournal(partition, below) => {
                    self.logs[partition.0 as usize].purge_below(below)
                }
                Output::DeleteUpload(..) => unreachable!("there are no uploads here"),
                Output::Copy(partition, copy) => {
                    let spool = &mut self.spools[partition.0 as usize];
                    let entries: Option<Vec<IndexEntry>> = copy
                        .messages
                        .iter()
                        .map(|(_, place)| {
                            Some(
                                spool.blocks.get(&place.sequence)?.entries[place.index as usize]
                                    .clone(),
                            )
                        })
                        .collect();
                    self.copies += u32::from(entries.is_some());
                    let copied = entries.map(|entries| {
                        let sequence = spool.store(BlockIndex {
                            format: 1,
                            flags: 1,
                            block_id: Default::default(),
                            entries,
                        });
                        (sequence, copy.messages.iter().map(|(id, _)| *id).collect())
                    });
                    self.after(
                        10,
                        Event::Copied {
                            node,
                            life,
                            partition,
                            epoch: copy.epoch,
                            copy: copied,
                        },
                    );
                }
                Output::Dropped(partition, _) => {
                    self.dropped_at[partition.0 as usize] = self.now;
                    self.nodes[node].leases.remove(&partition);
                    if self
                        .leases
                        .get(&partition)
                        .is_some_and(|(holder, _)| *holder == node)
                    {
                        self.leases.remove(&partition);
                    }
                }
                Output::Alarm(partition, what) => panic!("partition {partition}: {what}"),
            }
        }
    }

    /// Invariant 2: what is not final is still in the spool.
    pub(super) fn check_trim(&mut self, partition: PartitionId, below: u64) {
        if below == self.spools[partition.0 as usize].checked_below {
            return;
        }
        self.spools[partition.0 as usize].checked_below = below;
        let kept: BTreeSet<&[u8]> = self
            .spools
            .iter()
            .flat_map(|spool| spool.blocks.values())
            .flat_map(|block| &block.entries)
            .map(|entry| &entry.message_id[..])
            .collect();
        for ((id, ordinal), account) in &self.ledger {
            assert!(
                !account.needs_spool() || kept.contains(&id.as_bytes()[..]),
                "recipient {ordinal} of {id} was trimmed with partition {partition} below {below}"
            );
        }
    }

    /// Carries out what the writer wants; replies are sometimes lost, whether the record was stored or not.
    pub(super) fn journal(&mut self, node: usize, partition: PartitionId, effect: WriterEffect) {
        let life = self.nodes[node].life;
        let faulty = self.faulty();
        let event = match effect {
            WriterEffect::Append { append, .. } => {
                if faulty && self.chance(3) {
                    WriterEvent::Unknown
                } else if self.now < self.journal_full_until {
                    WriterEvent::Full
                } else {
                    let record = append.record.clone();
                    let appended = self.logs[partition.0 as usize].append(
                        append.record,
                        &append.id,
                        append.expected_last,
                    );
                    if matches!(appended, Appended::Stored(_)) {
                        self.note_expired(&record);
                    }
                    match appended {
                        _ if faulty && self.chance(3) => WriterEvent::Unknown,
                        Appended::Stored(sequence) => WriterEvent::Stored(sequence),
                        Appended::WrongLast => WriterEvent::WrongLastSequence,
                    }
                }
            }
            WriterEffect::ReadTail => WriterEvent::Tail(self.tail(partition)),
            WriterEffect::Claimed(_) | WriterEffect::Stored { .. } | WriterEffect::Lost(_) => {
                return;
            }
        };
        let delay = self.rng.random_range(1..15);
        self.after(
            delay,
            Event::JournalReply {
                node,
                life,
                partition,
                event,
            },
        );
    }

    pub(super) fn tail(&self, partition: PartitionId) -> Option<Tail> {
        let (sequence, (id, record)) = self.logs[partition.0 as usize].records.last_key_value()?;
        Some(Tail {
            sequence: *sequence,
            id: id.clone(),
            record: record.clone(),
        })
    }

    /// The resolver answers.
    pub(super) fn resolved(&mut self, node: usize, domain: Arc<str>) {
        let site = format!("mx.{domain}");
        let news = match self.now < self.hosts[&site].unknown_until {
            true => SiteNews::Temporary("no name server answers".to_owned()),
            false => SiteNews::Site(site.into()),
        };
        self.step(node, Some(Input::Resolved(domain, news)));
    }

    /// A scheduler hears a sender.
    pub(super) fn hear_sender(&mut self, stream: usize, item: ToScheduler) {
        let Stream {
            node,
            life,
            session,
            open,
            ..
        } = self.streams[stream];
        if !open || self.nodes[node].life != life {
            return;
        }
        if self.is_paused(node) {
            let wait = self.nodes[node].paused_until - self.now;
            self.after(wait, Event::ToScheduler { stream, item });
            return;
        }
        let item = SenderItem { kind: Some(item) };
        self.step(node, Some(Input::Sender(session, item)));
    }

    /// What is done about replies is told to all that are there.
    fn tell_act(&mut self, key: u64, act: Acted) {
        self.acts.insert(key, act);
        for node in 0..self.nodes.len() {
            let life = self.nodes[node].life;
            let delay = self.rng.random_range(5..500);
            self.after(delay, Event::Told { node, life });
        }
    }

    /// Several blocks at once, or one.
    pub(super) fn feed_blocks(&mut self, node: usize) {
        let owned: Vec<PartitionId> = self.nodes[node]
            .machine
            .intakes()
            .map(Intake::partition)
            .collect();
        for partition in owned {
            for _ in 0..self.rng.random_range(1..5) {
                self.feed_block(node, partition);
            }
        }
    }

    fn feed_block(&mut self, node: usize, partition: PartitionId) {
        let Some(read) = self.nodes[node].read.get(&partition).copied() else {
            return;
        };
        let spool = &self.spools[partition.0 as usize];
        let next = spool.blocks.range(read + 1..).next();
        let Some((sequence, index)) = next.map(|(sequence, index)| (*sequence, index.clone()))
        else {
            return;
        };
        self.nodes[node].read.insert(partition, sequence);
        let input = Input::Block {
            partition,
            first: sequence,
            sequence,
            index: Ok(index),
        };
        self.step(node, Some(input));
    }

    pub(super) fn look_after_leases(&mut self, node: usize) {
        self.after(2_000, Event::Leases { node });
        let state = &self.nodes[node];
        if self.is_paused(node) || !state.up || state.leaves {
            return;
        }
        let lease_until_ms = self.clock(node) + LEASE_MS;
        let held: Vec<PartitionId> = self.nodes[node].leases.keys().copied().collect();
        for partition in held {
            let still = self
                .leases
                .get(&partition)
                .is_some_and(|(holder, until)| *holder == node && *until > self.now);
            if still && !(self.faulty() && self.chance(2)) {
                self.leases.insert(partition, (node, self.now + LEASE_MS));
                let leases = &mut self.nodes[node].leases;
                leases.insert(partition, lease_until_ms);
                let input = Input::Renewed {
                    partition,
                    lease_until_ms,
                };
                self.step(node, Some(input));
            } else if !still {
                self.nodes[node].leases.remove(&partition);
                self.step(node, Some(Input::Drop(partition)));
            }
        }
        self.balance(node);
    }

    /// Takes what is free, up to its part and perhaps more; gives back what is more than that.
    fn balance(&mut self, node: usize) {
        let there = self.nodes.iter().filter(|n| n.up && !n.leaves).count();
        let fair = (PARTITIONS as usize).div_ceil(there);
        for partition in (0..PARTITIONS).map(PartitionId) {
            let lease = self.leases.get(&partition);
            let free = lease.is_none_or(|(_, until)| *until <= self.now);
            let held = self.nodes[node].leases.len();
            if free && (held < fair || self.chance(20)) {
                self.leases.insert(partition, (node, self.now + LEASE_MS));
                let lease_until_ms = self.clock(node) + LEASE_MS;
                let leases = &mut self.nodes[node].leases;
                leases.insert(partition, lease_until_ms);
                self.take_over(node, partition);
            }
        }
        let surplus = self.nodes[node].leases.keys().next_back().copied();
        if self.nodes[node].leases.len() > fair
            && let Some(partition) = surplus
        {
            self.step(node, Some(Input::Drop(partition)));
        }
    }

    pub(super) fn take_over(&mut self, node: usize, partition: PartitionId) {
        self.numbers += 1;
        self.note(|| format!("scheduler {node} takes partition {partition}"));
        let now = self.clock(node);
        let mut writer = Writer::new(
            self.nodes[node].machine.scheduler_id(),
            format!("claim-{}", self.numbers),
        );
        let mut effect = writer.claim();
        let claimed = loop {
            let event = match effect {
                WriterEffect::Claimed(claimed) => break claimed,
                WriterEffect::Append { append, .. } => {
                    let appended = self.logs[partition.0 as usize].append(
                        append.record,
                        &append.id,
                        append.expected_last,
                    );
                    match appended {
                        _ if self.faulty() && self.chance(20) => WriterEvent::Unknown,
                        Appended::Stored(sequence) => WriterEvent::Stored(sequence),
                        Appended::WrongLast => WriterEvent::WrongLastSequence,
                    }
                }
                _ => WriterEvent::Tail(self.tail(partition)),
            };
            effect = writer.step(now, event).unwrap_or(WriterEffect::ReadTail);
        };
        let settings = Settings {
            snapshot_entries: 40,
            ..Settings::default()
        };
        let mut intake = Intake::new(partition, settings, writer);
        let log = &self.logs[partition.0 as usize];
        let (first, _) = log
            .records
            .first_key_value()
            .expect("a journal is never empty");
        assert!(
            *first <= claimed.replay_from,
            "the journal was trimmed past the start of the last snapshot"
        );
        for (sequence, (_, record)) in log.records.range(claimed.replay_from..=claimed.epoch) {
            intake
                .replay(
                    *sequence,
                    journal::decode(record).expect("records are readable"),
                )
                .expect("records can be replayed");
        }
        let spool = &self.spools[partition.0 as usize];
        let mut read = intake.cursor();
        for (sequence, index) in spool.blocks.range(intake.cursor() + 1..) {
            intake
                .block(now, *sequence, *sequence, index.clone())
                .expect("blocks are known");
            read = *sequence;
        }
        intake.caught_up();
        intake.activate(now);
        self.nodes[node].read.insert(partition, read);
        let lease_until_ms = now + LEASE_MS;
        self.step(
            node,
            Some(Input::Owned {
                intake: Box::new(intake),
                lease_until_ms,
            }),
        );
    }
}
