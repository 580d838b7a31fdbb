#!/usr/bin/env python3
"""`make mutants`: changes the code that decides, one place at a time, and sees whether a test of its crate fails.

    python3 tests/mutants/run.py [CRATE | CRATE/FILE…]      as egress, or egress/fair.rs

A change that no test notices is a survivor. Those that are known are in survivors.txt, each with the reason why no test
can or need tell it from the original; any other one fails the run, and so does a known one that survives no more.
Changed files, logs and differences stay in target/mutants/, and so do the trees that are changed: the one here never is.

The last line is `mutants: ok …`, or `mutants: FAILED …` with exit status 1. About one second for each of 2,100 changes on
two cores, ten for each that makes a loop endless (a fifth of those of lanes), and two minutes for what the crates are built
from the first time.
"""

import collections
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
WORK = ROOT / "target" / "mutants"
VERSION = "27.1.0"
# A change that makes a loop endless is noticed by its not ending: by its taking so many times as long as the tests of
# its crate take without a change, a few seconds.
TIMES = 6
# Trees that are changed at the same time.
JOBS = 2
# What is only printed, and how hashes mix: others are as good.
EXCEPT = [r"<impl [\w:]*(Debug|Display) for", r"replace \S+ with \S+ in mix$"]

# What decides about mail, by crate: files below its src.
POLICY = {
    "bearer": ["keys.rs", "message.rs", "token.rs"],
    "classify": ["decide.rs", "observation.rs", "phrases.rs", "retry_after.rs", "rules.rs", "words.rs"],
    "config": ["resources/retry.rs", "resources/window.rs", "shaping_rules.rs", "suffixes.rs"],
    "egress": ["automation.rs", "automation/scope.rs", "fair.rs", "fair/slab.rs", "lanes.rs", "lanes/blocked.rs",
               "lanes/connections.rs", "lanes/deciding.rs", "lanes/idle.rs", "lanes/lane.rs", "lanes/lease.rs",
               "lanes/outage.rs", "lanes/senders.rs", "lanes/shared.rs", "lanes/slots.rs", "lanes/timers.rs",
               "lanes/uses.rs", "rate.rs", "rate/window.rs", "rotation.rs", "sites.rs", "standing.rs",
               "standing/table.rs"],
    "queue": ["acted.rs", "attempts.rs", "due.rs", "kept.rs", "operations.rs"],
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


def asked(arguments):
    """Files by crate, below its src."""
    patterns = {}
    for argument in arguments or POLICY:
        crate, _, file = argument.partition("/")
        if crate not in POLICY:
            sys.exit(f"mutants: FAILED no such crate: {crate}; there are {', '.join(POLICY)}")
        patterns.setdefault(crate, []).extend([file] if file else POLICY[crate])
    return {crate: {file for name in names for file in files(crate, name)} for crate, names in patterns.items()}


def files(crate, name):
    sources = ROOT / "services" / "lib" / crate / "src"
    found = [str(path.relative_to(sources)) for path in sources.glob(name)]
    if not found:
        sys.exit(f"mutants: FAILED {crate} has no {name}, that is asked for or that POLICY in {__file__} names")
    return found


def bring_up_to_date(tree):
    """Makes the tree a copy of this one. What is the same is left as it is, so that it is not built again."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout
    names = {name for name in listed.split("\0") if (ROOT / name).is_file()}
    for name in names:
        copy = tree / name
        if not copy.exists() or copy.read_bytes() != (ROOT / name).read_bytes():
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, copy)
    for path in [path for path in tree.rglob("*") if path.is_file()]:
        if str(path.relative_to(tree)) not in names:
            path.unlink()


def mutate_all(program, crates, job):
    """The outcomes of one of JOBS parts of the changes: (what was changed, what came of it)."""
    tree = WORK / f"tree-{job}"
    tree.mkdir(parents=True, exist_ok=True)
    bring_up_to_date(tree)
    return [outcome for crate in crates for outcome in mutate(program, crate, crates[crate], tree, job)]


def mutate(program, crate, names, tree, job):
    output = WORK / f"{crate}-{job}"
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    arguments = [argument for name in sorted(names) for argument in ("--file", f"services/lib/{crate}/src/{name}")]
    arguments += [argument for name in EXCEPT for argument in ("--exclude-re", name)]
    # Building without debug information takes a third less time.
    environment = {**os.environ, "CARGO_TARGET_DIR": str(WORK / f"build-{job}"), "CARGO_PROFILE_DEV_DEBUG": "0"}
    done = subprocess.run([program, "mutants", "--in-place", "--package", crate, "--shard", f"{job}/{JOBS}",
                           "--sharding", "round-robin", "--no-shuffle", "--colors", "never",
                           "--timeout-multiplier", str(TIMES), "--minimum-test-timeout", "10",
                           "--output", output, *arguments, "--", "--tests"], cwd=tree, env=environment, check=False)
    # 2 and 3: there are survivors, or changes that do not end. Which of them count is decided here.
    if done.returncode not in (0, 2, 3):
        sys.exit(f"mutants: FAILED the tests of {crate} fail without a change, or can't be built or run (exit status "
                 f"{done.returncode})")
    outcomes = json.loads((output / "mutants.out" / "outcomes.json").read_text())["outcomes"]
    return [(place_of(outcome["scenario"]["Mutant"]["name"]), outcome["summary"]) for outcome in outcomes
            if outcome["scenario"] != "Baseline"]


def is_asked(place, crates):
    """Whether a known survivor is in one of the files that are changed."""
    _, _, crate, _, file = place.partition(": ")[0].split("/", 4)
    return file in crates.get(crate, [])


def main():
    crates, program = asked(sys.argv[1:]), tool()
    with concurrent.futures.ThreadPoolExecutor(JOBS) as pool:
        parts = [pool.submit(mutate_all, program, crates, job) for job in range(JOBS)]
        outcomes = [outcome for part in parts for outcome in part.result()]
    missed = collections.Counter(place for place, summary in outcomes if summary == "MissedMutant")
    known = collections.Counter({place: count for place, count in known_survivors().items() if is_asked(place, crates)})
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
