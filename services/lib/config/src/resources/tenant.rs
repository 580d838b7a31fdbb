//! Kind Tenant.

use mail::Span;
use serde_json::{Value, json};

use super::names::{LABEL_FORM, is_label};
use super::window::{self, MOST_HOURS, OpenHours, Timing, Window};
use super::{Allowance, Headers, Preflight, Repair, Suppression, Watch, scanner};
use crate::Fields;

/// A customer whose mail is isolated from the others'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Unique.
    pub name: String,
    /// Its share of a lane against that of other tenants, 1 to 1000.
    pub weight: u16,
    /// The stream of mail that names none; one of `streams`.
    pub default_stream: String,
    /// At least one.
    pub streams: Vec<Stream>,
    /// Of all its mail.
    pub limits: Allowance,
    /// What becomes of its mail.
    pub mode: Mode,
    /// Whether credentials of it may forward mail of senders who are not of it.
    pub may_forward: bool,
    /// For how long what is accepted on hold may be so, 1 s to 30 d.
    pub max_hold: Span,
    /// What becomes of it then.
    pub when_hold_ends: HoldEnd,
    /// What its messages are looked over for.
    pub preflight: Preflight,
    /// What they get where it is missing.
    pub repair: Repair,
    /// What is noticed of its credentials.
    pub watch: Option<Watch>,
    /// Names of the scanners that look at its messages.
    pub scanners: Vec<String>,
    /// What is done about addresses that nothing should be sent to.
    pub suppression: Suppression,
}

/// What becomes of accepted mail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// It is sent.
    #[default]
    Send,
    /// It is kept until somebody releases it.
    Hold,
    /// The simulator answers for all recipients: nothing of it leaves.
    Sandbox,
}

pub(super) const MODE: [(&str, Mode); 3] = [
    ("send", Mode::Send),
    ("hold", Mode::Hold),
    ("sandbox", Mode::Sandbox),
];

/// What becomes of mail that is on hold for too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum HoldEnd {
    /// It expires, and its sender is told.
    #[default]
    Return,
    /// It is cancelled.
    Discard,
}

const HOLD_END: [(&str, HoldEnd); 2] = [("return", HoldEnd::Return), ("discard", HoldEnd::Discard)];

/// How long mail may be on hold: when nothing is said, and at most.
const USUAL_HOLD: Span = Span::from_secs(7 * 86_400);
const LONGEST_HOLD: Span = Span::from_secs(30 * 86_400);

/// A traffic class of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Unique in the tenant.
    pub name: String,
    /// Its share of what its tenant has of a lane, 1 to 1000.
    pub weight: u16,
    /// Whether it goes before others.
    pub priority: Priority,
    /// The highest MT-PRIORITY of its messages, 0 to 9.
    pub most_priority: i8,
    /// What becomes of its attempts in doubt.
    pub in_doubt: InDoubt,
    /// From acceptance, or the time before which it must not be sent, to its expiry; `None`: the route's maximum age.
    pub expires_after: Option<Span>,
    /// Ages at which senders are told that delivery is delayed, ascending; `None`: only those who ask, after 4 hours.
    pub delay_notices: Option<Vec<Span>>,
    /// When it is sent; `None`: as soon as it can be.
    pub timing: Option<Box<Timing>>,
    /// Fields that its messages get where they have none of their own.
    pub headers: Option<Box<Headers>>,
    /// What becomes of its mail; the tenant's and the credential's hold besides.
    pub mode: Mode,
    /// Names of the scanners that look at its messages; `None`: the tenant's.
    pub scanners: Option<Vec<String>>,
    /// Its mail is asked for one by one: complaints and unsubscriptions do not end it.
    pub transactional: bool,
    /// What is done about addresses that nothing should be sent to.
    pub suppression: Suppression,
}

/// Whether mail goes before other mail of its lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Priority {
    /// Before what is normal, whosever it is; what is normal keeps a share.
    High,
    /// As it comes.
    Normal,
}

impl Priority {
    /// The highest MT-PRIORITY of a stream that says nothing of it.
    fn most(self) -> i8 {
        match self {
            Self::High => 9,
            Self::Normal => 0,
        }
    }
}

/// The stream that is transactional and has high priority when nothing is said.
const TRANSACTIONAL: &str = "transactional";

/// What becomes of an attempt that was begun and has no outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InDoubt {
    /// Tried again later: a duplicate is better than a loss.
    Retry,
    /// Kept until somebody decides.
    Hold,
    /// Counted as failed: a loss is better than a duplicate.
    GiveUp,
}

const PRIORITY: [(&str, Priority); 2] = [("high", Priority::High), ("normal", Priority::Normal)];

const IN_DOUBT: [(&str, InDoubt); 3] = [
    ("retry", InDoubt::Retry),
    ("hold", InDoubt::Hold),
    ("giveUp", InDoubt::GiveUp),
];

impl Tenant {
    /// The stream of this name.
    pub fn stream(&self, name: &str) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.name == name)
    }

    /// Names of the scanners that look at messages of a stream.
    pub fn scanners_of(&self, stream: &str) -> &[String] {
        let own = self
            .stream(stream)
            .and_then(|stream| stream.scanners.as_deref());
        own.unwrap_or(&self.scanners)
    }

    /// What is done about addresses that nothing should be sent to by a stream.
    pub fn suppression_of(&self, stream: &str) -> &Suppression {
        let own = self.stream(stream).map(|stream| &stream.suppression);
        own.unwrap_or(&self.suppression)
    }

    pub(super) fn read(name: &str, spec: &Fields<'_>) -> Option<Self> {
        let suppression = Suppression::read(spec, &Suppression::default());
        let mut streams: Vec<Stream> = Vec::new();
        for fields in spec.maps("streams") {
            let in_doubt = fields
                .one_of("inDoubt", &IN_DOUBT)
                .unwrap_or(InDoubt::Retry);
            let weight = weight(&fields);
            let priority = fields.one_of("priority", &PRIORITY);
            let most_priority = fields.small_integer("mostPriority", 0..=9);
            let expires_after = read_expires_after(&fields);
            let delay_notices = read_delay_notices(&fields);
            let timing = read_timing(&fields);
            let header_fields = fields.map("headers");
            let headers = Headers::read(&header_fields);
            header_fields.close();
            let mode = fields.one_of("mode", &MODE).unwrap_or_default();
            let scanners = scanner::read_names(&fields);
            let transactional = fields.boolean("transactional");
            let suppression = Suppression::read(&fields, &suppression);
            if let Some(name) = fields.required_text("name") {
                if !is_label(name) {
                    fields.problem("name", format!("{LABEL_FORM}, found {name:?}"));
                }
                if streams.iter().any(|stream| stream.name == name) {
                    fields.problem("name", format!("{name:?} is used twice"));
                }
                let usual = match name {
                    TRANSACTIONAL => Priority::High,
                    _ => Priority::Normal,
                };
                let priority = priority.unwrap_or(usual);
                streams.push(Stream {
                    name: name.to_owned(),
                    weight,
                    priority,
                    most_priority: most_priority
                        .and_then(|most| i8::try_from(most).ok())
                        .unwrap_or(priority.most()),
                    in_doubt,
                    expires_after,
                    delay_notices,
                    timing,
                    headers,
                    mode,
                    scanners,
                    transactional: transactional.unwrap_or(name == TRANSACTIONAL),
                    suppression,
                });
            }
            fields.close();
        }
        if streams.is_empty() {
            spec.problem("streams", "at least one stream is expected");
        }
        let weight = weight(spec);
        let mode = spec.one_of("mode", &MODE);
        let may_forward = spec.boolean("mayForward").unwrap_or(false);
        let max_hold = read_max_hold(spec);
        let when_hold_ends = spec.one_of("whenHoldEnds", &HOLD_END);
        let preflight_fields = spec.map("preflight");
        let names: Vec<&str> = streams.iter().map(|stream| stream.name.as_str()).collect();
        let preflight = Preflight::read(&preflight_fields, &names);
        preflight_fields.close();
        let repair_fields = spec.map("repair");
        let repair = Repair::read(&repair_fields);
        repair_fields.close();
        let scanners = scanner::read_names(spec);
        let limits = spec.map("limits");
        let allowance = Allowance::read(&limits);
        limits.close();
        let watch = Watch::read(spec);
        let default_stream = spec.required_text("defaultStream")?;
        if !streams.iter().any(|stream| stream.name == default_stream) {
            let known: Vec<&str> = streams.iter().map(|stream| stream.name.as_str()).collect();
            let what = format!(
                "no stream named {default_stream:?}; known: {}",
                known.join(", ")
            );
            spec.problem("defaultStream", what);
        }
        Some(Self {
            name: name.to_owned(),
            weight,
            default_stream: default_stream.to_owned(),
            streams,
            limits: allowance,
            mode: mode.unwrap_or_default(),
            may_forward,
            max_hold,
            when_hold_ends: when_hold_ends.unwrap_or_default(),
            preflight,
            repair,
            watch,
            scanners: scanners.unwrap_or_default(),
            suppression,
        })
    }

    pub(super) fn spec(&self) -> Value {
        let stream = |stream: &Stream| {
            let mut spec = json!({
                "name": stream.name,
                "weight": stream.weight,
                "priority": super::word(&PRIORITY, stream.priority),
                "inDoubt": super::word(&IN_DOUBT, stream.in_doubt),
            });
            if stream.most_priority != stream.priority.most() {
                spec["mostPriority"] = json!(stream.most_priority);
            }
            if let Some(span) = stream.expires_after {
                spec["expiresAfter"] = json!(span.to_string());
            }
            if let Some(ages) = &stream.delay_notices {
                let ages: Vec<String> = ages.iter().map(Span::to_string).collect();
                spec["delayNotices"] = json!(ages);
            }
            if let Some(timing) = &stream.timing {
                spec["spread"] = json!(timing.spread.to_string());
                spec["delay"] = json!(timing.delay.to_string());
                if let Some(window) = &timing.window {
                    let open: Vec<String> =
                        window.open().iter().map(OpenHours::to_string).collect();
                    spec["window"] = json!({ "zone": window.zone(), "open": open });
                }
            }
            if let Some(headers) = &stream.headers {
                spec["headers"] = headers.spec();
            }
            if stream.mode != Mode::default() {
                spec["mode"] = json!(super::word(&MODE, stream.mode));
            }
            if let Some(scanners) = &stream.scanners {
                spec["scanners"] = json!(scanners);
            }
            if stream.transactional != (stream.name == TRANSACTIONAL) {
                spec["transactional"] = json!(stream.transactional);
            }
            if let Some(suppression) = stream.suppression.spec(&self.suppression) {
                spec["suppression"] = suppression;
            }
            spec
        };
        let streams: Vec<Value> = self.streams.iter().map(stream).collect();
        let mut spec = json!({ "weight": self.weight, "defaultStream": self.default_stream, "streams": streams });
        if let Some(limits) = self.limits.spec() {
            spec["limits"] = limits;
        }
        if self.mode != Mode::default() {
            spec["mode"] = json!(super::word(&MODE, self.mode));
        }
        if self.may_forward {
            spec["mayForward"] = json!(true);
        }
        if self.max_hold != USUAL_HOLD {
            spec["maxHold"] = json!(self.max_hold.to_string());
        }
        if self.when_hold_ends != HoldEnd::default() {
            spec["whenHoldEnds"] = json!(super::word(&HOLD_END, self.when_hold_ends));
        }
        if let Some(preflight) = self.preflight.spec() {
            spec["preflight"] = preflight;
        }
        if let Some(repair) = self.repair.spec() {
            spec["repair"] = repair;
        }
        if let Some(watch) = &self.watch {
            spec["watch"] = watch.spec();
        }
        if !self.scanners.is_empty() {
            spec["scanners"] = json!(self.scanners);
        }
        if let Some(suppression) = self.suppression.spec(&Suppression::default()) {
            spec["suppression"] = suppression;
        }
        spec
    }
}

/// The longest delay of a first attempt, and the longest spread where there is no window.
const LONGEST_DELAY: Span = Span::from_secs(30 * 86_400);
const LONGEST_SPREAD: Span = Span::from_secs(7 * 86_400);
const NONE: Span = Span::from_secs(0);
/// Notices of delay about a recipient.
const MOST_NOTICES: usize = 8;
/// Of those who ask for them with NOTIFY=DELAY when the stream says nothing.
const ASKED_NOTICES: [Span; 1] = [Span::from_secs(4 * 3600)];

impl Stream {
    /// Ages at which the sender of a message is told that delivery is delayed; `asked`: with NOTIFY=DELAY.
    pub fn delay_notices(&self, asked: bool) -> &[Span] {
        match &self.delay_notices {
            Some(ages) => ages,
            None if asked => &ASKED_NOTICES,
            None => &[],
        }
    }
}

fn read_expires_after(fields: &Fields<'_>) -> Option<Span> {
    let span = fields.parsed("expiresAfter")?;
    if !(Span::from_secs(1)..=LONGEST_DELAY).contains(&span) {
        fields.problem(
            "expiresAfter",
            format!("1s to 30d is expected, found {span}"),
        );
    }
    Some(span)
}

fn read_max_hold(fields: &Fields<'_>) -> Span {
    let span = fields.parsed("maxHold").unwrap_or(USUAL_HOLD);
    if !(Span::from_secs(1)..=LONGEST_HOLD).contains(&span) {
        fields.problem("maxHold", format!("1s to 30d is expected, found {span}"));
    }
    span
}

fn read_delay_notices(fields: &Fields<'_>) -> Option<Vec<Span>> {
    if !fields.is_given("delayNotices") {
        return None;
    }
    let ages: Vec<Span> = fields.parsed_list("delayNotices");
    let ascend = ages.windows(2).all(|pair| pair[0] < pair[1]);
    if ages.len() > MOST_NOTICES || !ascend || ages.first().is_some_and(|age| *age <= NONE) {
        let what = format!("at most {MOST_NOTICES} ages above 0 are expected, the shortest first");
        fields.problem("delayNotices", what);
    }
    Some(ages)
}

fn read_timing(fields: &Fields<'_>) -> Option<Box<Timing>> {
    let timing = Timing {
        window: read_window(fields),
        spread: fields.parsed("spread").unwrap_or(NONE),
        delay: fields.parsed("delay").unwrap_or(NONE),
    };
    if timing.delay > LONGEST_DELAY {
        let what = format!("0 to 30d is expected, found {}", timing.delay);
        fields.problem("delay", what);
    }
    match &timing.window {
        Some(window) if timing.spread >= window.weekly() => {
            let what = format!(
                "must be shorter than the window is open in a week ({}), found {}",
                window.weekly(),
                timing.spread
            );
            fields.problem("spread", what);
        }
        None if timing.spread > LONGEST_SPREAD => {
            let what = format!("0 to 7d is expected, found {}", timing.spread);
            fields.problem("spread", what);
        }
        _ => {}
    }
    let says_something = timing.window.is_some() || timing.spread > NONE || timing.delay > NONE;
    says_something.then(|| Box::new(timing))
}

fn read_window(fields: &Fields<'_>) -> Option<Window> {
    let given = fields.is_given("window");
    let window = fields.map("window");
    if !given {
        return None;
    }
    let zone = window.read("zone", window::zone);
    if !window.is_given("zone") {
        window.problem(
            "zone",
            "is missing: the name of a time zone such as Europe/Rome",
        );
    }
    let open = window.read_list("open", OpenHours::parse);
    if !window.is_given("open") {
        window.problem("open", "is missing: it would never be open");
    } else if open.len() > MOST_HOURS {
        window.problem("open", format!("at most {MOST_HOURS} entries are expected"));
    }
    let is_empty = window.is_empty_list("open");
    if is_empty {
        window.problem("open", "is empty: it would never be open");
    }
    window.close();
    (!open.is_empty()).then_some(Window::new(zone?, open))
}

fn weight(fields: &Fields<'_>) -> u16 {
    let weight = fields.small_integer("weight", 1..=1000).unwrap_or(1);
    u16::try_from(weight).unwrap_or(1)
}
