"""What a message costs the scheduler's process, as there are more destinations and more that waits: part of `scheduler`.

Installations run side by side, each with its own servers, senders and sink, and get the same messages from the same
clients in turns, so that a disturbance of the machine meets all alike. CPU time is that of the process `staffetta run
scheduler`, everything in it: gRPC, JetStream, Redis, DNS and the decisions.

| case | domains | sites (sets of MX hosts) | waiting | compared with |
|---|---|---|---|---|
| growth-10-domains | 10 | 10 | nothing | |
| growth-10000-domains | 10,000 | 10 | nothing | growth-10-domains |
| growth-1m-waiting | 10 | 10 | 1,000,000 deliveries to 1,000 other domains, held with FUTURERELEASE | growth-10-domains |
| growth-10-sites-apart | 10 | 10, a message per connection | nothing | |
| growth-10000-sites | 10,000 | 10,000 | nothing | growth-10-sites-apart |

The largest of the first two ratios is the figure of the budget. With 10,000 sites nearly every message needs a connection of its
own, which the scheduler has to lease, and a part of a rate of its own, about which it talks with Redis: other work, not the
same work that has become dearer. So it is compared with as many connections to few sites, stands apart, and
`connects_per_message` and `redis_per_message` (words about connections and rates) are given beside the CPU time.
"""

import contextlib
import re

from rig.processes import Rig, wait_until
from rig.relay import Relay, bench_documents
from rig.servers import Dns, Nats, Redis, rsa_key

from .load import SENDER_DOMAIN, Sink
from .waiting import DOMAINS, fill, waiting_domain

# Domains, sites, messages per connection, deliveries that wait, and with what it is compared.
CASES = {
    "growth-10-domains": (10, 10, 10_000, 0, None),
    "growth-10000-domains": (10_000, 10, 10_000, 0, "growth-10-domains"),
    "growth-1m-waiting": (10, 10, 10_000, 1_000_000, "growth-10-domains"),
    "growth-10-sites-apart": (10, 10, 1, 0, None),
    "growth-10000-sites": (10_000, 10_000, 10_000, 0, "growth-10-sites-apart"),
}
# Whose ratio is not one of the budget.
APART = ("growth-10000-sites",)
ROUNDS = 6
MESSAGES = 10_000
CLIENTS = 40
HOLD_SECONDS = 86_400
RECIPIENTS = 10


class Case:
    """An installation, with what waits in it."""

    def __init__(self, rig, domains, sites, per_connection, waiting):
        self.domains, self.sent, self.cpu_us = domains, 0, 0
        self.sink = Sink(rig)
        key = rig.directory / "s1.pem"
        rsa_key(key)
        mx = {f"d{n}.fast.example": [(10, f"mx{n % sites}.fast.example")] for n in range(domains)}
        a = {f"mx{n}.fast.example": "127.0.0.1" for n in range(sites)}
        held = {waiting_domain(n): [(10, "mx.waiting.example")] for n in range(DOMAINS)}
        dns = Dns(rig, mx={**mx, **held}, a={**a, "mx.waiting.example": "127.0.0.9"}, ttl=3_600)
        self.relay = Relay(rig, Nats(rig), Redis(rig), dns)
        documents = bench_documents(key, self.sink.port, SENDER_DOMAIN)
        self.relay.apply(documents.replace("messagesPerConnection: 10000", f"messagesPerConnection: {per_connection}"))
        self.send(MESSAGES)
        if waiting:
            fill(self.relay.submission, waiting // RECIPIENTS, recipients=RECIPIENTS, hold=HOLD_SECONDS)
            wait_until("all waiting", lambda: self.relay.queue()["waiting"] >= waiting * 0.99, 600, every=1)
            self.send(MESSAGES)
        self.sent = 0
        self.counted = self.counts()

    def send(self, messages):
        """Sends so many and waits until all are delivered; adds the scheduler's CPU time of it."""
        scheduler, before = self.relay.processes["scheduler"], self.sink.count
        cpu_us = scheduler.cpu_us()
        # Neighbours go to unrelated domains.
        messages = fill(self.relay.submission, messages, CLIENTS,
                        domain=lambda n: f"d{n * 7_919 % self.domains}.fast.example")
        self.sink.wait_for(before + messages, stalled_seconds=120)
        wait_until("all stored", lambda: self.relay.queue()["inFlight"] == 0, 60, every=0.5)
        self.cpu_us += scheduler.cpu_us() - cpu_us
        self.sent += messages

    def counts(self):
        """Connections made, and words with Redis, so far."""
        def total(service, name):
            found = (re.match(rf"{name}\S* (\S+)", line) for line in self.relay.metric_lines(service))
            return sum(float(match[1]) for match in found if match)
        return {"connects": total("sender", "staffetta_sender_connects_total"),
                "redis": total("scheduler", "staffetta_scheduler_(?:grants|connection_leases)_total")}


def measure(add, cases=CASES, rounds=ROUNDS, messages=MESSAGES):
    """Measures, gives `add` each figure (case, metric, value, unit), and returns the largest ratio of the budget."""
    with contextlib.ExitStack() as stack:
        running = {}
        for name, (*sizes, _) in cases.items():
            print(f"growth: starting {name}", flush=True)
            running[name] = Case(stack.enter_context(Rig("bench")), *sizes)
            running[name].cpu_us = 0
        for _ in range(rounds):
            for case in running.values():
                case.send(messages)
        costs = {name: case.cpu_us / case.sent for name, case in running.items()}
        ratios = []
        for name, case in running.items():
            add(name, "process_cpu_us_per_message", costs[name], "us")
            if other := cases[name][-1]:
                ratio = costs[name] / costs[other]
                add(name, "process_cpu_ratio", ratio, "1")
                if name not in APART:
                    ratios.append(ratio)
            for what, count in case.counts().items():
                add(name, f"{what}_per_message", (count - case.counted[what]) / case.sent, "1")
        return max(ratios)
