//! What an intake wants done.

use journal::WriterEffect;
use mail::{MessageId, PartitionId, Place};
use proto::dispatch::DeliveryRef;

use crate::Key;

/// An open dispatch stream of a sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// See the module.
#[derive(Debug)]
pub enum Effect {
    /// For the journal's store.
    Journal(WriterEffect),
    /// The delivery may be assigned.
    Ready(Key),
    /// Leave to send the final dot.
    Permit(SessionId, DeliveryRef),
    /// The outcome is stored (or was).
    ReportStored(SessionId, DeliveryRef),
    /// The begin is of no attempt that this owner knows.
    Refused(SessionId, DeliveryRef, &'static str),
    /// Blocks below this sequence hold nothing that lives.
    TrimSpool {
        /// First sequence to keep.
        below: u64,
    },
    /// A snapshot is complete: the journal is not needed below this sequence for recovery.
    TrimJournal {
        /// First sequence to keep.
        below: u64,
    },
    /// The chunks of this upload are no longer needed.
    DeleteUpload(Box<str>),
    /// For the metrics.
    Counted(Counted),
}

/// What happened to one recipient, or one message, for counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// The disposition of a recipient.
    Recipient(proto::journal::Disposition),
    /// The disposition of a recipient for which the simulator answered.
    Simulated(proto::journal::Disposition),
    /// A message was quarantined.
    Quarantined,
    /// Milliseconds from acceptance to the delivery of a message's recipients.
    QueueTime(u64),
}

/// What a sender needs to know of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assigned {
    /// The attempt.
    pub delivery: DeliveryRef,
    /// Where the message is.
    pub place: Place,
    /// Recipient domain.
    pub domain: std::sync::Arc<str>,
}

/// A reference to an attempt, from its parts.
pub(crate) fn delivery_ref(
    partition: PartitionId,
    epoch: u64,
    id: &MessageId,
    ordinals: &[u16],
    attempt: u32,
) -> DeliveryRef {
    DeliveryRef {
        partition: partition.0,
        epoch,
        message_id: id.as_bytes().to_vec().into(),
        ordinals: ordinals.iter().copied().map(u32::from).collect(),
        attempt,
    }
}
