//! What ingress counts. Handles are looked up once; labels come from the configuration or from
//! constants.

use std::sync::Arc;

use spool::{DurabilityReport, WriterStats};
use telemetry::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::answer::Answer;
use crate::preflight::Findings;
use crate::proxy::Refused;

/// Upper bounds of the buckets of block sizes.
const BLOCK_MESSAGES: [f64; 6] = [1.0, 2.0, 4.0, 8.0, 12.0, 16.0];
/// Stands for what is over the last bound.
const LARGEST_BLOCK: f64 = 17.0;

/// All metrics of the service.
pub(crate) struct Metrics {
    messages: IntCounterVec,
    recipients: IntCounterVec,
    bytes: IntCounterVec,
    refusals: IntCounterVec,
    connections: IntGaugeVec,
    connections_total: IntCounterVec,
    tls_handshakes: IntCounterVec,
    proxy_refusals: IntCounterVec,
    preflight: IntCounterVec,
    pub(crate) auth_failures: IntCounter,
    pub(crate) login_bans: IntCounter,
    pub(crate) accept_unknown: IntCounter,
    pub(crate) resubmissions: IntCounter,
    /// From the final dot to the reply written, seconds.
    pub(crate) accept_seconds: Histogram,
    /// The part of it that is the wait for storage, seconds.
    pub(crate) storage_seconds: Histogram,
    /// The rest of it: what ingress itself adds, seconds.
    pub(crate) added_seconds: Histogram,
    pub(crate) body_pool_free: IntGauge,
    pub(crate) redis_connected: IntGauge,
    block_messages: Histogram,
    durability: IntGaugeVec,
}

/// The counters of one tenant, kept by a session.
pub(crate) struct TenantMetrics {
    pub(crate) tenant: Arc<str>,
    messages: IntCounter,
    recipients: IntCounter,
    bytes: IntCounter,
}

/// The counters of one listener.
pub(crate) struct ListenerMetrics {
    connections: IntGauge,
    pub(crate) connections_total: IntCounter,
    proxy_refusals: [(&'static str, IntCounter); 5],
}

/// Counts a connection as long as it lives.
pub(crate) struct OpenConnection(IntGauge);

impl ListenerMetrics {
    /// A connection was closed before it began.
    pub(crate) fn proxy_refused(&self, reason: &str) {
        let counter = self.proxy_refusals.iter().find(|(name, _)| *name == reason);
        if let Some((_, counter)) = counter {
            counter.inc();
        }
    }

    /// A connection begins.
    pub(crate) fn open(&self) -> OpenConnection {
        self.connections.inc();
        OpenConnection(self.connections.clone())
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Metrics {
    /// Registers them, or finds them when ingress runs a second time in the process.
    pub(crate) fn new() -> Self {
        use telemetry::{counter, counter_with, gauge, gauge_with, histogram, latency_buckets};
        Self {
            messages: counter_with(
                "staffetta_ingress_messages_total",
                "Messages accepted, by tenant (the first 200 of a process, then `other`).",
                &["tenant"],
            ),
            recipients: counter_with(
                "staffetta_ingress_recipients_total",
                "Recipients of accepted messages, by tenant.",
                &["tenant"],
            ),
            bytes: counter_with(
                "staffetta_ingress_message_bytes_total",
                "Octets of accepted messages as stored, by tenant.",
                &["tenant"],
            ),
            refusals: counter_with(
                "staffetta_ingress_refusals_total",
                "Replies that refused a command or a message, by code and enhanced code.",
                &["code", "enhanced"],
            ),
            connections: gauge_with(
                "staffetta_ingress_connections",
                "Open connections, by listener.",
                &["listener"],
            ),
            connections_total: counter_with(
                "staffetta_ingress_connections_total",
                "Connections taken, by listener.",
                &["listener"],
            ),
            tls_handshakes: counter_with(
                "staffetta_ingress_tls_handshakes_total",
                "TLS handshakes by the version agreed on: 1.2, 1.3, failed.",
                &["version"],
            ),
            proxy_refusals: counter_with(
                "staffetta_ingress_proxy_refusals_total",
                "Connections closed for want of a good PROXY header: untrusted, missing, malformed, timeout, closed.",
                &["listener", "reason"],
            ),
            preflight: counter_with(
                "staffetta_ingress_preflight_total",
                "What checks of tenants found in messages, by rule and what followed: warn, reject.",
                &["rule", "action"],
            ),
            auth_failures: counter(
                "staffetta_ingress_auth_failures_total",
                "Logins with wrong credentials.",
            ),
            login_bans: counter(
                "staffetta_ingress_login_bans_total",
                "Logins not even checked, since too many with this user name had failed from that network.",
            ),
            accept_unknown: counter(
                "staffetta_ingress_accept_unknown_total",
                "Messages of which it is not known whether they were stored; the client was told to send again.",
            ),
            resubmissions: counter(
                "staffetta_ingress_resubmissions_total",
                "Messages that were sent again and known: answered with the id of the first copy, and not stored.",
            ),
            accept_seconds: histogram(
                "staffetta_ingress_accept_seconds",
                "From the end of the content to the reply.",
                latency_buckets(),
            ),
            storage_seconds: histogram(
                "staffetta_ingress_storage_seconds",
                "The part of accept_seconds that is the wait for storage.",
                latency_buckets(),
            ),
            added_seconds: histogram(
                "staffetta_ingress_added_seconds",
                "The rest of accept_seconds without the wait for scanners: what ingress itself adds.",
                latency_buckets(),
            ),
            body_pool_free: gauge(
                "staffetta_ingress_body_pool_free_bytes",
                "Memory that is left for contents that are coming in.",
            ),
            redis_connected: gauge(
                "staffetta_ingress_redis_connected",
                "1 when quotas and failed logins are counted over all processes by Redis, 0 when each keeps to its share.",
            ),
            block_messages: histogram(
                "staffetta_ingress_block_messages",
                "Messages in a block; counted as the upper bound of the bucket.",
                BLOCK_MESSAGES.to_vec(),
            ),
            durability: gauge_with(
                "staffetta_ingress_durability",
                "What a 250 stands for: 1 for the mode that holds (strict, relaxed), and how that is known (checked, declared).",
                &["mode", "known"],
            ),
        }
    }

    /// Counts a refusal. Both labels are constants of the program.
    pub(crate) fn refused(&self, answer: &Answer) {
        let code = answer.code.to_string();
        let enhanced = answer
            .enhanced
            .map(|enhanced| enhanced.to_string())
            .unwrap_or_default();
        self.refusals.with_label_values(&[&code, &enhanced]).inc();
    }

    /// Counts what checks have found. Both labels are constants of the program.
    pub(crate) fn looked_over(&self, findings: &Findings<'_>) {
        let lists = [
            (&findings.warnings, "warn"),
            (&findings.refused_for, "reject"),
        ];
        for (checks, action) in lists {
            for check in checks {
                let labels = [check.rule.name(), action];
                self.preflight.with_label_values(&labels).inc();
            }
        }
    }

    /// Counts a handshake by its version.
    pub(crate) fn handshake(&self, version: Option<rustls::ProtocolVersion>) {
        let label = match version {
            Some(rustls::ProtocolVersion::TLSv1_3) => "1.3",
            Some(rustls::ProtocolVersion::TLSv1_2) => "1.2",
            Some(_) => "other",
            None => "failed",
        };
        self.tls_handshakes.with_label_values(&[label]).inc();
    }

    /// Says what a 250 stands for.
    pub(crate) fn durability(&self, report: &DurabilityReport) {
        self.durability
            .with_label_values(&[report.mode.as_str(), report.verified.as_str()])
            .set(1);
    }

    /// Counts the blocks that were stored between two readings.
    pub(crate) fn blocks(&self, before: &WriterStats, now: &WriterStats) {
        let mut counted = 0;
        for (index, (bound, total)) in now.messages_per_block.iter().enumerate() {
            let earlier = before
                .messages_per_block
                .get(index)
                .map_or(0, |(_, total)| *total);
            let upto = total.saturating_sub(earlier);
            for _ in counted..upto {
                self.block_messages.observe(bound.min(LARGEST_BLOCK));
            }
            counted = upto.max(counted);
        }
    }

    /// The counters of a tenant that is in the configuration.
    pub(crate) fn tenant(&self, tenant: &str) -> TenantMetrics {
        let label = telemetry::tenant_label(tenant);
        TenantMetrics {
            tenant: tenant.into(),
            messages: self.messages.with_label_values(&[label]),
            recipients: self.recipients.with_label_values(&[label]),
            bytes: self.bytes.with_label_values(&[label]),
        }
    }

    /// The counters of a listener.
    pub(crate) fn listener(&self, name: &str) -> ListenerMetrics {
        ListenerMetrics {
            connections: self.connections.with_label_values(&[name]),
            connections_total: self.connections_total.with_label_values(&[name]),
            proxy_refusals: Refused::REASONS.map(|reason| {
                let labels = [name, reason];
                (reason, self.proxy_refusals.with_label_values(&labels))
            }),
        }
    }
}

impl TenantMetrics {
    /// Counts an accepted message.
    pub(crate) fn accepted(&self, recipients: usize, bytes: u64) {
        self.messages.inc();
        self.recipients.inc_by(recipients as u64);
        self.bytes.inc_by(bytes);
    }
}
