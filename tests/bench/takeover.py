"""Benchmark `takeover`: how long partitions are without an owner when their scheduler goes.

Two schedulers own two partitions each, with 100,000 waiting deliveries each. `stopped_seconds` is the time from SIGTERM
to one of them until the other has all that waits, `killed_seconds` the same from `kill -9`: the lease of the dead one has
to run out first. What is reported is the longest of the rounds; each round has a line of its own, too. One
`staffetta queue`, which tells that all of it is there, is in that time; before, only the log is looked at, since to ask
again and again would take the time of the processor from who takes over.
"""

import re
import time

from rig.processes import Failed, Rig, wait_until
from rig.relay import Relay, bench_documents
from rig.servers import Dns, Nats, Redis, rsa_key

from .figures import Figures
from .load import SENDER_DOMAIN
from .waiting import DOMAINS, fill

# Deliveries of each scheduler; messages have two.
WAITING = 100_000
ROUNDS = 3
OTHER = "scheduler-2"


def owned(relay, scheduler):
    """How many partitions a scheduler has; 0 while it does not answer."""
    try:
        lines = relay.metric_lines(scheduler)
    except OSError:
        return 0
    found = [re.match(r"staffetta_scheduler_owned_partitions\S* (\S+)", line) for line in lines]
    return next((int(float(match[1])) for match in found if match), 0)


def waiting(relay, scheduler):
    """What waits, if all partitions have an owner, else 0; `scheduler` is asked who they are."""
    try:
        found = relay.queue(scheduler)
    except Failed:
        return 0
    return 0 if found["partitionsWithoutOwner"] else found["waiting"]


def taken(relay, scheduler):
    """How many partitions a scheduler has taken over since its start."""
    return relay.processes[scheduler].log.read_bytes().count(b"took the partition over")


def one_round(relay, leaves, stays, leave, expected):
    """One scheduler leaves; gives the seconds until the other has everything. Then it comes back."""
    before, lost = taken(relay, stays), owned(relay, leaves)
    start = time.monotonic()
    leave(relay.processes[leaves])
    wait_until(f"{stays} takes over", lambda: taken(relay, stays) >= before + lost, 60, every=0.01)
    wait_until(f"{stays} has all", lambda: waiting(relay, stays) >= expected, 60, every=0.01)
    seconds = time.monotonic() - start
    relay.processes[leaves].stop()
    relay.start(leaves)
    wait_until("each has its part", lambda: owned(relay, leaves) == owned(relay, stays) == 2
               and waiting(relay, stays) >= expected, 60, every=0.2)
    return seconds


def run(each=WAITING):
    """Runs it and prints the table."""
    case = f"takeover-{each // 1000}k"
    figures = Figures("takeover")
    with Rig("bench") as rig:
        key = rig.directory / "s1.pem"
        rsa_key(key)
        # Nobody listens there.
        domains = [f"d{n}.waiting.example" for n in range(DOMAINS)]
        dns = Dns(rig, mx={d: [(10, f"mx.{d}")] for d in domains}, a={f"mx.{d}": "127.0.0.9" for d in domains})
        relay = Relay(rig, Nats(rig), Redis(rig), dns)
        documents = bench_documents(key, 9, SENDER_DOMAIN)
        relay.apply(documents.replace("initial: 1s, factor: 2, max: 60s", "initial: 4h, factor: 2, max: 8h"))
        fill(relay.submission, each, recipients=2)
        wait_until("all tried once and waiting", lambda: relay.queue()["inFlight"] == 0
                   and all(row["ready"] == 0 for row in relay.queue()["rows"]), 1_800, every=1)
        found = relay.queue()["waiting"]
        figures.add(case, "waiting", found, "1")
        relay.add_scheduler(OTHER)
        wait_until("each has its part", lambda: owned(relay, OTHER) == owned(relay, "scheduler") == 2, 60, every=0.2)
        ways = [("stopped_seconds", "scheduler", OTHER, lambda process: process.child.terminate()),
                ("killed_seconds", OTHER, "scheduler", lambda process: process.kill())]
        longest = {}
        for number in range(1, ROUNDS + 1):
            for metric, leaves, stays, leave in ways:
                seconds = one_round(relay, leaves, stays, leave, found)
                figures.add(case, metric, seconds, round=number)
                longest[metric] = max(longest.get(metric, 0.0), seconds)
        for metric, seconds in longest.items():
            figures.add(case, metric, seconds)
    print(figures.table())
    print(f"written to {figures.path}")
