//! Logs and metrics.
//!
//! Metrics are registered once in one registry of the process and found again by name, so that a
//! service can run several times in one process. Looking one up takes a lock and allocates: **keep
//! the handle** (they are cheap clones around atomics), and of a metric with labels keep the child
//! that `with_label_values` gives for each label set that is known beforehand.
//!
//! Names follow `staffetta_<service>_<noun>_<unit>[_total]`; a label value comes from a bounded set
//! and is never an address, a message id or the domain of a recipient.

mod logging;
mod metrics;

pub use logging::{Error, LogFormat, init_logging};
pub use metrics::{
    Description, counter, counter_with, describe, domain_label, gather, gauge, gauge_with,
    histogram, histogram_with, latency_buckets, size_buckets, tenant_label, webhook_label,
};
pub use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};
