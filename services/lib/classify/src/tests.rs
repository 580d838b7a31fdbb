//! Tables of what providers say.

use crate::{Class, Kind, Observation, Stage, classify};

use Class::{
    Content, Dns, Greylisted, Infrastructure, MailboxFull, Policy, Recipient, Throttled,
    Unspecified,
};
use Kind::{Delivered, HostTrouble, InDoubt, Permanent, Returned, Transient};

type Row = (
    Stage,
    u16,
    Option<(u8, u16, u16)>,
    &'static str,
    Kind,
    Class,
);

fn check(rows: &[Row], dot_sent: bool) {
    for &(stage, code, enhanced, text, kind, class) in rows {
        let verdict = classify(&Observation {
            stage,
            code,
            enhanced,
            text,
            dot_sent,
        });
        assert_eq!(
            (verdict.kind, verdict.class),
            (kind, class),
            "{stage:?} {code} {enhanced:?} {text}"
        );
    }
}

#[test]
#[rustfmt::skip] // rows of a table
fn trouble_before_mail_concerns_the_host_even_with_a_5xx() {
    check(
        &[
            (Stage::Connect, 0, None, "connection refused", HostTrouble, Infrastructure),
            (Stage::Banner, 0, None, "time-out", HostTrouble, Infrastructure),
            (Stage::Banner, 554, None, "No SMTP service here", HostTrouble, Infrastructure),
            (Stage::Banner, 554, Some((5, 7, 1)), "Blocked, see Spamhaus", HostTrouble, Policy),
            (Stage::Banner, 521, None, "Server does not accept mail", HostTrouble, Infrastructure),
            (Stage::Banner, 421, None, "Too many connections, slow down", HostTrouble, Throttled),
            (Stage::Ehlo, 550, None, "no such user", HostTrouble, Infrastructure),
            (Stage::Ehlo, 421, Some((4, 3, 2)), "Service not available", HostTrouble, Infrastructure),
            (Stage::StartTls, 454, None, "TLS not available", HostTrouble, Infrastructure),
            (Stage::StartTls, 0, None, "handshake failed", HostTrouble, Infrastructure),
            (Stage::Auth, 535, Some((5, 7, 8)), "Authentication failed", HostTrouble, Policy),
            (Stage::Banner, 220, None, "", HostTrouble, Infrastructure),
            (Stage::Banner, 400, None, "slow down", HostTrouble, Throttled),
            (Stage::Banner, 451, None, "Greylisted", HostTrouble, Greylisted),
            (Stage::Connect, 0, None, "too many open files", HostTrouble, Infrastructure),
        ],
        false,
    );
}

#[test]
#[rustfmt::skip] // rows of a table
fn a_5xx_to_mail_rcpt_data_or_the_dot_is_final() {
    check(
        &[
            (Stage::Mail, 550, Some((5, 7, 1)), "Sender rejected by policy", Permanent, Policy),
            (Stage::Mail, 530, Some((5, 7, 0)), "Must issue a STARTTLS command first", Permanent, Policy),
            (Stage::Mail, 552, Some((5, 3, 4)), "Message size exceeds fixed limit", Permanent, Content),
            (Stage::Rcpt, 550, Some((5, 1, 1)), "The email account that you tried to reach does not exist", Permanent, Recipient),
            (Stage::Rcpt, 550, Some((5, 4, 1)), "Recipient address rejected: Access denied", Permanent, Recipient),
            (Stage::Rcpt, 550, Some((5, 5, 0)), "Requested action not taken: mailbox unavailable", Permanent, Recipient),
            (Stage::Rcpt, 550, Some((5, 2, 1)), "The account is inactive", Permanent, Recipient),
            (Stage::Rcpt, 550, None, "No such user here", Permanent, Recipient),
            (Stage::Rcpt, 554, Some((5, 7, 1)), "Relay access denied", Permanent, Policy),
            (Stage::Rcpt, 556, Some((5, 1, 10)), "null MX", Permanent, Dns),
            (Stage::Data, 554, Some((5, 5, 1)), "no valid recipients", Permanent, Infrastructure),
            (Stage::FinalDot, 550, Some((5, 7, 515)), "Access denied, sending domain does not meet the required authentication level", Permanent, Policy),
            (Stage::FinalDot, 550, Some((5, 7, 26)), "Unauthenticated email is not accepted due to DMARC policy", Permanent, Policy),
            (Stage::FinalDot, 554, None, "Transaction failed: virus found", Permanent, Content),
            (Stage::FinalDot, 552, None, "", Permanent, Content),
            (Stage::FinalDot, 554, Some((5, 6, 0)), "Malformed header", Permanent, Content),
        ],
        false,
    );
}

#[test]
#[rustfmt::skip] // rows of a table
fn a_precise_enhanced_code_says_more_than_words_and_words_more_than_any_other() {
    check(
        &[
            (Stage::Rcpt, 550, Some((5, 1, 1)), "rejected by policy", Permanent, Recipient),
            (Stage::Rcpt, 550, Some((5, 1, 0)), "rejected by policy", Permanent, Policy),
            (Stage::Rcpt, 550, Some((5, 6, 2)), "rejected by policy", Permanent, Content),
            (Stage::Rcpt, 550, Some((5, 6, 0)), "rejected by policy", Permanent, Policy),
            (Stage::Rcpt, 550, Some((5, 2, 1)), "rejected by policy", Permanent, Recipient),
            (Stage::Rcpt, 500, Some((5, 2, 1)), "rejected by policy", Permanent, Recipient),
            (Stage::Rcpt, 450, Some((4, 2, 1)), "mailbox full", Transient, MailboxFull),
            (Stage::Rcpt, 550, Some((5, 2, 2)), "rejected by policy", Permanent, MailboxFull),
            (Stage::Rcpt, 550, Some((5, 2, 3)), "rejected by policy", Permanent, Content),
            (Stage::Rcpt, 550, Some((5, 2, 4)), "rejected by policy", Permanent, Policy),
            (Stage::Rcpt, 550, Some((5, 4, 1)), "rejected by policy", Permanent, Policy),
            (Stage::Rcpt, 500, Some((5, 4, 1)), "Recipient address rejected: Access denied", Permanent, Policy),
            (Stage::Rcpt, 451, Some((4, 4, 1)), "too many connections", Transient, Throttled),
            (Stage::Rcpt, 550, Some((5, 4, 4)), "rejected by policy", Permanent, Policy),
            (Stage::Rcpt, 550, Some((5, 3, 0)), "rejected by policy", Permanent, Policy),
        ],
        false,
    );
}

#[test]
#[rustfmt::skip] // rows of a table
fn a_refusal_without_a_reason_never_looks_like_an_unknown_recipient() {
    check(
        &[
            (Stage::Rcpt, 550, None, "", Permanent, Unspecified),
            (Stage::Rcpt, 550, None, "Requested action not taken: mailbox unavailable", Permanent, Unspecified),
            (Stage::Rcpt, 550, Some((5, 7, 1)), "Service unavailable; client host blocked using Spamhaus", Permanent, Policy),
            (Stage::Rcpt, 553, None, "[BL21] Connections not accepted: on our block list", Permanent, Policy),
        ],
        false,
    );
}

#[test]
#[rustfmt::skip] // rows of a table
fn what_a_host_lacks_for_a_message_that_requires_tls_says_nothing_against_its_sender() {
    check(
        &[
            (Stage::Mail, 550, Some((5, 7, 30)), "REQUIRETLS support required: no host of the domain that may be trusted has it", Permanent, Infrastructure),
            (Stage::Mail, 550, Some((5, 7, 10)), "Encryption needed: the domain does not name this host in what it enforces with MTA-STS", Permanent, Infrastructure),
            (Stage::Mail, 550, Some((5, 7, 10)), "Encryption needed: TLS handshake: invalid peer certificate: Expired", Permanent, Infrastructure),
            (Stage::StartTls, 0, Some((4, 7, 5)), "TLS handshake: invalid peer certificate: Expired", HostTrouble, Infrastructure),
            (Stage::Dns, 0, Some((4, 7, 5)), "whether the domain has an MTA-STS policy can't be found out", HostTrouble, Dns),
        ],
        false,
    );
}

#[test]
#[rustfmt::skip] // rows of a table
fn listed_5xx_are_temporary() {
    check(
        &[
            (Stage::Mail, 550, None, "Mail content denied: Ip frequency limited", Transient, Throttled),
            (Stage::Rcpt, 550, None, "Domain Frequency Limited [x]", Transient, Throttled),
            (Stage::FinalDot, 554, None, "HL:ITC 163 smtp5", Transient, Throttled),
            (Stage::Mail, 550, None, "Max message per connection reached", Transient, Throttled),
            (Stage::Rcpt, 554, None, "Too many messages for this session", Transient, Throttled),
            (Stage::Rcpt, 550, Some((5, 5, 3)), "", Transient, Throttled),
            (Stage::Rcpt, 550, Some((5, 7, 1)), "Greylisted, please try again", Transient, Greylisted),
            (Stage::Rcpt, 550, Some((4, 7, 1)), "come back later", Transient, Policy),
        ],
        false,
    );
}

#[test]
#[rustfmt::skip] // rows of a table
fn a_552_to_rcpt_is_about_too_many_recipients_unless_it_says_otherwise() {
    check(
        &[
            (Stage::Rcpt, 552, None, "", Transient, Throttled),
            (Stage::Rcpt, 552, None, "Too many recipients", Transient, Throttled),
            (Stage::Rcpt, 552, Some((5, 5, 3)), "", Transient, Throttled),
            (Stage::Rcpt, 552, Some((5, 2, 2)), "The account is over quota", Permanent, MailboxFull),
            (Stage::Rcpt, 552, None, "Mailbox full", Permanent, MailboxFull),
            (Stage::Rcpt, 552, Some((5, 3, 4)), "Message too large", Permanent, Content),
            (Stage::Rcpt, 552, Some((5, 1, 1)), "", Permanent, Recipient),
        ],
        false,
    );
}

#[test]
#[rustfmt::skip] // rows of a table
fn a_4xx_is_tried_again_and_says_why() {
    check(
        &[
            (Stage::Mail, 421, Some((4, 7, 0)), "[TSS04] Messages temporarily deferred", Transient, Throttled),
            (Stage::Mail, 421, None, "Service not available, closing", Transient, Infrastructure),
            (Stage::Rcpt, 450, Some((4, 2, 0)), "Recipient address rejected: Greylisted", Transient, Greylisted),
            (Stage::Rcpt, 450, Some((4, 2, 1)), "The user is receiving mail at a rate that", Transient, Throttled),
            (Stage::Rcpt, 452, Some((4, 2, 2)), "The account is over quota", Transient, MailboxFull),
            (Stage::Rcpt, 452, Some((4, 5, 3)), "Too many recipients", Transient, Throttled),
            (Stage::Rcpt, 451, Some((4, 4, 3)), "Temporary DNS failure", Transient, Dns),
            (Stage::Rcpt, 451, None, "", Transient, Infrastructure),
            (Stage::Rcpt, 450, None, "", Transient, Unspecified),
            (Stage::Data, 451, Some((4, 3, 0)), "Try again", Transient, Infrastructure),
            (Stage::FinalDot, 421, Some((4, 7, 28)), "Gmail has detected an unusual rate", Transient, Throttled),
            (Stage::FinalDot, 451, Some((4, 7, 1)), "Rate limited", Transient, Throttled),
        ],
        false,
    );
}

#[test]
#[rustfmt::skip] // rows of a table
fn a_connection_lost_in_the_transaction_is_an_attempt_and_after_the_dot_it_is_in_doubt() {
    for stage in [Stage::Mail, Stage::Rcpt, Stage::Data, Stage::FinalDot] {
        check(
            &[(
                stage,
                0,
                None,
                "connection reset",
                Transient,
                Infrastructure,
            )],
            false,
        );
        check(
            &[(stage, 0, None, "connection reset", InDoubt, Unspecified)],
            true,
        );
    }
    check(
        &[
            (Stage::FinalDot, 354, None, "nonsense", InDoubt, Unspecified),
            (Stage::FinalDot, 999, None, "nonsense", InDoubt, Unspecified),
            (Stage::Rcpt, 250, None, "accepted, and then nothing", InDoubt, Unspecified),
            (Stage::FinalDot, 250, None, "queued", Delivered, Unspecified),
            (Stage::FinalDot, 451, Some((4, 3, 0)), "", Transient, Infrastructure),
            (Stage::FinalDot, 554, Some((5, 7, 1)), "", Permanent, Policy),
            (Stage::Rcpt, 550, Some((5, 1, 1)), "refused while others were accepted", Permanent, Recipient),
        ],
        true,
    );
}

#[test]
#[rustfmt::skip] // rows of a table
fn names_that_do_not_exist_are_final_and_silent_name_servers_are_not() {
    check(
        &[
            (Stage::Dns, 0, Some((5, 1, 2)), "no such domain", Permanent, Dns),
            (Stage::Dns, 556, Some((5, 1, 10)), "null MX", Permanent, Dns),
            (Stage::Dns, 550, None, "no such domain", Permanent, Dns),
            (Stage::Dns, 0, Some((4, 4, 3)), "SERVFAIL", HostTrouble, Dns),
            (Stage::Dns, 0, None, "time-out", HostTrouble, Dns),
        ],
        false,
    );
}

#[test]
fn what_was_given_back_before_it_began_is_no_attempt() {
    check(
        &[(
            Stage::Prepare,
            0,
            None,
            "the signer does not answer",
            Returned,
            Unspecified,
        )],
        false,
    );
    check(
        &[(
            Stage::Rcpt,
            250,
            None,
            "no data followed",
            Transient,
            Infrastructure,
        )],
        false,
    );
}

#[test]
fn text_of_any_kind_and_length_is_read_safely() {
    let long = "é".repeat(5000);
    check(
        &[(
            Stage::Rcpt,
            550,
            None,
            Box::leak(long.into_boxed_str()),
            Permanent,
            Unspecified,
        )],
        false,
    );
    check(
        &[(
            Stage::Rcpt,
            550,
            None,
            "\u{0}\u{fffd}\r\n user UNKNOWN",
            Permanent,
            Recipient,
        )],
        false,
    );
}
