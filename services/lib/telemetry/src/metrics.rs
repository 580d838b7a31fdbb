//! The registry of metrics.

use std::collections::{HashMap, HashSet};
use std::sync::{LazyLock, Mutex, PoisonError};

use prometheus::{
    Encoder, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

#[derive(Clone)]
enum Metric {
    Counter(IntCounterVec),
    Gauge(IntGaugeVec),
    Histogram(HistogramVec),
}

struct Metrics {
    registry: Registry,
    by_name: Mutex<HashMap<String, Registered>>,
}

struct Registered {
    help: String,
    labels: Vec<String>,
    metric: Metric,
}

/// What a metric is called and means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Unique.
    pub name: String,
    /// `counter`, `gauge` or `histogram`.
    pub kind: &'static str,
    /// Names of its labels.
    pub labels: Vec<String>,
    /// One line.
    pub help: String,
}

/// Everything that is registered so far in this process, by name; what the process itself uses (`process_…`) is not
/// among it.
pub fn describe() -> Vec<Description> {
    let by_name = METRICS
        .by_name
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    let describe = |(name, registered): (&String, &Registered)| Description {
        name: name.clone(),
        kind: match registered.metric {
            Metric::Counter(_) => "counter",
            Metric::Gauge(_) => "gauge",
            Metric::Histogram(_) => "histogram",
        },
        labels: registered.labels.clone(),
        help: registered.help.clone(),
    };
    let mut descriptions: Vec<Description> = by_name.iter().map(describe).collect();
    descriptions.sort_by(|left, right| left.name.cmp(&right.name));
    descriptions
}

/// Tenants that have values of their own in the label `tenant`; the configuration may have many more.
const MOST_TENANTS: usize = 200;

/// The value of the label `tenant`: the first 200 tenants that this process meets have their own, the others share
/// `other`, so that the number of series has a bound.
pub fn tenant_label(tenant: &str) -> &str {
    static SEEN: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    label_within(&mut seen, MOST_TENANTS, tenant)
}

/// Sending domains that have values of their own in the label `domain`.
const MOST_DOMAINS: usize = 200;

/// The value of the label `domain`, as [`tenant_label`]: for the first 200 sending domains.
pub fn domain_label(domain: &str) -> &str {
    static SEEN: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    label_within(&mut seen, MOST_DOMAINS, domain)
}

/// Webhooks that have values of their own in the label `webhook`.
const MOST_WEBHOOKS: usize = 200;

/// The value of the label `webhook`, as [`tenant_label`]: for the first 200 webhooks.
pub fn webhook_label(webhook: &str) -> &str {
    static SEEN: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);
    let mut seen = SEEN.lock().unwrap_or_else(PoisonError::into_inner);
    label_within(&mut seen, MOST_WEBHOOKS, webhook)
}

fn label_within<'a>(seen: &mut HashSet<String>, most: usize, value: &'a str) -> &'a str {
    if seen.contains(value) {
        return value;
    }
    if seen.len() >= most {
        return "other";
    }
    seen.insert(value.to_owned());
    value
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| {
    let registry = Registry::new();
    let process = prometheus::process_collector::ProcessCollector::for_self();
    registry
        .register(Box::new(process))
        .expect("the registry is empty, so no name is taken");
    Metrics {
        registry,
        by_name: Mutex::new(HashMap::new()),
    }
});

/// Finds the metric, or makes and registers it. Two places of the code that use one name for
/// different kinds or labels is a bug that every run of the service shows at once: it panics.
fn find_or_register(
    name: &str,
    help: &str,
    labels: &[&str],
    make: impl FnOnce() -> prometheus::Result<Metric>,
) -> Metric {
    let mut by_name = METRICS
        .by_name
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    if let Some(known) = by_name.get(name) {
        assert!(
            known.labels == labels,
            "metric {name} is used with two sets of labels"
        );
        return known.metric.clone();
    }
    let metric = make().expect("name and labels of a metric are constants of a valid form");
    let collector: Box<dyn prometheus::core::Collector> = match &metric {
        Metric::Counter(counter) => Box::new(counter.clone()),
        Metric::Gauge(gauge) => Box::new(gauge.clone()),
        Metric::Histogram(histogram) => Box::new(histogram.clone()),
    };
    METRICS
        .registry
        .register(collector)
        .expect("a metric that is not in the map is not registered");
    let registered = Registered {
        help: help.to_owned(),
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        metric: metric.clone(),
    };
    by_name.insert(name.to_owned(), registered);
    metric
}

/// The counter `name` without labels.
pub fn counter(name: &str, help: &str) -> IntCounter {
    counter_with(name, help, &[]).with_label_values::<&str>(&[])
}

/// The counter `name` with these labels.
///
/// # Panics
/// When `name` is used elsewhere with other labels or as another kind of metric.
pub fn counter_with(name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let metric = find_or_register(name, help, labels, || {
        IntCounterVec::new(Opts::new(name, help), labels).map(Metric::Counter)
    });
    match metric {
        Metric::Counter(counter) => counter,
        Metric::Gauge(_) | Metric::Histogram(_) => panic!("metric {name} is not a counter"),
    }
}

/// The gauge `name` without labels.
pub fn gauge(name: &str, help: &str) -> IntGauge {
    gauge_with(name, help, &[]).with_label_values::<&str>(&[])
}

/// The gauge `name` with these labels.
///
/// # Panics
/// When `name` is used elsewhere with other labels or as another kind of metric.
pub fn gauge_with(name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let metric = find_or_register(name, help, labels, || {
        IntGaugeVec::new(Opts::new(name, help), labels).map(Metric::Gauge)
    });
    match metric {
        Metric::Gauge(gauge) => gauge,
        Metric::Counter(_) | Metric::Histogram(_) => panic!("metric {name} is not a gauge"),
    }
}

/// The histogram `name` without labels; `buckets` are upper bounds, ascending.
pub fn histogram(name: &str, help: &str, buckets: Vec<f64>) -> Histogram {
    histogram_with(name, help, buckets, &[]).with_label_values::<&str>(&[])
}

/// The histogram `name` with these labels; `buckets` are upper bounds, ascending.
///
/// # Panics
/// When `name` is used elsewhere with other labels or as another kind of metric.
pub fn histogram_with(name: &str, help: &str, buckets: Vec<f64>, labels: &[&str]) -> HistogramVec {
    let metric = find_or_register(name, help, labels, || {
        HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets), labels)
            .map(Metric::Histogram)
    });
    match metric {
        Metric::Histogram(histogram) => histogram,
        Metric::Counter(_) | Metric::Gauge(_) => panic!("metric {name} is not a histogram"),
    }
}

/// Upper bounds for latencies in seconds: 0.5 ms to 10 min.
pub fn latency_buckets() -> Vec<f64> {
    vec![
        0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0,
        60.0, 300.0, 600.0,
    ]
}

/// Upper bounds for sizes in octets: 1 KiB to 64 MiB, by factors of 4.
pub fn size_buckets() -> Vec<f64> {
    (0..9)
        .map(|step| f64::from(1024_u32 << (2 * step)))
        .collect()
}

/// All metrics of the process in the text format of Prometheus.
pub fn gather() -> String {
    let mut text = Vec::new();
    if let Err(error) = TextEncoder::new().encode(&METRICS.registry.gather(), &mut text) {
        tracing::warn!(%error, "metrics could not be written as text");
    }
    String::from_utf8_lossy(&text).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_same_metric_for_the_same_name() {
        counter("staffetta_test_same_total", "Test.").inc();
        counter("staffetta_test_same_total", "Test.").inc();
        assert!(
            gather().contains("staffetta_test_same_total 2\n"),
            "{}",
            gather()
        );
    }

    #[test]
    fn describes_what_is_registered() {
        gauge_with("staffetta_test_described", "What it is.", &["a", "b"]);
        let described = describe();
        let found = described
            .iter()
            .find(|description| description.name == "staffetta_test_described");
        let expected = Description {
            name: "staffetta_test_described".to_owned(),
            kind: "gauge",
            labels: vec!["a".to_owned(), "b".to_owned()],
            help: "What it is.".to_owned(),
        };
        assert_eq!(found, Some(&expected));
    }

    #[test]
    fn values_beyond_the_bound_share_one() {
        let mut seen = HashSet::new();
        let values = ["a", "b", "c", "a", "d", "b"];
        let labels = values.map(|value| label_within(&mut seen, 2, value));
        assert_eq!(labels, ["a", "b", "other", "a", "other", "b"]);
    }

    #[test]
    fn writes_labels_and_buckets() {
        gauge_with("staffetta_test_partitions", "Test.", &["state"])
            .with_label_values(&["owned"])
            .set(3);
        histogram("staffetta_test_seconds", "Test.", latency_buckets()).observe(0.003);
        let text = gather();
        assert!(
            text.contains("staffetta_test_partitions{state=\"owned\"} 3\n"),
            "{text}"
        );
        assert!(
            text.contains("staffetta_test_seconds_bucket{le=\"0.005\"} 1\n"),
            "{text}"
        );
    }

    #[test]
    #[should_panic(expected = "two sets of labels")]
    fn panics_when_one_name_has_two_sets_of_labels() {
        counter_with("staffetta_test_labels_total", "Test.", &["a"]);
        counter_with("staffetta_test_labels_total", "Test.", &["b"]);
    }

    #[test]
    fn size_buckets_end_at_64_mib() {
        assert_eq!(size_buckets().last(), Some(&67_108_864.0));
    }
}
