//! What operators do about credentials.

use config::Snapshot;
use proto::admin::SetMeasureRequest;
use proto::event::event::Kind;
use proto::event::{CredentialMeasure, Event};
use proto::watch::{Action, Measure};
use spool::Stores;

use crate::operate::short;

/// For how long no rule does anything about a credential that an operator has released: long enough that what is counted
/// by the hour begins anew.
const PARDON_MS: u64 = 3_600_000;
/// The longest that can be asked for.
const MOST_MS: u64 = 366 * 86_400_000;

/// What an operator wants, or what is wrong with it.
pub(crate) fn wanted(
    request: &SetMeasureRequest,
    now_ms: u64,
    config: &Snapshot,
) -> Result<Measure, String> {
    let action = request.action();
    if !matches!(action, Action::Lock | Action::Pardon) {
        return Err("action: LOCK or PARDON is expected".to_owned());
    }
    short("author", &request.author, 128)?;
    short("cause", &request.cause, 512)?;
    if request.author.is_empty() {
        return Err("author: somebody must have asked".to_owned());
    }
    let name = &request.credential;
    let credential = config.credential(name);
    // One that is gone can still be released.
    if credential.is_none() && action == Action::Lock {
        return Err(format!("there is no Credential {name:?}"));
    }
    let until_ms = match (action, request.until_ms) {
        (Action::Pardon, 0) => now_ms + PARDON_MS,
        (_, until_ms) => until_ms,
    };
    if until_ms != 0 && !(now_ms + 1..=now_ms + MOST_MS).contains(&until_ms) {
        return Err("until: a time within the next 366 days is expected".to_owned());
    }
    Ok(Measure {
        credential: name.clone(),
        tenant: credential.map_or_else(String::new, |credential| credential.tenant.clone()),
        action: action.into(),
        since_ms: now_ms,
        until_ms,
        author: request.author.clone(),
        cause: request.cause.clone(),
        ..Measure::default()
    })
}

/// Stores it in place of whatever is done now, and tells it.
pub(crate) async fn set(
    stores: &Stores,
    measure: &Measure,
    now_ms: u64,
) -> Result<Measure, spool::Error> {
    let (measure, _) = stores.measures().set(measure, now_ms, |_| false).await?;
    tracing::info!(
        credential = measure.credential,
        action = measure.action().as_str_name(),
        author = measure.author,
        "an operator decided about a credential"
    );
    let event = Event {
        at_ms: now_ms,
        tenant: measure.tenant.clone(),
        credential: measure.credential.clone(),
        kind: Some(Kind::CredentialMeasure(CredentialMeasure {
            measure: Some(measure.clone()),
        })),
        ..Event::default()
    };
    // The measure holds; that it is told is no condition.
    if let Err(error) = stores.events().store("scheduler", vec![event]).await {
        tracing::warn!(%error, "what an operator decided is not told as an event");
    }
    Ok(measure)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;
    const DOCUMENTS: &str = "
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: acme }
spec: { defaultStream: bulk, streams: [ { name: bulk } ] }
---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: acme-net }
spec: { tenant: acme, networks: [ 192.0.2.0/24 ] }
";

    fn request(credential: &str, action: Action, until_ms: u64) -> SetMeasureRequest {
        SetMeasureRequest {
            credential: credential.to_owned(),
            action: action.into(),
            until_ms,
            author: "alice".to_owned(),
            cause: String::new(),
        }
    }

    #[test]
    fn a_lock_lasts_until_it_is_lifted_and_a_pardon_an_hour_unless_it_is_said() {
        let config = Snapshot::from_documents(DOCUMENTS).unwrap();
        let until = |action, until_ms| {
            let wanted = wanted(&request("acme-net", action, until_ms), NOW, &config).unwrap();
            assert_eq!(wanted.tenant, "acme");
            wanted.until_ms
        };
        assert_eq!(until(Action::Lock, 0), 0);
        assert_eq!(until(Action::Lock, NOW + 5), NOW + 5);
        assert_eq!(until(Action::Pardon, 0), NOW + 3_600_000);
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let config = Snapshot::from_documents(DOCUMENTS).unwrap();
        let nobody = SetMeasureRequest {
            author: String::new(),
            ..request("acme-net", Action::Lock, 0)
        };
        for (request, expected) in [
            (request("acme-nix", Action::Lock, 0), "no Credential"),
            (request("acme-net", Action::Slow, 0), "LOCK or PARDON"),
            (request("acme-net", Action::Lock, NOW), "until: "),
            (request("acme-net", Action::Lock, u64::MAX), "until: "),
            (nobody, "author: "),
        ] {
            let problem = wanted(&request, NOW, &config).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
        assert!(wanted(&request("gone", Action::Pardon, 0), NOW, &config).is_ok());
    }
}
