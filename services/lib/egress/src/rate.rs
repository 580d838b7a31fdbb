//! The rates of a lane.
//!
//! A lane has several windows at once, say 100 messages a second and 20,000 a day: what leaves needs all of them. A
//! limit holds over any window of its length for the sum of all replicas. Each replica draws on grants, slices of
//! the limit that it was leased. Without grants (Redis away, or its memory of past use gone) a replica keeps to a
//! safe share of its own, and begins with it only one whole window after the last grant that any replica can have
//! got, since what others used of theirs is not known.

use std::collections::VecDeque;

/// So many per so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RateLimit {
    /// How many, at least 1.
    pub count: u64,
    /// Window, milliseconds.
    pub per_ms: u64,
}

/// What a window counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Messages.
    Messages,
    /// Connections that are opened.
    Connections,
}

/// One of the windows of a lane, by what makes it different from its others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Window {
    /// What it counts.
    pub unit: Unit,
    /// How many of it.
    pub limit: RateLimit,
}

/// Whether a message may go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// Yes.
    Yes,
    /// Not before this time (Unix milliseconds).
    Wait(u64),
    /// A grant must be asked for; [`Rate::news`] goes on.
    Ask {
        /// How much of the last grant was used, to be reported.
        used: u64,
        /// What was used outside any grant since the last question.
        outside: u64,
    },
    /// A grant is asked for already.
    Asked,
}

/// The answer to a question for a grant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantNews {
    /// So many may go until then.
    Granted {
        /// Messages.
        amount: u64,
        /// Unix milliseconds.
        until_ms: u64,
    },
    /// Nothing is left for now.
    Nothing {
        /// Unix milliseconds at which to ask again.
        retry_ms: u64,
    },
    /// Nobody answers, or past use is not known there: keep to the share for this long.
    Share {
        /// Messages per window that this replica may send by itself.
        share: u64,
        /// Unix milliseconds at which to ask again.
        until_ms: u64,
    },
}

/// The windows of a lane: what leaves needs all of them.
#[derive(Debug, Default)]
pub struct Rates {
    windows: Vec<(Window, Rate)>,
}

/// What all windows of a lane say together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeAll {
    /// It is counted in all.
    Yes,
    /// Not before this time (Unix milliseconds).
    Wait(u64),
    /// A grant must be asked for; others may have to be asked for too: look again.
    Ask {
        /// For which window.
        window: Window,
        /// How many are wanted.
        want: u64,
        /// As in [`Take::Ask`].
        used: u64,
        /// As in [`Take::Ask`].
        outside: u64,
    },
    /// Grants are asked for already.
    Asked,
}

impl Rates {
    /// Windows of which nothing is used.
    pub fn new(windows: impl IntoIterator<Item = Window>) -> Self {
        let fresh = |window: Window| (window, Rate::new(window.limit));
        Self {
            windows: windows.into_iter().map(fresh).collect(),
        }
    }

    /// Other windows from now on. Those that stay the same keep their counts.
    pub fn set(&mut self, windows: &[Window]) {
        if self.windows.iter().map(|(window, _)| window).eq(windows) {
            return;
        }
        let mut before = std::mem::take(&mut self.windows);
        self.windows.reserve_exact(windows.len());
        for window in windows {
            let kept = before.iter().position(|(present, _)| present == window);
            let entry = match kept {
                Some(position) => before.swap_remove(position),
                None => (*window, Rate::new(window.limit)),
            };
            self.windows.push(entry);
        }
    }

    /// Counts one message, and a connection when `opens` says so, in all windows, or in none and says why. `waiting`
    /// messages would like to follow.
    pub fn take(&mut self, now_ms: u64, opens: bool, waiting: u64) -> TakeAll {
        if self.windows.is_empty() {
            return TakeAll::Yes;
        }
        let concerned = |window: &Window| opens || window.unit == Unit::Messages;
        // Nothing is asked of others as long as one window says no by itself: the grant would only run out.
        let (mut wait_until_ms, mut asked) = (None, false);
        for (window, rate) in &mut self.windows {
            if concerned(window)
                && let Some(until_ms) = rate.must_wait(now_ms)
            {
                wait_until_ms = wait_until_ms.max(Some(until_ms));
            }
        }
        if let Some(until_ms) = wait_until_ms {
            return TakeAll::Wait(until_ms);
        }
        for (window, rate) in &mut self.windows {
            if !concerned(window) {
                continue;
            }
            match rate.check(now_ms) {
                Take::Yes => {}
                Take::Wait(until_ms) => return TakeAll::Wait(until_ms),
                Take::Asked => asked = true,
                Take::Ask { used, outside } => {
                    let waiting = match window.unit {
                        Unit::Messages => waiting,
                        Unit::Connections => 1,
                    };
                    return TakeAll::Ask {
                        window: *window,
                        want: rate.want(waiting),
                        used,
                        outside,
                    };
                }
            }
        }
        if asked {
            return TakeAll::Asked;
        }
        for (window, rate) in &mut self.windows {
            rate.taken = None;
            if concerned(window) {
                rate.commit(now_ms);
            }
        }
        TakeAll::Yes
    }

    /// Gives back what was taken last and not used.
    pub fn refund(&mut self) {
        self.windows.iter_mut().for_each(|(_, rate)| rate.refund());
    }

    /// Takes an answer. One for a window that is not there any more has no effect.
    pub fn news(&mut self, now_ms: u64, window: Window, news: GrantNews) {
        let asked = self
            .windows
            .iter_mut()
            .find(|(present, _)| *present == window);
        if let Some((_, rate)) = asked {
            rate.news(now_ms, news);
        }
    }

    /// The windows, each with how much of it this replica used within its length.
    pub fn windows(&self) -> impl Iterator<Item = (Window, u64)> {
        self.windows
            .iter()
            .map(|(window, rate)| (*window, rate.in_window))
    }

    /// Until when the windows let nothing pass, and the one that is last; `None` when they would, or nobody knows
    /// before asking.
    pub fn blocked(&self, now_ms: u64) -> Option<(Window, u64)> {
        self.windows
            .iter()
            .filter_map(|(window, rate)| Some((*window, rate.must_wait(now_ms)?)))
            .max_by_key(|(_, until_ms)| *until_ms)
    }
}

impl Rates {
    /// The window about which an answer is on its way, if there is one.
    pub fn asked(&self) -> Option<Window> {
        let asks = |(_, rate): &&(Window, Rate)| rate.asking;
        self.windows.iter().find(asks).map(|(window, _)| *window)
    }

    /// Whether nothing of any window is in use: what they count can be forgotten.
    pub fn are_unused(&self, now_ms: u64) -> bool {
        self.windows.iter().all(|(_, rate)| rate.is_unused(now_ms))
    }
}

/// One window. See the module.
#[derive(Debug)]
pub struct Rate {
    limit: RateLimit,
    used: VecDeque<(u64, u64)>,
    in_window: u64,
    grant: u64,
    grant_until_ms: u64,
    grant_used: u64,
    outside: u64,
    asking: bool,
    wait_until_ms: u64,
    share: Option<(u64, u64)>,
    share_from_ms: u64,
    /// From what the last one was taken.
    taken: Option<Taken>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Grant,
    Share,
}

impl Rate {
    /// A rate of which nothing is used.
    pub fn new(limit: RateLimit) -> Self {
        Self {
            limit,
            used: VecDeque::new(),
            in_window: 0,
            grant: 0,
            grant_until_ms: 0,
            grant_used: 0,
            outside: 0,
            asking: false,
            wait_until_ms: 0,
            share: None,
            share_from_ms: 0,
            taken: None,
        }
    }

    /// The limit.
    pub fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Whether one message may go; [`Rate::commit`] counts it.
    pub fn check(&mut self, now_ms: u64) -> Take {
        if self.has_grant(now_ms) {
            return Take::Yes;
        }
        if self.asking {
            return Take::Asked;
        }
        if let Some(until_ms) = self.must_wait(now_ms) {
            return Take::Wait(until_ms);
        }
        if self.has_share(now_ms).is_some() {
            return Take::Yes;
        }
        self.asking = true;
        Take::Ask {
            used: std::mem::take(&mut self.grant_used),
            outside: std::mem::take(&mut self.outside),
        }
    }

    /// Counts one message that [`Rate::check`] let pass at the same time.
    pub fn commit(&mut self, now_ms: u64) {
        if self.has_grant(now_ms) {
            self.grant -= 1;
            self.grant_used += 1;
            self.taken = Some(Taken::Grant);
        } else {
            self.outside += 1;
            self.taken = Some(Taken::Share);
        }
        self.count(now_ms);
    }

    fn has_grant(&self, now_ms: u64) -> bool {
        self.grant > 0 && now_ms < self.grant_until_ms
    }

    /// Whether nothing was used within a window, no grant is held, and no answer is on its way.
    fn is_unused(&self, now_ms: u64) -> bool {
        let horizon = self.limit.per_ms + self.bucket_ms();
        let last_ms = self.used.back().map_or(0, |(at, _)| *at);
        !self.asking
            && now_ms >= self.grant_until_ms
            && now_ms >= self.share_from_ms
            && now_ms >= self.wait_until_ms
            && now_ms >= last_ms + horizon
    }

    fn has_share(&self, now_ms: u64) -> Option<(u64, u64)> {
        self.share.filter(|(_, until_ms)| now_ms < *until_ms)
    }

    /// Until when nothing can pass; `None` when something can, or only an answer will tell.
    fn must_wait(&self, now_ms: u64) -> Option<u64> {
        if self.has_grant(now_ms) || self.asking {
            return None;
        }
        let Some((share, until_ms)) = self.has_share(now_ms) else {
            return Some(self.wait_until_ms).filter(|until_ms| now_ms < *until_ms);
        };
        if now_ms < self.share_from_ms {
            return Some(self.share_from_ms.min(until_ms));
        }
        let horizon = self.limit.per_ms + self.bucket_ms();
        let old = self
            .used
            .iter()
            .take_while(|(at, _)| at + horizon <= now_ms);
        let (entries, gone) = old.fold((0, 0), |(entries, sum), (_, count)| {
            (entries + 1, sum + count)
        });
        if self.in_window - gone < share {
            return None;
        }
        // With a share of nothing the next question is all there is to wait for.
        if share == 0 {
            return Some(until_ms);
        }
        let oldest = self.used.get(entries).map_or(now_ms, |(at, _)| *at);
        Some((oldest + horizon).max(now_ms + 1).min(until_ms))
    }

    /// Gives back what was taken last and not used.
    pub fn refund(&mut self) {
        match self.taken.take() {
            None => return,
            Some(Taken::Grant) => {
                self.grant_used = self.grant_used.saturating_sub(1);
                self.grant += 1;
            }
            Some(Taken::Share) => self.outside = self.outside.saturating_sub(1),
        }
        if let Some((_, count)) = self.used.back_mut()
            && *count > 0
        {
            *count -= 1;
            self.in_window -= 1;
        }
    }

    /// Takes an answer.
    pub fn news(&mut self, now_ms: u64, news: GrantNews) {
        self.asking = false;
        match news {
            GrantNews::Granted { amount, until_ms } => {
                self.grant = amount;
                self.grant_until_ms = until_ms;
                self.share = None;
                self.share_from_ms = until_ms + self.limit.per_ms;
            }
            GrantNews::Nothing { retry_ms } => {
                self.wait_until_ms = retry_ms.max(now_ms + 1);
                self.share = None;
                self.share_from_ms = now_ms + self.limit.per_ms;
            }
            GrantNews::Share { share, until_ms } => {
                if self.share.is_none() {
                    self.share_from_ms = self.share_from_ms.max(now_ms + self.limit.per_ms);
                }
                self.share = Some((share, until_ms.max(now_ms + 1)));
            }
        }
    }

    /// How much to ask for: enough for a moment, never all at once. A busy lane asks for as much as it used in an eighth
    /// of a window, else it would ask anew for every message that comes alone; a thousandth is of no use to others.
    pub fn want(&self, waiting: u64) -> u64 {
        let moment = (self.in_window / 8).max(self.limit.count / 1000);
        waiting.max(moment).clamp(1, (self.limit.count / 4).max(1))
    }

    /// Past uses are kept in buckets of a 50th of the window; a bucket counts until it has left the window whole.
    fn bucket_ms(&self) -> u64 {
        (self.limit.per_ms / 50).max(1)
    }

    fn count(&mut self, now_ms: u64) {
        self.forget_old(now_ms);
        self.in_window += 1;
        let bucket_ms = self.bucket_ms();
        match self.used.back_mut() {
            Some((at, count)) if now_ms < *at + bucket_ms => *count += 1,
            _ => self.used.push_back((now_ms, 1)),
        }
    }

    fn forget_old(&mut self, now_ms: u64) {
        let horizon = self.limit.per_ms + self.bucket_ms();
        while let Some((at, count)) = self.used.front().copied() {
            if at + horizon > now_ms {
                return;
            }
            self.in_window -= count;
            self.used.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: RateLimit = RateLimit {
        count: 100,
        per_ms: 1000,
    };

    fn take(rate: &mut Rate, now_ms: u64) -> Take {
        let take = rate.check(now_ms);
        if take == Take::Yes {
            rate.commit(now_ms);
        }
        take
    }

    #[test]
    fn asks_for_a_moment_of_its_use_and_never_for_more_than_a_quarter() {
        let mut rate = Rate::new(LIMIT);
        assert_eq!((rate.want(0), rate.want(7), rate.want(1000)), (1, 7, 25));
        take(&mut rate, 0);
        rate.news(
            0,
            GrantNews::Granted {
                amount: 40,
                until_ms: 500,
            },
        );
        while take(&mut rate, 1) == Take::Yes {}
        assert_eq!(rate.want(1), 5);
        assert_eq!(
            Rate::new(RateLimit {
                count: 1_000_000,
                per_ms: 1000
            })
            .want(1),
            1000
        );
    }

    #[test]
    fn draws_on_a_grant_until_it_is_used_or_over() {
        let mut rate = Rate::new(LIMIT);
        assert_eq!(
            take(&mut rate, 0),
            Take::Ask {
                used: 0,
                outside: 0
            }
        );
        assert_eq!(take(&mut rate, 0), Take::Asked);
        rate.news(
            0,
            GrantNews::Granted {
                amount: 2,
                until_ms: 500,
            },
        );
        assert_eq!(
            (take(&mut rate, 1), take(&mut rate, 1)),
            (Take::Yes, Take::Yes)
        );
        assert_eq!(
            take(&mut rate, 1),
            Take::Ask {
                used: 2,
                outside: 0
            }
        );
        rate.news(
            1,
            GrantNews::Granted {
                amount: 5,
                until_ms: 500,
            },
        );
        assert_eq!(
            take(&mut rate, 600),
            Take::Ask {
                used: 0,
                outside: 0
            }
        );
        rate.news(600, GrantNews::Nothing { retry_ms: 900 });
        assert_eq!(take(&mut rate, 601), Take::Wait(900));
        assert_eq!(
            take(&mut rate, 900),
            Take::Ask {
                used: 0,
                outside: 0
            }
        );
    }

    #[test]
    fn keeps_to_its_share_over_every_window_beginning_one_window_after_the_last_grant() {
        let mut rate = Rate::new(LIMIT);
        take(&mut rate, 0);
        rate.news(
            0,
            GrantNews::Granted {
                amount: 50,
                until_ms: 100,
            },
        );
        while take(&mut rate, 50) == Take::Yes {}
        rate.news(
            50,
            GrantNews::Share {
                share: 25,
                until_ms: 100_000,
            },
        );
        let mut sent = Vec::new();
        let mut now = 50;
        while now < 10_000 {
            match take(&mut rate, now) {
                Take::Yes => sent.push(now),
                Take::Wait(until) => now = until,
                other => panic!("{other:?}"),
            }
        }
        assert!(sent[0] >= 1100, "{}", sent[0]);
        for (n, at) in sent.iter().enumerate() {
            let in_window = sent[n..]
                .iter()
                .take_while(|other| **other < at + 1000)
                .count();
            assert!(in_window <= 25);
        }
        assert!(sent.len() > 25 * 8, "{}", sent.len());
    }

    const DAILY: RateLimit = RateLimit {
        count: 3,
        per_ms: 86_400_000,
    };

    fn messages(limit: RateLimit) -> Window {
        Window {
            unit: Unit::Messages,
            limit,
        }
    }

    fn connections(limit: RateLimit) -> Window {
        Window {
            unit: Unit::Connections,
            limit,
        }
    }

    fn granted(amount: u64, until_ms: u64) -> GrantNews {
        GrantNews::Granted { amount, until_ms }
    }

    fn asks_for(rates: &mut Rates, now_ms: u64, opens: bool) -> Window {
        match rates.take(now_ms, opens, 1) {
            TakeAll::Ask { window, .. } => window,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_message_needs_all_windows_and_counts_in_all_or_in_none() {
        let (second, day) = (messages(LIMIT), messages(DAILY));
        let mut rates = Rates::new([second, day]);
        assert_eq!(asks_for(&mut rates, 0, false), second);
        assert_eq!(asks_for(&mut rates, 0, false), day);
        assert_eq!(rates.take(0, false, 1), TakeAll::Asked);
        rates.news(0, second, granted(10, 62));
        assert_eq!(rates.take(0, false, 1), TakeAll::Asked);
        rates.news(0, day, granted(2, 30_000));
        assert_eq!(rates.take(1, false, 1), TakeAll::Yes);
        assert_eq!(rates.take(1, false, 1), TakeAll::Yes);
        assert_eq!(asks_for(&mut rates, 2, false), day);
        rates.news(2, day, GrantNews::Nothing { retry_ms: 5_000 });
        // The grant of the second is not used while the day says no, and nothing more is asked for.
        assert_eq!(rates.take(100, false, 1), TakeAll::Wait(5_000));
        let used: Vec<u64> = rates.windows().map(|(_, used)| used).collect();
        assert_eq!(used, [2, 2]);
        assert_eq!(rates.blocked(100), Some((day, 5_000)));
    }

    #[test]
    fn a_connection_counts_only_when_one_is_opened() {
        let (second, opened) = (messages(LIMIT), connections(DAILY));
        let mut rates = Rates::new([second, opened]);
        assert_eq!(asks_for(&mut rates, 0, true), second);
        rates.news(0, second, granted(10, 500));
        assert_eq!(asks_for(&mut rates, 0, true), opened);
        assert_eq!(rates.take(0, false, 1), TakeAll::Yes);
        rates.news(0, opened, granted(1, 500));
        assert_eq!(rates.take(0, true, 1), TakeAll::Yes);
        assert_eq!(asks_for(&mut rates, 0, true), opened);
        assert_eq!(rates.take(0, false, 1), TakeAll::Yes);
    }

    #[test]
    fn what_is_given_back_can_be_taken_again_from_a_grant_and_from_a_share() {
        let window = messages(DAILY);
        let mut rates = Rates::new([window]);
        asks_for(&mut rates, 0, false);
        rates.news(0, window, granted(1, 500));
        for _ in 0..3 {
            assert_eq!(rates.take(1, false, 1), TakeAll::Yes);
            rates.refund();
            // Once only.
            rates.refund();
        }
        let TakeAll::Ask { used: 0, .. } = rates.take(600, false, 1) else {
            panic!("the grant was not used")
        };
        let share = GrantNews::Share {
            share: 1,
            until_ms: u64::MAX,
        };
        rates.news(600, window, share);
        let later = 600 + DAILY.per_ms;
        for _ in 0..3 {
            assert_eq!(rates.take(later, false, 1), TakeAll::Yes);
            rates.refund();
        }
        assert_eq!(rates.take(later, false, 1), TakeAll::Yes);
        assert!(matches!(rates.take(later, false, 1), TakeAll::Wait(_)));
    }

    #[test]
    fn windows_that_stay_keep_their_counts_and_answers_to_others_have_no_effect() {
        let (second, day) = (messages(LIMIT), messages(DAILY));
        let mut rates = Rates::new([second, day]);
        asks_for(&mut rates, 0, false);
        asks_for(&mut rates, 0, false);
        rates.news(0, day, granted(2, 30_000));
        rates.set(&[day]);
        rates.news(0, second, granted(5, 30_000));
        assert_eq!(rates.take(0, false, 1), TakeAll::Yes);
        rates.set(&[second, day]);
        assert_eq!(asks_for(&mut rates, 1, false), second);
        rates.news(1, second, granted(9, 100));
        assert_eq!(rates.take(1, false, 1), TakeAll::Yes);
        assert_eq!(asks_for(&mut rates, 2, false), day);
    }
}
