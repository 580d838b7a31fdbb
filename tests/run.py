#!/usr/bin/env python3
"""Runs all tests of the workspace, for `make test`: those that wait for servers and clocks beside the others.

    python3 tests/run.py

`cargo test` runs one binary after the other, and most of their time is waiting. Here the tests of the whole relay run beside
all others, of which the simulation is the last, since it fills a core. Each binary's output is printed when it has ended. The last
line is `tests: ok …`, or `tests: FAILED …` with exit status 1.
"""

import concurrent.futures
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
CARGO = os.environ.get("CARGO", "cargo")
# Seconds for one binary.
LIMIT = 900


def binaries():
    """Builds them; (package, target, kind, executable, directory in which cargo would run it)."""
    built = subprocess.run([CARGO, "test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"], cwd=ROOT,
                           check=False, stdout=subprocess.PIPE, text=True)
    if built.returncode:
        sys.exit("tests: FAILED they can't be built")
    for line in built.stdout.splitlines():
        message = json.loads(line)
        if message["reason"] == "compiler-artifact" and message["profile"]["test"] and message["executable"]:
            folder = pathlib.Path(message["manifest_path"]).parent
            target = message["target"]
            yield folder.name, target["name"], target["kind"][0], message["executable"], folder


def run(name, command, folder):
    """Whether it succeeds within LIMIT; prints what it says."""
    began = time.monotonic()
    environment = {**os.environ, "CARGO": CARGO, "CARGO_MANIFEST_DIR": str(folder), "CARGO_PKG_NAME": folder.name}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, check=False, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=LIMIT)
        said, end = done.stdout, f"exit status {done.returncode}" if done.returncode else ""
    except subprocess.TimeoutExpired as late:
        said, end = late.stdout or b"", f"not within {LIMIT} s"
    text = said.decode(errors="replace") + (f"{name}: {end}\n" if end else "")
    print(f"\n     Running {name} ({time.monotonic() - began:.0f} s)\n{text}", end="", flush=True)
    return not end


def main():
    of_relay, last, others = [], [], []
    for package, target, kind, executable, folder in binaries():
        job = (f"{package} {target if kind == 'test' else kind}", [executable], folder)
        where = of_relay if (package, target) == ("tests", "it") else last if target == "sim" else others
        where.append(job)
    if not (of_relay and last and others):
        sys.exit("tests: FAILED some are missing")
    failed, stop = [], threading.Event()

    def one_after_the_other(jobs):
        failed.extend(job[0] for job in jobs if not stop.is_set() and not run(*job))

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        lanes = [pool.submit(one_after_the_other, jobs) for jobs in (of_relay, others + last)]
        try:
            for lane in lanes:
                lane.result()
        except KeyboardInterrupt:
            stop.set()
            raise
    if failed:
        sys.exit(f"tests: FAILED {', '.join(failed)}")
    print(f"tests: ok binaries={len(of_relay) + len(others) + len(last)}")


if __name__ == "__main__":
    main()
