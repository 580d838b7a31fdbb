//! Windows over days, weeks and the nights on which clocks are changed.

use proptest::prelude::*;

use super::*;

const HOUR_MS: u64 = 3_600_000;

fn window(zone_name: &str, open: &[&str]) -> Window {
    let open = open.iter().map(|text| OpenHours::parse(text).unwrap());
    Window::new(zone(zone_name).unwrap(), open.collect())
}

fn ms(text: &str) -> u64 {
    let timestamp: Timestamp = text.parse().unwrap();
    timestamp.as_millisecond().try_into().unwrap()
}

fn text(unix_ms: u64) -> String {
    Timestamp::from_millisecond(unix_ms.try_into().unwrap())
        .unwrap()
        .to_string()
}

/// When it opens, by the time that is asked at.
fn check_opens(window: &Window, rows: &[(&str, Option<&str>)]) {
    for (at, opens) in rows {
        let found = window.opens_ms(ms(at)).map(text);
        assert_eq!(found.as_deref(), *opens, "{at}");
    }
}

#[test]
fn opens_at_its_hours_on_its_days() {
    let office = window(
        "Europe/Rome",
        &[
            "mon-fri 09:00-12:30",
            "mon-fri 14:00-18:00",
            "sat 10:00-11:00",
        ],
    );
    check_opens(
        &office,
        &[
            // A Friday in winter, one hour ahead of UTC.
            ("2027-01-15T07:59:59.999Z", Some("2027-01-15T08:00:00Z")),
            ("2027-01-15T08:00:00Z", None),
            ("2027-01-15T11:29:59.999Z", None),
            ("2027-01-15T11:30:00Z", Some("2027-01-15T13:00:00Z")),
            ("2027-01-15T17:00:00Z", Some("2027-01-16T09:00:00Z")),
            ("2027-01-16T10:00:00Z", Some("2027-01-18T08:00:00Z")),
            // And in summer two.
            ("2027-07-16T06:59:59Z", Some("2027-07-16T07:00:00Z")),
            ("2027-07-16T07:00:00Z", None),
        ],
    );
}

#[test]
fn goes_over_midnight_and_the_end_of_the_week() {
    let nights = window("UTC", &["fri-sun 22:00-02:00"]);
    check_opens(
        &nights,
        &[
            ("2027-01-15T21:00:00Z", Some("2027-01-15T22:00:00Z")),
            ("2027-01-16T01:59:00Z", None),
            ("2027-01-16T02:00:00Z", Some("2027-01-16T22:00:00Z")),
            // Sunday's hours go on on Monday.
            ("2027-01-18T01:00:00Z", None),
            ("2027-01-18T02:00:00Z", Some("2027-01-22T22:00:00Z")),
        ],
    );
    let whole_day = window("UTC", &["sun"]);
    check_opens(
        &whole_day,
        &[
            ("2027-01-17T00:00:00Z", None),
            ("2027-01-17T23:59:59Z", None),
            ("2027-01-18T00:00:00Z", Some("2027-01-24T00:00:00Z")),
        ],
    );
}

/// In Rome 02:00 to 03:00 does not exist on 28 March 2027.
#[test]
fn hours_that_a_night_leaves_out_come_as_much_later() {
    let shifted = window("Europe/Rome", &["02:15-02:45"]);
    check_opens(
        &shifted,
        &[
            ("2027-03-27T00:00:00Z", Some("2027-03-27T01:15:00Z")),
            // 03:15 to 03:45 of summer time.
            ("2027-03-28T00:00:00Z", Some("2027-03-28T01:15:00Z")),
            ("2027-03-28T01:44:59Z", None),
            ("2027-03-28T01:45:00Z", Some("2027-03-29T00:15:00Z")),
        ],
    );
    // From 03:30, as 02:30 is taken, to 03:00: not open that night, but the next.
    let none = window("Europe/Rome", &["02:30-03:00"]);
    check_opens(
        &none,
        &[("2027-03-27T12:00:00Z", Some("2027-03-29T00:30:00Z"))],
    );
    // Nor when it would begin and end at the same time.
    let moment = window("Europe/Rome", &["02:30-03:30"]);
    check_opens(
        &moment,
        &[("2027-03-27T12:00:00Z", Some("2027-03-29T00:30:00Z"))],
    );
    // On Sundays only: a week later.
    let sundays = window("Europe/Rome", &["sun 02:30-03:00"]);
    check_opens(
        &sundays,
        &[("2027-03-22T12:00:00Z", Some("2027-04-04T00:30:00Z"))],
    );
    // What begins before and ends after is open for an hour less.
    let long = window("Europe/Rome", &["01:00-04:00"]);
    let noon = ms("2027-03-27T12:00:00Z");
    for (open_ms, at) in [
        (2 * HOUR_MS - 1, "2027-03-28T01:59:59.999Z"),
        (2 * HOUR_MS, "2027-03-28T23:00:00Z"),
    ] {
        assert_eq!(text(long.after_open_ms(noon, open_ms)), at);
    }
}

/// In Rome 02:00 to 03:00 comes twice on 31 October 2027.
#[test]
fn hours_that_come_twice_are_meant_when_they_come_first() {
    let twice = window("Europe/Rome", &["02:15-02:45"]);
    check_opens(
        &twice,
        &[
            ("2027-10-30T22:00:00Z", Some("2027-10-31T00:15:00Z")),
            ("2027-10-31T00:30:00Z", None),
            ("2027-10-31T00:45:00Z", Some("2027-11-01T01:15:00Z")),
        ],
    );
    // What begins before and ends after is open for an hour more.
    let long = window("Europe/Rome", &["01:00-04:00"]);
    let start = ms("2027-10-30T23:00:00Z");
    assert_eq!(
        long.after_open_ms(start, 4 * HOUR_MS - 1),
        ms("2027-10-31T02:59:59.999Z")
    );
    assert_eq!(
        long.after_open_ms(start, 4 * HOUR_MS),
        ms("2027-11-01T00:00:00Z")
    );
}

#[test]
fn a_spread_counts_open_time_only() {
    let office = window("UTC", &["mon-fri 09:00-12:00", "mon-fri 11:00-13:00"]);
    let friday = ms("2027-01-15T10:00:00Z");
    for (hours, at) in [
        (0, "2027-01-15T10:00:00Z"),
        (2, "2027-01-15T12:00:00Z"),
        (3, "2027-01-18T09:00:00Z"),
        (4, "2027-01-18T10:00:00Z"),
        (3 + 4 * 5 + 1, "2027-01-25T10:00:00Z"),
    ] {
        assert_eq!(
            text(office.after_open_ms(friday, hours * HOUR_MS)),
            at,
            "{hours}"
        );
    }
    assert_eq!(office.weekly(), Span::from_secs(20 * 3600));
}

#[test]
fn time_that_is_open_in_a_week_is_counted_once_also_after_midnight_and_its_end() {
    for (open, minutes) in [
        (&["fri-sun 22:00-02:00"][..], 3 * 240),
        (&["sun 23:00-01:30", "mon 01:00-02:00"], 180),
        (&["mon-sun 00:00-24:00", "12:00-11:00"], 7 * 1440),
    ] {
        let weekly = window("UTC", open).weekly();
        assert_eq!(weekly, Span::from_secs(60 * minutes), "{open:?}");
    }
}

#[test]
fn a_spread_goes_through_all_openings_of_a_week() {
    let minutes: Vec<String> = (0..MOST_HOURS)
        .map(|minute| format!("12:{:02}-12:{:02}", 2 * minute, 2 * minute + 1))
        .collect();
    let minutes: Vec<&str> = minutes.iter().map(String::as_str).collect();
    let window = window("UTC", &minutes);
    let from = ms("2027-01-15T12:00:30Z");
    let week = window.weekly().as_millis();
    assert_eq!(
        text(window.after_open_ms(from, week - 1)),
        "2027-01-22T12:00:29.999Z"
    );
}

#[test]
fn first_attempts_are_spread_evenly_and_the_same_each_time() {
    let timing = Timing {
        window: Some(window("Europe/Rome", &["mon-fri 09:00-18:00"])),
        spread: Span::from_secs(12 * 3600),
        delay: Span::from_secs(3600),
    };
    let saturday = ms("2027-01-16T08:00:00Z");
    assert_eq!(timing.opens_ms(saturday), Some(ms("2027-01-18T08:00:00Z")));
    let from = ms("2027-01-15T14:00:00Z");
    let mut by_hour = [0_u32; 12];
    for number in 0..12_000_u64 {
        let seed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let at = timing.first_attempt_ms(from, seed);
        assert_eq!(at, timing.first_attempt_ms(from, seed));
        assert_eq!(timing.opens_ms(at), None);
        // Two hours are left on Friday, ten are of Monday.
        let friday = ms("2027-01-15T15:00:00Z")..ms("2027-01-15T17:00:00Z");
        let monday = ms("2027-01-18T08:00:00Z");
        let hour = if friday.contains(&at) {
            (at - friday.start) / HOUR_MS
        } else if at < monday + 9 * HOUR_MS {
            2 + (at - monday) / HOUR_MS
        } else {
            11 + (at - ms("2027-01-19T08:00:00Z")) / HOUR_MS
        };
        by_hour[usize::try_from(hour).unwrap()] += 1;
    }
    for count in by_hour {
        assert!((850..=1150).contains(&count), "{by_hour:?}");
    }
}

#[test]
fn without_a_window_a_spread_counts_all_time() {
    let timing = Timing {
        window: None,
        spread: Span::from_secs(10),
        delay: Span::from_secs(5),
    };
    assert_eq!(
        timing.first_attempt_ms(1_000, 23_456),
        1_000 + 5_000 + 3_456
    );
    assert_eq!(timing.opens_ms(0), None);
}

#[test]
fn hours_are_read_and_written() {
    for (given, written) in [
        ("mon-fri 09:00-18:00", "mon-fri 09:00-18:00"),
        ("sat,sun 22:00-02:00", "sat-sun 22:00-02:00"),
        ("fri-mon 00:00-24:00", "mon,fri-sun 00:00-24:00"),
        ("mon-sun 08:00-20:00", "08:00-20:00"),
        ("08:00-20:00", "08:00-20:00"),
        ("wed", "wed 00:00-24:00"),
        ("mon,wed,thu 23:30-00:00", "mon,wed-thu 23:30-00:00"),
    ] {
        let hours = OpenHours::parse(given).unwrap();
        assert_eq!(hours.to_string(), written);
        assert_eq!(OpenHours::parse(written), Ok(hours));
    }
    for wrong in [
        "",
        " ",
        "monday",
        "mon-fri 9:00-18:00",
        "mon-fri 09:00",
        "mon fri 09:00-18:00",
        "24:00-08:00",
        "08:00-24:01",
        "08:60-09:00",
        "08:00-+9:00",
        "mon- 08:00-09:00",
        "mon,, 08:00-09:00",
        "Mon 08:00-09:00",
    ] {
        assert_eq!(
            OpenHours::parse(wrong),
            Err(HOURS_FORM.to_owned()),
            "{wrong:?}"
        );
    }
    assert!(
        OpenHours::parse("08:00-08:00")
            .unwrap_err()
            .contains("never be open")
    );
}

#[test]
fn zones_have_names() {
    assert!(zone("Europe/Rome").is_ok() && zone("UTC").is_ok() && zone("America/New_York").is_ok());
    for wrong in ["", "Rome", "CET+1", "+02:00", "Etc/Unknown", "../Rome"] {
        assert!(zone(wrong).is_err(), "{wrong}");
    }
}

#[test]
fn times_that_no_calendar_has_are_open() {
    let office = window("Europe/Rome", &["mon-fri 09:00-18:00"]);
    assert_eq!(office.opens_ms(u64::MAX), None);
    assert_eq!(office.after_open_ms(u64::MAX, 5), u64::MAX);
}

proptest! {
    #[test]
    fn whatever_the_window_it_opens_within_two_weeks_and_what_is_spread_is_in_it(
        zone_name in prop::sample::select(vec!["Europe/Rome", "UTC", "America/New_York", "Pacific/Apia", "Australia/Lord_Howe", "Asia/Kathmandu"]),
        days in 1_u8..0x80,
        from in 0_u16..1440,
        to in 0_u16..=1440,
        second in (1_u8..0x80, 0_u16..1440),
        at_s in 1_700_000_000_u64..2_000_000_000,
        open_s in 0_u64..86_400,
    ) {
        prop_assume!(from != to);
        let open = vec![
            OpenHours { days, from, to },
            OpenHours { days: second.0, from: second.1, to: (second.1 + 90) % 1440 },
        ];
        let window = Window::new(zone(zone_name).unwrap(), open);
        let at = at_s * 1000;
        let opens = window.opens_ms(at);
        if let Some(opens) = opens {
            prop_assert!(opens > at && opens <= at + 15 * 24 * HOUR_MS);
            prop_assert_eq!(window.opens_ms(opens), None);
            prop_assert_eq!(window.opens_ms(opens - 1), Some(opens));
        }
        let after = window.after_open_ms(at, open_s * 1000);
        prop_assert!(after >= at + open_s * 1000 && after >= opens.unwrap_or(at));
        prop_assert_eq!(window.opens_ms(after), None);
        prop_assert!(window.after_open_ms(at, open_s * 1000 + 1) > after);
    }
}
