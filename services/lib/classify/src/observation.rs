//! What was seen, and what it is taken for.

use crate::Reason;

/// Where in the dialogue an attempt was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Finding the hosts of the domain.
    Dns,
    /// Opening the TCP connection.
    Connect,
    /// The greeting.
    Banner,
    /// EHLO or HELO.
    Ehlo,
    /// STARTTLS and the handshake.
    StartTls,
    /// AUTH at a smart host.
    Auth,
    /// MAIL FROM.
    Mail,
    /// RCPT TO.
    Rcpt,
    /// DATA or BDAT before the end of the content.
    Data,
    /// The final dot or BDAT LAST.
    FinalDot,
    /// Our own work before the dialogue could go on: reading the block, signing, waiting for the permit.
    Prepare,
}

impl Stage {
    /// Whether a reply at this stage speaks of the message and not of the host.
    pub const fn concerns_message(self) -> bool {
        matches!(self, Self::Mail | Self::Rcpt | Self::Data | Self::FinalDot)
    }
}

/// What one recipient of an attempt saw.
#[derive(Debug, Clone, Copy)]
pub struct Observation<'a> {
    /// The stage that decided.
    pub stage: Stage,
    /// SMTP reply code, 200 to 599; 0 when there was no reply. At [`Stage::Dns`] the code that RFC 7505
    /// and RFC 5321 have for it (556 null MX, 550 no such domain), or 0.
    pub code: u16,
    /// Enhanced code (RFC 3463). At [`Stage::Dns`] `(5, 1, 2)` for a domain that does not exist, `(5, 1, 10)`
    /// for a null MX, `(4, 4, 3)` when the name servers gave no answer.
    pub enhanced: Option<(u8, u16, u16)>,
    /// Text of the reply, lines joined by a blank. Only the first 2 KiB are looked at.
    pub text: &'a str,
    /// The final dot was sent, so without a reply the message may have been accepted (RFC 1047).
    pub dot_sent: bool,
}

/// What becomes of the recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Accepted by the other side.
    Delivered,
    /// Refused for now; the attempt counts, and another follows.
    Transient,
    /// The host, source or lane is in trouble, nothing was said of the message: no attempt is consumed,
    /// another MX host or a later time is tried.
    HostTrouble,
    /// Refused for good.
    Permanent,
    /// Given back before anything was said to the host: not an attempt.
    Returned,
    /// The final dot was sent and no reply came: perhaps delivered.
    InDoubt,
}

/// Why a recipient did not accept; `Class` of `staffetta.journal.v1`, with the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(u8)]
pub enum Class {
    /// Nothing in the reply tells. Never enough to suppress a recipient.
    #[default]
    Unspecified = 0,
    /// The mailbox does not exist or is disabled.
    Recipient = 1,
    /// The mailbox is over its quota.
    MailboxFull = 2,
    /// Refused by a rule about the sender: reputation, block lists, authentication.
    Policy = 3,
    /// Too much at once.
    Throttled = 4,
    /// First contact is refused on purpose (RFC 6647).
    Greylisted = 5,
    /// The other side, or the way to it, does not work.
    Infrastructure = 6,
    /// The content: size, malware, format.
    Content = 7,
    /// The domain: does not exist, has a null MX, or its name servers do not answer.
    Dns = 8,
}

impl Class {
    /// As events name it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unspecified => "unspecified",
            Self::Recipient => "recipient",
            Self::MailboxFull => "mailbox_full",
            Self::Policy => "policy",
            Self::Throttled => "throttled",
            Self::Greylisted => "greylisted",
            Self::Infrastructure => "infrastructure",
            Self::Content => "content",
            Self::Dns => "dns",
        }
    }
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// What becomes of the recipient.
    pub kind: Kind,
    /// Why; `Unspecified` with `Delivered`, `Returned` and `InDoubt`.
    pub class: Class,
}

/// The answer, and why more exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Judgement {
    /// What becomes of the recipient.
    pub kind: Kind,
    /// Why; `Unspecified` with `Delivered`, `Returned` and `InDoubt`.
    pub reason: Reason,
}

impl Judgement {
    /// What is stored of it.
    pub const fn verdict(self) -> Verdict {
        Verdict {
            kind: self.kind,
            class: self.reason.class(),
        }
    }
}
