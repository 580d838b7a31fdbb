//! A master, its replica, and clients that are told of both: whoever dies, wakes up or takes over, the limits hold.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use limits::{Dated, GrantReply, Grants, Options, SlotRequest};

use crate::server::{PATIENCE, Server, connected, once_known, request};

/// Longer than it takes until all have seen who took over.
const WINDOW: Duration = Duration::from_secs(4);

/// A client of both, in this order.
async fn client(servers: [&Server; 2], response_timeout: Duration) -> Grants {
    let options = Options {
        response_timeout,
        ..Options::new(format!("{},{}", servers[0].url(), servers[1].url()))
    };
    let grants = Grants::connect(options).unwrap();
    connected(&grants).await;
    grants
}

async fn until(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn of_several_servers_the_master_is_used_and_after_it_its_replica_which_knows_nothing_for_one_window()
 {
    let mut master = Server::start().await;
    let replica = master.replica().await;
    let grants = client([&replica, &master], PATIENCE).await;
    let short = request("lane", 10, Duration::from_millis(500), 1);
    once_known(&grants, &short).await;
    master.kill();
    assert!(grants.ask(&short).await.is_err());
    // Nobody is the master.
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(grants.ask(&short).await.is_err());
    replica.promote();
    connected(&grants).await;
    let reply = grants.ask(&request("lane", 10, PATIENCE, 1)).await.unwrap();
    assert!(matches!(reply, GrantReply::Unknown { .. }), "{reply:?}");
    let reply = once_known(&grants, &short).await;
    assert!(matches!(reply, GrantReply::Granted { .. }), "{reply:?}");
}

#[tokio::test]
async fn an_old_master_that_wakes_up_is_left_by_all_who_know_both() {
    let master = Server::start().await;
    let replica = master.replica().await;
    let both = [&master, &replica];
    // One of them finds the master hanging, the other one has nothing to ask meanwhile.
    let impatient = client(both, Duration::from_secs(2)).await;
    let silent = client(both, Duration::from_secs(2)).await;
    assert_eq!(silent.turns("pool", 5).await, Ok(0));
    master.suspend();
    replica.promote();
    until("the replica in use", async || {
        impatient.turns("pool", 1).await.is_ok()
    })
    .await;
    master.resume();
    // Both draw from one count again. The old master would go on with its own.
    until("all at the same server", async || {
        let Ok(mine) = impatient.turns("pool", 1).await else {
            return false;
        };
        silent.turns("pool", 1).await == Ok(mine + 1)
    })
    .await;
    // Who comes later chooses the same one, whatever the order.
    let later = client([&master, &replica], PATIENCE).await;
    until("the later one at the same server", async || {
        let Ok(mine) = impatient.turns("pool", 1).await else {
            return false;
        };
        later.turns("pool", 1).await == Ok(mine + 1)
    })
    .await;
}

#[tokio::test]
async fn who_returns_to_a_server_that_has_missed_something_begins_a_new_epoch_there() {
    let master = Server::start().await;
    let mut replica = master.replica().await;
    let grants = client([&master, &replica], Duration::from_secs(2)).await;
    let short = request("lane", 10, Duration::from_millis(500), 1);
    once_known(&grants, &short).await;
    // A persistent server comes back with all it had when it went.
    let fields = ["run", "id", "since", "term"].map(|field| {
        let value = master.command(&["HGET", "staffetta:epoch", field]).unwrap();
        (field, value)
    });
    master.suspend();
    replica.promote();
    assert!(grants.ask(&short).await.is_err());
    until("the replica in use", async || {
        grants.ask(&short).await.is_ok()
    })
    .await;
    replica.kill();
    master.resume();
    for (field, value) in fields {
        assert_eq!(
            master.command(&["HGET", "staffetta:epoch", field]),
            Some(value)
        );
    }
    assert!(grants.ask(&short).await.is_err());
    connected(&grants).await;
    let reply = grants.ask(&request("lane", 10, PATIENCE, 1)).await.unwrap();
    assert!(matches!(reply, GrantReply::Unknown { .. }), "{reply:?}");
}

/// Uses what it is granted, as fast as it can, and writes every use down. Nothing without a grant.
async fn use_up(
    (holder, grants): (usize, Grants),
    limit: u64,
    until: Arc<Mutex<Instant>>,
    uses: Uses,
) {
    let (mut batch, mut last_uses): (u64, Vec<Instant>) = (1, Vec::new());
    while Instant::now() < *until.lock().unwrap() {
        let asked = Instant::now();
        let mut wish = request("lane", limit, WINDOW, limit);
        (wish.holder, wish.batch) = (format!("holder-{holder}"), batch);
        let dated = |used: &Instant| Dated {
            ago: used.elapsed(),
            count: 1,
        };
        wish.dated = last_uses.iter().map(dated).collect();
        // What was not heard is said again.
        let reply = grants.ask(&wish).await;
        if reply.is_ok() {
            last_uses.clear();
            batch += 1;
        }
        if let Ok(GrantReply::Granted { amount, expires }) = reply {
            while (last_uses.len() as u64) < amount && Instant::now() < asked + expires {
                uses.lock().unwrap().push(Instant::now());
                // Known to have happened a moment later.
                last_uses.push(Instant::now());
            }
        } else {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

type Uses = Arc<Mutex<Vec<Instant>>>;

fn most_in_a_window(uses: &mut [Instant]) -> usize {
    uses.sort_unstable();
    let mut first = 0;
    let mut most = 0;
    for last in 0..uses.len() {
        while uses[last] - uses[first] >= WINDOW {
            first += 1;
        }
        most = most.max(last + 1 - first);
    }
    most
}

/// What becomes of the master.
enum Fate {
    Killed,
    /// It hangs, and wakes up when its replica is in use: two believe to be the master.
    Sleeps,
    /// Its replica has not heard of the last uses.
    KilledWithAStaleReplica,
}

async fn rates_hold(fate: Fate) {
    const LIMIT: u64 = 64;
    let mut master = Server::start().await;
    let replica = master.replica().await;
    let clients = [
        client([&master, &replica], Duration::from_secs(1)).await,
        client([&replica, &master], Duration::from_secs(1)).await,
    ];
    once_known(&clients[0], &request("lane", LIMIT, WINDOW, 0)).await;
    let uses: Uses = Arc::default();
    let until_when = Arc::new(Mutex::new(Instant::now() + PATIENCE * 3));
    let mut number = 0;
    let drawn = clients.map(|client| {
        number += 1;
        let (until, uses) = (until_when.clone(), uses.clone());
        tokio::spawn(use_up((number, client), LIMIT, until, uses))
    });
    let count = || uses.lock().unwrap().len();
    until("uses of the first server", async || count() as u64 > LIMIT).await;
    if matches!(fate, Fate::KilledWithAStaleReplica) {
        replica.promote();
        let before = count();
        until("uses that the replica has not heard of", async || {
            count() > before
        })
        .await;
    }
    let before = count();
    match fate {
        Fate::Sleeps => master.suspend(),
        _ => master.kill(),
    }
    replica.promote();
    until("an epoch of the replica", async || {
        let run = replica
            .command(&["HGET", "staffetta:epoch", "run"])
            .unwrap();
        let info = replica.command(&["INFO", "server"]).unwrap();
        info.contains(&format!("run_id:{run}"))
    })
    .await;
    if matches!(fate, Fate::Sleeps) {
        master.resume();
    }
    until("uses of the second server", async || {
        count() as u64 > before as u64 + 2 * LIMIT
    })
    .await;
    *until_when.lock().unwrap() = Instant::now();
    for task in drawn {
        task.await.unwrap();
    }
    let most = most_in_a_window(&mut uses.lock().unwrap());
    assert!(most as u64 <= LIMIT, "{most} uses in a window");
}

#[tokio::test]
async fn no_rate_is_exceeded_when_a_master_is_killed_and_its_replica_takes_over() {
    rates_hold(Fate::Killed).await;
}

#[tokio::test]
async fn no_rate_is_exceeded_when_a_master_wakes_up_beside_its_replica_that_took_over() {
    rates_hold(Fate::Sleeps).await;
}

#[tokio::test]
async fn no_rate_is_exceeded_when_the_replica_has_not_heard_of_the_last_uses() {
    rates_hold(Fate::KilledWithAStaleReplica).await;
}

/// Connections that are open, by holder; counted at every change.
#[derive(Default)]
struct Open {
    by_holder: BTreeMap<usize, u32>,
    most: u32,
}

/// A scheduler of one lane: opens what it is leased, closes what it is told to, and all when its lease ends.
async fn hold(
    grants: Grants,
    number: usize,
    limit: u32,
    until: Arc<Mutex<Instant>>,
    open: Arc<Mutex<Open>>,
) {
    const TTL: Duration = Duration::from_secs(4);
    let mut have = 0;
    let mut leased_until = Instant::now();
    let note = |have: u32| {
        let mut open = open.lock().unwrap();
        open.by_holder.insert(number, have);
        open.most = open.most.max(open.by_holder.values().sum());
    };
    while Instant::now() < *until.lock().unwrap() {
        let asked = Instant::now();
        let word = SlotRequest {
            key: "source|site".into(),
            holder: format!("holder-{number}"),
            limit,
            have,
            want: limit,
            share: limit / 2,
            ttl: TTL,
        };
        if let Ok(reply) = grants.lease(&word).await {
            // What came too late is not used.
            if asked.elapsed() < TTL / 2 {
                have = have + reply.granted - reply.excess;
                leased_until = asked + TTL;
            }
        } else {
            have = have.min(limit / 2);
        }
        if Instant::now() >= leased_until {
            have = 0;
        }
        note(have);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn no_more_connections_than_allowed_are_leased_through_a_fail_over() {
    const LIMIT: u32 = 6;
    let mut master = Server::start().await;
    let replica = master.replica().await;
    let mut clients = Vec::new();
    for _ in 0..3 {
        clients.push(client([&master, &replica], Duration::from_secs(1)).await);
    }
    // It comes when the master is dead: what others have it can't know.
    let newcomer = clients.pop().unwrap();
    let open: Arc<Mutex<Open>> = Arc::default();
    let until_when = Arc::new(Mutex::new(Instant::now() + PATIENCE * 3));
    let start = |(number, grants)| {
        let (until, open) = (until_when.clone(), open.clone());
        tokio::spawn(hold(grants, number, LIMIT, until, open))
    };
    let mut holders: Vec<_> = clients.into_iter().enumerate().map(start).collect();
    let sum = || open.lock().unwrap().by_holder.values().sum::<u32>();
    until("all connections in use", async || sum() == LIMIT).await;
    master.kill();
    replica.promote();
    holders.push(start((2, newcomer)));
    until("connections for the newcomer", async || {
        open.lock()
            .unwrap()
            .by_holder
            .get(&2)
            .is_some_and(|have| *have > 0)
    })
    .await;
    until("all connections in use again", async || sum() == LIMIT).await;
    *until_when.lock().unwrap() = Instant::now();
    for holder in holders {
        holder.await.unwrap();
    }
    let most = open.lock().unwrap().most;
    assert_eq!(most, LIMIT);
}
