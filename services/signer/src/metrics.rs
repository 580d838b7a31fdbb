//! What the signer counts.

use mail::Domain;
use telemetry::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

#[derive(Clone)]
pub(crate) struct Metrics {
    /// Requests by what was answered.
    pub requests: IntCounterVec,
    /// Signatures by algorithm and result.
    pub signatures: IntCounterVec,
    /// RSA signatures by how they were made.
    pub rsa: IntCounterVec,
    /// From the arrival of a call to its answer.
    pub call_seconds: Histogram,
    /// Requests that wait for a thread.
    pub queued: IntGauge,
    /// Configured keys by state.
    pub keys: IntGaugeVec,
    /// Key files that could not be used, each time they were read.
    pub key_failures: IntCounter,
    /// Configured keys by what is done with them.
    pub used: IntGaugeVec,
    /// Keys that sign by what the DNS says of them.
    pub published: IntGaugeVec,
    /// Messages by sending domain and result.
    messages: IntCounterVec,
}

/// Messages of one sending domain by what was answered.
pub(crate) struct DomainMetrics {
    /// By a key of the domain.
    pub signed: IntCounter,
    /// By its service domain alone.
    pub service: IntCounter,
    pub no_key: IntCounter,
    pub failed: IntCounter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        // One signature takes 8 µs (Ed25519) or 200 µs (RSA-2048); a batch of eight RSA-2048 takes 1 ms.
        let buckets = vec![
            0.000_05, 0.000_1, 0.000_2, 0.000_5, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2,
            0.5, 1.0, 5.0,
        ];
        Self {
            requests: telemetry::counter_with(
                "staffetta_signer_requests_total",
                "Requests by result: signed, sealed (mail of others), unsigned, no_key, invalid, temporary.",
                &["result"],
            ),
            signatures: telemetry::counter_with(
                "staffetta_signer_signatures_total",
                "Signatures by algorithm and result (signed, sealed, failed).",
                &["algorithm", "result"],
            ),
            rsa: telemetry::counter_with(
                "staffetta_signer_rsa_signatures_total",
                "RSA signatures by implementation: single; multi_buffer (eight at once, needs AVX-512 IFMA); repeated (one of those did not verify and was made again singly: a fault of the processor or of the key).",
                &["implementation"],
            ),
            call_seconds: telemetry::histogram(
                "staffetta_signer_call_seconds",
                "Time from the arrival of a call (of up to 256 requests) to its answer.",
                buckets,
            ),
            queued: telemetry::gauge(
                "staffetta_signer_queued_requests",
                "Requests that wait for a signing thread.",
            ),
            keys: telemetry::gauge_with(
                "staffetta_signer_keys",
                "Configured keys: loaded; stale (the file can't be used, the last good key signs); missing.",
                &["state"],
            ),
            key_failures: telemetry::counter(
                "staffetta_signer_key_failures_total",
                "Key files that could not be read or used, counted at each try.",
            ),
            used: telemetry::gauge_with(
                "staffetta_signer_keys_in_use",
                "Configured keys: active (they sign); pending (the DNS does not show them yet); retiring (replaced).",
                &["use"],
            ),
            published: telemetry::gauge_with(
                "staffetta_signer_keys_published",
                "Keys that sign by what the DNS shows: shown; absent; other (another key, or more than one); unknown (no answer yet).",
                &["record"],
            ),
            messages: telemetry::counter_with(
                "staffetta_signer_domain_messages_total",
                "Messages by sending domain (the first 200; then \"other\") and result: signed; service (by its service domain alone); no_key; failed.",
                &["domain", "result"],
            ),
        }
    }

    pub(crate) fn of_domain(&self, domain: &Domain) -> DomainMetrics {
        let domain = telemetry::domain_label(domain.as_str());
        let of = |result| self.messages.with_label_values(&[domain, result]);
        DomainMetrics {
            signed: of("signed"),
            service: of("service"),
            no_key: of("no_key"),
            failed: of("failed"),
        }
    }
}
