"""Benchmark `waiting-100k`: what 100,000 waiting messages cost, with varied domains and addresses.

The messages go to domains whose MX host does not answer. `bytes_per_delivery` is the growth of the
scheduler's memory divided by the deliveries; `recovery_seconds` the time from the start of a killed
scheduler to the moment when it is ready with all of them; `cpu_ratio` the scheduler's CPU time per message
delivered to another domain while they wait, divided by that with nothing waiting.
"""

import re
import smtplib
import threading
import time

from rig.processes import Rig, free_port, wait_until
from rig.relay import Relay, bench_documents
from rig.servers import Dns, Nats, Redis, rsa_key

from .figures import Figures
from .load import SENDER_DOMAIN, SINK_DOMAIN, Sink, source

WAITING = 100_000
DOMAINS = 1_000
PROBE_MESSAGES = 10_000
CASE = "waiting-100k"


def waiting_domain(number):
    """One of the domains whose MX host does not answer."""
    return f"d{number % DOMAINS}.waiting.example"


def submit_varied(port, first, count, recipients, domain, hold):
    """Submits short messages to addresses of their own in many domains, pipelined, over one connection."""
    hold = f" HOLDFOR={hold}" if hold else ""
    client = smtplib.SMTP("127.0.0.1", port, "client.example", timeout=120)
    client.ehlo()
    stream = client.sock.makefile("rwb")
    batch = 50
    for start in range(first, first + count, batch):
        numbers = range(start, min(start + batch, first + count))
        for n in numbers:
            to = "".join(f"RCPT TO:<user{n}.{n * 7919 % 100003}@{domain(n + k)}>\r\n" for k in range(recipients))
            stream.write(f"MAIL FROM:<load@{SENDER_DOMAIN}>{hold}\r\n{to}DATA\r\n".encode())
            stream.flush()
            for _ in range(2 + recipients):
                reply = stream.readline()
                if reply[:1] not in b"23":
                    raise RuntimeError(f"refused: {reply!r}")
            stream.write(
                f"From: <load@{SENDER_DOMAIN}>\r\nTo: <x@waiting.example>\r\nSubject: waits {n}\r\n\r\nBody {n}\r\n.\r\n".encode()
            )
            stream.flush()
            reply = stream.readline()
            if not reply.startswith(b"250"):
                raise RuntimeError(f"refused: {reply!r}")
    client.quit()


def fill(port, count, clients=64, recipients=1, domain=waiting_domain, hold=0):
    """Submits messages from many connections at once, each to recipients in so many domains; gives how many.

    `domain` gives the domain by the number of a message. They are held for so many seconds (FUTURERELEASE).
    """
    problems = []

    def one(number):
        try:
            submit_varied(port, number * (count // clients), count // clients, recipients, domain, hold)
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=one, args=(n,), daemon=True) for n in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(1200)
    if problems:
        raise problems[0]
    return count // clients * clients


def rss_kib(process):
    with open(f"/proc/{process.pid}/status") as status:
        return int(re.search(r"VmRSS:\s+(\d+)", status.read())[1])


def cpu_per_message(relay, sink):
    """CPU of the scheduler for each of some messages that are delivered at once."""
    scheduler = relay.processes["scheduler"]
    before, count = scheduler.cpu_us(), sink.count
    source(relay.submission, PROBE_MESSAGES, 50, 2048)
    sink.wait_for(count + PROBE_MESSAGES)
    return (scheduler.cpu_us() - before) / PROBE_MESSAGES


def run(waiting=WAITING):
    """Runs it and prints the table."""
    figures = Figures("relay", only_case=CASE)
    with Rig("bench") as rig:
        sink = Sink(rig)
        key = rig.directory / "s1.pem"
        rsa_key(key)
        # Nobody listens at this address on the port of the sink.
        silent = "127.0.0.9"
        domains = [f"d{n}.waiting.example" for n in range(DOMAINS)]
        dns = Dns(rig, mx={SINK_DOMAIN: [(10, f"mx.{SINK_DOMAIN}")], **{d: [(10, f"mx.{d}")] for d in domains}},
                  a={f"mx.{SINK_DOMAIN}": "127.0.0.1", **{f"mx.{d}": silent for d in domains}})
        relay = Relay(rig, Nats(rig), Redis(rig), dns)
        documents = bench_documents(key, sink.port, SENDER_DOMAIN)
        relay.apply(documents.replace("initial: 1s, factor: 2, max: 60s", "initial: 1h, factor: 2, max: 4h"))
        source(relay.submission, PROBE_MESSAGES // 4, 50, 2048)
        sink.wait_for(PROBE_MESSAGES // 4)
        empty_cpu = cpu_per_message(relay, sink)
        empty_rss = rss_kib(relay.processes["scheduler"])

        stored = fill(relay.submission, waiting)
        wait_until("all tried once and waiting", lambda: relay.queue()["inFlight"] == 0
                   and all(row["ready"] == 0 for row in relay.queue()["rows"]), 900, every=1)
        found = relay.queue()["waiting"]
        figures.add(CASE, "waiting", found, "1")
        figures.add(CASE, "bytes_per_delivery",
                    (rss_kib(relay.processes["scheduler"]) - empty_rss) * 1024 / stored)
        figures.add(CASE, "cpu_ratio", cpu_per_message(relay, sink) / empty_cpu)

        relay.processes["scheduler"].kill()
        # The lease of the dead one has to run out first; that is no part of the recovery.
        time.sleep(8)
        start = time.monotonic()
        relay.start("scheduler")
        wait_until("all waiting again", lambda: relay.owned_waiting() >= found, 120)
        figures.add(CASE, "recovery_seconds", time.monotonic() - start)
    print(figures.table())
    print(f"written to {figures.path}")
