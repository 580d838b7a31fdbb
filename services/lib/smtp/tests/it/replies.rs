//! Replies of a server.

use proptest::prelude::*;
use smtp::{EhloCapabilities, EnhancedCode, Reply, ReplyDecoder, ReplyError, write};

use crate::pieces::{cut, lengths, replies};

fn one(input: &[u8]) -> Result<Reply, ReplyError> {
    let mut items = replies(&[input]);
    assert_eq!(items.len(), 1, "{}", input.escape_ascii());
    items.remove(0).1
}

#[test]
fn reads_lines_and_takes_the_enhanced_code_off_each() {
    let reply = one(b"550-5.1.1 The user\r\n550-5.1.1\r\n550 5.1.1 is not here\r\n").unwrap();
    assert_eq!(
        (reply.code, reply.enhanced),
        (550, Some(EnhancedCode(5, 1, 1)))
    );
    assert_eq!(
        reply.lines,
        ["The user".into(), "".into(), "is not here".into()] as [Box<str>; 3]
    );
    assert!(reply.is_permanent());
    assert_eq!(reply.text(8), "The user");
    assert_eq!(
        one(b"421 4.7.0 later\r\n").unwrap().to_string(),
        "421 4.7.0 later"
    );
}

#[test]
fn another_enhanced_code_in_the_same_reply_stays_in_its_line() {
    let reply = one(b"550-5.7.1 one\r\n550 5.7.26 two\r\n").unwrap();
    assert_eq!(reply.enhanced, Some(EnhancedCode(5, 7, 1)));
    assert_eq!(&*reply.lines[1], "5.7.26 two");
}

#[test]
fn a_code_alone_is_a_reply() {
    assert_eq!(one(b"250\r\n").unwrap().lines, [Box::from("")]);
    assert_eq!(one(b"250 \r\n").unwrap().lines, [Box::from("")]);
}

#[test]
fn what_is_no_reply_is_an_error() {
    for (input, error) in [
        (&b"\r\n"[..], ReplyError::Syntax),
        (b"25\r\n", ReplyError::Syntax),
        (b"2500 x\r\n", ReplyError::Syntax),
        (b"250_x\r\n", ReplyError::Syntax),
        (b"hello\r\n", ReplyError::Syntax),
        (b"HTTP/1.1 400 Bad Request\r\n", ReplyError::Syntax),
        (b"\x15\x03\x01\n", ReplyError::Syntax),
    ] {
        assert_eq!(one(input), Err(error), "{}", input.escape_ascii());
    }
}

#[test]
fn text_is_made_safe_to_show() {
    let reply = one(b"250 a\x1b[31mb\0c\rd\xff\xfe\r\n").unwrap();
    assert_eq!(&*reply.lines[0], "a [31mb c d\u{fffd}\u{fffd}");
}

#[test]
fn a_long_line_is_cut_at_2_kib() {
    let input = format!("250-{}\r\n250 end\r\n", "x".repeat(100_000));
    let reply = one(input.as_bytes()).unwrap();
    assert!(reply.truncated);
    assert_eq!(reply.lines[0].len(), 2048);
    let reply = one(&[b"250 ".as_slice(), &[0xff; 2000], b"\r\n"].concat()).unwrap();
    assert!(reply.truncated && reply.lines[0].len() <= 2048);
    let input = format!("250 {}\r\n", "x".repeat(2048));
    assert!(!one(input.as_bytes()).unwrap().truncated);
}

#[test]
fn a_reply_without_end_is_an_error_after_100_lines_or_256_kib() {
    let lines = "250-x\r\n".repeat(101);
    assert_eq!(
        replies(&[lines.as_bytes()])[0],
        (101 * 7, Err(ReplyError::TooLong))
    );
    let hundred = format!("{}250 x\r\n", "250-x\r\n".repeat(99));
    assert_eq!(one(hundred.as_bytes()).unwrap().lines.len(), 100);
    let endless = vec![b'2'; 600_000];
    for lengths in [&[usize::MAX][..], &[1000], &[262_143, 1]] {
        assert_eq!(
            replies(&cut(&endless, lengths))[0],
            (256 * 1024, Err(ReplyError::TooLong))
        );
    }
}

#[test]
fn two_replies_in_one_piece_are_two() {
    let items = replies(&[b"250 a\r\n354 b\r\n2"]);
    assert_eq!(
        items.iter().map(|(used, _)| *used).collect::<Vec<_>>(),
        [7, 14]
    );
    let mut decoder = ReplyDecoder::new();
    decoder.decode(b"250-a\r\n");
    assert!(decoder.is_within_reply());
    decoder.decode(b"250 a\r\n");
    assert!(!decoder.is_within_reply());
}

#[test]
fn capabilities_are_read_from_any_case_and_old_forms() {
    let reply = one(
        b"250-mx.example greets you\r\n250-size 35882577\r\n250-PIPELINING\r\n250-8bitmime\r\n250-AUTH=LOGIN\r\n\
          250-AUTH login PLAIN XOAUTH2\r\n250-STARTTLS\r\n250-SMTPUTF8\r\n250-DSN\r\n250-CHUNKING\r\n250-REQUIRETLS\r\n\
          250-AUTHOR\r\n250-LIMITS RCPTMAX=100 MAILMAX=0 RCPTDOMAINMAX=1 X\r\n250 ENHANCEDSTATUSCODES\r\n",
    );
    let capabilities = EhloCapabilities::from_reply(&reply.unwrap());
    assert_eq!(capabilities.size(), Some(35_882_577));
    assert_eq!(
        capabilities.auth_mechanisms(),
        ["LOGIN", "PLAIN", "XOAUTH2"]
    );
    assert!(capabilities.pipelining() && capabilities.eight_bit_mime() && capabilities.smtputf8());
    assert!(capabilities.dsn() && capabilities.starttls() && capabilities.chunking());
    assert!(capabilities.enhanced_status_codes() && capabilities.require_tls());
    assert!(
        capabilities.has("pipelining")
            && !capabilities.has("MX.EXAMPLE")
            && !capabilities.has("BINARYMIME")
    );
    assert_eq!(capabilities.parameters("AUTHOR"), Some(""));
    let limits = capabilities.limits();
    assert_eq!(
        (limits.mail_max, limits.rcpt_max, limits.rcpt_domain_max),
        (None, Some(100), Some(1))
    );
}

#[test]
fn no_size_and_size_0_are_no_limit() {
    for input in [
        &b"250 mx\r\n"[..],
        b"250-mx\r\n250 SIZE\r\n",
        b"250-mx\r\n250 SIZE 0\r\n",
        b"250-mx\r\n250 SIZE x\r\n",
    ] {
        assert_eq!(
            EhloCapabilities::from_reply(&one(input).unwrap()).size(),
            None
        );
    }
}

fn noise() -> impl Strategy<Value = Vec<u8>> {
    let token = prop::sample::select(vec![
        &b"250"[..],
        b"550",
        b" ",
        b"-",
        b"\r\n",
        b"\n",
        b"\r",
        b"5.1.1 ",
        b"x",
        b"\xff",
        b"250-a\r\n",
        b"250 b\r\n",
        b"1",
    ]);
    let piece = prop_oneof![
        10 => token.prop_map(<[u8]>::to_vec),
        1 => (any::<u8>(), 0_usize..3000).prop_map(|(octet, count)| vec![octet; count]),
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn what_is_written_is_read_in_whatever_pieces(
        code in 200_u16..600,
        enhanced in prop::option::of((prop::sample::select(vec![2_u8, 4, 5]), 0_u16..1000, 0_u16..1000)),
        lines in prop::collection::vec("[a-zA-Z][a-zA-Z é.<>@-]{0,300}", 1..20),
        lengths in lengths(),
    ) {
        let enhanced = enhanced.map(|(class, subject, detail)| EnhancedCode(class, subject, detail));
        let mut octets = Vec::new();
        write::reply_lines(&mut octets, code, enhanced, &lines);
        let (used, reply) = replies(&cut(&octets, &lengths)).remove(0);
        let reply = reply.unwrap();
        prop_assert_eq!(used, octets.len());
        prop_assert_eq!((reply.code, reply.enhanced), (code, enhanced));
        prop_assert_eq!(reply.lines.iter().map(|line| line.to_string()).collect::<Vec<_>>(), lines);
        prop_assert!(!reply.bare_line_feed && !reply.truncated);
    }

    #[test]
    fn any_octets_give_the_same_in_whatever_pieces(input in noise(), lengths in lengths()) {
        prop_assert_eq!(replies(&cut(&input, &lengths)), replies(&[&input]));
    }
}
