//! How a stolen credential is noticed, and what is done about it: `watch` of a Tenant or a Credential.

use mail::Span;
use serde_json::{Value, json};

use super::Quota;
use crate::Fields;

/// What is noticed of a credential. Without it nothing is counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watch {
    /// `false` where a credential is not watched though its tenant is.
    pub enabled: bool,
    /// What is looked for.
    pub signals: Signals,
    /// Its mail is paced when what is noticed weighs so much together; `None`: never.
    pub slow_at: Option<u32>,
    /// Its mail is held.
    pub hold_at: Option<u32>,
    /// It is locked.
    pub lock_at: Option<u32>,
    /// The pace, recipients.
    pub slow_to: Quota,
    /// For so long it is slowed or held, 10 minutes to 31 days.
    pub lasts: Span,
    /// For so long it is locked; `None`: until somebody unlocks it.
    pub lock_lasts: Option<Span>,
    /// For so long what it does is only learned, up to 14 days.
    pub learn: Span,
}

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signals {
    /// Client networks that were not seen in 14 days, in the last 24 hours.
    pub new_networks: SignalRule,
    /// Recipients in an hour.
    pub volume: SignalRule,
    /// Recipients refused for good in an hour, and their part of all.
    pub refusals: SignalRule,
    /// Return paths and authors' domains in an hour.
    pub senders: SignalRule,
    /// Failed logins in the hour before one from a new network succeeds, from others.
    pub guessed: SignalRule,
    /// What the warnings of checks weigh together, in an hour.
    pub preflight: SignalRule,
}

/// When a signal is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalRule {
    /// Never below that; at least 1.
    pub at_least: u64,
    /// And at least so many times what is usual; 1 where the signal does not go by that.
    pub factor: u32,
    /// And at least so many per cent; 0 where the signal does not go by that.
    pub percent: u32,
    /// What it weighs; 0: it is not looked for.
    pub weight: u32,
}

impl SignalRule {
    const fn jump(at_least: u64, factor: u32, weight: u32) -> Self {
        Self {
            at_least,
            factor,
            percent: 0,
            weight,
        }
    }

    const fn floor(at_least: u64, weight: u32) -> Self {
        Self::jump(at_least, 1, weight)
    }

    /// From how many on it is noticed when so many are usual.
    pub fn threshold(&self, usual: u64) -> u64 {
        self.at_least
            .max(usual.saturating_mul(u64::from(self.factor)))
    }

    fn read(fields: &Fields<'_>, name: &'static str, usual: Self) -> Self {
        let rule = fields.map(name);
        let factor = if usual.factor > 1 {
            rule.small_integer("factor", 2..=100)
        } else {
            None
        };
        let percent = if usual.percent > 0 {
            rule.small_integer("percent", 1..=100)
        } else {
            None
        };
        let read = Self {
            at_least: rule
                .integer("atLeast", 1..=1_000_000_000)
                .unwrap_or(usual.at_least),
            factor: factor.unwrap_or(usual.factor),
            percent: percent.unwrap_or(usual.percent),
            weight: rule
                .small_integer("weight", 0..=100)
                .unwrap_or(usual.weight),
        };
        rule.close();
        read
    }

    fn spec(&self) -> Value {
        let mut spec = json!({ "atLeast": self.at_least, "weight": self.weight });
        if self.factor > 1 {
            spec["factor"] = json!(self.factor);
        }
        if self.percent > 0 {
            spec["percent"] = json!(self.percent);
        }
        spec
    }
}

impl Default for Signals {
    fn default() -> Self {
        Self {
            new_networks: SignalRule::jump(10, 3, 3),
            volume: SignalRule::jump(200, 4, 2),
            refusals: SignalRule {
                percent: 30,
                ..SignalRule::floor(20, 2)
            },
            senders: SignalRule::jump(20, 3, 1),
            guessed: SignalRule::floor(5, 3),
            preflight: SignalRule::floor(100, 1),
        }
    }
}

/// Recipients in an hour where nothing is said.
const SLOW_TO: Quota = Quota {
    count: 60,
    window: Span::from_secs(3_600),
};

impl Watch {
    /// `None` where nothing is said of it.
    pub(super) fn read(spec: &Fields<'_>) -> Option<Self> {
        let is_given = spec.is_given("watch");
        let fields = spec.map("watch");
        let rules = fields.map("signals");
        let usual = Signals::default();
        let read = |name, usual| SignalRule::read(&rules, name, usual);
        let signals = Signals {
            new_networks: read("newNetworks", usual.new_networks),
            volume: read("volume", usual.volume),
            refusals: read("refusals", usual.refusals),
            senders: read("senders", usual.senders),
            guessed: read("guessed", usual.guessed),
            preflight: read("preflight", usual.preflight),
        };
        rules.close();
        let at = |name| fields.small_integer(name, 1..=600);
        let steps = [
            ("slowAt", at("slowAt")),
            ("holdAt", at("holdAt")),
            ("lockAt", at("lockAt")),
        ];
        let mut before: Option<(&str, u32)> = None;
        for (name, weight) in steps {
            let Some(weight) = weight else { continue };
            if let Some((lower, least)) = before
                && weight <= least
            {
                fields.problem(name, format!("more than {lower} ({least}) is expected"));
            }
            before = Some((name, weight));
        }
        let day = Span::from_secs(86_400);
        let lasts = span(&fields, "lasts", Span::from_secs(600), "10m");
        let lock_lasts = span(&fields, "lockLasts", Span::from_secs(600), "10m");
        let learn: Option<Span> = fields.parsed("learn");
        if learn.is_some_and(|learn| learn > Span::from_secs(14 * 86_400)) {
            fields.problem("learn", "at most 14d is expected");
        }
        let watch = Self {
            enabled: fields.boolean("enabled").unwrap_or(true),
            signals,
            slow_at: steps[0].1,
            hold_at: steps[1].1,
            lock_at: steps[2].1,
            slow_to: fields.parsed("slowTo").unwrap_or(SLOW_TO),
            lasts: lasts.unwrap_or(Span::from_secs(4 * 3_600)),
            lock_lasts,
            learn: learn.unwrap_or(day),
        };
        fields.close();
        is_given.then_some(watch)
    }

    pub(super) fn spec(&self) -> Value {
        let Signals {
            new_networks,
            volume,
            refusals,
            senders,
            guessed,
            preflight,
        } = &self.signals;
        let mut spec = json!({
            "enabled": self.enabled,
            "signals": {
                "newNetworks": new_networks.spec(),
                "volume": volume.spec(),
                "refusals": refusals.spec(),
                "senders": senders.spec(),
                "guessed": guessed.spec(),
                "preflight": preflight.spec(),
            },
            "slowTo": self.slow_to.to_string(),
            "lasts": self.lasts.to_string(),
            "learn": self.learn.to_string(),
        });
        let steps = [
            ("slowAt", self.slow_at),
            ("holdAt", self.hold_at),
            ("lockAt", self.lock_at),
        ];
        for (name, weight) in steps {
            if let Some(weight) = weight {
                spec[name] = json!(weight);
            }
        }
        if let Some(span) = self.lock_lasts {
            spec["lockLasts"] = json!(span.to_string());
        }
        spec
    }
}

fn span(fields: &Fields<'_>, name: &'static str, least: Span, text: &str) -> Option<Span> {
    let span: Option<Span> = fields.parsed(name);
    if span.is_some_and(|span| !(least..=Span::from_secs(31 * 86_400)).contains(&span)) {
        fields.problem(name, format!("{text} to 31d is expected"));
    }
    span
}
