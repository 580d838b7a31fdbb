//! What was found, and what follows.

use std::borrow::Cow;

use config::{Check, CheckAction};
use message::WARNING;

/// The longest refusal, characters; more reasons are counted.
const LONGEST_REFUSAL: usize = 360;

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Name of the rule.
    pub rule: &'static str,
    /// Of a warning.
    pub weight: u32,
    /// What is wrong, for the sender of the message; printable ASCII that repeats nothing of the message.
    pub what: Cow<'static, str>,
}

/// All that was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// Of the checks that warn.
    pub warnings: Vec<Finding>,
    /// What the message is refused for; some of the warnings, when they weigh too much together.
    pub refused_for: Vec<Finding>,
}

impl Findings {
    /// What follows from what checks found, and from what was warned of before.
    pub(crate) fn of<'a>(
        found: impl Iterator<Item = (&'a Check, Cow<'static, str>)>,
        earlier: Vec<Finding>,
        reject_at: Option<u32>,
    ) -> Self {
        let mut findings = Self {
            warnings: earlier,
            refused_for: Vec::new(),
        };
        for (check, what) in found {
            let finding = Finding {
                rule: check.rule.name(),
                weight: check.weight,
                what,
            };
            if check.action == CheckAction::Reject {
                findings.refused_for.push(finding);
            } else {
                findings.warnings.push(finding);
            }
        }
        if reject_at.is_some_and(|most| findings.weight() >= most) {
            findings.refused_for.extend_from_slice(&findings.warnings);
        }
        findings
    }

    /// What the warnings weigh together.
    pub fn weight(&self) -> u32 {
        self.warnings.iter().map(|finding| finding.weight).sum()
    }

    /// Nothing was found.
    pub fn is_empty(&self) -> bool {
        self.warnings.is_empty() && self.refused_for.is_empty()
    }

    /// What is said to the client of a message that is refused.
    pub fn refusal(&self) -> Option<String> {
        let mut text = String::new();
        for (number, finding) in self.refused_for.iter().enumerate() {
            let reason = format!("{} ({})", finding.what, finding.rule);
            if number > 0 && text.len() + reason.len() > LONGEST_REFUSAL {
                let more = self.refused_for.len() - number;
                text.push_str(&format!(", and {more} more"));
                break;
            }
            text.push_str(if number == 0 {
                "Message refused: "
            } else {
                ", "
            });
            text.push_str(&reason);
        }
        (!text.is_empty()).then_some(text)
    }

    /// The warnings as header fields, each with its CRLF.
    pub fn header_fields(&self) -> String {
        self.warnings
            .iter()
            .map(|Finding { rule, weight, what }| {
                format!("{WARNING}: {rule}; weight={weight}; {what}\r\n")
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use config::CheckRule;

    use super::*;

    fn check(action: CheckAction, weight: u32) -> Check {
        Check {
            rule: CheckRule::NoSubject,
            action,
            weight,
            streams: Vec::new(),
        }
    }

    fn findings(checks: &[Check], earlier: Vec<Finding>, reject_at: Option<u32>) -> Findings {
        let found = checks.iter().map(|check| (check, "it is so".into()));
        Findings::of(found, earlier, reject_at)
    }

    #[test]
    fn warnings_are_said_until_they_weigh_too_much_with_those_before() {
        let checks = [check(CheckAction::Warn, 3)];
        let light = findings(&checks, Vec::new(), Some(5));
        assert_eq!(light.refusal(), None);
        assert_eq!(
            light.header_fields(),
            "X-Staffetta-Warning: noSubject; weight=3; it is so\r\n"
        );
        let heavy = findings(&checks, light.warnings, Some(5));
        assert_eq!(
            heavy.refusal().as_deref(),
            Some("Message refused: it is so (noSubject), it is so (noSubject)")
        );
        assert_eq!(heavy.warnings.len(), 2);
        assert_eq!(findings(&checks, heavy.warnings, None).refusal(), None);
    }

    #[test]
    fn what_rejects_is_no_warning() {
        let strict = findings(&[check(CheckAction::Reject, 1)], Vec::new(), None);
        assert!(strict.warnings.is_empty() && strict.refusal().is_some());
    }

    #[test]
    fn a_refusal_is_no_longer_than_a_reply_may_be() {
        let checks = vec![check(CheckAction::Reject, 1); 64];
        let refusal = findings(&checks, Vec::new(), None).refusal().unwrap();
        assert!(refusal.len() <= 400, "{refusal}");
        assert!(refusal.ends_with("(noSubject), and 49 more"), "{refusal}");
    }
}
