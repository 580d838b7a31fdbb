//! The commands of a client, and what can be wrong with them.

use mail::Address;

use crate::{EnhancedCode, MailParams, RcptParams, Secret};

/// A well-formed command. Whether it is allowed here and now is for the session to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `EHLO name`. The name is text without blanks and without `()<>@,;"\`, so that it can be
    /// put into a trace field; it need not be a host name.
    Ehlo(Box<str>),
    /// `HELO name`, the name as for `EHLO`.
    Helo(Box<str>),
    /// `STARTTLS` (RFC 3207). What was received behind it must be thrown away.
    StartTls,
    /// `AUTH mechanism [initial-response]` (RFC 4954).
    Auth {
        /// In upper case.
        mechanism: Box<str>,
        /// Base64; `=` was sent for an empty one.
        initial_response: Option<Secret>,
    },
    /// `MAIL FROM:<return-path> params`.
    Mail {
        /// `None` = `<>`.
        return_path: Option<Address>,
        /// ESMTP parameters.
        params: MailParams,
    },
    /// `RCPT TO:<forward-path> params`.
    Rcpt {
        /// The recipient.
        address: ForwardPath,
        /// ESMTP parameters.
        params: RcptParams,
    },
    /// `DATA`.
    Data,
    /// `BDAT size [LAST]` (RFC 3030): `size` octets of content follow at once.
    Bdat {
        /// Octets.
        size: u64,
        /// The last chunk of the message.
        last: bool,
    },
    /// `RSET`.
    Rset,
    /// `NOOP [text]`.
    Noop,
    /// `QUIT`.
    Quit,
    /// `VRFY text`.
    Vrfy,
    /// `EXPN text`.
    Expn,
    /// `HELP [text]`.
    Help,
    /// A verb that this crate does not know: 500 5.5.1, or an extension of the session's own
    /// (XCLIENT).
    Unknown {
        /// In upper case, ASCII letters, digits and "-", at most 32.
        verb: Box<str>,
        /// What follows the verb, without the blanks around it.
        argument: Box<str>,
    },
}

/// The recipient of `RCPT`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum ForwardPath {
    /// `<local@domain>`; a source route before it was dropped (RFC 5321 section 4.1.1.3).
    Mailbox(Address),
    /// `<postmaster>` without a domain (RFC 5321 section 4.5.1).
    Postmaster,
}

/// What is wrong with a line of a client, and what to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The line ends with LF alone, or has a CR or NUL inside (RFC 5321 section 2.3.8).
    #[error("a line that does not end with CRLF")]
    LineEnding,
    /// Over 512 octets, or over 4,096 for MAIL and RCPT.
    #[error("a command line that is too long")]
    TooLong,
    /// Over 12,288 octets (RFC 4954 section 4).
    #[error("an authentication line that is too long")]
    AuthLineTooLong,
    /// Neither ASCII nor UTF-8, or with control characters.
    #[error("a command line that is not text")]
    NotText,
    /// The line does not begin with a verb.
    #[error("a line that is no command")]
    NoCommand,
    /// The argument is not as it should be; the text says how.
    #[error("wrong arguments; {0}")]
    Syntax(&'static str),
    /// The return path is no address.
    #[error("a return path that is no address")]
    ReturnPath,
    /// The recipient is no address.
    #[error("a recipient that is no address")]
    Recipient,
    /// The return path is not ASCII, and `SMTPUTF8` was not said (RFC 6531 section 3.4).
    #[error("a non-ASCII return path without SMTPUTF8")]
    NeedsSmtpUtf8,
    /// A parameter of MAIL or RCPT that is not known.
    #[error("an unknown parameter")]
    UnknownParameter,
    /// A known parameter with a wrong value or said twice; the name is that of the parameter.
    #[error("a wrong parameter {0}")]
    Parameter(&'static str),
    /// Not base64.
    #[error("an authentication line that is not base64")]
    AuthEncoding,
    /// The size of a chunk can't be read, so that nobody knows where the next command begins.
    #[error("a BDAT command without a size")]
    ChunkSize,
}

impl CommandError {
    /// The reply's code.
    pub fn code(self) -> u16 {
        match self {
            Self::LineEnding
            | Self::TooLong
            | Self::AuthLineTooLong
            | Self::NotText
            | Self::NoCommand => 500,
            Self::Syntax(_)
            | Self::ReturnPath
            | Self::Recipient
            | Self::Parameter(_)
            | Self::AuthEncoding
            | Self::ChunkSize => 501,
            Self::NeedsSmtpUtf8 => 553,
            Self::UnknownParameter => 555,
        }
    }

    /// The reply's enhanced code.
    pub fn enhanced(self) -> EnhancedCode {
        match self {
            Self::LineEnding
            | Self::TooLong
            | Self::NotText
            | Self::NoCommand
            | Self::AuthEncoding => EnhancedCode(5, 5, 2),
            Self::AuthLineTooLong => EnhancedCode(5, 5, 6),
            Self::Syntax(_) | Self::Parameter(_) | Self::UnknownParameter | Self::ChunkSize => {
                EnhancedCode(5, 5, 4)
            }
            Self::ReturnPath => EnhancedCode(5, 1, 7),
            Self::Recipient => EnhancedCode(5, 1, 3),
            Self::NeedsSmtpUtf8 => EnhancedCode(5, 6, 7),
        }
    }

    /// The reply's text, fit for the public.
    pub fn text(self) -> &'static str {
        match self {
            Self::LineEnding => "Lines must end with CRLF",
            Self::TooLong => "Line too long",
            Self::AuthLineTooLong => "Authentication line too long",
            Self::NotText => "Command is not valid text",
            Self::NoCommand => "Command not recognized",
            Self::Syntax(form) => form,
            Self::ReturnPath => "Bad sender address syntax",
            Self::Recipient => "Bad recipient address syntax",
            Self::NeedsSmtpUtf8 => "Sender address needs SMTPUTF8",
            Self::UnknownParameter => "Unsupported parameter",
            Self::Parameter(name) => parameter_text(name),
            Self::AuthEncoding => "Not valid base64",
            Self::ChunkSize => "Syntax: BDAT size [LAST]",
        }
    }

    /// The stream can't be followed any more: answer, then close.
    pub fn is_fatal(self) -> bool {
        matches!(self, Self::ChunkSize)
    }

    /// Appends the reply.
    pub fn write(self, out: &mut Vec<u8>) {
        crate::write::reply(out, self.code(), Some(self.enhanced()), self.text());
    }
}

fn parameter_text(name: &str) -> &'static str {
    match name {
        "SIZE" => "Bad SIZE parameter",
        "BODY" => "Bad BODY parameter",
        "SMTPUTF8" => "Bad SMTPUTF8 parameter",
        "RET" => "Bad RET parameter",
        "ENVID" => "Bad ENVID parameter",
        "AUTH" => "Bad AUTH parameter",
        "REQUIRETLS" => "Bad REQUIRETLS parameter",
        "MT-PRIORITY" => "Bad MT-PRIORITY parameter",
        "BY" => "Bad BY parameter",
        "HOLDFOR" => "Bad HOLDFOR parameter",
        "HOLDUNTIL" => "Bad HOLDUNTIL parameter",
        "NOTIFY" => "Bad NOTIFY parameter",
        "ORCPT" => "Bad ORCPT parameter",
        _ => "Bad parameter",
    }
}
