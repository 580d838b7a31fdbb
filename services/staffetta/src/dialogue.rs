//! Transcripts of dialogues with mail hosts, beside the events of the journal.

use mail::MessageId;
use proto::admin::StoredTranscript;
use proto::transcript::{Passage, Speaker, Transcript};
use serde_json::{Map, Value, json};

/// The type of a transcript among events.
pub(crate) const TRANSCRIPT: &str = "Transcript";

/// A transcript in the form of an event. `None` when it is damaged.
pub(crate) fn event(stored: StoredTranscript) -> Option<Value> {
    let transcript = stored.transcript?;
    let message_id = MessageId::try_from(&transcript.message_id[..]).ok()?;
    let mut event = Map::new();
    let mut put = |name: &str, value: Value| {
        event.insert(name.to_owned(), value);
    };
    put("version", json!(1));
    put("type", json!(TRANSCRIPT));
    put("time", json!(time(transcript.started_at_ms)?));
    put("sequence", json!(stored.sequence));
    put("message_id", json!(message_id.to_string()));
    put("partition", json!(transcript.partition));
    put("ordinals", json!(transcript.ordinals));
    put("attempt", json!(transcript.attempt));
    put("duration_ms", json!(transcript.duration_ms));
    if !transcript.site.is_empty() {
        put("site", json!(transcript.site));
    }
    if !transcript.host.is_empty() {
        let mx = json!({ "host": transcript.host, "address": transcript.address });
        put("mx", mx);
        put("tls", json!(!transcript.tls.is_empty()));
    }
    if !transcript.tls.is_empty() {
        put("tls_version", json!(transcript.tls));
    }
    if transcript.sampled {
        put("sampled", json!(true));
    }
    put("dialogue", dialogue(&transcript));
    if transcript.left_out > 0 {
        put("octets_left_out", json!(transcript.left_out));
    }
    Some(Value::Object(event))
}

fn dialogue(transcript: &Transcript) -> Value {
    let passage = |passage: &Passage| {
        let speaker = match passage.speaker() {
            Speaker::Unspecified => "nobody",
            Speaker::Client => "client",
            Speaker::Host => "host",
        };
        json!({ "ms": passage.at_ms, "speaker": speaker, "text": passage.text })
    };
    transcript.passages.iter().map(passage).collect()
}

/// The dialogue for people, a line for each of its lines.
pub(crate) fn render(event: &Value) -> String {
    let mut lines = String::new();
    for passage in event["dialogue"].as_array().into_iter().flatten() {
        let mark = match passage["speaker"].as_str() {
            Some("client") => '>',
            Some("host") => '<',
            _ => '-',
        };
        let at_ms = passage["ms"].as_u64().unwrap_or_default();
        for line in passage["text"].as_str().unwrap_or_default().split('\n') {
            lines.push_str(&format!(
                "{at_ms:>14} ms {mark} {}\n",
                crate::timeline::printable(line)
            ));
        }
    }
    if let Some(octets) = event["octets_left_out"].as_u64() {
        lines.push_str(&format!(
            "{:>14}    ({octets} octets of the middle left out)\n",
            ""
        ));
    }
    lines
}

fn time(unix_ms: u64) -> Option<String> {
    let timestamp = jiff::Timestamp::from_millisecond(i64::try_from(unix_ms).ok()?).ok()?;
    Some(format!("{timestamp:.3}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transcript_is_told_line_by_line() {
        let passage = |at_ms, speaker: Speaker, text: &str| Passage {
            at_ms,
            speaker: speaker.into(),
            text: text.into(),
        };
        let message_id = MessageId::now();
        let transcript = Transcript {
            message_id: message_id.as_bytes().to_vec().into(),
            partition: 1,
            ordinals: vec![0, 2],
            attempt: 3,
            started_at_ms: 1_800_000_000_250,
            duration_ms: 41,
            host: "mx.example".into(),
            address: "192.0.2.1".into(),
            tls: "1.3".into(),
            passages: vec![
                passage(
                    0,
                    Speaker::Unspecified,
                    "connecting to mx.example 192.0.2.1:25",
                ),
                passage(12, Speaker::Host, "250-mx.example\n250 SIZE"),
                passage(40, Speaker::Client, "MAIL FROM:<a@b.example>"),
            ],
            left_out: 7,
            ..Transcript::default()
        };
        let stored = StoredTranscript {
            sequence: 9,
            transcript: Some(transcript),
        };
        let event = event(stored).unwrap();
        assert_eq!(event["time"], "2027-01-15T08:00:00.250Z");
        assert_eq!(event["message_id"], message_id.to_string());
        assert_eq!(event["tls_version"], "1.3");
        assert_eq!(
            event["dialogue"][1],
            json!({ "ms": 12, "speaker": "host", "text": "250-mx.example\n250 SIZE" })
        );
        let expected = "             0 ms - connecting to mx.example 192.0.2.1:25
            12 ms < 250-mx.example
            12 ms < 250 SIZE
            40 ms > MAIL FROM:<a@b.example>
                  (7 octets of the middle left out)
";
        assert_eq!(render(&event), expected);
    }
}
