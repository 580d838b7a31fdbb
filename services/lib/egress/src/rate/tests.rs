use super::*;

const LIMIT: RateLimit = RateLimit {
    count: 100,
    per_ms: 1000,
};
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

fn nothing(retry_ms: u64) -> GrantNews {
    GrantNews::Nothing { retry_ms }
}

fn share(share: u64) -> GrantNews {
    GrantNews::Share {
        share,
        until_ms: u64::MAX,
        heard: false,
    }
}

fn asks(rates: &mut Rates, now_ms: u64, opens: bool) -> (Window, Word) {
    match rates.take(now_ms, opens, 1) {
        TakeAll::Ask { window, word } => (window, word),
        other => panic!("{other:?}"),
    }
}

fn takes(rates: &mut Rates, now_ms: u64) -> Taken {
    match rates.take(now_ms, true, 1) {
        TakeAll::Yes(taken) => taken,
        other => panic!("{other:?}"),
    }
}

/// One window with a grant of so many.
fn with_grant(limit: RateLimit, amount: u64, until_ms: u64) -> (Rates, Window) {
    let window = messages(limit);
    let mut rates = Rates::new([window]);
    asks(&mut rates, 0, false);
    rates.news(0, window, granted(amount, until_ms));
    (rates, window)
}

#[test]
fn asks_for_a_moment_of_its_use_and_never_for_more_than_a_quarter() {
    let mut rate = Rate::new(LIMIT, 0);
    assert_eq!((rate.want(0), rate.want(7), rate.want(1000)), (1, 7, 25));
    rate.check(0, 1);
    rate.news(0, granted(40, 500));
    for _ in 0..40 {
        assert_eq!(rate.check(1, 1), Take::Yes);
        rate.commit(1);
    }
    assert_eq!(rate.want(1), 5);
    // What is dated counts as much as what is under way.
    (0..8).for_each(|_| rate.settle(2, Became::Over(2)));
    assert_eq!(rate.want(1), 5);
    let large = RateLimit {
        count: 1_000_000,
        per_ms: 1000,
    };
    assert_eq!(Rate::new(large, 0).want(1), 1000);
}

#[test]
fn draws_on_a_grant_until_it_is_used_or_over() {
    let (mut rates, window) = with_grant(LIMIT, 2, 62);
    takes(&mut rates, 1);
    takes(&mut rates, 1);
    let (_, word) = asks(&mut rates, 1, false);
    assert_eq!((word.have, word.want), (2, 1));
    assert_eq!(rates.take(1, false, 1), TakeAll::Asked);
    rates.news(1, window, granted(5, 63));
    takes(&mut rates, 62);
    // What is left of it is not theirs any more.
    let (_, word) = asks(&mut rates, 63, false);
    assert_eq!(word.have, 3);
    rates.news(63, window, nothing(900));
    assert_eq!(rates.take(64, false, 1), TakeAll::Wait(900));
    assert_eq!(asks(&mut rates, 900, false).0, window);
}

#[test]
fn what_is_under_way_is_had_until_it_has_a_date_and_the_date_is_said_once() {
    let (mut rates, window) = with_grant(LIMIT, 3, 62);
    let taken = [(); 3].map(|()| takes(&mut rates, 1));
    rates.settle(40, taken[0], Unit::Messages, Became::Over(41));
    let (_, word) = asks(&mut rates, 40, false);
    assert_eq!((word.have, word.dated.as_slice()), (2, &[(41, 1)][..]));
    // Dated while the word is on its way: it is had until it is said.
    rates.settle(41, taken[1], Unit::Messages, Became::Over(42));
    rates.news(41, window, nothing(50));
    assert_eq!(rates.tells_at(41), Some(40 + 62), "at once, nearly");
    let (_, word) = asks(&mut rates, 50, false);
    assert_eq!((word.have, word.dated.as_slice()), (1, &[(42, 1)][..]));
    rates.news(51, window, nothing(60));
    let (_, word) = asks(&mut rates, 60, false);
    assert_eq!((word.have, word.dated.len()), (1, 0));
}

#[test]
fn dates_that_nobody_heard_are_said_again_under_their_number_and_others_wait() {
    let (mut rates, window) = with_grant(LIMIT, 2, 62);
    let taken = [(); 2].map(|()| takes(&mut rates, 1));
    rates.settle(10, taken[0], Unit::Messages, Became::Over(11));
    let (_, first) = asks(&mut rates, 10, false);
    let away = GrantNews::Share {
        share: 0,
        until_ms: 20,
        heard: false,
    };
    rates.news(12, window, away);
    rates.settle(15, taken[1], Unit::Messages, Became::Over(16));
    let (_, again) = asks(&mut rates, 20, false);
    assert_eq!((again.batch, &again.dated), (first.batch, &first.dated));
    assert_eq!((first.have, again.have), (1, 1));
    rates.news(21, window, nothing(30));
    let (_, next) = asks(&mut rates, 30, false);
    assert!(next.batch > first.batch);
    assert_eq!((next.have, next.dated.as_slice()), (0, &[(16, 1)][..]));
}

#[test]
fn what_does_not_happen_can_be_taken_again_or_is_given_back() {
    let (mut rates, window) = with_grant(DAILY, 1, 500);
    for _ in 0..3 {
        let taken = takes(&mut rates, 1);
        rates.settle(1, taken, Unit::Messages, Became::Nothing);
    }
    let taken = takes(&mut rates, 1);
    rates.settle(600, taken, Unit::Messages, Became::Nothing);
    let (_, word) = asks(&mut rates, 600, false);
    assert_eq!((word.have, word.dated.len()), (0, 0));
    rates.news(600, window, nothing(700));
}

#[test]
fn says_by_itself_what_was_used_and_what_it_does_not_need() {
    let minute = RateLimit {
        count: 10,
        per_ms: 60_000,
    };
    let (mut rates, window) = with_grant(minute, 2, 3_750);
    let taken = takes(&mut rates, 1);
    assert_eq!(rates.tells_at(1), Some(3_750));
    rates.settle(30, taken, Unit::Messages, Became::Over(31));
    assert_eq!((rates.tells_at(31), rates.tell(999)), (Some(1_000), None));
    let (_, word) = rates.tell(1_000).unwrap();
    assert_eq!((word.have, word.want), (1, 0));
    assert_eq!(word.dated, [(31, 1)]);
    rates.news(1_001, window, nothing(1_001));
    // The other one is not used.
    assert_eq!(rates.tells_at(1_001), Some(3_750));
    let (_, word) = rates.tell(3_750).unwrap();
    assert_eq!((word.have, word.dated.len()), (0, 0));
    rates.news(3_751, window, nothing(3_751));
    assert_eq!(rates.tells_at(3_751), None);
}

#[test]
fn a_use_of_which_nobody_will_tell_is_dated_when_it_must_have_happened() {
    let (mut rates, window) = with_grant(LIMIT, 1, 62);
    let taken = takes(&mut rates, 1);
    rates.settle(5, taken, Unit::Messages, Became::Unknown(20_000));
    let (_, word) = rates.tell(500).unwrap();
    assert_eq!((word.have, word.dated.len()), (1, 0));
    rates.news(500, window, nothing(500));
    let (_, word) = rates.tell(20_000).unwrap();
    assert_eq!((word.have, word.dated.as_slice()), (0, &[(20_000, 1)][..]));
}

#[test]
fn hands_over_what_it_has_not_used() {
    let (mut rates, _) = with_grant(LIMIT, 5, 62);
    takes(&mut rates, 1);
    let words = rates.hand_over(2);
    assert_eq!(words.len(), 1);
    assert_eq!((words[0].1.have, words[0].1.want), (1, 0));
}

#[test]
fn keeps_to_its_share_over_every_window_when_what_others_were_granted_is_over() {
    let (mut rates, window) = with_grant(LIMIT, 50, 62);
    for _ in 0..50 {
        let taken = takes(&mut rates, 50);
        rates.settle(50, taken, Unit::Messages, Became::Over(51));
    }
    asks(&mut rates, 50, false);
    rates.news(50, window, share(25));
    let mut sent: Vec<u64> = Vec::new();
    let mut now = 50;
    while now < 20_000 {
        match rates.take(now, false, 1) {
            TakeAll::Yes(taken) => {
                // They come at their own times, up to 40 ms later.
                let at = now + sent.len() as u64 * 7 % 40;
                rates.settle(now, taken, Unit::Messages, Became::Over(at));
                sent.push(at);
                assert!(sent.len() < 1_000, "without end");
            }
            TakeAll::Wait(until) => {
                assert!(until > now);
                now = until;
            }
            other => panic!("{other:?}"),
        }
    }
    // Until then others may have been granted something, had it under way, and a window.
    assert!(sent[0] >= 50 + 62 + 2_000, "{}", sent[0]);
    sent.sort_unstable();
    for (n, at) in sent.iter().enumerate() {
        let in_window = sent[n..].iter().take_while(|other| **other < at + 1000);
        assert!(in_window.count() <= 25);
    }
    assert!(sent.len() > 25 * 16, "{}", sent.len());
}

#[test]
fn a_share_that_may_be_another_one_is_asked_for_before_it_is_used() {
    let window = messages(LIMIT);
    let mut rates = Rates::new([window]);
    asks(&mut rates, 0, false);
    rates.news(0, window, share(2));
    let settled = 62 + 2_000;
    takes(&mut rates, settled);
    // A partition went to another owner, and its share with it.
    rates.doubt_shares(settled);
    asks(&mut rates, settled, false);
    // Another one goes while the answer is on its way.
    rates.doubt_shares(settled);
    rates.news(settled, window, share(2));
    asks(&mut rates, settled, false);
    rates.news(settled, window, share(1));
    assert!(matches!(rates.take(settled, false, 1), TakeAll::Wait(_)));
}

#[test]
fn a_share_that_grows_is_used_when_its_last_owner_can_have_none_of_it_in_use() {
    let window = messages(LIMIT);
    let mut rates = Rates::new([window]);
    asks(&mut rates, 0, false);
    rates.news(0, window, share(2));
    let settled = 62 + 2_000;
    takes(&mut rates, settled);
    takes(&mut rates, settled);
    assert!(matches!(rates.take(settled, false, 1), TakeAll::Wait(_)));
    rates.news(settled, window, share(4));
    assert!(matches!(
        rates.take(settled + 1, false, 1),
        TakeAll::Wait(_)
    ));
    takes(&mut rates, 2 * settled);
    // One that shrinks does so at once.
    rates.news(2 * settled, window, share(3));
    assert!(matches!(
        rates.take(2 * settled, false, 1),
        TakeAll::Wait(_)
    ));
}

#[test]
fn a_message_needs_all_windows_and_counts_in_all_or_in_none() {
    let (second, day) = (messages(LIMIT), messages(DAILY));
    let mut rates = Rates::new([second, day]);
    assert_eq!(asks(&mut rates, 0, false).0, second);
    assert_eq!(asks(&mut rates, 0, false).0, day);
    assert_eq!(rates.take(0, false, 1), TakeAll::Asked);
    rates.news(0, second, granted(10, 62));
    assert_eq!(rates.take(0, false, 1), TakeAll::Asked);
    rates.news(0, day, granted(2, 30_000));
    takes(&mut rates, 1);
    takes(&mut rates, 1);
    assert_eq!(asks(&mut rates, 2, false).0, day);
    rates.news(2, day, nothing(5_000));
    // The grant of the second is not used while the day says no, and nothing more is asked for.
    assert_eq!(rates.take(50, false, 1), TakeAll::Wait(5_000));
    assert_eq!(rates.blocked(50), Some((day, 5_000)));
    let words = rates.hand_over(50);
    let had: Vec<u64> = words.iter().map(|(_, word)| word.have).collect();
    assert_eq!(had, [2]);
}

#[test]
fn a_connection_counts_only_when_one_is_opened() {
    let (second, opened) = (messages(LIMIT), connections(DAILY));
    let mut rates = Rates::new([second, opened]);
    assert_eq!(asks(&mut rates, 0, true).0, second);
    rates.news(0, second, granted(10, 500));
    assert_eq!(asks(&mut rates, 0, true).0, opened);
    assert!(matches!(rates.take(0, false, 1), TakeAll::Yes(_)));
    rates.news(0, opened, granted(1, 500));
    let taken = takes(&mut rates, 0);
    assert_eq!(asks(&mut rates, 0, true).0, opened);
    assert!(matches!(rates.take(0, false, 1), TakeAll::Yes(_)));
    // The other one did not open it.
    rates.news(0, opened, nothing(10));
    rates.settle(0, taken, Unit::Connections, Became::Over(1));
    let (window, word) = rates.tell(30_000).unwrap();
    assert_eq!((window, word.have), (second, 3));
    let (window, word) = rates.tell(30_000).unwrap();
    assert_eq!((window, word.dated.as_slice()), (opened, &[(1, 1)][..]));
}

#[test]
fn windows_that_stay_keep_their_counts_and_answers_to_others_have_no_effect() {
    let (second, day) = (messages(LIMIT), messages(DAILY));
    let mut rates = Rates::new([second, day]);
    asks(&mut rates, 0, false);
    asks(&mut rates, 0, false);
    rates.news(0, day, granted(2, 30_000));
    rates.set(&[day]);
    rates.news(0, second, granted(5, 30_000));
    let taken = takes(&mut rates, 0);
    rates.set(&[second, day]);
    assert_eq!(asks(&mut rates, 1, false).0, second);
    rates.news(1, second, granted(1, 100));
    takes(&mut rates, 1);
    // A use from before the window was there is none of its.
    rates.settle(2, taken, Unit::Messages, Became::Over(3));
    let (window, word) = asks(&mut rates, 2, false);
    assert_eq!((window, word.have, word.dated.len()), (second, 1, 0));
}

#[test]
fn a_window_with_another_count_keeps_what_is_used_and_gives_back_what_is_too_much() {
    let (mut rates, window) = with_grant(LIMIT, 10, 62);
    takes(&mut rates, 0);
    let less = messages(RateLimit { count: 50, ..LIMIT });
    rates.set(&[less]);
    let (asked, word) = asks(&mut rates, 0, false);
    assert_eq!((asked, word.have), (less, 1));
    // An answer to what was asked under the higher limit is given back.
    rates.news(0, window, granted(9, 62));
    assert_eq!(asks(&mut rates, 0, false).1.have, 1);
}

#[test]
fn dates_of_a_part_of_a_window_are_said_as_one_that_is_as_late_as_its_latest() {
    let minutes = RateLimit {
        count: 100,
        per_ms: 256_000,
    };
    let (mut rates, window) = with_grant(minutes, 7, 16_000);
    let taken = [(); 7].map(|()| takes(&mut rates, 1));
    let mut taken = taken.into_iter();
    let mut over = |rates: &mut Rates, at_ms| {
        let taken = taken.next().unwrap();
        rates.settle(3_000, taken, Unit::Messages, Became::Over(at_ms));
    };
    for at_ms in [1_000, 1_999, 2_000, 900, 2_999, 3_000] {
        over(&mut rates, at_ms);
    }
    let (_, word) = asks(&mut rates, 3_000, false);
    assert_eq!(word.dated, [(1_999, 2), (2_999, 3), (3_000, 1)]);
    // What was said stays as it was said.
    over(&mut rates, 3_001);
    rates.news(3_001, window, nothing(3_002));
    let (_, word) = asks(&mut rates, 3_002, false);
    assert_eq!(word.dated, [(3_001, 1)]);
}

#[test]
fn is_unused_when_nothing_counts_here_or_elsewhere_and_all_is_said() {
    let (mut rates, window) = with_grant(LIMIT, 1, 62);
    assert!(Rates::new([window]).are_unused(0));
    assert!(!rates.are_unused(1), "granted");
    let taken = takes(&mut rates, 1);
    assert!(!rates.are_unused(5_000), "under way");
    rates.settle(100, taken, Unit::Messages, Became::Over(100));
    assert!(!rates.are_unused(5_000), "not said");
    assert!(rates.tell(100).is_some());
    assert!(!rates.are_unused(5_000), "no answer yet");
    rates.news(100, window, nothing(100));
    // It counts for a window, and so may what others were granted until now and had under way for a window.
    assert!(!rates.are_unused(2_161));
    assert!(rates.are_unused(2_162));
}

#[test]
fn a_share_is_free_again_when_a_use_is_a_window_old_and_is_asked_about_anew_at_its_end() {
    let window = messages(LIMIT);
    let mut rates = Rates::new([window]);
    let share = |share, until_ms| GrantNews::Share {
        share,
        until_ms,
        heard: false,
    };
    asks(&mut rates, 0, false);
    rates.news(0, window, share(1, 10_000));
    assert_eq!(rates.take(0, false, 1), TakeAll::Wait(2_062));
    let taken = takes(&mut rates, 2_062);
    // Nobody knows yet when it happens.
    assert_eq!(rates.take(2_062, false, 1), TakeAll::Wait(2_062 + 62));
    rates.settle(2_070, taken, Unit::Messages, Became::Over(2_075));
    assert_eq!(rates.take(2_080, false, 1), TakeAll::Wait(3_075));
    assert_eq!(rates.blocked(3_074), Some((window, 3_075)));
    takes(&mut rates, 3_075);
    assert_eq!(rates.take(9_990, false, 1), TakeAll::Wait(10_000));
    asks(&mut rates, 10_000, false);
    rates.news(10_000, window, share(0, 14_000));
    assert_eq!(rates.take(13_000, false, 1), TakeAll::Wait(14_000));
}

#[test]
fn a_date_that_counts_no_more_is_not_said_whatever_was_said_before() {
    let (mut rates, window) = with_grant(LIMIT, 2, 62);
    let taken = [(); 2].map(|()| takes(&mut rates, 1));
    rates.settle(10, taken[0], Unit::Messages, Became::Over(10));
    assert_eq!(asks(&mut rates, 10, false).1.dated, [(10, 1)]);
    rates.news(10, window, nothing(20));
    rates.settle(100, taken[1], Unit::Messages, Became::Over(100));
    assert_eq!(asks(&mut rates, 1_099, false).1.dated, [(100, 1)]);
    rates.news(1_099, window, granted(2, 1_150));
    let taken = [(); 2].map(|()| takes(&mut rates, 1_100));
    rates.settle(1_110, taken[0], Unit::Messages, Became::Over(1_110));
    let (_, word) = asks(&mut rates, 1_110, false);
    assert_eq!((word.have, word.dated.as_slice()), (1, &[(1_110, 1)][..]));
    rates.news(1_110, window, nothing(1_120));
    rates.settle(1_120, taken[1], Unit::Messages, Became::Over(1_120));
    let (_, word) = asks(&mut rates, 2_120, false);
    assert_eq!((word.have, word.dated.len()), (0, 0));
}

#[test]
fn dates_of_a_moment_of_which_some_were_said_are_said_too() {
    let minutes = RateLimit {
        count: 100,
        per_ms: 256_000,
    };
    let (mut rates, window) = with_grant(minutes, 4, 16_000);
    let mut taken = [(); 4].map(|()| takes(&mut rates, 1)).into_iter();
    let mut over = |rates: &mut Rates, at_ms| {
        let taken = taken.next().unwrap();
        rates.settle(at_ms, taken, Unit::Messages, Became::Over(at_ms));
    };
    let mut last_batch = 0;
    over(&mut rates, 1_000);
    for at_ms in [1_100, 1_200, 1_300] {
        let (_, word) = asks(&mut rates, 1_300, false);
        assert_eq!(word.dated, [(at_ms - 100, 1)]);
        assert!(word.batch > last_batch, "also within a millisecond");
        last_batch = word.batch;
        over(&mut rates, at_ms);
        rates.news(1_300, window, granted(0, 0));
    }
}

#[test]
fn uses_of_which_nobody_will_tell_are_dated_in_order_and_rather_late() {
    let (mut rates, window) = with_grant(LIMIT, 3, 62);
    for at_ms in [20_000, 15_000, 30_000] {
        let taken = takes(&mut rates, 1);
        rates.settle(5, taken, Unit::Messages, Became::Unknown(at_ms));
    }
    let (_, word) = asks(&mut rates, 15_000, false);
    assert_eq!((word.have, word.dated.len()), (3, 0));
    rates.news(15_000, window, nothing(15_001));
    let (_, word) = asks(&mut rates, 20_000, false);
    assert_eq!((word.have, word.dated.as_slice()), (1, &[(20_000, 2)][..]));
    rates.news(20_000, window, nothing(20_001));
    let (_, word) = asks(&mut rates, 30_000, false);
    assert_eq!((word.have, word.dated.as_slice()), (0, &[(30_000, 1)][..]));
}

#[test]
fn what_does_not_happen_is_not_drawn_on_again_when_only_a_share_holds() {
    let (mut rates, window) = with_grant(LIMIT, 1, 500);
    let taken = takes(&mut rates, 1);
    asks(&mut rates, 1, false);
    rates.news(2, window, share(25));
    rates.settle(3, taken, Unit::Messages, Became::Nothing);
    assert!(matches!(rates.take(4, false, 1), TakeAll::Wait(_)));
}

#[test]
fn what_was_to_be_waited_for_is_asked_anew_under_another_limit_only() {
    let day = messages(DAILY);
    let (mut rates, window) = with_grant(LIMIT, 0, 0);
    asks(&mut rates, 0, false);
    rates.news(0, window, nothing(900));
    rates.set(&[window, day]);
    rates.set(&[window]);
    assert_eq!(rates.take(1, false, 1), TakeAll::Wait(900));
    let more = messages(RateLimit {
        count: 101,
        ..LIMIT
    });
    rates.set(&[more]);
    assert_eq!(asks(&mut rates, 1, false).0, more);
}

#[test]
fn an_answer_that_leaves_nothing_is_waited_for_a_moment_and_only_if_something_was_wanted() {
    let (mut rates, window) = with_grant(LIMIT, 1, 62);
    takes(&mut rates, 1);
    asks(&mut rates, 100, false);
    assert_eq!(rates.blocked(100), None, "only the answer will tell");
    rates.news(100, window, nothing(0));
    assert_eq!(rates.take(100, false, 1), TakeAll::Wait(101));
    asks(&mut rates, 101, false);
    rates.news(101, window, nothing(602));
    // It is open for long, and that is said from time to time.
    assert_eq!(rates.tells_at(101), Some(601));
    assert!(rates.tell(601).is_some());
    assert!(rates.hand_over(601).is_empty(), "it is being said");
    assert_eq!(rates.take(601, false, 1), TakeAll::Asked);
    rates.news(601, window, nothing(9_000));
    assert_eq!(rates.tells_at(601), Some(1_101));
    asks(&mut rates, 602, false);
}

#[test]
fn nothing_is_told_for_a_while_when_nobody_hears_it() {
    let (mut rates, window) = with_grant(LIMIT, 1, 62);
    let taken = takes(&mut rates, 1);
    rates.settle(10, taken, Unit::Messages, Became::Over(11));
    assert!(rates.tell(62).is_some());
    let away = GrantNews::Share {
        share: 0,
        until_ms: 0,
        heard: false,
    };
    rates.news(100, window, away);
    assert_eq!(rates.tells_at(100), Some(2_100));
    // What ends in the past is asked about anew soon, not at once.
    assert_eq!(rates.take(100, false, 1), TakeAll::Wait(101));
    asks(&mut rates, 101, false);
    let heard = GrantNews::Share {
        share: 0,
        until_ms: 9_000,
        heard: true,
    };
    rates.news(101, window, heard);
    assert_eq!(rates.tells_at(101), None);
}

#[test]
fn a_share_that_stays_as_it_is_grows_when_it_would_have() {
    let window = messages(LIMIT);
    let mut rates = Rates::new([window]);
    asks(&mut rates, 0, false);
    rates.news(0, window, share(0));
    let settled = 62 + 2_000;
    rates.news(settled, window, share(1));
    rates.news(settled + 1_000, window, share(1));
    let early = rates.take(2 * settled - 1, false, 1);
    assert!(matches!(early, TakeAll::Wait(_)));
    takes(&mut rates, 2 * settled);
}

#[test]
fn a_window_is_in_use_as_long_as_something_of_it_counts_or_is_waited_for() {
    let window = messages(LIMIT);
    let mut rates = Rates::new([window]);
    asks(&mut rates, 0, false);
    rates.news(0, window, share(1));
    let taken = takes(&mut rates, 3_000);
    assert!(!rates.are_unused(9_000), "under way, of a share");
    rates.settle(9_000, taken, Unit::Messages, Became::Over(9_000));
    assert!(!rates.are_unused(9_999));
    assert!(rates.are_unused(10_000));

    let (rates, _) = with_grant(LIMIT, 1, 62);
    assert!(!rates.are_unused(9_000), "it counts where it was granted");

    let mut rates = Rates::new([window]);
    asks(&mut rates, 0, false);
    rates.news(0, window, nothing(9_000));
    assert!(!rates.are_unused(8_999), "to be waited for");
    assert!(rates.are_unused(9_000));
}
