//! One window of a lane.

use std::collections::VecDeque;

use super::{Became, GrantNews, RateLimit, Word};

/// Whether a message may go now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Take {
    /// Yes.
    Yes,
    /// Not before this time (Unix milliseconds).
    Wait(u64),
    /// This must be said; [`Rate::news`] goes on.
    Ask(Word),
    /// Something is said already.
    Asked,
}

/// What this replica may use by itself.
#[derive(Debug, Clone, Copy)]
struct Share {
    amount: u64,
    until_ms: u64,
    /// When it grew: at most so much until then, since another replica may have used what was added.
    before: u64,
    grown_ms: u64,
}

impl Share {
    fn at(&self, now_ms: u64) -> u64 {
        match now_ms < self.grown_ms {
            true => self.before.min(self.amount),
            false => self.amount,
        }
    }
}

/// See the module.
///
/// Uses are first `open` (counted, nobody knows when they happen), then dated. What is said about them to who grants is in
/// `said`, `told` and `telling`.
#[derive(Debug)]
pub struct Rate {
    limit: RateLimit,
    /// It counts what was taken since this serial number of the lane's windows.
    born: u32,
    grant: u64,
    grant_until_ms: u64,
    open: u64,
    /// Open ones that are dated at a time, since nobody will tell.
    lost: VecDeque<(u64, u64)>,
    /// Dated ones within the window, in buckets that are as late as the latest of them.
    past: VecDeque<(u64, u64)>,
    in_past: u64,
    /// The first so many of `past` were told, and so many after them are being told.
    told: usize,
    telling: usize,
    batch: u64,
    asking: bool,
    /// Something was wanted with the last word.
    wanted: bool,
    /// What the last word, and its answer, left us to have.
    said: u64,
    word_ms: u64,
    /// Nothing is said by itself before.
    quiet_until_ms: u64,
    wait_until_ms: u64,
    share: Option<Share>,
    share_from_ms: u64,
    /// The answer that is on its way may give a share that is another one by now.
    share_in_doubt: bool,
}

impl Rate {
    /// A rate of which nothing is used.
    pub fn new(limit: RateLimit, born: u32) -> Self {
        Self {
            limit,
            born,
            grant: 0,
            grant_until_ms: 0,
            open: 0,
            lost: VecDeque::new(),
            past: VecDeque::new(),
            in_past: 0,
            told: 0,
            telling: 0,
            batch: 0,
            asking: false,
            wanted: false,
            said: 0,
            word_ms: 0,
            quiet_until_ms: 0,
            wait_until_ms: 0,
            share: None,
            share_from_ms: 0,
            share_in_doubt: false,
        }
    }

    pub(super) fn born(&self) -> u32 {
        self.born
    }

    /// The same window with another count.
    pub(super) fn set_limit(&mut self, limit: RateLimit) {
        if limit.count < self.limit.count {
            self.give_back();
        }
        if limit != self.limit {
            self.wait_until_ms = 0;
        }
        self.limit = limit;
    }

    /// Whether one message may go while so many wait; [`Rate::commit`] counts it.
    pub fn check(&mut self, now_ms: u64, waiting: u64) -> Take {
        if self.has_grant(now_ms) {
            return Take::Yes;
        }
        if self.asking {
            return Take::Asked;
        }
        if let Some(until_ms) = self.must_wait(now_ms) {
            return Take::Wait(until_ms);
        }
        if self.share_at(now_ms).is_some() {
            return Take::Yes;
        }
        let want = self.want(waiting);
        Take::Ask(self.say(now_ms, want))
    }

    /// Counts one message that [`Rate::check`] let pass at the same time.
    pub fn commit(&mut self, now_ms: u64) {
        if self.has_grant(now_ms) {
            self.grant -= 1;
        }
        self.open += 1;
    }

    /// What became of a message that was counted.
    pub fn settle(&mut self, now_ms: u64, became: Became) {
        if self.open == 0 {
            return;
        }
        match became {
            Became::Over(at_ms) => {
                self.open -= 1;
                self.date(now_ms, at_ms, 1);
            }
            Became::Nothing => {
                self.open -= 1;
                if self.share.is_none() && now_ms < self.grant_until_ms {
                    self.grant += 1;
                }
            }
            Became::Unknown(at_ms) => match self.lost.back_mut() {
                Some((last_ms, count)) if *last_ms >= at_ms => *count += 1,
                _ => self.lost.push_back((at_ms, 1)),
            },
        }
    }

    /// Says everything there is to say, and asks for so many more.
    pub(super) fn say(&mut self, now_ms: u64, want: u64) -> Word {
        self.forget_old(now_ms);
        if now_ms >= self.grant_until_ms {
            self.grant = 0;
        }
        // What may not have been heard is said again, under its number.
        if self.telling == 0 {
            self.telling = self.past.len() - self.told;
            // Another lane of the same name began to count anew: its numbers must be larger, too.
            self.batch = now_ms.max(self.batch + 1);
        }
        let dated = self.past.range(self.told..self.told + self.telling);
        let dated: Vec<(u64, u64)> = dated.copied().collect();
        self.asking = true;
        self.wanted = want > 0;
        self.word_ms = now_ms;
        self.said = self.have();
        Word {
            have: self.said,
            batch: self.batch,
            dated,
            want,
        }
    }

    /// Takes an answer.
    pub fn news(&mut self, now_ms: u64, news: GrantNews) {
        self.asking = false;
        let in_doubt = std::mem::take(&mut self.share_in_doubt);
        let others_until_ms = now_ms + self.life_ms();
        match news {
            GrantNews::Granted { amount, until_ms } => {
                self.heard();
                self.said += amount;
                self.grant += amount;
                self.grant_until_ms = until_ms;
                self.share = None;
                self.share_from_ms = self.settled_ms(until_ms.max(others_until_ms));
            }
            GrantNews::Nothing { retry_ms } => {
                self.heard();
                if self.wanted {
                    self.wait_until_ms = retry_ms.max(now_ms + 1);
                }
                self.share = None;
                self.share_from_ms = self.settled_ms(others_until_ms);
            }
            GrantNews::Share {
                share,
                until_ms,
                heard,
            } => {
                if heard {
                    self.heard();
                } else {
                    self.quiet_until_ms = now_ms + self.hold_ms();
                }
                self.set_share(now_ms, share, until_ms.max(now_ms + 1));
                if in_doubt {
                    self.doubt_share(now_ms);
                }
            }
        }
    }

    /// The share may be another one from now on: it is asked for before it is used again.
    pub(super) fn doubt_share(&mut self, now_ms: u64) {
        if let Some(share) = &mut self.share {
            share.until_ms = share.until_ms.min(now_ms);
        }
        self.share_in_doubt = self.asking;
    }

    fn set_share(&mut self, now_ms: u64, amount: u64, until_ms: u64) {
        let settled_ms = self.settled_ms(now_ms + self.life_ms());
        let mut share = Share {
            amount,
            until_ms,
            before: amount,
            grown_ms: 0,
        };
        match self.share {
            None => self.share_from_ms = self.share_from_ms.max(settled_ms),
            Some(last) if amount == last.amount => {
                (share.before, share.grown_ms) = (last.before, last.grown_ms);
            }
            // Whose it was may have used it until now, if it grew.
            Some(last) => (share.before, share.grown_ms) = (last.at(now_ms), settled_ms),
        }
        self.share = Some(share);
    }

    /// What was said last is known there.
    fn heard(&mut self) {
        self.told += self.telling;
        self.telling = 0;
        self.quiet_until_ms = 0;
    }

    /// What was granted and is not used is not ours any more. It counts until that is said.
    pub(super) fn give_back(&mut self) {
        self.grant = 0;
    }

    /// Whether something is not known there, and can be said now.
    pub(super) fn has_news(&self) -> bool {
        !self.asking && (self.told < self.past.len() || self.have() != self.said)
    }

    /// When something is to be said by itself; `None` = never, or an answer is on its way.
    pub(super) fn tells_at(&self, now_ms: u64) -> Option<u64> {
        if self.asking {
            return None;
        }
        let has_news = self.has_news() || (self.grant > 0 && now_ms >= self.grant_until_ms);
        // At once, but not all the time.
        let news = has_news.then_some(self.word_ms + self.life_ms().min(1_000));
        let idle = (self.grant > 0).then_some(self.grant_until_ms);
        // What is open counts as long as it is spoken of.
        let open = (self.open > 0).then_some(self.word_ms + self.hold_ms() / 4);
        let lost = self.lost.front().map(|(at_ms, _)| *at_ms);
        let first = [news, idle, open, lost].into_iter().flatten().min();
        first.map(|at_ms| at_ms.max(self.quiet_until_ms))
    }

    pub(super) fn is_asking(&self) -> bool {
        self.asking
    }

    /// Whether nothing is in use or counted, and everything is said.
    pub(super) fn is_unused(&self, now_ms: u64) -> bool {
        let counts = |(at_ms, _): &(u64, u64)| at_ms + self.limit.per_ms > now_ms;
        self.open == 0
            && self.said == 0
            && !self.asking
            && !self.has_grant(now_ms)
            && now_ms >= self.share_from_ms
            && now_ms >= self.wait_until_ms
            && !self.past.back().is_some_and(counts)
    }

    /// Whether something can pass, or has to be asked for and is not yet.
    pub(super) fn is_open(&self, now_ms: u64) -> bool {
        self.has_grant(now_ms) || (!self.asking && self.must_wait(now_ms).is_none())
    }

    /// Until when nothing can pass; `None` when something can, or only an answer will tell.
    pub(super) fn must_wait(&self, now_ms: u64) -> Option<u64> {
        if self.has_grant(now_ms) || self.asking {
            return None;
        }
        let Some(share) = self.share_at(now_ms) else {
            return Some(self.wait_until_ms).filter(|until_ms| now_ms < *until_ms);
        };
        let until_ms = share.until_ms;
        if now_ms < self.share_from_ms {
            return Some(self.share_from_ms.min(until_ms));
        }
        let old = |(at_ms, _): &&(u64, u64)| at_ms + self.limit.per_ms <= now_ms;
        let gone: u64 = self.past.iter().take_while(old).map(|(_, n)| n).sum();
        if self.open + self.in_past - gone < share.at(now_ms) {
            return None;
        }
        // With a share of nothing the next question is all there is to wait for.
        if share.amount == 0 {
            return Some(until_ms);
        }
        let oldest = self.past.iter().find(|entry| !old(entry));
        let free_ms = oldest.map_or(now_ms + self.life_ms(), |(at_ms, _)| {
            at_ms + self.limit.per_ms
        });
        Some(free_ms.min(until_ms))
    }

    /// How much to ask for: enough for a moment, never all at once. A busy lane asks for as much as it used in an eighth
    /// of a window, else it would ask anew for every message that comes alone; a thousandth is of no use to others.
    pub(super) fn want(&self, waiting: u64) -> u64 {
        let moment = ((self.open + self.in_past) / 8).max(self.limit.count / 1000);
        waiting.max(moment).clamp(1, (self.limit.count / 4).max(1))
    }

    fn has_grant(&self, now_ms: u64) -> bool {
        self.grant > 0 && now_ms < self.grant_until_ms
    }

    fn share_at(&self, now_ms: u64) -> Option<Share> {
        self.share.filter(|share| now_ms < share.until_ms)
    }

    /// What counts and is neither told nor being told with a date.
    fn have(&self) -> u64 {
        let rest = self.past.range((self.told + self.telling)..);
        self.grant + self.open + rest.map(|(_, count)| count).sum::<u64>()
    }

    /// How long a grant may be drawn on, at most.
    fn life_ms(&self) -> u64 {
        (self.limit.per_ms / 16).clamp(50, 30_000)
    }

    /// How long after its last word a replica that has uses open counts as having them.
    fn hold_ms(&self) -> u64 {
        self.limit.per_ms.clamp(2_000, 30_000)
    }

    /// When nothing counts any more of what others were granted until a time: what was under way then has happened, but
    /// for what takes longer than a window or half a minute, and a window has passed.
    fn settled_ms(&self, granted_ms: u64) -> u64 {
        granted_ms + self.limit.per_ms.min(30_000) + self.limit.per_ms
    }

    fn date(&mut self, now_ms: u64, at_ms: u64, count: u64) {
        self.forget_old(now_ms);
        self.in_past += count;
        let bucket_ms = (self.limit.per_ms / 256).max(1);
        let is_new = self.past.len() > self.told + self.telling;
        match self.past.back_mut() {
            Some((last_ms, sum)) if is_new && *last_ms / bucket_ms >= at_ms / bucket_ms => {
                *last_ms = at_ms.max(*last_ms);
                *sum += count;
            }
            // They are in order; a later date is always safe.
            Some((last_ms, _)) => {
                let at_ms = at_ms.max(*last_ms);
                self.past.push_back((at_ms, count));
            }
            None => self.past.push_back((at_ms, count)),
        }
    }

    fn forget_old(&mut self, now_ms: u64) {
        while let Some((at_ms, count)) = self.lost.front().copied() {
            if at_ms > now_ms {
                break;
            }
            self.lost.pop_front();
            self.open = self.open.saturating_sub(count);
            self.date(now_ms, at_ms, count);
        }
        while let Some((at_ms, count)) = self.past.front().copied() {
            if at_ms + self.limit.per_ms > now_ms {
                return;
            }
            self.in_past -= count;
            self.past.pop_front();
            match self.told {
                0 => self.telling = self.telling.saturating_sub(1),
                _ => self.told -= 1,
            }
        }
    }
}
