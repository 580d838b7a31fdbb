//! Seeded simulation of a whole installation: the production machines and scripts over simulated stores, senders, hosts.
//!
//! `SIM_SEED=n` replays one seed, with `SIM_TRACE=1` it says what happens; `SIM_SEEDS=n` runs so many.

mod fairness;
mod redis;
mod sender;
mod store;
mod world;

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use world::World;

/// Seeds of the short form: some 20 seconds in a debug build on two cores.
const SEEDS: u64 = 30;

/// What does not happen in every run of the short form.
const RARE: &str = "not found where they were";

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn seeds() -> Range<u64> {
    match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(SEEDS),
    }
}

/// Runs seeds on all cores; names those that fail.
fn run_all<T: Send>(seeds: Range<u64>, run: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let next = AtomicU64::new(seeds.start);
    let (results, failed) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let work = || loop {
        let seed = next.fetch_add(1, Ordering::Relaxed);
        if seed >= seeds.end {
            return;
        }
        match catch_unwind(AssertUnwindSafe(|| run(seed))) {
            Ok(result) => results.lock().expect("nobody panics with it").push(result),
            Err(_) => {
                println!("SIM_SEED={seed} replays this");
                failed.lock().expect("nobody panics with it").push(seed);
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let failed = failed.into_inner().expect("nobody panics with it");
    assert!(
        failed.is_empty(),
        "SIM_SEED={} replays this; of {seeds:?} these fail: {failed:?}",
        failed[0]
    );
    results.into_inner().expect("nobody panics with it")
}

#[test]
fn nothing_is_lost_no_limit_is_exceeded_and_duplicates_are_in_doubt_whatever_happens() {
    let seeds = seeds();
    let counts = run_all(seeds.clone(), |seed| {
        let mut world = World::new(seed);
        world.run();
        world.check();
        world.counts()
    });
    let mut sums: BTreeMap<&str, u32> = BTreeMap::new();
    for (name, count) in counts.into_iter().flatten() {
        *sums.entry(name).or_default() += count;
    }
    println!("seeds {seeds:?}: {sums:?}");
    let is_enough = seeds.end - seeds.start >= 20;
    let happens = |(name, count): (&&str, &u32)| *count > 0 || *name == RARE;
    assert!(
        !is_enough || sums.iter().all(happens),
        "something never happens: the simulation proves nothing of it"
    );
}

#[test]
fn a_seed_replays() {
    let trial = |seed| {
        let mut world = World::new(seed);
        world.run();
        world.counts()
    };
    // As long as anything depends on the order of a hash map, one of them differs.
    for seed in 0..4 {
        assert_eq!(trial(seed), trial(seed), "seed {seed}");
    }
}

#[test]
fn nobody_waits_longer_than_its_share_says_whoever_comes_and_goes() {
    let left: u32 = run_all(seeds(), fairness::run).into_iter().sum();
    println!("seeds {:?}: {left} deliveries left in turn", seeds());
}
