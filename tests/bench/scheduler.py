"""Benchmark `scheduler`: what a decision costs, whether that grows, memory and recovery, without any I/O.

Each case is a process of its own, so that its memory is its own. Figures are CPU time of the scheduler's state
machine only; the senders and stores around it are simulated and not counted.
"""

import json
import subprocess

from rig.processes import ROOT, Failed

from .figures import Figures

PROGRAM = ROOT / "target" / "release" / "examples" / "bench-scheduler"
# Arguments of the program: the case and its sizes.
CASES = [
    ("decisions", 1, 40_000), ("decisions", 8, 40_000),
    # With a million waiting a snapshot is due every million messages.
    ("waiting", 80_000), ("domains", 40_000),
    ("memory", 100_000, 1), ("memory", 1_000_000, 1), ("memory", 1_000_000, 16),
    ("recovery", 100_000), ("recovery", 1_000_000),
]


def run():
    """Runs it and prints the table."""
    figures = Figures("scheduler")
    for case in CASES:
        found = subprocess.run([PROGRAM, *map(str, case)], stdout=subprocess.PIPE, text=True, check=False)
        if found.returncode != 0:
            raise Failed(f"bench-scheduler {case} ended with {found.returncode}")
        for line in found.stdout.splitlines():
            figure = json.loads(line)
            figures.add(figure["case"], figure["metric"], figure["value"], figure["unit"])
            print(f"{figure['case']:<28}{figure['metric']:<26}{figure['value']:>16,.2f} {figure['unit']}", flush=True)
    print(f"written to {figures.path}")
