//! Whole messages.

use classify::{Class, Kind, Reason};

use crate::{Action, Automatic, FeedbackKind, Form, Inbound, Report, read};

fn report(message: &str) -> Report {
    match read(message.as_bytes()) {
        Inbound::Report(report) => report,
        other => panic!("{other:?}"),
    }
}

/// Address, action, reason and hardness of each recipient.
fn told(message: &str) -> Vec<(String, Action, Reason, bool)> {
    let recipients = report(message).recipients.into_iter();
    recipients
        .map(|one| {
            let is_hard = one.is_hard();
            (one.address, one.action, one.judgement.reason, is_hard)
        })
        .collect()
}

fn one(address: &str, reason: Reason, is_hard: bool) -> Vec<(String, Action, Reason, bool)> {
    vec![(address.to_owned(), Action::Failed, reason, is_hard)]
}

/// In fields, as RFC 3464 has them.
fn in_fields(fields: &str, text: &str) -> String {
    format!(
        "From: MAILER-DAEMON@mx.example\r\nTo: r@x.example\r\nSubject: Undelivered\r\nAuto-Submitted: auto-replied\r\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=b\r\n\r\n--b\r\n\r\n{text}\r\n--b\r\n\
         Content-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example\r\n\r\n{fields}\r\n--b\r\n\
         Content-Type: text/rfc822-headers\r\n\r\nMessage-ID: <1@x.example>\r\nReturn-Path: <r@x.example>\r\n\r\n--b--\r\n"
    )
}

fn in_words(from: &str, subject: &str, text: &str) -> String {
    format!("From: {from}\r\nTo: r@x.example\r\nSubject: {subject}\r\n\r\n{text}\r\n")
}

#[test]
fn reads_what_we_write_ourselves() {
    let recipient = |address, status, code, text| dsn::FailedRecipient {
        address,
        orcpt: "rfc822;first+2Blabel@a.example",
        failure: dsn::Failure::Refused,
        status,
        reply_code: code,
        reply_text: text,
        remote_mta: "mx.a.example",
        last_attempt_ms: 0,
    };
    let original = b"Message-ID: <7@x.example>\r\nTo: a@a.example\r\n\r\nHello.\r\n";
    let built = dsn::notification(&dsn::Report {
        reporting_mta: "relay.example",
        own_id: "1",
        date_ms: 1,
        return_path: "r@x.example",
        arrival_ms: 1,
        original_id: "2",
        envid: "E+2B7",
        ret: dsn::Return::Headers,
        action: dsn::Action::Failed,
        recipients: vec![
            recipient("a@a.example", "5.1.1", 550, "no such user"),
            recipient("jürgen@a.example", "5.7.1", 554, "blocked using a list"),
        ],
        original: Some(dsn::Original {
            content: original,
            header_length: original.len() - 8,
        }),
    });
    let Inbound::Report(report) = read(&built.content) else {
        panic!();
    };
    assert_eq!(
        (
            report.form,
            &report.reporting_mta[..],
            &report.envelope_id[..]
        ),
        (Form::Standard, "relay.example", "E+7")
    );
    assert_eq!(report.original.message_id, "7@x.example");
    let [first, second] = &report.recipients[..] else {
        panic!("{report:?}");
    };
    assert_eq!(
        (&first.address[..], &first.original_address[..]),
        ("a@a.example", "first+label@a.example")
    );
    assert_eq!(
        (first.code, first.status, &first.remote_mta[..]),
        (550, Some((5, 1, 1)), "mx.a.example")
    );
    assert!(first.is_hard());
    assert_eq!(
        (&second.address[..], second.class()),
        ("jürgen@a.example", Class::Policy)
    );
    assert!(!second.is_hard());
}

#[test]
#[rustfmt::skip] // rows of a table
fn only_what_is_wrong_with_the_address_for_good_is_hard() {
    for (fields, reason, is_hard) in [
        ("Action: failed\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1 unknown user", Reason::UnknownMailbox, true),
        ("Action: failed\r\nStatus: 5.1.1", Reason::UnknownMailbox, true),
        ("Action: failed\r\nStatus: 5.4.4\r\nDiagnostic-Code: X-Postfix; Host or domain name not found", Reason::NoSuchDomain, true),
        ("Action: failed\r\nStatus: 4.4.7\r\nDiagnostic-Code: smtp; 450 4.1.1 user unknown", Reason::UnknownMailbox, false),
        ("Action: delayed\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1 unknown user", Reason::UnknownMailbox, false),
        ("Action: failed\r\nStatus: 5.2.2\r\nDiagnostic-Code: smtp; 552 5.2.2 over quota", Reason::MailboxFull, false),
        ("Action: failed\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1 blocked using a DNSBL", Reason::Reputation, false),
        ("Action: failed\r\nStatus: 5.7.1\r\nDiagnostic-Code: smtp; 550 5.7.1 DMARC failed", Reason::Authentication, false),
        ("Action: failed\r\nStatus: 5.4.7\r\nDiagnostic-Code: X-Mta; delivery time expired", Reason::Expired, false),
        ("Action: failed\r\nStatus: 5.0.0\r\nDiagnostic-Code: smtp; 550 Domain frequency limited", Reason::Throttled, false),
        ("Action: failed\r\nStatus: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1 user unknown, try again later", Reason::UnknownMailbox, true),
        ("Action: failed\r\nStatus: 5.0.0\r\nDiagnostic-Code: smtp; 550 user unknown, try again later", Reason::UnknownMailbox, false),
        ("Action: failed\r\nStatus: 5.0.0\r\nDiagnostic-Code: smtp; 550 rejected", Reason::Unspecified, false),
    ] {
        let fields = format!("Final-Recipient: rfc822; a@b.example\r\n{fields}\r\n");
        let told = told(&in_fields(&fields, "It did not work."));
        let (_, _, found, found_hard) = &told[0];
        assert_eq!((*found, *found_hard), (reason, is_hard), "{fields}");
    }
}

#[test]
fn reads_words_where_fields_say_nothing() {
    let fields = "Final-Recipient: rfc822; a@b.example\r\nAction: failed\r\nStatus: 5.0.0\r\n";
    let text = "Your message did not reach somebody.\r\n\r\na@b.example\r\nThe mailbox is full.";
    assert_eq!(
        told(&in_fields(fields, text)),
        one("a@b.example", Reason::MailboxFull, false)
    );
}

#[test]
fn a_success_has_no_reason() {
    let fields = "Final-Recipient: rfc822; a@b.example\r\nAction: relayed\r\nStatus: 2.0.0\r\n";
    let report = report(&in_fields(fields, "It went on."));
    assert_eq!(report.recipients[0].action, Action::Relayed);
    assert_eq!(report.recipients[0].judgement.kind, Kind::Delivered);
}

#[test]
#[rustfmt::skip] // rows of a table
fn reads_reports_of_programs_that_know_no_standard() {
    for (name, message, expected) in [
        ("qmail", in_words("MAILER-DAEMON@mx.example", "failure notice",
            "Hi. This is the mail program at mx.example.\r\nI could not deliver to these addresses.\r\n\r\n<a@b.example>:\r\n\
             192.0.2.9 does not like recipient.\r\nRemote host said: 550 sorry, no mailbox here by that name. (#5.1.1)\r\n\
             Giving up on 192.0.2.9.\r\n\r\n--- Below this line is a copy of the message.\r\n\r\nReturn-Path: <r@x.example>\r\nTo: c@d.example"),
            one("a@b.example", Reason::UnknownMailbox, true)),
        ("Exim", in_words("Mail Delivery System <Mailer-Daemon@mx.example>", "Mail delivery failed: returning message to sender",
            "A message that you sent could not be delivered.\r\n\r\n  a@b.example\r\n    host mx.b.example [192.0.2.9]\r\n    \
             SMTP error from remote mail server after RCPT TO:<a@b.example>:\r\n    552 5.2.2 mailbox full\r\n\r\n\
             ------ This is a copy of the message, including all the headers. ------\r\n\r\nReceived: from x\r\n\tby y"),
            one("a@b.example", Reason::MailboxFull, false)),
        ("sendmail", in_words("Mail Delivery Subsystem <MAILER-DAEMON@mx.example>", "Returned mail: see transcript for details",
            "   ----- The following addresses had permanent fatal errors -----\r\n<a@b.example>\r\n\r\n   ----- Transcript of session \
             follows -----\r\n... while talking to mx.b.example.:\r\n>>> RCPT To:<a@b.example>\r\n<<< 554 5.7.1 Relay access denied\r\n"),
            one("a@b.example", Reason::RelayDenied, false)),
        ("Exchange", in_words("System Administrator <postmaster@b.example>", "Undeliverable: Hello",
            "Your message\r\n\r\n  To:      a@b.example\r\n  Subject: Hello\r\n\r\ndid not reach the following recipient(s):\r\n\r\n\
             a@b.example on Mon, 1 Jan 2024 10:00:00\r\n    The e-mail account does not exist at the organization this message was \
             sent to.\r\n        < mx.b.example #5.1.1>\r\n"),
            one("a@b.example", Reason::UnknownMailbox, true)),
        ("Notes", in_words("Postmaster@b.example", "DELIVERY FAILURE: User somebody (a@b.example) not listed in Domino Directory",
            "Your message\r\n\r\n  Subject: Hello\r\n\r\nwas not delivered to:\r\n\r\n  a@b.example\r\n\r\nbecause:\r\n\r\n  User \
             somebody (a@b.example) not listed in Domino Directory\r\n"),
            one("a@b.example", Reason::UnknownMailbox, true)),
        ("Italian", in_words("Servizio Postale <postmaster@b.example>", "Messaggio non consegnato",
            "Non è stato possibile consegnare il messaggio a\r\n\r\n   a@b.example\r\n\r\nLa casella del destinatario è piena.\r\n"),
            one("a@b.example", Reason::MailboxFull, false)),
        ("German", in_words("Mail Delivery System <mailer-daemon@b.example>", "Nachricht unzustellbar",
            "Ihre Nachricht konnte nicht zugestellt werden:\r\n\r\na@b.example:\r\nBenutzer unbekannt\r\n"),
            one("a@b.example", Reason::UnknownMailbox, true)),
        ("Japanese", in_words("postmaster@b.example", "=?utf-8?B?6YWN5L+h44Ko44Op44O8?=",
            "メールを配信できませんでした。\r\n\r\n<a@b.example>\r\nユーザが見つかりません\r\n"),
            one("a@b.example", Reason::UnknownMailbox, true)),
        ("the subject alone", in_words("MAILER-DAEMON@b.example", "Returned mail: User unknown", "See the subject.\r\n"),
            one("", Reason::UnknownMailbox, true)),
        ("fields in a text", in_words("MAILER-DAEMON@b.example", "Delivery failure",
            "Final-Recipient: rfc822; a@b.example\r\nAction: failed\r\nStatus: 5.2.2\r\n"),
            one("a@b.example", Reason::MailboxFull, false)),
    ] {
        assert_eq!(told(&message), expected, "{name}");
    }
}

#[test]
fn believes_the_fields_that_name_who_failed() {
    let message = "X-Failed-Recipients: a@b.example, c@d.example\r\nFrom: someone@b.example\r\nSubject: Oh\r\n\r\n\
                   a@b.example: no such user\r\n\r\nc@d.example: mailbox full\r\n";
    let found = told(message);
    assert_eq!(found[0].2, Reason::UnknownMailbox);
    assert_eq!(
        (&found[1].0[..], found[1].2),
        ("c@d.example", Reason::MailboxFull)
    );
}

#[test]
fn what_is_tried_further_is_no_failure() {
    let text = "THIS IS A WARNING MESSAGE ONLY. YOU DO NOT NEED TO RESEND.\r\n\r\na@b.example\r\n    450 4.1.1 user unknown\r\n";
    let message = in_words(
        "MAILER-DAEMON@mx.example",
        "Warning: could not send message for past 4 hours",
        text,
    );
    let [(_, action, reason, is_hard)] = &told(&message)[..] else {
        panic!();
    };
    assert_eq!(
        (*action, *reason, *is_hard),
        (Action::Delayed, Reason::UnknownMailbox, false)
    );
}

#[test]
fn answers_of_programs_are_no_reports_whatever_they_say() {
    for header in [
        "Auto-Submitted: auto-replied\r\nSubject: Re: Hello\r\n",
        "Subject: Out of office\r\n",
        "Subject: Automatische Antwort: Hello\r\n",
        "X-Autoreply: yes\r\nReturn-Path: <>\r\nSubject: Hello\r\n",
        "Precedence: auto_reply\r\nSubject: x\r\n",
    ] {
        let message = format!(
            "From: a@b.example\r\n{header}\r\nThe user a@b.example does not exist any more: 550 5.1.1 no such user. Your message could \
             not be delivered.\r\n"
        );
        assert_eq!(
            read(message.as_bytes()),
            Inbound::Automatic(Automatic::Reply),
            "{header}"
        );
    }
}

#[test]
fn people_who_write_about_reports_are_people() {
    let text = "Hi,\r\nI got this: a@b.example could not be delivered, 550 no such user. Why?\r\n";
    for subject in [
        "Question",
        "Re: Undeliverable: Hello",
        "Fwd: failure notice",
    ] {
        let message = in_words("Someone <s@b.example>", subject, text);
        assert_eq!(read(message.as_bytes()), Inbound::Other, "{subject}");
    }
}

#[test]
fn tells_challenges_and_receipts() {
    let text = "Please confirm your message by the link below, or it will not be read.\r\n";
    let challenge = in_words("a@b.example", "Re: Hello", text);
    assert_eq!(read(challenge.as_bytes()), Inbound::Challenge);
    let receipt = "From: a@b.example\r\nContent-Type: multipart/report; report-type=disposition-notification; boundary=b\r\n\r\n\
                   --b\r\n\r\nread\r\n--b\r\nContent-Type: message/disposition-notification\r\n\r\n\
                   Final-Recipient: rfc822; a@b.example\r\nDisposition: manual-action/MDN-sent-manually; displayed\r\n\r\n--b--\r\n";
    assert_eq!(read(receipt.as_bytes()), Inbound::Receipt);
}

#[test]
fn a_receipt_may_say_that_the_message_was_rejected() {
    let message = "From: Mail Delivery Subsystem <p@b.example>\r\nSubject: Automatically rejected mail\r\n\
                   Auto-Submitted: auto-replied (rejected)\r\n\
                   Content-Type: multipart/report; report-type=disposition-notification; boundary=b\r\n\r\n--b\r\n\r\n\
                   Your message to <a@b.example> was automatically rejected:\r\nQuota exceeded\r\n--b\r\n\
                   Content-Type: message/disposition-notification\r\n\r\nFinal-Recipient: rfc822; a@b.example\r\n\
                   Disposition: automatic-action/MDN-sent-automatically; deleted\r\n\r\n--b--\r\n";
    assert_eq!(
        told(message),
        one("a@b.example", Reason::MailboxFull, false)
    );
}

#[test]
fn reads_complaints_in_the_forms_in_which_they_come() {
    let original = "Return-Path: <r@x.example>\r\nMessage-ID: <1@x.example>\r\nTo: a@b.example\r\nCFBL-Feedback-ID: 77\r\n\r\nBuy.\r\n";
    let standard = format!(
        "From: fbl@b.example\r\nContent-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n--b\r\n\r\nA complaint.\r\n\
         --b\r\nContent-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nUser-Agent: x/1\r\nVersion: 1\r\nSource-IP: 192.0.2.1\r\n\r\n\
         --b\r\nContent-Type: message/rfc822\r\n\r\n{original}--b--\r\n"
    );
    let jmrp = format!(
        "From: staff@hotmail.com\r\nSubject: complaint about message from 192.0.2.1\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
         --b\r\nContent-Type: message/rfc822\r\n\r\nX-HmXmrOriginalRecipient: a@b.example\r\n{original}--b--\r\n"
    );
    let in_text = format!(
        "From: fbl@b.example\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\n\
         Feedback-Type: abuse\r\nVersion: 0.1\r\n--b\r\nContent-Type: message/rfc822\r\n\r\n{original}--b--\r\n"
    );
    for message in [standard, jmrp, in_text] {
        let Inbound::Feedback(feedback) = read(message.as_bytes()) else {
            panic!("{message}");
        };
        assert_eq!(feedback.kind, FeedbackKind::Abuse);
        assert_eq!(feedback.recipients, ["a@b.example"]);
        assert_eq!(
            (
                &feedback.original.message_id[..],
                &feedback.original.cfbl_feedback_id[..]
            ),
            ("1@x.example", "77")
        );
    }
}

#[test]
fn reads_lines_that_end_as_files_end_them() {
    let message = in_fields(
        "Final-Recipient: rfc822; a@b.example\r\nAction: failed\r\nStatus: 5.1.1\r\n",
        "No.",
    );
    assert_eq!(
        read(message.replace("\r\n", "\n").as_bytes()),
        read(message.as_bytes())
    );
}

#[test]
fn hostile_messages_cost_no_more_than_long_ones() {
    let header = "From: MAILER-DAEMON@mx.example\r\nSubject: failure notice\r\n";
    let multipart = "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n";
    let many = |text: &str, count: usize| format!("{header}\r\n{}", text.repeat(count));
    let messages = [
        many("<a@b.example>: user unknown\r\n", 100_000),
        many("a@b.example ", 200_000),
        many("550 5.1.1 ", 200_000),
        many("@", 1_000_000),
        many("<", 1_000_000),
        many("user unknown mailbox full ", 100_000),
        many("\r\n", 500_000),
        format!("{header}{}", multipart.repeat(20_000)),
        format!(
            "{header}X-Failed-Recipients: {}\r\n\r\nno\r\n",
            "a@b.example, ".repeat(50_000)
        ),
        in_fields(
            &"Final-Recipient: rfc822; a@b.example\r\nDiagnostic-Code: smtp; 550 no\r\n"
                .repeat(50_000),
            "x",
        ),
        in_fields(
            &format!("Diagnostic-Code: {}", "x\r\n ".repeat(300_000)),
            "x",
        ),
    ];
    for (number, message) in messages.iter().enumerate() {
        let began = std::time::Instant::now();
        let inbound = read(message.as_bytes());
        assert!(began.elapsed().as_secs() < 60, "{number}");
        if let Inbound::Report(report) = inbound {
            assert!(report.recipients.len() <= 1000, "{number}");
            assert!(
                report
                    .recipients
                    .iter()
                    .all(|one| one.diagnostic.len() <= 1024),
                "{number}"
            );
        }
    }
}

#[test]
fn the_text_is_asked_for_a_hundred_recipients() {
    let fields = "Final-Recipient: rfc822; a@b.example\r\nAction: failed\r\nStatus: 5.0.0\r\n\r\n";
    let message = in_fields(&fields.repeat(150), "<a@b.example>: user unknown\r\n");
    let Inbound::Report(report) = read(message.as_bytes()) else {
        panic!("it is a report");
    };
    let of_text = report
        .recipients
        .iter()
        .filter(|one| one.judgement.reason == Reason::UnknownMailbox);
    assert_eq!((report.recipients.len(), of_text.count()), (150, 100));
}
