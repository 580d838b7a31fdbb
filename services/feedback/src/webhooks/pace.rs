//! When what was not accepted is posted again, and when it is given up.

use std::time::Duration;

/// The first wait; each is twice the one before.
const FIRST: Duration = Duration::from_secs(2);
/// The longest that we choose ourselves.
const LONGEST: Duration = Duration::from_secs(600);
/// The longest that an endpoint can ask for.
const LONGEST_ASKED: Duration = Duration::from_secs(3600);
/// Failures that are further apart are not one time of failing: longer than any wait, and the attempt after it.
const AWAY: Duration = Duration::from_secs(2 * 3600);
/// One event that is refused as such is given up after so many attempts.
const REFUSALS: u32 = 8;

/// What an endpoint made of a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// 2xx.
    Accepted,
    /// 400, 413, 422: the endpoint works, and does not take this.
    Refused,
    /// 410: nothing may be posted there any more.
    Gone,
    /// Any other answer, or none; it may have asked to be left alone for a while.
    Failed(Option<Duration>),
}

/// What is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    /// The events are delivered.
    Advance,
    /// They are posted in two halves.
    Halve,
    /// They are posted again after a while.
    Again(Duration),
    /// They are not posted any more.
    GiveUp,
    /// Nothing is posted until somebody says so.
    Stop,
}

/// What is posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Posted {
    /// How many events.
    pub(crate) events: usize,
    /// When the youngest of them was written, Unix milliseconds.
    pub(crate) youngest_ms: u64,
}

/// How an endpoint does, as one line of posts to it sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pace {
    max_age_ms: u64,
    /// Unix milliseconds; 0 = it accepts.
    failing_since_ms: u64,
    /// Failures since it accepted something.
    failures: u32,
    /// Of the event that is posted alone.
    refusals: u32,
    /// When an attempt failed last, Unix milliseconds; 0 = that is not known.
    tried_ms: u64,
}

impl Pace {
    /// Goes on where a line was.
    pub(crate) fn new(max_age: Duration, failing_since_ms: u64) -> Self {
        Self {
            max_age_ms: u64::try_from(max_age.as_millis()).unwrap_or(u64::MAX),
            failing_since_ms,
            failures: 0,
            refusals: 0,
            tried_ms: 0,
        }
    }

    /// Since when it has accepted nothing, Unix milliseconds; 0 = it accepts.
    pub(crate) fn failing_since_ms(&self) -> u64 {
        self.failing_since_ms
    }

    /// Whether there is no use in trying: this endpoint has failed, also a moment ago, for as long as events are kept for
    /// it, and these are older.
    pub(crate) fn is_hopeless(&self, now_ms: u64, posted: Posted) -> bool {
        let since_tried_ms = now_ms.saturating_sub(self.tried_ms);
        let is_recent = u128::from(since_tried_ms) <= AWAY.as_millis();
        self.failures > 0 && is_recent && self.is_over(now_ms, posted.youngest_ms)
    }

    fn is_over(&self, now_ms: u64, youngest_ms: u64) -> bool {
        let is_old = |since_ms: u64| now_ms.saturating_sub(since_ms) >= self.max_age_ms;
        self.failing_since_ms > 0 && is_old(self.failing_since_ms) && is_old(youngest_ms)
    }

    /// What follows from what the endpoint made of a post. `chance` is 0 to 255: waits differ by up to a fifth, so that
    /// lines do not come back together.
    pub(crate) fn judge(
        &mut self,
        now_ms: u64,
        posted: Posted,
        verdict: Verdict,
        chance: u8,
    ) -> Next {
        match verdict {
            Verdict::Accepted => {
                (self.failing_since_ms, self.failures, self.refusals) = (0, 0, 0);
                Next::Advance
            }
            // When somebody enables it, it begins anew.
            Verdict::Gone => {
                (self.failing_since_ms, self.failures, self.refusals) = (0, 0, 0);
                Next::Stop
            }
            Verdict::Refused => {
                (self.failing_since_ms, self.failures) = (0, 0);
                if posted.events > 1 {
                    return Next::Halve;
                }
                self.refusals += 1;
                if self.refusals >= REFUSALS {
                    self.refusals = 0;
                    return Next::GiveUp;
                }
                Next::Again(wait(self.refusals, chance))
            }
            Verdict::Failed(asked) => {
                // While nothing was tried, nothing failed.
                let since_tried_ms = now_ms.saturating_sub(self.tried_ms);
                let was_away = self.tried_ms > 0 && u128::from(since_tried_ms) > AWAY.as_millis();
                if self.failing_since_ms == 0 || was_away {
                    self.failing_since_ms = now_ms;
                }
                self.tried_ms = now_ms;
                self.failures = self.failures.saturating_add(1);
                if self.is_over(now_ms, posted.youngest_ms) {
                    return Next::GiveUp;
                }
                let own = wait(self.failures, chance);
                Next::Again(asked.map_or(own, |asked| asked.min(LONGEST_ASKED).max(own)))
            }
        }
    }
}

/// Before the next attempt after so many failures.
fn wait(failures: u32, chance: u8) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let usual = (FIRST * (1 << doublings)).min(LONGEST);
    usual - usual / 5 * u32::from(chance) / 255
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600_000;
    const NOW: u64 = 1_800_000_000_000;

    fn posted(events: usize, youngest_ms: u64) -> Posted {
        Posted {
            events,
            youngest_ms,
        }
    }

    #[test]
    fn waits_grow_to_ten_minutes_and_end_with_an_answer() {
        let mut pace = Pace::new(Duration::from_secs(3 * 86_400), 0);
        let mut waits = Vec::new();
        for _ in 0..12 {
            match pace.judge(NOW, posted(1, NOW), Verdict::Failed(None), 0) {
                Next::Again(wait) => waits.push(wait.as_secs()),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600]);
        let asked = Verdict::Failed(Some(Duration::from_secs(900)));
        let longer = pace.judge(NOW, posted(1, NOW), asked, 255);
        assert_eq!(longer, Next::Again(Duration::from_secs(900)));
        assert_eq!(pace.failing_since_ms(), NOW);
        let accepted = pace.judge(NOW, posted(1, NOW), Verdict::Accepted, 0);
        assert_eq!((accepted, pace.failing_since_ms()), (Next::Advance, 0));
        let again = pace.judge(NOW, posted(1, NOW), Verdict::Failed(None), 255);
        assert_eq!(again, Next::Again(Duration::from_millis(1_600)));
    }

    #[test]
    fn an_event_is_given_up_when_it_is_old_and_the_endpoint_has_failed_as_long() {
        let mut pace = Pace::new(Duration::from_millis(HOUR), 0);
        let failed = Verdict::Failed(None);
        // We were away for days: the endpoint gets its hour.
        let old = posted(9, NOW - 100 * HOUR);
        assert!(!pace.is_hopeless(NOW, old));
        assert!(matches!(pace.judge(NOW, old, failed, 0), Next::Again(_)));
        assert!(!pace.is_hopeless(NOW + 1, old));
        assert_eq!(pace.judge(NOW + HOUR, old, failed, 0), Next::GiveUp);
        // What is as old is not even tried, what is younger waits.
        assert!(pace.is_hopeless(NOW + HOUR, posted(9, NOW)));
        let young = posted(9, NOW + 1);
        assert!(!pace.is_hopeless(NOW + HOUR, young));
        assert!(matches!(
            pace.judge(NOW + HOUR, young, failed, 0),
            Next::Again(_)
        ));
        // A restart remembers since when it fails, and tries once.
        let mut again = Pace::new(Duration::from_millis(HOUR), NOW);
        assert!(!again.is_hopeless(NOW + HOUR, posted(9, NOW)));
        assert_eq!(
            again.judge(NOW + HOUR, posted(9, NOW), failed, 0),
            Next::GiveUp
        );
    }

    #[test]
    fn time_in_which_nothing_was_tried_does_not_count() {
        let mut pace = Pace::new(Duration::from_millis(3 * HOUR), 0);
        let failed = Verdict::Failed(None);
        let first = pace.judge(NOW, posted(9, NOW), failed, 0);
        assert!(matches!(first, Next::Again(_)));
        // It was disabled, or had nothing to get.
        let later = NOW + 50 * HOUR;
        assert!(!pace.is_hopeless(later, posted(9, NOW)));
        let again = pace.judge(later, posted(9, NOW), failed, 0);
        assert!(matches!(again, Next::Again(_)), "{again:?}");
        assert_eq!(pace.failing_since_ms(), later);
        for hours in 1..3 {
            let again = pace.judge(later + hours * HOUR, posted(9, NOW), failed, 0);
            assert!(matches!(again, Next::Again(_)), "{again:?}");
        }
        assert_eq!(
            pace.judge(later + 3 * HOUR, posted(9, NOW), failed, 0),
            Next::GiveUp
        );
        // Nor does what was before it was gone.
        pace.judge(later + 3 * HOUR, posted(9, NOW), Verdict::Gone, 0);
        assert_eq!(pace.failing_since_ms(), 0);
    }

    #[test]
    fn what_is_refused_as_such_is_halved_and_holds_nobody_up_for_long() {
        let mut pace = Pace::new(Duration::from_millis(HOUR), 0);
        let halved = pace.judge(NOW, posted(2, NOW), Verdict::Refused, 0);
        assert_eq!(halved, Next::Halve);
        for _ in 0..7 {
            let again = pace.judge(NOW, posted(1, NOW), Verdict::Refused, 0);
            assert!(matches!(again, Next::Again(_)), "{again:?}");
        }
        let last = pace.judge(NOW, posted(1, NOW), Verdict::Refused, 0);
        assert_eq!(last, Next::GiveUp);
        assert_eq!(pace.failing_since_ms(), 0);
        let gone = pace.judge(NOW, posted(1, NOW), Verdict::Gone, 0);
        assert_eq!(gone, Next::Stop);
    }
}
