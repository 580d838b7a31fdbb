//! What it costs to read what comes back: `cargo run --release -p bounce --example reading`.
//!
//! Prints microseconds of wall time on one core, the least of several rounds, and messages per second.

use std::hint::black_box;
use std::time::{Duration, Instant};

use bounce::{Link, Purpose, Subject, TokenKeys, read};
use mail::{Domain, MessageId};

fn main() {
    let header = "Received: from mx.example by relay.example; Mon, 1 Jan 2024 00:00:00 +0000\r\n\
                  From: Mail Delivery System <MAILER-DAEMON@mx.example>\r\nTo: r@x.example\r\nDate: Mon, 1 Jan 2024 00:00:00 +0000\r\n\
                  Message-ID: <2@mx.example>\r\nAuto-Submitted: auto-replied\r\n";
    let original = "Return-Path: <r@x.example>\r\nMessage-ID: <1@x.example>\r\nFrom: a@x.example\r\nTo: a@b.example\r\nSubject: s\r\n\r\n";
    let fields = format!(
        "{header}Subject: Undelivered Mail Returned to Sender\r\nContent-Type: multipart/report; report-type=delivery-status; \
         boundary=b\r\n\r\n--b\r\n\r\nYour message could not be delivered to one or more recipients.\r\n\r\n<a@b.example>: host \
         mx.b.example said: 550 5.1.1 no such user\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; mx.example\r\n\r\n\
         Final-Recipient: rfc822; a@b.example\r\nAction: failed\r\nStatus: 5.1.1\r\nRemote-MTA: dns; mx.b.example\r\n\
         Diagnostic-Code: smtp; 550 5.1.1 <a@b.example>: Recipient address rejected: User unknown in local recipient table\r\n\r\n\
         --b\r\nContent-Type: text/rfc822-headers\r\n\r\n{original}--b--\r\n"
    );
    let words = format!(
        "{header}Subject: failure notice\r\n\r\nHi. I could not deliver your message to the following address.\r\n\r\n<a@b.example>:\r\n\
         Remote host said: 552 5.2.2 mailbox full\r\n\r\n--- Below this line is a copy of the message.\r\n\r\n{original}"
    );
    let complaint = format!(
        "{header}Subject: complaint\r\nContent-Type: multipart/report; report-type=feedback-report; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--b\r\n\
         Content-Type: message/feedback-report\r\n\r\nFeedback-Type: abuse\r\nUser-Agent: x/1\r\nVersion: 1\r\n\r\n--b\r\n\
         Content-Type: message/rfc822\r\n\r\n{original}--b--\r\n"
    );
    let answer = format!("{header}Subject: Out of office\r\n\r\nBack on Monday.\r\n")
        .replace("MAILER-DAEMON", "a");
    for (name, message) in [
        ("report in fields", fields),
        ("report in words", words),
        ("complaint", complaint),
        ("automatic reply", answer),
    ] {
        measure(name, || read(message.as_bytes()));
    }
    let keys = TokenKeys::parse("1 a secret of sixteen octets or more").expect("it is a key");
    let domain = Domain::parse("b.x.example").expect("it is a domain");
    let subject = Subject {
        tenant: "acme",
        stream: "bulk",
        message: MessageId::now(),
        recipient: "reader@receiver.example",
    };
    let mint = || keys.mint(Purpose::Bounce, &subject, &domain, 2_000_000_000);
    let token = mint().expect("it has room");
    measure("make a return path", mint);
    measure("read a return path", || {
        keys.read(Purpose::Bounce, &token, &domain, 1_900_000_000)
    });
    let read = keys.read(Purpose::Bounce, &token, &domain, 1_900_000_000);
    let read = read.expect("it is ours");
    measure("compare a recipient", || {
        keys.is_of(&read, "reader@receiver.example")
    });
    let link = Link {
        message: MessageId::now(),
        tenant: "acme",
        stream: "bulk",
        recipient: "reader@receiver.example",
    };
    let mint = || keys.mint_link(&link, 2_000_000_000);
    let text = mint().expect("it has room");
    measure("make a link", mint);
    measure("read a link", || keys.read_link(&text, 1_900_000_000));
}

fn measure<T>(name: &str, mut work: impl FnMut() -> T) {
    let mut least = Duration::MAX;
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(1) {
        let round = Instant::now();
        for _ in 0..50 {
            black_box(work());
        }
        least = least.min(round.elapsed() / 50);
    }
    let per_second = 1.0 / least.as_secs_f64();
    println!(
        "{name:20} {:8.2} µs {per_second:10.0} /s",
        least.as_secs_f64() * 1e6
    );
}
