//! What comes back: reports, complaints, requests to unsubscribe, and what people write.
//!
//! | module | what is in it |
//! |---|---|
//! | [`Returns`] | takes messages from the stream `INBOUND`, in order, and removes what is handled |
//! | `judge` | what follows from a message: pure |
//! | `attribution` | whose mail it is about, by tokens alone |
//! | `past` | what the journals know of a delivery |
//! | `plan` | what follows, stored step by step |
//! | `late` | the DSN to the sender of a message whose recipient's host gave up later |
//! | `forward` | what people write, as a message of the spool |
//!
//! A message is removed when everything that follows from it is stored. The ids of all that follow from the message's, so
//! that it is stored once although it is handled again: after a kill, or by several processes at the same time.

mod attribution;
mod forward;
mod judge;
mod late;
mod past;
mod plan;
mod returns;

pub(crate) use returns::Returns;

use aws_lc_rs::digest::{SHA256, digest};

/// An id that follows from that of a message that came in: its time, so that ids stay sorted by time, and for the rest a hash.
fn derived(id: &[u8; 16], purpose: &str, more: &str) -> [u8; 16] {
    let mut input = b"staffetta inbound ".to_vec();
    for part in [purpose.as_bytes(), more.as_bytes()] {
        input.extend_from_slice(part);
        input.push(0);
    }
    input.extend_from_slice(id);
    let hash = digest(&SHA256, &input);
    let mut made = *id;
    made[6..].copy_from_slice(&hash.as_ref()[..10]);
    made[6] = 0x70 | (made[6] & 0x0f);
    made[8] = 0x80 | (made[8] & 0x3f);
    made
}

#[cfg(test)]
mod tests {
    use super::derived;

    #[test]
    fn ids_follow_from_the_message_and_what_they_are_for() {
        let id = [0xab; 16];
        let made = derived(&id, "forward", "a@b.example");
        assert_eq!(made, derived(&id, "forward", "a@b.example"));
        assert_eq!((&made[..6], made[6] >> 4, made[8] >> 6), (&id[..6], 7, 2));
        for other in [
            derived(&id, "forward", "a@c.example"),
            derived(&id, "block", "a@b.example"),
            derived(&[0xac; 16], "forward", "a@b.example"),
        ] {
            assert_ne!(other, made);
        }
    }
}
