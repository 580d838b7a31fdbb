//! What ingress counts. Handles are looked up once; labels come from the configuration or from
//! constants.

use std::sync::{Arc, Mutex, PoisonError};

use preflight::Findings;
use proto::envelope::{ChainStatus, Seal};
use proto::watch::Action;
use spool::{DurabilityReport, MeasureMap, PackStats, WriterStats};
use telemetry::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use crate::answer::Answer;
use crate::links::NoLinks;
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
    forwarded: IntCounterVec,
    no_links: IntCounterVec,
    pub(crate) auth_failures: IntCounter,
    token_refusals: IntCounterVec,
    token_key_fetches: IntCounterVec,
    pub(crate) login_bans: IntCounter,
    pub(crate) accept_unknown: IntCounter,
    pub(crate) resubmissions: IntCounter,
    pub(crate) inbound: IntCounter,
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
    events: IntCounter,
    events_dropped: IntCounterVec,
    noticed: IntCounterVec,
    measures_taken: IntCounterVec,
    measures: IntGaugeVec,
    watch_lost: IntCounterVec,
}

/// What is noticed of credentials, and done about them.
#[derive(Clone)]
pub(crate) struct WatchMetrics {
    noticed: IntCounterVec,
    taken: IntCounterVec,
    measures: IntGaugeVec,
    pub(crate) lost_queue: IntCounter,
    pub(crate) lost_redis: IntCounter,
}

const MEASURES: [(Action, &str); 3] = [
    (Action::Slow, "slow"),
    (Action::Hold, "hold"),
    (Action::Lock, "lock"),
];

impl WatchMetrics {
    /// A signal was told.
    pub(crate) fn noticed(&self, signal: &'static str) {
        self.noticed.with_label_values(&[signal]).inc();
    }

    /// A measure was taken by this process.
    pub(crate) fn taken(&self, action: Action) {
        for (_, label) in MEASURES.iter().filter(|(of, _)| *of == action) {
            self.taken.with_label_values(&[label]).inc();
        }
    }

    /// Shows how many credentials there are of which something is done now.
    pub(crate) fn show(&self, measures: &MeasureMap, now_ms: u64) {
        for (action, label) in MEASURES {
            let holding = measures.values().filter(|measure| {
                measure.action() == action && (measure.until_ms == 0 || measure.until_ms > now_ms)
            });
            let count = i64::try_from(holding.count()).unwrap_or(i64::MAX);
            self.measures.with_label_values(&[label]).set(count);
        }
    }
}

/// What became of events.
pub(crate) struct EventMetrics {
    stored: IntCounter,
    dropped_queue: IntCounter,
    dropped_storage: IntCounter,
    /// Too many kinds of events at once.
    pub(crate) dropped_crowd: IntCounter,
    shown: Mutex<PackStats>,
}

impl EventMetrics {
    /// Counts what happened since the last time.
    pub(crate) fn show(&self, now: &PackStats) {
        let mut before = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        self.stored.inc_by(now.stored - before.stored);
        self.dropped_queue
            .inc_by(now.crowded_out - before.crowded_out);
        self.dropped_storage.inc_by(now.given_up - before.given_up);
        *before = *now;
    }
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
            forwarded: counter_with(
                "staffetta_ingress_forwarded_total",
                "Messages of authors who are not of the tenant, by what their ARC set says of the chain that they came with: none, pass, fail; unsealed.",
                &["chain"],
            ),
            no_links: counter_with(
                "staffetta_ingress_unsubscribe_missing_total",
                "Messages of streams with `unsubscribe` that got no link, by reason: no_host (of the author's domain), no_keys (of this process).",
                &["reason"],
            ),
            auth_failures: counter(
                "staffetta_ingress_auth_failures_total",
                "Logins with wrong credentials.",
            ),
            token_refusals: counter_with(
                "staffetta_ingress_token_refusals_total",
                "Logins with tokens that were refused, by what is wrong with the token.",
                &["reason"],
            ),
            token_key_fetches: counter_with(
                "staffetta_ingress_token_key_fetches_total",
                "How often the keys of a TokenIssuer were asked for, and what came of it: new (a key set), same (304), failed.",
                &["issuer", "outcome"],
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
            inbound: counter(
                "staffetta_ingress_inbound_messages_total",
                "Messages that came back and were stored: reports, complaints, and what people write.",
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
            events: counter(
                "staffetta_ingress_events_total",
                "Events that were stored in the stream EVENTS.",
            ),
            events_dropped: counter_with(
                "staffetta_ingress_events_dropped_total",
                "Events that are lost, by reason: queue (no room to wait in), storage (not stored within five minutes), crowd (more than 4,096 kinds in a minute).",
                &["reason"],
            ),
            noticed: counter_with(
                "staffetta_ingress_credentials_noticed_total",
                "Signals of credentials that may be stolen, once for each credential and signal in six hours, by signal.",
                &["signal"],
            ),
            measures_taken: counter_with(
                "staffetta_ingress_credential_measures_total",
                "Measures that rules took about credentials that may be stolen: slow, hold, lock.",
                &["action"],
            ),
            measures: gauge_with(
                "staffetta_ingress_credential_measures",
                "Credentials that are slowed, held or locked now, by rules or operators; each process shows them all.",
                &["action"],
            ),
            watch_lost: counter_with(
                "staffetta_ingress_watch_lost_total",
                "What credentials did and was not noted, by reason: queue (no room to wait in), redis (it can't be asked).",
                &["reason"],
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

    /// Counts a token. The label is a constant of the program.
    pub(crate) fn token_refused(&self, refusal: bearer::Refusal) {
        let reason = refusal.to_string();
        self.token_refusals.with_label_values(&[&reason]).inc();
    }

    /// The counter of what came of asking for the keys of an issuer that is in the configuration.
    pub(crate) fn token_key_fetches(&self, issuer: &str, outcome: &str) -> IntCounter {
        let labels = [issuer, outcome];
        self.token_key_fetches.with_label_values(&labels)
    }

    /// Counts what checks have found. Both labels are constants of the program.
    pub(crate) fn looked_over(&self, findings: &Findings) {
        let lists = [
            (&findings.warnings, "warn"),
            (&findings.refused_for, "reject"),
        ];
        for (list, action) in lists {
            for finding in list {
                let labels = [finding.rule, action];
                self.preflight.with_label_values(&labels).inc();
            }
        }
    }

    /// Counts a message of a foreign author.
    pub(crate) fn forwarded(&self, seal: Option<&Seal>) {
        let chain = seal.map_or("unsealed", |seal| match seal.status() {
            ChainStatus::None => "none",
            ChainStatus::Pass => "pass",
            ChainStatus::Fail => "fail",
        });
        self.forwarded.with_label_values(&[chain]).inc();
    }

    /// Counts a message without the links that its stream should have.
    pub(crate) fn no_links(&self, why: NoLinks) {
        let why = match why {
            NoLinks::Host => "no_host",
            NoLinks::Keys => "no_keys",
        };
        self.no_links.with_label_values(&[why]).inc();
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

    /// What became of events.
    pub(crate) fn events(&self) -> EventMetrics {
        let dropped = |reason| self.events_dropped.with_label_values(&[reason]);
        EventMetrics {
            stored: self.events.clone(),
            dropped_queue: dropped("queue"),
            dropped_storage: dropped("storage"),
            dropped_crowd: dropped("crowd"),
            shown: Mutex::default(),
        }
    }

    /// What is noticed of credentials.
    pub(crate) fn watch(&self) -> WatchMetrics {
        let lost = |reason| self.watch_lost.with_label_values(&[reason]);
        WatchMetrics {
            noticed: self.noticed.clone(),
            taken: self.measures_taken.clone(),
            measures: self.measures.clone(),
            lost_queue: lost("queue"),
            lost_redis: lost("redis"),
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
