//! The streams of the senders, over gRPC or within the process.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use proto::dispatch::dispatch_server::Dispatch as DispatchService;
use proto::dispatch::{SchedulerFrame, SenderFrame};
use proto::{Attached, Call, Dispatch};
use queue::SessionId;
use tokio::sync::mpsc;
use tokio_stream::{Stream, StreamExt, wrappers::ReceiverStream};
use tonic::{Request, Response, Status, Streaming};

use crate::core::{Event, Events};

/// Frames under way in each direction.
const FRAMES: usize = 64;

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

    /// A new session; what it sends is read from `frames` until that ends.
    async fn open(
        &self,
        mut frames: impl Stream<Item = SenderFrame> + Send + Unpin + 'static,
    ) -> mpsc::Receiver<SchedulerFrame> {
        let session = SessionId(self.sessions.fetch_add(1, Ordering::Relaxed));
        let (outgoing, incoming) = mpsc::channel(FRAMES);
        let events = self.events.clone();
        let closed = outgoing.clone();
        // When the core is gone, so is the process; streams end with it.
        events.send(Event::Attach(session, outgoing)).await.ok();
        tokio::spawn(async move {
            loop {
                let frame = tokio::select! {
                    frame = frames.next() => frame,
                    () = closed.closed() => None,
                };
                let Some(frame) = frame else { break };
                if events.send(Event::Frame(session, frame)).await.is_err() {
                    break;
                }
            }
            events.send(Event::Detach(session)).await.ok();
        });
        incoming
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
