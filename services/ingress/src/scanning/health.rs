//! Whether a scanner is worth being asked. Pure: time is an argument.
//!
//! Who can't be reached, or fails three times with nothing good in between, is down: it is left alone for a pause, which doubles
//! up to half a minute. Then one message tries, and the others wait for what comes of it by their own policy.

use std::time::Duration;

use tokio::time::Instant;

/// Failures after which a scanner is down.
const MOST_FAILURES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Whether a message may be shown to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Leave {
    Yes,
    /// To find out whether it is back.
    Probe,
    No,
}

/// What is known of a scanner.
#[derive(Debug)]
pub(crate) struct Health {
    failures: u32,
    succeeded: Option<Instant>,
    down_until: Option<Instant>,
    pause: Duration,
    /// A message tries; another may when it takes too long, as with a client that sends slowly.
    probing_until: Option<Instant>,
}

impl Health {
    /// Nothing is known; it is asked.
    pub(crate) fn new() -> Self {
        Self {
            failures: 0,
            succeeded: None,
            down_until: None,
            pause: FIRST_PAUSE,
            probing_until: None,
        }
    }

    pub(crate) fn is_down(&self) -> bool {
        self.down_until.is_some()
    }

    /// Asks for leave; after [`Leave::Probe`] its outcome must be told, or that there is none.
    pub(crate) fn ask(&mut self, now: Instant) -> Leave {
        match self.down_until {
            None => Leave::Yes,
            Some(until) if now < until => Leave::No,
            Some(_) if self.probing_until.is_some_and(|until| now < until) => Leave::No,
            Some(_) => {
                self.probing_until = Some(now + LONGEST_PAUSE);
                Leave::Probe
            }
        }
    }

    /// It has answered; `true` when it was down.
    pub(crate) fn succeeded(&mut self, now: Instant) -> bool {
        let was_down = self.is_down();
        *self = Self {
            succeeded: Some(now),
            ..Self::new()
        };
        was_down
    }

    /// Nobody is there; `true` when it goes down by that.
    pub(crate) fn unreachable(&mut self, now: Instant, is_probe: bool) -> bool {
        self.go_down(now, is_probe)
    }

    /// It failed with a message that was begun then; `true` when it goes down by that. Who has answered others meanwhile is
    /// alive: it was this message.
    pub(crate) fn failed(&mut self, now: Instant, begun: Instant, is_probe: bool) -> bool {
        if self.succeeded.is_some_and(|succeeded| succeeded >= begun) && !is_probe {
            return false;
        }
        self.failures = self.failures.saturating_add(1);
        (is_probe || self.failures >= MOST_FAILURES) && self.go_down(now, is_probe)
    }

    /// A probe ended and nothing is known by it.
    pub(crate) fn abandoned(&mut self) {
        self.probing_until = None;
    }

    fn go_down(&mut self, now: Instant, is_probe: bool) -> bool {
        let was_down = self.is_down();
        if was_down && !is_probe {
            // Begun before it went down.
            return false;
        }
        self.down_until = Some(now + self.pause);
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        self.probing_until = None;
        !was_down
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(count: u64) -> Duration {
        Duration::from_secs(count)
    }

    #[test]
    fn who_can_t_be_reached_is_left_alone_for_longer_and_longer() {
        let mut health = Health::new();
        let mut now = Instant::now();
        assert_eq!(health.ask(now), Leave::Yes);
        assert!(health.unreachable(now, false));
        assert!(
            !health.unreachable(now, false),
            "of those that were under way"
        );
        for pause in [1, 2, 4, 8, 16, 30, 30] {
            assert_eq!(
                health.ask(now + seconds(pause) - Duration::from_millis(1)),
                Leave::No
            );
            now += seconds(pause);
            assert_eq!(health.ask(now), Leave::Probe);
            assert_eq!(health.ask(now), Leave::No, "one tries");
            assert!(!health.unreachable(now, true));
        }
        now += seconds(30);
        assert_eq!(health.ask(now), Leave::Probe);
        assert!(health.succeeded(now));
        assert_eq!(health.ask(now), Leave::Yes);
        assert!(health.unreachable(now, false));
        assert_eq!(
            health.ask(now + seconds(1)),
            Leave::Probe,
            "the pause is short again"
        );
    }

    #[test]
    fn a_message_that_nobody_can_scan_does_not_take_the_scanner_down() {
        let mut health = Health::new();
        let begun = Instant::now();
        let now = begun + seconds(20);
        for _ in 0..10 {
            health.succeeded(begun + seconds(1));
            assert!(!health.failed(now, begun, false));
        }
        // Nothing good came of those.
        let begun = now;
        let now = begun + seconds(20);
        assert!(!health.failed(now, begun, false));
        assert!(!health.failed(now, begun, false));
        assert!(health.failed(now, begun, false));
        assert!(health.is_down());
    }

    #[test]
    fn a_probe_that_was_given_up_lets_another_try() {
        let mut health = Health::new();
        let now = Instant::now();
        health.unreachable(now, false);
        let later = now + seconds(5);
        assert_eq!(health.ask(later), Leave::Probe);
        health.abandoned();
        assert_eq!(health.ask(later), Leave::Probe);
        assert!(!health.failed(later, later, true));
        assert_eq!(health.ask(later), Leave::No);
        let later = later + seconds(60);
        assert_eq!(health.ask(later), Leave::Probe);
        assert_eq!(health.ask(later + seconds(29)), Leave::No);
        assert_eq!(
            health.ask(later + seconds(30)),
            Leave::Probe,
            "the first takes too long"
        );
    }
}
