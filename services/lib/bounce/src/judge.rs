//! From words and codes to why.

use classify::{Judgement, Observation, Reason, Rules};

use crate::reply::{Reply, reply_in, stage_in};

/// What was found about a recipient.
#[derive(Debug, Clone)]
pub(crate) struct Found {
    pub(crate) reply: Reply,
    pub(crate) judgement: Judgement,
}

/// Judges words, which may have codes in them; `status` counts where they have no enhanced code.
pub(crate) fn judge(
    rules: &Rules,
    words: &str,
    status: Option<(u8, u16, u16)>,
    host: &str,
) -> Found {
    let mut reply = reply_in(words);
    let said = reply.enhanced;
    // What the host said is more exact than what its client made of it, unless it was nothing.
    let is_vague = |code: Option<(u8, u16, u16)>| {
        code.is_none_or(|(_, subject, detail)| subject == 0 && detail == 0)
    };
    if is_vague(said) && !is_vague(status) {
        // The digit that the host said is the one that counts.
        reply.enhanced = status.map(|(first, subject, detail)| match said {
            Some((said, _, _)) => (said, subject, detail),
            None => (first, subject, detail),
        });
    } else if said.is_none() {
        reply.enhanced = status;
    }
    let stage = stage_in(words);
    let judge = |text: &str| {
        let seen = Observation {
            stage,
            code: reply.code,
            enhanced: reply.enhanced,
            text,
            dot_sent: false,
        };
        rules.judge_report(&seen, host)
    };
    // What stands before the code are words of the host's client, which says less and is mistaken more often.
    let judgement = match reply.code {
        0 => judge(words),
        _ => Some(judge(&words[reply.at..]))
            .filter(|judgement| judgement.reason != Reason::Unspecified)
            .unwrap_or_else(|| judge(words)),
    };
    Found { reply, judgement }
}

impl Found {
    /// Whether nothing tells why.
    pub(crate) fn is_nothing(&self) -> bool {
        self.judgement.reason == Reason::Unspecified
    }

    /// Whether other words may tell more: it was tried for too long, or something did not work.
    pub(crate) fn is_vague(&self) -> bool {
        matches!(self.judgement.reason, Reason::Unspecified | Reason::Expired)
    }
}
