//! The words of the ledger: streams, attempts, holds on them, and what follows from a step.

use std::time::Instant;

use proto::dispatch::{DeliveryRef, ReturnReason, Returned, SenderItem, sender_item};

/// An open stream to a scheduler; a number of this process, never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct StreamId(pub u64);

/// An attempt of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub partition: u32,
    pub epoch: u64,
    message: [u8; 16],
    /// First of the ordinals: deliveries of one message share no recipient.
    ordinal: u32,
    attempt: u32,
}

impl Key {
    /// `None` when the reference names no message or no recipient.
    pub fn of(delivery: &DeliveryRef) -> Option<Self> {
        Some(Self {
            partition: delivery.partition,
            epoch: delivery.epoch,
            message: delivery.message_id.as_ref().try_into().ok()?,
            ordinal: *delivery.ordinals.first()?,
            attempt: delivery.attempt,
        })
    }
}

/// A hold on a delivery. The same attempt may be assigned again after a broken stream; the ticket tells
/// the two apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub key: Key,
    pub serial: u64,
}

/// The delivery is no longer this task's: it was returned, or its stream broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gone;

/// Why a begun delivery gets no permit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Denied {
    StreamBroken,
    StaleEpoch,
    Refused,
    /// It came and has run out.
    Expired,
    /// None has come.
    NoPermit,
}

impl Denied {
    pub fn text(self) -> &'static str {
        match self {
            Self::StreamBroken => "the stream to the scheduler broke before the permit",
            Self::StaleEpoch => "the partition has a new owner",
            Self::Refused => "the scheduler knows no such attempt",
            Self::Expired => "the permit ran out",
            Self::NoPermit => "no permit came",
        }
    }
}

/// What is to be done outside.
#[derive(Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "lives for a moment, and is nearly always the large one"
)]
pub(crate) enum Effect<T, W> {
    Send(StreamId, SenderItem),
    /// End the task of a delivery that is not begun.
    Stop(T),
    /// Tell the task that waits: until when the final dot may be sent, or that it may not.
    Answer(W, Result<Instant, Denied>),
}

/// How far a task came that ended without an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfinished {
    NotBegun,
    Begun,
    DotSent,
}

/// "Given back", as an item.
pub(crate) fn returned_item(
    delivery: DeliveryRef,
    reason: ReturnReason,
    detail: &str,
) -> SenderItem {
    let returned = Returned {
        delivery: Some(delivery),
        reason: reason.into(),
        detail: detail.into(),
    };
    SenderItem {
        kind: Some(sender_item::Kind::Returned(returned)),
    }
}
