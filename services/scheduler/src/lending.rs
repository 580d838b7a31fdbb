//! What is said to Redis about rates and connections, and what its answers mean: without I/O, so that the simulation says
//! and understands the same.

use std::time::Duration;

use egress::{GrantNews, SlotNews, Window, Word};
use limits::{Dated, GrantReply, GrantRequest, SLOT_TTL, SlotReply, SlotRequest};

/// While Redis does not answer it is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// So long before grants begin again nobody uses a share any more: each tells what it used within a second, and what is not told is
/// lent to others.
const TELLS: Duration = Duration::from_millis(1_500);
/// So long before its end a lease is not used any more.
const LEASE_MARGIN: Duration = Duration::from_secs(1);

/// What a scheduler that has the partitions `owned`, of so many, may use of a rate when Redis does not say.
pub fn grant_share(key: &str, window: Window, partitions: u32, owned: &[u32]) -> u64 {
    let hash = crate::machine::lane_hash(key);
    limits::safe_share(window.limit.count, partitions, owned, hash)
}

/// A word as Redis hears it: dates as how long ago they were.
pub fn grant_request(
    key: String,
    holder: String,
    window: Window,
    word: Word,
    now_ms: u64,
) -> GrantRequest {
    let dated = |(at_ms, count): (u64, u64)| Dated {
        ago: Duration::from_millis(now_ms.saturating_sub(at_ms)),
        count,
    };
    GrantRequest {
        key,
        limit: window.limit.count,
        window: Duration::from_millis(window.limit.per_ms),
        holder,
        have: word.have,
        batch: word.batch,
        dated: word.dated.into_iter().map(dated).collect(),
        want: word.want,
    }
}

/// A word about connections.
pub fn slot_request(
    key: String,
    holder: String,
    (limit, share): (u32, u32),
    (have, want): (u32, u32),
) -> SlotRequest {
    SlotRequest {
        key,
        holder,
        limit,
        have,
        want,
        share,
        ttl: SLOT_TTL,
    }
}

/// What an answer about connections means for their lane, and its name for the metrics. `asked_ms`: when it was asked for.
pub fn slot_news(
    request: &SlotRequest,
    answer: Result<SlotReply, limits::Unavailable>,
    asked_ms: u64,
    now_ms: u64,
) -> (&'static str, SlotNews) {
    let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match answer {
        Ok(reply) => {
            let name = match (reply.granted, request.want) {
                (0, 0) => "none",
                (0, _) => "nothing",
                _ => "granted",
            };
            let news = SlotNews::Leased {
                granted: reply.granted,
                excess: reply.excess,
                others_wait: reply.others_wait,
                until_ms: asked_ms + milliseconds(SLOT_TTL.saturating_sub(LEASE_MARGIN)),
            };
            (name, news)
        }
        Err(_) => {
            let over_ms = now_ms + milliseconds(SLOT_TTL);
            ("away", SlotNews::Away { over_ms })
        }
    }
}

/// What an answer about a rate means for its lane. `asked_ms`: when it was asked for; `share`: of [`grant_share`].
pub fn grant_news(
    answer: Result<GrantReply, limits::Unavailable>,
    asked_ms: u64,
    now_ms: u64,
    share: u64,
) -> GrantNews {
    let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    match answer {
        Err(_) => GrantNews::Share {
            share,
            until_ms: now_ms + milliseconds(ASK_AGAIN),
            heard: false,
        },
        Ok(GrantReply::Granted { amount, expires }) => GrantNews::Granted {
            amount,
            until_ms: asked_ms + milliseconds(expires),
        },
        Ok(GrantReply::Nothing { retry_after }) => GrantNews::Nothing {
            retry_ms: now_ms + milliseconds(retry_after),
        },
        Ok(GrantReply::Unknown { safe_for }) if safe_for <= TELLS => GrantNews::Nothing {
            retry_ms: now_ms + milliseconds(safe_for),
        },
        Ok(GrantReply::Unknown { safe_for }) => GrantNews::Share {
            share,
            until_ms: now_ms + milliseconds(safe_for.saturating_sub(TELLS)),
            heard: true,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use egress::{RateLimit, Unit};

    const WINDOW: Window = Window {
        unit: Unit::Messages,
        limit: RateLimit {
            count: 100,
            per_ms: 1000,
        },
    };

    #[test]
    fn dates_are_told_as_how_long_ago_they_were() {
        let word = Word {
            have: 2,
            batch: 7,
            dated: vec![(900, 3), (1_001, 1)],
            want: 4,
        };
        let request = grant_request("key".into(), "me".into(), WINDOW, word, 1_000);
        let ago = |milliseconds, count| Dated {
            ago: Duration::from_millis(milliseconds),
            count,
        };
        assert_eq!(request.dated, [ago(100, 3), ago(0, 1)]);
        assert_eq!((request.have, request.batch, request.want), (2, 7, 4));
    }

    #[test]
    fn a_grant_ends_by_when_it_was_asked_for_and_nobody_s_answer_is_the_share() {
        let granted = GrantReply::Granted {
            amount: 5,
            expires: Duration::from_millis(62),
        };
        let news = grant_news(Ok(granted), 100, 110, 3);
        let until_ms = 162;
        assert_eq!(
            news,
            GrantNews::Granted {
                amount: 5,
                until_ms
            }
        );
        // What was used of a share is told before anything is lent again.
        let unknown = |ms| {
            let safe_for = Duration::from_millis(ms);
            grant_news(Ok(GrantReply::Unknown { safe_for }), 100, 110, 3)
        };
        let (share, heard) = (3, true);
        let until_ms = 110 + 3_000 - 1_500;
        let news = GrantNews::Share {
            share,
            until_ms,
            heard,
        };
        assert_eq!(unknown(3_000), news);
        assert_eq!(unknown(1_500), GrantNews::Nothing { retry_ms: 1_610 });
        let away = Err(limits::Unavailable("away".to_owned()));
        let news = grant_news(away, 100, 110, 3);
        assert!(matches!(
            news,
            GrantNews::Share {
                share: 3,
                heard: false,
                ..
            }
        ));
    }
}
