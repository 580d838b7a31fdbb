//! Which events are written.

use serde_json::Value;

/// Every option that is given must be met; one that is given several times, by one of its values.
#[derive(Debug, Default, clap::Args)]
pub(super) struct Choice {
    /// Only events of this type, such as `Bounce`; may be given several times
    #[arg(long = "type", value_name = "TYPE")]
    types: Vec<String>,
    /// Only events of this tenant; may be given several times
    #[arg(long = "tenant", value_name = "TENANT")]
    tenants: Vec<String>,
    /// Only events of this stream; may be given several times
    #[arg(long = "stream", value_name = "STREAM")]
    streams: Vec<String>,
    /// Only events of this campaign; may be given several times
    #[arg(long = "campaign", value_name = "CAMPAIGN")]
    campaigns: Vec<String>,
    /// Only events about this message; may be given several times
    #[arg(long = "message", value_name = "ID")]
    messages: Vec<String>,
    /// Only events about this recipient, as the address was given; may be given several times
    #[arg(long = "recipient", value_name = "ADDRESS")]
    recipients: Vec<String>,
}

impl Choice {
    /// Refuses a type that there is not: nothing would ever be written.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        let known = config::EVENT_TYPES;
        match self
            .types
            .iter()
            .find(|name| !known.contains(&name.as_str()))
        {
            Some(name) => anyhow::bail!(
                "there are no events of the type {name:?}: {}",
                known.join(", ")
            ),
            None => Ok(()),
        }
    }

    /// Whether an event is written.
    pub(super) fn takes(&self, event: &Value) -> bool {
        let of = |names: &[String], field: &str| {
            names.is_empty()
                || event[field]
                    .as_str()
                    .is_some_and(|value| names.iter().any(|name| name == value))
        };
        of(&self.types, "type")
            && of(&self.tenants, "tenant")
            && of(&self.streams, "stream")
            && of(&self.campaigns, "campaign")
            && of(&self.messages, "message_id")
            && of(&self.recipients, "recipient")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_must_be_as_every_option_says() {
        let event = json!({ "type": "Bounce", "tenant": "acme", "recipient": "a@b.example" });
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let choice = |types: &[&str], tenants: &[&str], streams: &[&str]| Choice {
            types: names(types),
            tenants: names(tenants),
            streams: names(streams),
            ..Choice::default()
        };
        assert!(choice(&[], &[], &[]).takes(&event));
        assert!(choice(&["Delivery", "Bounce"], &["acme"], &[]).takes(&event));
        assert!(!choice(&["Bounce"], &["other"], &[]).takes(&event));
        // What has no stream is of none.
        assert!(!choice(&[], &[], &["bulk"]).takes(&event));
        assert!(choice(&["Bounce"], &[], &[]).check().is_ok());
        let error = choice(&["Bouncing"], &[], &[]).check().unwrap_err();
        assert!(
            error.to_string().contains("\"Bouncing\": AdminAction, "),
            "{error}"
        );
    }
}
