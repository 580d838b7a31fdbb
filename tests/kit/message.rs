//! Test messages that can be known again, and of which it can be told whether they are whole.

use std::hash::{DefaultHasher, Hash, Hasher};

/// A message with the token in its header and a check value in the last line of its body, of at
/// least `size` bytes.
pub fn message(token: &str, from: &str, to: &str, size: usize) -> Vec<u8> {
    let mut text = format!(
        "From: <{from}>\r\nTo: <{to}>\r\nSubject: Test {token}\r\nX-Token: {token}\r\n\
         Date: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <{token}@client.example>\r\n\r\n"
    );
    let body_at = text.len();
    // A dot at the start of a line, so that stuffing is always part of the way.
    text.push_str(".first line\r\n");
    let mut line = 0;
    while text.len() + 30 < size {
        text.push_str(&format!(
            "{token} line {line:06} of a text that nobody reads to its end\r\n"
        ));
        line += 1;
    }
    text.push_str(&format!(
        "check {:016x}\r\n",
        check(&text.as_bytes()[body_at..])
    ));
    text.into_bytes()
}

/// Whether the body of a message made by [`message`] is as it was.
pub fn is_intact(content: &[u8]) -> bool {
    let Some(body_at) = content.windows(4).position(|window| window == b"\r\n\r\n") else {
        return false;
    };
    let body = &content[body_at + 4..];
    let Some(last_at) = body.windows(8).rposition(|window| window == b"\r\ncheck ") else {
        return false;
    };
    let (text, last) = body.split_at(last_at + 2);
    last == format!("check {:016x}\r\n", check(text)).as_bytes()
}

fn check(text: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_body_is_not_intact_and_a_new_header_field_is_no_change() {
        let content = message("T-1", "a@b.example", "c@d.example", 2000);
        assert!(content.len() >= 1900);
        assert!(is_intact(&content));
        let mut longer = b"Received: by relay.example\r\n".to_vec();
        longer.extend_from_slice(&content);
        assert!(is_intact(&longer));
        let changed =
            String::from_utf8(content)
                .expect("ASCII")
                .replacen("line 000003", "line 000004", 1);
        assert!(!is_intact(changed.as_bytes()));
    }
}
