//! A word for each reason of a refusal, for programs that read events: texts may change.

use smtp::EnhancedCode;

use crate::answer::{self, Answer};

/// Those that their codes don't tell apart.
const NAMED: &[(&Answer, &str)] = &[
    (&answer::NOT_AUTHORISED, "not_authorised"),
    (&answer::LOCKED, "locked"),
    (&answer::AUTH_LOCKED, "locked"),
    (&answer::MONTH_USED_UP, "month_used_up"),
    (&answer::OVER_QUOTA, "quota"),
    (&answer::TOO_MANY_BY_POLICY, "too_many_recipients"),
    (&answer::TOO_MANY_RECIPIENTS, "recipients_per_transaction"),
    (&answer::ADDRESS_LITERAL, "address_literal"),
    (&answer::RECIPIENT_NEEDS_SMTPUTF8, "needs_smtputf8"),
    (&answer::TOO_LARGE_FOR_RECIPIENTS, "too_large"),
    (&answer::TOO_LARGE, "too_large"),
    (&answer::HEADER_TOO_LARGE, "header_too_large"),
    (&answer::LOOP, "loop"),
    (&answer::NO_MEMORY, "storage_full"),
    (&answer::STORAGE_AWAY, "storage_away"),
    (&answer::UNDERWAY, "underway"),
    (&answer::RELEASE_TOO_LATE, "release_too_late"),
    (&answer::LINE_TOO_LONG, "line_too_long"),
    (&answer::NOT_SCANNED, "not_scanned"),
    (&answer::TOO_LARGE_TO_SCAN, "too_large"),
    (&answer::LOOKS_LIKE_SPAM, "spam"),
    (&answer::REQUIRETLS_IN_THE_CLEAR, "needs_tls"),
    (&answer::BY_OR_RETURN, "not_offered"),
    (&answer::BY_TRACE, "not_offered"),
];

/// The word for an answer that refuses.
pub(super) fn reason(answer: &Answer) -> &'static str {
    let named = NAMED.iter().find(|(known, _)| *known == answer);
    if let Some((_, word)) = named {
        return word;
    }
    match (answer.code, answer.enhanced) {
        (_, Some(EnhancedCode(_, 7, 28))) => "quota",
        // The text says as what or in which stream it may not send, or what was found.
        (550, Some(EnhancedCode(5, 7, 1))) => "not_allowed",
        (554, Some(EnhancedCode(5, 7, _))) => "content",
        (_, Some(EnhancedCode(_, 7, _))) => "policy",
        (_, Some(EnhancedCode(_, 6, _))) => "malformed_content",
        (_, Some(EnhancedCode(_, 5, 4))) => "not_offered",
        (_, Some(EnhancedCode(_, 5, _))) => "protocol",
        (_, Some(EnhancedCode(_, 3, 4))) => "too_large",
        (_, Some(EnhancedCode(_, 3, _))) => "storage",
        (_, Some(EnhancedCode(_, 1, _))) => "address",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_its_word_or_that_of_its_codes() {
        let with = |code, enhanced| Answer::with(code, enhanced, "as it happens".to_owned());
        for (answer, expected) in [
            (answer::LOOP, "loop"),
            (answer::STORAGE_FULL, "storage_full"),
            (with(451, EnhancedCode(4, 7, 28)), "quota"),
            (with(550, EnhancedCode(5, 7, 1)), "not_allowed"),
            (with(554, EnhancedCode(5, 7, 1)), "content"),
            (with(554, EnhancedCode(5, 6, 0)), "malformed_content"),
            (answer::BY_TRACE, "not_offered"),
            (Answer::plain(550, "x"), "other"),
        ] {
            assert_eq!(reason(&answer), expected, "{answer:?}");
        }
    }
}
