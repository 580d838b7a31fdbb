use proptest::prelude::*;

use super::*;
use crate::milter::PacketDecoder;
use crate::milter::negotiation::protocol;

fn envelope() -> Envelope {
    Envelope {
        id: "id-1".to_owned(),
        hostname: "relay.example".to_owned(),
        client: Some("192.0.2.1".parse().unwrap()),
        hello: "client.example".to_owned(),
        user: "app".to_owned(),
        return_path: "a@acme.example".to_owned(),
        recipients: vec!["b@one.example".to_owned(), "c@two.example".to_owned()],
        header_length: [HEADER, "\r\n"].concat().len(),
    }
}

const HEADER: &str = "From: a@acme.example\r\nSubject: x\r\n\ty\r\nno field\r\n";

fn agreed(actions: u32, protocol: u32, lists: &[u8]) -> Agreed {
    let numbers = [6, actions, protocol].map(u32::to_be_bytes).concat();
    Agreed::read(&[&numbers[..], lists].concat()).unwrap()
}

fn packet(code: u8, data: &[u8]) -> Packet {
    Packet {
        code,
        data: data.to_vec(),
    }
}

/// The commands without macros, as letters with their data shown, until the answer to one is not `c`. `answers`: by letter.
fn told(agreed: Agreed, body: &[u8], answers: &[(u8, Packet)]) -> (Vec<String>, Option<Verdict>) {
    let envelope = envelope();
    let mut dialogue = Dialogue::new(agreed, &envelope);
    let mut content = vec![
        Bytes::from([HEADER.as_bytes(), b"\r\n", body].concat()),
        Bytes::from(body.to_vec()),
    ]
    .into_iter();
    let mut commands = Vec::new();
    loop {
        let mut out = Vec::new();
        let next = dialogue.next(&mut out);
        if next == Next::Content {
            match content.next() {
                Some(piece) => dialogue.content(piece),
                None => dialogue.end(),
            }
            continue;
        }
        let mut decoder = PacketDecoder::new();
        decoder.push(&out);
        let mut last = b' ';
        while let Some(Packet { code, data }) = decoder.next().unwrap() {
            last = code;
            let shown = match code {
                b'B' => data.len().to_string(),
                _ => data.escape_ascii().to_string(),
            };
            commands.push(format!("{}{shown}", char::from(code)));
        }
        if next == Next::Tell {
            continue;
        }
        let found = answers.iter().find(|(of, _)| *of == last);
        let answer = found.map_or(packet(b'c', b""), |(_, answer)| answer.clone());
        match dialogue.heard(&answer).unwrap() {
            Heard::More | Heard::GoOn => {}
            Heard::Decided(verdict) => return (commands, Some(verdict)),
        }
    }
}

#[test]
fn tells_everything_in_the_order_of_the_protocol() {
    let (commands, verdict) = told(agreed(0, 0, b""), &[b'x'; 70_000], &[]);
    assert_eq!(
        commands,
        [
            r"DCj\x00relay.example\x00{daemon_name}\x00relay.example\x00{client_addr}\x00192.0.2.1\x00{client_name}\x00[192.0.2.1]\x00",
            r"C[192.0.2.1]\x004\x00\x00192.0.2.1\x00",
            r"Hclient.example\x00",
            r"DMi\x00id-1\x00{mail_addr}\x00a@acme.example\x00{mail_host}\x00acme.example\x00{mail_mailer}\x00esmtp\x00{auth_authen}\x00app\x00{auth_type}\x00AUTH\x00",
            r"M<a@acme.example>\x00",
            r"DR{rcpt_addr}\x00b@one.example\x00{rcpt_host}\x00one.example\x00{rcpt_mailer}\x00esmtp\x00",
            r"R<b@one.example>\x00",
            r"DR{rcpt_addr}\x00c@two.example\x00{rcpt_host}\x00two.example\x00{rcpt_mailer}\x00esmtp\x00",
            r"R<c@two.example>\x00",
            r"DTi\x00id-1\x00",
            "T",
            r"LFrom\x00a@acme.example\x00",
            r"LSubject\x00x\n\ty\x00",
            r"DNi\x00id-1\x00",
            "N",
            "B65535",
            // The rest of the first piece; its header section is not told again.
            "B4465",
            "B65535",
            "B4465",
            r"DEi\x00id-1\x00",
            "E",
        ]
    );
    assert_eq!(verdict, Some(Opinion::Clean.into()));
}

#[test]
fn leaves_out_what_is_not_wanted() {
    use protocol::*;
    let most = NO_CONNECT | NO_HELO | NO_RCPT | NO_DATA | NO_HEADERS | NO_END_OF_HEADERS | NO_BODY;
    let lists = b"\0\0\0\x02{auth_authen}\0\0\0\0\x05\0";
    let (commands, _) = told(agreed(0x100, most, lists), b"x", &[]);
    assert_eq!(
        commands,
        [r"DM{auth_authen}\x00app\x00", r"M<a@acme.example>\x00", "E"]
    );
    let silent = SILENT_CONNECT | SILENT_HELO | SILENT_MAIL | SILENT_RCPT | SILENT_DATA;
    let silent = silent | SILENT_HEADERS | SILENT_END_OF_HEADERS | SILENT_BODY;
    let refuses = |of| [(of, packet(b'r', b""))];
    for of in [b'C', b'H', b'M', b'R', b'T', b'L', b'N', b'B'] {
        let (_, verdict) = told(agreed(0, silent, b""), b"x", &refuses(of));
        assert_eq!(verdict, Some(Opinion::Clean.into()), "it is not asked");
        let (commands, verdict) = told(agreed(0, 0, b""), b"x", &refuses(of));
        let refused = Opinion::Refuse(Reply::refused("Message refused"));
        assert_eq!(verdict, Some(refused.into()));
        assert!(commands.last().unwrap().starts_with(char::from(of)));
    }
}

#[test]
fn an_early_answer_spares_the_rest() {
    let (commands, verdict) = told(agreed(0, 0, b""), b"x", &[(b'M', packet(b'a', b""))]);
    assert!(commands.last().unwrap().starts_with('M'));
    assert_eq!(verdict, Some(Opinion::Clean.into()));
    let skip = packet(b's', b"");
    for (of, kept) in [(b'R', 1), (b'L', 1), (b'B', 1)] {
        let (commands, verdict) = told(
            agreed(0, protocol::SKIP, b""),
            &[b'x'; 100_000],
            &[(of, skip.clone())],
        );
        let count = commands
            .iter()
            .filter(|command| command.starts_with(char::from(of)))
            .count();
        assert_eq!(count, kept, "{commands:?}");
        assert_eq!(verdict, Some(Opinion::Clean.into()));
    }
}

#[test]
fn every_answer_at_the_end_means_something_or_is_an_error() {
    let all = envelope();
    let refused = |reply| Ok(Heard::Decided(Opinion::Refuse(reply).into()));
    let reply = Reply::parse(b"550 5.7.26 no").unwrap();
    for (code, data, actions, expected) in [
        (b'c', &b""[..], 0, Ok(Heard::Decided(Opinion::Clean.into()))),
        (b'a', b"", 0, Ok(Heard::Decided(Opinion::Clean.into()))),
        (b'p', b"", 0, Ok(Heard::More)),
        (b'r', b"", 0, refused(Reply::refused("Message refused"))),
        (b'd', b"", 0, refused(Reply::refused("Message refused"))),
        (b't', b"", 0, refused(Reply::later("Try again later"))),
        (b'y', b"550 5.7.26 no\0", 0, refused(reply)),
        (b'y', b"250 2.0.0 yes\0", 0, Err(Error::Reply)),
        (b'y', b"", 0, Err(Error::Reply)),
        (b'h', b"X-A\0b\0", 1, Ok(Heard::More)),
        (b'h', b"X-A\0b\0", 0, Err(Error::Change('h'))),
        (b'h', b"X-A", 1, Err(Error::Field)),
        (b'i', b"\0\0", 1, Err(Error::Field)),
        (b'q', b"why\0", 0x20, Ok(Heard::More)),
        (b'q', b"why\0", 0, Err(Error::Change('q'))),
        (b'm', b"\0\0\0\x01X\0\0", 0x21, Err(Error::Change('m'))),
        (b'+', b"<x@y>\0", 0x21, Err(Error::Change('+'))),
        (b's', b"", 0, Err(Error::Unknown('s'))),
        (b'4', b"", 0, Err(Error::GivenUp)),
        (b'f', b"", 0, Err(Error::GivenUp)),
        (b'X', b"", 0, Err(Error::Unknown('X'))),
    ] {
        let mut dialogue = Dialogue::new(agreed(actions, 0, b""), &all);
        dialogue.asked = Stage::EndOfMessage;
        let heard = dialogue.heard(&packet(code, data));
        assert_eq!(
            heard,
            expected,
            "{} {}",
            char::from(code),
            data.escape_ascii()
        );
    }
}

#[test]
fn fields_and_holds_come_with_the_verdict() {
    let all = envelope();
    let mut dialogue = Dialogue::new(agreed(0x21, 0, b""), &all);
    // Not before the end.
    assert_eq!(
        dialogue.heard(&packet(b'h', b"X-A\0b\0")),
        Err(Error::Change('h'))
    );
    dialogue.asked = Stage::EndOfMessage;
    for (code, data) in [
        (b'h', &b"X-First\x001\0"[..]),
        (b'i', b"\0\0\0\x01X-Top\x002\n3\0"),
        (b'h', b"X-Last\0\0"),
        (b'q', b"\0"),
    ] {
        assert_eq!(dialogue.heard(&packet(code, data)), Ok(Heard::More));
    }
    let Ok(Heard::Decided(verdict)) = dialogue.heard(&packet(b'c', b"")) else {
        panic!("it is accepted");
    };
    let fields = String::from_utf8(verdict.fields).unwrap();
    assert_eq!(fields, "X-Top: 2\r\n\t3\r\nX-First: 1\r\nX-Last: \r\n");
    assert!(verdict.hold);
    let many = packet(b'h', &[b"X\0".as_slice(), &[b'x'; 900], b"\0"].concat());
    let last = (0..100).find_map(|_| dialogue.heard(&many).err());
    assert_eq!(last, Some(Error::Field));
}

#[test]
fn a_field_that_fits_into_no_packet_is_known_unless_fields_are_not_wanted() {
    for (length, protocol, expected) in [
        (100, 0, false),
        (65_000, 0, false),
        (65_600, 0, true),
        (65_600, protocol::NO_HEADERS, false),
    ] {
        let section = format!("To: {}\r\n", "x".repeat(length));
        let mut all = envelope();
        all.header_length = section.len() + 2;
        let mut dialogue = Dialogue::new(agreed(0, protocol, b""), &all);
        dialogue.content(Bytes::from(format!("{section}\r\nbody\r\n")));
        assert_eq!(dialogue.has_large_field(), expected, "{length}");
    }
}

proptest! {
    #[test]
    fn no_answer_makes_it_panic(code: u8, data in proptest::collection::vec(any::<u8>(), 0..60), at_end: bool) {
        let all = envelope();
        let mut dialogue = Dialogue::new(agreed(0x121, protocol::SKIP, b""), &all);
        if at_end {
            dialogue.asked = Stage::EndOfMessage;
        }
        if dialogue.heard(&packet(code, &data)) == Ok(Heard::More) {
            let fields = dialogue.clean().fields;
            prop_assert!(fields.is_empty() || fields.ends_with(b"\r\n"));
            prop_assert!(!fields.windows(4).any(|four| four == b"\r\n\r\n"));
        }
    }
}
