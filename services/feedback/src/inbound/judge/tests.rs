use bounce::{Purpose, Scopes, Subject, TokenKeys};
use bytes::Bytes;
use config::Snapshot;
use mail::{Domain, MessageId};
use proto::event::event::Kind;
use proto::inbound::Record;

use super::*;

const NOW: u64 = 1_800_000_000;
const DOCUMENTS: &str = "
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: acme }
spec: { defaultStream: mail, streams: [ { name: mail }, { name: bulk } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: other }
spec: { defaultStream: mail, streams: [ { name: mail } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: SendingDomain
metadata: { name: acme.example }
spec: { tenant: acme, unsigned: true, returnPath: { mode: ours, domain: b.acme.example, forwardTo: people@acme.example } }
";
const READER: &str = "Reader@d.example";

fn keys() -> TokenKeys {
    TokenKeys::parse("1 a secret of sixteen octets").unwrap()
}

fn message() -> MessageId {
    MessageId::from_bytes([7; 16])
}

fn address(purpose: Purpose, tenant: &str, recipient: &str) -> String {
    let subject = Subject {
        tenant,
        stream: "bulk",
        message: message(),
        recipient,
    };
    let domain = Domain::parse("b.acme.example").unwrap();
    let text = keys().mint(purpose, &subject, &domain, NOW).unwrap();
    format!("{text}@b.acme.example")
}

fn bounce_address() -> String {
    address(Purpose::Bounce, "acme", READER)
}

fn judged(recipients: &[&str], content: &str) -> Vec<Consequence> {
    judged_from("reader@d.example", recipients, content)
}

fn judged_from(return_path: &str, recipients: &[&str], content: &str) -> Vec<Consequence> {
    let snapshot = Snapshot::from_documents(DOCUMENTS).unwrap();
    let keys = keys();
    let scopes = Scopes::new(
        &keys,
        [("acme", "mail"), ("acme", "bulk"), ("other", "bulk")],
    );
    let record = Record {
        recipients: recipients.iter().map(|text| (*text).to_owned()).collect(),
        content: Bytes::copy_from_slice(content.replace('\n', "\r\n").as_bytes()),
        return_path: return_path.to_owned(),
        ..Record::default()
    };
    let known = Known {
        snapshot: &snapshot,
        keys: &keys,
        scopes: &scopes,
        came_at: NOW,
    };
    judge(&record, known)
}

fn told(recipients: &[&str], content: &str) -> Told {
    match judged(recipients, content).as_slice() {
        [Consequence::Told(told)] => (**told).clone(),
        other => panic!("{other:?}"),
    }
}

fn bounced_to(recipients: &[&str], content: &str) -> OutOfBandBounce {
    match told(recipients, content).kind {
        Kind::OutOfBandBounce(bounce) => bounce,
        other => panic!("{other:?}"),
    }
}

fn report(about: &str) -> String {
    format!(
        "From: MAILER-DAEMON@mx.d.example\nTo: x@b.acme.example\nSubject: Undelivered Mail Returned to Sender\n\
         Content-Type: multipart/report; report-type=delivery-status; boundary=b\n\n--b\n\nSorry.\n--b\n\
         Content-Type: message/delivery-status\n\nReporting-MTA: dns; mx.d.example\n\n{about}\n\n--b--\n"
    )
}

fn unknown_user(field: &str) -> String {
    report(&format!(
        "{field}\nAction: failed\nStatus: 5.1.1\nDiagnostic-Code: smtp; 550 5.1.1 no such user"
    ))
}

fn complaint_about(original: &str) -> String {
    format!(
        "From: fbl@provider.example\nTo: x@b.acme.example\nSubject: complaint\n\
         Content-Type: multipart/report; report-type=feedback-report; boundary=b\n\n--b\n\nx\n--b\n\
         Content-Type: message/feedback-report\n\nFeedback-Type: abuse\nUser-Agent: x/1\nVersion: 1\n\n--b\n\
         Content-Type: message/rfc822\n\n{original}From: news@acme.example\nSubject: news\n\nhello\n--b--\n"
    )
}

const FROM_A_PERSON: &str =
    "From: reader@d.example\nTo: news@acme.example\nSubject: Re: news\n\nPlease call me.\n";

#[test]
fn a_report_is_about_the_recipient_of_its_token() {
    let told = told(
        &[&bounce_address()],
        &unknown_user("Final-Recipient: rfc822; reader@D.example"),
    );
    assert_eq!(
        (told.tenant.as_str(), told.stream.as_str()),
        ("acme", "bulk")
    );
    let Kind::OutOfBandBounce(bounce) = told.kind else {
        panic!("{told:?}");
    };
    assert_eq!(bounce.recipient, "reader@D.example");
    assert_eq!(&bounce.message_id[..], message().as_bytes());
    assert_eq!((bounce.action.as_str(), bounce.hard), ("failed", true));
    assert_eq!(bounce.class(), Class::Recipient);
    assert_eq!(bounce.reason, "unknownMailbox");
    let reply = bounce.reply.unwrap();
    assert_eq!((reply.code, reply.enhanced.as_str()), (550, "5.1.1"));
    assert_eq!(reply.text, "no such user");
}

#[test]
fn nobody_is_given_up_whom_the_token_does_not_name() {
    // Somebody who got the message writes a report about another reader of it.
    let forged = unknown_user("Final-Recipient: rfc822; victim@d.example");
    let bounce = bounced_to(&[&bounce_address()], &forged);
    assert_eq!((bounce.recipient.as_str(), bounce.hard), ("", false));
    // An address behind the one that we sent to.
    let behind =
        "Original-Recipient: rfc822;reader@d.example\nFinal-Recipient: rfc822; box7@mail.d.example";
    let bounce = bounced_to(&[&bounce_address()], &unknown_user(behind));
    assert_eq!(
        (bounce.recipient.as_str(), bounce.hard),
        ("reader@d.example", false)
    );
}

#[test]
fn automatic_replies_are_no_bounces_and_people_are_heard() {
    let vacation = "From: reader@d.example\nSubject: Out of office\nAuto-Submitted: auto-replied\n\n550 5.1.1 no such user\n";
    let path = bounce_address();
    assert_eq!(
        judged(&[&path], vacation),
        [Consequence::Dropped("automatic")]
    );
    let forwarded = [Consequence::Forwarded {
        tenant: "acme".to_owned(),
        to: Address::parse("people@acme.example").unwrap(),
    }];
    assert_eq!(judged(&[&path], FROM_A_PERSON), forwarded);
    // To several addresses of a domain: read once.
    let both = [
        "postmaster@b.acme.example",
        "abuse@b.acme.example",
        path.as_str(),
    ];
    assert_eq!(judged(&both, FROM_A_PERSON), forwarded);
}

#[test]
fn a_complaint_is_about_what_a_token_says() {
    let path = bounce_address();
    let with_path = complaint_about(&format!("Return-Path: <{path}>\n"));
    let for_all = address(Purpose::Complaint, "acme", "");
    for to in [
        "fbl@b.acme.example",
        "abuse@b.acme.example",
        &for_all,
        &path,
    ] {
        let told = told(&[to], &with_path);
        assert_eq!(told.tenant, "acme", "{to}");
        let Kind::Complaint(complaint) = &told.kind else {
            panic!("{told:?}");
        };
        assert_eq!(complaint.feedback_type, "abuse");
        assert_eq!(&complaint.message_id[..], message().as_bytes());
        // The recipient is not told here, but the token is of one: the journal may know.
        assert!(
            !keys().is_of(&told.token, "") && told.recipient().is_empty(),
            "{to}"
        );
    }
    // Only the address says which message it is.
    let told = told(&[&for_all], &complaint_about(""));
    assert!(keys().is_of(&told.token, ""));
    let people = judged(
        &["fbl@b.acme.example"],
        &complaint_about("Message-ID: <1@acme.example>\n"),
    );
    assert!(
        matches!(people[..], [Consequence::Forwarded { .. }]),
        "{people:?}"
    );
}

#[test]
fn a_message_to_an_address_for_unsubscribing_is_a_wish() {
    let to = address(Purpose::Unsubscribe, "acme", READER);
    let told = told(&[&to], FROM_A_PERSON);
    let Kind::Unsubscribe(wish) = &told.kind else {
        panic!("{told:?}");
    };
    assert_eq!(
        (wish.by.as_str(), wish.recipient.as_str()),
        ("mail", "reader@d.example")
    );
    let by_a_program = format!("Auto-Submitted: auto-generated\n{FROM_A_PERSON}");
    let all = judged(&[&to], &by_a_program);
    assert!(matches!(all[..], [Consequence::Told(_)]), "{all:?}");
    let vacation = format!("Auto-Submitted: auto-replied\n{FROM_A_PERSON}");
    assert_eq!(
        judged(&[&to], &vacation),
        [Consequence::Dropped("automatic")]
    );
    // Whom the reader forwarded the message to.
    for other in ["friend@d.example", ""] {
        assert_eq!(
            judged_from(other, &[&to], FROM_A_PERSON),
            [Consequence::Dropped("unsubscribe_by_others")]
        );
    }
}

#[test]
fn a_key_that_is_not_known_is_told_from_what_is_forged() {
    let snapshot = Snapshot::from_documents(DOCUMENTS).unwrap();
    let keys = TokenKeys::parse("2 another secret of ours").unwrap();
    let scopes = Scopes::new(&keys, []);
    let known = Known {
        snapshot: &snapshot,
        keys: &keys,
        scopes: &scopes,
        came_at: NOW,
    };
    assert!(known.has_unknown_key(&bounce_address()));
    let elsewhere = bounce_address().replace("b.acme.example", "elsewhere.example");
    for other in [
        elsewhere.as_str(),
        "abuse@b.acme.example",
        "b1@b.acme.example",
    ] {
        assert!(!known.has_unknown_key(other), "{other}");
    }
}

#[test]
fn what_is_of_nobody_here_is_dropped() {
    for (to, reason) in [
        ("a@elsewhere.example".to_owned(), "unknown_address"),
        ("info@b.acme.example".to_owned(), "unknown_address"),
        // The domain is another tenant's by now.
        (address(Purpose::Bounce, "other", READER), "unknown_tenant"),
        (address(Purpose::Bounce, "gone", READER), "unknown_tenant"),
    ] {
        assert_eq!(
            judged(&[&to], FROM_A_PERSON),
            [Consequence::Dropped(reason)],
            "{to}"
        );
    }
}
