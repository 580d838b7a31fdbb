//! Hours at which mail may be sent, and when a message's first attempt comes.

use std::fmt;

use jiff::civil::{Date, Weekday};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan};
use mail::Span;

const MINUTES_OF_DAY: u16 = 24 * 60;
const MINUTES_OF_WEEK: usize = 7 * 24 * 60;
/// Entries of a window.
pub(super) const MOST_HOURS: usize = 28;
/// Days that are looked at for the next opening: each entry comes every week, but for a day on which the clock is put
/// forward over it.
const DAYS_AHEAD: i64 = 15;
/// Openings that a spread can go through, which is no longer than a week is open.
const MOST_OPENINGS: usize = 4 * MOST_HOURS * 7;

const HOURS_FORM: &str = "days and hours such as \"mon-fri 09:00-18:00\", \"sat,sun 22:00-02:00\", \"mon-fri\" or \"08:00-20:00\" are expected";

const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// When mail of a stream is sent, where that is not at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// Nothing is sent while it is closed.
    pub window: Option<Window>,
    /// First attempts are spread evenly over so much time, during which the window is open; 0: not at all.
    pub spread: Span,
    /// From acceptance to the first attempt at least.
    pub delay: Span,
}

impl Timing {
    /// When the first attempt is to be of what may go from `from_ms` on, Unix milliseconds. Equal seeds give equal
    /// times.
    pub fn first_attempt_ms(&self, from_ms: u64, seed: u64) -> u64 {
        let from_ms = from_ms.saturating_add(self.delay.as_millis());
        let after_ms = match self.spread.as_millis() {
            0 => 0,
            spread_ms => seed % spread_ms,
        };
        match &self.window {
            Some(window) => window.after_open_ms(from_ms, after_ms),
            None => from_ms.saturating_add(after_ms),
        }
    }

    /// When the window opens, Unix milliseconds; `None` when it is open.
    pub fn opens_ms(&self, now_ms: u64) -> Option<u64> {
        self.window.as_ref()?.opens_ms(now_ms)
    }
}

/// Days and hours in a time zone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    zone: TimeZone,
    open: Vec<OpenHours>,
}

/// Hours of some days of the week.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenHours {
    /// Bits from Monday.
    days: u8,
    /// Minutes from midnight.
    from: u16,
    /// Not after `from`: on the next day.
    to: u16,
}

impl Window {
    pub(super) fn new(zone: TimeZone, open: Vec<OpenHours>) -> Self {
        Self { zone, open }
    }

    /// Name of the time zone.
    pub fn zone(&self) -> &str {
        self.zone.iana_name().unwrap_or("UTC")
    }

    /// The hours.
    pub fn open(&self) -> &[OpenHours] {
        &self.open
    }

    /// When it opens, Unix milliseconds; `None` when it is open, and for times that no calendar has. A time of the day
    /// that comes twice, since the clock is put back, is meant when it comes first; one that is left out, since the clock
    /// is put forward, as much later. Cost: a look at the entries for two days, a few more when it is closed for days.
    pub fn opens_ms(&self, now_ms: u64) -> Option<u64> {
        let (start, _) = self.next(now_ms)?;
        (start > now_ms).then_some(start)
    }

    /// When it will have been open for so long since `from_ms`; all times in milliseconds.
    pub fn after_open_ms(&self, from_ms: u64, open_ms: u64) -> u64 {
        let (mut at, mut left) = (from_ms, open_ms);
        for _ in 0..MOST_OPENINGS {
            let Some((start, end)) = self.next(at) else {
                break;
            };
            let start = start.max(at);
            if left < end - start {
                return start + left;
            }
            (at, left) = (end, left - (end - start));
        }
        at
    }

    /// What is open at a time, or next: from when to when.
    fn next(&self, at_ms: u64) -> Option<(u64, u64)> {
        let at = Timestamp::from_millisecond(i64::try_from(at_ms).ok()?).ok()?;
        let today = at.to_zoned(self.zone.clone()).date();
        (-1..=DAYS_AHEAD).find_map(|days| {
            let day = today.checked_add(days.days()).ok()?;
            let of_day = self.open.iter().filter(|hours| hours.is_on(day.weekday()));
            of_day
                .filter_map(|hours| self.interval(day, hours))
                .filter(|(start, end)| start < end && *end > at_ms)
                .min()
        })
    }

    fn interval(&self, day: Date, hours: &OpenHours) -> Option<(u64, u64)> {
        let next_day = hours.to <= hours.from;
        let end_day = if next_day { day.tomorrow().ok()? } else { day };
        Some((self.at(day, hours.from)?, self.at(end_day, hours.to)?))
    }

    fn at(&self, day: Date, minute: u16) -> Option<u64> {
        let (day, minute) = match minute {
            MINUTES_OF_DAY => (day.tomorrow().ok()?, 0),
            minute => (day, minute),
        };
        let hour = i8::try_from(minute / 60).ok()?;
        let time = day.at(hour, i8::try_from(minute % 60).ok()?, 0, 0);
        let timestamp = self.zone.to_timestamp(time).ok()?;
        u64::try_from(timestamp.as_millisecond()).ok()
    }

    /// Time that it is open in a week.
    pub(super) fn weekly(&self) -> Span {
        let mut minutes = vec![false; MINUTES_OF_WEEK];
        for hours in &self.open {
            let same_day = hours.to.checked_sub(hours.from);
            let length = same_day.unwrap_or(MINUTES_OF_DAY - hours.from + hours.to);
            for (number, (_, day)) in DAYS.iter().enumerate() {
                if hours.is_on(*day) {
                    let start = number * usize::from(MINUTES_OF_DAY) + usize::from(hours.from);
                    for minute in start..start + usize::from(length) {
                        minutes[minute % MINUTES_OF_WEEK] = true;
                    }
                }
            }
        }
        let open = minutes.into_iter().filter(|open| *open).count();
        Span::from_secs(60 * open as u64)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, hours) in self.open.iter().enumerate() {
            let before = if position == 0 { "" } else { ", " };
            write!(f, "{before}{hours}")?;
        }
        write!(f, " {}", self.zone())
    }
}

/// The time zone of an IANA name, by the data that are built in: the same in every process of a release.
pub(super) fn zone(name: &str) -> Result<TimeZone, String> {
    let expected = || "the name of a time zone such as Europe/Rome or UTC is expected".to_owned();
    let zone = TimeZoneDatabase::bundled()
        .get(name)
        .map_err(|_| expected())?;
    // `Etc/Unknown` is a name, and no zone.
    match zone.is_unknown() {
        true => Err(expected()),
        false => Ok(zone),
    }
}

impl OpenHours {
    fn is_on(&self, day: Weekday) -> bool {
        self.days >> day.to_monday_zero_offset() & 1 == 1
    }

    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let form = || HOURS_FORM.to_owned();
        let (days, hours) = match text.split_once(' ') {
            Some((days, hours)) => (Some(days), Some(hours)),
            None if text.contains(':') => (None, Some(text)),
            None => (Some(text), None),
        };
        let days = days.map_or(Some(0x7f), parse_days).ok_or_else(form)?;
        let (from, to) = match hours {
            None => (0, MINUTES_OF_DAY),
            Some(hours) => {
                let (from, to) = hours.split_once('-').ok_or_else(form)?;
                let from = parse_time(from).ok_or_else(form)?;
                (from, parse_time(to).ok_or_else(form)?)
            }
        };
        if from == MINUTES_OF_DAY {
            return Err(form());
        }
        if from == to {
            return Err("it would never be open; 00:00-24:00 is the whole day".to_owned());
        }
        Ok(Self { days, from, to })
    }
}

/// `mon`, `mon-fri`, `sat,sun`; a range may go over the end of the week.
fn parse_days(text: &str) -> Option<u8> {
    let number = |name: &str| DAYS.iter().position(|(day, _)| *day == name);
    let mut days = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut day, last) = (number(first)?, number(last)?);
        loop {
            days |= 1 << day;
            if day == last {
                break;
            }
            day = (day + 1) % 7;
        }
    }
    Some(days)
}

/// `09:30`, in minutes; up to `24:00`.
fn parse_time(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let part = |text: &str| -> Option<u16> {
        let is_number = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().ok())?
    };
    let (hours, minutes) = (part(hours)?, part(minutes)?);
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= MINUTES_OF_DAY).then_some(minute)
}

/// As it is read back.
impl fmt::Display for OpenHours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_on = |day: usize| self.days >> day & 1 == 1;
        let mut parts: Vec<String> = Vec::new();
        let mut day = 0;
        while day < 7 && self.days != 0x7f {
            let end = (day..7).find(|end| !is_on(*end)).unwrap_or(7);
            match end - day {
                0 => {}
                1 => parts.push(DAYS[day].0.to_owned()),
                _ => parts.push(format!("{}-{}", DAYS[day].0, DAYS[end - 1].0)),
            }
            day = end + 1;
        }
        if !parts.is_empty() {
            write!(f, "{} ", parts.join(","))?;
        }
        let time = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        write!(f, "{}-{}", time(self.from), time(self.to))
    }
}

#[cfg(test)]
mod tests;
