//! Benchmarks of the scheduler's decisions: the production state machine with its intakes, without any I/O.
//!
//! | module | what is in it |
//! |---|---|
//! | `rig` | the machine between simulated senders, journals and grants; counts the machine's CPU time only |
//! | `traffic`, `connections` | blocks, senders' words and connections |
//! | `cases`, `fairness` | the figures |
//!
//! `bench-scheduler CASE` prints one JSON object per figure. Each case is meant for a process of its own, so that
//! its memory is its own; `tests/bench/scheduler.py` does that.

mod cases;
mod connections;
mod fairness;
mod rig;
mod traffic;

/// As in production.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let case = arguments.next().unwrap_or_default();
    let numbers = arguments
        .map(|argument| argument.parse())
        .collect::<Result<Vec<u64>, _>>()?;
    match (case.as_str(), numbers.as_slice()) {
        ("decisions", &[senders, messages]) => cases::decisions(senders, messages),
        ("many", &[lanes, tenants, messages]) => cases::decisions_of_many(lanes, tenants, messages),
        ("fairness", &[waiting]) => fairness::small_tenant(waiting),
        ("waiting", &[messages]) => cases::cost_with_waiting(messages),
        ("domains", &[messages]) => cases::cost_with_domains(messages),
        ("memory", &[waiting, per_block]) => cases::memory(waiting, per_block),
        ("recovery", &[waiting]) => cases::recovery(waiting),
        _ => anyhow::bail!(
            "usage: decisions SENDERS MESSAGES | many LANES TENANTS MESSAGES | fairness WAITING | waiting MESSAGES | domains MESSAGES | memory WAITING PER_BLOCK | recovery WAITING"
        ),
    }
}
