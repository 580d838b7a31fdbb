//! The parts of a message as they are, for whoever looks into more than texts.

use std::borrow::Cow;

use super::part::{Body, Encoding, Part};
use super::{Walk, Wanted, decode};
use crate::Page;

/// A part that is no multipart. Of a message without parts, its body.
#[derive(Debug, Clone)]
pub struct Piece<'a> {
    /// The header section of the part, without the empty line that ends it.
    pub header: &'a [u8],
    /// Type and subtype in lower case; empty when it says none, which means text/plain.
    pub full_type: Vec<u8>,
    /// As it came: encoded.
    pub body: &'a [u8],
    /// It says that it is an attachment.
    pub is_attachment: bool,
    encoding: Encoding,
    charset: Option<Vec<u8>>,
    is_html: bool,
}

impl<'a> Piece<'a> {
    pub(super) fn new(header: &'a [u8], part: &Part, body: &'a [u8]) -> Self {
        let (charset, is_html) = match &part.body {
            Body::Text { charset, is_html } => (charset.clone(), *is_html == Some(true)),
            _ => (None, false),
        };
        Self {
            header,
            full_type: part.full_type.clone(),
            body,
            is_attachment: part.is_attachment,
            encoding: part.encoding,
            charset,
            is_html,
        }
    }

    /// Whether it is of this type, in lower case.
    pub fn is(&self, full_type: &str) -> bool {
        self.full_type == full_type.as_bytes()
    }

    /// Whether people would read it as text.
    pub fn is_text(&self) -> bool {
        matches!(&self.full_type[..], b"" | b"text/plain" | b"text/html")
    }

    /// The octets without their transfer encoding; of more than `limit` octets that came, the first.
    pub fn octets(&self, limit: usize) -> Cow<'a, [u8]> {
        let is_cut = self.body.len() > limit;
        let body = &self.body[..self.body.len().min(limit)];
        decode::transfer_encoding(body, self.encoding, is_cut).0
    }

    /// The text, of HTML without markup; of more than `limit` octets that came, the first.
    pub fn text(&self, limit: usize) -> Cow<'a, str> {
        let is_cut = self.body.len() > limit;
        let text = decode::text(self.octets(limit), self.charset.as_deref(), is_cut).0;
        if self.is_html {
            return Page::read(&text).text.into();
        }
        text
    }
}

/// Reads the structure of a message: `take` gets its parts in their order, not decoded yet. Only CRLF ends a line. Linear; at most
/// 1,000 parts in 32 multiparts within each other are found.
pub fn read_pieces<'a>(header: &'a [u8], body: &'a [u8], take: &mut dyn FnMut(Piece<'a>)) {
    let wanted = Wanted {
        texts: false,
        broken: false,
    };
    let mut walk = Walk {
        body,
        is_complete: true,
        wanted,
        take: &mut |_| {},
        pieces: Some(take),
        levels: Vec::new(),
        broken: None,
    };
    walk.run(header);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(message: &str) -> Vec<(String, String)> {
        let message = message.replace('\n', "\r\n");
        let (header, body) = message.split_once("\r\n\r\n").unwrap();
        let mut found = Vec::new();
        read_pieces(header.as_bytes(), body.as_bytes(), &mut |piece| {
            found.push((
                String::from_utf8(piece.full_type.clone()).unwrap(),
                piece.text(1000).trim_end().to_owned(),
            ));
        });
        found
    }

    #[test]
    fn gives_the_parts_in_order_and_nothing_between_them() {
        let found = pieces(
            "Content-Type: multipart/report; boundary=b\n\npreamble\n--b\n\nfirst\n--b\n\
             Content-Type: Message/Delivery-Status\nContent-Transfer-Encoding: base64\n\nQWN0aW9uOiBmYWlsZWQ=\n--b\n\
             Content-Type: message/rfc822\n\nSubject: s\n\nx\n--b--\nepilogue\n",
        );
        let expected = [
            ("", "first"),
            ("message/delivery-status", "Action: failed"),
            ("message/rfc822", "Subject: s\r\n\r\nx"),
        ];
        let found: Vec<(&str, &str)> = found.iter().map(|(a, b)| (&a[..], &b[..])).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn gives_the_body_of_a_message_without_parts() {
        let found = pieces("Content-Type: text/html\n\n<b>a</b>&amp;b");
        assert_eq!(found, [("text/html".to_owned(), "a&b".to_owned())]);
    }

    #[test]
    fn decodes_no_more_than_is_asked_for() {
        let mut texts = Vec::new();
        read_pieces(b"Subject: s\r\n", b"abcdef", &mut |piece| {
            texts.push(piece.text(3).into_owned());
        });
        assert_eq!(texts, ["abc"]);
    }
}
