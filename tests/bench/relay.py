"""Benchmark `relay`: smtp-source through a relay to smtp-sink, Staffetta against Postfix with OpenDKIM.

Messages of 10 KiB with one recipient, signed with DKIM RSA-2048, counted at the sink. Each case has a run
for speed, CPU and memory, and a shorter one under strace that only counts fsyncs. CPU time per message is also given
in RSA-2048 signatures of openssl, timed on all cores right before and after: a shared machine changes its speed.
"""

import os
import subprocess
import time

from rig.postfix import Postfix
from rig.processes import Failed, Rig
from rig.relay import Relay, bench_documents
from rig.servers import Dns, Nats, Redis, rsa_key

from .figures import Figures
from .load import SENDER_DOMAIN, SINK_DOMAIN, Prober, Sink, paced, source

SIZE = 10 * 1024
SESSIONS = 50
CASES = ("staffetta-processes", "staffetta-all", "postfix-opendkim")


class PostfixCase:
    """Postfix and OpenDKIM; everything they run is what the relay costs."""

    def __init__(self, rig, sink, trace_fsyncs=None):
        key = rig.directory / "s1.pem"
        rsa_key(key)
        self.postfix = Postfix(rig, sink.port, key, SENDER_DOMAIN, trace_fsyncs=trace_fsyncs)
        self.port = self.postfix.port

    def cpu_us(self):
        return {"postfix": self.postfix.cpu_us(), "opendkim": self.postfix.opendkim.cpu_us()}

    def peak_rss_kib(self):
        return {"postfix": self.postfix.peak_rss_kib(), "opendkim": self.postfix.opendkim.peak_rss_kib()}


class StaffettaCase:
    """Staffetta with its servers, as one process for each service or as a single one."""

    def __init__(self, rig, sink, services, trace_fsyncs=None):
        key = rig.directory / "s1.pem"
        rsa_key(key)
        self.nats, self.redis = Nats(rig, trace_fsyncs), Redis(rig)
        self.dns = Dns(rig, mx={SINK_DOMAIN: [(10, f"mx.{SINK_DOMAIN}")]}, a={f"mx.{SINK_DOMAIN}": "127.0.0.1"})
        self.relay = Relay(rig, self.nats, self.redis, self.dns, services=services)
        self.relay.apply(bench_documents(key, sink.port, SENDER_DOMAIN))
        self.port = self.relay.submission
        self.processes = {"nats-server": self.nats.process, "redis-server": self.redis.process, **self.relay.processes}

    def cpu_us(self):
        return {name: process.cpu_us() for name, process in self.processes.items()}

    def peak_rss_kib(self):
        return {name: process.peak_rss_kib() for name, process in self.processes.items()}


def start_case(case, rig, sink, trace_fsyncs=None):
    if case == "postfix-opendkim":
        return PostfixCase(rig, sink, trace_fsyncs)
    services = "separate" if case == "staffetta-processes" else "all"
    return StaffettaCase(rig, sink, services, trace_fsyncs)


def rsa_2048_us(processes=None):
    """CPU time of one RSA-2048 signature by openssl, while all cores sign or as many processes as said."""
    cores = processes or os.cpu_count()
    done = subprocess.run(["openssl", "speed", "-seconds", "2", "-multi", str(cores), "rsa2048"],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=False)
    columns = done.stdout.splitlines()[-1].split() if done.stdout else []
    if columns[:2] != ["rsa", "2048"]:
        raise Failed("openssl speed rsa2048 prints no figures")
    # Of: rsa 2048 bits, seconds per signature and per verification, signatures and verifications per second.
    return cores * 1e6 / float(columns[5])


def measure(figures, case, messages):
    """The run for speed, CPU, memory and latency."""
    with Rig("bench") as rig:
        sink = Sink(rig)
        subject = start_case(case, rig, sink)
        warm_up = messages // 10
        source(subject.port, warm_up, SESSIONS, SIZE)
        sink.wait_for(warm_up)

        operations = subject.nats.operations() if hasattr(subject, "nats") else None
        blocks = subject.relay.blocks() if hasattr(subject, "relay") else None
        signature_us = rsa_2048_us()
        cpu_before, start = subject.cpu_us(), time.monotonic()
        source(subject.port, messages, SESSIONS, SIZE)
        sink.wait_for(warm_up + messages)
        elapsed, cpu = sink.last_at - start, subject.cpu_us()
        signature_us = (signature_us + rsa_2048_us()) / 2

        figures.add(case, "messages_per_second", messages / elapsed)
        spent_us = sum(cpu[name] - cpu_before[name] for name in cpu) / messages
        figures.add(case, "cpu_us_per_message", spent_us)
        figures.add(case, "rsa_2048_us", signature_us)
        figures.add(case, "cpu_in_signatures", spent_us / signature_us)
        for name in cpu:
            figures.add(case, "cpu_us_per_message", (cpu[name] - cpu_before[name]) / messages, process=name)
        if operations:
            after = subject.nats.operations()
            figures.add(case, "jetstream_ops_per_message",
                        max(after[d] - operations[d] for d in ("in_msgs", "out_msgs")) / messages)
        if blocks:
            report_blocks(figures, case, blocks, subject.relay.blocks())

        # Latency in a run of its own, so that the prober's messages are in no other figure.
        prober = Prober(subject.port, SIZE)
        source(subject.port, messages // 2, SESSIONS, SIZE)
        p50, p99 = prober.stop()
        sink.wait_for(warm_up + messages + messages // 2 + prober.sent)
        figures.add(case, "accept_p50_ms", p50)
        figures.add(case, "accept_p99_ms", p99)

        waits_before = subject.relay.waits() if hasattr(subject, "relay") else None
        half = paced(subject.port, messages // 4, messages / elapsed / 2, SIZE)
        figures.add(case, "half_load_per_second", half["per_second"])
        figures.add(case, "half_load_accept_p50_ms", half["p50_ms"])
        figures.add(case, "half_load_accept_p99_ms", half["p99_ms"])
        if waits_before:
            waits = subject.relay.waits()
            count = waits["accept_count"] - waits_before["accept_count"]
            for part in ("accept", "storage"):
                total = waits[f"{part}_sum"] - waits_before[f"{part}_sum"]
                figures.add(case, f"half_load_{part}_mean_ms", total / count * 1000)
        rss = subject.peak_rss_kib()
        figures.add(case, "peak_rss_mib", sum(rss.values()) / 1024)
        for name in rss:
            figures.add(case, "peak_rss_mib", rss[name] / 1024, process=name)


def report_blocks(figures, case, before, after):
    """The histogram of block sizes: how many blocks held up to so many messages."""
    counts = {bound: after[bound] - before.get(bound, 0) for bound in after}
    blocks, messages = counts.pop("count"), counts.pop("sum")
    below = 0
    for bound in sorted(counts, key=float):
        figures.add(case, "blocks", counts[bound] - below, "1", messages_at_most=bound)
        below = counts[bound]
    if blocks:
        figures.add(case, "messages_per_block", messages / blocks)


def count_fsyncs(figures, case, messages):
    """A run under strace that counts fsync and fdatasync, and nothing else."""
    with Rig("bench") as rig:
        sink = Sink(rig)
        report = rig.directory / "fsyncs"
        subject = start_case(case, rig, sink, trace_fsyncs=report)
        warm_up = messages // 5
        source(subject.port, warm_up, SESSIONS, SIZE)
        sink.wait_for(warm_up, stalled_seconds=60)
        before = fsyncs(report)
        source(subject.port, messages, SESSIONS, SIZE)
        sink.wait_for(warm_up + messages, stalled_seconds=60)
        # What follows the last delivery belongs to the messages too.
        time.sleep(1)
        figures.add(case, "fsyncs_per_message", (fsyncs(report) - before) / messages)


def fsyncs(report):
    """Calls in what strace has written so far; a call that was interrupted by others has its second line apart."""
    return sum("sync(" in line for line in report.read_text().splitlines())


def run(cases=CASES, messages=None):
    """Runs the cases one after another and prints the table."""
    figures = Figures("relay")
    for case in cases:
        slow = case == "postfix-opendkim"
        print(f"relay: {case}", flush=True)
        measure(figures, case, messages or (4_000 if slow else 30_000))
        count_fsyncs(figures, case, (messages or 4_000) // 2 if slow else (messages or 10_000) // 2)
    yardstick = figures.values.get(("postfix-opendkim", "messages_per_second"))
    for case in cases:
        if yardstick and case != "postfix-opendkim":
            figures.add(case, "ratio_to_postfix", figures.values[case, "messages_per_second"] / yardstick)
    print(figures.table())
    print(f"written to {figures.path}")
