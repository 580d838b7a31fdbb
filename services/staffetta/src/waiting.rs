//! Waiting for what a service or command needs: it may come later, in whatever order things are started.

use std::fmt::Display;
use std::time::{Duration, Instant};

use runtime::{Bootstrap, Readiness, Shutdown};
use spool::{Opened, Stores};

use crate::stores;

/// Between the first attempts, and at last.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// The same reason is told again after so long.
const REMIND: Duration = Duration::from_secs(60);

/// Pauses that grow, and a log line for each new reason.
pub(crate) struct Waiting {
    pause: Duration,
    told: Option<(String, Instant)>,
}

impl Waiting {
    pub(crate) fn new() -> Self {
        Self {
            pause: FIRST_PAUSE,
            told: None,
        }
    }

    /// Tells what is waited for, unless that was told a moment ago.
    pub(crate) fn tell(&mut self, reason: impl Display) {
        let reason = reason.to_string();
        let is_known = |(told, at): &(String, Instant)| *told == reason && at.elapsed() < REMIND;
        if !self.told.as_ref().is_some_and(is_known) {
            tracing::warn!(reason, "waiting");
            self.told = Some((reason, Instant::now()));
        }
    }

    /// The next pause, up to 5 s.
    pub(crate) fn pause(&mut self) -> Duration {
        let pause = self.pause;
        self.pause = (pause * 2).min(LONGEST_PAUSE);
        pause
    }
}

/// Whether a service waits: servers may be away or starting, and `init` may come later. Anything else, such as a stream
/// that was lost, needs a person.
fn is_worth_waiting(error: &spool::Error) -> bool {
    error.may_pass() || matches!(error, spool::Error::NotInitialized { .. })
}

/// Connects to the stores of an installation, for the services of this name; waits as long as waiting may help. What it
/// waits for is the reason of the condition `nats`. `None` when asked to stop meanwhile.
pub(crate) async fn open_stores(
    bootstrap: &Bootstrap,
    name: &str,
    readiness: &Readiness,
    shutdown: &Shutdown,
) -> Result<Option<(Stores, Opened)>, spool::Error> {
    let options = stores::options(bootstrap, name);
    let mut waiting = Waiting::new();
    // Kept while `init` is waited for: connections are not made anew at each look.
    let mut connected: Option<Stores> = None;
    loop {
        let attempt = async {
            let stores = match connected.take() {
                Some(stores) => stores,
                None => Stores::connect(&options).await?,
            };
            let opened = stores.open().await;
            connected = Some(stores.clone());
            Ok::<_, spool::Error>((stores, opened?))
        };
        let attempted = tokio::select! {
            attempted = attempt => attempted,
            () = shutdown.requested() => return Ok(None),
        };
        match attempted {
            Ok(open) => return Ok(Some(open)),
            Err(error) if is_worth_waiting(&error) => {
                readiness.wait("nats", error.to_string());
                waiting.tell(error);
            }
            Err(error) => return Err(error),
        }
        tokio::select! {
            () = tokio::time::sleep(waiting.pause()) => {}
            () = shutdown.requested() => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_five_seconds() {
        let mut waiting = Waiting::new();
        let pauses: Vec<u128> = (0..6).map(|_| waiting.pause().as_millis()).collect();
        assert_eq!(pauses, [500, 1000, 2000, 4000, 5000, 5000]);
    }

    #[test]
    fn a_server_that_is_away_or_empty_is_waited_for_and_a_lost_stream_is_not() {
        let detail = String::new();
        let refused = |code| spool::Error::Refused {
            what: String::new(),
            code,
            detail: String::new(),
        };
        assert!(is_worth_waiting(&spool::Error::NotInitialized { detail }));
        assert!(is_worth_waiting(&refused(10008)));
        assert!(!is_worth_waiting(&refused(10058)));
        let stream = "SPOOL_0".to_owned();
        assert!(!is_worth_waiting(&spool::Error::MissingStream { stream }));
        let detail = String::new();
        assert!(!is_worth_waiting(&spool::Error::NotDurable { detail }));
    }
}
