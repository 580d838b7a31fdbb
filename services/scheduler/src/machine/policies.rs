//! What the configuration says, in the words of the queue.

use std::sync::Arc;

use config::{HoldEnd, RetryClass, RetryWaits, Snapshot};
use mail::{Domain, Span};
use proto::journal::Class;
use queue::{HoldEnds, InDoubt, LongestHold, Policies, Retry, Submitter, Waits};

/// Used where no route matches: the delivery waits for one, it does not expire early.
const WITHOUT_ROUTE: Retry<'static> = Retry {
    waits: Waits::Exponential {
        initial_ms: 300_000,
        factor_percent: 200,
        max_ms: 14_400_000,
    },
    jitter_percent: 10,
    max_age_ms: 5 * 86_400_000,
    own: false,
    asked_ms: (0, 0),
};

/// Of a tenant that is gone: nobody can release its mail, and nobody wants to hear of it before.
const WITHOUT_TENANT: LongestHold = LongestHold {
    most_ms: 30 * 86_400_000,
    ends: HoldEnds::Return,
};

pub(super) struct ByConfig(pub(super) Arc<Snapshot>);

impl Policies for ByConfig {
    fn retry(&self, tenant: &str, stream: &str, domain: &str, class: Class) -> Retry<'_> {
        let Some(route) = self.0.route(tenant, stream, domain) else {
            return WITHOUT_ROUTE;
        };
        let (schedule, own) = route.retry.schedule(retry_class(class));
        let max_age = schedule.max_age.unwrap_or(route.max_age);
        Retry {
            waits: match &schedule.waits {
                RetryWaits::List(waits) => Waits::List(waits),
                RetryWaits::Exponential {
                    initial,
                    factor,
                    max,
                } => Waits::Exponential {
                    initial_ms: initial.as_millis(),
                    factor_percent: factor.saturating_mul(100),
                    max_ms: max.as_millis(),
                },
            },
            jitter_percent: schedule.jitter_percent,
            max_age_ms: max_age.min(route.max_age).as_millis(),
            own,
            asked_ms: (
                route.retry.asked.least.as_millis(),
                route.retry.asked.most.as_millis(),
            ),
        }
    }

    fn first_attempt_ms(&self, tenant: &str, stream: &str, from_ms: u64, seed: u64) -> u64 {
        let stream = self.0.stream(tenant, stream);
        let timing = stream.and_then(|stream| stream.timing.as_deref());
        timing.map_or(from_ms, |timing| timing.first_attempt_ms(from_ms, seed))
    }

    fn delay_notices(&self, tenant: &str, stream: &str, asked: bool) -> &[Span] {
        let stream = self.0.stream(tenant, stream);
        stream.map_or(&[], |stream| stream.delay_notices(asked))
    }

    fn in_doubt(&self, tenant: &str, stream: &str) -> InDoubt {
        let stream = self.0.stream(tenant, stream);
        match stream.map(|stream| stream.in_doubt) {
            Some(config::InDoubt::Hold) => InDoubt::Hold,
            Some(config::InDoubt::GiveUp) => InDoubt::GiveUp,
            Some(config::InDoubt::Retry) | None => InDoubt::Retry,
        }
    }

    fn longest_hold(&self, tenant: &str) -> LongestHold {
        let Some(tenant) = self.0.tenant(tenant) else {
            return WITHOUT_TENANT;
        };
        LongestHold {
            most_ms: tenant.max_hold.as_millis(),
            ends: match tenant.when_hold_ends {
                HoldEnd::Return => HoldEnds::Return,
                HoldEnd::Discard => HoldEnds::Discard,
            },
        }
    }

    fn may_send(&self, tenant: &str, submitter: Submitter<'_>) -> Result<(), String> {
        let Submitter {
            credential,
            author_domain,
            return_domain,
        } = submitter;
        let Some(of_tenant) = self.0.tenant(tenant) else {
            return Err(format!("there is no Tenant {tenant} any more"));
        };
        if credential.is_empty() {
            // Our own mail, or accepted by a release that did not note it.
            return Ok(());
        }
        let found = self.0.credential(credential);
        let Some(found) = found.filter(|found| found.tenant == tenant) else {
            return Err(format!("there is no Credential {credential} any more"));
        };
        let forwards = of_tenant.may_forward && found.foreign_senders.is_some();
        // Ingress names no author that is not the tenant's.
        if author_domain.is_empty() && !forwards {
            return Err(format!(
                "{credential} may not forward mail of others any more"
            ));
        }
        for (domain, may_be_foreign) in [(author_domain, false), (return_domain, forwards)] {
            let name = Domain::parse(domain).ok();
            let sending = name.and_then(|name| self.0.sending_domain(name.as_str()));
            // With a neighbour's return path it would pass for the neighbour's own.
            let is_theirs = match sending {
                Some(found) => found.tenant == tenant,
                None => may_be_foreign,
            };
            if !domain.is_empty() && !is_theirs {
                return Err(format!("{tenant} may not send as {domain} any more"));
            }
        }
        Ok(())
    }
}

/// How long each tenant's mail may be on hold, and what becomes of it then.
pub(super) fn longest_holds_of(config: &Snapshot) -> impl Iterator<Item = (&str, Span, HoldEnd)> {
    let tenants = config.tenants();
    tenants.map(|tenant| (&*tenant.name, tenant.max_hold, tenant.when_hold_ends))
}

fn retry_class(class: Class) -> Option<RetryClass> {
    match class {
        Class::Unspecified => None,
        Class::Recipient => Some(RetryClass::Recipient),
        Class::MailboxFull => Some(RetryClass::MailboxFull),
        Class::Policy => Some(RetryClass::Policy),
        Class::Throttled => Some(RetryClass::Throttled),
        Class::Greylisted => Some(RetryClass::Greylisted),
        Class::Infrastructure => Some(RetryClass::Infrastructure),
        Class::Content => Some(RetryClass::Content),
        Class::Dns => Some(RetryClass::Dns),
    }
}
