//! Counters of webhooks. The label `webhook` is that of the first 200; the others share `other`.

use telemetry::{IntCounter, IntCounterVec, IntGauge};

#[derive(Debug, Clone)]
pub(crate) struct HookMetrics {
    label: String,
    attempts: IntCounterVec,
    /// Events that were accepted.
    pub(crate) delivered: IntCounter,
    /// Events that were given up and are kept as dead letters.
    pub(crate) given_up: IntCounter,
    /// Records that were removed before they were read.
    pub(crate) missed: IntCounter,
    /// Records of all sources that are not settled.
    pub(crate) lag: IntGauge,
    /// For how long nothing was accepted, seconds.
    pub(crate) failing: IntGauge,
}

impl HookMetrics {
    pub(crate) fn new(webhook: &str) -> Self {
        let label = telemetry::webhook_label(webhook);
        let counter = |name, help| {
            telemetry::counter_with(name, help, &["webhook"]).with_label_values(&[label])
        };
        let gauge = |name, help| {
            telemetry::gauge_with(name, help, &["webhook"]).with_label_values(&[label])
        };
        Self {
            label: label.to_owned(),
            attempts: telemetry::counter_with(
                "staffetta_feedback_webhook_attempts_total",
                "Posts to endpoints of webhooks, by what came of it.",
                &["webhook", "result"],
            ),
            delivered: counter(
                "staffetta_feedback_webhook_delivered_events_total",
                "Events that endpoints of webhooks accepted.",
            ),
            given_up: counter(
                "staffetta_feedback_webhook_given_up_events_total",
                "Events that endpoints of webhooks did not accept in time; they are kept as dead letters.",
            ),
            missed: counter(
                "staffetta_feedback_webhook_missed_records_total",
                "Records of events that were removed from their stream before a webhook had read them.",
            ),
            lag: gauge(
                "staffetta_feedback_webhook_lag_records",
                "Records of events that are not settled for a webhook, of all sources.",
            ),
            failing: gauge(
                "staffetta_feedback_webhook_failing_seconds",
                "For how long an endpoint of a webhook has accepted nothing; 0 when it accepts.",
            ),
        }
    }

    /// `accepted`, `refused`, `gone`, `failed`.
    pub(crate) fn attempt(&self, result: &str) {
        self.attempts
            .with_label_values(&[&self.label, result])
            .inc();
    }
}

/// What went wrong at the stores, by what was done; as of the followers of partitions.
pub(crate) fn error(what: &str) {
    telemetry::counter_with(
        "staffetta_feedback_errors_total",
        "What went wrong, by what was done.",
        &["what"],
    )
    .with_label_values(&[what])
    .inc();
}
