//! Starting services, alone or together, and stopping them in an order in which nothing is cut off.

use std::collections::BTreeSet;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Weak};
use std::time::Duration;

use anyhow::Context;
use config::Snapshot;
use proto::{Attached, Call, CallError, Dispatch, GrpcSigner, Sign, TellKeys};
use runtime::{Bootstrap, Readiness, Shutdown};
use spool::{Opened, Stores};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::waiting;

/// How often readiness is renewed.
const TICK: Duration = Duration::from_millis(500);
/// Name of the condition of [`Readiness`].
const CONFIGURATION: &str = "configuration";
/// The last reference to a scheduler is gone soon after its senders are.
const LAST_REFERENCE: Duration = Duration::from_millis(20);

/// A service, in the order in which they are stopped: who needs another ends before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Service {
    Ingress,
    Feedback,
    Sender,
    Scheduler,
    Signer,
}

impl Service {
    pub(crate) const ALL: [Self; 5] = [
        Self::Ingress,
        Self::Feedback,
        Self::Sender,
        Self::Scheduler,
        Self::Signer,
    ];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Feedback => "feedback",
            Self::Sender => "sender",
            Self::Scheduler => "scheduler",
            Self::Signer => "signer",
        }
    }

    fn metrics_address(self, bootstrap: &Bootstrap) -> SocketAddr {
        match self {
            Self::Ingress => bootstrap.ingress.metrics,
            Self::Feedback => bootstrap.feedback.metrics,
            Self::Sender => bootstrap.sender.metrics,
            Self::Scheduler => bootstrap.scheduler.metrics,
            Self::Signer => bootstrap.signer.metrics,
        }
    }
}

/// Shows the release of this process.
pub(crate) fn tell_version() {
    let info = telemetry::gauge_with(
        "staffetta_build_info",
        "Always 1; the release is in the label.",
        &["version"],
    );
    info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
}

/// Runs services until shutdown, or until one of them ends by itself. Calls between services of
/// this process go without gRPC. `ready` is told through `readiness`.
pub(crate) async fn run(
    bootstrap: Arc<Bootstrap>,
    services: &BTreeSet<Service>,
    readiness: Readiness,
    shutdown: Shutdown,
) -> anyhow::Result<()> {
    let endpoint = Shutdown::new();
    let metrics = match services.iter().collect::<Vec<_>>().as_slice() {
        [only] => only.metrics_address(&bootstrap),
        _ => bootstrap.all.metrics,
    };
    tell_version();
    readiness.wait("nats", "connecting");
    runtime::serve_health(metrics, readiness.clone(), endpoint.clone()).await?;
    let name = match services.iter().collect::<Vec<_>>().as_slice() {
        [only] => only.as_str(),
        _ => "all",
    };
    let opened = waiting::open_stores(&bootstrap, name, &readiness, &shutdown).await?;
    let Some((stores, opened)) = opened else {
        return Ok(());
    };
    tracing::info!(partitions = opened.partitions, durability = %opened.report, "the stores are open");

    let mut running = Running::new(
        bootstrap,
        stores,
        opened,
        readiness.clone(),
        shutdown.clone(),
    );
    let started = running.start_all(services).await;
    if started.is_ok() {
        running.keep_ready().await;
    }
    // Before anything stops, so that no new work is sent here.
    readiness.wait("running", "stopping");
    // What was started is stopped, also when the rest could not be.
    shutdown.request();
    let stopped = running.stop().await;
    endpoint.request();
    started.and(stopped)
}

/// The services of this process.
struct Running {
    bootstrap: Arc<Bootstrap>,
    stores: Stores,
    opened: Opened,
    readiness: Readiness,
    /// Requested from outside, or because a service ended.
    shutdown: Shutdown,
    /// All services run here.
    has_all: bool,
    /// Followed for those that need a configuration to be ready.
    snapshots: Option<watch::Receiver<Arc<Snapshot>>>,
    signer: Option<signer::Signer>,
    scheduler: Option<Weak<scheduler::Scheduler>>,
    tasks: Vec<Task>,
}

struct Task {
    service: Service,
    stop: Shutdown,
    ended: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    fn new(
        bootstrap: Arc<Bootstrap>,
        stores: Stores,
        opened: Opened,
        readiness: Readiness,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            bootstrap,
            stores,
            opened,
            readiness,
            shutdown,
            has_all: false,
            snapshots: None,
            signer: None,
            scheduler: None,
            tasks: Vec::new(),
        }
    }

    /// Starts those that others need first: the reverse of the order of stopping.
    async fn start_all(&mut self, services: &BTreeSet<Service>) -> anyhow::Result<()> {
        self.has_all = services.len() == Service::ALL.len();
        let snapshots = tokio::select! {
            snapshots = self.stores.follow_snapshots() => snapshots?,
            () = self.shutdown.requested() => return Ok(()),
        };
        if services
            .iter()
            .any(|service| *service != Service::Scheduler)
        {
            self.snapshots = Some(snapshots.clone());
            self.note_configuration();
        }
        for service in services.iter().rev() {
            match service {
                Service::Signer => self.start_signer(snapshots.clone()).await,
                Service::Scheduler => self.start_scheduler(snapshots.clone()),
                Service::Sender => self.start_sender(),
                Service::Feedback => self.start_feedback(),
                Service::Ingress => self.start_ingress(),
            }
            .with_context(|| service.as_str())?;
        }
        Ok(())
    }

    async fn start_signer(
        &mut self,
        snapshots: watch::Receiver<Arc<Snapshot>>,
    ) -> anyhow::Result<()> {
        let address = self.bootstrap.signer.listen;
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("cannot listen on {address}"))?;
        let options = signer::Options {
            threads: usize::try_from(self.bootstrap.signer.threads).unwrap_or(usize::MAX),
            resolver: signer::resolver(&self.bootstrap.resolvers),
            ..signer::Options::default()
        };
        let signer = signer::Signer::start(options, snapshots).await;
        self.signer = Some(signer.clone());
        self.spawn(Service::Signer, |stop| async move {
            Ok(signer::serve(signer, listener, stop).await?)
        });
        Ok(())
    }

    fn start_scheduler(&mut self, snapshots: watch::Receiver<Arc<Snapshot>>) -> anyhow::Result<()> {
        let stop = Shutdown::new();
        let partitions = self.opened.partitions;
        let scheduler = scheduler::Scheduler::start(
            &self.bootstrap,
            &self.stores,
            partitions,
            snapshots,
            stop.clone(),
        )?;
        let scheduler = Arc::new(scheduler);
        self.scheduler = Some(Arc::downgrade(&scheduler));
        let bootstrap = self.bootstrap.clone();
        let task = |stop: Shutdown| async move {
            let served = tokio::select! {
                served = scheduler::serve(&bootstrap, &scheduler, Shutdown::new()) => served,
                () = stop.requested() => Ok(()),
            };
            stop.request();
            last_reference(scheduler).await.stopped().await;
            Ok(served?)
        };
        self.spawn_with(Service::Scheduler, stop, task);
        Ok(())
    }

    fn start_sender(&mut self) -> anyhow::Result<()> {
        let (signer, keys): (Arc<dyn Sign>, Arc<dyn TellKeys>) = match &self.signer {
            Some(signer) => (Arc::new(signer.clone()), Arc::new(signer.clone())),
            None => {
                let signer = Arc::new(GrpcSigner::new(&self.bootstrap.sender.signers)?);
                (signer.clone(), signer)
            }
        };
        // Where every process has all services, each sender serves the scheduler beside it. Any other
        // layout may have schedulers elsewhere, which only this sender serves.
        let schedulers = match &self.scheduler {
            Some(scheduler) if self.has_all => {
                sender::Schedulers::Fixed(vec![Arc::new(SameProcess(scheduler.clone()))])
            }
            _ => sender::Schedulers::Announced,
        };
        let links = sender::Links {
            signer,
            keys,
            schedulers,
        };
        let (bootstrap, stores) = (self.bootstrap.clone(), self.stores.clone());
        self.spawn(Service::Sender, |stop| async move {
            Ok(sender::run(bootstrap, links, stores, stop).await?)
        });
        Ok(())
    }

    fn start_feedback(&mut self) -> anyhow::Result<()> {
        // It serves an endpoint of its own; that of the process is ours, which says the same.
        let mut bootstrap = (*self.bootstrap).clone();
        bootstrap.feedback.metrics = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let stores = self.stores.clone();
        let run = |stop| async move { Ok(feedback::run(Arc::new(bootstrap), stores, stop).await?) };
        self.spawn(Service::Feedback, run);
        Ok(())
    }

    fn start_ingress(&mut self) -> anyhow::Result<()> {
        let listeners = ingress::Listeners::bind(&self.bootstrap)?;
        let (bootstrap, readiness) = (self.bootstrap.clone(), self.readiness.clone());
        let (stores, opened) = (self.stores.clone(), self.opened.clone());
        let run = |stop| async move {
            let served = listeners.serve(&bootstrap, stores, &opened, readiness, stop);
            Ok(served.await?)
        };
        self.spawn(Service::Ingress, run);
        Ok(())
    }

    fn spawn<F>(&mut self, service: Service, run: impl FnOnce(Shutdown) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        self.spawn_with(service, Shutdown::new(), run);
    }

    /// A service that ends, for whatever reason, ends the process.
    fn spawn_with<F>(&mut self, service: Service, stop: Shutdown, run: impl FnOnce(Shutdown) -> F)
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let all = self.shutdown.clone();
        let own = stop.clone();
        let work = run(stop.clone());
        let ended = tokio::spawn(async move {
            let outcome = work.await;
            let by_itself = !own.is_requested();
            if by_itself {
                all.request();
            }
            match outcome {
                Ok(()) if by_itself => Err(anyhow::anyhow!("ended by itself")),
                outcome => outcome,
            }
        });
        self.tasks.push(Task {
            service,
            stop,
            ended,
        });
        // Ingress says itself when it listens and when storage is there.
        self.readiness
            .set(service.as_str(), service != Service::Ingress);
    }

    /// Until shutdown.
    async fn keep_ready(&self) {
        loop {
            if self.stores.is_connected() {
                self.readiness.set("nats", true);
            } else {
                self.readiness.wait("nats", "the connection is lost");
            }
            self.note_configuration();
            tokio::select! {
                () = tokio::time::sleep(TICK) => {}
                () = self.shutdown.requested() => return,
            }
        }
    }

    /// A scheduler is ready without a configuration, since one is applied through it; the others have nothing to do
    /// before.
    fn note_configuration(&self) {
        let Some(snapshots) = &self.snapshots else {
            return;
        };
        if !snapshots.borrow().is_empty() {
            self.readiness.set(CONFIGURATION, true);
        } else if !self.readiness.holds(CONFIGURATION) {
            self.readiness
                .wait(CONFIGURATION, "none is applied yet (`staffetta apply`)");
        }
    }

    /// Stops one service after the other; the first failure is returned.
    async fn stop(mut self) -> anyhow::Result<()> {
        let mut outcome = Ok(());
        self.tasks.sort_by_key(|task| task.service);
        for task in self.tasks {
            task.stop.request();
            let ended = match task.ended.await {
                Ok(ended) => ended,
                Err(error) => Err(error.into()),
            };
            let ended = ended.with_context(|| task.service.as_str());
            match &ended {
                Ok(()) => tracing::info!(service = task.service.as_str(), "stopped"),
                Err(error) => tracing::error!(service = task.service.as_str(), "{error:#}"),
            }
            outcome = outcome.and(ended);
        }
        outcome
    }
}

/// A scheduler in this process, as the sender sees it.
struct SameProcess(Weak<scheduler::Scheduler>);

impl Dispatch for SameProcess {
    fn attach(&self) -> Call<'_, Attached> {
        Box::pin(async {
            let gone = || CallError {
                detail: "the scheduler has stopped".to_owned(),
            };
            let scheduler = self.0.upgrade().ok_or_else(gone)?;
            scheduler.attach().await
        })
    }
}

/// The scheduler itself, once no sender is just attaching.
async fn last_reference(mut scheduler: Arc<scheduler::Scheduler>) -> scheduler::Scheduler {
    loop {
        match Arc::try_unwrap(scheduler) {
            Ok(scheduler) => return scheduler,
            Err(shared) => scheduler = shared,
        }
        tokio::time::sleep(LAST_REFERENCE).await;
    }
}
