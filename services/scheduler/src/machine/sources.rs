//! The health of egress sources: one that does not work is taken out of its pools, and comes back when it does.
//!
//! A source is out when no attached sender has it (none names it, or binding its address, its proxy or its own smart host failed), or when connections from
//! it fail one after the other at sites that answered lately, from this or another source. It never goes out from elsewhere: the
//! others of its pool take its mail, and a pool without any source that can be used holds it. One delivery is let through
//! after a while, and any answer from outside brings the source back.
//!
//! While every source works all of this costs a comparison per report.

use std::collections::BTreeMap;
use std::sync::Arc;

use config::EgressPool;
use egress::{LaneId, SenderId};
use hashbrown::HashMap;
use mail::PartitionId;
use proto::journal::{Acted, ActedMeasure, ActedOn, Stage};
use queue::Judged;

use super::placing::LaneInfo;
use super::{Machine, lane_hash};

/// A site that answered within this time should answer now, milliseconds.
const ANSWERED_MS: u64 = 3_600_000;
/// Failures in a row, or failures in a row at so many different sites, after which a source is out.
const FAILURES: u32 = 10;
const SITES: usize = 3;
/// How long it is out before something is tried; twice as long each time, up to the longest. Milliseconds.
const FIRST_MS: u64 = 60_000;
const LONGEST_MS: u64 = 900_000;
/// Sources that are watched, and senders that can't bind one: no configuration has as many.
const MOST: usize = 10_000;
const CAUSE: usize = 200;

/// What is known of the sources that don't work.
#[derive(Default)]
pub(super) struct Sources {
    troubled: HashMap<Arc<str>, Trouble>,
    lacking: Vec<Lack>,
    /// Those that are out, and why.
    out: BTreeMap<Arc<str>, Outage>,
    /// Those that came to be out since the start: for failures of connections, for want of a sender.
    pub(super) counts: [u64; 2],
}

/// Connections from a source that failed in a row.
#[derive(Default)]
struct Trouble {
    failures: u32,
    /// Hashes of their sites.
    sites: Vec<u64>,
    /// 0 = not out.
    wait_ms: u64,
    /// From when on something is tried.
    next_ms: u64,
    cause: Box<str>,
}

/// A sender that could not use a source.
struct Lack {
    sender: SenderId,
    source: Arc<str>,
    /// Until then it need not try; `u64::MAX` = it may.
    until_ms: u64,
    wait_ms: u64,
    detail: Box<str>,
}

/// Why a source is out.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Outage {
    since_ms: u64,
    /// When something is tried; `None` = when a sender has it.
    until_ms: Option<u64>,
    cause: Box<str>,
}

/// Whether the other side was reached in an attempt; `None` when nothing can be said.
pub(super) fn reached(judged: &[Judged]) -> Option<(bool, &str)> {
    let mut failed = None;
    for recipient in judged {
        match recipient.reply.stage() {
            Stage::Unspecified | Stage::Dns | Stage::Prepare => {}
            Stage::Connect => failed = Some((false, recipient.reply.text.as_str())),
            Stage::Banner
            | Stage::Ehlo
            | Stage::Starttls
            | Stage::Auth
            | Stage::Mail
            | Stage::Rcpt
            | Stage::Data
            | Stage::FinalDot => return Some((true, "")),
        }
    }
    failed
}

impl Sources {
    /// Whether all sources can be used: the usual case.
    pub(super) fn all_work(&self) -> bool {
        self.out.is_empty()
    }

    pub(super) fn is_out(&self, source: &str) -> bool {
        self.out.contains_key(source)
    }

    /// Sources that are out now.
    pub(super) fn out(&self) -> usize {
        self.out.len()
    }

    /// Why no source of a pool can be used, and when one is tried; `None` when one can.
    pub(super) fn outage_of(&self, pool: &EgressPool) -> Option<(String, Option<u64>)> {
        let mut reasons = Vec::new();
        let mut until_ms: Option<u64> = None;
        for source in pool.sources.iter().filter(|source| source.weight > 0) {
            let outage = self.out.get(source.name.as_str())?;
            reasons.push(format!("{}: {}", source.name, outage.cause));
            let times = [until_ms, outage.until_ms];
            until_ms = times.into_iter().flatten().min();
        }
        Some((reasons.join("; "), until_ms))
    }

    /// The position of a source of the pool of which it is time to try whether it works.
    pub(super) fn due_for_a_try(
        &mut self,
        now_ms: u64,
        pool: &EgressPool,
        usable: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        for (position, source) in pool.sources.iter().enumerate() {
            let Some(outage) = self.out.get_mut(source.name.as_str()) else {
                continue;
            };
            if source.weight > 0
                && usable(position)
                && outage.until_ms.is_some_and(|at| at <= now_ms)
            {
                outage.until_ms = Some(now_ms + FIRST_MS);
                return Some(position);
            }
        }
        None
    }

    pub(super) fn next_wake(&self) -> Option<u64> {
        let times = self.lacking.iter().map(|lack| lack.until_ms);
        times.filter(|until_ms| *until_ms < u64::MAX).min()
    }
}

impl Machine {
    /// An attempt by a lane is over.
    pub(super) fn note_reached(
        &mut self,
        now_ms: u64,
        lane: LaneId,
        partition: PartitionId,
        (reached, text): (bool, &str),
    ) {
        let Some(info) = self.lane_infos.get_mut(lane) else {
            return;
        };
        if reached {
            info.answered_ms = now_ms;
            if self.sources.troubled.is_empty() {
                return;
            }
            let source = info.source().name.as_str();
            if let Some(trouble) = self.sources.troubled.remove(source)
                && trouble.wait_ms > 0
            {
                let source = source.to_owned();
                self.lanes.put_back(&source);
                self.sources_changed(now_ms, Some(partition));
            }
            return;
        }
        self.not_reached(now_ms, lane, partition, text);
    }

    fn not_reached(&mut self, now_ms: u64, lane: LaneId, partition: PartitionId, text: &str) {
        let Some(info) = self.lane_infos.get(lane) else {
            return;
        };
        let source: Arc<str> = info.source().name.as_str().into();
        let is_out = self
            .sources
            .troubled
            .get(&source)
            .is_some_and(|t| t.wait_ms > 0);
        if !is_out && !self.should_answer(now_ms, lane, info) {
            return;
        }
        let site = lane_hash(&info.site);
        let sources = &mut self.sources;
        if sources.troubled.len() >= MOST {
            return;
        }
        let trouble = sources.troubled.entry(source.clone()).or_default();
        if is_out && now_ms < trouble.next_ms {
            // On its way when the source was taken out.
            return;
        }
        trouble.failures += 1;
        if trouble.sites.len() < SITES && !trouble.sites.contains(&site) {
            trouble.sites.push(site);
        }
        if !is_out && trouble.failures < FAILURES && trouble.sites.len() < SITES {
            return;
        }
        trouble.wait_ms = (trouble.wait_ms * 2).clamp(FIRST_MS, LONGEST_MS);
        trouble.next_ms = now_ms + trouble.wait_ms;
        trouble.cause = format!("no connection comes about ({})", shortened(text)).into();
        self.lanes.take_out(&source, trouble.next_ms);
        self.sources_changed(now_ms, Some(partition));
    }

    /// Whether a site answered lately, to whichever source.
    fn should_answer(&self, now_ms: u64, lane: LaneId, info: &LaneInfo) -> bool {
        let lately =
            |info: &LaneInfo| info.answered_ms > 0 && now_ms < info.answered_ms + ANSWERED_MS;
        if lately(info) {
            return true;
        }
        let Some((_, key)) = self.lanes.names(lane) else {
            return false;
        };
        let mut others = info.pool.sources.iter();
        others.any(|other| {
            let lane = self.lanes.find(&other.name, key);
            lane.and_then(|lane| self.lane_infos.get(lane))
                .is_some_and(lately)
        })
    }

    /// A sender got out by a lane's source: what it lacked before is forgotten.
    pub(super) fn bound(&mut self, lane: LaneId, sender: SenderId) {
        let sources = &mut self.sources;
        if sources.lacking.is_empty() {
            return;
        }
        if let Some(info) = self.lane_infos.get(lane) {
            let source = info.source().name.as_str();
            let is_over = |lack: &Lack| lack.until_ms == u64::MAX && lack.sender == sender;
            (sources.lacking).retain(|lack| !(is_over(lack) && *lack.source == *source));
        }
    }

    /// A sender could not use a lane's source: bind its address, or get out by its proxy or smart host.
    pub(super) fn not_bound(
        &mut self,
        now_ms: u64,
        lane: LaneId,
        partition: PartitionId,
        sender: SenderId,
        detail: &str,
    ) {
        let Some(info) = self.lane_infos.get(lane) else {
            return;
        };
        let source: Arc<str> = info.source().name.as_str().into();
        let lacking = &mut self.sources.lacking;
        let is_full = lacking.len() >= MOST;
        let known = lacking
            .iter_mut()
            .find(|lack| lack.sender == sender && lack.source == source);
        match known {
            Some(lack) if lack.until_ms < u64::MAX => return,
            Some(lack) => {
                lack.wait_ms = (lack.wait_ms * 2).min(LONGEST_MS);
                lack.until_ms = now_ms + lack.wait_ms;
            }
            None if is_full => return,
            None => lacking.push(Lack {
                sender,
                source: source.clone(),
                until_ms: now_ms + FIRST_MS,
                wait_ms: FIRST_MS,
                detail: shortened(detail).into(),
            }),
        }
        self.lanes.sender_lacks(sender, &source, true);
        self.sources_changed(now_ms, Some(partition));
    }

    /// Senders that could not bind a source may try again.
    pub(super) fn tick_sources(&mut self, now_ms: u64) {
        if self.sources.next_wake().is_none_or(|at_ms| now_ms < at_ms) {
            return;
        }
        for lack in &mut self.sources.lacking {
            if lack.until_ms <= now_ms {
                lack.until_ms = u64::MAX;
                self.lanes.sender_lacks(lack.sender, &lack.source, false);
            }
        }
        self.sources_changed(now_ms, None);
    }

    /// A sender is gone.
    pub(super) fn forget_sender(&mut self, sender: SenderId) {
        self.sources.lacking.retain(|lack| lack.sender != sender);
    }

    /// Looks which sources can be used now: after a change of the senders, the configuration, or of what is known. What
    /// waits at one that can't be used goes to another one of its pool, if there is one. What begins and ends is an event.
    pub(super) fn sources_changed(&mut self, now_ms: u64, partition: Option<PartitionId>) {
        let mut out = BTreeMap::new();
        let config = self.config.clone();
        let has_senders = self.lanes.has_senders();
        for source in config.pools().flat_map(|pool| &pool.sources) {
            let name = source.name.as_str();
            let before = self.sources.out.get(name);
            let since_ms = before.map_or(now_ms, |before| before.since_ms);
            let trouble = self.sources.troubled.get(name).filter(|of| of.wait_ms > 0);
            if let Some(trouble) = trouble {
                let tried = before.and_then(|before| before.until_ms).unwrap_or(0);
                let outage = Outage {
                    since_ms,
                    until_ms: Some(trouble.next_ms.max(tried)),
                    cause: trouble.cause.clone(),
                };
                out.insert(name.into(), outage);
            } else if has_senders && !self.lanes.is_served(name) {
                let mut lacking = self.sources.lacking.iter();
                let cause = match lacking.find(|lack| *lack.source == *name) {
                    Some(lack) => lack.detail.clone(),
                    None => "no attached sender has it".into(),
                };
                let outage = Outage {
                    since_ms,
                    until_ms: None,
                    cause,
                };
                out.insert(name.into(), outage);
            }
        }
        let before = std::mem::replace(&mut self.sources.out, out);
        let mut changed = false;
        for (source, outage) in &self.sources.out.clone() {
            if !before.contains_key(source) {
                changed = true;
                let position = usize::from(outage.until_ms.is_none());
                self.sources.counts[position] += 1;
                self.tell_outage(now_ms, partition, source, outage, false);
            }
        }
        for (source, outage) in &before {
            if !self.sources.is_out(source) {
                changed = true;
                self.tell_outage(now_ms, partition, source, outage, true);
            }
        }
        if changed {
            let sources = &self.sources;
            let waiting = self
                .lanes
                .take_by_source(|source| sources.is_out(source) || before.contains_key(source));
            for item in waiting {
                self.place(now_ms, item);
            }
        }
    }

    fn tell_outage(
        &mut self,
        now_ms: u64,
        partition: Option<PartitionId>,
        source: &str,
        outage: &Outage,
        ended: bool,
    ) {
        let (cause, out_ms) = (&outage.cause, now_ms.saturating_sub(outage.since_ms));
        if ended {
            tracing::info!(source, out_ms, "the egress source can be used again");
        } else {
            tracing::warn!(source, %cause, "the egress source is taken out");
        }
        let first = self.partitions.keys().next().copied();
        let Some(partition) = partition.or(first) else {
            return;
        };
        let acted = Acted {
            rule: "source".to_owned(),
            subject: Some(ActedOn {
                source: source.to_owned(),
                ..ActedOn::default()
            }),
            measure: Some(ActedMeasure {
                kind: "out".to_owned(),
                ..ActedMeasure::default()
            }),
            since_ms: outage.since_ms,
            until_ms: outage.until_ms.unwrap_or(now_ms),
            cause: cause.to_string(),
            ended,
        };
        if let Some(owned) = self.partitions.get_mut(&partition) {
            owned.intake.acted(now_ms, acted);
        }
    }

    /// Sources that are out now, and how many came to be since the start: for failures of connections, for want of a sender.
    pub fn sources_out(&self) -> (usize, [u64; 2]) {
        (self.sources.out(), self.sources.counts)
    }
}

fn shortened(text: &str) -> &str {
    let mut end = text.len().min(CAUSE);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
