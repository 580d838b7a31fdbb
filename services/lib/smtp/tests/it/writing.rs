//! Nothing that is written can hold more than one command or reply.

use mail::Address;
use proptest::prelude::*;
use smtp::{EnhancedCode, MailParams, RcptParams, write};

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

#[test]
fn writes_the_commands_of_a_client() {
    let address = Address::parse("a@b.c").unwrap();
    assert_eq!(
        written(|out| write::ehlo(out, "mx.example")),
        "EHLO mx.example\r\n"
    );
    assert_eq!(
        written(|out| write::helo(out, "mx.example")),
        "HELO mx.example\r\n"
    );
    assert_eq!(
        written(|out| write::mail(out, None, &MailParams::default())),
        "MAIL FROM:<>\r\n"
    );
    assert_eq!(
        written(|out| write::rcpt(out, &address, &RcptParams::default())),
        "RCPT TO:<a@b.c>\r\n"
    );
    assert_eq!(written(|out| write::bdat(out, 5, true)), "BDAT 5 LAST\r\n");
    assert_eq!(
        written(|out| write::auth(out, "PLAIN", Some("AGEAYg=="))),
        "AUTH PLAIN AGEAYg==\r\n"
    );
    assert_eq!(
        written(|out| write::auth(out, "LOGIN", None)),
        "AUTH LOGIN\r\n"
    );
    assert_eq!(
        written(|out| write::auth(out, "EXTERNAL", Some(""))),
        "AUTH EXTERNAL =\r\n"
    );
    assert_eq!(written(|out| write::auth_line(out, "*")), "*\r\n");
}

#[test]
fn writes_replies_with_the_enhanced_code_on_each_line() {
    assert_eq!(
        written(|out| write::reply(out, 550, Some(EnhancedCode(5, 7, 1)), "No\nnever")),
        "550-5.7.1 No\r\n550 5.7.1 never\r\n"
    );
    assert_eq!(
        written(|out| write::reply_lines(out, 250, None, ["mx", "SIZE 100"])),
        "250-mx\r\n250 SIZE 100\r\n"
    );
    assert_eq!(written(|out| write::reply(out, 354, None, "")), "354 \r\n");
}

#[test]
fn long_replies_are_cut_into_lines_under_512_octets() {
    let text = "word ".repeat(300);
    let out = written(|out| write::reply(out, 450, Some(EnhancedCode(4, 7, 1)), &text));
    assert_eq!(out.split_terminator("\r\n").count(), 4);
    assert!(out.split_inclusive("\r\n").all(|line| line.len() <= 512));
    assert_eq!(out.matches("word").count(), 300);
}

proptest! {
    #[test]
    fn arguments_can_not_end_a_line(text in "[\\x00-\\x7fé]{0,700}", code in 200_u16..600) {
        for out in [
            written(|out| write::ehlo(out, &text)),
            written(|out| write::helo(out, &text)),
            written(|out| write::auth(out, &text, Some(&text))),
            written(|out| write::auth_line(out, &text)),
        ] {
            let line = out.strip_suffix("\r\n").unwrap();
            prop_assert!(!line.contains(char::is_control), "{:?}", out);
        }
        let out = written(|out| write::reply(out, code, None, &text));
        let lines: Vec<_> = out.strip_suffix("\r\n").unwrap().split("\r\n").collect();
        for (index, line) in lines.iter().enumerate() {
            let mark = if index + 1 == lines.len() { ' ' } else { '-' };
            let start = format!("{code}{mark}");
            prop_assert!(line.starts_with(&start) && !line.contains(char::is_control), "{:?}", out);
            prop_assert!(line.len() <= 510);
        }
    }
}
