//! What an operation must be to be stored.

use std::collections::BTreeSet;

use config::Snapshot;
use mail::{Domain, MessageId};
use proto::operation::{Kind, Operation, Selector};

/// The format version of operations that this release writes.
const FORMAT: u32 = 1;
/// Values of one field of a selector.
const VALUES: usize = 100;
/// Octets of a value.
const VALUE: usize = 255;
/// Octets of the author, and of the reason.
const AUTHOR: usize = 128;
const REASON: usize = 512;
/// How long what is done once may take until it is over, milliseconds: for partitions that have no owner meanwhile, and for
/// what is under way.
const ONCE_MS: u64 = 86_400_000;
/// How long what was accepted before may be moved, milliseconds: longer than it lives.
const MOVE_MS: u64 = 7 * 86_400_000;

/// The operation as it is to be stored, or what is wrong with it.
pub(crate) fn checked(
    mut operation: Operation,
    now_ms: u64,
    config: &Snapshot,
) -> Result<Operation, String> {
    uuid::Uuid::parse_str(&operation.id).map_err(|_| "id: not a UUID".to_owned())?;
    let kind = operation.kind();
    let selector = operation.selector.take().unwrap_or_default();
    let mut selector = checked_selector(selector)?;
    short("author", &operation.author, AUTHOR)?;
    short("reason", &operation.reason, REASON)?;
    if operation.author.is_empty() {
        return Err("author: somebody must have asked for it".to_owned());
    }
    if operation.expires_at_ms != 0 && operation.expires_at_ms <= now_ms {
        return Err("expires_at_ms: that time is over".to_owned());
    }
    match kind {
        Kind::Unspecified => return Err("kind: not one that this release knows".to_owned()),
        Kind::Bounce if operation.reason.is_empty() => {
            return Err("reason: the senders must be told one".to_owned());
        }
        Kind::Move if config.pool(&operation.pool).is_none() => {
            return Err(format!("pool: there is no EgressPool {:?}", operation.pool));
        }
        _ => {}
    }
    if kind != Kind::Move && !operation.pool.is_empty() {
        return Err("pool: only a move has one".to_owned());
    }
    if matches!(
        kind,
        Kind::Retry | Kind::Bounce | Kind::Cancel | Kind::Release
    ) {
        // What comes later is not meant; so is the same however often it is carried out.
        selector.accepted_before_ms = match selector.accepted_before_ms {
            0 => now_ms,
            given => given.min(now_ms),
        };
        if operation.expires_at_ms == 0 {
            operation.expires_at_ms = now_ms + ONCE_MS;
        }
    }
    if kind == Kind::Move && selector.accepted_before_ms != 0 && operation.expires_at_ms == 0 {
        operation.expires_at_ms = now_ms + MOVE_MS;
    }
    if kind == Kind::Move {
        room_in(config, &operation.pool, &selector.tenants)?;
    }
    Ok(Operation {
        format: FORMAT,
        selector: Some(selector),
        at_ms: now_ms,
        lifted: None,
        ..operation
    })
}

/// Whether mail of these tenants (none = of all) may be moved to a pool: one that is dedicated is its tenant's, one with a
/// cap keeps it.
fn room_in(config: &Snapshot, name: &str, tenants: &[String]) -> Result<(), String> {
    let Some(pool) = config.pool(name).filter(|pool| pool.keeps_apart()) else {
        return Ok(());
    };
    if let Some(owner) = &pool.dedicated_to {
        return match tenants {
            [tenant] if tenant == owner => Ok(()),
            _ => Err(format!(
                "pool: {name} is dedicated to {owner}, and only its mail can be moved there (select its tenant)"
            )),
        };
    }
    let Some(most) = pool.max_tenants else {
        return Ok(());
    };
    let mut all: BTreeSet<&str> = match tenants {
        [] => config.tenants().map(|tenant| &*tenant.name).collect(),
        named => named.iter().map(String::as_str).collect(),
    };
    let homes = config.homes();
    all.extend(homes.get(name).into_iter().flatten());
    match all.len() {
        count if count > most as usize => Err(format!(
            "pool: {name} may be shared by {most} tenants, and with those that are selected it would be by {count}"
        )),
        _ => Ok(()),
    }
}

/// A selector that means something, in the form in which it is compared.
pub(crate) fn checked_selector(mut selector: Selector) -> Result<Selector, String> {
    let fields = [
        ("messages", &selector.messages),
        ("domains", &selector.domains),
        ("sites", &selector.sites),
        ("providers", &selector.providers),
        ("tenants", &selector.tenants),
        ("streams", &selector.streams),
        ("campaigns", &selector.campaigns),
        ("sources", &selector.sources),
    ];
    for (name, values) in fields {
        if values.len() > VALUES {
            return Err(format!("{name}: {} values, at most {VALUES}", values.len()));
        }
        for value in values {
            short(name, value, VALUE)?;
            if value.is_empty() {
                return Err(format!("{name}: an empty value"));
            }
        }
    }
    let is_empty = fields.iter().all(|(_, values)| values.is_empty());
    if is_empty && !selector.all {
        return Err("nothing is selected; all mail must be asked for in so many words".to_owned());
    }
    if !is_empty && selector.all {
        return Err("all mail is selected, and some of it".to_owned());
    }
    for id in &mut selector.messages {
        let parsed: MessageId = id.parse().map_err(|_| format!("{id:?} is no message id"))?;
        *id = parsed.to_string();
    }
    for domain in &mut selector.domains {
        // Address literals are compared as they are.
        if let Ok(parsed) = Domain::parse(domain) {
            *domain = parsed.as_str().to_owned();
        }
    }
    Ok(selector)
}

/// Texts are shown on terminals, and in DSNs.
pub(crate) fn short(name: &str, text: &str, most: usize) -> Result<(), String> {
    if text.len() > most {
        return Err(format!("{name}: longer than {most} octets"));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{name}: holds a control character"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: u64 = 1_800_000_000_000;

    fn operation(kind: Kind) -> Operation {
        Operation {
            id: "0198c2a4-7b1e-7c3a-9d2f-1a2b3c4d5e6f".to_owned(),
            kind: kind.into(),
            author: "alice".to_owned(),
            reason: "listed".to_owned(),
            selector: Some(Selector {
                domains: vec!["One.Example".to_owned()],
                ..Selector::default()
            }),
            ..Operation::default()
        }
    }

    #[test]
    fn what_is_done_once_means_what_is_there_and_ends() {
        let config = Snapshot::default();
        let stored = checked(operation(Kind::Cancel), NOW_MS, &config).unwrap();
        let selector = stored.selector.unwrap();
        assert_eq!(selector.domains, ["one.example"]);
        assert_eq!(selector.accepted_before_ms, NOW_MS);
        assert_eq!(stored.expires_at_ms, NOW_MS + ONCE_MS);
        let stored = checked(operation(Kind::Suspend), NOW_MS, &config).unwrap();
        assert_eq!(stored.selector.unwrap().accepted_before_ms, 0);
        assert_eq!(stored.expires_at_ms, 0);
    }

    #[test]
    fn a_move_goes_to_no_pool_of_others_and_over_no_cap() {
        let documents = "
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: { name: vip }
spec: { sources: [ { name: a } ], dedicatedTo: acme }
---
apiVersion: staffetta.dev/v1alpha1
kind: EgressPool
metadata: { name: small }
spec: { sources: [ { name: b } ], maxTenants: 2 }
---
apiVersion: staffetta.dev/v1alpha1
kind: Route
metadata: { name: one }
spec: { match: { tenants: [ acme ] }, pool: small }
";
        let tenants = ["acme", "bravo", "charlie"].map(|name| {
            format!(
                "---\napiVersion: staffetta.dev/v1alpha1\nkind: Tenant\nmetadata: {{ name: {name} }}\n\
                 spec: {{ defaultStream: main, streams: [ {{ name: main }} ] }}\n"
            )
        });
        let config = Snapshot::from_documents(&(documents.to_owned() + &tenants.concat())).unwrap();
        let moved = |pool: &str, tenants: &[&str]| {
            let mut operation = operation(Kind::Move);
            operation.pool = pool.to_owned();
            if let Some(selector) = &mut operation.selector {
                selector.tenants = tenants.iter().map(|name| (*name).to_owned()).collect();
            }
            checked(operation, NOW_MS, &config).map(drop)
        };
        assert_eq!(moved("vip", &["acme"]), Ok(()));
        let closed = "pool: vip is dedicated to acme, and only its mail can be moved there (select its tenant)";
        for tenants in [&[][..], &["bravo"], &["acme", "bravo"]] {
            assert_eq!(moved("vip", tenants), Err(closed.to_owned()));
        }
        assert_eq!(moved("small", &["bravo"]), Ok(()));
        let full = "pool: small may be shared by 2 tenants, and with those that are selected it would be by 3";
        for tenants in [&[][..], &["bravo", "charlie"]] {
            assert_eq!(moved("small", tenants), Err(full.to_owned()));
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused() {
        let config = Snapshot::default();
        let refused = |change: &dyn Fn(&mut Operation)| {
            let mut operation = operation(Kind::Bounce);
            change(&mut operation);
            checked(operation, NOW_MS, &config).unwrap_err()
        };
        let selector = |selector| move |operation: &mut Operation| operation.selector = selector;
        let nothing = refused(&|operation| operation.selector = None);
        assert!(nothing.starts_with("nothing is selected"), "{nothing}");
        let both = refused(&|operation| {
            if let Some(selector) = &mut operation.selector {
                selector.all = true;
            }
        });
        assert_eq!(both, "all mail is selected, and some of it");
        let id = Selector {
            messages: vec!["no-id".to_owned()],
            ..Selector::default()
        };
        assert_eq!(
            refused(&|operation| selector(Some(id.clone()))(operation)),
            "\"no-id\" is no message id"
        );
        for (start, change) in [
            ("reason", (|o| o.reason.clear()) as fn(&mut Operation)),
            ("reason", |o| o.reason = "a\u{1b}[2J".to_owned()),
            ("author", |o| o.author.clear()),
            ("author", |o| o.author = "a".repeat(129)),
            ("id", |o| o.id = "x".to_owned()),
            ("expires_at_ms", |o| o.expires_at_ms = NOW_MS),
            ("pool", |o| o.set_kind(Kind::Move)),
            ("pool", |o| o.pool = "other".to_owned()),
            ("kind", |o| o.kind = 99),
        ] {
            let problem = refused(&change);
            assert!(problem.starts_with(start), "{problem}");
        }
    }
}
