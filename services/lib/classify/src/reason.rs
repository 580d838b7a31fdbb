//! Why, more exactly than the class says.

use crate::Class;

/// Why a recipient did not accept, or a message did not arrive. Each belongs to one [`Class`], which is what is stored and what
/// retries go by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Reason {
    /// Nothing tells.
    #[default]
    Unspecified,
    /// There is no such mailbox.
    UnknownMailbox,
    /// The mailbox is disabled, inactive or suspended.
    DisabledMailbox,
    /// The mailbox has another address now.
    Moved,
    /// What was given is no address.
    BadAddress,
    /// The mailbox is over its quota.
    MailboxFull,
    /// The source, its network or domain has a bad name: block lists, complaints.
    Reputation,
    /// The message looks like spam or phishing.
    Spam,
    /// SPF, DKIM, DMARC, reverse DNS, the name in EHLO: who sends is not proven.
    Authentication,
    /// The host does not take mail for this recipient from here, or wants a login.
    RelayDenied,
    /// The sender's address is refused: it does not exist, or may not write there.
    Sender,
    /// Another rule of the other side.
    Policy,
    /// Too much at once.
    Throttled,
    /// First contact is refused on purpose (RFC 6647).
    Greylisted,
    /// The message is larger than the host or the mailbox allows.
    TooLarge,
    /// Malware, or an attachment that could be.
    Malware,
    /// Its form: header fields, character sets, attachments, what cannot be converted.
    Content,
    /// The message goes round in circles.
    Loop,
    /// The other side, or the way to it, does not work.
    Infrastructure,
    /// TLS is wanted and cannot be had.
    Tls,
    /// It was tried for too long; nothing else is known.
    Expired,
    /// The domain does not exist, or accepts no mail.
    NoSuchDomain,
    /// Name servers do not answer, or say nonsense.
    Dns,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 23] = [
        Self::Unspecified,
        Self::UnknownMailbox,
        Self::DisabledMailbox,
        Self::Moved,
        Self::BadAddress,
        Self::MailboxFull,
        Self::Reputation,
        Self::Spam,
        Self::Authentication,
        Self::RelayDenied,
        Self::Sender,
        Self::Policy,
        Self::Throttled,
        Self::Greylisted,
        Self::TooLarge,
        Self::Malware,
        Self::Content,
        Self::Loop,
        Self::Infrastructure,
        Self::Tls,
        Self::Expired,
        Self::NoSuchDomain,
        Self::Dns,
    ];

    /// What is stored of it.
    pub const fn class(self) -> Class {
        match self {
            Self::Unspecified => Class::Unspecified,
            Self::UnknownMailbox | Self::DisabledMailbox | Self::Moved | Self::BadAddress => {
                Class::Recipient
            }
            Self::MailboxFull => Class::MailboxFull,
            Self::Reputation
            | Self::Spam
            | Self::Authentication
            | Self::RelayDenied
            | Self::Sender
            | Self::Policy => Class::Policy,
            Self::Throttled => Class::Throttled,
            Self::Greylisted => Class::Greylisted,
            Self::TooLarge | Self::Malware | Self::Content => Class::Content,
            Self::Loop | Self::Infrastructure | Self::Tls | Self::Expired => Class::Infrastructure,
            Self::NoSuchDomain | Self::Dns => Class::Dns,
        }
    }

    /// Whether the address can be given up when a host refuses for this reason for good. Of nothing else may a recipient be
    /// suppressed at the first refusal.
    pub const fn is_about_address(self) -> bool {
        matches!(
            self,
            Self::UnknownMailbox
                | Self::DisabledMailbox
                | Self::Moved
                | Self::BadAddress
                | Self::NoSuchDomain
        )
    }

    /// As it is written in files of rules, and shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::UnknownMailbox => "unknownMailbox",
            Self::DisabledMailbox => "disabledMailbox",
            Self::Moved => "moved",
            Self::BadAddress => "badAddress",
            Self::MailboxFull => "mailboxFull",
            Self::Reputation => "reputation",
            Self::Spam => "spam",
            Self::Authentication => "authentication",
            Self::RelayDenied => "relayDenied",
            Self::Sender => "sender",
            Self::Policy => "policy",
            Self::Throttled => "throttled",
            Self::Greylisted => "greylisted",
            Self::TooLarge => "tooLarge",
            Self::Malware => "malware",
            Self::Content => "content",
            Self::Loop => "loop",
            Self::Infrastructure => "infrastructure",
            Self::Tls => "tls",
            Self::Expired => "expired",
            Self::NoSuchDomain => "noSuchDomain",
            Self::Dns => "dns",
        }
    }
}
