//! From the octets of a part to its text.

use std::borrow::Cow;

use mail_parser::decoders::base64::base64_decode;
use mail_parser::decoders::charsets::map::charset_decoder;
use mail_parser::decoders::quoted_printable::quoted_printable_decode;

use super::BrokenMime;
use super::part::Encoding;

/// Whether the body can be decoded, without doing it where that is cheaper.
pub(super) fn check(body: &[u8], encoding: Encoding, is_cut: bool) -> Result<(), BrokenMime> {
    match encoding {
        Encoding::Base64 if !is_base64(body, is_cut) => Err(BrokenMime::NotBase64),
        Encoding::QuotedPrintable if quoted_printable_decode(body).is_none() => {
            Err(BrokenMime::NotQuotedPrintable)
        }
        _ => Ok(()),
    }
}

/// The octets that were encoded, as readers that forgive would have them, and what is wrong.
pub(super) fn transfer_encoding(
    body: &[u8],
    encoding: Encoding,
    is_cut: bool,
) -> (Cow<'_, [u8]>, Option<BrokenMime>) {
    match encoding {
        Encoding::Identity | Encoding::Unknown => (body.into(), None),
        Encoding::Base64 => {
            let broken = (!is_base64(body, is_cut)).then_some(BrokenMime::NotBase64);
            let octets = base64_decode(body).or_else(|| {
                let known: Vec<u8> = body.iter().copied().filter(is_of_base64).collect();
                base64_decode(&known)
            });
            (octets.unwrap_or_default().into(), broken)
        }
        Encoding::QuotedPrintable => match quoted_printable_decode(body) {
            Some(octets) => (octets.into(), None),
            None => (body.into(), Some(BrokenMime::NotQuotedPrintable)),
        },
    }
}

/// Whether it is base64 (RFC 2045 section 6.8), each four characters complete unless the rest is cut off.
fn is_base64(body: &[u8], is_cut: bool) -> bool {
    let (mut characters, mut padding) = (0_usize, 0_usize);
    for byte in body {
        match byte {
            b'=' => padding += 1,
            byte if is_of_base64(byte) => {
                if padding > 0 {
                    return false;
                }
                characters += 1;
            }
            b'\r' | b'\n' | b' ' | b'\t' => {}
            _ => return false,
        }
    }
    padding <= 2 && (is_cut && padding == 0 || (characters + padding).is_multiple_of(4))
}

fn is_of_base64(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

/// The text of the octets, and what is wrong. Text that says no character set, or US-ASCII and is more, is taken as UTF-8, else as
/// windows-1252.
pub(super) fn text<'a>(
    octets: Cow<'a, [u8]>,
    charset: Option<&[u8]>,
    is_cut: bool,
) -> (Cow<'a, str>, Option<BrokenMime>) {
    let name = charset.unwrap_or(b"us-ascii").trim_ascii();
    let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
    if is("utf-8") || is("utf8") {
        let error = std::str::from_utf8(&octets).err();
        // A character may be cut in two.
        let is_wrong = error.is_some_and(|error| !is_cut || error.error_len().is_some());
        return (lossy(octets), is_wrong.then_some(BrokenMime::NotUtf8));
    }
    if is("us-ascii") || is("ascii") || is("ansi_x3.4-1968") {
        if std::str::from_utf8(&octets).is_ok() {
            return (lossy(octets), None);
        }
        let decoder = charset_decoder(b"windows-1252");
        let text = decoder.map(|decode| decode(&octets).into());
        return (text.unwrap_or_else(|| lossy(octets)), None);
    }
    match charset_decoder(name) {
        Some(decode) => (decode(&octets).into(), None),
        None => (lossy(octets), Some(BrokenMime::UnknownCharset)),
    }
}

fn lossy(octets: Cow<'_, [u8]>) -> Cow<'_, str> {
    match octets {
        Cow::Borrowed(octets) => String::from_utf8_lossy(octets),
        Cow::Owned(octets) => String::from_utf8(octets)
            .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
            .into(),
    }
}
