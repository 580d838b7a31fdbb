"""Benchmark `sender`: what the sender alone costs.

`reused-plain`: CPU time of its process per message of 10 KiB over connections that are used again, without TLS.
`slow-10k`: its memory with 10,000 connections at a time to hosts that give each reply after two seconds.
"""

import time

from rig.processes import Failed, Rig
from rig.relay import Relay, bench_documents
from rig.servers import Dns, Nats, Redis, rsa_key

from .figures import Figures
from .load import SENDER_DOMAIN, SINK_DOMAIN, Sink, source
from .slow_hosts import SlowHosts

SIZE = 10 * 1024
MESSAGES = 30_000
CONNECTIONS = 10_000
# Each connection has that many messages, so that all of them are open at the same time.
ROUNDS = 2
REPLY_SECONDS = 2


class Installation:
    """Separate processes, of which the sender is looked at."""

    def __init__(self, rig, port, sender="", connections=200):
        key = rig.directory / "s1.pem"
        rsa_key(key)
        self.nats, self.redis = Nats(rig), Redis(rig)
        self.dns = Dns(rig, mx={SINK_DOMAIN: [(10, f"mx.{SINK_DOMAIN}")]}, a={f"mx.{SINK_DOMAIN}": "127.0.0.1"})
        self.relay = Relay(rig, self.nats, self.redis, self.dns, sender=sender)
        documents = bench_documents(key, port, SENDER_DOMAIN)
        self.relay.apply(documents.replace("connections: 200", f"connections: {connections}, tls: none"))
        self.sender = self.relay.processes["sender"]

    def metric(self, name):
        """The sum of a metric of the sender over its labels."""
        lines = self.relay.metric_lines("sender")
        return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))


def reused_plain(figures, messages):
    """The CPU time of the sender, the connections being there already."""
    with Rig("bench") as rig:
        sink = Sink(rig)
        installation = Installation(rig, sink.port)
        warm_up = messages // 10
        source(installation.relay.submission, warm_up, 50, SIZE)
        sink.wait_for(warm_up)
        names = ("staffetta_sender_reused_connections_total", "staffetta_sender_connects_total")
        cpu, before = installation.sender.cpu_us(), [installation.metric(name) for name in names]
        start = time.monotonic()
        source(installation.relay.submission, messages, 50, SIZE)
        sink.wait_for(warm_up + messages)
        elapsed = sink.last_at - start
        reused, connected = (installation.metric(name) - was for name, was in zip(names, before))
        case = "reused-plain"
        figures.add(case, "cpu_us_per_message", (installation.sender.cpu_us() - cpu) / messages)
        figures.add(case, "messages_per_second", messages / elapsed)
        figures.add(case, "reused_share", reused / max(1, reused + connected), "1")
        figures.add(case, "peak_rss_mib", installation.sender.peak_rss_kib() / 1024)


def slow_10k(figures, connections):
    """The memory of the sender while all hosts make it wait."""
    with Rig("bench") as rig:
        hosts = SlowHosts(REPLY_SECONDS)
        credit = f"credit: {min(65_536, connections * 2)}"
        installation = Installation(rig, hosts.port, sender=credit, connections=connections)
        messages, start = connections * ROUNDS, time.monotonic()
        source(installation.relay.submission, messages, 50, SIZE)
        last, changed_at = -1, time.monotonic()
        while hosts.messages < messages:
            if hosts.messages != last:
                last, changed_at = hosts.messages, time.monotonic()
            elif time.monotonic() - changed_at > 120:
                raise Failed(f"the slow hosts have {last} of {messages} messages and nothing more comes")
            time.sleep(0.2)
        case = "slow-10k"
        figures.add(case, "connections", hosts.most_open, "1")
        figures.add(case, "messages_per_second", messages / (time.monotonic() - start))
        figures.add(case, "peak_rss_mib", installation.sender.peak_rss_kib() / 1024)


def run(messages=MESSAGES):
    """Runs both and prints the table."""
    figures = Figures("sender")
    print("sender: reused-plain", flush=True)
    reused_plain(figures, messages)
    print("sender: slow-10k", flush=True)
    slow_10k(figures, min(CONNECTIONS, messages))
    for (case, metric), value in figures.values.items():
        print(f"{case:<14}{metric:<22}{value:>12,.2f}")
    print(f"written to {figures.path}")
