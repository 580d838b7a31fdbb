//! The decision.

use crate::rules::Looked;
use crate::{Class, Judgement, Kind, Observation, Reason, Rules, Stage, Verdict};

/// A 552 to RCPT is about too many recipients unless its reason is of one of these.
const NOT_ABOUT_RECIPIENT_COUNT: &[Class] = &[
    Class::MailboxFull,
    Class::Content,
    Class::Recipient,
    Class::Policy,
];

/// Says what an observation means, by the shipped rules. Never fails: what makes no sense is taken for the mildest thing that it
/// can be, in doubt once the final dot was sent, transient before.
pub fn classify(seen: &Observation<'_>) -> Verdict {
    Rules::shipped().judge(seen).verdict()
}

impl Rules {
    /// Says what an observation means, and why. Never fails, as [`classify`].
    pub fn judge(&self, seen: &Observation<'_>) -> Judgement {
        let understood = matches!(seen.code, 200..=299 | 400..=599);
        let no_final_word = !understood || (seen.code < 300 && seen.stage != Stage::FinalDot);
        if seen.dot_sent && no_final_word {
            return judgement(Kind::InDoubt, Reason::Unspecified);
        }
        match seen.stage {
            Stage::Prepare => judgement(Kind::Returned, Reason::Unspecified),
            Stage::Dns => dns(seen),
            stage if !stage.concerns_message() => {
                judgement(Kind::HostTrouble, self.host_trouble(seen))
            }
            _ => self.message(seen),
        }
    }

    /// What was said by a host (empty when not known), as a report tells it: whether it was meant for good, and why. `Permanent`
    /// or `Transient`. Words and codes are looked at as in [`Rules::judge`]; of the stage only what is known counts. Code 0: it
    /// is not told.
    pub fn judge_report(&self, seen: &Observation<'_>, host: &str) -> Judgement {
        let looked = self.look(seen, host);
        let says_temporary = match seen.code {
            0 => seen.enhanced.is_some_and(|(first, _, _)| first == 4),
            code => code < 500 || seen.enhanced.is_some_and(|(first, _, _)| first == 4),
        };
        match self.temporary(&looked) {
            _ if says_temporary => judgement(Kind::Transient, self.reason_of(&looked)),
            Some(reason) => judgement(Kind::Transient, self.or_by_words(reason, &looked)),
            None => judgement(Kind::Permanent, self.reason_of(&looked)),
        }
    }

    /// A temporary rule may leave the reason to words and codes.
    fn or_by_words(&self, reason: Reason, looked: &Looked<'_>) -> Reason {
        match reason {
            Reason::Unspecified => self.reason_of(looked),
            reason => reason,
        }
    }

    fn reason_of(&self, looked: &Looked<'_>) -> Reason {
        let reason = self.given(looked).or_else(|| self.by_code(looked));
        match reason.unwrap_or_default() {
            // What does not exist in answer to MAIL is the sender's.
            reason if reason.is_about_address() && looked.stage() == Stage::Mail => Reason::Sender,
            reason => reason,
        }
    }

    fn host_trouble(&self, seen: &Observation<'_>) -> Reason {
        if seen.code < 400 {
            return Reason::Infrastructure;
        }
        let reason = self.reason_of(&self.look(seen, ""));
        match reason.class() {
            Class::Policy | Class::Throttled | Class::Greylisted => reason,
            // What is said of a recipient or a message before there is one is not meant so.
            _ => Reason::Infrastructure,
        }
    }

    fn message(&self, seen: &Observation<'_>) -> Judgement {
        match seen.code {
            200..=299 if seen.stage == Stage::FinalDot => {
                judgement(Kind::Delivered, Reason::Unspecified)
            }
            400..=499 => judgement(Kind::Transient, self.reason_of(&self.look(seen, ""))),
            500..=599 => self.refused(seen),
            // The connection broke in the transaction, or the host said what no client can understand. The
            // attempt counts, or one message on which a host always breaks would be tried for ever.
            _ => judgement(Kind::Transient, Reason::Infrastructure),
        }
    }

    fn refused(&self, seen: &Observation<'_>) -> Judgement {
        let looked = self.look(seen, "");
        if let Some(reason) = self.temporary(&looked) {
            return judgement(Kind::Transient, self.or_by_words(reason, &looked));
        }
        let reason = self.reason_of(&looked);
        // A 5xx with an enhanced code that says "temporary" contradicts itself. A retry can be taken back, a bounce can't.
        let contradicts_itself = seen.enhanced.is_some_and(|(first, _, _)| first == 4);
        if contradicts_itself {
            return judgement(Kind::Transient, reason);
        }
        if seen.code == 552 && seen.stage == Stage::Rcpt {
            let named = self.given(&looked).map(Reason::class);
            if !named.is_some_and(|class| NOT_ABOUT_RECIPIENT_COUNT.contains(&class)) {
                return judgement(Kind::Transient, Reason::Throttled);
            }
        }
        judgement(Kind::Permanent, reason)
    }
}

const fn judgement(kind: Kind, reason: Reason) -> Judgement {
    Judgement { kind, reason }
}

fn dns(seen: &Observation<'_>) -> Judgement {
    let is_final = match seen.enhanced {
        Some((first, _, _)) => first == 5,
        None => seen.code >= 500,
    };
    if is_final {
        judgement(Kind::Permanent, Reason::NoSuchDomain)
    } else {
        judgement(Kind::HostTrouble, Reason::Dns)
    }
}
