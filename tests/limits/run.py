"""`make limits`: limits of many sizes under load, against a host that enforces them.

    python tests/limits/run.py [--seconds N] [--short | --faults]

Three schedulers, four senders, real NATS and Redis, a sink that counts connections and messages per source address in
sliding windows and answers 421 above. More is always submitted than the limits let through. No limit is ever exceeded,
neither when MAIL is counted nor when the final dot is, and at least 95 % of each is used. Some are of a provider with
several sites, which the host counts together. `--short` is the form for `make test`:
windows of a second and connections only, on a machine that may have other things to do: half of each is used. With `--faults`
processes are killed and stopped, Redis hangs, is emptied and starts anew, and mail must move after each (faults.py);
how much of a limit is used is not looked at, and at least one round of faults is made.

`core_wait_ms` is how long a thread of the relay waited for a core on average each time that it had something to do: a
message passes about fifteen of them from its assignment to its dot, and of a window of a second that time can't be used.

The last line is `limits: ok …`, or `limits: FAILED …` with exit status 1.
"""

import argparse
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from limits.book import fullest, open_at_once, used  # noqa: E402
from limits.faults import Faults  # noqa: E402
from limits.installation import Installation, Limit  # noqa: E402
from limits.load import Load  # noqa: E402
from limits.sink import LOOK_AROUND  # noqa: E402
from rig.processes import Failed, Rig  # noqa: E402

# Redis is new: for one window and the life of a slice more nobody knows what was used before (90 s for a minute).
SETTLE_MINUTES, SETTLE = 70, 25
LEAST, LEAST_SHORT = 0.95, 0.5
# How much closer together two messages may come to the host than they were sent, seconds. The host dates octets by
# the kernel's time stamp of their arrival, and over the loopback they arrive within the system call that sends them: what
# is left is a process that is stopped between two instructions. Connections are dated in steps of 4 ms.
UNEVEN = 0.005


def limits(short):
    """Of many sizes."""
    all_sizes = [
        Limit("one-a-minute", messages=[(1, 60)]),
        Limit("thirty-a-minute", messages=[(30, 60)]),
        Limit("ten-a-second", messages=[(10, 1)], backlog=120),
        Limit("hundred-a-second", messages=[(100, 1)], backlog=600),
        Limit("two-windows", messages=[(200, 1), (6000, 60)], backlog=1200),
        Limit("one-connection", connections=1, delay=0.1),
        Limit("three-connections", connections=3, delay=0.1, backlog=120),
        Limit("sixteen-connections", connections=16, delay=0.25, backlog=300),
        Limit("opened", opened=[(60, 60)], delay=0.1),
        Limit("provider-rate", messages=[(50, 1)], backlog=400, sites=8),
        Limit("provider-connections", connections=4, delay=0.1, backlog=200, sites=8),
        Limit("provider-opened", opened=[(60, 60)], delay=0.1, sites=4),
    ]
    minutes = ("thirty-a-minute", "two-windows", "opened", "provider-opened")
    return [limit for limit in all_sizes if not (short and limit.name in minutes)]


class Test:
    """One run."""

    def __init__(self, rig, arguments):
        self.seconds, self.short, self.faulty = arguments.seconds, arguments.short, arguments.faults
        self.relay = Installation(rig, limits(self.short), UNEVEN)
        self.load = Load(self.relay.submission, self.wanted)
        rig.at_end.append(self.load.stop)

    def wanted(self, submitted):
        """What each destination is short of."""
        book = self.relay.book.read()
        return {domain: (len(book.mail[limit.source]) + limit.backlog) // limit.sites - submitted.get(domain, 0)
                for limit in self.relay.limits for domain in limit.domains}

    def run(self):
        begun = time.monotonic()
        # The connections' leases are known after their life, the short windows after theirs.
        settled = begun + SETTLE
        end = settled + self.seconds
        waits = self.relay.core_waits()
        if self.faulty:
            time.sleep(SETTLE)
            faults = Faults(self.relay)
            faults.run(end)
            end = time.monotonic()
            print("faults: " + ", ".join(faults.done))
        while not self.load.failure and (now := time.monotonic()) < end:
            time.sleep(min(1, end - now))
        if self.load.failure:
            raise Failed(f"the clients: {self.load.failure!r}")
        waited, runs = (now - before for now, before in zip(self.relay.core_waits(), waits))
        self.core_wait = waited / max(runs, 1)
        self.load.stop()
        time.sleep(0.3)
        return self.verdict(begun, settled, end)

    def verdict(self, begun, settled, end):
        book = self.relay.book.read()
        problems, figures = [], []
        least = 0 if self.faulty else LEAST_SHORT if self.short else LEAST
        for limit in self.relay.limits:
            dots, opened = book.dots[limit.source], book.opened[limit.source]
            parts = []
            for times, windows in ((dots, limit.messages), (opened, limit.opened)):
                for count, seconds in windows:
                    since = begun + SETTLE_MINUTES if seconds == 60 else settled
                    part = used(times, count, seconds, since)
                    counted = [times, book.mail[limit.source]] if times is dots else [times]
                    most = "+".join(str(fullest(some, seconds)) for some in counted)
                    figures.append(f"{limit.name}={most}/{count}")
                    if part is not None:
                        parts.append(part)
            if limit.connections:
                most, mean = open_at_once(opened, book.closed[limit.source], settled, end, LOOK_AROUND)
                parts.append(mean / limit.connections)
                figures.append(f"{limit.name}={most}/{limit.connections}")
            if parts:
                figures[-1] += f":{max(parts):.3f}"
                if max(parts) < least:
                    problems.append(f"only {max(parts):.3f} of {limit.name} was used")
            elif not (self.short or self.faulty):
                problems.append(f"nothing is known of {limit.name}")
        messages = sum(map(len, book.mail.values()))
        for moment, source, what in book.above[:5]:
            name = next(limit.name for limit in self.relay.limits if limit.source == source)
            problems.append(f"{name}: {what} above the limit after {moment - begun:.1f} s")
        text = (f"violations={len(book.above)} messages={messages} {' '.join(figures)} "
                f"core_wait_ms={self.core_wait * 1000:.2f} sink_late={max(book.late, default=0):.3f}")
        if problems:
            raise Failed(f"{'; '.join(problems)}; {text}")
        return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=600, help="of load after the first moments")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--short", action="store_true", help="the form for `make test`")
    form.add_argument("--faults", action="store_true", help="while processes and Redis fail")
    arguments = parser.parse_args()
    begun = time.monotonic()
    try:
        with Rig("limits") as rig:
            result = Test(rig, arguments).run()
    except Exception as failure:
        reason = failure if isinstance(failure, Failed) else f"{type(failure).__name__}: {failure}"
        print(f"limits: FAILED {reason}")
        sys.exit(1)
    print(f"limits: ok {result} seconds={time.monotonic() - begun:.0f}")


if __name__ == "__main__":
    main()
