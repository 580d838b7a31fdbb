//! What is done about replies: the automation of `egress` between what senders report, the lanes and the journals.

use std::sync::Arc;

use config::{ShapingQuery, Snapshot};
use egress::{
    Act, Automation, Change, Heard, LaneId, Lanes, Measure, RateLimit, Subject, per_minute,
};
use hashbrown::HashMap;
use mail::PartitionId;
use proto::journal::{Acted, ActedMeasure, ActedOn};
use queue::{Judged, RouteOf, Verdict};

use super::placing::{LaneInfo, LaneInfos};
use super::{Item, Machine, Output, lane_hash};

/// Different replies of one report that are looked at.
const REPLIES: usize = 8;
const MINUTE_MS: u64 = 60_000;

/// After others were told of an act its renewals are not told for so long, milliseconds: a host that refuses everything
/// renews what is done with every reply.
const TELL_MS: u64 = 5_000;
/// Acts of which others are told at a time. Further ones hold where they were heard.
const MOST_TOLD: usize = 2_000;

/// When others were told of acts, by rule and subject.
#[derive(Default)]
pub(super) struct Told {
    at_ms: HashMap<u64, u64>,
}

impl Told {
    /// Whether others are to be told now.
    fn is_due(&mut self, now_ms: u64, key: u64) -> bool {
        if self.at_ms.len() >= MOST_TOLD {
            self.at_ms.retain(|_, at_ms| now_ms < *at_ms + TELL_MS);
        }
        let is_due = |at_ms: &u64| now_ms >= *at_ms + TELL_MS;
        let due = self.at_ms.get(&key).is_none_or(is_due) && self.at_ms.len() < MOST_TOLD;
        if due {
            self.at_ms.insert(key, now_ms);
        }
        due
    }
}

/// Outcomes of a lane in this minute and in the one before.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Recent {
    minute: u64,
    now: u64,
    before: u64,
}

impl Recent {
    fn note(&mut self, now_ms: u64, count: u64) {
        let minute = now_ms / MINUTE_MS;
        if minute != self.minute {
            let follows = minute == self.minute + 1;
            self.before = if follows { self.now } else { 0 };
            (self.minute, self.now) = (minute, 0);
        }
        self.now += count;
    }

    /// Per minute, at least 1.
    fn pace(&self) -> u64 {
        self.now.max(self.before).max(1)
    }
}

impl LaneInfo {
    /// Messages per minute that the lane may send, or sends when no rule says.
    fn pace(&self) -> u64 {
        let of_rule = |rate: &mail::Rate| {
            per_minute(RateLimit {
                count: rate.count().into(),
                per_ms: u64::try_from(rate.per().as_millis()).unwrap_or(u64::MAX),
            })
        };
        let allowed = self.shaping.message_rates().map(of_rule).min();
        allowed.unwrap_or(self.recent.pace())
    }

    /// The lane as a place where a tenant's mail goes.
    pub(super) fn of_tenant<'a>(&'a self, tenant: &'a str) -> Heard<'a> {
        Heard {
            tenant,
            ..self.place("")
        }
    }
}

/// Where a delivery is about to go, as a place where a tenant's mail goes.
pub(super) fn tenant_at<'a>(config: &'a Snapshot, site: &'a str, of: &RouteOf<'a>) -> Heard<'a> {
    let provider = config.provider(site, of.domain);
    Heard {
        lane: ShapingQuery {
            site,
            domain: of.domain,
            stream: of.stream,
            source: "",
            pool: "",
        },
        name: "",
        provider: provider.map(|provider| provider.name.as_str()),
        tenant: of.tenant,
        code: 0,
        enhanced: "",
        text: "",
    }
}

/// A reply that is not an acceptance.
pub(super) struct Reply {
    code: u16,
    enhanced: String,
    text: String,
}

/// The different replies in a report, and the number of its recipients. A connection that is refused is refused once,
/// for however many recipients.
pub(super) fn heard_in(judged: &[Judged]) -> (u64, Vec<Reply>) {
    let mut replies: Vec<Reply> = Vec::new();
    for recipient in judged {
        if !matches!(
            recipient.verdict,
            Verdict::Transient | Verdict::HostTrouble | Verdict::Permanent
        ) {
            continue;
        }
        let reply = &recipient.reply;
        let code = u16::try_from(reply.code).unwrap_or(0);
        let is_known = |known: &Reply| {
            (known.code, &known.enhanced, &known.text) == (code, &reply.enhanced, &reply.text)
        };
        if replies.len() < REPLIES && !replies.iter().any(is_known) {
            replies.push(Reply {
                code,
                enhanced: reply.enhanced.clone(),
                text: reply.text.clone(),
            });
        }
    }
    (judged.len() as u64, replies)
}

/// Takes the replies of a report from a lane. `about` is tenant, stream and domain.
pub(super) fn hear(
    now_ms: u64,
    automation: &mut Automation,
    (lane, lanes, infos): (LaneId, &Lanes<Item>, &mut LaneInfos),
    (tenant, stream, domain): (&str, &str, &str),
    (count, replies): &(u64, Vec<Reply>),
) -> Vec<Change> {
    let Some(info) = infos.get_mut(lane) else {
        return Vec::new();
    };
    info.recent.note(now_ms, *count);
    let Some((_, name)) = lanes.names(lane) else {
        return Vec::new();
    };
    let mut changes = Vec::new();
    for reply in replies {
        let mut heard = Heard {
            tenant,
            code: reply.code,
            enhanced: &reply.enhanced,
            text: &reply.text,
            ..info.place(name)
        };
        (heard.lane.stream, heard.lane.domain) = (stream, domain);
        changes.extend(automation.reply(now_ms, &heard, || info.pace()));
    }
    changes
}

impl Machine {
    /// What is done about replies now.
    pub fn acts(&self) -> impl Iterator<Item = &Act> {
        self.automation.acts()
    }

    pub(super) fn tick_automation(&mut self, now_ms: u64) {
        let changes = self.automation.tick(now_ms);
        self.automation_changed(now_ms, None, changes);
    }

    /// Lets changes take effect. What begins is kept in the journal of the partition whose delivery brought it about;
    /// with the pool to which that is routed.
    pub(super) fn automation_changed(
        &mut self,
        now_ms: u64,
        about: Option<(PartitionId, Option<&str>)>,
        changes: Vec<Change>,
    ) {
        let partition = about.map(|(partition, _)| partition);
        let home = about.and_then(|(_, home)| home);
        for change in changes {
            match &change {
                Change::Begun(act) => {
                    self.counts.acted(&act.measure);
                    let key = lane_hash(&format!("{}|{}", act.rule, act.subject));
                    if self.told.is_due(now_ms, key) && self.automation.acts().count() <= MOST_TOLD
                    {
                        let act = to_proto(act);
                        self.outputs.push(Output::TellAct { key, act });
                    }
                    let owned = partition.and_then(|of| self.partitions.get_mut(&of));
                    if let Some(owned) = owned {
                        owned.intake.acted(now_ms, to_proto(act));
                    }
                    self.restrain(now_ms, &act.subject);
                }
                Change::Ended(act) => self.restrain(now_ms, &act.subject),
                Change::Stepped(subject) => self.restrain(now_ms, subject),
                Change::Convicted {
                    rule,
                    tenant,
                    until_ms,
                    cause,
                } => self.convict(home.unwrap_or_default(), (rule, tenant), *until_ms, cause),
            }
        }
    }

    /// What other schedulers began holds here, too.
    pub(super) fn acts_told(&mut self, now_ms: u64, acts: &[Acted]) {
        for act in acts.iter().filter_map(from_proto) {
            let subject = act.subject.clone();
            if self.automation.restore(now_ms, act) {
                self.restrain(now_ms, &subject);
            }
        }
    }

    /// What the journal of a partition knows goes on.
    pub(super) fn restore_automation(&mut self, now_ms: u64, partition: PartitionId) {
        let Some(owned) = self.partitions.get(&partition) else {
            return;
        };
        let known: Vec<Act> = owned.intake.acts().iter().filter_map(from_proto).collect();
        for act in known {
            let subject = act.subject.clone();
            if self.automation.restore(now_ms, act) {
                self.restrain(now_ms, &subject);
            }
        }
    }

    /// The lanes of a subject get the limits that hold now.
    fn restrain(&mut self, now_ms: u64, subject: &Subject) {
        let lanes: Vec<LaneId> = match subject {
            Subject::Lane { source, lane } => self.lanes.find(source, lane).into_iter().collect(),
            Subject::Pool { .. } => {
                let is_in = |(_, info): &(LaneId, &LaneInfo)| {
                    info.place("").subject(config::Scope::Pool) == *subject
                };
                self.lane_infos
                    .iter()
                    .filter(is_in)
                    .map(|(lane, _)| lane)
                    .collect()
            }
            // Asked for with each delivery.
            Subject::TenantAtProvider { .. } | Subject::Tenant { .. } => return,
        };
        for lane in lanes {
            let names = self.lanes.names(lane);
            let Some((source, key)) = names.map(|(source, key)| (source.clone(), key.clone()))
            else {
                continue;
            };
            let Some(info) = self.lane_infos.get_mut(lane) else {
                continue;
            };
            let before = info.messages_per_connection();
            info.restraint = self.automation.on_lane(now_ms, &info.place(&key));
            if info.messages_per_connection() != before {
                self.lane_infos.changed(lane);
            }
            if let Some(info) = self.lane_infos.get(lane) {
                let limits = self.limits_of(info, &source, &key);
                self.lanes.set_limits_of(lane, limits);
            }
        }
    }
}

fn to_proto(act: &Act) -> Acted {
    let mut on = ActedOn::default();
    match &act.subject {
        Subject::Lane { source, lane } => {
            (on.source, on.lane) = (source.to_string(), lane.to_string());
        }
        Subject::Pool { pool, at } => (on.pool, on.at) = (pool.to_string(), at.to_string()),
        Subject::TenantAtProvider { tenant, at } => {
            (on.tenant, on.at) = (tenant.to_string(), at.to_string());
        }
        Subject::Tenant { tenant } => on.tenant = tenant.to_string(),
    }
    let mut measure = ActedMeasure {
        kind: act.measure.word().to_owned(),
        ..ActedMeasure::default()
    };
    match act.measure {
        Measure::Suspend => {}
        Measure::Limit {
            rate,
            connections,
            messages_per_connection,
        } => {
            measure.rate_count = rate.map_or(0, |rate| rate.count);
            measure.rate_per_ms = rate.map_or(0, |rate| rate.per_ms);
            measure.connections = connections.unwrap_or(0);
            measure.messages_per_connection = messages_per_connection.unwrap_or(0);
        }
        Measure::Slow {
            reference,
            cut,
            step_ms,
        } => {
            measure.reference_per_minute = reference;
            measure.cut_per_minute = cut;
            measure.step_ms = step_ms;
        }
    }
    Acted {
        rule: act.rule.to_string(),
        subject: Some(on),
        measure: Some(measure),
        since_ms: act.since_ms,
        until_ms: act.until_ms,
        cause: act.cause.to_string(),
        ended: false,
    }
}

/// `None` for what a later release may do.
fn from_proto(acted: &Acted) -> Option<Act> {
    let on = acted.subject.as_ref()?;
    let boxed = |text: &str| Box::<str>::from(text);
    let subject = match (&*on.source, &*on.pool, &*on.tenant, &*on.at) {
        ("", "", "", _) => return None,
        ("", "", tenant, "") => Subject::Tenant {
            tenant: boxed(tenant),
        },
        ("", "", tenant, at) => Subject::TenantAtProvider {
            tenant: boxed(tenant),
            at: boxed(at),
        },
        ("", pool, _, at) => Subject::Pool {
            pool: boxed(pool),
            at: boxed(at),
        },
        (source, ..) => Subject::Lane {
            source: boxed(source),
            lane: boxed(&on.lane),
        },
    };
    let measure = acted.measure.as_ref()?;
    let some = |value: u32| (value > 0).then_some(value);
    let measure = match &*measure.kind {
        "suspend" => Measure::Suspend,
        "limit" => Measure::Limit {
            rate: (measure.rate_per_ms > 0).then_some(RateLimit {
                count: measure.rate_count.max(1),
                per_ms: measure.rate_per_ms,
            }),
            connections: some(measure.connections),
            messages_per_connection: some(measure.messages_per_connection),
        },
        "slow" => Measure::Slow {
            reference: measure.reference_per_minute,
            cut: measure.cut_per_minute,
            step_ms: measure.step_ms,
        },
        _ => return None,
    };
    Some(Act {
        rule: Arc::from(&*acted.rule),
        subject,
        measure,
        since_ms: acted.since_ms,
        until_ms: acted.until_ms,
        cause: boxed(&acted.cause),
    })
}
