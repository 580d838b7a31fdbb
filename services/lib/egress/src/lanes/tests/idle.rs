//! Which lanes are forgotten.

use super::super::idle::IDLE_MS;
use super::*;

#[test]
fn forgets_a_lane_that_had_nothing_for_a_minute_and_gives_its_number_to_another() {
    let mut lanes: Lanes<u32> = Lanes::default();
    let rate = window(Unit::Messages, 10);
    let limits = || LaneLimits {
        windows: vec![rate],
        ..LIMITS
    };
    let lane = lanes.lane(&"source".into(), &"site".into(), limits);
    lanes.sender_up(SenderId(1), 10, []);
    lanes.push(lane, &Flow::default(), 0, 0);
    assert!(matches!(lanes.next(0), Some(Decision::AskGrant { .. })));
    lanes.grant(0, Whose::Lane(lane), rate, granted(1, 500));
    let Some(Decision::Assign { drawn, .. }) = lanes.next(0) else {
        panic!("it was granted");
    };
    assert_eq!(lanes.next(0), None);
    lanes.settle(lane, drawn, Unit::Messages, Became::Over(1));
    // That it was used is said, and its connection keeps it.
    assert_eq!(asked_at(&mut lanes, 62), (lane, 0, 0));
    lanes.grant(
        62,
        Whose::Lane(lane),
        rate,
        GrantNews::Nothing { retry_ms: 62 },
    );
    lanes.released(lane, SlotId(0), SenderId(1));
    assert_eq!(lanes.forget_idle(IDLE_MS, 10), []);
    lanes.slot_closed(lane, SlotId(0), SenderId(1));
    assert_eq!(lanes.forget_idle(62 + IDLE_MS - 1, 10), []);
    assert_eq!(lanes.forget_idle(62 + IDLE_MS, 10), [lane]);
    assert_eq!((lanes.count(), lanes.find("source", "site")), (0, None));
    assert!(lanes.numbers.is_empty());
    let other = lanes.lane(&"source".into(), &"other".into(), limits);
    assert_eq!((other, lanes.find("source", "other")), (lane, Some(lane)));
    assert_eq!(lanes.find("source", "site"), None);
}

#[test]
fn a_lane_in_which_something_waits_or_is_under_way_is_not_forgotten() {
    let mut lanes: Lanes<u32> = Lanes::default();
    let rate = window(Unit::Messages, 10);
    let lane = |lanes: &mut Lanes<u32>, site: &str, limits: LaneLimits| {
        let lane = lanes.lane(&"source".into(), &site.into(), || limits);
        lanes.push(lane, &Flow::default(), 0, 0);
        lane
    };
    let suspended = LaneLimits {
        suspended_until_ms: 10 * IDLE_MS,
        ..LIMITS
    };
    let slow = LaneLimits {
        windows: vec![rate],
        ..LIMITS
    };
    lanes.sender_up(SenderId(1), 2, []);
    let waits = lane(&mut lanes, "suspended", suspended);
    let rated = lane(&mut lanes, "rated", slow);
    assert_eq!(asked(&mut lanes), (rated, 0, 1));
    let nothing = GrantNews::Nothing {
        retry_ms: 10 * IDLE_MS,
    };
    lanes.grant(0, Whose::Lane(rated), rate, nothing);
    let busy = lane(&mut lanes, "busy", LIMITS);
    assert_eq!(assigned(&mut lanes), [(0, 0, 1)]);
    lanes.sender_drains(SenderId(1));
    let starved = lane(&mut lanes, "starved", LIMITS);
    assert_eq!(lanes.next(0), None);
    // What goes elsewhere leaves all of them looked at.
    lanes.retain(|_| true);
    assert_eq!(lanes.forget_idle(5 * IDLE_MS, 10), []);
    for lane in [waits, rated, busy, starved] {
        assert!(lanes.names(lane).is_some(), "{lane:?}");
    }
    assert_eq!(lanes.waiting(), 3);
}

#[test]
fn keeps_a_lane_as_long_as_its_windows_count_something() {
    let mut lanes: Lanes<u32> = Lanes::default();
    let day = Window {
        unit: Unit::Messages,
        limit: RateLimit {
            count: 5,
            per_ms: 86_400_000,
        },
    };
    let limits = || LaneLimits {
        windows: vec![day],
        ..LIMITS
    };
    let lane = lanes.lane(&"source".into(), &"site".into(), limits);
    lanes.sender_up(SenderId(1), 10, []);
    lanes.push(lane, &Flow::default(), 0, 0);
    lanes.next(0);
    lanes.grant(0, Whose::Lane(lane), day, granted(1, 1_000));
    let Some(Decision::Assign { drawn, .. }) = lanes.next(0) else {
        panic!("it was granted");
    };
    lanes.sender_gone(SenderId(1));
    lanes.settle(lane, drawn, Unit::Messages, Became::Unknown(20_000));
    for now_ms in [7_500, 20_000] {
        let have = u64::from(now_ms < 20_000);
        assert_eq!(asked_at(&mut lanes, now_ms), (lane, have, 0));
        lanes.grant(
            now_ms,
            Whose::Lane(lane),
            day,
            GrantNews::Nothing { retry_ms: now_ms },
        );
    }
    let mut now_ms = 20_000;
    while lanes.forget_idle(now_ms, 10).is_empty() {
        now_ms += IDLE_MS;
        assert!(now_ms < 3 * 86_400_000);
    }
    assert!(now_ms > 86_400_000);
}

#[test]
fn a_lane_is_listed_once_however_often_it_has_nothing() {
    let (mut lanes, lane) = lanes();
    lanes.sender_up(SenderId(1), 10, []);
    for item in 0..100 {
        lanes.push(lane, &Flow::default(), item, 0);
        assert_eq!(assigned(&mut lanes), [(item, 0, 1)]);
        lanes.released(lane, SlotId(0), SenderId(1));
        lanes.slot_closed(lane, SlotId(0), SenderId(1));
        assert_eq!(lanes.next(0), None);
    }
    assert_eq!(lanes.idle.len(), 1);
}

#[test]
fn a_lane_of_which_all_was_taken_out_is_forgotten() {
    let suspended = LaneLimits {
        suspended_until_ms: 10 * IDLE_MS,
        ..LIMITS
    };
    let (mut lanes, lane) = lanes();
    lanes.set_limits_of(lane, suspended);
    lanes.push(lane, &Flow::default(), 0, 0);
    assert_eq!(lanes.next(0), None);
    assert_eq!(lanes.forget_idle(IDLE_MS, 10), []);
    lanes.retain(|_| false);
    assert_eq!(lanes.forget_idle(IDLE_MS, 10), [lane]);
}
