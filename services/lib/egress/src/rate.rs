//! The rate of a lane.
//!
//! A limit holds over any window of its length for the sum of all replicas. Each replica draws on grants, slices of
//! the limit that it was leased. Without grants (Redis away, or its memory of past use gone) a replica keeps to a
//! safe share of its own, and begins with it only one whole window after the last grant that any replica can have
//! got, since what others used of theirs is not known.

use std::collections::VecDeque;

/// So many per so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RateLimit {
    /// Messages.
    pub count: u64,
    /// Window, milliseconds.
    pub per_ms: u64,
}

/// Whether a message may go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Take {
    /// Yes, and it is counted.
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

/// See the module.
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
        }
    }

    /// The limit.
    pub fn limit(&self) -> RateLimit {
        self.limit
    }

    /// Counts one message, or says why not.
    pub fn take(&mut self, now_ms: u64) -> Take {
        if self.grant > 0 && now_ms < self.grant_until_ms {
            self.grant -= 1;
            self.grant_used += 1;
            self.count(now_ms);
            return Take::Yes;
        }
        if self.asking {
            return Take::Asked;
        }
        if let Some((share, until_ms)) = self.share.filter(|(_, until_ms)| now_ms < *until_ms) {
            return self.take_of_share(now_ms, share, until_ms);
        }
        if now_ms < self.wait_until_ms {
            return Take::Wait(self.wait_until_ms);
        }
        self.asking = true;
        Take::Ask {
            used: std::mem::take(&mut self.grant_used),
            outside: std::mem::take(&mut self.outside),
        }
    }

    fn take_of_share(&mut self, now_ms: u64, share: u64, until_ms: u64) -> Take {
        if now_ms < self.share_from_ms {
            return Take::Wait(self.share_from_ms.min(until_ms));
        }
        self.forget_old(now_ms);
        if self.in_window < share {
            self.outside += 1;
            self.count(now_ms);
            return Take::Yes;
        }
        let oldest = self.used.front().map_or(now_ms, |(at, _)| *at);
        let free_ms = oldest + self.limit.per_ms + self.bucket_ms();
        // With a share of nothing the next question is all there is to wait for.
        Take::Wait(if share == 0 {
            until_ms
        } else {
            free_ms.max(now_ms + 1).min(until_ms)
        })
    }

    /// Gives back what was taken and not used.
    pub fn refund(&mut self) {
        if self.grant_used > 0 {
            self.grant_used -= 1;
            self.grant += 1;
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

    #[test]
    fn asks_for_a_moment_of_its_use_and_never_for_more_than_a_quarter() {
        let mut rate = Rate::new(LIMIT);
        assert_eq!((rate.want(0), rate.want(7), rate.want(1000)), (1, 7, 25));
        rate.take(0);
        rate.news(
            0,
            GrantNews::Granted {
                amount: 40,
                until_ms: 500,
            },
        );
        while rate.take(1) == Take::Yes {}
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
            rate.take(0),
            Take::Ask {
                used: 0,
                outside: 0
            }
        );
        assert_eq!(rate.take(0), Take::Asked);
        rate.news(
            0,
            GrantNews::Granted {
                amount: 2,
                until_ms: 500,
            },
        );
        assert_eq!((rate.take(1), rate.take(1)), (Take::Yes, Take::Yes));
        assert_eq!(
            rate.take(1),
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
            rate.take(600),
            Take::Ask {
                used: 0,
                outside: 0
            }
        );
        rate.news(600, GrantNews::Nothing { retry_ms: 900 });
        assert_eq!(rate.take(601), Take::Wait(900));
        assert_eq!(
            rate.take(900),
            Take::Ask {
                used: 0,
                outside: 0
            }
        );
    }

    #[test]
    fn keeps_to_its_share_over_every_window_beginning_one_window_after_the_last_grant() {
        let mut rate = Rate::new(LIMIT);
        rate.take(0);
        rate.news(
            0,
            GrantNews::Granted {
                amount: 50,
                until_ms: 100,
            },
        );
        while rate.take(50) == Take::Yes {}
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
            match rate.take(now) {
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
}
