//! The fields that a message gets where they are missing (requirement A15). All of them are covered by our signature.

use std::borrow::Cow;

use config::{Headers, Repair, UriValues};
use mail::{Address, Domain};
use message::{Addition, date_text, message_id_text};

use crate::links::{Links, NAMES, ONE_CLICK};

/// What the fields of a message are made of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) id: mail::MessageId,
    pub(crate) unix_ms: u64,
    pub(crate) hostname: &'a str,
    pub(crate) tenant: &'a str,
    pub(crate) stream: &'a str,
    /// May be empty.
    pub(crate) campaign: &'a str,
    /// Domain of the author.
    pub(crate) author: &'a Domain,
    /// The only recipient.
    pub(crate) recipient: Option<&'a str>,
    /// Our address for complaints about it, where the stream wants one.
    pub(crate) complaints: Option<&'a str>,
    /// With several recipients they are added to what each of them gets, and not here.
    pub(crate) links: Option<&'a Links>,
}

/// What is to be added where it is missing, as the tenant and the stream of the message have it.
pub(crate) fn additions<'a>(
    repair: Repair,
    headers: Option<&Headers>,
    facts: &Facts<'a>,
) -> Vec<Addition<'a>> {
    let mut additions = Vec::with_capacity(8);
    let mut add = |name, value: String, unless| {
        let value = Cow::Owned(value);
        additions.push(Addition {
            name,
            value,
            unless,
        });
    };
    if repair.date {
        add("Date", date_text(facts.unix_ms), &["Date"]);
    }
    if repair.message_id {
        let id = message_id_text(facts.id, facts.hostname);
        add("Message-ID", id, &["Message-ID"]);
    }
    let Some(headers) = headers else {
        return additions;
    };
    if let Some(sender) = &headers.feedback_id {
        let Facts {
            campaign,
            tenant,
            stream,
            ..
        } = facts;
        let parts = format!("{campaign}:{tenant}:{stream}:{sender}");
        add("Feedback-ID", parts, &["Feedback-ID"]);
    }
    let message = facts.id.to_string();
    if let Some(links) = facts.links {
        if let Some(value) = facts.recipient.and_then(|recipient| links.value(recipient)) {
            add("List-Unsubscribe", value, NAMES);
            add("List-Unsubscribe-Post", ONE_CLICK.to_owned(), NAMES);
        }
    } else {
        let values = UriValues {
            message: &message,
            recipient: facts.recipient,
            campaign: facts.campaign,
        };
        let filled = headers.list_unsubscribe.iter();
        let uris: Vec<(bool, String)> = filled
            .filter_map(|template| Some((template.is_https(), template.fill(&values)?)))
            .collect();
        if !uris.is_empty() {
            // One in each line: RFC 2369 section 2 allows white space between them.
            let listed: Vec<String> = uris.iter().map(|(_, uri)| format!("<{uri}>")).collect();
            add("List-Unsubscribe", listed.join(",\r\n "), NAMES);
        }
        if headers.one_click && uris.iter().any(|(is_https, _)| *is_https) {
            add("List-Unsubscribe-Post", ONE_CLICK.to_owned(), NAMES);
        }
    }
    let own = facts.complaints.map(Address::parse).and_then(Result::ok);
    if let Some(address) = own.as_ref().or(headers.cfbl_address.as_ref())
        && address
            .domain()
            .is_some_and(|domain| domain.is_within(facts.author))
    {
        const COMPLAINTS: &[&str] = &["CFBL-Address", "CFBL-Feedback-ID"];
        add("CFBL-Address", format!("{address}; report=arf"), COMPLAINTS);
        add("CFBL-Feedback-ID", message, COMPLAINTS);
    }
    additions
}

#[cfg(test)]
mod tests {
    use config::Snapshot;
    use mail::MessageId;

    use super::*;

    fn added(headers: &str, author: &str, recipient: Option<&str>) -> Vec<String> {
        let documents = format!(
            "apiVersion: staffetta.dev/v1alpha1\nkind: Tenant\nmetadata: {{ name: acme }}\n\
             spec: {{ defaultStream: news, repair: {{ date: false, messageId: false }}, streams: [ {{ name: news, headers: {headers} }} ] }}\n---\n\
             apiVersion: staffetta.dev/v1alpha1\nkind: SendingDomain\nmetadata: {{ name: acme.example }}\n\
             spec: {{ tenant: acme, unsigned: true, includeSubdomains: true }}\n"
        );
        let snapshot = Snapshot::from_documents(&documents).unwrap();
        let tenant = snapshot.tenant("acme").unwrap();
        let facts = Facts {
            id: MessageId::from_bytes([1; 16]),
            unix_ms: 0,
            hostname: "relay.example",
            tenant: "acme",
            stream: "news",
            campaign: "may",
            author: &Domain::parse(author).unwrap(),
            recipient,
            complaints: Some("c1token@b.acme.example").filter(|_| headers.contains("ours")),
            links: None,
        };
        let headers = tenant.stream("news").unwrap().headers.as_deref();
        let additions = additions(tenant.repair, headers, &facts);
        let lines = additions.iter();
        lines
            .map(|addition| format!("{}: {}", addition.name, addition.value))
            .collect()
    }

    const ID: &str = "01010101-0101-0101-0101-010101010101";

    #[test]
    fn adds_what_the_stream_says() {
        let headers = "{ feedbackId: staffetta, cfblAddress: fbl@acme.example, \
                       listUnsubscribe: [ \"https://u.acme.example/{message}\", \"mailto:leave@acme.example?subject={recipient}\" ] }";
        assert_eq!(
            added(headers, "acme.example", Some("a@d.example")),
            [
                "Feedback-ID: may:acme:news:staffetta".to_owned(),
                format!(
                    "List-Unsubscribe: <https://u.acme.example/{ID}>,\r\n <mailto:leave@acme.example?subject=a%40d.example>"
                ),
                "List-Unsubscribe-Post: List-Unsubscribe=One-Click".to_owned(),
                "CFBL-Address: fbl@acme.example; report=arf".to_owned(),
                format!("CFBL-Feedback-ID: {ID}"),
            ]
        );
        assert_eq!(added("{}", "acme.example", None), [""; 0]);
    }

    #[test]
    fn names_no_recipient_to_another_and_calls_nothing_one_click_that_is_not() {
        let headers = "{ listUnsubscribe: [ \"https://u.acme.example/{recipient}\", \"mailto:leave@acme.example\" ] }";
        assert_eq!(
            added(headers, "acme.example", None),
            ["List-Unsubscribe: <mailto:leave@acme.example>"]
        );
        let never = "{ listUnsubscribe: [ \"https://u.acme.example/x\" ], oneClick: false }";
        assert_eq!(
            added(never, "acme.example", None),
            ["List-Unsubscribe: <https://u.acme.example/x>"]
        );
    }

    #[test]
    fn complaints_come_to_an_address_of_ours_where_the_stream_says_so() {
        let headers = "{ cfblAddress: ours }";
        assert_eq!(
            added(headers, "acme.example", None)[0],
            "CFBL-Address: c1token@b.acme.example; report=arf"
        );
        assert_eq!(added(headers, "d.acme.example", None), [""; 0]);
    }

    #[test]
    fn says_where_complaints_go_only_for_authors_that_are_aligned() {
        let headers = "{ cfblAddress: c@fbl.acme.example }";
        assert_eq!(added(headers, "acme.example", None).len(), 2);
        for author in ["fbl.acme.example", "c.fbl.acme.example", "other.example"] {
            let expected = if author == "fbl.acme.example" { 2 } else { 0 };
            assert_eq!(added(headers, author, None).len(), expected, "{author}");
        }
    }
}
