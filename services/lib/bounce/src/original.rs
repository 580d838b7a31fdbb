//! The header section of a message that was sent back.

use crate::address::{addresses_in, first_address};
use crate::inbound::Original;
use crate::line::fields_in;

/// As much as is read, octets.
pub(crate) const HEADER_LIMIT: usize = 64 * 1024;
/// Addresses of readers.
const MOST_READERS: usize = 20;

/// Reads the fields up to the first empty line.
pub(crate) fn read_original(octets: &[u8]) -> Original {
    let mut original = Original::default();
    let octets = &octets[..octets.len().min(HEADER_LIMIT)];
    let start = octets.iter().position(|byte| !byte.is_ascii_whitespace());
    let octets = &octets[start.unwrap_or(octets.len())..];
    for (name, value) in fields_in(octets).into_iter().map_while(|field| field) {
        let address = || first_address(&value).unwrap_or_default().to_owned();
        match &name[..] {
            "message-id" if original.message_id.is_empty() => {
                let id = value.trim_matches(['<', '>', ' ']);
                original.message_id = id.split_whitespace().next().unwrap_or_default().to_owned();
            }
            "return-path" if original.return_path.is_empty() => original.return_path = address(),
            "from" if original.from.is_empty() => original.from = address(),
            "to"
            | "delivered-to"
            | "x-original-to"
            | "x-hmxmroriginalrecipient"
            | "envelope-to" => {
                for found in addresses_in(&value) {
                    let is_new = !original.to.iter().any(|known| known == found.address);
                    if is_new && original.to.len() < MOST_READERS {
                        original.to.push(found.address.to_owned());
                    }
                }
            }
            "feedback-id" => original.feedback_id = value,
            "cfbl-feedback-id" => original.cfbl_feedback_id = value,
            "cfbl-address" => original.cfbl_address = address(),
            _ => {}
        }
    }
    original
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_tells_one_message_from_another() {
        let original = read_original(
            b"\nReturn-Path: <r@x.example>\nMessage-ID: <1@x.example>\nTo: A <a@b.example>,\n c@d.example\nFrom: f@x.example\n\
              CFBL-Address: c@x.example; report=arf\nCFBL-Feedback-ID: 77\nFeedback-ID: 1:2:3:x\n\nMessage-ID: <2@x.example>\n",
        );
        assert_eq!(original.return_path, "r@x.example");
        assert_eq!(original.message_id, "1@x.example");
        assert_eq!(original.to, ["a@b.example", "c@d.example"]);
        assert_eq!(
            (&original.cfbl_address[..], &original.cfbl_feedback_id[..]),
            ("c@x.example", "77")
        );
        assert!(read_original(b"").is_empty());
    }
}
