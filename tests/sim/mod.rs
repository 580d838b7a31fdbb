//! Seeded simulation of intakes, lanes and permits: the production machine over simulated stores and senders.
//!
//! `SIM_SEED=n` replays one seed; `SIM_SEEDS=n` runs so many.

mod fairness;
mod redis;
mod sender;
mod store;
mod world;

use world::World;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

#[test]
fn nothing_is_lost_and_duplicates_are_in_doubt_whatever_crashes() {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(60),
    };
    let (mut duplicates, mut in_doubt, mut crashes, mut copies) = (0, 0, 0, 0);
    let (mut dsns, mut delays, mut expired, mut not_found) = (0, 0, 0, 0);
    let (mut operated, mut ended) = (0, 0);
    let (mut opened, mut throttled, mut scaled, mut lost_counts) = (0, 0, 0, 0);
    for seed in seeds.clone() {
        let mut world = World::new(seed);
        let ran = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            world.run();
            world.check();
        }));
        assert!(ran.is_ok(), "SIM_SEED={seed} replays this");
        duplicates += world.duplicates;
        in_doubt += world.in_doubt;
        crashes += world.crashes;
        copies += world.copies;
        dsns += world.dsns;
        delays += world.delays;
        expired += world.expired;
        not_found += world.not_found;
        operated += world.operated;
        ended += world.ended;
        opened += world.opened;
        throttled += world.throttled;
        scaled += world.scaled;
        lost_counts += world.lost_counts;
    }
    if seeds.end - seeds.start >= 20 {
        assert!(
            crashes > 0
                && copies > 0
                && in_doubt > 0
                && duplicates > 0
                && dsns > 0
                && delays > 0
                && expired > 0
                && ended > 0
                && throttled > 0
                && scaled > 0
                && lost_counts > 0,
            "the faults do not happen: the simulation proves nothing"
        );
    }
    println!(
        "seeds {seeds:?}: {crashes} crashes, {copies} copies forward, {in_doubt} recipients in doubt, {duplicates} delivered twice, \
         {dsns} DSNs, {delays} notices of delay, {expired} expired, {not_found} assignments whose message had moved, {operated} operations, {ended} recipients ended by them, \
         {opened} connections, {throttled} times throttled, {scaled} members asked to leave, Redis without counts {lost_counts} times"
    );
}

#[test]
fn nobody_waits_longer_than_its_share_says_whoever_comes_and_goes() {
    let seeds = match number("SIM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SIM_SEEDS").unwrap_or(60),
    };
    let mut left = 0;
    for seed in seeds.clone() {
        let ran = std::panic::catch_unwind(|| fairness::run(seed));
        left += ran.unwrap_or_else(|_| panic!("SIM_SEED={seed} replays this"));
    }
    println!("seeds {seeds:?}: {left} deliveries left in turn");
}
