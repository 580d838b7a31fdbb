//! Fields by which a client says to what a message belongs. They are ours, and are taken out.

use crate::{Field, fields};

const STREAM: &str = "X-Staffetta-Stream";
const CAMPAIGN: &str = "X-Staffetta-Campaign";
/// Of a value, characters.
const LONGEST: usize = 64;

/// To what a message belongs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Labels<'a> {
    /// Stream of the tenant; `None`: not said.
    pub stream: Option<&'a str>,
    /// Label inside the stream; `None`: not said.
    pub campaign: Option<&'a str>,
}

/// Why the labels are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LabelsError {
    /// The field is there more than once.
    #[error("it has more than one {0} field")]
    Repeated(&'static str),
    /// The value has other characters, none or too many.
    #[error("{0} is not made of 1 to 64 letters, digits, \"-\", \".\" and \"_\"")]
    Malformed(&'static str),
}

/// Reads the fields `X-Staffetta-Stream` and `X-Staffetta-Campaign`. Linear in the header section.
pub fn labels(header: &[u8]) -> Result<Labels<'_>, LabelsError> {
    let mut labels = Labels::default();
    for field in fields(header) {
        let (name, known) = if field.is(STREAM) {
            (STREAM, &mut labels.stream)
        } else if field.is(CAMPAIGN) {
            (CAMPAIGN, &mut labels.campaign)
        } else {
            continue;
        };
        let label = read(field.value).ok_or(LabelsError::Malformed(name))?;
        if known.replace(label).is_some() {
            return Err(LabelsError::Repeated(name));
        }
    }
    Ok(labels)
}

/// Whether the field is one of these.
pub(crate) fn is_label(field: &Field<'_>) -> bool {
    field.is(STREAM) || field.is(CAMPAIGN)
}

fn read(value: &[u8]) -> Option<&str> {
    let label = std::str::from_utf8(value).ok()?.trim();
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    let valid = (1..=LONGEST).contains(&label.len()) && label.bytes().all(is_plain);
    valid.then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_to_what_a_message_belongs() {
        let header = b"From: a@b\r\nx-staffetta-stream: newsletter\r\nX-Staffetta-Campaign:\r\n 2026-11.A_b \r\n";
        let expected = Labels {
            stream: Some("newsletter"),
            campaign: Some("2026-11.A_b"),
        };
        assert_eq!(labels(header), Ok(expected));
        assert_eq!(labels(b"Subject: s\r\n"), Ok(Labels::default()));
    }

    #[test]
    fn refuses_what_is_no_label() {
        use LabelsError::{Malformed, Repeated};
        let long = format!("X-Staffetta-Campaign: {}\r\n", "x".repeat(65));
        for (header, error) in [
            ("X-Staffetta-Stream:\r\n", Malformed(STREAM)),
            ("X-Staffetta-Stream: a b\r\n", Malformed(STREAM)),
            ("X-Staffetta-Campaign: caf\u{e9}\r\n", Malformed(CAMPAIGN)),
            (&*long, Malformed(CAMPAIGN)),
            (
                "X-Staffetta-Stream: a\r\nX-Staffetta-Stream: a\r\n",
                Repeated(STREAM),
            ),
        ] {
            assert_eq!(labels(header.as_bytes()), Err(error), "{header}");
        }
        assert_eq!(
            labels(b"X-Staffetta-Stream: \xff\r\n"),
            Err(Malformed(STREAM))
        );
    }
}
