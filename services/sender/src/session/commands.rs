//! What one transaction carries, and its commands.

use bytes::{Bytes, BytesMut};
use mail::Address;
use proto::envelope::{Body, DsnReturn, Recipient};
use proto::journal::{Asked, Reply, Stage};
use proto::spool::IndexEntry;
use smtp::{
    ByMode, DataEncoder, DeliverBy, MailParams, Notify, OriginalRecipient, RcptParams, Xtext,
};
use tokio::sync::OwnedSemaphorePermit;

use super::connection::Capabilities;
use super::demand::Wish;
use super::{no_require_tls, own_words};
use crate::content::{Content, Loaded, Pieces};

/// A delivery as the transaction needs it.
pub(crate) struct Mail {
    /// `None` is the null reverse-path.
    return_path: Option<Address>,
    /// With a return path of ours: what its sender asked to be told.
    pub asked: Option<Asked>,
    pub recipients: Vec<MailRecipient>,
    eight_bit: bool,
    smtputf8: bool,
    ret: Option<smtp::Return>,
    envid: Option<Xtext>,
    /// 0 is not passed on: it is what everybody has.
    priority: i8,
    wish: Wish,
    /// By when its client wants it delivered, Unix milliseconds; 0 = nothing is said.
    deliver_by_ms: u64,
    /// Signature fields and header variant.
    head: Bytes,
    content: Content,
    header_is_ascii: bool,
    /// The room that a large message takes up.
    _room: Option<OwnedSemaphorePermit>,
}

/// One of its recipients.
pub(crate) struct MailRecipient {
    pub ordinal: u32,
    pub address: Address,
    params: RcptParams,
    /// There is a sender, who wants to hear when it is delivered (NOTIFY=SUCCESS).
    pub wants_success: bool,
}

/// The index entry does not fit the assignment: nothing can be sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unfit {
    #[error("the message has no recipient {0}")]
    NoSuchRecipient(u32),
    #[error("the message has no header variant {0}")]
    NoSuchVariant(u32),
    #[error("the recipients of one delivery differ in return path or header variant")]
    Mixed,
    #[error("an address is not valid")]
    Address,
    #[error("an envelope is missing")]
    NoEnvelope,
    #[error("recipient {0} is the simulator's")]
    Simulated(u32),
}

/// The recipients that an assignment names, which share return path and header variant.
pub(crate) fn recipients<'a>(
    entry: &'a IndexEntry,
    ordinals: &[u32],
) -> Result<Vec<&'a Recipient>, Unfit> {
    let envelope = entry.envelope.as_ref().ok_or(Unfit::NoEnvelope)?;
    let find = |ordinal: &u32| {
        let found = envelope.recipients.get(*ordinal as usize);
        let found = found.ok_or(Unfit::NoSuchRecipient(*ordinal))?;
        // No scheduler assigns it. Were one to, it would go no further than this.
        match envelope.sandbox || found.simulated.is_some() {
            true => Err(Unfit::Simulated(*ordinal)),
            false => Ok(found),
        }
    };
    let found: Vec<&Recipient> = ordinals.iter().map(find).collect::<Result<_, _>>()?;
    let same = |other: &&Recipient| {
        other.return_path == found[0].return_path && other.header_variant == found[0].header_variant
    };
    if found.iter().all(same) {
        Ok(found)
    } else {
        Err(Unfit::Mixed)
    }
}

/// Header fields that are put before the message for these recipients.
pub(crate) fn variant(entry: &IndexEntry, recipients: &[&Recipient]) -> Result<Bytes, Unfit> {
    match recipients
        .first()
        .map_or(0, |recipient| recipient.header_variant)
    {
        0 => Ok(Bytes::new()),
        number => entry
            .header_variants
            .get(number as usize - 1)
            .cloned()
            .ok_or(Unfit::NoSuchVariant(number)),
    }
}

impl Mail {
    pub fn new(loaded: Loaded, ordinals: &[u32], signatures: Bytes) -> Result<Self, Unfit> {
        let entry = &*loaded.entry;
        let envelope = entry.envelope.as_ref().ok_or(Unfit::NoEnvelope)?;
        let chosen = recipients(entry, ordinals)?;
        let variant = variant(entry, &chosen)?;
        let own_path = chosen
            .first()
            .map_or("", |recipient| recipient.return_path.as_str());
        let return_path = match if own_path.is_empty() {
            envelope.return_path.as_str()
        } else {
            own_path
        } {
            "" => None,
            text => Some(Address::parse(text).map_err(|_| Unfit::Address)?),
        };
        let has_sender = !envelope.return_path.is_empty();
        let recipient = |(ordinal, recipient): (&u32, &&Recipient)| {
            let address = Address::parse(&recipient.address).map_err(|_| Unfit::Address)?;
            let params = RcptParams {
                notify: Notify::from_bits(recipient.notify).unwrap_or_default(),
                orcpt: OriginalRecipient::parse(&recipient.orcpt),
            };
            let wants_success = has_sender && params.notify.contains(Notify::SUCCESS);
            Ok(MailRecipient {
                ordinal: *ordinal,
                address,
                params,
                wants_success,
            })
        };
        let head = if variant.is_empty() {
            signatures
        } else {
            let mut head = BytesMut::with_capacity(signatures.len() + variant.len());
            head.extend_from_slice(&signatures);
            head.extend_from_slice(&variant);
            head.freeze()
        };
        // With a return path of its own a delivery is of one recipient.
        let asked = chosen
            .first()
            .filter(|recipient| !recipient.return_path.is_empty())
            .map(|recipient| Asked {
                return_path: envelope.return_path.clone(),
                envid: envelope.envid.clone(),
                notify: recipient.notify,
                orcpt: recipient.orcpt.clone(),
            });
        Ok(Self {
            return_path,
            asked,
            recipients: ordinals
                .iter()
                .zip(&chosen)
                .map(recipient)
                .collect::<Result<_, Unfit>>()?,
            eight_bit: envelope.body() == Body::EightBit,
            smtputf8: envelope.smtputf8,
            ret: match envelope.ret() {
                DsnReturn::Unspecified => None,
                DsnReturn::Full => Some(smtp::Return::Full),
                DsnReturn::Headers => Some(smtp::Return::Headers),
            },
            envid: Xtext::parse(&envelope.envid).filter(|envid| !envid.as_str().is_empty()),
            priority: i8::try_from(envelope.priority).unwrap_or(0),
            wish: match (envelope.require_tls, envelope.tls_optional) {
                (true, _) => Wish::Required,
                (false, true) => Wish::Optional,
                (false, false) => Wish::Usual,
            },
            deliver_by_ms: envelope.deliver_by_ms,
            head,
            content: loaded.content,
            header_is_ascii: loaded.header.is_ascii(),
            _room: loaded.room,
        })
    }

    /// Octets before dot-stuffing.
    pub fn size(&self) -> usize {
        self.head.len() + self.content.len()
    }

    /// What its sender wants of TLS.
    pub fn wish(&self) -> Wish {
        self.wish
    }

    /// Why this host can't take the message, whatever is said to it.
    pub(super) fn obstacle(&self, capabilities: Capabilities) -> Option<Reply> {
        if self.wish == Wish::Required && !capabilities.require_tls {
            return Some(no_require_tls());
        }
        let (size, most) = (self.size() as u64, capabilities.most_octets);
        if most > 0 && size > most {
            let text = format!("the message has {size} octets, and the host takes {most} at most");
            return Some(own_words(Stage::Mail, 552, "5.3.4", &text));
        }
        (self.smtputf8 && !capabilities.smtputf8 && self.needs_smtputf8()).then(|| {
            own_words(
                Stage::Mail,
                553,
                "5.6.7",
                "the host does not take internationalized mail (SMTPUTF8)",
            )
        })
    }

    fn needs_smtputf8(&self) -> bool {
        let needs = |address: &Address| address.needs_smtputf8();
        self.return_path.as_ref().is_some_and(needs)
            || self
                .recipients
                .iter()
                .any(|recipient| needs(&recipient.address))
            || !self.head.is_ascii()
            || !self.header_is_ascii
    }

    /// Those who are named in one transaction, of all: as many as the host takes.
    pub(super) fn named(&self, capabilities: Capabilities) -> &[MailRecipient] {
        let most = capabilities
            .limits
            .rcpt_max
            .map_or(usize::MAX, |most| most as usize);
        let most = most.min(self.recipients.len());
        &self.recipients[..most]
    }

    /// Appends MAIL. A host without 8BITMIME gets eight bits all the same: conversion would break the
    /// signature, and hosts that mind are not seen any more.
    pub(super) fn write_mail(&self, capabilities: Capabilities, out: &mut Vec<u8>) {
        let params = MailParams {
            size: capabilities.size.then_some(self.size() as u64),
            body: (self.eight_bit && capabilities.eight_bit_mime)
                .then_some(smtp::Body::EightBitMime),
            smtputf8: self.smtputf8 && capabilities.smtputf8,
            ret: self.ret.filter(|_| capabilities.dsn),
            envid: self.envid.clone().filter(|_| capabilities.dsn),
            priority: Some(self.priority).filter(|said| *said != 0 && capabilities.mt_priority),
            deliver_by: self.deliver_by().filter(|_| capabilities.deliver_by),
            require_tls: self.wish == Wish::Required,
            ..MailParams::default()
        };
        smtp::write::mail(out, self.return_path.as_ref(), &params);
    }

    /// What is left of the time: less than nothing when it is over (RFC 2852).
    fn deliver_by(&self) -> Option<DeliverBy> {
        let left_ms = self.deliver_by_ms.cast_signed() - runtime::now_ms().cast_signed();
        let seconds = (left_ms / 1000).clamp(-999_999_999, 999_999_999);
        (self.deliver_by_ms > 0).then(|| DeliverBy {
            seconds: i32::try_from(seconds).unwrap_or(0),
            mode: ByMode::Notify,
            trace: false,
        })
    }

    /// Appends RCPT for one of the recipients.
    pub(super) fn write_rcpt(
        &self,
        recipient: &MailRecipient,
        capabilities: Capabilities,
        out: &mut Vec<u8>,
    ) {
        if capabilities.dsn {
            smtp::write::rcpt(out, &recipient.address, &recipient.params);
        } else {
            smtp::write::rcpt(out, &recipient.address, &RcptParams::default());
        }
    }

    /// Whether the content is read while it is sent.
    pub fn is_in_pieces(&self) -> bool {
        matches!(self.content, Content::Pieces(_))
    }

    /// The content, to be sent.
    pub(super) fn wire(&mut self) -> Wire<'_> {
        match &mut self.content {
            Content::Whole(content) => Wire::Whole(whole(&self.head, content)),
            Content::Pieces(pieces) => Wire::Pieces(&self.head, pieces),
        }
    }
}

/// The content on its way out.
pub(super) enum Wire<'a> {
    /// As it goes out, without the final dot.
    Whole((Bytes, Bytes)),
    /// What goes first, and what is read, both before dot-stuffing.
    Pieces(&'a Bytes, &'a mut Pieces),
}

/// Not copied when no line begins with a dot.
fn whole(head: &Bytes, content: &Bytes) -> (Bytes, Bytes) {
    if DataEncoder::passes_unchanged(head) && DataEncoder::passes_unchanged(content) {
        return (head.clone(), content.clone());
    }
    let mut encoder = DataEncoder::new();
    let size = head.len() + content.len();
    let mut wire = Vec::with_capacity(size + size / 64 + FINAL_DOT.len());
    encoder.encode(head, &mut wire);
    encoder.encode(content, &mut wire);
    encoder.finish(&mut wire);
    wire.truncate(wire.len() - FINAL_DOT.len());
    (Bytes::new(), wire.into())
}

/// The end of the content.
pub(super) const FINAL_DOT: &[u8] = b".\r\n";
