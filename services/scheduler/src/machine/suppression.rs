//! Recipients that nothing is sent to any more: asked about before each attempt.

use proto::journal::{Reply, Stage};
use suppress::{Hit, Reach, reason_name};

use super::{Item, Machine};

/// Delivery not authorized (RFC 3463 section 3.8): filtering by recipient.
const ENHANCED: &str = "5.7.1";

impl Machine {
    /// Ends the recipients of a ready delivery that nothing is sent to. True when nobody is left of it.
    pub(super) fn suppress(&mut self, now_ms: u64, item: Item) -> bool {
        let Some(table) = self.suppressed.as_ref().filter(|table| !table.is_empty()) else {
            return false;
        };
        let Some(owned) = self.partitions.get_mut(&item.partition) else {
            return false;
        };
        let config = &self.config;
        owned
            .intake
            .suppress(now_ms, item.key, |tenant, stream, key| {
                // Nearly nobody is: nothing else is looked up then.
                if !table.knows(key) {
                    return None;
                }
                let of_tenant = config.tenant(tenant);
                let of_stream = of_tenant.and_then(|tenant| tenant.stream(stream));
                let is_transactional = of_stream.is_some_and(|stream| stream.transactional);
                let hit = table.lookup_key(tenant, stream, is_transactional, key, now_ms)?;
                Some(reply(hit))
            })
    }
}

fn reply(hit: Hit) -> Reply {
    let reach = match hit.reach {
        Reach::Global => "everybody",
        Reach::Tenant => "the tenant",
        Reach::Stream => "the stream",
    };
    Reply {
        stage: Stage::Unspecified.into(),
        code: 0,
        enhanced: ENHANCED.to_owned(),
        text: format!("suppressed for {reach}: {}", reason_name(hit.reason)),
    }
}
