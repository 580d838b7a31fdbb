//! The rules against replies in other words than theirs.

use std::collections::BTreeMap;

use classify::{Kind, Observation, Reason, Rules, Stage};

const REPLIES: &str = include_str!("replies.txt");

struct Row<'a> {
    reason: Reason,
    is_temporary: bool,
    code: u16,
    enhanced: Option<(u8, u16, u16)>,
    text: &'a str,
}

fn rows() -> Vec<Row<'static>> {
    let mut reason = Reason::Unspecified;
    let mut rows = Vec::new();
    let lines = REPLIES
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    for line in lines {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            let known = Reason::ALL.into_iter().find(|reason| reason.name() == name);
            reason = known.expect("a section is called as a reason");
        } else {
            rows.push(row(line, reason).expect("a line is a code, an enhanced code and a text"));
        }
    }
    rows
}

fn row(line: &str, reason: Reason) -> Option<Row<'_>> {
    let mut parts = line.trim_start_matches('~').splitn(3, ' ');
    let code: u16 = parts.next()?.parse().ok()?;
    let enhanced = match parts.next()? {
        "-" => None,
        text => {
            let mut numbers = text.split('.').map(str::parse::<u16>);
            let mut next = || numbers.next()?.ok();
            Some((u8::try_from(next()?).ok()?, next()?, next()?))
        }
    };
    Some(Row {
        reason,
        is_temporary: line.starts_with('~') || code < 500,
        code,
        enhanced,
        text: parts.next()?,
    })
}

fn said<'a>(row: &Row<'a>) -> Observation<'a> {
    Observation {
        stage: Stage::Rcpt,
        code: row.code,
        enhanced: row.enhanced,
        text: row.text,
        dot_sent: false,
    }
}

#[test]
fn replies_mean_what_people_read_in_them() {
    let rows = rows();
    assert!(rows.len() >= 300, "{}", rows.len());
    let mut matrix: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut wrong = Vec::new();
    for row in &rows {
        let judged = Rules::shipped().judge_report(&said(row), "");
        *matrix
            .entry((row.reason.name(), judged.reason.name()))
            .or_default() += 1;
        let is_right =
            judged.reason == row.reason && (judged.kind == Kind::Transient) == row.is_temporary;
        if !is_right {
            wrong.push(format!(
                "{} {:?} {:?}: {} {:?}, not {}",
                row.code,
                row.enhanced,
                row.text,
                judged.reason.name(),
                judged.kind,
                row.reason.name()
            ));
        }
    }
    for ((expected, found), count) in &matrix {
        println!("{count:4} {expected} as {found}");
    }
    assert!(
        wrong.is_empty(),
        "{} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn what_is_said_of_the_sender_never_gives_up_a_recipient() {
    let about_sender = |reason: Reason| {
        matches!(
            reason,
            Reason::Reputation
                | Reason::Spam
                | Reason::Authentication
                | Reason::Sender
                | Reason::RelayDenied
                | Reason::Policy
                | Reason::Throttled
                | Reason::Greylisted
        )
    };
    for row in rows().iter().filter(|row| about_sender(row.reason)) {
        // Whatever code a host puts before such words.
        for enhanced in [
            None,
            Some((5, 1, 0)),
            Some((5, 0, 0)),
            Some((5, 7, 1)),
            row.enhanced,
        ] {
            for stage in [Stage::Rcpt, Stage::FinalDot] {
                let seen = Observation {
                    stage,
                    enhanced,
                    ..said(row)
                };
                let judged = Rules::shipped().judge_report(&seen, "");
                let gives_up = judged.kind == Kind::Permanent && judged.reason.is_about_address();
                let is_blamed_on_code =
                    matches!(row.reason, Reason::Policy) && enhanced == Some((5, 1, 0));
                assert!(
                    !gives_up || is_blamed_on_code,
                    "{stage:?} {enhanced:?} {}: {:?}",
                    row.text,
                    judged
                );
            }
        }
    }
}

#[test]
fn words_in_addresses_mean_nothing() {
    for text in [
        "<spam.blocked@virus.example>: rejected",
        "spamhaus@blacklist.example refused",
        "<no.such.user@quota.example>",
    ] {
        let row = Row {
            reason: Reason::Unspecified,
            is_temporary: false,
            code: 550,
            enhanced: None,
            text,
        };
        let judged = Rules::shipped().judge_report(&said(&row), "");
        assert_eq!(judged.reason, Reason::Unspecified, "{text}");
    }
}

#[test]
fn any_text_is_read_in_bounded_time() {
    for piece in [
        "user unknown ",
        "mailbox ",
        "{mailbox} ",
        "用户",
        "a@b ",
        "....",
        "é",
    ] {
        let row = Row {
            reason: Reason::Unspecified,
            is_temporary: false,
            code: 550,
            enhanced: None,
            text: &piece.repeat(200_000),
        };
        let began = std::time::Instant::now();
        Rules::shipped().judge_report(&said(&row), "");
        assert!(began.elapsed().as_secs() < 60, "{piece}");
    }
}
