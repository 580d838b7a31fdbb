//! What another SMTP codec got wrong in ways that matter for a relay: one test for each.

use smtp::{
    Command, CommandError, DataError, EhloCapabilities, EnhancedCode, ForwardPath, ReplyError,
    write,
};

use crate::pieces::{commands, content, replies};

fn one_command(line: &[u8]) -> Result<Command, CommandError> {
    let mut items = commands(&[line]);
    assert_eq!(items.len(), 1, "{items:?}");
    items.remove(0).1
}

#[test]
fn a_dot_at_once_after_data_is_an_empty_message() {
    let read = content(&[b".\r\nQUIT\r\n"], 1000);
    assert_eq!(
        (read.octets.as_slice(), read.error, read.end),
        (&b""[..], None, Some(3))
    );
}

#[test]
fn a_stuffed_dot_on_the_first_line_is_taken_away() {
    assert_eq!(content(&[b"..first\r\n.\r\n"], 1000).octets, b".first\r\n");
}

#[test]
fn a_bare_lf_or_cr_in_content_neither_ends_it_nor_passes() {
    for (input, error) in [
        (&b"a\n.\r\nb\r\n.\r\n"[..], DataError::BareLineFeed),
        (b"a\r\n.\nb\r\n.\r\n", DataError::BareLineFeed),
        (b"a\n.\nb\r\n.\r\n", DataError::BareLineFeed),
        (b"a\r.\rb\r\n.\r\n", DataError::BareCarriageReturn),
        (b"a\r\n.\rb\r\n.\r\n", DataError::BareCarriageReturn),
        (b"a\r.\r\nb\r\n.\r\n", DataError::BareCarriageReturn),
        (b"a\r\r\n.\r\n", DataError::BareCarriageReturn),
        (b"a\r\n.\r\r\nb\r\n.\r\n", DataError::BareCarriageReturn),
        (b".\n.\r\n\r\n.\r\n", DataError::BareLineFeed),
    ] {
        let read = content(&[input], 1000);
        assert_eq!(
            (read.error, read.end),
            (Some(error), Some(input.len())),
            "{:?}",
            input.escape_ascii().to_string()
        );
    }
    let mut out = Vec::new();
    DataError::BareLineFeed.write(&mut out);
    assert!(out.starts_with(b"554 5.6.11 "));
}

#[test]
fn command_lines_end_with_crlf_only() {
    assert_eq!(one_command(b"EHLO a\n"), Err(CommandError::LineEnding));
    assert_eq!(
        one_command(b"EHLO a\rQUIT\r\n"),
        Err(CommandError::LineEnding)
    );
    assert_eq!(one_command(b"EHLO a\0\r\n"), Err(CommandError::LineEnding));
    assert_eq!(one_command(b"QUIT\r\r\n"), Err(CommandError::LineEnding));
    let mut out = Vec::new();
    CommandError::LineEnding.write(&mut out);
    assert!(out.starts_with(b"500 5.5.2 "));
}

#[test]
fn address_literals_are_addresses() {
    let Ok(Command::Rcpt {
        address: ForwardPath::Mailbox(address),
        ..
    }) = one_command(b"RCPT TO:<a@[127.0.0.1]>\r\n")
    else {
        panic!("refused");
    };
    assert_eq!(address.domain_text(), "[127.0.0.1]");
}

#[test]
fn quoted_local_parts_stay_as_received() {
    let Ok(Command::Mail {
        return_path: Some(address),
        params,
    }) = one_command(b"MAIL FROM:<\"a b\"@c.d>\r\n")
    else {
        panic!("refused");
    };
    assert_eq!(address.as_str(), "\"a b\"@c.d");
    let mut out = Vec::new();
    write::mail(&mut out, Some(&address), &params);
    assert_eq!(out, b"MAIL FROM:<\"a b\"@c.d>\r\n");
}

#[test]
fn enhanced_codes_may_have_three_digits_in_a_part() {
    let (_, reply) = replies(&[b"550 5.7.509 Access denied\r\n"]).remove(0);
    let reply = reply.unwrap();
    assert_eq!(reply.enhanced, Some(EnhancedCode(5, 7, 509)));
    assert_eq!(&*reply.lines[0], "Access denied");
}

#[test]
fn one_reply_has_one_code() {
    assert_eq!(
        replies(&[b"250-a\r\n550 b\r\n"]).remove(0).1,
        Err(ReplyError::MixedCodes)
    );
}

#[test]
fn reply_codes_are_200_to_599_and_lf_alone_is_noted() {
    for line in [&b"999 x\r\n"[..], b"600 x\r\n", b"199 x\r\n", b"000 x\r\n"] {
        assert_eq!(replies(&[line]).remove(0).1, Err(ReplyError::Code));
    }
    let reply = replies(&[b"250-a\r\n250 b\n"]).remove(0).1.unwrap();
    assert!(reply.bare_line_feed);
    assert_eq!(reply.lines.len(), 2);
    assert!(!replies(&[b"250 b\r\n"]).remove(0).1.unwrap().bare_line_feed);
}

#[test]
fn unknown_commands_are_handed_on_with_their_arguments() {
    assert_eq!(
        one_command(b"xclient NAME=a ADDR=127.0.0.1\r\n"),
        Ok(Command::Unknown {
            verb: "XCLIENT".into(),
            argument: "NAME=a ADDR=127.0.0.1".into()
        })
    );
}

#[test]
fn all_ehlo_keywords_are_kept() {
    let reply = replies(&[
        b"250-mx\r\n250-LIMITS RCPTMAX=20 MAILMAX=5\r\n250-XFUTURE a b\r\n250 SIZE 100\r\n",
    ])
    .remove(0)
    .1
    .unwrap();
    let capabilities = EhloCapabilities::from_reply(&reply);
    assert_eq!(
        capabilities.iter().collect::<Vec<_>>(),
        [
            ("LIMITS", "RCPTMAX=20 MAILMAX=5"),
            ("XFUTURE", "a b"),
            ("SIZE", "100")
        ]
    );
    assert_eq!(capabilities.limits().rcpt_max, Some(20));
    assert_eq!(capabilities.limits().mail_max, Some(5));
}
