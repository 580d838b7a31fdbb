//! The streams of the senders, over gRPC or within the process.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use proto::dispatch::dispatch_server::Dispatch as DispatchService;
use proto::dispatch::{
    Ping, SchedulerFrame, SchedulerItem, SenderFrame, scheduler_item, sender_item,
};
use proto::{Attached, Call, Dispatch};
use queue::SessionId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use crate::core::{Event, Events, Line};

/// Frames under way in each direction.
const FRAMES: usize = 64;
/// How often a sender is asked whether it reads what it is told.
const PING: Duration = Duration::from_secs(5);
/// Without an answer for so long it is taken for gone: what it has not begun goes to others.
const UNREAD: Duration = Duration::from_secs(30);

/// Opens streams to the core.
#[derive(Clone)]
pub(crate) struct Streams {
    events: Events,
    sessions: Arc<AtomicU64>,
}

impl Streams {
    pub(crate) fn new(events: Events) -> Self {
        Self {
            events,
            sessions: Arc::new(AtomicU64::new(1)),
        }
    }

    /// A new session; what it sends is read from `frames` until that ends, the core has no more to say, or the
    /// sender reads nothing any more.
    async fn open(
        &self,
        mut frames: impl Stream<Item = SenderFrame> + Send + Unpin + 'static,
    ) -> mpsc::Receiver<SchedulerFrame> {
        let session = SessionId(self.sessions.fetch_add(1, Ordering::Relaxed));
        let (outgoing, incoming) = mpsc::channel(FRAMES);
        let (open, mut ended) = oneshot::channel();
        let events = self.events.clone();
        let line = Line {
            frames: outgoing.clone(),
            _open: open,
        };
        // When the core is gone, so is the process; streams end with it.
        events.send(Event::Attach(session, line)).await.ok();
        tokio::spawn(async move {
            let mut pulse = Pulse::default();
            let mut look = tokio::time::interval(PING);
            loop {
                let frame = tokio::select! {
                    frame = frames.next() => frame,
                    () = outgoing.closed() => None,
                    _ = &mut ended => None,
                    _ = look.tick() => {
                        match pulse.look(Instant::now()) {
                            Look::Fine => {}
                            // What waits before it is not read either.
                            Look::Ask(ping) => drop(outgoing.try_send(ping)),
                            Look::Gone => {
                                tracing::warn!(session = session.0, "a sender reads nothing: its stream is ended");
                                break;
                            }
                        }
                        continue;
                    }
                };
                let Some(frame) = frame else { break };
                pulse.hear(&frame);
                if events.send(Event::Frame(session, frame)).await.is_err() {
                    break;
                }
            }
            events.send(Event::Detach(session)).await.ok();
        });
        incoming
    }
}

/// Whether a sender reads what it is told. The connection may answer for a process in which nobody does.
#[derive(Default)]
struct Pulse {
    /// It has said that it answers.
    answers: bool,
    number: u64,
    /// Since when an answer is missing.
    asked: Option<Instant>,
}

enum Look {
    Fine,
    Ask(SchedulerFrame),
    Gone,
}

impl Pulse {
    fn look(&mut self, now: Instant) -> Look {
        match self.asked {
            _ if !self.answers => Look::Fine,
            Some(asked) if now.duration_since(asked) >= UNREAD => Look::Gone,
            // Asked again: the last question may have found no room.
            _ => {
                self.asked.get_or_insert(now);
                self.number += 1;
                let ping = Ping {
                    number: self.number,
                };
                Look::Ask(SchedulerFrame {
                    items: vec![SchedulerItem {
                        kind: Some(scheduler_item::Kind::Ping(ping)),
                    }],
                })
            }
        }
    }

    fn hear(&mut self, frame: &SenderFrame) {
        for item in &frame.items {
            match &item.kind {
                Some(sender_item::Kind::Hello(hello)) => self.answers = hello.answers_pings,
                Some(sender_item::Kind::Pong(_)) => self.asked = None,
                _ => {}
            }
        }
    }
}

impl Dispatch for Streams {
    fn attach(&self) -> Call<'_, Attached> {
        Box::pin(async {
            let (frames, incoming) = mpsc::channel(FRAMES);
            let events = self.open(ReceiverStream::new(incoming)).await;
            Ok(Attached { frames, events })
        })
    }
}

#[tonic::async_trait]
impl DispatchService for Streams {
    type AttachStream = Pin<Box<dyn Stream<Item = Result<SchedulerFrame, Status>> + Send>>;

    async fn attach(
        &self,
        request: Request<Streaming<SenderFrame>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let frames = request.into_inner().map_while(|frame| match frame {
            Ok(frame) => Some(frame),
            Err(status) => {
                tracing::info!(%status, "a sender's stream broke");
                None
            }
        });
        let outgoing = self.open(Box::pin(frames)).await;
        Ok(Response::new(Box::pin(
            ReceiverStream::new(outgoing).map(Ok),
        )))
    }
}

#[cfg(test)]
mod tests {
    use proto::dispatch::{Draining, Hello, Pong, SenderItem};

    use super::*;

    fn says(kind: sender_item::Kind) -> SenderFrame {
        SenderFrame {
            items: vec![SenderItem { kind: Some(kind) }],
        }
    }

    #[test]
    fn who_answers_stays_and_who_has_not_for_long_is_gone() {
        let (mut pulse, begun) = (Pulse::default(), Instant::now());
        pulse.hear(&says(sender_item::Kind::Hello(Hello {
            answers_pings: true,
            ..Hello::default()
        })));
        for minute in 0..5 {
            let now = begun + Duration::from_secs(60 * minute);
            assert!(matches!(pulse.look(now), Look::Ask(_)));
            pulse.hear(&says(sender_item::Kind::Pong(Pong { number: 1 })));
        }
        let asked = begun + Duration::from_secs(600);
        assert!(matches!(pulse.look(asked), Look::Ask(_)));
        // What else it says does not show that it reads.
        pulse.hear(&says(sender_item::Kind::Draining(Draining {})));
        assert!(matches!(pulse.look(asked + UNREAD / 2), Look::Ask(_)));
        assert!(matches!(pulse.look(asked + UNREAD), Look::Gone));
    }

    #[test]
    fn a_sender_of_a_release_that_knows_no_pings_is_not_asked() {
        let mut pulse = Pulse::default();
        pulse.hear(&says(sender_item::Kind::Hello(Hello::default())));
        assert!(matches!(pulse.look(Instant::now()), Look::Fine));
    }
}
