//! The rates of a lane.
//!
//! A lane has several windows at once, say 100 messages a second and 20,000 a day: what leaves needs all of them. A
//! limit holds over any window of its length for the sum of all replicas, at the other side: a use counts from before it
//! is given to a sender until a window after the moment at which it certainly had left ([`Rates::settle`]).
//! Each replica draws on grants, parts of the limit that it was given for a moment. Without grants (Redis away, or its
//! memory of past use gone) a replica keeps to a safe share of its own.

mod window;

pub use window::{Rate, Take};

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

impl Window {
    /// Whether it counts the same, be it up to another number.
    fn counts_as(&self, other: &Self) -> bool {
        (self.unit, self.limit.per_ms) == (other.unit, other.limit.per_ms)
    }

    /// Whether it counts a message that opens a connection, or one that does not.
    fn concerns(&self, opens: bool) -> bool {
        opens || self.unit == Unit::Messages
    }
}

/// What is said about a window to who grants: all of it, so that the next word replaces the one before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Uses that were granted and are not dated: left, or under way.
    pub have: u64,
    /// Number of what is in `dated`, ever larger. Dates that may not have been heard are said again under their number.
    pub batch: u64,
    /// When (Unix milliseconds), and how many, the oldest first.
    pub dated: Vec<(u64, u64)>,
    /// More that are wanted.
    pub want: u64,
}

/// The answer to a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantNews {
    /// So many more may go until then.
    Granted {
        /// Messages.
        amount: u64,
        /// Unix milliseconds.
        until_ms: u64,
    },
    /// Nothing is left for now, or nothing was wanted.
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
        /// The word was heard.
        heard: bool,
    },
}

/// A use that was counted, for what becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// A connection is opened for it.
    pub(crate) opens: bool,
    /// Windows that are younger did not count it.
    serial: u32,
}

/// What became of a use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Became {
    /// By this time it had happened, Unix milliseconds: it counts for one window more.
    Over(u64),
    /// It did not and will not happen.
    Nothing,
    /// Nobody will tell. It has happened by this time, if at all, Unix milliseconds.
    Unknown(u64),
}

/// What all windows of a lane say together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TakeAll {
    /// It is counted in all.
    Yes(Taken),
    /// Not before this time (Unix milliseconds).
    Wait(u64),
    /// A grant must be asked for; others may have to be asked for too: look again.
    Ask {
        /// For which window.
        window: Window,
        /// What to say.
        word: Word,
    },
    /// Grants are asked for already.
    Asked,
}

/// The windows of a lane: what leaves needs all of them.
#[derive(Debug, Default)]
pub struct Rates {
    windows: Vec<(Window, Rate)>,
    /// Grows with each change of the windows.
    serial: u32,
}

impl Rates {
    /// Windows of which nothing is used.
    pub fn new(windows: impl IntoIterator<Item = Window>) -> Self {
        let fresh = |window: Window| (window, Rate::new(window.limit, 0));
        Self {
            windows: windows.into_iter().map(fresh).collect(),
            serial: 0,
        }
    }

    /// Other windows from now on. Those of the same length keep their counts.
    pub fn set(&mut self, windows: &[Window]) {
        if self.windows.iter().map(|(window, _)| window).eq(windows) {
            return;
        }
        self.serial = self.serial.wrapping_add(1);
        let mut before = std::mem::take(&mut self.windows);
        self.windows.reserve_exact(windows.len());
        for window in windows {
            let kept = before
                .iter()
                .position(|(present, _)| present.counts_as(window));
            let mut rate = match kept {
                Some(position) => before.swap_remove(position).1,
                None => Rate::new(window.limit, self.serial),
            };
            rate.set_limit(window.limit);
            self.windows.push((*window, rate));
        }
    }

    /// Counts one message, and a connection when `opens` says so, in all windows, or in none and says why. `waiting`
    /// messages would like to follow.
    pub fn take(&mut self, now_ms: u64, opens: bool, waiting: u64) -> TakeAll {
        // Nothing is asked of others as long as one window says no by itself: the grant would only run out.
        if let Some(until_ms) = self.must_wait(now_ms, opens) {
            return TakeAll::Wait(until_ms);
        }
        match self.check(now_ms, opens, waiting) {
            Some(kept) => kept,
            None => TakeAll::Yes(self.commit(now_ms, opens)),
        }
    }

    /// Until when one of the windows says no by itself.
    pub(crate) fn must_wait(&self, now_ms: u64, opens: bool) -> Option<u64> {
        let windows = self.windows.iter();
        let concerned = windows.filter(|(window, _)| window.concerns(opens));
        concerned
            .filter_map(|(_, rate)| rate.must_wait(now_ms))
            .max()
    }

    /// What keeps one message, and a connection when `opens` says so; `None` = nothing does, and [`Rates::commit`] counts
    /// it at the same time.
    pub(crate) fn check(&mut self, now_ms: u64, opens: bool, waiting: u64) -> Option<TakeAll> {
        let mut asked = false;
        let windows = self.windows.iter_mut();
        for (window, rate) in windows.filter(|(window, _)| window.concerns(opens)) {
            let waiting = match window.unit {
                Unit::Messages => waiting,
                Unit::Connections => 1,
            };
            match rate.check(now_ms, waiting) {
                Take::Yes => {}
                Take::Wait(until_ms) => return Some(TakeAll::Wait(until_ms)),
                Take::Asked => asked = true,
                Take::Ask(word) => {
                    let window = *window;
                    return Some(TakeAll::Ask { window, word });
                }
            }
        }
        asked.then_some(TakeAll::Asked)
    }

    /// Counts what [`Rates::check`] let pass at the same time.
    pub(crate) fn commit(&mut self, now_ms: u64, opens: bool) -> Taken {
        let windows = self.windows.iter_mut();
        for (_, rate) in windows.filter(|(window, _)| window.concerns(opens)) {
            rate.commit(now_ms);
        }
        Taken {
            opens,
            serial: self.serial,
        }
    }

    /// Whether something may pass, or only has to be asked for.
    pub(crate) fn are_open(&self, now_ms: u64, opens: bool) -> bool {
        let windows = self.windows.iter();
        let mut concerned = windows.filter(|(window, _)| window.concerns(opens));
        concerned.all(|(_, rate)| rate.is_open(now_ms))
    }

    /// What became of the message, or of the connection, of a use. To be told once for each that was taken.
    pub fn settle(&mut self, now_ms: u64, taken: Taken, unit: Unit, became: Became) {
        if unit == Unit::Connections && !taken.opens {
            return;
        }
        for (window, rate) in &mut self.windows {
            if window.unit == unit && rate.born() <= taken.serial {
                rate.settle(now_ms, became);
            }
        }
    }

    /// Takes an answer. One for a window that is not there any more has no effect.
    pub fn news(&mut self, now_ms: u64, window: Window, news: GrantNews) {
        let asked = self
            .windows
            .iter_mut()
            .find(|(present, _)| present.counts_as(&window));
        if let Some((present, rate)) = asked {
            rate.news(now_ms, news);
            if present.limit.count < window.limit.count {
                // Granted under a limit that was higher.
                rate.give_back();
            }
        }
    }

    /// This replica's shares may be others from now on: none is used before it is asked for again.
    pub(crate) fn doubt_shares(&mut self, now_ms: u64) {
        for (_, rate) in &mut self.windows {
            rate.doubt_share(now_ms);
        }
    }

    /// When something is to be said although nothing is wanted; `None` = never.
    pub fn tells_at(&self, now_ms: u64) -> Option<u64> {
        let each = self.windows.iter();
        each.filter_map(|(_, rate)| rate.tells_at(now_ms)).min()
    }

    /// What is to be said now although nothing is wanted, about one of the windows: others may follow.
    pub fn tell(&mut self, now_ms: u64) -> Option<(Window, Word)> {
        let is_due = |rate: &Rate| rate.tells_at(now_ms).is_some_and(|at_ms| at_ms <= now_ms);
        let (window, rate) = self.windows.iter_mut().find(|(_, rate)| is_due(rate))?;
        Some((*window, rate.say(now_ms, 0)))
    }

    /// Gives back what is not used, for good: what is to be said of each window about which something is.
    pub fn hand_over(&mut self, now_ms: u64) -> Vec<(Window, Word)> {
        let mut words = Vec::new();
        for (window, rate) in &mut self.windows {
            rate.give_back();
            if rate.has_news() {
                words.push((*window, rate.say(now_ms, 0)));
            }
        }
        words
    }

    /// Until when the windows let nothing pass, and the one that is last; `None` when they would, or nobody knows
    /// before asking.
    pub fn blocked(&self, now_ms: u64) -> Option<(Window, u64)> {
        self.windows
            .iter()
            .filter_map(|(window, rate)| Some((*window, rate.must_wait(now_ms)?)))
            .max_by_key(|(_, until_ms)| *until_ms)
    }

    /// The window about which an answer is on its way, if there is one.
    pub fn asked(&self) -> Option<Window> {
        let asks = |(_, rate): &&(Window, Rate)| rate.is_asking();
        self.windows.iter().find(asks).map(|(window, _)| *window)
    }

    /// Whether nothing of any window is in use: what they count can be forgotten.
    pub fn are_unused(&self, now_ms: u64) -> bool {
        self.windows.iter().all(|(_, rate)| rate.is_unused(now_ms))
    }
}

#[cfg(test)]
mod tests;
