//! MAIL, RCPT, and when the content may come.

use std::borrow::Cow;

use mail::Address;
use proto::envelope;
use proto::watch::Action;
use smtp::{Body, ByMode, DeliverBy, ForwardPath, MailParams, RcptParams, Release, Return};

use super::{Moment, Session, Storage};
use crate::answer::{self, Answer};
use crate::forwarding;
use crate::policy::{self, Sender};
use crate::simulator;
use crate::suppression;
use crate::watching;

/// An open transaction.
pub(crate) struct Transaction {
    pub(crate) sender: Sender,
    /// Empty for the null reverse-path.
    pub(crate) return_path: String,
    pub(crate) recipients: Vec<envelope::Recipient>,
    pub(crate) declared_size: Option<u64>,
    pub(crate) body: envelope::Body,
    /// It comes as BODY=BINARYMIME, and is converted.
    pub(crate) binary: bool,
    pub(crate) smtputf8: bool,
    pub(crate) ret: envelope::DsnReturn,
    pub(crate) envid: String,
    /// Unix milliseconds; 0 = at once.
    pub(crate) not_before_ms: u64,
    /// By when the client wants it to be delivered, Unix milliseconds; 0: nothing is said.
    pub(crate) deliver_by_ms: u64,
    /// What the client asks for with MT-PRIORITY.
    pub(crate) priority: Option<i8>,
    /// It goes out under TLS all the way, or not at all (RFC 8689).
    pub(crate) require_tls: bool,
    /// The content comes with BDAT, and has begun.
    pub(super) chunked: bool,
}

impl Session {
    pub(super) fn mail(
        &mut self,
        return_path: Option<Address>,
        params: MailParams,
        moment: Moment<'_>,
    ) -> Result<Answer, Answer> {
        if self.greeting.is_none() {
            return Err(answer::SAY_EHLO);
        }
        if self.transaction.is_some() {
            return Err(answer::NESTED_MAIL);
        }
        let mut sender = policy::authorise(
            moment.snapshot,
            self.identity.as_ref(),
            &self.certified_as,
            self.client,
            return_path.as_ref(),
        )?;
        let forwarding = self.listener.forwarding.as_deref();
        let return_path = forwarding::return_path(
            forwarding,
            &sender,
            moment.snapshot,
            return_path.as_ref(),
            &self.listener.hostname,
            moment.now_ms / 1000,
        )?;
        sender.measure = watching::measure_of(moment.measures, &sender.credential, moment.now_ms);
        if sender.measure == Action::Lock {
            return Err(answer::LOCKED);
        }
        let body = match params.body {
            None | Some(Body::SevenBit) => envelope::Body::SevenBit,
            Some(Body::EightBitMime | Body::BinaryMime) => envelope::Body::EightBit,
        };
        if params.require_tls && !self.tls {
            return Err(answer::REQUIRETLS_IN_THE_CLEAR);
        }
        if params.priority.is_some() && sender.authenticated_as.is_empty() {
            return Err(answer::PRIORITY_OF_STRANGER);
        }
        let deliver_by_ms = deliver_by_ms(params.deliver_by, moment.now_ms)?;
        let most = sender.max_size(1, self.listener.max_message_size);
        if params.size.is_some_and(|size| size > most) {
            return Err(answer::TOO_LARGE);
        }
        let not_before_ms = released_ms(params.release, moment.now_ms)?;
        match moment.storage {
            Storage::Ready => {}
            Storage::Away => return Err(answer::STORAGE_AWAY),
            Storage::Full => return Err(answer::STORAGE_FULL),
        }
        self.transaction = Some(Box::new(Transaction {
            sender,
            return_path,
            recipients: Vec::with_capacity(1),
            declared_size: params.size,
            body,
            binary: params.body == Some(Body::BinaryMime),
            smtputf8: params.smtputf8,
            ret: match params.ret {
                None => envelope::DsnReturn::Unspecified,
                Some(Return::Full) => envelope::DsnReturn::Full,
                Some(Return::Headers) => envelope::DsnReturn::Headers,
            },
            envid: params
                .envid
                .map(|envid| envid.as_str().to_owned())
                .unwrap_or_default(),
            not_before_ms,
            deliver_by_ms,
            priority: params.priority,
            require_tls: params.require_tls,
            chunked: false,
        }));
        Ok(answer::SENDER_OK)
    }

    pub(super) fn rcpt(
        &mut self,
        path: &ForwardPath,
        params: &RcptParams,
        moment: Moment<'_>,
    ) -> Result<Answer, Answer> {
        let now_ms = moment.now_ms;
        let transaction = self.transaction.as_mut().ok_or(answer::NEED_MAIL)?;
        if transaction.chunked {
            return Err(answer::CHUNKS_BEGUN);
        }
        let orcpt_needs_utf8 = params
            .orcpt
            .as_ref()
            .is_some_and(smtp::OriginalRecipient::needs_smtputf8);
        let path = match (path, self.listener.forwarding.as_deref()) {
            (ForwardPath::Mailbox(address), Some(forwarding))
                if transaction.sender.foreign_senders().is_some() =>
            {
                let sender = &transaction.sender;
                let address = address.clone();
                let meant = forwarding::recipient(forwarding, sender, address, now_ms / 1000)?;
                Cow::Owned(ForwardPath::Mailbox(meant))
            }
            _ => Cow::Borrowed(path),
        };
        let address = match &*path {
            // RFC 5321 section 4.5.1: the postmaster of this host, who has a mailbox elsewhere.
            ForwardPath::Postmaster => format!("postmaster@{}", self.listener.hostname),
            // RFC 6531 section 3.4, and RFC 6533 section 3 for ORCPT.
            ForwardPath::Mailbox(address)
                if (address.needs_smtputf8() || orcpt_needs_utf8) && !transaction.smtputf8 =>
            {
                return Err(answer::RECIPIENT_NEEDS_SMTPUTF8);
            }
            ForwardPath::Mailbox(address) if address.domain().is_none() => {
                return Err(answer::ADDRESS_LITERAL);
            }
            ForwardPath::Mailbox(address) => address.as_str().to_owned(),
        };
        if transaction
            .recipients
            .iter()
            .any(|recipient| recipient.address == address)
        {
            // Named twice, delivered once.
            return Ok(answer::RECIPIENT_OK);
        }
        let count = transaction.recipients.len() + 1;
        if count > self.listener.max_recipients {
            return Err(answer::TOO_MANY_RECIPIENTS);
        }
        let sender = &transaction.sender;
        if sender
            .most_at_once()
            .is_some_and(|most| count as u64 > most)
        {
            return Err(answer::TOO_MANY_RECIPIENTS);
        }
        if sender.max_recipients().is_some_and(|most| count > most) {
            return Err(answer::TOO_MANY_BY_POLICY);
        }
        if transaction
            .declared_size
            .is_some_and(|size| size > sender.max_size(count, self.listener.max_message_size))
        {
            return Err(answer::TOO_LARGE_FOR_RECIPIENTS);
        }
        let simulated = simulator::simulated(&self.listener.simulator, &address)?;
        if let Some(table) = moment.suppressed.filter(|_| simulated.is_none())
            && suppression::is_refused(table, sender, &address, now_ms)
        {
            return Err(answer::SUPPRESSED);
        }
        transaction.recipients.push(envelope::Recipient {
            address,
            simulated,
            notify: params.notify.bits(),
            orcpt: params
                .orcpt
                .as_ref()
                .map(|orcpt| orcpt.as_str().to_owned())
                .unwrap_or_default(),
            return_path: String::new(),
            header_variant: 0,
        });
        Ok(answer::RECIPIENT_OK)
    }

    /// Whether DATA may begin.
    pub(super) fn data(&self) -> Result<(), Answer> {
        match &self.transaction {
            None => Err(answer::NEED_MAIL),
            Some(transaction) if transaction.recipients.is_empty() => {
                Err(answer::NO_VALID_RECIPIENTS)
            }
            // RFC 3030 section 3: the two are not mixed.
            Some(transaction) if transaction.chunked => Err(answer::CHUNKS_BEGUN),
            Some(transaction) if transaction.binary => Err(answer::BINARY_NEEDS_CHUNKS),
            Some(_) => Ok(()),
        }
    }

    /// Whether a chunk may come.
    pub(super) fn bdat(&mut self) -> Result<(), Answer> {
        match &mut self.transaction {
            None => Err(answer::NEED_MAIL),
            Some(transaction) if transaction.recipients.is_empty() => {
                Err(answer::NO_VALID_RECIPIENTS)
            }
            Some(transaction) => {
                transaction.chunked = true;
                Ok(())
            }
        }
    }
}

/// When a message that is to be kept may be sent, Unix milliseconds; 0 = at once.
fn released_ms(release: Option<Release>, now_ms: u64) -> Result<u64, Answer> {
    let at_ms = match release {
        None => return Ok(0),
        Some(Release::After(seconds)) => now_ms + u64::from(seconds) * 1000,
        Some(Release::At(unix_seconds)) => unix_seconds.saturating_mul(1000),
    };
    if at_ms > now_ms + message::MOST_AHEAD_MS {
        return Err(answer::RELEASE_TOO_LATE);
    }
    // A time that is over means at once.
    Ok(if at_ms > now_ms { at_ms } else { 0 })
}

/// By when a message is wanted to be delivered, Unix milliseconds; 0: nothing is said.
fn deliver_by_ms(by: Option<DeliverBy>, now_ms: u64) -> Result<u64, Answer> {
    let Some(by) = by else {
        return Ok(0);
    };
    if by.mode == ByMode::Return {
        return Err(answer::BY_OR_RETURN);
    }
    if by.trace {
        return Err(answer::BY_TRACE);
    }
    Ok(now_ms
        .saturating_add_signed(i64::from(by.seconds) * 1000)
        .max(1))
}

impl Transaction {
    /// Octets that its content may have, with the recipients that it has, where the listener takes `listener`.
    pub(crate) fn max_size(&self, listener: u64) -> u64 {
        self.sender.max_size(self.recipients.len(), listener)
    }
}
