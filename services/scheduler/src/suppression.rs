//! Whom nothing is sent to, for the command-line tool: what operators add, remove and look for.

use std::collections::BTreeMap;

use config::{Snapshot, StoredAddresses};
use proto::admin::{
    ChangeSuppressionRequest, SuppressionRequest, SuppressionRows, SuppressionWish,
};
use proto::event::event::Kind as Told;
use proto::event::{Event, SuppressionChanged};
use proto::suppression::change::Kind;
use proto::suppression::{Change, Entry, Reason, Removal};
use spool::SuppressionStore;
use suppress::{AddressKey, Keys, SHARDS, normal_form, reason_name, shard_of};
use tokio::sync::mpsc;
use tonic::Status;

use crate::operate::short;

/// Changes of a request at most.
const MOST: usize = 5_000;
/// Octets of an author and of a cause.
const AUTHOR: usize = 128;
const CAUSE: usize = 256;
/// From this part of the stream's bound on entries are refused, per cent: the rest is for rules, for removals, and for
/// writing shards anew, without which a full stream would stay full.
const ROOM_PERCENT: u64 = 80;
/// More of them are told together.
const TOLD_SINGLY: usize = 20;
/// Entries of an answer's part.
const ROWS: usize = 500;
/// How the key of an address begins that is not stored.
const HASH: &str = "hash:";

/// An installation that is older than the stream.
pub(crate) fn no_stream() -> Status {
    Status::failed_precondition(
        "this installation has no stream SUPPRESSION; `staffetta init` creates it and touches nothing else",
    )
}

/// Whether changes may be stored in a stream that has so many octets of so many.
pub(crate) fn have_room(changes: &[Change], octets: u64, bound: u64) -> Result<(), Status> {
    let adds = |change: &Change| matches!(change.kind, Some(Kind::Entry(_)));
    if octets / ROOM_PERCENT < bound / 100 || !changes.iter().any(adds) {
        return Ok(());
    }
    Err(Status::resource_exhausted(format!(
        "the stream SUPPRESSION has {octets} of {bound} octets: no more is added beyond {ROOM_PERCENT} %; remove entries, or give the store more room"
    )))
}

/// What an operator wants, or what is wrong with it. Entries that are over are left out: files have them, and they say nothing.
pub(crate) fn wanted(
    request: &ChangeSuppressionRequest,
    keys: &Keys,
    config: &Snapshot,
    now_ms: u64,
) -> Result<Vec<Change>, String> {
    short("author", &request.author, AUTHOR)?;
    if request.author.is_empty() {
        return Err("author: somebody must have asked".to_owned());
    }
    if request.changes.len() > MOST {
        return Err(format!("changes: at most {MOST} are expected"));
    }
    let changes = request.changes.iter().enumerate();
    let change = |(position, wish): (usize, &SuppressionWish)| {
        change(wish, &request.author, keys, config, now_ms)
            .map_err(|problem| format!("changes[{position}]: {problem}"))
            .transpose()
    };
    changes.filter_map(change).collect()
}

/// `None`: it is over already.
fn change(
    wish: &SuppressionWish,
    author: &str,
    keys: &Keys,
    config: &Snapshot,
    now_ms: u64,
) -> Result<Option<Change>, String> {
    short("cause", &wish.cause, CAUSE)?;
    let (key, address) = named(&wish.address, keys)?;
    if wish.tenant.is_empty() && !wish.stream.is_empty() {
        return Err("stream: a tenant is expected with it".to_owned());
    }
    let tenant = config.tenant(&wish.tenant);
    let stores = match tenant {
        Some(tenant) => tenant.suppression_of(&wish.stream).addresses,
        None => StoredAddresses::Clear,
    };
    let kind = if wish.remove {
        Kind::Removal(Removal {
            author: author.to_owned(),
        })
    } else {
        if tenant.is_none() && !wish.tenant.is_empty() {
            return Err(format!("tenant: there is no Tenant {:?}", wish.tenant));
        }
        let lacks_stream = tenant.is_some_and(|tenant| tenant.stream(&wish.stream).is_none());
        if lacks_stream && !wish.stream.is_empty() {
            let (tenant, stream) = (&wish.tenant, &wish.stream);
            return Err(format!("stream: {tenant} has no stream {stream:?}"));
        }
        let reason = wish.reason();
        let by_hand = matches!(reason, Reason::Manual | Reason::Import);
        if reason == Reason::Unspecified {
            return Err("reason: one that this release knows is expected".to_owned());
        }
        if wish.tenant.is_empty() && !by_hand {
            return Err("reason: for all tenants only manual or import is possible".to_owned());
        }
        if wish.expires_ms != 0 && wish.expires_ms <= now_ms {
            return Ok(None);
        }
        Kind::Entry(Entry {
            reason: reason.into(),
            expires_ms: wish.expires_ms,
            author: author.to_owned(),
            cause: wish.cause.clone(),
        })
    };
    let in_clear = stores == StoredAddresses::Clear && !wish.hashed;
    Ok(Some(Change {
        key: key.to_vec().into(),
        address: address.filter(|_| in_clear).unwrap_or_default(),
        tenant: wish.tenant.clone(),
        stream: wish.stream.clone(),
        at_ms: match wish.created_ms {
            created_ms if (1..now_ms).contains(&created_ms) => created_ms,
            _ => now_ms,
        },
        kind: Some(kind),
    }))
}

/// The key that is meant, and the address where it is told.
fn named(address: &str, keys: &Keys) -> Result<(AddressKey, Option<String>), String> {
    if let Some(digits) = address.strip_prefix(HASH) {
        let octet = |at: usize| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok();
        let octets: Option<Vec<u8>> = (0..digits.len()).step_by(2).map(octet).collect();
        let key = octets.and_then(|octets| AddressKey::try_from(octets).ok());
        let key = key.ok_or("address: 32 hexadecimal digits are expected after `hash:`")?;
        return Ok((key, None));
    }
    let normal = normal_form(address).ok_or("address: it is none")?;
    Ok((keys.of_normal(&normal), Some(normal)))
}

/// What is told of changes: each, or how many where they are many.
pub(crate) fn events(changes: &[Change], author: &str, now_ms: u64) -> Vec<Event> {
    let event = |change: &Change, recipient: String, count: u64| {
        let mut changed = SuppressionChanged {
            stream: change.stream.clone(),
            recipient,
            author: author.to_owned(),
            ..SuppressionChanged::default()
        };
        match &change.kind {
            Some(Kind::Entry(entry)) => {
                changed.reason = reason_name(entry.reason()).to_owned();
                changed.until_ms = entry.expires_ms;
            }
            _ => changed.removed = true,
        }
        Event {
            at_ms: now_ms,
            last_ms: now_ms,
            count,
            tenant: change.tenant.clone(),
            kind: Some(Told::SuppressionChanged(changed)),
            ..Event::default()
        }
    };
    if changes.len() <= TOLD_SINGLY {
        let single = |change: &Change| event(change, recipient_of(change), 0);
        return changes.iter().map(single).collect();
    }
    let mut groups: BTreeMap<(&str, &str, i32), (&Change, u64)> = BTreeMap::new();
    for change in changes {
        let reason = match &change.kind {
            Some(Kind::Entry(entry)) => entry.reason,
            _ => 0,
        };
        let group = (change.tenant.as_str(), change.stream.as_str(), reason);
        groups.entry(group).or_insert((change, 0)).1 += 1;
    }
    let groups = groups.into_values();
    groups
        .map(|(change, count)| {
            let mut event = event(change, String::new(), count);
            if let Some(Told::SuppressionChanged(changed)) = &mut event.kind {
                changed.until_ms = 0;
            }
            event
        })
        .collect()
}

/// The address, or its key where that is all that is stored.
fn recipient_of(change: &Change) -> String {
    if !change.address.is_empty() {
        return change.address.clone();
    }
    let digits = change.key.iter().map(|octet| format!("{octet:02x}"));
    HASH.to_owned() + &digits.collect::<String>()
}

/// What is asked for of the entries.
pub(crate) struct Asked {
    key: Option<AddressKey>,
    request: SuppressionRequest,
}

impl Asked {
    pub(crate) fn new(request: SuppressionRequest, keys: &Keys) -> Result<Self, String> {
        let key = match request.address.as_str() {
            "" => None,
            address => Some(named(address, keys)?.0),
        };
        Ok(Self { key, request })
    }

    /// By what does not change: address and scope.
    fn may_want(&self, change: &Change) -> bool {
        let SuppressionRequest {
            tenant,
            stream,
            global,
            ..
        } = &self.request;
        let is = |asked: &str, of: &str| asked.is_empty() || asked == of;
        let of_key = self.key.is_none_or(|key| change.key[..] == key);
        is(tenant, &change.tenant)
            && is(stream, &change.stream)
            && (!global || change.tenant.is_empty())
            && of_key
    }

    fn wants(&self, change: &Change) -> bool {
        let reason = match &change.kind {
            Some(Kind::Entry(entry)) => entry.reason(),
            _ => Reason::Unspecified,
        };
        let asked = self.request.reason();
        (asked == Reason::Unspecified || asked == reason) && self.may_want(change)
    }

    /// Sends the entries, shard by shard.
    pub(crate) async fn send(
        self,
        store: SuppressionStore,
        now_ms: u64,
        rows: mpsc::Sender<Result<SuppressionRows, Status>>,
    ) {
        let shards = match &self.key {
            Some(key) => shard_of(key)..shard_of(key) + 1,
            None => 0..SHARDS,
        };
        for shard in shards {
            let fold = match store.shard(shard, |change| self.may_want(change)).await {
                Ok(fold) => fold,
                Err(error) => {
                    tracing::debug!(%error, "SUPPRESSION can't be read at the moment");
                    let status = Status::unavailable("SUPPRESSION can't be read at the moment");
                    // Nobody waits any more when it fails.
                    rows.send(Err(status)).await.ok();
                    return;
                }
            };
            let mut wanted = fold.entries(now_ms).filter(|change| self.wants(change));
            loop {
                let entries: Vec<Change> = wanted.by_ref().take(ROWS).cloned().collect();
                if entries.is_empty() {
                    break;
                }
                if rows.send(Ok(SuppressionRows { entries })).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;
    const DOCUMENTS: &str = "
apiVersion: staffetta.dev/v1alpha1
kind: Tenant
metadata: { name: acme }
spec: { defaultStream: bulk, streams: [ { name: bulk }, { name: secret, suppression: { addresses: hashed } } ] }
";

    fn wish(address: &str, tenant: &str, stream: &str) -> SuppressionWish {
        SuppressionWish {
            address: address.to_owned(),
            tenant: tenant.to_owned(),
            stream: stream.to_owned(),
            reason: Reason::Manual.into(),
            ..SuppressionWish::default()
        }
    }

    fn asked(changes: Vec<SuppressionWish>) -> Result<Vec<Change>, String> {
        let config = Snapshot::from_documents(DOCUMENTS).unwrap();
        let request = ChangeSuppressionRequest {
            author: "alice".to_owned(),
            changes,
        };
        wanted(&request, &Keys::new(&[1; 32]), &config, NOW)
    }

    #[test]
    fn addresses_are_stored_as_the_tenant_wants_it() {
        let of = |wish| asked(vec![wish]).unwrap().remove(0);
        let clear = of(wish("Ann@Example.com", "acme", "bulk"));
        assert_eq!(clear.address, "ann@example.com");
        assert_eq!(clear.at_ms, NOW);
        let hashed = of(wish("ann@example.com", "acme", "secret"));
        assert_eq!((hashed.address.as_str(), &hashed.key), ("", &clear.key));
        let name = recipient_of(&hashed);
        assert!(name.starts_with("hash:") && name.len() == 37, "{name}");
        // What an export says can be given back.
        assert_eq!(of(wish(&name, "acme", "bulk")).key, clear.key);
        let mut global = wish("ann@example.com", "", "");
        assert_eq!(of(global.clone()).address, "ann@example.com");
        global.hashed = true;
        assert_eq!(of(global).address, "");
        let mut gone = wish("ann@example.com", "gone", "any");
        gone.remove = true;
        assert!(matches!(of(gone).kind, Some(Kind::Removal(_))));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_place() {
        let changed = |change: fn(&mut SuppressionWish)| {
            let mut wish = wish("b@example.com", "acme", "bulk");
            change(&mut wish);
            asked(vec![super::tests::wish("a@example.com", "", ""), wish]).unwrap_err()
        };
        for (start, change) in [
            (
                "address: it is none",
                (|w| w.address = "b".to_owned()) as fn(&mut SuppressionWish),
            ),
            ("address: 32 hex", |w| w.address = "hash:0".to_owned()),
            ("tenant: there is no", |w| w.tenant = "bravo".to_owned()),
            ("stream: a tenant", |w| w.tenant.clear()),
            ("stream: acme has no", |w| w.stream = "news".to_owned()),
            ("reason: one", |w| w.reason = 99),
            ("reason: for all", |w| {
                w.tenant.clear();
                w.stream.clear();
                w.reason = Reason::Hard.into();
            }),
            ("cause: ", |w| w.cause = "a\u{1b}[2J".to_owned()),
        ] {
            let problem = changed(change);
            assert!(
                problem.starts_with(&format!("changes[1]: {start}")),
                "{start}: {problem}"
            );
        }
        assert!(asked(vec![wish("a@example.com", "", ""); MOST + 1]).is_err());
    }

    #[test]
    fn a_stream_that_is_nearly_full_takes_removals_only() {
        let added = asked(vec![wish("a@example.com", "acme", "bulk")]).unwrap();
        let mut removal = wish("b@example.com", "acme", "bulk");
        removal.remove = true;
        let removed = asked(vec![removal]).unwrap();
        let both = [added.clone(), removed.clone()].concat();
        for (changes, octets, has_room) in [
            (&added, 79_000, true),
            (&added, 80_000, false),
            (&removed, 100_000, true),
            (&both, 80_000, false),
        ] {
            assert_eq!(have_room(changes, octets, 100_000).is_ok(), has_room);
        }
    }

    #[test]
    fn what_is_over_is_left_out() {
        let mut over = wish("a@example.com", "acme", "bulk");
        over.expires_ms = NOW;
        let mut holds = wish("b@example.com", "acme", "bulk");
        holds.expires_ms = NOW + 1;
        let changes = asked(vec![over.clone(), holds]).unwrap();
        assert_eq!(
            (changes.len(), changes[0].address.as_str()),
            (1, "b@example.com")
        );
        // What is wrong with it is told all the same.
        over.tenant = "bravo".to_owned();
        assert!(asked(vec![over]).is_err());
    }

    #[test]
    fn many_changes_are_told_together() {
        let few = asked(vec![wish("a@example.com", "acme", "bulk"); 2]).unwrap();
        let told = events(&few, "alice", NOW);
        assert_eq!((told.len(), told[0].count), (2, 0));
        let mut wishes = vec![wish("a@example.com", "acme", "bulk"); 30];
        wishes.extend(vec![wish("a@example.com", "", ""); 10]);
        let told = events(&asked(wishes).unwrap(), "alice", NOW);
        let counts: Vec<(&str, u64)> = told
            .iter()
            .map(|event| (event.tenant.as_str(), event.count))
            .collect();
        assert_eq!(counts, [("", 10), ("acme", 30)]);
    }

    #[test]
    fn only_what_is_asked_for_is_shown() {
        let changes = asked(vec![
            wish("a@example.com", "acme", "bulk"),
            wish("b@example.com", "acme", ""),
            wish("a@example.com", "", ""),
        ])
        .unwrap();
        let shown = |request: SuppressionRequest| {
            let asked = Asked::new(request, &Keys::new(&[1; 32])).unwrap();
            let shown = changes.iter().enumerate();
            let shown = shown.filter(|(_, change)| asked.wants(change));
            shown.map(|(at, _)| at).collect::<Vec<_>>()
        };
        let all = SuppressionRequest::default;
        assert_eq!(shown(all()), [0, 1, 2]);
        let address = "A@example.com".to_owned();
        assert_eq!(shown(SuppressionRequest { address, ..all() }), [0, 2]);
        let tenant = "acme".to_owned();
        assert_eq!(shown(SuppressionRequest { tenant, ..all() }), [0, 1]);
        assert_eq!(
            shown(SuppressionRequest {
                global: true,
                ..all()
            }),
            [2]
        );
        let reason = Reason::Hard.into();
        assert_eq!(shown(SuppressionRequest { reason, ..all() }), [0; 0]);
    }
}
