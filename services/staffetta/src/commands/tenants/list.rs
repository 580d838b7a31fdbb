//! The pools, their tenants, and how these stand.

use jiff::Timestamp;
use proto::admin::{PoolTenant, PoolTenants, TenantsRequest};
use proto::standing::{Standing, TenantStanding};
use serde_json::{Value, json};

use super::word;
use crate::admin::{self, Server};
use crate::cli::Global;
use crate::output::{self, OutputFormat};

#[derive(Debug, clap::Args)]
pub(crate) struct Listing {
    /// Only this pool
    #[arg(long, default_value = "")]
    pool: String,
    /// Only this tenant
    #[arg(long, default_value = "")]
    tenant: String,
    /// How it is written
    #[arg(long, value_enum, default_value = "text")]
    output: OutputFormat,
    #[command(flatten)]
    server: Server,
}

pub(crate) async fn run(global: &Global, arguments: &Listing) -> anyhow::Result<()> {
    let mut admin = arguments.server.connect(global).await?;
    let request = TenantsRequest {
        pool: arguments.pool.clone(),
        tenant: arguments.tenant.clone(),
    };
    let answer = admin
        .tenants(request)
        .await
        .map_err(|status| admin::refused("tenants", &status))?
        .into_inner();
    output::print(&match arguments.output {
        OutputFormat::Text => text(&answer.pools),
        OutputFormat::Json => json_of(&answer.pools),
    })
}

fn text(pools: &[PoolTenants]) -> String {
    let mut text = String::new();
    for pool in pools {
        text.push_str(&heading(pool));
        if !pool.tenants.is_empty() {
            let heading = [
                "TENANT",
                "STANDING",
                "LEAVES-BY",
                "SINCE",
                "UNTIL",
                "DELIVERED",
                "CAUSE",
            ];
            let mut rows = vec![heading.map(str::to_owned).to_vec()];
            rows.extend(pool.tenants.iter().map(row));
            text.push_str(&output::table(&rows));
        }
        for guest in &pool.guests {
            text.push_str(&format!(
                "{} is here from the pool {}\n",
                guest.tenant, guest.home
            ));
        }
        text.push('\n');
    }
    if pools.is_empty() {
        text.push_str("no pool\n");
    }
    text
}

fn heading(pool: &PoolTenants) -> String {
    let count = pool.tenants.len();
    let tenants = if count == 1 { "tenant" } else { "tenants" };
    let count = match (pool.dedicated_to.as_str(), pool.max_tenants) {
        ("", 0) => format!("{count} {tenants}"),
        ("", most) => format!("{count} of {most} tenants"),
        (owner, _) => format!("dedicated to {owner}"),
    };
    format!("pool {}: {count}\n", pool.pool)
}

fn row(of: &PoolTenant) -> Vec<String> {
    let standing = of.standing.clone().unwrap_or_default();
    let leaves_by = match of.by.as_str() {
        "" => format!("nothing: {}", of.waits),
        by => by.to_owned(),
    };
    let delivered = match standing.standing() {
        Standing::Probation => standing.delivered.to_string(),
        _ => "-".to_owned(),
    };
    let by = match standing.author.as_str() {
        "" => String::new(),
        author => format!(" (by {author})"),
    };
    vec![
        of.tenant.clone(),
        how(of).to_owned(),
        leaves_by,
        time(standing.since_ms),
        time(standing.until_ms),
        delivered,
        format!("{}{by}", standing.cause.replace(char::is_control, "?")),
    ]
}

/// Who leaves by its pool is a member, also when nothing is known of it.
fn how(of: &PoolTenant) -> &'static str {
    match of.standing.as_ref().map(TenantStanding::standing) {
        None if !of.by.is_empty() => word(Standing::Member),
        None => word(Standing::Unspecified),
        Some(standing) => word(standing),
    }
}

fn time(at_ms: u64) -> String {
    let at = i64::try_from(at_ms).ok().filter(|at_ms| *at_ms > 0);
    let at = at.and_then(|at_ms| Timestamp::from_millisecond(at_ms).ok());
    at.map_or("-".to_owned(), |at| format!("{at:.0}"))
}

fn json_of(pools: &[PoolTenants]) -> String {
    let tenant = |of: &PoolTenant| {
        let standing = of.standing.clone().unwrap_or_default();
        json!({
            "tenant": of.tenant, "standing": how(of), "leavesBy": of.by, "waits": of.waits,
            "sinceMs": standing.since_ms, "untilMs": standing.until_ms, "delivered": standing.delivered,
            "author": standing.author, "cause": standing.cause,
        })
    };
    let pool = |of: &PoolTenants| {
        let tenants: Vec<Value> = of.tenants.iter().map(tenant).collect();
        let guests = of.guests.iter();
        let guests: Vec<Value> = guests
            .map(|guest| json!({ "tenant": guest.tenant, "home": guest.home }))
            .collect();
        json!({
            "pool": of.pool, "maxTenants": of.max_tenants, "dedicatedTo": of.dedicated_to,
            "tenants": tenants, "guests": guests,
        })
    };
    let pools: Vec<Value> = pools.iter().map(pool).collect();
    format!("{}\n", json!({ "pools": pools }))
}

#[cfg(test)]
mod tests {
    use proto::admin::PoolGuest;

    use super::*;

    #[test]
    fn pools_are_shown_with_their_tenants_and_how_they_stand() {
        let tenant = |name: &str, by: &str, standing: Option<TenantStanding>| PoolTenant {
            tenant: name.to_owned(),
            by: by.to_owned(),
            waits: if by.is_empty() {
                "the pool fresh has its 1 tenants"
            } else {
                ""
            }
            .to_owned(),
            standing,
        };
        let standing = |of: Standing, author: &str| TenantStanding {
            standing: of.into(),
            since_ms: 1_800_000_000_000,
            until_ms: if of == Standing::Quarantine {
                1_800_086_400_000
            } else {
                0
            },
            author: author.to_owned(),
            cause: "complaints".to_owned(),
            delivered: 7,
            ..TenantStanding::default()
        };
        let shared = PoolTenants {
            pool: "shared".to_owned(),
            max_tenants: 20,
            tenants: vec![
                tenant("acme", "shared", None),
                tenant(
                    "bravo",
                    "bad",
                    Some(standing(Standing::Quarantine, "alice")),
                ),
                tenant("charlie", "", Some(standing(Standing::Probation, ""))),
            ],
            ..PoolTenants::default()
        };
        let fresh = PoolTenants {
            pool: "fresh".to_owned(),
            guests: vec![PoolGuest {
                tenant: "delta".to_owned(),
                home: "shared".to_owned(),
            }],
            ..PoolTenants::default()
        };
        let vip = PoolTenants {
            pool: "vip".to_owned(),
            dedicated_to: "acme".to_owned(),
            ..PoolTenants::default()
        };
        let expected = "\
pool shared: 3 of 20 tenants
TENANT   STANDING    LEAVES-BY                                  SINCE                 UNTIL                 DELIVERED  CAUSE
acme     member      shared                                     -                     -                     -
bravo    quarantine  bad                                        2027-01-15T08:00:00Z  2027-01-16T08:00:00Z  -          complaints (by alice)
charlie  probation   nothing: the pool fresh has its 1 tenants  2027-01-15T08:00:00Z  -                             7  complaints

pool fresh: 0 tenants
delta is here from the pool shared

pool vip: dedicated to acme

";
        let pools = [shared, fresh, vip];
        let text = text(&pools);
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(lines, expected.lines().collect::<Vec<_>>());
        let value: Value = serde_json::from_str(&json_of(&pools)).unwrap();
        assert_eq!(value["pools"][0]["tenants"][1]["standing"], "quarantine");
        assert_eq!(value["pools"][0]["tenants"][0]["standing"], "member");
        assert_eq!(value["pools"][1]["guests"][0]["home"], "shared");
    }
}
