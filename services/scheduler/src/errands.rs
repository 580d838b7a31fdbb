//! What the machine wants from the network: sites of domains, grants of rates, leases of connections.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use config::EgressPool;
use dns::Resolver;
use egress::{
    GrantNews, LaneId, SiteNews, SlotNews, StandingEvent, Window, no_standings, step_standings,
};
use limits::{
    GrantReply, GrantRequest, Grants, SLOT_TTL, SliceId, SliceUse, SlotReply, SlotRequest,
};
use mail::Domain;
use proto::journal::Acted;
use spool::{Acts, PoolStandingsStore};
use telemetry::IntCounterVec;

use crate::clock::Clock;
use crate::core::{Events, tell};
use crate::machine::Input;

/// While Redis does not answer it is asked again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How often telling other schedulers is tried.
const TELL_TRIES: u32 = 5;
/// So long before its end a lease is not used any more.
const LEASE_MARGIN: Duration = Duration::from_secs(1);

/// Runs errands in tasks of their own and brings the results to the core.
pub(crate) struct Errands {
    resolver: Resolver,
    grants: Grants,
    acts: Acts,
    standings: PoolStandingsStore,
    clock: Clock,
    events: Events,
    partitions: u32,
    /// By lane and window: the slice that is drawn on, and what no answered request has reported yet.
    books: Arc<Mutex<Books>>,
    answers: IntCounterVec,
    leases: IntCounterVec,
}

/// Words about connections, by answer.
pub(crate) fn leases() -> IntCounterVec {
    telemetry::counter_with(
        "staffetta_scheduler_connection_leases_total",
        "Renewals of the connections of a lane, by answer: granted (some more), none (no more were asked for), nothing (others have them), away (Redis is away: the safe share holds).",
        &["answer"],
    )
}

/// Questions for grants, by answer.
pub(crate) fn answers() -> IntCounterVec {
    telemetry::counter_with(
        "staffetta_scheduler_grants_total",
        "Questions for slices of rates, by answer: granted, nothing (the rate is used up), share (Redis is away or forgot: the safe share holds).",
        &["answer"],
    )
}

type Books = HashMap<(LaneId, Window), Book>;

#[derive(Default, Clone, Copy)]
struct Book {
    slice: Option<SliceId>,
    used: u64,
    outside: u64,
}

impl Errands {
    pub(crate) fn new(
        resolver: Resolver,
        (grants, acts, standings): (Grants, Acts, PoolStandingsStore),
        clock: Clock,
        events: Events,
        partitions: u32,
    ) -> Self {
        Self {
            resolver,
            grants,
            acts,
            standings,
            clock,
            events,
            partitions,
            books: Arc::default(),
            answers: answers(),
            leases: leases(),
        }
    }

    pub(crate) fn resolve(&self, domain: Arc<str>) {
        let (resolver, events) = (self.resolver.clone(), self.events.clone());
        tokio::spawn(async move {
            let news = site_of(&resolver, &domain).await;
            tell(&events, Input::Resolved(domain, news)).await;
        });
    }

    pub(crate) fn ask_slots(&self, lane: LaneId, request: SlotRequest) {
        let (grants, clock, events) = (self.grants.clone(), self.clock, self.events.clone());
        let leases = self.leases.clone();
        tokio::spawn(async move {
            let asked_ms = clock.now_ms();
            let answer = grants.lease(&request).await;
            let (name, news) = slot_news(&request, answer, asked_ms, clock.now_ms());
            leases.with_label_values(&[name]).inc();
            tell(&events, Input::Slots(lane, news)).await;
        });
    }

    /// Tells the other schedulers; what they are not told they hear for themselves.
    pub(crate) fn tell_act(&self, key: u64, act: Acted) {
        let (acts, clock) = (self.acts.clone(), self.clock);
        tokio::spawn(async move {
            for _ in 0..TELL_TRIES {
                let told = acts
                    .tell(&format!("{key:016x}"), &act, clock.now_ms())
                    .await;
                let Err(error) = told else {
                    return;
                };
                tracing::warn!(%error, rule = act.rule, "the other schedulers are not told what is done about replies");
                tokio::time::sleep(ASK_AGAIN).await;
            }
        });
    }

    /// Stores what happened to the tenants of a pool. What nobody may have stored twice is not tried again: deliveries that
    /// are not counted only make a probation longer.
    pub(crate) fn tell_standings(&self, pool: Arc<EgressPool>, mut happened: Vec<StandingEvent>) {
        let (standings, clock, events) = (self.standings.clone(), self.clock, self.events.clone());
        tokio::spawn(async move {
            let none = no_standings(&pool.name);
            for _ in 0..TELL_TRIES {
                let stored = standings.change(&none, |record| {
                    let now_ms = clock.now_ms();
                    let step =
                        |changed, event| step_standings(record, &pool, now_ms, event) || changed;
                    happened.iter().fold(false, step)
                });
                let Err(error) = stored.await else {
                    break;
                };
                tracing::warn!(%error, pool = pool.name, "it is not stored how tenants stand in a pool");
                happened.retain(|event| !matches!(event, StandingEvent::Delivered(..)));
                tokio::time::sleep(ASK_AGAIN).await;
            }
            tell(&events, Input::StandingsTold(pool.name.clone())).await;
        });
    }

    pub(crate) fn ask_turns(&self, pool: Arc<str>, count: u32) {
        let (grants, events) = (self.grants.clone(), self.events.clone());
        tokio::spawn(async move {
            let first = grants.turns(&pool, count).await.ok();
            if first.is_none() {
                // Until then the scheduler goes by turns of its own.
                tokio::time::sleep(ASK_AGAIN).await;
            }
            tell(&events, Input::Turns { pool, first, count }).await;
        });
    }

    #[expect(clippy::too_many_arguments, reason = "the parts of one question")]
    pub(crate) fn ask_grant(
        &self,
        lane: LaneId,
        key: String,
        window: Window,
        lag_ms: u64,
        want: u64,
        used: u64,
        outside: u64,
        owned: Vec<u32>,
    ) {
        let (grants, clock, events) = (self.grants.clone(), self.clock, self.events.clone());
        let (books, answers) = (self.books.clone(), self.answers.clone());
        let share = limits::safe_share(
            window.limit.count,
            self.partitions,
            &owned,
            crate::machine::lane_hash(&key),
        );
        tokio::spawn(async move {
            let of = (lane, window);
            let book = note_use(&books, of, used, outside);
            let length = Duration::from_millis(window.limit.per_ms);
            let request = GrantRequest {
                key,
                limit: window.limit.count,
                window: length + Duration::from_millis(lag_ms),
                want,
                ttl: GrantRequest::good_ttl(length),
                previous: book.slice.map(|slice_id| SliceUse {
                    slice_id,
                    used: book.used,
                    last_use_ago: Duration::ZERO,
                }),
                outside: book.outside,
            };
            let asked_ms = clock.now_ms();
            let answer = grants.ask(&request).await;
            let news = take_answer(&books, of, book, answer, asked_ms, clock.now_ms(), share);
            let answer = match news {
                GrantNews::Granted { .. } => "granted",
                GrantNews::Nothing { .. } => "nothing",
                GrantNews::Share { .. } => "share",
            };
            answers.with_label_values(&[answer]).inc();
            tell(&events, Input::Grant(lane, window, news)).await;
        });
    }
}

impl Errands {
    /// Lanes are not used any more: what they had of grants is over, and their numbers may become others'.
    pub(crate) fn forget_lanes(&self, lanes: &[LaneId]) {
        let mut books = self
            .books
            .lock()
            .expect("nobody panics while holding the books");
        let lanes: HashSet<&LaneId> = lanes.iter().collect();
        books.retain(|(of, _), _| !lanes.contains(of));
    }
}

fn slot_news(
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

/// Adds to what is to be reported for a window of a lane.
fn note_use(books: &Mutex<Books>, of: (LaneId, Window), used: u64, outside: u64) -> Book {
    let mut books = books.lock().expect("nobody panics while holding the books");
    let book = books.entry(of).or_default();
    book.used += used;
    book.outside += outside;
    *book
}

fn take_answer(
    books: &Mutex<Books>,
    of: (LaneId, Window),
    reported: Book,
    answer: Result<GrantReply, limits::Unavailable>,
    asked_ms: u64,
    now_ms: u64,
    share: u64,
) -> GrantNews {
    let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let mut books = books.lock().expect("nobody panics while holding the books");
    let book = books.entry(of).or_default();
    let Ok(reply) = answer else {
        // Reported again with the next question.
        return GrantNews::Share {
            share,
            until_ms: now_ms + milliseconds(ASK_AGAIN),
        };
    };
    // A rate that was changed asks anew while its last question is on the way: both may have reported the same.
    book.used = book.used.saturating_sub(reported.used);
    book.outside = book.outside.saturating_sub(reported.outside);
    book.slice = None;
    match reply {
        GrantReply::Granted {
            slice_id,
            amount,
            expires,
        } => {
            book.slice = Some(slice_id);
            GrantNews::Granted {
                amount,
                until_ms: asked_ms + milliseconds(expires),
            }
        }
        GrantReply::Nothing { retry_after } => GrantNews::Nothing {
            retry_ms: now_ms + milliseconds(retry_after),
        },
        GrantReply::Unknown { safe_for } => GrantNews::Share {
            share,
            until_ms: now_ms + milliseconds(safe_for),
        },
    }
}

async fn site_of(resolver: &Resolver, domain: &str) -> SiteNews {
    let Ok(name) = Domain::parse(domain) else {
        return SiteNews::Permanent("5.1.2", "the domain is not valid".to_owned());
    };
    match resolver.mail_hosts(&name).await {
        Ok(hosts) => SiteNews::Site(hosts.site().into()),
        Err(error) if error.is_permanent() => {
            SiteNews::Permanent(error.enhanced(), error.to_string())
        }
        Err(error) => SiteNews::Temporary(error.to_string()),
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
    fn two_answers_that_settle_the_same_use_leave_nothing_to_report() {
        let books = Mutex::default();
        let of = (LaneId(1), WINDOW);
        let first = note_use(&books, of, 5, 2);
        let second = note_use(&books, of, 0, 0);
        for reported in [first, second] {
            let nothing = GrantReply::Nothing {
                retry_after: Duration::from_millis(7),
            };
            let news = take_answer(&books, of, reported, Ok(nothing), 100, 110, 0);
            assert_eq!(news, GrantNews::Nothing { retry_ms: 117 });
        }
        let next = note_use(&books, of, 1, 0);
        assert_eq!((next.used, next.outside), (1, 0));
    }

    #[test]
    fn what_nobody_answered_is_reported_again() {
        let books = Mutex::default();
        let of = (LaneId(1), WINDOW);
        let reported = note_use(&books, of, 5, 2);
        let away = Err(limits::Unavailable("away".to_owned()));
        let news = take_answer(&books, of, reported, away, 100, 110, 3);
        assert!(matches!(news, GrantNews::Share { share: 3, .. }));
        let next = note_use(&books, of, 1, 0);
        assert_eq!((next.used, next.outside), (6, 2));
    }
}
