//! The body of a POST: RFC 8058 section 3.2 has it as `multipart/form-data` or `application/x-www-form-urlencoded`.

/// What stands for the wish.
const NAME: &[u8] = b"List-Unsubscribe";
const VALUE: &[u8] = b"One-Click";
/// Field by which the button of our page is known.
pub(super) const BY: &str = "by";
pub(super) const BY_PAGE: &str = "page";
/// Of a boundary (RFC 2046 section 5.1.1).
const LONGEST_BOUNDARY: usize = 70;
/// Fields that are looked at.
const MOST_FIELDS: usize = 16;

/// Who pressed what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// A mail host or program (RFC 8058).
    OneClick,
    /// A person, on our page.
    Page,
}

impl By {
    /// As events have it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::OneClick => "one_click",
            Self::Page => "page",
        }
    }
}

/// Reads a body; `None`: it is no unsubscribe. A body of another type or none is read as `name=value`, since some programs say
/// nothing of it.
pub(super) fn read(content_type: Option<&str>, body: &[u8]) -> Option<By> {
    let mut wanted = false;
    let mut by = By::OneClick;
    let mut take = |name: &[u8], value: &[u8]| {
        if name.eq_ignore_ascii_case(NAME) {
            wanted |= value.eq_ignore_ascii_case(VALUE);
        } else if name == BY.as_bytes() && value == BY_PAGE.as_bytes() {
            by = By::Page;
        }
    };
    match content_type.and_then(boundary) {
        Some(boundary) => {
            for (name, value) in parts(body, boundary) {
                take(name, value);
            }
        }
        None => {
            for field in body
                .trim_ascii()
                .split(|byte| *byte == b'&')
                .take(MOST_FIELDS)
            {
                let mut sides = field.splitn(2, |byte| *byte == b'=');
                let (name, value) = (sides.next()?, sides.next().unwrap_or_default());
                take(&decoded(name), &decoded(value));
            }
        }
    }
    wanted.then_some(by)
}

/// The boundary of `multipart/form-data`; `None` for another type, or without one.
fn boundary(content_type: &str) -> Option<&str> {
    let mut parts = content_type.split(';').map(str::trim);
    if !parts.next()?.eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let boundary = parts.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("boundary")
            .then(|| value.trim().trim_matches('"'))
    })?;
    (1..=LONGEST_BOUNDARY)
        .contains(&boundary.len())
        .then_some(boundary)
}

/// Names and values of the parts (RFC 7578). Linear: the body is cut at its lines once.
fn parts<'a>(body: &'a [u8], boundary: &str) -> Vec<(&'a [u8], &'a [u8])> {
    let mut found = Vec::new();
    // Of the part that is open: its name, and its lines once its header has ended.
    let mut name: Option<&[u8]> = None;
    let mut value: Option<&[u8]> = None;
    let mut in_header = false;
    for line in body.split(|byte| *byte == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let delimiter = line
            .strip_prefix(b"--")
            .and_then(|rest| rest.strip_prefix(boundary.as_bytes()));
        match delimiter.map(<[u8]>::trim_ascii_end) {
            Some(rest) if rest.is_empty() || rest == b"--" => {
                if let (Some(name), Some(value)) = (name.take(), value.take()) {
                    found.push((name, value));
                }
                if rest == b"--" || found.len() >= MOST_FIELDS {
                    return found;
                }
                in_header = true;
            }
            _ if in_header && line.is_empty() => in_header = false,
            _ if in_header => name = name.or_else(|| name_in(line)),
            // The value that is looked for has one line.
            _ if value.is_none() => value = Some(line),
            _ => value = Some(b""),
        }
    }
    found
}

/// The name in `Content-Disposition: form-data; name="…"`.
fn name_in(line: &[u8]) -> Option<&[u8]> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    let (field, value) = line.split_at(colon);
    if !field.eq_ignore_ascii_case(b"Content-Disposition") {
        return None;
    }
    value
        .split(|byte| *byte == b';')
        .map(<[u8]>::trim_ascii)
        .find_map(|parameter| {
            let rest = parameter.get(5..)?;
            parameter[..5]
                .eq_ignore_ascii_case(b"name=")
                .then(|| rest.strip_prefix(b"\"").unwrap_or(rest))
                .map(|rest| rest.strip_suffix(b"\"").unwrap_or(rest))
        })
}

/// Percent-encoding undone; what is no encoding stays as it is.
fn decoded(text: &[u8]) -> Vec<u8> {
    let mut octets = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        let octet = match (byte, after) {
            (b'+', _) => b' ',
            (b'%', [high, low, more @ ..]) => match (digit(*high), digit(*low)) {
                (Some(high), Some(low)) => {
                    rest = more;
                    high << 4 | low
                }
                _ => *byte,
            },
            _ => *byte,
        };
        octets.push(octet);
    }
    octets
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte)
        .to_digit(16)
        .and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const URLENCODED: &str = "application/x-www-form-urlencoded";

    #[test]
    fn takes_the_wish_in_every_form_that_is_sent() {
        let multipart = "--xyz\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n--xyz--\r\n";
        let typed = "--xyz\nContent-Type: text/plain\ncontent-disposition: form-data;name=List-Unsubscribe\n\nOne-Click\n--xyz--";
        for (content_type, body, by) in [
            (Some(URLENCODED), "List-Unsubscribe=One-Click", By::OneClick),
            (
                Some("application/x-www-form-urlencoded; charset=UTF-8"),
                "List-Unsubscribe=One-Click\r\n",
                By::OneClick,
            ),
            (None, "List-Unsubscribe=One-Click", By::OneClick),
            (
                Some("text/plain"),
                "list%2Dunsubscribe=one%2dclick",
                By::OneClick,
            ),
            (
                Some(URLENCODED),
                "a=b&List-Unsubscribe=One-Click",
                By::OneClick,
            ),
            (
                Some(URLENCODED),
                "List-Unsubscribe=One-Click&by=page",
                By::Page,
            ),
            (
                Some("multipart/form-data; boundary=xyz"),
                multipart,
                By::OneClick,
            ),
            (
                Some("Multipart/Form-Data; charset=x; Boundary=\"xyz\""),
                typed,
                By::OneClick,
            ),
        ] {
            assert_eq!(read(content_type, body.as_bytes()), Some(by), "{body}");
        }
    }

    #[test]
    fn takes_nothing_else_for_it() {
        let other = "--xyz\r\nContent-Disposition: form-data; name=\"x\"\r\n\r\nList-Unsubscribe=One-Click\r\n--xyz--\r\n";
        let two_lines = "--xyz\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\nnot\r\n--xyz--\r\n";
        let open = "--xyz\r\nContent-Disposition: form-data; name=\"List-Unsubscribe\"\r\n\r\nOne-Click\r\n";
        for (content_type, body) in [
            (Some(URLENCODED), ""),
            (Some(URLENCODED), "List-Unsubscribe"),
            (Some(URLENCODED), "List-Unsubscribe=No"),
            (Some(URLENCODED), "List-Unsubscribe=One-Click%"),
            (Some(URLENCODED), "%=%4&%zz=1"),
            (None, other),
            (Some("multipart/form-data; boundary=xyz"), other),
            (Some("multipart/form-data; boundary=xyz"), two_lines),
            (Some("multipart/form-data; boundary=xyz"), open),
            (Some("multipart/form-data; boundary=abc"), two_lines),
        ] {
            assert_eq!(read(content_type, body.as_bytes()), None, "{body}");
        }
    }

    #[test]
    fn looks_at_a_bounded_number_of_fields() {
        let body = format!("{}List-Unsubscribe=One-Click", "a=b&".repeat(MOST_FIELDS));
        assert_eq!(read(Some(URLENCODED), body.as_bytes()), None);
    }
}
