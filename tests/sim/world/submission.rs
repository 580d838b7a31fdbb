//! New mail.

use super::*;

impl World {
    pub(super) fn submit(&mut self) {
        let partition = self.rng.random_range(0..PARTITIONS);
        let mut entries = Vec::new();
        for _ in 0..self.rng.random_range(1..4) {
            if self.submitted == self.to_submit {
                break;
            }
            self.submitted += 1;
            self.numbers += 1;
            let mut id = [0; 16];
            id[..6].copy_from_slice(&self.now.to_be_bytes()[2..]);
            id[8..].copy_from_slice(&self.numbers.to_be_bytes());
            let id = MessageId::from_bytes(id);
            let expires_ms = if self.chance(10) {
                self.now + self.rng.random_range(5_000..300_000)
            } else {
                0
            };
            let (sandbox, hold) = (self.chance(5), self.chance(5));
            let recipients: Vec<Recipient> = (0..self.rng.random_range(1..4_u32))
                .map(|ordinal| {
                    let wants_dsn = self.chance(50);
                    let simulated = self.simulated(sandbox);
                    let account = Account {
                        wants_dsn,
                        expires_ms,
                        held: hold,
                        simulated: sandbox || simulated.is_some(),
                        ..Account::default()
                    };
                    self.ledger.insert((id, ordinal), account);
                    Recipient {
                        address: format!("r{ordinal}@d{}.example", self.rng.random_range(0..3)),
                        notify: if wants_dsn { 12 } else { 1 },
                        simulated,
                        ..Recipient::default()
                    }
                })
                .collect();
            let envelope = Envelope {
                tenant: "acme".into(),
                stream: "mail".into(),
                return_path: "s@acme.example".into(),
                recipients,
                expires_at_ms: expires_ms,
                sandbox,
                hold,
                ..Envelope::default()
            };
            entries.push(IndexEntry {
                message_id: id.as_bytes().to_vec().into(),
                length: 100,
                // Nobody here minds that it is set where nothing is simulated.
                flags: 1,
                envelope: Some(envelope),
                ..IndexEntry::default()
            });
        }
        self.spools[partition as usize].store(BlockIndex {
            format: 1,
            entries,
            ..BlockIndex::default()
        });
        if self.submitted < self.to_submit {
            let delay = self.rng.random_range(100..1500);
            self.after(delay, Event::Submit);
        }
    }
}
