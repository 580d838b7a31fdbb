//! What a message is looked over for before it is accepted (requirement A16). Pure: the tenant's checks decide.

use config::{Check, CheckAction, CheckRule, Preflight};
use message::{Inspection, WARNING, inspect};
use smtp::EnhancedCode;

use crate::answer::Answer;

/// What was found, and what follows.
#[derive(Debug, Default)]
pub(crate) struct Findings<'a> {
    /// Of the checks that warn.
    pub(crate) warnings: Vec<&'a Check>,
    /// Checks for which the message is refused; some of the warnings, when they weigh too much together.
    pub(crate) refused_for: Vec<&'a Check>,
}

impl Findings<'_> {
    /// Nothing was found.
    pub(crate) fn is_empty(&self) -> bool {
        self.warnings.is_empty() && self.refused_for.is_empty()
    }

    /// The answer to a message that is refused.
    pub(crate) fn refusal(&self) -> Option<Answer> {
        let reasons: Vec<String> = self
            .refused_for
            .iter()
            .map(|check| format!("{} ({})", check.rule.explanation(), check.rule.name()))
            .collect();
        (!reasons.is_empty()).then(|| {
            Answer::with(
                554,
                EnhancedCode(5, 7, 1),
                format!("Message refused: {}", reasons.join(", ")),
            )
        })
    }

    /// The warnings as header fields.
    pub(crate) fn header_fields(&self) -> String {
        self.warnings
            .iter()
            .map(|check| {
                let (name, what) = (check.rule.name(), check.rule.explanation());
                format!("{WARNING}: {name}; weight={}; {what}\r\n", check.weight)
            })
            .collect()
    }
}

/// Looks over a header section. `smtputf8`: the client said that it may need it.
pub(crate) fn look_over<'a>(
    header: &[u8],
    preflight: &'a Preflight,
    stream: &'a str,
    smtputf8: bool,
) -> Findings<'a> {
    if preflight.checks.is_empty() {
        return Findings::default();
    }
    let inspection = inspect(header);
    let found = |check: &&Check| is_found(check.rule, &inspection, smtputf8);
    let (warnings, mut refused_for): (Vec<&Check>, Vec<&Check>) = preflight
        .of_stream(stream)
        .filter(found)
        .partition(|check| check.action == CheckAction::Warn);
    let weight: u32 = warnings.iter().map(|check| check.weight).sum();
    if preflight.reject_at.is_some_and(|most| weight >= most) {
        refused_for.extend(&warnings);
    }
    Findings {
        warnings,
        refused_for,
    }
}

fn is_found(rule: CheckRule, inspection: &Inspection, smtputf8: bool) -> bool {
    match rule {
        CheckRule::NoSubject => !inspection.has_subject,
        CheckRule::NoRecipientField => !inspection.names_recipients,
        CheckRule::NoUnsubscribe => !inspection.has_unsubscribe,
        CheckRule::NoOneClick => !inspection.has_one_click,
        CheckRule::MalformedHeader => inspection.malformed_lines > 0,
        CheckRule::EightBitHeader => inspection.has_eight_bit && !smtputf8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: CheckRule, action: CheckAction, weight: u32) -> Check {
        Check {
            rule,
            action,
            weight,
            streams: Vec::new(),
        }
    }

    #[test]
    fn every_rule_finds_what_it_is_for_and_nothing_else() {
        use CheckRule::*;
        let good = "From: a@b\r\nTo: c@d\r\nSubject: s\r\nList-Unsubscribe: <u>\r\nList-Unsubscribe-Post: x\r\n";
        for (rule, header) in [
            (NoSubject, good.replace("Subject: s", "Subject: ")),
            (NoRecipientField, good.replace("To: c@d", "Bcc: c@d")),
            (NoUnsubscribe, good.replace("List-Unsubscribe:", "X-L:")),
            (NoOneClick, good.replace("List-Unsubscribe-Post:", "X-L:")),
            (MalformedHeader, format!("{good}no field\r\n")),
            (EightBitHeader, good.replace("Subject: s", "Subject: ü")),
        ] {
            let preflight = Preflight {
                checks: vec![check(rule, CheckAction::Reject, 1)],
                ..Preflight::default()
            };
            let refused =
                |header: &str| look_over(header.as_bytes(), &preflight, "s", false).refusal();
            assert_eq!(refused(good), None, "{rule:?}");
            let answer = refused(&header).unwrap();
            assert_eq!(answer.code, 554);
            assert!(answer.text.contains(rule.name()), "{rule:?}");
            if rule == EightBitHeader {
                let findings = look_over(header.as_bytes(), &preflight, "s", true);
                assert!(findings.refused_for.is_empty());
            }
        }
    }

    #[test]
    fn warnings_are_said_until_they_weigh_too_much() {
        let mut preflight = Preflight {
            checks: vec![
                check(CheckRule::NoSubject, CheckAction::Warn, 2),
                check(CheckRule::NoRecipientField, CheckAction::Warn, 3),
            ],
            reject_at: Some(5),
            warn_header: true,
        };
        let findings = look_over(b"To: c@d\r\n", &preflight, "s", false);
        assert_eq!(findings.refusal(), None);
        assert_eq!(
            findings.header_fields(),
            "X-Staffetta-Warning: noSubject; weight=2; it has no subject\r\n"
        );
        let both = look_over(b"X: y\r\n", &preflight, "s", false);
        assert_eq!(
            both.refusal().unwrap().text,
            "Message refused: it has no subject (noSubject), it names nobody in To or Cc (noRecipientField)"
        );
        preflight.checks[1].streams = vec!["bulk".to_owned()];
        let refused = |stream| look_over(b"X: y\r\n", &preflight, stream, false).refusal();
        assert!(refused("bulk").is_some() && refused("s").is_none());
    }
}
