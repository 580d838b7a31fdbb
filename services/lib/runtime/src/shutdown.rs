//! The request to stop.

use tokio_util::sync::CancellationToken;

/// Tells tasks that the service is to stop; clones share it. A service that is asked to stop takes
/// no new work, finishes what is begun, and returns from `run`.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// Not requested yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks every holder of a clone to stop.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// Whether it was asked for.
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until it is asked for. Safe to cancel and to wait for again.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// One that is requested with this one, and can also be requested alone.
    pub fn child(&self) -> Self {
        Self {
            token: self.token.child_token(),
        }
    }
}

/// A `Shutdown` that is requested by SIGTERM or SIGINT. A second signal ends the process at once.
pub fn shutdown_on_signals() -> std::io::Result<Shutdown> {
    use tokio::signal::unix::{SignalKind, signal};
    let shutdown = Shutdown::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let requested = shutdown.clone();
    tokio::spawn(async move {
        loop {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if requested.is_requested() {
                tracing::warn!(signal = name, "second signal: ending at once");
                std::process::exit(130);
            }
            tracing::info!(signal = name, "stopping");
            requested.request();
        }
    });
    Ok(shutdown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_stops_with_its_parent_and_not_the_other_way_round() {
        let parent = Shutdown::new();
        let first = parent.child();
        let second = parent.clone();
        first.request();
        assert!(first.is_requested() && !parent.is_requested());
        parent.request();
        second.requested().await;
        assert!(second.is_requested());
    }
}
