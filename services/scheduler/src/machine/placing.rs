//! Where a ready delivery goes: route, site, source, lane.

use std::borrow::Cow;
use std::sync::Arc;

use config::{EgressPool, EgressSource, Route, Shaping, ShapingQuery, Snapshot};
use egress::{LaneId, LaneLimits, RateLimit, Rotation, SiteNews, SiteOf, Unit, Window};
use proto::dispatch::{Lane, TlsPolicy};
use proto::journal::{Class, Disposition, Reply, Stage};

use super::policies::ByConfig;
use super::{Item, Machine, Output};

/// How long a delivery without a route waits for one, milliseconds.
const WITHOUT_ROUTE_MS: u64 = 60_000;

/// What a lane's number stands for.
pub(super) struct LaneInfo {
    pub(super) site: Arc<str>,
    /// How its site is reached, by the route that made the lane.
    route: Arc<Route>,
    /// The pool with its source, and the position there.
    pool: Arc<EgressPool>,
    position: usize,
    pub(super) shaping: Shaping,
    /// Grows with each change, so that senders are told.
    pub(super) version: u32,
}

impl LaneInfo {
    pub(super) fn source(&self) -> &EgressSource {
        self.pool
            .sources
            .get(self.position)
            .expect("the position is one of the pool's")
    }

    fn shape(&mut self, config: &Snapshot) {
        let query = ShapingQuery {
            site: &self.site,
            domain: "",
            source: &self.source().name,
            pool: &self.route.pool,
        };
        self.shaping = config.shaping(&query);
        self.version += 1;
    }

    /// As the senders are told.
    pub(super) fn to_proto(&self, id: LaneId) -> Lane {
        let milliseconds = |span: mail::Span| u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
        Lane {
            id: id.0,
            source: self.source().name.clone(),
            source_address: self
                .source()
                .address
                .map(|address| address.to_string())
                .unwrap_or_default(),
            ehlo: self
                .source()
                .ehlo
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            site: self.site.to_string(),
            smart_host: self
                .route
                .smart_host
                .as_ref()
                .map(ToString::to_string)
                .unwrap_or_default(),
            port: self.route.port.into(),
            allow_private: self.route.allow_private,
            messages_per_connection: self.shaping.messages_per_connection,
            tls: match self.shaping.tls {
                config::TlsPolicy::Opportunistic => TlsPolicy::Opportunistic,
                config::TlsPolicy::None => TlsPolicy::None,
                config::TlsPolicy::Required => TlsPolicy::Required,
            }
            .into(),
            connect_timeout_ms: milliseconds(self.shaping.connect_timeout),
            idle_timeout_ms: milliseconds(self.shaping.idle_timeout),
        }
    }
}

impl Machine {
    /// Finds the lane of a ready delivery and puts it there, or lets it wait for what is missing.
    pub(super) fn place(&mut self, now_ms: u64, item: Item) {
        let Some(owned) = self.partitions.get_mut(&item.partition) else {
            return;
        };
        if owned.intake.epoch() != item.epoch {
            return;
        }
        let Some(to) = owned.intake.route_of(item.key) else {
            return;
        };
        let affinity = u64::from(item.partition.0) << 48 ^ to.sequence;
        let config = self.config.clone();
        let Some(route) = config.route(to.tenant, to.stream, to.domain) else {
            self.unroutable(now_ms, item);
            return;
        };
        let site = match &route.smart_host {
            Some(host) => SiteOf::Known(host.as_str().into()),
            None => self.sites.site_of(now_ms, to.domain, || item),
        };
        match site {
            SiteOf::Known(site) => self.enqueue(now_ms, item, route, &site, affinity),
            SiteOf::Unknown { ask: true } => {
                let domain = to.domain.into();
                self.outputs.push(Output::Resolve(domain));
            }
            SiteOf::Unknown { ask: false } => {}
            SiteOf::Failed(news) => self.without_site(now_ms, item, news),
        }
    }

    fn unroutable(&mut self, now_ms: u64, item: Item) {
        self.counts.unroutable += 1;
        if let Some(owned) = self.partitions.get_mut(&item.partition) {
            owned.intake.postpone(item.key, now_ms + WITHOUT_ROUTE_MS);
        }
    }

    fn without_site(&mut self, now_ms: u64, item: Item, news: SiteNews) {
        let Some(owned) = self.partitions.get_mut(&item.partition) else {
            return;
        };
        let reply = |enhanced: &str, text: String| Reply {
            stage: Stage::Dns.into(),
            code: 0,
            enhanced: enhanced.to_owned(),
            text,
        };
        match news {
            SiteNews::Site(_) => {}
            SiteNews::Temporary(text) => {
                let policies = ByConfig(self.config.clone());
                owned.intake.defer(
                    now_ms,
                    item.key,
                    &reply("4.4.3", text),
                    Class::Dns,
                    &policies,
                );
            }
            SiteNews::Permanent(enhanced, text) => {
                owned.intake.conclude(
                    now_ms,
                    item.key,
                    Disposition::Bounced,
                    reply(enhanced, text),
                );
            }
        }
    }

    fn enqueue(
        &mut self,
        now_ms: u64,
        item: Item,
        route: &Arc<Route>,
        site: &Arc<str>,
        affinity: u64,
    ) {
        let Some(pool) = self.config.pool(&route.pool).cloned() else {
            self.unroutable(now_ms, item);
            return;
        };
        let weights = || pool.sources.iter().map(|source| source.weight);
        let rotation = self
            .rotations
            .entry_ref(route.pool.as_str())
            .or_insert_with(|| Rotation::new(weights()));
        let Some(lane) = rotation
            .next(|_| true)
            .and_then(|position| self.lane_of(route, &pool, position, site))
        else {
            self.unroutable(now_ms, item);
            return;
        };
        self.lanes.push(lane, item, affinity);
    }

    fn lane_of(
        &mut self,
        route: &Arc<Route>,
        pool: &Arc<EgressPool>,
        position: usize,
        site: &Arc<str>,
    ) -> Option<LaneId> {
        let source = pool.sources.get(position)?;
        // Lanes that differ in how a site is reached are different lanes; the usual way has no suffix.
        let key: Cow<'_, str> = match (&route.smart_host, route.port, route.allow_private) {
            (None, 25, false) => (&**site).into(),
            (host, port, allow_private) => {
                let host = if host.is_some() { "@" } else { "" };
                format!(
                    "{host}{site}:{port}{}",
                    if allow_private { "!" } else { "" }
                )
                .into()
            }
        };
        if let Some(lane) = self.lanes.find(&source.name, &key) {
            return Some(lane);
        }
        let mut info = LaneInfo {
            site: site.clone(),
            route: route.clone(),
            pool: pool.clone(),
            position,
            shaping: Shaping::default(),
            version: 0,
        };
        info.shape(&self.config);
        let limits = limits_of(
            &info.shaping,
            self.shares(),
            lane_hash(&format!("{}|{key}", source.name)),
        );
        let key = if *key == **site {
            site.clone()
        } else {
            key.into()
        };
        self.lane_infos.push(info);
        Some(
            self.lanes
                .lane(&source.name.as_str().into(), &key, || limits),
        )
    }

    /// After a change of the configuration or of the owned partitions.
    pub(super) fn reshape_lanes(&mut self) {
        let mut shapings = hashbrown::HashMap::new();
        for info in &mut self.lane_infos {
            info.shape(&self.config);
            let Some(pool) = self.config.pool(&info.route.pool) else {
                continue;
            };
            let present = pool
                .sources
                .iter()
                .position(|source| source.name == info.source().name);
            if let Some(position) = present {
                (info.pool, info.position) = (pool.clone(), position);
            }
        }
        for (number, info) in (0_u32..).zip(&self.lane_infos) {
            if let Some((source, key)) = self.lanes.names(LaneId(number)) {
                shapings.insert((source.clone(), key.clone()), info.shaping);
            }
        }
        let shares = self.shares();
        self.lanes.set_limits(|source, key| {
            let shaping = shapings
                .get(&(source.into(), key.into()))
                .cloned()
                .unwrap_or_default();
            limits_of(&shaping, shares, lane_hash(&format!("{source}|{key}")))
        });
    }

    /// Which partitions are ours, for the shares of limits that are not leased yet.
    fn shares(&self) -> Shares {
        let owned = self
            .partitions
            .keys()
            .fold(0_u64, |bits, partition| bits | 1 << (partition.0 % 64));
        Shares {
            partitions: self.partition_count,
            owned,
        }
    }
}

#[derive(Clone, Copy)]
struct Shares {
    partitions: u32,
    owned: u64,
}

/// Connections are shared by partition: each has limit / P, the remainder is with the partition that the lane's hash
/// names. With all partitions at one scheduler that is the whole limit.
fn limits_of(shaping: &Shaping, shares: Shares, hash: u64) -> LaneLimits {
    let owned: Vec<u32> = (0..shares.partitions.min(64))
        .filter(|partition| shares.owned >> partition & 1 == 1)
        .collect();
    let connections =
        limits::safe_share(shaping.connections.into(), shares.partitions, &owned, hash);
    LaneLimits {
        connections: u32::try_from(connections).unwrap_or(u32::MAX),
        messages_per_connection: shaping.messages_per_connection,
        windows: shaping
            .rate
            .iter()
            .map(|rate| window(Unit::Messages, *rate))
            .collect(),
        ramp_ms: 0,
    }
}

fn window(unit: Unit, rate: mail::Rate) -> Window {
    let limit = RateLimit {
        count: rate.count().into(),
        per_ms: u64::try_from(rate.per().as_millis()).unwrap_or(u64::MAX),
    };
    Window { unit, limit }
}

/// FNV-1a of a lane's name: the same in every process.
pub(crate) fn lane_hash(name: &str) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    name.bytes().fold(0xcbf2_9ce4_8422_2325, step)
}
