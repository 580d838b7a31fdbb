//! What was said, made readable, without what must not be seen.
//!
//! Of what we say only commands are shown that carry no secret, by a list: a line that is none of them may be a credential
//! (what follows AUTH has no form of its own) or text of a message, and is told by its length. While a host is being logged in
//! at, its replies are shown by their codes alone, since some hosts repeat what they were told.

use proto::transcript::{Passage, Speaker as Shown};

use super::{Piece, Speaker};

/// Commands that are shown as they are.
const SHOWN: [&str; 10] = [
    "EHLO", "HELO", "STARTTLS", "MAIL", "RCPT", "DATA", "RSET", "NOOP", "QUIT", "VRFY",
];
/// Mechanisms of AUTH whose names are shown.
const MECHANISMS: [&str; 6] = [
    "PLAIN",
    "LOGIN",
    "XOAUTH2",
    "OAUTHBEARER",
    "CRAM-MD5",
    "SCRAM-SHA-256",
];

/// The pieces, whose octets follow one another.
pub(super) fn readable(pieces: &[Piece], octets: &[u8]) -> Vec<Passage> {
    let mut reading = Reading::default();
    let mut rest = octets;
    let mut passages = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let (octets, others) = rest.split_at(piece.length.min(rest.len()));
        rest = others;
        let mut lines = match piece.speaker {
            Speaker::Nobody => vec![printable(octets)],
            Speaker::Client => reading.client(octets),
            Speaker::Host => reading.host(octets),
        };
        if piece.cut > 0 {
            lines.push(format!("({} octets left out)", piece.cut));
        }
        passages.push(Passage {
            at_ms: piece.at_ms,
            speaker: match piece.speaker {
                Speaker::Nobody => Shown::Unspecified,
                Speaker::Client => Shown::Client,
                Speaker::Host => Shown::Host,
            }
            .into(),
            text: lines.join("\n"),
        });
    }
    passages
}

#[derive(Default)]
struct Reading {
    /// AUTH was said, and is not answered yet.
    logs_in: bool,
}

impl Reading {
    fn client(&mut self, octets: &[u8]) -> Vec<String> {
        let mut shown = Vec::new();
        let mut rest = octets;
        while !rest.is_empty() {
            let (line, others) = first_line(rest);
            rest = others;
            let words = printable(line);
            let verb = words.split(' ').next().unwrap_or_default();
            let verb = verb.to_ascii_uppercase();
            if verb == "AUTH" {
                self.logs_in = true;
                shown.push(login(&words));
            } else if self.logs_in {
                shown.push("(not shown: credentials)".to_owned());
            } else if verb == "BDAT" {
                // What follows is text of the message.
                let length = words.split(' ').nth(1).and_then(|word| word.parse().ok());
                rest = rest.get(length.unwrap_or(usize::MAX)..).unwrap_or_default();
                shown.push(words);
            } else if SHOWN.contains(&&*verb) {
                shown.push(words);
            } else {
                shown.push(format!("({} octets not shown)", line.len()));
            }
        }
        shown
    }

    fn host(&mut self, octets: &[u8]) -> Vec<String> {
        let mut shown = Vec::new();
        let mut rest = octets;
        while !rest.is_empty() {
            let (line, others) = first_line(rest);
            rest = others;
            let words = printable(line);
            if !self.logs_in {
                shown.push(words);
                continue;
            }
            let is_last = line.get(3).is_none_or(|octet| *octet != b'-');
            let code = words.get(..3).unwrap_or_default();
            shown.push(format!("{code} (text not shown)"));
            // 334 asks for more.
            self.logs_in = code.starts_with('3') || !is_last;
        }
        shown
    }
}

/// AUTH with its mechanism, if it is one.
fn login(words: &str) -> String {
    let mut words = words.split(' ').skip(1);
    let mechanism = words.next().unwrap_or_default().to_ascii_uppercase();
    let mechanism = MECHANISMS.iter().find(|known| **known == mechanism);
    match (mechanism, words.next()) {
        (Some(mechanism), None) => format!("AUTH {mechanism}"),
        (Some(mechanism), Some(_)) => format!("AUTH {mechanism} (not shown: credentials)"),
        (None, _) => "AUTH (not shown)".to_owned(),
    }
}

/// Without its end, and what follows it.
fn first_line(octets: &[u8]) -> (&[u8], &[u8]) {
    let end = octets.iter().position(|octet| *octet == b'\n');
    let (line, rest) = match end {
        Some(end) => (&octets[..end], &octets[end + 1..]),
        None => (octets, &[][..]),
    };
    (line.strip_suffix(b"\r").unwrap_or(line), rest)
}

/// Nothing in it may steer a terminal, or look like another line.
fn printable(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `C ` and `S ` say who speaks.
    fn shown(said: &[&str]) -> Vec<String> {
        let mut octets = Vec::new();
        let mut pieces = Vec::new();
        for said in said {
            let (who, said) = said.split_at(2);
            octets.extend_from_slice(said.as_bytes());
            pieces.push(Piece {
                at_ms: 0,
                speaker: match who {
                    "C " => Speaker::Client,
                    "S " => Speaker::Host,
                    other => panic!("{other:?}"),
                },
                length: said.len(),
                cut: 0,
            });
        }
        let passages = readable(&pieces, &octets);
        passages.into_iter().map(|passage| passage.text).collect()
    }

    #[test]
    fn credentials_are_not_shown_however_they_are_sent() {
        let cases: [(&[&str], &[&str]); 6] = [
            (
                &[
                    "C AUTH PLAIN AGJvYgBzM2NyZXQ=\r\n",
                    "S 235 2.7.0 hello bob s3cret\r\n",
                    "C MAIL FROM:<a@b.example>\r\n",
                ],
                &[
                    "AUTH PLAIN (not shown: credentials)",
                    "235 (text not shown)",
                    "MAIL FROM:<a@b.example>",
                ],
            ),
            (
                &[
                    "C auth login\r\n",
                    "S 334 VXNlcm5hbWU6\r\n",
                    "C Ym9i\r\n",
                    "S 334 UGFzc3dvcmQ6\r\n",
                    "C czNjcmV0\r\n",
                    "S 535-5.7.8 s3cret\r\n535 5.7.8 is wrong\r\n",
                    "S 421 bye\r\n",
                ],
                &[
                    "AUTH LOGIN",
                    "334 (text not shown)",
                    "(not shown: credentials)",
                    "334 (text not shown)",
                    "(not shown: credentials)",
                    "535 (text not shown)\n535 (text not shown)",
                    "421 bye",
                ],
            ),
            // A credential may look like a command.
            (
                &[
                    "C AUTH LOGIN\r\n",
                    "S 334 \r\n",
                    "C DATA\r\n",
                    "S 235 ok\r\n",
                    "C DATA\r\n",
                ],
                &[
                    "AUTH LOGIN",
                    "334 (text not shown)",
                    "(not shown: credentials)",
                    "235 (text not shown)",
                    "DATA",
                ],
            ),
            // Where what came before was left out.
            (
                &["C czNjcmV0\r\n", "S 235 ok\r\n"],
                &["(8 octets not shown)", "235 ok"],
            ),
            (&["C AUTH s3cret s3cret\r\n"], &["AUTH (not shown)"]),
            (&["C AUTH\r\n"], &["AUTH (not shown)"]),
        ];
        for (said, expected) in cases {
            assert_eq!(shown(said), expected);
            assert!(!shown(said).concat().contains("s3cret"));
        }
    }

    #[test]
    fn text_of_messages_is_not_shown_even_if_it_looks_like_commands() {
        let chunk = "C BDAT 23\r\nMAIL FROM:<a@b.c>\r\nxy\r\nRSET\r\nBDAT nonsense\r\nQUIT\r\n";
        assert_eq!(shown(&[chunk]), ["BDAT 23\nRSET\nBDAT nonsense"]);
        assert_eq!(
            shown(&["C Subject: x\r\n\r\nhello"]),
            ["(10 octets not shown)\n(0 octets not shown)\n(5 octets not shown)"]
        );
    }

    #[test]
    fn nothing_steers_the_terminal() {
        let said = shown(&["S 250-\u{1b}[2J\u{9b}x\r\n250 \u{7}ok\n"]);
        assert_eq!(said, ["250- [2J x\n250  ok"]);
        let octets = b"250 \xff\xfe\r\n";
        let piece = Piece {
            at_ms: 7,
            speaker: Speaker::Host,
            length: octets.len(),
            cut: 5,
        };
        let passages = readable(&[piece], octets);
        assert_eq!(
            passages[0].text,
            "250 \u{fffd}\u{fffd}\n(5 octets left out)"
        );
        assert_eq!((passages[0].at_ms, passages[0].speaker()), (7, Shown::Host));
    }
}
