//! The schedulers: their machines, leases, journals and take-overs.

use super::*;

impl World {
    /// Feeds the machine and carries out what it wants.
    pub(super) fn step(&mut self, node: usize, input: Option<Input>) {
        let now = self.now;
        if let Some(input) = input {
            self.nodes[node].machine.step(now, input);
        }
        self.nodes[node].machine.run(now);
        let outputs: Vec<Output> = self.nodes[node].machine.outputs().collect();
        let life = self.nodes[node].life;
        for output in outputs {
            match output {
                Output::ToSender(session, item) => {
                    self.check_assigned(node, &item);
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
                Output::AskGrant { .. } => unreachable!("no lane has a rate here"),
                Output::AskSlots { .. } => unreachable!("connections are not leased here"),
                // Nobody answers: turns of its own are as good here.
                Output::AskTurns { .. } | Output::TellAct { .. } | Output::TellStandings { .. } => {
                }
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
        if !self.is_paused(node) {
            let held: Vec<PartitionId> = self.nodes[node].leases.keys().copied().collect();
            for partition in held {
                let still = self
                    .leases
                    .get(&partition)
                    .is_some_and(|(holder, until)| *holder == node && *until > self.now);
                if still && !(self.faulty() && self.chance(2)) {
                    self.leases.insert(partition, (node, self.now + LEASE_MS));
                    self.nodes[node]
                        .leases
                        .insert(partition, self.now + LEASE_MS);
                    let input = Input::Renewed {
                        partition,
                        lease_until_ms: self.now + LEASE_MS,
                    };
                    self.step(node, Some(input));
                } else if !still {
                    self.nodes[node].leases.remove(&partition);
                    self.step(node, Some(Input::Drop(partition)));
                }
            }
            for partition in (0..PARTITIONS).map(PartitionId) {
                let free = self
                    .leases
                    .get(&partition)
                    .is_none_or(|(_, until)| *until <= self.now);
                if free && (self.nodes[node].leases.is_empty() || self.chance(20)) {
                    self.leases.insert(partition, (node, self.now + LEASE_MS));
                    self.nodes[node]
                        .leases
                        .insert(partition, self.now + LEASE_MS);
                    self.take_over(node, partition);
                }
            }
        }
        self.after(2_000, Event::Leases { node });
    }

    pub(super) fn take_over(&mut self, node: usize, partition: PartitionId) {
        self.numbers += 1;
        let mut writer = Writer::new(
            format!("scheduler-{node}"),
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
            effect = writer
                .step(self.now, event)
                .unwrap_or(WriterEffect::ReadTail);
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
                .block(self.now, *sequence, *sequence, index.clone())
                .expect("blocks are known");
            read = *sequence;
        }
        intake.caught_up();
        intake.activate(self.now);
        self.nodes[node].read.insert(partition, read);
        let lease_until_ms = self.now + LEASE_MS;
        self.step(
            node,
            Some(Input::Owned {
                intake: Box::new(intake),
                lease_until_ms,
            }),
        );
    }
}
