//! How long it takes from the decision that a message leaves until it does.
//!
//! A rate is counted by when messages are given to senders. The other side counts by when they come, and the ways
//! differ: one waits for a signature or a new connection, the next does not. Two messages that leave a window apart
//! could come closer. So windows are counted longer than they are by the longest way of the last seconds.

/// Maxima are kept of spans of this length, milliseconds; two count.
const SPAN_MS: u64 = 4_000;
/// Before anything is known, milliseconds.
const FIRST_MS: u64 = 50;

/// The longest way of late, in a lane.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lag {
    span: u64,
    now_ms: u64,
    before_ms: u64,
}

impl Default for Lag {
    fn default() -> Self {
        Self {
            span: 0,
            now_ms: 0,
            before_ms: FIRST_MS,
        }
    }
}

impl Lag {
    /// A message began to leave so long after it was given to its sender.
    pub(super) fn note(&mut self, now_ms: u64, took_ms: u64) {
        let span = now_ms / SPAN_MS;
        if span != self.span {
            self.before_ms = match span == self.span + 1 {
                true => self.now_ms,
                false => FIRST_MS,
            };
            (self.span, self.now_ms) = (span, 0);
        }
        self.now_ms = self.now_ms.max(took_ms);
    }

    /// By how much a window is to be longer; at most a quarter of it.
    pub(super) fn of_window(&self, per_ms: u64) -> u64 {
        self.now_ms.max(self.before_ms).min(per_ms / 4)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_way_counts_for_two_spans_and_never_for_more_than_a_quarter_of_a_window() {
        let mut lag = Lag::default();
        assert_eq!(lag.of_window(1_000), FIRST_MS);
        lag.note(SPAN_MS, 90);
        lag.note(SPAN_MS + 1, 20);
        assert_eq!((lag.of_window(1_000), lag.of_window(100)), (90, 25));
        lag.note(2 * SPAN_MS, 10);
        assert_eq!(lag.of_window(1_000), 90);
        lag.note(3 * SPAN_MS, 5);
        assert_eq!(lag.of_window(1_000), 10);
        lag.note(9 * SPAN_MS, 5);
        assert_eq!(lag.of_window(1_000), FIRST_MS);
    }
}
