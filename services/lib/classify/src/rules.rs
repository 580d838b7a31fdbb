//! The tables. Rows are tried from the top; the first that fits decides. Texts are lower case.

use crate::{Class, Stage};

/// A 5xx reply that is temporary in truth.
#[derive(Debug, Clone, Copy)]
pub struct TemporaryRule {
    /// Where the reply came; empty = at any stage that concerns the message.
    pub stages: &'static [Stage],
    /// The reply codes; empty = any 5xx.
    pub codes: &'static [u16],
    /// Subject and detail of the enhanced code; empty = any, or none given.
    pub enhanced: &'static [(u16, u16)],
    /// Parts of the text, one of which must be there; empty = any text.
    pub texts: &'static [&'static str],
    /// The reason.
    pub class: Class,
    /// Who says so, and why it is temporary.
    pub why: &'static str,
}

/// The 5xx replies that are retried. Every other 5xx to MAIL, RCPT, DATA or the final dot is final.
///
/// About 552: RFC 5321 section 4.5.3.1.10 has clients take a 552 for too many recipients as a 452, so a 552 to
/// RCPT that gives no other reason is temporary. One that names the mailbox's quota (5.2.2 or in words) is
/// final: the receiver had 452 4.2.2 to say "for now", and knocking for days at a dead mailbox costs reputation.
/// One about the message's size is final too.
pub const TEMPORARY: &[TemporaryRule] = &[
    TemporaryRule {
        stages: &[],
        codes: &[550],
        enhanced: &[],
        texts: &["frequency limited", "frequency is limited"],
        class: Class::Throttled,
        why: "QQ: sender, ip, connection or domain frequency limited",
    },
    TemporaryRule {
        stages: &[],
        codes: &[550, 554],
        enhanced: &[],
        texts: &["rp:orq", "hl:itc", "dt:spm"],
        class: Class::Throttled,
        why: "NetEase: limits per source, by their codes",
    },
    TemporaryRule {
        stages: &[],
        codes: &[],
        enhanced: &[],
        texts: &[
            "too many messages for this session",
            "too many messages in this session",
            "too many messages in this connection",
            "too many messages per connection",
            "max message per connection",
            "maximum number of messages per connection",
            "too many connections",
            "trop de connexions",
        ],
        class: Class::Throttled,
        why: "limits of a connection or of connections: another connection will do",
    },
    TemporaryRule {
        stages: &[Stage::Rcpt],
        codes: &[],
        enhanced: &[(5, 3)],
        texts: &[],
        class: Class::Throttled,
        why: "RFC 5321 section 4.5.3.1.10: too many recipients",
    },
    TemporaryRule {
        stages: &[Stage::Rcpt],
        codes: &[],
        enhanced: &[],
        texts: &["too many recipients"],
        class: Class::Throttled,
        why: "RFC 5321 section 4.5.3.1.10: too many recipients",
    },
    TemporaryRule {
        stages: &[],
        codes: &[],
        enhanced: &[],
        texts: &["greylist", "graylist", "grey list", "gray list"],
        class: Class::Greylisted,
        why: "a greylisting server that chose the wrong digit",
    },
];

/// A 552 to RCPT is about too many recipients unless its reason is one of these.
pub(crate) const NOT_ABOUT_RECIPIENT_COUNT: &[Class] = &[
    Class::MailboxFull,
    Class::Content,
    Class::Recipient,
    Class::Policy,
];

/// A reason by words, good for any reply. Ordered from the particular to the general.
pub(crate) const TEXTS: &[(&str, Class)] = &[
    ("greylist", Class::Greylisted),
    ("graylist", Class::Greylisted),
    ("grey list", Class::Greylisted),
    ("gray list", Class::Greylisted),
    ("postgrey", Class::Greylisted),
    ("too many hops", Class::Infrastructure),
    ("mail loop", Class::Infrastructure),
    ("mailbox full", Class::MailboxFull),
    ("mailbox is full", Class::MailboxFull),
    ("inbox is full", Class::MailboxFull),
    ("over quota", Class::MailboxFull),
    ("overquota", Class::MailboxFull),
    ("quota exceeded", Class::MailboxFull),
    ("exceeded its quota", Class::MailboxFull),
    ("exceeded storage", Class::MailboxFull),
    ("exceeds quota", Class::MailboxFull),
    ("mailbox quota", Class::MailboxFull),
    ("out of storage space", Class::MailboxFull),
    ("frequency limited", Class::Throttled),
    ("rate limit", Class::Throttled),
    ("ratelimit", Class::Throttled),
    ("limited due to ip reputation", Class::Throttled),
    ("unusual rate", Class::Throttled),
    ("too many", Class::Throttled),
    ("too fast", Class::Throttled),
    ("too quickly", Class::Throttled),
    ("throttl", Class::Throttled),
    ("slow down", Class::Throttled),
    ("trop de connexions", Class::Throttled),
    ("server busy", Class::Throttled),
    ("temporarily deferred", Class::Throttled),
    ("max message per connection", Class::Throttled),
    ("[ts0", Class::Throttled),
    ("[tss0", Class::Throttled),
    ("[ipts0", Class::Throttled),
    ("no such user", Class::Recipient),
    ("no such recipient", Class::Recipient),
    ("user unknown", Class::Recipient),
    ("unknown user", Class::Recipient),
    ("unknown recipient", Class::Recipient),
    ("unknown local part", Class::Recipient),
    ("user not found", Class::Recipient),
    ("recipient not found", Class::Recipient),
    ("mailbox not found", Class::Recipient),
    ("mailbox does not exist", Class::Recipient),
    ("account does not exist", Class::Recipient),
    (
        "account that you tried to reach does not exist",
        Class::Recipient,
    ),
    ("address does not exist", Class::Recipient),
    ("user does not exist", Class::Recipient),
    ("user doesn't exist", Class::Recipient),
    ("doesn't have a", Class::Recipient),
    ("account is disabled", Class::Recipient),
    ("account has been disabled", Class::Recipient),
    ("mailbox disabled", Class::Recipient),
    ("message too large", Class::Content),
    ("message too big", Class::Content),
    ("message size exceeds", Class::Content),
    ("message exceeds", Class::Content),
    ("maximum message size", Class::Content),
    ("virus", Class::Content),
    ("malware", Class::Content),
    ("spamhaus", Class::Policy),
    ("blacklist", Class::Policy),
    ("blocklist", Class::Policy),
    ("block list", Class::Policy),
    ("blocked", Class::Policy),
    ("reputation", Class::Policy),
    ("unsolicited", Class::Policy),
    ("spam", Class::Policy),
    ("dmarc", Class::Policy),
    ("dkim", Class::Policy),
    ("relay access denied", Class::Policy),
    ("relaying denied", Class::Policy),
    ("relay not permitted", Class::Policy),
    ("not authenticated", Class::Policy),
    ("policy", Class::Policy),
];

/// A reason by subject and detail of the enhanced code (RFC 3463, RFC 5248 and its registry).
/// `None` as detail fits all of the subject. The bool says which replies the row is for: 4xx, 5xx or both.
pub(crate) const ENHANCED: &[(u16, Option<u16>, Replies, Class)] = &[
    (1, Some(7), Replies::Both, Class::Policy), // sender's mailbox address
    (1, Some(8), Replies::Both, Class::Policy), // sender's system address
    (1, Some(10), Replies::Both, Class::Dns),   // null MX (RFC 7505)
    (1, None, Replies::Both, Class::Recipient),
    (2, Some(1), Replies::Temporary, Class::Throttled), // Gmail: this recipient gets mail too fast
    (2, Some(1), Replies::Final, Class::Recipient),     // disabled
    (2, Some(2), Replies::Both, Class::MailboxFull),
    (2, Some(3), Replies::Both, Class::Content), // longer than the mailbox allows
    (2, Some(4), Replies::Both, Class::Recipient),
    (3, Some(4), Replies::Both, Class::Content), // larger than the system allows
    (3, None, Replies::Both, Class::Infrastructure),
    (4, Some(1), Replies::Final, Class::Recipient), // Microsoft 365: no such recipient
    (4, Some(3), Replies::Both, Class::Dns),
    (4, Some(4), Replies::Both, Class::Dns),
    (4, None, Replies::Both, Class::Infrastructure),
    (5, Some(3), Replies::Both, Class::Throttled), // too many recipients
    (5, None, Replies::Both, Class::Infrastructure),
    (6, None, Replies::Both, Class::Content),
    (7, Some(10), Replies::Both, Class::Infrastructure), // encryption needed (RFC 5248, RFC 8689)
    (7, Some(30), Replies::Both, Class::Infrastructure), // REQUIRETLS needed (RFC 8689)
    (7, Some(28), Replies::Both, Class::Throttled),      // RFC 7372 and Gmail: mail flood
    (7, None, Replies::Both, Class::Policy),
];

/// Which replies a row of [`ENHANCED`] is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replies {
    Temporary,
    Final,
    Both,
}

/// A reason by the reply code alone, when neither words nor an enhanced code gave one. A bare 550 says
/// nothing (Yahoo uses it for policy): it must not look like an unknown recipient.
pub(crate) const CODES: &[(u16, Class)] = &[
    (421, Class::Infrastructure),
    (432, Class::Infrastructure),
    (451, Class::Infrastructure),
    (452, Class::Infrastructure),
    (454, Class::Infrastructure),
    (455, Class::Infrastructure),
    (500, Class::Infrastructure),
    (501, Class::Infrastructure),
    (502, Class::Infrastructure),
    (503, Class::Infrastructure),
    (504, Class::Infrastructure),
    (521, Class::Infrastructure), // RFC 7504: the host accepts no mail
    (530, Class::Policy),
    (534, Class::Policy),
    (535, Class::Policy),
    (538, Class::Policy),
    (551, Class::Recipient),
    (552, Class::Content),
    (555, Class::Infrastructure),
    (556, Class::Dns), // RFC 7504: the domain accepts no mail
];
