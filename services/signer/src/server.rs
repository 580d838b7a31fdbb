//! gRPC around the signer, and the service's start and stop.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use config::Snapshot;
use proto::signer::signer_server::{Signer as SignerService, SignerServer};
use proto::signer::{KeysAnswer, KeysRequest, SignRequests, SignResults};
use proto::{MAX_SIGN_CALL_BYTES, MAX_SIGN_REQUESTS, Sign};
use runtime::{Bootstrap, Readiness, Shutdown, serve_health};
use spool::Stores;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::{Options, Signer};

/// Calls of one connection that are worked on at the same time.
const CALLS_PER_CONNECTION: usize = 64;
/// After the request to stop, calls under way have so long.
const STOP: Duration = Duration::from_secs(10);

/// The service could not be started or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not ours.
    #[error("signer: cannot listen on {address}")]
    Listen {
        /// As configured.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// Health and metrics.
    #[error("signer")]
    Health(#[from] runtime::HealthError),
    /// There is no configuration to follow.
    #[error("signer: the configuration can't be read")]
    Configuration(#[from] spool::Error),
    /// The gRPC server ended.
    #[error("signer: the gRPC server ended")]
    Grpc(#[from] tonic::transport::Error),
}

/// Runs the service until shutdown: gRPC on `signer.listen`, health and metrics on
/// `signer.metrics`, the configuration from `stores`.
pub async fn run(
    bootstrap: Arc<Bootstrap>,
    stores: Stores,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let bound = Bound::new(&bootstrap, &shutdown).await?;
    let snapshots = tokio::select! {
        snapshots = stores.follow_snapshots() => snapshots?,
        () = shutdown.requested() => return Ok(()),
    };
    bound.serve(snapshots, shutdown).await
}

/// The addresses are ours, and the service is not ready.
struct Bound {
    listener: TcpListener,
    readiness: Readiness,
    threads: usize,
    resolver: Option<dns::Resolver>,
}

/// Name of the condition of [`Readiness`].
const READY: &str = "keys";

impl Bound {
    async fn new(bootstrap: &Bootstrap, shutdown: &Shutdown) -> Result<Self, Error> {
        let address = bootstrap.signer.listen;
        let listener = TcpListener::bind(address)
            .await
            .map_err(|source| Error::Listen { address, source })?;
        let readiness = Readiness::new();
        readiness.set(READY, false);
        serve_health(
            bootstrap.signer.metrics,
            readiness.clone(),
            shutdown.clone(),
        )
        .await?;
        tracing::info!(%address, "signer starts");
        let threads = usize::try_from(bootstrap.signer.threads).unwrap_or(usize::MAX);
        Ok(Self {
            listener,
            readiness,
            threads,
            resolver: resolver(&bootstrap.resolvers),
        })
    }

    async fn serve(
        self,
        snapshots: watch::Receiver<Arc<Snapshot>>,
        shutdown: Shutdown,
    ) -> Result<(), Error> {
        let options = Options {
            threads: self.threads,
            resolver: self.resolver,
            ..Options::default()
        };
        let signer = Signer::start(options, snapshots).await;
        // Which key signs may follow from what the DNS says.
        tokio::select! {
            () = signer.first_asked() => {}
            () = shutdown.requested() => return Ok(()),
        }
        self.readiness.set(READY, true);
        tracing::info!("signer ready");
        serve(signer, self.listener, shutdown).await?;
        tracing::info!("signer stopped");
        Ok(())
    }
}

/// What asks these DNS servers, or those of the system, for the records of keys. Keys sign without it, but for those that
/// wait for their records.
pub fn resolver(servers: &[SocketAddr]) -> Option<dns::Resolver> {
    match dns::Resolver::new(servers) {
        Ok(resolver) => Some(resolver),
        Err(error) => {
            tracing::error!(%error, "the DNS can't be asked for the records of keys");
            None
        }
    }
}

/// Serves a signer by gRPC until shutdown; calls under way are finished, for at most 10 s.
pub async fn serve(signer: Signer, listener: TcpListener, shutdown: Shutdown) -> Result<(), Error> {
    let service = SignerServer::new(Grpc { signer })
        .max_decoding_message_size(MAX_SIGN_CALL_BYTES)
        .max_encoding_message_size(MAX_SIGN_CALL_BYTES);
    let requested = shutdown.clone();
    let server = Server::builder()
        .concurrency_limit_per_connection(CALLS_PER_CONNECTION)
        .http2_keepalive_interval(Some(Duration::from_secs(20)))
        .add_service(service)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            async move { requested.requested().await },
        );
    let overtime = async {
        shutdown.requested().await;
        tokio::time::sleep(STOP).await;
    };
    tokio::select! {
        ended = server => ended?,
        () = overtime => tracing::warn!("clients did not close their connections in time"),
    }
    Ok(())
}

struct Grpc {
    signer: Signer,
}

#[tonic::async_trait]
impl SignerService for Grpc {
    async fn sign(&self, request: Request<SignRequests>) -> Result<Response<SignResults>, Status> {
        let requests = request.into_inner().requests;
        if requests.len() > MAX_SIGN_REQUESTS {
            let detail = format!(
                "{} requests in one call, {MAX_SIGN_REQUESTS} are allowed",
                requests.len()
            );
            return Err(Status::invalid_argument(detail));
        }
        let results = self
            .signer
            .sign(requests)
            .await
            .map_err(|error| Status::unavailable(error.detail))?;
        Ok(Response::new(SignResults { results }))
    }

    async fn keys(&self, request: Request<KeysRequest>) -> Result<Response<KeysAnswer>, Status> {
        Ok(Response::new(self.signer.keys(&request.into_inner())))
    }
}

#[cfg(test)]
mod tests {
    use proto::signer::sign_result::Kind;
    use proto::signer::signer_client::SignerClient;
    use proto::signer::{SignErrorKind, SignRequest};
    use proto::{BatchingSigner, GrpcSigner};

    use super::*;
    use crate::keys::tests::snapshot;

    struct Running {
        url: String,
        shutdown: Shutdown,
        served: tokio::task::JoinHandle<Result<(), Error>>,
        _folder: tempfile::TempDir,
    }

    async fn start() -> Running {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, dkim::generate_rsa2048()).unwrap();
        let (_source, snapshots) = watch::channel(snapshot(&[("s1", "rsa-sha256", &path)]));
        let signer = Signer::start(
            Options {
                threads: 2,
                ..Options::default()
            },
            snapshots,
        )
        .await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = Shutdown::new();
        let served = tokio::spawn(serve(signer, listener, shutdown.clone()));
        Running {
            url,
            shutdown,
            served,
            _folder: folder,
        }
    }

    fn request(domain: &str) -> SignRequest {
        SignRequest {
            domain: domain.to_owned(),
            header: b"From: a@acme.example\r\n".as_slice().into(),
            body_hash: vec![7; 32].into(),
            own_message: false,
            ..SignRequest::default()
        }
    }

    #[tokio::test]
    async fn signs_over_grpc_through_the_batching_client() {
        let running = start().await;
        let client = GrpcSigner::new(std::slice::from_ref(&running.url)).unwrap();
        let client = BatchingSigner::new(Arc::new(client));
        let calls: Vec<_> = (0..40)
            .map(|number| {
                let client = client.clone();
                let domain = if number % 4 == 0 {
                    "foreign.example"
                } else {
                    "acme.example"
                };
                tokio::spawn(async move { client.sign(vec![request(domain)]).await })
            })
            .collect();
        for (number, call) in calls.into_iter().enumerate() {
            match call.await.unwrap().unwrap().remove(0).kind.unwrap() {
                Kind::Fields(fields) => {
                    assert_ne!(number % 4, 0);
                    assert!(fields.starts_with(b"DKIM-Signature: v=1; a=rsa-sha256;"));
                }
                Kind::Error(error) => {
                    assert_eq!((number % 4, error.kind()), (0, SignErrorKind::NoKey));
                }
            }
        }
        running.shutdown.request();
        running.served.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn goes_to_the_next_endpoint_when_one_is_away() {
        let running = start().await;
        // Bound, so that nobody else takes the port, and never listening.
        let unused = tokio::net::TcpSocket::new_v4().unwrap();
        unused.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let away = format!("http://{}", unused.local_addr().unwrap());
        let client = GrpcSigner::new(&[away.clone(), running.url.clone()]).unwrap();
        for _ in 0..4 {
            assert_eq!(
                client
                    .sign(vec![request("acme.example")])
                    .await
                    .unwrap()
                    .len(),
                1
            );
        }
        let alone = GrpcSigner::new(&[away]).unwrap();
        assert!(alone.sign(vec![request("acme.example")]).await.is_err());
        running.shutdown.request();
        running.served.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn refuses_calls_with_too_many_requests() {
        let running = start().await;
        let mut client = SignerClient::connect(running.url.clone()).await.unwrap();
        let requests = vec![request("acme.example"); MAX_SIGN_REQUESTS + 1];
        let status = client.sign(SignRequests { requests }).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        running.shutdown.request();
        running.served.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn runs_from_the_bootstrap_file_until_shutdown() {
        let free = || {
            let loopback = std::net::Ipv4Addr::LOCALHOST;
            SocketAddr::from((loopback, kit::free_port(loopback.into()).unwrap()))
        };
        let (listen, metrics) = (free(), free());
        let yaml =
            format!("signer: {{ listen: \"{listen}\", metrics: \"{metrics}\", threads: 1 }}");
        let bootstrap = Arc::new(Bootstrap::from_yaml(&yaml).unwrap());
        let (_source, snapshots) = watch::channel(Arc::default());
        let shutdown = Shutdown::new();
        let bound = Bound::new(&bootstrap, &shutdown).await.unwrap();
        let running = tokio::spawn(bound.serve(snapshots, shutdown.clone()));
        let client = GrpcSigner::new(&[format!("http://{listen}")]).unwrap();
        let results = client.sign(vec![request("acme.example")]).await.unwrap();
        assert!(matches!(results[0].kind, Some(Kind::Error(_))));
        let taken = Bound::new(&bootstrap, &shutdown).await.err().unwrap();
        assert_eq!(
            taken.to_string(),
            format!("signer: cannot listen on {listen}")
        );
        shutdown.request();
        running.await.unwrap().unwrap();
    }
}
