//! What other people's parsers read in our notifications.

use mail_parser::{MessageParser, MimeHeaders, PartType};

use crate::{
    Action, FULL_RETURN_LIMIT, FailedRecipient, Failure, Original, Report, Return, notification,
};

const ORIGINAL: &[u8] = b"Received: by a\r\nFrom: a@sender.example\r\nSubject: hello\r\nMessage-ID: <one@sender.example>\r\n\r\nThe body.\r\n";

fn original(content: &[u8]) -> Original<'_> {
    let end = content
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .unwrap();
    Original {
        content,
        header_length: end + 4,
    }
}

fn recipient<'a>() -> FailedRecipient<'a> {
    FailedRecipient {
        address: "nobody@receiver.example",
        orcpt: "rfc822;no+2Bbody@receiver.example",
        failure: Failure::Refused,
        status: "5.1.1",
        reply_code: 550,
        reply_text: "No such user here",
        remote_mta: "mx1.receiver.example",
        last_attempt_ms: 1_795_351_205_000,
    }
}

fn report<'a>() -> Report<'a> {
    Report {
        reporting_mta: "relay.example.com",
        own_id: "0198-abc",
        date_ms: 1_795_351_206_000,
        return_path: "a@sender.example",
        arrival_ms: 1_795_351_200_000,
        original_id: "0198-0000",
        envid: "QQ+2B1",
        ret: Return::Headers,
        action: Action::Failed,
        recipients: vec![recipient()],
        original: Some(original(ORIGINAL)),
    }
}

fn text_of(content: &[u8]) -> String {
    String::from_utf8(content.to_vec()).unwrap()
}

/// The body of the second part.
fn status_of(content: &[u8]) -> String {
    let text = String::from_utf8_lossy(content).into_owned();
    let start = text.find("message/delivery-status\r\n\r\n").unwrap() + 27;
    text[start..start + text[start..].find("\r\n--=_staffetta").unwrap()].to_owned()
}

#[test]
fn has_the_fields_of_a_notification_and_three_parts() {
    let built = notification(&report());
    let message = MessageParser::new().parse(&built.content).unwrap();
    assert_eq!(
        message.from().unwrap().first().unwrap().address(),
        Some("MAILER-DAEMON@relay.example.com")
    );
    assert_eq!(
        message.to().unwrap().first().unwrap().address(),
        Some("a@sender.example")
    );
    assert_eq!(message.message_id(), Some("0198-abc@relay.example.com"));
    assert_eq!(message.in_reply_to().as_text(), Some("one@sender.example"));
    assert_eq!(
        message.header_raw("Auto-Submitted").map(str::trim),
        Some("auto-replied")
    );
    let kind = message.content_type().unwrap();
    assert_eq!(
        (kind.ctype(), kind.subtype()),
        ("multipart", Some("report"))
    );
    assert_eq!(kind.attribute("report-type"), Some("delivery-status"));
    let PartType::Multipart(parts) = &message.parts[0].body else {
        panic!("a multipart")
    };
    let kinds: Vec<_> = parts
        .iter()
        .map(|part| {
            message.parts[*part as usize]
                .content_type()
                .map(|kind| kind.subtype().unwrap().to_owned())
                .unwrap()
        })
        .collect();
    assert_eq!(kinds, ["plain", "delivery-status", "rfc822-headers"]);
    assert!(
        message
            .body_text(0)
            .unwrap()
            .contains("There is no such mailbox")
    );
    assert_eq!(
        &built.content[built.header_length - 4..built.header_length],
        b"\r\n\r\n"
    );
    assert!(!built.is_eight_bit());
}

#[test]
fn tells_machines_everything_about_the_recipient() {
    assert_eq!(
        status_of(&notification(&report()).content),
        "Original-Envelope-Id: QQ+1\r\n\
         Reporting-MTA: dns; relay.example.com\r\n\
         Arrival-Date: Sun, 22 Nov 2026 12:40:00 +0000\r\n\
         \r\n\
         Original-Recipient: rfc822; no+body@receiver.example\r\n\
         Final-Recipient: rfc822; nobody@receiver.example\r\n\
         Action: failed\r\n\
         Status: 5.1.1\r\n\
         Remote-MTA: dns; mx1.receiver.example\r\n\
         Diagnostic-Code: smtp; 550 5.1.1 No such user here\r\n\
         Last-Attempt-Date: Sun, 22 Nov 2026 12:40:05 +0000\r\n"
    );
}

#[test]
fn leaves_out_what_is_not_known() {
    let mut bare = report();
    bare.envid = "";
    bare.original = None;
    bare.recipients[0] = FailedRecipient {
        orcpt: "",
        status: "",
        reply_code: 0,
        reply_text: "",
        remote_mta: "",
        last_attempt_ms: 0,
        ..recipient()
    };
    let built = notification(&bare);
    assert_eq!(
        status_of(&built.content),
        "Reporting-MTA: dns; relay.example.com\r\nArrival-Date: Sun, 22 Nov 2026 12:40:00 +0000\r\n\r\n\
         Final-Recipient: rfc822; nobody@receiver.example\r\nAction: failed\r\nStatus: 5.0.0\r\n"
    );
    assert!(!text_of(&built.content).contains("rfc822-headers"));
}

#[test]
fn an_expired_recipient_has_status_4_4_7_and_the_last_reply() {
    let mut late = report();
    late.recipients[0].failure = Failure::Expired;
    late.recipients[0].status = "4.2.1";
    late.recipients[0].reply_code = 451;
    let status = status_of(&notification(&late).content);
    assert!(status.contains("Status: 4.4.7\r\n"), "{status}");
    assert!(
        status.contains("smtp; 451 4.2.1 No such user here"),
        "{status}"
    );
}

#[test]
fn several_recipients_are_groups_of_one_report() {
    let mut several = report();
    several.recipients.push(FailedRecipient {
        address: "other@receiver.example",
        ..recipient()
    });
    let status = status_of(&notification(&several).content);
    assert_eq!(status.matches("\r\n\r\n").count(), 2);
    assert_eq!(status.matches("Final-Recipient").count(), 2);
}

#[test]
fn hostile_text_starts_no_field_no_part_and_no_long_line() {
    let mut hostile = report();
    let boundary = "\r\n--=_staffetta_0198abc_0--\r\n";
    let reply = format!(
        "no\r\nBcc: victim@example\r\n\r\n{boundary}\u{0}\u{1b}[2J\u{202e}é {}",
        "x".repeat(5000)
    );
    hostile.recipients[0].reply_text = &reply;
    hostile.recipients[0].status = "5.1.1\r\nX-Evil: 1";
    hostile.recipients[0].remote_mta = "mx\r\nX-Evil: 2";
    hostile.recipients[0].orcpt = "rfc822;a+0D+0AX-Evil:+203";
    hostile.recipients[0].address = "a\r\nX-Evil: 4@b";
    hostile.envid = "+0D+0A+0D+0AX-Evil:+205";
    hostile.return_path = "a@b>\r\nX-Evil: 6";
    hostile.reporting_mta = "host\r\nX-Evil: 7";
    let content = b"Subject: a\r\nMessage-ID: <a@b>\r\nX: \r\n--=_staffetta_0198abc_1--\r\n\r\n";
    hostile.original = Some(original(content));
    let built = notification(&hostile);
    let text = text_of(&built.content);
    for line in text.split("\r\n") {
        assert!(line.len() <= 998, "a line of {}", line.len());
        assert!(
            !line.starts_with("X-Evil") && !line.starts_with("Bcc"),
            "{line}"
        );
        assert!(
            !line.chars().any(|c| c.is_control() && c != '\t'),
            "{line:?}"
        );
    }
    let message = MessageParser::new().parse(&built.content).unwrap();
    let PartType::Multipart(parts) = &message.parts[0].body else {
        panic!("a multipart")
    };
    assert_eq!(parts.len(), 3);
    assert!(status_of(&built.content).is_ascii());
}

#[test]
fn the_whole_message_comes_back_when_asked_for_and_not_too_large() {
    let mut full = report();
    full.ret = Return::Full;
    let built = notification(&full);
    assert!(text_of(&built.content).contains("Content-Type: message/rfc822\r\n\r\nReceived: by a"));
    assert!(text_of(&built.content).contains("The body."));

    let large = [ORIGINAL, &vec![b'x'; FULL_RETURN_LIMIT]].concat();
    full.original = Some(original(&large));
    let built = notification(&full);
    assert!(text_of(&built.content).contains("text/rfc822-headers"));
    assert!(built.content.len() < 8 * 1024);
}

#[test]
fn eight_bit_content_is_announced_and_eight_bit_headers_are_encoded() {
    let content = "Subject: é\r\n\r\nBödy\r\n".as_bytes();
    let mut headers = report();
    headers.original = Some(original(content));
    let built = notification(&headers);
    assert!(!built.is_eight_bit());
    let message = MessageParser::new().parse(&built.content).unwrap();
    assert!(
        message
            .parts
            .iter()
            .any(|part| matches!(&part.body, PartType::Text(text) if text.contains("Subject: é")))
    );

    let mut full = report();
    full.original = Some(original(content));
    full.ret = Return::Full;
    let built = notification(&full);
    assert!(built.is_eight_bit());
    let text = text_of(&built.content);
    assert_eq!(text.matches("Content-Transfer-Encoding: 8bit").count(), 2);
}

#[test]
fn addresses_beyond_ascii_take_the_form_for_seven_bits() {
    let mut eai = report();
    eai.recipients[0].address = "用户@例え.example";
    let built = notification(&eai);
    let status = status_of(&built.content);
    assert!(
        status
            .contains("Final-Recipient: utf-8; \\x{7528}\\x{6237}@\\x{4F8B}\\x{3048}.example\r\n"),
        "{status}"
    );
    let message = MessageParser::new().parse(&built.content).unwrap();
    assert!(
        message
            .body_text(0)
            .unwrap()
            .contains("<用户@例え.example>")
    );
}

#[test]
fn the_same_report_gives_the_same_bytes() {
    assert_eq!(notification(&report()), notification(&report()));
}

#[test]
fn a_delay_is_told_as_one_and_says_until_when_it_is_tried() {
    let mut delayed = report();
    delayed.action = Action::Delayed {
        until_ms: 1_795_783_200_000,
    };
    delayed.recipients[0].failure = Failure::Delayed;
    delayed.recipients[0].status = "4.7.1";
    delayed.recipients[0].reply_code = 451;
    delayed.recipients[0].reply_text = "Greylisted";
    let built = notification(&delayed);
    let status = status_of(&built.content);
    for line in [
        "Action: delayed\r\n",
        "Status: 4.7.1\r\n",
        "Diagnostic-Code: smtp; 451 4.7.1 Greylisted\r\n",
        "Will-Retry-Until: Fri, 27 Nov 2026 12:40:00 +0000\r\n",
    ] {
        assert!(status.contains(line), "{status}");
    }
    let text = text_of(&built.content);
    assert!(text.contains("Subject: Your message is delayed\r\n"));
    assert!(text.contains("could not yet be delivered"));
    assert!(!text.contains("No further attempt"));
    // Words that say "never" are none of a delay.
    delayed.recipients[0].status = "5.1.1";
    let status = status_of(&notification(&delayed).content);
    assert!(status.contains("Status: 4.0.0\r\n"), "{status}");
}

#[test]
fn what_was_relayed_did_not_fail() {
    let mut relayed = report();
    relayed.action = Action::Relayed;
    relayed.recipients[0].failure = Failure::Relayed;
    relayed.recipients[0].reply_code = 250;
    for (status, said) in [("2.1.5", "2.1.5"), ("", "2.0.0"), ("5.1.1", "2.0.0")] {
        relayed.recipients[0].status = status;
        let built = notification(&relayed);
        let fields = status_of(&built.content);
        let expected = format!("Action: relayed\r\nStatus: {said}\r\n");
        assert!(fields.contains(&expected), "{fields}");
        let text = text_of(&built.content);
        assert!(
            text.contains("Subject: Your message was relayed\r\n"),
            "{text}"
        );
        assert!(!text.contains("could not"), "{text}");
    }
}
