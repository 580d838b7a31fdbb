//! What follows from what a scanner says of a message, or from its silence. Pure: the scanner's document decides.

use std::borrow::Cow;

use config::{Engine, Scanner, Spam, WhenDown, WhenTooLarge};
use scan::{Opinion, Reply, Verdict};
use smtp::EnhancedCode;

use crate::answer::{self, Answer};

/// Why a scanner says nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// It was a moment ago, and is not asked.
    #[error("it is down")]
    Down,
    /// Others are before this message for too long.
    #[error("it has too much to do")]
    Busy,
    /// Nobody is there.
    #[error("it can't be reached: {0}")]
    Unreachable(std::io::Error),
    /// It is too slow.
    #[error("it does not answer in time")]
    Late,
    /// It says nothing of use.
    #[error("{0}")]
    Broken(Cow<'static, str>),
}

/// What follows for a message.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// It is refused with it.
    pub(crate) refusal: Option<Answer>,
    /// Header fields to be put before it.
    pub(crate) fields: Vec<u8>,
    /// It is to be kept until somebody releases it.
    pub(crate) hold: bool,
    /// For metrics and logs.
    pub(crate) label: &'static str,
}

const CLEAN: &str = "clean";

impl Judgement {
    /// Whether nothing was found.
    pub(crate) fn is_clean(&self) -> bool {
        self.label == CLEAN
    }

    fn accepted(label: &'static str) -> Self {
        Self {
            refusal: None,
            fields: Vec::new(),
            hold: false,
            label,
        }
    }

    fn refused(label: &'static str, refusal: Answer) -> Self {
        Self {
            refusal: Some(refusal),
            ..Self::accepted(label)
        }
    }
}

/// Judges a message by what came of showing it to the scanner.
pub(crate) fn judge(scanner: &Scanner, outcome: &Result<Verdict, Failure>) -> Judgement {
    let verdict = match outcome {
        Ok(verdict) => verdict,
        Err(Failure::Down | Failure::Unreachable(_)) => return unscanned(scanner, "down"),
        Err(Failure::Busy) => return unscanned(scanner, "busy"),
        Err(Failure::Late) => return unscanned(scanner, "late"),
        Err(Failure::Broken(_)) => return unscanned(scanner, "failed"),
    };
    match &verdict.opinion {
        Opinion::Clean => Judgement {
            fields: verdict.fields.clone(),
            hold: verdict.hold,
            ..Judgement::accepted(if verdict.hold { "held" } else { CLEAN })
        },
        Opinion::Infected(name) => {
            let text = format!("Message refused: it contains {name}");
            let refusal = Answer::with(554, EnhancedCode(5, 7, 1), text);
            Judgement::refused("infected", refusal)
        }
        Opinion::Spam => spam(scanner, verdict),
        Opinion::Refuse(reply) => {
            let label = if reply.code < 500 {
                "deferred"
            } else {
                "rejected"
            };
            Judgement::refused(label, answer(reply))
        }
        Opinion::TooLarge => match scanner.when_too_large {
            WhenTooLarge::Accept => Judgement::accepted("tooLarge"),
            // The scanner takes less than `maxSize`: its head could not be scanned.
            WhenTooLarge::Reject | WhenTooLarge::ScanHead => {
                Judgement::refused("tooLarge", answer::TOO_LARGE_TO_SCAN)
            }
        },
        Opinion::Unable(_) => unscanned(scanner, "failed"),
    }
}

fn unscanned(scanner: &Scanner, label: &'static str) -> Judgement {
    match scanner.when_down {
        WhenDown::Defer => Judgement::refused(label, answer::NOT_SCANNED),
        WhenDown::Accept => Judgement::accepted(label),
    }
}

fn spam(scanner: &Scanner, verdict: &Verdict) -> Judgement {
    let policy = match scanner.engine {
        Engine::Rspamd { spam } => spam,
        Engine::ClamAv | Engine::Milter => Spam::default(),
    };
    let found = Judgement::accepted("spam");
    match policy {
        Spam::Mark => Judgement {
            fields: verdict.fields.clone(),
            ..found
        },
        Spam::Accept => found,
        Spam::Hold => Judgement {
            hold: true,
            ..found
        },
        Spam::Reject => Judgement::refused("spam", answer::LOOKS_LIKE_SPAM),
    }
}

fn answer(reply: &Reply) -> Answer {
    Answer::with(reply.code, reply.enhanced, reply.text.clone())
}

/// The answer to a message, when one of the judgements refuses it: for good rather than for now, else of the first scanner.
pub(crate) fn refusal<'a>(judgements: impl Iterator<Item = &'a Judgement>) -> Option<Answer> {
    let refusals = judgements.filter_map(|judgement| judgement.refusal.as_ref());
    // The first of those that are equal.
    refusals.min_by_key(|answer| answer.code < 500).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scanner(spec: &str) -> Scanner {
        let document = format!(
            "apiVersion: staffetta.dev/v1alpha1\nkind: Scanner\nmetadata: {{ name: s }}\nspec: {{ {spec} }}\n"
        );
        let snapshot = config::Snapshot::from_documents(&document).unwrap();
        Scanner::clone(snapshot.scanner("s").unwrap())
    }

    #[test]
    fn what_is_said_and_what_is_not_follow_the_policy() {
        let closed = "clamav: { address: \"a:1\" }";
        let open = "clamav: { address: \"a:1\" }, whenDown: accept, whenTooLarge: accept";
        let head = "clamav: { address: \"a:1\" }, whenTooLarge: scanHead";
        let said = |opinion: Opinion| Ok(Verdict::from(opinion));
        let broken = || Err(Failure::Broken("x".into()));
        let table: Vec<(&str, Result<Verdict, Failure>, &str, u16)> = vec![
            (closed, said(Opinion::Clean), "clean", 0),
            (
                open,
                said(Opinion::Infected("Eicar".to_owned())),
                "infected",
                554,
            ),
            (
                open,
                said(Opinion::Refuse(Reply::refused("no"))),
                "rejected",
                554,
            ),
            (
                open,
                said(Opinion::Refuse(Reply::later("no"))),
                "deferred",
                451,
            ),
            (closed, said(Opinion::TooLarge), "tooLarge", 552),
            (head, said(Opinion::TooLarge), "tooLarge", 552),
            (open, said(Opinion::TooLarge), "tooLarge", 0),
            (closed, said(Opinion::Unable("x".to_owned())), "failed", 451),
            (open, said(Opinion::Unable("x".to_owned())), "failed", 0),
            (closed, Err(Failure::Down), "down", 451),
            (closed, Err(Failure::Busy), "busy", 451),
            (closed, Err(Failure::Late), "late", 451),
            (closed, broken(), "failed", 451),
            (open, Err(Failure::Down), "down", 0),
            (open, Err(Failure::Busy), "busy", 0),
            (open, Err(Failure::Late), "late", 0),
            (open, broken(), "failed", 0),
        ];
        for (spec, outcome, label, code) in table {
            let judgement = judge(&scanner(spec), &outcome);
            let found = judgement.refusal.as_ref().map_or(0, |answer| answer.code);
            assert_eq!(
                (judgement.label, found),
                (label, code),
                "{spec} {outcome:?}"
            );
            assert!(judgement.fields.is_empty() && !judgement.hold);
        }
    }

    #[test]
    fn what_looks_like_spam_is_marked_taken_held_or_refused() {
        let verdict = || Verdict {
            fields: b"X-Spam: Yes\r\n".to_vec(),
            ..Opinion::Spam.into()
        };
        for (policy, fields, hold, refused) in [
            ("", "X-Spam: Yes\r\n", false, false),
            (", spam: mark", "X-Spam: Yes\r\n", false, false),
            (", spam: accept", "", false, false),
            (", spam: hold", "", true, false),
            (", spam: reject", "", false, true),
        ] {
            let spec = format!("rspamd: {{ address: \"a:1\"{policy} }}");
            let judgement = judge(&scanner(&spec), &Ok(verdict()));
            assert_eq!(judgement.fields, fields.as_bytes(), "{policy}");
            assert_eq!(
                (judgement.hold, judgement.refusal.is_some()),
                (hold, refused)
            );
            assert_eq!(judgement.label, "spam");
        }
        let held = Verdict {
            hold: true,
            ..Opinion::Clean.into()
        };
        let judgement = judge(&scanner("milter: { address: \"a:1\" }"), &Ok(held));
        assert!(judgement.hold && judgement.refusal.is_none());
    }

    #[test]
    fn a_refusal_for_good_comes_before_one_for_now() {
        let refused = |reply| Judgement::refused("x", answer(&reply));
        let all = [
            Judgement::accepted(CLEAN),
            refused(Reply::later("first")),
            refused(Reply::refused("second")),
            refused(Reply::refused("third")),
        ];
        assert_eq!(refusal(all.iter()).unwrap().text, "second");
        assert_eq!(refusal(all[..2].iter()).unwrap().text, "first");
        assert_eq!(refusal(all[..1].iter()), None);
    }
}
