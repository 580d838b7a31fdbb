//! What a scanner says of a message.

use smtp::EnhancedCode;

/// Octets of a text of a scanner that are passed on.
const LONGEST_TEXT: usize = 200;

/// What a scanner says of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Verdict {
    /// What is to become of it.
    pub opinion: Opinion,
    /// Header fields that are to be put before it, each with its CRLF.
    pub fields: Vec<u8>,
    /// It is to be kept until somebody releases it.
    pub hold: bool,
    /// Points, where the scanner gives them.
    pub score: Option<f64>,
}

/// What is to become of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opinion {
    /// Nothing was found.
    Clean,
    /// This was found in it.
    Infected(String),
    /// It looks like spam, but not so much that it would have to be refused.
    Spam,
    /// It is not to be accepted.
    Refuse(Reply),
    /// It is larger than the scanner takes.
    TooLarge,
    /// The scanner could not look at it, for this reason.
    Unable(String),
}

impl From<Opinion> for Verdict {
    fn from(opinion: Opinion) -> Self {
        Self {
            opinion,
            fields: Vec::new(),
            hold: false,
            score: None,
        }
    }
}

/// The reply that a scanner wants a client to get.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// 400 to 599, and not 421: that would end the connection.
    pub code: u16,
    /// Of the same class.
    pub enhanced: EnhancedCode,
    /// Printable ASCII.
    pub text: String,
}

impl Reply {
    /// For good, and for a reason of policy (554 5.7.1).
    pub fn refused(text: &str) -> Self {
        Self {
            code: 554,
            enhanced: EnhancedCode(5, 7, 1),
            text: public_text(text.as_bytes()),
        }
    }

    /// For now (451 4.7.1).
    pub fn later(text: &str) -> Self {
        Self {
            code: 451,
            enhanced: EnhancedCode(4, 7, 1),
            text: public_text(text.as_bytes()),
        }
    }

    /// Reads a reply of one line or several, as SMTP has it (`550 5.7.1 text`, or `550-…` and `550 …`). `None` when it is none
    /// that refuses. Without an enhanced code of its class it gets 4.7.1 or 5.7.1.
    pub fn parse(octets: &[u8]) -> Option<Self> {
        let code = octets.get(..3)?;
        if !code.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let code: u16 = std::str::from_utf8(code).ok()?.parse().ok()?;
        let class = match code {
            400..=499 => 4,
            500..=599 => 5,
            _ => return None,
        };
        let mut enhanced = EnhancedCode(class, 7, 1);
        let mut words = String::new();
        for line in octets.split(|octet| *octet == b'\n') {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            // The code of each line, and what separates it from the text.
            let text = line.get(4..).unwrap_or_default();
            let text = public_text(text);
            let text = match EnhancedCode::split_from(&text) {
                Some((found, rest)) if found.0 == class => {
                    enhanced = found;
                    rest.to_owned()
                }
                _ => text,
            };
            if !words.is_empty() && !text.is_empty() {
                words.push(' ');
            }
            words.push_str(&text);
            if words.len() > LONGEST_TEXT {
                break;
            }
        }
        if words.is_empty() {
            words.push_str("Message refused");
        }
        Some(Self {
            code: if code == 421 { 451 } else { code },
            enhanced,
            text: public_text(words.as_bytes()),
        })
    }
}

/// What may be shown of a scanner's words: at most 200 octets of printable ASCII, `?` for everything else.
pub fn public_text(octets: &[u8]) -> String {
    octets
        .trim_ascii()
        .iter()
        .take(LONGEST_TEXT)
        .map(|octet| match octet {
            b' ' | b'!'..=b'~' => char::from(*octet),
            _ => '?',
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replies_that_refuse_are_read_and_others_are_none() {
        let reply = |code, enhanced, text: &str| {
            Some(Reply {
                code,
                enhanced,
                text: text.to_owned(),
            })
        };
        let policy = EnhancedCode(5, 7, 1);
        for (octets, expected) in [
            (
                &b"550 5.7.26 no"[..],
                reply(550, EnhancedCode(5, 7, 26), "no"),
            ),
            (b"550 no", reply(550, policy, "no")),
            (b"550", reply(550, policy, "Message refused")),
            (b"550 4.7.1 no", reply(550, policy, "4.7.1 no")),
            (
                b"550-5.7.2 one\r\n550 5.7.2 two",
                reply(550, EnhancedCode(5, 7, 2), "one two"),
            ),
            (b"550 a\r\n250 Ok", reply(550, policy, "a Ok")),
            (b"550 \xffa\tb\0", reply(550, policy, "?a?b?")),
            (b"421 4.3.2 gone", reply(451, EnhancedCode(4, 3, 2), "gone")),
            (b"250 2.0.0 Ok", None),
            (b"600 no", None),
            (b"55", None),
            (b"5x0 no", None),
            (b"", None),
        ] {
            assert_eq!(Reply::parse(octets), expected, "{octets:?}");
        }
        let long = Reply::parse(&[b"550 ".as_slice(), &[b'x'; 100_000]].concat()).unwrap();
        assert_eq!(long.text.len(), LONGEST_TEXT);
    }
}
