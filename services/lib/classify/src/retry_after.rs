//! "Try again in 5 minutes": when the other side says that it wants to be asked again.

/// As much of a reply's text as is looked at, bytes.
const TEXT_LIMIT: usize = 1024;
/// Words from what asks for another attempt to the number.
const REACH: usize = 8;
/// Longer times are no answer to when to try again: 31 days, seconds.
const LONGEST_S: u64 = 31 * 86_400;

/// Words that ask for another attempt.
const ASKS: &[&str] = &[
    "again",
    "retry",
    "retrying",
    "back",
    "wait",
    "resend",
    "reconnect",
    "greylist",
    "greylisted",
    "greylisting",
    "graylist",
    "graylisted",
    "graylisting",
    "delayed",
    "deferred",
];

/// Words of which one stands before the number.
const BEFORE: &[&str] = &[
    "in",
    "after",
    "for",
    "wait",
    "about",
    "least",
    "approximately",
    "another",
];

const UNITS: &[(&[&str], u64)] = &[
    (&["s", "sec", "secs", "second", "seconds"], 1),
    (&["m", "min", "mins", "minute", "minutes"], 60),
    (&["h", "hr", "hrs", "hour", "hours"], 3600),
];

/// Seconds after which the text of a reply asks for another attempt: `try again in 5 minutes`, `greylisted for 300s`,
/// `come back in 00:04:59`. `None` when it names no time, or one without a unit. Linear in the text, of which the
/// first KiB counts.
pub fn retry_after(text: &str) -> Option<u64> {
    let text = text[..text.floor_char_boundary(TEXT_LIMIT)].to_ascii_lowercase();
    let words: Vec<&str> = text.split_ascii_whitespace().map(bare).collect();
    for (position, word) in words.iter().enumerate() {
        let Some(seconds) = time_of(word, words.get(position + 1).copied()) else {
            continue;
        };
        let before = &words[position.saturating_sub(REACH)..position];
        let is_time_to_wait = before.last().is_some_and(|last| BEFORE.contains(last));
        let is_asked_for = before.iter().any(|word| asks(word));
        if is_time_to_wait && is_asked_for && (1..=LONGEST_S).contains(&seconds) {
            return Some(seconds);
        }
    }
    None
}

/// Without what is no letter or digit around it.
fn bare(word: &str) -> &str {
    word.trim_matches(|c: char| !c.is_ascii_alphanumeric())
}

fn asks(word: &str) -> bool {
    let word = word.rsplit(|c: char| !c.is_ascii_alphanumeric()).next();
    word.is_some_and(|word| ASKS.contains(&word))
}

/// `300s`, `300` before a unit, or `0:05:00`.
fn time_of(word: &str, next: Option<&str>) -> Option<u64> {
    let digits = word.len() - word.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, rest) = word.split_at(digits);
    let number: u64 = number.parse().ok()?;
    match rest {
        "" => number.checked_mul(unit_of(next?)?),
        rest if rest.starts_with(':') => clock_time(number, &rest[1..]),
        rest => number.checked_mul(unit_of(rest)?),
    }
}

/// Minutes and seconds after so many hours.
fn clock_time(hours: u64, rest: &str) -> Option<u64> {
    let (minutes, seconds) = rest.split_once(':')?;
    let part = |text: &str| {
        let value: u64 = text.parse().ok()?;
        (text.len() == 2 && value < 60).then_some(value)
    };
    hours
        .checked_mul(3600)?
        .checked_add(part(minutes)? * 60 + part(seconds)?)
}

/// Seconds of a unit; `minute(s)` is one too.
fn unit_of(word: &str) -> Option<u64> {
    let letters = word
        .find(|c: char| !c.is_ascii_alphabetic())
        .unwrap_or(word.len());
    let word = match word.as_bytes().get(letters) {
        None | Some(b'(') => &word[..letters],
        Some(_) => return None,
    };
    let unit = UNITS.iter().find(|(names, _)| names.contains(&word));
    unit.map(|(_, seconds)| *seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_how_long_to_wait_in_the_words_that_servers_use() {
        for (text, seconds) in [
            ("Greylisted, please try again in 300 seconds", 300),
            ("4.7.1 Try again in 5 minutes.", 300),
            ("Greylisted for 5 minutes (see http://g.example)", 300),
            ("Recipient address rejected: Greylisted for 60s", 60),
            ("Greylisting in action, please come back in 00:04:59", 299),
            ("Please retry after 2 hours", 7200),
            ("too fast; wait for at least 1 hour before the next", 3600),
            ("try again in about 15 min", 900),
            ("please wait 90 sec and retry", 90),
            ("grey-listed, retry in 10 minute(s)", 600),
            ("Service busy - RETRY IN 30SECS", 30),
            ("try\tagain  in 1 h", 3600),
            ("try again in 744 hours", 31 * 24 * 3600),
        ] {
            assert_eq!(retry_after(text), Some(seconds), "{text}");
        }
    }

    #[test]
    fn takes_nothing_else_for_a_time_to_wait() {
        for text in [
            "",
            "try again later",
            "more than 100 messages in 60 seconds, try again later",
            "try again in 300",
            "try again in a few minutes",
            "try again in 1.5 hours",
            "try again in 5-10 minutes",
            "try again in 0 seconds",
            "try again in 99999999999999999999 seconds",
            "try again in 18446744073709551615 hours",
            "try again in 745 hours",
            "retry, since 192.0.2.1 m is listed",
            "again 5 minutes",
            "you sent 20 messages in 10 minutes",
            "try again in 00:99:00",
            "try again in 00:60:00",
            "try again in 12:30",
            "try again in 5 monkeys",
            "try again in 5 min/h",
        ] {
            assert_eq!(retry_after(text), None, "{text}");
        }
    }

    #[test]
    fn looks_at_the_first_kibibyte_of_any_text() {
        let far = format!("{} try again in 5 minutes", "x".repeat(2000));
        assert_eq!(retry_after(&far), None);
        let odd = format!("try again in 5 minutes {}", "é".repeat(2000));
        assert_eq!(retry_after(&odd), Some(300));
    }
}
