//! What comes back, as nouns.

use std::net::IpAddr;

use classify::{Class, Judgement, Kind, Reason};

/// What a message that came back is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Inbound {
    /// It tells what became of a message: RFC 3464, or the words of a program that knows no standard.
    Report(Report),
    /// Somebody complains of a message (RFC 5965).
    Feedback(Feedback),
    /// A program answers for its owner (RFC 3834): vacations, confirmations. Never a bounce, whatever it says.
    Automatic(Automatic),
    /// A program wants a person to prove that it is one before it delivers.
    Challenge,
    /// It was displayed, deleted or such (RFC 8098).
    Receipt,
    /// Nothing of these: written by people, as far as can be told.
    Other,
}

/// How a report told what it tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// In fields of RFC 3464.
    Standard,
    /// In words.
    Words,
}

/// What became of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// How it is told.
    pub form: Form,
    /// The host that reports; empty when it does not say.
    pub reporting_mta: String,
    /// ENVID of the message (RFC 3461); empty when not told.
    pub envelope_id: String,
    /// At most 1,000; never empty.
    pub recipients: Vec<Recipient>,
    /// As much of the message as was sent back.
    pub original: Original,
}

/// What became of the message for a recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recipient {
    /// The address at which it ended; empty when the report names none.
    pub address: String,
    /// The address that the sender gave; empty when not told.
    pub original_address: String,
    /// What was done.
    pub action: Action,
    /// Enhanced code (RFC 3463): of what the host said, else of the report.
    pub status: Option<(u8, u16, u16)>,
    /// SMTP reply code; 0 when not told.
    pub code: u16,
    /// The words that tell why, at most 1 KiB, in one line.
    pub diagnostic: String,
    /// The host that refused; empty when not told.
    pub remote_mta: String,
    /// Why, and whether that will stay so.
    pub judgement: Judgement,
}

impl Recipient {
    /// Why, as it is stored.
    pub const fn class(&self) -> Class {
        self.judgement.reason.class()
    }

    /// Whether the address can be given up: it failed for good, because of the address. Reputation, policy, a full mailbox or a
    /// host that does not work are no such reason.
    pub const fn is_hard(&self) -> bool {
        matches!(self.action, Action::Failed)
            && matches!(self.judgement.kind, Kind::Permanent)
            && self.judgement.reason.is_about_address()
    }
}

/// What was done for a recipient (RFC 3464 section 2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// It was given up.
    Failed,
    /// It is tried further.
    Delayed,
    /// It arrived.
    Delivered,
    /// It went on to a host that tells nothing.
    Relayed,
    /// It went on to several.
    Expanded,
}

impl Action {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
            Self::Expanded => "expanded",
        }
    }
}

/// Fields of a message that was sent back, each at most 1 KiB. Empty: it was not there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Original {
    /// Message-ID without its brackets.
    pub message_id: String,
    /// The address in Return-Path.
    pub return_path: String,
    /// The first address in From.
    pub from: String,
    /// Addresses in To and where providers say to whom it was delivered; at most 20.
    pub to: Vec<String>,
    /// Feedback-ID.
    pub feedback_id: String,
    /// CFBL-Feedback-ID (RFC 9477).
    pub cfbl_feedback_id: String,
    /// The address of CFBL-Address (RFC 9477).
    pub cfbl_address: String,
}

impl Original {
    /// Whether nothing of it was sent back.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What a complaint is about (RFC 5965 section 7.3, RFC 6591, RFC 6692).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeedbackKind {
    /// Unwanted mail.
    Abuse,
    /// Fraud or phishing.
    Fraud,
    /// Malware.
    Virus,
    /// It was taken for spam and is none.
    NotSpam,
    /// The reader wants no more of it.
    OptOut,
    /// DKIM, SPF or DMARC failed (RFC 6591): no complaint of a person.
    AuthFailure,
    /// Another one.
    Other,
}

impl FeedbackKind {
    /// As it is shown.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Abuse => "abuse",
            Self::Fraud => "fraud",
            Self::Virus => "virus",
            Self::NotSpam => "not-spam",
            Self::OptOut => "opt-out",
            Self::AuthFailure => "auth-failure",
            Self::Other => "other",
        }
    }

    /// Whether a person does not want the mail.
    pub const fn is_complaint(self) -> bool {
        matches!(self, Self::Abuse | Self::Fraud | Self::Virus | Self::OptOut)
    }
}

/// A complaint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feedback {
    /// What it is about.
    pub kind: FeedbackKind,
    /// The program that made it.
    pub user_agent: String,
    /// Original-Mail-From: the return path of the message.
    pub mail_from: String,
    /// Original-Rcpt-To; at most 100.
    pub recipients: Vec<String>,
    /// The address that the message came from.
    pub source_ip: Option<IpAddr>,
    /// Reported-Domain; at most 20.
    pub domains: Vec<String>,
    /// Messages that it stands for, at least 1.
    pub incidents: u32,
    /// The message.
    pub original: Original,
}

/// Who answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Automatic {
    /// A vacation or such: an answer to the message.
    Reply,
    /// Another message that a program made, such as of a mailing list.
    Generated,
}

/// For what is no failure.
pub(crate) const NO_JUDGEMENT: Judgement = Judgement {
    kind: Kind::Delivered,
    reason: Reason::Unspecified,
};
