"""`make namespaces`: a relay of many pods under load, which is scaled, restarted, killed and cut off.

    python tests/namespaces/run.py [--rate N] [--seconds N] [--seed N]

Each pod is a process in a network namespace of its own: 3 ingress behind HAProxy with PROXY protocol, 2 signers
behind one DNS name, 2 schedulers, 1 to 8 senders, feedback, 3 NATS servers with three copies of everything, Redis,
DNS, three MX hosts. Clients submit through HAProxy at a steady rate and send again what got no 250. At the end
everything accepted was delivered or reported, nothing came twice that was not in doubt, and the limits held.

The last line is `namespaces: ok accepted=N …`, or `namespaces: FAILED …` with exit status 1.
"""

import argparse
import json
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from namespaces.clients import Clients  # noqa: E402
from namespaces.installation import (  # noqa: E402
    DOUBT_SECONDS, FAST_CONNECTIONS, NATS, SLOW_CONNECTIONS, SLOW_PER_SECOND, SUBMISSION, Installation)
from namespaces.ledger import Balance, Book  # noqa: E402
from rig.processes import Failed, Rig, wait_until  # noqa: E402

# A scheduler's lease is over, another has taken over, and connections of the old one are closed.
TAKEN_OVER = 15
CUT_SECONDS = 20


class Test:
    """One run."""

    def __init__(self, rig, arguments):
        self.rig, self.seconds = rig, arguments.seconds
        self.dice = random.Random(arguments.seed)
        self.relay = Installation(rig)
        self.clients = Clients(self.relay.network.addresses["proxy"], SUBMISSION, arguments.rate, arguments.seed)
        rig.at_end.append(self.clients.stop)
        # Times in which one owner's connections may still be open while another's are (ADR 6), or in which a host
        # has not learnt that a client is gone.
        self.excused = []
        self.events = {}

    def phase(self, name, action=lambda: None):
        """Does something under load, and sees that mail is accepted and delivered after it."""
        begun, accepted = time.monotonic(), self.clients.accepted()
        action()
        took = time.monotonic() - begun
        after, arrived = self.clients.accepted(), self.arrived()
        wait_until(f"mail is accepted and delivered after: {name}",
                   lambda: self.clients.accepted() > after + 20 and self.arrived() > arrived + 20, 90, every=0.5)
        time.sleep(self.seconds)
        self.read_events()
        print(f"  {name}: {took:.0f} s, {self.clients.accepted() - accepted} accepted by its end", flush=True)

    def arrived(self):
        # Lines, not messages: only that it grows matters.
        return sum(path.stat().st_size for path in self.relay.books.values()) // 100

    def read_events(self):
        """All events so far, by id. Journals are trimmed, so they are read from time to time."""
        schedulers = self.relay.running_services("scheduler")
        printed = self.relay.command("events", "--state", self.rig.directory / "events.state", scheduler=schedulers[0])
        for line in printed.splitlines():
            event = json.loads(line)
            if event["type"] in ("InDoubt", "gap", "Quarantined"):
                self.events[event.get("id", line)] = event

    # What is done to it.

    def scale(self, wanted):
        """Brings the senders to this number."""
        senders = sorted(self.relay.running_services("sender"))
        if wanted < len(senders):
            self.relay.stop(*senders[wanted:])
        for number in range(len(senders), wanted):
            self.relay.spawn(f"sender-{number}")
        for number in range(wanted):
            self.relay.wait_ready(f"sender-{number}")

    def restart(self, *names):
        """One after the other: SIGTERM, its end, its start, ready."""
        for name in names:
            begun = time.monotonic()
            self.relay.stop(name)
            self.relay.start(name)
            if name.startswith("nats"):
                self.relay.wait_nats()
            if name.startswith(("scheduler", "nats")):
                self.excuse(begun, TAKEN_OVER)

    def excuse(self, since, seconds):
        self.excused.append((since, time.monotonic() + seconds))

    def kill_nats(self):
        name = self.relay.nats_leader(self.dice)
        begun = time.monotonic()
        self.relay.kill(name)
        time.sleep(5)
        self.relay.start(name)
        self.relay.wait_nats()
        self.excuse(begun, TAKEN_OVER)

    def cut_off(self, name):
        """Nothing goes into or out of the pod for a while."""
        begun = time.monotonic()
        self.relay.network.cut(name)
        time.sleep(CUT_SECONDS)
        accepted = self.clients.accepted()
        wait_until(f"mail is accepted while {name} is away", lambda: self.clients.accepted() > accepted + 20, 60)
        self.relay.network.join(name)
        self.relay.wait_ready(name)
        self.excuse(begun, TAKEN_OVER)

    def all_took_part(self):
        """Every signer has signed and every ingress has accepted."""
        for service, metric in (("signer", "staffetta_signer_signatures_total"), ("ingress", "staffetta_ingress_messages_total")):
            for name in self.relay.running_services(service):
                if not self.relay.metric(name, metric):
                    raise Failed(f"{name} has done nothing: {metric} is 0")

    # The end of it.

    def run(self):
        relay = self.relay
        self.phase("4 senders", self.all_took_part_soon)
        self.phase("4 to 8 senders", lambda: self.scale(8))
        self.phase("8 to 1 senders", lambda: self.scale(1))
        self.phase("1 to 4 senders", lambda: self.scale(4))
        for service in ("ingress", "signer", "scheduler", "sender", "feedback"):
            self.phase(f"rolling restart of {service}", lambda: self.restart(*sorted(relay.running_services(service))))
        self.phase("restart of Redis and HAProxy", lambda: self.restart("redis", "proxy"))
        self.phase("rolling restart of NATS", lambda: self.restart(*NATS))
        self.phase("NATS server killed and brought back", self.kill_nats)
        self.phase("sender cut off", lambda: self.cut_off("sender-1"))
        self.phase("scheduler cut off", lambda: self.cut_off("scheduler-1"))
        if not self.clients.stop():
            raise Failed("clients did not get their 250 within 120 s of the end")
        return self.settle()

    def all_took_part_soon(self):
        wait_until("mail is accepted", lambda: self.clients.accepted() > 200, 120)
        self.all_took_part()

    def settle(self):
        """Waits until nothing is under way, and compares."""
        begun = time.monotonic()

        def still():
            queue = self.relay.queue()
            under_way = sum(queue[name] for name in ("waiting", "inFlight", "dsnOwed", "inDoubt"))
            return queue if not under_way and not queue["partitionsWithoutOwner"] else None

        queue = wait_until("nothing is under way", still, DOUBT_SECONDS + 180, every=1)
        print(f"  settled within {time.monotonic() - begun:.0f} s", flush=True)
        # What was reported is at its host; a moment for what should not come.
        time.sleep(2)
        self.read_events()
        self.relay.stop(*self.relay.running_services())
        books = {name: Book.read(path) for name, path in self.relay.books.items()}
        balance = Balance(self.clients.outcomes, self.clients.recipients, books.values())
        return self.verdict(queue, balance, books)

    def verdict(self, queue, balance, books):
        in_doubt = [event for event in self.events.values() if event["type"] == "InDoubt"]
        strict, peak = books["mx-slow"].most_connections(self.excused)
        fast, fast_peak = books["mx-one"].most_connections(self.excused)
        windows = books["mx-slow"].fullest_windows()
        waiting = queue["waiting"]
        lost = len(balance.missing) - waiting
        text = (
            f"accepted={len(balance.accepted)} delivered={balance.delivered} bounced={balance.bounced} waiting={waiting} "
            f"lost={lost} duplicates={balance.duplicates} in_doubt={len(in_doubt)} "
            f"unknown={len(balance.unknown)} (arrived {balance.unknown_arrived}) refused={balance.refused} "
            f"connections={fast}/{FAST_CONNECTIONS},{strict}/{SLOW_CONNECTIONS} (peak {fast_peak},{peak}) "
            f"rate={SLOW_PER_SECOND}/s in_windows={','.join(f'{count}/{seconds}s' for seconds, count in windows.items())}"
        )
        problems = []

        def must(condition, problem):
            if not condition:
                problems.append(problem)

        gaps = [event for event in self.events.values() if event["type"] == "gap"]
        quarantined = [event for event in self.events.values() if event["type"] == "Quarantined"]
        unexplained = balance.not_in_doubt({event["message_id"] for event in in_doubt})
        must(lost == 0, f"lost: {balance.missing[:5]}")
        must(balance.duplicates <= len(in_doubt), "more duplicates than attempts in doubt")
        must(not unexplained, f"came twice and was not in doubt: {unexplained[:5]}")
        must(not balance.duplicate_dsns, f"{balance.duplicate_dsns} notifications came twice")
        must(not balance.contradicted, f"delivered and reported as failed: {balance.contradicted[:5]}")
        must(not balance.refused_arrived, f"refused and arrived: {balance.refused_arrived[:5]}")
        must(not balance.wrong, f"wrong at the hosts: {dict(balance.wrong)}")
        must(not balance.strangers, f"never submitted: {balance.strangers[:5]}")
        must(balance.bounced, "nothing bounced, so that bounces were not tested")
        must(not self.clients.surprises, f"refused for good: {self.clients.surprises[:3]}")
        must(not gaps, "events were trimmed before they were read")
        must(not quarantined and not queue["quarantined"], "something is in quarantine")
        must(strict <= SLOW_CONNECTIONS and fast <= FAST_CONNECTIONS, "too many connections")
        must(peak <= 2 * SLOW_CONNECTIONS and fast_peak <= 2 * FAST_CONNECTIONS,
             "more connections than an old and a new owner may have together")
        # The limit counts what is given to senders; what is on its way then occupies a connection.
        for seconds, count in windows.items():
            must(count <= SLOW_PER_SECOND * seconds + peak, f"{count} messages within {seconds} s")
        must(windows[20] >= 0.6 * SLOW_PER_SECOND * 20, "the rate was never near its limit, so that it was not tested")
        if problems:
            raise Failed(f"{'; '.join(problems)}; {text}")
        return text


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=40, help="messages a second that the clients submit")
    parser.add_argument("--seconds", type=float, default=8, help="of load after each disturbance")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(31))
    arguments = parser.parse_args()
    print(f"namespaces: seed {arguments.seed}", flush=True)
    begun = time.monotonic()
    try:
        with Rig("namespaces") as rig:
            result = Test(rig, arguments).run()
    except Exception as failure:
        reason = failure if isinstance(failure, Failed) else f"{type(failure).__name__}: {failure}"
        print(f"namespaces: FAILED seed={arguments.seed} {reason}")
        sys.exit(1)
    print(f"namespaces: ok {result} seconds={time.monotonic() - begun:.0f}")


if __name__ == "__main__":
    main()
