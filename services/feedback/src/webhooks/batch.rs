//! What is posted together.

use std::fmt::Write as _;

use aws_lc_rs::digest::{SHA256, digest};
use bytes::Bytes;

use super::pace::Posted;
use crate::events::time;

/// Octets of the events of one post at most; a longer event goes alone.
const MOST_OCTETS: usize = 512 << 10;

/// Events in order, and how far a source is read when they are settled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Batch {
    events: Vec<Bytes>,
    octets: usize,
    youngest_ms: u64,
    /// The last record of which everything is in here, or before, or not wanted; 0 = no further than before.
    through: u64,
}

impl Batch {
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// Whether there is room for one more event.
    pub(crate) fn takes(&self, event: &Bytes, most: usize) -> bool {
        let fits = self.octets + event.len() <= MOST_OCTETS;
        self.events.is_empty() || self.events.len() < most && fits
    }

    pub(crate) fn push(&mut self, event: Bytes, written_at_ms: u64) {
        self.octets += event.len();
        self.youngest_ms = self.youngest_ms.max(written_at_ms);
        self.events.push(event);
    }

    /// Everything of this record is settled with the batch.
    pub(crate) fn reaches(&mut self, sequence: u64) {
        self.through = sequence;
    }

    /// See [`Batch::reaches`].
    pub(crate) fn through(&self) -> u64 {
        self.through
    }

    pub(crate) fn events(&self) -> &[Bytes] {
        &self.events
    }

    pub(crate) fn posted(&self) -> Posted {
        Posted {
            events: self.events.len(),
            youngest_ms: self.youngest_ms,
        }
    }

    /// Two, of which the second reaches as far as this one did.
    pub(crate) fn halves(mut self) -> (Self, Self) {
        let second = self.events.split_off(self.events.len().div_ceil(2));
        let octets_of = |events: &[Bytes]| events.iter().map(Bytes::len).sum();
        let second = Self {
            octets: octets_of(&second),
            events: second,
            youngest_ms: self.youngest_ms,
            through: self.through,
        };
        self.octets = octets_of(&self.events);
        self.through = 0;
        (self, second)
    }

    /// The body of the post. The same events make the same body.
    pub(crate) fn body(&self, webhook: &str, source: &str) -> Bytes {
        let mut body = Vec::with_capacity(self.octets + self.events.len() + 200);
        let (at, name) = (time(self.youngest_ms), serde_json::Value::from(webhook));
        let head = format!(
            r#"{{"type":"staffetta.events","timestamp":"{at}","data":{{"webhook":{name},"source":"{source}","events":["#
        );
        body.extend_from_slice(head.as_bytes());
        for (event, number) in self.events.iter().zip(0..) {
            if number > 0 {
                body.push(b',');
            }
            body.extend_from_slice(event);
        }
        body.extend_from_slice(b"]}}");
        Bytes::from(body)
    }
}

/// `webhook-id`: the same for the same body, so that a receiver knows a repetition.
pub(crate) fn id_of(body: &[u8]) -> String {
    let hash = digest(&SHA256, body);
    let octets = hash.as_ref().iter().take(16);
    octets.fold("evt_".to_owned(), |mut text, octet| {
        write!(text, "{octet:02x}").expect("a String takes everything");
        text
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn batch(events: u64) -> Batch {
        let mut batch = Batch::default();
        for number in 0..events {
            let event = Bytes::from(format!(r#"{{"id":"{number}"}}"#));
            assert!(batch.takes(&event, 100));
            batch.push(event, 1_795_351_206_000 + number);
        }
        batch.reaches(40);
        batch
    }

    #[test]
    fn the_body_is_as_standard_webhooks_wants_it_and_names_itself() {
        let body = batch(2).body("acme", "3");
        let read: Value = serde_json::from_slice(&body).unwrap();
        let expected = json!({
            "type": "staffetta.events",
            "timestamp": "2026-11-22T12:40:06.001Z",
            "data": { "webhook": "acme", "source": "3", "events": [{ "id": "0" }, { "id": "1" }] },
        });
        assert_eq!(read, expected);
        assert_eq!(id_of(&body), id_of(&batch(2).body("acme", "3")));
        assert_ne!(id_of(&body), id_of(&batch(1).body("acme", "3")));
        assert_eq!(id_of(&body).len(), 36);
    }

    #[test]
    fn halves_hold_everything_and_only_the_second_reaches_on() {
        let (first, second) = batch(5).halves();
        assert_eq!((first.len(), first.through()), (3, 0));
        assert_eq!((second.len(), second.through()), (2, 40));
        assert_eq!(
            [first.events(), second.events()].concat(),
            batch(5).events()
        );
    }

    #[test]
    fn an_event_that_is_too_long_goes_alone() {
        let long = Bytes::from(vec![b'x'; MOST_OCTETS + 1]);
        let mut batch = Batch::default();
        assert!(batch.takes(&long, 1));
        batch.push(long.clone(), 1);
        assert!(!batch.takes(&Bytes::from_static(b"{}"), 100));
        let mut full = Batch::default();
        full.push(Bytes::from_static(b"{}"), 1);
        assert!(!full.takes(&Bytes::from_static(b"{}"), 1));
        assert!(!full.takes(&long, 100));
    }
}
