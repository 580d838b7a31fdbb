//! What scanners say: read alike in whatever pieces, and nothing of it can begin a line of a reply or of a message.

#![no_main]

use libfuzzer_sys::fuzz_target;
use scan::http::{Response, ResponseDecoder};
use scan::milter::{Agreed, Dialogue, Heard, Next, Packet, PacketDecoder};
use scan::{Envelope, Opinion, Verdict, clamav, http, milter, rspamd};

fuzz_target!(|input: &[u8]| {
    let (whole, pieces) = fuzz::pieces(input);

    let verdict = clamd(&pieces);
    assert_eq!(verdict, clamd(&[whole]));
    if let Ok(Some(verdict)) = &verdict {
        check(verdict);
    }

    let response = respond(&pieces);
    assert_eq!(response, respond(&[whole]));
    if let Ok(response) = response {
        assert!((200..=999).contains(&response.status) && response.content.len() <= 1 << 20);
    }
    // Most inputs would never come so far.
    for content in [whole, &b""[..]] {
        if let Ok(verdict) = rspamd::read_reply(content) {
            check(&verdict);
        }
    }

    let packets = packets(&pieces);
    assert_eq!(packets, self::packets(&[whole]));
    if let Some(first) = packets.0.first() {
        drop(Agreed::read(&first.data));
    }
    let envelope = Envelope::default();
    // Everything may be added, and nothing is told but the end.
    let agreed = [6, 0x121, 0x27F].map(u32::to_be_bytes).concat();
    let agreed = Agreed::read(&agreed).expect("it is what is offered");
    let mut dialogue = Dialogue::new(agreed, &envelope);
    assert_eq!(dialogue.next(&mut Vec::new()), Next::Ask);
    for packet in &packets.0 {
        match dialogue.heard(packet) {
            Ok(Heard::More) => {}
            Ok(Heard::GoOn) => panic!("there is nothing more"),
            Ok(Heard::Decided(verdict)) => return check(&verdict),
            Err(_) => return,
        }
    }
});

fn clamd(pieces: &[&[u8]]) -> Result<Option<Verdict>, clamav::Error> {
    let mut decoder = clamav::ReplyDecoder::new(1);
    for piece in pieces {
        if let Some(verdict) = decoder.decode(piece)? {
            return Ok(Some(verdict));
        }
    }
    Ok(None)
}

fn respond(pieces: &[&[u8]]) -> Result<Response, http::Error> {
    let mut decoder = ResponseDecoder::new();
    for piece in pieces {
        if let Some(response) = decoder.decode(piece)? {
            return Ok(response);
        }
    }
    decoder.end()
}

fn packets(pieces: &[&[u8]]) -> (Vec<Packet>, Option<milter::Error>) {
    let mut decoder = PacketDecoder::new();
    let mut packets = Vec::new();
    for piece in pieces {
        decoder.push(piece);
        loop {
            match decoder.next() {
                Ok(Some(packet)) => packets.push(packet),
                Ok(None) => break,
                Err(error) => return (packets, Some(error)),
            }
        }
    }
    (packets, None)
}

/// It can be shown and sent.
fn check(verdict: &Verdict) {
    let printable =
        |text: &str| text.len() <= 200 && text.bytes().all(|octet| (b' '..=b'~').contains(&octet));
    match &verdict.opinion {
        Opinion::Infected(text) | Opinion::Unable(text) => assert!(printable(text)),
        Opinion::Refuse(reply) => {
            assert!((400..600).contains(&reply.code) && reply.code != 421);
            assert_eq!(u16::from(reply.enhanced.0), reply.code / 100);
            assert!(printable(&reply.text));
        }
        Opinion::Clean | Opinion::Spam | Opinion::TooLarge => {}
    }
    let fields = &verdict.fields;
    assert!(fields.len() <= 16 * 1024);
    assert!(fields.is_empty() || fields.ends_with(b"\r\n"));
    for line in fields
        .split(|octet| *octet == b'\n')
        .filter(|line| !line.is_empty())
    {
        let line = line.strip_suffix(b"\r").expect("a line ends with CRLF");
        assert!(line.len() <= 998 && !line.trim_ascii().is_empty());
        assert!(
            line.iter()
                .all(|octet| matches!(octet, b'\t' | b' '..=b'~'))
        );
        assert!(matches!(line[0], b' ' | b'\t') || line.contains(&b':'));
    }
}
