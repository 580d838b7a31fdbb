//! The calls between services as traits. A service in the same process implements them directly;
//! one in another process is reached through the gRPC client that implements them too.

use std::future::Future;
use std::pin::Pin;

use tokio::sync::mpsc;

use crate::dispatch::{SchedulerFrame, SenderFrame};
use crate::signer::{KeysAnswer, KeysRequest, SignRequest, SignResult};

/// A boxed future, so that the traits can be used as objects.
pub type Call<'a, T> = Pin<Box<dyn Future<Output = Result<T, CallError>> + Send + 'a>>;

/// A call to another service failed as a whole; nothing is known of its effect.
#[derive(Debug, Clone)]
pub struct CallError {
    /// What was called and what went wrong.
    pub detail: String,
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.detail)
    }
}

impl std::error::Error for CallError {}

/// The signer.
pub trait Sign: Send + Sync + 'static {
    /// Signs up to 256 messages; one result for each request, in order.
    fn sign(&self, requests: Vec<SignRequest>) -> Call<'_, Vec<SignResult>>;
}

/// The signer, as those see it who want to know of its keys.
pub trait TellKeys: Send + Sync + 'static {
    /// How the configured keys stand: a part of them, in the order of domains.
    fn keys(&self, request: KeysRequest) -> Call<'_, KeysAnswer>;
}

/// Two ends of an open dispatch stream, as the sender sees it.
pub struct Attached {
    /// To the scheduler.
    pub frames: mpsc::Sender<SenderFrame>,
    /// From the scheduler; ends when the stream is broken.
    pub events: mpsc::Receiver<SchedulerFrame>,
}

/// The scheduler, as the senders see it.
pub trait Dispatch: Send + Sync + 'static {
    /// Opens a stream. The sender's first frame begins with Hello.
    fn attach(&self) -> Call<'_, Attached>;
}
