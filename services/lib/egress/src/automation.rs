//! What is done about replies: when the other side says too often that something is too much, less is sent for a while.
//!
//! A state machine without a clock: [`Automation::reply`] takes what was heard, [`Automation::tick`] the passing of time;
//! both give the actions that are new, renewed or over. What holds for a lane or a tenant is asked for with
//! [`Automation::on_lane`] and [`Automation::on_tenant`].

mod scope;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use config::{AutomationAction, AutomationRule, Snapshot};
use hashbrown::HashMap;
use mail::Rate;

use crate::rate::RateLimit;

pub use scope::{Heard, Subject};

/// Rules × subjects that are counted at a time; when there are more, the counts begin anew.
const COUNTERS: usize = 20_000;
/// Actions at a time; further ones are not begun.
const ACTIONS: usize = 20_000;
/// Characters of a reply that are looked at, and that are kept as the cause of an action.
const TEXT: usize = 1024;
const CAUSE: usize = 256;
/// After a cut the replies to what was on its way count for nothing, milliseconds.
const CUT_MS: u64 = 60_000;
/// Steps in which a cut rate comes back: each is a tenth of the rate before.
const STEPS: u64 = 10;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Nothing is sent.
    Suspend,
    /// No more than this is sent.
    Limit {
        /// Messages per time.
        rate: Option<RateLimit>,
        /// Connections.
        connections: Option<u32>,
        /// Messages per connection.
        messages_per_connection: Option<u32>,
    },
    /// The rate was cut and comes back by steps.
    Slow {
        /// Messages per minute before the first cut.
        reference: u64,
        /// Messages per minute after the last cut, at [`Act::since_ms`].
        cut: u64,
        /// Time of a step, milliseconds.
        step_ms: u64,
    },
}

impl Measure {
    /// As the documents call it.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Suspend => "suspend",
            Self::Limit { .. } => "limit",
            Self::Slow { .. } => "slow",
        }
    }
}

/// Something that is done for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Act {
    /// The rule: name of its document and its position there, as `google/0`.
    pub rule: Arc<str>,
    /// To what.
    pub subject: Subject,
    /// What.
    pub measure: Measure,
    /// Unix milliseconds.
    pub since_ms: u64,
    /// Unix milliseconds.
    pub until_ms: u64,
    /// The reply that brought it about.
    pub cause: Box<str>,
}

impl Act {
    /// Messages per minute that a slowed lane may send now.
    fn pace(&self, now_ms: u64) -> Option<u64> {
        let Measure::Slow {
            reference,
            cut,
            step_ms,
        } = self.measure
        else {
            return None;
        };
        let steps = now_ms.saturating_sub(self.since_ms) / step_ms.max(1);
        Some(
            cut.saturating_add(step(reference).saturating_mul(steps))
                .min(reference),
        )
    }

    /// When its effect changes next.
    fn next_ms(&self, now_ms: u64) -> u64 {
        let Measure::Slow { step_ms, .. } = self.measure else {
            return self.until_ms;
        };
        let steps = now_ms.saturating_sub(self.since_ms) / step_ms.max(1);
        (self.since_ms + (steps + 1) * step_ms.max(1)).min(self.until_ms)
    }
}

fn step(reference: u64) -> u64 {
    reference.div_ceil(STEPS).max(1)
}

/// A change of what is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// New, or renewed.
    Begun(Act),
    /// The pace of a slowed lane is another now.
    Stepped(Subject),
    /// A tenant is to go into quarantine: not kept here, it is a matter of its pool.
    Convicted {
        /// As in [`Act`].
        rule: Arc<str>,
        /// Which.
        tenant: Box<str>,
        /// Unix milliseconds; 0 = until somebody ends it.
        until_ms: u64,
        /// The reply that brought it about.
        cause: Box<str>,
    },
    /// It is over.
    Ended(Act),
}

/// What holds for a lane by all that is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Restraint {
    /// Nothing is sent until then, Unix milliseconds.
    pub suspended_until_ms: Option<u64>,
    /// Messages per time, the least of each length.
    pub rate: Option<RateLimit>,
    /// Messages per minute by cuts.
    pub pace: Option<RateLimit>,
    /// Connections.
    pub connections: Option<u32>,
    /// Messages per connection.
    pub messages_per_connection: Option<u32>,
}

struct Rule {
    id: Arc<str>,
    rule: AutomationRule,
}

/// See the module.
#[derive(Default)]
pub struct Automation {
    rules: Vec<Rule>,
    /// Positions of the rules for a provider, and of those for any.
    by_provider: HashMap<String, Vec<usize>>,
    general: Vec<usize>,
    /// Times of the last replies by rule and subject, oldest first, no more than the threshold counts.
    heard: HashMap<(Arc<str>, Subject), VecDeque<u64>>,
    acts: HashMap<Subject, Vec<Act>>,
    count: usize,
    /// Acts on tenants: usually none, and then nothing is looked up.
    on_tenants: usize,
    next_ms: Option<u64>,
}

impl Automation {
    /// Other rules from now on. What is done goes on; counts of rules that changed begin anew.
    pub fn configure(&mut self, config: &Snapshot) {
        let before = std::mem::take(&mut self.rules);
        (self.by_provider, self.general) = (HashMap::new(), Vec::new());
        for set in config.automation() {
            for (position, rule) in set.rules.iter().enumerate() {
                let number = self.rules.len();
                match &rule.matches.provider {
                    Some(name) => self.by_provider.entry_ref(name).or_default().push(number),
                    None => self.general.push(number),
                }
                self.rules.push(Rule {
                    id: format!("{}/{position}", set.name).into(),
                    rule: rule.clone(),
                });
            }
        }
        let is_same = |id: &Arc<str>| {
            let of = |rules: &[Rule]| {
                rules
                    .iter()
                    .find(|rule| rule.id == *id)
                    .map(|r| r.rule.clone())
            };
            of(&before) == of(&self.rules)
        };
        let changed: Vec<Arc<str>> = before
            .iter()
            .map(|rule| rule.id.clone())
            .filter(|id| !is_same(id))
            .collect();
        self.heard.retain(|(id, _), _| !changed.contains(id));
    }

    /// What the other side said instead of accepting. `pace` gives the messages per minute that the lane may or does
    /// send; it is asked only when a lane is to be slowed.
    pub fn reply(&mut self, now_ms: u64, heard: &Heard<'_>, pace: impl Fn() -> u64) -> Vec<Change> {
        let text = shortened(heard.text, TEXT);
        let of_provider = heard
            .provider
            .and_then(|provider| self.by_provider.get(provider));
        let candidates: Vec<usize> = of_provider
            .into_iter()
            .flatten()
            .chain(&self.general)
            .copied()
            .filter(|number| {
                let rule = &self.rules[*number].rule;
                rule.matches.matches(&heard.lane, heard.provider)
                    && rule.reply.fits(heard.code, heard.enhanced, text)
            })
            .collect();
        let mut changes = Vec::new();
        for number in candidates {
            let subject = heard.subject(self.rules[number].rule.scope);
            if self.is_reached(now_ms, number, &subject) {
                changes.extend(self.act(now_ms, number, subject, heard, &pace));
            }
        }
        changes
    }

    /// Counts a reply; true when there were as many as the rule's threshold, which begins anew then.
    fn is_reached(&mut self, now_ms: u64, number: usize, subject: &Subject) -> bool {
        let Rule { id, rule } = &self.rules[number];
        let Some((count, per_ms)) = rule.threshold.map(parts) else {
            return true;
        };
        if count <= 1 {
            return true;
        }
        if self.heard.len() >= COUNTERS {
            self.heard.clear();
        }
        let key = (id.clone(), subject.clone());
        let times = self.heard.entry(key).or_default();
        while times.front().is_some_and(|at| at + per_ms <= now_ms) {
            times.pop_front();
        }
        times.push_back(now_ms);
        let reached = times.len() as u64 >= count;
        if reached {
            times.clear();
        }
        reached
    }

    fn act(
        &mut self,
        now_ms: u64,
        number: usize,
        subject: Subject,
        heard: &Heard<'_>,
        pace: &impl Fn() -> u64,
    ) -> Option<Change> {
        let Rule { id, rule } = &self.rules[number];
        let present = self
            .acts
            .get(&subject)
            .and_then(|acts| acts.iter().find(|act| act.rule == *id));
        let (measure, until_ms) = match rule.action {
            AutomationAction::Quarantine { span } => {
                return Some(Change::Convicted {
                    rule: id.clone(),
                    tenant: heard.tenant.into(),
                    until_ms: span.map_or(0, |span| now_ms + span.as_millis()),
                    cause: heard.cause(CAUSE).into(),
                });
            }
            AutomationAction::Suspend { span } => (Measure::Suspend, now_ms + span.as_millis()),
            AutomationAction::Limit {
                span,
                rate,
                connections,
                messages_per_connection,
            } => {
                let measure = Measure::Limit {
                    rate: rate.map(limit),
                    connections,
                    messages_per_connection,
                };
                (measure, now_ms + span.as_millis())
            }
            AutomationAction::Slow {
                to_percent,
                recover,
                least,
            } => {
                if present.is_some_and(|act| now_ms < act.since_ms + CUT_MS) {
                    return None;
                }
                let least = per_minute(limit(least));
                let (reference, now) = match present.map(|act| (act.measure, act.pace(now_ms))) {
                    Some((Measure::Slow { reference, .. }, Some(now))) => (reference, now),
                    _ => {
                        let pace = pace().max(least);
                        (pace, pace)
                    }
                };
                let cut = (now.saturating_mul(to_percent.into()) / 100).max(least);
                let step_ms = recover.as_millis();
                let steps = reference.saturating_sub(cut).div_ceil(step(reference));
                let measure = Measure::Slow {
                    reference,
                    cut,
                    step_ms,
                };
                (measure, now_ms + steps.max(1).saturating_mul(step_ms))
            }
        };
        let act = Act {
            rule: id.clone(),
            subject,
            measure,
            since_ms: now_ms,
            until_ms,
            cause: heard.cause(CAUSE).into(),
        };
        self.put(act.clone()).then_some(Change::Begun(act))
    }

    /// Takes over something that was begun before, by another owner or before a restart. True when it holds.
    pub fn restore(&mut self, now_ms: u64, act: Act) -> bool {
        let present = self.acts.get(&act.subject);
        let is_newer = present
            .and_then(|acts| acts.iter().find(|present| present.rule == act.rule))
            .is_none_or(|present| present.since_ms < act.since_ms);
        now_ms < act.until_ms && is_newer && self.put(act)
    }

    fn put(&mut self, act: Act) -> bool {
        self.next_ms = Some(
            self.next_ms
                .unwrap_or(u64::MAX)
                .min(act.next_ms(act.since_ms)),
        );
        let acts = self.acts.entry(act.subject.clone()).or_default();
        if let Some(present) = acts.iter_mut().find(|present| present.rule == act.rule) {
            *present = act;
            return true;
        }
        if self.count >= ACTIONS {
            return false;
        }
        self.count += 1;
        self.on_tenants += usize::from(act.subject.is_of_tenant());
        acts.push(act);
        true
    }

    /// Ends what is over, and lets cut rates grow.
    pub fn tick(&mut self, now_ms: u64) -> Vec<Change> {
        if self.next_ms.is_none_or(|next_ms| now_ms < next_ms) {
            return Vec::new();
        }
        let mut changes = Vec::new();
        let mut next_ms: Option<u64> = None;
        self.acts.retain(|subject, acts| {
            let (over, rest): (Vec<Act>, Vec<Act>) = std::mem::take(acts)
                .into_iter()
                .partition(|act| act.until_ms <= now_ms);
            self.count -= over.len();
            if subject.is_of_tenant() {
                self.on_tenants -= over.len();
            }
            changes.extend(over.into_iter().map(Change::Ended));
            if rest
                .iter()
                .any(|act| matches!(act.measure, Measure::Slow { .. }))
            {
                changes.push(Change::Stepped(subject.clone()));
            }
            let next = rest.iter().map(|act| act.next_ms(now_ms)).min();
            next_ms = [next_ms, next].into_iter().flatten().min();
            *acts = rest;
            !acts.is_empty()
        });
        self.next_ms = next_ms;
        changes
    }

    /// When [`Automation::tick`] has something to do next, Unix milliseconds.
    pub fn next_wake(&self) -> Option<u64> {
        self.next_ms
    }

    /// Everything that is done now.
    pub fn acts(&self) -> impl Iterator<Item = &Act> {
        self.acts.values().flatten()
    }

    /// What holds for a lane, its pool included.
    pub fn on_lane(&self, now_ms: u64, of: &Heard<'_>) -> Restraint {
        let mut all = Restraint::default();
        if self.count == self.on_tenants {
            return all;
        }
        for scope in [config::Scope::Lane, config::Scope::Pool] {
            let acts = self.acts.get(&of.subject(scope));
            for act in acts.into_iter().flatten() {
                if now_ms < act.until_ms {
                    all.add(act, now_ms);
                }
            }
        }
        all
    }

    /// Until when a tenant's mail to where it would go now is suspended.
    pub fn on_tenant(&self, now_ms: u64, of: &Heard<'_>) -> Option<u64> {
        if self.on_tenants == 0 {
            return None;
        }
        let scopes = [config::Scope::Tenant, config::Scope::TenantAtProvider];
        let acts = scopes
            .into_iter()
            .filter_map(|scope| self.acts.get(&of.subject(scope)))
            .flatten();
        acts.map(|act| act.until_ms)
            .filter(|until_ms| now_ms < *until_ms)
            .max()
    }

    /// Whether a tenant is suspended somewhere.
    pub fn concerns_tenants(&self) -> bool {
        self.on_tenants > 0
    }
}

impl Restraint {
    fn add(&mut self, act: &Act, now_ms: u64) {
        fn least<T: PartialOrd>(present: &mut Option<T>, value: Option<T>) {
            if let Some(value) = value
                && present.as_ref().is_none_or(|present| value < *present)
            {
                *present = Some(value);
            }
        }
        match act.measure {
            Measure::Suspend => {
                self.suspended_until_ms = self.suspended_until_ms.max(Some(act.until_ms));
            }
            Measure::Limit {
                rate,
                connections,
                messages_per_connection,
            } => {
                let slower = |rate: RateLimit| {
                    self.rate.is_none_or(|present| {
                        rate.count * present.per_ms < present.count * rate.per_ms
                    })
                };
                if rate.is_some_and(slower) {
                    self.rate = rate;
                }
                least(&mut self.connections, connections);
                least(&mut self.messages_per_connection, messages_per_connection);
            }
            Measure::Slow { .. } => {
                let pace = act.pace(now_ms).map(|count| count.max(1));
                if let Some(count) = pace
                    && self.pace.is_none_or(|present| count < present.count)
                {
                    let per_ms = 60_000;
                    self.pace = Some(RateLimit { count, per_ms });
                }
            }
        }
    }
}

fn parts(rate: Rate) -> (u64, u64) {
    let limit = limit(rate);
    (limit.count, limit.per_ms)
}

fn limit(rate: Rate) -> RateLimit {
    RateLimit {
        count: rate.count().into(),
        per_ms: u64::try_from(rate.per().as_millis()).unwrap_or(u64::MAX),
    }
}

/// Messages per minute, at least 1.
pub fn per_minute(limit: RateLimit) -> u64 {
    (limit.count.saturating_mul(60_000) / limit.per_ms.max(1)).max(1)
}

/// As much of a text as is looked at.
fn shortened(text: &str, most: usize) -> &str {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
