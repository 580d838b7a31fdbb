//! What senders do with their deliveries, and what the destinations say.

use mail::Place;
use proto::dispatch::{DeliveryRef, ReturnReason};

use super::hosts::No;
use super::*;

impl World {
    /// The sender goes on with a delivery: MAIL FROM, or the dot.
    pub(super) fn work(&mut self, sender: usize, incarnation: u64, key: Key) {
        if self.senders[sender].incarnation != incarnation {
            return;
        }
        let Some(holding) = self.senders[sender].holds.get(&key) else {
            return;
        };
        let (delivery, slot) = (holding.delivery.clone(), holding.slot);
        let (stage, waits_ms) = (holding.stage, holding.final_reply_ms);
        let mail_at = holding.mail_at;
        if holding.turned_down {
            return;
        }
        match stage {
            Holds::Assigned => self.start(sender, key),
            Holds::Permitted(until) if self.now < until => {
                let code = match self.rng.random_range(0..100) {
                    0..10 => 451,
                    10..15 => 550,
                    15..18 if self.faulty() => 0,
                    _ => 250,
                };
                // The destination decides at the dot; whether the sender hears of it is another matter.
                let id = MessageId::try_from(&delivery.message_id[..]).expect("ids are valid");
                let is_accepted = code == 250 || (code == 0 && self.chance(50));
                for ordinal in &delivery.ordinals {
                    let account = self
                        .ledger
                        .get_mut(&(id, *ordinal))
                        .expect("only what was submitted is delivered");
                    assert!(
                        account.ended.is_none() || !is_accepted,
                        "{id} was ended, and is delivered"
                    );
                    if is_accepted {
                        account.accepted_by_destination += 1;
                        if account.accepted_by_destination > 1 {
                            self.duplicates += 1;
                        }
                    }
                    account.refused_by_destination |= code == 550;
                }
                self.dot(sender, slot, delivery.partition, mail_at);
                if let Some(holding) = self.senders[sender].holds.get_mut(&key) {
                    holding.stage = Holds::DotSent;
                }
                let acts = self.senders[sender].left(key);
                self.act(sender, acts);
                // No reply is known only when the time for it is over; some replies come just before.
                let slow = self.faulty() && self.chance(3);
                let delay = match code {
                    0 => waits_ms,
                    _ if slow => waits_ms - self.rng.random_range(1..200),
                    _ => self.rng.random_range(1..200),
                };
                self.after(
                    delay,
                    Event::Reply {
                        sender,
                        incarnation,
                        key,
                        code,
                    },
                );
            }
            Holds::Permitted(_) => {
                self.end_permit(sender, key);
                let acts = self.senders[sender].finish(key, Stage::Prepare, 0, false);
                self.act(sender, acts);
                self.rest(sender, slot, true);
            }
            Holds::Begun | Holds::DotSent => {}
        }
    }

    /// A delivery that is prepared takes its slot, and begins.
    fn start(&mut self, sender: usize, key: Key) {
        let holding = self.senders[sender].holds[&key].clone();
        let (slot, delivery) = (holding.slot, &holding.delivery);
        let connection = self.senders[sender].connections.get(&slot);
        let is_open = match connection.map(|connection| connection.state) {
            None => false,
            Some(Use::Idle) => true,
            // Its turn comes.
            Some(Use::Busy | Use::Closing) => return self.act(sender, vec![Act::Work(key)]),
        };
        if !self.is_at(&holding.place, delivery) {
            self.not_found += 1;
            let acts = self.senders[sender].give_back(key, ReturnReason::NotFound);
            self.act(sender, acts);
            if !is_open {
                self.say_free(sender, slot);
            }
            return;
        }
        let opened = match is_open {
            true => Ok(()),
            false if self.faulty() && self.chance(5) => Err(No(0)),
            false => self.open(sender, slot),
        };
        if let Err(No(code)) = opened {
            let stage = if code == 0 {
                Stage::Connect
            } else {
                Stage::Banner
            };
            let acts = self.senders[sender].finish(key, stage, code, false);
            self.act(sender, acts);
            self.say_free(sender, slot);
            return;
        }
        if let Some(connection) = self.senders[sender].connections.get_mut(&slot) {
            connection.state = Use::Busy;
        }
        let said = self.mail(sender, slot, &delivery.message_id);
        let acts = self.senders[sender].begin(self.now, key);
        self.act(sender, acts);
        if let Some(within) = holding.left_within_ms {
            let incarnation = self.senders[sender].incarnation;
            let left = Event::Left {
                sender,
                incarnation,
                key,
            };
            self.after(within, left);
        }
        if let Err(No(code)) = said {
            let delay = self.rng.random_range(1..100);
            let incarnation = self.senders[sender].incarnation;
            if let Some(holding) = self.senders[sender].holds.get_mut(&key) {
                holding.turned_down = true;
            }
            let refused = Event::Refused {
                sender,
                incarnation,
                key,
                code,
            };
            self.after(delay, refused);
        }
    }

    /// The host does not want the message now.
    pub(super) fn refused(&mut self, sender: usize, incarnation: u64, key: Key, code: u32) {
        if self.senders[sender].incarnation != incarnation {
            return;
        }
        let Some(holding) = self.senders[sender].holds.get(&key) else {
            return;
        };
        let slot = holding.slot;
        self.end_permit(sender, key);
        let acts = self.senders[sender].finish(key, Stage::Mail, code, false);
        self.act(sender, acts);
        self.rest(sender, slot, code == 421);
    }

    /// The final reply to this attempt is lost.
    pub(super) fn note_doubt(&mut self, delivery: Option<&DeliveryRef>) {
        let Some(delivery) = delivery else { return };
        let id = MessageId::try_from(&delivery.message_id[..]).expect("ids are valid");
        for ordinal in &delivery.ordinals {
            let account = self.ledger.get_mut(&(id, *ordinal));
            account.expect("only submitted mail is tried").in_doubt += 1;
            self.in_doubt += 1;
        }
    }

    /// Whether a message is where the assignment says.
    fn is_at(&self, place: &Place, delivery: &DeliveryRef) -> bool {
        let block = self.spools[delivery.partition as usize]
            .blocks
            .get(&place.sequence);
        let entry = block.and_then(|block| block.entries.get(place.index as usize));
        entry.is_some_and(|entry| entry.message_id == delivery.message_id)
    }

    pub(super) fn destination_replied(
        &mut self,
        sender: usize,
        incarnation: u64,
        key: Key,
        code: u32,
    ) {
        if self.senders[sender].incarnation != incarnation {
            return;
        }
        self.end_permit(sender, key);
        let Some(holding) = self.senders[sender].holds.get(&key).cloned() else {
            return;
        };
        if code == 0 {
            self.note_doubt(Some(&holding.delivery));
        }
        let acts = self.senders[sender].finish(key, Stage::FinalDot, code, true);
        self.act(sender, acts);
        self.rest(sender, holding.slot, code == 0);
    }

    /// Invariant 3: at most one attempt of a recipient is under permit in the whole installation.
    pub(super) fn note_permit(&mut self, sender: usize, item: &SchedulerItem) {
        let Some(proto::dispatch::scheduler_item::Kind::Permit(permit)) = &item.kind else {
            return;
        };
        let Some(delivery) = &permit.delivery else {
            return;
        };
        let holds = self.senders[sender]
            .holds
            .get(&key(delivery))
            .is_some_and(|holding| holding.stage == Holds::Begun);
        if !holds {
            return;
        }
        let id = MessageId::try_from(&delivery.message_id[..]).expect("ids are valid");
        for ordinal in &delivery.ordinals {
            let other = self
                .under_permit
                .insert((id, *ordinal), (sender, key(delivery)));
            assert!(
                other.is_none(),
                "two attempts of one recipient are under permit: {other:?} and {:?}",
                key(delivery)
            );
        }
    }

    pub(super) fn end_permit(&mut self, sender: usize, key: Key) {
        self.under_permit
            .retain(|_, holder| *holder != (sender, key));
    }
}
