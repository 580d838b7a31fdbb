//! Kind Tenant.

use serde_json::{Value, json};

use super::names::{LABEL_FORM, is_label};
use crate::Fields;

/// A customer whose mail is isolated from the others'.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// Unique.
    pub name: String,
    /// The stream of mail that names none; one of `streams`.
    pub default_stream: String,
    /// At least one.
    pub streams: Vec<Stream>,
}

/// A traffic class of a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// Unique in the tenant.
    pub name: String,
    /// What becomes of its attempts in doubt.
    pub in_doubt: InDoubt,
}

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

    pub(super) fn read(name: &str, spec: &Fields<'_>) -> Option<Self> {
        let mut streams: Vec<Stream> = Vec::new();
        for fields in spec.maps("streams") {
            let in_doubt = fields
                .one_of("inDoubt", &IN_DOUBT)
                .unwrap_or(InDoubt::Retry);
            if let Some(name) = fields.required_text("name") {
                if !is_label(name) {
                    fields.problem("name", format!("{LABEL_FORM}, found {name:?}"));
                }
                if streams.iter().any(|stream| stream.name == name) {
                    fields.problem("name", format!("{name:?} is used twice"));
                }
                let name = name.to_owned();
                streams.push(Stream { name, in_doubt });
            }
            fields.close();
        }
        if streams.is_empty() {
            spec.problem("streams", "at least one stream is expected");
        }
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
            default_stream: default_stream.to_owned(),
            streams,
        })
    }

    pub(super) fn spec(&self) -> Value {
        let streams: Vec<Value> = self
            .streams
            .iter()
            .map(|stream| json!({ "name": stream.name, "inDoubt": super::word(&IN_DOUBT, stream.in_doubt) }))
            .collect();
        json!({ "defaultStream": self.default_stream, "streams": streams })
    }
}
