//! What the header section of a message or part says of its body (RFC 2045, RFC 2183), read as mail programs do.

use super::BrokenMime;
use crate::binary::entity::is_boundary;
use crate::fields;
use crate::tokens::{parameter, token, type_of};

/// What the body is.
#[derive(Debug)]
pub(super) enum Body {
    Multipart {
        boundary: Vec<u8>,
        is_digest: bool,
    },
    Text {
        charset: Option<Vec<u8>>,
        /// `None`: a text for programs.
        is_html: Option<bool>,
    },
    /// It is not looked into.
    Other,
}

/// How the body is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// Not at all.
    Identity,
    Base64,
    QuotedPrintable,
    /// Nobody knows.
    Unknown,
}

/// A part.
pub(super) struct Part {
    pub(super) body: Body,
    pub(super) encoding: Encoding,
    pub(super) is_attachment: bool,
    /// In lower case; empty when it says none.
    pub(super) full_type: Vec<u8>,
    pub(super) broken: Option<BrokenMime>,
}

impl Part {
    /// What is between parts, and is shown to nobody.
    pub(super) fn nothing() -> Self {
        Self {
            body: Body::Other,
            encoding: Encoding::Identity,
            is_attachment: false,
            full_type: Vec::new(),
            broken: None,
        }
    }

    /// `in_digest`: its multipart is a digest, whose parts are messages when they say nothing.
    pub(super) fn read(header: &[u8], in_digest: bool) -> Self {
        let mut part = Self::nothing();
        let mut content_type: Option<&[u8]> = None;
        let mut encoding = None;
        for field in fields(header) {
            let slot = match field.name.len() {
                12 if field.is("Content-Type") => &mut content_type,
                25 if field.is("Content-Transfer-Encoding") => &mut encoding,
                19 if field.is("Content-Disposition") => {
                    part.is_attachment |= token(field.value).0 == b"attachment";
                    continue;
                }
                _ => continue,
            };
            if slot.is_some() {
                part.broken = Some(BrokenMime::Repeated);
            } else {
                *slot = Some(field.value);
            }
        }
        part.encoding = encoding.map_or(Encoding::Identity, Encoding::read);
        let (full_type, parameters) = content_type.map(type_of).unwrap_or_default();
        let is_composite = part.read_type(&full_type, parameters, in_digest);
        part.full_type = full_type;
        match part.encoding {
            Encoding::Unknown => part.note(BrokenMime::UnknownEncoding),
            Encoding::Base64 | Encoding::QuotedPrintable if is_composite => {
                part.note(BrokenMime::EncodedComposite);
                // Its parts are looked for as they are.
                part.encoding = Encoding::Identity;
            }
            _ => {}
        }
        part
    }

    /// Gives whether the type is one whose encoding readers do not expect.
    fn read_type(&mut self, full_type: &[u8], parameters: &[u8], in_digest: bool) -> bool {
        if full_type.starts_with(b"multipart/") {
            match parameter(parameters, b"boundary").filter(|boundary| is_boundary(boundary)) {
                Some(boundary) => {
                    self.body = Body::Multipart {
                        boundary,
                        is_digest: full_type == b"multipart/digest",
                    }
                }
                None => self.note(BrokenMime::NoBoundary),
            }
            return true;
        }
        let is_html = match full_type {
            b"" if in_digest => return false,
            b"" | b"text/plain" => Some(false),
            b"text/html" => Some(true),
            other if other.starts_with(b"text/") => None,
            other => return other == b"message/rfc822" || other == b"message/partial",
        };
        self.body = Body::Text {
            charset: parameter(parameters, b"charset"),
            is_html,
        };
        false
    }

    fn note(&mut self, broken: BrokenMime) {
        self.broken.get_or_insert(broken);
    }
}

impl Encoding {
    fn read(value: &[u8]) -> Self {
        match &token(value).0[..] {
            b"7bit" | b"8bit" | b"binary" => Self::Identity,
            b"base64" => Self::Base64,
            b"quoted-printable" => Self::QuotedPrintable,
            _ => Self::Unknown,
        }
    }
}
