//! Whether the resolvers check DNSSEC, without which there is no DANE.

use std::convert::Infallible;
use std::time::Duration;

use dns::Resolver;

/// How often is looked.
const LOOK_AGAIN: Duration = Duration::from_secs(300);
/// The same when nobody answered.
const LOOK_AGAIN_SOON: Duration = Duration::from_secs(30);

/// Looks again and again, counts, and says when it is not as it should be.
pub(crate) async fn watch(resolver: Resolver, wanted: bool) -> Infallible {
    let validated = crate::metrics::dnssec();
    if !wanted {
        return std::future::pending().await;
    }
    let mut known = None;
    loop {
        let found = resolver.is_validated().await;
        if let Ok(found) = found {
            validated.set(i64::from(found));
        }
        if found.as_ref().ok() != known.as_ref() {
            match &found {
                Ok(true) => tracing::info!("the resolvers check DNSSEC: DANE is on"),
                Ok(false) => tracing::warn!(
                    "the resolvers do not say that they check DNSSEC: DANE is off although sender.dane is enabled"
                ),
                Err(error) => {
                    tracing::info!(%error, "whether the resolvers check DNSSEC can't be asked now");
                }
            }
        }
        known = found.ok().or(known);
        tokio::time::sleep(if known.is_some() {
            LOOK_AGAIN
        } else {
            LOOK_AGAIN_SOON
        })
        .await;
    }
}
