//! The limits of lanes, and of what lanes share.

use std::sync::Arc;

use config::{Shaping, SharedShaping};
use egress::{LaneLimits, RateLimit, Restraint, SharedId, SharedLimits, Unit, Whose, Window};

use super::Machine;
use super::placing::LaneInfo;

impl Machine {
    pub(super) fn limits_of(&self, info: &LaneInfo, source: &str, key: &str) -> LaneLimits {
        let hash = lane_hash(&format!("{source}|{key}"));
        limits_of(info, self.shares(), hash, self.leases_connections)
    }

    /// The limit that a lane shares with the others of its source to its provider, if rules have one.
    pub(super) fn shared_limit(&mut self, info: &LaneInfo) -> Option<SharedId> {
        let provider = info.provider.as_deref()?;
        if info.shaping.shared.is_empty() {
            return None;
        }
        let source: Arc<str> = info.source().name.as_str().into();
        let (id, is_new) = self.lanes.share(&source, &provider.into());
        if is_new {
            self.limit_shared(id);
        }
        Some(id)
    }

    /// What lanes share has the limits that the configuration and the owned partitions give it now.
    fn limit_shared(&mut self, id: SharedId) {
        let Some((source, provider)) = self.lanes.shared_names(id) else {
            return;
        };
        let shaping = self.config.shared_shaping(source, provider);
        let (source, name) = (source.clone(), name_of_shared(provider));
        let limits = self.limits_of_shared(&shaping, &format!("{source}|{name}"));
        self.lanes.set_limits_of_shared(id, &limits);
    }

    /// As [`Machine::limit_shared`], for all.
    pub(super) fn limit_all_shared(&mut self) {
        for id in self.lanes.all_shared() {
            self.limit_shared(id);
        }
    }

    fn limits_of_shared(&self, shaping: &SharedShaping, name: &str) -> SharedLimits {
        let share = |limit| self.shares().of(limit, lane_hash(name));
        let connections = shaping.connections;
        SharedLimits {
            connections: match self.leases_connections {
                true => connections,
                false => connections.map(share),
            },
            connection_share: connections.filter(|_| self.leases_connections).map(share),
            windows: windows_of_shared(shaping).collect(),
        }
    }

    /// Source and name, for all replicas, of what is limited.
    pub(super) fn name_of_limit(&self, whose: Whose) -> Option<(&str, String)> {
        match whose {
            Whose::Lane(lane) => {
                let (source, key) = self.lanes.names(lane)?;
                Some((&**source, key.to_string()))
            }
            Whose::Shared(id) => {
                let (source, provider) = self.lanes.shared_names(id)?;
                Some((&**source, name_of_shared(provider)))
            }
        }
    }

    /// After a change of the owned partitions.
    pub(super) fn share_limits(&mut self) {
        self.lanes.doubt_shares(self.now_ms);
        for (number, info) in self.lane_infos.iter() {
            let names = self.lanes.names(number);
            if let Some((source, key)) = names.map(|(source, key)| (source.clone(), key.clone())) {
                let limits = self.limits_of(info, &source, &key);
                self.lanes.set_limits_of(number, limits);
            }
        }
        self.limit_all_shared();
    }

    /// Which partitions are ours, for the shares of limits.
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

impl Shares {
    /// The share of connections goes by partition: each has limit / P, the remainder is with the partition that the
    /// hash names. With all partitions at one scheduler that is the whole limit.
    fn of(self, limit: u32, hash: u64) -> u32 {
        let owned: Vec<u32> = (0..self.partitions.min(64))
            .filter(|partition| self.owned >> partition & 1 == 1)
            .collect();
        let share = ::limits::safe_share(limit.into(), self.partitions, &owned, hash);
        u32::try_from(share).unwrap_or(u32::MAX)
    }
}

/// How what lanes of a source share is called beside them: no lane's name begins so.
fn name_of_shared(provider: &str) -> String {
    format!("%provider={provider}")
}

/// When connections are leased, the share of them is for times in which nobody lends them. Who shares a limit that is no
/// larger than its own needs no lease of its own.
fn limits_of(info: &LaneInfo, shares: Shares, hash: u64, leased: bool) -> LaneLimits {
    let (shaping, restraint) = (&info.shaping, &info.restraint);
    let connections = shaping
        .connections
        .min(restraint.connections.unwrap_or(u32::MAX));
    let shared = info.shared.and(shaping.shared.connections);
    let is_within = shared.is_some_and(|shared| shared <= connections);
    let share = shares.of(connections, hash);
    LaneLimits {
        connections: if leased { connections } else { share },
        connection_share: (leased && !is_within).then_some(share),
        messages_per_connection: info.messages_per_connection(),
        windows: windows_of(shaping, restraint),
        shared: info.shared,
        ramp_ms: shaping.ramp_up.as_millis(),
        suspended_until_ms: restraint.suspended_until_ms.unwrap_or(0),
    }
}

/// Those of the rules, and those of what is done about replies: of two of a length the smaller one.
pub(super) fn windows_of(shaping: &Shaping, restraint: &Restraint) -> Vec<Window> {
    let messages = shaping
        .rates
        .iter()
        .map(|rate| window(Unit::Messages, *rate));
    let mut windows: Vec<Window> = messages.collect();
    for limit in [restraint.rate, restraint.pace].into_iter().flatten() {
        let unit = Unit::Messages;
        match windows
            .iter_mut()
            .find(|window| window.limit.per_ms == limit.per_ms)
        {
            Some(present) => present.limit.count = present.limit.count.min(limit.count),
            None => windows.push(Window { unit, limit }),
        }
    }
    let opened = shaping.connection_rate;
    windows.extend(opened.map(|rate| window(Unit::Connections, rate)));
    windows
}

/// Those that lanes share.
pub(super) fn windows_of_shared(shaping: &SharedShaping) -> impl Iterator<Item = Window> {
    let messages = (shaping.rates.iter()).map(|rate| window(Unit::Messages, *rate));
    let opened = shaping.connection_rate;
    messages.chain(opened.map(|rate| window(Unit::Connections, rate)))
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
