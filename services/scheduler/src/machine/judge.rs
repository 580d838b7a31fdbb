//! From a sender's words to a verdict.

use classify::{Kind, Observation, classify, retry_after};
use proto::dispatch::RecipientReport;
use proto::journal::{Class, Stage};
use queue::{Judged, Verdict};

/// Judges the report on one recipient.
pub(super) fn judge(report: RecipientReport, dot_sent: bool) -> Judged {
    let reply = report.reply.unwrap_or_default();
    let observation = Observation {
        stage: stage_of(reply.stage()),
        code: u16::try_from(reply.code).unwrap_or(0),
        enhanced: parse_enhanced(&reply.enhanced),
        text: &reply.text,
        // One that the transaction did not take with it: the dot was not for it.
        dot_sent: dot_sent && reply.stage() != Stage::Prepare,
    };
    let verdict = classify(&observation);
    Judged {
        ordinal: report.ordinal,
        address: report.address,
        verdict: match verdict.kind {
            Kind::Delivered if report.relayed => Verdict::Relayed,
            Kind::Delivered => Verdict::Delivered,
            Kind::Transient => Verdict::Transient,
            Kind::HostTrouble => Verdict::HostTrouble,
            Kind::Permanent => Verdict::Permanent,
            Kind::Returned => Verdict::Returned,
            Kind::InDoubt => Verdict::InDoubt,
        },
        class: Class::try_from(verdict.class as i32).unwrap_or_default(),
        retry_after_ms: match verdict.kind {
            Kind::Transient | Kind::HostTrouble => {
                retry_after(&reply.text).map(|seconds| seconds * 1000)
            }
            _ => None,
        },
        reply,
    }
}

/// Judges what the simulator says about one recipient.
pub(super) fn judge_simulated(report: RecipientReport) -> Judged {
    let reply = report.reply.as_ref();
    let dot_sent = reply.is_some_and(|reply| reply.stage() == Stage::FinalDot);
    judge(report, dot_sent)
}

fn stage_of(stage: Stage) -> classify::Stage {
    match stage {
        Stage::Dns => classify::Stage::Dns,
        Stage::Connect => classify::Stage::Connect,
        Stage::Banner => classify::Stage::Banner,
        Stage::Ehlo => classify::Stage::Ehlo,
        Stage::Starttls => classify::Stage::StartTls,
        Stage::Auth => classify::Stage::Auth,
        Stage::Mail => classify::Stage::Mail,
        Stage::Rcpt => classify::Stage::Rcpt,
        Stage::Data => classify::Stage::Data,
        Stage::FinalDot => classify::Stage::FinalDot,
        Stage::Prepare | Stage::Unspecified => classify::Stage::Prepare,
    }
}

fn parse_enhanced(text: &str) -> Option<(u8, u16, u16)> {
    let mut parts = text.split('.');
    let code = (
        parts.next()?.parse().ok()?,
        parts.next()?.parse().ok()?,
        parts.next()?.parse().ok()?,
    );
    parts.next().is_none().then_some(code)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::journal::Reply;

    fn verdict(stage: Stage, code: u32, enhanced: &str, dot_sent: bool) -> Verdict {
        let reply = Reply {
            stage: stage.into(),
            code,
            enhanced: enhanced.into(),
            text: String::new(),
        };
        judge(
            RecipientReport {
                ordinal: 0,
                address: String::new(),
                reply: Some(reply),
                relayed: false,
            },
            dot_sent,
        )
        .verdict
    }

    #[test]
    fn judges_by_stage() {
        assert_eq!(
            verdict(Stage::FinalDot, 250, "2.0.0", true),
            Verdict::Delivered
        );
        assert_eq!(verdict(Stage::FinalDot, 0, "", true), Verdict::InDoubt);
        for dot_sent in [false, true] {
            assert_eq!(verdict(Stage::Prepare, 0, "", dot_sent), Verdict::Returned);
        }
        assert_eq!(verdict(Stage::Unspecified, 0, "", true), Verdict::InDoubt);
        for stage in [
            Stage::Connect,
            Stage::Banner,
            Stage::Ehlo,
            Stage::Starttls,
            Stage::Auth,
        ] {
            assert_eq!(verdict(stage, 554, "5.7.1", false), Verdict::HostTrouble);
        }
        assert_eq!(verdict(Stage::Dns, 0, "4.4.3", false), Verdict::HostTrouble);
        assert_eq!(
            verdict(Stage::Rcpt, 550, "5.1.1", false),
            Verdict::Permanent
        );
        assert_eq!(
            verdict(Stage::Rcpt, 451, "4.7.1", false),
            Verdict::Transient
        );
    }

    #[test]
    fn reads_enhanced_codes() {
        assert_eq!(parse_enhanced("5.7.509"), Some((5, 7, 509)));
        assert_eq!(parse_enhanced(""), None);
        assert_eq!(parse_enhanced("5.1"), None);
        assert_eq!(parse_enhanced("5.1.1.1"), None);
    }
}
