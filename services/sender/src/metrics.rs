//! What this service counts.

use proto::dispatch::ReturnReason;
use proto::journal::Stage;
use telemetry::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::domain_checks::{Difference, State, TOPICS};

/// Handles of the metrics of the sender.
pub(crate) struct Metrics {
    recipients: IntCounterVec,
    delivered: IntCounter,
    returned: IntCounterVec,
    aborted: IntCounter,
    in_doubt: IntCounter,
    delivery: Histogram,
    pub wait_block: Histogram,
    pub wait_sign: Histogram,
    pub wait_permit: Histogram,
    pub connections: IntGauge,
    pub connects: IntCounterVec,
    pub tls: IntCounterVec,
    pub auth: IntCounterVec,
    tls_policy: IntCounterVec,
    policy_lookups: IntCounterVec,
    tlsa_lookups: IntCounterVec,
    tls_results: IntCounterVec,
    pub reused: IntCounter,
    held: IntGauge,
    owed: IntGauge,
    pub streams: IntGauge,
    /// Sum over the open streams.
    pub credit: IntGauge,
}

/// Handles of the metrics of the block cache.
pub(crate) struct CacheMetrics {
    pub hits: IntCounter,
    pub fetches: IntCounter,
    pub bytes: IntGauge,
}

/// Handles of the metrics of transcripts.
pub(crate) struct TranscriptMetrics {
    pub stored: IntCounter,
    pub crowded_out: IntCounter,
    pub given_up: IntCounter,
}

/// Those of transcripts.
pub(crate) fn transcripts() -> TranscriptMetrics {
    let dropped = telemetry::counter_with(
        "staffetta_sender_transcripts_dropped_total",
        "Transcripts that are lost, by reason: queue (no room to wait in), storage (not stored within five minutes).",
        &["reason"],
    );
    TranscriptMetrics {
        stored: telemetry::counter(
            "staffetta_sender_transcripts_total",
            "Transcripts that were stored in the stream TRANSCRIPTS.",
        ),
        crowded_out: dropped.with_label_values(&["queue"]),
        given_up: dropped.with_label_values(&["storage"]),
    }
}

/// Those of the block cache.
pub(crate) fn cache() -> CacheMetrics {
    CacheMetrics {
        hits: telemetry::counter(
            "staffetta_sender_block_cache_hits_total",
            "Messages whose block was in memory.",
        ),
        fetches: telemetry::counter(
            "staffetta_sender_block_fetches_total",
            "Blocks fetched from the spool.",
        ),
        bytes: telemetry::gauge("staffetta_sender_block_cache_bytes", "Blocks in memory."),
    }
}

/// Handles of the metrics of what is published about domains.
pub(crate) struct DomainMetrics {
    checks: IntCounterVec,
    findings: IntGaugeVec,
    domains: IntGauge,
    ended: IntGauge,
}

impl DomainMetrics {
    pub fn new() -> Self {
        Self {
            checks: telemetry::counter_with(
                "staffetta_sender_domain_checks_total",
                "Looks at what is published about a sending domain and a pool, by result: same (as the last time), changed (told as an event).",
                &["result"],
            ),
            findings: telemetry::gauge_with(
                "staffetta_sender_domain_findings",
                "Sending domains, with each of their pools, about which something is published that is wrong, to be noted, or not known since the DNS does not answer, by what it is about (spf, dkim, dmarc, return-path, names, mta-sts, tls-rpt) and verdict: wrong, note, unknown. Every sender that is configured to look shows the same, of the last whole pass of any of them.",
                &["topic", "verdict"],
            ),
            domains: telemetry::gauge(
                "staffetta_sender_domains_checked",
                "Sending domains, with each of their pools, that were looked at.",
            ),
            ended: telemetry::gauge(
                "staffetta_sender_domain_checks_ended_seconds",
                "When all sending domains had been looked at last, Unix time; 0 = never.",
            ),
        }
    }

    pub fn checked(&self, difference: Difference) {
        let result = match difference {
            Difference::Same => "same",
            Difference::Changed => "changed",
        };
        self.checks.with_label_values(&[result]).inc();
    }

    pub fn show(&self, state: &State) {
        for (topic, counts) in TOPICS.iter().zip(state.shown) {
            for (verdict, count) in ["wrong", "note", "unknown"].into_iter().zip(counts) {
                let labels = [topic.as_str(), verdict];
                self.findings.with_label_values(&labels).set(count.into());
            }
        }
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        self.domains
            .set(i64::try_from(state.len()).unwrap_or(i64::MAX));
        self.ended.set(whole(state.ended_ms() / 1_000));
    }
}

/// Whether the resolvers check DNSSEC.
pub(crate) fn dnssec() -> IntGauge {
    telemetry::gauge(
        "staffetta_sender_dnssec_validated",
        "1 while the resolvers say that they check DNSSEC, and DANE is on; 0 while it is off.",
    )
}

/// What became of a recipient, as far as the reply's first digit tells.
fn result_of(code: u32) -> &'static str {
    match code {
        200..=299 => "accepted",
        400..=499 => "transient",
        500..=599 => "permanent",
        _ => "no_reply",
    }
}

/// Value of the label `stage`.
pub(crate) fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Unspecified => "unspecified",
        Stage::Dns => "dns",
        Stage::Connect => "connect",
        Stage::Banner => "banner",
        Stage::Ehlo => "ehlo",
        Stage::Starttls => "starttls",
        Stage::Auth => "auth",
        Stage::Mail => "mail",
        Stage::Rcpt => "rcpt",
        Stage::Data => "data",
        Stage::FinalDot => "final_dot",
        Stage::Prepare => "prepare",
    }
}

impl Metrics {
    pub fn new() -> Self {
        let recipients = telemetry::counter_with(
            "staffetta_sender_recipients_total",
            "Recipients of ended attempts, by the stage that decided and the result: accepted, transient, permanent, no_reply.",
            &["stage", "result"],
        );
        let waits = telemetry::histogram_with(
            "staffetta_sender_wait_seconds",
            "Time that a delivery waited for its block, its signature, its permit (label for: block, signature, permit).",
            telemetry::latency_buckets(),
            &["for"],
        );
        Self {
            delivered: recipients.with_label_values(&["final_dot", "accepted"]),
            recipients,
            returned: telemetry::counter_with(
                "staffetta_sender_returned_total",
                "Assignments given back, by reason.",
                &["reason"],
            ),
            aborted: telemetry::counter(
                "staffetta_sender_aborted_total",
                "Transactions ended without a final dot for want of a permit.",
            ),
            in_doubt: telemetry::counter(
                "staffetta_sender_in_doubt_total",
                "Attempts whose final dot was sent and got no reply.",
            ),
            delivery: telemetry::histogram(
                "staffetta_sender_delivery_seconds",
                "From assignment to report.",
                telemetry::latency_buckets(),
            ),
            wait_block: waits.with_label_values(&["block"]),
            wait_sign: waits.with_label_values(&["signature"]),
            wait_permit: waits.with_label_values(&["permit"]),
            connections: telemetry::gauge("staffetta_sender_connections", "Open SMTP connections."),
            connects: telemetry::counter_with(
                "staffetta_sender_connects_total",
                "Connection attempts, by result: ok, or the stage that failed.",
                &["result"],
            ),
            tls: telemetry::counter_with(
                "staffetta_sender_tls_total",
                "SMTP connections made, by version of TLS, or none.",
                &["version"],
            ),
            auth: telemetry::counter_with(
                "staffetta_sender_auth_total",
                "Logins at smart hosts, by egress source and result: ok, refused (the credentials are wrong), temporary, not_offered (the mechanism), not_safe (TLS is not as strict as the credentials need), no_secret (its file can't be read), broken.",
                &["source", "result"],
            ),
            tls_policy: telemetry::counter_with(
                "staffetta_sender_tls_policy_total",
                "Hosts tried for mail that asks for more than opportunistic TLS, by who asks (policy: mta_sts_enforce, mta_sts_testing, requiretls, dane, dane_unusable) and result: ok, or what the host lacks: host (the policy does not name it), no_tls, certificate, no_requiretls. With mta_sts_testing the mail went out all the same.",
                &["policy", "result"],
            ),
            policy_lookups: telemetry::counter_with(
                "staffetta_sender_mta_sts_lookups_total",
                "Looks for the MTA-STS policy of a domain, by result: none, unchanged, fetched, dns_failed, fetch_failed, invalid.",
                &["result"],
            ),
            tls_results: telemetry::counter_with(
                "staffetta_sender_tls_results_total",
                "Addresses of hosts with which TLS was tried, by whose policy holds for the host (tlsa, sts, no-policy-found) and the result: success, or in the words of RFC 8460 section 4.3 starttls-not-supported, certificate-host-mismatch, certificate-expired, certificate-not-trusted, validation-failure, tlsa-invalid, dnssec-invalid. Without a policy, or with one in mode testing, the mail may have gone out all the same.",
                &["policy", "result"],
            ),
            tlsa_lookups: telemetry::counter_with(
                "staffetta_sender_tlsa_lookups_total",
                "Hosts of domains with DNSSEC that were about to be tried, by what their TLSA records are: none, unusable, usable, failed (they can't be looked up: the host is passed over).",
                &["result"],
            ),
            reused: telemetry::counter(
                "staffetta_sender_reused_connections_total",
                "Transactions on a connection that was open already.",
            ),
            held: telemetry::gauge(
                "staffetta_sender_deliveries_in_flight",
                "Deliveries that schedulers gave to this sender and that are not ended.",
            ),
            owed: telemetry::gauge(
                "staffetta_sender_unstored_reports",
                "Reports that no scheduler has stored yet.",
            ),
            credit: telemetry::gauge(
                "staffetta_sender_credit_deliveries",
                "Deliveries that this sender takes at a time, over all schedulers; in_flight divided by it is how busy it is.",
            ),
            streams: telemetry::gauge(
                "staffetta_sender_scheduler_streams",
                "Open streams to schedulers.",
            ),
        }
    }

    pub fn recipient(&self, stage: Stage, code: u32) {
        if stage == Stage::FinalDot && (200..300).contains(&code) {
            self.delivered.inc();
        } else {
            self.recipients
                .with_label_values(&[stage_name(stage), result_of(code)])
                .inc();
        }
    }

    pub fn ended(&self, took: std::time::Duration, aborted: bool, in_doubt: bool) {
        self.delivery.observe(took.as_secs_f64());
        if aborted {
            self.aborted.inc();
        }
        if in_doubt {
            self.in_doubt.inc();
        }
    }

    pub fn returned(&self, reason: ReturnReason) {
        let name = match reason {
            ReturnReason::Unspecified => "unspecified",
            ReturnReason::Draining => "draining",
            ReturnReason::NotFound => "not_found",
            ReturnReason::Damaged => "damaged",
            ReturnReason::SiteChanged => "site_changed",
            ReturnReason::SignerUnavailable => "signer_unavailable",
            ReturnReason::StaleEpoch => "stale_epoch",
            ReturnReason::StorageUnavailable => "storage_unavailable",
            ReturnReason::Connection => "connection",
            ReturnReason::Source => "source",
        };
        self.returned.with_label_values(&[name]).inc();
    }

    pub fn tls_policy(&self, policy: &'static str, result: &'static str) {
        self.tls_policy.with_label_values(&[policy, result]).inc();
    }

    pub fn policy_lookups(&self, result: &'static str) {
        self.policy_lookups.with_label_values(&[result]).inc();
    }

    pub fn tls_result(&self, policy: &'static str, result: &'static str) {
        self.tls_results.with_label_values(&[policy, result]).inc();
    }

    pub fn tlsa_lookup(&self, result: &'static str) {
        self.tlsa_lookups.with_label_values(&[result]).inc();
    }

    pub fn open(&self, held: usize, owed: usize) {
        self.held.set(i64::try_from(held).unwrap_or(i64::MAX));
        self.owed.set(i64::try_from(owed).unwrap_or(i64::MAX));
    }
}
