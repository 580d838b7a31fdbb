//! What is done to the messages of a tenant before they are accepted: `preflight` and `repair` of a Tenant.

mod words;

use serde_json::{Map, Value, json};

use crate::Fields;

pub use words::{WordList, WordText};

/// Checks of messages. Without any there is none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Preflight {
    /// In the order of the document.
    pub checks: Vec<Check>,
    /// A message whose warnings weigh so much together is refused; `None`: never.
    pub reject_at: Option<u32>,
    /// Warnings are put into the message.
    pub warn_header: bool,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is looked for.
    pub rule: CheckRule,
    /// What follows when it is found.
    pub action: CheckAction,
    /// Of a warning, 1 to 100.
    pub weight: u32,
    /// Streams whose messages are looked at; empty: all.
    pub streams: Vec<String>,
}

/// What a check looks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckRule {
    /// No `Subject`, or an empty one.
    NoSubject,
    /// Neither `To` nor `Cc`.
    NoRecipientField,
    /// No `List-Unsubscribe`.
    NoUnsubscribe,
    /// No `List-Unsubscribe-Post`.
    NoOneClick,
    /// Lines that are no header fields.
    MalformedHeader,
    /// Octets beyond ASCII without SMTPUTF8.
    EightBitHeader,
    /// The author's domain is not aligned with that of the return path.
    UnalignedFrom,
    /// More links than `most` to http and https URLs.
    ManyLinks {
        /// 0 to 10,000.
        most: u32,
    },
    /// A word or phrase of a list, in subject or text.
    SpamWords(WordList),
    /// What was to be replaced in a template, or is said to nobody in particular.
    GenericText,
    /// An HTML text of images with fewer letters and digits than `least`.
    TooLittleText {
        /// 1 to 10,000.
        least: u32,
    },
    /// A MIME structure that readers can't read.
    BrokenMime,
}

/// What follows when it is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckAction {
    /// It is not looked for.
    Ignore,
    /// It is counted and said.
    Warn,
    /// The message is refused.
    Reject,
}

/// Checks of a tenant.
const MOST_CHECKS: usize = 64;
/// Letters and digits beside the images of an HTML text when nothing is said.
const LEAST_TEXT: u32 = 40;

/// Reads what a rule is told, beside its name.
type ReadRule = fn(&Fields<'_>) -> Option<CheckRule>;

const RULES: [(&str, ReadRule); 12] = [
    ("noSubject", |_| Some(CheckRule::NoSubject)),
    ("noRecipientField", |_| Some(CheckRule::NoRecipientField)),
    ("noUnsubscribe", |_| Some(CheckRule::NoUnsubscribe)),
    ("noOneClick", |_| Some(CheckRule::NoOneClick)),
    ("malformedHeader", |_| Some(CheckRule::MalformedHeader)),
    ("eightBitHeader", |_| Some(CheckRule::EightBitHeader)),
    ("unalignedFrom", |_| Some(CheckRule::UnalignedFrom)),
    ("manyLinks", read_many_links),
    ("spamWords", read_spam_words),
    ("genericText", |_| Some(CheckRule::GenericText)),
    ("tooLittleText", read_too_little_text),
    ("brokenMime", |_| Some(CheckRule::BrokenMime)),
];

const ACTIONS: [(&str, CheckAction); 3] = [
    ("ignore", CheckAction::Ignore),
    ("warn", CheckAction::Warn),
    ("reject", CheckAction::Reject),
];

impl CheckRule {
    /// As in the configuration.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NoSubject => "noSubject",
            Self::NoRecipientField => "noRecipientField",
            Self::NoUnsubscribe => "noUnsubscribe",
            Self::NoOneClick => "noOneClick",
            Self::MalformedHeader => "malformedHeader",
            Self::EightBitHeader => "eightBitHeader",
            Self::UnalignedFrom => "unalignedFrom",
            Self::ManyLinks { .. } => "manyLinks",
            Self::SpamWords(_) => "spamWords",
            Self::GenericText => "genericText",
            Self::TooLittleText { .. } => "tooLittleText",
            Self::BrokenMime => "brokenMime",
        }
    }

    /// Whether it looks at more than the header section and the envelope.
    pub fn is_of_content(&self) -> bool {
        match self {
            Self::ManyLinks { .. }
            | Self::SpamWords(_)
            | Self::GenericText
            | Self::TooLittleText { .. }
            | Self::BrokenMime => true,
            Self::NoSubject
            | Self::NoRecipientField
            | Self::NoUnsubscribe
            | Self::NoOneClick
            | Self::MalformedHeader
            | Self::EightBitHeader
            | Self::UnalignedFrom => false,
        }
    }
}

fn read_many_links(fields: &Fields<'_>) -> Option<CheckRule> {
    if !fields.is_given("most") {
        fields.problem("most", "is missing: how many links a message may have");
    }
    let most = fields.small_integer("most", 0..=10_000)?;
    Some(CheckRule::ManyLinks { most })
}

fn read_spam_words(fields: &Fields<'_>) -> Option<CheckRule> {
    let given = fields.is_given("words");
    let words = fields.read_list("words", WordList::read_word);
    if !given {
        fields.problem(
            "words",
            "is missing: the words and phrases that are looked for",
        );
        return None;
    }
    // What is wrong with all of them is said already.
    if words.is_empty() && !fields.is_empty_list("words") {
        return None;
    }
    match WordList::new(words) {
        Ok(words) => Some(CheckRule::SpamWords(words)),
        Err(what) => {
            fields.problem("words", what);
            None
        }
    }
}

fn read_too_little_text(fields: &Fields<'_>) -> Option<CheckRule> {
    let least = fields.small_integer("least", 1..=10_000);
    Some(CheckRule::TooLittleText {
        least: least.unwrap_or(LEAST_TEXT),
    })
}

impl Check {
    /// `streams` are those of the tenant.
    fn read(entry: &Fields<'_>, streams: &[&str]) -> Option<Self> {
        let read_rule = match entry.required_text("rule") {
            Some(_) => entry.one_of("rule", &RULES),
            None => None,
        };
        let action = entry
            .one_of("action", &ACTIONS)
            .unwrap_or(CheckAction::Warn);
        let weight = entry.small_integer("weight", 1..=100);
        if weight.is_some() && action == CheckAction::Reject {
            entry.problem("weight", "has no meaning: what is found is refused");
        }
        let of_streams = entry.read_list("streams", |name| {
            if streams.contains(&name) {
                Ok(name.to_owned())
            } else {
                Err("the name of a stream of the tenant is expected".to_owned())
            }
        });
        Some(Self {
            rule: read_rule?(entry)?,
            action,
            weight: weight.unwrap_or(1),
            streams: of_streams,
        })
    }

    fn spec(&self) -> Value {
        let mut spec = json!({
            "rule": self.rule.name(),
            "action": super::word(&ACTIONS, self.action),
        });
        match &self.rule {
            CheckRule::ManyLinks { most } => spec["most"] = json!(most),
            CheckRule::SpamWords(words) => spec["words"] = json!(words.words()),
            CheckRule::TooLittleText { least } => spec["least"] = json!(least),
            _ => {}
        }
        if self.action != CheckAction::Reject {
            spec["weight"] = json!(self.weight);
        }
        if !self.streams.is_empty() {
            spec["streams"] = json!(self.streams);
        }
        spec
    }
}

impl Preflight {
    /// The checks that are made for a stream.
    pub fn of_stream<'a>(&'a self, stream: &'a str) -> impl Iterator<Item = &'a Check> {
        self.checks.iter().filter(move |check| {
            let is_of_it =
                check.streams.is_empty() || check.streams.iter().any(|name| name == stream);
            is_of_it && check.action != CheckAction::Ignore
        })
    }

    /// Whether more than the header sections of a stream's messages is looked at.
    pub fn looks_at_content(&self, stream: &str) -> bool {
        self.of_stream(stream)
            .any(|check| check.rule.is_of_content())
    }

    /// `streams` are those of the tenant.
    pub(super) fn read(fields: &Fields<'_>, streams: &[&str]) -> Self {
        let entries = fields.maps("checks");
        if entries.len() > MOST_CHECKS {
            let what = format!("at most {MOST_CHECKS} checks are expected");
            fields.problem("checks", what);
        }
        let mut checks: Vec<Check> = Vec::new();
        for entry in entries {
            checks.extend(Check::read(&entry, streams));
            entry.close();
        }
        Self {
            checks,
            reject_at: fields.small_integer("rejectAt", 1..=10_000),
            warn_header: fields.boolean("warnHeader").unwrap_or(false),
        }
    }

    /// `None` when nothing is set.
    pub(super) fn spec(&self) -> Option<Value> {
        if *self == Self::default() {
            return None;
        }
        let checks: Vec<Value> = self.checks.iter().map(Check::spec).collect();
        let mut spec = json!({ "checks": checks, "warnHeader": self.warn_header });
        if let Some(reject_at) = self.reject_at {
            spec["rejectAt"] = json!(reject_at);
        }
        Some(spec)
    }
}

/// What is mended in messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repair {
    /// `Date` is added where it is missing.
    pub date: bool,
    /// So is `Message-ID`.
    pub message_id: bool,
    /// What becomes of lines that are too long.
    pub long_lines: LongLines,
}

/// What becomes of lines of more than 998 octets (RFC 5322 section 2.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LongLines {
    /// They are broken, before anything is hashed; those of a message that came with a signature are kept.
    #[default]
    Break,
    /// They stay as they are. Some hosts refuse them, others break them after they were signed.
    Keep,
    /// The message is refused.
    Reject,
}

const LONG_LINES: [(&str, LongLines); 3] = [
    ("break", LongLines::Break),
    ("keep", LongLines::Keep),
    ("reject", LongLines::Reject),
];

impl Default for Repair {
    fn default() -> Self {
        Self {
            date: true,
            message_id: true,
            long_lines: LongLines::default(),
        }
    }
}

impl Repair {
    pub(super) fn read(fields: &Fields<'_>) -> Self {
        Self {
            date: fields.boolean("date").unwrap_or(true),
            message_id: fields.boolean("messageId").unwrap_or(true),
            long_lines: fields.one_of("longLines", &LONG_LINES).unwrap_or_default(),
        }
    }

    /// `None` when nothing is set.
    pub(super) fn spec(self) -> Option<Value> {
        let mut spec = Map::new();
        for (name, is_added) in [("date", self.date), ("messageId", self.message_id)] {
            if !is_added {
                spec.insert(name.to_owned(), json!(false));
            }
        }
        if self.long_lines != LongLines::default() {
            let word = super::word(&LONG_LINES, self.long_lines);
            spec.insert("longLines".to_owned(), json!(word));
        }
        (!spec.is_empty()).then_some(Value::Object(spec))
    }
}
