//! Where a ready delivery goes: route, site, source, lane.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;

use config::{EgressPool, EgressSource, Route, Shaping, ShapingQuery, Snapshot};
use egress::{Flow, Heard, LaneId, Restraint, SharedId, SiteNews, SiteOf, Unit};
use proto::dispatch::Lane;
use proto::journal::{Class, Disposition, Reply, Stage};

use super::automation::Recent;
use super::isolation::Leaves;
use super::limits::{windows_of, windows_of_shared};
use super::operations::Gates;
use super::operations::select::Facts;
use super::policies::ByConfig;
use super::pools::Stays;
use super::reach::{Sites, Target};
use super::turns::flow_of;
use super::windows::held_back_until;
use super::{Item, Machine, Output};

/// How long a delivery without a route waits for one, milliseconds.
const WITHOUT_ROUTE_MS: u64 = 60_000;

/// What a lane's number stands for.
pub(super) struct LaneInfo {
    pub(super) site: Arc<str>,
    /// How its site is reached, by the route that made the lane.
    route: Arc<Route>,
    /// The pool with its source, and the position there.
    pub(super) pool: Arc<EgressPool>,
    position: usize,
    /// Recipient domain and stream of a delivery in it, for which the same rules hold as for all of them.
    domain: Arc<str>,
    stream: Arc<str>,
    pub(super) provider: Option<Box<str>>,
    /// One for all lanes for which the rules say the same.
    pub(super) shaping: Arc<Shaping>,
    /// What it shares with the other lanes of its source to its provider.
    pub(super) shared: Option<SharedId>,
    /// What is done about replies, on top of it.
    pub(super) restraint: Restraint,
    pub(super) recent: Recent,
    /// When the other side was reached last, Unix milliseconds; 0 = never.
    pub(super) answered_ms: u64,
    /// The configuration changed since it was shaped.
    pub(super) stale: bool,
    /// Another one after each change, and for each lane of the same number, so that senders are told.
    pub(super) version: u32,
}

/// Lanes that are made one after another are of a few kinds.
const KNOWN_SHAPINGS: usize = 16;

/// What is known of each lane.
#[derive(Default)]
pub(super) struct LaneInfos {
    infos: Vec<Option<Box<LaneInfo>>>,
    versions: u32,
    /// What lanes were shaped like lately, the latest last.
    shapings: VecDeque<Arc<Shaping>>,
}

impl LaneInfos {
    pub(super) fn get(&self, lane: LaneId) -> Option<&LaneInfo> {
        self.infos.get(lane.0 as usize)?.as_deref()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (LaneId, &LaneInfo)> {
        let numbered = (0_u32..).map(LaneId).zip(&self.infos);
        numbered.filter_map(|(lane, info)| Some((lane, info.as_deref()?)))
    }

    fn iter_mut(&mut self) -> impl Iterator<Item = &mut LaneInfo> {
        self.infos.iter_mut().filter_map(Option::as_deref_mut)
    }

    pub(super) fn get_mut(&mut self, lane: LaneId) -> Option<&mut LaneInfo> {
        self.infos.get_mut(lane.0 as usize)?.as_deref_mut()
    }

    /// The senders must be told of a lane again.
    pub(super) fn changed(&mut self, lane: LaneId) {
        self.versions = self.versions.wrapping_add(1);
        let version = self.versions;
        if let Some(info) = self.get_mut(lane) {
            info.version = version;
        }
    }

    fn insert(&mut self, lane: LaneId, mut info: LaneInfo) {
        self.versions = self.versions.wrapping_add(1);
        info.version = self.versions;
        info.shaping = self.alike(info.shaping);
        let position = lane.0 as usize;
        if position >= self.infos.len() {
            self.infos.resize_with(position + 1, || None);
        }
        self.infos[position] = Some(Box::new(info));
    }

    /// What is the same is kept once for many lanes.
    fn alike(&mut self, shaping: Arc<Shaping>) -> Arc<Shaping> {
        if let Some(same) = self.shapings.iter().find(|known| **known == shaping) {
            return same.clone();
        }
        if self.shapings.len() == KNOWN_SHAPINGS {
            self.shapings.pop_front();
        }
        self.shapings.push_back(shaping.clone());
        shaping
    }

    pub(super) fn forget(&mut self, lane: LaneId) {
        if let Some(info) = self.infos.get_mut(lane.0 as usize) {
            *info = None;
        }
    }
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
            domain: &self.domain,
            stream: &self.stream,
            source: &self.source().name,
            pool: &self.route.pool,
        };
        self.shaping = Arc::new(config.shaping(&query));
        let provider = config.provider(&self.site, &self.domain);
        self.provider = provider.map(|provider| provider.name.as_str().into());
        self.stale = false;
    }

    /// 0 = no limit.
    pub(super) fn messages_per_connection(&self) -> u32 {
        match (
            self.shaping.messages_per_connection,
            self.restraint.messages_per_connection,
        ) {
            (shaped, None) => shaped,
            (0, Some(least)) => least,
            (shaped, Some(least)) => shaped.min(least),
        }
    }

    /// What is done about replies is asked for by it; its name is that of the lane.
    pub(super) fn place<'a>(&'a self, name: &'a str) -> Heard<'a> {
        Heard {
            lane: ShapingQuery {
                site: &self.site,
                domain: &self.domain,
                stream: &self.stream,
                source: &self.source().name,
                pool: &self.route.pool,
            },
            name,
            provider: self.provider.as_deref(),
            tenant: "",
            code: 0,
            enhanced: "",
            text: "",
        }
    }

    /// The shortest of its windows that count messages: no message holds up others for longer because it is sent
    /// slowly. 0 = there is none.
    fn left_within_ms(&self) -> u32 {
        let own = windows_of(&self.shaping, &self.restraint).into_iter();
        let windows = own.chain(windows_of_shared(&self.shaping.shared));
        let messages = windows.filter(|window| window.unit == Unit::Messages);
        let shortest = messages.map(|window| window.limit.per_ms).min();
        shortest.map_or(0, |ms| u32::try_from(ms).unwrap_or(u32::MAX))
    }

    fn target(&self) -> Target {
        Target::of(self.source(), &self.route, self.shaping.tls)
    }

    /// As the senders are told.
    pub(super) fn to_proto(&self, id: LaneId) -> Lane {
        let milliseconds = |span: mail::Span| u32::try_from(span.as_millis()).unwrap_or(u32::MAX);
        let to = self.target();
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
            smart_host: to.host,
            // A sender that can't take the way must not take another one.
            port: if to.reach.is_some() { 0 } else { to.port },
            allow_private: to.allow_private,
            messages_per_connection: self.messages_per_connection(),
            tls: to.tls.into(),
            reach: to.reach,
            connect_timeout_ms: milliseconds(self.shaping.connect_timeout),
            idle_timeout_ms: milliseconds(self.shaping.idle_timeout),
            command_timeout_ms: milliseconds(self.shaping.command_timeout),
            data_timeout_ms: milliseconds(self.shaping.data_timeout),
            final_reply_timeout_ms: milliseconds(self.shaping.final_reply_timeout),
            left_within_ms: self.left_within_ms(),
        }
    }
}

/// Which way a delivery goes, its source apart.
pub(super) struct Way<'a> {
    pub(super) route: &'a Arc<Route>,
    pub(super) pool: &'a Arc<EgressPool>,
    /// What it is on its way to, by each source.
    pub(super) sites: &'a Sites,
    /// What operators do about the sources of its pool.
    pub(super) gates: Gates,
    /// Whether it has a source of its own.
    pub(super) stays: Stays,
}

impl Way<'_> {
    /// Names its lane, beside the source. Lanes that differ in how a site is reached, or in the rules that hold for them,
    /// are different lanes; the usual way has no suffix.
    pub(super) fn lane_key(&self, position: usize) -> Cow<'_, str> {
        let (site, class) = self.sites.at(position);
        let source = self.pool.sources.get(position);
        let own_host = source.and_then(|source| source.smart_host.as_ref());
        let (is_host, port, allow_private) = match own_host {
            Some(host) => (true, host.port, host.allow_private),
            None => (
                self.route.smart_host.is_some(),
                self.route.port,
                self.route.allow_private,
            ),
        };
        let mut key: Cow<'_, str> = match (is_host, port, allow_private) {
            (false, 25, false) => (&**site).into(),
            (is_host, port, allow_private) => {
                let host = if is_host { "@" } else { "" };
                let private = if allow_private { "!" } else { "" };
                format!("{host}{site}:{port}{private}").into()
            }
        };
        if let Some(class) = class {
            let key = key.to_mut();
            key.push('%');
            key.push_str(class);
        }
        key
    }
}

impl Machine {
    /// Finds the lane of a ready delivery and puts it there, or lets it wait for what is missing.
    pub(super) fn place(&mut self, now_ms: u64, item: Item) {
        self.place_at(now_ms, item, false);
    }

    /// `by_name`: the site of the domain is needed, although the route's pool has smart hosts only.
    fn place_at(&mut self, now_ms: u64, item: Item, by_name: bool) {
        if self.is_kept(now_ms, item) {
            return;
        }
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
        let tenant = config.tenant(to.tenant).map(|tenant| &**tenant);
        let stream = tenant.and_then(|tenant| tenant.stream(to.stream));
        if let Some(timing) = stream.and_then(|stream| stream.timing.as_deref())
            && let Some(until_ms) = held_back_until(timing, now_ms, &to)
        {
            let policies = ByConfig(config.clone());
            owned.intake.hold_back(item.key, until_ms, &policies);
            return;
        }
        let only_host =
            only_host(&config, route).filter(|_| route.smart_host.is_some() || !by_name);
        let site = match only_host {
            Some(host) => SiteOf::Known(host.into()),
            None => self.sites.site_of(now_ms, to.domain, || item),
        };
        match site {
            SiteOf::Known(site) => {
                let suspended = self.automation.concerns_tenants().then(|| {
                    let heard = super::automation::tenant_at(&config, &site, &to);
                    self.automation.on_tenant(now_ms, &heard)
                });
                if let Some(until_ms) = suspended.flatten() {
                    owned.intake.postpone(item.key, until_ms);
                    return;
                }
                let operations = &mut self.operations;
                let mut is_elsewhere = false;
                let mut moved = None;
                if operations.moves_some() || self.isolation.is_needed() {
                    let facts = Facts::of_ready(&to).at(&config, Some(&site));
                    match self.isolation.leaves(&config, operations, &facts, route) {
                        Leaves::ByOwn(_) => {}
                        Leaves::Moved(pool) => moved = Some(&pool.name),
                        Leaves::Elsewhere { pool, .. } => {
                            (moved, is_elsewhere) = (Some(&pool.name), true);
                        }
                        Leaves::Waits(..) => return operations.keep(item),
                        Leaves::NoPool => return self.unroutable(now_ms, item),
                    }
                }
                let moved = moved.cloned().map(|pool| operations.by_pool(route, &pool));
                let route = moved.as_ref().unwrap_or(route);
                let flow = flow_of(tenant, stream, &to);
                let Some(pool) = config.pool(&route.pool) else {
                    self.unroutable(now_ms, item);
                    return;
                };
                if lacks_site(only_host, route, pool) {
                    return self.place_at(now_ms, item, true);
                }
                let sites = Sites::new(&config, &to, &site, pool);
                let way = Way {
                    route,
                    pool,
                    sites: &sites,
                    gates: match is_elsewhere {
                        // A move does not take a tenant out of quarantine.
                        true => operations.closed(&config, &to, &site, &route.pool),
                        false => operations.gates(&config, &to, &site, &route.pool),
                    },
                    stays: Stays::of(pool, &to),
                };
                let Some(source) = self.enqueue(now_ms, item, &way, &flow, affinity) else {
                    return;
                };
                self.enqueue_elsewhere(now_ms, item, (route, &site, only_host), &source, affinity);
            }
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

    /// Puts a delivery into the lane whose turn it is. Gives the source instead when mail that would leave by it is moved
    /// to another pool.
    fn enqueue(
        &mut self,
        now_ms: u64,
        item: Item,
        way: &Way<'_>,
        flow: &Flow,
        affinity: u64,
    ) -> Option<String> {
        let pool = way.pool;
        let position = self.source_for(now_ms, pool, way.stays, &way.gates);
        let source = position.filter(|position| way.gates.moves(*position));
        if let Some(source) = source.and_then(|position| pool.sources.get(position)) {
            return Some(source.name.clone());
        }
        let Some(mut lane) = position.and_then(|position| self.lane_of(item, way, pool, position))
        else {
            self.unroutable(now_ms, item);
            return None;
        };
        if way.stays.is_free()
            && self.lanes.is_jammed(now_ms, lane)
            && let Some(free) = self.free_lane(now_ms, item, way)
        {
            lane = free;
        }
        self.lanes.push(lane, flow, item, affinity);
        None
    }

    /// A delivery that would leave by a source from which it is moved.
    fn enqueue_elsewhere(
        &mut self,
        now_ms: u64,
        item: Item,
        (route, site, only_host): (&Arc<Route>, &Arc<str>, Option<&str>),
        source: &str,
        affinity: u64,
    ) {
        let config = self.config.clone();
        let owned = self.partitions.get(&item.partition);
        let Some(to) = owned.and_then(|owned| owned.intake.route_of(item.key)) else {
            return;
        };
        let operations = &mut self.operations;
        let Some(name) = operations.move_from(&config, &to, site, source) else {
            return;
        };
        let name = match self.isolation.leaves_moved(&config, name, to.tenant) {
            Leaves::Waits(..) => return operations.keep(item),
            other => other.pool().map(|pool| pool.name.clone()),
        };
        let Some(pool) = name.as_ref().and_then(|name| config.pool(name)) else {
            return self.unroutable(now_ms, item);
        };
        let route = operations.by_pool(route, &pool.name);
        if lacks_site(only_host, &route, pool) {
            return self.place_at(now_ms, item, true);
        }
        let sites = Sites::new(&config, &to, site, pool);
        let way = Way {
            route: &route,
            pool,
            sites: &sites,
            // What is moved on its way is not moved on.
            gates: operations.closed(&config, &to, site, &route.pool),
            stays: Stays::of(pool, &to),
        };
        let tenant = config.tenant(to.tenant).map(|tenant| &**tenant);
        let stream = tenant.and_then(|tenant| tenant.stream(to.stream));
        let flow = flow_of(tenant, stream, &to);
        if self.enqueue(now_ms, item, &way, &flow, affinity).is_some() {
            self.unroutable(now_ms, item);
        }
    }

    /// The lane of a source of the pool whose limits do not keep it, if there is one.
    fn free_lane(&mut self, now_ms: u64, item: Item, way: &Way<'_>) -> Option<LaneId> {
        let (lanes, sources) = (&self.lanes, &self.sources);
        let is_free = |position: usize| {
            if !way.gates.is_open(position) || way.gates.moves(position) {
                return false;
            }
            let source = way.pool.sources.get(position);
            if source.is_some_and(|source| sources.is_out(&source.name)) {
                return false;
            }
            let key = way.lane_key(position);
            let lane = source.and_then(|source| lanes.find(&source.name, &key));
            lane.is_none_or(|lane| !lanes.is_jammed(now_ms, lane))
        };
        let position = self.pools.next(&mut self.outputs, way.pool, is_free)?;
        self.lane_of(item, way, way.pool, position)
    }

    /// The lane for a delivery: there already, or made.
    fn lane_of(
        &mut self,
        item: Item,
        way: &Way<'_>,
        pool: &Arc<EgressPool>,
        position: usize,
    ) -> Option<LaneId> {
        let source = pool.sources.get(position)?;
        let key = way.lane_key(position);
        let (site, _) = way.sites.at(position);
        if let Some(lane) = self.lanes.find(&source.name, &key) {
            let is_stale = |info: &LaneInfo| info.stale;
            if self.lane_infos.get(lane).is_some_and(is_stale) {
                let mut info = self.shaped_lane(item, way, pool, position, &key)?;
                if let Some(before) = self.lane_infos.get(lane) {
                    info.recent = before.recent;
                    info.answered_ms = before.answered_ms;
                }
                info.shared = self.shared_limit(&info);
                let limits = self.limits_of(&info, &source.name, &key);
                self.lane_infos.insert(lane, info);
                self.lanes.set_limits_of(lane, limits);
            }
            return Some(lane);
        }
        let mut info = self.shaped_lane(item, way, pool, position, &key)?;
        info.shared = self.shared_limit(&info);
        let limits = self.limits_of(&info, &source.name, &key);
        let key = if *key == **site {
            site.clone()
        } else {
            key.into()
        };
        let lane = self
            .lanes
            .lane(&source.name.as_str().into(), &key, || limits);
        self.lane_infos.insert(lane, info);
        Some(lane)
    }

    /// What a lane is to be by the present configuration: the rules are looked at once for it, not for each message.
    fn shaped_lane(
        &self,
        item: Item,
        way: &Way<'_>,
        pool: &Arc<EgressPool>,
        position: usize,
        key: &str,
    ) -> Option<LaneInfo> {
        let of = self
            .partitions
            .get(&item.partition)?
            .intake
            .route_of(item.key)?;
        let mut info = LaneInfo {
            site: way.sites.at(position).0.clone(),
            route: way.route.clone(),
            pool: pool.clone(),
            position,
            domain: of.domain.into(),
            stream: of.stream.into(),
            provider: None,
            restraint: Restraint::default(),
            recent: Recent::default(),
            answered_ms: 0,
            shaping: Arc::default(),
            shared: None,
            stale: false,
            version: 0,
        };
        info.shape(&self.config);
        let place = info.place(key);
        info.restraint = self.automation.on_lane(self.now_ms, &place);
        Some(info)
    }

    /// After a change of the configuration: each lane is shaped anew when the next delivery goes there, since the rules
    /// may make other lanes now.
    pub(super) fn lanes_are_stale(&mut self) {
        self.lane_infos
            .iter_mut()
            .for_each(|info| info.stale = true);
    }
}

/// Where all mail of a route goes, whoever it is for.
pub(super) fn only_host<'a>(config: &'a Snapshot, route: &'a Route) -> Option<&'a str> {
    let of_route = route.smart_host.as_ref().map(mail::Domain::as_str);
    of_route.or_else(|| config.pool(&route.pool)?.only_smart_hosts())
}

/// Whether the site was not looked for, since the route's pool has smart hosts only, and the mail leaves by another pool.
fn lacks_site(only_host: Option<&str>, route: &Route, pool: &EgressPool) -> bool {
    only_host.is_some() && route.smart_host.is_none() && pool.only_smart_hosts().is_none()
}
