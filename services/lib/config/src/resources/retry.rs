//! The part of a Route that says when a deferred delivery is tried again.

use mail::Span;
use serde_json::{Map, Value, json};

use crate::Fields;

/// Entries of a list of waits.
const MOST_WAITS: usize = 64;
/// The longest maximum age.
const LONGEST: Span = Span::from_secs(30 * 86_400);

/// Why a delivery is deferred, as far as a schedule of its own is possible for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryClass {
    /// The recipient is said not to exist, for now.
    Recipient,
    /// The mailbox is over its quota.
    MailboxFull,
    /// Refused for now by a rule about the sender.
    Policy,
    /// Too much at once.
    Throttled,
    /// First contact is refused on purpose (RFC 6647).
    Greylisted,
    /// The other side, or the way to it, does not work.
    Infrastructure,
    /// The content.
    Content,
    /// The name servers of the domain do not answer.
    Dns,
}

const CLASSES: [(&str, RetryClass); 8] = [
    ("recipient", RetryClass::Recipient),
    ("mailboxFull", RetryClass::MailboxFull),
    ("policy", RetryClass::Policy),
    ("throttled", RetryClass::Throttled),
    ("greylisted", RetryClass::Greylisted),
    ("infrastructure", RetryClass::Infrastructure),
    ("content", RetryClass::Content),
    ("dns", RetryClass::Dns),
];

/// When deferred deliveries are tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetryPolicy {
    usual: RetrySchedule,
    own: [Option<Box<RetrySchedule>>; CLASSES.len()],
    /// Bounds of the time that a reply asks to wait ("try again in 5 minutes"); a `most` of 0: no reply is asked.
    pub asked: AskedWait,
}

/// The waits from one attempt to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetrySchedule {
    /// Before each further attempt.
    pub waits: RetryWaits,
    /// Each wait is longer or shorter by up to this, 0 to 50.
    pub jitter_percent: u32,
    /// A delivery that is deferred for the class is given up when it is older; `None`: the route's maximum age holds.
    pub max_age: Option<Span>,
}

/// How long to wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RetryWaits {
    /// The n-th wait is `initial · factor^(n − 1)`, at most `max`.
    Exponential {
        /// The first wait.
        initial: Span,
        /// 1 to 10.
        factor: u32,
        /// The longest wait.
        max: Span,
    },
    /// The n-th wait is the n-th of the list, and after its end the last one. Never empty.
    List(Vec<Span>),
}

/// Bounds of the time that a reply asks to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AskedWait {
    /// A shorter time is taken as this.
    pub least: Span,
    /// A longer time is taken as this.
    pub most: Span,
}

const USUAL_WAITS: (Span, u32, Span) = (Span::from_secs(300), 2, Span::from_secs(4 * 3600));
const USUAL_JITTER: u32 = 10;
const USUAL_ASKED: AskedWait = AskedWait {
    least: Span::from_secs(30),
    most: Span::from_secs(4 * 3600),
};

impl RetryPolicy {
    /// The schedule for a class, and whether it is of that class alone.
    pub fn schedule(&self, class: Option<RetryClass>) -> (&RetrySchedule, bool) {
        match class.and_then(|class| self.own[class as usize].as_deref()) {
            Some(own) => (own, true),
            None => (&self.usual, false),
        }
    }

    pub(super) fn read(fields: &Fields<'_>) -> Self {
        let (initial, factor, max) = USUAL_WAITS;
        let shipped = RetrySchedule {
            waits: RetryWaits::Exponential {
                initial,
                factor,
                max,
            },
            jitter_percent: USUAL_JITTER,
            max_age: None,
        };
        let usual = read_schedule(fields, &shipped);
        let classes = fields.map("classes");
        let own = CLASSES.map(|(name, _)| {
            let given = classes.is_given(name);
            let class = classes.map(name);
            let schedule = given.then(|| {
                let mut schedule = read_schedule(&class, &usual);
                schedule.max_age = class.parsed("maxAge");
                if let Some(age) = schedule.max_age
                    && !(Span::from_secs(1)..=LONGEST).contains(&age)
                {
                    class.problem("maxAge", format!("1s to 30d is expected, found {age}"));
                }
                Box::new(schedule)
            });
            class.close();
            schedule
        });
        classes.close();
        Self {
            usual,
            own,
            asked: read_asked(&fields.map("tryAgainIn")),
        }
    }

    pub(super) fn spec(&self) -> Value {
        let mut spec = schedule_spec(&self.usual);
        spec.insert(
            "tryAgainIn".to_owned(),
            json!({ "least": self.asked.least.to_string(), "most": self.asked.most.to_string() }),
        );
        let own = CLASSES
            .iter()
            .zip(&self.own)
            .filter_map(|((name, _), own)| {
                let spec = schedule_spec(own.as_deref()?);
                Some(((*name).to_owned(), Value::Object(spec)))
            });
        let own: Map<String, Value> = own.collect();
        if !own.is_empty() {
            spec.insert("classes".to_owned(), Value::Object(own));
        }
        Value::Object(spec)
    }
}

fn schedule_spec(schedule: &RetrySchedule) -> Map<String, Value> {
    let mut spec = Map::new();
    let mut put = |name: &str, value: Value| spec.insert(name.to_owned(), value);
    match &schedule.waits {
        RetryWaits::Exponential {
            initial,
            factor,
            max,
        } => {
            put("initial", json!(initial.to_string()));
            put("factor", json!(factor));
            put("max", json!(max.to_string()));
        }
        RetryWaits::List(waits) => {
            let waits: Vec<String> = waits.iter().map(Span::to_string).collect();
            put("waits", json!(waits));
        }
    }
    put("jitter", json!(schedule.jitter_percent));
    if let Some(age) = schedule.max_age {
        put("maxAge", json!(age.to_string()));
    }
    spec
}

/// What is not said is as in `otherwise`.
fn read_schedule(fields: &Fields<'_>, otherwise: &RetrySchedule) -> RetrySchedule {
    let is_list = fields.is_given("waits");
    let exponential: Vec<&str> = ["initial", "factor", "max"]
        .into_iter()
        .filter(|name| fields.is_given(name))
        .collect();
    let waits = if is_list {
        if let Some(name) = exponential.first() {
            fields.problem(
                name,
                "is given together with waits: one of them is expected",
            );
        }
        read_waits(fields)
    } else if exponential.is_empty() {
        otherwise.waits.clone()
    } else {
        let (initial, factor, max) = match otherwise.waits {
            RetryWaits::Exponential {
                initial,
                factor,
                max,
            } => (initial, factor, max),
            RetryWaits::List(_) => USUAL_WAITS,
        };
        read_exponential(fields, initial, factor, max)
    };
    RetrySchedule {
        waits,
        jitter_percent: fields
            .small_integer("jitter", 0..=50)
            .unwrap_or(otherwise.jitter_percent),
        max_age: None,
    }
}

fn read_waits(fields: &Fields<'_>) -> RetryWaits {
    let waits: Vec<Span> = fields.parsed_list("waits");
    if waits.is_empty() || waits.len() > MOST_WAITS {
        let what = format!("1 to {MOST_WAITS} durations are expected");
        fields.problem("waits", what);
        return RetryWaits::List(vec![USUAL_WAITS.0]);
    }
    if waits.iter().any(|wait| wait.as_millis() == 0) {
        fields.problem("waits", "must not hold 0");
    }
    RetryWaits::List(waits)
}

fn read_exponential(fields: &Fields<'_>, initial: Span, factor: u32, max: Span) -> RetryWaits {
    let initial = fields.parsed("initial").unwrap_or(initial);
    // Of a class that only begins later, the longest wait of the others is no problem.
    let max = fields
        .parsed("max")
        .unwrap_or(match fields.is_given("max") {
            true => max,
            false => max.max(initial),
        });
    if initial.as_millis() == 0 {
        fields.problem("initial", "must not be 0");
    }
    if max < initial {
        let what = format!("must not be shorter than initial ({initial}), found {max}");
        fields.problem("max", what);
    }
    RetryWaits::Exponential {
        initial,
        factor: fields.small_integer("factor", 1..=10).unwrap_or(factor),
        max,
    }
}

fn read_asked(fields: &Fields<'_>) -> AskedWait {
    let asked = AskedWait {
        least: fields.parsed("least").unwrap_or(USUAL_ASKED.least),
        most: fields.parsed("most").unwrap_or(USUAL_ASKED.most),
    };
    if asked.most.as_millis() > 0 && asked.most < asked.least {
        let what = format!(
            "must not be shorter than least ({}), found {}; 0 = no reply is asked",
            asked.least, asked.most
        );
        fields.problem("most", what);
    }
    fields.report_unknown();
    asked
}
