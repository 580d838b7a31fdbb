//! The lease of a lane's connections.
//!
//! Connections are counted over all schedulers, so a scheduler opens one only under a lease that it was given. It says
//! from time to time how many it has, which renews the lease, and asks for more when it has none left to open. When
//! nobody answers, it keeps to its own share of the limit, and uses more of it than it has only after all leases that
//! others may have had have run out.

use std::collections::VecDeque;

/// How often a lane that has connections says so, milliseconds.
const RENEW_MS: u64 = 5_000;
/// A lane that wants more asks again after this time, milliseconds: without a connection, and with some.
const WITHOUT_MS: u64 = 100;
const WITH_MS: u64 = 1_000;
/// How long connections of a sender that is gone count: until then it has seen that, and closed them, milliseconds.
const LOST_MS: u64 = 20_000;
/// While nobody answers, milliseconds.
const AWAY_MS: u64 = 1_000;
/// So long after the last time that nobody answered it has to be asked again before the share is used, milliseconds.
const BELIEVED_MS: u64 = 5_000;

/// The answer to a word about connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SlotNews {
    /// What was said to be there is leased.
    Leased {
        /// So many more may be opened.
        granted: u32,
        /// So many are to be closed soon.
        excess: u32,
        /// Others wait for a connection.
        others_wait: bool,
        /// When the lease ends, Unix milliseconds.
        until_ms: u64,
    },
    /// Nobody answers.
    Away {
        /// All leases that anybody may have have run out by then, Unix milliseconds.
        over_ms: u64,
    },
}

/// What is said about the connections of a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) have: u32,
    pub(super) want: u32,
}

/// See the module. Default: nothing is leased, and nobody was asked.
#[derive(Debug, Default)]
pub(super) struct Lease {
    /// Connections that there may be, those that are there included.
    allowed: u32,
    until_ms: u64,
    /// What was said last, and its answer is on its way.
    said: u32,
    asking: bool,
    /// No connection is left to open, and one is wanted.
    short: bool,
    others_wait: bool,
    /// When more may be asked for, and when to say again what there is; 0 = not.
    poll_at_ms: u64,
    renew_at_ms: u64,
    /// Nobody answers, and since this time the share may be used.
    share_from_ms: Option<u64>,
    /// Until when that is believed: somebody may answer by now.
    away_until_ms: u64,
    /// The last timer that was set for it, Unix milliseconds.
    pub(super) timer_ms: u64,
    /// Connections that senders may still have that are not attached any more: until when they count.
    lost: VecDeque<(u64, u32)>,
}

impl Lease {
    /// Connections that may be open now.
    pub(super) fn allowed(&self, now_ms: u64, limit: u32, share: Option<u32>) -> u32 {
        let Some(share) = share else {
            return limit;
        };
        let leased = match now_ms < self.until_ms {
            true => self.allowed,
            false => 0,
        };
        let allowed = match self.share_from_ms {
            None => leased,
            Some(from_ms) if now_ms < from_ms || now_ms >= self.away_until_ms => leased.min(share),
            Some(_) => share,
        };
        allowed.min(limit).saturating_sub(self.lost(now_ms))
    }

    /// Whether more was wanted than others leave.
    pub(super) fn is_short(&self) -> bool {
        self.short
    }

    /// Connections are leased from now on, or not any more. True when those that are there are to be said now.
    pub(super) fn begins_or_ends(
        &mut self,
        now_ms: u64,
        (before, after): (Option<u32>, Option<u32>),
        used: u32,
    ) -> bool {
        if before.is_some() && after.is_none() {
            // What is leased runs out.
            *self = Self::default();
        }
        before.is_none() && after.is_some() && used > 0 && self.opened(now_ms)
    }

    /// An answer is on its way.
    pub(super) fn is_asking(&self) -> bool {
        self.asking
    }

    /// An answer is on its way, or more can be asked for now.
    pub(super) fn may_get(&self, now_ms: u64) -> bool {
        self.asking || now_ms >= self.poll_at_ms
    }

    /// Connections of lost senders that still count.
    fn lost(&self, now_ms: u64) -> u32 {
        let living = self.lost.iter().filter(|(until_ms, _)| now_ms < *until_ms);
        living.map(|(_, count)| count).sum()
    }

    /// A sender is gone that had so many connections.
    pub(super) fn lose(&mut self, now_ms: u64, count: u32) {
        self.lost.retain(|(until_ms, _)| now_ms < *until_ms);
        if count > 0 {
            self.lost.push_back((now_ms + LOST_MS, count));
        }
    }

    /// Nothing is leased and nobody is asked: it can be forgotten.
    pub(super) fn is_over(&self) -> bool {
        self.said == 0 && !self.asking && self.lost.is_empty()
    }

    /// No connection is left to open. True when more can be asked for now, else [`Lease::speaks_at`] says when.
    pub(super) fn runs_short(&mut self, now_ms: u64) -> bool {
        self.short = true;
        !self.asking && now_ms >= self.poll_at_ms
    }

    /// When something is to be said; `None` = never, or an answer is on its way.
    pub(super) fn speaks_at(&self) -> Option<u64> {
        let poll = self.short.then_some(self.poll_at_ms);
        let renew = (self.renew_at_ms > 0).then_some(self.renew_at_ms);
        let at_ms = poll.into_iter().chain(renew).min();
        at_ms.filter(|_| !self.asking)
    }

    /// A connection is opened. True when that is to be said now: nothing was said so far, since there was nothing to say.
    pub(super) fn opened(&mut self, now_ms: u64) -> bool {
        let is_silent = self.renew_at_ms == 0 && !self.asking;
        if is_silent {
            self.renew_at_ms = now_ms.max(1);
        }
        is_silent
    }

    /// A connection is closed, and so many are left. True when that is to be said now: nobody here needs it.
    pub(super) fn gave_back(&mut self, now_ms: u64, used: u32, needed: bool) -> bool {
        let less = used + self.lost(now_ms) < self.said;
        let say = less && (!needed || self.others_wait || used >= self.allowed);
        if say {
            self.renew_at_ms = now_ms.max(1);
        }
        say
    }

    /// What to say now: `used` connections are there, and `most` more can be used. `None` = nothing.
    pub(super) fn speak(&mut self, now_ms: u64, used: u32, most: u32) -> Option<Word> {
        self.lost.retain(|(until_ms, _)| now_ms < *until_ms);
        self.short &= most > 0;
        let have = used + self.lost(now_ms);
        if self.asking || (have == 0 && self.said == 0 && !self.short) {
            self.renew_at_ms = 0;
            return None;
        }
        // Twice as many each time: what is leased and not used keeps others waiting.
        let want = match self.short {
            true => most.min(have.max(1)),
            false => 0,
        };
        self.said = have;
        self.asking = true;
        // Until the answer nothing is opened that was not said.
        self.allowed = self.allowed.min(have);
        Some(Word { have, want })
    }

    /// Takes an answer.
    pub(super) fn news(&mut self, now_ms: u64, news: SlotNews) {
        self.asking = false;
        match news {
            SlotNews::Leased {
                granted,
                excess,
                others_wait,
                until_ms,
            } => {
                let before = self.said;
                self.said += granted;
                self.allowed = self.said.saturating_sub(excess);
                self.until_ms = until_ms;
                self.others_wait = others_wait;
                self.share_from_ms = None;
                self.short &= granted == 0;
                let again_ms = match (granted, before) {
                    (0, 0) => WITHOUT_MS,
                    (0, _) => WITH_MS,
                    _ => 0,
                };
                self.poll_at_ms = now_ms + again_ms;
                self.renew_at_ms = match self.said {
                    0 => 0,
                    _ => now_ms + RENEW_MS,
                };
            }
            SlotNews::Away { over_ms } => {
                self.share_from_ms.get_or_insert(over_ms);
                self.away_until_ms = now_ms + BELIEVED_MS;
                self.poll_at_ms = now_ms + AWAY_MS;
                self.renew_at_ms = now_ms + AWAY_MS;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leased(granted: u32, excess: u32, until_ms: u64) -> SlotNews {
        SlotNews::Leased {
            granted,
            excess,
            others_wait: excess > 0,
            until_ms,
        }
    }

    fn word(have: u32, want: u32) -> Option<Word> {
        Some(Word { have, want })
    }

    #[test]
    fn asks_for_twice_as_many_each_time_and_renews_what_it_has() {
        let mut lease = Lease::default();
        assert_eq!((lease.allowed(0, 9, Some(2)), lease.speaks_at()), (0, None));
        assert!(lease.runs_short(0));
        assert_eq!(lease.speak(0, 0, 9), word(0, 1));
        assert_eq!(lease.speak(0, 0, 9), None);
        lease.news(1, leased(1, 0, 20_000));
        assert_eq!(lease.allowed(1, 9, Some(2)), 1);
        assert!(lease.runs_short(1));
        assert_eq!(lease.speak(1, 1, 8), word(1, 1));
        lease.news(2, leased(1, 0, 20_000));
        assert!(lease.runs_short(2));
        assert_eq!(lease.speak(2, 2, 7), word(2, 2));
        lease.news(3, leased(0, 0, 20_000));
        assert!(!lease.runs_short(3));
        assert_eq!(lease.speaks_at(), Some(3 + WITH_MS));
        assert_eq!(lease.speak(5_003, 2, 0), word(2, 0));
        lease.news(5_003, leased(0, 0, 25_000));
        assert_eq!(lease.speaks_at(), Some(5_003 + RENEW_MS));
        assert_eq!(lease.allowed(24_999, 9, Some(2)), 2);
        assert_eq!(lease.allowed(25_000, 9, Some(2)), 0);
    }

    #[test]
    fn what_is_granted_and_not_used_is_gone_with_the_next_word() {
        let mut lease = Lease::default();
        lease.runs_short(0);
        lease.speak(0, 0, 1);
        lease.news(0, leased(1, 0, 20_000));
        assert_eq!(lease.speak(5_000, 0, 0), word(0, 0));
        assert_eq!(lease.allowed(5_000, 9, Some(2)), 0);
        lease.news(5_000, leased(0, 0, 25_000));
        assert!(lease.is_over());
        assert_eq!(lease.speaks_at(), None);
    }

    #[test]
    fn gives_up_what_others_wait_for_and_says_so_as_soon_as_it_is_closed() {
        let mut lease = Lease::default();
        lease.runs_short(0);
        lease.speak(0, 4, 0);
        lease.news(0, leased(0, 2, 20_000));
        assert_eq!(lease.allowed(0, 9, Some(2)), 2);
        assert!(lease.gave_back(1, 3, true));
        assert_eq!(lease.speak(1, 3, 5), word(3, 0));
    }

    #[test]
    fn without_an_answer_shrinks_to_its_share_and_uses_it_when_all_leases_are_over() {
        let (mut large, mut small) = (Lease::default(), Lease::default());
        large.runs_short(0);
        large.speak(0, 7, 2);
        large.news(0, leased(0, 0, 20_000));
        for lease in [&mut large, &mut small] {
            lease.runs_short(5_000);
            lease.speak(5_000, 0, 1);
            lease.news(5_000, SlotNews::Away { over_ms: 25_000 });
        }
        assert_eq!(small.speak(6_000, 0, 9), word(0, 1));
        assert_eq!(large.speak(6_000, 4, 9), word(4, 4));
        for lease in [&mut large, &mut small] {
            lease.news(6_000, SlotNews::Away { over_ms: 26_000 });
        }
        assert_eq!(small.speaks_at(), Some(6_000 + AWAY_MS));
        for (lease, have) in [(&mut large, 4), (&mut small, 0)] {
            lease.speak(24_000, have, 1);
            lease.news(24_000, SlotNews::Away { over_ms: 44_000 });
        }
        assert_eq!(small.allowed(24_999, 9, Some(3)), 0);
        assert_eq!(small.allowed(25_000, 9, Some(3)), 3);
        assert_eq!(large.allowed(25_000, 9, Some(4)), 4);
    }

    #[test]
    fn without_an_answer_says_often_what_it_has() {
        let mut lease = Lease::default();
        lease.runs_short(0);
        lease.speak(0, 3, 0);
        lease.news(0, leased(0, 0, 20_000));
        assert_eq!(lease.speak(5_000, 3, 0), word(3, 0));
        lease.news(5_000, SlotNews::Away { over_ms: 25_000 });
        assert_eq!(lease.speaks_at(), Some(5_000 + AWAY_MS));
    }

    #[test]
    fn a_share_is_not_used_in_silence() {
        let mut lease = Lease::default();
        lease.runs_short(0);
        lease.speak(0, 0, 1);
        lease.news(0, SlotNews::Away { over_ms: 20_000 });
        // What waited went another way: nothing is said any more.
        assert_eq!(lease.speak(1_000, 0, 0), None);
        assert_eq!(
            (lease.speaks_at(), lease.allowed(20_000, 9, Some(2))),
            (None, 0)
        );
        // Others may be there again, so who needs one asks.
        assert!(lease.runs_short(30_000));
        assert_eq!(lease.speak(30_000, 0, 1), word(0, 1));
        lease.news(30_000, SlotNews::Away { over_ms: 50_000 });
        assert_eq!(lease.allowed(30_000, 9, Some(2)), 2);
        assert_eq!(lease.speaks_at(), Some(30_000 + AWAY_MS));
        assert!(!lease.may_get(30_999) && lease.may_get(31_000));
        assert_eq!(lease.allowed(30_000 + BELIEVED_MS - 1, 9, Some(2)), 2);
        assert_eq!(lease.allowed(30_000 + BELIEVED_MS, 9, Some(2)), 0);
        // What is opened without having been asked for is told at once.
        assert_eq!(lease.speak(31_000, 0, 0), None);
        assert!(lease.opened(31_500));
        assert_eq!(lease.speak(31_500, 1, 0), word(1, 0));
        lease.news(31_500, leased(0, 0, 50_000));
        assert!(!lease.opened(31_600));
    }

    #[test]
    fn connections_of_a_lost_sender_count_until_it_has_closed_them() {
        let mut lease = Lease::default();
        lease.runs_short(0);
        lease.speak(0, 3, 0);
        lease.news(0, leased(0, 0, 20_000));
        lease.lose(1_000, 2);
        assert_eq!(lease.allowed(1_000, 9, Some(2)), 1);
        assert_eq!(lease.speak(1_000, 1, 0), word(3, 0));
        lease.news(1_000, leased(0, 0, 21_000));
        assert_eq!(lease.speak(1_000 + LOST_MS, 1, 0), word(1, 0));
    }

    #[test]
    fn a_lost_connection_counts_until_the_moment_it_is_closed_by_and_none_is_not_listed() {
        let mut lease = Lease::default();
        lease.runs_short(0);
        lease.speak(0, 3, 0);
        lease.news(0, leased(0, 0, 90_000));
        lease.lose(1_000, 2);
        assert_eq!(lease.allowed(LOST_MS + 999, 9, Some(2)), 1);
        assert_eq!(lease.allowed(LOST_MS + 1_000, 9, Some(2)), 3);
        let mut lease = Lease::default();
        lease.lose(0, 0);
        assert!(lease.is_over());
        lease.lose(0, 2);
        lease.lose(LOST_MS - 1, 0);
        assert!(!lease.is_over());
        lease.lose(LOST_MS, 0);
        assert!(lease.is_over());
    }

    #[test]
    fn says_whether_it_is_short_whether_it_asks_and_whether_it_may_get_more() {
        let states = |lease: &Lease, now_ms| {
            let may_get = lease.may_get(now_ms);
            (lease.is_short(), lease.is_asking(), may_get)
        };
        let mut lease = Lease::default();
        assert_eq!(states(&lease, 0), (false, false, true));
        lease.runs_short(0);
        assert_eq!(states(&lease, 0), (true, false, true));
        lease.speak(0, 0, 2);
        assert_eq!(states(&lease, 0), (true, true, true));
        lease.news(0, leased(0, 0, 20_000));
        assert_eq!(states(&lease, WITHOUT_MS - 1), (true, false, false));
        assert_eq!(states(&lease, WITHOUT_MS), (true, false, true));
        lease.speak(WITHOUT_MS, 0, 2);
        assert_eq!(states(&lease, 0), (true, true, true));
        lease.news(WITHOUT_MS, leased(1, 0, 20_000));
        assert_eq!(states(&lease, WITHOUT_MS), (false, false, true));
    }

    #[test]
    fn what_is_open_when_leases_begin_is_said_and_what_is_leased_is_over_when_they_end() {
        let begin_or_end = |lease: &mut Lease, before, after, used| {
            let now = lease.begins_or_ends(7, (before, after), used);
            (now, lease.speaks_at())
        };
        let (none, some) = (None, Some(2));
        let mut lease = Lease::default();
        for (before, after, used) in [(none, none, 3), (some, some, 3), (none, some, 0)] {
            let said = begin_or_end(&mut lease, before, after, used);
            assert_eq!(said, (false, None), "{before:?} {after:?} {used}");
        }
        assert_eq!(begin_or_end(&mut lease, none, some, 3), (true, Some(7)));
        // It is going to be said already.
        assert_eq!(begin_or_end(&mut lease, none, some, 3), (false, Some(7)));
        lease.speak(7, 3, 0);
        lease.news(7, leased(0, 0, 20_000));
        begin_or_end(&mut lease, some, Some(4), 3);
        assert_eq!(lease.allowed(7, 9, Some(4)), 3);
        assert_eq!(begin_or_end(&mut lease, some, none, 3), (false, None));
        assert_eq!(lease.allowed(7, 9, some), 0);
    }

    #[test]
    fn what_is_closed_is_given_back_at_once_when_nobody_here_uses_it_or_others_wait() {
        // Excess, whether others wait, connections left, of lost senders, needed here; said at once.
        let cases = [
            (0, false, 2, 0, false, true),
            (0, false, 2, 0, true, false),
            (0, true, 2, 0, true, true),
            (1, false, 2, 0, true, true),
            (2, false, 2, 0, true, true),
            // As many as were said.
            (0, true, 3, 0, false, false),
            (0, true, 2, 1, false, false),
        ];
        for (excess, others_wait, used, lost, needed, said) in cases {
            let mut lease = Lease::default();
            lease.runs_short(0);
            lease.speak(0, 3, 0);
            let news = SlotNews::Leased {
                granted: 0,
                excess,
                others_wait,
                until_ms: 20_000,
            };
            lease.news(0, news);
            lease.lose(1, lost);
            let case = format!("{excess} {others_wait} {used} {lost} {needed}");
            assert_eq!(lease.gave_back(2, used, needed), said, "{case}");
            let at_ms = if said { 2 } else { RENEW_MS };
            assert_eq!(lease.speaks_at(), Some(at_ms), "{case}");
        }
    }

    #[test]
    fn a_word_forgets_what_is_lost_no_more() {
        let mut lease = Lease::default();
        lease.lose(0, 2);
        assert_eq!(lease.speak(LOST_MS, 0, 0), None);
        assert!(lease.is_over());
    }
}
