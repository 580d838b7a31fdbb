//! The day of a rewritten address: days since 1970 modulo 1024, as two digits of base 32.

const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
const DAY: u64 = 86_400;
/// After so many days the stamps begin anew.
const CYCLE: u64 = 1024;

/// Of this time, Unix seconds.
pub(crate) fn write(now: u64) -> String {
    let day = now / DAY;
    [day >> 5, day]
        .into_iter()
        .map(|digit| char::from(DIGITS[usize::try_from(digit & 31).unwrap_or(0)]))
        .collect()
}

/// Days from the stamp to `now`; a stamp of tomorrow is 1,023 days old. `None`: it is none. Case does not matter.
pub(crate) fn age(stamp: &str, now: u64) -> Option<u64> {
    let [high, low] = stamp.as_bytes() else {
        return None;
    };
    let digit = |byte: u8| {
        let byte = byte.to_ascii_uppercase();
        let at = DIGITS.iter().position(|digit| *digit == byte)?;
        u64::try_from(at).ok()
    };
    let then = digit(*high)? << 5 | digit(*low)?;
    Some((now / DAY + CYCLE - then) % CYCLE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_days_in_a_cycle() {
        for (day, stamp) in [
            (0, "AA"),
            (31, "A7"),
            (32, "BA"),
            (1023, "77"),
            (1024, "AA"),
            (20_787, "JT"),
        ] {
            assert_eq!(write(day * DAY + 5), stamp);
            assert_eq!(age(stamp, day * DAY), Some(0), "{stamp}");
            assert_eq!(age(&stamp.to_ascii_lowercase(), (day + 22) * DAY), Some(22));
            assert_eq!(
                age(stamp, (day + CYCLE - 1) * DAY),
                Some(1023),
                "of tomorrow"
            );
        }
        for none in ["", "A", "AAA", "A1", "A=", "ÄB"] {
            assert_eq!(age(none, 0), None, "{none}");
        }
    }
}
