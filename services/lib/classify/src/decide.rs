//! The decision.

use crate::rules::{CODES, ENHANCED, NOT_ABOUT_RECIPIENT_COUNT, Replies, TEMPORARY, TEXTS};
use crate::{Class, Kind, Observation, Stage, Verdict};

/// As much of a reply's text as is looked at, bytes.
const TEXT_LIMIT: usize = 1024;

/// Says what an observation means. Never fails: what makes no sense is taken for the mildest thing that it can
/// be, in doubt once the final dot was sent, transient before.
pub fn classify(seen: &Observation<'_>) -> Verdict {
    let understood = matches!(seen.code, 200..=299 | 400..=599);
    let no_final_word = !understood || (seen.code < 300 && seen.stage != Stage::FinalDot);
    if seen.dot_sent && no_final_word {
        return verdict(Kind::InDoubt, Class::Unspecified);
    }
    match seen.stage {
        Stage::Prepare => verdict(Kind::Returned, Class::Unspecified),
        Stage::Dns => dns(seen),
        stage if !stage.concerns_message() => verdict(Kind::HostTrouble, host_trouble(seen)),
        _ => message(seen),
    }
}

const fn verdict(kind: Kind, class: Class) -> Verdict {
    Verdict { kind, class }
}

fn dns(seen: &Observation<'_>) -> Verdict {
    let is_final = match seen.enhanced {
        Some((first, _, _)) => first == 5,
        None => seen.code >= 500,
    };
    verdict(
        if is_final {
            Kind::Permanent
        } else {
            Kind::HostTrouble
        },
        Class::Dns,
    )
}

fn host_trouble(seen: &Observation<'_>) -> Class {
    if seen.code < 400 {
        return Class::Infrastructure;
    }
    match class_of(seen, &lower_case(seen.text)) {
        // What is said of a recipient or a message before there is one is not meant so.
        Class::Policy => Class::Policy,
        Class::Throttled => Class::Throttled,
        Class::Greylisted => Class::Greylisted,
        _ => Class::Infrastructure,
    }
}

fn message(seen: &Observation<'_>) -> Verdict {
    match seen.code {
        200..=299 if seen.stage == Stage::FinalDot => verdict(Kind::Delivered, Class::Unspecified),
        400..=499 => verdict(Kind::Transient, class_of(seen, &lower_case(seen.text))),
        500..=599 => refused(seen),
        // The connection broke in the transaction, or the host said what no client can understand. The
        // attempt counts, or one message on which a host always breaks would be tried for ever.
        _ => verdict(Kind::Transient, Class::Infrastructure),
    }
}

fn refused(seen: &Observation<'_>) -> Verdict {
    let text = lower_case(seen.text);
    for rule in TEMPORARY {
        let stage_fits = rule.stages.is_empty() || rule.stages.contains(&seen.stage);
        let code_fits = rule.codes.is_empty() || rule.codes.contains(&seen.code);
        let enhanced_fits = rule.enhanced.is_empty()
            || seen
                .enhanced
                .is_some_and(|(_, subject, detail)| rule.enhanced.contains(&(subject, detail)));
        let text_fits = rule.texts.is_empty() || rule.texts.iter().any(|part| text.contains(part));
        if stage_fits && code_fits && enhanced_fits && text_fits {
            return verdict(Kind::Transient, rule.class);
        }
    }
    let class = class_of(seen, &text);
    // A 5xx with an enhanced code that says "temporary" contradicts itself. A retry can be taken back, a bounce can't.
    let contradicts_itself = seen.enhanced.is_some_and(|(first, _, _)| first == 4);
    if contradicts_itself {
        return verdict(Kind::Transient, class);
    }
    if seen.code == 552 && seen.stage == Stage::Rcpt {
        let named = reason_given(seen, &text);
        if !named.is_some_and(|class| NOT_ABOUT_RECIPIENT_COUNT.contains(&class)) {
            return verdict(Kind::Transient, Class::Throttled);
        }
    }
    verdict(Kind::Permanent, class)
}

fn class_of(seen: &Observation<'_>, text: &str) -> Class {
    reason_given(seen, text).unwrap_or_else(|| {
        let by_code = CODES.iter().find(|(code, _)| *code == seen.code);
        by_code.map_or(Class::Unspecified, |(_, class)| *class)
    })
}

/// The reason that the reply gives itself. An enhanced code about the recipient, the mailbox or the content is
/// precise; the others are used for everything, so that words are better when there are some.
fn reason_given(seen: &Observation<'_>, text: &str) -> Option<Class> {
    let by_enhanced = seen
        .enhanced
        .and_then(|(_, subject, detail)| by_enhanced(subject, detail, seen.code < 500));
    let precise = seen
        .enhanced
        .is_some_and(|(_, subject, detail)| match subject {
            1 | 6 => detail != 0,
            2 => matches!(detail, 2 | 3) || (detail == 1 && seen.code >= 500),
            4 => detail == 1 && seen.code >= 500,
            _ => false,
        });
    if precise {
        return by_enhanced;
    }
    let by_text = TEXTS
        .iter()
        .find(|(part, _)| text.contains(part))
        .map(|(_, class)| *class);
    // 5.5.0 to RCPT is how Outlook.com says that there is no such mailbox.
    let outlook = seen.stage == Stage::Rcpt
        && seen.code >= 500
        && seen.enhanced.is_some_and(|code| code == (5, 5, 0));
    by_text.or(if outlook {
        Some(Class::Recipient)
    } else {
        by_enhanced
    })
}

fn by_enhanced(subject: u16, detail: u16, temporary: bool) -> Option<Class> {
    let wanted = if temporary {
        Replies::Temporary
    } else {
        Replies::Final
    };
    ENHANCED
        .iter()
        .find(|(row_subject, row_detail, replies, _)| {
            *row_subject == subject
                && row_detail.is_none_or(|row_detail| row_detail == detail)
                && (*replies == Replies::Both || *replies == wanted)
        })
        .map(|(_, _, _, class)| *class)
}

fn lower_case(text: &str) -> String {
    text[..text.floor_char_boundary(TEXT_LIMIT)].to_ascii_lowercase()
}
