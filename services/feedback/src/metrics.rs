//! Counters of the service.

use mail::PartitionId;
use telemetry::{IntCounter, IntCounterVec, IntGauge};

/// The figures of one partition's follower.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// DSNs stored (or found stored).
    pub(crate) spooled: IntCounter,
    /// Owed DSNs that will never be written, by reason.
    pub(crate) given_up: IntCounterVec,
    /// What went wrong, by what was done.
    pub(crate) errors: IntCounterVec,
    /// DSNs owed and not stored.
    pub(crate) pending: IntGauge,
    /// Records of the journal not read yet.
    pub(crate) lag: IntGauge,
}

/// The figures of reports about TLS.
#[derive(Debug, Clone)]
pub(crate) struct TlsReportMetrics {
    /// By what became of them.
    pub(crate) reports: IntCounterVec,
    /// Passes over a day that did not come to its end.
    pub(crate) failed: IntCounter,
}

impl TlsReportMetrics {
    pub(crate) fn new() -> Self {
        Self {
            reports: telemetry::counter_with(
                "staffetta_feedback_tls_reports_total",
                "Reports about TLS to domains (RFC 8460), by result: mail (stored, to be sent as mail), unwanted (the domain does not ask for one any more, or not by mail).",
                &["result"],
            ),
            failed: telemetry::counter(
                "staffetta_feedback_tls_report_passes_failed_total",
                "Times that the reports about TLS of a day could not all be made; it is tried again a minute later.",
            ),
        }
    }
}

impl Metrics {
    pub(crate) fn new(partition: PartitionId) -> Self {
        let label = partition.to_string();
        let gauge = |name, help| {
            telemetry::gauge_with(name, help, &["partition"]).with_label_values(&[&label])
        };
        Self {
            spooled: telemetry::counter(
                "staffetta_feedback_dsn_spooled_total",
                "Failure notifications that were stored.",
            ),
            given_up: telemetry::counter_with(
                "staffetta_feedback_dsn_given_up_total",
                "Failure notifications that were owed and will not be written, by reason.",
                &["reason"],
            ),
            errors: telemetry::counter_with(
                "staffetta_feedback_errors_total",
                "What went wrong, by what was done.",
                &["what"],
            ),
            pending: gauge(
                "staffetta_feedback_dsn_pending",
                "Failure notifications that are owed and not stored, by partition.",
            ),
            lag: gauge(
                "staffetta_feedback_journal_lag_records",
                "Records of the journal that are not read yet, by partition.",
            ),
        }
    }

    pub(crate) fn error(&self, what: &str) {
        self.errors.with_label_values(&[what]).inc();
    }

    pub(crate) fn give_up(&self, reason: &str) {
        self.given_up.with_label_values(&[reason]).inc();
    }
}
