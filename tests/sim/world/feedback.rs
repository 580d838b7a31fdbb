//! The simulated feedback service, which reads the journals and spools DSNs; and what must hold at the end.

use bytes::Bytes;
use proto::journal::{Outcome, Simulation};
use proto::spool::{ReportsDelay, ReportsOn};

use super::*;

/// Marks the ids of DSNs.
const DSN: u8 = 0xd5;
/// And those of notices of delay, with the number of the notice.
const DELAY: u8 = 0xe0;

impl World {
    /// Reads on in every journal and spools a DSN for each outcome that owes one.
    pub(super) fn feed_back(&mut self) {
        for partition in 0..PARTITIONS as usize {
            let records = &self.logs[partition].written;
            let new: Vec<_> = records
                .iter()
                .skip(self.fed_back[partition] as usize)
                .cloned()
                .collect();
            self.fed_back[partition] = records.len() as u64;
            for record in new {
                for entry in journal::decode(&record)
                    .expect("records are readable")
                    .entries
                {
                    if let Some(Kind::Outcome(outcome)) = entry.kind {
                        self.notify(partition, &outcome);
                        self.notify_delay(partition, &outcome);
                    }
                }
            }
        }
        let delay = self.rng.random_range(500..3_000);
        self.after(delay, Event::Feedback);
    }

    /// A record is stored: what it says to have expired will not be delivered.
    pub(super) fn note_expired(&mut self, record: &Bytes) {
        for entry in journal::decode(record)
            .expect("records are readable")
            .entries
        {
            let outcome = match entry.kind {
                Some(Kind::Outcome(outcome)) => outcome,
                Some(Kind::Touched(touched)) if touched.released => {
                    self.released += touched.deliveries.len() as u32;
                    continue;
                }
                _ => continue,
            };
            let id = MessageId::try_from(&outcome.message_id[..]).expect("ids are valid");
            self.note_answered(id, &outcome);
            if !outcome.operation.is_empty() {
                self.note_ended(id, &outcome);
            }
            for recipient in outcome
                .recipients
                .iter()
                .filter(|r| r.disposition() == Disposition::Expired)
            {
                let account = self
                    .ledger
                    .get_mut(&(id, recipient.ordinal))
                    .expect("outcomes are of submitted mail");
                self.expired += u32::from(!account.expired);
                account.expired = true;
            }
        }
    }

    /// An operator ended it: it will not be delivered.
    fn note_ended(&mut self, id: MessageId, outcome: &Outcome) {
        for recipient in &outcome.recipients {
            let bounced = recipient.disposition() == Disposition::Bounced;
            assert!(bounced || recipient.disposition() == Disposition::Cancelled);
            let account = self
                .ledger
                .get_mut(&(id, recipient.ordinal))
                .expect("outcomes are of submitted mail");
            // The store may say of one record twice that it has it.
            self.ended += u32::from(account.ended.is_none());
            account.ended = Some(bounced);
        }
    }

    fn notify(&mut self, partition: usize, outcome: &Outcome) {
        let original = MessageId::try_from(&outcome.message_id[..]).expect("ids are valid");
        let mut ordinals = Vec::new();
        for recipient in &outcome.recipients {
            if recipient.dsn_owed || recipient.relay_owed {
                ordinals.push(recipient.ordinal);
            }
        }
        let Some(first) = ordinals.first() else {
            return;
        };
        let sandbox = outcome.simulation() == Simulation::Sandbox;
        let mut id: [u8; 16] = *original.as_bytes();
        (id[6], id[7]) = (DSN, *first as u8);
        let id = MessageId::from_bytes(id);
        for ordinal in &ordinals {
            if let Some(account) = self.ledger.get_mut(&(original, *ordinal)) {
                account.dsns.insert(id);
            }
        }
        // Perhaps it was spooled already, by an earlier life of the service.
        if let std::collections::btree_map::Entry::Vacant(vacant) = self.ledger.entry((id, 0)) {
            vacant.insert(Account {
                simulated: sandbox,
                ..Account::default()
            });
            self.dsns += 1;
        }
        let entry = IndexEntry {
            message_id: id.as_bytes().to_vec().into(),
            length: 100,
            flags: u64::from(sandbox),
            envelope: Some(Envelope {
                sandbox,
                tenant: "acme".into(),
                stream: "mail".into(),
                recipients: vec![Recipient {
                    address: "s@d0.example".into(),
                    ..Recipient::default()
                }],
                ..Envelope::default()
            }),
            reports_on: Some(ReportsOn {
                message_id: outcome.message_id.clone(),
                ordinals,
            }),
            ..IndexEntry::default()
        };
        self.spools[partition].store(BlockIndex {
            format: 1,
            entries: vec![entry],
            ..BlockIndex::default()
        });
    }

    /// Spools a notice of delay where one is owed, perhaps for the second time.
    fn notify_delay(&mut self, partition: usize, outcome: &Outcome) {
        let owed = outcome.recipients.iter().filter(|of| of.delay_notice > 0);
        let ordinals: Vec<u32> = owed.clone().map(|of| of.ordinal).collect();
        let Some(notice) = owed.map(|of| of.delay_notice).next() else {
            return;
        };
        let original = MessageId::try_from(&outcome.message_id[..]).expect("ids are valid");
        let sandbox = outcome.simulation() == Simulation::Sandbox;
        let mut id: [u8; 16] = *original.as_bytes();
        (id[6], id[7]) = (DELAY + notice as u8, ordinals[0] as u8);
        let entry = IndexEntry {
            message_id: id.to_vec().into(),
            length: 100,
            flags: u64::from(sandbox),
            envelope: Some(Envelope {
                sandbox,
                tenant: "acme".into(),
                stream: "mail".into(),
                recipients: vec![Recipient {
                    address: "s@d0.example".into(),
                    ..Recipient::default()
                }],
                ..Envelope::default()
            }),
            reports_delay: Some(ReportsDelay {
                message_id: outcome.message_id.clone(),
                ordinals,
                notice,
            }),
            ..IndexEntry::default()
        };
        // Whether it is taken is the owner's to say: its recipients may be final by now.
        let account = Account {
            may_be_dropped: true,
            simulated: sandbox,
            ..Account::default()
        };
        let known = self.ledger.entry((MessageId::from_bytes(id), 0));
        known.or_insert(account);
        self.delays += 1;
        self.spools[partition].store(BlockIndex {
            format: 1,
            entries: vec![entry],
            ..BlockIndex::default()
        });
    }

    /// What must hold at the end, besides that everything became final.
    pub fn check(&self) {
        for ((id, ordinal), account) in &self.ledger {
            let (accepted, in_doubt) = (account.accepted_by_destination, account.in_doubt);
            assert!(
                accepted <= 1 + in_doubt,
                "recipient {ordinal} of {id} has it {accepted} times, in doubt {in_doubt} times"
            );
        }
        let (mut owed, mut settled) = (BTreeSet::new(), BTreeMap::new());
        let mut ended = BTreeSet::new();
        let (mut delays_owed, mut delays_told) = (BTreeSet::new(), BTreeSet::new());
        let records = self.logs.iter().flat_map(|log| &log.written);
        for entry in records.flat_map(|record| {
            journal::decode(record)
                .expect("records are readable")
                .entries
        }) {
            match entry.kind {
                Some(Kind::Outcome(outcome)) => {
                    let id = MessageId::try_from(&outcome.message_id[..]).expect("ids are valid");
                    for recipient in &outcome.recipients {
                        let account = &self.ledger[&(id, recipient.ordinal)];
                        let is_new =
                            outcome.operation.is_empty() || ended.insert((id, recipient.ordinal));
                        assert!(
                            is_new,
                            "recipient {} of {id} was ended twice",
                            recipient.ordinal
                        );
                        let is_expired = recipient.disposition() == Disposition::Expired;
                        assert!(
                            !is_expired || account.expires_ms != 0 || account.held,
                            "nothing else is old enough to expire"
                        );
                        let failed = is_expired || recipient.disposition() == Disposition::Bounced;
                        assert_eq!(recipient.dsn_owed, failed && account.wants_dsn);
                        if recipient.delay_notice > 0 {
                            assert!(account.wants_dsn, "nobody wants to be told");
                            assert!(
                                delays_owed.insert((id, recipient.ordinal, recipient.delay_notice)),
                                "a notice of delay is owed twice"
                            );
                        }
                        if recipient.relay_owed {
                            assert_eq!(recipient.disposition(), Disposition::Delivered);
                        }
                        if recipient.dsn_owed || recipient.relay_owed {
                            assert!(
                                owed.insert((id, recipient.ordinal)),
                                "a recipient came to its end twice"
                            );
                        }
                    }
                }
                Some(Kind::DsnSpooled(spooled)) => {
                    let id = MessageId::try_from(&spooled.message_id[..]).expect("ids are valid");
                    for ordinal in spooled.delayed_ordinals {
                        let told = (id, ordinal, spooled.notice);
                        assert!(delays_told.insert(told), "a delay is told twice");
                    }
                    for ordinal in spooled.ordinals {
                        *settled.entry((id, ordinal)).or_insert(0) += 1;
                    }
                }
                Some(Kind::Quarantined(_)) => panic!("nothing was damaged"),
                _ => {}
            }
        }
        assert!(
            delays_told.is_subset(&delays_owed),
            "a delay is told that is none"
        );
        assert!(
            owed.iter().eq(settled.keys()),
            "not every DSN that was owed was spooled, or others were"
        );
        assert!(
            settled.values().all(|count| *count == 1),
            "a DSN was spooled twice"
        );
    }
}
