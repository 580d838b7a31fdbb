//! The way to a scheduler in another process.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use crate::calls::{Attached, Call, CallError, Dispatch};
use crate::dispatch::dispatch_client::DispatchClient;
use crate::dispatch::{SchedulerFrame, SenderFrame};

/// Largest frame in bytes, in both directions.
pub const MAX_DISPATCH_FRAME_BYTES: usize = 16 * 1024 * 1024;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A silent scheduler is asked for a sign of life after the first, and given up after the second: a
/// sender that holds a stream to nobody would keep what others could deliver.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(3));
/// Frames under way in each direction; then the writer waits.
const FRAMES: usize = 64;

/// A scheduler reached by gRPC. Each `attach` is a connection of its own.
pub struct GrpcDispatch {
    endpoint: Endpoint,
    address: String,
}

impl GrpcDispatch {
    /// At `host:port`.
    pub fn new(address: &str) -> Result<Self, CallError> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))
            .map_err(|reason| error(address, reason))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE.0)
            .keep_alive_timeout(KEEP_ALIVE.1)
            .keep_alive_while_idle(true);
        Ok(Self {
            endpoint,
            address: address.to_owned(),
        })
    }

    async fn open(&self) -> Result<Attached, CallError> {
        let channel = self
            .endpoint
            .connect()
            .await
            .map_err(|reason| error(&self.address, describe(&reason)))?;
        let (frames, outgoing) = mpsc::channel(FRAMES);
        let (incoming, events) = mpsc::channel(FRAMES);
        tokio::spawn(receive(channel, outgoing, incoming, self.address.clone()));
        Ok(Attached { frames, events })
    }
}

impl Dispatch for GrpcDispatch {
    fn attach(&self) -> Call<'_, Attached> {
        Box::pin(self.open())
    }
}

/// The call is made here, since the scheduler may wait for the first frame before it answers.
async fn receive(
    channel: Channel,
    outgoing: mpsc::Receiver<SenderFrame>,
    incoming: mpsc::Sender<SchedulerFrame>,
    address: String,
) {
    let mut client = DispatchClient::new(channel)
        .max_decoding_message_size(MAX_DISPATCH_FRAME_BYTES)
        .max_encoding_message_size(MAX_DISPATCH_FRAME_BYTES);
    let mut stream = match client.attach(ReceiverStream::new(outgoing)).await {
        Ok(response) => response.into_inner(),
        Err(status) => {
            return tracing::warn!(scheduler = address, %status, "the dispatch stream was not opened");
        }
    };
    loop {
        let frame = tokio::select! {
            frame = stream.message() => frame,
            () = incoming.closed() => return,
        };
        match frame {
            Ok(Some(frame)) => {
                if incoming.send(frame).await.is_err() {
                    return;
                }
            }
            Ok(None) => return,
            Err(status) => {
                return tracing::warn!(scheduler = address, %status, "the dispatch stream broke");
            }
        }
    }
}

fn describe(error: &tonic::transport::Error) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

fn error(address: &str, reason: impl std::fmt::Display) -> CallError {
    CallError {
        detail: format!("scheduler {address}: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio_stream::wrappers::TcpListenerStream;
    use tonic::transport::Server;
    use tonic::{Request, Response, Status, Streaming};

    use super::*;
    use crate::dispatch::dispatch_server::{self, DispatchServer};
    use crate::dispatch::{Hello, SchedulerItem, SenderItem, Welcome, scheduler_item, sender_item};

    /// Answers Hello with Welcome, and ends. It waits for the first frame before it answers the call.
    struct Welcoming;

    #[tonic::async_trait]
    impl dispatch_server::Dispatch for Welcoming {
        type AttachStream = ReceiverStream<Result<SchedulerFrame, Status>>;

        async fn attach(
            &self,
            request: Request<Streaming<SenderFrame>>,
        ) -> Result<Response<Self::AttachStream>, Status> {
            let mut frames = request.into_inner();
            let Some(sender_item::Kind::Hello(hello)) = frames
                .message()
                .await?
                .and_then(|frame| frame.items[0].kind.clone())
            else {
                return Err(Status::invalid_argument("Hello comes first"));
            };
            let (events, stream) = mpsc::channel(1);
            let welcome = scheduler_item::Kind::Welcome(Welcome {
                scheduler_id: hello.sender_id,
            });
            events
                .send(Ok(SchedulerFrame {
                    items: vec![SchedulerItem {
                        kind: Some(welcome),
                    }],
                }))
                .await
                .unwrap();
            Ok(Response::new(ReceiverStream::new(stream)))
        }
    }

    #[tokio::test]
    async fn frames_go_both_ways_and_the_end_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let service = Server::builder().add_service(DispatchServer::new(Welcoming));
        tokio::spawn(service.serve_with_incoming(TcpListenerStream::new(listener)));
        let mut attached = GrpcDispatch::new(&address).unwrap().attach().await.unwrap();
        let hello = sender_item::Kind::Hello(Hello {
            sender_id: "one".into(),
            ..Hello::default()
        });
        attached
            .frames
            .send(SenderFrame {
                items: vec![SenderItem { kind: Some(hello) }],
            })
            .await
            .unwrap();
        let frame = attached.events.recv().await.unwrap();
        assert_eq!(
            frame.items[0].kind,
            Some(scheduler_item::Kind::Welcome(Welcome {
                scheduler_id: "one".into()
            }))
        );
        assert!(attached.events.recv().await.is_none());
    }

    #[tokio::test]
    async fn a_scheduler_that_is_not_there_is_an_error() {
        // Bound, so that nobody else takes the port, and never listening.
        let unused = tokio::net::TcpSocket::new_v4().unwrap();
        unused.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = unused.local_addr().unwrap().to_string();
        let error = GrpcDispatch::new(&address)
            .unwrap()
            .attach()
            .await
            .err()
            .unwrap();
        assert!(
            error.detail.starts_with(&format!("scheduler {address}: ")),
            "{error}"
        );
        assert!(GrpcDispatch::new("not an address").is_err());
    }
}
