//! Rspamd: a message with what is known of it goes to `/checkv2`, and a reply in JSON says what is to become of it.

use serde::Deserialize;
use serde_json::Value;

use crate::{Envelope, Opinion, Reply, Verdict, public_text};

/// A reply can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not what Rspamd says.
    #[error("it is no reply of /checkv2")]
    Unknown,
    /// An action that a configuration of Rspamd may have made up.
    #[error("the action {0:?} has no meaning here")]
    Action(String),
}

/// The head of the request; the content follows in chunks. Without a line end in any value, whatever is in the envelope.
pub fn request_head(envelope: &Envelope) -> Vec<u8> {
    let mut head = b"POST /checkv2 HTTP/1.1\r\nHost: rspamd\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n".to_vec();
    let mut add = |name: &str, value: &str| {
        if value.is_empty() {
            return;
        }
        head.extend_from_slice(name.as_bytes());
        head.extend_from_slice(b": ");
        head.extend(value.bytes().filter(|octet| !octet.is_ascii_control()));
        head.extend_from_slice(b"\r\n");
    };
    if let Some(client) = envelope.client {
        add("IP", &client.to_string());
    }
    add("Helo", &envelope.hello);
    add("From", &format!("<{}>", envelope.return_path));
    for recipient in &envelope.recipients {
        add("Rcpt", &format!("<{recipient}>"));
    }
    add("User", &envelope.user);
    add("Queue-Id", &envelope.id);
    add("MTA-Name", &envelope.hostname);
    head.extend_from_slice(b"\r\n");
    head
}

#[derive(Deserialize)]
struct Said {
    action: String,
    #[serde(default)]
    score: Option<f64>,
    #[serde(default)]
    required_score: Option<f64>,
    #[serde(default)]
    is_skipped: bool,
    #[serde(default)]
    messages: Value,
}

/// Reads a reply. What it would mark is [`Opinion::Spam`], with the fields for that.
pub fn read_reply(content: &[u8]) -> Result<Verdict, Error> {
    let said: Said = serde_json::from_slice(content).map_err(|_| Error::Unknown)?;
    let words = said
        .messages
        .get("smtp_message")
        .and_then(Value::as_str)
        .map(|text| public_text(text.as_bytes()))
        .filter(|text| !text.is_empty());
    let score = said.score.filter(|score| score.is_finite());
    let mut verdict = Verdict::from(match said.action.as_str() {
        _ if said.is_skipped => Opinion::Clean,
        "no action" | "accept" => Opinion::Clean,
        "reject" | "discard" => {
            let text = words.as_deref().unwrap_or("it looks like spam");
            Opinion::Refuse(Reply::refused(&format!("Message refused: {text}")))
        }
        "soft reject" | "greylist" => {
            let text = words.as_deref().unwrap_or("Try again later");
            Opinion::Refuse(Reply::later(text))
        }
        "add header" | "rewrite subject" => Opinion::Spam,
        "quarantine" => Opinion::Clean,
        other => return Err(Error::Action(public_text(other.as_bytes()))),
    });
    verdict.score = score;
    verdict.hold = said.action == "quarantine" && !said.is_skipped;
    if verdict.opinion == Opinion::Spam {
        verdict.fields = fields(score, said.required_score);
    }
    Ok(verdict)
}

fn fields(score: Option<f64>, required: Option<f64>) -> Vec<u8> {
    let mut fields = String::from("X-Spam: Yes\r\n");
    if let (Some(score), Some(required)) = (score, required.filter(|score| score.is_finite())) {
        let (score, required) = (bounded(score), bounded(required));
        fields.push_str(&format!(
            "X-Spam-Status: Yes, score={score:.2} required={required:.2}\r\n"
        ));
    }
    fields.into_bytes()
}

/// Short when it is written out.
fn bounded(score: f64) -> f64 {
    score.clamp(-100_000.0, 100_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tells_who_sends_to_whom_and_nothing_ends_a_line() {
        let envelope = Envelope {
            id: "0190".to_owned(),
            hostname: "relay.example.com".to_owned(),
            client: Some("192.0.2.1".parse().unwrap()),
            hello: "client\r\nUser: root".to_owned(),
            user: String::new(),
            return_path: String::new(),
            recipients: vec![
                "a@one.example".to_owned(),
                "\"b\tc\"@one.example".to_owned(),
            ],
            header_length: 0,
        };
        assert_eq!(
            String::from_utf8(request_head(&envelope)).unwrap(),
            "POST /checkv2 HTTP/1.1\r\nHost: rspamd\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\
             IP: 192.0.2.1\r\nHelo: clientUser: root\r\nFrom: <>\r\nRcpt: <a@one.example>\r\nRcpt: <\"bc\"@one.example>\r\n\
             Queue-Id: 0190\r\nMTA-Name: relay.example.com\r\n\r\n"
        );
    }

    #[test]
    fn every_action_means_something_or_is_an_error() {
        let refused = |text: &str| Opinion::Refuse(Reply::refused(text));
        for (action, more, expected) in [
            ("no action", "", Opinion::Clean),
            (
                "greylist",
                "",
                Opinion::Refuse(Reply::later("Try again later")),
            ),
            (
                "soft reject",
                r#","messages":{"smtp_message":"slow\r\n250 Ok"}"#,
                Opinion::Refuse(Reply::later("slow??250 Ok")),
            ),
            ("add header", "", Opinion::Spam),
            ("rewrite subject", "", Opinion::Spam),
            ("reject", "", refused("Message refused: it looks like spam")),
            (
                "reject",
                r#","messages":{"smtp_message":"Gtube"}"#,
                refused("Message refused: Gtube"),
            ),
            ("reject", r#","is_skipped":true"#, Opinion::Clean),
            (
                "reject",
                r#","messages":[1]"#,
                refused("Message refused: it looks like spam"),
            ),
            (
                "discard",
                "",
                refused("Message refused: it looks like spam"),
            ),
        ] {
            let reply = format!(
                r#"{{"action":"{action}","score":7.5,"required_score":6.0{more},"symbols":{{}}}}"#
            );
            let verdict = read_reply(reply.as_bytes()).unwrap();
            assert_eq!(verdict.opinion, expected, "{reply}");
            assert_eq!(verdict.score, Some(7.5));
            let fields = String::from_utf8(verdict.fields).unwrap();
            let marked = "X-Spam: Yes\r\nX-Spam-Status: Yes, score=7.50 required=6.00\r\n";
            assert_eq!(
                fields,
                if expected == Opinion::Spam {
                    marked
                } else {
                    ""
                }
            );
        }
        let held = read_reply(br#"{"action":"quarantine"}"#).unwrap();
        assert!(held.hold && held.opinion == Opinion::Clean);
        let reply = br#"{"action":"explode","score":1}"#;
        assert_eq!(read_reply(reply), Err(Error::Action("explode".to_owned())));
        for reply in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"error":"x"}"#,
            r#"{"action":1}"#,
        ] {
            assert_eq!(read_reply(reply.as_bytes()), Err(Error::Unknown), "{reply}");
        }
    }
}
