//! Fields that are added to the messages of a stream: `headers` of a stream of a Tenant.

use std::fmt::Write;
use std::str::FromStr;

use mail::{Address, Span};
use serde_json::{Map, Value, json};

use crate::Fields;

/// What is added where a message has none of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers {
    /// Last part of `Feedback-ID`: who sends, as Google's feedback loop counts it. The parts before it are
    /// campaign, tenant and stream.
    pub feedback_id: Option<String>,
    /// `List-Unsubscribe` (RFC 2369 section 3.2), in the order of preference.
    pub list_unsubscribe: Vec<UriTemplate>,
    /// With it `List-Unsubscribe-Post` (RFC 8058), if one of them is `https`.
    pub one_click: bool,
    /// A link of ours comes before them, one for each recipient, which is answered here for so long, 30 d to 10 years; the field of
    /// RFC 8058 comes with it. It leads to the link host of the author's domain; where that has none, there is no link.
    pub unsubscribe: Option<Span>,
    /// `CFBL-Address` (RFC 9477): where hosts send complaints, in the form of ARF.
    pub cfbl_address: Option<Address>,
    /// That address is one of ours, made for each message, where the author's domain has return paths of ours.
    pub cfbl_ours: bool,
}

/// Characters of the identifier of a sender, as Google wants it.
const SENDER_ID: std::ops::RangeInclusive<usize> = 5..=15;
/// URIs of a field.
const MOST_URIS: usize = 4;
const DAY_S: u64 = 86_400;
const USUAL_LINK: Span = Span::from_secs(365 * DAY_S);
/// Some laws ask for 30 days.
const SHORTEST_LINK: Span = Span::from_secs(30 * DAY_S);
const LONGEST_LINK: Span = Span::from_secs(3650 * DAY_S);

impl Headers {
    pub(super) fn read(fields: &Fields<'_>) -> Option<Box<Self>> {
        let list_unsubscribe: Vec<UriTemplate> = fields.parsed_list("listUnsubscribe");
        if list_unsubscribe.len() > MOST_URIS {
            let what = format!("at most {MOST_URIS} are expected");
            fields.problem("listUnsubscribe", what);
        }
        let asked = fields.boolean("oneClick");
        let can_be = list_unsubscribe.iter().any(UriTemplate::is_https);
        if asked == Some(true) && !can_be {
            let what = "listUnsubscribe has no https URI that could be posted to (RFC 8058)";
            fields.problem("oneClick", what);
        }
        let unsubscribe = read_unsubscribe(fields);
        if unsubscribe.is_some() && can_be {
            let what =
                "has an https URI, and so has unsubscribe: with it only mailto: URIs are expected";
            fields.problem("listUnsubscribe", what);
        }
        if unsubscribe.is_some() && asked.is_some() {
            fields.problem("oneClick", "goes without saying with unsubscribe");
        }
        let headers = Self {
            unsubscribe,
            feedback_id: fields.read("feedbackId", sender_id),
            one_click: asked.unwrap_or(can_be),
            list_unsubscribe,
            cfbl_ours: fields.text("cfblAddress") == Some(OURS),
            cfbl_address: fields.read("cfblAddress", cfbl_address).flatten(),
        };
        (headers != Self::default()).then(|| Box::new(headers))
    }

    pub(super) fn spec(&self) -> Value {
        let mut spec = Map::new();
        if let Some(id) = &self.feedback_id {
            spec.insert("feedbackId".to_owned(), json!(id));
        }
        if !self.list_unsubscribe.is_empty() {
            let uris: Vec<&str> = self.list_unsubscribe.iter().map(|uri| &*uri.0).collect();
            spec.insert("listUnsubscribe".to_owned(), json!(uris));
            if self.unsubscribe.is_none() {
                spec.insert("oneClick".to_owned(), json!(self.one_click));
            }
        }
        if let Some(life) = self.unsubscribe {
            let link = json!({ "validFor": life.to_string() });
            spec.insert("unsubscribe".to_owned(), link);
        }
        if self.cfbl_ours {
            spec.insert("cfblAddress".to_owned(), json!(OURS));
        }
        if let Some(address) = &self.cfbl_address {
            spec.insert("cfblAddress".to_owned(), json!(address.as_str()));
        }
        Value::Object(spec)
    }
}

fn read_unsubscribe(fields: &Fields<'_>) -> Option<Span> {
    if !fields.is_given("unsubscribe") {
        return None;
    }
    let link = fields.map("unsubscribe");
    let life: Span = link.parsed("validFor").unwrap_or(USUAL_LINK);
    if !(SHORTEST_LINK..=LONGEST_LINK).contains(&life) {
        let what = format!("30d to 3650d is expected, found {life}");
        link.problem("validFor", what);
    }
    link.close();
    Some(life)
}

const OURS: &str = "ours";

fn cfbl_address(text: &str) -> Result<Option<Address>, String> {
    match Address::parse(text) {
        _ if text == OURS => Ok(None),
        Ok(address) if address.domain().is_some() && !address.needs_smtputf8() => Ok(Some(address)),
        _ => Err("`ours` or an address such as complaints@acme.example is expected".to_owned()),
    }
}

fn sender_id(text: &str) -> Result<String, String> {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_');
    if SENDER_ID.contains(&text.len()) && text.bytes().all(is_plain) {
        Ok(text.to_owned())
    } else {
        Err("5 to 15 letters, digits, \"-\", \".\" and \"_\" are expected".to_owned())
    }
}

/// A URI with places for what differs between messages: `{message}`, its id; `{recipient}`; `{campaign}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriTemplate(String);

/// What stands in the places of a [`UriTemplate`].
#[derive(Debug, Clone, Copy)]
pub struct UriValues<'a> {
    /// Id of the message.
    pub message: &'a str,
    /// `None`: there are several, and none of them may be named to the others.
    pub recipient: Option<&'a str>,
    /// Label; may be empty.
    pub campaign: &'a str,
}

const PLACES: [&str; 3] = ["message", "recipient", "campaign"];
const LONGEST_URI: usize = 500;

impl UriTemplate {
    /// Whether it can be posted to.
    pub fn is_https(&self) -> bool {
        self.0.starts_with("https://")
    }

    /// The URI, values percent-encoded (RFC 3986 section 2.1). `None` when it needs a value that is not there.
    pub fn fill(&self, values: &UriValues<'_>) -> Option<String> {
        let mut uri = String::with_capacity(self.0.len() + 64);
        let mut rest = self.0.as_str();
        while let Some((before, place, after)) = next_place(rest) {
            uri.push_str(before);
            let value = match place {
                "message" => values.message,
                "recipient" => values.recipient?,
                _ => values.campaign,
            };
            push_encoded(&mut uri, value);
            rest = after;
        }
        uri.push_str(rest);
        Some(uri)
    }
}

impl FromStr for UriTemplate {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut rest = text;
        while let Some((_, place, after)) = next_place(rest) {
            if !PLACES.contains(&place) {
                return Err(format!(
                    "{{{}}} is not known; known: {{message}}, {{recipient}}, {{campaign}}",
                    place.chars().take(40).collect::<String>()
                ));
            }
            rest = after;
        }
        let is_uri =
            |b: u8| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'"' | b',' | b'\\');
        let scheme = ["https://", "mailto:"];
        let has_more = scheme.iter().any(|scheme| {
            text.strip_prefix(scheme)
                .is_some_and(|more| more.starts_with(|first: char| first.is_ascii_alphanumeric()))
        });
        if !has_more || !text.bytes().all(is_uri) || text.len() > LONGEST_URI {
            return Err(format!(
                "a URI that begins with https:// or mailto: is expected, of at most {LONGEST_URI} characters of ASCII without \",\", \"<\" and \">\""
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// What comes before the next `{place}`, its name, and what comes after.
fn next_place(text: &str) -> Option<(&str, &str, &str)> {
    let (before, more) = text.split_once('{')?;
    let (place, after) = more.split_once('}')?;
    Some((before, place, after))
}

fn push_encoded(uri: &mut String, value: &str) {
    for octet in value.bytes() {
        if octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'.' | b'_' | b'~') {
            uri.push(char::from(octet));
        } else {
            let written = write!(uri, "%{octet:02X}");
            debug_assert!(written.is_ok(), "a String takes everything");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: UriValues<'static> = UriValues {
        message: "0190",
        recipient: Some("a+b@d.example"),
        campaign: "",
    };

    #[test]
    fn fills_in_what_differs() {
        let template: UriTemplate = "https://u.example/{message}?r={recipient}&c={campaign}"
            .parse()
            .unwrap();
        assert!(template.is_https());
        assert_eq!(
            template.fill(&VALUES).as_deref(),
            Some("https://u.example/0190?r=a%2Bb%40d.example&c=")
        );
        let to_several = UriValues {
            recipient: None,
            ..VALUES
        };
        assert_eq!(template.fill(&to_several), None);
        let plain: UriTemplate = "mailto:leave@u.example?subject={message}".parse().unwrap();
        assert!(!plain.is_https());
        assert!(plain.fill(&to_several).is_some());
    }

    #[test]
    fn takes_no_other_uris() {
        for text in [
            "",
            "http://u.example/",
            "https://",
            "https:///x",
            "mailto:",
            "https://u.example/ x",
            "https://u.example/<",
            "https://u.example/,",
            "https://u.example/\u{e9}",
            "https://u.example/{who}",
            &format!("https://u.example/{}", "x".repeat(500)),
        ] {
            assert!(text.parse::<UriTemplate>().is_err(), "{text}");
        }
    }
}
