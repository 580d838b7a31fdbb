//! What acceptance has to know of a header section.

use mail::{Address, Domain};
use mail_parser::HeaderValue;
use mail_parser::parsers::MessageStream;

use crate::{Field, fields};

/// More `Received` fields than this and the message is in a loop (RFC 5321 section 6.3 asks for
/// a limit of at least 100).
pub const MAX_RECEIVED: usize = 100;

/// A `From` field longer than this is not read; the limit keeps the work for a hostile one small.
const MAX_FROM_BYTES: usize = 64 * 1024;

/// What acceptance has to know of a header section. Says nothing of subject or text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inspection {
    /// Whom the message says it is from.
    pub author: Result<Author, AuthorError>,
    /// Number of `From` fields.
    pub from_fields: usize,
    /// Number of `Received` fields.
    pub received: usize,
    /// There is a `Date` field.
    pub has_date: bool,
    /// There is a `Message-ID` field.
    pub has_message_id: bool,
    /// There is a `Bcc` or `Resent-Bcc` field, to be removed before the message is passed on.
    pub has_bcc: bool,
    /// Lines that are no header fields.
    pub malformed_lines: usize,
    /// There is a `Subject` field with something in it.
    pub has_subject: bool,
    /// There is a `To` or `Cc` field with something in it.
    pub names_recipients: bool,
    /// There is a `List-Unsubscribe` field (RFC 2369 section 3.2).
    pub has_unsubscribe: bool,
    /// There is a `List-Unsubscribe-Post` field (RFC 8058 section 3.1).
    pub has_one_click: bool,
    /// There are octets beyond ASCII.
    pub has_eight_bit: bool,
}

impl Inspection {
    /// Whether the message went through so many hosts that it must be in a loop.
    pub fn is_loop(&self) -> bool {
        self.received > MAX_RECEIVED
    }
}

/// The domains in the one `From` field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Author {
    /// Domain of the first mailbox.
    pub domain: Domain,
    /// Domains of the other mailboxes that differ from it, each once; mostly empty. RFC 5322
    /// allows several authors: whoever checks identities has to check all of these.
    pub others: Vec<Domain>,
}

/// Why there is no [`Author`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AuthorError {
    /// RFC 5322 section 3.6 asks for exactly one.
    #[error("the message has no From field")]
    Missing,
    /// More than one: readers would disagree which one counts.
    #[error("the message has more than one From field")]
    Repeated,
    /// No mailbox in it, or one without a domain of DNS.
    #[error("the From field has no valid mailbox")]
    Unreadable,
}

/// Looks at a header section. Never fails and never takes more than linear time: what cannot be
/// read is said in the answer.
pub fn inspect(header: &[u8]) -> Inspection {
    let mut from = None;
    let mut inspection = Inspection {
        author: Err(AuthorError::Missing),
        from_fields: 0,
        received: 0,
        has_date: false,
        has_message_id: false,
        has_bcc: false,
        malformed_lines: 0,
        has_subject: false,
        names_recipients: false,
        has_unsubscribe: false,
        has_one_click: false,
        has_eight_bit: !header.is_ascii(),
    };
    for field in fields(header) {
        match field.name.len() {
            0 => inspection.malformed_lines += 1,
            3 | 10 if is_bcc(&field) => inspection.has_bcc = true,
            4 if field.is("From") => {
                inspection.from_fields += 1;
                from = Some(field);
            }
            4 if field.is("Date") => inspection.has_date = true,
            8 if field.is("Received") => inspection.received += 1,
            10 if field.is("Message-ID") => inspection.has_message_id = true,
            2 if field.is("To") || field.is("Cc") => {
                inspection.names_recipients |= !field.value.trim_ascii().is_empty();
            }
            7 if field.is("Subject") => {
                inspection.has_subject |= !field.value.trim_ascii().is_empty();
            }
            16 if field.is("List-Unsubscribe") => inspection.has_unsubscribe = true,
            21 if field.is("List-Unsubscribe-Post") => inspection.has_one_click = true,
            _ => {}
        }
    }
    inspection.author = match (inspection.from_fields, from) {
        (1, Some(field)) => author(&field),
        (0, _) => Err(AuthorError::Missing),
        _ => Err(AuthorError::Repeated),
    };
    inspection
}

/// Whether the field names blind-copy recipients, who must not be shown to the others.
pub(crate) fn is_bcc(field: &Field<'_>) -> bool {
    field.is("Bcc") || field.is("Resent-Bcc")
}

fn author(field: &Field<'_>) -> Result<Author, AuthorError> {
    if field.value.len() > MAX_FROM_BYTES {
        return Err(AuthorError::Unreadable);
    }
    let mut line = field.value.to_vec();
    line.extend_from_slice(b"\r\n");
    let HeaderValue::Address(addresses) = MessageStream::new(&line).parse_address() else {
        return Err(AuthorError::Unreadable);
    };
    let mut author: Option<Author> = None;
    for mailbox in addresses.iter() {
        let domain = mailbox
            .address
            .as_deref()
            .and_then(domain_of)
            .ok_or(AuthorError::Unreadable)?;
        match &mut author {
            None => {
                author = Some(Author {
                    domain,
                    others: Vec::new(),
                })
            }
            Some(author) if author.domain == domain || author.others.contains(&domain) => {}
            // A list of this length is no list of authors; and the search above stays short.
            Some(author) if author.others.len() >= 100 => return Err(AuthorError::Unreadable),
            Some(author) => author.others.push(domain),
        }
    }
    author.ok_or(AuthorError::Unreadable)
}

/// The domain of an address as the parser found it. The parser takes everything; only what every
/// reader must understand alike is taken from it.
fn domain_of(address: &str) -> Option<Domain> {
    match address.strip_prefix('@') {
        // A quoted local part outside of angle brackets: the parser counts it as part of the name.
        Some(domain) => Domain::parse(domain).ok(),
        None => Address::parse(address).ok()?.domain(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn author_of(from: &str) -> Result<(String, Vec<String>), AuthorError> {
        inspect(format!("To: x@y\r\nFrom:{from}\r\nSubject: s\r\n").as_bytes())
            .author
            .map(|author| {
                let others = author.others.iter().map(Domain::to_string).collect();
                (author.domain.to_string(), others)
            })
    }

    #[test]
    fn reads_the_domain_of_every_form_of_from() {
        for from in [
            " a@example.com",
            "a@example.com",
            " A <a@Example.COM>",
            " \"Smith, John <x@evil.example>\" <a@example.com>",
            " =?utf-8?q?x=40evil.example?= <a@example.com>",
            "\r\n\tA\r\n <a@example.com>",
            " a@example.com (x@evil.example)",
            " (x@evil.example) a@example.com",
            " <a@example.com>, B <b@EXAMPLE.com>",
            " Team: a@example.com, b@example.com;",
            " \"a@evil.example\"@example.com",
            " <\"a@evil.example\"@example.com>",
            " a@evil.example <b@example.com>",
        ] {
            assert_eq!(
                author_of(from),
                Ok(("example.com".to_owned(), vec![])),
                "{from}"
            );
        }
    }

    #[test]
    fn converts_u_labels() {
        assert_eq!(
            author_of(" <a@bücher.example>").unwrap().0,
            "xn--bcher-kva.example"
        );
    }

    #[test]
    fn names_the_domains_of_further_authors() {
        assert_eq!(
            author_of(" a@one.example, b@two.example, c@one.example, d@two.example"),
            Ok(("one.example".to_owned(), vec!["two.example".to_owned()]))
        );
    }

    #[test]
    fn says_when_from_is_not_readable() {
        for from in [
            "",
            " ",
            " root",
            " <>",
            " Undisclosed:;",
            " a@[127.0.0.1]",
            " a@b c",
            " a@ok.example, root",
        ] {
            assert_eq!(author_of(from), Err(AuthorError::Unreadable), "{from:?}");
        }
        let long = format!(" {}a@example.com", "(".repeat(MAX_FROM_BYTES));
        assert_eq!(author_of(&long), Err(AuthorError::Unreadable));
    }

    #[test]
    fn refuses_addresses_that_readers_understand_differently() {
        for from in [
            " a@evil.example b@example.com",
            " <a@evil.example> <b@example.com>",
            " <a@evil.example@example.com>",
            " <@evil.example:b@example.com>",
            " b@example.com\0",
            " <b@example .com>",
        ] {
            assert_eq!(author_of(from), Err(AuthorError::Unreadable), "{from:?}");
        }
    }

    #[test]
    fn wants_exactly_one_from() {
        assert_eq!(inspect(b"To: a@b\r\n").author, Err(AuthorError::Missing));
        let twice = inspect(b"From: a@b.example\r\nfrom: a@b.example\r\n");
        assert_eq!(
            (twice.author, twice.from_fields),
            (Err(AuthorError::Repeated), 2)
        );
    }

    #[test]
    fn counts_and_notes_the_other_fields() {
        let seen = inspect(b"RECEIVED: x\r\nReceived: y\r\nDATE: d\r\nMessage-Id: <i>\r\nResent-bcc: a\r\njunk\r\n");
        assert_eq!((seen.received, seen.malformed_lines), (2, 1));
        assert!(seen.has_date && seen.has_message_id && seen.has_bcc);
        let seen = inspect(b"X-Date: d\r\nX-Bcc: a\r\n");
        assert!(!seen.has_date && !seen.has_message_id && !seen.has_bcc);
    }

    #[test]
    fn notes_what_pre_flight_checks_ask_for() {
        let seen = inspect(
            b"Subject: s\r\ncc: a\r\nLIST-UNSUBSCRIBE: <u>\r\nList-Unsubscribe-Post: x\r\n",
        );
        assert!(seen.has_subject && seen.names_recipients && !seen.has_eight_bit);
        assert!(seen.has_unsubscribe && seen.has_one_click);
        let seen =
            inspect(b"Subject:\r\n \r\nTo: \r\nBcc: a\r\nX-List-Unsubscribe: x\r\nX: \xff\r\n");
        assert!(!seen.has_subject && !seen.names_recipients && seen.has_eight_bit);
        assert!(!seen.has_unsubscribe && !seen.has_one_click);
    }

    #[test]
    fn calls_more_than_a_hundred_received_fields_a_loop() {
        assert!(!inspect("Received: x\r\n".repeat(100).as_bytes()).is_loop());
        assert!(inspect("Received: x\r\n".repeat(101).as_bytes()).is_loop());
    }

    proptest! {
        #[test]
        fn never_panics(from in proptest::collection::vec(
            prop_oneof![Just(b'@'), Just(b'<'), Just(b'"'), Just(b'('), Just(b'\\'), Just(b','), Just(b':'), any::<u8>()], 0..80)) {
            inspect(&[b"From: ".as_slice(), &from, b"\r\n"].concat());
        }
    }
}
