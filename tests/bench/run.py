"""Runs the benchmarks: `make bench`, or `make bench BENCH=relay` for one.

    python tests/bench/run.py --bench relay [--case staffetta-all]... [--messages N]
"""

import argparse
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from bench import (  # noqa: E402
    feedback, ingress, relay, scheduler, sender, signer, suppression, takeover, waiting,
)
from rig.processes import Failed  # noqa: E402

BENCHES = {
    "relay": lambda arguments: relay.run(arguments.case or relay.CASES, arguments.messages),
    "ingress": lambda arguments: ingress.run_bench(arguments.messages or ingress.MESSAGES),
    "sender": lambda arguments: sender.run(arguments.messages or sender.MESSAGES),
    "signer": lambda arguments: signer.run(),
    "scheduler": lambda arguments: scheduler.run(),
    "suppression": lambda arguments: suppression.run(),
    "fairness": lambda arguments: scheduler.run_fairness(),
    "waiting": lambda arguments: waiting.run(arguments.messages or waiting.WAITING),
    "feedback": lambda arguments: feedback.run(arguments.messages or feedback.MESSAGES),
    "takeover": lambda arguments: takeover.run(arguments.messages or takeover.WAITING),
}


def main():
    parser = argparse.ArgumentParser(description="Benchmarks of Staffetta.")
    parser.add_argument("--bench", default="all", choices=["all", *BENCHES])
    parser.add_argument("--case", action="append", choices=relay.CASES, help="only these cases of relay")
    parser.add_argument("--messages", type=int, help="messages per case, for a short run")
    arguments = parser.parse_args()
    try:
        for name, bench in BENCHES.items():
            if arguments.bench in ("all", name):
                bench(arguments)
    except Failed as failure:
        sys.exit(f"bench: {failure}")


if __name__ == "__main__":
    main()
