//! Counters of the service.

use mail::PartitionId;
use runtime::WebStats;
use telemetry::{IntCounter, IntCounterVec, IntGauge};

/// The figures of the suppression.
#[derive(Debug, Clone)]
pub(crate) struct SuppressionMetrics {
    /// Entries that rules made, by reason.
    pub(crate) added: IntCounterVec,
    /// What went wrong, by what was done.
    pub(crate) errors: IntCounterVec,
    entries: IntGauge,
    octets: IntGauge,
    bound: IntGauge,
}

impl SuppressionMetrics {
    pub(crate) fn new() -> Self {
        Self {
            added: telemetry::counter_with(
                "staffetta_feedback_suppressed_total",
                "Addresses that rules suppressed for a stream, by reason: hard, soft, complaint, unsubscribe.",
                &["reason"],
            ),
            errors: telemetry::counter_with(
                "staffetta_feedback_suppression_errors_total",
                "What went wrong about the suppression, by what was done.",
                &["what"],
            ),
            entries: telemetry::gauge(
                "staffetta_feedback_suppression_entries",
                "Entries of those that nothing is sent to; some may be over.",
            ),
            octets: telemetry::gauge(
                "staffetta_feedback_suppression_store_bytes",
                "Octets that the stream SUPPRESSION has.",
            ),
            bound: telemetry::gauge(
                "staffetta_feedback_suppression_store_max_bytes",
                "Octets that the stream SUPPRESSION may have; beyond them nobody is suppressed any more, and what is to be stored waits.",
            ),
        }
    }

    pub(crate) fn note_entries(&self, entries: usize) {
        self.entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
    }

    pub(crate) fn note_usage(&self, octets: u64, bound: u64) {
        self.octets.set(i64::try_from(octets).unwrap_or(i64::MAX));
        self.bound.set(i64::try_from(bound).unwrap_or(i64::MAX));
    }
}

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

    /// What came back, by what followed from it; its label is of the program.
    pub(crate) fn came_back() -> IntCounterVec {
        telemetry::counter_with(
            "staffetta_feedback_inbound_total",
            "Messages that came back, by what followed: bounce, complaint, unsubscribe (events); unnamed (an event without the recipient's address); late_dsn; forwarded; and dropped ones: automatic, challenge, receipt, loop, report_elsewhere, empty_report, unsubscribe_by_others (than the reader), unknown_address, unknown_tenant, too_large.",
            &["outcome"],
        )
    }

    /// What came back and is not handled.
    pub(crate) fn waiting() -> IntGauge {
        telemetry::gauge(
            "staffetta_feedback_inbound_waiting",
            "Messages that came back and are not handled yet.",
        )
    }

    pub(crate) fn error(&self, what: &str) {
        self.errors.with_label_values(&[what]).inc();
    }

    pub(crate) fn give_up(&self, reason: &str) {
        self.given_up.with_label_values(&[reason]).inc();
    }
}

/// The figures of links.
#[derive(Debug, Clone)]
pub(crate) struct LinkMetrics {
    answers: IntCounterVec,
    connections: IntGauge,
    turned_away: IntCounter,
}

impl LinkMetrics {
    pub(crate) fn new() -> Self {
        Self {
            answers: telemetry::counter_with(
                "staffetta_feedback_links_answers_total",
                "Requests at links in messages, by what was answered: question, unsubscribed, expired, unknown, not_one_click, not_allowed, unavailable.",
                &["answer"],
            ),
            connections: telemetry::gauge(
                "staffetta_feedback_links_connections",
                "Open connections of those who follow links.",
            ),
            turned_away: telemetry::counter(
                "staffetta_feedback_links_turned_away_total",
                "Connections that were closed at once, since there were too many.",
            ),
        }
    }

    pub(crate) fn answered(&self, answer: &str) {
        self.answers.with_label_values(&[answer]).inc();
    }
}

impl WebStats for LinkMetrics {
    fn opened(&self) {
        self.connections.inc();
    }

    fn closed(&self) {
        self.connections.dec();
    }

    fn turned_away(&self) {
        self.turned_away.inc();
    }
}
