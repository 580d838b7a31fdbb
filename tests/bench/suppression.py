"""Benchmark `suppression`: ten million entries, what one look-up costs, what they take in a process and in nats-server, and
how long they are read and written anew.
"""

import json
import subprocess

from rig.processes import ROOT, Failed

from .figures import Figures

PROGRAM = ROOT / "target" / "release" / "examples" / "bench-suppression"
# Metric, and what it may be at most.
BUDGETS = {"lookup_ns": 1000, "mib": 300}


def run():
    """Runs it and prints the table."""
    figures = Figures("suppression")
    found = subprocess.run([PROGRAM], stdout=subprocess.PIPE, text=True, check=False, cwd=ROOT)
    for line in found.stdout.splitlines():
        figure = json.loads(line)
        figures.add(figure["case"], figure["metric"], figure["value"], figure["unit"])
    if found.returncode != 0:
        raise Failed(f"bench-suppression ended with {found.returncode}")
    for (case, metric), value in figures.values.items():
        budget = f"   at most {BUDGETS[metric]:,}" if metric in BUDGETS else ""
        print(f"{case:<6}{metric:<24}{value:>12,.2f}{budget}")
    print(f"written to {figures.path}")
