//! The figures. What is compared takes turns, so that a disturbance of the machine meets all alike. Costs are
//! means, so that what comes seldom (snapshots) is in them.

use std::time::Instant;

use scheduler::machine::Machine;

use crate::rig::{PARTITIONS, Rig, cpu_time, recover};
use crate::traffic::{
    self,
    Destination::{Fast, Waiting},
    Mail,
};

/// Rounds of a comparison.
const ROUNDS: usize = 15;
/// Messages in a block under load.
const PER_BLOCK: u64 = 10;

pub fn print(case: &str, metric: &str, value: f64, unit: &str) {
    println!(
        "{}",
        serde_json::json!({ "case": case, "metric": metric, "value": value, "unit": unit })
    );
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Microseconds of CPU per message of each rig, and the ratios to the first of them. `messages` are sent in each round.
fn compare(rigs: &mut [Rig], messages: u64) -> (Vec<f64>, Vec<f64>) {
    let mut costs = vec![0.0; rigs.len()];
    for _ in 0..ROUNDS {
        for (rig, cost) in rigs.iter_mut().zip(&mut costs) {
            let spent = rig.send(messages, Fast).as_secs_f64();
            *cost += spent * 1e6 / messages as f64 / ROUNDS as f64;
        }
    }
    let first = costs.first().copied().unwrap_or(f64::NAN);
    let ratios = costs.iter().map(|cost| cost / first).collect();
    (costs, ratios)
}

/// The full cycle of a message: block, ready, assigned, begin, permit, report, stored.
pub fn decisions(senders: u64, messages: u64) -> anyhow::Result<()> {
    let mut rigs = [Rig::new(senders, 100, PER_BLOCK, false)?];
    rigs[0].send(messages / 4, Fast);
    let (costs, _) = compare(&mut rigs, messages);
    let case = format!("decisions-{senders}-senders");
    print(&case, "cpu_us_per_message", costs[0], "us");
    print(&case, "assignments_per_second", 1e6 / costs[0], "1/s");
    Ok(())
}

/// The same over so many lanes, with the mail of so many tenants.
pub fn decisions_of_many(lanes: u64, tenants: u64, messages: u64) -> anyhow::Result<()> {
    let mail = Mail {
        tenants: (0, tenants),
        // There are two sources.
        domains: lanes / 2,
    };
    let documents = traffic::documents(tenants) + traffic::SHARED;
    let mut rigs = [Rig::with(&documents, 1, mail, PER_BLOCK, false)?];
    rigs[0].send(messages.max(3 * lanes), Fast);
    let (costs, _) = compare(&mut rigs, messages);
    print("decisions", "cpu_us_per_message", costs[0], "us");
    print("decisions", "per_second", 1e6 / costs[0], "1/s");
    Ok(())
}

/// CPU per message while others wait.
pub fn cost_with_waiting(messages: u64) -> anyhow::Result<()> {
    let waiting = [0, 10_000, 100_000, 1_000_000];
    let mut rigs = Vec::new();
    for count in waiting {
        let mut rig = Rig::new(1, 1_000, PER_BLOCK, false)?;
        rig.send(count, Waiting);
        rig.send(messages, Fast);
        anyhow::ensure!(rig.live() == count, "{} of {count} wait", rig.live());
        rigs.push(rig);
    }
    let (costs, ratios) = compare(&mut rigs, messages);
    for ((count, cost), ratio) in waiting.iter().zip(costs).zip(ratios) {
        print(
            &format!("waiting-{count}"),
            "cpu_us_per_message",
            cost,
            "us",
        );
        print(&format!("waiting-{count}"), "cpu_ratio", ratio, "1");
    }
    Ok(())
}

/// CPU per message over more and more destinations.
pub fn cost_with_domains(messages: u64) -> anyhow::Result<()> {
    let domains = [10, 100, 1_000, 10_000];
    let mut rigs = Vec::new();
    for count in domains {
        let mut rig = Rig::new(1, count, PER_BLOCK, false)?;
        rig.send(messages.max(3 * count), Fast);
        rigs.push(rig);
    }
    let (costs, ratios) = compare(&mut rigs, messages);
    for ((count, cost), ratio) in domains.iter().zip(costs).zip(ratios) {
        print(
            &format!("domains-{count}"),
            "cpu_us_per_message",
            cost,
            "us",
        );
        print(&format!("domains-{count}"), "cpu_ratio", ratio, "1");
    }
    Ok(())
}

/// Memory of deliveries that were tried once and wait, over 10,000 domains.
pub fn memory(waiting: u64, per_block: u64) -> anyhow::Result<()> {
    let mut rig = Rig::new(1, 10_000, per_block, false)?;
    rig.send(2_000, Fast);
    rig.rest();
    let before = resident()?;
    rig.send(waiting, Waiting);
    rig.rest();
    anyhow::ensure!(rig.live() == waiting, "{} of {waiting} wait", rig.live());
    let grown = resident()? - before;
    let case = format!("memory-{waiting}-of-{per_block}");
    print(&case, "bytes_per_delivery", grown / waiting as f64, "B");
    print(&case, "memory_mib", grown / 1_048_576.0, "MiB");
    // Those that are not forgotten yet.
    print(&case, "lanes", rig.lanes() as f64, "1");
    Ok(())
}

/// What a take-over costs apart from reading the stores.
pub fn recovery(waiting: u64) -> anyhow::Result<()> {
    let mut rig = Rig::new(1, 10_000, PER_BLOCK, true)?;
    rig.send(waiting / 2, Waiting);
    rig.write_snapshots();
    rig.send(waiting - waiting / 2, Waiting);
    rig.send(waiting / 10, Fast);
    let (now_ms, stored) = rig.into_stored();
    let mut seconds = Vec::new();
    let mut cpu = Vec::new();
    for _ in 0..3 {
        let mut owner = Machine::new("scheduler-0", PARTITIONS).leasing_connections();
        let (began, cpu_began) = (Instant::now(), cpu_time());
        let mut found = 0;
        for (stored, number) in stored.iter().zip(0..) {
            found += recover(now_ms, number, stored, &mut owner)?;
        }
        seconds.push(began.elapsed().as_secs_f64());
        cpu.push((cpu_time() - cpu_began).as_secs_f64());
        anyhow::ensure!(found == waiting, "{found} of {waiting} recovered");
    }
    let case = format!("recovery-{waiting}");
    print(&case, "recovery_cpu_seconds", median(cpu), "s");
    print(&case, "recovery_seconds", median(seconds), "s");
    Ok(())
}

/// Resident memory of this process, bytes.
fn resident() -> anyhow::Result<f64> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: f64 = statm.split_whitespace().nth(1).unwrap_or("0").parse()?;
    Ok(pages * rustix::param::page_size() as f64)
}
