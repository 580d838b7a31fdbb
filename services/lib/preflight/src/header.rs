//! Checks of header sections, and of the envelope.

use config::{Check, CheckRule, Snapshot, Tenant};
use mail::{Address, Domain};
use message::{Inspection, inspect};

use crate::Findings;
use crate::alignment::is_aligned;

/// What is known of a message before its content comes.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// Where the sending domains are.
    pub snapshot: &'a Snapshot,
    /// Whose message it is.
    pub tenant: &'a Tenant,
    /// In which of its streams.
    pub stream: &'a str,
    /// Empty for the null reverse-path.
    pub return_path: &'a str,
    /// Domain of the (first) author; `None`: nobody can tell.
    pub author: Option<&'a Domain>,
    /// The client said that it may need it.
    pub smtputf8: bool,
}

/// Looks over a header section.
pub fn look_at_header(header: &[u8], envelope: &Envelope<'_>) -> Findings {
    let preflight = &envelope.tenant.preflight;
    if preflight.checks.is_empty() {
        return Findings::default();
    }
    let inspection = inspect(header);
    let found = preflight
        .of_stream(envelope.stream)
        .filter_map(|check| Some((check, look_for(check, &inspection, envelope)?.into())));
    Findings::of(found, Vec::new(), preflight.reject_at)
}

fn look_for(
    check: &Check,
    inspection: &Inspection,
    envelope: &Envelope<'_>,
) -> Option<&'static str> {
    let (is_found, what) = match check.rule {
        CheckRule::NoSubject => (!inspection.has_subject, "it has no subject"),
        CheckRule::NoRecipientField => {
            (!inspection.names_recipients, "it names nobody in To or Cc")
        }
        CheckRule::NoUnsubscribe => (
            !inspection.has_unsubscribe,
            "it has no List-Unsubscribe field",
        ),
        CheckRule::NoOneClick => (
            !inspection.has_one_click,
            "it has no List-Unsubscribe-Post field",
        ),
        CheckRule::MalformedHeader => (
            inspection.malformed_lines > 0,
            "lines of its header section are no fields",
        ),
        CheckRule::EightBitHeader => (
            inspection.has_eight_bit && !envelope.smtputf8,
            "its header section has unencoded characters beyond ASCII",
        ),
        CheckRule::UnalignedFrom => (
            is_unaligned(envelope),
            "the domain in From is not aligned with that of the return path",
        ),
        CheckRule::ManyLinks { .. }
        | CheckRule::SpamWords(_)
        | CheckRule::GenericText
        | CheckRule::TooLittleText { .. }
        | CheckRule::BrokenMime => return None,
    };
    is_found.then_some(what)
}

fn is_unaligned(envelope: &Envelope<'_>) -> bool {
    let path = Address::parse(envelope.return_path).ok();
    let (Some(path), Some(author)) = (path.and_then(|path| path.domain()), envelope.author) else {
        return false;
    };
    let tenant = &envelope.tenant.name;
    !is_aligned(envelope.snapshot, tenant, author.as_str(), path.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(preflight: &str) -> Snapshot {
        Snapshot::from_documents(&format!(
            "apiVersion: staffetta.dev/v1alpha1\nkind: Tenant\nmetadata: {{ name: t }}\n\
             spec: {{ defaultStream: m, streams: [ {{ name: m }}, {{ name: bulk }} ], preflight: {preflight} }}\n"
        ))
        .unwrap()
    }

    fn refusal(snapshot: &Snapshot, header: &str, stream: &str, smtputf8: bool) -> Option<String> {
        let author = Domain::parse("a.example").unwrap();
        let envelope = Envelope {
            snapshot,
            tenant: snapshot.tenant("t").unwrap(),
            stream,
            return_path: "x@b.example",
            author: Some(&author),
            smtputf8,
        };
        look_at_header(header.as_bytes(), &envelope).refusal()
    }

    #[test]
    fn every_rule_finds_what_it_is_for_and_nothing_else() {
        let good = "From: a@b\r\nTo: c@d\r\nSubject: s\r\nList-Unsubscribe: <u>\r\nList-Unsubscribe-Post: x\r\n";
        for (rule, header) in [
            ("noSubject", good.replace("Subject: s", "Subject: ")),
            ("noRecipientField", good.replace("To: c@d", "Bcc: c@d")),
            ("noUnsubscribe", good.replace("List-Unsubscribe:", "X-L:")),
            ("noOneClick", good.replace("List-Unsubscribe-Post:", "X-L:")),
            ("malformedHeader", format!("{good}no field\r\n")),
            ("eightBitHeader", good.replace("Subject: s", "Subject: ü")),
        ] {
            let rejecting = snapshot(&format!(
                "{{ checks: [ {{ rule: {rule}, action: reject }} ] }}"
            ));
            assert_eq!(refusal(&rejecting, good, "m", false), None, "{rule}");
            let refused = refusal(&rejecting, &header, "m", false).unwrap();
            assert!(refused.contains(rule), "{refused}");
            if rule == "eightBitHeader" {
                assert_eq!(refusal(&rejecting, &header, "m", true), None);
            }
            let ignoring = snapshot(&format!(
                "{{ checks: [ {{ rule: {rule}, action: ignore }} ] }}"
            ));
            assert_eq!(refusal(&ignoring, &header, "m", false), None, "{rule}");
        }
    }

    #[test]
    fn warnings_add_up_and_streams_have_checks_of_their_own() {
        let snapshot = snapshot(
            "{ rejectAt: 5, checks: [ { rule: noSubject, weight: 2 }, { rule: noRecipientField, weight: 3, streams: [ bulk ] } ] }",
        );
        assert_eq!(refusal(&snapshot, "To: c@d\r\n", "bulk", false), None);
        assert_eq!(
            refusal(&snapshot, "X: y\r\n", "bulk", false).as_deref(),
            Some(
                "Message refused: it has no subject (noSubject), it names nobody in To or Cc (noRecipientField)"
            )
        );
        assert_eq!(refusal(&snapshot, "X: y\r\n", "m", false), None);
    }

    #[test]
    fn an_author_belongs_to_the_return_path_when_there_is_one() {
        let snapshot = snapshot("{ checks: [ { rule: unalignedFrom, action: reject } ] }");
        let (near, far) = (
            Domain::parse("mail.a.example").unwrap(),
            Domain::parse("b.example").unwrap(),
        );
        for (return_path, author, is_refused) in [
            ("x@a.example", Some(&near), false),
            ("x@a.example", Some(&far), true),
            ("x@a.example", None, false),
            ("", Some(&far), false),
        ] {
            let envelope = Envelope {
                snapshot: &snapshot,
                tenant: snapshot.tenant("t").unwrap(),
                stream: "m",
                return_path,
                author,
                smtputf8: false,
            };
            let refusal = look_at_header(b"", &envelope).refusal();
            assert_eq!(refusal.is_some(), is_refused, "{return_path} {author:?}");
        }
    }
}
