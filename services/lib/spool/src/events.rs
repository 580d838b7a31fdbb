//! The stream `EVENTS`: what others than the owner of a partition have to say.

use std::time::Duration;

use async_nats::HeaderMap;
use async_nats::header::NATS_MESSAGE_ID;
use bytes::Bytes;
use prost::Message as _;
use proto::event::{Event, Record};
use uuid::Uuid;

use crate::consume::Consumption;
use crate::link::Link;
use crate::packs::{PackReader, PackUnreadable, PackWriter, Told, record_of};
use crate::{Error, layout};

/// Format of the records that this release writes.
pub const EVENT_FORMAT: u32 = 1;

/// Writes events of one service.
pub type EventWriter = PackWriter<Event>;

impl Told for Event {
    const STREAM: &'static str = layout::EVENTS;
    const NAME: &'static str = "events";
    const QUEUE: usize = 4_096;
    const MOST: usize = 256;
    const MOST_OCTETS: usize = 48 << 10;
    const LINGER: Duration = Duration::from_millis(200);

    fn subject(service: &str) -> String {
        layout::events_subject(service)
    }

    fn record(events: Vec<Self>, id: Bytes, written_at_ms: u64, service: &str) -> Bytes {
        let record = Record {
            format: EVENT_FORMAT,
            id,
            written_at_ms,
            service: service.to_owned(),
            events,
        };
        Bytes::from(record.encode_to_vec())
    }
}

/// Reads a record of `EVENTS`.
pub fn decode_events(bytes: &[u8]) -> Result<Record, PackUnreadable> {
    let record =
        Record::decode(bytes).map_err(|error| PackUnreadable::Malformed(error.to_string()))?;
    match record.format {
        EVENT_FORMAT => Ok(record),
        found => Err(PackUnreadable::Format {
            found,
            known: EVENT_FORMAT,
        }),
    }
}

/// Reads the stream. A cheap clone.
#[derive(Debug, Clone)]
pub struct EventStore {
    control: Link,
    bulk: Link,
}

impl EventStore {
    pub(crate) fn new(control: Link, bulk: Link) -> Self {
        Self { control, bulk }
    }

    /// Stores events at once, for who writes few: an operator's doings.
    pub async fn store(&self, service: &str, events: Vec<Event>) -> Result<(), Error> {
        self.store_as(Uuid::now_v7().into_bytes(), service, events)
            .await
    }

    /// As [`EventStore::store`], with the id that the record has however often it is written: it is stored once within ten
    /// minutes, and the ids of its events are the same after that.
    pub async fn store_as(
        &self,
        id: [u8; 16],
        service: &str,
        events: Vec<Event>,
    ) -> Result<(), Error> {
        let id = Uuid::from_bytes(id);
        let mut headers = HeaderMap::new();
        headers.insert(NATS_MESSAGE_ID, id.to_string());
        let record = record_of(id, service, events);
        let subject = layout::events_subject(service);
        let stored = self.control.publish_connected(subject, headers, record);
        stored
            .await
            .map(drop)
            .map_err(|failure| failure.into_error("storing an event"))
    }

    /// First and last sequence; the first is `last + 1` when nothing is kept. [`Error::MissingStream`] in an installation
    /// that has no such stream.
    pub async fn bounds(&self) -> Result<(u64, u64), Error> {
        let state = self.control.stream_state(layout::EVENTS).await?.state;
        Ok((state.first_sequence.max(1), state.last_sequence))
    }

    /// Reads the records from a sequence on: to the end as it is when that is reached, or, when it follows, those to come as
    /// well. What was discarded is passed over. Dropping it ends it.
    pub fn read(&self, from: u64, follow: bool) -> PackReader {
        let consumption = Consumption::after(
            self.bulk.clone(),
            layout::EVENTS.to_owned(),
            "events.>".to_owned(),
            from.max(1) - 1,
        );
        PackReader::start(consumption, follow)
    }
}
