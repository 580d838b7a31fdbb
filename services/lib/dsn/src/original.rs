//! The part that shows what was sent.

use crate::text::quoted_printable;
use crate::{Original, Return};

/// The largest original that comes back whole, bytes; of larger ones only the header does.
pub const FULL_RETURN_LIMIT: usize = 64 * 1024;
/// The largest header that comes back, bytes; it is cut at the end of a line.
const HEADER_LIMIT: usize = 64 * 1024;

/// The part's header fields and its body.
pub(crate) struct Part {
    pub(crate) fields: &'static str,
    pub(crate) body: Vec<u8>,
}

/// The header as text/rfc822-headers (RFC 6522 section 4), or the whole as message/rfc822. A whole message with
/// 8-bit bytes stays as it is, since message/rfc822 may not be encoded (RFC 2046 section 5.2.1).
pub(crate) fn part(original: &Original<'_>, ret: Return) -> Part {
    if ret == Return::Full && original.content.len() <= FULL_RETURN_LIMIT {
        let fields = if original.content.is_ascii() {
            "Content-Description: Undelivered message\r\nContent-Type: message/rfc822\r\n"
        } else {
            "Content-Description: Undelivered message\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\n"
        };
        return Part {
            fields,
            body: original.content.to_vec(),
        };
    }
    let header = header(original);
    if header.is_ascii() {
        let fields = "Content-Description: Undelivered message headers\r\nContent-Type: text/rfc822-headers\r\n";
        return Part {
            fields,
            body: header.to_vec(),
        };
    }
    let fields = "Content-Description: Undelivered message headers\r\nContent-Type: text/rfc822-headers; charset=utf-8\r\n\
                  Content-Transfer-Encoding: quoted-printable\r\n";
    Part {
        fields,
        body: quoted_printable(header),
    }
}

/// The header without the empty line after it.
pub(crate) fn header<'a>(original: &Original<'a>) -> &'a [u8] {
    let header = original
        .content
        .get(..original.header_length)
        .unwrap_or(original.content);
    let header = match header.strip_suffix(b"\r\n") {
        Some(shorter) if shorter.ends_with(b"\r\n") || shorter.is_empty() => shorter,
        _ => header,
    };
    if header.len() <= HEADER_LIMIT {
        return header;
    }
    let cut = &header[..HEADER_LIMIT];
    match cut.windows(2).rposition(|pair| pair == b"\r\n") {
        Some(end) => &cut[..end + 2],
        None => &[],
    }
}

/// The value of the original's Message-ID if it is one, to be referred to.
pub(crate) fn message_id(original: &Original<'_>) -> Option<String> {
    let header = header(original);
    let line = header.split(|byte| *byte == b'\n').find(|line| {
        line.get(..11)
            .is_some_and(|name| name.eq_ignore_ascii_case(b"message-id:"))
    })?;
    let value = std::str::from_utf8(line.get(11..)?).ok()?.trim();
    let valid = value.len() <= 250
        && value.starts_with('<')
        && value.ends_with('>')
        && value.bytes().all(|byte| byte.is_ascii_graphic())
        && value.matches(['<', '>']).count() == 2;
    valid.then(|| value.to_owned())
}
