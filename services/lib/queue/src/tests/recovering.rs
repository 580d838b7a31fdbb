//! What is recovered is what was there.

use std::collections::BTreeSet;

use proto::envelope::Simulated;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::live::Owed;

/// The live set, as far as it is to survive an owner.
fn live_set(intake: &Intake) -> Vec<String> {
    let live = &intake.live;
    let mut set: Vec<String> = live
        .messages
        .iter()
        .map(|(slot, message)| {
            let mut deliveries: Vec<String> = live
                .deliveries_of(slot)
                .into_iter()
                .map(|slot| {
                    let delivery = live.deliveries.get(slot).unwrap();
                    let begun = live
                        .flights
                        .get(&slot)
                        .filter(|flight| flight.begun_ms.is_some());
                    let state = match (begun, delivery.state) {
                        (Some(flight), _) => format!("begun {}.{}", flight.epoch, flight.attempt),
                        (None, State::Held) => "held".to_owned(),
                        (None, _) if message.is_quarantined() => "held".to_owned(),
                        (None, _) => "free".to_owned(),
                    };
                    let domain = live.strings.get(delivery.domain);
                    format!(
                        "{:?} {domain} {} {:?} {state} {:?} {:?}",
                        live.ordinals(slot),
                        delivery.attempts,
                        delivery.told,
                        live.holds.times(slot),
                        live.simulated.get(&slot),
                    )
                })
                .collect();
            deliveries.sort();
            let owed = [Owed::Failure, Owed::Relay].map(|of| {
                let mut owed: Vec<u16> = live.owed_about(slot, of).collect();
                owed.sort_unstable();
                owed
            });
            format!(
                "{} {}.{} from {} {} {:?} {:?} {} {deliveries:?} owed {owed:?}",
                message.id,
                message.sequence,
                message.index,
                live.block_first(message.sequence),
                message.expires_s,
                message.marks,
                live.uploads.get(&slot),
                live.strings.get(message.tenant),
            )
        })
        .collect();
    set.sort();
    set.push(format!("first needed {:?}", live.first_needed()));
    set.push(format!("quarantined {:?}", intake.quarantined_blocks));
    set.push(format!("recipients {}", live.recipients));
    set
}

/// A walk of random events.
struct Walk {
    rng: StdRng,
    desk: Desk,
    flying: Vec<(DeliveryRef, bool)>,
    bounced: Vec<(MessageId, Vec<u32>)>,
}

impl Walk {
    fn verdict(&mut self) -> Verdict {
        match self.rng.random_range(0..10) {
            0..4 => Verdict::Delivered,
            4 => Verdict::Relayed,
            5 => Verdict::Permanent,
            6 => Verdict::Returned,
            7 => Verdict::InDoubt,
            _ => Verdict::Transient,
        }
    }

    fn entry(&mut self) -> IndexEntry {
        let id = self.desk.id();
        let count = self.rng.random_range(1..5);
        let addresses: Vec<String> = (0..count)
            .map(|n| format!("r{n}@d{}.example", self.rng.random_range(0..3)))
            .collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let mut entry = entry(id, &addresses);
        if let Some(envelope) = entry.envelope.as_mut() {
            envelope.hold = self.rng.random_range(0..20) == 0;
            envelope.sandbox = self.rng.random_range(0..20) == 0;
            envelope.expires_by_stream = self.rng.random_range(0..2) == 0;
            for recipient in &mut envelope.recipients {
                if self.rng.random_range(0..20) == 0 {
                    let code = [250, 451, 550][self.rng.random_range(0..3)];
                    recipient.simulated = Some(Simulated {
                        deferrals: self.rng.random_range(0..2),
                        code,
                        ..Simulated::default()
                    });
                }
            }
            envelope.expires_at_ms = if self.rng.random_range(0..10) == 0 {
                self.desk.now_ms + 200_000
            } else {
                0
            };
        }
        if self.rng.random_range(0..10) == 0 {
            entry.chunks = Some(proto::spool::Chunks {
                upload_id: format!("upload-{id}"),
                ..Default::default()
            });
        }
        entry
    }

    fn step(&mut self) {
        match self.rng.random_range(0..100) {
            0..20 => {
                let entries = (0..self.rng.random_range(1..4))
                    .map(|_| self.entry())
                    .collect();
                self.desk.accept(entries);
            }
            20..45 => {
                if let Some(delivery) = self.desk.assign_to(SESSION) {
                    self.flying.push((delivery, false));
                }
            }
            45..55 => {
                if let Some((delivery, begun)) = self.flying.iter_mut().find(|(_, begun)| !begun) {
                    *begun = true;
                    let delivery = delivery.clone();
                    self.desk.begin(&delivery);
                }
            }
            55..75 => {
                if let Some(at) = self.flying.iter().position(|(_, begun)| *begun) {
                    let (delivery, _) = self.flying.remove(at);
                    let verdicts: Vec<_> = delivery
                        .ordinals
                        .iter()
                        .map(|ordinal| (*ordinal, self.verdict()))
                        .collect();
                    self.desk.report(&delivery, &verdicts);
                    let failed = verdicts
                        .iter()
                        .filter(|(_, verdict)| *verdict == Verdict::Permanent)
                        .map(|(ordinal, _)| *ordinal);
                    let failed: Vec<u32> = failed.collect();
                    if !failed.is_empty() {
                        self.bounced.push((
                            MessageId::try_from(&delivery.message_id[..]).unwrap(),
                            failed,
                        ));
                    }
                }
            }
            75..80 => {
                if let Some((original, ordinals)) = self.bounced.pop() {
                    let id = self.desk.id();
                    self.desk
                        .accept(vec![notification(id, original, &ordinals)]);
                }
            }
            80..83 => {
                self.desk.intake.session_gone(self.desk.now_ms, SESSION);
                self.flying.retain(|(_, begun)| *begun);
            }
            83..85 => self.desk.intake.begin_snapshot(),
            85..88 => self.copy(),
            88..90 => {
                if let Some(delivery) = self
                    .flying
                    .iter()
                    .find(|(_, begun)| !begun)
                    .map(|(delivery, _)| delivery.clone())
                {
                    let id = MessageId::try_from(&delivery.message_id[..]).unwrap();
                    if self.rng.random_range(0..4) == 0 && self.desk.is_live(id) {
                        let place = self.desk.place_of(id);
                        self.desk.intake.unreadable(
                            self.desk.now_ms,
                            SESSION,
                            &delivery,
                            place,
                            "damaged",
                        );
                        self.flying.retain(|(other, _)| *other != delivery);
                    }
                }
            }
            90 => self.desk.pass(300_000),
            91 => {
                self.desk.release();
            }
            _ => self.desk.pass(1_000),
        }
        if self.rng.random_range(0..3) == 0 {
            self.desk.store();
        }
    }

    fn copy(&mut self) {
        self.desk.now_ms += 5_000;
        let Some(copy) = self.desk.intake.wants_copy(self.desk.now_ms, true) else {
            return;
        };
        let entries = copy.messages.iter().map(|(_, place)| {
            self.desk.stores.blocks[&place.sequence].entries[place.index as usize].clone()
        });
        let index = BlockIndex {
            flags: 1,
            ..block(entries.collect())
        };
        let sequence = self.desk.stores.put(index);
        self.desk.read(sequence);
        let ids: Vec<MessageId> = copy.messages.iter().map(|(id, _)| *id).collect();
        self.desk.intake.copied(copy.epoch, sequence, &ids);
    }

    /// Most of what is ready is delivered.
    fn deliver_most(&mut self) {
        for _ in 0..200 {
            self.desk.tick();
            let Some(delivery) = self.desk.assign_to(SESSION) else {
                return;
            };
            self.desk.begin(&delivery);
            let verdict = if self.rng.random_range(0..20) == 0 {
                Verdict::Transient
            } else {
                Verdict::Delivered
            };
            let verdicts: Vec<_> = delivery
                .ordinals
                .iter()
                .map(|ordinal| (*ordinal, verdict))
                .collect();
            self.desk.report(&delivery, &verdicts);
        }
    }

    /// The stores do what was asked of them.
    fn trim(&mut self) {
        for effect in std::mem::take(&mut self.desk.seen) {
            match effect {
                Effect::TrimSpool { below } => {
                    self.desk.stores.blocks = self.desk.stores.blocks.split_off(&below)
                }
                Effect::TrimJournal { below } => {
                    self.desk.stores.records = self.desk.stores.records.split_off(&below)
                }
                _ => {}
            }
        }
    }
}

#[test]
fn replay_gives_the_live_set_that_was_there() {
    let (mut live, mut trimmed, mut moved) = (0, 0, 0);
    for seed in 0..60 {
        let settings = Settings {
            journal_linger_ms: 0,
            snapshot_entries: 60,
            ..Settings::default()
        };
        let mut walk = Walk {
            rng: StdRng::seed_from_u64(seed),
            desk: Desk::with(settings),
            flying: Vec::new(),
            bounced: Vec::new(),
        };
        walk.desk.rules.in_doubt = if seed % 2 == 0 {
            InDoubt::Retry
        } else {
            InDoubt::Hold
        };
        for round in 0..6 {
            (0..60).for_each(|_| walk.step());
            walk.deliver_most();
            walk.copy();
            walk.desk.settle();
            walk.trim();
            let before = live_set(&walk.desk.intake);
            walk.desk.crash();
            let after = live_set(&walk.desk.intake);
            let (before, after): (BTreeSet<_>, BTreeSet<_>) =
                (before.into_iter().collect(), after.into_iter().collect());
            let difference: Vec<_> = before.symmetric_difference(&after).collect();
            assert!(
                difference.is_empty(),
                "seed {seed}, round {round}: {difference:#?}"
            );
            live += walk.desk.intake.totals().messages;
            // What was not begun is lost with its owner; begun attempts may still be reported.
            walk.flying.retain(|(_, begun)| *begun);
        }
        trimmed += u64::from(walk.desk.stores.blocks.keys().next().copied().unwrap_or(0) > 1);
        moved += walk
            .desk
            .entries()
            .iter()
            .filter(|kind| matches!(kind, Kind::Moved(_)))
            .count();
    }
    assert!(
        live > 500 && trimmed > 10 && moved > 10,
        "{live} live, {trimmed} trimmed, {moved} moved: the walks show nothing"
    );
}

#[test]
fn a_report_on_a_message_that_is_not_read_yet_waits_for_it() {
    let settings = Settings {
        recipients: 1,
        journal_linger_ms: 0,
        ..Settings::default()
    };
    let mut desk = Desk::with(settings);
    let first = desk.message(&["a@one.example"]);
    let second = desk.message(&["b@one.example"]);
    desk.assign();
    let delivery = desk.assign();
    desk.begin(&delivery);
    desk.settle();
    // Reads the first block only: the budget is full then.
    desk.crash();
    desk.tick();
    assert!(!desk.intake.wants_blocks() && !desk.is_live(second));
    desk.report(&delivery, &[(0, Verdict::Delivered)]);
    desk.report(&delivery, &[(0, Verdict::Delivered)]);
    desk.settle();
    assert_eq!(desk.acknowledged(&delivery), 0);
    assert_eq!(
        desk.attempt(Verdict::Delivered).message_id,
        first.as_bytes().to_vec()
    );
    assert!(desk.intake.wants_blocks());
    desk.read(2);
    desk.intake.caught_up();
    desk.settle();
    assert!(!desk.is_live(second), "it would be delivered twice");
    assert_eq!(desk.acknowledged(&delivery), 1);
}

#[test]
fn a_report_on_a_message_that_is_over_is_acknowledged_when_all_is_read() {
    let mut desk = Desk::new();
    desk.message(&["a@one.example"]);
    let delivery = desk.attempt(Verdict::Delivered);
    desk.settle();
    let before = desk.acknowledged(&delivery);
    // The next owner has not read everything yet.
    desk.intake.recovery = Some(crate::recovery::Recovery::default());
    desk.report(&delivery, &[(0, Verdict::Delivered)]);
    desk.settle();
    assert_eq!(desk.acknowledged(&delivery), before);
    desk.intake.caught_up();
    desk.settle();
    assert_eq!(desk.acknowledged(&delivery), before + 1);
}
