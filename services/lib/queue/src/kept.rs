//! Deliveries that go on from the source at which they were greylisted.
//!
//! Who greylists remembers addresses: from another one the waiting begins anew (RFC 6647 section 5). Deliveries that were
//! not greylisted take no memory here.

use proto::journal::Class;

use crate::live::Live;

impl Live {
    /// A delivery was deferred, for this reason, by this source (empty when no attempt was made).
    pub(crate) fn note_source(&mut self, slot: u32, class: Class, source: &str) {
        match class {
            Class::Greylisted if source.is_empty() => {}
            Class::Greylisted => {
                let name = self.strings.acquire(source);
                self.forget_source(slot);
                self.kept.insert(slot, name);
            }
            // Nothing was said about the message.
            Class::Infrastructure | Class::Dns | Class::Unspecified => {}
            Class::Recipient
            | Class::MailboxFull
            | Class::Policy
            | Class::Throttled
            | Class::Content => self.forget_source(slot),
        }
    }

    /// What was parted from a delivery goes on like it.
    pub(crate) fn share_source(&mut self, slot: u32, parted: u32) {
        if let Some(&name) = self.kept.get(&slot) {
            self.strings.share(name);
            self.kept.insert(parted, name);
        }
    }

    pub(crate) fn forget_source(&mut self, slot: u32) {
        if let Some(name) = self.kept.remove(&slot) {
            self.strings.release(name);
        }
    }

    /// The source by which a delivery is to go on.
    pub(crate) fn kept_source(&self, slot: u32) -> Option<&str> {
        let name = self.kept.get(&slot)?;
        Some(self.strings.get(*name))
    }
}
