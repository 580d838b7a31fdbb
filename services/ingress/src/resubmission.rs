//! Messages that are sent again because their client did not see our 250.
//!
//! A message is remembered, where its credential wants that, from before it is stored until its client sends anything after
//! our 250: then the client knows, and the same message is a new one. All processes share it by Redis; without Redis every
//! message is new.

use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use limits::{Claimed, Claims};
use mail::MessageId;

use crate::content::Received;
use crate::session::Transaction;

/// What became of a message that is to be stored.
pub(crate) enum Recognised {
    /// It is new. `None`: it is not remembered.
    New(Option<Remembered>),
    /// Its first copy is being stored by somebody.
    Underway,
    /// It is stored, under this id, and its client does not seem to know.
    Again(Remembered),
}

/// A message that is remembered.
pub(crate) struct Remembered {
    claims: Claims,
    key: String,
    /// Of the copy that is stored.
    id: String,
    time: Duration,
}

impl Remembered {
    /// The queue id of the first copy.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// It is stored.
    pub(crate) async fn stored(&self) {
        self.claims.keep(&self.key, &self.id, self.time).await;
    }

    /// Its client knows that it is, or it is not stored.
    pub(crate) async fn forget(self) {
        self.claims.give_up(&self.key, &self.id).await;
    }
}

/// Looks whether the message was here before; from here on it is remembered as `id`.
pub(crate) async fn recognise(
    claims: &Claims,
    id: MessageId,
    transaction: &Transaction,
    received: &Received,
) -> Recognised {
    let time = transaction.sender.rules.credential.idempotent_for;
    let (Some(time), Some(message_id)) = (time, &received.judged.message_id) else {
        return Recognised::New(None);
    };
    let key = key(transaction, message_id, &received.body_hash);
    let remembered = |id: String| Remembered {
        claims: claims.clone(),
        key: key.clone(),
        id,
        time: time.duration(),
    };
    let own = id.to_string();
    match claims.claim(&key, &own).await {
        // Without Redis it is noted when it is stored, if Redis is back by then.
        Claimed::Now | Claimed::Unknown => Recognised::New(Some(remembered(own))),
        Claimed::Underway => Recognised::Underway,
        Claimed::Done(first) => Recognised::Again(remembered(first)),
    }
}

/// The value of the first `Message-ID` field of a header section.
pub(crate) fn message_id(header: &[u8]) -> Option<Box<[u8]>> {
    let field = message::fields(header).find(|field| field.is("Message-ID"))?;
    let value = field.value.trim_ascii();
    (!value.is_empty()).then(|| value.into())
}

/// Of all that makes two submissions the same; only a digest leaves the process.
fn key(transaction: &Transaction, message_id: &[u8], body_hash: &[u8; 32]) -> String {
    let mut recipients: Vec<&str> = transaction
        .recipients
        .iter()
        .map(|recipient| recipient.address.as_str())
        .collect();
    recipients.sort_unstable();
    let mut context = Context::new(&SHA256);
    let mut add = |part: &[u8]| {
        // With its length: no two lists of parts are the same octets.
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    };
    add(transaction.sender.credential.as_bytes());
    add(transaction.return_path.as_bytes());
    add(message_id);
    add(body_hash);
    for recipient in recipients {
        add(recipient.as_bytes());
    }
    URL_SAFE_NO_PAD.encode(context.finish())
}
