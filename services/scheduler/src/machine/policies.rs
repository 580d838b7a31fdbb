//! What the configuration says, in the words of the queue.

use std::sync::Arc;

use config::Snapshot;
use queue::{InDoubt, Policies, Retry};

/// Used where no route matches: the delivery waits for one, it does not expire early.
const WITHOUT_ROUTE: Retry = Retry {
    initial_ms: 300_000,
    factor_percent: 200,
    max_ms: 14_400_000,
    jitter_percent: 10,
    max_age_ms: 5 * 86_400_000,
};

pub(super) struct ByConfig(pub(super) Arc<Snapshot>);

impl Policies for ByConfig {
    fn retry(&self, tenant: &str, stream: &str, domain: &str) -> Retry {
        self.0
            .route(tenant, stream, domain)
            .map_or(WITHOUT_ROUTE, |route| Retry {
                initial_ms: route.retry.initial.as_millis(),
                factor_percent: route.retry.factor.saturating_mul(100),
                max_ms: route.retry.max.as_millis(),
                jitter_percent: route.retry.jitter_percent,
                max_age_ms: route.max_age.as_millis(),
            })
    }

    fn in_doubt(&self, tenant: &str, stream: &str) -> InDoubt {
        let stream = self
            .0
            .tenant(tenant)
            .and_then(|tenant| tenant.stream(stream));
        match stream.map(|stream| stream.in_doubt) {
            Some(config::InDoubt::Hold) => InDoubt::Hold,
            Some(config::InDoubt::GiveUp) => InDoubt::GiveUp,
            Some(config::InDoubt::Retry) | None => InDoubt::Retry,
        }
    }
}
