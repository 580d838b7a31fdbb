#!/usr/bin/env python3
"""`make mutants`: changes the code that decides, one place at a time, and sees whether a test of its crate fails.

    python3 tests/mutants/run.py [CRATE…]

A change that no test notices is a survivor. Those that are known are in survivors.txt, each with the reason why no test
can or need tell it from the original; any other one fails the run, and so does a known one that survives no more.
Changed files, logs and differences stay in target/mutants/.

The last line is `mutants: ok …`, or `mutants: FAILED …` with exit status 1. About 2 s for each of some 120 changes.
"""

import collections
import json
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = ROOT / "target" / "mutants"
VERSION = "27.1.0"
# A change that makes a loop endless is noticed by its not ending; the tests of a crate take a few seconds.
TIMEOUT = 60

# What decides about mail, by crate.
POLICY = {
    "classify": ["decide.rs", "observation.rs", "retry_after.rs", "rules.rs"],
}


def tool():
    """The program, of the version whose changes survivors.txt names."""
    path = ROOT / ".servers" / "mutants" / "bin" / "cargo-mutants"
    if not path.exists():
        subprocess.run(["cargo", "install", "--locked", "--root", path.parents[1], f"cargo-mutants@{VERSION}"], check=True)
    return path


def place_of(name):
    """What was changed, without line and column: they move with every edit."""
    return re.sub(r":\d+:\d+: ", ": ", name)


def known_survivors():
    """By name, how often each may survive."""
    lines = (HERE / "survivors.txt").read_text().splitlines()
    return collections.Counter(line for line in lines if line and not line.startswith("#"))


def mutate(program, crate):
    """All outcomes of a crate: (what was changed, what came of it)."""
    folder = WORK / crate
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    sources = ROOT / "services" / "lib" / crate / "src"
    missing = [name for name in POLICY[crate] if not (sources / name).exists()]
    if missing:
        sys.exit(f"mutants: FAILED {crate} has no {', '.join(missing)}: POLICY in {__file__} names it")
    files = [argument for name in POLICY[crate] for argument in ("--file", (sources / name).relative_to(ROOT))]
    # Its exit status says whether there are survivors; which of them count is decided here.
    subprocess.run([program, "mutants", "--package", crate, "--no-shuffle", "--colors", "never", "--timeout", str(TIMEOUT),
                    "--output", folder, *files], cwd=ROOT, check=False)
    outcomes = json.loads((folder / "mutants.out" / "outcomes.json").read_text())["outcomes"]
    if any(outcome["scenario"] == "Baseline" and outcome["summary"] != "Success" for outcome in outcomes):
        sys.exit(f"mutants: FAILED the tests of {crate} fail without a change")
    return [(place_of(outcome["scenario"]["Mutant"]["name"]), outcome["summary"]) for outcome in outcomes
            if outcome["scenario"] != "Baseline"]


def main():
    crates = sys.argv[1:] or list(POLICY)
    if unknown := [crate for crate in crates if crate not in POLICY]:
        sys.exit(f"mutants: FAILED no such crate: {', '.join(unknown)}; there are {', '.join(POLICY)}")
    program = tool()
    outcomes = [outcome for crate in crates for outcome in mutate(program, crate)]
    missed = collections.Counter(place for place, summary in outcomes if summary == "MissedMutant")
    known = collections.Counter({place: count for place, count in known_survivors().items()
                                 if place.split("/")[2] in crates})
    problems = [f"no test notices: {place}" for place in (missed - known).elements()]
    problems += [f"survives no more: {place}" for place in (known - missed).elements()]
    for problem in problems:
        print(problem)
    summaries = collections.Counter(summary for _, summary in outcomes)
    noticed = summaries["CaughtMutant"] + summaries["Timeout"]
    text = f"noticed={noticed} explained={sum((missed & known).values())} unviable={summaries['Unviable']}"
    if problems:
        sys.exit(f"mutants: FAILED {len(problems)} problems {text}")
    print(f"mutants: ok {text}")


if __name__ == "__main__":
    main()
