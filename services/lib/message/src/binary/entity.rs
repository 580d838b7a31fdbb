//! What the header section of a message or part says of its body (RFC 2045).

use super::BinaryError;
use crate::fields;
use crate::tokens::{after_comments, token, type_of, value};

/// What the body is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Multipart {
        boundary: Vec<u8>,
        signed: bool,
    },
    /// A message of its own.
    Message,
    /// Lines, whatever they mean.
    Lines,
    /// To be encoded.
    Binary,
}

/// A part.
pub(super) struct Entity {
    pub(super) kind: Kind,
    /// Its header section with the encoding that its body gets.
    pub(super) header: Vec<u8>,
}

impl Entity {
    pub(super) fn read(header: &[u8]) -> Result<Self, BinaryError> {
        let mut content_type = None;
        let mut encoding = None;
        for field in fields(header) {
            let slot = if field.is("Content-Type") {
                &mut content_type
            } else if field.is("Content-Transfer-Encoding") {
                &mut encoding
            } else {
                continue;
            };
            // Whoever reads it later may take the other one.
            if slot.replace(field).is_some() {
                return Err(BinaryError::Malformed);
            }
        }
        let (full_type, parameters) = content_type
            .map(|field| type_of(field.value))
            .unwrap_or_default();
        let is_binary = encoding.is_some_and(|field| token(field.value).0 == b"binary");
        let kind = if full_type.starts_with(b"multipart/") {
            Kind::Multipart {
                boundary: boundary(parameters).ok_or(BinaryError::Malformed)?,
                signed: full_type == b"multipart/signed",
            }
        } else if matches!(&full_type[..], b"message/rfc822" | b"message/global") {
            Kind::Message
        } else if is_binary && !full_type.starts_with(b"message/") {
            Kind::Binary
        } else {
            Kind::Lines
        };
        let new = match kind {
            _ if !is_binary => None,
            Kind::Binary => Some("base64"),
            // No other encoding is allowed for those (RFC 2046 sections 5.1 and 5.2).
            Kind::Multipart { .. } | Kind::Message | Kind::Lines => Some("8bit"),
        };
        Ok(Self {
            kind,
            header: with_encoding(header, new),
        })
    }
}

/// The header section with another encoding in the place of its own.
fn with_encoding(header: &[u8], new: Option<&str>) -> Vec<u8> {
    let Some(new) = new else {
        return header.to_vec();
    };
    let mut out = Vec::with_capacity(header.len() + 8);
    for field in fields(header) {
        if field.is("Content-Transfer-Encoding") {
            out.extend_from_slice(format!("Content-Transfer-Encoding: {new}\r\n").as_bytes());
        } else {
            out.extend_from_slice(field.raw);
        }
    }
    out
}

/// The boundary among the parameters, when there is one that is valid and none beside it.
fn boundary(parameters: &[u8]) -> Option<Vec<u8>> {
    let mut found = None;
    let mut rest = after_comments(parameters);
    while let Some(behind) = rest.strip_prefix(b";") {
        let (name, behind) = token(behind);
        if name.is_empty() {
            // Nothing between two semicolons, or after the last.
            rest = after_comments(behind);
            if !rest.is_empty() && !rest.starts_with(b";") {
                return None;
            }
            continue;
        }
        let behind = after_comments(behind).strip_prefix(b"=")?;
        let (value, behind) = value(after_comments(behind))?;
        if name == b"boundary" && found.replace(value).is_some() {
            return None;
        }
        rest = after_comments(behind);
    }
    found.filter(|boundary| is_boundary(boundary))
}

/// RFC 2046 section 5.1.1, and some more signs that programs use.
pub(crate) fn is_boundary(boundary: &[u8]) -> bool {
    (1..=70).contains(&boundary.len())
        && boundary.last() != Some(&b' ')
        && boundary
            .iter()
            .all(|byte| byte.is_ascii_graphic() || *byte == b' ')
}
