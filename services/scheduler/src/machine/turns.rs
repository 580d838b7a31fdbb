//! Where a ready delivery stands in the line of its lane.

use config::{Priority, Stream, Tenant};
use egress::Flow;
use queue::RouteOf;

use super::lane_hash;

/// By tenant, stream and campaign. A tenant or stream that is not in the configuration (any more) has the weight 1.
pub(super) fn flow_of(
    tenant: Option<&Tenant>,
    stream: Option<&Stream>,
    delivery: &RouteOf<'_>,
) -> Flow {
    Flow {
        high: is_high(stream, delivery.priority),
        retry: delivery.is_retry,
        tenant: lane_hash(delivery.tenant),
        tenant_weight: tenant.map_or(1, |tenant| tenant.weight),
        stream: lane_hash(delivery.stream),
        stream_weight: stream.map_or(1, |stream| stream.weight),
        campaign: lane_hash(delivery.campaign),
    }
}

/// What its client asked for comes before what its stream has. How far up that may go is settled at acceptance.
fn is_high(stream: Option<&Stream>, priority: i8) -> bool {
    match priority {
        ..=-1 => false,
        0 => stream.is_some_and(|stream| stream.priority == Priority::High),
        1.. => true,
    }
}
