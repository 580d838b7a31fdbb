"""Benchmark `ingress`: what accepting a message costs the service, and what a connection costs that does nothing.

Messages of 10 KiB with one recipient come over 20 connections; `cpu_us_per_message` is CPU time of the ingress process
alone, what it does for the storage included: `plain` without TLS, `tls` with it (handshakes are made before), `quotas`
without TLS and with three windows for the credential and one for its tenant. `bytes_per_connection` is the growth of its
memory by connections that have said EHLO and then nothing.
"""

import pathlib
import resource
import socket
import ssl
import threading

from rig.processes import Failed, Rig, run
from rig.relay import Relay, bench_documents
from rig.servers import Dns, Nats, Redis, rsa_key

from .figures import Figures
from .load import SENDER_DOMAIN, SINK_DOMAIN, Sink

MESSAGES = 20_000
CLIENTS = 20
IDLE = 2_000
LINE = b"0123456789" * 7 + b"\r\n"
CONTENT = (f"From: load@{SENDER_DOMAIN}\r\nTo: user@{SINK_DOMAIN}\r\nSubject: bench\r\n\r\n".encode()
           + LINE * (10 * 1024 // len(LINE)) + b".\r\n")
# Clients from here have quotas, too wide to be used up.
LIMITED = """---
apiVersion: staffetta.dev/v1alpha1
kind: Credential
metadata: { name: limited }
spec:
  tenant: bench
  networks: ["127.9.0.0/16"]
  limits: { quotas: [1000000/m, 10000000/h, 100000000/12h], monthly: 1000000000, overQuota: defer }
"""


class Client:
    """A connection that submits."""

    def __init__(self, port, source="127.0.0.1", tls=None):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=60, source_address=(source, 0))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname="relay.example.com")
        self.stream = self.socket.makefile("rb")
        self.expect(b"220")
        self.say(b"EHLO client.example\r\n", b"250")

    def expect(self, code):
        line = self.stream.readline()
        while line[3:4] == b"-":
            line = self.stream.readline()
        if not line.startswith(code):
            raise Failed(f"ingress says {line!r}")

    def say(self, octets, code):
        self.socket.sendall(octets)
        self.expect(code)

    def submit(self):
        self.socket.sendall(f"MAIL FROM:<load@{SENDER_DOMAIN}>\r\nRCPT TO:<user@{SINK_DOMAIN}>\r\nDATA\r\n".encode())
        for code in (b"250", b"250", b"354"):
            self.expect(code)
        self.say(CONTENT, b"250")


def submit(clients, messages):
    """Submits over all of them at once."""
    problems = []

    def one(client):
        try:
            for _ in range(messages // len(clients)):
                client.submit()
        except (OSError, Failed) as problem:
            problems.append(problem)

    threads = [threading.Thread(target=one, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if problems:
        raise Failed(f"submission: {problems[0]}")


def rss_bytes(pid):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise Failed("ingress is gone")


def run_bench(messages=MESSAGES):
    """Runs it and prints the figures."""
    figures = Figures("ingress")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * IDLE)), hard))
    with Rig("bench") as rig:
        sink = Sink(rig)
        key, certificate = rig.directory / "s1.pem", (rig.directory / "cert.pem", rig.directory / "key.pem")
        rsa_key(key)
        run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
             "-subj", "/CN=relay.example.com", "-keyout", certificate[1], "-out", certificate[0]])
        nats, redis = Nats(rig), Redis(rig)
        dns = Dns(rig, mx={SINK_DOMAIN: [(10, f"mx.{SINK_DOMAIN}")]}, a={f"mx.{SINK_DOMAIN}": "127.0.0.1"})
        relay = Relay(rig, nats, redis, dns, certificate=certificate)
        relay.apply(bench_documents(key, sink.port, SENDER_DOMAIN) + LIMITED)
        ingress = relay.processes["ingress"]

        tls = ssl.create_default_context()
        tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
        cases = {
            "plain": [Client(relay.submission) for _ in range(CLIENTS)],
            "tls": [Client(relay.submissions, tls=tls) for _ in range(CLIENTS)],
            "quotas": [Client(relay.submission, source="127.9.0.1") for _ in range(CLIENTS)],
        }
        for case, clients in cases.items():
            submit(clients, messages // 10)
            before = ingress.cpu_us()
            submit(clients, messages)
            figures.add(case, "cpu_us_per_message", (ingress.cpu_us() - before) / messages)

        before = rss_bytes(ingress.pid)
        idle = [Client(relay.submission) for _ in range(IDLE)]
        figures.add("idle", "bytes_per_connection", (rss_bytes(ingress.pid) - before) / len(idle), "B")
        before = rss_bytes(ingress.pid)
        idle = [Client(relay.submissions, tls=tls) for _ in range(IDLE // 4)]
        figures.add("idle-tls", "bytes_per_connection", (rss_bytes(ingress.pid) - before) / len(idle), "B")
    for (case, metric), value in figures.values.items():
        print(f"{case:<12}{metric:<26}{value:>12,.1f}", flush=True)
    print(f"written to {figures.path}")
