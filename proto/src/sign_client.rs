//! The way to signers in other processes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tonic::transport::{Channel, Endpoint};

use crate::calls::{Call, CallError, Sign};
use crate::signer::signer_client::SignerClient;
use crate::signer::{SignRequest, SignRequests, SignResult};

/// Most requests in one call.
pub const MAX_SIGN_REQUESTS: usize = 256;
/// Largest call or reply in bytes; a batch is closed long before, at a quarter of it.
pub const MAX_SIGN_CALL_BYTES: usize = 16 * 1024 * 1024;

/// A call has so long, all attempts together.
const DEADLINE: Duration = Duration::from_secs(10);
/// An endpoint that is silent for so long is left for the next.
const ATTEMPT: Duration = Duration::from_secs(4);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A silent connection is asked for a sign of life after the first, and given up after the second.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));

/// Signers reached by gRPC. Calls go to the endpoints in turn; one that fails as a whole is tried
/// at the next, as signing twice does no harm. Connections are opened with the first call.
pub struct GrpcSigner {
    clients: Vec<SignerClient<Channel>>,
    next: AtomicUsize,
}

impl GrpcSigner {
    /// For URLs like `http://127.0.0.1:7102`, at least one. Must be called inside a tokio runtime.
    pub fn new(urls: &[String]) -> Result<Self, CallError> {
        let clients = urls
            .iter()
            .map(|url| client(url))
            .collect::<Result<Vec<_>, _>>()?;
        if clients.is_empty() {
            return Err(error("signer: no endpoint is configured"));
        }
        Ok(Self {
            clients,
            next: AtomicUsize::new(0),
        })
    }

    async fn call(&self, requests: Vec<SignRequest>) -> Result<Vec<SignResult>, CallError> {
        let expected = requests.len();
        let requests = SignRequests { requests };
        if expected > MAX_SIGN_REQUESTS || requests.encoded_len() > MAX_SIGN_CALL_BYTES {
            return Err(error("signer: the call is too large"));
        }
        let deadline = Instant::now() + DEADLINE;
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let mut last_error = error("signer: no answer in time");
        // One more than there are: a single signer that was restarted shows it by one failed call.
        for attempt in 0..=self.clients.len() {
            let mut client = self.clients[first.wrapping_add(attempt) % self.clients.len()].clone();
            let attempt_ends = deadline.min(Instant::now() + ATTEMPT);
            match timeout_at(attempt_ends, client.sign(requests.clone())).await {
                Ok(Ok(reply)) => {
                    let results = reply.into_inner().results;
                    if results.len() == expected {
                        return Ok(results);
                    }
                    last_error = error("signer: the reply has not one result for each request");
                }
                Ok(Err(status)) => last_error = error(format!("signer: {status}")),
                Err(_) if Instant::now() >= deadline => break,
                Err(_) => {}
            }
        }
        Err(last_error)
    }
}

impl Sign for GrpcSigner {
    fn sign(&self, requests: Vec<SignRequest>) -> Call<'_, Vec<SignResult>> {
        Box::pin(self.call(requests))
    }
}

fn client(url: &str) -> Result<SignerClient<Channel>, CallError> {
    let channel = Endpoint::from_shared(url.to_owned())
        .map_err(|reason| error(format!("signer {url}: {reason}")))?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1)
        .connect_lazy();
    Ok(SignerClient::new(channel)
        .max_decoding_message_size(MAX_SIGN_CALL_BYTES)
        .max_encoding_message_size(MAX_SIGN_CALL_BYTES))
}

fn error(detail: impl Into<String>) -> CallError {
    CallError {
        detail: detail.into(),
    }
}

/// While a call is under way, others wait so long for company.
const LINGER: Duration = Duration::from_millis(1);
/// Calls under way at the same time.
const MAX_CALLS: usize = 16;
/// Requests that wait to be put into a call; callers wait when it is full.
const QUEUE: usize = 4 * MAX_SIGN_REQUESTS;

/// Collects the requests of many callers into few calls: what waits goes out together, at once
/// when no call is under way, else after at most 1 ms or when a call is full.
#[derive(Clone)]
pub struct BatchingSigner {
    queue: mpsc::Sender<Waiting>,
}

struct Waiting {
    request: SignRequest,
    answer: oneshot::Sender<Result<SignResult, CallError>>,
}

impl BatchingSigner {
    /// In front of `signer`. Must be called inside a tokio runtime; the task that it starts ends
    /// when the last clone is dropped.
    pub fn new(signer: Arc<dyn Sign>) -> Self {
        let (queue, waiting) = mpsc::channel(QUEUE);
        tokio::spawn(send_batches(signer, waiting));
        Self { queue }
    }

    async fn enqueue(&self, requests: Vec<SignRequest>) -> Result<Vec<SignResult>, CallError> {
        let mut answers = Vec::with_capacity(requests.len());
        for request in requests {
            if request.encoded_len() > MAX_SIGN_CALL_BYTES / 4 {
                return Err(error("signer: the header section is too large"));
            }
            let (answer, answered) = oneshot::channel();
            let waiting = Waiting { request, answer };
            self.queue.send(waiting).await.map_err(|_| stopped())?;
            answers.push(answered);
        }
        let mut results = Vec::with_capacity(answers.len());
        for answered in answers {
            results.push(answered.await.map_err(|_| stopped())??);
        }
        Ok(results)
    }
}

impl Sign for BatchingSigner {
    fn sign(&self, requests: Vec<SignRequest>) -> Call<'_, Vec<SignResult>> {
        Box::pin(self.enqueue(requests))
    }
}

fn stopped() -> CallError {
    error("signer: the client was stopped")
}

async fn send_batches(signer: Arc<dyn Sign>, mut queue: mpsc::Receiver<Waiting>) {
    let mut calls = JoinSet::new();
    while let Some(first) = queue.recv().await {
        while calls.try_join_next().is_some() {}
        let mut batch = Batch::default();
        batch.push(first);
        let sends_at = Instant::now() + LINGER;
        while !batch.is_full() {
            if let Ok(next) = queue.try_recv() {
                batch.push(next);
                continue;
            }
            if calls.is_empty() {
                break;
            }
            tokio::select! {
                next = queue.recv() => match next {
                    Some(next) => batch.push(next),
                    None => break,
                },
                _ = calls.join_next() => {}
                () = tokio::time::sleep_until(sends_at) => break,
            }
        }
        while calls.len() >= MAX_CALLS {
            calls.join_next().await;
        }
        calls.spawn(batch.call(signer.clone()));
    }
    while calls.join_next().await.is_some() {}
}

#[derive(Default)]
struct Batch {
    requests: Vec<SignRequest>,
    answers: Vec<oneshot::Sender<Result<SignResult, CallError>>>,
    bytes: usize,
}

impl Batch {
    fn push(&mut self, waiting: Waiting) {
        if waiting.answer.is_closed() {
            return;
        }
        self.bytes += waiting.request.encoded_len();
        self.requests.push(waiting.request);
        self.answers.push(waiting.answer);
    }

    fn is_full(&self) -> bool {
        self.requests.len() >= MAX_SIGN_REQUESTS || self.bytes >= MAX_SIGN_CALL_BYTES / 4
    }

    async fn call(self, signer: Arc<dyn Sign>) {
        if self.requests.is_empty() {
            return;
        }
        match signer.sign(self.requests).await {
            Ok(results) => {
                for (answer, result) in self.answers.into_iter().zip(results) {
                    // The caller may have gone.
                    drop(answer.send(Ok(result)));
                }
            }
            Err(error) => {
                for answer in self.answers {
                    drop(answer.send(Err(error.clone())));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::signer::sign_result::Kind;

    /// Answers with the domain that was asked for, when it is let.
    struct Echo {
        sizes: Mutex<Vec<usize>>,
        permits: Semaphore,
        fails: bool,
    }

    impl Echo {
        fn new(permits: usize, fails: bool) -> Arc<Self> {
            Arc::new(Self {
                sizes: Mutex::default(),
                permits: Semaphore::new(permits),
                fails,
            })
        }

        fn sizes(&self) -> Vec<usize> {
            self.sizes.lock().unwrap().clone()
        }
    }

    impl Sign for Echo {
        fn sign(&self, requests: Vec<SignRequest>) -> Call<'_, Vec<SignResult>> {
            self.sizes.lock().unwrap().push(requests.len());
            Box::pin(async move {
                self.permits.acquire().await.unwrap().forget();
                if self.fails {
                    return Err(error("no"));
                }
                let answer = |request: SignRequest| SignResult {
                    kind: Some(Kind::Fields(request.domain.into())),
                };
                Ok(requests.into_iter().map(answer).collect())
            })
        }
    }

    fn request(domain: String) -> SignRequest {
        SignRequest {
            domain,
            ..SignRequest::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn sends_the_first_at_once_and_the_next_ones_together() {
        let echo = Echo::new(0, false);
        let signer = BatchingSigner::new(echo.clone());
        let ask = |number: usize| {
            let signer = signer.clone();
            tokio::spawn(async move { signer.sign(vec![request(number.to_string())]).await })
        };
        let mut asked = vec![ask(0)];
        tokio::time::sleep(Duration::from_micros(10)).await;
        assert_eq!(echo.sizes(), [1]);
        asked.extend((1..=300).map(ask));
        tokio::time::sleep(Duration::from_micros(10)).await;
        assert_eq!(echo.sizes(), [1, 256], "a full call does not wait");
        tokio::time::sleep(LINGER * 2).await;
        assert_eq!(echo.sizes(), [1, 256, 44]);
        echo.permits.add_permits(10);
        for (number, answer) in asked.into_iter().enumerate() {
            let results = answer.await.unwrap().unwrap();
            assert_eq!(
                results[0].kind,
                Some(Kind::Fields(Bytes::from(number.to_string())))
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn gives_the_results_of_one_caller_in_its_order() {
        let signer = BatchingSigner::new(Echo::new(100, false));
        let requests = (0..600)
            .map(|number: usize| request(number.to_string()))
            .collect();
        let results = signer.sign(requests).await.unwrap();
        for (number, result) in results.into_iter().enumerate() {
            assert_eq!(
                result.kind,
                Some(Kind::Fields(Bytes::from(number.to_string())))
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn tells_every_caller_that_the_call_failed() {
        let signer = BatchingSigner::new(Echo::new(100, true));
        let error = signer.sign(vec![request(String::new())]).await.unwrap_err();
        assert_eq!(error.detail, "no");
    }

    #[tokio::test]
    async fn says_which_url_is_none_and_wants_one() {
        assert!(GrpcSigner::new(&[]).is_err());
        let error = GrpcSigner::new(&["not a url".to_owned()]).err().unwrap();
        assert!(error.detail.contains("not a url"), "{error}");
    }
}
