//! Whether what a credential does looks like the doings of a thief (requirement A22). Pure: the picture and the
//! configuration decide.
//!
//! Each signal that is noticed adds its weight; the sum says what is done. One signal alone tells with what is shipped:
//! an office that grew has a jump in volume and nothing else.

use config::{SignalRule, Watch};
use limits::Picture;
use proto::watch::{Action, Evidence, Signal};

/// What follows from a picture.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Verdict {
    pub(super) evidence: Vec<Evidence>,
    /// Of all of it.
    pub(super) weight: u32,
    /// `Unspecified` when nothing is noticed.
    pub(super) action: Action,
}

/// Judges a picture.
pub(super) fn judge(picture: &Picture, watch: &Watch) -> Verdict {
    let rules = &watch.signals;
    let hour = picture.hour_ms;
    // Before it is known what is usual, nothing is unusual.
    let known = |count: u64| if picture.learning { 0 } else { count };
    let found = [
        noticed(
            Signal::NewNetworks,
            rules.new_networks,
            known(picture.new_networks),
            picture.usual_new_networks,
            picture.new_networks_since_ms,
        )
        .map(|evidence| Evidence {
            networks: picture.newest.clone(),
            ..evidence
        }),
        noticed(
            Signal::Volume,
            rules.volume,
            known(picture.recipients),
            picture.usual_recipients,
            hour,
        ),
        noticed(Signal::Refusals, rules.refusals, picture.refused, 0, hour)
            .filter(|_| is_part(picture, rules.refusals.percent)),
        noticed(
            Signal::Senders,
            rules.senders,
            known(picture.senders),
            picture.usual_senders,
            hour,
        ),
        noticed(
            Signal::Guessed,
            rules.guessed,
            picture.guessed,
            0,
            picture.guessed_ms,
        )
        .map(|evidence| Evidence {
            networks: vec![picture.guessed_from.clone()],
            ..evidence
        }),
        noticed(Signal::Preflight, rules.preflight, picture.weight, 0, hour),
    ];
    let evidence: Vec<Evidence> = found.into_iter().flatten().collect();
    let weight = evidence.iter().map(|of| of.weight).sum();
    Verdict {
        action: action(weight, watch),
        evidence,
        weight,
    }
}

fn noticed(
    signal: Signal,
    rule: SignalRule,
    observed: u64,
    usual: u64,
    since_ms: u64,
) -> Option<Evidence> {
    let threshold = rule.threshold(usual);
    (rule.weight > 0 && observed >= threshold).then(|| Evidence {
        signal: signal.into(),
        observed,
        usual,
        threshold,
        weight: rule.weight,
        since_ms,
        networks: Vec::new(),
    })
}

/// Whether so much of what was named was refused.
fn is_part(picture: &Picture, percent: u32) -> bool {
    let all = picture.refused.saturating_add(picture.recipients);
    picture.refused.saturating_mul(100) >= all.saturating_mul(percent.into())
}

fn action(weight: u32, watch: &Watch) -> Action {
    let reached = |at: Option<u32>| at.is_some_and(|at| weight >= at);
    if weight == 0 {
        Action::Unspecified
    } else if reached(watch.lock_at) {
        Action::Lock
    } else if reached(watch.hold_at) {
        Action::Hold
    } else if reached(watch.slow_at) {
        Action::Slow
    } else {
        Action::Tell
    }
}

/// The evidence for people: `newNetworks 40 (usually 2), volume 900 (usually 100)`.
pub(super) fn cause(evidence: &[Evidence]) -> String {
    let parts: Vec<String> = evidence
        .iter()
        .map(|of| {
            let name = of.signal().word();
            match of.usual {
                0 => format!("{name} {}", of.observed),
                usual => format!("{name} {} (usually {usual})", of.observed),
            }
        })
        .collect();
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use config::Snapshot;

    use super::*;

    /// `more` beside the usual weights: networks 3, volume 2, refusals 2, senders 1, guessed 3, preflight 1.
    fn watch(more: &str) -> Watch {
        let documents = format!(
            "apiVersion: staffetta.dev/v1alpha1\nkind: Tenant\nmetadata: {{ name: t }}\n\
             spec: {{ defaultStream: m, streams: [ {{ name: m }} ], watch: {{ {more} }} }}\n"
        );
        let snapshot = Snapshot::from_documents(&documents).unwrap();
        snapshot.tenant("t").unwrap().watch.clone().unwrap()
    }

    fn picture(change: impl FnOnce(&mut Picture)) -> Picture {
        let mut picture = Picture {
            now_ms: 1_800_000_000_000,
            usual_new_networks: 2,
            usual_recipients: 300,
            usual_senders: 2,
            recipients: 100,
            newest: vec!["192.0.2.0/24".into()],
            ..Picture::default()
        };
        change(&mut picture);
        picture
    }

    fn signals(picture: &Picture, watch: &Watch) -> String {
        let verdict = judge(picture, watch);
        let names: Vec<&str> = verdict
            .evidence
            .iter()
            .map(|of| of.signal().word())
            .collect();
        names.join(" ")
    }

    #[test]
    fn each_signal_is_noticed_from_its_threshold_on() {
        let watch = watch("");
        type Change = fn(&mut Picture);
        let cases: [(Change, &str); 16] = [
            (|_| {}, ""),
            // At least 10, and 3 times 2.
            (|p| p.new_networks = 9, ""),
            (|p| p.new_networks = 10, "newNetworks"),
            (|p| (p.new_networks, p.usual_new_networks) = (29, 10), ""),
            (
                |p| (p.new_networks, p.usual_new_networks) = (30, 10),
                "newNetworks",
            ),
            // 4 times 300; never below 200.
            (|p| p.recipients = 1_199, ""),
            (|p| p.recipients = 1_200, "volume"),
            (|p| (p.recipients, p.usual_recipients) = (199, 1), ""),
            (|p| (p.recipients, p.usual_recipients) = (200, 1), "volume"),
            // 20, and 30 per cent of all.
            (|p| (p.refused, p.recipients) = (19, 0), ""),
            (|p| (p.refused, p.recipients) = (20, 47), ""),
            (|p| (p.refused, p.recipients) = (21, 49), "refusals"),
            (|p| p.senders = 20, "senders"),
            (|p| p.guessed = 5, "guessed"),
            (|p| p.weight = 100, "preflight"),
            (
                |p| (p.new_networks, p.recipients, p.guessed) = (10, 5_000, 9),
                "newNetworks volume guessed",
            ),
        ];
        for (change, expected) in cases {
            let picture = picture(change);
            assert_eq!(signals(&picture, &watch), expected, "{picture:?}");
        }
    }

    #[test]
    fn while_it_is_learned_what_is_usual_nothing_is_compared_with_it() {
        let all = |p: &mut Picture| {
            p.learning = true;
            (p.new_networks, p.recipients, p.senders) = (99, 99_999, 99);
            (p.guessed, p.weight, p.refused) = (9, 900, 99_999);
        };
        let picture = picture(all);
        assert_eq!(signals(&picture, &watch("")), "refusals guessed preflight");
    }

    #[test]
    fn a_signal_without_weight_is_not_looked_for() {
        let picture = picture(|p| p.recipients = 9_999);
        let off = watch("signals: { volume: { weight: 0 } }, lockAt: 1");
        let verdict = judge(&picture, &off);
        assert_eq!((verdict.weight, verdict.action), (0, Action::Unspecified));
    }

    #[test]
    fn the_sum_of_the_weights_says_what_is_done() {
        type Change = fn(&mut Picture);
        let grown: Change = |p| p.recipients = 1_200;
        let moved: Change = |p| p.new_networks = 10;
        let both: Change = |p| (p.recipients, p.new_networks) = (1_200, 10);
        let all: Change = |p| (p.recipients, p.new_networks, p.guessed) = (1_200, 10, 9);
        let steps = "slowAt: 3, holdAt: 5, lockAt: 8";
        for (measures, change, expected) in [
            // What is shipped only tells.
            ("", all, Action::Tell),
            // An office that grew.
            (steps, grown, Action::Tell),
            // A conference.
            (steps, moved, Action::Slow),
            (steps, both, Action::Hold),
            (steps, all, Action::Lock),
            // Steps may be left out.
            ("lockAt: 5", both, Action::Lock),
            ("lockAt: 5", moved, Action::Tell),
            ("holdAt: 2", all, Action::Hold),
        ] {
            let verdict = judge(&picture(change), &watch(measures));
            assert_eq!(verdict.action, expected, "{measures} {verdict:?}");
        }
    }

    #[test]
    fn evidence_says_what_was_seen_and_what_is_usual() {
        let picture = picture(|p| {
            (p.new_networks, p.new_networks_since_ms) = (40, 7);
            (p.guessed, p.guessed_ms, p.guessed_from) = (6, 8, "198.51.100.0/24".into());
        });
        let verdict = judge(&picture, &watch(""));
        let [networks, guessed] = verdict.evidence.as_slice() else {
            panic!("{verdict:?}");
        };
        assert_eq!(
            (networks.observed, networks.usual, networks.threshold),
            (40, 2, 10)
        );
        assert_eq!((networks.since_ms, guessed.since_ms), (7, 8));
        assert_eq!(networks.networks, ["192.0.2.0/24"]);
        assert_eq!(guessed.networks, ["198.51.100.0/24"]);
        assert_eq!(verdict.weight, 6);
        assert_eq!(
            cause(&verdict.evidence),
            "newNetworks 40 (usually 2), guessed 6"
        );
    }
}
