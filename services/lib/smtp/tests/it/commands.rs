//! Commands of a client.

use mail::Address;
use proptest::prelude::*;
use smtp::{
    Body, ByMode, Command, CommandError, DeliverBy, ForwardPath, MailParams, Notify,
    OriginalRecipient, RcptParams, Release, Return, Xtext, write,
};

use crate::pieces::{auth_lines, commands, cut, lengths};

fn one(line: &str) -> Result<Command, CommandError> {
    let mut items = commands(&[format!("{line}\r\n").as_bytes()]);
    assert_eq!(items.len(), 1, "{line}");
    items.remove(0).1
}

fn mailbox(text: &str) -> Address {
    Address::parse(text).unwrap()
}

#[test]
fn reads_every_verb_in_any_case_and_with_blanks_behind() {
    for (line, command) in [
        (
            "EHLO mx.example.com",
            Command::Ehlo("mx.example.com".into()),
        ),
        ("ehlo [127.0.0.1]", Command::Ehlo("[127.0.0.1]".into())),
        ("Helo MY_PC", Command::Helo("MY_PC".into())),
        ("STARTTLS", Command::StartTls),
        ("data", Command::Data),
        ("Quit  ", Command::Quit),
        ("RSET", Command::Rset),
        ("NOOP", Command::Noop),
        ("NOOP what ever", Command::Noop),
        ("HELP me", Command::Help),
        ("VRFY user", Command::Vrfy),
        ("EXPN list", Command::Expn),
        (
            "BDAT 86 LAST",
            Command::Bdat {
                size: 86,
                last: true,
            },
        ),
        (
            "bdat 0",
            Command::Bdat {
                size: 0,
                last: false,
            },
        ),
        (
            "bdat 18446744073709551615 last",
            Command::Bdat {
                size: u64::MAX,
                last: true,
            },
        ),
    ] {
        assert_eq!(one(line), Ok(command), "{line}");
    }
}

#[test]
fn says_what_is_wrong() {
    let cases = [
        ("", 500, "5.5.2"),
        (" QUIT", 500, "5.5.2"),
        ("GET/ HTTP", 500, "5.5.2"),
        ("QUIT\u{7}", 500, "5.5.2"),
        ("EHLO", 501, "5.5.4"),
        ("EHLO a b", 501, "5.5.4"),
        ("EHLO a(b)", 501, "5.5.4"),
        ("DATA now", 501, "5.5.4"),
        ("QUIT now", 501, "5.5.4"),
        ("STARTTLS 1", 501, "5.5.4"),
        ("AUTH", 501, "5.5.4"),
        ("AUTH PLAIN a b", 501, "5.5.2"),
        ("AUTH PLAIN YWJj YWJj", 501, "5.5.4"),
        ("AUTH PLAIN ?", 501, "5.5.2"),
        ("BDAT", 501, "5.5.4"),
        ("BDAT -1", 501, "5.5.4"),
        ("BDAT +1", 501, "5.5.4"),
        ("BDAT 99999999999999999999", 501, "5.5.4"),
        ("BDAT 1 LAST x", 501, "5.5.4"),
        ("MAIL", 501, "5.5.4"),
        ("MAIL FROM", 501, "5.5.4"),
        ("MAIL TO:<a@b.c>", 501, "5.5.4"),
        ("MAIL FROM:a@b.c", 501, "5.5.4"),
        ("MAIL FROM:<a@b.c", 501, "5.5.4"),
        ("MAIL FROM:<a@b.c>SIZE=1", 501, "5.5.4"),
        ("MAIL FROM:<a>", 501, "5.1.7"),
        ("MAIL FROM:<a b@c.d>", 501, "5.1.7"),
        ("MAIL FROM:<@a.b:>", 501, "5.1.7"),
        ("MAIL FROM:<é@b.c>", 553, "5.6.7"),
        ("MAIL FROM:<> SIZE", 501, "5.5.4"),
        ("MAIL FROM:<> SIZE=1 SIZE=1", 501, "5.5.4"),
        ("MAIL FROM:<> SIZE=+1", 501, "5.5.4"),
        ("MAIL FROM:<> BODY=9BIT", 501, "5.5.4"),
        ("MAIL FROM:<> RET=ALL", 501, "5.5.4"),
        ("MAIL FROM:<> ENVID=", 501, "5.5.4"),
        ("MAIL FROM:<> ENVID=a+b", 501, "5.5.4"),
        ("MAIL FROM:<> SMTPUTF8=1", 501, "5.5.4"),
        ("MAIL FROM:<> SMTPUTF8 SMTPUTF8", 501, "5.5.4"),
        ("MAIL FROM:<> MT-PRIORITY", 501, "5.5.4"),
        ("MAIL FROM:<> MT-PRIORITY=", 501, "5.5.4"),
        ("MAIL FROM:<> MT-PRIORITY=10", 501, "5.5.4"),
        ("MAIL FROM:<> MT-PRIORITY=+1", 501, "5.5.4"),
        ("MAIL FROM:<> MT-PRIORITY=-0", 501, "5.5.4"),
        ("MAIL FROM:<> MT-PRIORITY=1 MT-PRIORITY=1", 501, "5.5.4"),
        ("MAIL FROM:<> BY=120", 501, "5.5.4"),
        ("MAIL FROM:<> BY=0;R", 501, "5.5.4"),
        ("MAIL FROM:<> BY=1;N BY=1;N", 501, "5.5.4"),
        ("MAIL FROM:<> NOTIFY=NEVER", 555, "5.5.4"),
        ("MAIL FROM:<> XVERP", 555, "5.5.4"),
        ("RCPT TO:<>", 501, "5.1.3"),
        ("RCPT TO:<a>", 501, "5.1.3"),
        ("RCPT TO:<a@b.c> NOTIFY=NEVER,DELAY", 501, "5.5.4"),
        ("RCPT TO:<a@b.c> ORCPT=a@b.c", 501, "5.5.4"),
        ("RCPT TO:<a@b.c> SIZE=1", 555, "5.5.4"),
    ];
    for (line, code, enhanced) in cases {
        let error = one(line).unwrap_err();
        assert_eq!(
            (error.code(), error.enhanced().to_string().as_str()),
            (code, enhanced),
            "{line}: {error}"
        );
    }
}

#[test]
fn a_chunk_of_unknown_size_is_fatal_since_the_next_command_can_not_be_found() {
    assert!(one("BDAT x").unwrap_err().is_fatal());
    assert!(!one("DATA x").unwrap_err().is_fatal());
}

#[test]
fn reads_mail_with_all_parameters() {
    let line = "MAIL FROM:<a@b.c> SIZE=1000 body=8BITMIME SMTPUTF8 RET=hdrs ENVID=x+2By AUTH=<> REQUIRETLS MT-PRIORITY=-9 BY=120;nt";
    let params = MailParams {
        size: Some(1000),
        body: Some(Body::EightBitMime),
        smtputf8: true,
        ret: Some(Return::Headers),
        envid: Xtext::parse("x+2By"),
        auth: Xtext::parse("<>"),
        require_tls: true,
        release: None,
        priority: Some(-9),
        deliver_by: DeliverBy::parse("120;NT"),
    };
    assert_eq!(
        one(line),
        Ok(Command::Mail {
            return_path: Some(mailbox("a@b.c")),
            params
        })
    );
}

#[test]
fn reads_when_a_message_may_be_released() {
    for (parameter, release) in [
        ("HOLDFOR=1", Release::After(1)),
        ("holdfor=999999999", Release::After(999_999_999)),
        ("HOLDUNTIL=2026-11-22T12:40:05Z", Release::At(1_795_351_205)),
        (
            "HOLDUNTIL=2026-11-22t13:40:05.5+01:00",
            Release::At(1_795_351_205),
        ),
        (
            "HOLDUNTIL=2026-11-22T12:10:05-00:30",
            Release::At(1_795_351_205),
        ),
    ] {
        let line = format!("MAIL FROM:<a@b.c> {parameter}");
        let Ok(Command::Mail { params, .. }) = one(&line) else {
            panic!("{line}: {:?}", one(&line))
        };
        assert_eq!(params.release, Some(release), "{line}");
    }
    for parameter in [
        "HOLDFOR",
        "HOLDFOR=",
        "HOLDFOR=0",
        "HOLDFOR=-1",
        "HOLDFOR=1000000000",
        "HOLDFOR=1h",
        "HOLDFOR=60 HOLDFOR=60",
        "HOLDFOR=60 HOLDUNTIL=2026-11-22T12:40:05Z",
        "HOLDUNTIL=2026-11-22",
        "HOLDUNTIL=2026-11-22T12:40:05",
        "HOLDUNTIL=20261122T124005Z",
        "HOLDUNTIL=2026-13-22T12:40:05Z",
        "HOLDUNTIL=2026-11-22T12:40:05Z[UTC]",
        "HOLDUNTIL=1960-11-22T12:40:05Z",
        "HOLDUNTIL=tomorrow",
    ] {
        let error = one(&format!("MAIL FROM:<a@b.c> {parameter}")).unwrap_err();
        assert_eq!(error.code(), 501, "{parameter}");
    }
}

#[test]
fn reads_paths_of_all_forms() {
    for (line, expected) in [
        ("MAIL FROM:<>", None),
        ("mail from: <a@b.c>", Some("a@b.c")),
        ("MAIL FROM:<@x.y,@z.w:a@b.c>", Some("a@b.c")),
        (
            "MAIL FROM:<\"a>b\\\"\"@b.c> SIZE=1",
            Some("\"a>b\\\"\"@b.c"),
        ),
        (
            "MAIL FROM:<用户@例え.example> SMTPUTF8",
            Some("用户@例え.example"),
        ),
    ] {
        let Ok(Command::Mail { return_path, .. }) = one(line) else {
            panic!("{line}: {:?}", one(line))
        };
        assert_eq!(
            return_path.as_ref().map(Address::as_str),
            expected,
            "{line}"
        );
    }
}

#[test]
fn reads_rcpt_with_its_parameters_and_postmaster_alone() {
    let params = RcptParams {
        notify: Notify::from_bits(6).unwrap(),
        orcpt: OriginalRecipient::parse("rfc822;a+2Bb@c.d"),
    };
    assert_eq!(
        one("RCPT TO:<a@b.c> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a+2Bb@c.d"),
        Ok(Command::Rcpt {
            address: ForwardPath::Mailbox(mailbox("a@b.c")),
            params
        })
    );
    assert_eq!(
        one("RCPT TO:<PostMaster>"),
        Ok(Command::Rcpt {
            address: ForwardPath::Postmaster,
            params: RcptParams::default()
        })
    );
}

#[test]
fn reads_auth_with_and_without_an_initial_response() {
    let response = |line: &str| match one(line) {
        Ok(Command::Auth {
            mechanism,
            initial_response,
        }) => (
            mechanism.to_string(),
            initial_response.map(|secret| secret.expose().to_owned()),
        ),
        other => panic!("{other:?}"),
    };
    assert_eq!(response("auth login"), ("LOGIN".into(), None));
    assert_eq!(
        response("AUTH PLAIN AGEAYg=="),
        ("PLAIN".into(), Some("AGEAYg==".into()))
    );
    assert_eq!(
        response("AUTH EXTERNAL ="),
        ("EXTERNAL".into(), Some(String::new()))
    );
    assert!(!format!("{:?}", one("AUTH PLAIN AGEAYg==")).contains("AGEA"));
}

#[test]
fn long_lines_are_refused_at_their_exact_bound_and_the_next_command_is_read() {
    for (prefix, bound, error) in [
        ("NOOP ", 512, CommandError::TooLong),
        ("MAIL FROM:<>", 4096, CommandError::TooLong),
        ("rcpt TO:<a@b.c>", 4096, CommandError::TooLong),
        ("AUTH LOGIN", 12_288, CommandError::AuthLineTooLong),
    ] {
        let fitting = format!(
            "{prefix}{}\r\nQUIT\r\n",
            " ".repeat(bound - prefix.len() - 2)
        );
        let long = format!(
            "{prefix}{}\r\nQUIT\r\n",
            " ".repeat(bound - prefix.len() - 1)
        );
        for lengths in [&[usize::MAX][..], &[1], &[511], &[512, 1], &[3, 4000]] {
            let items = commands(&cut(fitting.as_bytes(), lengths));
            assert_eq!(items.len(), 2);
            assert!(items[0].1.is_ok(), "{prefix} {lengths:?}");
            let items = commands(&cut(long.as_bytes(), lengths));
            assert_eq!(items[0].1, Err(error), "{prefix} {lengths:?}");
            assert_eq!(items[1].1, Ok(Command::Quit));
        }
    }
}

#[test]
fn pipelined_commands_come_one_at_a_time() {
    let input = b"RSET\r\nNOOP\nDATA\r\n.\r\n";
    let items = commands(&[input]);
    assert_eq!(
        items
            .into_iter()
            .map(|(used, item)| (used, item.ok()))
            .collect::<Vec<_>>(),
        [
            (6, Some(Command::Rset)),
            (11, None),
            (17, Some(Command::Data)),
            (20, None)
        ]
    );
}

fn address() -> impl Strategy<Value = Address> {
    let local = prop_oneof![
        "[a-z0-9+=_-]{1,20}",
        "[a-z]{1,5}\\.[a-z]{1,5}",
        "\"[a-z @<>]{1,10}\""
    ];
    let domain = prop_oneof![
        Just("example.com".to_owned()),
        Just("[127.0.0.1]".to_owned()),
        Just("[IPv6:::1]".to_owned()),
        "[a-z]{1,9}\\.example"
    ];
    (local, domain).prop_map(|(local, domain)| mailbox(&format!("{local}@{domain}")))
}

fn mail_params() -> impl Strategy<Value = MailParams> {
    let bodies = prop::sample::select(vec![
        None,
        Some(Body::SevenBit),
        Some(Body::EightBitMime),
        Some(Body::BinaryMime),
    ]);
    let rets = prop::sample::select(vec![None, Some(Return::Full), Some(Return::Headers)]);
    (
        prop::option::of(any::<u64>()),
        bodies,
        any::<bool>(),
        rets,
        ".{0,8}",
        ".{0,20}",
        any::<bool>(),
        prop::option::of(-9_i8..=9),
        prop::option::of((-999_999_999_i32..=999_999_999, any::<bool>())),
    )
        .prop_map(
            |(size, body, smtputf8, ret, envid, auth, require_tls, priority, by)| MailParams {
                size,
                body,
                smtputf8,
                ret,
                envid: Xtext::encode(&envid).filter(|envid| envid.as_str().len() <= 100),
                auth: Xtext::encode(&auth),
                require_tls,
                release: None,
                priority,
                deliver_by: by.map(|(seconds, trace)| DeliverBy {
                    seconds,
                    mode: ByMode::Notify,
                    trace,
                }),
            },
        )
}

fn rcpt_params() -> impl Strategy<Value = RcptParams> {
    (0_u32..16, ".{0,20}").prop_map(|(bits, orcpt)| RcptParams {
        notify: Notify::from_bits(bits).unwrap_or_default(),
        orcpt: OriginalRecipient::rfc822(&orcpt),
    })
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        "[a-z0-9.-]{1,30}".prop_map(|name| Command::Ehlo(name.into())),
        (prop::option::of(address()), mail_params()).prop_map(|(return_path, params)| {
            Command::Mail {
                return_path,
                params,
            }
        }),
        (address(), rcpt_params()).prop_map(|(address, params)| Command::Rcpt {
            address: ForwardPath::Mailbox(address),
            params
        }),
        (any::<u64>(), any::<bool>()).prop_map(|(size, last)| Command::Bdat { size, last }),
        prop::sample::select(vec![
            Command::Data,
            Command::Rset,
            Command::Noop,
            Command::Quit,
            Command::StartTls
        ]),
    ]
}

fn write_command(out: &mut Vec<u8>, command: &Command) {
    match command {
        Command::Ehlo(name) => write::ehlo(out, name),
        Command::Mail {
            return_path,
            params,
        } => write::mail(out, return_path.as_ref(), params),
        Command::Rcpt {
            address: ForwardPath::Mailbox(address),
            params,
        } => write::rcpt(out, address, params),
        Command::Bdat { size, last } => write::bdat(out, *size, *last),
        Command::Data => write::data(out),
        Command::Rset => write::rset(out),
        Command::Noop => write::noop(out),
        Command::Quit => write::quit(out),
        Command::StartTls => write::starttls(out),
        other => unreachable!("not generated: {other:?}"),
    }
}

/// Octets that come near to commands.
fn noise() -> impl Strategy<Value = Vec<u8>> {
    let token = prop::sample::select(vec![
        &b"MAIL "[..],
        b"FROM:",
        b"<",
        b">",
        b"a@b.c",
        b"RCPT ",
        b"TO:",
        b" SIZE=1",
        b"\r\n",
        b"\n",
        b"\r",
        b"\0",
        b"AUTH PLAIN ",
        b"\"",
        b"\\",
        b"EHLO x",
        b"BDAT 5",
        b" ORCPT=",
        b"\xff",
        b"\xc3\xa9",
        b" ",
        b"QUIT\r\n",
        b"@x:",
    ]);
    let piece = prop_oneof![
        10 => token.prop_map(<[u8]>::to_vec),
        1 => (any::<u8>(), 0_usize..5000).prop_map(|(octet, count)| vec![octet; count]),
    ];
    prop::collection::vec(piece, 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn what_is_written_is_read_in_whatever_pieces(
        sent in prop::collection::vec(command(), 1..6),
        lengths in lengths(),
    ) {
        let mut octets = Vec::new();
        for command in &sent {
            write_command(&mut octets, command);
        }
        let read: Vec<_> = commands(&cut(&octets, &lengths)).into_iter().map(|(_, item)| item).collect();
        prop_assert_eq!(read, sent.into_iter().map(Ok).collect::<Vec<_>>());
    }

    #[test]
    fn any_octets_give_the_same_in_whatever_pieces(input in noise(), lengths in lengths()) {
        prop_assert_eq!(commands(&cut(&input, &lengths)), commands(&[&input]));
        prop_assert_eq!(auth_lines(&cut(&input, &lengths)), auth_lines(&[&input]));
    }
}
