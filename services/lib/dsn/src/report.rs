//! What a notification tells.

/// One notification: about some recipients of one message, to its return path.
#[derive(Debug, Clone)]
pub struct Report<'a> {
    /// Our host name: the Reporting-MTA, and the domain of our address and of our Message-ID.
    pub reporting_mta: &'a str,
    /// Left part of the notification's own Message-ID, unique for ever.
    pub own_id: &'a str,
    /// When it is written, Unix milliseconds.
    pub date_ms: u64,
    /// Return path of the original; never the null one.
    pub return_path: &'a str,
    /// When the original was accepted, Unix milliseconds.
    pub arrival_ms: u64,
    /// Our id of the original, for whoever asks us about it.
    pub original_id: &'a str,
    /// ENVID as received (xtext); empty when not given.
    pub envid: &'a str,
    /// RET as received.
    pub ret: Return,
    /// What became of them.
    pub action: Action,
    /// The recipients to whom it happened together.
    pub recipients: Vec<FailedRecipient<'a>>,
    /// The original; `None` when it can't be read any more.
    pub original: Option<Original<'a>>,
}

/// What became of the recipients (RFC 3464 section 2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Action {
    /// They are given up.
    #[default]
    Failed,
    /// They are tried further.
    Delayed {
        /// Until then, Unix milliseconds.
        until_ms: u64,
    },
    /// They were taken by a host that does not know DSN (RFC 3461 section 5.2.2).
    Relayed,
}

/// What of the original comes back (RFC 3461 section 4.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Return {
    /// The header: asked for, or nothing was asked.
    #[default]
    Headers,
    /// The whole message, unless it is larger than [`crate::FULL_RETURN_LIMIT`].
    Full,
}

/// The original message as it was stored.
#[derive(Debug, Clone, Copy)]
pub struct Original<'a> {
    /// Header and body, lines ended by CRLF.
    pub content: &'a [u8],
    /// Length of the header with the empty line after it, bytes.
    pub header_length: usize,
}

/// A recipient that was not reached, or of which nothing more will be heard.
#[derive(Debug, Clone)]
pub struct FailedRecipient<'a> {
    /// The address as it was given to us.
    pub address: &'a str,
    /// ORCPT as received (`rfc822;` and xtext); empty when not given.
    pub orcpt: &'a str,
    /// Why there will be no further attempt.
    pub failure: Failure,
    /// Enhanced code (RFC 3463) of the last reply; empty when there was none.
    pub status: &'a str,
    /// Code of the last SMTP reply; 0 when there was none.
    pub reply_code: u32,
    /// Text of the last reply, or what went wrong before there could be one.
    pub reply_text: &'a str,
    /// The host that was tried last; empty when there was none.
    pub remote_mta: &'a str,
    /// When it was tried last, Unix milliseconds; 0 when it was not.
    pub last_attempt_ms: u64,
}

/// Why a recipient is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// Refused for good.
    Refused,
    /// Not accepted within the time that the message had.
    Expired,
    /// Not accepted yet.
    Delayed,
    /// It did not fail: a host took it that does not tell what becomes of it.
    Relayed,
}
