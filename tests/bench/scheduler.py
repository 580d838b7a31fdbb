"""Benchmarks `scheduler` and `fairness`: what a decision costs, whether that grows, memory and recovery, and how long
a tenant that sends little waits for one that sends a lot.

Each case of the program bench-scheduler is a process of its own, so that its memory is its own. Its figures are CPU time
of the scheduler's state machine only; the senders and stores around it are simulated and not counted. What a message
costs the whole process of a scheduler in a running relay, and how that grows, is measured by `growth`.
"""

import json
import subprocess

from rig.processes import ROOT, Failed

from . import growth
from .figures import Figures

PROGRAM = ROOT / "target" / "release" / "examples" / "bench-scheduler"
# Arguments of the program: the case and its sizes.
CASES = [
    ("decisions", 1, 40_000), ("decisions", 8, 40_000), ("many", 10_000, 1_000, 40_000),
    # With a million waiting a snapshot is due every million messages.
    ("waiting", 80_000), ("domains", 40_000),
    ("memory", 100_000, 1), ("memory", 1_000_000, 1), ("memory", 1_000_000, 16),
    ("recovery", 100_000), ("recovery", 1_000_000),
]


# A million messages of one tenant wait while another sends a hundred.
FAIRNESS = ("fairness", 1_000_000)


def figures_of(case):
    """Runs a case of the program; gives what it found."""
    found = subprocess.run([PROGRAM, *map(str, case)], stdout=subprocess.PIPE, text=True, check=False)
    if found.returncode != 0:
        raise Failed(f"bench-scheduler {case} ended with {found.returncode}")
    return [json.loads(line) for line in found.stdout.splitlines()]


def add(figures, case, metric, value, unit):
    figures.add(case, metric, value, unit)
    print(f"{case:<28}{metric:<26}{value:>16,.2f} {unit}", flush=True)


def run():
    """Runs it and prints the table."""
    figures = Figures("scheduler")
    for case in CASES:
        for figure in figures_of(case):
            add(figures, figure["case"], figure["metric"], figure["value"], figure["unit"])
    # The names by which the budgets are known.
    add(figures, "waiting-1m", "bytes_per_delivery", figures.values["memory-1000000-of-1", "bytes_per_delivery"], "B")
    # The state machine alone, a part of what a message costs the process.
    for what in ("waiting", "domains"):
        ratios = [value for (case, metric), value in figures.values.items()
                  if metric == "cpu_ratio" and case.startswith(f"{what}-")]
        add(figures, "growth", f"machine_ratio_{what}", max(ratios), "1")
    # The process of the scheduler, with the whole relay at work.
    largest = growth.measure(lambda *figure: add(figures, *figure))
    add(figures, "growth", "cpu_ratio_max", largest, "1")
    print(f"written to {figures.path}")


def run_fairness():
    """Runs the benchmark `fairness`."""
    figures = Figures("fairness")
    for figure in figures_of(FAIRNESS):
        add(figures, figure["case"], figure["metric"], figure["value"], figure["unit"])
    print(f"written to {figures.path}")
