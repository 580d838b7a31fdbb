//! Why something does not move: the one thing that keeps a delivery.
//!
//! A look at the machine's state, nothing is changed. The checks come in the order in which a delivery meets them on its
//! way, so what is named is what keeps it now; when that is lifted it moves, or meets the next.

use std::fmt;
use std::sync::Arc;

use config::Route;
use egress::{Blocked, LaneId, Unit, Waits};
use mail::{MessageId, PartitionId};
use proto::journal::Class;
use queue::{Standing, Wait, Which};

use super::isolation::Leaves;
use super::operations::Gates;
use super::placing::{Way, only_host};
use super::policies::ByConfig;
use super::pools::Stays;
use super::reach::Sites;
use super::{Item, LEASE_MARGIN_MS, Machine, Owned};

/// The one thing that keeps a delivery. Times are Unix milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Constraint {
    /// In quarantine: its content can't be read, or asks for something that this release does not know.
    Quarantined,
    /// Held until somebody decides.
    Held {
        /// When it ends by itself; `None` = it does not.
        until_ms: Option<u64>,
        /// Why a release would leave it on hold.
        refusal: Option<String>,
    },
    /// It may not be sent before.
    NotBefore(u64),
    /// It is tried again then, after a deferral of this class.
    RetryTime(u64, Class),
    /// The window of its stream is closed.
    Window {
        /// The stream.
        stream: String,
        /// Its hours and time zone.
        hours: String,
        /// When it opens.
        until_ms: u64,
    },
    /// Its place in the spread of its stream comes then.
    Spread(u64),
    /// No route matches, or the route's pool has no source with a weight.
    NoRoute,
    /// No source of the pool can be used.
    NoSource {
        /// The pool.
        pool: String,
        /// What is wrong with each.
        reasons: String,
        /// When one is tried again; `None` = as soon as a sender has one.
        until_ms: Option<u64>,
    },
    /// The MX hosts of its domain are being asked for.
    Dns,
    /// The partition is being handed over.
    HandOver,
    /// The lease of the partition is not renewed.
    Lease,
    /// The journal takes nothing.
    Journal,
    /// What keeps its lane.
    Lane {
        /// Egress source.
        source: String,
        /// Site.
        site: String,
        /// The provider of the site, when it is what keeps all lanes to its sites.
        provider: Option<String>,
        /// What it is.
        blocked: Blocked,
    },
    /// Others in its lane go before it; nothing else keeps it.
    Turn {
        /// Egress source.
        source: String,
        /// Site.
        site: String,
        /// Deliveries that wait in the lane.
        waiting: usize,
    },
    /// A sender has it, and is at work when it is begun (since then).
    AtSender {
        /// Which.
        sender: String,
        /// Since when.
        begun_ms: Option<u64>,
    },
    /// An attempt was begun and its sender is gone; settled by the stream's policy then.
    InDoubt(Option<u64>),
    /// All recipients are final, and the DSN about some is not stored yet.
    DsnOwed,
    /// Its tenant is in quarantine in its pool, and there is no pool for that.
    TenantQuarantine {
        /// The tenant.
        tenant: String,
        /// The pool.
        pool: String,
        /// Who asked for it, or nobody.
        author: String,
        /// Why.
        cause: String,
        /// Until when; `None` = until somebody ends it.
        until_ms: Option<u64>,
    },
    /// The pool for how its tenant stands has as many tenants as may share it.
    PoolFull {
        /// The tenant.
        tenant: String,
        /// That pool.
        pool: String,
        /// Tenants.
        most: u32,
    },
    /// The pool to which it is moved is dedicated to another tenant.
    PoolClosed {
        /// The pool.
        pool: String,
        /// To whom.
        owner: String,
    },
    /// It is not stored yet how its tenant stands in its pool.
    Standing {
        /// The tenant.
        tenant: String,
        /// The pool.
        pool: String,
    },
    /// An operator has suspended it.
    Operation {
        /// The operation.
        id: String,
        /// Who asked for it.
        author: String,
        /// Why.
        reason: String,
        /// Until when; `None` = until it is lifted.
        until_ms: Option<u64>,
    },
}

/// A delivery and what keeps it.
#[derive(Debug, Clone)]
pub struct Explained {
    /// Its partition.
    pub partition: PartitionId,
    /// Its message.
    pub id: MessageId,
    /// Its tenant.
    pub tenant: String,
    /// Its stream.
    pub stream: String,
    /// Its recipient domain.
    pub domain: String,
    /// Its recipients that are not final.
    pub recipients: usize,
    /// Attempts made.
    pub attempts: u32,
    /// What keeps it.
    pub constraint: Constraint,
    /// By which pool it leaves instead of its own, for how its tenant stands.
    pub elsewhere: Option<String>,
}

impl Constraint {
    /// A short name of the kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Quarantined => "quarantine",
            Self::Held { .. } => "hold",
            Self::NotBefore(_) => "not-before",
            Self::RetryTime(..) => "retry-time",
            Self::Window { .. } => "window",
            Self::Spread(_) => "spread",
            Self::NoRoute => "no-route",
            Self::NoSource { .. } => "no-source",
            Self::Dns => "dns",
            Self::HandOver => "hand-over",
            Self::Lease => "lease",
            Self::Journal => "journal",
            Self::Lane { blocked, .. } => match blocked {
                Blocked::SourceOut { .. } => "source-out",
                Blocked::Suspended { .. } => "suspended",
                Blocked::NoSender => "no-sender",
                Blocked::NoCredit => "sender-credit",
                Blocked::Connections { .. } => "connections",
                Blocked::SharedConnections { .. } => "provider-connections",
                Blocked::Rate { .. } => "rate",
                Blocked::SharedRate { .. } => "provider-rate",
                Blocked::Grant { .. } => "grant",
                Blocked::SharedGrant { .. } => "provider-grant",
            },
            Self::Turn { .. } => "turn",
            Self::AtSender { .. } => "at-sender",
            Self::InDoubt(_) => "in-doubt",
            Self::DsnOwed => "dsn",
            Self::TenantQuarantine { .. } => "tenant-quarantine",
            Self::PoolFull { .. } => "pool-full",
            Self::PoolClosed { .. } => "pool-closed",
            Self::Standing { .. } => "standing",
            Self::Operation { .. } => "operation",
        }
    }

    /// Until when, if that is known.
    pub fn until_ms(&self) -> Option<u64> {
        match self {
            Self::NotBefore(at) | Self::RetryTime(at, _) | Self::Spread(at) => Some(*at),
            Self::Window { until_ms, .. } => Some(*until_ms),
            Self::Held { until_ms, .. } => *until_ms,
            Self::InDoubt(at) => *at,
            Self::Operation { until_ms, .. }
            | Self::TenantQuarantine { until_ms, .. }
            | Self::NoSource { until_ms, .. } => *until_ms,
            Self::Lane { blocked, .. } => match blocked {
                Blocked::Rate { until_ms, .. }
                | Blocked::SharedRate { until_ms, .. }
                | Blocked::Suspended { until_ms }
                | Blocked::SourceOut { until_ms } => Some(*until_ms),
                Blocked::Connections { until_ms, .. } => *until_ms,
                _ => None,
            },
            _ => None,
        }
    }
}

/// For people, without the time.
impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quarantined => f.write_str("in quarantine"),
            Self::Held { refusal: None, .. } => f.write_str("held until somebody releases it"),
            Self::Held {
                refusal: Some(why), ..
            } => write!(f, "held, and a release would leave it so: {why}"),
            Self::NotBefore(_) => f.write_str("not to be sent before its time"),
            Self::RetryTime(_, class) => {
                write!(f, "waits for its next attempt: {}", reason_of(*class))
            }
            Self::Window { stream, hours, .. } => {
                write!(
                    f,
                    "the window of the stream {stream} is closed; it is open {hours}"
                )
            }
            Self::Spread(_) => f.write_str("its place in the spread of its stream has not come"),
            Self::NoRoute => f.write_str("no route with a usable pool matches"),
            Self::NoSource { pool, reasons, .. } => {
                write!(f, "no source of the pool {pool} can be used: {reasons}")
            }
            Self::Dns => f.write_str("the MX hosts of the domain are being asked for"),
            Self::HandOver => f.write_str("the partition is being handed over"),
            Self::Lease => f.write_str("the partition's lease is not renewed"),
            Self::Journal => f.write_str("the journal takes nothing"),
            Self::Lane {
                source,
                site,
                provider,
                blocked,
            } => {
                match blocked {
                    Blocked::SourceOut { .. } => write!(f, "the source is taken out")?,
                    Blocked::Suspended { .. } => write!(f, "suspended for what was replied")?,
                    Blocked::NoSender => write!(f, "no attached sender has the source")?,
                    Blocked::NoCredit => write!(f, "every sender holds all it can")?,
                    Blocked::Connections {
                        allowed,
                        until_ms: None,
                    } => write!(f, "all {allowed} connections are busy")?,
                    Blocked::Connections { allowed, .. } => {
                        write!(f, "all {allowed} connections of the ramp-up are busy")?;
                    }
                    Blocked::SharedConnections { allowed } => {
                        write!(f, "all {allowed} connections are busy")?;
                    }
                    Blocked::Rate { window, .. }
                    | Blocked::SharedRate { window, .. }
                    | Blocked::Grant { window }
                    | Blocked::SharedGrant { window } => {
                        let what = match window.unit {
                            Unit::Messages => "messages",
                            Unit::Connections => "connections",
                        };
                        let (count, seconds) =
                            (window.limit.count, window.limit.per_ms as f64 / 1000.0);
                        let state = match blocked {
                            Blocked::Grant { .. } | Blocked::SharedGrant { .. } => {
                                "more of them is being asked for"
                            }
                            _ => "used up",
                        };
                        write!(f, "{count} {what} in {seconds} s: {state}")?;
                    }
                }
                match provider {
                    None => write!(f, " ({source} to {site})"),
                    Some(provider) => {
                        write!(f, " ({source} to all of {provider}, with {site})")
                    }
                }
            }
            Self::Turn {
                source,
                site,
                waiting,
            } => {
                write!(
                    f,
                    "its turn has not come: {waiting} wait ({source} to {site})"
                )
            }
            Self::AtSender {
                sender,
                begun_ms: None,
            } => write!(f, "sender {sender} has it"),
            Self::AtSender { sender, .. } => write!(f, "sender {sender} is sending it"),
            Self::InDoubt(_) => f.write_str("begun, and its sender is gone"),
            Self::DsnOwed => f.write_str("final; the report to its sender is not stored yet"),
            Self::TenantQuarantine {
                tenant,
                pool,
                author,
                cause,
                ..
            } => {
                write!(f, "{tenant} is in quarantine in the pool {pool}")?;
                if !author.is_empty() {
                    write!(f, " by {author}")?;
                }
                write!(f, " ({cause}), and the pool names none for that")
            }
            Self::PoolFull { tenant, pool, most } => write!(
                f,
                "{tenant} is to leave by the pool {pool}, and {most} tenants share it, which is its maxTenants"
            ),
            Self::PoolClosed { pool, owner } => {
                write!(f, "moved to the pool {pool}, which is dedicated to {owner}")
            }
            Self::Standing { tenant, pool } => write!(
                f,
                "it is not stored yet how {tenant} stands in the pool {pool}"
            ),
            Self::Operation {
                id, author, reason, ..
            } => {
                write!(f, "suspended by {author}")?;
                if !reason.is_empty() {
                    write!(f, ": {reason}")?;
                }
                write!(f, " (operation {id})")
            }
        }
    }
}

/// Why the last attempt came to nothing.
fn reason_of(class: Class) -> &'static str {
    match class {
        Class::Unspecified => "deferred",
        Class::Recipient => "the mailbox is not there for now",
        Class::MailboxFull => "the mailbox is full",
        Class::Policy => "refused for now by a rule about the sender",
        Class::Throttled => "the other side says that it is too much",
        Class::Greylisted => "greylisted",
        Class::Infrastructure => "the other side, or the way to it, does not work",
        Class::Content => "the content is refused for now",
        Class::Dns => "the DNS gives no answer",
    }
}

impl Machine {
    /// What keeps the deliveries that are asked for, at most `limit` of them, in the partitions that are owned here.
    pub fn why(&self, now_ms: u64, which: &Which, limit: usize) -> Vec<Explained> {
        let mut all = Vec::new();
        for (partition, owned) in &self.partitions {
            let standings = owned
                .intake
                .standings(which, limit.saturating_sub(all.len()));
            let none = standings.is_empty();
            for standing in standings {
                all.push(self.explained(now_ms, *partition, owned, &standing));
            }
            if let Which::Message(id) = which
                && none
                && owned.intake.owes_dsn(id)
            {
                all.push(Explained {
                    partition: *partition,
                    id: *id,
                    tenant: String::new(),
                    stream: String::new(),
                    domain: String::new(),
                    recipients: 0,
                    attempts: 0,
                    constraint: Constraint::DsnOwed,
                    elsewhere: None,
                });
            }
        }
        all
    }

    /// What keeps a delivery of a partition; `None` when it does not live here.
    pub fn why_one(
        &self,
        now_ms: u64,
        partition: PartitionId,
        key: queue::Key,
    ) -> Option<Constraint> {
        let owned = self.partitions.get(&partition)?;
        let standing = owned.intake.standing_of(key)?;
        Some(self.constraint(now_ms, partition, owned, &standing))
    }

    /// Ready deliveries that only wait for a sender: limits allow them now, and none of them is under way.
    pub fn sendable(&self, now_ms: u64) -> usize {
        self.lanes.sendable(now_ms)
    }

    fn explained(
        &self,
        now_ms: u64,
        partition: PartitionId,
        owned: &Owned,
        standing: &Standing<'_>,
    ) -> Explained {
        Explained {
            partition,
            id: standing.id,
            tenant: standing.tenant.to_owned(),
            stream: standing.stream.to_owned(),
            domain: standing.domain.to_owned(),
            recipients: standing.recipients,
            attempts: standing.attempts,
            constraint: self.constraint(now_ms, partition, owned, standing),
            elsewhere: self.elsewhere(standing),
        }
    }

    /// By which pool a delivery leaves instead of its own, for how its tenant stands.
    fn elsewhere(&self, standing: &Standing<'_>) -> Option<String> {
        if !self.isolation.is_needed() {
            return None;
        }
        let config = &self.config;
        let route = config.route(standing.tenant, standing.stream, standing.domain)?;
        let site = self.known_site(Some(route), standing.domain);
        self.leaves_of(standing, site, route).elsewhere()
    }

    /// What keeps a delivery from all pools.
    fn isolated(&self, standing: &Standing<'_>, route: &Arc<Route>) -> Option<Constraint> {
        if !self.isolation.is_needed() {
            return None;
        }
        let site = self.known_site(Some(route), standing.domain);
        let Leaves::Waits(home, waits) = self.leaves_of(standing, site, route) else {
            return None;
        };
        let tenant = standing.tenant.to_owned();
        Some(match waits {
            Waits::Quarantine(of) => Constraint::TenantQuarantine {
                tenant,
                pool: home.to_owned(),
                author: of.author.clone(),
                cause: of.cause.clone(),
                until_ms: (of.until_ms > 0).then_some(of.until_ms),
            },
            Waits::Full { pool, most } => Constraint::PoolFull {
                tenant,
                pool: pool.to_owned(),
                most,
            },
            Waits::Closed { owner } => Constraint::PoolClosed {
                pool: home.to_owned(),
                owner: owner.to_owned(),
            },
            Waits::Unknown => Constraint::Standing {
                tenant,
                pool: home.to_owned(),
            },
        })
    }

    fn constraint(
        &self,
        now_ms: u64,
        partition: PartitionId,
        owned: &Owned,
        standing: &Standing<'_>,
    ) -> Constraint {
        let route = self
            .config
            .route(standing.tenant, standing.stream, standing.domain)
            .filter(|route| self.has_source(route));
        if matches!(standing.wait, Wait::Ready | Wait::Behind)
            && let Some(operation) = self.suspended_by(standing, route)
        {
            return Constraint::Operation {
                id: operation.id.clone(),
                author: operation.author.clone(),
                reason: operation.reason.clone(),
                until_ms: (operation.expires_at_ms > 0).then_some(operation.expires_at_ms),
            };
        }
        if matches!(standing.wait, Wait::Ready | Wait::Behind)
            && let Some(route) = route
            && let Some(kept) = self.isolated(standing, route)
        {
            return kept;
        }
        if let Some(kept) = of_simulated(now_ms, owned, standing) {
            return kept;
        }
        match (standing.wait, route) {
            (Wait::Quarantined, _) => Constraint::Quarantined,
            (Wait::Held, _) => Constraint::Held {
                until_ms: standing.hold.and_then(|hold| hold.until_ms),
                refusal: owned
                    .intake
                    .refusal_of(standing.key, &ByConfig(self.config.clone())),
            },
            (Wait::InDoubt(until_ms), _) => Constraint::InDoubt(until_ms),
            (Wait::AtSender(session, begun_ms), _) => {
                let session = self.sessions.get(&session);
                let sender = session.map(|session| session.sender_id().to_owned());
                Constraint::AtSender {
                    sender: sender.unwrap_or_default(),
                    begun_ms,
                }
            }
            (
                Wait::Until(_) | Wait::HeldBack(_) | Wait::Behind | Wait::Ready | Wait::Simulator,
                None,
            ) => Constraint::NoRoute,
            (Wait::HeldBack(at_ms), _) => self.held_back_by(now_ms, standing, at_ms),
            (Wait::Until(at_ms), _) if !standing.is_retry => Constraint::NotBefore(at_ms),
            (Wait::Until(at_ms), _) => Constraint::RetryTime(at_ms, standing.class),
            (Wait::Behind | Wait::Ready | Wait::Simulator, Some(route)) => {
                let item = Item {
                    partition,
                    epoch: owned.intake.epoch(),
                    key: standing.key,
                };
                self.constraint_of_ready(now_ms, owned, item, standing, route)
            }
        }
    }

    fn held_back_by(&self, now_ms: u64, standing: &Standing<'_>, at_ms: u64) -> Constraint {
        let stream = self.config.stream(standing.tenant, standing.stream);
        let timing = stream.and_then(|stream| stream.timing.as_deref());
        let window = timing.and_then(|timing| timing.window.as_ref());
        match window.and_then(|window| Some((window, window.opens_ms(now_ms)?))) {
            Some((window, opens_ms)) if standing.is_retry || at_ms <= opens_ms => {
                Constraint::Window {
                    stream: standing.stream.to_owned(),
                    hours: window.to_string(),
                    until_ms: opens_ms,
                }
            }
            _ => Constraint::Spread(at_ms),
        }
    }

    fn has_source(&self, route: &Route) -> bool {
        let pool = self.config.pool(&route.pool);
        pool.is_some_and(|pool| pool.sources.iter().any(|source| source.weight > 0))
    }

    fn constraint_of_ready(
        &self,
        now_ms: u64,
        owned: &Owned,
        item: Item,
        standing: &Standing<'_>,
        route: &Arc<Route>,
    ) -> Constraint {
        let stops = owned.stops(now_ms);
        if owned.parked.contains(&item)
            && let Some(stops) = stops.clone()
        {
            return stops;
        }
        let site: Arc<str> = match only_host(&self.config, route) {
            Some(host) => host.into(),
            None => match self.sites.peek(standing.domain) {
                Some(site) => site.into(),
                None => return Constraint::Dns,
            },
        };
        if let Some(kept) = self.without_source(standing, &site, route) {
            return kept;
        }
        let lanes = self.lanes_to(&site, route, standing);
        let holding = lanes
            .iter()
            .find(|lane| self.lanes.holds(**lane, |other| *other == item));
        let blocked = |lane: &LaneId| self.lanes.blocked(now_ms, *lane);
        // What is behind others of its line waits for those, in any lane that they may be in.
        let lane = holding
            .or_else(|| lanes.iter().find(|lane| blocked(lane).is_none()))
            .or_else(|| lanes.first());
        let Some(lane) = lane else {
            return stops.unwrap_or(Constraint::Dns);
        };
        let (source, _) = self.lanes.names(*lane).map_or(("", ""), |(a, b)| (a, b));
        let (source, site) = (source.to_owned(), site.to_string());
        match (blocked(lane), stops) {
            (Some(blocked), _) => {
                let info = self.lane_infos.get(*lane).filter(|_| blocked.is_shared());
                Constraint::Lane {
                    source,
                    site,
                    provider: info.and_then(|info| Some(info.provider.as_deref()?.to_owned())),
                    blocked,
                }
            }
            (None, Some(stops)) => stops,
            (None, None) => Constraint::Turn {
                source,
                site,
                waiting: self.lanes.waiting_in(*lane),
            },
        }
    }

    /// When no source of the pools by which a delivery may leave can be used.
    fn without_source(
        &self,
        standing: &Standing<'_>,
        site: &str,
        route: &Route,
    ) -> Option<Constraint> {
        if self.sources.all_work() {
            return None;
        }
        let mut kept = None;
        for name in self.pools_of(standing, site, route) {
            let pool = self.config.pool(name)?;
            let (reasons, until_ms) = self.sources.outage_of(pool)?;
            kept = Some(Constraint::NoSource {
                pool: name.to_owned(),
                reasons,
                until_ms,
            });
        }
        kept
    }

    /// The lanes in which a delivery to a site can be.
    fn lanes_to(
        &self,
        site: &Arc<str>,
        route: &Arc<Route>,
        standing: &Standing<'_>,
    ) -> Vec<LaneId> {
        let mut lanes = Vec::new();
        for name in self.pools_of(standing, site, route) {
            let Some(pool) = self.config.pool(name) else {
                continue;
            };
            let of = (standing.domain, standing.stream);
            let way = Way {
                route,
                pool,
                sites: &Sites::of_domain(&self.config, of, site, pool),
                gates: Gates::default(),
                stays: Stays::No,
            };
            let sources = pool.sources.iter().enumerate();
            lanes.extend(sources.filter_map(|(position, source)| {
                self.lanes.find(&source.name, &way.lane_key(position))
            }));
        }
        lanes
    }
}

/// What keeps that for which the simulator answers: its time, or what stops the partition. It needs no route.
fn of_simulated(now_ms: u64, owned: &Owned, standing: &Standing<'_>) -> Option<Constraint> {
    if !standing.is_simulated {
        return None;
    }
    let at_ms = match standing.wait {
        Wait::Until(at_ms) => at_ms,
        Wait::Simulator => match owned.stops(now_ms) {
            Some(stop) => return Some(stop),
            None => now_ms,
        },
        _ => return None,
    };
    Some(match standing.is_retry {
        true => Constraint::RetryTime(at_ms, standing.class),
        false => Constraint::NotBefore(at_ms),
    })
}

impl Owned {
    /// Why nothing of the partition is assigned.
    pub(super) fn stops(&self, now_ms: u64) -> Option<Constraint> {
        if self.draining {
            return Some(Constraint::HandOver);
        }
        if now_ms + LEASE_MARGIN_MS >= self.lease_until_ms {
            return Some(Constraint::Lease);
        }
        self.intake.is_clogged().then_some(Constraint::Journal)
    }
}
