//! Replies of a server (RFC 5321 section 4.2).

use std::fmt;

use crate::EnhancedCode;

/// A complete reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 200 to 599.
    pub code: u16,
    /// The first one that a line began with.
    pub enhanced: Option<EnhancedCode>,
    /// The text of each line, at least one and at most 100, at most 2 KiB each, without the code and
    /// without the enhanced code when it is that of the reply. Control characters became blanks,
    /// octets that are not UTF-8 became U+FFFD.
    pub lines: Vec<Box<str>>,
    /// A line ended with LF alone.
    pub bare_line_feed: bool,
    /// A line was over 2 KiB, and its end is missing.
    pub truncated: bool,
}

/// The server does not speak SMTP: the connection is of no more use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplyError {
    /// A line without a code, a blank or "-", and text.
    #[error("a reply line that is not one")]
    Syntax,
    /// A code outside 200 to 599.
    #[error("a reply code outside 200 to 599")]
    Code,
    /// The lines of one reply have different codes.
    #[error("a reply with several codes")]
    MixedCodes,
    /// Over 100 lines, or over 256 KiB in all.
    #[error("a reply without end")]
    TooLong,
}

impl Reply {
    /// 2yz.
    pub fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// 3yz.
    pub fn is_intermediate(&self) -> bool {
        (300..400).contains(&self.code)
    }

    /// 4yz.
    pub fn is_transient(&self) -> bool {
        (400..500).contains(&self.code)
    }

    /// 5yz.
    pub fn is_permanent(&self) -> bool {
        self.code >= 500
    }

    /// The lines joined by a blank, at most `most` octets.
    pub fn text(&self, most: usize) -> String {
        let mut text = self.lines.join(" ");
        text.truncate(text.floor_char_boundary(most));
        text
    }
}

/// On one line: code, enhanced code, text.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        for line in &self.lines {
            write!(f, " {line}")?;
        }
        Ok(())
    }
}
