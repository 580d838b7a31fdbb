//! What the server says to a client.

use std::borrow::Cow;

use message::BinaryError;
use smtp::{CommandError, DataError, EnhancedCode, XClientError};

/// One reply: code, enhanced code (RFC 3463) and a public text that carries no internals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    /// `None` where RFC 2034 wants none: greetings, EHLO, 3xx.
    pub(crate) enhanced: Option<EnhancedCode>,
    pub(crate) text: Cow<'static, str>,
}

impl Answer {
    /// With a text that is known beforehand.
    pub(crate) const fn new(code: u16, enhanced: EnhancedCode, text: &'static str) -> Self {
        Self {
            code,
            enhanced: Some(enhanced),
            text: Cow::Borrowed(text),
        }
    }

    /// Without an enhanced code.
    pub(crate) const fn plain(code: u16, text: &'static str) -> Self {
        Self {
            code,
            enhanced: None,
            text: Cow::Borrowed(text),
        }
    }

    /// With a text made for the occasion.
    pub(crate) fn with(code: u16, enhanced: EnhancedCode, text: String) -> Self {
        Self {
            code,
            enhanced: Some(enhanced),
            text: Cow::Owned(text),
        }
    }

    /// Whether the client is refused something.
    pub(crate) fn is_refusal(&self) -> bool {
        self.code >= 400
    }

    /// Appends the reply line. What is not printable ASCII in the text becomes `?`, so that nothing
    /// that came from a client can begin a line of its own.
    pub(crate) fn write(&self, out: &mut Vec<u8>) {
        write_code(self.code, b' ', out);
        if let Some(enhanced) = self.enhanced {
            let EnhancedCode(class, subject, detail) = enhanced;
            for (part, end) in [(u16::from(class), b'.'), (subject, b'.'), (detail, b' ')] {
                write_number(part, out);
                out.push(end);
            }
        }
        out.extend(self.text.chars().take(400).map(|c| match u8::try_from(c) {
            Ok(byte) if byte == b' ' || byte.is_ascii_graphic() => byte,
            _ => b'?',
        }));
        out.extend_from_slice(b"\r\n");
    }
}

/// Appends a reply of several lines without enhanced codes, as EHLO has it.
pub(crate) fn write_lines<'a>(
    code: u16,
    lines: impl IntoIterator<Item = &'a str>,
    out: &mut Vec<u8>,
) {
    let mut lines = lines.into_iter().peekable();
    while let Some(line) = lines.next() {
        write_code(code, if lines.peek().is_some() { b'-' } else { b' ' }, out);
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

fn write_code(code: u16, separator: u8, out: &mut Vec<u8>) {
    let digit = |value: u16| b'0' + u8::try_from(value % 10).unwrap_or(0);
    out.extend_from_slice(&[digit(code / 100), digit(code / 10), digit(code), separator]);
}

/// At most three digits, without leading zeros.
fn write_number(number: u16, out: &mut Vec<u8>) {
    let digit = |value: u16| b'0' + u8::try_from(value % 10).unwrap_or(0);
    if number >= 100 {
        out.push(digit(number / 100));
    }
    if number >= 10 {
        out.push(digit(number / 10));
    }
    out.push(digit(number));
}

impl From<CommandError> for Answer {
    fn from(error: CommandError) -> Self {
        Self::new(error.code(), error.enhanced(), error.text())
    }
}

impl From<XClientError> for Answer {
    fn from(error: XClientError) -> Self {
        Self::with(501, EnhancedCode(5, 5, 4), error.to_string())
    }
}

impl From<BinaryError> for Answer {
    fn from(error: BinaryError) -> Self {
        let enhanced = match error {
            BinaryError::Signed => EnhancedCode(5, 6, 3),
            _ => EnhancedCode(5, 6, 0),
        };
        Self::with(554, enhanced, format!("Message refused: {error}"))
    }
}

impl From<DataError> for Answer {
    fn from(error: DataError) -> Self {
        Self::new(error.code(), error.enhanced(), error.text())
    }
}

pub(crate) const OK: Answer = Answer::new(250, EnhancedCode(2, 0, 0), "Ok");
pub(crate) const SENDER_OK: Answer = Answer::new(250, EnhancedCode(2, 1, 0), "Ok");
pub(crate) const RECIPIENT_OK: Answer = Answer::new(250, EnhancedCode(2, 1, 5), "Ok");
pub(crate) const BYE: Answer = Answer::new(221, EnhancedCode(2, 0, 0), "Bye");
pub(crate) const CANNOT_VERIFY: Answer = Answer::new(
    252,
    EnhancedCode(2, 1, 5),
    "Cannot verify the user; send mail to the address and see",
);
pub(crate) const HELP: Answer = Answer::new(
    214,
    EnhancedCode(2, 0, 0),
    "EHLO HELO STARTTLS AUTH MAIL RCPT DATA BDAT RSET NOOP VRFY HELP QUIT",
);
pub(crate) const START_TLS: Answer = Answer::new(220, EnhancedCode(2, 0, 0), "Ready to start TLS");
pub(crate) const AUTHENTICATED: Answer =
    Answer::new(235, EnhancedCode(2, 7, 0), "Authentication succeeded");
pub(crate) const SEND_DATA: Answer = Answer::plain(354, "End data with <CR><LF>.<CR><LF>");

pub(crate) const UNKNOWN_COMMAND: Answer =
    Answer::new(500, EnhancedCode(5, 5, 1), "Unknown command");
pub(crate) const NOT_IMPLEMENTED: Answer =
    Answer::new(502, EnhancedCode(5, 5, 1), "Command not implemented");
pub(crate) const SAY_EHLO: Answer = Answer::new(503, EnhancedCode(5, 5, 1), "Say EHLO first");
pub(crate) const NESTED_MAIL: Answer = Answer::new(
    503,
    EnhancedCode(5, 5, 1),
    "A transaction is open already; RSET ends it",
);
pub(crate) const NEED_MAIL: Answer =
    Answer::new(503, EnhancedCode(5, 5, 1), "MAIL FROM comes first");
pub(crate) const NO_VALID_RECIPIENTS: Answer =
    Answer::new(554, EnhancedCode(5, 5, 1), "No valid recipients");

pub(crate) const CHUNKS_BEGUN: Answer = Answer::new(
    503,
    EnhancedCode(5, 5, 1),
    "After BDAT only BDAT, RSET, NOOP and QUIT may come",
);

pub(crate) const BINARY_NEEDS_CHUNKS: Answer = Answer::new(
    503,
    EnhancedCode(5, 5, 1),
    "Binary content can only come with BDAT",
);

pub(crate) const TLS_ACTIVE: Answer =
    Answer::new(503, EnhancedCode(5, 5, 1), "TLS is active already");
pub(crate) const PIPELINED_STARTTLS: Answer = Answer::new(
    554,
    EnhancedCode(5, 5, 1),
    "Nothing may be sent between STARTTLS and the TLS handshake",
);

pub(crate) const XCLIENT_REFUSED: Answer = Answer::new(
    550,
    EnhancedCode(5, 7, 0),
    "XCLIENT is for trusted proxies only",
);
pub(crate) const XCLIENT_IN_TRANSACTION: Answer = Answer::new(
    503,
    EnhancedCode(5, 5, 1),
    "XCLIENT is not allowed in a transaction",
);
pub(crate) const XCLIENT_LOOPBACK: Answer = Answer::new(
    501,
    EnhancedCode(5, 5, 4),
    "A loopback address can't be that of your client",
);

pub(crate) const NOT_SCANNED: Answer = Answer::new(
    451,
    EnhancedCode(4, 7, 1),
    "The message can't be scanned now; try again later",
);
pub(crate) const TOO_LARGE_TO_SCAN: Answer = Answer::new(
    552,
    EnhancedCode(5, 3, 4),
    "The message is too large to be scanned",
);
pub(crate) const LOOKS_LIKE_SPAM: Answer = Answer::new(
    554,
    EnhancedCode(5, 7, 1),
    "Message refused: it looks like spam",
);

pub(crate) const AUTH_ACTIVE: Answer =
    Answer::new(503, EnhancedCode(5, 5, 1), "Authenticated already");
pub(crate) const AUTH_IN_TRANSACTION: Answer = Answer::new(
    503,
    EnhancedCode(5, 5, 1),
    "AUTH is not allowed in a transaction",
);
pub(crate) const AUTH_NEEDS_TLS: Answer = Answer::new(
    538,
    EnhancedCode(5, 7, 11),
    "Encryption is required for authentication; use STARTTLS first",
);
pub(crate) const AUTH_NEEDS_IMPLICIT_TLS: Answer = Answer::new(
    538,
    EnhancedCode(5, 7, 11),
    "Encryption is required for authentication; use a port with TLS",
);
pub(crate) const AUTH_UNKNOWN: Answer = Answer::new(
    504,
    EnhancedCode(5, 5, 4),
    "Authentication mechanism not offered",
);
pub(crate) const AUTH_CANCELLED: Answer =
    Answer::new(501, EnhancedCode(5, 7, 0), "Authentication cancelled");
pub(crate) const AUTH_MALFORMED: Answer =
    Answer::new(501, EnhancedCode(5, 5, 2), "The response cannot be decoded");
pub(crate) const AUTH_WRONG: Answer = Answer::new(
    535,
    EnhancedCode(5, 7, 8),
    "Authentication credentials invalid",
);
pub(crate) const AUTH_BUSY: Answer = Answer::new(
    454,
    EnhancedCode(4, 7, 0),
    "Temporary authentication failure; try again later",
);
pub(crate) const TOKEN_OVER: Answer = Answer::new(
    421,
    EnhancedCode(4, 7, 0),
    "The access token of this session has expired; connect again with a new one",
);
pub(crate) const AUTH_BANNED: Answer = Answer::new(
    454,
    EnhancedCode(4, 7, 0),
    "Too many failed logins; try again later",
);
pub(crate) const AUTH_REQUIRED: Answer =
    Answer::new(530, EnhancedCode(5, 7, 0), "Authentication required");
pub(crate) const NOT_AUTHORISED: Answer = Answer::new(
    550,
    EnhancedCode(5, 7, 1),
    "This credential may not send mail now; ask who gave it to you",
);

/// To who has the right password: others learn nothing.
pub(crate) const AUTH_LOCKED: Answer = Answer::new(
    535,
    EnhancedCode(5, 7, 8),
    "This credential is locked; ask who gave it to you",
);
pub(crate) const LOCKED: Answer = Answer::new(
    550,
    EnhancedCode(5, 7, 1),
    "This credential is locked; ask who gave it to you",
);

pub(crate) const RELEASE_TOO_LATE: Answer = Answer::new(
    501,
    EnhancedCode(5, 5, 4),
    "The message can't be held for so long; see FUTURERELEASE",
);
pub(crate) const PRIORITY_OF_STRANGER: Answer = Answer::new(
    555,
    EnhancedCode(5, 5, 4),
    "MT-PRIORITY is for authenticated clients",
);
pub(crate) const REQUIRETLS_IN_THE_CLEAR: Answer = Answer::new(
    550,
    EnhancedCode(5, 7, 30),
    "REQUIRETLS can be asked for under TLS only; say STARTTLS first",
);
pub(crate) const BY_OR_RETURN: Answer = Answer::new(
    555,
    EnhancedCode(5, 5, 4),
    "BY with mode R is not offered, since most hosts could not keep it; mode N is",
);
pub(crate) const BY_TRACE: Answer = Answer::new(
    555,
    EnhancedCode(5, 5, 4),
    "BY with trace (T) is not offered",
);
pub(crate) const RECIPIENT_NEEDS_SMTPUTF8: Answer = Answer::new(
    553,
    EnhancedCode(5, 6, 7),
    "Recipient address needs SMTPUTF8",
);
/// Delivery not authorized (RFC 3463 section 3.8): filtering by recipient.
pub(crate) const SUPPRESSED: Answer = Answer::new(
    550,
    EnhancedCode(5, 7, 1),
    "Nothing is sent to this address any more",
);
pub(crate) const ADDRESS_LITERAL: Answer = Answer::new(
    550,
    EnhancedCode(5, 1, 2),
    "Mail to an address literal is not accepted; use a domain name",
);
pub(crate) const TOO_MANY_RECIPIENTS: Answer = Answer::new(
    452,
    EnhancedCode(4, 5, 3),
    "Too many recipients; send the others in another transaction",
);
pub(crate) const TOO_MUCH_OF_RECIPIENTS: Answer = Answer::new(
    452,
    EnhancedCode(4, 5, 3),
    "Too many recipients for what is added for each of them; send to fewer at once",
);
pub(crate) const OVER_QUOTA: Answer = Answer::new(550, EnhancedCode(5, 7, 28), "Quota exceeded");
pub(crate) const MONTH_USED_UP: Answer = Answer::new(
    550,
    EnhancedCode(5, 7, 1),
    "The quota of this month is used up",
);
pub(crate) const TOO_MANY_BY_POLICY: Answer = Answer::new(
    550,
    EnhancedCode(5, 7, 1),
    "More recipients in one message than this credential may have",
);
pub(crate) const TOO_LARGE_FOR_RECIPIENTS: Answer = Answer::new(
    552,
    EnhancedCode(5, 3, 4),
    "Message size exceeds the limit for so many recipients",
);
pub(crate) const TOO_LARGE: Answer =
    Answer::new(552, EnhancedCode(5, 3, 4), "Message size exceeds the limit");
pub(crate) const HEADER_TOO_LARGE: Answer = Answer::new(
    552,
    EnhancedCode(5, 3, 4),
    "The header section exceeds 256 KiB",
);
pub(crate) const LINE_TOO_LONG: Answer = Answer::new(
    554,
    EnhancedCode(5, 6, 0),
    "A line has more than 998 octets (RFC 5322 section 2.1.1)",
);
pub(crate) const LOOP: Answer = Answer::new(
    554,
    EnhancedCode(5, 4, 6),
    "Too many Received fields; the message is in a loop",
);

pub(crate) const NO_MEMORY: Answer = Answer::new(
    452,
    EnhancedCode(4, 3, 1),
    "Insufficient system storage; try again later",
);
pub(crate) const STORAGE_FULL: Answer = Answer::new(
    452,
    EnhancedCode(4, 3, 1),
    "Insufficient system storage; try again later",
);
pub(crate) const STORAGE_AWAY: Answer = Answer::new(
    451,
    EnhancedCode(4, 3, 0),
    "Message storage is not available; try again later",
);

pub(crate) const NO_RETURN_PATHS: Answer = Answer::new(
    451,
    EnhancedCode(4, 3, 5),
    "Return paths can't be made at the moment; try again later",
);

pub(crate) const UNDERWAY: Answer = Answer::new(
    451,
    EnhancedCode(4, 3, 0),
    "The same message is being stored; try again later",
);

pub(crate) const TOO_MANY_ERRORS: Answer = Answer::new(
    421,
    EnhancedCode(4, 7, 0),
    "Too many errors; closing the connection",
);
pub(crate) const TOO_SLOW: Answer = Answer::new(
    421,
    EnhancedCode(4, 4, 2),
    "Timeout; closing the connection",
);
pub(crate) const TOO_MANY_CONNECTIONS: Answer = Answer::new(
    421,
    EnhancedCode(4, 3, 2),
    "Too many connections; try again later",
);
pub(crate) const TOO_MANY_OF_CLIENT: Answer = Answer::new(
    421,
    EnhancedCode(4, 7, 0),
    "Too many connections from your address; try again later",
);
pub(crate) const SHUTTING_DOWN: Answer = Answer::new(
    421,
    EnhancedCode(4, 3, 2),
    "The service is restarting; try again at once",
);

#[cfg(test)]
mod tests {
    use super::*;

    fn written(answer: &Answer) -> String {
        let mut out = Vec::new();
        answer.write(&mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn writes_code_enhanced_code_and_text() {
        assert_eq!(written(&SENDER_OK), "250 2.1.0 Ok\r\n");
        assert_eq!(
            written(&Answer::new(550, EnhancedCode(5, 7, 509), "No")),
            "550 5.7.509 No\r\n"
        );
        assert_eq!(
            written(&SEND_DATA),
            "354 End data with <CR><LF>.<CR><LF>\r\n"
        );
    }

    #[test]
    fn text_of_a_client_begins_no_line() {
        let answer = Answer::with(550, EnhancedCode(5, 7, 1), "evil\r\n250 é".to_owned());
        assert_eq!(written(&answer), "550 5.7.1 evil??250 ?\r\n");
    }

    #[test]
    fn the_last_line_of_several_has_a_blank() {
        let mut out = Vec::new();
        write_lines(250, ["a", "b"], &mut out);
        assert_eq!(out, b"250-a\r\n250 b\r\n");
    }
}
