//! What the header section of a message or part says of its body (RFC 2045).

use super::BinaryError;
use crate::fields;

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

/// Type and subtype in lower case, and what follows them.
fn type_of(value: &[u8]) -> (Vec<u8>, &[u8]) {
    let (main, rest) = token(value);
    let Some(rest) = rest.trim_ascii_start().strip_prefix(b"/") else {
        return (Vec::new(), rest);
    };
    let (sub, rest) = token(rest);
    ([&main[..], b"/", &sub[..]].concat(), rest)
}

/// The first word in lower case, and what follows it; white space and comments before it are passed over.
fn token(text: &[u8]) -> (Vec<u8>, &[u8]) {
    let text = after_comments(text);
    let ends = |byte: &u8| byte.is_ascii_whitespace() || b"()<>@,;:\\\"/[]?=".contains(byte);
    let end = text.iter().position(ends).unwrap_or(text.len());
    let (word, rest) = text.split_at(end);
    (word.to_ascii_lowercase(), rest)
}

/// Without white space and comments at the front.
fn after_comments(text: &[u8]) -> &[u8] {
    let mut rest = text.trim_ascii_start();
    while rest.first() == Some(&b'(') {
        let (mut depth, mut escaped) = (0_u32, false);
        let end = rest.iter().position(|byte| {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'(' => depth += 1,
                b')' => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        rest = end
            .map_or(&[][..], |end| &rest[end + 1..])
            .trim_ascii_start();
    }
    rest
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

/// A token as it is, or what is in quotes.
fn value(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let Some(quoted) = text.strip_prefix(b"\"") else {
        let ends = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b';' | b'(' | b'"');
        let end = text.iter().position(ends).unwrap_or(text.len());
        return Some((text[..end].to_vec(), &text[end..]));
    };
    let mut content = Vec::new();
    let mut bytes = quoted.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'"' => return Some((content, &quoted[at + 1..])),
            b'\\' => content.push(*bytes.next()?.1),
            _ => content.push(*byte),
        }
    }
    None
}

/// RFC 2046 section 5.1.1, and some more signs that programs use.
fn is_boundary(boundary: &[u8]) -> bool {
    (1..=70).contains(&boundary.len())
        && boundary.last() != Some(&b' ')
        && boundary
            .iter()
            .all(|byte| byte.is_ascii_graphic() || *byte == b' ')
}
