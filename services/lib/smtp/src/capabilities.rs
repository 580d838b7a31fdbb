//! What a server says it can do, in its reply to EHLO (RFC 5321 section 4.1.1.1).

use crate::Reply;

/// The keywords of a server, all of them, known or not, in its order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EhloCapabilities {
    keywords: Vec<(Box<str>, Box<str>)>,
}

/// Limits that a server announces (RFC 9422); `None` = not said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Limits {
    /// Transactions in one connection.
    pub mail_max: Option<u32>,
    /// Recipients of one transaction.
    pub rcpt_max: Option<u32>,
    /// Different recipient domains in one connection.
    pub rcpt_domain_max: Option<u32>,
}

impl EhloCapabilities {
    /// Reads the lines of a reply to EHLO; the first one is the greeting.
    pub fn from_reply(reply: &Reply) -> Self {
        let keywords = reply
            .lines
            .iter()
            .skip(1)
            .filter_map(|line| {
                let line = line.trim();
                let (keyword, parameters) = line.split_once([' ', '\t']).unwrap_or((line, ""));
                (!keyword.is_empty()).then(|| {
                    (
                        keyword.to_ascii_uppercase().into(),
                        parameters.trim().into(),
                    )
                })
            })
            .collect();
        Self { keywords }
    }

    /// Every keyword in upper case with its parameters as said, in the server's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.keywords
            .iter()
            .map(|(keyword, parameters)| (&**keyword, &**parameters))
    }

    /// Whether the server said this keyword, in whatever case.
    pub fn has(&self, keyword: &str) -> bool {
        self.parameters(keyword).is_some()
    }

    /// What stands behind a keyword, "" when nothing does.
    pub fn parameters(&self, keyword: &str) -> Option<&str> {
        self.iter()
            .find(|(said, _)| said.eq_ignore_ascii_case(keyword))
            .map(|(_, parameters)| parameters)
    }

    /// Largest message, octets (RFC 1870); `None` when there is no SIZE or no fixed limit (0).
    pub fn size(&self) -> Option<u64> {
        first_word(self.parameters("SIZE")?)
            .parse()
            .ok()
            .filter(|size| *size > 0)
    }

    /// SASL mechanisms in upper case, each once, those of the old form `AUTH=` too.
    pub fn auth_mechanisms(&self) -> Vec<String> {
        let mut mechanisms = Vec::new();
        for (keyword, parameters) in self.iter() {
            let first = match keyword.strip_prefix("AUTH") {
                Some("") => "",
                Some(old_form) => match old_form.strip_prefix('=') {
                    Some(mechanism) => mechanism,
                    None => continue,
                },
                None => continue,
            };
            for mechanism in first
                .split_ascii_whitespace()
                .chain(parameters.split_ascii_whitespace())
            {
                let mechanism = mechanism.to_ascii_uppercase();
                if !mechanisms.contains(&mechanism) {
                    mechanisms.push(mechanism);
                }
            }
        }
        mechanisms
    }

    /// `LIMITS` (RFC 9422). A limit of 0 or without a number counts as not said.
    pub fn limits(&self) -> Limits {
        let mut limits = Limits::default();
        for word in self
            .parameters("LIMITS")
            .unwrap_or_default()
            .split_ascii_whitespace()
        {
            let Some((name, value)) = word.split_once('=') else {
                continue;
            };
            let value = value.parse().ok().filter(|value| *value > 0);
            match name.to_ascii_uppercase().as_str() {
                "MAILMAX" => limits.mail_max = value,
                "RCPTMAX" => limits.rcpt_max = value,
                "RCPTDOMAINMAX" => limits.rcpt_domain_max = value,
                _ => {}
            }
        }
        limits
    }

    /// PIPELINING (RFC 2920).
    pub fn pipelining(&self) -> bool {
        self.has("PIPELINING")
    }

    /// 8BITMIME (RFC 6152).
    pub fn eight_bit_mime(&self) -> bool {
        self.has("8BITMIME")
    }

    /// SMTPUTF8 (RFC 6531).
    pub fn smtputf8(&self) -> bool {
        self.has("SMTPUTF8")
    }

    /// DSN (RFC 3461).
    pub fn dsn(&self) -> bool {
        self.has("DSN")
    }

    /// STARTTLS (RFC 3207).
    pub fn starttls(&self) -> bool {
        self.has("STARTTLS")
    }

    /// CHUNKING (RFC 3030).
    pub fn chunking(&self) -> bool {
        self.has("CHUNKING")
    }

    /// ENHANCEDSTATUSCODES (RFC 2034).
    pub fn enhanced_status_codes(&self) -> bool {
        self.has("ENHANCEDSTATUSCODES")
    }

    /// MT-PRIORITY (RFC 6710).
    pub fn mt_priority(&self) -> bool {
        self.has("MT-PRIORITY")
    }

    /// DELIVERBY (RFC 2852).
    pub fn deliver_by(&self) -> bool {
        self.has("DELIVERBY")
    }

    /// REQUIRETLS (RFC 8689).
    pub fn require_tls(&self) -> bool {
        self.has("REQUIRETLS")
    }
}

fn first_word(text: &str) -> &str {
    text.split_ascii_whitespace().next().unwrap_or_default()
}
