//! The way to signers in other processes.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tonic::transport::{Channel, Endpoint};

use crate::calls::{Call, CallError, Sign, TellKeys};
use crate::endpoints::{Endpoints, Lookup, system_lookup};
use crate::signer::signer_client::SignerClient;
use crate::signer::{KeysAnswer, KeysRequest, SignRequest, SignRequests, SignResult};

/// Most requests in one call.
pub const MAX_SIGN_REQUESTS: usize = 256;
/// Largest call or reply in bytes; a batch is closed long before, at a quarter of it.
pub const MAX_SIGN_CALL_BYTES: usize = 16 * 1024 * 1024;

/// A call has so long, all attempts together.
const DEADLINE: Duration = Duration::from_secs(10);
/// An endpoint that is silent for so long is left for the next.
const ATTEMPT: Duration = Duration::from_secs(3);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A silent connection is asked for a sign of life after the first, and given up after the second.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(5));

/// Signers reached by gRPC: all addresses of all URLs, in turn. A call that fails as a whole is made again at the next
/// address, as signing twice does no harm. Connections are opened with the first call.
pub struct GrpcSigner {
    endpoints: Arc<Endpoints>,
}

impl GrpcSigner {
    /// For URLs like `http://127.0.0.1:7102` or `http://signer:7102`, at least one. Must be called inside a tokio
    /// runtime.
    pub fn new(urls: &[String]) -> Result<Self, CallError> {
        Self::with_lookup(urls, system_lookup())
    }

    fn with_lookup(urls: &[String], lookup: Lookup) -> Result<Self, CallError> {
        if urls.is_empty() {
            return Err(error("signer: no endpoint is configured"));
        }
        let endpoints = Endpoints::new(urls, lookup, configure)
            .map_err(|reason| error(format!("signer: {reason}")))?;
        Ok(Self { endpoints })
    }

    async fn call(&self, requests: Vec<SignRequest>) -> Result<Vec<SignResult>, CallError> {
        let expected = requests.len();
        let requests = SignRequests { requests };
        if expected > MAX_SIGN_REQUESTS || requests.encoded_len() > MAX_SIGN_CALL_BYTES {
            return Err(error("signer: the call is too large"));
        }
        let deadline = Instant::now() + DEADLINE;
        let mut last_error = None;
        // A second round: a single signer that was restarted shows it by one failed call.
        for _ in 0..2 {
            for target in self.endpoints.in_turn(deadline).await {
                let attempt_ends = deadline.min(Instant::now() + ATTEMPT);
                let mut client = client(target.channel);
                match timeout_at(attempt_ends, client.sign(requests.clone())).await {
                    Ok(Ok(reply)) => {
                        let results = reply.into_inner().results;
                        if results.len() == expected {
                            return Ok(results);
                        }
                        let detail = "signer: the reply has not one result for each request";
                        last_error = Some(error(detail));
                    }
                    Ok(Err(status)) => last_error = Some(error(format!("signer: {status}"))),
                    Err(_) => last_error = Some(error("signer: no answer in time")),
                }
                self.endpoints.failed(target.address);
                if Instant::now() >= deadline {
                    break;
                }
            }
        }
        Err(last_error.unwrap_or_else(|| error(format!("signer: {}", self.endpoints.problem()))))
    }
}

impl Sign for GrpcSigner {
    fn sign(&self, requests: Vec<SignRequest>) -> Call<'_, Vec<SignResult>> {
        Box::pin(self.call(requests))
    }
}

impl TellKeys for GrpcSigner {
    fn keys(&self, request: KeysRequest) -> Call<'_, KeysAnswer> {
        Box::pin(async move {
            let deadline = Instant::now() + DEADLINE;
            let mut last_error = None;
            for target in self.endpoints.in_turn(deadline).await {
                let attempt_ends = deadline.min(Instant::now() + ATTEMPT);
                let mut client = client(target.channel);
                match timeout_at(attempt_ends, client.keys(request.clone())).await {
                    Ok(Ok(reply)) => return Ok(reply.into_inner()),
                    Ok(Err(status)) => last_error = Some(error(format!("signer: {status}"))),
                    Err(_) => last_error = Some(error("signer: no answer in time")),
                }
                self.endpoints.failed(target.address);
                if Instant::now() >= deadline {
                    break;
                }
            }
            Err(last_error
                .unwrap_or_else(|| error(format!("signer: {}", self.endpoints.problem()))))
        })
    }
}

fn configure(endpoint: Endpoint) -> Endpoint {
    endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE.0)
        .keep_alive_timeout(KEEP_ALIVE.1)
}

fn client(channel: Channel) -> SignerClient<Channel> {
    SignerClient::new(channel)
        .max_decoding_message_size(MAX_SIGN_CALL_BYTES)
        .max_encoding_message_size(MAX_SIGN_CALL_BYTES)
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
    use std::collections::HashMap;
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Mutex;

    use bytes::Bytes;
    use tokio::net::TcpListener;
    use tokio::sync::Semaphore;
    use tokio_stream::wrappers::TcpListenerStream;

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
        for wrong in ["not a url", "https://signer:7102", "signer:7102"] {
            let error = GrpcSigner::new(&[wrong.to_owned()]).err().unwrap();
            assert!(error.detail.contains(wrong), "{error}");
        }
    }

    /// A signer that tells its address: the requests that it got are counted.
    struct Counting(Arc<Mutex<HashMap<SocketAddr, usize>>>, SocketAddr);

    #[tonic::async_trait]
    impl crate::signer::signer_server::Signer for Counting {
        async fn sign(
            &self,
            request: tonic::Request<SignRequests>,
        ) -> Result<tonic::Response<crate::signer::SignResults>, tonic::Status> {
            *self.0.lock().unwrap().entry(self.1).or_default() += 1;
            let results = vec![SignResult::default(); request.into_inner().requests.len()];
            Ok(tonic::Response::new(crate::signer::SignResults { results }))
        }

        async fn keys(
            &self,
            _: tonic::Request<crate::signer::KeysRequest>,
        ) -> Result<tonic::Response<crate::signer::KeysAnswer>, tonic::Status> {
            Err(tonic::Status::unimplemented("no keys are here"))
        }
    }

    /// Replicas on one port of several loopback addresses, and a name that has those that are wanted.
    struct Replicas {
        counts: Arc<Mutex<HashMap<SocketAddr, usize>>>,
        named: Arc<Mutex<Vec<SocketAddr>>>,
        port: u16,
        running: HashMap<SocketAddr, tokio::runtime::Runtime>,
    }

    impl Replicas {
        /// `network` is that of this test alone: 127.`network`.0.x.
        async fn start(network: u8, number: u8) -> Self {
            let first = TcpListener::bind((Ipv4Addr::new(127, network, 0, 1), 0))
                .await
                .unwrap();
            let port = first.local_addr().unwrap().port();
            drop(first);
            let mut replicas = Self {
                counts: Arc::default(),
                named: Arc::default(),
                port,
                running: HashMap::new(),
            };
            for number in 1..=number {
                replicas.serve(Ipv4Addr::new(127, network, 0, number)).await;
            }
            replicas
        }

        async fn serve(&mut self, ip: Ipv4Addr) {
            let address = SocketAddr::from((ip, self.port));
            let service = crate::signer::signer_server::SignerServer::new(Counting(
                self.counts.clone(),
                address,
            ));
            // A runtime of its own, which takes its connections with it when it ends.
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            let (listening, listens) = oneshot::channel();
            runtime.spawn(async move {
                let listener = TcpListener::bind(address).await.unwrap();
                listening.send(()).unwrap();
                tonic::transport::Server::builder()
                    .add_service(service)
                    .serve_with_incoming(TcpListenerStream::new(listener))
                    .await
                    .unwrap();
            });
            listens.await.unwrap();
            self.running.insert(address, runtime);
            self.named.lock().unwrap().push(address);
        }

        /// Its connections are closed and its port is free when this returns.
        async fn kill(&mut self, address: SocketAddr) {
            let runtime = self.running.remove(&address).unwrap();
            tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(60)))
                .await
                .unwrap();
        }

        fn client(&self) -> GrpcSigner {
            let named = self.named.clone();
            let lookup: Lookup = Arc::new(move |host, _| {
                assert_eq!(host, "signer.test");
                let found = named.lock().unwrap().clone();
                Box::pin(async move { Ok(found) })
            });
            let url = format!("http://signer.test:{}", self.port);
            GrpcSigner::with_lookup(&[url], lookup).unwrap()
        }

        fn counts(&self) -> Vec<usize> {
            let mut counts: Vec<_> = self.counts.lock().unwrap().drain().collect();
            counts.sort();
            counts.into_iter().map(|(_, count)| count).collect()
        }
    }

    impl Drop for Replicas {
        fn drop(&mut self) {
            for (_, runtime) in self.running.drain() {
                runtime.shutdown_background();
            }
        }
    }

    async fn call(client: &GrpcSigner) -> Result<Vec<SignResult>, CallError> {
        client.sign(vec![request(String::new())]).await
    }

    #[tokio::test]
    async fn calls_are_spread_over_all_addresses_of_a_name_and_go_round_the_dead_ones() {
        let mut replicas = Replicas::start(71, 3).await;
        let client = replicas.client();
        for _ in 0..9 {
            call(&client).await.unwrap();
        }
        assert_eq!(replicas.counts(), [3, 3, 3]);

        let dead = SocketAddr::from((Ipv4Addr::new(127, 71, 0, 2), replicas.port));
        replicas.kill(dead).await;
        let mut quickest = Duration::MAX;
        // Once at least the machine has nothing else to do meanwhile.
        for _ in 0..4 {
            let started = Instant::now();
            for _ in 0..8 {
                call(&client).await.unwrap();
            }
            quickest = quickest.min(started.elapsed());
        }
        assert!(quickest < CONNECT_TIMEOUT, "time is lost: {quickest:?}");
        let counts = replicas.counts();
        assert_eq!((counts.len(), counts.iter().sum::<usize>()), (2, 4 * 8));

        // A new replica is found by its name alone, one that left the name is not asked any more.
        replicas
            .named
            .lock()
            .unwrap()
            .retain(|address| *address != dead);
        replicas.serve(Ipv4Addr::new(127, 71, 0, 4)).await;
        let gone = SocketAddr::from((Ipv4Addr::new(127, 71, 0, 1), replicas.port));
        replicas
            .named
            .lock()
            .unwrap()
            .retain(|address| *address != gone);
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            replicas.counts();
            for _ in 0..4 {
                call(&client).await.unwrap();
            }
            let asked: Vec<_> = replicas.counts.lock().unwrap().keys().copied().collect();
            let new = SocketAddr::from((Ipv4Addr::new(127, 71, 0, 4), replicas.port));
            if asked.contains(&new) && !asked.contains(&gone) {
                break;
            }
            assert!(Instant::now() < until, "{asked:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_without_addresses_is_waited_for_and_then_told() {
        let lookup: Lookup =
            Arc::new(|_, _| Box::pin(async { Err(std::io::Error::other("no such name")) }));
        let client = GrpcSigner::with_lookup(&["http://signer.test:1".to_owned()], lookup).unwrap();
        let started = Instant::now();
        let problem = call(&client).await.unwrap_err().detail;
        assert_eq!(problem, "signer: http://signer.test:1: no such name");
        assert_eq!(started.elapsed().as_secs(), DEADLINE.as_secs());
    }
}
