//! What the machine wants from the network: sites of domains, grants of rates, leases of connections.

use std::sync::Arc;
use std::time::Duration;

use config::EgressPool;
use dns::Resolver;
use egress::{
    GrantNews, SiteNews, StandingEvent, Whose, Window, Word, no_standings, step_standings,
};
use limits::{Grants, SlotRequest};
use mail::Domain;
use proto::journal::Acted;
use spool::{Acts, PoolStandingsStore};
use telemetry::IntCounterVec;
use tokio::sync::watch;

use crate::clock::Clock;
use crate::core::{Events, tell};
use crate::lending::{grant_news, grant_request, grant_share, slot_news};
use crate::machine::Input;

/// What was not heard is said again after this time.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How often telling other schedulers is tried.
const TELL_TRIES: u32 = 5;

/// Runs errands in tasks of their own and brings the results to the core.
pub(crate) struct Errands {
    resolver: Resolver,
    grants: Grants,
    acts: Acts,
    standings: PoolStandingsStore,
    clock: Clock,
    events: Events,
    partitions: u32,
    /// How many of them are owned, for Redis.
    has: watch::Sender<u32>,
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

/// Words about rates, by answer.
pub(crate) fn answers() -> IntCounterVec {
    telemetry::counter_with(
        "staffetta_scheduler_grants_total",
        "Words about rates, by answer: granted (some more), none (no more were asked for), nothing (the rate is used up), share (Redis is away or forgot: the safe share holds).",
        &["answer"],
    )
}

impl Errands {
    pub(crate) fn new(
        resolver: Resolver,
        (grants, acts, standings): (Grants, Acts, PoolStandingsStore),
        clock: Clock,
        events: Events,
        partitions: u32,
    ) -> Self {
        let (has, told) = watch::channel(0);
        grants.join(partitions, told);
        Self {
            resolver,
            grants,
            acts,
            standings,
            clock,
            events,
            partitions,
            has,
            answers: answers(),
            leases: leases(),
        }
    }

    /// So many partitions are owned.
    pub(crate) fn own(&self, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.has
            .send_if_modified(|has| std::mem::replace(has, count) != count);
    }

    pub(crate) fn resolve(&self, domain: Arc<str>) {
        let (resolver, events) = (self.resolver.clone(), self.events.clone());
        tokio::spawn(async move {
            let news = site_of(&resolver, &domain).await;
            tell(&events, Input::Resolved(domain, news)).await;
        });
    }

    pub(crate) fn ask_slots(&self, whose: Whose, request: SlotRequest) {
        let (grants, clock, events) = (self.grants.clone(), self.clock, self.events.clone());
        let leases = self.leases.clone();
        tokio::spawn(async move {
            let asked_ms = clock.now_ms();
            let answer = grants.lease(&request).await;
            let (name, news) = slot_news(&request, answer, asked_ms, clock.now_ms());
            leases.with_label_values(&[name]).inc();
            tell(&events, Input::Slots(whose, news)).await;
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

    /// Says what `holder` has and has used of a limit, and asks for more.
    pub(crate) fn ask_grant(
        &self,
        whose: Whose,
        (key, holder): (String, &str),
        window: Window,
        word: Word,
        owned: &[u32],
    ) {
        let (grants, clock, events) = (self.grants.clone(), self.clock, self.events.clone());
        let answers = self.answers.clone();
        let share = grant_share(&key, window, self.partitions, owned);
        let holder = holder.to_owned();
        tokio::spawn(async move {
            let wanted = word.want > 0;
            let asked_ms = clock.now_ms();
            let request = grant_request(key, holder, window, word, asked_ms);
            let answer = grants.ask(&request).await;
            let share = match answer.is_ok() || grants.may_share(&request.key) {
                true => share,
                // Others may be lent it.
                false => 0,
            };
            let news = grant_news(answer, asked_ms, clock.now_ms(), share);
            let answer = match news {
                GrantNews::Granted { .. } => "granted",
                GrantNews::Nothing { .. } if !wanted => "none",
                GrantNews::Nothing { .. } => "nothing",
                GrantNews::Share { .. } => "share",
            };
            answers.with_label_values(&[answer]).inc();
            tell(&events, Input::Grant(whose, window, news)).await;
        });
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
