//! What is counted of scanners. Labels come from the configuration, or are constants.

use telemetry::{Histogram, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec};

/// Of all scanners.
pub(super) struct ScanMetrics {
    scans: IntCounterVec,
    seconds: HistogramVec,
    in_flight: IntGaugeVec,
    up: IntGaugeVec,
}

/// Of one scanner.
#[derive(Clone)]
pub(super) struct ScannerMetrics {
    name: Box<str>,
    scans: IntCounterVec,
    pub(super) seconds: Histogram,
    in_flight: IntGauge,
    pub(super) up: IntGauge,
}

/// Counts a message as long as a scanner has it.
pub(super) struct InFlight(IntGauge);

impl ScanMetrics {
    /// Registers them, or finds them.
    pub(super) fn new() -> Self {
        use telemetry::{counter_with, gauge_with, histogram_with, latency_buckets};
        Self {
            scans: counter_with(
                "staffetta_ingress_scans_total",
                "Messages shown to a scanner, by what came of it: clean, spam, held, infected, rejected, deferred, tooLarge; and by why there was no verdict: down, busy, late, failed.",
                &["scanner", "verdict"],
            ),
            seconds: histogram_with(
                "staffetta_ingress_scan_seconds",
                "How long a message waited for a scanner, its turn included.",
                latency_buckets(),
                &["scanner"],
            ),
            in_flight: gauge_with(
                "staffetta_ingress_scans_in_flight",
                "Messages that a scanner has or that wait for their turn.",
                &["scanner"],
            ),
            up: gauge_with(
                "staffetta_ingress_scanner_up",
                "1 when the scanner is asked, 0 when it failed and is left alone for a pause.",
                &["scanner"],
            ),
        }
    }

    /// Of the scanner of this name.
    pub(super) fn scanner(&self, name: &str) -> ScannerMetrics {
        let up = self.up.with_label_values(&[name]);
        up.set(1);
        ScannerMetrics {
            name: name.into(),
            scans: self.scans.clone(),
            seconds: self.seconds.with_label_values(&[name]),
            in_flight: self.in_flight.with_label_values(&[name]),
            up,
        }
    }
}

impl ScannerMetrics {
    /// Counts an outcome.
    pub(super) fn scanned(&self, label: &str) {
        self.scans.with_label_values(&[&*self.name, label]).inc();
    }

    /// A message comes.
    pub(super) fn begin(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}
